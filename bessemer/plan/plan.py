"""Items and choices to a Program: tensors with places, steps with arguments, weights with offsets."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from bessemer.core import canon
from bessemer.core import dtype as dt
from bessemer.core.dim import symbols
from bessemer.core.errors import BuildError
from bessemer.core.interval import bounds
from bessemer.core.tensor_map import BITS
from bessemer.engine.codec import encode
from bessemer.engine.engine import WeightPart
from bessemer.engine.format import WEIGHT_ALIGN, align
from bessemer.engine.program import Arg, Kernel, Program, Step, Symbol, Tensor
from bessemer.engine.verify import BYTES_LIMIT
from bessemer.ir.graph import Constant, TensorType
from bessemer.kernels.base import COUNTERS, TRANSFORMS, WORKSPACE, Int, KernelCode, Launch, Map, Pack, Problem
from bessemer.lower.items import (
    AliasItem,
    BranchItem,
    CopyItem,
    HostItem,
    Item,
    JoinItem,
    JumpItem,
    KernelItem,
    LabelItem,
    Lowered,
)  # fmt: skip
from bessemer.plan.host import host_attrs, host_reads
from bessemer.plan.storage import Storage, assign, planned_bytes
from bessemer.targets.base import Placement
from bessemer.tune.choice import Choice, Variant
from bessemer.tune.model import traffic

SMALLER = "give smaller --shapes or --max-shapes, or mend the sizes that the model computes"


def plan(
    lowered: Lowered, choices: Mapping[Problem, Sequence[Variant]],
    placed: Callable[[Problem, KernelCode, Launch], Placement],
) -> tuple[Program, tuple[WeightPart, ...]]:  # fmt: skip
    """The program, and the parts of its weight section."""
    scratch: dict[int, int] = {}
    for number, item in enumerate(lowered.items):
        if isinstance(item, KernelItem):
            needed = [planned_bytes(v.choice.code.workspace, lowered.ranges) or 0 for v in choices[item.problem]]
            scratch[number] = max(needed)
    storage, workspaces = assign(lowered, scratch)
    if storage.arena_bytes >= BYTES_LIMIT:
        raise BuildError(f"values in use at once take {storage.arena_bytes} bytes: no machine has them", fix=SMALLER)
    planner = _Planner(lowered, choices, placed, storage, scratch, workspaces)
    return planner.program(), tuple(planner.weights.parts)


@dataclass
class _WeightTable:
    """Offsets in the weight section; equal contents are stored once."""

    parts: list[WeightPart] = field(default_factory=list)
    offsets: dict[str, int] = field(default_factory=dict)
    nbytes: int = 0

    def add(self, key: str, nbytes: int, load: Callable[[], np.ndarray]) -> int:
        if key not in self.offsets:
            offset = align(self.nbytes, WEIGHT_ALIGN)
            self.offsets[key] = offset
            self.parts.append(WeightPart(offset, nbytes, load, key))
            self.nbytes = offset + nbytes
        return self.offsets[key]


@dataclass
class _Planner:
    lowered: Lowered
    choices: Mapping[Problem, Sequence[Variant]]
    placed: Callable[[Problem, KernelCode, Launch], Placement]
    storage: Storage
    scratch: Mapping[int, int]
    workspaces: Mapping[int, int]
    weights: _WeightTable = field(default_factory=_WeightTable)
    tensors: list[Tensor] = field(default_factory=list)
    numbers: dict[str, int] = field(default_factory=dict)
    kernels: list[Kernel] = field(default_factory=list)
    kernel_numbers: dict[tuple[str, str], int] = field(default_factory=dict)

    def program(self) -> Program:
        inputs = tuple(self.tensor(v) for v in self.lowered.inputs)
        steps: list[Step] = []
        labels: dict[int, int] = {}
        for number, item in enumerate(self.storage.items):
            if isinstance(item, LabelItem):
                labels[item.label] = len(steps)
            steps.extend(self._steps(number, item))
        steps = [replace(s, target=labels[s.target]) if s.kind in ("branch", "jump") else s for s in steps]
        outputs = tuple(self._output(k, v) for k, v in enumerate(self.lowered.outputs))
        return Program(
            self.lowered.name, inputs, outputs, tuple(self.tensors), tuple(steps), tuple(self.kernels),
            self._symbols(), self.storage.arena_bytes, self.weights.nbytes, self.storage.peak_bytes,
        )  # fmt: skip

    def _output(self, k: int, value: str) -> int:
        """The output's tensor under the model's own name for it."""
        copied = f"{value} (output {k})"
        number = self.tensor(copied if copied in self.storage.types else value)
        named = replace(self.tensors[number], name=self.lowered.output_names[k])
        if named == self.tensors[number]:
            return number
        self.tensors.append(named)
        return len(self.tensors) - 1

    def tensor(self, value: str) -> int:
        """The number of a value's tensor."""
        if value not in self.numbers:
            t = self.storage.types[value]
            root = self.storage.root(value)
            if root in self.lowered.constants:
                self.numbers[value] = self._weight(value, t, self.lowered.constants[root], None)
            else:
                space, offset, shift = self.storage.space[root], self.storage.offset[root], self.storage.shift(value)
                held = self.storage.block.get(value, self.storage.nbytes(value))
                if isinstance(shift, int):
                    offset, shift = offset + shift, 0
                else:  # it may be anywhere in what it looks into
                    held = self.storage.block.get(root, self.storage.nbytes(root))
                if space in ("input", "output"):  # a view may be bound loosely: as large as what it views at most
                    held = min(held, self.storage.nbytes(root))
                nbytes = 0 if space == "dynamic" else held
                self.numbers[value] = self._add(Tensor(value, t.dtype, t.shape, space, offset, nbytes, shift))
        return self.numbers[value]

    def _add(self, tensor: Tensor) -> int:
        if any(isinstance(d, int) and d >= BYTES_LIMIT for d in tensor.shape):
            shape = ", ".join(map(str, tensor.shape))
            raise BuildError(f"the value {tensor.name} would be [{shape}]: no machine holds that", fix=SMALLER)
        self.tensors.append(tensor)
        return len(self.tensors) - 1

    def _weight(self, name: str, type_: TensorType, constant: Constant, pack: Pack | None) -> int:
        load, key = constant.load, constant.key
        if pack is not None:
            name, type_ = f"{name} ({pack.transform})", pack.type
            key = canon.digest([key, pack.transform, encode(pack.params)])
            load = _packed(constant, pack)
        numel = type_.numel
        if not isinstance(numel, int):
            raise ValueError(f"constant {name} has a symbolic size {type_}")
        nbytes = numel * type_.dtype.itemsize
        offset = self.weights.add(key, nbytes, load)
        return self._add(Tensor(name, type_.dtype, type_.shape, "weights", offset, nbytes))

    def _packed_tensor(self, value: str, pack: Pack) -> int:
        name = f"{value}|{pack.transform}|{pack.params}|{pack.type}"
        if name not in self.numbers:
            root = self.storage.root(value)
            self.numbers[name] = self._weight(value, pack.type, self.lowered.constants[root], pack)
        return self.numbers[name]

    def _steps(self, number: int, item: Item) -> list[Step]:
        match item:
            case KernelItem():
                return [s for v in self.choices[item.problem] for s in self._kernel_steps(number, item, v)]
            case HostItem(node=node):
                attrs = host_attrs(node, self.lowered.types, self.lowered.ranges)
                reads = tuple(self.tensor(v) for v in host_reads(node))
                writes = tuple(self.tensor(v) for v in node.outputs if v)
                step = Step("host", node.name or node.op, node.op, node.origin, reads, writes, attrs=attrs)
                return [step]
            case CopyItem():
                source, target = self.tensor(item.source), self.tensor(item.value)
                return [Step("copy", f"copy {item.source}", "copy", (), (source,), (target,))]
            case BranchItem():
                return [Step("branch", f"branch on {item.condition}", reads=(self.tensor(item.condition),),
                             target=item.label)]  # fmt: skip
            case JumpItem():
                return [Step("jump", "jump", target=item.label)]
        assert isinstance(item, (AliasItem, JoinItem, LabelItem))
        return []

    def _kernel_steps(self, number: int, item: KernelItem, variant: Variant) -> list[Step]:
        """The launches of one variant, whose grids are empty at the shapes of the others."""
        choice = variant.choice
        packs = {p.operand: p for p in choice.code.packs}
        operands = [
            self._packed_tensor(v, packs[k]) if k in packs else self.tensor(v) for k, v in enumerate(item.operands)
        ]
        outputs = [self.tensor(v) for v in item.outputs]
        workspace = (self.workspaces.get(number, 0), self.scratch.get(number, 0))
        unplanned = planned_bytes(choice.code.workspace, self.lowered.ranges) is None
        own = self._own_workspace(choice) if unplanned else None
        counters = bounds(choice.code.counters, self.lowered.ranges)[1]
        origin = tuple(dict.fromkeys(o for n in item.nodes for o in n.origin))
        flops, nbytes = item.flops * variant.when, traffic(item.problem) * variant.when
        name = "+".join(n.op for n in item.nodes) + (f" ({variant.shapes})" if variant.shapes else "")
        steps = []
        for k, launch in enumerate(choice.code.launches):
            args = []
            for arg in launch.args:
                if isinstance(arg, Int):
                    args.append(Arg("int", arg.value, arg.bits))
                elif arg.operand == WORKSPACE:
                    args.append(Arg("workspace", 0) if own is None else Arg("tensor", own))
                elif arg.operand == COUNTERS:
                    args.append(Arg("counters", 0))
                elif isinstance(arg, Map):
                    args.append(Arg("map", [*operands, *outputs][arg.operand], BITS, arg.map))
                else:
                    args.append(Arg("tensor", [*operands, *outputs][arg.operand]))
            steps.append(
                Step(
                    "kernel", name, item.problem.op, origin, tuple(dict.fromkeys(operands)),
                    (*outputs, *(() if own is None else (own,))),
                    self._kernel(item.problem, choice, launch), tuple(args),
                    (launch.grid[0] * variant.when, *launch.grid[1:]),
                    flops=flops if k == 0 else 0, nbytes=nbytes if k == 0 else 0, workspace=workspace,
                    counters=counters,
                )
            )  # fmt: skip
        return steps

    def _own_workspace(self, choice: Choice) -> int:
        """A workspace too large to plan for, as a tensor that is allocated when its size is known: those of all steps,
        of which one runs at a time, in one allocation."""
        return self._add(Tensor("workspace", dt.u8, (choice.code.workspace,), "dynamic", self.storage.dynamic, 0))

    def _kernel(self, problem: Problem, choice: Choice, launch: Launch) -> int:
        place = self.placed(problem, choice.code, launch)
        key = (canon.digest([place.blob, place.symbol]), canon.digest([choice.tactic, dict(choice.config)]))
        key = (key[0], key[1] + str(choice.time_us))
        if key not in self.kernel_numbers:
            self.kernels.append(
                Kernel(
                    place.symbol, choice.tactic, dict(choice.config), place.blob, choice.code.text,
                    choice.code.language, choice.time_us, choice.chosen_by, choice.rejected, place.abi,
                )
            )  # fmt: skip
            self.kernel_numbers[key] = len(self.kernels) - 1
        return self.kernel_numbers[key]

    def _symbols(self) -> dict[str, Symbol]:
        used = {s for t in self.tensors for d in t.shape for s in symbols(d)}
        out = {}
        for name in sorted(used | set(self.lowered.ranges)):
            bound = (-1, -1)
            for k, value in enumerate(self.lowered.inputs):
                for axis, d in enumerate(self.lowered.types[value].shape):
                    if bound == (-1, -1) and str(d) == name:
                        bound = (k, axis)
            if bound != (-1, -1) or name in used:
                out[name] = Symbol(self.lowered.ranges[name], *bound)
        return out


def _packed(constant: Constant, pack: Pack) -> Callable[[], np.ndarray]:
    return lambda: np.ascontiguousarray(TRANSFORMS.get(pack.transform).apply(constant.load(), *pack.params))
