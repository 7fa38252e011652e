"""Folding of ops over constants. A small result is computed at once; a large one is a Constant whose `load` runs the
reference when it is asked, so that folding over weights holds none of them in memory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextvars import ContextVar

import numpy as np

from bessemer.core import canon
from bessemer.core import dtype as dt
from bessemer.core.dtype import DType
from bessemer.ir.graph import Attr, Constant, Graph, TensorType
from bessemer.ir.opdef import OpDef


def constant_from(array: np.ndarray, dtype: DType | None = None) -> Constant:
    """A Constant holding `array` (of `dtype`; bf16 is given as bits)."""
    type_ = TensorType(dtype or dt.from_numpy(array.dtype), array.shape)
    raw = canon.dumps([str(x) for x in array.ravel()]).encode() if array.dtype == object else array.tobytes()
    return Constant(type_, lambda: array, canon.digest(canon.digest(raw) + str(type_)))


SMALL = 4096  # elements of sources and results up to which a fold is computed at once
KEPT = 1 << 26  # bytes of a result that is kept while what depends on it is loaded

# Results of the load in progress by key: a constant that is reached by several ways is computed once.
_LOADING: ContextVar[dict[str, tuple[np.ndarray, ...]] | None] = ContextVar("_LOADING", default=None)


def fold(
    op: OpDef, sources: Sequence[Constant | None], attrs: Mapping[str, Attr], types: Sequence[TensorType]
) -> tuple[Constant, ...]:
    """The outputs of `op` over constants."""
    if all(_is_small(t) for t in (*(c.type for c in sources if c), *types)):
        return tuple(constant_from(a, t.dtype) for a, t in zip(_compute(op, sources, attrs, types), types))
    shown = {k: attr_text(v) for k, v in attrs.items()}
    key = canon.digest([op.name, shown, [c.key if c else "" for c in sources]])

    def load(k: int) -> np.ndarray:
        active = _LOADING.get()
        done: dict[str, tuple[np.ndarray, ...]] = {} if active is None else active
        token = _LOADING.set(done) if active is None else None
        try:
            results = done.get(key) or _compute(op, sources, attrs, types)
            if sum(a.nbytes for a in results) <= KEPT:
                done[key] = results
            return results[k]
        finally:
            if token is not None:
                _LOADING.reset(token)

    return tuple(Constant(t, lambda k=k: load(k), f"{key}.{k}") for k, t in enumerate(types))  # type: ignore[misc]


def _is_small(t: TensorType) -> bool:
    return isinstance(t.numel, int) and t.numel <= SMALL


def _compute(
    op: OpDef, sources: Sequence[Constant | None], attrs: Mapping[str, Attr], types: Sequence[TensorType]
) -> tuple[np.ndarray, ...]:
    arrays = [c.load() if c else None for c in sources]
    return evaluate(op, arrays, [c.type if c else None for c in sources], attrs, types)


def attr_text(value: Attr) -> str:
    """A stable text of an attribute value."""
    if isinstance(value, tuple):
        return "(" + ",".join(attr_text(v) for v in value) + ")"
    return f"graph {value.name}" if isinstance(value, Graph) else str(value)


def evaluate(
    op: OpDef, arrays: Sequence[np.ndarray | None], types: Sequence[TensorType | None], attrs: Mapping[str, Attr],
    outputs: Sequence[TensorType],
) -> tuple[np.ndarray, ...]:  # fmt: skip
    """Run the reference of `op` on stored arrays (bf16 as bits) and return stored arrays of the declared dtypes."""
    ready = [
        dt.from_bf16(a) if a is not None and t is not None and t.dtype == dt.bf16 else a for a, t in zip(arrays, types)
    ]
    with np.errstate(all="ignore"):
        results = op.reference(ready, attrs)
    return tuple(_store(np.asarray(r), t.dtype) for r, t in zip(results, outputs, strict=True))


def _store(array: np.ndarray, dtype: DType) -> np.ndarray:
    if dtype == dt.bf16 and array.dtype != np.uint16:
        return dt.to_bf16(array)
    with np.errstate(all="ignore"):
        return np.ascontiguousarray(array.astype(dtype.numpy, copy=False)).reshape(array.shape)
