"""Tensor maps: how the tensor copies of a GPU see a tensor, and what one copy moves.

A copy moves a box of elements into shared memory, its innermost dim in rows of up to `swizzle` bytes whose units of 16
are XORed with the row; what lies outside the tensor arrives as zero. With a `Window` the tensor is [..., W, C], and a
copy moves some channels of a run of pixels, those that a window's corner stands on while it steps over the tensor.

All tuples are in the driver's order, innermost dim first. The driver's limits are checked by `defect`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from bessemer.core.dim import Dim, evaluate
from bessemer.core.interval import Ranges, bounds, divisor

BITS = 1024  # of a tensor map as an argument
ELEMENTS = frozenset({"f64", "f32", "f16", "bf16", "i64", "i32", "u64", "u32", "u16", "u8"})  # dtypes that have maps
SWIZZLES = (0, 32, 64, 128)
MOST_ELEMENTS, MOST_PIXELS, MOST_STEP = 256, 1024, 8
CORNERS = {3: 1 << 15, 4: 1 << 7, 5: 1 << 4}  # by rank: a corner c is -limit <= c < limit


@dataclass(frozen=True, slots=True)
class Window:
    """The corner stands on `lower`, `lower` + `steps`, ... below size + `upper`, along each dim between the innermost
    (channels) and the outermost (images)."""

    lower: tuple[int, ...]
    upper: tuple[int, ...]
    steps: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class TensorMap:
    """`dims` are elements, `strides` bytes along all dims but the innermost, `box` elements of one copy along each dim,
    or (channels, pixels) with a window."""

    dims: tuple[Dim, ...]
    strides: tuple[Dim, ...]
    box: tuple[int, ...]
    swizzle: int = 128
    window: Window | None = None

    def sizes(self) -> Iterator[Dim]:
        """All that depends on the shape."""
        yield from self.dims
        yield from self.strides

    def at(self, env: Mapping[str, int]) -> TensorMap:
        """The map at one shape."""
        dims, strides = (tuple(evaluate(d, env) for d in sizes) for sizes in (self.dims, self.strides))
        return replace(self, dims=dims, strides=strides)

    def extent(self, itemsize: int) -> Dim:
        """Bytes from the first element to the end of the last."""
        total: Dim = self.dims[0] * itemsize
        for size, stride in zip(self.dims[1:], self.strides):
            total = total + (size - 1) * stride
        return total


def defect(m: TensorMap, itemsize: int, nbytes: Dim, ranges: Ranges) -> str | None:
    """Which rule a map breaks over a tensor of `nbytes` bytes, at any shape in `ranges`; None where it keeps all."""
    rank, count = len(m.dims), len(m.dims) if m.window is None else 2
    if not (1 if m.window is None else 3) <= rank <= 5 or len(m.strides) != rank - 1 or len(m.box) != count:
        return f"has {rank} dims, {len(m.strides)} strides and a box of {len(m.box)}"
    if any(isinstance(d, int) and d < 1 for d in m.dims) or any(not _within(d, 0, 1 << 32, ranges) for d in m.dims):
        return f"has dims {[str(d) for d in m.dims]}, not all from 1 to 2^32"
    if any(divisor(s, ranges) % 16 or not _within(s, 0, (1 << 40) - 1, ranges) for s in m.strides):
        return f"has strides {[str(s) for s in m.strides]}, not all multiples of 16 below 2^40"
    most = (MOST_ELEMENTS, MOST_ELEMENTS if m.window is None else MOST_PIXELS)
    if any(not 1 <= size <= most[min(k, 1)] for k, size in enumerate(m.box)):
        return f"has a box of {list(m.box)}"
    row = m.box[0] * itemsize
    if m.swizzle not in SWIZZLES or row % 16 or (m.swizzle and row > m.swizzle):
        return f"copies rows of {row} bytes, swizzled in {m.swizzle}"
    if m.window is not None and not _steps_well(m.window, rank):
        return f"has an impossible {m.window}"
    if bounds(m.extent(itemsize) - nbytes, ranges)[1] > 0:
        return f"reaches over {m.extent(itemsize)} bytes of a tensor of {nbytes}"
    return None


def _within(d: Dim, least: int, most: int, ranges: Ranges) -> bool:
    low, high = bounds(d, ranges)
    return least <= low and high <= most


def _steps_well(w: Window, rank: int) -> bool:
    limit = CORNERS[rank]
    lengths = {len(w.lower), len(w.upper), len(w.steps)}
    corners = all(-limit <= c < limit for c in (*w.lower, *w.upper))
    return lengths == {rank - 2} and corners and all(1 <= s <= MOST_STEP for s in w.steps)
