"""The roofline model: the least time a problem can take on a target, from its operations and compulsory bytes."""

from __future__ import annotations

from bessemer.core.dim import Dim, product
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


def nbytes(problem: Problem) -> int:
    """Bytes that must move at the opt shape: each operand read once, each output written once."""
    types = [*(o.type for o in problem.operands), *problem.outputs]
    return sum(problem.typical(t.nbytes) for t in types)


def estimate_us(problem: Problem, target: Limits) -> float:
    """max(operations / peak rate, bytes / bandwidth) in microseconds, with the target's own ceilings."""
    limits = target.limits
    compute = flops(problem) / max(1, limits.get("mflops", 100_000))
    traffic = nbytes(problem) / max(1, limits.get("mbytes_per_s", 40_000))
    return max(compute, traffic, 0.5)
