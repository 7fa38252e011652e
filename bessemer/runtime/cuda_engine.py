"""What every context of an engine on a GPU shares: its device, its kernels and its weights, there once."""

from __future__ import annotations

import numpy as np

from bessemer.core.errors import EngineMismatchError
from bessemer.device.cuda import Device
from bessemer.device.cuda_kernel import Module
from bessemer.engine.engine import Engine
from bessemer.runtime.host import HostStep


class CudaEngine:
    """What all contexts share: the device, the kernels and the weights."""

    def __init__(self, engine: Engine) -> None:
        self.program, self.device = engine.program, Device()
        wanted, found = engine.manifest["target"]["arch"], self.device.info
        if found.arch != wanted:
            self.device.close()
            raise EngineMismatchError(
                f"the engine is for GPUs of architecture {wanted}, this one is {found.name} ({found.arch})",
                fix=f"build it with --target cuda:{found.arch}",
            )
        self.modules: dict[int, Module] = {}
        self.weights = 0
        try:
            self._load(engine)
        except BaseException:  # too little memory, perhaps: what was taken is given back
            self.close()
            raise

    def _load(self, engine: Engine) -> None:
        for n in sorted({k.blob for k in self.program.kernels}):
            self.modules[n] = self.device.load(engine.blobs[n])
        self.kernels = [self.modules[k.blob].kernel(k.entry, k.abi) for k in self.program.kernels]
        self.weights = self.device.alloc(engine.weights.nbytes)
        position = self.weights
        for chunk in engine.weights.chunks():
            part = np.frombuffer(chunk, np.uint8)
            self.device.upload(position, part.ctypes.data, part.nbytes)
            position += part.nbytes
        self.hosts = {k: HostStep(s) for k, s in enumerate(self.program.steps) if s.kind == "host"}

    def close(self) -> None:
        """Unload the kernels and free the weights; every context must be closed before."""
        self.device.activate()
        for module in self.modules.values():
            module.close()
        if self.weights:
            self.device.free(self.weights)
        self.device.close()
