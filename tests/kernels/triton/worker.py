"""Runs kernels in Triton's interpreter: a process of its own, for the interpreter is chosen when Triton is imported.

Reads pickled jobs from stdin, writes pickled answers to stdout: {"outputs": {operand: bytes}} or {"error": text}.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pickle
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any

os.environ["TRITON_INTERPRET"] = "1"

import numpy as np
import torch
import triton.runtime.interpreter as interpreter

GUARD = 256  # bytes of 0xFF (NaN, -1) on either side of every buffer


def let_tensors_bound_loops() -> None:
    """Triton 3.6 makes an int of a one-element array where a tensor bounds a `range`, which numpy 2.4 refuses."""
    patch = interpreter._patch_lang_tensor

    def patched(tensor: Any, scope: Any) -> None:
        patch(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.item()))

    interpreter._patch_lang_tensor = patched


def tensor(data: bytes, dtype: str) -> tuple[torch.Tensor, torch.Tensor]:
    """A buffer with guards, and the tensor between them."""
    whole = torch.full((len(data) + 2 * GUARD,), 255, dtype=torch.uint8)
    whole[GUARD : GUARD + len(data)] = torch.from_numpy(np.frombuffer(data, np.uint8).copy())
    return whole, whole[GUARD : GUARD + len(data)].view(getattr(torch, dtype))


def load(text: str, folder: Path) -> Any:
    """The module of a kernel's text."""
    path = folder / f"m{abs(hash(text))}.py"
    path.write_text(text)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(job: dict[str, Any], folder: Path) -> dict[str, Any]:
    """All launches of one job, in order, on its buffers."""
    module = load(job["text"], folder)
    buffers = {number: tensor(data, dtype) for number, (data, dtype) in job["buffers"].items()}
    for entry, grid, args, options in job["launches"]:
        values = [buffers[v][1] if kind == "ptr" else v for kind, v in args]
        getattr(module, entry)[grid](*values, **options)
    for number, (whole, _) in buffers.items():
        if not bool((whole[:GUARD] == 255).all() and (whole[-GUARD:] == 255).all()):
            return {"error": f"buffer {number} was written outside its bounds"}
    return {"outputs": {n: buffers[n][1].view(torch.uint8).numpy().tobytes() for n in job["outputs"]}}


def main() -> None:
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what kernels print must not reach the answers
    let_tensors_bound_loops()
    with tempfile.TemporaryDirectory() as folder:
        while True:
            try:
                job = pickle.load(sys.stdin.buffer)
            except EOFError:
                return
            try:
                with contextlib.redirect_stdout(sys.stderr), np.errstate(all="ignore"):
                    answer = run(job, Path(folder))
            except Exception:
                answer = {"error": traceback.format_exc()}
            pickle.dump(answer, answers)
            answers.flush()


if __name__ == "__main__":
    main()
