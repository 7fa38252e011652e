"""How the tiled kernels store their results: from the registers for the usual epilogues, row by row for the rest.

`store_code` defines, over the output seen as [rows, cols],

    void store_row(void *const *p, const int64_t *d, int64_t row, int64_t col, int64_t n, const float *acc)

which stores n results of output row `row`, columns col..col+n; and where the macro STORES_TILES is 1

    void store_tile(const struct tile_out *out, const int rows, const int vecs, vf acc[TILE_ROWS][TILE_VECS])

which does the same for a tile in registers. The text needs tile_base.h, TILE_ROWS and TILE_VECS before it.
"""

from __future__ import annotations

from dataclasses import dataclass

from bessemer.core import dtype as dt
from bessemer.core.dim import Dim
from bessemer.ir import expr as ex
from bessemer.kernels.base import Arg, Int, Problem, Ptr
from bessemer.kernels.c import simd
from bessemer.kernels.c.emit import row_epilogue

_BINARY = {"add": "vf_add", "sub": "vf_sub", "mul": "vf_mul", "div": "vf_div"}
_EXTREME = {"min": "vf_min", "max": "vf_max"}


@dataclass(frozen=True)
class StoreCode:
    """The text, and the arguments that it reads after the kernel's own."""

    text: str
    args: tuple[Arg, ...]


class _NotVector(Exception):
    """The expression needs more than the vector layer has."""


def store_code(problem: Problem, *, ptr0: int, int0: int) -> StoreCode:
    """`store_row` and `store_tile` for `problem`; their own pointers and integers start at p[ptr0] and d[int0]."""
    try:
        return _VectorStore(problem, ptr0, int0).code()
    except _NotVector:
        code = row_epilogue(problem, "store_row", ptr0=ptr0, int0=int0)
        return StoreCode(simd.template("store_rows.h") + code.text, code.args)


class _VectorStore:
    """Prints an f32 expression of +, -, *, /, min, max over the sum, columns, scalars and same-shape operands."""

    def __init__(self, problem: Problem, ptr0: int, int0: int) -> None:
        self.problem, self.ptr0, self.int0 = problem, ptr0, int0
        cols, into = problem.outputs[0].shape[-1], problem.into
        sizes = (cols,) if into is None else (into.width, into.start, cols)
        self.args: list[Arg] = [Ptr(len(problem.operands)), *(Int(v) for v in sizes)]
        self.loads: list[str] = []  # of each operand read: "at" (same shape), "col" (a row vector) or "scalar"
        self.lines: list[str] = []
        self.names: dict[int, str] = {}

    def code(self) -> StoreCode:
        out = self.problem.outputs[0]
        if out.dtype != dt.f32 or not out.shape or len(self.problem.outputs) != 1:
            raise _NotVector
        epilogue = self.problem.epilogue
        result = self.value(epilogue if epilogue is not None else ex.Acc(dt.f32))
        numbered = list(enumerate(self.loads))
        parameters = "".join(f", vf x{k}" for k, _ in numbered)
        pointers = "".join(f"    const float *restrict x{k} = p[{self.ptr0 + 1 + k}];\n" for k, _ in numbered)
        apart = self.problem.into is not None and "at" in self.loads  # operands have other rows than the output
        if apart:
            pointers += f"    const int64_t own = d[{self.int0 + 2}];\n"
        moves = {"at": "row * own + col" if apart else "at", "col": "col", "scalar": "0"}
        pointers += "".join(f"    x{k} += {moves[kind]};\n" for k, kind in numbered)

        def values(at: str, col: str, load: str) -> str:
            reads = {
                "at": f"{load.format('x{k} + ' + at)}",
                "col": f"{load.format('x{k} + ' + col)}",
                "scalar": "vf_set(*x{k})",
            }
            return "".join(f", {reads[kind].format(k=k)}" for k, kind in numbered)

        text, rows = simd.template("store_vectors.h"), "own" if apart else "step"
        for name, value in {
            "PARAMETERS": parameters,
            "LINES": "".join(f"    {line}\n" for line in self.lines),
            "RESULT": result,
            "OUT": str(self.ptr0),
            "COLS": str(self.int0),
            "START": "" if self.problem.into is None else f" + d[{self.int0 + 1}]",
            "POINTERS": pointers,
            "ROW_WHOLE": values("j", "j", "vf_load({})"),
            "ROW_TAIL": values("j", "j", "vf_loadm({}, m)"),
            "TILE_WHOLE": values(f"i * {rows} + j * VL", "j * VL", "vf_load({})"),
            "TILE_TAIL": values(f"i * {rows} + j * VL", "j * VL", "vf_loadm({}, m)"),
        }.items():
            text = text.replace(f"@{name}@", value)
        return StoreCode(text, tuple(self.args))

    def value(self, e: ex.Expr) -> str:
        """A name for `e`; each shared node is printed once."""
        if id(e) not in self.names:
            text = self.print(e)
            self.names[id(e)] = name = f"t{len(self.names)}"
            self.lines.append(f"const vf {name} = {text};")
        return self.names[id(e)]

    def print(self, e: ex.Expr) -> str:
        match e:
            case ex.Acc(dtype=dt.f32):
                return "acc"
            case ex.Lit(dtype=dt.f32):
                return f"vf_set({literal(float(e.value))})"
            case ex.Load(dtype=dt.f32):
                return self.load(e)
            case ex.Call(fn=fn, args=(a, b), dtype=dt.f32) if fn in _BINARY:
                return f"{_BINARY[fn]}({self.value(a)}, {self.value(b)})"
            case ex.Call(fn=fn, args=(a, b), dtype=dt.f32) if fn in _EXTREME:
                if not isinstance(a, ex.Lit):
                    a, b = b, a
                if not isinstance(a, ex.Lit) or a.value != a.value:
                    raise _NotVector
                return f"{_EXTREME[fn]}({self.value(a)}, {self.value(b)})"  # the second where either is NaN
            case ex.Call(fn="neg", args=(a,), dtype=dt.f32):
                return f"vf_sub(vf_set(-0.0f), {self.value(a)})"
        raise _NotVector

    def load(self, e: ex.Load) -> str:
        shape, out = self.problem.operands[e.operand].type.shape, self.problem.outputs[0].shape
        self.loads.append(_offset(e.index, shape, out, ex.out_axes(len(out))))
        self.args.append(Ptr(e.operand))
        return f"x{len(self.loads) - 1}"


def _offset(index: tuple[ex.Expr, ...], shape: tuple[Dim, ...], out: tuple[Dim, ...], axes: tuple[ex.Axis, ...]) -> str:
    """Where a row's elements of an operand lie: "at" (same shape), "col" (a row vector) or "scalar"."""
    if all(isinstance(i, ex.Lit) and i.value == 0 for i in index):
        return "scalar"
    lead = index[:-1]
    if index[-1] == axes[-1] and shape[-1] == out[-1]:
        if all(isinstance(i, ex.Lit) and i.value == 0 for i in lead):
            return "col"
        same = all(i == a or (isinstance(i, ex.Lit) and i.value == 0 and s == 1) for i, a, s in zip(lead, axes, shape))
        if len(index) == len(axes) and same and shape == out:
            return "at"
    raise _NotVector


def literal(value: float) -> str:
    """A C float literal of exactly `value`."""
    if value != value:
        return '__builtin_nanf("")'
    if value in (float("inf"), float("-inf")):
        return f"{'-' if value < 0 else ''}__builtin_inff()"
    return f"{value.hex()}f"
