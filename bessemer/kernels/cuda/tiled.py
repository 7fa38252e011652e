"""What the kernels for products of many tokens share: tiles, their cost, and the launch of templates/tiled.cu."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace

from bessemer.core import dtype as dt
from bessemer.core.dim import Dim, ceildiv, minimum
from bessemer.core.tensor_map import TensorMap, defect
from bessemer.ir.graph import TensorType
from bessemer.kernels.base import Config, Int, KernelCode, Launch, Limits, Map, Pack, Problem, Ptr, Reason
from bessemer.kernels.c.scalar import supported
from bessemer.kernels.cuda import emit, scalar
from bessemer.kernels.cuda.emit import ARCH
from bessemer.kernels.cuda.epilogue import Epilogue, epilogue
from bessemer.kernels.cuda.row_sums import count_of_row
from bessemer.kernels.cuda.tile import KEEP, ROOM, ROW, SMALLEST, Tile, every_tile
from bessemer.kernels.cuda.weights import BLOCK
from bessemer.kernels.gpu.shapes import sms, upper
from bessemer.kernels.row_sums import finished, unreadable

BAND = 8  # tiles of tokens that go through all channels together
MOST_TOKENS = 1 << 30
MOST_CONFIGS = 16
LAUNCH_US, LATENCY_US = 1.36, 1.07  # a launch, and a copy; stages hide the latter
FLOP_PER_US, STORE_BYTES_PER_US, OPERATIONS_PER_US = 9_730_000.0, 46_300.0, 141_000.0  # the last of a warpgroup
CHEAP, MOST_FINISHING = 4, 4  # operations of an epilogue that its stores hide; warpgroups that add to their rate
COPY_BYTES_PER_US, MEMORY_BYTES_PER_US = 10_550_000.0, 3_350_000.0  # from L2, and from memory
EXCHANGE_US, SUM_BYTES_PER_US = 0.42, 23_200.0  # partial sums that CTAs of a cluster hand on


@dataclass(frozen=True)
class Rows:
    """Where the tokens come from: a template for them, the sizes it takes at run time, and how copies see x."""

    template: str
    tokens: Dim
    channels: int
    chunks: int  # of 64 elements of the sum
    order: str  # of the weights, see swizzled_blocks
    sizes: Mapping[str, Dim]
    map: TensorMap  # of x, by boxes of a chunk of one token
    batches: int = 1  # of the weights; the output has `tokens` rows of each

    def boxed(self, rows: int) -> TensorMap:
        """The map for copies of so many tokens."""
        return replace(self.map, box=(BLOCK, rows))


def reason(problem: Problem, target: Limits, rows: Rows) -> Reason | None:
    """Why the template does not compute a product that `rows` describes, if it does not."""
    x = problem.operands[0].type
    if target.arch != ARCH:
        return Reason(f"needs the warpgroup products of {ARCH}, not {target.arch}")
    if x.dtype not in (dt.f16, dt.bf16):
        return Reason(f"multiplies f16 and bf16, not {x.dtype}")
    if not problem.operands[1].constant:
        return Reason("packs its weights ahead, and these are not constant")
    if rows.channels % 8:
        return Reason(f"stores rows of whole 16 bytes, not of {rows.channels} channels")
    if upper(problem, rows.tokens) * rows.batches > MOST_TOKENS:
        return Reason(f"takes at most {MOST_TOKENS} tokens in all batches")
    broken = defect(rows.map, x.dtype.itemsize, x.nbytes, problem.range_map)
    if broken is not None:
        return Reason(f"copies by a tensor map, and that of {x} {broken}")
    missing = supported(problem) or unreadable(problem, rows.tokens)
    return None if missing is None else Reason(missing)


def _tiles(t: Tile, rows: Rows) -> Dim:
    """Tiles of a product."""
    down = ceildiv(rows.tokens, t.tokens * t.down) * t.down
    return down * ceildiv(rows.channels, t.columns) * rows.batches


def rooms(cluster: int, count: int) -> int:
    """Clusters that run at once on so many multiprocessors: they must lie in one part of the GPU."""
    return max(1, int(count * ROOM[cluster]) // cluster)


def tile(config: Config) -> Tile:
    """The tile of a configuration."""
    return Tile(**{f.name: int(config[f.name]) for f in fields(Tile)})


def _fits(problem: Problem, target: Limits, rows: Rows, t: Tile) -> bool:
    """Whether a tile is not mostly padding, and those of a split sum run at once."""
    m, n = problem.typical(rows.tokens), rows.channels
    if problem.sums and not t.adds_up_runs:
        return False
    padded = ceildiv(n, t.columns) * t.columns
    if (t.tokens * t.down > 64 and t.tokens * t.down >= 2 * m) or padded * 8 > ceildiv(n, BLOCK) * BLOCK * 9:
        return False
    few = problem.typical(_tiles(t, rows)) <= rooms(t.cluster, sms(target)) * t.down
    return t.split == 1 or (rows.chunks >= 4 * t.split and few)


def microseconds(problem: Problem, target: Limits, rows: Rows, config: Config) -> float:
    """The time of a launch in a chain of such launches: a fit to 500 configurations of 20 shapes on an H200."""
    return max(_bounds(problem, target, rows, config))


def _bounds(problem: Problem, target: Limits, rows: Rows, config: Config) -> tuple[float, float]:
    """Microseconds of the multiprocessors, and of the memory."""
    t = tile(config)
    m, n = problem.typical(rows.tokens), rows.channels
    heavy = max(0, scalar.operations(problem.epilogue) - CHEAP) if problem.epilogue is not None else 0
    summed = _summed(t, problem.typical(_tiles(t, rows)) * t.split, ceildiv(rows.chunks, t.split), heavy, sms(target))
    exchange = t.tokens * t.columns * 4 * (t.split - 1) / t.split / SUM_BYTES_PER_US
    nbytes = problem.typical(problem.operands[0].type.nbytes) + (n * rows.chunks * BLOCK + m * n) * 2 * rows.batches
    return LAUNCH_US + summed + exchange + (EXCHANGE_US if t.split > 1 else 0.0), nbytes / MEMORY_BYTES_PER_US


def _summed(t: Tile, programs: int, chunks: int, heavy: int, count: int) -> float:
    """Microseconds of the sums and epilogues of so many CTAs' tiles, of so many operations an element."""
    at_once = rooms(t.cluster, count) * t.cluster
    multiply = t.tokens * t.columns * 2 * BLOCK / FLOP_PER_US
    copied = (t.tokens + t.columns / t.down) * ROW / COPY_BYTES_PER_US
    rate = OPERATIONS_PER_US * min(t.groups * t.resident, MOST_FINISHING)
    finish = t.tokens * t.columns / t.split * (2 / STORE_BYTES_PER_US + heavy / rate)

    def wave(together: int, copying: int) -> float:
        """So many tiles side by side on a multiprocessor, while so many multiprocessors copy."""
        bounds = (together * multiply, together * copied * copying, multiply + LATENCY_US / t.stages)
        return chunks * sum(b**4 for b in bounds) ** 0.25 + together * finish if together else 0.0

    full, rest = divmod(programs, at_once * t.resident)
    return full * wave(t.resident, at_once) + wave(ceildiv(rest, at_once), min(rest, at_once))


