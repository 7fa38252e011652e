"""torch on the GPU for the models that the zoo writes in torch: eager, eager in a CUDA graph, torch.compile."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from zoo import nets
from zoo.models import MODELS

MODULES: dict[str, Callable[[], torch.nn.Module]] = {
    "resnet50": nets.ResNet50,
    "d0": nets.MobileNetV2,
    "bert-base": lambda: nets.BertEncoder(768, 12, 12),
    "bert-large": lambda: nets.BertEncoder(1024, 24, 16),
    "vit-b16": nets.VisionTransformer,
}


def peers(key: str) -> list[dict[str, Any]]:
    """Median device ms of each peer in fp16, on the model's first shape; nothing for models without a module."""
    if key not in MODULES:
        return []
    model = MODELS[key]
    feeds = model.make_inputs(model.shapes[0], np.random.default_rng(7))
    net = MODULES[key]().eval().cuda().half()
    arrays = [torch.from_numpy(a).cuda() for a in feeds.values()]
    arrays = [a.half() if a.is_floating_point() else a for a in arrays]
    if arrays[0].dim() == 4:
        net = net.to(memory_format=torch.channels_last)
        arrays = [a.to(memory_format=torch.channels_last) for a in arrays]
    rows = []
    with torch.inference_mode():
        rows.append(_row(key, "torch eager", lambda: net(*arrays), 0.0))
        rows.append(_row(key, "torch eager, CUDA graph", _graphed(lambda: net(*arrays)), 0.0))
        started = time.perf_counter()
        compiled = torch.compile(net, mode="max-autotune", dynamic=False)
        compiled(*arrays)
        torch.cuda.synchronize()
        rows.append(_row(key, "torch.compile max-autotune", lambda: compiled(*arrays), time.perf_counter() - started))
    return rows


def _graphed(fn: Callable[[], object]) -> Callable[[], object]:
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            fn()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        fn()
    return graph.replay


def _row(key: str, peer: str, fn: Callable[[], object], compile_s: float) -> dict[str, Any]:
    times = []
    for k in range(115):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        fn()
        end.record()
        end.synchronize()
        if k >= 15:
            times.append(start.elapsed_time(end))
    found = {"median": float(np.median(times)), "min": min(times), "p99": float(np.percentile(times, 99))}
    print(f"{key:12} {peer}: {found['median']:.3f} ms, compiled in {compile_s:.0f} s", flush=True)
    return {"model": key, "peer": peer, "precision": "fp16", "compile_s": compile_s, "device_ms": found}
