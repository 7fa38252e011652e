"""Concatenations along channels whose parts are written in place, from the model to the run."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bessemer import Profile, build, load
from bessemer.frontend.onnx import import_model
from bessemer.ir.interp import run
from tests.frontend.models import model, node, tensor, value

CHANNELS = 18


class Net:
    """A net of ONNX nodes on random weights; each method returns the name of what it makes. Channels are multiples of
    `step`."""

    def __init__(self, rng: np.random.Generator, step: int = 1) -> None:
        self.rng, self.step, self.nodes, self.weights = rng, step, [], []  # type: ignore[var-annotated]
        self.channels = -(-CHANNELS // step) * step

    def add(self, op: str, *inputs: str, **attrs: Any) -> str:
        out = f"v{len(self.nodes)}"
        self.nodes.append(node(op, inputs, [out], **attrs))
        return out

    def weight(self, *shape: int) -> str:
        name = f"w{len(self.weights)}"
        fan_in = max(1, int(np.prod(shape[1:])))
        self.weights.append(tensor(name, (self.rng.standard_normal(shape) / fan_in**0.5).astype(np.float32)))
        return name

    def conv(self, x: str, channels: int, to: int, size: int, groups: int = 1) -> str:
        filters = (self.weight(to, channels // groups, size, size), self.weight(to))
        return self.add("Conv", x, *filters, pads=[size // 2] * 4, group=groups)

    def part(self, x: str) -> tuple[str, int]:
        """A part with as many channels as nothing but `step` divides, and their number."""
        own = self.channels
        to = int(self.rng.integers(1, 40 // self.step)) * self.step
        match self.rng.integers(9):
            case 0:
                return self.add("Relu", self.conv(x, own, to, 1)), to
            case 1:
                return self.add("Sigmoid", self.conv(x, own, to, 3)), to
            case 2:
                residual = self.conv(x, own, to, 1)
                self.add("GlobalMaxPool", residual)
                return self.add("Add", residual, self.conv(x, own, to, 3)), to
            case 3:
                return self.add("Tanh", self.conv(x, own, own, 3, groups=own)), own
            case 4:
                return self.conv(x, own, 2 * to, 3, groups=2), 2 * to
            case 5:
                pools = {"kernel_shape": [3, 3], "pads": [1] * 4}
                return self.add(str(self.rng.choice(["MaxPool", "AveragePool"])), x, **pools), own
            case 6:
                return self.add("Mul", self.add("Exp", self.add("Neg", x)), x), own
            case 7:
                return self.add("ConvTranspose", x, self.weight(own, to, 3, 3), pads=[1] * 4), to
        return x, own

    def concatenation(self, x: str, parts: int) -> tuple[str, int]:
        made = [self.part(x) for _ in range(parts)]
        return self.add("Concat", *(name for name, _ in made), axis=1), sum(channels for _, channels in made)


def net(seed: int, step: int = 1) -> bytes:
    """Two concatenations one after the other, and what reads them."""
    n = Net(np.random.default_rng(seed), step)
    x = n.conv("x", 3, n.channels, 3)
    for _ in range(2):
        whole, channels = n.concatenation(x, int(n.rng.integers(2, 5)))
        x = n.add("Relu", n.conv(whole, channels, n.channels, 1))
    return model(n.nodes, [value("x", ["n", 3, 7, 9])], [x], n.weights).SerializeToString()


def placed(engine: Any) -> int:
    return sum("+concat" in step.name for step in engine.program.steps)


def check(engine: Any, proto: bytes, seed: int, within: float = 1e-4) -> None:
    """At several batches, the largest first, so that what an earlier run left does not pass for a result. `within` is
    the greatest error over the norm, as exponentials and sums that cancel leave single elements few digits."""
    graph, session, rng = import_model(proto), load(engine), np.random.default_rng(seed)
    for batch in (3, 1, 2, 1):
        x = rng.standard_normal((batch, 3, 7, 9)).astype(np.float32)
        want, got = run(graph, {"x": x}), session.run({"x": x})
        for name, array in want.items():
            off = np.linalg.norm((got[name] - array).ravel())
            assert off <= within * np.linalg.norm(array.ravel()), f"{name}, batch {batch}, seed {seed}"


@pytest.mark.parametrize("arch", ["cpu", "cpu:avx2", "cpu:scalar"])
def test_random_nets_at_any_batch(arch: str) -> None:
    first, found = int(np.random.default_rng().integers(1 << 30)), 0
    for seed in range(first, first + 2):
        engine = build(
            net(seed), target=arch, tune="off", profiles=[Profile({"x": ((1, 3, 7, 9), (2, 3, 7, 9), (4, 3, 7, 9))})]
        )
        check(engine, net(seed), seed)
        found += placed(engine)
    assert found, first


def fire_module(channels: int) -> bytes:
    """A concatenation of two convolutions, one read by another."""
    n = Net(np.random.default_rng(0))
    s = n.add("Relu", n.conv("x", 3, n.channels, 1))
    parts = [n.add("Relu", n.conv(s, n.channels, channels, size)) for size in (1, 3)]
    y = n.conv(n.add("Concat", *parts, axis=1), 2 * channels, 8, 1)
    return model(n.nodes, [value("x", ["n", 3, 7, 9])], [y], n.weights).SerializeToString()


def has_no_copies(engine: Any) -> bool:
    names = [step.name for step in engine.program.steps]
    convolutions = [name for name in names if name.startswith("conv")]
    return len(convolutions) == 4 and placed(engine) == 2 and not any(name.startswith("concat") for name in names)


def test_a_fire_module_has_no_copies() -> None:
    engine, proto = build(fire_module(21), tune="off"), fire_module(21)
    assert has_no_copies(engine)
    check(engine, proto, 0)


@pytest.mark.triton
@pytest.mark.parametrize(("channels", "precision"), [(21, "fp32"), (24, "fp16")])
def test_a_fire_module_has_no_copies_on_a_gpu_either(channels: int, precision: str) -> None:
    proto = fire_module(channels)
    engine = build(proto, target="cuda:sm_90", precision=precision, tune="off", shapes={"x": (1, 3, 7, 9)})
    assert has_no_copies(engine), [step.name for step in engine.program.steps]


@pytest.mark.gpu
@pytest.mark.parametrize(("step", "precision"), [(1, "fp32"), (1, "fp16"), (8, "fp16"), (8, "bf16")])
def test_random_nets_at_any_batch_on_a_gpu(step: int, precision: str) -> None:
    first, found = int(np.random.default_rng().integers(1 << 30)), 0
    within = {"fp32": 1e-4, "fp16": 1e-2, "bf16": 1e-1}[precision]
    for seed in range(first, first + 3):
        profile = Profile({"x": ((1, 3, 7, 9), (2, 3, 7, 9), (4, 3, 7, 9))})
        engine = build(net(seed, step), target="cuda", precision=precision, tune="off", profiles=[profile])
        check(engine, net(seed, step), seed, within)
        found += placed(engine)
    assert found, first


@pytest.mark.gpu
@pytest.mark.parametrize("step", [1, 8])
def test_every_kernel_that_is_tuned_for_columns_passes_its_screen_on_a_gpu(step: int) -> None:
    lines: list[str] = []
    seed = int(np.random.default_rng().integers(1 << 30))
    shapes = {"x": (1, 3, 7, 9)}
    engine = build(net(seed, step), target="cuda", precision="fp16", shapes=shapes, log=lines.append)
    assert not [line for line in lines if line.startswith("dropped")], (seed, lines)
    assert engine.program.steps


def test_every_kernel_that_is_tuned_for_columns_passes_its_screen() -> None:
    lines: list[str] = []
    seed = int(np.random.default_rng().integers(1 << 30))
    engine = build(net(seed), shapes={"x": (1, 3, 7, 9)}, log=lines.append)
    assert not [line for line in lines if line.startswith("dropped")], (seed, lines)
    assert engine.program.steps
