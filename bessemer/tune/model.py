"""The roofline model: the least time a problem can take on a target, from its operations and compulsory bytes."""

from __future__ import annotations

from bessemer.core.dim import Dim, product
from bessemer.ir import expr as ex
from bessemer.ir import exprtree
from bessemer.kernels.base import Limits, Problem


def flops(problem: Problem) -> int:
    """Floating-point operations at the opt shape (a multiply-add counts 2)."""
    out = problem.result or problem.outputs[0]
    per_element: Dim = 2
    if problem.op == "matmul":
        a = problem.operands[0].type.shape
        per_element = 2 * (a[-2] if problem.attr("transpose_a") else a[-1])
    elif problem.op == "conv":
        w = problem.operands[1].type.shape
        per_element = 2 * product(w[1:])
    elif problem.op == "attention":
        k = problem.operands[1].type.shape
        axis = 2 if problem.attr("layout") == "BHSD" else 1
        per_element = 4 * k[axis]
    return problem.typical(out.numel * per_element)


def traffic(problem: Problem) -> Dim:
    """Bytes that must move: what is read of each operand once, each output written once."""
    return sum((_read(problem, k) for k in range(len(problem.operands))), start=0) + sum(
        (t.nbytes for t in problem.outputs), start=0
    )


def _read(problem: Problem, operand: int) -> Dim:
    """Bytes of an operand that are read: all, or fewer where each output element loads one (a gather, a slice)."""
    type_ = problem.operands[operand].type
    root = problem.body.expr if problem.body is not None else problem.epilogue
    if root is None or operand < problem.anchors:
        return type_.nbytes
    loads = {n for n in exprtree.walk(root) if isinstance(n, ex.Load) and n.operand == operand}
    each = product(extent for r in exprtree.reductions(root) for _, extent in r.axes)
    reached = len(loads) * problem.outputs[0].numel * each * type_.dtype.itemsize
    return reached if problem.typical(reached) < problem.typical(type_.nbytes) else type_.nbytes


def estimate_us(problem: Problem, target: Limits) -> float:
    """max(operations / peak rate, bytes / bandwidth) in microseconds, with the target's own ceilings."""
    limits = target.limits
    compute = flops(problem) / max(1, limits.get("mflops", 100_000))
    moved = problem.typical(traffic(problem)) / max(1, limits.get("mbytes_per_s", 40_000))
    return max(compute, moved, 0.5)
