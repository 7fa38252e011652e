"""What an engine says of itself: its target, its model, and what its builder wants its users to know."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bessemer import __version__
from bessemer.ir.graph import Graph
from bessemer.lower.items import HostItem, Lowered
from bessemer.targets.base import Target


def manifest(
    graph: Graph, lowered: Lowered, target: Target, precision: str, kept: Sequence[str], notes: Sequence[str]
) -> dict[str, Any]:
    """The manifest of an engine. `kept` are the nodes that stay in fp32."""
    slow = [f"{i.node.name or i.node.op}: {i.why}" for i in lowered.items if isinstance(i, HostItem) and i.why]
    return {
        "bessemer": __version__,
        "target": {
            "name": target.name, "arch": target.arch, "fingerprint": dict(target.fingerprint()),
            "threads": target.limits.get("threads", 1), "isa": list(getattr(target, "isa", ())),
        },
        "model": {"name": graph.name, "nodes": graph.source_nodes, "metadata": dict(graph.metadata)},
        "precision": precision,
        "slow_paths": slow,
        "kept_in_fp32": list(kept),
        "notes": list(notes),
    }  # fmt: skip
