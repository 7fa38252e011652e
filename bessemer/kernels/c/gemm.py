"""Matrix products in f32: register tiles over a packed B, batches, broadcasting and either side transposed."""

from __future__ import annotations

from collections.abc import Sequence

from bessemer.core import dtype as dt
from bessemer.core.dim import Dim, product
from bessemer.ir.graph import TensorType
from bessemer.kernels import base
from bessemer.kernels.base import Arg, Config, Int, KernelCode, Launch, Limits, Pack, Problem, Ptr, Reason, other_op
from bessemer.kernels.c import cost, simd
from bessemer.kernels.c.epilogue import store_code
from bessemer.kernels.c.product import FIELDS, Extent, Split, plan, shape_configs


class Gemm:
    """A [..., M, K] by B [..., K, N].

    A constant B is packed into panels at build time; another is packed panel by panel by the thread that uses it.
    """

    name = "c_gemm"
    version = 1
    language = "c"

    def applicable(self, problem: Problem, target: Limits) -> Reason | None:
        other = other_op(problem, ("matmul",), into=1)
        if other is not None:
            return other
        a, b = problem.operands[:2]
        if {a.type.dtype, b.type.dtype} != {dt.f32} or (problem.result and problem.result.dtype != dt.f32):
            return Reason("operands or result are not f32")
        if a.type.rank < 2 or b.type.rank < 2:
            return Reason("an operand has no rows and columns")
        if b.constant and not all(isinstance(d, int) for d in b.type.shape):
            return Reason("the constant B has a symbolic shape")
        out = problem.outputs[0].shape[:-2]
        for t in (a.type, b.type):
            if any(have != want and have != 1 for have, want in zip(reversed(t.shape[:-2]), reversed(out))):
                return Reason("whether a batch dimension broadcasts depends on the input")
        return None

    def configs(self, problem: Problem, target: Limits) -> Sequence[Config]:
        return shape_configs(problem, target, _Form(problem).extent)

    def estimate(self, problem: Problem, target: Limits, config: Config) -> float:
        constant = problem.operands[1].constant
        split = plan(problem, target, _Form(problem).extent, config, repack=not constant)
        pack = 0.0 if constant else 3.0 if problem.attr("transpose_b") else 1.5
        return cost.product_us(problem, target, split, pack=pack)

    def emit(self, problem: Problem, target: Limits, config: Config) -> KernelCode:
        form = _Form(problem)
        constant = problem.operands[1].constant
        split = plan(problem, target, form.extent, config, repack=not constant)
        scratch = form.scratch(split)
        own: tuple[Arg, ...] = (Ptr(0), Ptr(1), *((Ptr(base.WORKSPACE),) if scratch != 0 else ()))
        ints = (Int(form.b_matrix(split)), Int(scratch), *(Int(v) for dim in form.batch for v in dim))
        store = store_code(problem, ptr0=len(own), int0=FIELDS + len(ints))
        source = "\n".join(
            (
                f"#define BATCH_RANK {len(form.batch)}",
                f"#define A_TRANSPOSED {int(form.pack_a)}",
                f"#define B_PACKED {int(constant)}",
                f"#define B_TRANSPOSED {int(form.transpose_b)}",
                f"#define SCRATCH {'p[2]' if scratch != 0 else '0'}",
                simd.template("gemm_source.h"),
            )
        )
        text = simd.header(target.arch) + split.text("gemm", source, store.text, FIELDS)
        launch = Launch("gemm", (split.items,), (*own, *split.args, *ints, *store.args))
        threads = target.limits.get("threads", 1)
        return KernelCode("c", text, (launch,), form.packs(split), workspace=4 * threads * scratch)


class _Form:
    """A matmul problem as a batched product: rows folded over the batch where B has none."""

    def __init__(self, problem: Problem) -> None:
        a, b = problem.operands[:2]
        attrs = dict(problem.attrs)
        self.problem, self.a, self.b = problem, a, b
        self.transpose_a = bool(attrs.get("transpose_a", False))
        self.transpose_b = bool(attrs.get("transpose_b", False))
        self.pack_a = self.transpose_a and not a.constant
        rows, self.depth = a.type.shape[-2:][:: -1 if self.transpose_a else 1]
        self.cols = b.type.shape[-2 if self.transpose_b else -1]
        out = problem.outputs[0].shape[:-2]
        self.batch: list[tuple[Dim, Dim, Dim]] = []
        if all(d == 1 for d in b.type.shape[:-2]) and not self.transpose_a:
            self.extent = Extent(1, product(out) * rows, self.cols, 1, self.depth)
            return
        steps_a, steps_b = (_steps(t.shape[:-2], len(out)) for t in (a.type, b.type))
        self.batch = list(zip(out, steps_a, steps_b))
        self.extent = Extent(product(out), rows, self.cols, 1, self.depth)

    def b_matrix(self, split: Split) -> Dim:
        """Floats from one of B's matrices to the next."""
        return self.depth * (-(-self.cols // split.lanes) * split.lanes if self.b.constant else self.cols)

    def scratch(self, split: Split) -> Dim:
        """Floats of workspace per thread: the rows of A and the panel of B that it packs."""
        floats: Dim = 0
        if self.pack_a:
            floats = self.depth * split.item_tiles * split.tile_rows
        if not self.b.constant:
            floats = floats + self.depth * split.tile_vecs * split.lanes
        return floats

    def packs(self, split: Split) -> tuple[Pack, ...]:
        out = []
        if self.transpose_a and not self.pack_a:
            shape = self.a.type.shape
            out.append(Pack(0, "transpose_matrix", (), TensorType(dt.f32, (*shape[:-2], shape[-1], shape[-2]))))
        if self.b.constant:
            floats = product(self.b.type.shape[:-2]) * self.b_matrix(split)
            params = (split.lanes, split.panels, self.transpose_b)
            out.append(Pack(1, "panels_of_matrix", params, TensorType(dt.f32, (floats,))))
        return tuple(out)


def _steps(batch: tuple[Dim, ...], rank: int) -> list[Dim]:
    """Matrices to skip per step of each of `rank` batch dims; 0 where the operand broadcasts."""
    steps: list[Dim] = [0] * rank
    step: Dim = 1
    for i in range(1, len(batch) + 1):
        if batch[-i] != 1:
            steps[-i] = step
            step = step * batch[-i]
    return steps


base.register(Gemm())
