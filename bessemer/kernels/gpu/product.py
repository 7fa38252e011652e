"""Matrix products as the GEMM kernels see them: what a matmul, or a pointwise convolution, multiplies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bessemer.core.dim import Dim, product
from bessemer.ir import exprtree
from bessemer.ir.graph import TensorType
from bessemer.kernels.base import Pack, Problem, Reason, other_op
from bessemer.kernels.gpu.shapes import Tiling, element_types

Batch = tuple[Dim, Dim, Dim]  # size, and the strides of a and b in elements (0 where broadcast)


@dataclass(frozen=True)
class Product:
    """`batches` times [m, k] x [k, n]. `a_t`: a is stored [k, m]; `b_t`: b is stored [n, k]."""

    m: Dim
    n: Dim
    k: Dim
    a_t: bool
    b_t: bool
    itemsize: int
    b_constant: bool
    batches: tuple[Batch, ...] = ()

    @property
    def batch(self) -> Dim:
        return product(size for size, _, _ in self.batches)

    def tiling(self, problem: Problem, bm: int, bn: int, bk: int, stages: int, warps: int, split: int = 1) -> Tiling:
        """One way to cut it, at the opt shape."""
        m, n, k, batch = (max(1, problem.typical(d)) for d in (self.m, self.n, self.k, self.batch))
        return Tiling(m, n, k, batch, self.itemsize, bm, bn, bk, stages, warps, split)


def product_of(problem: Problem, into: int = 1, sums: bool = False) -> Product | Reason:
    """The product that `problem` is, or why it is none. `into` and `sums`: see `other_op`."""
    other = other_op(problem, ("matmul", "conv"), into, sums)
    if other is not None:
        return other
    if not sums and problem.epilogue is not None and exprtree.reductions(problem.epilogue):
        return Reason("does not finish the sums of rows that its epilogue reads")
    dtype = element_types(problem, 2)
    if isinstance(dtype, Reason):
        return dtype
    if problem.op == "conv":
        return _pointwise(problem, dtype.itemsize)
    a, b = (list(o.type.shape) for o in problem.operands[:2])
    if len(a) < 2 or len(b) < 2:
        return Reason("takes matrices, not vectors")
    a_t, b_t = bool(problem.attr("transpose_a")), bool(problem.attr("transpose_b"))
    m, k = (a[-1], a[-2]) if a_t else (a[-2], a[-1])
    n = b[-2] if b_t else b[-1]
    batches = _batches(a[:-2], b[:-2], m * k, k * n)
    constant = problem.operands[1].constant
    if not a_t and all(stride == 0 for _, _, stride in batches):
        return Product(product(a[:-1]), n, k, a_t, b_t, dtype.itemsize, constant)
    if len(batches) > 2:
        return Reason(f"takes two batch strides, not those of {problem.operands[0].type} x {problem.operands[1].type}")
    return Product(m, n, k, a_t, b_t, dtype.itemsize, constant, batches)


def _pointwise(problem: Problem, itemsize: int) -> Product | Reason:
    x, w = (o.type.shape for o in problem.operands[:2])
    if problem.attr("layout") != "NHWC" or problem.attr("groups") != 1:
        return Reason("of convolutions, computes channels-last ones with one group")
    if any(d != 1 for d in (*w[2:], *problem.attr("strides"))) or any(p != 0 for p in problem.attr("pads")):
        return Reason("of convolutions, computes 1x1 ones with stride 1 and no padding")
    return Product(product(x[:-1]), w[0], w[1], False, True, itemsize, problem.operands[1].constant)


def _batches(a: Sequence[Dim], b: Sequence[Dim], a_size: Dim, b_size: Dim) -> tuple[Batch, ...]:
    """Batch axes, outermost first, neighbours merged where both operands step evenly."""
    rank = max(len(a), len(b))
    a, b = [1] * (rank - len(a)) + list(a), [1] * (rank - len(b)) + list(b)
    out: list[Batch] = []
    a_stride, b_stride = a_size, b_size
    for x, y in zip(reversed(a), reversed(b)):
        count = y if x == 1 else x
        if count != 1:
            step = (0 if x == 1 else a_stride, 0 if y == 1 else b_stride)
            if out and step == (out[0][0] * out[0][1], out[0][0] * out[0][2]):
                out[0] = (out[0][0] * count, out[0][1], out[0][2])
            else:
                out.insert(0, (count, *step))
        a_stride, b_stride = a_stride * x, b_stride * y
    return tuple(out)


def pack_b(problem: Problem, view: Product, order: str) -> tuple[tuple[Pack, ...], bool]:
    """The packs that store b as `order` ("kn" or "nk"), and whether it is then stored [n, k]."""
    b_t = order == "nk"
    if b_t == view.b_t:
        return (), b_t
    b = problem.operands[1].type
    shape = (*b.shape[:-2], b.shape[-1], b.shape[-2]) if problem.op == "matmul" else (view.k, view.n)
    return (Pack(1, "transposed_rows", (len(shape),), TensorType(b.dtype, shape)),), b_t
