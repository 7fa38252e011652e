"""torch on the GPU: the peers of a row, and the reference in fp32.

Networks that the zoo writes in torch run as they are written there (scaled_dot_product_attention, channels last), with
the weights of the exported model. Other models are their ONNX graph run op by op, see onnx_torch.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from bench.onnx_torch import torch_module
from bench.rows import Row
from bench.timing import Call
from zoo import export
from zoo.models import MODELS

WRITTEN = ("resnet50", "d0", "bert-base", "bert-large", "vit-b16", "c1")


@dataclass
class Peers:
    """The network of a row on the GPU in fp16, its arrays, and the calls that are timed, by the peer's name."""

    what: str  # the network is
    net: torch.nn.Module
    arrays: list[torch.Tensor]
    calls: dict[str, Call] = field(default_factory=dict)
    compile_s: float | None = None

    def eager(self) -> None:
        """Add eager, alone and in a captured CUDA graph."""
        self.calls["eager"] = lambda: self.net(*self.arrays)
        self.calls["eager in a CUDA graph"] = _graphed(self.calls["eager"])

    def compiled(self) -> None:
        """Add torch.compile; takes minutes."""
        started = time.perf_counter()
        torch._dynamo.reset()
        compiled = torch.compile(self.net, mode="max-autotune", dynamic=False)
        for _ in range(3):  # compiles, then records its CUDA graph
            compiled(*self.arrays)
        torch.cuda.synchronize()
        self.compile_s = time.perf_counter() - started
        self.calls["compile max-autotune"] = lambda: compiled(*self.arrays)

    def outputs(self) -> list[np.ndarray]:
        """What eager gives, in fp32 on the host."""
        return _listed(self.net(*self.arrays))


def _network(row: Row, feeds: Mapping[str, np.ndarray]) -> tuple[str, torch.nn.Module]:
    """The row's network in fp16 on the CPU, and what it is."""
    if row.model not in WRITTEN:
        return "the ONNX graph run op by op in torch", torch_module(MODELS[row.model].path(), feeds, torch.float16)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(export.SEED)
        return "the network's torch source", export.RECIPES[row.model].build().eval().half()


def reference(row: Row, feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """The outputs of the row's ONNX graph in fp32, without TF32, on the GPU."""
    net = torch_module(MODELS[row.model].path(), feeds).cuda()
    kept = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    try:
        return _listed(net(*(torch.from_numpy(a).cuda() for a in feeds.values())))
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = kept


def peers_of(row: Row, feeds: Mapping[str, np.ndarray]) -> Peers:
    """The row's network in fp16 on the GPU, channels last where it takes pictures."""
    what, net = _network(row, feeds)
    net = net.cuda()
    arrays = [torch.from_numpy(a).cuda() for a in feeds.values()]
    arrays = [a.half() if a.is_floating_point() else a for a in arrays]
    if any(a.dim() == 4 for a in arrays):
        net = net.to(memory_format=torch.channels_last)
        arrays = [a.to(memory_format=torch.channels_last) if a.dim() == 4 else a for a in arrays]
    return Peers(what, net, arrays)


def _listed(outputs: Any) -> list[np.ndarray]:
    return [o.float().cpu().numpy() for o in (outputs if isinstance(outputs, tuple) else (outputs,))]


def _graphed(fn: Call) -> Call:
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            fn()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        fn()

    def replay() -> None:
        graph.replay()

    return replay
