"""Split-K: parts of the sum side by side for products of few tiles; the last program of a tile adds them in order."""

from __future__ import annotations

from collections.abc import Sequence

from bessemer.kernels.base import Config, KernelCode, Limits, Problem, Reason, register
from bessemer.kernels.gpu.product import Product, product_of
from bessemer.kernels.gpu.shapes import sms
from bessemer.kernels.triton.gemm import candidates, estimate, product_code, tiles, tiling
from bessemer.kernels.triton.partial import SPLITS, countable

MAX_CONFIGS = 12


class GemmSplitK:
    """As triton_gemm, for products whose tiles are fewer than the multiprocessors."""

    name = "triton_gemm_splitk"
    version = 3
    language = "triton"

    def applicable(self, problem: Problem, target: Limits) -> Reason | None:
        view = product_of(problem)
        if isinstance(view, Reason):
            return view
        m, n, k, batch = (problem.typical(d) for d in (view.m, view.n, view.k, view.batch))
        if k < 256:
            return Reason(f"splits sums of at least 256 terms, not {k}")
        count = -(-m // 64) * -(-n // 64) * batch
        if count >= 2 * sms(target):
            return Reason(f"{count} tiles of 64x64 fill {sms(target)} multiprocessors without splitting the sum")
        if not self.configs(problem, target):
            return Reason(f"has no counters for the tiles of a product of {view.m} rows and {view.n} columns")
        return None

    def configs(self, problem: Problem, target: Limits) -> Sequence[Config]:
        view = _view(problem)
        found = candidates(problem, target, view, SPLITS)
        fit = [c for c in found if countable(problem, tiles(view, tiling(problem, view, c)))]
        return sorted(fit, key=lambda c: self.estimate(problem, target, c))[:MAX_CONFIGS]

    def estimate(self, problem: Problem, target: Limits, config: Config) -> float:
        """Microseconds at the opt shape."""
        return estimate(problem, target, _view(problem), config)

    def emit(self, problem: Problem, target: Limits, config: Config) -> KernelCode:
        return product_code(problem, target, _view(problem), config)


def _view(problem: Problem) -> Product:
    view = product_of(problem)
    assert isinstance(view, Product)
    return view


register(GemmSplitK())
