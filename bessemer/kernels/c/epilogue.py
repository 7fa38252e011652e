"""How the tiled kernels store a row of results: a short vector loop for the usual epilogues, the generator for the rest.

`store_code` defines

    static inline void store_row(void *const *p, const int64_t *d, int64_t row, int64_t col, int64_t n, const float *acc)

which stores n results of output row `row` (the output seen as [rows, cols]), columns col..col+n.
"""

from __future__ import annotations

from dataclasses import dataclass

from bessemer.core import dtype as dt
from bessemer.core.dim import Dim
from bessemer.ir import expr as ex
from bessemer.kernels.base import Arg, Int, Problem, Ptr

_BINARY = {"add": "vf_add", "sub": "vf_sub", "mul": "vf_mul", "div": "vf_div"}
_EXTREME = {"min": "vf_min", "max": "vf_max"}


@dataclass(frozen=True)
class StoreCode:
    """The text of `store_row`, and the arguments it reads after the kernel's own."""

    text: str
    args: tuple[Arg, ...]


class _NotVector(Exception):
    """The expression needs more than the vector layer has."""


def store_code(problem: Problem, *, ptr0: int, int0: int) -> StoreCode:
    """`store_row` for `problem`; its own pointers and integers start at p[ptr0] and d[int0]."""
    try:
        return _VectorStore(problem, ptr0, int0).code()
    except _NotVector:
        from bessemer.kernels.c.emit import row_epilogue

        code = row_epilogue(problem, "store_row", ptr0=ptr0, int0=int0)
        return StoreCode(code.text, code.args)


class _VectorStore:
    """Prints an f32 expression of +, -, *, /, min, max over the accumulator, columns, scalars and same-shape operands."""

    def __init__(self, problem: Problem, ptr0: int, int0: int) -> None:
        self.problem, self.int0 = problem, int0
        self.ptr0 = ptr0
        self.args: list[Arg] = [Ptr(len(problem.operands)), Int(problem.outputs[0].shape[-1])]
        self.pointers = 1
        self.outer: list[str] = []  # once per row
        self.inner: list[str] = []  # once per vector
        self.names: dict[int, str] = {}

    def code(self) -> StoreCode:
        out = self.problem.outputs[0]
        if out.dtype != dt.f32 or not out.shape or len(self.problem.outputs) != 1:
            raise _NotVector
        acc = ex.Acc(dt.f32)
        result = self.value(self.problem.epilogue if self.problem.epilogue is not None else acc)
        body = "\n".join(f"        {line}" for line in self.inner)
        whole = body.replace("LOAD(", "vf_load(").replace(", M)", ")")
        return StoreCode(
            "static inline void store_row(void *const *p, const int64_t *d, int64_t row, int64_t col, int64_t n,\n"
            "                             const float *restrict acc) {\n"
            f"    const int64_t at = row * d[{self.int0}] + col;\n"
            f"    float *restrict out = (float *)p[{self.ptr0}] + at;\n"
            + "".join(f"    {line}\n" for line in self.outer)
            + "    int64_t j = 0;\n"
            + f"    for (; j + VL <= n; j += VL) {{\n{whole}\n        vf_store(out + j, {result});\n    }}\n"
            + "    if (j < n) {\n        const vmask m = vf_mask(n - j);\n"
            + body.replace("LOAD(", "vf_loadm(").replace(", M)", ", m)")
            + f"\n        vf_storem(out + j, m, {result});\n    }}\n}}\n",
            tuple(self.args),
        )

    def value(self, e: ex.Expr) -> str:
        """A name for `e`; each shared node is printed once."""
        if id(e) not in self.names:
            text = self.print(e)
            self.names[id(e)] = name = f"t{len(self.names)}"
            self.inner.append(f"const vf {name} = {text};")
        return self.names[id(e)]

    def print(self, e: ex.Expr) -> str:
        match e:
            case ex.Acc(dtype=dt.f32):
                return "vf_load(acc + j)"
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
        axes = ex.out_axes(len(out))
        offset = _offset(e.index, shape, out, axes)
        pointer = f"(const float *)p[{self.ptr0 + self.pointers}]"
        self.args.append(Ptr(e.operand))
        name = f"x{self.pointers}"
        self.pointers += 1
        if offset == "scalar":
            self.outer.append(f"const vf {name} = vf_set(*({pointer}));")
            return name
        self.outer.append(f"const float *restrict {name} = {pointer} + {offset};")
        return f"LOAD({name} + j, M)"


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
        return "__builtin_nanf(\"\")"
    if value in (float("inf"), float("-inf")):
        return f"{'-' if value < 0 else ''}__builtin_inff()"
    return f"{value.hex()}f"
