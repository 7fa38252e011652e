"""Split-K convolution: for few output pixels and a long sum, parts of the sum side by side, then added in order."""

from __future__ import annotations

from collections.abc import Sequence

from bessemer.kernels.base import WORKSPACE, Config, KernelCode, Limits, Problem, Ptr, Reason, register
from bessemer.kernels.triton.conv_igemm import (
    conv_candidates,
    conv_estimate,
    conv_launch,
    conv_module,
    conv_reason,
    filter_sizes,
    window,
)
from bessemer.kernels.triton.partial import reduce_launch
from bessemer.kernels.triton.shapes import sms

SPLITS = (2, 3, 4, 6, 8, 12, 16)
MAX_CONFIGS = 12


class ConvSplitK:
    """As triton_conv_igemm, channels last, for convolutions whose tiles are fewer than the multiprocessors."""

    name = "triton_conv_splitk"
    version = 2
    language = "triton"

    def applicable(self, problem: Problem, target: Limits) -> Reason | None:
        reason = conv_reason(problem)
        if reason is not None:
            return reason
        if problem.attr("layout") != "NHWC":
            return Reason("stores channels last, not channels first")
        oc, ic, taps = filter_sizes(problem)
        if ic * taps < 256:
            return Reason(f"splits sums of at least 256 terms, not {ic * taps}")
        tiles = -(-problem.typical(window(problem).pixels) // 64) * -(-oc // 64)
        if tiles >= 2 * sms(target):
            return Reason(f"{tiles} tiles of 64x64 fill {sms(target)} multiprocessors without splitting the sum")
        return None

    def configs(self, problem: Problem, target: Limits) -> Sequence[Config]:
        found = conv_candidates(problem, target, SPLITS)
        return sorted(found, key=lambda c: self.estimate(problem, target, c))[:MAX_CONFIGS]

    def estimate(self, problem: Problem, target: Limits, config: Config) -> float:
        """Microseconds at the opt shape."""
        return conv_estimate(problem, target, config)

    def emit(self, problem: Problem, target: Limits, config: Config) -> KernelCode:
        code = conv_module(problem)
        first, packs = conv_launch(problem, target, config, code.args, Ptr(WORKSPACE))
        pixels, oc, split = window(problem).pixels, filter_sizes(problem)[0], int(config["split"])
        second = reduce_launch(problem, pixels, oc, split, code.args, target)
        return KernelCode("triton", code.text, (first, second), packs, split * pixels * oc * 4)


register(ConvSplitK())
