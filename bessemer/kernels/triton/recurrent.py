"""LSTM and GRU: the inputs of all steps as one product, then one program per direction that walks the steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bessemer.core.dim import Dim, ceildiv
from bessemer.kernels.base import (
    WORKSPACE,
    Arg,
    Config,
    KernelCode,
    Launch,
    Limits,
    Problem,
    Ptr,
    Reason,
    other_op,
    register,
)
from bessemer.kernels.gpu.shapes import (
    LATENCY_US,
    SM_BYTES_PER_US,
    element_types,
    precision,
    shared_bytes,
    sizes,
    upper,
)
from bessemer.kernels.triton import emit

TILES = ((256, 32, 16), (128, 64, 8), (128, 32, 8), (64, 64, 8), (64, 64, 4), (32, 64, 4), (32, 32, 4))  # BH, BK, warps
BATCH = 16  # sequences of one program: the least that a tensor-core product takes
OPTIONAL = ("has_bias", "has_initial_h", "has_initial_c")  # operands that may be absent, in order


@dataclass(frozen=True)
class _Cell:
    """Sizes of one problem, and the operand numbers of what may be absent."""

    steps: Dim
    batch: Dim
    inputs: int
    hidden: int
    directions: int
    gates: int
    bias: int | None
    states: tuple[int | None, int | None]
    itemsize: int


@dataclass
class Recurrent:
    """lstm or gru in ONNX's layout, default activations, all states in f32."""

    name: str
    op: str
    version: int = 2
    language: str = "triton"

    def applicable(self, problem: Problem, target: Limits) -> Reason | None:
        cell = self._cell(problem)
        return cell if isinstance(cell, Reason) else None

    def configs(self, problem: Problem, target: Limits) -> Sequence[Config]:
        cell = self._cell(problem)
        assert isinstance(cell, _Cell)
        found: list[Config] = [
            {"bh": bh, "bk": bk, "warps": warps}
            for bh, bk, warps in TILES
            if 3 * (BATCH * 4 + 4 * bh * cell.itemsize) * bk <= shared_bytes(target) and bh < 2 * max(16, cell.hidden)
        ] or [{"bh": 32, "bk": 32, "warps": 4}]  # fmt: skip
        return sorted(found, key=lambda c: self.estimate(problem, target, c))

    def estimate(self, problem: Problem, target: Limits, config: Config) -> float:
        """Microseconds at the opt shape: each step reads all recurrent weights through one multiprocessor."""
        cell = self._cell(problem)
        assert isinstance(cell, _Cell)
        bh, bk = int(config["bh"]), int(config["bk"])
        weights = cell.gates * cell.hidden * cell.hidden * cell.itemsize
        tiles, loads = -(-cell.hidden // bh), -(-cell.hidden // bk)
        step = max(weights / SM_BYTES_PER_US, tiles * loads * LATENCY_US / 3) + tiles * LATENCY_US
        return 3 + problem.typical(cell.steps) * step

    def emit(self, problem: Problem, target: Limits, config: Config) -> KernelCode:
        cell = self._cell(problem)
        assert isinstance(cell, _Cell)
        rows, columns = cell.steps * cell.batch, cell.gates * cell.hidden
        linear = self.op == "gru" and bool(problem.attr("linear_before_reset"))
        first = self._inputs(problem, cell, rows, columns, 2 * cell.hidden if linear else columns)
        second = self._steps(problem, cell, config, linear)
        words = cell.directions * cell.batch * (cell.steps * columns + 3 * cell.hidden)
        text = emit.module("recurrent", problem).text
        return KernelCode("triton", text, (first, second), workspace=4 * words)

    def _inputs(self, problem: Problem, cell: _Cell, rows: Dim, columns: int, biased: int) -> Launch:
        options = (
            ("num_warps", 4), ("num_stages", 3), ("BM", 64), ("BN", 64), ("BK", 32), ("BIAS", cell.bias is not None),
            ("PRECISION", precision(problem)),
        )  # fmt: skip
        args: tuple[Arg, ...] = (
            Ptr(0), Ptr(1), Ptr(cell.bias or 1), Ptr(WORKSPACE), *sizes(problem, (rows, cell.inputs, columns, biased)),
        )  # fmt: skip
        return Launch("inputs", (ceildiv(rows, 64) * ceildiv(columns, 64), cell.directions), args, options)

    def _steps(self, problem: Problem, cell: _Cell, config: Config, linear: bool) -> Launch:
        y = len(problem.operands)
        initial = [Ptr(2 if number is None else number) for number in cell.states]
        outputs = [Ptr(y + k) for k in range(len(problem.outputs))]
        backwards = {"forward": 2, "reverse": 0, "bidirectional": 1}[str(problem.attr("direction"))]
        options: tuple[tuple[str, Any], ...] = (
            ("num_warps", int(config["warps"])), ("num_stages", 3), ("BB", BATCH), ("BH", int(config["bh"])),
            ("BK", int(config["bk"])), ("HAS_H", cell.states[0] is not None), ("REVERSE", backwards),
            ("PRECISION", precision(problem)),
        )  # fmt: skip
        lengths = sizes(problem, (cell.steps, cell.batch, cell.hidden))
        grid = (cell.directions, ceildiv(cell.batch, BATCH))
        if self.op == "lstm":
            args: tuple[Arg, ...] = (Ptr(2), *initial, Ptr(WORKSPACE), *outputs, *lengths)
            return Launch("lstm", grid, args, (*options, ("HAS_C", cell.states[1] is not None)))
        bias = Ptr(cell.bias or 2)
        args = (Ptr(2), bias, initial[0], Ptr(WORKSPACE), *outputs, *lengths)
        return Launch("gru", grid, args, (*options, ("BIAS", cell.bias is not None), ("LINEAR", linear)))

    def _cell(self, problem: Problem) -> _Cell | Reason:
        other = other_op(problem, (self.op,))
        if other is not None:
            return other
        dtype = element_types(problem, problem.anchors)
        if isinstance(dtype, Reason):
            return dtype
        x, w, r = (o.type.shape for o in problem.operands[:3])
        gates, outputs = (4, 3) if self.op == "lstm" else (3, 2)
        if not all(isinstance(d, int) for d in (x[2], *w, *r)):
            return Reason(f"needs fixed input and hidden sizes, not {problem.operands[1].type}")
        if len(problem.outputs) != outputs or problem.epilogue is not None:
            return Reason(f"writes all {outputs} outputs, with no epilogue")
        number = 3
        found: dict[str, int | None] = {}
        for name in OPTIONAL:
            found[name] = number if problem.attr(name) else None
            number += found[name] is not None
        inputs, directions, hidden = (int(str(d)) for d in (x[2], w[0], r[2]))
        if upper(problem, x[0] * x[1]) * directions * gates * hidden >= 2**33:
            return Reason(f"keeps the inputs of all steps of {problem.operands[0].type} in the workspace")
        states = (found["has_initial_h"], found["has_initial_c"])
        return _Cell(
            x[0], x[1], inputs, hidden, directions, gates, found["has_bias"], states, dtype.itemsize
        )  # fmt: skip


register(Recurrent("triton_lstm", "lstm"))
register(Recurrent("triton_gru", "gru"))
