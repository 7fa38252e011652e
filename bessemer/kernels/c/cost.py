"""What C kernels should cost in microseconds: what orders tactics and configurations when nothing was measured.

Kernels are counted in cycles of one core, bytes in the cycles that they take to arrive; the threads share both. Rates
are those of a current x86 server core; only ratios between the tactics of one problem matter.
"""

from __future__ import annotations

from bessemer.core.dim import Dim
from bessemer.ir import expr as ex
from bessemer.ir import exprtree
from bessemer.kernels.base import Limits, Problem
from bessemer.kernels.c import simd
from bessemer.kernels.c.product import Split

FMA_PER_CYCLE = 2  # vector instructions, and loads of vectors
FMA_LATENCY = 4
LAUNCH_US = 0.5  # waking the threads and waiting for them
TILE_CYCLES = 25  # a call of a tile, apart from its sum and its stores
TAP_CYCLES = 4  # a tap of a tile, apart from its rows' pointers
STORE_CYCLES = 1.5  # a vector of results, with its epilogue
POINTER_CYCLES = 1.2  # of finding a row's address
L2_BYTES, L3_BYTES, MEMORY_BYTES = 40.0, 12.0, 5.0  # a cycle, for one core
HEAVY_CYCLES = 12.0  # a vector of exp, tanh and the like
HEAVY = frozenset(
    "exp expm1 log log1p sin cos tan asin acos atan sinh cosh tanh asinh acosh atanh erf sigmoid pow div sqrt rsqrt "
    "floordiv mod floormod fmod".split()
)


def cycles_per_us(target: Limits) -> float:
    """Cycles of one core, from the target's peak rate."""
    limits = target.limits
    flops = 2 * FMA_PER_CYCLE * simd.lanes(target.arch)
    return limits.get("mflops", 250_000) / limits.get("threads", 1) / flops


def microseconds(target: Limits, cycles: float, items: int, launches: int = 1) -> float:
    """`cycles` of work in `items` equal items over the threads, in `launches` launches."""
    threads = target.limits.get("threads", 1)
    rounds = -(-max(1, items) // threads)
    share = rounds / max(1, items) if items < 4 * threads else 1 / threads
    return cycles * share / cycles_per_us(target) + launches * LAUNCH_US


def bytes_per_cycle(target: Limits, nbytes: float) -> float:
    """What one core draws of data that takes `nbytes`, from the cache where it lies."""
    limits = target.limits
    if nbytes <= limits.get("l2", 1 << 20) // 2:
        return L2_BYTES
    return L3_BYTES if nbytes <= limits.get("l3", 16 << 20) else MEMORY_BYTES


def traffic_cycles(problem: Problem, target: Limits) -> float:
    """Every operand read and every output written once."""
    types = [*(o.type for o in problem.operands), *problem.outputs]
    nbytes = float(sum(problem.typical(t.nbytes) for t in types))
    return nbytes / bytes_per_cycle(target, nbytes)


def pieces(total: int, piece: int) -> list[tuple[int, int]]:
    """(size, how many) of the even pieces of `total`, at most `piece` each."""
    count = max(1, -(-total // piece))
    low, extra = divmod(total, count)
    return [(size, n) for size, n in ((low, count - extra), (low + 1, extra)) if n and size]


def tile_cycles(rows: int, vecs: int, taps: int, depth: int, panel: float) -> float:
    """One register tile of rows x vecs vectors over taps x depth terms; its panel of B takes `panel` bytes per core."""
    sums = max(rows * vecs, rows + vecs + 1, FMA_LATENCY * FMA_PER_CYCLE) / FMA_PER_CYCLE
    spill = 1.0 if rows * vecs + vecs <= 29 else 1.6  # more accumulators than registers
    step = max(sums * spill, vecs * 64 / panel)
    return taps * (depth * step + TAP_CYCLES + rows) + TILE_CYCLES + STORE_CYCLES * rows * vecs


def product_us(
    problem: Problem, target: Limits, split: Split, *, gather: float = 0.0, pack: float = 0.0, launches: int = 1,
    extra: float = 0.0,
) -> float:  # fmt: skip
    """A tiled product. `gather`: cycles for each row's pointer of a tap; `pack`: for each vector of B that a work item
    packs; `extra`: cycles beside the product."""
    e, lanes = split.extent, split.lanes
    groups, rows, depth = (max(1, problem.typical(d)) for d in (e.groups, e.rows, e.depth))
    vectors, terms = max(1, -(-problem.typical(e.cols) // lanes)), e.taps * depth
    tiles, panels = -(-rows // split.tile_rows), -(-vectors // split.tile_vecs)
    row_blocks = -(-tiles // split.item_tiles)
    panel_bytes = terms * min(vectors, split.tile_vecs) * lanes * 4
    b_bytes = float(groups * terms * vectors * lanes * 4)
    near = 1e9 if panel_bytes <= target.limits.get("l1", 32 << 10) // 2 else bytes_per_cycle(target, panel_bytes)
    sums = sum(
        n * m * tile_cycles(r, v, e.taps, depth, near)
        for r, n in pieces(rows, split.tile_rows)
        for v, m in pieces(vectors, split.tile_vecs)
    )
    stream = b_bytes * row_blocks / bytes_per_cycle(target, b_bytes)
    a_bytes = float(groups * rows * depth * 4)
    own = a_bytes / max(1, row_blocks * groups)
    reads = panels if own > target.limits.get("l2", 1 << 20) // 2 else 1
    stream += reads * a_bytes / bytes_per_cycle(target, a_bytes)
    gathered = rows * e.taps * gather * -(-panels // split.item_panels)
    packed = terms * vectors * row_blocks * pack
    work = groups * (sums + gathered + packed)
    cycles = max(work, stream) + 0.3 * min(work, stream) + extra
    items = problem.typical(split.items)
    return max(
        microseconds(target, cycles, items, launches),
        microseconds(target, traffic_cycles(problem, target), 1 << 20, launches),
    )


def operations(problem: Problem, e: ex.Expr) -> float:
    """Vector operations of one element of `e`, the terms of its reductions counted."""

    def cost(node: ex.Expr) -> float:
        if isinstance(node, ex.Call):
            return HEAVY_CYCLES if node.fn in HEAVY and node.dtype.is_float else 0.5
        return 0.5 if isinstance(node, ex.Load) else 0.0

    total = 0.5
    seen: set[int] = set()
    stack: list[tuple[ex.Expr, float]] = [(e, 1.0)]
    while stack:
        node, times = stack.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        total += times * cost(node)
        if isinstance(node, ex.Reduce):
            for _, size in node.axes:
                times *= max(1, problem.typical(size))
            total += times
        stack.extend((child, times) for child in exprtree.children(node))
    return total


def elementwise_us(problem: Problem, target: Limits, per_element: float, launches: int = 1) -> float:
    """A kernel whose output elements take `per_element` cycles of a vector each, beside the traffic."""
    elements = max(1, problem.typical(problem.outputs[0].numel))
    vectors = elements / simd.lanes(target.arch)
    return microseconds(target, vectors * per_element + traffic_cycles(problem, target), 1 + elements // 4096, launches)


def typical(problem: Problem, *dims: Dim) -> tuple[int, ...]:
    """Sizes at the opt shape, at least 1 each."""
    return tuple(max(1, problem.typical(d)) for d in dims)
