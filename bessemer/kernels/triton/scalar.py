"""Scalar functions as Triton text. `kind` is the type that a value is computed in: f32 for all 16-bit floats, i1 for
bool, and i32 for those i64 index values that are known to fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bessemer.core import dtype as dt
from bessemer.core.dtype import DType
from bessemer.ir import expr as ex

TL = {
    "f64": "tl.float64", "f32": "tl.float32", "f16": "tl.float16", "bf16": "tl.bfloat16",
    "i64": "tl.int64", "i32": "tl.int32", "i16": "tl.int16", "i8": "tl.int8", "i1": "tl.int1",
    "u64": "tl.uint64", "u32": "tl.uint32", "u16": "tl.uint16", "u8": "tl.uint8", "bool": "tl.int8",
}  # fmt: skip
BITS = {"i64": 64, "i32": 32, "i16": 16, "i8": 8, "u64": 64, "u32": 32, "u16": 16, "u8": 8}
INFIX = {"add": "+", "sub": "-", "mul": "*", "bitand": "&", "bitor": "|", "bitxor": "^"}
COMPARE = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}
LOGIC = {"and": "&", "or": "|", "xor": "^"}
BOOL_INFIX = {"add": "|", "mul": "&", "min": "&", "max": "|", "bitand": "&", "bitor": "|", "bitxor": "^", "sub": "^"}
DIRECT = {"floor": "tl.floor", "ceil": "tl.ceil", "abs": "tl.abs", "log": "tl.log", "sin": "tl.sin", "cos": "tl.cos",
          "erf": "tl.erf"}  # fmt: skip
OWN = {"round": "round_even", "trunc": "truncate", "sign": "sign"}  # by name and kind, see `_own`
WITH_F32 = frozenset("exp expm1 log1p sigmoid tanh tan".split())
WITH_16 = frozenset("sigmoid tanh".split())
IN_F64 = frozenset("sinh cosh asinh acosh atanh asin acos atan atan2 pow".split())


@dataclass(frozen=True)
class Text:
    """Triton text, the kind of its value, and the functions of templates/functions.py that it calls."""

    text: str
    kind: str
    helpers: tuple[str, ...] = ()


def kind_of(dtype: DType) -> str:
    """The type that values of `dtype` are computed in."""
    if dtype in (dt.f16, dt.bf16):
        return "f32"
    return "i1" if dtype == dt.bool_ else dtype.name


def literal(value: bool | int | float, kind: str) -> str:
    """A typed constant."""
    if kind[0] == "f":
        number = float(value)
        shown = repr(number) if number == number and abs(number) != float("inf") else f'float("{number}")'
        return f"tl.full((), {shown}, {TL[kind]})"
    return f"tl.full((), {int(value)}, {TL[kind]})"


def converted(text: str, source: str, target: str) -> str:
    """`text` of kind `source` as kind (or storage type) `target`, as a C cast does."""
    if source == target:
        return text
    if target == "i1":
        return f"({text} != 0)"
    if source[0] == "f" and target in ("i8", "i16", "u8", "u16", "u32"):
        text = f"{text}.to({'tl.int64' if target == 'u32' else 'tl.int32'})"
    if source == "f64" and target == "bf16":
        text = f"{text}.to(tl.float32)"
    if source == "i1" and target[0] == "f":
        text = f"{text}.to(tl.int32)"
    return f"{text}.to({TL[target]})"


def call(e: ex.Call, kind: str, args: Sequence[str], positive: bool = False) -> Text:
    """The call `e` on arguments of `kind`. Values bound for 16 bits take faster, still faithful, functions.

    `positive` says that the last argument is known to be: an integer division by it needs no care."""
    if e.fn in COMPARE:
        both = [f"{a}.to(tl.int8)" for a in args] if kind == "i1" else args
        return Text(f"({both[0]} {COMPARE[e.fn]} {both[1]})", "i1")
    if e.fn in LOGIC or e.fn == "not":
        tests = [a if kind == "i1" else f"({a} != 0)" for a in args]
        return Text(f"({tests[0]} {LOGIC[e.fn]} {tests[1]})" if len(tests) == 2 else f"({tests[0]} == 0)", "i1")
    if kind == "i1":
        return _bool(e.fn, args)
    if kind[0] == "f":
        return _float(e, kind, args)
    last = e.args[-1]
    return _int(e.fn, kind, args, positive or (isinstance(last, ex.Lit) and last.value > 0))


def _bool(fn: str, args: Sequence[str]) -> Text:
    if fn in BOOL_INFIX:
        return Text(f"({args[0]} {BOOL_INFIX[fn]} {args[1]})", "i1")
    if fn in ("abs", "sign"):
        return Text(args[0], "i1")
    if fn == "bitnot":
        return Text(f"({args[0]} == 0)", "i1")
    raise ValueError(f"{fn} is not defined on bool")


def _float(e: ex.Call, kind: str, args: Sequence[str]) -> Text:
    fn, a = e.fn, args[0]
    short = e.args[0].dtype in (dt.f16, dt.bf16)
    if fn in INFIX:
        return Text(f"({a} {INFIX[fn]} {args[1]})", kind)
    if fn in ("min", "max"):
        return Text(f"tl.{fn}imum({a}, {args[1]}, propagate_nan=tl.PropagateNan.ALL)", kind)
    if fn in DIRECT:
        return Text(f"{DIRECT[fn]}({a})", kind)
    if fn == "pow" and isinstance(e.args[1], ex.Lit) and (known := _known_power(a, float(e.args[1].value), kind)):
        return known
    if fn in ("div", "floordiv", "reciprocal"):
        ratio = _ratio(*((a, args[1]) if len(args) == 2 else (literal(1, kind), a)), kind, short)
        return Text(f"tl.floor({ratio})" if fn == "floordiv" else ratio, kind)
    if fn in ("sqrt", "rsqrt"):
        return Text(_root(fn, a, kind, short), kind)
    if fn == "neg":
        return Text(f"(-{a})", kind)
    if fn == "isnan":
        return Text(f"({a} != {a})", "i1")
    if fn == "isinf":
        return Text(f'(tl.abs({a}) == float("inf"))', "i1")
    if fn in ("fmod", "floormod"):
        return _remainder(fn, kind, args)
    return _own(fn, kind, args, short)


def _ratio(a: str, b: str, kind: str, short: bool) -> str:
    return f"({a} / {b})" if short or kind == "f64" else f"tl.div_rn({a}, {b})"


def _root(fn: str, a: str, kind: str, short: bool) -> str:
    if fn == "rsqrt":
        return f"tl.rsqrt({a})" if kind == "f32" else f"({literal(1, kind)} / tl.sqrt({a}))"
    return f"tl.sqrt({a})" if short or kind == "f64" else f"tl.sqrt_rn({a})"


def _known_power(a: str, power: float, kind: str) -> Text | None:
    match power:
        case 1.0:
            return Text(a, kind)
        case 2.0:
            return Text(f"({a} * {a})", kind)
        case 3.0:
            return Text(f"({a} * {a} * {a})", kind)
        case 0.5:
            root = _root("sqrt", a, kind, False)
            return Text(f'tl.where({a} == -float("inf"), float("inf"), {root})', kind)
        case -1.0:
            return Text(_ratio(literal(1, kind), a, kind, False), kind)
    return None


def _remainder(fn: str, kind: str, args: Sequence[str]) -> Text:
    wide = [converted(a, kind, "f64") for a in args]
    rounds = 6 if kind == "f32" else 42
    text = converted(f"fmod64({wide[0]}, {wide[1]}, {rounds})", "f64", kind)
    if fn == "fmod":
        return Text(text, kind, ("fmod64",))
    return Text(f"floormod_float({text}, {args[1]})", kind, ("fmod64", "floormod_float"))


def _own(fn: str, kind: str, args: Sequence[str], short: bool) -> Text:
    if fn in OWN:
        name = OWN[fn] + ("64" if fn == "round" and kind == "f64" else "")
    elif fn == "exp" and (short or kind == "f64"):
        return Text(f"tl.exp({args[0]})", kind)
    elif fn in WITH_F32 and kind == "f32":
        name = f"{fn}_16" if short and fn in WITH_16 else fn
    elif fn in WITH_F32 or (fn in IN_F64 and kind == "f64"):
        name = f"{fn}64"
    elif fn in IN_F64:
        wide = ", ".join(converted(a, kind, "f64") for a in args)
        return Text(converted(f"{fn}64({wide})", "f64", kind), kind, (f"{fn}64",))
    else:
        raise ValueError(f"{fn} is not defined on {kind}")
    return Text(f"{name}({', '.join(args)})", kind, (name,))


def _int(fn: str, kind: str, args: Sequence[str], positive: bool) -> Text:
    a, signed = args[0], kind[0] == "i"
    if fn in INFIX:
        return Text(f"({a} {INFIX[fn]} {args[1]})", kind)
    if fn in ("min", "max"):
        return Text(f"tl.{fn}imum({a}, {args[1]})", kind)
    if fn in ("div", "floordiv", "fmod", "floormod"):
        return _division(fn, kind, args, positive)
    if fn in ("shl", "shr"):
        shift = f"{a} {'<<' if fn == 'shl' else '>>'} tl.minimum({args[1]}, {BITS[kind] - 1})"
        return Text(f"tl.where({args[1]} < {BITS[kind]}, {shift}, {literal(0, kind)})", kind)
    if fn == "pow":
        name = "pow_int" if signed else "pow_uint"
        return Text(f"{name}({a}, {args[1]})", kind, (name,))
    if fn in ("floor", "ceil", "round", "trunc"):
        return Text(a, kind)
    if fn == "abs":
        return Text(f"tl.abs({a})" if signed else a, kind)
    if fn == "neg":
        return Text(f"(0 - {a})", kind)
    if fn == "sign":
        return Text(f"sign({a})", kind, ("sign",)) if signed else Text(f"({a} > 0).to({TL[kind]})", kind)
    if fn == "bitnot":
        ones = literal(-1 if signed else (1 << BITS[kind]) - 1, kind)
        return Text(f"({a} ^ {ones})", kind)
    if fn == "popcount":
        return _popcount(kind, a)
    if fn in ("isnan", "isinf"):
        return Text(f"({a} != {a})", "i1")
    raise ValueError(f"{fn} is not defined on {kind}")


def _division(fn: str, kind: str, args: Sequence[str], positive: bool) -> Text:
    signed = kind[0] == "i"
    truncated = fn if signed else {"floordiv": "div", "floormod": "fmod"}.get(fn, fn)
    if positive and truncated in ("div", "fmod"):
        return Text(f"({args[0]} {'//' if truncated == 'div' else '%'} {args[1]})", kind)
    name = f"{truncated}_{'int' if signed else 'uint'}"
    return Text(f"{name}({args[0]}, {args[1]})", kind, (name,))


def _popcount(kind: str, a: str) -> Text:
    bits = BITS[kind]
    unsigned = f"{a}.to(tl.uint{bits})"
    count = f"popcount32({unsigned}.to(tl.uint32))"
    if bits == 64:
        count = f"({count} + popcount32(({unsigned} >> 32).to(tl.uint32)))"
    return Text(f"{count}.to({TL[kind]})", kind, ("popcount32",))
