"""A tiny engine made by hand: every kind of step, space, argument and symbol, and no device."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from bessemer.core import dtype as dt
from bessemer.core.dim import sym
from bessemer.core.interval import Range
from bessemer.engine.codec import encode
from bessemer.engine.engine import Engine, WeightPart, Weights
from bessemer.engine.program import Arg, Kernel, Program, Step, Symbol, Tensor
from bessemer.engine.writer import write_to

N, U = sym("n"), sym("u0")


def program() -> Program:
    """y = x * w, or a copy of x * w, by a flag; and the indices of what is not zero in it."""
    tensors = (
        Tensor("x", dt.f32, (N, 4), "input", 0, 128),
        Tensor("w", dt.f32, (4,), "weights", 0, 16),
        Tensor("h", dt.f32, (N, 4), "arena", 0, 128),
        Tensor("h as a vector", dt.f32, (4 * N,), "arena", 0, 128),
        Tensor("flag", dt.bool_, (), "arena", 128, 1),
        Tensor("y", dt.f32, (N, 4), "output", 0, 128),
        Tensor("indices", dt.i64, (U,), "dynamic", 0, 0),
        Tensor("b", dt.bf16, (3,), "weights", 64, 6),
    )
    kernel = Kernel(
        "scale", "c_group", {"tile": 8, "isa": "avx2"}, 0, "void scale(...) {}", "c", 1.5, "measured",
        (("c_gemm", "not group"),), {"shared": 0},
    )  # fmt: skip
    args = (Arg("tensor", 0), Arg("tensor", 1), Arg("tensor", 2), Arg("int", N * 4, 32), Arg("workspace", 0))
    scale = Step(
        "kernel", "mul", "group", ("Mul_0",), (0, 1), (2,), 0, args, (N,), flops=4 * N, nbytes=32 * N + 16,
        workspace=(192, 64),
    )  # fmt: skip
    attrs = {"axis": encode(1), "scale": encode(0.1), "to": encode(dt.f16), "size": encode(N + 1)}
    steps = (
        scale,
        Step("host", "any", "reduce", ("Any_1",), (3,), (4,), attrs=attrs),
        Step("branch", "branch on flag", reads=(4,), target=5),
        Step("copy", "copy h", "copy", (), (2,), (5,)),
        Step("jump", "jump", target=6),
        replace(scale, name="mul again", reads=(2, 1), writes=(5,), kernel=1, workspace=(0, 0),
                args=(Arg("tensor", 2), Arg("tensor", 5))),
        Step("host", "nonzero", "nonzero", ("NonZero_2",), (5,), (6,)),
    )  # fmt: skip
    symbols = {"n": Symbol(Range(1, 8, 4, 1), 0, 0), "u0": Symbol(Range(0, 32))}
    kernels = (kernel, replace(kernel, entry="again", blob=1, time_us=None, chosen_by="model"))
    return Program("tiny", (0,), (5,), tensors, steps, kernels, symbols, 256, 70, 193)


def weights() -> Weights:
    parts = (
        WeightPart(0, 16, lambda: np.arange(1, 5, dtype=np.float32)),
        WeightPart(64, 6, lambda: dt.to_bf16(np.array([1, 2, 3], np.float32))),
    )
    return Weights(70, parts=parts)


def engine(**changes: Any) -> Engine:
    """The engine, its program changed."""
    manifest = {
        "bessemer": "0.0.0",
        "target": {"name": "cpu", "arch": "avx2", "fingerprint": {"isa": "avx2"}},
        "model": {"name": "tiny", "nodes": 3, "metadata": {}},
        "precision": "fp32",
        "slow_paths": ["any: any runs its numpy reference"],
    }
    return Engine(manifest, replace(program(), **changes), (b"first binary", b"second"), weights())


def file_of(e: Engine) -> bytes:
    out = io.BytesIO()
    write_to(e, out)
    return out.getvalue()


def tensor(number: int, **changes: Any) -> Program:
    """The program with one tensor changed."""
    p = program()
    tensors = tuple(replace(t, **changes) if k == number else t for k, t in enumerate(p.tensors))
    return replace(p, tensors=tensors)


def step(number: int, **changes: Any) -> Program:
    """The program with one step changed."""
    p = program()
    return replace(p, steps=tuple(replace(s, **changes) if k == number else s for k, s in enumerate(p.steps)))


def symbol(name: str, change: Callable[[Symbol], Symbol]) -> Program:
    """The program with one symbol changed."""
    p = program()
    return replace(p, symbols={k: change(s) if k == name else s for k, s in p.symbols.items()})
