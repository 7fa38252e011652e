"""The ways to lower one graph, of which tuning finds the fastest: its norms whole, or taken apart."""

from __future__ import annotations

from bessemer.ir.graph import Graph
from bessemer.ir.verify import verify
from bessemer.lower.items import HostItem, KernelItem, Lowered
from bessemer.lower.lower import Estimate, Supports, lower
from bessemer.passes import normalize_readers, simplify
from bessemer.passes.base import PassOptions, apply


def ways(graph: Graph, options: PassOptions, supports: Supports, estimate: Estimate) -> list[Lowered]:
    """The plain way first. Another one has no more host steps, and products add up their rows themselves there."""
    plain = lower(graph, supports, estimate)
    apart = apply(simplify.PASS, apply(normalize_readers.PASS, graph, options), options)
    if all(node.op != "run_sums" for node in apart.nodes):
        return [plain]
    verify(apart)
    other = lower(apart, supports, estimate)
    alone = any(isinstance(i, KernelItem) and [n.op for n in i.nodes] == ["run_sums"] for i in other.items)
    return [plain] if alone or _host_steps(other) > _host_steps(plain) else [plain, other]


def _host_steps(lowered: Lowered) -> int:
    return sum(isinstance(i, HostItem) for i in lowered.items)
