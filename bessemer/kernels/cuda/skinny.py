"""What the kernels for products of few tokens share: tiles, their cost, and the launch of templates/skinny.cu."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bessemer.core import dtype as dt
from bessemer.core.dim import Dim, ceildiv
from bessemer.ir.graph import TensorType
from bessemer.kernels.base import Config, Int, KernelCode, Launch, Limits, Pack, Problem, Ptr, Reason
from bessemer.kernels.c.scalar import supported
from bessemer.kernels.cuda import emit, scalar
from bessemer.kernels.cuda.emit import ARCH
from bessemer.kernels.cuda.weights import BLOCK
from bessemer.kernels.gpu.shapes import shared_bytes, sms, upper

TOKENS = (16, 32, 64, 128)
CLUSTERS = (1, 2, 4, 8)
WARPGROUPS = ((1, 1), (1, 2), (2, 1), (3, 1))  # blocks of 64 channels, and slices of the sum
STEPS = (1, 2, 4)  # chunks of 64 elements that are waited for together
MOST_GRID = 65535  # of the second and third dim
ROW = 128  # bytes of a chunk of one token or channel
FIXED_US, WAVE_US, CLUSTER_US, STEP_US = 0.3, 1.0, 1.17, 0.01  # a launch, CTAs that run at once, their clusters, a step
WEIGHT_BYTES_PER_US = 4_270_000.0  # from device memory
SUM_BYTES_PER_US = 23_000.0  # partial sums that a multiprocessor hands on
COPY_BYTES_PER_US, GATHER_BYTES_PER_US = 19_200_000.0, 6_100_000.0  # slabs of all CTAs, from L2: rows, and windows


@dataclass(frozen=True)
class Tile:
    """One way to cut a product over `k`: see the head of templates/skinny.cu."""

    k: int
    tokens: int
    blocks: int
    slices: int
    cluster: int
    step: int

    @property
    def all_chunks(self) -> int:
        """Chunks of the sum, padded for the cluster."""
        return self.chunks * self.cluster

    @property
    def chunks(self) -> int:
        """Chunks of one CTA."""
        return ceildiv(ceildiv(self.k, BLOCK), self.cluster)

    @property
    def steps(self) -> int:
        return ceildiv(self.chunks, self.step)

    @property
    def warps(self) -> int:
        return 4 * self.blocks * self.slices

    @property
    def shared(self) -> int:
        """Bytes of shared memory: both slabs, the partial sums, a barrier a step and one for the sums of others."""
        channels = self.blocks * BLOCK
        sums = self.slices * channels * (4 * self.tokens + 2 * self.cluster)
        return self.chunks * (channels + self.tokens) * ROW + sums + 8 * self.steps + 8


@dataclass(frozen=True)
class Rows:
    """Where the tokens come from: a template for them, its constants, and the sizes it takes at run time."""

    template: str
    tokens: Dim
    channels: int
    k: int
    order: str  # of the weights, see swizzled_blocks
    sizes: Mapping[str, Dim]
    constants: Mapping[str, int]
    batches: int = 1  # of the weights; the output has `tokens` rows of each

    @property
    def gathers(self) -> bool:
        """Whether a token's row is put together from several places."""
        return bool(self.sizes)


def reason(problem: Problem, target: Limits, rows: Rows) -> Reason | None:
    """Why the template does not compute a product that `rows` describes, if it does not."""
    if target.arch != ARCH:
        return Reason(f"needs the warpgroup products of {ARCH}, not {target.arch}")
    if problem.operands[0].type.dtype not in (dt.f16, dt.bf16):
        return Reason(f"multiplies f16 and bf16, not {problem.operands[0].type.dtype}")
    if not problem.operands[1].constant:
        return Reason("packs its weights ahead, and these are not constant")
    if rows.channels % 8:
        return Reason(f"stores rows of whole 16 bytes, not of {rows.channels} channels")
    if rows.batches > MOST_GRID or upper(problem, rows.tokens) > MOST_GRID * TOKENS[0]:
        return Reason(f"takes at most {MOST_GRID * TOKENS[0]} tokens and {MOST_GRID} batches")
    missing = supported(problem)
    if missing is not None:
        return Reason(missing)
    return None if tiles(problem, target, rows) else Reason(f"holds a whole slab of the sum, not one of {rows.k}")


