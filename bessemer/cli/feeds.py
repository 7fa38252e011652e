"""Input arrays for `run`, `bench` and `compare`: from .npy/.npz files, or fresh random ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from bessemer.core.dim import evaluate
from bessemer.core.errors import InputError
from bessemer.core.interval import Range
from bessemer.engine.engine import Engine


def load_feeds(files: Sequence[str]) -> dict[str, np.ndarray]:
    """NAME=FILE.npy entries and .npz files (a name per array)."""
    out: dict[str, np.ndarray] = {}
    for entry in files:
        name, equals, path = entry.partition("=")
        if not equals and entry.endswith(".npz"):
            with np.load(entry, allow_pickle=False) as data:
                out.update({k: data[k] for k in data.files})
        elif equals:
            out[name] = np.load(Path(path), allow_pickle=False)
        else:
            raise InputError(f"{entry!r} names no input", fix="write INPUT=array.npy, or give one .npz file")
    return out


def random_feeds(engine: Engine, shapes: Mapping[str, Sequence[int]], seed: int) -> dict[str, np.ndarray]:
    """Fresh random inputs: normal floats, small non-negative integers, coin flips; shapes default to the opt shape."""
    rng = np.random.default_rng(seed)
    env = {name: Range.typical.fget(s.range) for name, s in engine.program.symbols.items()}  # type: ignore[attr-defined]
    out = {}
    for info in engine.inputs:
        shape = tuple(shapes.get(info.name, ())) or tuple(evaluate(d, env) for d in info.shape)
        out[info.name] = _random(rng, info.dtype.name, shape)
    return out


def _random(rng: np.random.Generator, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    if dtype in ("f16", "f32", "f64"):
        return np.asarray(rng.standard_normal(shape), {"f16": "f2", "f32": "f4", "f64": "f8"}[dtype])
    if dtype == "bf16":
        return np.asarray(rng.standard_normal(shape), np.float32).view(np.uint32).__rshift__(16).astype(np.uint16)
    if dtype == "bool":
        return np.asarray(rng.integers(0, 2, shape), bool)
    from bessemer.core.dtype import parse

    return np.asarray(rng.integers(0, 2, shape), parse(dtype).numpy)
