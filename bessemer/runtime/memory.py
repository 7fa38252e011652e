"""What a process that runs an engine takes of a GPU's memory, told before anything runs."""

from __future__ import annotations

from bessemer.engine.program import Program

CONTEXT_BYTES = 300 << 20  # at most, of the driver, the kernels, and the captured graphs of as many shapes as are kept


def gpu_memory(program: Program) -> dict[str, int]:
    """Bytes of one session with one context, which runs in turn share, and `most`, their sum.

    `weights` once per session, `arena` and `buffers` (of inputs and outputs that are arrays on the host) once per
    context, `context` once per process and at most. Tensors whose sizes are known only while running come on top."""
    buffers = sum(program.tensors[n].nbytes for n in (*program.inputs, *program.outputs))
    parts = {
        "weights": program.weights_bytes, "arena": program.arena_bytes, "buffers": buffers, "context": CONTEXT_BYTES,
    }  # fmt: skip
    return {**parts, "most": sum(parts.values())}
