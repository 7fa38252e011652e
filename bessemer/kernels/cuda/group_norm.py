"""Group and instance norms, channels last, in one launch: clusters hold an image's channels in registers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from bessemer.core.dim import Dim, ceildiv, product
from bessemer.kernels.base import Config, Int, KernelCode, Launch, Limits, Problem, Ptr, Reason, other_op, register
from bessemer.kernels.c import scalar
from bessemer.kernels.cuda import emit
from bessemer.kernels.cuda.emit import ARCH
from bessemer.kernels.cuda.epilogue import RUN, epilogue
from bessemer.kernels.gpu.shapes import FLOATS, element_types, sms, upper

CLUSTERS = (1, 2, 4, 8)
LANES = (16, 32, 64, 128, 256, 512)  # threads of a run of 8 channels
MOST_THREADS = 512
WIDEST = 256  # channels of a cluster
REGISTERS, MOST_REGISTERS, OWN_REGISTERS = 65536, 255, 72  # of a CTA, of a thread, and of these besides what it holds
# a launch with its sums, a cluster, the work of a multiprocessor on 512 runs, what each of their rows adds, L2
START_US, CLUSTER_US, WORK_US, ROWS_US, L2_BYTES_PER_US = 1.6, 0.4, 0.44, 0.35, 4_500_000.0


@dataclass(frozen=True)
class _Norm:
    images: Dim
    rows: Dim
    channels: int
    group: int  # channels of one

    @property
    def unit(self) -> int:
        """The least channels that are whole groups and whole runs."""
        return math.lcm(self.group, RUN)


class CudaGroupNorm:
    """group_norm of channels last, in f16, bf16 and f32, with channels in multiples of 8 and images that fit."""

    name = "cuda_group_norm"
    version = 5
    language = "cuda"

    def applicable(self, problem: Problem, target: Limits) -> Reason | None:
        other = other_op(problem, ("group_norm",), into=RUN)
        if other is not None:
            return other
        if target.arch != ARCH:
            return Reason(f"is written for {ARCH}, not {target.arch}")
        dtype = element_types(problem, 1)
        if isinstance(dtype, Reason):
            return dtype
        if len(problem.operands) < 3 or any(o.type.dtype not in FLOATS for o in problem.operands[1:3]):
            return Reason("needs a float scale and bias per channel")
        norm = _norm(problem)
        if isinstance(norm, Reason):
            return norm
        if upper(problem, norm.images * norm.rows) >= 2**31:
            return Reason("counts at most 2^31 rows")
        if not self.configs(problem, target):
            return Reason(f"holds an image in the registers of {CLUSTERS[-1]} CTAs, not {problem.operands[0].type}")
        missing = scalar.supported(problem)
        return None if missing is None else Reason(missing)

    def configs(self, problem: Problem, target: Limits) -> Sequence[Config]:
        n = _known(problem)
        typical = problem.typical(n.rows)
        widths = [w for w in range(n.unit, min(n.channels, WIDEST) + 1, n.unit) if n.channels % w == 0]
        size = RUN * problem.operands[0].type.dtype.itemsize
        found: list[Config] = [
            {"width": width, "lanes": lanes, "cluster": cluster}
            for width in widths
            for lanes in LANES
            for cluster in CLUSTERS
            if width // RUN * lanes <= MOST_THREADS and width // RUN * lanes % 32 == 0
            if _held(problem, lanes, cluster) * size <= _room(width // RUN * lanes)
            if cluster == 1 or lanes * cluster < 2 * typical
        ]
        return sorted(found, key=lambda c: (self.estimate(problem, target, c), -int(c["lanes"])))[:24]

    def estimate(self, problem: Problem, target: Limits, config: Config) -> float:
        """Microseconds at the opt shape: what the busiest multiprocessor computes, or the bytes that all move. The
        constants were fitted to 163 timings on an H200, less what sums in two steps save since."""
        n, (width, lanes, cluster) = _known(problem), _numbers(config)
        ctas = problem.typical(n.images) * (n.channels // width) * cluster
        runs = _held(problem, lanes, cluster) * lanes * (width // RUN)
        work = runs / 512 * ceildiv(ctas, sms(target))
        compute = work * (WORK_US + ROWS_US * RUN / min(width, 32 * RUN))
        memory = 2 * problem.typical(problem.operands[0].type.nbytes) / L2_BYTES_PER_US
        return START_US + (CLUSTER_US if cluster > 1 else 0.0) + max(compute, memory)

    def emit(self, problem: Problem, target: Limits, config: Config) -> KernelCode:
        n, (width, lanes, cluster) = _known(problem), _numbers(config)
        x, scale, bias = (o.type.dtype for o in problem.operands[:3])
        constants = {
            "C": n.channels, "CG": n.group, "W": width, "LANES": lanes, "CL": cluster,
            "HOLD": _held(problem, lanes, cluster),
            "CONSTANT": int(all(o.constant for o in problem.operands[1:3])),
        }  # fmt: skip
        kinds = (("ELEMENT", "element", x), ("SCALE", "scale", scale), ("BIAS", "bias", bias))
        reads = [f"typedef {scalar.STORAGE[dtype.name]} {kind};" for kind, _, dtype in kinds]
        reads += [
            f"inline float {name}_value({kind} v) {{ return {scalar.read('v', dtype)}; }}"
            for kind, name, dtype in kinds
        ]
        reads.append(f"constexpr float EPSILON = {float(problem.attr('epsilon'))!r}f;")
        parts = {
            "READ": "\n".join(reads),
            "CLUSTER": f" __cluster_dims__({cluster}, 1, 1)" if cluster > 1 else "",
        }
        module = emit.module("group_norm.cu", problem, constants, parts, epilogue(problem, batch=0))
        threads = width // RUN * lanes
        shared = threads * 68 + width * (4 + 8 * cluster + 16) + 8
        options = (("warps", threads // 32), ("shared", shared), ("cluster", cluster), ("pdl", True))
        args = (Ptr(0), Ptr(1), Ptr(2), Int(n.rows, 32), *module.args)
        grid = (n.images * (n.channels // width * cluster),)
        return KernelCode("cuda", module.text, (Launch("kernel", grid, args, options),))


def _numbers(config: Config) -> tuple[int, int, int]:
    return int(config["width"]), int(config["lanes"]), int(config["cluster"])


def _room(threads: int) -> int:
    """Bytes that each of a CTA's threads can hold in registers."""
    return 4 * (min(MOST_REGISTERS, REGISTERS // threads) - OWN_REGISTERS)


def _held(problem: Problem, lanes: int, cluster: int) -> int:
    """Runs that a thread holds at most."""
    return ceildiv(ceildiv(upper(problem, _known(problem).rows), cluster), lanes)


def _known(problem: Problem) -> _Norm:
    norm = _norm(problem)
    assert isinstance(norm, _Norm)
    return norm


def _norm(problem: Problem) -> _Norm | Reason:
    x = problem.operands[0].type
    channels = x.shape[-1]
    if problem.attr("layout") != "NHWC":
        return Reason("reads channels last")
    if not isinstance(channels, int) or channels % RUN:
        return Reason(f"reads runs of {RUN} channels, not {x}")
    return _Norm(x.shape[0], product(x.shape[1:-1]), channels, channels // int(problem.attr("groups")))


register(CudaGroupNorm())
