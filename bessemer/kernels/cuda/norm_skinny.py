"""Norms of few tokens and the products behind them: a CTA's slab holds whole tokens, and tells their statistics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from bessemer.kernels.base import Config, KernelCode, Limits, Problem, Reason, other_op, register
from bessemer.kernels.cuda import gemm_skinny, skinny
from bessemer.kernels.cuda.skinny import Norm, Rows
from bessemer.kernels.cuda.weights import BLOCK

NORM_US = 2.0  # of a norm that is a launch by itself
TILED_US, TILED_FLOP_PER_US = 2.0, 4e8  # of a product in larger tiles


class NormSkinny:
    """norm_matmul in f16 and bf16, x shared by all batches of the weights, k a multiple of 64."""

    name = "cuda_norm_skinny"
    version = 1
    language = "cuda"

    def applicable(self, problem: Problem, target: Limits) -> Reason | None:
        rows = _rows(problem)
        if isinstance(rows, Reason):
            return rows
        return skinny.reason(problem, target, rows) or _slower(problem, target, rows)

    def configs(self, problem: Problem, target: Limits) -> Sequence[Config]:
        return skinny.ordered(problem, target, _known(problem))

    def estimate(self, problem: Problem, target: Limits, config: Config) -> float:
        """Microseconds at the opt shape."""
        return skinny.microseconds(problem, target, _known(problem), config)

    def emit(self, problem: Problem, target: Limits, config: Config) -> KernelCode:
        return skinny.code(problem, _known(problem), config)


def _slower(problem: Problem, target: Limits, rows: Rows) -> Reason | None:
    """Every CTA looks at all of its tokens: with many of them, a norm by itself costs less."""
    plain = replace(rows, norm=None)
    flops = 2.0 * problem.typical(rows.tokens) * rows.batches * rows.channels * rows.k
    apart = NORM_US + min(
        TILED_US + flops / TILED_FLOP_PER_US,
        *(skinny.microseconds(problem, target, plain, c) for c in skinny.tiles(problem, target, plain)),
    )
    best = min(skinny.microseconds(problem, target, rows, c) for c in skinny.tiles(problem, target, rows))
    return None if best <= apart else Reason(f"takes longer ({best:.1f} us) than a norm by itself ({apart:.1f} us)")


def _known(problem: Problem) -> Rows:
    rows = _rows(problem)
    assert isinstance(rows, Rows)
    return rows


def _rows(problem: Problem) -> Rows | Reason:
    other = other_op(problem, ("norm_matmul",))
    if other is not None:
        return other
    attrs = (("transpose_a", False), ("transpose_b", problem.attr("transpose_b")))
    rows = gemm_skinny.rows_of(replace(problem, op="matmul", attrs=attrs))
    if isinstance(rows, Reason):
        return rows
    if rows.k % BLOCK or rows.constants["OWN_TOKENS"]:
        return Reason(f"normalises tokens of whole chunks of {BLOCK} elements, which all weights share")
    norm = Norm(problem.attr("mode") == "layer", float(problem.attr("epsilon")), bool(problem.attr("keep")))
    return replace(rows, norm=norm)


register(NormSkinny())
