"""Stages that read an operand across its rows: square tiles of it are transposed through a buffer."""

from __future__ import annotations

from contextlib import ExitStack

from bessemer.core.dim import ceildiv, product
from bessemer.ir import expr as ex
from bessemer.ir import exprtree
from bessemer.kernels.c import scalar
from bessemer.kernels.c.affine import Affine, affine
from bessemer.kernels.c.blocks import IVDEP, Flat
from bessemer.kernels.c.writer import ITEM, Writer

TILE = 32


def transposed_axis(w: Writer) -> str | None:
    """The outer axis that most loads are contiguous along, where they are not along the vector axis."""
    axes = w.stage.axes
    if len(axes) < 2 or w.typical(axes[-1][1]) < 4:
        return None
    votes: dict[str, int] = {}
    for node in exprtree.walk(w.expr):
        if isinstance(node, ex.Load) and _is_transposed(w, node):
            f = affine(node.index[0])
            for name, size in axes[:-1]:
                if f.axes.get(name) == 1 and w.typical(size) >= 4:
                    votes[name] = votes.get(name, 0) + 1
    return max(votes, key=lambda n: votes[n]) if votes else None


def _is_transposed(w: Writer, node: ex.Load) -> bool:
    f = affine(node.index[0])
    step = f.axes.get(w.stage.axes[-1][0], 0)
    far = not isinstance(step, int) or abs(step) > 4
    return far and not f.rest and w.body.safe(node)


def write_tiles(w: Writer, across: str) -> None:
    """Loops over tiles of `across` and the last axis; units are a tile high and a few wide."""
    axes, weight = w.stage.axes, w.weight(w.expr)
    along, length = axes[-1]
    other = tuple(a for a in axes[:-1] if a[0] != across)
    height = dict(axes)[across]
    wide = max(1, min(-(-w.typical(length) // TILE), ITEM // (TILE * TILE * weight))) * TILE
    downs, acrosses = ceildiv(height, TILE), ceildiv(length, wide)
    with ExitStack() as stack:
        cost = min(TILE, w.typical(height)) * min(wide, w.typical(length)) * weight
        w.unit_loop(stack, product(s for _, s in other) * downs * acrosses, cost)
        body = w.body
        down, right = w.block(downs), w.block(acrosses)
        body.blocks[-1].flat = Flat(f"(u / {right} / {down})", other)
        w.cut("a", height, TILE, f"(u / {right} % {down})")
        w.cut("w", length, wide, f"(u % {right})")
        stack.enter_context(body.block(f"for (int64_t j0 = w0; j0 < w1; j0 += {TILE})", {}))
        body.line(f"const int64_t j1 = j0 + {TILE} < w1 ? j0 + {TILE} : w1;")
        loads = [n for n in exprtree.walk(w.expr) if isinstance(n, ex.Load) and _is_transposed(w, n)]
        loads = [n for n in loads if affine(n.index[0]).axes.get(across) == 1]
        for node in loads:
            _stage_tile(w, node, across, along)
        stack.enter_context(body.block("for (int64_t a = a0; a < a1; a++)", {across: "a"}))
        with body.block("for (int64_t j = j0; j < j1; j++)", {along: "j"}, pragma=IVDEP):
            w.store(w.expr)


def _stage_tile(w: Writer, node: ex.Load, across: str, along: str) -> None:
    """A buffer [TILE of `across`][TILE of `along`] of what `node` reads."""
    f, body = affine(node.index[0]), w.body
    step = f.axes[along]
    base = Affine(f.constant, {k: v for k, v in f.axes.items() if k not in (across, along)})
    pointer = body.temporaries.get(node.operand) or w.params.pointer(node.operand)
    c = scalar.STORAGE[node.dtype.name]
    buffer = body.name("b")
    fn = f"transpose_{node.dtype.itemsize}"
    body.line(f"{c} {buffer}[{TILE * TILE}];")
    at = body.sum(base).text
    stride = w.size(step)
    body.line(f"{fn}({pointer} + {at} + a0 + j0 * {stride}, {stride}, j1 - j0, a1 - a0, {buffer}, {TILE});")
    w.helpers[fn] = ""
    body.staged[id(node)] = (node, scalar.read(f"{buffer}[(a - a0) * {TILE} + (j - j0)]", node.dtype))
