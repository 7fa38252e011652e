"""Products of one or a few rows with constant weights: all of them are in registers when the inputs come."""

from __future__ import annotations

from collections.abc import Sequence

from bessemer.core import dtype as dt
from bessemer.core.dim import ceildiv, minimum
from bessemer.kernels.base import Config, Int, KernelCode, Launch, Limits, Problem, Ptr, Reason, register
from bessemer.kernels.c.scalar import supported
from bessemer.kernels.cuda import emit
from bessemer.kernels.cuda.emit import ARCH
from bessemer.kernels.gpu.product import Product, pack_b, product_of
from bessemer.kernels.gpu.shapes import MEMORY_BYTES_PER_US, sms, upper

RUN = 8  # outputs of a CTA, and elements of a unit
MOST_ROWS = 4
MOST_TURNS = 2  # units of every row of the weights that a thread holds
MOST_UNITS = 512  # of a row, in the registers of a CTA
LATENCY_US, TURN_US, ROW_US, SM_BYTES_PER_US = 1.1, 0.25, 0.5, 60_000.0


class Gemv:
    """matmul and 1x1 convolution of at most four rows in f16 and bf16, b constant, k and n multiples of 8."""

    name = "cuda_gemv"
    version = 3
    language = "cuda"

    def applicable(self, problem: Problem, target: Limits) -> Reason | None:
        view = product_of(problem, into=RUN)
        if isinstance(view, Reason):
            return view
        if target.arch != ARCH:
            return Reason(f"is written for {ARCH}, not {target.arch}")
        if problem.operands[0].type.dtype not in (dt.f16, dt.bf16):
            return Reason(f"multiplies f16 and bf16, not {problem.operands[0].type.dtype}")
        if view.batches or view.a_t or not view.b_constant:
            return Reason("multiplies one batch, a stored row-major, b constant")
        if not isinstance(view.n, int) or not isinstance(view.k, int) or view.n % RUN or view.k % RUN:
            return Reason(f"takes weights of whole runs of {RUN}, not {view.k} x {view.n}")
        if view.k > MOST_UNITS * RUN:
            return Reason(f"adds up at most {MOST_UNITS * RUN} products, not {view.k}")
        if upper(problem, view.m) > MOST_ROWS:
            return Reason(f"takes at most {MOST_ROWS} rows, not {view.m}")
        missing = supported(problem)
        return None if missing is None else Reason(missing)

    def configs(self, problem: Problem, target: Limits) -> Sequence[Config]:
        k = problem.typical(_view(problem).k)
        least = [ceildiv(ceildiv(k, RUN * turns), 32) * 32 for turns in range(1, MOST_TURNS + 1)]
        found: list[Config] = [{"threads": threads} for threads in dict.fromkeys(least)]
        return sorted(found, key=lambda c: self.estimate(problem, target, c))

    def estimate(self, problem: Problem, target: Limits, config: Config) -> float:
        """Microseconds at the opt shape: the weights, from device memory or into each multiprocessor."""
        view = _view(problem)
        m, n, k = (problem.typical(d) for d in (view.m, view.n, view.k))
        per_sm = ceildiv(n // RUN, sms(target)) * RUN * k * 2
        threads = int(config["threads"])
        waits = 0.05 * (threads // 32) / 16 + TURN_US * (ceildiv(k, RUN * threads) - 1)  # of warps, and of turns
        return LATENCY_US + waits + ROW_US * (m - 1) + max(n * k * 2 / MEMORY_BYTES_PER_US, per_sm / SM_BYTES_PER_US)

    def emit(self, problem: Problem, target: Limits, config: Config) -> KernelCode:
        view, threads = _view(problem), int(config["threads"])
        packs, _ = pack_b(problem, view, "nk")
        constants = {"K": problem.typical(view.k), "THREADS": threads}
        module = emit.module("gemv.cu", problem, constants, {"KIND": problem.operands[0].type.dtype.name})
        args = (Ptr(0), Ptr(1), Int(view.m, 32), *module.args)
        options = (("warps", threads // 32), ("shared", _shared(threads)), ("cluster", 1), ("pdl", True))
        grid = ceildiv(view.n, RUN) * minimum(view.m, 1)  # none without rows: the first one is loaded in any case
        return KernelCode("cuda", module.text, (Launch("kernel", (grid,), args, options),), packs)


def _shared(count: int) -> int:
    """Bytes of the sums of `count` threads, and of those that are added up from them (see add_up)."""
    return count * RUN * 4 + (_shared(ceildiv(count, RUN)) if count > 1 else 0)


def _view(problem: Problem) -> Product:
    view = product_of(problem)
    assert isinstance(view, Product)
    return view


register(Gemv())
