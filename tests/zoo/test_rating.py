"""Photo preparation, and both exports of the rating network on real photos."""

from __future__ import annotations

import numpy as np
import pytest

from examples.rate import centre, imagenet_input, nsfw_input, rate


def test_inputs_have_the_networks_layouts() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8)
    assert nsfw_input(picture).shape == (224, 224, 3)
    assert imagenet_input(picture).shape == (3, 224, 224)
    assert nsfw_input(picture).flags.c_contiguous and imagenet_input(picture).flags.c_contiguous


def test_nsfw_input_is_blue_first_less_the_mean() -> None:
    red = np.zeros((256, 256, 3), np.uint8)
    red[..., 0] = 200
    np.testing.assert_allclose(nsfw_input(red)[100, 100], [-104, -117, 200 - 123], atol=1e-4)


def test_imagenet_input_is_normalised_by_channel() -> None:
    grey = np.full((256, 300, 3), 128, np.uint8)
    expected = (128 / 255 - np.array([0.485, 0.456, 0.406])) / [0.229, 0.224, 0.225]
    np.testing.assert_allclose(imagenet_input(grey)[:, 7, 9], expected, rtol=1e-4)


def test_centre_is_in_the_middle() -> None:
    picture = np.zeros((256, 300, 1), np.float32)
    picture[128, 150] = 1
    assert centre(picture)[112, 112, 0] == 1


@pytest.mark.download
def test_both_exports_rate_photos_alike() -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("PIL")
    from examples.running import with_onnxruntime
    from zoo.data import photos
    from zoo.models import MODELS

    a, b = (with_onnxruntime(MODELS[key].path()) for key in ("d1-a", "d1-b"))
    for photo in photos():
        score = rate(a, "input:0", photo.pixels)
        assert 0 <= score < 0.1
        assert abs(score - rate(b, "input_0", photo.pixels)) < 1e-5


@pytest.mark.torch
@pytest.mark.download
def test_classifier_names_most_photos() -> None:
    pytest.importorskip("torch")
    pytest.importorskip("onnxruntime")
    pytest.importorskip("PIL")
    from examples.rate import classify
    from examples.running import with_onnxruntime
    from zoo.data import photos
    from zoo.models import MODELS

    run = with_onnxruntime(MODELS["d0"].path())
    assert sum(classify(run, photo.pixels)[0] == photo.label for photo in photos()) >= 18


@pytest.mark.gpu
@pytest.mark.torch
@pytest.mark.download
@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_half_precision_on_a_gpu_names_photos_as_onnxruntime_does(precision: str) -> None:
    """With the kernels that the package's timing cache chooses: for fp16 those of the GPU table's row of batch 1."""
    pytest.importorskip("onnxruntime")
    pytest.importorskip("PIL")
    import bessemer
    from examples.rate import classify
    from examples.running import with_onnxruntime
    from zoo.data import photos
    from zoo.models import MODELS

    path = MODELS["d0"].path()
    engine = bessemer.build(path, target="cuda", precision=precision, shapes={"x": (1, 3, 224, 224)}, tune="cache")
    wanted = with_onnxruntime(path)
    with bessemer.load(engine) as session:
        for photo in photos():
            assert classify(session.run, photo.pixels)[0] == classify(wanted, photo.pixels)[0], photo.name
