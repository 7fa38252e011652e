"""bessemer diff A B"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated, Any

import typer

from bessemer.cli.report import say, say_json, table
from bessemer.cli.verbs.inspect import describe
from bessemer.engine.reader import read

NAME = "diff"


def command(
    a: Annotated[Path, typer.Argument(metavar="A", help="An engine file.")],
    b: Annotated[Path, typer.Argument(metavar="B", help="Another engine file.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show what differs between two engines; status 1 where anything does."""
    first, second = read(a), read(b)
    left, right = ({**describe(e), "weights": f"sha256 {e.weights.sha256()[:16]}"} for e in (first, second))
    rows = [*_facts(left, right), *_steps(left["steps"], right["steps"])]
    if as_json:
        say_json([{"what": w, "a": x, "b": y} for w, x, y in rows])
    elif rows:
        table(f"{a} against {b}", ("what", str(a), str(b)), rows)
    else:
        say("no difference")
    raise typer.Exit(1 if rows else 0)


def _facts(a: dict[str, Any], b: dict[str, Any]) -> list[tuple[str, str, str]]:
    flat_a, flat_b = (_flat({k: v for k, v in d.items() if k != "steps"}) for d in (a, b))
    keys = sorted(flat_a.keys() | flat_b.keys())
    return [(k, flat_a.get(k, "-"), flat_b.get(k, "-")) for k in keys if flat_a.get(k) != flat_b.get(k)]


def _flat(data: Any, prefix: str = "") -> dict[str, str]:
    if isinstance(data, dict):
        parts = (_flat(value, f"{prefix}.{key}" if prefix else key) for key, value in data.items())
        return {k: v for part in parts for k, v in part.items()}
    return {prefix: str(data)}


def _steps(a: list[dict[str, Any]], b: list[dict[str, Any]]) -> list[tuple[str, str, str]]:
    """Steps that compute the same for the same ONNX nodes are held against each other in their order."""
    rows = [("steps", str(len(a)), str(len(b)))] if len(a) != len(b) else []
    left: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for step in b:
        left.setdefault((step["name"], *step["onnx_nodes"]), []).append(step)
    for step in a:
        others = left.get((step["name"], *step["onnx_nodes"]))
        other = others.pop(0) if others else None
        if other is None or _kernel(step) != _kernel(other):
            rows.append((_title(step), _kernel(step), "-" if other is None else _kernel(other)))
        elif _source(step) != _source(other):
            rows.append((f"{_title(step)}: source", _digest(_source(step)), _digest(_source(other))))
    return rows + [(_title(step), "-", _kernel(step)) for others in left.values() for step in others]


def _title(step: dict[str, Any]) -> str:
    return f"step {step['step']} {step['name']}"


def _source(step: dict[str, Any]) -> str:
    return str(step.get("kernel", {}).get("source", ""))


def _digest(text: str) -> str:
    return f"sha256 {hashlib.sha256(text.encode()).hexdigest()[:16]}"


def _kernel(step: dict[str, Any]) -> str:
    k = step.get("kernel")
    if k is None:
        return str(step["kind"])
    time = "" if k["measured_us"] is None else f" {k['measured_us']:.1f} us"
    return f"{k['tactic']} {k['config']}{time}"
