"""Every model of the zoo, built for the CPU without tuning, saved, loaded and run against onnxruntime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import bessemer
from bessemer.cli.verbs.compare import relative_error
from tests.engine.live import largest_live_sum
from zoo.models import MODELS

BIG = {"a1-det", "bert-base", "bert-large", "f1", "resnet50", "vit-b16"}
KEYS = [
    pytest.param(key, marks=[pytest.mark.torch] * model.needs_torch + [pytest.mark.slow] * (key in BIG))
    for key, model in MODELS.items()
]


@pytest.mark.download
@pytest.mark.parametrize("key", KEYS)
def test_model(key: str, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    model, file = MODELS[key], tmp_path / "model.engine"
    engine = bessemer.build(model.path(), tune="off", profiles=[bessemer.Profile(model.bounds())], threads=2)
    assert engine.manifest["slow_paths"] == []
    assert engine.memory["arena"] <= 1.1 * largest_live_sum(engine.program)
    engine.save(file)
    session = bessemer.load(file)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    reference = onnxruntime.InferenceSession(str(model.path()), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in reference.get_outputs()]
    for shapes in model.shapes:
        feeds = model.make_inputs(shapes, np.random.default_rng())
        wanted = dict(zip(names, reference.run(None, feeds)))
        got = session.run(feeds)
        assert got.keys() == wanted.keys()
        for name in names:
            assert got[name].dtype == wanted[name].dtype
            assert relative_error(got[name], wanted[name]) <= model.tolerance.fp32, f"{name} at {shapes.name}"
        for name in model.tolerance.classes:
            assert np.array_equal(got[name].argmax(-1), wanted[name].argmax(-1)), f"{name} at {shapes.name}"
