"""Matrix products whose tiles the copy engine fetches (TMA), by programs that stay and walk over tiles."""

from __future__ import annotations

from collections.abc import Sequence

from bessemer.core.dim import ceildiv, minimum
from bessemer.kernels.base import Config, KernelCode, Launch, Limits, Problem, Ptr, Reason, register
from bessemer.kernels.gpu.product import Product, pack_b, product_of
from bessemer.kernels.gpu.shapes import divides, huge, precision, shared_bytes, sizes, sms
from bessemer.kernels.triton import emit
from bessemer.kernels.triton.gemm import BAND, estimate, tiling

DESCRIPTORS_US, FLAT = 2.2, 0.8
ARCHS = ("sm_90", "sm_100", "sm_120")
# (BM, BN, BK, stages, warps)
TILES = (
    (128, 256, 64, 3, 8), (128, 128, 64, 4, 8), (128, 128, 64, 4, 4), (128, 128, 128, 3, 8), (256, 128, 64, 3, 8),
    (128, 64, 64, 5, 4), (64, 128, 64, 5, 4), (64, 64, 128, 4, 4), (64, 32, 128, 6, 4), (64, 16, 128, 6, 4),
    (64, 256, 64, 4, 4), (128, 64, 128, 4, 4), (64, 64, 64, 6, 4), (64, 32, 256, 4, 4), (64, 16, 256, 4, 4),
)  # fmt: skip


class GemmTma:
    """matmul and 1x1 convolution in f16 and bf16 with rows of whole 16 bytes, no batch, a stored row-major."""

    name = "triton_gemm_tma"
    version = 2
    language = "triton"

    def applicable(self, problem: Problem, target: Limits) -> Reason | None:
        view = product_of(problem)
        if isinstance(view, Reason):
            return view
        if target.arch not in ARCHS:
            return Reason(f"needs the copy engine of {', '.join(ARCHS)}, not {target.arch}")
        if view.itemsize != 2 or view.batches or view.a_t:
            return Reason("multiplies one batch of f16 or bf16, with a stored row-major")
        if huge(problem):
            return Reason("counts elements with 32 bits")
        if not divides(problem, view.k, 8) or not _orders(problem, view):
            return Reason(f"fetches rows of whole 16 bytes, not of {view.k} and {view.n} elements")
        return None

    def configs(self, problem: Problem, target: Limits) -> Sequence[Config]:
        view = _view(problem)
        m, n, k = (problem.typical(d) for d in (view.m, view.n, view.k))
        found: list[Config] = []
        for order in _orders(problem, view):
            for long, short, bk, stages, warps in TILES:
                for swap in (0, 1) if long > short else (0,):
                    bm, bn = (short, long) if swap else (long, short)
                    config: Config = {
                        "bm": bm, "bn": bn, "bk": bk, "stages": stages, "warps": warps, "swap": swap, "split": 1,
                        "flatten": int(not swap), "b": order,
                    }  # fmt: skip
                    padded = (bm > 16 and bm >= 2 * m) or (bn > 16 and bn >= 2 * n) or bk >= max(128, 2 * k)
                    if not padded and tiling(problem, view, config).shared <= shared_bytes(target):
                        found.append(config)
        found = found or [
            {"bm": 64, "bn": 16, "bk": 64, "stages": 3, "warps": 4, "swap": 0, "split": 1, "flatten": 0, "b": order}
            for order in _orders(problem, view)
        ]
        return sorted(found, key=lambda c: self.estimate(problem, target, c))

    def estimate(self, problem: Problem, target: Limits, config: Config) -> float:
        """Microseconds at the opt shape: descriptors take time to make, and in a flat loop the loads of a tile hide the
        end of the one before."""
        share = FLAT if config["flatten"] else 1.0
        return DESCRIPTORS_US + share * estimate(problem, target, _view(problem), config)

    def emit(self, problem: Problem, target: Limits, config: Config) -> KernelCode:
        view = _view(problem)
        t = tiling(problem, view, config)
        packs, b_t = pack_b(problem, view, str(config["b"]))
        code = emit.module("gemm_tma", problem)
        args = (Ptr(0), Ptr(1), *sizes(problem, (view.m, view.n, view.k)), *code.args)
        options = (
            ("num_warps", t.warps), ("num_stages", t.stages), ("BM", t.bm), ("BN", t.bn), ("BK", t.bk),
            ("GROUP", BAND), ("B_T", b_t), ("SWAP", bool(config["swap"])), ("PRECISION", precision(problem)),
            ("FLATTEN", bool(config["flatten"])),
        )  # fmt: skip
        resident = max(1, shared_bytes(target) // t.shared)
        grid = (minimum(ceildiv(view.m, t.bm) * ceildiv(view.n, t.bn), sms(target) * resident),)
        return KernelCode("triton", code.text, (Launch("kernel", grid, args, options),), packs)


def _view(problem: Problem) -> Product:
    view = product_of(problem)
    assert isinstance(view, Product)
    return view


def _orders(problem: Problem, view: Product) -> tuple[str, ...]:
    """The orders of b whose rows are whole 16 bytes."""
    orders = ("kn", "nk") if view.b_constant else ("nk",) if view.b_t else ("kn",)
    return tuple(o for o in orders if o == "nk" or divides(problem, view.n, 8))


register(GemmTma())