def _batch_axis(problem: Problem, rows: Rows) -> int | None:
    """The output's axis that counts the batches of weights, where one alone does."""
    leading = problem.outputs[0].shape[:-2]
    return next((axis for axis, size in enumerate(leading) if size == rows.batches), None) if rows.batches > 1 else None


def code(problem: Problem, target: Limits, rows: Rows, config: Config) -> KernelCode:
    """The kernel of one configuration."""
    t = tile(config)
    dtype = problem.operands[0].type.dtype
    summed = finished(problem)
    names = ("tokens", "channels", "chunks", "batches", *rows.sizes)
    batch = _batch_axis(problem, rows)
    store = epilogue(problem, in_f32=summed is not None, batch=batch)
    parts = {
        "INSTRUCTIONS": scalar.template("tensor.cuh"),
        "ROWS_OF_X": scalar.template(rows.template),
        "WALK": scalar.template("tiled_walk.cuh"),
        "SHARED_SUMS": scalar.template("tiled_sums.cuh"),
        **_row_sums(problem, store),
        "BATCH": "" if batch is None else ", place.batch",
        "PRODUCT": emit.warpgroup_product_that_starts(t.columns // t.halves, dtype),
        "CLUSTER": f" __cluster_dims__({t.cluster}, 1, 1)" if t.cluster > 1 else "",
        "SHAPE_FIELDS": " ".join(f"int {n};" for n in names),
        "SHAPE": ", ".join(f"int {n}" for n in names),
        "SHAPE_NAMES": ", ".join(names),
    }  # fmt: skip
    constants = {
        "BLOCKS": t.blocks, "GROUPS": t.groups, "BN": t.columns, "STAGES": t.stages, "RESIDENT": t.resident,
        "SPLIT": t.split, "DOWN": t.down, "HALVES": t.halves, "TAKE": t.take, "KEEP": KEEP, "SPARE": t.spare,
        "LEAST_AHEAD": t.least_ahead, "PIECE": t.piece, "BAND": BAND, **_row_constants(problem),
    }  # fmt: skip
    module = emit.module("tiled.cu", problem, constants, parts, store)
    count = _tiles(t, rows)
    most = rooms(t.cluster, sms(target)) * t.cluster * t.resident
    walkers = count if t.split > 1 else minimum(count, most)
    numbers = [Int(d, 32) for d in (rows.tokens, rows.channels, rows.chunks, rows.batches, *rows.sizes.values())]
    options = (("warps", t.warps), ("shared", t.shared), ("cluster", t.cluster), ("pdl", True))
    read = (Map(0, rows.boxed(t.tokens)), Ptr(1), *(() if summed is None else (Ptr(summed),)))
    launch = Launch("kernel", (t.split * walkers,), (*read, *numbers, *module.args), options)
    blocks = ceildiv(rows.channels, BLOCK)
    packed = TensorType(problem.operands[1].type.dtype, (rows.batches * blocks, rows.chunks, BLOCK, BLOCK))
    pack = Pack(1, "swizzled_blocks", (rows.order, blocks, rows.chunks), packed)
    return KernelCode("cuda", module.text, (launch,), (pack,))


def _row_constants(problem: Problem) -> dict[str, int]:
    """The template's constants for sums of rows that the epilogue reads: runs, and values that follow from them."""
    summed = finished(problem)
    if summed is None:
        return {"MORE": 0}
    runs = problem.operands[summed].type.shape[-2]
    assert isinstance(runs, int)
    return {"MORE": 1, "RUNS": runs, "OF_ROW": count_of_row(problem)}


def _row_sums(problem: Problem, store: Epilogue) -> dict[str, str]:
    """The parts of the template for sums of rows: those that the epilogue reads, and those of the output."""
    parameters, names = ("".join(f", {n}" for n in found) for found in (store.parameters, store.names))
    functions = scalar.template("tiled_rows.cuh").replace("@EPILOGUE_PARAMETERS@", parameters)
    arguments = f"rows, memory, shared, first_row, walk, count, all{names}"
    read = {
        "ROW_SUMS": functions.replace("@EPILOGUE_NAMES@", names),
        "SUMS_PARAMETER": ", const float *row_sums",
        "SUMS_NAME": ", row_sums",
        "COPY_SUMS": "copy_sums(shared, row_sums, shape, token, count++);",
        "READ_SUMS": f"RowValues rows;\n        read_sums({arguments});",
        "ROWS_PARAMETER": ", const RowValues &rows",
        "ROWS": ", rows",
        "OF_ROW": ", rows.of[part / (BN / 32)][e]",
    }
    reads = finished(problem) is not None
    add = f"for (int j = 0; j < 8; j++)\n{' ' * 16}run[e][0] += acc[j], run[e][1] += acc[j] * acc[j];"
    begin, end = f"if (part % 2 == 0)\n{' ' * 16}run[e][0] = run[e][1] = 0.0f;", "if (part % 2 == 1)"
    stored = f"{begin}\n            {add}\n            {end}\n{' ' * 16}store_run(run[e], inside, row, col{names});"
    return {
        **{name: text if reads else "" for name, text in read.items()},
        "RUN_SUMS": "float run[2][2];" if problem.sums else "",
        "STORE_SUMS": stored if problem.sums else "",
    }


def ordered(problem: Problem, target: Limits, rows: Rows) -> Sequence[Config]:
    """The best configurations by their estimates, the best first."""
    fitting = [t for t in every_tile(target) if _fits(problem, target, rows, t)] or [SMALLEST]
    configs: list[Config] = [{f.name: getattr(t, f.name) for f in fields(Tile)} for t in fitting]

    def cost(config: Config) -> tuple[float, float]:
        bounds = _bounds(problem, target, rows, config)
        return max(bounds), bounds[0]

    return sorted(configs, key=cost)[:MOST_CONFIGS]
