"""The GPU table: engines in fp16 at fixed shapes against torch on one NVIDIA GPU, row by row, pair by pair.

    python -m bench.gpu [ROW ...] [-o bench/results/h200.json]      # all rows where none is named
    python -m bench.gpu --show bench/results/h200.json              # print the table of a file, measure nothing
    python -m bench.gpu --show bench/results/h200.json --into docs/performance.md

Ours and the peers (torch eager in fp16, the same in a CUDA graph, torch.compile max-autotune) run in one process, on
one stream and on the same random data, in alternating blocks. A time is that of the device between two events; a short
spin ahead of the first keeps the device busy while the run is queued, so that no launch latency is in it. A run that
was queued later than that is timed again, and how long the host takes to queue one is told too. The error is against
fp32: onnxruntime on the CPU where that takes seconds, else torch on the GPU without TF32. Inputs and outputs of ours
are in fp32 where the model's are, and their conversion is in our time.

A row is saved as soon as it has figures: first without torch.compile, then, where it was compiled within `--limit`
seconds, again with it. Rows of the file that were measured earlier stay. `--peers-from` takes the peers' times from
another file instead of measuring them; the row says so, and it must be of the same boot of the same machine.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

import bessemer
from bench.document import put_into
from bench.machine import Clocks, fingerprint, gpu_uuid
from bench.rows import ROWS, Row
from bench.table import (
    BEGIN,
    BYTES_PER_S,
    END,
    FLOPS_PER_S,
    document,
    floors,
    line,
    load_rows,
    number,
    show,
    verdict,
)  # fmt: skip
from bench.timing import Call, OutOfTime, in_turns, limit, queued, settle, summary, timed
from bench.torch_peers import peers_of, reference
from bessemer.cli.verbs.compare import relative_error
from bessemer.engine.engine import Engine
from bessemer.runtime.cuda import CudaSession
from zoo.model import Shapes
from zoo.models import MODELS

STEADY, STEADY_S = 2000, 30.0  # runs of ours alone, for the spread; fewer where these took longer than so
QUEUED = 200  # runs of ours of which the host's part is timed
CPU_FLOPS = 3e11  # of one run: what onnxruntime on the CPU still does in seconds


class Bench:
    """The machine, the options, and the rows that are known so far."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.machine = fingerprint()
        self.rows: dict[str, Any] = load_rows(args.output)
        self.clocks: Clocks | None = None
        try:
            self.clocks = Clocks(gpu_uuid())
        except OSError as error:
            print(f"no clocks: {error}", flush=True)

    def measure(self, row: Row) -> None:
        """Measure one row, and save it."""
        deadline = time.monotonic() + self.args.limit
        feeds = MODELS[row.model].make_inputs(Shapes(row.name, row.dims), np.random.default_rng(7))
        with torch.inference_mode(), torch.cuda.stream(torch.cuda.Stream()), limit(self.args.limit):
            engine, found = self._built(row)
            session = bessemer.load(engine)
            assert isinstance(session, CudaSession)
            call = ours(session, feeds)
            found |= self._errors(row, engine, session, feeds)
            if self.args.profile:
                found["profile"] = _profile(session, feeds)
            if self.args.peers_from:
                times = in_turns({"ours": call}, self.clocks)
                self._save(row, found | _alone(call, times["ours"]), times, self._earlier(row))
                return
            peers = peers_of(row, feeds)
            peers.eager()
            error = _error(found.pop("wanted"), peers.outputs())  # of sums beyond fp16, as the UNet's are: not a number
            found |= {"peer": peers.what, "peer_error": error if math.isfinite(error) else None}
            times = in_turns({"ours": call, **peers.calls}, self.clocks)
            found |= _alone(call, times["ours"])
            self._save(row, found, times, {})
            if self.args.no_compile:
                return
            try:
                with limit(deadline - time.monotonic()):
                    peers.compiled()
            except OutOfTime:
                print(f"{row.name}: torch.compile was not done when the row's time was up", flush=True)
                return
            found["compile_s"] = peers.compile_s
            self._save(row, found, in_turns({"ours": call, **peers.calls}, self.clocks), {})

    def _built(self, row: Row) -> tuple[Engine, dict[str, Any]]:
        started = time.perf_counter()
        engine = bessemer.build(
            MODELS[row.model].path(), target="cuda", precision="fp16", shapes=dict(row.dims), tune=self.args.tune,
            timing_cache=self.args.cache, build_budget=self.args.build_budget, log=print,
        )  # fmt: skip
        built = time.perf_counter() - started
        return engine, {
            "model": row.model, "shapes": {k: list(v) for k, v in row.dims.items()}, "precision": "fp16",
            "build_s": built, "tune": self.args.tune, "steps": len(engine.program.steps), "memory": engine.memory,
            "slow_paths": engine.manifest["slow_paths"], **floors(engine),
        }  # fmt: skip

    def _errors(self, row: Row, engine: Engine, session: CudaSession, feeds: dict[str, np.ndarray]) -> dict[str, Any]:
        """The error of ours against fp32, and the reference's outputs under "wanted"."""
        flops = sum(number(s.flops) for s in engine.program.steps)
        if flops <= CPU_FLOPS:
            what, wanted = "onnxruntime fp32 on the CPU", _onnxruntime(MODELS[row.model].path(), feeds)
        else:
            what, wanted = "torch fp32 on the GPU, without TF32", reference(row, feeds)
        got, again = session.run(feeds), session.run(feeds)
        return {
            "reference": what, "relative_error": _error(wanted, list(got.values())), "wanted": wanted,
            "repeatable": all(got[k].tobytes() == again[k].tobytes() for k in got),
        }  # fmt: skip

    def _earlier(self, row: Row) -> dict[str, Any]:
        rows = load_rows(self.args.peers_from, self.machine)
        if row.name not in rows:
            raise SystemExit(f"{self.args.peers_from} has no {row.name} of this boot of this machine")
        kept = ("peers_ms", "peer", "peer_error", "compile_s", "clocks")
        return {"peers_from": str(self.args.peers_from), **{k: v for k, v in rows[row.name].items() if k in kept}}

    def _save(self, row: Row, found: dict[str, Any], blocks: dict[str, list[list[float]]], earlier: Any) -> None:
        """Add the row to the file, with its verdict."""
        all_ms = {name: summary([t for block in times for t in block]) for name, times in blocks.items()}
        mine = all_ms.pop("ours")
        clocks = self.clocks.summary() if self.clocks is not None else {}
        data = {k: v for k, v in found.items() if k != "wanted"}
        data |= {"ours_ms": mine, "peers_ms": all_ms, "clocks": clocks, "machine": self.machine, **earlier}
        data["ratios"] = {
            name: float(np.median([np.median(b) / np.median(a) for a, b in zip(blocks["ours"], blocks[name])]))
            for name in all_ms
        }
        data |= verdict(row, data)
        self.rows[row.name] = data
        self.args.output.parent.mkdir(parents=True, exist_ok=True)
        self.args.output.write_text(json.dumps({"rows": self.rows}, indent=1) + "\n", encoding="utf-8")
        print(line(row.name, data), flush=True)


