"""Finds the step at which a model's shapes fit.

A net that halves its input five times and adds the halves up again runs at multiples of 32 only: at other sizes the
addends differ by one. Nothing in the model says so, and over all sizes the comparison is open. So a dimension on which
an open comparison depends is tried at multiples of 2, 4, ... until everything is decided; the range then holds that
step, and a run at another size is refused.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

from bessemer.core.errors import ShapeError
from bessemer.core.interval import Range
from bessemer.ir.graph import TensorType

LARGEST_STEP = 64
log = logging.getLogger(__name__)


class MultipleSearch:
    """The steps tried so far, by symbol; `ranges` and the types of `inputs` are those of the last try."""

    def __init__(self) -> None:
        self.multiples: dict[str, int] = {}
        self.ranges: Mapping[str, Range] = {}
        self.inputs: Mapping[str, TensorType] = {}

    def advance(self, error: ShapeError) -> bool:
        """Whether there is a larger step to try for what `error` leaves open."""
        larger = {
            name: 2 * self.ranges[name].multiple
            for name in error.undecided & self.ranges.keys()
            if _allows(self.ranges[name], 2 * self.ranges[name].multiple)
        }
        self.multiples.update(larger)
        return bool(larger)

    def told(self, error: ShapeError) -> ShapeError:
        """`error`, with the dimensions of inputs on which it depends."""
        places = {
            str(d): f"{d} is dimension {axis} of input {name!r}"
            for name, type_ in reversed(list(self.inputs.items()))
            for axis, d in enumerate(type_.shape)
            if str(d) in error.undecided
        }
        what = f"{error.what} ({', '.join(places[name] for name in sorted(places))})" if places else error.what
        return ShapeError(what, where=error.where, fix=error.fix, undecided=error.undecided, sizes=error.sizes)

    def report(self) -> None:
        """Say what was found."""
        for name, step in sorted(self.multiples.items()):
            log.info("dimension %s is taken in steps of %d: at other sizes the model's shapes do not fit", name, step)


def _allows(r: Range, step: int) -> bool:
    """Whether the range can be taken in this step: what the user gave stays allowed, a default may shrink."""
    if step > LARGEST_STEP:
        return False
    return not r.bounded or all(size % step == 0 for size in (r.lo, r.hi, r.typical))
