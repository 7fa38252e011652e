"""Prints scalar expressions as C.

`Printer` gives C text for one element: typed reads through operand pointers, offsets as sums of index times stride,
functions of scalar.h. Loops are the callers' (`row_epilogue` here, the group tactic): loops with the last axis innermost
and `restrict` pointers, so that the compiler hoists and vectorises. f16 and bf16 are read to float and computed in it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from bessemer.core import dtype as dt
from bessemer.core.dim import Dim, product
from bessemer.core.dtype import DType
from bessemer.ir import expr as ex
from bessemer.ir.graph import TensorType
from bessemer.kernels.base import Arg, Int, Problem, Ptr
from bessemer.kernels.c.simd import template

STORAGE = {
    "f64": "double", "f32": "float", "f16": "_Float16", "bf16": "uint16_t", "i64": "int64_t", "i32": "int32_t",
    "i16": "int16_t", "i8": "int8_t", "u64": "uint64_t", "u32": "uint32_t", "u16": "uint16_t", "u8": "uint8_t",
    "bool": "uint8_t",
}  # fmt: skip
VALUE = {**STORAGE, "f16": "float", "bf16": "float"}  # what an element is computed in

_CALLS = {  # float, double
    "exp": ("bsm_exp", "exp"), "log": ("bsm_log", "log"), "erf": ("bsm_erf", "erf"), "tanh": ("bsm_tanh", "tanh"),
    "sigmoid": ("bsm_sigmoid", "bsm_sigmoidd"), "abs": ("fabsf", "fabs"), "floor": ("floorf", "floor"),
    "ceil": ("ceilf", "ceil"), "round": ("rintf", "rint"), "trunc": ("truncf", "trunc"), "sqrt": ("sqrtf", "sqrt"),
    "fmod": ("fmodf", "fmod"), "pow": ("powf", "pow"), "atan2": ("atan2f", "atan2"),
    **{fn: (fn + "f", fn) for fn in "expm1 log1p sin cos tan asin acos atan sinh cosh asinh acosh atanh".split()},
}  # fmt: skip
_INFIX = {"add": "+", "sub": "-", "mul": "*", "bitand": "&", "bitor": "|", "bitxor": "^",
          "eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}  # fmt: skip
_LOGIC = {"and": "&", "or": "|", "xor": "^"}


def supported(problem: Problem) -> str | None:
    """None where every dtype of `problem` has a C type, else which has not."""
    for t in (*(o.type for o in problem.operands), *problem.outputs):
        if t.dtype.name not in STORAGE:
            return f"dtype {t.dtype} has no C kernels"
    return None


def strides(shape: tuple[Dim, ...]) -> tuple[Dim, ...]:
    """Element strides of a contiguous tensor."""
    return tuple(product(shape[k + 1 :]) for k in range(len(shape)))


@dataclass
class Printer:
    """Collects the arguments that an expression needs, and prints it.

    `names` maps loop variables to C names. Pointers are `x<k>` for operand k (declared by `declarations`), integers
    `n<k>`. `reads[operand]` may replace the address computation of a load: see `offset`.
    """

    problem: Problem
    ptr0: int
    int0: int
    pointers: dict[int, int] = field(default_factory=dict)  # operand -> position
    sizes: list[Dim] = field(default_factory=list)
    accumulator: str = "acc[j]"
    reduced: dict[int, str] = field(default_factory=dict)  # id(Reduce) -> C name of its value
    acc_dtype: DType = dt.f32

    # -- arguments
    def pointer(self, operand: int) -> str:
        """C name of an operand's pointer (output j is operand len(operands) + j)."""
        self.pointers.setdefault(operand, len(self.pointers))
        return f"x{operand}"

    def size(self, d: Dim) -> str:
        """C text of a dim."""
        if isinstance(d, int):
            return str(d) if abs(d) < 2**31 else f"INT64_C({d})"
        if d not in self.sizes:
            self.sizes.append(d)
        return f"n{self.sizes.index(d)}"

    @property
    def args(self) -> tuple[Arg, ...]:
        return (*(Ptr(k) for k in self.pointers), *(Int(d) for d in self.sizes))

    def declarations(self) -> str:
        """Locals for all pointers and sizes used so far."""
        lines = []
        count = len(self.problem.operands)
        for operand, position in self.pointers.items():
            type_ = self.type_of(operand)
            qualifier = "" if operand >= count else "const "
            c = STORAGE[type_.dtype.name]
            lines.append(f"    {qualifier}{c} *restrict x{operand} = ({qualifier}{c} *)p[{self.ptr0 + position}];")
        for k in range(len(self.sizes)):
            lines.append(f"    const int64_t n{k} = d[{self.int0 + k}];")
        return "\n".join(lines) + "\n"

    def type_of(self, operand: int) -> TensorType:
        count = len(self.problem.operands)
        return self.problem.operands[operand].type if operand < count else self.problem.outputs[operand - count]

    # -- expressions
    def value(self, e: ex.Expr) -> str:
        """C text of an expression's value."""
        if id(e) in self.reduced:
            return self.reduced[id(e)]
        match e:
            case ex.Lit():
                return literal(e)
            case ex.Size():
                return self.size(e.dim)
            case ex.Axis():
                return e.name
            case ex.Acc():
                return self.accumulator
            case ex.Load():
                return self.load(e)
            case ex.Select():
                return f"({self.value(e.cond)} ? {self.value(e.a)} : {self.value(e.b)})"
            case ex.Cast():
                return self.cast(self.value(e.arg), e.arg.dtype, e.dtype)
            case ex.Call():
                return self.call(e)
        raise TypeError(f"an expression that C has no text for: {ex.text(e)}")

    def offset(self, operand: int, index: tuple[ex.Expr, ...]) -> str:
        """C text of an element's offset."""
        terms = []
        for i, stride in zip(index, strides(self.type_of(operand).shape), strict=True):
            if isinstance(i, ex.Lit) and i.value == 0:
                continue
            text = self.value(i)
            terms.append(text if stride == 1 else f"{text} * {self.size(stride)}")
        return " + ".join(terms) or "0"

    def load(self, e: ex.Load) -> str:
        text = f"{self.pointer(e.operand)}[{self.offset(e.operand, e.index)}]"
        return read(text, e.dtype)

    def cast(self, text: str, source: DType, to: DType) -> str:
        c = VALUE[to.name]
        if to.kind == "b":
            return f"(uint8_t)({text} != 0)"
        if source.is_float and to.is_int:
            if to.bits == 64:
                return f"bsm_to_{to.name}({text})"
            return f"({c})bsm_to_i64({text})" if to.bits == 32 or to.kind == "u" else f"({c})(int32_t)bsm_to_i64({text})"
        if to.name in ("f16", "bf16") and source.name not in ("f16", "bf16", "f32"):
            return f"(float)({text})"
        return f"(({c})({text}))"

    def call(self, e: ex.Call) -> str:
        args = [self.value(a) for a in e.args]
        t = e.args[0].dtype
        if e.fn in _INFIX:
            text = f"({args[0]} {_INFIX[e.fn]} {args[1]})"
            return text if t.is_float or t.bits >= 32 or e.dtype.kind == "b" else f"(({VALUE[t.name]}){text})"
        if e.fn in _LOGIC:
            return f"({args[0]} {_LOGIC[e.fn]} {args[1]})"
        if e.fn in ("max", "min"):
            a, b = args
            return f"BSM_{e.fn.upper()}({a}, {b})" if t.is_float else f"({a} {'>' if e.fn == 'max' else '<'} {b} ? {a} : {b})"
        return self._float_call(e, args, t) if t.is_float else self._int_call(e, args, t)

    def _float_call(self, e: ex.Call, args: list[str], t: DType) -> str:
        one = "1.0" if t == dt.f64 else "1.0f"
        c = VALUE[t.name]
        match e.fn:
            case "neg":
                return f"(-{args[0]})"
            case "div":
                return f"({args[0]} / {args[1]})"
            case "reciprocal":
                return f"({one} / {args[0]})"
            case "rsqrt":
                return f"({one} / sqrt{'' if t == dt.f64 else 'f'}({args[0]}))"
            case "sign":
                return f"(({c})BSM_SIGN({args[0]}))"
            case "isnan":
                return f"((uint8_t)({args[0]} != {args[0]}))"
            case "isinf":
                return f"((uint8_t)(fabs((double){args[0]}) == INFINITY))"
            case "floordiv":
                return f"(({c})floor((double)({args[0]} / {args[1]})))"
            case "floormod":
                return f"(({c})bsm_floormodf({args[0]}, {args[1]}))"
        if e.fn not in _CALLS:
            raise TypeError(f"{e.fn} is not a function of floats")
        return f"{_CALLS[e.fn][t == dt.f64]}({', '.join(args)})"

    def _int_call(self, e: ex.Call, args: list[str], t: DType) -> str:
        c, a = VALUE[t.name], args[0]
        match e.fn:
            case "neg":
                return f"(({c})-{a})"
            case "abs":
                return a if t.kind == "u" else f"(({c})({a} < 0 ? -{a} : {a}))"
            case "sign":
                return f"(({c})(({a} > 0) - ({a} < 0)))"
            case "not":
                return f"((uint8_t)!{a})"
            case "bitnot":
                return f"(({c})~{a})"
            case "floor" | "ceil" | "round" | "trunc":
                return a
            case "popcount":
                mask = "" if t.bits == 64 else f" & {(1 << t.bits) - 1}u"
                return f"(({c})__builtin_popcountll((uint64_t){a}{mask}))"
            case "isnan" | "isinf":
                return "((uint8_t)0)"
            case "shl" | "shr":
                op = "<<" if e.fn == "shl" else ">>"
                return f"((uint64_t){args[1]} >= {t.bits} ? ({c})0 : ({c})({a} {op} {args[1]}))"
            case "pow":
                return f"(({c})bsm_ipow({a}, {args[1]}))"
            case "div" | "fmod" | "floordiv" | "floormod":
                if t.kind == "u":
                    op = "/" if "div" in e.fn else "%"
                    return f"({args[1]} == 0 ? ({c})0 : ({c})({a} {op} {args[1]}))"
                if isinstance(e.args[1], ex.Lit) and int(e.args[1].value) > 0 and e.fn in ("div", "fmod"):
                    return f"(({c})({a} {'/' if e.fn == 'div' else '%'} {args[1]}))"
                name = {"div": "truncdiv", "fmod": "truncmod"}.get(e.fn, e.fn)
                return f"(({c})bsm_{name}({a}, {args[1]}))"
        raise TypeError(f"{e.fn} is not a function of integers")


