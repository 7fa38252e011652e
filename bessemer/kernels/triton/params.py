"""What Triton bodies are written with: groups of axes, values, the kernel's parameters, and expressions made unique."""

from __future__ import annotations

from dataclasses import dataclass, field

from bessemer.core.dim import Dim, product
from bessemer.ir import expr as ex
from bessemer.ir import exprtree
from bessemer.kernels.base import Arg, Int, Problem, Ptr
from bessemer.kernels.bounds import I32_MAX, Intervals


@dataclass(frozen=True)
class Group:
    """A flattened coordinate `var` over `axes` (name, extent), outermost first. Axes of extent 1 take no part.

    `along` is the tile's dimension that it runs along and `size` its extent there; None: a scalar."""

    var: str
    axes: tuple[tuple[str, Dim], ...]
    along: int | None = None
    size: str = ""

    @property
    def numel(self) -> Dim:
        return product(size for _, size in self.axes)


@dataclass(frozen=True)
class Value:
    """A variable or literal of the kernel's text, its kind (see scalar), and the groups that it depends on."""

    text: str
    kind: str
    deps: frozenset[str] = frozenset()


@dataclass
class Params:
    """The kernel parameters that expressions ask for, in the order of first use: operands, outputs, sizes."""

    problem: Problem
    bake: bool  # constant sizes are written into the text, else passed as arguments
    args: dict[str, Arg] = field(default_factory=dict)
    _sizes: dict[Dim, str] = field(default_factory=dict)

    def operand(self, number: int) -> str:
        """The parameter of operand or output `number`."""
        count = len(self.problem.operands)
        name = f"e_x{number}" if number < count else f"e_y{number - count}"
        self.args.setdefault(name, Ptr(number))
        return name

    def size(self, d: Dim) -> Value:
        """`d` as a value: a literal, or a parameter of 32 bits where it always fits."""
        if isinstance(d, int) and (self.bake or abs(d) <= 1):
            return Value(str(d), "i32" if abs(d) <= I32_MAX else "i64")
        bits = 32 if Intervals(self.problem).fits32((d, d)) else 64
        if d not in self._sizes:
            self._sizes[d] = f"e_n{len(self._sizes)}"
            self.args[self._sizes[d]] = Int(d, bits)
        return Value(self._sizes[d], f"i{bits}")


def intern(e: ex.Expr) -> ex.Expr:
    """`e` with equal sub-expressions made one object, so that values are remembered by identity."""
    seen: dict[object, ex.Expr] = {}

    def key(n: ex.Expr) -> object:
        ids = tuple(id(c) for c in exprtree.children(n))
        match n:
            case ex.Lit(value=value, dtype=dtype):
                return ("lit", repr(value), dtype)
            case ex.Load(operand=operand):
                return ("load", operand, ids)
            case ex.Call(fn=fn):
                return ("call", fn, ids)
            case ex.Select():
                return ("select", ids)
            case ex.Cast(dtype=dtype):
                return ("cast", dtype, ids)
            case ex.Reduce(kind=kind, axes=axes, acc=acc):
                return ("reduce", kind, axes, acc, ids)
        return n

    return exprtree.rewrite(e, lambda n: seen.setdefault(key(n), n))
