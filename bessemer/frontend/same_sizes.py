"""Finds dimensions that a model's nodes need to be equal though its inputs name them apart.

A decoder's mask has a length of its own in the model, and is added to scores of as many keys as were cached and are
new; exporters that are told which axes vary give each a name of its own. Over all sizes such a comparison is open. So
one of the two is taken to be the other, or the sum of others, as if the model had named it so, and a run at sizes that
differ is refused. Of sizes of which one may be 1 that is done only where the model cannot be built otherwise.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator, Mapping

from bessemer.core.dim import Dim, DimExpr, evaluate, substitute, sym, symbols
from bessemer.core.errors import ShapeError
from bessemer.core.interval import Range, bounds
from bessemer.ir.builder import GraphBuilder
from bessemer.ir.graph import Node
from bessemer.ir.opdef import OPS, Fusion
from bessemer.ops.equalities import equalities_of

log = logging.getLogger(__name__)


class SameSizes:
    """What symbols of inputs are taken to be, in symbols that stay; `builder` has the nodes of the last try."""

    def __init__(self) -> None:
        self.taken: dict[str, Dim] = {}
        self.builder = GraphBuilder("")

    def advance(self, error: ShapeError, ranges: Mapping[str, Range]) -> bool:
        """Whether a symbol of an input could be taken to be what it is compared with where `error` is, or ahead."""
        for left, right in self._compared(error):
            for name, other in _solutions(left - right):
                if name in ranges and symbols(other) <= ranges.keys() and _fits(ranges[name], other, ranges):
                    self.taken = {n: substitute(d, {name: other}) for n, d in self.taken.items()} | {name: other}
                    return True
        return False

    def _compared(self, error: ShapeError) -> Iterator[tuple[Dim, Dim]]:
        """The sizes on which the error depends, if it does, then those that nodes ahead broadcast to one."""
        if error.sizes:
            yield error.sizes
            for node in self.builder.nodes:
                yield from _met(node, self.builder)

    def joined(self, ranges: Mapping[str, Range]) -> dict[str, Range]:
        """The ranges of the symbols that stay: of one that another is taken to be, what both allow."""
        out = {name: r for name, r in ranges.items() if name not in self.taken}
        for name, other in self.taken.items():
            for kept in symbols(other):
                if other == sym(kept):
                    out[kept] = _both(out[kept], ranges[name])
        return out

    def report(self) -> None:
        """Say what was found."""
        for name, other in sorted(self.taken.items()):
            log.info("dimension %s is taken to be %s: the model's nodes need them to be equal", name, other)


def _met(node: Node, builder: GraphBuilder) -> Iterator[tuple[Dim, Dim]]:
    """Sizes that a node takes to be equal, or one of them to be 1."""
    if OPS.get(node.op).fusion is Fusion.POINTWISE:
        shapes = [builder.type(name).shape for name in node.inputs if name]
        for one, other in itertools.combinations(shapes, 2):
            yield from zip(reversed(one), reversed(other))
    else:
        yield from ((e.left, e.right) for e in equalities_of(node, builder.types, builder.ranges))


def _solutions(difference: Dim) -> Iterator[tuple[str, Dim]]:
    """Each symbol that is alone in a term, and what it has to be for the difference to be 0; sums of symbols only."""
    terms = difference.terms if isinstance(difference, DimExpr) else ()
    if any(len(monomial) > 1 or any(atom.kind != "sym" for atom in monomial) for monomial, _ in terms):
        return
    for monomial, coefficient in terms:
        if monomial and abs(coefficient) == 1:
            (atom,) = monomial
            other = sym(atom.name) - coefficient * difference
            if isinstance(other, DimExpr):
                yield atom.name, other


def _fits(r: Range, other: Dim, ranges: Mapping[str, Range]) -> bool:
    """Whether a symbol of range `r` can be `other`: never below 0, and the same at the opt shape that the user gave."""
    found = {name: ranges[name] for name in symbols(other)}
    low, high = bounds(other, ranges)
    if low < 0 or high < r.lo or low > r.hi or r.multiple > 1 or any(f.multiple > 1 for f in found.values()):
        return False
    given = r.bounded and all(f.bounded for f in found.values())
    return not given or evaluate(other, {name: f.typical for name, f in found.items()}) == r.typical


def _both(kept: Range, other: Range) -> Range:
    """What both allow; the opt is that of the one that the user gave."""
    opt = other.opt if other.bounded and not kept.bounded else kept.opt
    return Range(max(kept.lo, other.lo), min(kept.hi, other.hi), opt, kept.multiple)
