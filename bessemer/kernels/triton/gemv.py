"""Products of few rows: bound by reading B once, on the plain arithmetic units, in f32."""

from __future__ import annotations

import math
from collections.abc import Sequence

from bessemer.core.dim import ceildiv
from bessemer.kernels.base import Config, KernelCode, Launch, Limits, Problem, Ptr, Reason, register
from bessemer.kernels.gpu.product import Product, pack_b, product_of
from bessemer.kernels.gpu.shapes import (
    MEMORY_BYTES_PER_US,
    PREFETCHED_BYTES,
    divides,
    fill_us,
    power_of_two,
    sizes,
    sms,
    upper,
)
from bessemer.kernels.triton import emit

MOST_ROWS = 4
LOAD_US, TERM_US, PROGRAM_US = 0.42, 0.0105, 0.0016  # loads of a step, a product of a thread, to start a program
# (BN, BK, warps): along K where b is stored [n, k], along N where it is stored [k, n]
ALONG_K = ((4, 512, 4), (8, 256, 4), (2, 512, 4), (8, 512, 4), (16, 256, 4), (1, 1024, 4), (16, 128, 4), (4, 256, 2))
ALONG_N = ((64, 32, 4), (128, 32, 4), (32, 64, 4), (64, 64, 4), (16, 64, 4))


class Gemv:
    """matmul and 1x1 convolution of at most a few rows, b shared by all of them."""

    name = "triton_gemv"
    version = 2
    language = "triton"

    def applicable(self, problem: Problem, target: Limits) -> Reason | None:
        view = product_of(problem)
        if isinstance(view, Reason):
            return view
        if view.batches or view.a_t:
            return Reason("multiplies one batch, with a stored row-major")
        rows = upper(problem, view.m)
        return Reason(f"takes at most {MOST_ROWS} rows, not {view.m}") if rows > MOST_ROWS else None

    def configs(self, problem: Problem, target: Limits) -> Sequence[Config]:
        view = _view(problem)
        rows = power_of_two(upper(problem, view.m))
        orders = ("nk", "kn") if view.b_constant else ("nk",) if view.b_t else ("kn",)
        found: list[Config] = [
            {"rows": rows, "bn": bn, "bk": bk, "stages": stages, "warps": warps, "b": order}
            for order in orders
            for bn, bk, warps in (ALONG_K if order == "nk" else ALONG_N)
            for stages in (1, 3)
            if rows * bn * bk <= 64 * 32 * warps
        ]
        return sorted(found, key=lambda c: self.estimate(problem, target, c))

    def estimate(self, problem: Problem, target: Limits, config: Config) -> float:
        """Microseconds at the opt shape: steps in flight, their products, device memory, and the programs to start. The
        constants fit 92 timings on an H200, with a mean error of 8 %."""
        view = _view(problem)
        n, k = problem.typical(view.n), problem.typical(view.k)
        bn, bk, stages, warps = (int(config[key]) for key in ("bn", "bk", "stages", "warps"))
        programs = -(-n // bn)
        waves = math.ceil(programs / (sms(target) * 32 // warps))
        steps = -(-k // bk)
        latency = waves * LOAD_US * (1 + steps / (2 if stages == 1 else stages + 1))
        products = steps * int(config["rows"]) * bn * bk / (32 * warps) * TERM_US
        memory = n * k * view.itemsize / MEMORY_BYTES_PER_US * (1.0 if config["b"] == "nk" else 1.1)
        return fill_us(target) + latency + products + memory + programs * PROGRAM_US

    def emit(self, problem: Problem, target: Limits, config: Config) -> KernelCode:
        view = _view(problem)
        packs, b_t = pack_b(problem, view, str(config["b"]))
        rows, bn, bk = (int(config[k]) for k in ("rows", "bn", "bk"))
        code = emit.module("gemv", problem)
        args = (Ptr(0), Ptr(1), *sizes(problem, (view.m, view.n, view.k)), *code.args)
        options = (
            ("num_warps", int(config["warps"])), ("num_stages", int(config["stages"])), ("ROWS", rows), ("BN", bn),
            ("BK", bk), ("STAGES", int(config["stages"])), ("B_T", b_t), ("EVEN", divides(problem, view.k, bk)),
            ("PREFETCH", self._prefetched(problem, target, config)),
        )  # fmt: skip
        launch = Launch("kernel", (ceildiv(view.n, bn), ceildiv(view.m, rows)), args, options)
        return KernelCode("triton", code.text, (launch,), packs)

    def _prefetched(self, problem: Problem, target: Limits, config: Config) -> int:
        """Steps of the sum whose weights a program fetches to L2 ahead, see shapes.prefetched."""
        view, bn, warps = _view(problem), int(config["bn"]), int(config["warps"])
        alone = -(-problem.typical(view.n) // bn) <= sms(target) * (64 // warps)
        return PREFETCHED_BYTES // (bn * view.itemsize) if view.b_constant and alone else 0


def _view(problem: Problem) -> Product:
    view = product_of(problem)
    assert isinstance(view, Product)
    return view


register(Gemv())
