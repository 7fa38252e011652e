"""Matrix products of few rows with constant weights: each CTA holds its whole slab, and starts on weights early."""

from __future__ import annotations

from collections.abc import Sequence

from bessemer.kernels.base import Config, KernelCode, Limits, Problem, Reason, other_op, register
from bessemer.kernels.cuda import skinny
from bessemer.kernels.cuda.epilogue import RUN
from bessemer.kernels.cuda.skinny import Rows
from bessemer.kernels.gpu.product import product_of


class GemmSkinny:
    """matmul in f16 and bf16 with a constant b, a stored row-major, k and n multiples of 8.

    b [k, n], or a batch of them that share a or have their own."""

    name = "cuda_gemm_skinny"
    version = 6
    language = "cuda"

    def applicable(self, problem: Problem, target: Limits) -> Reason | None:
        rows = _rows(problem)
        return rows if isinstance(rows, Reason) else skinny.reason(problem, target, rows)

    def configs(self, problem: Problem, target: Limits) -> Sequence[Config]:
        return skinny.ordered(problem, target, _known(problem))

    def estimate(self, problem: Problem, target: Limits, config: Config) -> float:
        """Microseconds at the opt shape."""
        return skinny.microseconds(problem, target, _known(problem), config)

    def emit(self, problem: Problem, target: Limits, config: Config) -> KernelCode:
        return skinny.code(problem, _known(problem), config)


def _known(problem: Problem) -> Rows:
    rows = _rows(problem)
    assert isinstance(rows, Rows)
    return rows


def _rows(problem: Problem) -> Rows | Reason:
    other = other_op(problem, ("matmul",), into=RUN)
    if other is not None:
        return other
    view = product_of(problem)
    if isinstance(view, Reason):
        return view
    if view.a_t:
        return Reason("takes a stored row-major")
    if not isinstance(view.n, int) or not isinstance(view.k, int) or view.k % 8:
        return Reason(f"takes weights of fixed sizes and rows of whole 16 bytes, not {view.k} x {view.n}")
    batches, a_stride, b_stride = view.batches[0] if view.batches else (1, 0, view.k * view.n)
    if len(view.batches) > 1 or b_stride != view.k * view.n or not isinstance(batches, int):
        return Reason("of batches, takes those along one axis where each has its weights")
    order, constants = "nk" if view.b_t else "kn", {"OWN_TOKENS": int(a_stride != 0)}
    return Rows("rows_matmul.cuh", view.m, view.n, view.k, order, {}, constants, batches)


register(GemmSkinny())
