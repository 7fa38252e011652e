"""A compute group as stages, each one launch: reductions that would be computed again and again get one of their own.

In a stage every load has one flat index into its operand's elements, neighbouring axes that every load walks as one
are one axis, and an axis of extent 1 is gone.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from bessemer.core import dtype as dt
from bessemer.core.dim import Dim, ceildiv, product
from bessemer.core.dtype import DType
from bessemer.ir import expr as ex
from bessemer.ir import exprtree
from bessemer.ir.graph import TensorType
from bessemer.kernels.base import Into, Problem
from bessemer.kernels.c.affine import Affine, offset, strides
from bessemer.kernels.c.intern import Interner, replaced

Axes = tuple[tuple[str, Dim], ...]
ALIGN = 64


@dataclass(frozen=True)
class Temporary:
    """A tensor in the workspace, numbered like an operand (from -2 down)."""

    number: int
    type: TensorType
    at: Dim  # bytes


@dataclass(frozen=True)
class Stage:
    """Every element of the tensor over `axes` is `expr`; stored at `at` of output 0, or of a temporary."""

    axes: Axes
    expr: ex.Expr
    dtype: DType
    at: Affine
    target: Temporary | None = None


def split(problem: Problem) -> tuple[list[Stage], list[Temporary]]:
    """The stages of a group in order, and the temporaries between them."""
    assert problem.body is not None
    body = problem.body
    splitter = _Splitter(problem)
    axes = tuple((f"i{k}", size) for k, size in enumerate(body.shape))
    splitter.add(axes, _own_names(Interner()(body.expr)), body.dtype, _place(axes, problem.into), None)
    return splitter.stages, splitter.temporaries


def _place(axes: Axes, into: Into | None = None) -> Affine:
    """Where the elements of a tensor over `axes` lie in it, or in the wider one whose columns it is."""
    shape = tuple(size for _, size in axes)
    whole = shape if into is None else (*shape[:-1], into.width)
    terms = {name: c for (name, size), c in zip(axes, strides(whole)) if c != 0 and size != 1}
    return Affine(0 if into is None else into.start, terms)


def workspace(temporaries: Sequence[Temporary]) -> Dim:
    """Bytes of all temporaries."""
    if not temporaries:
        return 0
    return temporaries[-1].at + ceildiv(temporaries[-1].type.nbytes, ALIGN) * ALIGN


def free_axes(e: ex.Expr) -> set[str]:
    """Loop variables that `e` needs from outside."""
    own = {name for n in exprtree.walk(e) if isinstance(n, ex.Reduce) for name, _ in n.axes}
    return {n.name for n in exprtree.walk(e) if isinstance(n, ex.Axis)} - own


def outermost(e: ex.Expr) -> Iterator[ex.Reduce]:
    """Reductions of `e` that are in no other one, each once."""
    nodes = exprtree.walk(e, lambda n: not isinstance(n, ex.Reduce))
    return (n for n in nodes if isinstance(n, ex.Reduce))


def _own_names(e: ex.Expr) -> ex.Expr:
    """`e` with loop variables of reductions that are unlike all others."""
    count = itertools.count()

    def step(n: ex.Expr) -> ex.Expr | None:
        if not isinstance(n, ex.Reduce):
            return None
        names = {name: f"r{next(count)}" for name, _ in n.axes}
        body = exprtree.substitute_axes(n.body, {old: ex.Axis(new) for old, new in names.items()})
        return replace(n, axes=tuple((names[name], size) for name, size in n.axes), body=body)

    return exprtree.rewrite(e, step)


class _Splitter:
    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.stages: list[Stage] = []
        self.temporaries: list[Temporary] = []
        self._known: dict[int, tuple[ex.Expr, Temporary]] = {}

    def add(self, axes: Axes, e: ex.Expr, dtype: DType, at: Affine, target: Temporary | None) -> None:
        """Add the stage of `e`, after those of the reductions that leave it."""
        ones = {name: ex.lit(0, dt.i64) for name, size in axes if size == 1}
        axes = tuple(a for a in axes if a[1] != 1)
        e = _without_unit_axes(exprtree.substitute_axes(e, ones) if ones else e)
        e = self._extract(Interner()(e), axes)
        self.stages.append(_collapse(self._type, Stage(axes, Interner()(e), dtype, at, target)))

    def _type(self, operand: int) -> TensorType:
        return self.temporaries[-2 - operand].type if operand < -1 else self.problem.operands[operand].type

    def _extract(self, e: ex.Expr, axes: Axes) -> ex.Expr:
        """`e` with the reductions that are not computed in its own stage as loads of temporaries."""
        sizes = {**dict(axes), **{n: s for r in exprtree.reductions(e) for n, s in r.axes}}
        moved: dict[int, ex.Expr] = {}

        def consider(r: ex.Reduce) -> None:
            free, names = free_axes(r), [n for n, _ in axes]
            if free == set(names) or (free == set(names[:-1]) and self._rows_suffice(axes)):
                for nested in outermost(r.body):
                    consider(nested)
                return
            order = [n for n in names if n in free] + sorted(free - set(names))
            moved[id(r)] = self._temporary(r, tuple((n, sizes[n]) for n in order))

        for r in outermost(e):
            consider(r)
        return replaced(e, moved) if moved else e

    def _rows_suffice(self, axes: Axes) -> bool:
        """Whether rows may reduce for themselves: there are enough of them, or they are short."""
        rows = self.problem.typical(product(s for _, s in axes[:-1]))
        return rows >= 8 or self.problem.typical(axes[-1][1]) <= 1 << 15

    def _temporary(self, r: ex.Reduce, axes: Axes) -> ex.Expr:
        """A load, at `axes`, of the temporary that holds `r`."""
        if id(r) not in self._known:
            type_ = TensorType(r.dtype, tuple(s for _, s in axes))
            found = Temporary(-2 - len(self.temporaries), type_, workspace(self.temporaries))
            self.temporaries.append(found)
            self._known[id(r)] = (r, found)
            self.add(axes, r, r.dtype, _place(axes), found)
        return ex.Load(self._known[id(r)][1].number, tuple(ex.Axis(n) for n, _ in axes), r.dtype)


def _without_unit_axes(e: ex.Expr) -> ex.Expr:
    """`e` with reduction axes of extent 1 fixed at 0. A reduction keeps at least one axis."""

    def step(n: ex.Expr) -> ex.Expr | None:
        if not isinstance(n, ex.Reduce):
            return None
        kept = tuple(a for a in n.axes if a[1] != 1) or n.axes[:1]
        zero: dict[str, ex.Expr] = {name: ex.lit(0, dt.i64) for name, _ in n.axes if name not in dict(kept)}
        return replace(n, axes=kept, body=exprtree.substitute_axes(n.body, zero)) if zero else None

    return exprtree.rewrite(e, step)


def _collapse(type_of: Callable[[int], TensorType], stage: Stage) -> Stage:
    """`stage` with flat loads and merged axes: those along which every load and the store go on as one."""
    nodes = [n for n in exprtree.walk(stage.expr) if isinstance(n, ex.Load)]
    sums = {id(n): offset(type_of(n.operand).shape, n.index) for n in nodes}
    pinned = _pinned(stage.expr, sums)
    at = stage.at
    lists = [stage.axes, *(r.axes for r in exprtree.reductions(stage.expr) if not r.kind.startswith("arg"))]
    sizes = {name: size for axes in lists for name, size in axes}
    gone: set[str] = set()
    for axes in lists:
        inner = axes[-1][0] if axes else ""
        for name, size in reversed(axes[:-1]):
            walks = (*sums.values(), at)
            if name in pinned or inner in pinned or any(not _follows(f, name, inner, sizes[inner]) for f in walks):
                inner = name
                continue
            sizes[inner] = sizes[inner] * size
            sums, at = {k: _without(f, name) for k, f in sums.items()}, _without(at, name)
            gone.add(name)

    def merged(axes: Axes) -> Axes:
        return tuple((name, sizes[name]) for name, _ in axes if name not in gone)

    indices: dict[int, ex.Expr] = {}

    def build(n: ex.Expr) -> ex.Expr:
        if id(n) in indices:
            return indices[id(n)]
        out = n
        if isinstance(n, ex.Load):
            f = sums[id(n)]
            f = replace(f, rest=tuple((build(e), c) for e, c in f.rest))
            out = replace(n, index=(expression(f),))
        elif exprtree.children(n):
            out = replaced(n, {id(c): build(c) for c in exprtree.children(n)})
            if isinstance(out, ex.Reduce):
                out = replace(out, axes=out.axes if out.kind.startswith("arg") else merged(out.axes))
        indices[id(n)] = out
        return out

    return replace(stage, axes=merged(stage.axes), expr=Interner()(build(stage.expr)), at=at)


def _without(f: Affine, name: str) -> Affine:
    return replace(f, axes={n: c for n, c in f.axes.items() if n != name})


def _follows(f: Affine, outer: str, inner: str, size: Dim) -> bool:
    """Whether a step of `outer` is as long as `size` steps of `inner`."""
    return f.axes.get(outer, 0) == f.axes.get(inner, 0) * size


def _pinned(e: ex.Expr, sums: Mapping[int, Affine]) -> set[str]:
    """Loop variables that are used other than as a term of a load's offset."""
    found: set[str] = set()
    seen: set[int] = set()
    stack = [e]
    while stack:
        node = stack.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, ex.Axis):
            found.add(node.name)
        stack.extend((r for r, _ in sums[id(node)].rest) if isinstance(node, ex.Load) else exprtree.children(node))
    return found


def expression(f: Affine) -> ex.Expr:
    """The sum as an index expression."""
    out: ex.Expr = ex.idx(f.constant)
    terms = [(ex.Axis(name), c) for name, c in f.axes.items()]
    for term, c in (*terms, *f.rest):
        out = ex.call("add", out, ex.call("mul", term, ex.idx(c)))
    return out