def read(text: str, dtype: DType) -> str:
    """The value of an element stored as `dtype`."""
    if dtype == dt.bf16:
        return f"bsm_from_bf16({text})"
    return f"(float){text}" if dtype == dt.f16 else text


def store(target: str, value: str, dtype: DType) -> str:
    """The statement that stores a value as `dtype`."""
    if dtype == dt.bf16:
        return f"{target} = bsm_to_bf16({value});"
    return f"{target} = ({STORAGE[dtype.name]})({value});"


def literal(e: ex.Lit) -> str:
    """C text of a literal."""
    if not e.dtype.is_float:
        value = int(e.value)
        if e.dtype.bits == 64:
            if value == -(2**63):
                return "INT64_MIN"
            return f"{'UINT64_C' if e.dtype.kind == 'u' else 'INT64_C'}({value})" if abs(value) >= 2**31 else f"(int64_t){value}" if value < 0 else str(value)
        return f"(({VALUE[e.dtype.name]}){value})"
    value, suffix = float(e.value), "" if e.dtype == dt.f64 else "f"
    if math.isnan(value):
        return "((float)NAN)"
    if math.isinf(value):
        return "(-INFINITY)" if value < 0 else "INFINITY"
    if suffix and abs(value) > 3.4028235677973366e38:
        return "(-INFINITY)" if value < 0 else "INFINITY"
    return f"({value!r}{suffix})" if value < 0 or math.copysign(1, value) < 0 else f"{value!r}{suffix}"


