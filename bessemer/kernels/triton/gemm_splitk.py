"""Split-K: parts of the sum side by side for products of few tiles, then one pass that adds the parts in order."""

from __future__ import annotations

from collections.abc import Sequence

from bessemer.kernels.base import WORKSPACE, Config, KernelCode, Limits, Problem, Ptr, Reason, register
from bessemer.kernels.triton import emit
from bessemer.kernels.triton.gemm import candidates, estimate, product_launch
from bessemer.kernels.triton.partial import reduce_launch
from bessemer.kernels.triton.product import Product, product_of
from bessemer.kernels.triton.shapes import sms

SPLITS = (2, 3, 4, 6, 8, 12, 16)
MAX_CONFIGS = 12


class GemmSplitK:
    """As triton_gemm, for products whose tiles are fewer than the multiprocessors."""

    name = "triton_gemm_splitk"
    version = 2
    language = "triton"

    def applicable(self, problem: Problem, target: Limits) -> Reason | None:
        view = product_of(problem)
        if isinstance(view, Reason):
            return view
        m, n, k, batch = (problem.typical(d) for d in (view.m, view.n, view.k, view.batch))
        if k < 256:
            return Reason(f"splits sums of at least 256 terms, not {k}")
        tiles = -(-m // 64) * -(-n // 64) * batch
        if tiles >= 2 * sms(target):
            return Reason(f"{tiles} tiles of 64x64 fill {sms(target)} multiprocessors without splitting the sum")
        return None

    def configs(self, problem: Problem, target: Limits) -> Sequence[Config]:
        found = candidates(problem, target, _view(problem), SPLITS)
        return sorted(found, key=lambda c: self.estimate(problem, target, c))[:MAX_CONFIGS]

    def estimate(self, problem: Problem, target: Limits, config: Config) -> float:
        """Microseconds at the opt shape."""
        return estimate(problem, target, _view(problem), config)

    def emit(self, problem: Problem, target: Limits, config: Config) -> KernelCode:
        view = _view(problem)
        code = emit.module("gemm", problem)
        first, packs = product_launch(problem, target, view, config, code.args, Ptr(WORKSPACE))
        rows, split = view.m * view.batch, int(config["split"])
        second = reduce_launch(problem, rows, view.n, split, code.args, target)
        return KernelCode("triton", code.text, (first, second), packs, split * rows * view.n * 4)


def _view(problem: Problem) -> Product:
    view = product_of(problem)
    assert isinstance(view, Product)
    return view


register(GemmSplitK())
