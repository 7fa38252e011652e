"""Reductions as C text: over buffers in many lanes, and of one pair of values."""

from __future__ import annotations

from bessemer.core.dtype import DType
from bessemer.ir import expr as ex
from bessemer.kernels.c import scalar

LANES = 64
LEAST = {"i64": "INT64_MIN", "i32": "INT32_MIN", "i16": "INT16_MIN", "i8": "INT8_MIN"}
GREATEST = {
    **{k: v.replace("MIN", "MAX") for k, v in LEAST.items()},
    "u64": "UINT64_MAX", "u32": "UINT32_MAX", "u16": "UINT16_MAX", "u8": "UINT8_MAX",
}  # fmt: skip


def element(dtype: DType) -> str:
    """The C type of an accumulator in memory."""
    return "uint8_t" if dtype.kind == "b" else scalar.VALUE[scalar.kind_of(dtype)]


def initial(kind: str, dtype: DType) -> str:
    """What a reduction of nothing gives."""
    k = scalar.kind_of(dtype)
    kind = kind.removeprefix("arg").removesuffix("_last")
    if kind in ("sum", "any"):
        return scalar.literal(0, k)
    if kind in ("prod", "all"):
        return scalar.literal(1, k)
    if k == "bool":
        return "0" if kind == "max" else "1"
    if k[0] == "f":
        return scalar.literal(float("-inf") if kind == "max" else float("inf"), k)
    return LEAST.get(k, "0") if kind == "max" else GREATEST[k]


def combined(kind: str, dtype: DType, a: str, b: str) -> str:
    """The text of one step on two values (texts without side effects)."""
    fn = {"sum": "add", "prod": "mul", "any": "or", "all": "and"}.get(kind, kind)
    unknown = ex.Acc(dtype)
    return scalar.call(ex.Call(fn, (unknown, unknown), dtype), (a, b))


def over_buffer(kind: str, dtype: DType) -> tuple[str, str]:
    """The name and the text of `T NAME(const T *x, int64_t n)`."""
    k, c = scalar.kind_of(dtype), element(dtype)
    name = f"{kind}_of_{k}"

    def step(a: str, b: str) -> str:
        return f"{a} = ({c}){combined(kind, dtype, a, b)};"

    return name, f"""static inline {c} {name}(const {c} *restrict x, int64_t n) {{
    {c} lane[{LANES}];
    int64_t i = 0;
    for (int l = 0; l < {LANES}; l++) lane[l] = {initial(kind, dtype)};
    for (; i + {LANES} <= n; i += {LANES})
        for (int l = 0; l < {LANES}; l++) {step("lane[l]", "x[i + l]")}
    for (int w = {LANES // 2}; w >= 16; w /= 2)
        for (int l = 0; l < w; l++) {step("lane[l]", "lane[l + w]")}
    for (; i + 16 <= n; i += 16)
        for (int l = 0; l < 16; l++) {step("lane[l]", "x[i + l]")}
    for (int l = 0; i + l < n; l++) {step("lane[l]", "x[i + l]")}
    for (int w = 8; w; w /= 2)
        for (int l = 0; l < w; l++) {step("lane[l]", "lane[l + w]")}
    return lane[0];
}}
"""


def better(kind: str, dtype: DType, new: str, old: str) -> str:
    """Whether `new`, which comes later, takes the place of `old` in an argmax or argmin. NaN beats all numbers."""
    sign = (">" if kind.startswith("argmax") else "<") + ("=" if kind.endswith("_last") else "")
    test = f"{new} {sign} {old}"
    if not dtype.is_float:
        return f"({test})"
    nan = f"{new} != {new}" if kind.endswith("_last") else f"({new} != {new} && {old} == {old})"
    return f"({test} || {nan})"


def argument_over_buffer(kind: str, dtype: DType) -> tuple[str, str]:
    """The name and the text of `void NAME(const T *x, int64_t n, int64_t first, T *best, int64_t *at)`."""
    k, c = scalar.kind_of(dtype), element(dtype)
    name = f"{kind}_of_{k}"
    extreme, text = over_buffer("max" if kind.startswith("argmax") else "min", dtype)
    order = "for (int64_t i = n - 1; i >= 0; i--)" if kind.endswith("_last") else "for (int64_t i = 0; i < n; i++)"
    head = f"static inline void {name}(const {c} *restrict x, int64_t n, int64_t first, {c} *best, int64_t *at)"
    return name, f"""{text}{head} {{
    const {c} m = {extreme}(x, n);
    if (!n || !{better(kind, dtype, "m", "*best")}) return;
    *best = m;
    {order}
        if (x[i] == m || (m != m && x[i] != x[i])) {{
            *at = first + i;
            return;
        }}
}}
"""
