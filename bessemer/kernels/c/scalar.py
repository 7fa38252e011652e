"""Scalar functions as C text. `kind` is the type that a value is computed in: f32 for the 16-bit floats.

The text calls functions of functions.h; `assemble` puts those that a kernel calls, and what they call, before it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache

from bessemer.core import dtype as dt
from bessemer.core.dtype import DType
from bessemer.ir import expr as ex
from bessemer.ir import exprtree
from bessemer.kernels.base import Problem
from bessemer.kernels.c.simd import template

STORAGE = {
    "f64": "double", "f32": "float", "f16": "uint16_t", "bf16": "uint16_t", "i64": "int64_t", "i32": "int32_t",
    "i16": "int16_t", "i8": "int8_t", "u64": "uint64_t", "u32": "uint32_t", "u16": "uint16_t", "u8": "uint8_t",
    "bool": "uint8_t",
}  # fmt: skip
VALUE = {**STORAGE, "f16": "float", "bf16": "float", "bool": "int"}  # by kind
HEADER = "#include <stdint.h>\n"

_INFIX = {"add": "+", "sub": "-", "mul": "*", "bitand": "&", "bitor": "|", "bitxor": "^"}
_COMPARE = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}
_LOGIC = {"and": "&", "or": "|", "xor": "^"}
_BOOL = {"add": "|", "mul": "&", "sub": "^", "min": "&", "max": "|", "bitand": "&", "bitor": "|", "bitxor": "^"}
_BUILTIN = frozenset("floor ceil trunc sqrt sin cos tan asin acos atan sinh cosh asinh acosh atanh".split())
_OWN_F32 = frozenset("exp expm1 log log1p sigmoid tanh erf".split())


def supported(problem: Problem) -> str | None:
    """None where C has all dtypes and functions of `problem`'s expressions, else what it has not."""
    for t in (*(o.type for o in problem.operands), *problem.outputs):
        if t.dtype.name not in STORAGE:
            return f"dtype {t.dtype} has no C type"
    for e in (problem.epilogue, problem.body.expr if problem.body is not None else None):
        for node in exprtree.walk(e) if e is not None else ():
            if node.dtype.name not in STORAGE:
                return f"dtype {node.dtype} has no C type"
            if isinstance(node, ex.Call):
                try:
                    call(node, ["a"] * len(node.args))
                except TypeError as error:
                    return str(error)
    return None


def kind_of(dtype: DType) -> str:
    """The type that values of `dtype` are computed in."""
    return "f32" if dtype in (dt.f16, dt.bf16) else dtype.name


def literal(value: bool | int | float, kind: str) -> str:
    """A constant of type `kind`."""
    if kind in ("f32", "f64"):
        suffix = "f" if kind == "f32" else ""
        number = float(value)
        if number != number:
            return f'__builtin_nan{suffix}("")'
        if abs(number) == float("inf") or (suffix and abs(number) >= 2.0**128 * (1 - 2.0**-25)):
            return f"{'-' if number < 0 else ''}__builtin_inf{suffix}()"
        text = f"{number.hex()}{suffix}"
        return f"({text})" if text.startswith("-") else text
    number = int(value)
    if kind == "i64" and number == -(2**63):
        return "INT64_MIN"
    if kind in ("i64", "u64"):
        text = str(number) if abs(number) < 2**31 else f"{'U' if kind == 'u64' else ''}INT64_C({number})"
    else:
        text = f"{number}u" if kind == "u32" else str(number) if number != -(2**31) else "INT32_MIN"
    return f"({text})" if text.startswith("-") else text


def read(text: str, dtype: DType) -> str:
    """The value of a stored element."""
    if dtype in (dt.f16, dt.bf16):
        return f"f32_of_{dtype}({text})"
    return f"({text} != 0)" if dtype == dt.bool_ else text


def stored(text: str, kind: str, dtype: DType) -> str:
    """A value of type `kind` as it is stored in memory of `dtype`."""
    if dtype in (dt.f16, dt.bf16):
        return f"{dtype}_of_f64({text})" if kind == "f64" else f"{dtype}_of_f32({converted(text, kind, 'f32')})"
    return f"({STORAGE[dtype.name]})({converted(text, kind, kind_of(dtype))})"


