"""Input arrays for `run`, `bench` and `compare`: from .npy/.npz files, or fresh random ones."""

from __future__ import annotations

import zipfile
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np

from bessemer.core.dim import evaluate
from bessemer.core.dtype import parse, to_bf16
from bessemer.core.errors import InputError
from bessemer.engine.engine import Engine

DAMAGED = "is no array file that numpy can read without pickle"


def load_feeds(files: Sequence[str], names: Collection[str]) -> dict[str, np.ndarray]:
    """NAME=FILE.npy entries and .npz files (a name per array), for inputs of these names. InputError for what is
    neither, or cannot be read."""
    out: dict[str, np.ndarray] = {}
    for entry in files:
        name, path = named_file(entry, names)
        out.update(load_arrays(path) if name is None else {name: _array(path)})
    return out


def named_file(entry: str, names: Collection[str]) -> tuple[str | None, str]:
    """The input that an entry names, None for a whole .npz file, and the path of the file. A name may hold "=": the
    longest of `names` that fits is meant."""
    named = max((n for n in names if entry.startswith(f"{n}=")), key=len, default=entry.partition("=")[0])
    if named != entry:
        return named, entry[len(named) + 1 :]
    if entry.endswith(".npz"):
        return None, entry
    raise InputError(f"{entry!r} names no input", fix="write INPUT=array.npy, or give one .npz file")


def _array(path: str) -> np.ndarray:
    try:
        loaded = np.load(Path(path), allow_pickle=False)
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} {DAMAGED}", where=str(error), fix="write it with numpy.save") from None
    if not isinstance(loaded, np.ndarray):
        raise InputError(
            f"{path} holds several arrays, and one input was named", fix=f"give it without a name: -i {path}"
        )
    return loaded


def load_arrays(path: str) -> dict[str, np.ndarray]:
    """The arrays of an .npz file by their names; InputError where it is none."""
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            raise ValueError("it holds one array, without a name")
        with loaded:
            return {k: loaded[k] for k in loaded.files}
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} {DAMAGED}", where=str(error), fix="write it with numpy.savez") from None


def read_files(engine: Engine, files: Sequence[str]) -> list[tuple[str, str]]:
    """The files of such entries for an engine, see kept.check_kept."""
    names = [i.name for i in engine.inputs]
    return [("an input", named_file(entry, names)[1]) for entry in files]


def feeds_for(
    engine: Engine, files: Sequence[str], shapes: Mapping[str, Sequence[int]], seed: int
) -> dict[str, np.ndarray]:
    """The arrays of `files`, and fresh random ones for the other inputs: normal floats, zeros and ones elsewhere.

    A random input has its shape of `shapes`. Dimensions that neither says follow the inputs that are given, else the
    opt shape. InputError for a shape of an input that there is not, or that was given as a file."""
    names = [i.name for i in engine.inputs]
    given = load_feeds(files, names)
    for name in shapes:
        if name not in names:
            raise InputError(f"the engine has no input {name!r}", fix=f"its inputs are {', '.join(names)}")
        if name in given:
            raise InputError(f"input {name!r} was given both as a file and as a shape", fix="leave one of them out")
    known = {**{name: array.shape for name, array in given.items()}, **{n: tuple(s) for n, s in shapes.items()}}
    env = dict(engine.program.typical)
    for info in engine.inputs:
        env.update({str(d): size for d, size in zip(info.shape, known.get(info.name, ())) if str(d) in env})
    rng = np.random.default_rng(seed)
    out = dict(given)
    for info in engine.inputs:
        if info.name not in given:
            opt = tuple(evaluate(d, env) for d in info.shape)
            out[info.name] = _random(rng, info.dtype.name, known.get(info.name, opt))
    return out


def _random(rng: np.random.Generator, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    if dtype in ("f16", "f32", "f64"):
        return np.asarray(rng.standard_normal(shape), {"f16": "f2", "f32": "f4", "f64": "f8"}[dtype])
    if dtype == "bf16":
        return to_bf16(np.asarray(rng.standard_normal(shape), np.float32))
    return np.asarray(rng.integers(0, 2, shape), parse(dtype).numpy)
