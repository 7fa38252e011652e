"""Group and instance normalisation in two launches: statistics of parts of groups, then sum and result."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bessemer.core.dim import Dim, ceildiv, product
from bessemer.kernels.base import (
    WORKSPACE,
    Config,
    KernelCode,
    Launch,
    Limits,
    Problem,
    Ptr,
    Reason,
    other_op,
    register,
)
from bessemer.kernels.gpu.shapes import (
    FLOATS,
    element_types,
    power_of_two,
    sizes,
    sms,
    upper,
)
from bessemer.kernels.triton import emit

CHUNKS = (1, 2, 4, 8, 16, 32, 64)
TILES = ((1024, 4), (2048, 4), (4096, 8))  # elements of a step, warps
MAX_CHANNELS = 4096  # of one group
SECTOR = 32  # bytes that memory is read in
LAUNCHES_US, SM_BYTES_PER_US, ELEMENT_US = 3.3, 34_000.0, 0.36 / 1024  # both; one multiprocessor's share; a step's


class GroupNorm:
    """group_norm of either layout, statistics in f32; parts are merged by means and squared deviations."""

    name = "triton_group_norm"
    version = 3
    language = "triton"

    def applicable(self, problem: Problem, target: Limits) -> Reason | None:
        other = other_op(problem, ("group_norm",), into=1)
        if other is not None:
            return other
        dtype = element_types(problem, 1)
        if isinstance(dtype, Reason):
            return dtype
        if len(problem.operands) < 3 or any(o.type.dtype not in FLOATS for o in problem.operands[1:3]):
            return Reason("needs a float scale and bias per channel")
        x = problem.operands[0].type
        channels = x.shape[-1] if problem.attr("layout") == "NHWC" else x.shape[1]
        if not isinstance(channels, int) or channels // int(problem.attr("groups")) > MAX_CHANNELS:
            return Reason(f"takes groups of at most {MAX_CHANNELS} channels, not those of {x}")
        if upper(problem, product(x.shape[1:])) >= 2**31:
            return Reason(f"addresses one image of {x} with 32 bits")
        return None

    def configs(self, problem: Problem, target: Limits) -> Sequence[Config]:
        _, pixels, groups, _ = _view(problem)
        images = problem.typical(problem.operands[0].type.shape[0])
        most = min(problem.typical(pixels), 8 * sms(target) // max(1, images * groups))
        useful = [c for c in CHUNKS if c == 1 or c <= most]
        found: list[Config] = [{"chunks": c, "tile": t, "warps": w} for c in useful for t, w in TILES]
        return sorted(found, key=lambda c: self.estimate(problem, target, c))

    def estimate(self, problem: Problem, target: Limits, config: Config) -> float:
        """Microseconds at the opt shape: both launches read everything, in sectors of 32 bytes where groups are narrow.
        The constants fit 525 timings on an H200, with a mean error of 17 %."""
        batch, pixels, groups, channels = _view(problem)
        chunks, tile = int(config["chunks"]), int(config["tile"])
        x = problem.operands[0].type
        run = channels * x.dtype.itemsize if problem.attr("layout") == "NHWC" else SECTOR
        programs = problem.typical(batch) * groups * chunks
        steps = -(-problem.typical(pixels) * power_of_two(channels) // (tile * chunks))
        moved = 3 * problem.typical(x.nbytes) * max(1.0, SECTOR / run) / min(programs, sms(target))
        waves = -(-programs // sms(target))
        return LAUNCHES_US + moved / SM_BYTES_PER_US + waves * steps * tile * ELEMENT_US

    def emit(self, problem: Problem, target: Limits, config: Config) -> KernelCode:
        batch, pixels, groups, channels = _view(problem)
        last = problem.attr("layout") == "NHWC"
        chunks, warps = int(config["chunks"]), int(config["warps"])
        bc = power_of_two(channels)
        bp = max(1, int(config["tile"]) // bc)
        share = ceildiv(pixels, chunks)
        code = emit.module("group_norm", problem, None if last else (1, 2))
        grid = (batch * groups, chunks)
        shared: tuple[tuple[str, Any], ...] = (
            ("num_warps", warps), ("num_stages", 1), ("BP", bp), ("BC", bc), ("CHUNKS", chunks), ("LAST", last),
        )  # fmt: skip
        numbers = sizes(problem, (pixels, groups, channels, share))
        stats = Launch("stats", grid, (Ptr(0), Ptr(WORKSPACE), *numbers), shared)
        apply = Launch(
            "kernel", grid, (Ptr(0), Ptr(1), Ptr(2), Ptr(WORKSPACE), *numbers, *code.args),
            (*shared, ("EPSILON", float(problem.attr("epsilon")))),
        )  # fmt: skip
        return KernelCode("triton", code.text, (stats, apply), workspace=batch * groups * chunks * 8)


def _view(problem: Problem) -> tuple[Dim, Dim, int, int]:
    """(images, pixels, groups, channels of a group)."""
    shape, groups = problem.operands[0].type.shape, int(problem.attr("groups"))
    last = problem.attr("layout") == "NHWC"
    channels = shape[-1] if last else shape[1]
    assert isinstance(channels, int)
    return shape[0], product(shape[1:-1] if last else shape[2:]), groups, channels // groups


register(GroupNorm())
