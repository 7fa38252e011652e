"""Reductions as C text: over buffers in many lanes, and of one pair of values."""

from __future__ import annotations

from bessemer.core.dtype import DType
from bessemer.ir import expr as ex
from bessemer.kernels.c import scalar
from bessemer.kernels.c.blocks import IVDEP

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
    """The name and the text of `T NAME(const T *x, int64_t n)`.

    Kind "top" is a float max that may miss NaNs, for those who notice them elsewhere."""
    k, c = scalar.kind_of(dtype), element(dtype)
    name = f"{kind}_of_{k}"
    real = "max" if kind == "top" else kind
    extreme = dtype.is_float and real in ("max", "min")
    sticky = extreme and kind != "top"  # NaNs are noticed beside the extreme, which so stays one instruction

    def step(a: str, b: str) -> str:
        if extreme:
            return f"{a} = {b} {'>' if real == 'max' else '<'} {a} ? {b} : {a};"
        return f"{a} = ({c}){combined(real, dtype, a, b)};"

    def add(count: int, test: str = "") -> str:
        guard = f"if ({test}) " if test else ""
        note = " bad[l] |= v != v;" if sticky else ""
        return f"for (int l = 0; l < {count}; l++) {guard}{{ const {c} v = x[i + l]; {step('lane[l]', 'v')}{note} }}"

    def fold(width: int) -> str:
        note = f" bad[l] |= bad[l + {width}];" if sticky else ""
        return f"    for (int l = 0; l < {width}; l++) {{ {step('lane[l]', f'lane[l + {width}]')}{note} }}\n"

    start = f"lane[l] = {initial(real, dtype)};" + (" bad[l] = 0;" if sticky else "")
    result = 'bad[0] ? __builtin_nan("") : lane[0]' if sticky else "lane[0]"
    return name, f"""static inline {c} {name}(const {c} *restrict x, int64_t n) {{
    {c} lane[64];
{"    int32_t bad[64];" if sticky else ""}
    int64_t i = 0;
    for (int l = 0; l < 64; l++) {{ {start} }}
    for (; i + 64 <= n; i += 64)
        {add(64)}
{fold(32)}{fold(16)}    for (; i + 16 <= n; i += 16)
        {add(16)}
    {add(16, "i + l < n")}
{fold(8)}{fold(4)}{fold(2)}{fold(1)}    return {result};
}}
"""


def weights(dtype: DType) -> str:
    """The text of `T weights_of_K(const T *x, T *e, int64_t n, T top)`: e = exp(x - top), which may be x; their sum."""
    k, c = scalar.kind_of(dtype), element(dtype)

    def add(count: int, test: str = "") -> str:
        guard = f"if ({test}) " if test else ""
        return (
            f"for (int l = 0; l < {count}; l++) {guard}"
            f"{{ const {c} v = weight_{k}(x[i + l] - top); e[i + l] = v; lane[l] += v; }}"
        )

    def fold(width: int) -> str:
        return f"    for (int l = 0; l < {width}; l++) lane[l] += lane[l + {width}];\n"

    return f"""static inline {c} weights_of_{k}(const {c} *x, {c} *e, int64_t n, {c} top) {{
    {c} lane[64];
    int64_t i = 0;
    for (int l = 0; l < 64; l++) lane[l] = 0;
    for (; i + 64 <= n; i += 64)
        {IVDEP}
        {add(64)}
{fold(32)}{fold(16)}    for (; i + 16 <= n; i += 16)
        {IVDEP}
        {add(16)}
    {IVDEP}
    {add(16, "i + l < n")}
{fold(8)}{fold(4)}{fold(2)}{fold(1)}    return lane[0];
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