def ours(session: CudaSession, feeds: Mapping[str, np.ndarray]) -> Call:
    """A run of ours on torch's current stream, inputs and outputs on the GPU."""
    arrays = {name: torch.from_numpy(a).cuda() for name, a in feeds.items()}
    got = session.run(feeds)
    out = {name: torch.empty(a.shape, dtype=torch.from_numpy(a).dtype, device="cuda") for name, a in got.items()}
    stream = torch.cuda.current_stream()
    return lambda: session.run_async(arrays, stream=stream, out=out)


def _alone(call: Call, blocks: list[list[float]]) -> dict[str, Any]:
    """The spread of runs of ours one after the other, once the clock has settled, and what the host takes to queue one;
    how many runs, by the times in turns."""
    runs = min(STEADY, int(STEADY_S * 1e3 / np.median(np.concatenate(blocks))))
    settle(call)
    return {"steady_ms": summary(timed(call, runs)), "queued_ms": summary(queued(call, QUEUED))}


def _onnxruntime(path: Path, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return list(session.run(None, feeds))


def _error(wanted: list[np.ndarray], got: list[np.ndarray]) -> float:
    return max(relative_error(g.astype(w.dtype), w) for g, w in zip(got, wanted, strict=True))


def _profile(session: CudaSession, feeds: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    """Every step's time and its share of its own roofline."""
    program, out = session.engine.program, []
    for step, us in session.profile(feeds, 20):
        kernel = program.kernels[step.kernel] if step.kernel >= 0 else None
        flops, nbytes = number(step.flops), number(step.nbytes)
        out.append(
            {
                "name": step.name, "kernel": kernel.tactic if kernel else step.kind,
                "config": dict(kernel.config) if kernel else {}, "us": us, "bytes": nbytes, "flops": flops,
                "floor_us": max(nbytes / BYTES_PER_S, flops / FLOPS_PER_S) * 1e6,
            }
        )  # fmt: skip
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"some of {', '.join(ROWS)}")
    parser.add_argument("-o", "--output", type=Path, default=Path("bench/results/h200.json"))
    parser.add_argument("--cache", type=Path, default=None, help="timing cache to read and extend")
    parser.add_argument("--tune", default="device", help="off, cache or device")
    parser.add_argument("--build-budget", type=float, default=None, help="seconds for each build")
    parser.add_argument("--limit", type=float, default=280.0, help="seconds for each row")
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    parser.add_argument("--profile", action="store_true", help="keep every step's time too")
    parser.add_argument("--peers-from", type=Path, default=None, help="take the peers' times from this file")
    parser.add_argument("--show", type=Path, default=None, metavar="FILE", help="print the table of a file")
    parser.add_argument("--into", type=Path, default=None, metavar="DOCUMENT", help="with --show: put it in there too")
    args = parser.parse_args()
    if args.show:
        show(args.show)
        if args.into:
            put_into(args.into, BEGIN, END, document(args.show))
        return
    unknown = [name for name in args.rows if name not in ROWS]
    if unknown:
        parser.error(f"no row {', '.join(unknown)}; there are {', '.join(ROWS)}")
    torch.backends.cudnn.benchmark = True
    bench = Bench(args)
    for name in args.rows or ROWS:
        try:
            bench.measure(ROWS[name])
        except OutOfTime:
            print(f"{name}: not done within {args.limit:.0f} s", flush=True)
        except (bessemer.BessemerError, torch.OutOfMemoryError, RuntimeError, NotImplementedError) as error:
            print(f"{name}: failed: {type(error).__name__}: {error}"[:1500], flush=True)
        torch.cuda.empty_cache()
    show(args.output)


if __name__ == "__main__":
    main()
