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
from bessemer.kernels.cuda.weights import BLOCK
from bessemer.kernels.gpu.shapes import shared_bytes, sms, upper

ARCH = "sm_90"  # the one with warpgroup products
ROW = 128  # bytes of a chunk of one token or channel
RESERVED = 1024  # bytes of shared memory that a CTA takes by itself
BAND = 8  # tiles of tokens that go through all channels together
MOST_TOKENS = 1 << 30
LAUNCH_US, EXCHANGE_US = 1.0, 2.9  # a launch, and partial sums that CTAs of a cluster hand on
LATENCY_US = 0.9  # of a copy; stages hide it
FLOP_PER_US, COPY_BYTES_PER_US, STORE_BYTES_PER_US = 9_470_000.0, 93_300.0, 31_200.0  # of one multiprocessor
MEMORY_BYTES_PER_US = 3_350_000.0
OPERATIONS_PER_US, CHEAP = 135_000.0, 4  # of a multiprocessor; those of an epilogue that its stores hide


@dataclass(frozen=True)
class Tile:
    """One way to cut a product: `groups` warpgroups, each with `blocks` times 64 tokens, and `columns` channels.

    `resident` CTAs share a multiprocessor; see the head of templates/tiled.cu for `stages` and `split`."""

    blocks: int
    groups: int
    columns: int
    stages: int
    resident: int
    split: int = 1

    @property
    def tokens(self) -> int:
        return 64 * self.blocks * self.groups

    @property
    def warps(self) -> int:
        hands_over = self.groups == 2 and self.blocks * self.columns >= 256  # then a whole warpgroup copies
        return 4 * self.groups + (4 if hands_over else 1)

    @property
    def shared(self) -> int:
        """Bytes of shared memory: the ring, and two barriers a stage."""
        return self.stages * ((self.tokens + self.columns) * ROW + 16)

    def count(self, rows: Rows) -> Dim:
        """Tiles of a product."""
        return ceildiv(rows.tokens, self.tokens) * ceildiv_int(rows.channels, self.columns) * rows.batches


WHOLE = (
    (1, 2, 256, 4, 1), (2, 2, 128, 4, 1), (1, 2, 192, 5, 1), (2, 2, 192, 4, 1), (1, 2, 128, 6, 1), (2, 1, 128, 3, 2),
    (1, 2, 128, 3, 2), (1, 1, 256, 2, 2), (1, 1, 128, 4, 2), (1, 1, 128, 3, 3), (1, 1, 64, 4, 3), (2, 1, 64, 4, 2),
    (2, 1, 64, 3, 3), (1, 2, 64, 4, 2), (1, 1, 192, 3, 2), (1, 2, 96, 4, 2), (1, 1, 96, 3, 3), (1, 2, 96, 7, 1),
    (1, 2, 64, 8, 1), (1, 1, 128, 8, 1), (1, 1, 64, 8, 1), (1, 1, 192, 7, 1),
)  # fmt: skip
SHARED = (
    (1, 2, 128, 6, 1), (1, 2, 64, 8, 1), (1, 1, 128, 8, 1), (2, 2, 128, 4, 1), (1, 2, 192, 5, 1), (1, 1, 192, 7, 1),
    (1, 1, 128, 4, 2), (1, 1, 64, 8, 1),
)  # fmt: skip
TILES = (*(Tile(*t) for t in WHOLE), *(Tile(*t, 2) for t in SHARED))
SMALLEST = Tile(1, 1, 64, 4, 3)


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
    missing = supported(problem)
    return None if missing is None else Reason(missing)


def tile(config: Config) -> Tile:
    """The tile of a configuration."""
    return Tile(**{f.name: int(config[f.name]) for f in fields(Tile)})


def tiles(problem: Problem, target: Limits, rows: Rows) -> list[Config]:
    """Configurations that fit the target and are not mostly padding."""
    fitting = [t for t in TILES if _fits(problem, target, rows, t)]
    return [{f.name: getattr(t, f.name) for f in fields(Tile)} for t in fitting or [SMALLEST]]


def _fits(problem: Problem, target: Limits, rows: Rows, t: Tile) -> bool:
    m, n = problem.typical(rows.tokens), rows.channels
    padded = ceildiv_int(n, t.columns) * t.columns
    if (t.tokens > 64 and t.tokens >= 2 * m) or padded * 8 > ceildiv_int(n, BLOCK) * BLOCK * 9:
        return False
    if (t.shared + RESERVED) * t.resident > shared_bytes(target) + RESERVED:
        return False
    few = problem.typical(t.count(rows)) * t.split <= sms(target) * t.resident
    return t.split == 1 or (rows.chunks >= 4 * t.split and few)


