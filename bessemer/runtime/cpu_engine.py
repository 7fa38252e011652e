"""What every context of an engine on the CPU shares: its code and its weights, there once."""

from __future__ import annotations

import numpy as np

from bessemer.device.cpu import Library, aligned_block
from bessemer.engine.engine import Engine
from bessemer.runtime.host import HostStep


class CpuEngine:
    """What all contexts share: the loaded code and the weights, once."""

    def __init__(self, engine: Engine) -> None:
        self.program = engine.program
        self.library = Library(engine.blobs[0])
        weights = engine.weights
        if weights.buffer is not None and _address(weights.buffer) % 64 == 0:
            self.weights = np.frombuffer(weights.buffer, np.uint8)
        else:
            self.weights = aligned_block(weights.nbytes)
            weights.fill(self.weights)
        self.hosts = {k: HostStep(s) for k, s in enumerate(self.program.steps) if s.kind == "host"}


def _address(buffer: memoryview) -> int:
    return int(np.frombuffer(buffer, np.uint8).ctypes.data) if len(buffer) else 0
