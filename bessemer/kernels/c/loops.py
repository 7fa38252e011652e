"""One stage of a compute group as a C function: which loops it gets, and the elementwise ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from bessemer.core.dim import ceildiv, product
from bessemer.ir import exprtree
from bessemer.kernels.base import Launch, Problem
from bessemer.kernels.c.blocks import Flat
from bessemer.kernels.c.reductions import across, reduce_here, write_blocks, write_elements
from bessemer.kernels.c.segments import write_segments
from bessemer.kernels.c.stages import Stage, Temporary, free_axes, outermost
from bessemer.kernels.c.tiles import transposed_axis, write_tiles
from bessemer.kernels.c.writer import ITEM, Writer


@dataclass(frozen=True)
class StageCode:
    """The text of a stage's function (without what it calls), helper functions by name, and its launch."""

    text: str
    helpers: Mapping[str, str]
    launch: Launch


def stage_code(problem: Problem, stage: Stage, temporaries: Sequence[Temporary], entry: str) -> StageCode:
    """The function `entry` that computes `stage`."""
    w = Writer(problem, stage, temporaries)
    w.bind_temporaries()
    whole = [r for r in outermost(w.expr) if free_axes(r) == {n for n, _ in w.stage.axes}]
    w.body.reduce = lambda r: reduce_here(w, r)
    tile = None if exprtree.reductions(w.expr) else transposed_axis(w)
    if tile is not None:
        write_tiles(w, tile)
    elif whole and (not w.stage.axes or not across(w, whole)):
        write_elements(w)
    elif whole:
        write_blocks(w)
    else:
        _write_rows(w)
    params, body = w.params, w.body
    items = ceildiv(w.units, w.group)
    lines = [*params.declarations(), *body.blocks[0].lines]
    head = f"void {entry}(void *const *p, const int64_t *d, int64_t begin, int64_t end, int64_t thread) {{\n"
    text = head + "".join(f"    {line}\n" for line in lines) + "}\n"
    return StageCode(text, w.helpers, Launch(entry, (items,), params.args))


def _write_rows(w: Writer) -> None:
    """An elementwise stage: loops over the last axis, rows or pieces of rows as units of work."""
    axes, weight = w.stage.axes, w.weight(w.expr)
    with ExitStack() as stack:
        if not axes:
            w.unit_loop(stack, 1, 1)
            w.store(w.expr)
            return
        *outer, (name, size) = axes
        length = w.typical(size) * weight
        inner = exprtree.reductions(w.expr)
        length += sum(w.trips(r) for r in inner)
        if not inner and (length >= 2 * ITEM or not outer):
            piece = max(64, ITEM // weight)
            pieces = ceildiv(size, piece)
            w.unit_loop(stack, product(s for _, s in outer) * pieces, piece * weight)
            text = w.block(pieces)
            if outer:
                w.body.blocks[-1].flat = Flat(f"(u / {text})", tuple(outer))
            w.cut("j", size, piece, f"(u % {text})" if outer else "u")
            bounds = ("j0", "j1")
        else:
            w.outer_loops(stack, tuple(outer), length)
            bounds = ("0", w.size(size))
        write_segments(w, w.expr, name, *bounds)
