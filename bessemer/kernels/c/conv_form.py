"""What the convolution tactics read off a problem: layout, groups, and sizes as three spatial dims."""

from __future__ import annotations

from dataclasses import dataclass

from bessemer.core import dtype as dt
from bessemer.core.dim import Dim
from bessemer.kernels.base import Problem, Reason, other_op

Dims3 = tuple[Dim, Dim, Dim]


@dataclass(frozen=True)
class ConvForm:
    """A convolution with 1 to 3 spatial dims, written with 3: missing leading ones are of extent 1, stride 1, no pad.

    `kernel`, `stride` and `dilation` are known; image sizes and pads may be symbolic.
    """

    batch: Dim
    channels: int  # of x, all groups
    outputs: int  # output channels, all groups
    groups: int
    size: Dims3
    out: Dims3
    kernel: tuple[int, int, int]
    stride: tuple[int, int, int]
    dilation: tuple[int, int, int]
    pad: Dims3  # at the start; the end follows from `out`

    @property
    def pixels(self) -> Dim:
        return self.out[0] * self.out[1] * self.out[2]

    @property
    def taps(self) -> int:
        return self.kernel[0] * self.kernel[1] * self.kernel[2]

    @property
    def pointwise(self) -> bool:
        """Whether output pixel i reads input pixel i alone."""
        return self.taps == 1 and self.stride == (1, 1, 1) and self.size == self.out and self.pad == (0, 0, 0)

    @property
    def ints(self) -> tuple[Dim, ...]:
        """Channels, then the arrays of three of conv_source.h."""
        return (self.channels, *self.size, *self.out, *self.kernel, *self.stride, *self.dilation, *self.pad)


def channels_last(problem: Problem) -> bool:
    """Whether x and the output have their channels as the last axis."""
    return bool(problem.attr("layout") == "NHWC")


def refuse(problem: Problem, op: str = "conv", into: int = 1) -> Reason | None:
    """Why no f32 tactic computes the problem as an `op`: its dtypes, its filter's shape or its rank. `into`: see
    `other_op`."""
    other = other_op(problem, (op,), into)
    if other is not None:
        return other
    x, w = problem.operands[0].type, problem.operands[1].type
    if x.dtype != dt.f32 or w.dtype != dt.f32 or (problem.result and problem.result.dtype != dt.f32):
        return Reason("operands or result are not f32")
    if not 3 <= x.rank <= 5:
        return Reason(f"{x.rank - 2} spatial dims")
    if not all(isinstance(d, int) for d in w.shape):
        return Reason("the filter's shape is symbolic")
    if not isinstance(x.shape[-1 if channels_last(problem) else 1], int):
        return Reason("the channels of x are symbolic")
    return None


def refuse_packed(problem: Problem, op: str = "conv", into: int = 1) -> Reason | None:
    """As `refuse`, and why no channels-last tactic with packed weights computes it."""
    reason = refuse(problem, op, into)
    if reason is not None:
        return reason
    if not channels_last(problem):
        return Reason("the layout is not NHWC")
    if not problem.operands[1].constant:
        return Reason("the filter is no constant")
    return None


def conv_form(problem: Problem) -> ConvForm:
    """The form of a "conv" or "conv_transpose" problem that `refuse` lets pass."""
    x, w, y = problem.operands[0].type.shape, problem.operands[1].type.shape, problem.outputs[0].shape
    last = channels_last(problem)
    size, out = (s[1:-1] if last else s[2:] for s in (x, y))
    rank, groups = len(size), int(problem.attr("groups"))
    ones = (1,) * (3 - rank)
    strides, dilations, pads = (problem.attr(name) for name in ("strides", "dilations", "pads"))
    return ConvForm(
        batch=x[0],
        channels=_known(x[-1 if last else 1]),
        outputs=_known(w[0]) if problem.op == "conv" else _known(w[1]) * groups,
        groups=groups,
        size=_three(ones, size),
        out=_three(ones, out),
        kernel=_ints(_three(ones, w[2:])),
        stride=_ints(_three(ones, strides)),
        dilation=_ints(_three(ones, dilations)),
        pad=_three((0,) * (3 - rank), pads[:rank]),
    )


def _known(d: Dim) -> int:
    if not isinstance(d, int):
        raise ValueError(f"{d} is not known at build time")
    return d


def _three(lead: tuple[int, ...], rest: tuple[Dim, ...]) -> Dims3:
    a, b, c = list(lead) + list(rest)
    return a, b, c


def _ints(dims: Dims3) -> tuple[int, int, int]:
    a, b, c = (_known(d) for d in dims)
    return a, b, c
