"""The engine: a program, its kernel binaries and its weights, in memory or in a mapped file."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bessemer.core.dim import Dim
from bessemer.core.dtype import DType
from bessemer.engine.program import Program

Buffer = bytes | memoryview


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One input or output of an engine."""

    name: str
    dtype: DType
    shape: tuple[Dim, ...]


@dataclass(frozen=True)
class WeightPart:
    """A run of bytes of the weight section: where it goes, its size, how to make it, and what names its contents."""

    offset: int
    nbytes: int
    load: Callable[[], np.ndarray] = field(compare=False)
    key: str = ""


class Weights:
    """The weight section: a mapped buffer, or parts made one at a time (so that they never all lie in memory)."""

    def __init__(self, nbytes: int, *, buffer: memoryview | None = None, parts: tuple[WeightPart, ...] = ()) -> None:
        self.nbytes, self.buffer, self.parts = nbytes, buffer, parts

    def chunks(self) -> Iterator[Buffer]:
        """The section's bytes in order, gaps filled with zeros."""
        if self.buffer is not None:
            yield self.buffer
            return
        position = 0
        for part in sorted(self.parts, key=lambda p: p.offset):
            if part.offset > position:
                yield bytes(part.offset - position)
            array = np.ascontiguousarray(part.load())
            if array.nbytes != part.nbytes:
                raise RuntimeError(f"a weight part of {part.nbytes} bytes was made with {array.nbytes}")
            yield array.reshape(-1).view(np.uint8).data if array.nbytes else b""
            position = part.offset + part.nbytes
        if self.nbytes > position:
            yield bytes(self.nbytes - position)

    def fill(self, out: np.ndarray) -> None:
        """Write the section into `out`, a uint8 array of `nbytes`."""
        position = 0
        for chunk in self.chunks():
            size = len(chunk)
            out[position : position + size] = np.frombuffer(chunk, np.uint8)
            position += size

    def sha256(self) -> str:
        digest = hashlib.sha256()
        for chunk in self.chunks():
            digest.update(chunk)
        return digest.hexdigest()


@dataclass(frozen=True)
class Engine:
    """A built engine. `manifest` tells target, provenance and options; see docs/engine-format.md."""

    manifest: Mapping[str, Any]
    program: Program
    blobs: tuple[Buffer, ...]
    weights: Weights
    path: Path | None = None

    def __repr__(self) -> str:
        name, size = self.program.name, self.weights.nbytes / 1e6
        return f"<Engine {name!r} for {self.target}: {len(self.program.steps)} steps, {size:.1f} MB of weights>"

    @property
    def inputs(self) -> tuple[TensorInfo, ...]:
        """The inputs in signature order."""
        return self._infos(self.program.inputs)

    @property
    def outputs(self) -> tuple[TensorInfo, ...]:
        """The outputs in signature order."""
        return self._infos(self.program.outputs)

    @property
    def target(self) -> str:
        """ "cpu:avx512", "cuda:sm_90", ..."""
        return f"{self.manifest['target']['name']}:{self.manifest['target']['arch']}"

    @property
    def memory(self) -> dict[str, int]:
        """Bytes: weights (once per session), arena (per context), peak (largest sum of live tensors)."""
        p = self.program
        return {"weights": p.weights_bytes, "arena": p.arena_bytes, "peak": p.peak_bytes}

    def save(self, path: str | Path) -> Path:
        """Write the engine to one file, atomically: a full disk or a kill leaves no half-written engine."""
        from bessemer.engine.writer import write

        return write(self, Path(path))

    def _infos(self, numbers: tuple[int, ...]) -> tuple[TensorInfo, ...]:
        tensors = [self.program.tensors[n] for n in numbers]
        return tuple(TensorInfo(t.name, t.dtype, t.shape) for t in tensors)