def converted(text: str, source: str, target: str) -> str:
    """`text` of type `source` as type `target`."""
    if source == target:
        return text
    if target == "bool":
        return f"({text} != 0)"
    c = VALUE[target]
    if source[0] == "f" and target[0] != "f":
        if target == "u64":
            return f"u64_of_f64((double)({text}))"
        if target in ("i64", "u32"):
            return f"({c})i64_of_{source}({text})"
        return f"({c})i32_of_{source}({text})"
    return f"({c})({text})"


def rounded(text: str, kind: str, dtype: DType) -> str:
    """`text` of type `kind` rounded to `dtype`, one of the 16-bit floats, as float."""
    return f"f32_of_{dtype}({stored(text, kind, dtype)})"


def call(e: ex.Call, args: Sequence[str]) -> str:
    """The call `e` on argument texts of its arguments' kind; TypeError where the function has no such arguments."""
    kind = kind_of(e.args[0].dtype)
    if e.fn in _COMPARE:
        return f"({args[0]} {_COMPARE[e.fn]} {args[1]})"
    if e.fn in _LOGIC or e.fn == "not":
        tests = [a if kind == "bool" else f"({a} != 0)" for a in args]
        return f"({tests[0]} {_LOGIC[e.fn]} {tests[1]})" if len(tests) == 2 else f"({tests[0]} == 0)"
    if kind == "bool":
        return _bool(e.fn, args)
    return _float(e, kind, args) if kind[0] == "f" else _int(e, kind, args)


def _bool(fn: str, args: Sequence[str]) -> str:
    if fn in _BOOL:
        return f"({args[0]} {_BOOL[fn]} {args[1]})"
    if fn in ("abs", "sign"):
        return args[0]
    if fn == "bitnot":
        return f"({args[0]} == 0)"
    raise TypeError(f"{fn} is not a function of bool")


def _float(e: ex.Call, kind: str, args: Sequence[str]) -> str:
    fn, a, suffix, one = e.fn, args[0], "f" if kind == "f32" else "", literal(1, kind)
    if fn in _INFIX and fn in ("add", "sub", "mul"):
        return f"({a} {_INFIX[fn]} {args[1]})"
    if fn in ("min", "max"):
        return _extreme(e, kind, args)
    if fn in _OWN_F32:
        if kind == "f32" or fn == "sigmoid":
            return f"{fn}_{kind}({a})"
        return f"__builtin_{fn}({a})"
    if fn in _BUILTIN:
        return f"__builtin_{fn}{suffix}({a})"
    match fn:
        case "neg":
            return f"(-{a})"
        case "abs":
            return f"__builtin_fabs{suffix}({a})"
        case "sign":
            return f"sign_{kind}({a})"
        case "round":
            return f"__builtin_rint{suffix}({a})"
        case "div":
            return f"({a} / {args[1]})"
        case "reciprocal":
            return f"({one} / {a})"
        case "rsqrt":
            return f"({one} / __builtin_sqrt{suffix}({a}))"
        case "floordiv":
            return f"__builtin_floor{suffix}({a} / {args[1]})"
        case "fmod" | "atan2":
            return f"__builtin_{fn}{suffix}({a}, {args[1]})"
        case "floormod":
            return f"floormod_{kind}({a}, {args[1]})"
        case "isnan":
            return f"({a} != {a})"
        case "isinf":
            return f"(__builtin_fabs{suffix}({a}) == __builtin_inf{suffix}())"
        case "pow":
            return _power(e, kind, args)
    raise TypeError(f"{fn} is not a function of {kind}")


def _extreme(e: ex.Call, kind: str, args: Sequence[str]) -> str:
    """NaN where either side is; one instruction where one side is a number that is known."""
    sign = "<" if e.fn == "min" else ">"
    for known, other in ((0, 1), (1, 0)):
        side = e.args[known]
        if isinstance(side, ex.Lit) and side.value == side.value:
            return f"({args[known]} {sign} {args[other]} ? {args[known]} : {args[other]})"
    return f"{e.fn}_{kind}({args[0]}, {args[1]})"


