"""Runs lowered items in numpy, so that grouping and composition are judged without a kernel."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from bessemer.core.dim import evaluate
from bessemer.ir import fold
from bessemer.ir.opdef import OPS
from bessemer.lower.items import (
    AliasItem,
    BranchItem,
    CopyItem,
    HostItem,
    JoinItem,
    JumpItem,
    KernelItem,
    LabelItem,
    Lowered,
)
from bessemer.tune.oracle import answer, stored


def run(lowered: Lowered, inputs: Mapping[str, np.ndarray], env: Mapping[str, int]) -> dict[str, np.ndarray]:
    """The outputs by name."""
    values = dict(inputs)

    def value(name: str) -> np.ndarray:
        return values[name] if name in values else lowered.constants[name].load()

    labels = {i.label: k for k, i in enumerate(lowered.items) if isinstance(i, LabelItem)}
    at = 0
    while at < len(lowered.items):
        item = lowered.items[at]
        at += 1
        match item:
            case KernelItem():
                results = answer(item.problem, [value(v) for v in item.operands], env)
                for name, result, type_ in zip(item.outputs, results, item.problem.written, strict=True):
                    t = lowered.types[name]
                    whole = tuple(evaluate(d, env) for d in t.shape)
                    assert whole == tuple(evaluate(d, env) for d in type_.shape)
                    if item.problem.into is None:
                        assert result.shape == whole
                        values[name] = stored(np.asarray(result), t.dtype)
                    else:
                        start = item.problem.into.start
                        into = values.setdefault(name, np.full(whole, -77, t.dtype.numpy))
                        into[..., start : start + result.shape[-1]] = stored(np.asarray(result), t.dtype)
            case HostItem(node=node):
                types = [lowered.types[i] if i else None for i in node.inputs]
                arrays = [value(i) if i else None for i in node.inputs]
                outs = [lowered.types[o] for o in node.outputs]
                values.update(zip(node.outputs, fold.evaluate(OPS.get(node.op), arrays, types, node.attrs, outs)))
            case AliasItem():
                shape = tuple(evaluate(d, env) for d in lowered.types[item.value].shape)
                values[item.value] = value(item.source).reshape(shape)
            case JoinItem():
                parts = [value(part) for part in item.parts]
                assert list(item.offsets) == [sum(p.nbytes for p in parts[:k]) for k in range(len(parts))]
                values[item.value] = np.concatenate([p.ravel() for p in parts]).reshape(lowered.types[item.value].shape)
            case CopyItem():
                values[item.value] = value(item.source).copy()
            case BranchItem():
                at = at if bool(value(item.condition)) else labels[item.label]
            case JumpItem():
                at = labels[item.label]
    return {name: value(out) for name, out in zip(lowered.output_names, lowered.outputs, strict=True)}
