"""ONNX's own node test suite (`onnx.backend.test`), run on a target.

A case ends in one of three ways: it passes, it is refused with an error of Bessemer's tree, or it fails (wrong numbers,
wrong types, any other exception). What passes and what is refused is kept per target in node_suite_<target>.json.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from bessemer import builder
from bessemer.core import dtype as dt
from bessemer.core.errors import BessemerError, GraphError, InputError
from bessemer.device.cuda import Device
from bessemer.frontend.onnx import import_model
from bessemer.ir import interp
from bessemer.ir.verify import verify
from bessemer.options import BuildOptions
from bessemer.runtime.session import load
from bessemer.targets.cpu import CpuTarget, detect_level

Arrays = dict[str, np.ndarray]
PASS = "pass"
REFUSED = "refused: "
FAILED = "failed: "
REASON = 160  # characters of a refusal that are recorded

RANDOM = {"Bernoulli", "RandomUniform", "RandomUniformLike", "RandomNormal", "RandomNormalLike", "Multinomial"}

# Cases outside the ratio, and why.
EXCLUDED: Mapping[str, Callable[[Case], bool]] = {
    "training": lambda case: case.is_training,
    "strings": lambda case: onnx.TensorProto.STRING in case.element_types or "StringNormalizer" in case.ops,
    "image decoding": lambda case: "ImageDecoder" in case.ops,
    "random numbers, of which only type and shape are defined": lambda case: bool(case.ops & RANDOM),
    "classical machine learning (ai.onnx.ml)": lambda case: "ai.onnx.ml" in case.domains,
}


@dataclass(frozen=True)
class Case:
    """One case of the suite: a model of (mostly) one node, inputs and expected outputs in the order of the graph's."""

    name: str
    model: onnx.ModelProto
    inputs: tuple[Any, ...]
    outputs: tuple[Any, ...]
    rtol: float
    atol: float

    @property
    def ops(self) -> set[str]:
        return {node.op_type for node in self.model.graph.node}

    @property
    def domains(self) -> set[str]:
        return {node.domain for node in self.model.graph.node}

    @property
    def element_types(self) -> set[int]:
        values = (*self.model.graph.input, *self.model.graph.output)
        return {v.type.tensor_type.elem_type for v in values if v.type.WhichOneof("value") == "tensor_type"}

    @property
    def is_training(self) -> bool:
        """Optimizers, and Dropout and BatchNormalization in training mode (an input, or a flag)."""
        nodes = self.model.graph.node
        flag = any(a.name == "training_mode" and a.i for node in nodes for a in node.attribute)
        dropout = any(node.op_type == "Dropout" and len(node.input) == 3 for node in nodes)
        return flag or dropout or "ai.onnx.preview.training" in self.domains

    @property
    def excluded(self) -> str:
        """Why the case does not count in the ratio, or ""."""
        return next((why for why, holds in EXCLUDED.items() if holds(self)), "")


@cache
def cases() -> dict[str, Case]:
    """All cases by name."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from onnx.backend.test.case.node import collect_testcases

        found = collect_testcases(None)
    out = {}
    for case in found:
        inputs, outputs = case.data_sets[0]
        out[case.name] = Case(case.name, case.model, tuple(inputs), tuple(outputs), case.rtol, case.atol)
    return out


def run_reference(model: onnx.ModelProto, inputs: Arrays) -> Arrays:
    """Import and interpret."""
    graph = import_model(model)
    verify(graph)
    return interp.run(graph, {name: inputs[name] for name in graph.inputs})


def dynamic(model: onnx.ModelProto) -> onnx.ModelProto:
    """`model` with every dimension above 1 dynamic (equal sizes are one symbol)."""
    out = onnx.ModelProto()
    out.CopyFrom(model)
    for info in (*out.graph.input, *out.graph.output):
        if info.type.WhichOneof("value") == "tensor_type":
            for d in info.type.tensor_type.shape.dim:
                if d.dim_value > 1:
                    d.dim_param = f"n{d.dim_value}"
    return out


def run_cpu(model: onnx.ModelProto, inputs: Arrays) -> Arrays:
    """Build for this machine's CPU with untuned, quickly compiled kernels, and run."""
    target = CpuTarget(detect_level(), threads=2, optimise=False)
    engine = builder.run(model, BuildOptions(target, tune="off"))
    assert engine is not None
    with load(engine) as session:
        return session.run({info.name: inputs[info.name] for info in session.inputs})


@cache
def gpu() -> Device:
    """The GPU in this machine, whose context stays from case to case: to make one takes longer than most cases."""
    return Device()


