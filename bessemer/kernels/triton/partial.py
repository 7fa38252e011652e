"""The second launch of split sums: adds the parts in order, so that every run gives the same bits."""

from __future__ import annotations

from bessemer.core.dim import Dim, ceildiv
from bessemer.kernels.base import WORKSPACE, Arg, Launch, Limits, Problem, Ptr
from bessemer.kernels.triton.shapes import power_of_two, sizes, sms


def reduce_launch(
    problem: Problem, rows: Dim, cols: Dim, split: int, epilogue: tuple[Arg, ...], target: Limits
) -> Launch:
    """`reduce` of the template over partial[split, rows, cols] (f32), in tiles small enough to use all of the chip."""
    bn = min(128, max(16, power_of_two(problem.typical(cols))))
    bm = 16
    while bm > 1 and -(-problem.typical(rows) // bm) * -(-problem.typical(cols) // bn) < 2 * sms(target):
        bm //= 2
    bm = max(bm, 128 // bn)
    options = (("num_warps", 4), ("num_stages", 1), ("BM", bm), ("BN", bn), ("SPLIT", split))
    args = (Ptr(WORKSPACE), *sizes(problem, (rows, cols)), *epilogue)
    return Launch("reduce", (ceildiv(cols, bn), ceildiv(rows, bm)), args, options)
