"""Tiled matrix products: one program per tile of C, in bands of rows so that neighbours share B in L2."""

from __future__ import annotations

from collections.abc import Sequence

from bessemer.core.dim import Dim, ceildiv
from bessemer.kernels.base import Config, Int, KernelCode, Launch, Limits, Problem, Ptr, Reason, register
from bessemer.kernels.gpu.product import Product, pack_b, product_of
from bessemer.kernels.gpu.shapes import Tiling, divides, precision, prefetched, shared_bytes, sizes
from bessemer.kernels.triton import emit
from bessemer.kernels.triton.partial import part_args, part_memory

# (BM, BN, BK, stages, warps) for 2-byte elements
TILES = (
    (128, 256, 64, 4, 8), (256, 128, 64, 4, 8), (128, 128, 64, 4, 8), (128, 128, 64, 3, 4), (128, 128, 32, 4, 4),
    (128, 64, 64, 4, 4), (64, 128, 64, 4, 4), (64, 256, 64, 4, 4), (256, 64, 64, 4, 8), (128, 32, 64, 5, 4),
    (128, 32, 128, 3, 4), (128, 16, 128, 4, 4), (64, 64, 64, 5, 4), (64, 64, 128, 4, 4), (64, 32, 256, 3, 4),
    (64, 32, 128, 4, 4), (64, 32, 128, 6, 4), (64, 32, 64, 4, 4),
    (64, 16, 128, 6, 4), (32, 64, 128, 4, 4), (32, 32, 128, 5, 4), (16, 64, 128, 5, 4), (16, 32, 128, 6, 4),
    (16, 128, 128, 4, 4), (32, 128, 64, 4, 4), (16, 64, 32, 4, 4), (32, 32, 32, 4, 4), (16, 16, 32, 4, 2),
)  # fmt: skip
TILES_F32 = (
    (128, 128, 16, 3, 8), (128, 64, 16, 3, 8), (64, 128, 16, 3, 8), (64, 64, 32, 3, 4), (64, 32, 32, 3, 4),
    (32, 64, 32, 3, 4), (32, 32, 32, 4, 4), (16, 64, 32, 4, 4), (16, 32, 64, 3, 4), (16, 16, 32, 4, 2),
)  # fmt: skip
BAND = 8


class Gemm:
    """matmul, and 1x1 convolution channels last; any batch, either side stored transposed."""

    name = "triton_gemm"
    version = 2
    language = "triton"

    def applicable(self, problem: Problem, target: Limits) -> Reason | None:
        view = product_of(problem)
        return view if isinstance(view, Reason) else None

    def configs(self, problem: Problem, target: Limits) -> Sequence[Config]:
        view = _view(problem)
        found = candidates(problem, target, view, (1,))
        return sorted(found, key=lambda c: self.estimate(problem, target, c))

    def estimate(self, problem: Problem, target: Limits, config: Config) -> float:
        """Microseconds at the opt shape."""
        return estimate(problem, target, _view(problem), config)

    def emit(self, problem: Problem, target: Limits, config: Config) -> KernelCode:
        view = _view(problem)
        return product_code(problem, target, view, config)


def _view(problem: Problem) -> Product:
    view = product_of(problem)
    assert isinstance(view, Product)
    return view


def tiling(problem: Problem, view: Product, config: Config) -> Tiling:
    """The tiling of a configuration; with `swap` the tile's long side lies along n."""
    bm, bn, bk, stages, warps, split = (int(config[k]) for k in ("bm", "bn", "bk", "stages", "warps", "split"))
    return view.tiling(problem, bm, bn, bk, stages, warps, split)


def estimate(problem: Problem, target: Limits, view: Product, config: Config) -> float:
    """The tiling's time; a swapped tile feeds the tensor cores by its n side."""
    t = tiling(problem, view, config)
    if config["swap"]:
        t = Tiling(t.n, t.m, t.k, t.batch, t.itemsize, t.bn, t.bm, t.bk, t.stages, t.warps, t.split)
    return t.microseconds(problem, target)


def candidates(problem: Problem, target: Limits, view: Product, splits: Sequence[int]) -> list[dict[str, int | str]]:
    """All tilings that fit the target and are not mostly padding, with every order that b can be stored in."""
    orders = ("kn", "nk") if view.b_constant else ("nk",) if view.b_t else ("kn",)
    m, n, k = (problem.typical(d) for d in (view.m, view.n, view.k))
    shapes = [
        (rows, cols, bk, stages, warps, swap)
        for bm, bn, bk, stages, warps in (TILES if view.itemsize == 2 else TILES_F32)
        for swap in (0, 1)
        for rows, cols in [(bn, bm) if swap else (bm, bn)]
        if not swap or (rows < cols and view.itemsize == 2)
    ]
    lean = [
        (bm, bn, bk, *rest)
        for bm, bn, bk, *rest in shapes
        if (bm <= 16 or bm < 2 * m) and (bn <= 16 or bn < 2 * n) and bk < max(64, 2 * k)
    ]
    return [
        {"bm": bm, "bn": bn, "bk": bk, "stages": stages, "warps": warps, "swap": swap, "split": split, "b": order}
        for bm, bn, bk, stages, warps, swap in lean or shapes[-1:]
        for split in splits
        if view.tiling(problem, bm, bn, bk, stages, warps, split).shared <= shared_bytes(target)
        if split == 1 or split * bk <= k
        for order in orders
    ]


def tiles(view: Product, t: Tiling) -> Dim:
    """Tiles of all products of the batch."""
    return ceildiv(view.m, t.bm) * ceildiv(view.n, t.bn) * view.batch


def product_code(problem: Problem, target: Limits, view: Product, config: Config) -> KernelCode:
    """The kernel of a configuration, with memory for the parts of split sums."""
    t, module = tiling(problem, view, config), emit.module("gemm", problem)
    packs, b_t = pack_b(problem, view, str(config["b"]))
    inner, outer_strides, inner_strides = _batch_args(view)
    args = (
        Ptr(0), Ptr(1), *part_args(t), *sizes(problem, (view.m, view.n, view.k, inner)),
        Int(outer_strides[0]), Int(inner_strides[0]), Int(outer_strides[1]), Int(inner_strides[1]), *module.args,
    )  # fmt: skip
    count = tiles(view, t)
    options = (
        ("num_warps", t.warps), ("num_stages", t.stages), ("BM", t.bm), ("BN", t.bn), ("BK", t.bk), ("GROUP", BAND),
        ("SPLIT", t.split), ("BATCHED", bool(view.batches)), ("A_T", view.a_t), ("B_T", b_t),
        ("EVEN", divides(problem, view.k, t.bk)), ("SWAP", bool(config["swap"])), ("PRECISION", precision(problem)),
        ("PREFETCH", prefetched(t, target) if view.b_constant else 0),
    )  # fmt: skip
    launch = Launch("kernel", (count, t.split), args, options)
    return KernelCode("triton", module.text, (launch,), packs, *part_memory(t, count))


def _batch_args(view: Product) -> tuple[Dim, tuple[Dim, Dim], tuple[Dim, Dim]]:
    """The inner batch's size, and the (a, b) strides of the outer and the inner batch."""
    if not view.batches:
        return 1, (0, 0), (0, 0)
    size_, *inner = view.batches[-1]
    outer = view.batches[0][1:] if len(view.batches) == 2 else (0, 0)
    return size_, (outer[0], outer[1]), (inner[0], inner[1])


register(Gemm())
