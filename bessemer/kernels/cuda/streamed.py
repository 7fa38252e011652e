"""Matrix products of few tokens whose weights stream from memory into registers: templates/streamed.cu."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

from bessemer.core.dim import ceildiv
from bessemer.ir.graph import TensorType
from bessemer.kernels.base import Config, Int, KernelCode, Launch, Limits, Map, Pack, Problem, Ptr, Reason, register
from bessemer.kernels.cuda import emit, scalar, tiled
from bessemer.kernels.cuda.epilogue import Epilogue, epilogue
from bessemer.kernels.cuda.gemm_tma import rows_of
from bessemer.kernels.cuda.row_sums import count_of_row
from bessemer.kernels.cuda.tile import ROW
from bessemer.kernels.cuda.tiled import Rows
from bessemer.kernels.cuda.weights import BLOCK
from bessemer.kernels.gpu.shapes import shared_bytes, sms
from bessemer.kernels.row_sums import finished

MOST_TOKENS, MOST_OF_TILE, PART = 1024, 256, 32
BLOCKS, SPLITS, ACROSS = (1, 2), (1, 2, 3, 4, 6, 8), (1, 2, 4)
DEPTHS = (6, 5, 4, 3, 2)  # chunks of weights that are under way to a thread
MOST_STAGES, MOST_CLUSTER, MOST_CONFIGS = 10, 8, 16
REGISTERS, FEW = {1: 255, 2: 168}, 56  # of a thread by blocks; those it needs besides sums and weights
FRAGMENT = 16  # registers of a chunk of weights
# Microseconds of a launch with its first copies and stores, and of a chunk beside what it copies or multiplies; bytes of
# a multiprocessor's shared memory, from L2 in all, and of partial sums that are handed on
START_US, CHUNK_US, SHARED_BYTES_PER_US = 1.9, 0.16, 235_000.0
COPY_BYTES_PER_US, SUM_BYTES_PER_US = 10_550_000.0, 23_200.0
PRODUCT_US = 64 * BLOCK * 2 / 7_500_000.0  # of a chunk of 64 channels by a token


@dataclass(frozen=True)
class Tile:
    """One way to cut a product: see the head of templates/streamed.cu."""

    tokens: int
    blocks: int
    stages: int
    depth: int
    split: int = 1
    across: int = 1

    @property
    def cluster(self) -> int:
        return self.split * self.across

    @property
    def warps(self) -> int:
        return 4 * self.blocks + 2

    @property
    def received(self) -> int:
        """Bytes of the sums of others."""
        return (self.split - 1) * ceildiv(self.tokens // PART, self.split) * self.blocks * 128 * 64

    def shared(self, of_row: int, adds: bool) -> int:
        """Bytes of shared memory: the ring, the sums of others, values of rows, sums of rows, and barriers."""
        rows = self.tokens * (4 * of_row + (32 * self.blocks if adds else 0))
        return self.stages * (self.tokens * ROW + 16) + self.received + rows + 8


class GemmStreamed:
    """matmul in f16 and bf16 of a fixed number of tokens, up to 1024, with a constant b, as cuda_gemm_tma takes it."""

    name = "cuda_gemm_streamed"
    version = 1
    language = "cuda"

    def applicable(self, problem: Problem, target: Limits) -> Reason | None:
        rows = rows_of(problem)
        if isinstance(rows, Reason):
            return rows
        missing = tiled.reason(problem, target, rows)
        if missing is not None:
            return missing
        if not isinstance(rows.tokens, int) or rows.tokens > MOST_TOKENS:
            return Reason(f"packs weights its own way, for a fixed number of at most {MOST_TOKENS} tokens alone")
        if not self.configs(problem, target):
            return Reason(f"{rows.chunks} chunks of the sum do not divide among threads")
        return None

    def configs(self, problem: Problem, target: Limits) -> Sequence[Config]:
        found = sorted(_tiles(problem, target, _known(problem)), key=lambda t: _microseconds(problem, target, t))
        return [{f.name: getattr(t, f.name) for f in fields(Tile)} for t in found[:MOST_CONFIGS]]

    def estimate(self, problem: Problem, target: Limits, config: Config) -> float:
        """Microseconds at the opt shape."""
        return _microseconds(problem, target, _tile(config))

    def emit(self, problem: Problem, target: Limits, config: Config) -> KernelCode:
        return _code(problem, _known(problem), _tile(config))


def _known(problem: Problem) -> Rows:
    rows = rows_of(problem)
    assert isinstance(rows, Rows)
    return rows


def _tile(config: Config) -> Tile:
    return Tile(**{f.name: int(config[f.name]) for f in fields(Tile)})


def _tokens(rows: Rows) -> int:
    assert isinstance(rows.tokens, int)
    return rows.tokens


def _tiles(problem: Problem, target: Limits, rows: Rows) -> Iterator[Tile]:
    """The tiles that a multiprocessor has room for, and whose CTAs run at once."""
    of_row = count_of_row(problem)
    sizes = {ceildiv(ceildiv(_tokens(rows), down), PART) * PART for down in range(1, _tokens(rows) // 32 + 2)}
    for tokens in sorted(s for s in sizes if s <= MOST_OF_TILE):
        for blocks in BLOCKS:
            for split in SPLITS:
                if rows.chunks % split or tokens // PART < split:
                    continue
                free = (REGISTERS[blocks] - FEW - tokens // 2) // FRAGMENT
                depth = next((d for d in DEPTHS if d <= free and rows.chunks // split % d == 0), None)
                for across in ACROSS:
                    t = Tile(tokens, blocks, 0, depth or 0, split, across)
                    if depth is None or t.cluster > MOST_CLUSTER or t.cluster == 5 or tokens // across % 8:
                        continue
                    if t.split > 1 and _ctas(t, rows) > tiled.rooms(t.cluster, sms(target)) * t.cluster:
                        continue
                    room = shared_bytes(target) - t.shared(of_row, problem.sums)
                    stages = min(MOST_STAGES, room // (tokens * ROW + 16), rows.chunks // split + 1)
                    if stages >= 2:
                        yield Tile(tokens, blocks, stages, depth, split, across)


def _ctas(t: Tile, rows: Rows) -> int:
    channels = BLOCK * t.blocks * t.across
    return ceildiv(_tokens(rows), t.tokens) * ceildiv(rows.channels, channels) * rows.batches * t.cluster


def _microseconds(problem: Problem, target: Limits, t: Tile) -> float:
    """Microseconds of a launch in a chain of such launches."""
    rows = _known(problem)
    ctas, chunks = _ctas(t, rows), rows.chunks // t.split
    at_once = tiled.rooms(t.cluster, sms(target)) * t.cluster
    shared = (t.blocks + 1) * t.tokens * ROW / SHARED_BYTES_PER_US
    copied = (t.tokens * ROW / t.across + t.blocks * BLOCK * ROW) * min(ctas, at_once) / COPY_BYTES_PER_US
    bounds = (shared, copied, t.blocks * t.tokens * PRODUCT_US)
    summed = chunks * (float(sum(b**4 for b in bounds)) ** 0.25 + CHUNK_US)
    exchanged = t.tokens * t.blocks * BLOCK * 4 * (t.split - 1) / t.split / SUM_BYTES_PER_US
    heavy = scalar.operations(problem.epilogue) if problem.epilogue is not None else 0
    finished_us = t.tokens * t.blocks * BLOCK / t.split * (heavy + 8) / (tiled.OPERATIONS_PER_US * t.blocks)
    return START_US + ceildiv(ctas, at_once) * (summed + exchanged + finished_us)


def _code(problem: Problem, rows: Rows, t: Tile) -> KernelCode:
    dtype = problem.operands[0].type.dtype
    summed, of_row = finished(problem), count_of_row(problem)
    store = epilogue(problem, in_f32=summed is not None)
    names = ("tokens", "channels", "chunks", "batches")
    parts = {
        "INSTRUCTIONS": scalar.template("tensor.cuh") + "\n" + scalar.template("warp.cuh"),
        "SHARED_SUMS": scalar.template("tiled_sums.cuh"),
        "PRODUCT": emit.warpgroup_product_of_registers_that_starts(t.tokens, dtype),
        "CLUSTER": f" __cluster_dims__({t.cluster}, 1, 1)" if t.cluster > 1 else "",
        "SHAPE_FIELDS": " ".join(f"int {n};" for n in names),
        "SHAPE": ", ".join(f"int {n}" for n in names),
        "SHAPE_NAMES": ", ".join(names),
        **_sums_read(problem, store), **_sums_added(problem, store),
    }  # fmt: skip
    constants = {
        "BT": t.tokens, "BLOCKS": t.blocks, "STAGES": t.stages, "DEPTH": t.depth, "SPLIT": t.split,
        "ACROSS": t.across, "OF_ROW": of_row, "ADDS": int(problem.sums),
    }  # fmt: skip
    if summed is not None:
        runs = problem.operands[summed].type.shape[-2]
        assert isinstance(runs, int)
        constants["RUNS"] = runs
    module = emit.module("streamed.cu", problem, constants, parts, store)
    numbers = [Int(d, 32) for d in (rows.tokens, rows.channels, rows.chunks, rows.batches)]
    shared = t.shared(of_row, problem.sums)
    options = (("warps", t.warps), ("shared", shared), ("cluster", t.cluster), ("pdl", True))
    read = (Map(0, rows.boxed(t.tokens // t.across)), Ptr(1), *(() if summed is None else (Ptr(summed),)))
    launch = Launch("kernel", (_ctas(t, rows),), (*read, *numbers, *module.args), options)
    blocks = ceildiv(rows.channels, BLOCK)
    packed = TensorType(problem.operands[1].type.dtype, (rows.batches * blocks, rows.chunks, BLOCK, BLOCK))
    pack = Pack(1, "fragments", (rows.order, blocks, rows.chunks), packed)
    return KernelCode("cuda", module.text, (launch,), (pack,))


def _sums_read(problem: Problem, store: Epilogue) -> dict[str, str]:
    """The parts of the template for sums of rows that the epilogue reads."""
    parameters, names = ("".join(f", {n}" for n in found) for found in (store.parameters, store.names))
    functions = scalar.template("streamed_rows.cuh").replace("@EPILOGUE_PARAMETERS@", parameters)
    values = "reinterpret_cast<const float *>(memory + ROWS_AT)[(part * 32 + own_token()) * OF_ROW + k]"
    load = f"for (int k = 0; k < OF_ROW; k++)\n            of_row[k] = {values};"
    found = {
        "ROW_SUMS": functions.replace("@EPILOGUE_NAMES@", names),
        "SUMS_PARAMETER": ", const float *row_sums",
        "FINISH_ROWS": f"if (warp == 4 * BLOCKS + 1)\n            finish_rows(memory, row_sums, shape, tile{names});",
        "WAIT_FOR_ROWS": "barrier_among(1, 128 * BLOCKS + 32);",
        "OF_ROW_VALUES": f"float of_row[OF_ROW];\n        {load}",
        "OF_ROW_NAME": ", of_row",
    }
    return found if finished(problem) is not None else dict.fromkeys(found, "")


def _sums_added(problem: Problem, store: Epilogue) -> dict[str, str]:
    """The parts of the template for the sums of the rows of the output."""
    names = "".join(f", {n}" for n in store.names)
    place = "(threadIdx.x / 128 * BT + part * 32 + own_token()) * 4 + threadIdx.x / 32 % 4"
    found = {
        "RUN_SUMS": "float run[2] = {};",
        "ADD_SUMS": "for (int k = 0; k < 8; k++)\n                run[0] += acc[k], run[1] += acc[k] * acc[k];",
        "KEEP_SUMS": f"reinterpret_cast<float2 *>(memory + ADDED_AT)[{place}] = make_float2(run[0], run[1]);",
        "STORE_ADDED": f"store_rows(memory, place, shape, tile{names});",
    }
    parameters = "".join(f", {n}" for n in store.parameters)
    functions = scalar.template("streamed_added.cuh").replace("@EPILOGUE_PARAMETERS@", parameters)
    functions = functions.replace("@EPILOGUE_NAMES@", names)
    return {**(found if problem.sums else dict.fromkeys(found, "")), "ADDED_ROWS": functions if problem.sums else ""}


register(GemmStreamed())
