"""Max, average and Lp pooling of channel-last tensors; each window visits only the taps inside the input."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from bessemer.core import dtype as dt
from bessemer.core.dim import Dim, ceildiv, product
from bessemer.kernels.base import Config, Int, KernelCode, Launch, Limits, Problem, Ptr, Reason, other_op, register
from bessemer.kernels.c import cost, scalar, simd
from bessemer.kernels.c.emit import row_epilogue
from bessemer.kernels.c.reduce import element, initial

ITEM = 16384  # loads that outweigh the cost of starting a work item
AXIS = (1, 1, 1, 1, 1, 0, 0)  # of an axis that is not there


class Pool:
    """pool with the channels last, one to three spatial axes. (Other layouts are groups.)"""

    name = "c_pool"
    version = 1
    language = "c"

    def applicable(self, problem: Problem, target: Limits) -> Reason | None:
        other = other_op(problem, ("pool",), into=1)
        if other is not None:
            return other
        if problem.attr("layout") != "NHWC" or len(problem.attr("kernel")) > 3:
            return Reason("needs the channels last and at most three spatial axes")
        unknown, x = scalar.supported(problem), problem.operands[0].type.dtype
        if unknown or not (x.is_float or (x.is_int and problem.attr("kind") == "max")):
            return Reason(unknown or f"{problem.attr('kind')} pooling of {x} is not a float computation")
        return None

    def configs(self, problem: Problem, target: Limits) -> Sequence[Config]:
        return ({},)

    def estimate(self, problem: Problem, target: Limits, config: Config) -> float:
        taps = math.prod(int(k) for k in problem.attr("kernel"))
        return cost.elementwise_us(problem, target, 8.0 + 2.0 * taps)

    def emit(self, problem: Problem, target: Limits, config: Config) -> KernelCode:
        x, out, kind = problem.operands[0].type, problem.outputs[0].shape, str(problem.attr("kind"))
        attrs: dict[str, Any] = dict(problem.attrs)
        rank = len(attrs["kernel"])
        acc = dt.accumulator(x.dtype)
        axes: list[Dim] = list(AXIS * (3 - rank))
        for k in range(rank):
            axes += [x.shape[1 + k], out[1 + k], *(attrs[n][k] for n in ("kernel", "strides", "dilations", "pads"))]
            axes.append(attrs["pads"][rank + k])
        rows, channels = product(out[:-2]), x.shape[-1]
        line = out[-2] * channels * product(attrs["kernel"])
        group = max(1, ITEM // max(1, problem.typical(line)))
        store = row_epilogue(problem, "store_row", ptr0=1, int0=24)
        v = {"READ(x)": scalar.read("(x)", x.dtype), "ACC": element(acc), "ELEMENT": scalar.STORAGE[x.dtype.name]}
        v |= _steps(kind, acc, int(attrs.get("p") or 2))
        v["INCLUDE_PAD"] = str(int(bool(attrs["count_include_pad"])))
        text = "".join(f"#define {name} {value}\n" for name, value in v.items()) + simd.template("pool.h")
        args = (Ptr(0), *(Int(d) for d in axes), Int(channels), Int(rows), Int(group), *store.args)
        launch = Launch("pool", (ceildiv(rows, group),), args)
        return KernelCode("c", scalar.HEADER + scalar.assemble(store.text + text), (launch,))


def _steps(kind: str, acc: dt.DType, p: int) -> dict[str, str]:
    """The macros of one kind."""
    notice = str(int(kind == "max" and acc.is_float))
    start = {"START": initial("max" if kind == "max" else "sum", acc), "NOTICE": notice}
    if kind == "max":
        return start | {"STEP(a, v)": "((v) > (a) ? (v) : (a))", "FINISH(a)": "(a)"}
    suffix = "f" if acc == dt.f32 else ""
    if kind == "avg":
        return start | {"STEP(a, v)": "((a) + (v))", "FINISH(a)": f"((a) / ({element(acc)})counted)"}
    if p == 2:
        return start | {"STEP(a, v)": "((a) + (v) * (v))", "FINISH(a)": f"__builtin_sqrt{suffix}(a)"}
    power = f"__builtin_pow{suffix}(__builtin_fabs{suffix}(v), {scalar.literal(float(p), acc.name)})"
    root = scalar.literal(1.0 / p, acc.name)
    return start | {"STEP(a, v)": f"((a) + {power})", "FINISH(a)": f"__builtin_pow{suffix}(a, {root})"}


register(Pool())
