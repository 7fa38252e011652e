"""What fp16 cannot hold: the values that have to stay in fp32.

fp16 ends at 65,504, and below 6e-5 it loses digits until nothing is left at 3e-8. How large weights are is known. How
large values become is measured: the graph runs once in the interpreter, on calibration inputs where the caller has
some, else on generated ones. Bounds from the weights alone would not do: they multiply from layer to layer, and leave
no network of some depth in fp16.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from bessemer.core import canon
from bessemer.core import dtype as dt
from bessemer.core.dim import Dim, substitute
from bessemer.core.errors import BessemerError
from bessemer.ir import interp
from bessemer.ir.graph import Graph, Node, TensorType, subgraphs
from bessemer.ir.opdef import OPS, InferContext
from bessemer.ir.text import print_graph
from bessemer.passes.large_values import OVERFLOW, LargeValues, mean_size, summed
from bessemer.passes.probe_inputs import Kind, generated, sizes_at

VERSION = 2  # of what is measured, and what follows from it; raise it with changes
COARSE = 2.0**-8  # of a value's norm, what fp16 may lose: as much as bf16 does
SMALL = 2.0**-16  # the root mean square above which it cannot lose so much
CALIBRATED, GENERATED = 2, 8  # times more than what was seen has to fit: real inputs tell more than generated ones
COSTLY = 3e11  # operations of one run, some ten seconds of two cores


@dataclass(frozen=True)
class Measured:
    """Values that fp16 cannot hold, each with the reason, how that was found out, and whether every value was seen.

    `exponents` are those k for which v * 2^-k fits, of the values that are too large and not too small elsewhere."""

    wide: Mapping[str, str]
    exponents: Mapping[str, int]
    how: str
    complete: bool


def key_of(graph: Graph) -> str:
    """What the ranges on generated inputs depend on: the graph with its names, and how it is measured."""
    return canon.digest(["ranges", VERSION, print_graph(graph)])


def measure(graph: Graph, calibration: Sequence[interp.Arrays] = ()) -> Measured:
    """Run `graph` and look at its f32 values and constants, those of nested graphs included.

    calibration: inputs by name, as the graph takes them; all are run. InputError where one does not fit.
    """
    wide = {name: why for name, why in _constants(graph)}
    if calibration:
        watch = _Watch.of(graph, CALIBRATED)
        for feeds in calibration:
            watch.run(graph, feeds)
        how, complete = f"measured on {len(calibration)} calibration inputs", True
    else:
        watch = _Watch.of(graph, GENERATED)
        how, complete = _on_generated(graph, watch)
    if watch.unknown:
        how += f"; {len(watch.unknown)} values were never finite there"
    found = {**wide, **watch.wide}
    exponents = {name: k for name in found if (k := watch.sizes.exponent(name)) is not None}
    return Measured(found, exponents, how, complete and not watch.unknown)


def _on_generated(graph: Graph, watch: _Watch) -> tuple[str, bool]:
    """Let `watch` see generated inputs of the opt shapes, or of the least ones where those cost too much.

    What was done, and whether it went to the end.
    """
    for which in ("opt", "least"):
        sizes = sizes_at(graph, which)
        if (cost := _operations(graph, sizes)) <= COSTLY:
            break
    else:
        return f"not measured, as one run takes {cost:.1e} operations", False
    how = f"measured on generated inputs of the {which} shapes"
    kinds: tuple[Kind, ...] = ("centred", "positive")  # logarithms and roots need the second
    for kind in kinds:
        try:
            watch.run(graph, generated(graph, sizes, kind))
        except BessemerError as error:
            return f"{how}, which failed midway: {error.what}", False
        if not watch.unknown:
            break
    return how, True


@dataclass
class _Watch:
    """Looks at values; `headroom` times their largest magnitude has to fit."""

    headroom: int
    sizes: LargeValues
    large: dict[str, str] = field(default_factory=dict)
    small: dict[str, str] = field(default_factory=dict)  # in some run
    fine: set[str] = field(default_factory=set)  # not small in some run
    blind: set[str] = field(default_factory=set)  # without a finite element in some run
    given: set[str] = field(default_factory=set)  # the same in every run of these sizes; their infinities are meant

    @staticmethod
    def of(graph: Graph, headroom: int) -> _Watch:
        return _Watch(headroom, LargeValues(headroom, frozenset(summed(graph))), given=set(_names_of_constants(graph)))

    @property
    def wide(self) -> dict[str, str]:
        return {**{name: why for name, why in self.small.items() if name not in self.fine}, **self.large}

    @property
    def unknown(self) -> set[str]:
        return self.blind - self.fine - self.small.keys()

    def run(self, graph: Graph, feeds: interp.Arrays) -> None:
        interp.run(graph, feeds, watch=self)
        for name, array in feeds.items():
            self._look(name, array)

    def __call__(self, node: Node, results: Sequence[np.ndarray]) -> None:
        if not OPS.get(node.op).random and not subgraphs(node) and self.given.issuperset(i for i in node.inputs if i):
            self.given.update(node.outputs)
        for name, array in zip(node.outputs, results):
            if name:
                self._look(name, array)

    def _look(self, name: str, array: np.ndarray) -> None:
        if array.dtype != np.float32 or not array.size:
            return
        whole, array = array, _finite(array)
        if not array.size:
            if name not in self.given:
                self.blind.add(name)
            return
        if why := overflow(array, self.headroom):
            self.large[name] = why
            self.sizes.see_large(name, whole)
        else:
            self.sizes.see(name, array)
        if why := underflow(array):
            self.small[name] = why
        else:
            self.fine.add(name)


def overflow(array: np.ndarray, headroom: int = 1) -> str:
    """Why `headroom` times finite values are too large for fp16, or ""."""
    peak = float(max(array.max(), -array.min()))
    if peak * headroom < OVERFLOW:
        return ""
    return f"reaches {peak:.3g}, {'above' if peak >= OVERFLOW else f'less than {headroom} times below'} 65504"


def underflow(array: np.ndarray) -> str:
    """Why finite fp32 values are too small for fp16, or ""; zeros are fine."""
    flat = array.reshape(-1)
    if mean_size(flat) >= SMALL or not flat.any():
        return ""
    exact = flat.astype(np.float64)
    lost = float(np.linalg.norm(exact - flat.astype(np.float16)) / np.linalg.norm(exact))
    return f"is at most {np.abs(flat).max():.1g}, where fp16 is {lost:.1%} off" if lost > COARSE else ""


def _constants(graph: Graph) -> Iterator[tuple[str, str]]:
    """(name, reason) of the constants that fp16 cannot hold; infinities are meant."""
    for name, constant in graph.constants.items():
        if constant.type.dtype == dt.f32:
            array = constant.load()
            if not array.size or mean_size(array) >= SMALL and max(array.max(), -array.min()) < OVERFLOW:
                continue  # as nearly all are
            array = _finite(array)
            if array.size and (why := overflow(array) or underflow(array)):
                yield name, why
    for node in graph.nodes:
        for inner in subgraphs(node):
            yield from _constants(inner)


def _names_of_constants(graph: Graph) -> Iterator[str]:
    yield from graph.constants
    for node in graph.nodes:
        for inner in subgraphs(node):
            yield from _names_of_constants(inner)


def _finite(array: np.ndarray) -> np.ndarray:
    """The finite elements; the array itself where that is all."""
    return array if np.isfinite(array.max()) and np.isfinite(array.min()) else array[np.isfinite(array)]


def _operations(graph: Graph, sizes: Mapping[str, int], outer: Mapping[str, TensorType] | None = None) -> float:
    """About what one run costs; a body counts once."""
    types = {**(outer or {}), **graph.types}

    typical = {**{k: r.typical for k, r in graph.ranges.items()}, **sizes}

    def value(d: Dim) -> float:
        known = substitute(d, typical)
        return known if isinstance(known, int) else 1

    total = 0.0
    for node in graph.nodes:
        flops = OPS.get(node.op).flops
        if flops is not None:
            context = InferContext(tuple(types[i] if i else None for i in node.inputs), node.attrs, graph.ranges)
            total += value(flops(context))
        total += sum(value(types[o].numel) for o in node.outputs if o)
        total += sum(_operations(inner, sizes, types) for inner in subgraphs(node))
    return total
