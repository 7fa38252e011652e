"""Sums over all but the first and the last axes, channels last (global average pools): clusters share the rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from bessemer.core import dtype as dt
from bessemer.core.dim import Dim, ceildiv, product
from bessemer.ir import expr as ex
from bessemer.ir import exprtree
from bessemer.ir.graph import TensorType
from bessemer.kernels.base import Config, Int, KernelCode, Launch, Limits, Problem, Reason, other_op, register
from bessemer.kernels.c.affine import offset
from bessemer.kernels.c.scalar import supported
from bessemer.kernels.cuda import emit
from bessemer.kernels.cuda.emit import ARCH
from bessemer.kernels.cuda.epilogue import RUN, reduction
from bessemer.kernels.gpu.shapes import sms, upper

RUNS = (1, 2, 4, 8, 16)  # of 8 channels, of a CTA
THREADS = (128, 256, 512)
CLUSTERS = (1, 2, 4, 8)
AHEAD = 8  # rows that a thread reads at once
LEAST_ROWS = 8
LATENCY_US, TURN_US, CLUSTER_US, LEVEL_US = 1.2, 0.7, 1.0, 0.03  # a launch, its loads, clusters, a step of the sum
SM_BYTES_PER_US, L2_BYTES_PER_US = 60_000.0, 4_500_000.0


@dataclass(frozen=True)
class _Sums:
    """A problem as sums of `terms`, whose epilogue is what is summed, finished by the epilogue of `finish`."""

    terms: Problem
    finish: Problem
    images: Dim
    rows: Dim
    channels: int


class ColumnSums:
    """A group with one sum in f32 over some axes of what is read in runs of channels, these in multiples of 8."""

    name = "cuda_column_sums"
    version = 2
    language = "cuda"

    def applicable(self, problem: Problem, target: Limits) -> Reason | None:
        other = other_op(problem, ("group",), into=RUN)
        if other is not None:
            return other
        if target.arch != ARCH:
            return Reason(f"is written for {ARCH}, not {target.arch}")
        found = _sums(problem)
        if isinstance(found, Reason):
            return found
        if upper(problem, found.images * found.rows) >= 2**31:
            return Reason("counts at most 2^31 rows")
        missing = supported(problem)
        return None if missing is None else Reason(missing)

    def configs(self, problem: Problem, target: Limits) -> Sequence[Config]:
        s = _known(problem)
        rows, total = problem.typical(s.rows), s.channels // RUN
        found: list[Config] = [
            {"runs": runs, "threads": threads, "cluster": cluster}
            for runs in RUNS
            for threads in THREADS
            for cluster in CLUSTERS
            if runs < 2 * total and threads // runs * cluster <= max(rows, THREADS[0] // runs)
        ]
        return sorted(found, key=lambda c: self.estimate(problem, target, c))

    def estimate(self, problem: Problem, target: Limits, config: Config) -> float:
        """Microseconds at the opt shape: loads that wait for one another, or bytes, and the sums of threads."""
        s, (runs, threads, cluster) = _known(problem), _numbers(config)
        images, rows = problem.typical(s.images), problem.typical(s.rows)
        lanes = threads // runs
        ctas = images * ceildiv(s.channels // RUN, runs) * cluster
        turns = ceildiv(ceildiv(rows, lanes * cluster), AHEAD)
        nbytes = sum(problem.typical(o.type.nbytes) for o in problem.operands)
        sectors = max(1.0, 2 / runs)  # 32 bytes are read where 16 are wanted
        per_sm = max(1.0, ctas / sms(target))
        memory = max(nbytes * sectors / L2_BYTES_PER_US, nbytes * sectors / ctas * per_sm / SM_BYTES_PER_US)
        waves = max(1.0, per_sm * threads / 1024)
        sums = LEVEL_US * lanes.bit_length() + (CLUSTER_US if cluster > 1 else 0.0)
        return LATENCY_US + max(memory, TURN_US * (turns - 1) * waves) + sums

    def emit(self, problem: Problem, target: Limits, config: Config) -> KernelCode:
        s, (runs, threads, cluster) = _known(problem), _numbers(config)
        constants = {"C": s.channels, "BR": runs, "LANES": threads // runs, "CL": cluster, "AHEAD": AHEAD}
        parts = {"CLUSTER": f" __cluster_dims__({cluster}, 1, 1)" if cluster > 1 else ""}
        module = emit.module("column_sums.cu", s.finish, constants, parts, reduction(s.terms, s.finish))
        shared = threads * 32 + 16 + (cluster - 1) * runs * 32
        options = (("warps", threads // 32), ("shared", shared), ("cluster", cluster), ("pdl", True))
        grid = (s.images * (ceildiv(s.channels // RUN, runs) * cluster),)
        return KernelCode("cuda", module.text, (Launch("kernel", grid, (Int(s.rows, 32), *module.args), options),))


def _numbers(config: Config) -> tuple[int, int, int]:
    return int(config["runs"]), int(config["threads"]), int(config["cluster"])


def _known(problem: Problem) -> _Sums:
    found = _sums(problem)
    assert isinstance(found, _Sums)
    return found


def _sums(problem: Problem) -> _Sums | Reason:
    """The problem as sums over rows, or why it is none."""
    assert problem.body is not None
    out = problem.outputs[0]
    distinct = {exprtree.text(r): r for r in exprtree.reductions(problem.body.expr)}
    if len(problem.outputs) != 1 or len(distinct) != 1:
        return Reason(f"computes one output with one reduction, not {len(distinct)}")
    (reduce,) = distinct.values()
    if reduce.kind != "sum" or reduce.acc != dt.f32:
        return Reason(f"adds in f32, and does not compute {reduce.kind} in {reduce.acc}")
    if not out.rank or not isinstance(out.shape[-1], int) or out.shape[-1] % RUN:
        return Reason(f"adds runs of {RUN} channels, not {out}")
    rows = product(size for _, size in reduce.axes)
    if problem.typical(rows) < LEAST_ROWS:
        return Reason(f"is for at least {LEAST_ROWS} rows, not {rows}")
    before = out.rank - 1
    names = {f"i{before}": f"i{before + len(reduce.axes)}"}
    names |= {name: f"i{before + k}" for k, (name, _) in enumerate(reduce.axes)}
    term = exprtree.substitute_axes(reduce.body, {old: ex.Axis(new) for old, new in names.items()})
    shape = (*out.shape[:-1], *(size for _, size in reduce.axes), out.shape[-1])
    if not _reads_runs(problem, term, f"i{len(shape) - 1}"):
        return Reason("reads what it adds in runs of channels")
    plain = replace(problem, op="sums", body=None, attrs=(), anchors=0)
    sums = TensorType(dt.f32, shape)
    terms = replace(plain, outputs=(sums,), result=sums, epilogue=term)
    rest = exprtree.rewrite(problem.body.expr, lambda e: ex.Acc(dt.f32) if isinstance(e, ex.Reduce) else None)
    finish = replace(plain, result=TensorType(dt.f32, out.shape), epilogue=rest)
    return _Sums(terms, finish, product(out.shape[:-1]), rows, out.shape[-1])


def _reads_runs(problem: Problem, term: ex.Expr, last: str) -> bool:
    """Whether all loads are of neighbours along the axis `last`, or of the same element for all of it."""
    loads = [n for n in exprtree.walk(term) if isinstance(n, ex.Load)]
    steps = [offset(problem.operands[e.operand].type.shape, e.index) for e in loads]
    return all(not at.rest and at.axes.get(last, 0) in (0, 1) for at in steps) and any(
        at.axes.get(last, 0) == 1 for at in steps
    )


register(ColumnSums())
