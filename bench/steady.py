"""How steady runs are, and why not: 2,000 runs of an engine, and of torch's CUDA graph, with the GPU's clock at each.

    python -m bench.steady [ROW ...] [-o bench/results/h200-steady.json]

The rows are those of bench.gpu, all where none is named. A GPU lowers its clock to keep to its power limit, and then
runs take longer; counted in cycles of that clock they do not. So each run has its time and the clock of the spin ahead
of it; how much power was drawn and why clocks were lowered is NVML's word, asked for every 10 ms. As many runs again
follow each other without a gap ("chained"): the load is even then, which spins and waits are not.
"""

from __future__ import annotations

import argparse
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

import bessemer
from bench.gpu import ours
from bench.machine import Clocks, fingerprint, gpu_uuid
from bench.rows import ROWS, Row
from bench.timing import SETTLE_S, Call, chained, clocked, settle
from bench.torch_peers import peers_of
from bessemer.runtime.cuda import CudaSession
from zoo.model import Shapes
from zoo.models import MODELS

WATCH_S = 0.01


@contextmanager
def watched(clocks: Clocks) -> Iterator[set[str]]:
    """Sample clocks and power while the block runs; the set that is given tells at its end why clocks were lowered."""
    reasons: set[str] = set()
    done = threading.Event()

    def watch() -> None:
        while not done.wait(WATCH_S):
            clocks.sample()
            reasons.update(clocks.lowered())

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield reasons
    finally:
        done.set()
        thread.join()


def series(fn: Call, runs: int, clocks: Clocks) -> dict[str, Any]:
    """The runs of one call: times, clocks, what their spread is in time and in cycles."""
    settle(fn)
    with watched(clocks) as reasons:
        ms, mhz = clocked(fn, runs)
    (p50, p99), cycles = np.percentile(ms, [50, 99]), np.array(ms) * mhz
    return {
        "median_ms": float(p50), "p99_over_p50": float(p99 / p50),
        "cycles_p99_over_p50": float(np.percentile(cycles, 99) / np.median(cycles)),
        "time_against_clock": float(np.corrcoef(ms, 1 / np.array(mhz))[0, 1]), "lowered_by": sorted(reasons),
        "clocks": clocks.summary(), "ms": [round(t, 4) for t in ms], "mhz": [round(f) for f in mhz],
        "chained": full_load(fn, runs, clocks),
    }  # fmt: skip


def full_load(fn: Call, runs: int, clocks: Clocks) -> dict[str, Any]:
    """The runs of one call without gaps between them."""
    chained(fn, int(SETTLE_S * 1e3 / np.median(chained(fn, 50)[0])))
    with watched(clocks) as reasons:
        ms, late = chained(fn, runs)
    p50, p99 = np.percentile(ms, [50, 99])
    return {
        "median_ms": float(p50), "p99_over_p50": float(p99 / p50), "late": late, "lowered_by": sorted(reasons),
        "clocks": clocks.summary(), "ms": [round(t, 4) for t in ms],
    }  # fmt: skip


def measure(row: Row, args: argparse.Namespace, clocks: Clocks) -> dict[str, Any]:
    """Ours and torch's graph, one after the other."""
    feeds = MODELS[row.model].make_inputs(Shapes(row.name, row.dims), np.random.default_rng(7))
    engine = bessemer.build(
        MODELS[row.model].path(), target="cuda", precision="fp16", shapes=dict(row.dims), tune=args.tune,
        timing_cache=args.cache,
    )  # fmt: skip
    session = bessemer.load(engine)
    assert isinstance(session, CudaSession)
    found = {"machine": fingerprint(), "ours": series(ours(session, feeds), args.runs, clocks)}
    peers = peers_of(row, feeds)
    peers.eager()
    found["torch"] = series(peers.calls["eager in a CUDA graph"], args.runs, clocks)
    for name in ("ours", "torch"):
        s = found[name]
        watts = s["clocks"].get("watts", ["?"])[-1]
        print(f"{row.name:18} {name:6} p50 {s['median_ms']:.3f} ms, p99 {s['p99_over_p50']:.3f} times that, in cycles "
              f"{s['cycles_p99_over_p50']:.3f}; times follow the clock by {s['time_against_clock']:.2f}; up to {watts} "
              f"W, clocks lowered by {', '.join(s['lowered_by']) or 'nothing'}; without gaps p50 "
              f"{s['chained']['median_ms']:.3f} ms, p99 {s['chained']['p99_over_p50']:.3f}", flush=True)  # fmt: skip
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"some of {', '.join(ROWS)}")
    parser.add_argument("-o", "--output", type=Path, default=Path("bench/results/h200-steady.json"))
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--cache", type=Path, default=None, help="timing cache to read and extend")
    parser.add_argument("--tune", default="device", help="off, cache or device")
    args = parser.parse_args()
    unknown = [name for name in args.rows if name not in ROWS]
    if unknown:
        parser.error(f"no row {', '.join(unknown)}; there are {', '.join(ROWS)}")
    clocks = Clocks(gpu_uuid())
    rows = json.loads(args.output.read_text(encoding="utf-8"))["rows"] if args.output.exists() else {}
    for name in args.rows or ROWS:
        with torch.inference_mode(), torch.cuda.stream(torch.cuda.Stream()):
            rows[name] = measure(ROWS[name], args, clocks)
        args.output.parent.mkdir(parents=True, exist_ok=True)
        args.output.write_text(json.dumps({"rows": rows}) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
