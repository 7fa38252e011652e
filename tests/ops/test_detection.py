"""NonMaxSuppression, RoiAlign and MaxRoiPool against onnxruntime."""

from __future__ import annotations

import numpy as np
import pytest

from tests.ops.onnx_nodes import check_node

RNG = np.random.default_rng(17)
X = RNG.standard_normal((2, 3, 9, 8)).astype(np.float32)
CORNERS = RNG.uniform(-1, 9, (6, 2))
ROIS = np.concatenate([CORNERS, CORNERS + RNG.uniform(0.5, 8, (6, 2))], 1).astype(np.float32)
BATCH = RNG.integers(0, 2, 6)


@pytest.mark.parametrize("center", [0, 1])
@pytest.mark.parametrize("limits", [(3, 0.3, 0.4), (20, 0.0, None), (2, 1.0, 0.0)], ids=str)
def test_nms(limits: tuple[int, float, float | None], center: int) -> None:
    at, extent = RNG.uniform(0, 6, (2, 15, 2)), RNG.uniform(0.5, 4, (2, 15, 2))
    boxes = np.concatenate([at, extent if center else at + extent], -1).astype(np.float32)
    scores = RNG.random((2, 3, 15)).astype(np.float32)
    scores[:, :, 3] = scores[:, :, 4]
    most, overlap, least = limits
    rest = (np.array([most]), np.array([overlap], np.float32), None if least is None else np.array([least], np.float32))
    check_node("NonMaxSuppression", (boxes, scores, *rest), 11, {"center_point_box": center}, dynamic=(False,))


@pytest.mark.parametrize("samples", [0, 1, 3])
@pytest.mark.parametrize("mode", ["half_pixel", "output_half_pixel"])
def test_roi_align(mode: str, samples: int) -> None:
    attrs = {"coordinate_transformation_mode": mode, "sampling_ratio": samples, "output_height": 2, "output_width": 3,
             "spatial_scale": 0.6}  # fmt: skip
    check_node("RoiAlign", (X, ROIS, BATCH), 16, attrs, rtol=1e-4)
    if mode == "output_half_pixel":
        attrs.pop("coordinate_transformation_mode")
        check_node("RoiAlign", (X, ROIS, BATCH), 10, attrs, rtol=1e-4)


def test_roi_align_max() -> None:
    attrs = {"mode": "max", "sampling_ratio": 2, "output_height": 2, "output_width": 2}
    check_node("RoiAlign", (X, ROIS, BATCH), 16, attrs, rtol=1e-4)


def test_max_roi_pool() -> None:
    rois = np.concatenate([BATCH[:, None], ROIS], 1).astype(np.float32)
    check_node("MaxRoiPool", (X, rois), 9, {"pooled_shape": [3, 2], "spatial_scale": 0.8})
