"""Tensor maps as kernels take them: 128 bytes that the driver makes of an address and a TensorMap."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np

from bessemer.core.dtype import DType
from bessemer.core.tensor_map import BITS, TensorMap
from bessemer.device.cuda_api import Api

NBYTES, ALIGN = BITS // 8, 64
TYPES = {
    "f64": "FLOAT64", "f32": "FLOAT32", "f16": "FLOAT16", "bf16": "BFLOAT16", "i64": "INT64", "i32": "INT32",
    "u64": "UINT64", "u32": "UINT32", "u16": "UINT16", "u8": "UINT8",
}  # fmt: skip


class EncodedMap:
    """A map of the tensor at a device address, whose sizes are numbers; `address` is where its bytes are on the host.

    DeviceError where the driver refuses it."""

    def __init__(self, api: Api, dtype: DType, tensor: int, m: TensorMap) -> None:
        self._api = api
        memory = np.zeros(NBYTES + ALIGN, np.uint8)
        self._memory, self.address = memory, memory.ctypes.data + -memory.ctypes.data % ALIGN
        kind = _constant(api, "DataType", f"DATA_TYPE_{TYPES[dtype.name]}")
        sizes = (_numbers(api, "cuuint64_t", m.dims), _numbers(api, "cuuint64_t", m.strides))
        modes = (
            _constant(api, "Interleave", "INTERLEAVE_NONE"),
            _constant(api, "Swizzle", f"SWIZZLE_{m.swizzle}B" if m.swizzle else "SWIZZLE_NONE"),
            _constant(api, "L2promotion", "L2_PROMOTION_L2_256B"),
            _constant(api, "FloatOOBfill", "FLOAT_OOB_FILL_NONE"),
        )
        w = m.window
        if w is None:
            steps = _numbers(api, "cuuint32_t", (1,) * len(m.dims))
            encoded = api.call(
                "cuTensorMapEncodeTiled", kind, len(m.dims), tensor, *sizes, _numbers(api, "cuuint32_t", m.box), steps,
                *modes,
            )  # fmt: skip
        else:
            steps = _numbers(api, "cuuint32_t", (1, *w.steps, 1))
            encoded = api.call(
                "cuTensorMapEncodeIm2col", kind, len(m.dims), tensor, *sizes, list(w.lower), list(w.upper), *m.box,
                steps, *modes,
            )  # fmt: skip
        ctypes.memmove(self.address, int(encoded.getPtr()), NBYTES)

    def move(self, tensor: int) -> None:
        """Let it be a map of an equal tensor at another address."""
        self._api.call("cuTensorMapReplaceAddress", self._api.struct("CUtensorMap", self.address), tensor)


def _constant(api: Api, enum: str, member: str) -> Any:
    return api.constant(f"CUtensorMap{enum}", f"CU_TENSOR_MAP_{member}")


def _numbers(api: Api, kind: str, values: Sequence[Any]) -> list[Any]:
    return [api.struct(kind, int(v)) for v in values]
