"""Convolutions and pools as three-dimensional windows: lower ranks get leading axes of size one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bessemer.core.dim import Dim, product
from bessemer.kernels.base import Problem, Reason

Three = tuple[int, int, int]
Dims = tuple[Dim, Dim, Dim]


@dataclass(frozen=True)
class Window:
    """Sizes along depth, height and width. `last`: channels last. `pads` are those at the beginning."""

    batch: Dim
    channels: Dim
    out_channels: Dim
    input: Dims
    output: Dims
    kernel: Dims
    strides: Three
    dilations: Three
    pads: Dims
    last: bool

    @property
    def pixels(self) -> Dim:
        return self.batch * product(self.output)


def window_of(problem: Problem, kernel: Sequence[Dim]) -> Window | Reason:
    """The window of a conv, conv_transpose or pool with `kernel` sizes, or why kernels do not take it."""
    rank = len(kernel)
    if not 1 <= rank <= 3:
        return Reason(f"takes one to three spatial axes, not {rank}")
    last = problem.attr("layout") == "NHWC"
    x, y = problem.operands[0].type.shape, (problem.result or problem.outputs[0]).shape
    attrs: dict[str, Any] = dict(problem.attrs)
    ones = (1,) * (3 - rank)
    begin = (0,) * (3 - rank) + tuple(attrs.get("pads", (0,) * (2 * rank)))[:rank]
    strides, dilations = (ones + tuple(attrs.get(name, (1,) * rank)) for name in ("strides", "dilations"))
    return Window(
        x[0], x[-1] if last else x[1], y[-1] if last else y[1], _three(x, last), _three(y, last),
        _pad(tuple(kernel)), _ints(strides), _ints(dilations), _pad(begin), last,
    )  # fmt: skip


def _three(shape: tuple[Dim, ...], last: bool) -> Dims:
    return _pad(shape[1:-1] if last else shape[2:])


def _pad(values: tuple[Dim, ...]) -> Dims:
    d, h, w = (1,) * (3 - len(values)) + values
    return (d, h, w)


def _ints(values: Sequence[int]) -> Three:
    d, h, w = (int(v) for v in values)
    return (d, h, w)
