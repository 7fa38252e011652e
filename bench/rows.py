"""The rows of the GPU table: a model at fixed shapes, and what it must reach."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

Dims = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Row:
    """One model of the zoo at fixed shapes. `bar_ms` is what it must reach, `then_ms` what is tried for.

    Without a figure of its own the bar is the best peer's time over `times`."""

    name: str
    model: str
    dims: Dims
    bar_ms: float | None = None
    then_ms: float | None = None
    times: float = 1.0


def _photos(model: str, batch: int, bar: float | None = None, then: float | None = None, times: float = 1.0) -> Row:
    return Row(f"{model}-b{batch}", model, {"x": (batch, 3, 224, 224)}, bar, then, times)


def _ids(model: str, batch: int, length: int, bar: float | None = None, then: float | None = None) -> Row:
    return Row(f"{model}-b{batch}-s{length}", model, {"input_ids": (batch, length)}, bar, then)


def _terrain(batch: int, times: float) -> Row:
    dims = {"noisy": (batch, 1, 128, 128), "sigma": (batch,), "difficulty": (batch,)}
    return Row(f"f1-b{batch}", "f1", dims, times=times)


def _masked(batch: int, length: int, times: float) -> Row:
    names = ("input_ids", "attention_mask", "token_type_ids")
    return Row(f"c1-b{batch}-s{length}", "c1", dict.fromkeys(names, (batch, length)), times=times)


ROWS: Mapping[str, Row] = {
    row.name: row
    for row in (
        _photos("resnet50", 1, 0.25, 0.16),
        _photos("resnet50", 32, 1.15, 0.85),
        _photos("resnet50", 128, 3.6, 2.8),
        _ids("bert-base", 1, 128, 0.28, 0.20),
        _ids("bert-base", 8, 128, 0.55, 0.40),
        _ids("bert-base", 32, 128, 1.45, 1.2),
        _ids("bert-large", 1, 384, 0.80, 0.60),
        _ids("bert-large", 32, 384, 13.5, 12.0),
        _photos("vit-b16", 1, 0.33, 0.24),
        _photos("vit-b16", 32, 2.6, 2.1),
        _photos("d0", 1, times=2.0),
        _photos("d0", 128, times=1.3),
        _terrain(1, times=2.0),
        _terrain(16, times=1.3),
        Row("a1-det", "a1-det", {"x": (1, 3, 640, 640)}, times=2.0),
        Row("a1-rec", "a1-rec", {"x": (6, 3, 48, 320)}, times=2.0),
        _masked(1, 128, times=2.0),
        _masked(32, 128, times=1.3),
        # Batches between: no slower than the best peer.
        *(_photos(model, batch) for model in ("resnet50", "vit-b16", "d0") for batch in (2, 4, 8, 16, 64)),
        *(_photos(model, batch) for model, batch in (("vit-b16", 128), ("d0", 32))),
        *(_ids("bert-base", batch, 128) for batch in (2, 4, 16, 64, 128)),
        *(_ids("bert-large", batch, 384) for batch in (2, 4, 8, 16, 64, 128)),
    )
}
