"""What a process that runs an engine takes of a GPU's memory, told before anything runs."""

from __future__ import annotations

from bessemer.core.dim import symbols
from bessemer.engine.program import Program

CONTEXT_BYTES = 300 << 20  # at most, of the driver, the kernels, and the captured graphs of as many shapes as are kept


def gpu_memory(program: Program) -> dict[str, int | None]:
    """Bytes of one session with one context, which runs in turn share, and `most`, their sum.

    `weights` once per session, `arena` and `buffers` (of inputs and outputs that are arrays on the host) once per
    context, `context` once per process and at most. Tensors whose sizes are known only while running come on top.
    `buffers` and `most` are None where a dimension of an input or output has no upper end."""
    bound = [program.tensors[n] for n in (*program.inputs, *program.outputs)]
    parts = {"weights": program.weights_bytes, "arena": program.arena_bytes, "context": CONTEXT_BYTES}
    if any(not program.symbols[name].range.bounded for t in bound for d in t.shape for name in symbols(d)):
        return {**parts, "buffers": None, "most": None}
    buffers = sum(t.nbytes for t in bound)
    return {**parts, "buffers": buffers, "most": sum(parts.values()) + buffers}
