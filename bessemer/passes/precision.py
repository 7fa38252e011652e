"""`--fp16` and `--bf16`: writes the casts. The graph stays strongly typed: the dtype written is the dtype run.

ALLOW ops always run in the low precision; DENY ops never do (their range or accumulated error does not fit); all others
follow their inputs. Normalisations and softmax are among those that follow, because their kernels compute in fp32
whatever they load; their scales and shifts stay f32. Weights of convolutions are rounded by `rounding`. Inputs and
outputs of the model keep their dtypes. Casts between two low ops cancel in `simplify`. Whatever the rule, a node that
reads or writes a value of `options.wide` (see `ranges`) stays in fp32, unless `scale_ranges` knows how to store that.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from bessemer.core import dtype as dt
from bessemer.core.dtype import DType
from bessemer.ir.graph import Graph, Node
from bessemer.ir.opdef import OPS, Fusion
from bessemer.ir.rewrite import Editor
from bessemer.passes.base import Pass, PassOptions, apply
from bessemer.passes.rounding import low_weight
from bessemer.passes.scale_ranges import NORMS, Exponents, Storage

ALLOW = frozenset({"matmul", "conv", "conv_transpose", "attention", "lstm", "gru"})
DENY = frozenset(
    {"exp", "expm1", "log", "log1p", "pow", "cumsum", "cumprod", "reduce", "reciprocal", "rsqrt", "tan", "sinh", "cosh",
     "quantize", "dequantize", "grid_sample", "resize_dynamic", "topk", "nms"}
)  # fmt: skip
LOW = {"fp16": dt.f16, "bf16": dt.bf16}
TAKES_F32 = {"layer_norm": (1, 2), "group_norm": (1, 2), "attention": (3,)}  # inputs beside operands of 16 bits


@dataclass(frozen=True)
class Kept:
    """A node that stays in fp32 only because the low precision cannot hold `value`, and why it cannot."""

    node: Node
    value: str
    why: str

    def __str__(self) -> str:
        where = self.node.origin[0] if self.node.origin else self.node.name or self.node.outputs[0]
        whose = "its result" if self.value in self.node.outputs else f"its input {self.value}"
        return f"{self.node.op} {where}: {whose} {self.why}"


def lower_precision(e: Editor, options: PassOptions) -> None:
    """Insert casts for `options.precision`; nothing for fp32."""
    low = LOW.get(options.precision)
    if low is None:
        return
    plan = _decide(e, low, options)
    storage = Storage(e, low, plan.exponents)
    for node in e.nodes():
        if e.alive(node) and _name(node) in plan.chosen:
            _convert(e, node, low, options)
        elif e.alive(node) and _name(node) in plan.scaled:
            storage.rewrite(node)


def kept_wide(graph: Graph, options: PassOptions) -> list[Kept]:
    """The nodes that `options.wide` keeps in fp32, nested graphs' included."""
    return [k for plan in _plans(graph, options) for k in plan.kept]


def scaled_wide(graph: Graph, options: PassOptions) -> int:
    """How many nodes read or write values that are stored with a power of two."""
    return sum(len(plan.scaled) for plan in _plans(graph, options))


def _plans(graph: Graph, options: PassOptions) -> list[_Plan]:
    found: list[_Plan] = []
    low = LOW.get(options.precision)
    if low is not None:
        apply(Pass("plan", lambda e, o: found.append(_decide(e, low, o))), graph, options)
    return found


@dataclass
class _Plan:
    """The nodes of one graph that run low, by name; those that do by means of `exponents`; and those that only wide
    values keep from it."""

    exponents: Exponents
    chosen: set[str] = field(default_factory=set)
    scaled: set[str] = field(default_factory=set)
    kept: list[Kept] = field(default_factory=list)


def _decide(e: Editor, low: DType, options: PassOptions) -> _Plan:
    plan = _Plan(Exponents(e, options))
    lowered: set[str] = set()  # values
    for node in e.nodes():
        if not _may_run_low(e, node) or not (
            node.op in ALLOW or any(i in lowered or _came_from(e, i, low) for i in node.inputs if i)
        ):
            continue
        wide = list(_wide(node, options))
        if not wide and not any(plan.exponents(i) for i in node.inputs):
            plan.chosen.add(_name(node))
        elif plan.exponents.takes(node, wide):
            plan.scaled.add(_name(node))
        elif wide:
            plan.kept.append(Kept(node, wide[0], options.wide[wide[0]]))
            continue
        else:
            plan.chosen.add(_name(node))
        lowered.update(o for o in node.outputs if o and e.type(o).dtype == dt.f32)
    return plan


def _name(node: Node) -> str:
    return next(o for o in node.outputs if o)


def _may_run_low(e: Editor, node: Node) -> bool:
    fusion = OPS.get(node.op).fusion
    if node.op in DENY or node.op == "cast" or fusion in (Fusion.HOST, Fusion.CONTROL):
        return False
    floats = any(e.type(i).dtype == dt.f32 for i in node.inputs if i)
    return floats and all(e.type(o).dtype.kind != "f" or e.type(o).dtype == dt.f32 for o in node.outputs if o)


def _wide(node: Node, options: PassOptions) -> Iterator[str]:
    """What `node` would write or read in the low precision, which cannot hold it."""
    taken = TAKES_F32.get(node.op, ())
    for value in (*node.outputs, *(i for k, i in enumerate(node.inputs) if k not in taken)):
        if value in options.wide:
            yield value


def _stays_f32(e: Editor, node: Node, k: int, options: PassOptions) -> bool:
    """Whether input `k` is read in f32 although `node` runs low: scales and shifts of normalisations, which cost
    nothing there and whose errors shift whole channels, and what the low precision cannot hold (masks of -1e38)."""
    value = node.inputs[k]
    constant = node.op in NORMS and e.constant_of(value) is not None
    return k in TAKES_F32.get(node.op, ()) and (constant or value in options.wide)


def _came_from(e: Editor, value: str, low: DType) -> bool:
    cast = e.producer(value, "cast")
    return cast is not None and e.type(cast.inputs[0]).dtype == low


def _convert(e: Editor, node: Node, low: DType, options: PassOptions) -> None:
    def converted(k: int, value: str) -> str:
        if not value or e.type(value).dtype != dt.f32 or _stays_f32(e, node, k, options):
            return value
        return low_weight(e, node, value, low)

    inputs = tuple(converted(k, i) for k, i in enumerate(node.inputs))
    attrs = {k: (low if v == dt.f32 else v) for k, v in node.attrs.items()}
    outputs = e.emit_all(node.op, inputs, attrs, like=(node,))
    for old, new in zip(node.outputs, outputs):
        if old:
            back = e.type(old).dtype
            e.replace(old, e.emit("cast", (new,), {"to": back}, like=(node,)) if e.type(new).dtype != back else new)


PASS = Pass("precision", lower_precision)
