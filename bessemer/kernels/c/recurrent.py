"""LSTM and GRU: the inputs of all steps as one product, then the steps one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bessemer.core import dtype as dt
from bessemer.core.dim import Dim, ceildiv
from bessemer.ir.graph import TensorType
from bessemer.kernels.base import (
    WORKSPACE,
    Arg,
    Config,
    Int,
    KernelCode,
    Launch,
    Limits,
    Pack,
    Problem,
    Ptr,
    Reason,
    other_op,
    register,
    transform,
)
from bessemer.kernels.c import cost, scalar, simd

GATES = {"lstm": 4, "gru": 3}
ROWS = {"avx512": 3, "avx2": 1, "scalar": 1}
BATCH = 12  # sequences of a work item
ITEM = 1 << 18  # multiply-adds that outweigh the cost of starting a work item


@transform("panels_of_gates")
def panels_of_gates(w: np.ndarray, gates: int, units: int) -> np.ndarray:
    """[dirs, gates * H, K] -> [dirs, panels, K, gates, units], zero past unit H."""
    dirs, rows, depth = w.shape
    hidden = rows // gates
    panels = -(-hidden // units)
    padded = np.zeros((dirs, gates, panels * units, depth), np.float32)
    padded[:, :, :hidden] = w.reshape(dirs, gates, hidden, depth)
    split = padded.reshape(dirs, gates, panels, units, depth)
    return np.ascontiguousarray(split.transpose(0, 2, 4, 1, 3))


@dataclass(frozen=True)
class _Cell:
    """Sizes of a problem, and the operands of what may be absent."""

    steps: Dim
    batch: Dim
    inputs: int
    hidden: int
    directions: int
    bias: int | None
    initial_h: int | None
    initial_c: int | None


@dataclass
class Recurrent:
    """lstm or gru in f32, ONNX's layout and gate order, default activations, constant weights."""

    name: str
    op: str
    version: int = 1
    language: str = "c"

    def applicable(self, problem: Problem, target: Limits) -> Reason | None:
        cell = self._cell(problem)
        return cell if isinstance(cell, Reason) else None

    def configs(self, problem: Problem, target: Limits) -> Sequence[Config]:
        return ({},)

    def estimate(self, problem: Problem, target: Limits, config: Config) -> float:
        cell, lanes = self._cell(problem), simd.lanes(target.arch)
        assert isinstance(cell, _Cell)
        steps, batch = cost.typical(problem, cell.steps, cell.batch)
        vectors = cell.directions * GATES[self.op] * -(-cell.hidden // lanes)
        inputs = steps * batch * vectors * cell.inputs / 1.5
        states = steps * vectors * (max(batch * cell.hidden / 1.5, cell.hidden * 2.0) + batch * cost.HEAVY_CYCLES)
        items = cell.directions * -(-batch // BATCH)
        first = cost.microseconds(target, inputs, 1 + int(inputs) // ITEM)
        return first + cost.microseconds(target, states, items)

    def emit(self, problem: Problem, target: Limits, config: Config) -> KernelCode:
        cell = self._cell(problem)
        assert isinstance(cell, _Cell)
        gates, units = GATES[self.op], 2 * simd.lanes(target.arch)
        panels = -(-cell.hidden // units)
        rows = cell.steps * cell.batch
        per_panel = cell.inputs * gates * units
        row_block = max(8, ITEM // max(1, per_panel * panels))
        panel_block = max(1, min(panels, ITEM // max(1, per_panel * min(row_block, max(1, problem.typical(rows))))))
        backwards = {"forward": 2, "reverse": 0, "bidirectional": 1}[str(problem.attr("direction"))]
        row_blocks, panel_blocks = ceildiv(rows, row_block), -(-panels // panel_block)
        batch_blocks = ceildiv(cell.batch, BATCH)
        given = tuple(int(n is not None) for n in (cell.bias, cell.initial_h, cell.initial_c))
        fields = (
            cell.steps, cell.batch, cell.inputs, cell.hidden, panels, cell.directions, row_blocks, row_block,
            panel_blocks, panel_block, batch_blocks, BATCH, *given, backwards, panels * units,
        )  # fmt: skip
        shape = tuple(Int(f) for f in fields)
        bias, h0, c0 = (Ptr(0 if n is None else n) for n in (cell.bias, cell.initial_h, cell.initial_c))
        y = len(problem.operands)
        results = [Ptr(y + k) for k in (0, 1, min(2, len(problem.outputs) - 1))]
        first: tuple[Arg, ...] = (Ptr(0), Ptr(1), bias, Ptr(WORKSPACE), *shape)
        second: tuple[Arg, ...] = (Ptr(2), bias, h0, c0, Ptr(WORKSPACE), *results, *shape)
        launches = (
            Launch("inputs", (cell.directions * panel_blocks * row_blocks,), first),
            Launch("steps", (cell.directions * batch_blocks,), second),
        )
        defines = {
            "GATES": gates, "ROWS": ROWS[target.arch], "BATCH": BATCH, "IS_LSTM": int(self.op == "lstm"),
            "LINEAR": int(self.op == "gru" and bool(problem.attr("linear_before_reset"))),
        }  # fmt: skip
        text = "".join(f"#define {k} {v}\n" for k, v in defines.items()) + simd.template("recurrent.h")
        floats = cell.directions * (panels * rows * gates * units + 3 * cell.batch * panels * units)
        packs = tuple(
            Pack(n, "panels_of_gates", (gates, units), TensorType(dt.f32, (cell.directions, panels, k, gates, units)))
            for n, k in ((1, cell.inputs), (2, cell.hidden))
        )
        return KernelCode("c", simd.header(target.arch) + scalar.assemble(text), launches, packs, 4 * floats)

    def _cell(self, problem: Problem) -> _Cell | Reason:
        other = other_op(problem, (self.op,))
        if other is not None:
            return other
        types = [o.type for o in problem.operands]
        if any(t.dtype != dt.f32 for t in types) or problem.epilogue is not None:
            return Reason("computes in f32, with no epilogue")
        if len(problem.outputs) != (3 if self.op == "lstm" else 2):
            return Reason("writes all outputs")
        x, w, r = (t.shape for t in types[:3])
        if not (problem.operands[1].constant and problem.operands[2].constant):
            return Reason("packs its weights while building; these are not constant")
        if not all(isinstance(d, int) for d in (x[2], *w, *r)):
            return Reason(f"needs fixed input and hidden sizes, not {types[1]}")
        found: dict[str, int] = {}
        for name in ("has_bias", "has_initial_h", "has_initial_c"):
            if problem.attr(name):
                found[name] = 3 + len(found)
        inputs, directions, hidden = (int(str(d)) for d in (x[2], w[0], r[2]))
        return _Cell(
            x[0], x[1], inputs, hidden, directions, found.get("has_bias"), found.get("has_initial_h"),
            found.get("has_initial_c"),
        )  # fmt: skip


register(Recurrent("c_lstm", "lstm"))
register(Recurrent("c_gru", "gru"))
