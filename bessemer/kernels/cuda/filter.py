"""The filters of convolutions over pixels of whole 16 bytes, channels last."""

from __future__ import annotations

from dataclasses import dataclass

from bessemer.core.dim import Dim
from bessemer.core.dtype import DType
from bessemer.kernels.base import Problem, Reason, other_op
from bessemer.kernels.cuda.epilogue import RUN
from bessemer.kernels.gpu.shapes import element_types


@dataclass(frozen=True)
class Filter:
    """[outputs, channels, *sizes], of one group, over one or two spatial axes."""

    dtype: DType
    outputs: int
    channels: int
    sizes: tuple[Dim, ...]


def filter_of(problem: Problem) -> Filter | Reason:
    """The filter of a channels-last conv, or why kernels that read whole runs of channels do not take it."""
    other = other_op(problem, ("conv",), into=RUN)
    if other is not None:
        return other
    dtype = element_types(problem, 2)
    if isinstance(dtype, Reason):
        return dtype
    n, c, *sizes = problem.operands[1].type.shape
    if problem.attr("layout") != "NHWC" or problem.attr("groups") != 1 or len(sizes) > 2:
        return Reason("computes channels-last convolutions with one group over at most two axes")
    if not isinstance(n, int) or not isinstance(c, int) or c % RUN:
        return Reason(f"reads pixels of whole 16 bytes, not of {c} channels")
    return Filter(dtype, n, c, tuple(sizes))
