"""Scalar functions as CUDA C++ text: the C printer's text, with the GPU's own functions where they differ.

Values that are computed for 16 bits take faster functions (`exp_16`), which are still faithful there.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from functools import cache
from importlib import resources

from bessemer.core import dtype as dt
from bessemer.core.dim import Dim
from bessemer.ir import expr as ex
from bessemer.ir import exprtree
from bessemer.kernels.c import scalar
from bessemer.kernels.c.blocks import Value
from bessemer.kernels.c.body import Body

SHORT = frozenset({"erf", "exp", "rsqrt", "sigmoid", "tanh"})  # functions that have a form for 16 bits
COST = {"erf": 18, "exp": 6, "gelu": 10, "sigmoid": 5, "tanh": 14, "div": 9, "pow": 40, "log": 12}  # instructions
NARROW = frozenset({dt.f16, dt.bf16})
NAMES = {
    "inff()": "__int_as_float(0x7f800000)", "inf()": "__longlong_as_double(0x7ff0000000000000ll)",
    "popcountll": "__popcll",
}  # fmt: skip


class DeviceBody(Body):
    """Statements of a device function."""

    def _value(self, e: ex.Expr) -> Value:
        x = gelu_argument(e)
        if isinstance(e, ex.Call) and x is not None and self._short(e):
            value = self.value(x)
            return self._let(f"gelu_16({value.text})", e.dtype, value.level)
        if isinstance(e, ex.Call) and e.fn in SHORT and self._short(e):
            value = self.value(e.args[0])
            return self._let(f"{e.fn}_16({value.text})", e.dtype, value.level)
        return super()._value(e)

    def divisor(self, d: Dim) -> str:
        """Rows are 32-bit numbers, and division by 64 bits takes a hundred instructions."""
        return f"static_cast<int>({super().divisor(d)})"

    def _short(self, e: ex.Call) -> bool:
        """Whether the value ends up in 16 bits: it is of such a type, or an f32 within what is stored as one."""
        stored = {t.dtype for t in self.problem.outputs}
        return e.args[0].dtype in NARROW or (e.args[0].dtype == dt.f32 and stored <= NARROW)


def gelu_argument(e: ex.Expr) -> ex.Expr | None:
    """x where `e` is (x / 2) (1 + erf(x / sqrt(2))), as GELU is lowered; else None."""
    half, shifted = _operands(e, "mul")
    x, factor = _operands(half, "mul")
    error, one = _operands(shifted, "add")
    if not isinstance(error, ex.Call) or error.fn != "erf":
        return None
    same, root = _operands(error.args[0], "mul")
    constants = (_number(factor), _number(one), _number(root))
    return x if x is not None and x == same and constants == (0.5, 1.0, math.sqrt(0.5)) else None


def of_element(e: ex.Expr) -> bool:
    """Whether `e` reads anything but sums."""
    if isinstance(e, ex.Reduce):
        return False
    return isinstance(e, (ex.Acc, ex.Load)) or any(of_element(c) for c in exprtree.children(e))


def _operands(e: ex.Expr | None, fn: str) -> tuple[ex.Expr | None, ex.Expr | None]:
    """Both of a call of `fn`, or None for each."""
    return (e.args[0], e.args[1]) if isinstance(e, ex.Call) and e.fn == fn else (None, None)


def _number(e: ex.Expr | None) -> object:
    return e.value if isinstance(e, ex.Lit) else None


def operations(e: ex.Expr) -> int:
    """About how many instructions compute `e` for one element, in the forms for 16 bits. What depends on sums of rows
    alone is computed once a row."""
    return _operations(e, bool(exprtree.reductions(e)))


def _operations(e: ex.Expr, sums: bool) -> int:
    """`sums`: whether there are any in the whole expression."""
    x = gelu_argument(e)
    if x is not None:
        return COST["gelu"] + _operations(x, sums)
    if sums and exprtree.reductions(e) and not of_element(e):
        return 0
    own = COST.get(e.fn, 1) if isinstance(e, ex.Call) else int(isinstance(e, (ex.Load, ex.Select, ex.Cast)))
    return own + sum(_operations(c, sums) for c in exprtree.children(e))


@cache
def template(name: str) -> str:
    """The text of templates/`name`."""
    return resources.files(__package__).joinpath("templates", name).read_text(encoding="utf-8")


@cache
def functions() -> Mapping[str, str]:
    """The definitions of functions by name: the GPU's own, and C's."""
    own = scalar.definitions(template("functions.cuh"))
    return own | {name: text for name, text in scalar.functions().items() if name not in own}


def assemble(text: str) -> str:
    """`text` with the functions that it calls before it, in the GPU's words."""
    return device_words(scalar.called(text, functions()) + text)


def device_words(text: str) -> str:
    """C text with gcc's builtins as CUDA names them."""
    return re.sub(r"__builtin_(\w+(?:\(\))?)", lambda m: NAMES.get(m.group(1), m.group(1)), text)
