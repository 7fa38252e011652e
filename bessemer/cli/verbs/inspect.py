"""bessemer inspect ENGINE"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from bessemer.cli.report import say, say_json, size, table
from bessemer.core.dim import Dim, substitute
from bessemer.core.errors import InputError
from bessemer.engine.engine import Engine, TensorInfo
from bessemer.engine.program import Program, Step
from bessemer.engine.reader import read
from bessemer.runtime.memory import gpu_memory

NAME = "inspect"


def command(
    engine: Annotated[Path, typer.Argument(metavar="ENGINE", help="An engine file.")],
    step: Annotated[int | None, typer.Option(help="Show one step whole: kernel source and rejected kernels.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show what is in an engine, without running it."""
    opened = read(engine)
    described = describe(opened)
    if step is not None:
        if not 0 <= step < len(described["steps"]):
            raise InputError(f"there is no step {step}", fix=f"steps are 0 to {len(described['steps']) - 1}")
        described["steps"] = [described["steps"][step]]
    if as_json:
        say_json(described)
    elif step is not None:
        _print_step(described["steps"][0])
    else:
        _print(described)


def describe(engine: Engine) -> dict[str, Any]:
    """Everything about an engine as plain data."""
    p = engine.program
    on_gpu = {"device_memory": gpu_memory(p)} if engine.manifest["target"]["name"] == "cuda" else {}
    return {
        "target": engine.target,
        "manifest": dict(engine.manifest),
        "inputs": [_signature(i) for i in engine.inputs],
        "outputs": [_signature(o) for o in engine.outputs],
        "symbols": {
            n: {"min": s.range.lo, "opt": s.range.opt, "max": s.range.hi, "data_dependent": s.input < 0}
            for n, s in p.symbols.items()
        },
        "memory": engine.memory,
        **on_gpu,
        "kernel_bytes": sum(len(b) for b in engine.blobs),
        "steps": [_step(p, k, s) for k, s in enumerate(p.steps)],
    }


def _signature(t: TensorInfo) -> dict[str, Any]:
    return {"name": t.name, "dtype": str(t.dtype), "shape": [str(d) for d in t.shape]}


def _step(p: Program, number: int, s: Step) -> dict[str, Any]:
    def tensor(n: int) -> dict[str, Any]:
        t = p.tensors[n]
        return {"name": t.name, "dtype": str(t.dtype), "shape": [str(d) for d in t.shape], "space": t.space,
                "offset": t.offset, "bytes": t.nbytes}  # fmt: skip

    def at_opt(d: Dim) -> int | None:
        value = substitute(d, p.typical)
        return value if isinstance(value, int) else None

    out: dict[str, Any] = {
        "step": number, "kind": s.kind, "name": s.name, "onnx_nodes": list(s.origin),
        "reads": [tensor(n) for n in s.reads], "writes": [tensor(n) for n in s.writes],
        "bytes": str(s.nbytes), "flops": str(s.flops), "at_opt": {"bytes": at_opt(s.nbytes), "flops": at_opt(s.flops)},
    }  # fmt: skip
    if s.kernel >= 0:
        k = p.kernels[s.kernel]
        out["kernel"] = {
            "tactic": k.tactic, "config": dict(k.config), "entry": k.entry, "language": k.language,
            "measured_us": k.time_us, "chosen_by": k.chosen_by, "source": k.source,
            "why_not_another": [{"tactic": t, "reason": r} for t, r in k.rejected],
        }  # fmt: skip
    if s.kind == "host":
        out["slow_path"] = f"{s.op} runs its numpy reference on the host"
    if s.kind in ("branch", "jump"):
        out["target"] = s.target
    return out


def _print(d: dict[str, Any]) -> None:
    say(f"engine for {d['target']}, precision {d['manifest']['precision']}")
    rows: list[tuple[object, ...]]
    rows = [(kind, t["name"], t["dtype"], "x".join(t["shape"])) for kind in ("inputs", "outputs") for t in d[kind]]
    table("signature", ("", "name", "dtype", "shape"), rows)
    if d["symbols"]:
        rows = [(n, s["min"], s["opt"], s["max"], "data" if s["data_dependent"] else "input")
                for n, s in d["symbols"].items()]  # fmt: skip
        table("dynamic dimensions", ("symbol", "min", "opt", "max", "known from"), rows, numeric=(1, 2, 3))
    m = d["memory"]
    say(
        f"weights {size(m['weights'])} (once per session), arena {size(m['arena'])} (per context), "
        f"largest sum of live tensors {size(m['peak'])}, kernels {size(d['kernel_bytes'])}"
    )
    if "device_memory" in d:
        g = d["device_memory"]
        most = "not bounded" if g["most"] is None else f"at most {size(g['most'])}"
        buffers = "what their sizes ask" if g["buffers"] is None else size(g["buffers"])
        say(
            f"GPU memory of a process with one context: {most}; beside weights and arena, {buffers} for inputs and "
            f"outputs on the host, and up to {size(g['context'])} of the driver, kernels and captured graphs"
        )
    rows = []
    for s in d["steps"]:
        k = s.get("kernel", {})
        out = s["writes"][0] if s["writes"] else {"dtype": "", "shape": []}
        us = k.get("measured_us")
        moved = s["at_opt"]["bytes"]
        told = "" if moved is None else size(moved), "" if us is None else f"{us:.1f}"
        written = f"{out['dtype']} {'x'.join(out['shape'])}"
        rows.append((s["step"], s["name"], k.get("tactic", s["kind"]), written, *told, _some(s["onnx_nodes"])))
    columns = ("step", "ops", "kernel", "writes", "bytes", "us", "ONNX nodes")
    table(f"{d['manifest']['model']['nodes']} ONNX nodes in {len(rows)} steps", columns, rows, numeric=(0, 4, 5))
    for line in d["manifest"].get("kept_in_fp32", ()):
        say(f"stays in fp32: {line}")
    for line in d["manifest"].get("slow_paths", ()):
        say(f"slow path: {line}", style="yellow")
    for line in d["manifest"].get("notes", ()):
        say(f"note: {line}", style="yellow")


def _some(nodes: list[str], most: int = 2) -> str:
    return ", ".join(nodes[:most]) + (f" and {len(nodes) - most} more" if len(nodes) > most else "")


def _print_step(s: dict[str, Any]) -> None:
    say(f"step {s['step']}: {s['name']} ({s['kind']})")
    say(f"ONNX nodes: {', '.join(s['onnx_nodes']) or 'none'}")
    say(f"moves {s['bytes']} bytes, computes {s['flops']} operations")
    rows = [(side, t["name"], t["dtype"], "x".join(t["shape"]), t["space"], t["offset"], t["bytes"])
            for side in ("reads", "writes") for t in s[side]]  # fmt: skip
    table("tensors", ("", "name", "dtype", "shape", "space", "offset", "bytes"), rows, numeric=(5, 6))
    k = s.get("kernel")
    if k is None:
        return
    time = "not timed" if k["measured_us"] is None else f"{k['measured_us']:.2f} us"
    say(f"kernel {k['tactic']} {k['config']}: {time}, chosen by {k['chosen_by']}")
    rejected = [(r["tactic"], r["reason"]) for r in k["why_not_another"]]
    if rejected:
        table("why not another kernel", ("kernel", "reason"), rejected)
    else:
        say("why not another kernel: there is no other for this")
    say(k["source"])