def run_cuda(model: onnx.ModelProto, inputs: Arrays) -> Arrays:
    """Build for the GPU in this machine with untuned kernels, and run."""
    gpu()
    session = load(builder.build(model, target="cuda", tune="off"))
    try:
        return session.run({info.name: inputs[info.name] for info in session.inputs})
    finally:
        session.close()


RUNNERS: dict[str, Callable[[onnx.ModelProto, Arrays], Arrays]] = {
    "reference": run_reference,
    "reference-dynamic": lambda model, inputs: run_reference(dynamic(model), inputs),
    "cpu": run_cpu,
    "cpu-dynamic": lambda model, inputs: run_cpu(dynamic(model), inputs),
    "cuda": run_cuda,
    "cuda-dynamic": lambda model, inputs: run_cuda(dynamic(model), inputs),
}


def run_case(target: str, model: onnx.ModelProto, inputs: Arrays) -> Arrays:
    """Outputs of `model` on `target`, by name."""
    return RUNNERS[target](model, inputs)


def outcome(target: str, case: Case) -> str:
    """PASS, or REFUSED or FAILED with the reason."""
    names = [i.name for i in case.model.graph.input]
    try:
        inputs = {name: stored(value) for name, value in zip(names, case.inputs)}
        results = run_case(target, case.model, inputs)
    except (GraphError, InputError) as error:
        return FAILED + str(error)
    except BessemerError as error:
        return REFUSED + "; ".join(line.strip() for line in error.what.split("\n"))[:REASON]
    except Exception as error:  # any other exception is a defect, and named as one
        return f"{FAILED}{type(error).__name__}: {error}"
    problems = [
        f"{info.name}: {problem}"
        for info, expected in zip(case.model.graph.output, case.outputs)
        if (problem := difference(results[info.name], stored(expected), case))
    ]
    return FAILED + "; ".join(problems) if problems else PASS


def stored(value: Any) -> Any:
    """A tensor of the suite as Bessemer stores it (bf16 and narrow floats as bits, one value per byte)."""
    if isinstance(value, onnx.TensorProto):
        value = onnx.numpy_helper.to_array(value)
    if value is None or isinstance(value, list):
        return value
    array = np.asarray(value)
    if array.dtype.name in ("int4", "int2", "uint4", "uint2"):
        return array.astype(array.dtype.name[:-1] + "8")
    if array.dtype.name.startswith(("float8", "float4")):
        return array.view(np.uint8)
    return array.view(np.uint16) if array.dtype.name == "bfloat16" else array


def difference(got: np.ndarray, expected: Any, case: Case) -> str:
    """How an output differs from what is expected, or ""."""
    if case.excluded.startswith("random"):
        return "" if (got.dtype, got.shape) == (expected.dtype, expected.shape) else "wrong type or shape"
    if got.dtype != expected.dtype or got.shape != expected.shape:
        return f"{got.dtype}{list(got.shape)} is not {expected.dtype}{list(expected.shape)}"
    rtol, atol = case.rtol, case.atol
    if "DFT" in case.ops:
        atol = 1e-6  # where the sum is zero, the expected value is the rounding noise of a single-precision FFT
    if onnx.TensorProto.BFLOAT16 in case.element_types and got.dtype == np.uint16:
        got, expected, rtol = dt.from_bf16(got), dt.from_bf16(expected), 2**-6
    elif got.dtype == np.float16:
        rtol, atol = 2e-3, 1e-3
    if got.dtype.kind in "iub":
        wrong = got != expected
    else:
        wrong = ~np.isclose(got, expected, rtol=rtol, atol=atol, equal_nan=True)
    if not wrong.any():
        return ""
    where = tuple(int(k[0]) for k in np.nonzero(np.atleast_1d(wrong)))
    a, b = np.atleast_1d(got)[where], np.atleast_1d(expected)[where]
    return f"{int(wrong.sum())} of {wrong.size} elements are wrong, first at {list(where)}: {a} is not {b}"


# -- the golden file ----------------------------------------------------------------------------------------------


def golden_path(target: str) -> Path:
    return Path(__file__).with_name(f"node_suite_{target}.json")


def golden(target: str) -> dict[str, str]:
    """The recorded outcome of each case; empty where nothing is recorded."""
    path = golden_path(target)
    return dict(json.loads(path.read_text())["cases"]) if path.exists() else {}


def ratio(outcomes: Mapping[str, str]) -> tuple[int, int]:
    """(passed, counted) over the cases that are not excluded."""
    counted = [name for name, case in cases().items() if not case.excluded]
    return sum(outcomes.get(name) == PASS for name in counted), len(counted)