def tiles(problem: Problem, target: Limits, rows: Rows) -> list[dict[str, int | str]]:
    """Configurations that fit the target and are not mostly padding."""
    m, chunks = problem.typical(rows.tokens), ceildiv(rows.k, BLOCK)
    found: list[dict[str, int | str]] = []
    for tokens in TOKENS:
        for blocks, slices in WARPGROUPS:
            for cluster in CLUSTERS:
                for step in STEPS:
                    t = Tile(rows.k, tokens, blocks, slices, cluster, step)
                    padded = (tokens > 16 and tokens >= 2 * m) or rows.channels <= BLOCK * (blocks - 1)
                    if padded or t.all_chunks * 8 > chunks * 9 or t.chunks % slices or step % slices:
                        continue
                    if t.chunks >= step and t.shared <= shared_bytes(target):
                        found.append(
                            {"tokens": tokens, "blocks": blocks, "slices": slices, "cluster": cluster, "step": step}
                        )
    return found


def tile(rows: Rows, config: Config) -> Tile:
    """The tile of a configuration."""
    names = ("tokens", "blocks", "slices", "cluster", "step")
    return Tile(rows.k, *(int(config[n]) for n in names))


def microseconds(problem: Problem, target: Limits, rows: Rows, config: Config) -> float:
    """The time of a launch in a chain of such launches: a fit to 590 configurations of 17 shapes on an H200."""
    t, count = tile(rows, config), sms(target)
    across, down = ceildiv(rows.channels, BLOCK * t.blocks), ceildiv(problem.typical(rows.tokens), t.tokens)
    ctas = across * down * t.cluster * rows.batches
    resident = max(1, min(64 // t.warps, shared_bytes(target) // (t.shared + 1024)))
    waves, per_sm = ceildiv(ctas, count * resident), ceildiv(ctas, count)
    slabs = t.chunks * (t.blocks * BLOCK + t.tokens) * ROW
    sums = t.slices * t.tokens * t.blocks * BLOCK * 4
    return (
        FIXED_US + waves * (WAVE_US + (CLUSTER_US if t.cluster > 1 else 0.0)) + STEP_US * t.steps
        + rows.batches * rows.channels * rows.k * 2 / WEIGHT_BYTES_PER_US + per_sm * sums / SUM_BYTES_PER_US
        + ctas * slabs / (GATHER_BYTES_PER_US if rows.gathers else COPY_BYTES_PER_US)
    )  # fmt: skip


def code(problem: Problem, rows: Rows, config: Config) -> KernelCode:
    """The kernel of one configuration."""
    t = tile(rows, config)
    dtype = problem.operands[0].type.dtype
    names = ("tokens", "channels", *rows.sizes)
    parts = {
        "ROWS": scalar.template(rows.template),
        "PRODUCT": emit.warpgroup_product(t.tokens, dtype),
        "CLUSTER": f" __cluster_dims__({t.cluster}, 1, 1)" if t.cluster > 1 else "",
        "SHAPE_FIELDS": " ".join(f"int {n};" for n in names),
        "SHAPE": ", ".join(f"int {n}" for n in names),
        "SHAPE_NAMES": ", ".join(names),
    }  # fmt: skip
    constants = {
        "BT": t.tokens, "NB": t.blocks, "SLICES": t.slices, "CL": t.cluster, "CHUNKS": t.chunks,
        "STEP": t.step, "K": t.k, **rows.constants,
    }  # fmt: skip
    module = emit.module("skinny.cu", problem, constants, parts)
    across = ceildiv(rows.channels, BLOCK * t.blocks)
    sizes = [Int(d, 32) for d in (rows.tokens, rows.channels, *rows.sizes.values())]
    options = (("warps", t.warps), ("shared", t.shared), ("cluster", t.cluster), ("pdl", True))
    grid = (t.cluster * across, ceildiv(rows.tokens, t.tokens), rows.batches)
    launch = Launch("kernel", grid, (Ptr(0), Ptr(1), *sizes, *module.args), options)
    packed = TensorType(problem.operands[1].type.dtype, (rows.batches * across * t.blocks, t.all_chunks, BLOCK, BLOCK))
    pack = Pack(1, "swizzled_blocks", (rows.order, across * t.blocks, t.all_chunks), packed)
    return KernelCode("cuda", module.text, (launch,), (pack,))


def ordered(problem: Problem, target: Limits, rows: Rows) -> Sequence[Config]:
    """All configurations, the best by their estimates first."""
    return sorted(tiles(problem, target, rows), key=lambda c: microseconds(problem, target, rows, c))