def _power(e: ex.Call, kind: str, args: Sequence[str]) -> str:
    a, power, suffix = args[0], e.args[1], "f" if kind == "f32" else ""
    known = float(power.value) if isinstance(power, ex.Lit) else None
    match known:
        case 1.0:
            return a
        case 2.0:
            return f"({a} * {a})"
        case 3.0:
            return f"({a} * {a} * {a})"
        case -1.0:
            return f"({literal(1, kind)} / {a})"
    return f"__builtin_pow{suffix}({a}, {args[1]})"


def _int(e: ex.Call, kind: str, args: Sequence[str]) -> str:
    fn, a, c = e.fn, args[0], VALUE[kind]
    bits, signed = int(kind[1:]), kind[0] == "i"
    wide = "i64" if signed else "u64"
    if fn in _INFIX:
        if fn in ("bitand", "bitor", "bitxor"):
            return f"({c})({a} {_INFIX[fn]} {args[1]})"
        unsigned = f"uint{max(bits, 32)}_t"  # signed overflow has no meaning in C, and wraps here
        return f"({c})(({unsigned}){a} {_INFIX[fn]} ({unsigned}){args[1]})"
    if fn in ("min", "max"):
        return f"({a} {'<' if fn == 'min' else '>'} {args[1]} ? {a} : {args[1]})"
    if fn in ("div", "fmod", "floordiv", "floormod"):
        return _quotient(e, kind, args)
    if fn in ("shl", "shr"):
        shift = f"({c})((uint64_t){a} << {args[1]})" if fn == "shl" else f"({c})({a} >> {args[1]})"
        return f"((uint64_t){args[1]} < {bits}u ? {shift} : ({c})0)"
    match fn:
        case "pow":
            return f"({c})pow_{wide}(({VALUE[wide]}){a}, ({VALUE[wide]}){args[1]})"
        case "floor" | "ceil" | "round" | "trunc":
            return a
        case "abs":
            return f"({c})({a} < 0 ? 0 - (uint64_t){a} : (uint64_t){a})" if signed else a
        case "neg":
            return f"({c})(0 - (uint64_t){a})"
        case "sign":
            return f"({c})(({a} > 0) - ({a} < 0))" if signed else f"({c})({a} > 0)"
        case "bitnot":
            return f"({c})~{a}"
        case "popcount":
            return f"({c})__builtin_popcountll((uint{bits}_t){a})"
        case "isnan" | "isinf":
            return "0"
    raise TypeError(f"{fn} is not a function of {kind}")


def _quotient(e: ex.Call, kind: str, args: Sequence[str]) -> str:
    bits, signed = int(kind[1:]), kind[0] == "i"
    fn = e.fn if signed else {"floordiv": "div", "floormod": "fmod"}.get(e.fn, e.fn)
    side = e.args[1]
    if fn in ("div", "fmod") and isinstance(side, ex.Lit) and int(side.value) > 0:
        return f"({VALUE[kind]})({args[0]} {'/' if fn == 'div' else '%'} {args[1]})"
    work = f"{kind[0]}{max(bits, 32)}"
    text = f"{fn}_{work}({args[0]}, {args[1]})"
    return text if work == kind else f"({VALUE[kind]}){text}"


def definitions(source: str) -> dict[str, str]:
    """The definitions of functions by name, in the order of `source`, each with the comment before it."""
    found = {}
    for piece in source.split("\n\n"):
        name = re.search(r"^static inline \w+ (\w+)\(", piece, re.MULTILINE)
        if name is not None:
            found[name.group(1)] = piece.strip() + "\n"
    return found


@cache
def functions() -> Mapping[str, str]:
    """The definitions of functions.h."""
    return definitions(template("functions.h"))


def called(text: str, known: Mapping[str, str]) -> str:
    """The definitions in `known` that `text` calls, and those that they call, in the order of `known`."""
    names = {name: set(re.findall(r"\b\w+(?=\()", piece)) & set(known) for name, piece in known.items()}
    wanted = set(re.findall(r"\b\w+(?=\()", text)) & set(known)
    queue = list(wanted)
    while queue:
        for name in names[queue.pop()] - wanted:
            wanted.add(name)
            queue.append(name)
    return "".join(known[name] for name in known if name in wanted)


def assemble(text: str) -> str:
    """`text` with the functions of functions.h that it calls before it, each once."""
    for piece in functions().values():
        text = text.replace(piece, "")
    return called(text, functions()) + text
