"""A program at one set of input shapes: the launches of its kernels, and the graphs captured of them."""

from __future__ import annotations

from dataclasses import dataclass, field

from bessemer.device.cuda_graph import Capture
from bessemer.device.cuda_kernel import Arguments, Kernel


@dataclass
class Launch:
    """One kernel launch of a state: `patches` are its arguments that are addresses of inputs and outputs."""

    kernel: Kernel
    grid: tuple[int, ...]
    args: Arguments
    patches: list[tuple[int, tuple[str, int], int]]  # argument, what it points to, and how many bytes into it


@dataclass
class State:
    """A program at one set of input shapes."""

    env: dict[str, int]
    outputs: tuple[tuple[int, ...] | None, ...]
    launches: dict[int, Launch] = field(default_factory=dict)  # by step
    graphs: dict[int, Capture] = field(default_factory=dict)  # by the segment's first step
    captured: dict[int, dict[tuple[str, int], int]] = field(default_factory=dict)  # addresses a graph was made with
    later: dict[int, bool] = field(default_factory=dict)  # whether a segment's sizes depend on data

    def forget_graphs(self) -> None:
        """Destroy them; the next run launches the kernels one by one and captures them again."""
        for graph in self.graphs.values():
            graph.close()
        self.graphs.clear()
        self.captured.clear()