def microseconds(problem: Problem, target: Limits, rows: Rows, config: Config) -> float:
    """The time of a launch in a chain of such launches: a fit to 248 configurations of 13 shapes on an H200."""
    t, count = tile(config), sms(target)
    m, n = problem.typical(rows.tokens), rows.channels
    programs = problem.typical(t.count(rows)) * t.split
    chunks = ceildiv_int(rows.chunks, t.split)
    multiply = t.tokens * t.columns * 2 * BLOCK / FLOP_PER_US
    heavy = max(0, scalar.operations(problem.epilogue) - CHEAP) if problem.epilogue is not None else 0
    finish = t.tokens * t.columns * heavy / OPERATIONS_PER_US / t.resident  # the other CTAs multiply meanwhile
    chunk = max(multiply, (t.tokens + t.columns) * ROW / COPY_BYTES_PER_US)

    def wave(together: int) -> float:
        """So many tiles side by side on a multiprocessor."""
        summed = chunks * max(together * chunk, multiply + LATENCY_US / t.stages) if together else 0.0
        return summed + together * (t.tokens * t.columns * 2 / STORE_BYTES_PER_US + finish)

    full, rest = divmod(programs, count * t.resident)
    times = full * wave(t.resident) + wave(ceildiv_int(rest, count))
    nbytes = problem.typical(problem.operands[0].type.nbytes) + (n * rows.chunks * BLOCK + m * n) * 2 * rows.batches
    return max(LAUNCH_US + times + (EXCHANGE_US if t.split > 1 else 0.0), nbytes / MEMORY_BYTES_PER_US)


def code(problem: Problem, target: Limits, rows: Rows, config: Config) -> KernelCode:
    """The kernel of one configuration."""
    t = tile(config)
    dtype = problem.operands[0].type.dtype
    names = ("tokens", "channels", "chunks", "batches", *rows.sizes)
    parts = {
        "INSTRUCTIONS": scalar.template("tensor.cuh"),
        "ROWS_OF_X": scalar.template(rows.template),
        "PRODUCT": emit.warpgroup_product_that_starts(t.columns, dtype),
        "CLUSTER": f" __cluster_dims__({t.split}, 1, 1)" if t.split > 1 else "",
        "SHAPE_FIELDS": " ".join(f"int {n};" for n in names),
        "SHAPE": ", ".join(f"int {n}" for n in names),
        "SHAPE_NAMES": ", ".join(names),
    }  # fmt: skip
    constants = {
        "BLOCKS": t.blocks, "GROUPS": t.groups, "BN": t.columns, "STAGES": t.stages, "RESIDENT": t.resident,
        "SPLIT": t.split, "BAND": BAND,
    }  # fmt: skip
    module = emit.module("tiled.cu", problem, constants, parts)
    count = t.count(rows)
    walkers = count if t.split > 1 else minimum(count, sms(target) * t.resident)
    sizes = [Int(d, 32) for d in (rows.tokens, rows.channels, rows.chunks, rows.batches, *rows.sizes.values())]
    options = (("warps", t.warps), ("shared", t.shared), ("cluster", t.split), ("pdl", True))
    x = Map(0, rows.boxed(t.tokens))
    launch = Launch("kernel", (t.split * walkers,), (x, Ptr(1), *sizes, *module.args), options)
    blocks = ceildiv_int(ceildiv_int(rows.channels, t.columns) * t.columns, BLOCK)
    packed = TensorType(problem.operands[1].type.dtype, (rows.batches * blocks, rows.chunks, BLOCK, BLOCK))
    pack = Pack(1, "swizzled_blocks", (rows.order, blocks, rows.chunks), packed)
    return KernelCode("cuda", module.text, (launch,), (pack,))


def ordered(problem: Problem, target: Limits, rows: Rows) -> Sequence[Config]:
    """All configurations, the best by their estimates first."""
    return sorted(tiles(problem, target, rows), key=lambda c: microseconds(problem, target, rows, c))


def ceildiv_int(a: int, b: int) -> int:
    """a / b, rounded up."""
    return -(-a // b)
