"""Convolution cases that every tactic is tried on where it applies."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bessemer.kernels.base import Problem, Tactic
from tests.kernels.c import reference
from tests.kernels.c.harness import bias_relu, compute, conv_problem, f32


@dataclass(frozen=True)
class Case:
    """x [N, C, *size] (in the layout's order once built), w [OC, C/groups, *kernel]."""

    x: tuple[int, ...]
    outputs: int
    kernel: tuple[int, ...]
    strides: tuple[int, ...] = ()
    dilations: tuple[int, ...] = ()
    pads: tuple[int, ...] = ()
    groups: int = 1
    layout: str = "NHWC"
    bias: bool = False
    op: str = "conv"
    output_padding: tuple[int, ...] = ()
    constant: bool = True

    def build(self, seed: int = 0) -> tuple[Problem, list[np.ndarray], np.ndarray]:
        """The problem, its arrays and the float64 result."""
        rng, rank = np.random.default_rng(seed), len(self.kernel)
        shape = self.x if self.layout == "NCHW" else (self.x[0], *self.x[2:], self.x[1])
        x = rng.standard_normal(shape).astype(np.float32)
        if self.op == "conv":
            w_shape: tuple[int, ...] = (self.outputs, self.x[1] // self.groups, *self.kernel)
        else:
            w_shape = (self.x[1], self.outputs // self.groups, *self.kernel)
        w = rng.standard_normal(w_shape).astype(np.float32)
        ones = (1,) * rank
        attrs = {
            "layout": self.layout, "strides": self.strides or ones, "dilations": self.dilations or ones,
            "pads": self.pads or (0,) * (2 * rank), "groups": self.groups,
        }  # fmt: skip
        if self.op == "conv_transpose":
            attrs["output_padding"] = self.output_padding or (0,) * rank
        want = getattr(reference, self.op)(x, w, **attrs)
        arrays = [x, w]
        epilogue, extra = None, ()
        if self.bias:
            arrays.append(rng.standard_normal(self.outputs).astype(np.float32))
            want = np.maximum(want + arrays[2], 0)
            epilogue, extra = bias_relu(want.ndim, self.outputs), (f32(self.outputs),)
        problem = conv_problem(
            f32(*x.shape), f32(*w.shape), f32(*want.shape), op=self.op, epilogue=epilogue, extra=extra,
            constant=self.constant, **attrs,
        )  # fmt: skip
        return problem, arrays, want


def check(
    tactic: Tactic, case: Case, arch: str, config: dict[str, int | str] | None = None, tolerance: float = 3e-6
) -> None:
    """The tactic's result is the oracle's, relative to the root of the reduction's length and to the largest value."""
    problem, arrays, want = case.build()
    got = compute(tactic, problem, arrays, arch, config)
    assert got.shape == want.shape
    assert np.isfinite(got).all()
    assert np.abs(got - want).max(initial=0) <= tolerance * max(1.0, np.abs(want).max(initial=0)), case


DENSE = [
    Case((1, 16, 7, 9), 24, (1, 1)),
    Case((2, 5, 7, 9), 3, (3, 3), pads=(1, 1, 1, 1), bias=True),
    Case((1, 3, 15, 17), 20, (7, 7), strides=(2, 2), pads=(3, 3, 3, 3), bias=True),
    Case((1, 33, 8, 8), 65, (3, 3), strides=(2, 2), pads=(0, 0, 1, 1)),
    Case((1, 20, 14, 14), 64, (1, 1), strides=(2, 2), bias=True),
    Case((2, 4, 9, 9), 8, (3, 2), dilations=(2, 3), pads=(2, 1, 0, 4)),
    Case((1, 64, 7, 7), 130, (3, 3), pads=(1, 1, 1, 1)),
    Case((0, 4, 7, 7), 8, (3, 3), pads=(1, 1, 1, 1)),
]
GROUPED = [
    Case((1, 12, 7, 9), 8, (3, 3), pads=(1, 1, 1, 1), groups=4, bias=True),
    Case((2, 64, 6, 5), 64, (3, 3), pads=(1, 1, 1, 1), groups=2),
    Case((1, 6, 6, 5), 12, (3, 3), pads=(1, 1, 1, 1), groups=6),
]
OTHER_RANKS = [
    Case((2, 6, 19), 10, (5,), strides=(2,), pads=(2, 1), dilations=(2,)),
    Case((1, 4, 5, 6, 7), 9, (3, 3, 2), strides=(1, 2, 1), pads=(1, 1, 1, 1, 1, 0), bias=True),
    Case((1, 4, 5, 6, 7), 8, (2, 2, 2), strides=(2, 2, 2), groups=2),
]
DEPTHWISE = [
    Case((1, 32, 14, 14), 32, (3, 3), pads=(1, 1, 1, 1), groups=32, bias=True),
    Case((2, 37, 9, 11), 37, (3, 3), strides=(2, 2), pads=(1, 1, 1, 1), groups=37),
    Case((1, 70, 9, 11), 70, (5, 5), pads=(2, 2, 2, 2), groups=70, bias=True),
    Case((1, 24, 12, 8), 24, (5, 5), strides=(2, 2), pads=(1, 2, 2, 1), groups=24),
    Case((1, 16, 7, 7), 16, (3, 3), strides=(2, 1), dilations=(1, 2), pads=(0, 0, 3, 3), groups=16, bias=True),
    Case((1, 16, 3, 3), 16, (7, 7), pads=(3, 3, 3, 3), groups=16),
    Case((2, 20, 23), 20, (3,), pads=(1, 1), groups=20),
    Case((1, 18, 4, 5, 6), 18, (3, 3, 3), pads=(1,) * 6, groups=18),
]
TRANSPOSED = [
    Case((1, 24, 8, 9), 24, (2, 2), strides=(2, 2), op="conv_transpose", bias=True),
    Case((2, 7, 5, 6), 20, (3, 3), strides=(2, 2), pads=(1, 1, 1, 1), output_padding=(1, 1), op="conv_transpose"),
    Case((1, 16, 5, 6), 8, (4, 4), strides=(2, 2), pads=(1, 1, 1, 1), op="conv_transpose", groups=4, bias=True),
    Case((1, 5, 4, 6), 3, (3, 2), strides=(3, 4), dilations=(2, 1), pads=(0, 1, 2, 0), op="conv_transpose"),
    Case((1, 6, 11), 4, (5,), strides=(2,), pads=(2, 2), op="conv_transpose"),
    Case((1, 6, 3, 4, 5), 4, (3, 3, 3), strides=(1, 2, 2), pads=(1,) * 6, op="conv_transpose"),
]
LINES = [
    Case((2, 3, 15, 17), 20, (7, 7), strides=(2, 2), pads=(3, 3, 3, 3), bias=True),
    Case((1, 4, 16, 16), 33, (3, 3), strides=(2, 2), pads=(0, 0, 1, 1)),
    Case((1, 1, 9, 9), 8, (3, 5), dilations=(2, 1), pads=(2, 1, 0, 4)),
    Case((1, 3, 9, 9), 8, (3, 3), strides=(1, 4)),
    Case((2, 2, 19), 10, (5,), strides=(2,), pads=(2, 1)),
    Case((1, 3, 4, 5, 6), 7, (2, 3, 3), pads=(1, 1, 1, 0, 1, 1)),
]
WINOGRAD = [
    Case((1, 16, 12, 8), 16, (3, 3), pads=(1, 1, 1, 1)),
    Case((2, 37, 9, 11), 50, (3, 3), pads=(1, 1, 1, 1), bias=True),
    Case((1, 64, 14, 14), 130, (3, 3), pads=(0, 2, 1, 0), bias=True),
    Case((1, 200, 6, 50), 24, (3, 3)),
    Case((0, 16, 6, 6), 16, (3, 3)),
]
PATCHES = [
    Case((1, 24, 8, 9), 24, (2, 2), strides=(2, 2), op="conv_transpose", bias=True),
    Case((2, 12, 5, 7), 1, (2, 2), strides=(2, 2), op="conv_transpose", bias=True),
    Case((1, 5, 4, 6), 3, (3, 4), strides=(3, 4), op="conv_transpose"),
    Case((1, 4, 2, 3, 5), 1, (2, 1, 3), strides=(2, 1, 3), op="conv_transpose"),
    Case((1, 6, 11), 9, (8,), strides=(8,), op="conv_transpose"),
]
