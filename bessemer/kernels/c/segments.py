"""The innermost loop of an elementwise stage, split where a condition on coordinates changes.

A condition that does not depend on the loop becomes a branch around it; one on the loop's variable becomes a boundary
between two loops. So a concat or a pad is a few plain loops, and nothing is tested per element.
"""

from __future__ import annotations

from bessemer.core import dtype as dt
from bessemer.ir import expr as ex
from bessemer.ir import exprtree
from bessemer.kernels.c.affine import Affine, affine
from bessemer.kernels.c.blocks import IVDEP
from bessemer.kernels.c.intern import replaced
from bessemer.kernels.c.stages import free_axes
from bessemer.kernels.c.writer import Writer

LEAVES = 24  # most variants of a loop
COMPARISONS = frozenset(("lt", "le", "gt", "ge"))


def write_segments(w: Writer, e: ex.Expr, name: str, low: str, high: str) -> None:
    """The loops over `name` from `low` to `high`, conditions on coordinates taken out of them."""
    w.leaves += 1
    found = _condition(w, e, name) if w.leaves <= LEAVES else None
    if found is None:
        with w.body.block(f"for (int64_t j = {low}; j < {high}; j++)", {name: "j"}, pragma=IVDEP):
            w.store(e)
        return
    atom, boundary = found
    yes, no = (w.body.intern(replaced(e, {id(atom): ex.Lit(v, atom.dtype)})) for v in (True, False))
    if boundary is None:
        cond = w.body.value(atom)
        w.body.branch(
            cond.text,
            lambda: write_segments(w, yes, name, low, high),
            lambda: write_segments(w, no, name, low, high),
        )
        return
    at, below = boundary
    cut = w.body.name("s")
    w.body.line(f"const int64_t {cut} = {at} < {low} ? {low} : {at} > {high} ? {high} : {at};")
    with w.body.block("", guard=True):
        write_segments(w, yes if below else no, name, low, cut)
    with w.body.block("", guard=True):
        write_segments(w, no if below else yes, name, cut, high)


def _condition(w: Writer, e: ex.Expr, name: str) -> tuple[ex.Expr, tuple[str, bool] | None] | None:
    """A test that splits the loop over `name`, and the boundary before which it is (true or false)."""
    for node in _conditions(e):
        assert isinstance(node, ex.Call)
        axes = free_axes(node)
        if name not in axes:
            if _is_bound(w, axes) and w.body.safe(node):
                return node, None
            continue
        x = affine(node.args[0]).plus(affine(node.args[1]).scaled(-1))
        c = x.axes.get(name, 0)
        rest = Affine(x.constant, {k: v for k, v in x.axes.items() if k != name}, x.rest)
        used = {n for r, _ in rest.rest for n in free_axes(r)} | set(rest.axes)
        if c not in (1, -1) or name in used or not _is_bound(w, used):
            continue
        if any(not w.body.safe(r) for r, _ in rest.rest):
            continue
        # c j + rest < 0: j < -rest, or j > rest
        fn = node.fn
        if c == 1:
            at = w.body.sum(rest.scaled(-1)).text
            return node, (f"({at} + 1)" if fn in ("le", "gt") else f"({at})", fn in ("lt", "le"))
        at = w.body.sum(rest).text
        return node, (f"({at} + 1)" if fn in ("lt", "ge") else f"({at})", fn in ("gt", "ge"))
    return None


def _is_bound(w: Writer, axes: set[str]) -> bool:
    bound = {n for b in w.body.blocks for n in b.axes}
    bound |= {n for b in w.body.blocks if b.flat is not None for n, _ in b.flat.axes}
    return axes <= bound


def _conditions(e: ex.Expr) -> list[ex.Expr]:
    """Comparisons of coordinates in `e`, those of the outer Selects first."""
    out: list[ex.Expr] = []
    seen: set[int] = set()
    queue = [e]
    while queue:
        node = queue.pop(0)
        if id(node) in seen or isinstance(node, ex.Reduce):
            continue
        seen.add(id(node))
        if isinstance(node, ex.Call) and node.fn in COMPARISONS and node.args[0].dtype == dt.i64:
            if free_axes(node):
                out.append(node)
        queue.extend(exprtree.children(node))
    return out
