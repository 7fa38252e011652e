"""Which power of two lets fp16 hold a value that becomes too large, if any does.

v * 2^-k has to fit with the headroom that all values get, and what is small in v must not be lost. Where channels are
normalised one by one, or joined with others, each counts for itself; where a product adds them up, small ones do not.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from bessemer.ir.graph import Graph, subgraphs
from bessemer.passes.scale_ranges import PRODUCTS

OVERFLOW = 65520.0  # the least magnitude that rounds to infinity
NORMAL = 2.0**-14  # the least magnitude with all digits
TYPICAL = 2.0**-12  # the least root mean square of a channel of what is stored
LOST = 1 / 64  # of the elements may become less than NORMAL
STEP = 4  # between exponents: few of them make few different kernels
LARGEST = 32  # what is larger is no result, but a mark


@dataclass
class LargeValues:
    """Looks at values that are too large, run after run; `headroom` times their largest magnitude has to fit."""

    headroom: int
    summed: frozenset[str]  # values that products alone read
    peaks: dict[str, float] = field(default_factory=dict)
    sizes: dict[str, float] = field(default_factory=dict)  # the least root mean square of any run or channel, not zero
    uneven: set[str] = field(default_factory=set)

    def see(self, name: str, array: np.ndarray) -> None:
        """Look at a value that is not too large in this run, but may be in others."""
        self._sized(name, mean_size(array))

    def see_large(self, name: str, array: np.ndarray) -> None:
        """Look at a value that is too large, all of it: elements that are not finite stay what they are."""
        magnitude = np.abs(array)
        finite = magnitude[np.isfinite(magnitude)]
        peak = self.peaks[name] = max(self.peaks.get(name, 0.0), float(finite.max()))
        if name in self.summed:
            self._sized(name, mean_size(finite))
            return
        normal = finite >= NORMAL
        lost = normal & (finite < NORMAL * 2.0 ** self._fitting(peak))
        if np.count_nonzero(lost) > LOST * np.count_nonzero(normal):
            self.uneven.add(name)
        for axis in {1, array.ndim - 1} if array.ndim > 1 else ():
            self._sized(name, _least_size(array, axis))

    def exponent(self, name: str) -> int | None:
        """The k for which `name` fits as v * 2^-k; None where it was never too large, or small elements were lost."""
        if name not in self.peaks or name in self.uneven:
            return None
        k = self._fitting(self.peaks[name])
        return k if k <= LARGEST and self.sizes.get(name, math.inf) * 2.0**-k >= TYPICAL else None

    def _fitting(self, peak: float) -> int:
        k = STEP
        while peak * self.headroom * 2.0**-k >= OVERFLOW:
            k += STEP
        return k

    def _sized(self, name: str, size: float) -> None:
        if size:
            self.sizes[name] = min(self.sizes.get(name, size), size)


def summed(graph: Graph) -> Iterator[str]:
    """The values that products alone read, nested graphs' included."""
    for name, readers in graph.consumers.items():
        if name not in graph.outputs and all(n.op in PRODUCTS for n in readers):
            yield name
    for node in graph.nodes:
        for inner in subgraphs(node):
            yield from summed(inner)


def mean_size(array: np.ndarray) -> float:
    """The root mean square of f32 values; infinite where f32 cannot hold the squares."""
    flat = array.reshape(-1)
    with np.errstate(over="ignore"):
        return math.sqrt(float(np.dot(flat, flat)) / flat.size)


def _least_size(array: np.ndarray, axis: int) -> float:
    """The least root mean square of the parts along `axis` that are not all zero, of those that are finite."""
    others = tuple(k for k in range(array.ndim) if k != axis)
    with np.errstate(over="ignore"):
        squares = np.asarray(np.mean(array * array, axis=others, dtype=np.float64))
    return math.sqrt(float(np.min(squares[squares > 0], initial=math.inf)))
