"""With the same timing cache, a build without a GPU gives the engine of the GPU's own machine, byte for byte."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from bessemer import builder
from bessemer.device.cuda_devices import DeviceInfo
from bessemer.kernels.base import Problem
from bessemer.tune import cache as timing_cache
from bessemer.tune.cache import TimingCache
from bessemer.tune.in_place import Choices
from bessemer.tune.task import Candidate, Measured

pytestmark = pytest.mark.triton


class Pretender:
    """Times that no model would guess: by the candidate's label, in an order that has nothing to do with estimates."""

    def __init__(self) -> None:
        self.asked = 0

    def open(self) -> None:
        pass

    def close(self) -> None:
        pass

    def prepare(self, work: Sequence[tuple[Problem, Sequence[Candidate]]], seconds: float | None = None) -> None:
        pass

    def ready(self, problem: Problem, candidate: Candidate) -> bool:
        return True

    def measure(self, problem: Problem, candidates: Sequence[Candidate]) -> list[Measured]:
        self.asked += len(candidates)
        return [Measured(5.0 + sum(map(ord, c.label)) % 97) for c in candidates]


class Exchanger:
    """Finds every engine faster than the one before."""

    def __init__(self) -> None:
        self.tried = 0
        self.lost = False

    def begin(self, choices: Choices) -> None:
        pass

    def beats(self, choices: Choices) -> bool:
        self.tried += 1
        return True

    def end(self) -> float:
        return 1.0


def _model() -> onnx.ModelProto:
    weights = np.random.default_rng(0).standard_normal((64, 128)).astype(np.float32)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["p"]), helper.make_node("Softmax", ["p"], ["y"])]
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [32, 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [32, 128])], [numpy_helper.from_array(weights, "w")],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def _here(monkeypatch: pytest.MonkeyPatch, gpu: DeviceInfo | None, measurer: Pretender | None) -> None:
    monkeypatch.setattr("bessemer.device.cuda_devices.find_device", lambda ordinal=0: gpu)
    monkeypatch.setattr("bessemer.builder.measurer_for", lambda target: measurer)


def test_from_a_merged_cache_and_from_a_shipped_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def built(name: str, cache: Path | TimingCache | None, tune: str = "device") -> bytes:
        engine = builder.build(_model(), target="cuda:sm_90", precision="fp16", tune=tune, timing_cache=cache)
        return engine.save(tmp_path / name).read_bytes()

    monkeypatch.setattr(timing_cache, "CACHES", tmp_path / "caches")
    exchanger = Exchanger()
    clock_for = lambda target, *rest: exchanger if builder.measurer_for(target) else None  # noqa: E731
    monkeypatch.setattr("bessemer.builder.clock_for", clock_for)
    h200 = DeviceInfo(0, "NVIDIA H200", "sm_90", 132, 232448, 60 << 20, 141 << 30, "13.0")
    pretender = Pretender()
    _here(monkeypatch, h200, pretender)
    first = built("first", tmp_path / "times.jsonl")
    assert pretender.asked > 4 and exchanger.tried > 1
    asked, tried = pretender.asked, exchanger.tried
    there = built("there", tmp_path / "times.jsonl")
    assert pretender.asked == asked, "all is known"
    assert there == first
    _here(monkeypatch, None, None)
    assert built("here", tmp_path / "times.jsonl", "cache") == there == built("again", tmp_path / "times.jsonl")
    assert built("model", tmp_path / "times.jsonl", "off") != there

    (tmp_path / "caches").mkdir()
    lines = TimingCache(tmp_path / "times.jsonl").pruned()
    (tmp_path / "caches" / "nvidia-h200.jsonl").write_text("".join(f"{line.to_line()}\n" for line in lines))
    without = built("shipped", None)
    _here(monkeypatch, h200, pretender)
    assert built("shipped there", None) == without
    assert (pretender.asked, exchanger.tried) == (asked, tried), "what lost is not timed again"
    _here(monkeypatch, None, None)
    assert built("off", TimingCache(None, "off")) == built("model", None, "off")
