"""One engine for a range of shapes against engines built for each, on one NVIDIA GPU.

    python -m bench.gpu_dynamic [bert-base] [-o bench/results/h200-dynamic.json]

At the opt shape the dynamic engine may cost 1.10 times the static one, elsewhere 1.25 times. Times are those of
bench.gpu, block by block in turns. Then the dynamic engine goes back and forth between 50 shapes that it has seen; of
each shape the times of its runs are divided by their median, so that the spread over all of them is one figure.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

import bessemer
from bench.gpu import ours
from bench.machine import fingerprint
from bench.timing import in_turns, timed
from bessemer.runtime.cuda import CudaSession
from zoo.models import MODELS, Shapes

LOW, OPT, HIGH = (1, 16), (8, 128), (32, 512)
ELSEWHERE = (
    (1, 16),
    (1, 128),
    (1, 512),
    (2, 64),
    (3, 100),
    (4, 384),
    (8, 16),
    (8, 512),
    (16, 200),
    (32, 128),
    (32, 512),
)
AT_OPT, AT_OTHERS, SPREAD = 1.10, 1.25, 2.0
VISITED, ROUNDS = 50, 20  # shapes, and how often each is visited


def session_of(model: str, args: argparse.Namespace, **shapes: Any) -> tuple[CudaSession, float]:
    """A session of the model for these shapes or profiles, and the seconds of the build."""
    started = time.perf_counter()
    engine = bessemer.build(
        MODELS[model].path(), target="cuda", precision="fp16", tune=args.tune, timing_cache=args.cache, **shapes
    )
    session = bessemer.load(engine)
    assert isinstance(session, CudaSession)
    return session, time.perf_counter() - started


def dims_of(model: str, batch: int, length: int) -> dict[str, tuple[int, ...]]:
    """Every input of the model at a batch and a length."""
    return dict.fromkeys(MODELS[model].shapes[0].dims, (batch, length))


def feeds_of(model: str, batch: int, length: int) -> dict[str, np.ndarray]:
    """Fresh inputs of that size."""
    return MODELS[model].make_inputs(Shapes("", dims_of(model, batch, length)), np.random.default_rng(7))


def compared(model: str, dynamic: CudaSession, args: argparse.Namespace) -> list[dict[str, Any]]:
    """The dynamic engine against a static one at each shape."""
    rows = []
    for batch, length in (OPT, *ELSEWHERE):
        static, built = session_of(model, args, shapes=dims_of(model, batch, length))
        feeds = feeds_of(model, batch, length)
        blocks = in_turns({"dynamic": ours(dynamic, feeds), "static": ours(static, feeds)}, None)
        ratio = float(np.median([np.median(a) / np.median(b) for a, b in zip(blocks["dynamic"], blocks["static"])]))
        allowed = AT_OPT if (batch, length) == OPT else AT_OTHERS
        ms = {name: float(np.median(np.concatenate(times))) for name, times in blocks.items()}
        rows.append({"batch": batch, "length": length, "ms": ms, "ratio": ratio, "allowed": allowed, "build_s": built})
        print(f"{model} {batch:3}x{length:<4} dynamic {ms['dynamic']:.3f} ms, static {ms['static']:.3f} ms, ratio "
              f"{ratio:.2f} ({'ok' if ratio <= allowed else f'above {allowed}'})", flush=True)  # fmt: skip
        static.close()
    return rows


def spread(model: str, dynamic: CudaSession) -> dict[str, float]:
    """Back and forth between shapes: percentiles of the times over the median of their shape."""
    rng = np.random.default_rng(3)
    sizes = [(int(rng.integers(1, 33)), int(rng.integers(16, 513))) for _ in range(VISITED)]
    calls = [ours(dynamic, feeds_of(model, *size)) for size in sizes]
    for call in calls:
        call()
    times = np.array([[timed(call, 1)[0] for call in calls] for _ in range(ROUNDS)])
    relative = times / np.median(times, axis=0)
    p50, p99 = np.percentile(relative, [50, 99])
    print(f"{model} {VISITED} shapes: p99 {p99 / p50:.2f} times p50", flush=True)
    return {"shapes": VISITED, "p99_over_p50": float(p99 / p50), "allowed": SPREAD}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=["bert-base"])
    parser.add_argument("-o", "--output", type=Path, default=Path("bench/results/h200-dynamic.json"))
    parser.add_argument("--cache", type=Path, default=None, help="timing cache to read and extend")
    parser.add_argument("--tune", default="device", help="off, cache or device")
    args = parser.parse_args()
    result: dict[str, Any] = {"machine": fingerprint(), "models": {}}
    with torch.cuda.stream(torch.cuda.Stream()):
        for model in args.models:
            ends = {name: (LOW, OPT, HIGH) for name in MODELS[model].shapes[0].dims}
            dynamic, built = session_of(model, args, profiles=[bessemer.Profile(ends)])
            found = {"build_s": built, "steps": len(dynamic.engine.program.steps), "memory": dynamic.engine.memory}
            result["models"][model] = {**found, "spread": spread(model, dynamic)}
            result["models"][model]["shapes"] = compared(model, dynamic, args)
            args.output.parent.mkdir(parents=True, exist_ok=True)
            args.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
