"""The order of the passes; nothing else decides it."""

from __future__ import annotations

from collections.abc import Callable

from bessemer.ir.graph import Graph
from bessemer.ir.verify import verify
from bessemer.passes import (
    fold_affine,
    fold_constants,
    fold_pad,
    late_slices,
    layout,
    lift_conv1d,
    pad_channels,
    precision,
    repeat_casts,
    simplify,
    tf32,
)
from bessemer.passes.base import Pass, PassOptions, apply
from bessemer.passes.fusion import PATTERNS

FOLD: tuple[Pass, ...] = (fold_affine.PASS, fold_pad.PASS, simplify.PASS)
FUSE: tuple[Pass, ...] = (fold_constants.PASS, simplify.PASS, *PATTERNS, simplify.PASS, *FOLD)
LAYOUT: tuple[Pass, ...] = (lift_conv1d.PASS, layout.PASS, simplify.PASS, *FOLD, late_slices.PASS)
PRECISION: tuple[Pass, ...] = (precision.PASS, pad_channels.PASS, tf32.PASS, simplify.PASS, repeat_casts.PASS)

STAGES: tuple[tuple[str, tuple[Pass, ...]], ...] = (("fuse", FUSE), ("layout", LAYOUT), ("precision", PRECISION))


def run(graph: Graph, options: PassOptions, after: Callable[[str, Graph], PassOptions | None] | None = None) -> Graph:
    """All passes in order. The graph is verified after each stage; `after` is told (stage, graph), and may answer with
    the options of the stages to come."""
    for stage, passes in STAGES:
        for pass_ in passes:
            graph = apply(pass_, graph, options)
        verify(graph)
        if after is not None:
            options = after(stage, graph) or options
    return graph
