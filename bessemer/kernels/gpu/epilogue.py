"""What a kernel for a product does beside its sums: the bytes that it must move, and the work of its epilogue."""

from __future__ import annotations

from functools import lru_cache

from bessemer.ir import expr as ex
from bessemer.ir import exprtree
from bessemer.kernels.base import Problem

# instructions of functions in f32; whatever else is computed takes one
FUNCTIONS = {"erf": 16, "tanh": 16, "log": 12, "sigmoid": 10, "div": 8, "exp": 6, "pow": 40}
INSTRUCTIONS_PER_US, BYTES_PER_US = 150_000.0, 68_000.0  # of epilogues, by one multiprocessor


@lru_cache(maxsize=256)
def moved(problem: Problem) -> int:
    """Compulsory bytes at the opt shape: operands that the epilogue loads count no more than one load an element."""
    most = problem.typical(problem.outputs[0].numel)
    loads = (
        min(problem.typical(o.type.numel), most) * o.type.dtype.itemsize for o in problem.operands[problem.anchors :]
    )
    return _anchors(problem) + sum(loads) + sum(problem.typical(t.nbytes) for t in problem.outputs)


@lru_cache(maxsize=256)
def element_us(problem: Problem) -> float:
    """Microseconds of one multiprocessor for one element of the output: it is computed, and goes through registers."""
    beside = moved(problem) - _anchors(problem)
    each = beside / max(1, problem.typical(problem.outputs[0].numel))
    return _instructions(problem.epilogue) / INSTRUCTIONS_PER_US + each / BYTES_PER_US


def _anchors(problem: Problem) -> int:
    return sum(problem.typical(o.type.nbytes) for o in problem.operands[: problem.anchors])


def _instructions(e: ex.Expr | None) -> int:
    if e is None:
        return 0
    calls = (n.fn if isinstance(n, ex.Call) else "" for n in exprtree.walk(e) if not isinstance(n, ex.Acc | ex.Lit))
    return sum(FUNCTIONS.get(fn, 1) for fn in calls)