def prelude() -> str:
    """Scalar functions; first in every generated kernel."""
    return template("scalar.h")


@dataclass(frozen=True)
class EpilogueCode:
    """`text` defines the function; `args` are its own arguments, to be appended to the launch's."""

    text: str
    args: tuple[Arg, ...]


def row_epilogue(problem: Problem, name: str, *, ptr0: int, int0: int) -> EpilogueCode:
    """`static inline void NAME(void *const *p, const int64_t *d, int64_t row, int64_t col, int64_t n, const float *acc)`

    stores n results of output row `row` (output 0 seen as [rows, last axis]), columns col..col+n, from their
    accumulated values. Its pointers are p[ptr0...], its integers d[int0...].
    """
    out = problem.outputs[0]
    printer = Printer(problem, ptr0, int0)
    expr = problem.epilogue if problem.epilogue is not None else ex.Acc(problem.result.dtype if problem.result else out.dtype)
    target = printer.pointer(len(problem.operands))
    value = printer.value(expr)
    axes = {n.name for n in ex.walk(expr) if isinstance(n, ex.Axis)}
    last = f"i{out.rank - 1}"
    coordinates = _row_coordinates(printer, out, axes)
    columns = printer.size(out.shape[-1]) if out.rank else "1"
    used = f"        const int64_t {last} = col + j;\n" if last in axes else ""
    text = (
        f"{prelude()}static inline void {name}(void *const *p, const int64_t *d, int64_t row, int64_t col, int64_t n,\n"
        "        const float *restrict acc) {\n"
        f"{printer.declarations()}{coordinates}"
        f"    const int64_t at = row * {columns} + col;\n"
        "#pragma GCC ivdep\n"
        f"    for (int64_t j = 0; j < n; j++) {{\n{used}"
        f"        {store(f'{target}[at + j]', value, out.dtype)}\n    }}\n}}\n"
    )
    return EpilogueCode(text, printer.args)


def _row_coordinates(printer: Printer, out: TensorType, axes: set[str]) -> str:
    """The leading coordinates that the expression needs, from the row number."""
    lines, rest = [], "row"
    needed = [k for k in range(out.rank - 1) if f"i{k}" in axes]
    if not needed:
        return ""
    for k in range(out.rank - 2, needed[0] - 1, -1):
        size = printer.size(out.shape[k])
        if k == 0:
            lines.append(f"    const int64_t i0 = {rest};")
        else:
            lines.append(f"    const int64_t i{k} = {rest} % {size}, r{k} = {rest} / {size};")
            rest = f"r{k}"
    return "\n".join(lines) + "\n"
