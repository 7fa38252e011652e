"""Profiles: the least, the usual and the greatest shape of each input that has dynamic dimensions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from bessemer.core.errors import ShapeError

Shape = tuple[int, ...]
LARGEST = 2**31 - 1  # of one dimension


@dataclass(frozen=True)
class Profile:
    """Shapes that an engine accepts: `Profile({"x": (min, opt, max)})`, each a shape such as (1, 3, 224, 224).

    Kernels are tuned at `opt`; memory is planned for `max`. ShapeError where the three do not fit together.
    """

    inputs: Mapping[str, tuple[Shape, Shape, Shape]]

    def __post_init__(self) -> None:
        if not isinstance(self.inputs, Mapping):
            raise ShapeError(f"a profile of {self.inputs!r} names no inputs", fix="give {input: (min, opt, max)}")
        checked = {name: _checked(name, shapes) for name, shapes in self.inputs.items()}
        object.__setattr__(self, "inputs", MappingProxyType(checked))

    def __hash__(self) -> int:
        return hash(tuple(sorted(self.inputs.items())))

    def axes(self, name: str) -> Iterator[tuple[int, int, int]]:
        """(min, opt, max) of each dimension of input `name`."""
        return iter(zip(*self.inputs[name], strict=True))


def _checked(name: str, shapes: Sequence[Sequence[int]]) -> tuple[Shape, Shape, Shape]:
    if isinstance(shapes, (str, bytes)) or not hasattr(shapes, "__len__") or len(shapes) != 3:
        raise ShapeError(
            f"the profile of input {name!r} is {shapes!r}, not (min, opt, max)",
            fix=f"give three shapes, e.g. {{{name!r}: ((1, 3, 64, 64), (1, 3, 224, 224), (8, 3, 512, 512))}}",
        )
    low, opt, high = (checked_shape(name, shape) for shape in shapes)
    if not len(low) == len(opt) == len(high):
        raise ShapeError(
            f"the profile of input {name!r} has shapes of different ranks: {low}, {opt}, {high}",
            fix="give min, opt and max the same number of dimensions",
        )
    for axis, (a, b, c) in enumerate(zip(low, opt, high)):
        if not a <= b <= c:
            raise ShapeError(
                f"the profile of input {name!r}, dimension {axis}: min {a}, opt {b}, max {c} are not in order",
                fix="give min <= opt <= max in every dimension",
            )
    return low, opt, high


def checked_shape(name: str, shape: Sequence[int]) -> Shape:
    """`shape` of input `name` as a tuple of ints in [0, LARGEST]; ShapeError for anything else."""
    try:
        dims = tuple(shape)
    except TypeError:
        dims = (None,)  # type: ignore[assignment]
    if isinstance(shape, (str, bytes)) or not all(hasattr(d, "__index__") and 0 <= int(d) <= LARGEST for d in dims):
        raise ShapeError(
            f"the shape of input {name!r} is {shape!r}", fix=f"give a tuple of integers from 0 to {LARGEST}"
        )
    return tuple(int(d) for d in dims)
