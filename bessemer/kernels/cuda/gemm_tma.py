"""Matrix products of many rows with constant weights, by tiles whose rows the copy engine fetches (TMA)."""

from __future__ import annotations

from collections.abc import Sequence

from bessemer.core.dim import ceildiv
from bessemer.core.tensor_map import TensorMap
from bessemer.kernels.base import Config, KernelCode, Limits, Problem, Reason, other_op, register
from bessemer.kernels.cuda import tiled
from bessemer.kernels.cuda.epilogue import RUN
from bessemer.kernels.cuda.tiled import Rows
from bessemer.kernels.cuda.weights import BLOCK
from bessemer.kernels.gpu.product import product_of


class GemmTma:
    """matmul in f16 and bf16 with a constant b, a stored row-major, k and n multiples of 8.

    b [k, n], or a batch of them that share a."""

    name = "cuda_gemm_tma"
    version = 7
    language = "cuda"

    def applicable(self, problem: Problem, target: Limits) -> Reason | None:
        rows = _rows(problem)
        return rows if isinstance(rows, Reason) else tiled.reason(problem, target, rows)

    def configs(self, problem: Problem, target: Limits) -> Sequence[Config]:
        return tiled.ordered(problem, target, _known(problem))

    def estimate(self, problem: Problem, target: Limits, config: Config) -> float:
        """Microseconds at the opt shape."""
        return tiled.microseconds(problem, target, _known(problem), config)

    def emit(self, problem: Problem, target: Limits, config: Config) -> KernelCode:
        return tiled.code(problem, target, _known(problem), config)


def _known(problem: Problem) -> Rows:
    rows = _rows(problem)
    assert isinstance(rows, Rows)
    return rows


def _rows(problem: Problem) -> Rows | Reason:
    other = other_op(problem, ("matmul",), into=RUN, sums=True)
    if other is not None:
        return other
    view = product_of(problem, sums=True)
    if isinstance(view, Reason):
        return view
    if view.a_t:
        return Reason("takes a stored row-major")
    if not isinstance(view.n, int) or not isinstance(view.k, int) or view.k % 8:
        return Reason(f"takes weights of fixed sizes and rows of whole 16 bytes, not {view.k} x {view.n}")
    batches, a_stride, b_stride = view.batches[0] if view.batches else (1, 0, view.k * view.n)
    if len(view.batches) > 1 or (a_stride, b_stride) != (0, view.k * view.n) or not isinstance(batches, int):
        return Reason("of batches, takes those of weights along one axis, all of one a")
    m = TensorMap((view.k, view.m), (view.k * view.itemsize,), (BLOCK, 1))
    order = "nk" if view.b_t else "kn"
    return Rows("tiled_matmul.cuh", view.m, view.n, ceildiv(view.k, BLOCK), order, {}, m, batches)


register(GemmTma())
