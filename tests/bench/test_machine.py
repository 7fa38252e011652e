"""Which GPU NVML is asked of: the one that CUDA shows, by a name that both have for it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from bench.machine import Clocks, gpu_uuid
from bessemer.device import cuda_api


def test_nvml_is_asked_of_the_first_gpu_that_cuda_shows_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def call(name: str, *args: Any) -> Any:
        if name == "cuDeviceGet":
            return f"handle {args[0]}"
        assert (name, args) == ("cuDeviceGetUuid", ("handle 0",))
        return SimpleNamespace(bytes=bytes(range(0xF0, 0x100)))

    monkeypatch.setattr(cuda_api, "bindings", lambda: SimpleNamespace(call=call))
    assert gpu_uuid() == "GPU-f0f1f2f3-f4f5-f6f7-f8f9-fafbfcfdfeff"


@pytest.mark.gpu
@pytest.mark.torch
def test_nvml_knows_the_gpu_by_that_name() -> None:
    import torch

    name = gpu_uuid()
    assert name == f"GPU-{torch.cuda.get_device_properties(0).uuid}"
    clocks = Clocks(name)
    clocks.sample()
    assert clocks.summary()["sm_mhz"][0] > 0
