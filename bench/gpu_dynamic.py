"""One engine for a range of shapes against engines built for each, on one NVIDIA GPU.

    python -m bench.gpu_dynamic [bert-base] [--shapes 8x128 1x16] [--seconds 90] [-o bench/results/h200-dynamic.json]

At the opt shape the dynamic engine may cost 1.10 times the static one, elsewhere 1.25 times; the outputs of both must
agree as fp16 does (1e-2 of their norm at most, and a tenth of that is usual). Times are those of
bench.gpu, block by block in turns. Before, the dynamic engine goes back and forth between 50 shapes that it has seen;
of each shape the times of its runs are divided by their median, so that the spread over all of them is one figure; what
their captured graphs take of the GPU's memory is told too.

A shape is saved as soon as it is measured, beside what the file holds of others; after `--seconds` no other is begun.
With one timing cache for all runs, the next one goes on where this one ended.
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
from bessemer.cli.verbs.compare import relative_error
from bessemer.runtime.cuda import CudaSession
from zoo.model import Shapes
from zoo.models import MODELS

LOW, OPT, HIGH = (1, 16), (8, 128), (32, 512)
ELSEWHERE = (
    (1, 16),
    (32, 512),
    (1, 128),
    (32, 128),
    (1, 512),
    (3, 100),
    (16, 200),
    (2, 64),
    (8, 512),
    (8, 16),
    (4, 384),
    (2, 50),
    (9, 229),
    (17, 128),
    (24, 384),
)
AT_OPT, AT_OTHERS, SPREAD = 1.10, 1.25, 2.0
VISITED, ROUNDS = 50, 20  # shapes, and how often each is visited


class Bench:
    """One model: what is known so far, and the file that holds it."""

    def __init__(self, model: str, args: argparse.Namespace) -> None:
        self.model, self.args = model, args
        self.found: dict[str, Any] = _earlier(args.output).get(model, {})

    def session(self, **shapes: Any) -> tuple[CudaSession, float]:
        """A session of the model for these shapes or profiles, and the seconds of the build."""
        started = time.perf_counter()
        engine = bessemer.build(
            MODELS[self.model].path(), target="cuda", precision="fp16", tune=self.args.tune,
            timing_cache=self.args.cache, build_budget=self.args.build_budget, **shapes,
        )  # fmt: skip
        session = bessemer.load(engine)
        assert isinstance(session, CudaSession)
        return session, time.perf_counter() - started

    def measure(self, shapes: list[tuple[int, int]], until: float) -> None:
        """The spread, and then one shape after the other while there is time."""
        ends = {name: (LOW, OPT, HIGH) for name in MODELS[self.model].shapes[0].dims}
        dynamic, built = self.session(profiles=[bessemer.Profile(ends)])
        self.found |= {
            "machine": fingerprint(), "build_s": built, "steps": len(dynamic.engine.program.steps),
            "memory": dynamic.engine.memory, "notes": dynamic.engine.manifest["notes"],
        }  # fmt: skip
        print(f"{self.model}: {self.found['steps']} steps, built in {built:.0f} s, memory {self.found['memory']}, "
              f"{'; '.join(self.found['notes'])}", flush=True)  # fmt: skip
        self.found["spread"] = self.spread(dynamic)
        self._save()
        for batch, length in shapes:
            if time.monotonic() >= until:
                print(f"{self.model} {batch}x{length}: not begun, the time is up", flush=True)
                return
            self.found.setdefault("shapes", {})[f"{batch}x{length}"] = self.compared(dynamic, batch, length)
            self._save()

    def compared(self, dynamic: CudaSession, batch: int, length: int) -> dict[str, Any]:
        """The dynamic engine against a static one at a shape."""
        static, built = self.session(shapes=_dims(self.model, batch, length))
        feeds = _feeds(self.model, batch, length)
        blocks = in_turns({"dynamic": ours(dynamic, feeds), "static": ours(static, feeds)}, None)
        got, want = dynamic.run(feeds), static.run(feeds)
        difference = max(relative_error(got[name], want[name]) for name in want)
        static.close()
        ratio = float(np.median([np.median(a) / np.median(b) for a, b in zip(blocks["dynamic"], blocks["static"])]))
        allowed = AT_OPT if (batch, length) == OPT else AT_OTHERS
        ms = {name: float(np.median(np.concatenate(times))) for name, times in blocks.items()}
        print(f"{self.model} {batch:3}x{length:<4} dynamic {ms['dynamic']:.3f} ms, static {ms['static']:.3f} ms, ratio "
              f"{ratio:.2f} ({'ok' if ratio <= allowed else f'above {allowed}'}), outputs differ by {difference:.1e}, "
              f"static built in {built:.0f} s", flush=True)  # fmt: skip
        return {"ms": ms, "ratio": ratio, "allowed": allowed, "difference": difference, "build_s": built}

    def spread(self, dynamic: CudaSession) -> dict[str, float]:
        """Back and forth between shapes: percentiles of the times over the median of their shape, and the memory of
        what was captured for them."""
        rng = np.random.default_rng(3)
        sizes = [(int(rng.integers(1, 33)), int(rng.integers(16, 513))) for _ in range(VISITED)]
        calls = [ours(dynamic, _feeds(self.model, *size)) for size in sizes]
        calls[0]()
        free = torch.cuda.mem_get_info()[0]
        first = []
        for call in calls:
            started = time.perf_counter()
            call()
            torch.cuda.synchronize()
            first.append(time.perf_counter() - started)
        graphs = free - torch.cuda.mem_get_info()[0]
        times = np.array([[timed(call, 1)[0] for call in calls] for _ in range(ROUNDS)])
        relative = times / np.median(times, axis=0)
        p50, p99 = np.percentile(relative, [50, 99])
        print(f"{self.model} {VISITED} shapes: p99 {p99 / p50:.2f} times p50, greatest {relative.max() / p50:.2f}; a "
              f"new one {1e3 * np.median(first):.0f} ms; their graphs take {graphs >> 20} MB", flush=True)  # fmt: skip
        return {
            "shapes": VISITED, "p99_over_p50": float(p99 / p50), "allowed": SPREAD, "graphs_bytes": graphs,
            "first_run_s": float(np.median(first)),
        }  # fmt: skip

    def _save(self) -> None:
        out = {**_earlier(self.args.output), self.model: self.found}
        self.args.output.parent.mkdir(parents=True, exist_ok=True)
        self.args.output.write_text(json.dumps({"models": out}, indent=1) + "\n", encoding="utf-8")


def _earlier(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))["models"] if path.exists() else {}
    return found


def _dims(model: str, batch: int, length: int) -> dict[str, tuple[int, ...]]:
    """Every input of the model at a batch and a length."""
    return dict.fromkeys(MODELS[model].shapes[0].dims, (batch, length))


def _feeds(model: str, batch: int, length: int) -> dict[str, np.ndarray]:
    """Fresh inputs of that size."""
    return MODELS[model].make_inputs(Shapes("", _dims(model, batch, length)), np.random.default_rng(7))


def _size(text: str) -> tuple[int, int]:
    batch, length = (int(n) for n in text.split("x"))
    return batch, length


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=["bert-base"])
    parser.add_argument("-o", "--output", type=Path, default=Path("bench/results/h200-dynamic.json"))
    parser.add_argument("--shapes", nargs="*", type=_size, default=[OPT, *ELSEWHERE], metavar="BATCHxLENGTH")
    parser.add_argument("--seconds", type=float, default=3600.0, help="after which no other shape is begun")
    parser.add_argument("--cache", type=Path, default=None, help="timing cache to read and extend")
    parser.add_argument("--tune", default="device", help="off, cache or device")
    parser.add_argument("--build-budget", type=float, default=None, help="seconds for each build")
    args = parser.parse_args()
    until = time.monotonic() + args.seconds
    with torch.inference_mode(), torch.cuda.stream(torch.cuda.Stream()):
        for model in args.models:
            Bench(model, args).measure(args.shapes, until)


if __name__ == "__main__":
    main()
