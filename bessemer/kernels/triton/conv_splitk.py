"""Split-K convolution: for few output pixels and a long sum, parts of it side by side; the last program adds them."""

from __future__ import annotations

from collections.abc import Sequence

from bessemer.kernels.base import Config, KernelCode, Limits, Problem, Reason, register
from bessemer.kernels.gpu.shapes import sms
from bessemer.kernels.triton.conv_igemm import (
    conv_candidates,
    conv_code,
    conv_estimate,
    conv_reason,
    conv_tiles,
    conv_tiling,
    filter_sizes,
    window,
)
from bessemer.kernels.triton.partial import SPLITS, countable

MAX_CONFIGS = 12


class ConvSplitK:
    """As triton_conv_igemm, for convolutions whose tiles are fewer than the multiprocessors."""

    name = "triton_conv_splitk"
    version = 3
    language = "triton"

    def applicable(self, problem: Problem, target: Limits) -> Reason | None:
        reason = conv_reason(problem)
        if reason is not None:
            return reason
        oc, ic, taps = filter_sizes(problem)
        if ic * taps < 256:
            return Reason(f"splits sums of at least 256 terms, not {ic * taps}")
        tiles = -(-problem.typical(window(problem).pixels) // 64) * -(-oc // 64)
        if tiles >= 2 * sms(target):
            return Reason(f"{tiles} tiles of 64x64 fill {sms(target)} multiprocessors without splitting the sum")
        if not self.configs(problem, target):
            return Reason(f"has no counters for the tiles of {problem.outputs[0]}")
        return None

    def configs(self, problem: Problem, target: Limits) -> Sequence[Config]:
        found = conv_candidates(problem, target, SPLITS)
        fit = [c for c in found if countable(problem, conv_tiles(problem, conv_tiling(problem, c)))]
        return sorted(fit, key=lambda c: self.estimate(problem, target, c))[:MAX_CONFIGS]

    def estimate(self, problem: Problem, target: Limits, config: Config) -> float:
        """Microseconds at the opt shape."""
        return conv_estimate(problem, target, config)

    def emit(self, problem: Problem, target: Limits, config: Config) -> KernelCode:
        return conv_code(problem, target, config)


register(ConvSplitK())
