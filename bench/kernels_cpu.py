"""Single layers on the CPU: our tactics against the machine's limit and against onnxruntime, in the same run.

    python bench/kernels_cpu.py [resnet50 mobilenet ocr bert unet] [--runs 30] [--arch avx512] [--floor 545]

Each tactic and configuration that applies is timed on 2 threads and checked against float64; onnxruntime runs the same
layer (with bias and Relu) as a model of one node. `--floor` is the machine's f32 limit in GFLOP/s.
"""

from __future__ import annotations

import argparse
import ctypes
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from bessemer.kernels.base import Problem, Tactic  # noqa: E402
from bessemer.kernels.c.conv_depthwise import ConvDepthwise  # noqa: E402
from bessemer.kernels.c.conv_igemm import ConvIgemm  # noqa: E402
from bessemer.kernels.c.conv_lines import ConvLines  # noqa: E402
from bessemer.kernels.c.conv_transpose import ConvTransposeIgemm  # noqa: E402
from bessemer.kernels.c.conv_transpose_patches import ConvTransposePatches  # noqa: E402
from bessemer.kernels.c.conv_winograd import ConvWinograd  # noqa: E402
from bessemer.kernels.c.gemm import Gemm  # noqa: E402
from tests.kernels.c.cases import Case  # noqa: E402
from tests.kernels.c.harness import PAGE, Call, Machine, bias_relu, bind, f32, matmul_problem  # noqa: E402

TACTICS: list[Tactic] = [
    Gemm(),
    ConvIgemm(),
    ConvLines(),
    ConvWinograd(),
    ConvDepthwise(),
    ConvTransposeIgemm(),
    ConvTransposePatches(),
]


class Launch(ctypes.Structure):
    _fields_ = [("entry", ctypes.c_void_p), ("p", ctypes.c_void_p), ("d", ctypes.c_void_p), ("items", ctypes.c_int64)]


def pool() -> ctypes.CDLL:
    """The timing pool, compiled."""
    out = Path(tempfile.mkdtemp()) / "pool.so"
    subprocess.run(["gcc", "-O2", "-shared", "-fPIC", "-pthread", "-o", out, ROOT / "bench/kernels_pool.c"], check=True)
    return ctypes.CDLL(str(out))


def seconds(lib: ctypes.CDLL, call: Call, runs: int, threads: int = 2) -> float:
    """The best of `runs` runs of a bound call."""
    rows = (Launch * len(call.launches))()
    for row, (entry, p, d, items) in zip(rows, call.launches):
        row.entry, row.p, row.d = (ctypes.cast(v, ctypes.c_void_p) for v in (entry, p, d))
        row.items = items
    times = (ctypes.c_double * runs)()
    if lib.time_launches(rows, len(rows), threads, runs, times):
        raise RuntimeError("the timing pool did not start")
    return min(times)


def conv(
    channels: int, size: int | tuple[int, int], outputs: int, kernel: int, stride: int = 1, groups: int = 1
) -> Case:
    """A convolution with "same" padding at batch 1, bias and Relu."""
    h, w = (size, size) if isinstance(size, int) else size
    return Case(
        (1, channels, h, w), outputs, (kernel,) * 2, (stride,) * 2, (), (kernel // 2,) * 4, groups, "NHWC", True
    )


def up(channels: int, size: int, outputs: int, kernel: int = 2) -> Case:
    """A transposed convolution of stride 2."""
    pad = (kernel - 2) // 2
    return Case(
        (1, channels, size, size), outputs, (kernel,) * 2, (2, 2), (), (pad,) * 4, 1, "NHWC", True, "conv_transpose"
    )


MatMul = tuple[int, int, int, int]  # batch (0: constant B), M, K, N
LAYERS: dict[str, list[Case | MatMul]] = {
    "resnet50": [
        conv(3, 224, 64, 7, 2), conv(64, 56, 64, 1), conv(64, 56, 64, 3), conv(64, 56, 256, 1), conv(256, 56, 64, 1),
        conv(256, 56, 128, 1), conv(128, 56, 128, 3, 2), conv(128, 28, 128, 3), conv(128, 28, 512, 1),
        conv(256, 56, 512, 1, 2), conv(512, 28, 128, 1), conv(512, 28, 256, 1), conv(256, 28, 256, 3, 2),
        conv(256, 14, 256, 3), conv(256, 14, 1024, 1), conv(1024, 14, 256, 1), conv(512, 28, 1024, 1, 2),
        conv(1024, 14, 512, 1), conv(512, 14, 512, 3, 2), conv(512, 7, 512, 3), conv(512, 7, 2048, 1),
        conv(2048, 7, 512, 1), conv(1024, 14, 2048, 1, 2), (0, 1, 2048, 1000),
    ],
    "mobilenet": [
        conv(3, 224, 32, 3, 2), conv(32, 112, 32, 3, 1, 32), conv(32, 112, 16, 1), conv(16, 112, 96, 1),
        conv(96, 112, 96, 3, 2, 96), conv(96, 56, 24, 1), conv(24, 56, 144, 1), conv(144, 56, 144, 3, 1, 144),
        conv(144, 56, 24, 1), conv(144, 56, 144, 3, 2, 144), conv(192, 28, 32, 1), conv(192, 28, 192, 3, 1, 192),
        conv(64, 14, 384, 1), conv(384, 14, 384, 3, 1, 384), conv(384, 14, 64, 1), conv(576, 14, 96, 1),
        conv(160, 7, 960, 1), conv(960, 7, 960, 3, 1, 960), conv(960, 7, 320, 1), conv(320, 7, 1280, 1),
    ],
    "ocr": [
        conv(3, 640, 16, 3, 2), conv(16, 320, 16, 3, 1, 16), conv(16, 320, 32, 1), conv(64, 160, 64, 3, 1, 64),
        conv(96, 80, 96, 5, 1, 96), conv(96, 160, 24, 3), conv(256, 40, 24, 1), conv(24, 160, 24, 3),
        conv(96, (24, 160), 192, 1), up(24, 160, 24), up(24, 320, 1), conv(480, (3, 40), 60, 3), (0, 240, 120, 6625),
    ],
    "bert": [
        (0, 128, 768, 768), (0, 128, 768, 3072), (0, 128, 3072, 768), (0, 128, 384, 384), (0, 128, 384, 1536),
        (0, 128, 1536, 384), (12, 128, 64, 128), (12, 128, 128, 64), (0, 1, 768, 3072), (0, 1, 4096, 4096),
    ],
    "unet": [
        conv(64, 128, 64, 3), conv(128, 64, 128, 3), conv(256, 32, 256, 3), conv(512, 16, 512, 3),
        conv(384, 64, 128, 3),
        conv(4, 128, 64, 3), conv(64, 128, 4, 3),
    ],
}  # fmt: skip


def problem_of(layer: Case | MatMul) -> tuple[Problem, list[np.ndarray], np.ndarray, float]:
    """The problem, its arrays, the float64 result and the floating-point operations."""
    if isinstance(layer, Case):
        problem, arrays, want = layer.build()
        pixels = want.size if layer.op == "conv" else arrays[0].size
        return problem, arrays, want, 2.0 * pixels * math.prod(arrays[1].shape[1:])
    batch, m, k, n = layer
    rng = np.random.default_rng(0)
    lead = (batch,) if batch else ()
    a, b = (rng.standard_normal((*lead, *s)).astype(np.float32) for s in ((m, k), (k, n)))
    types = [f32(*lead, *s) for s in ((m, k), (k, n), (m, n))]
    if batch:
        return matmul_problem(*types, constant=False), [a, b], a.astype(np.float64) @ b, 2.0 * batch * m * k * n
    bias = rng.standard_normal(n).astype(np.float32)
    problem = matmul_problem(*types, epilogue=bias_relu(2, n), extra=(f32(n),))
    return problem, [a, b, bias], np.maximum(a.astype(np.float64) @ b + bias, 0), 2.0 * m * k * n


def peer(layer: Case | MatMul, arrays: Sequence[np.ndarray]) -> Callable[[], object]:
    """The layer in onnxruntime, 2 threads."""
    x, *weights = arrays
    relu = True
    if isinstance(layer, Case):
        x = np.ascontiguousarray(np.moveaxis(x, -1, 1))
        rank = len(layer.kernel)
        kind = "Conv" if layer.op == "conv" else "ConvTranspose"
        node = helper.make_node(
            kind, ["x", "w", "b"], ["t"], strides=layer.strides or (1,) * rank, pads=layer.pads or (0,) * 2 * rank,
            group=layer.groups,
        )  # fmt: skip
    elif layer[0]:
        node, relu = helper.make_node("MatMul", ["x", "w"], ["y"]), False
    else:
        node = helper.make_node("Gemm", ["x", "w", "b"], ["t"])
    nodes = [node, *([helper.make_node("Relu", ["t"], ["y"])] if relu else [])]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)]
    feed = {"x": x}
    constants = [numpy_helper.from_array(w, name) for w, name in zip(weights, "wb")]
    if not relu:
        inputs.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, weights[0].shape))
        feed["w"], constants = weights[0], []
    graph = helper.make_graph(
        nodes, "g", inputs, [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)], constants
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 2
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, feed)


def best(fn: Callable[[], object], runs: int) -> float:
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        fn()
        times.append(time.perf_counter() - start)
    return min(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=list(LAYERS))
    parser.add_argument("--runs", type=int, default=30)
    parser.add_argument("--arch", default="avx512")
    parser.add_argument("--floor", type=float, default=545.0, help="GFLOP/s of 2 threads")
    parser.add_argument("--all", action="store_true", help="print every configuration")
    args = parser.parse_args()
    lib = pool()
    for model in args.models:
        print(
            f"{model}: layer, floor us, ours us (GFLOP/s, of floor), default us, onnxruntime us, ratio, the best"
        )
        ratios = []
        for layer in LAYERS[model]:
            problem, arrays, want, flops = problem_of(layer)
            machine = Machine(args.arch)
            results = []
            for tactic in TACTICS:
                if tactic.applicable(problem, machine) is not None:
                    continue
                for config in tactic.configs(problem, machine):
                    call = bind(problem, tactic.emit(problem, machine, config), arrays, args.arch, slack=PAGE)
                    error = np.abs(call.run() - want).max() / max(1.0, np.abs(want).max())
                    label = f"{tactic.name} {' '.join(f'{k}={v}' for k, v in config.items())}"
                    if error > 1e-4:
                        raise RuntimeError(f"{label} is wrong by {error:.2e} on {layer}")
                    results.append((seconds(lib, call, args.runs), label, tactic.name))
            run = peer(layer, arrays)
            run()
            theirs = best(run, args.runs)
            del run  # its threads spin for a while, and would take our cores
            ours, label, _ = min(results)
            ratios.append(theirs / ours)
            floor = flops / args.floor / 1e9
            name = (
                f"{layer.x[1]}x{layer.x[2]} {layer.kernel[0]}/{layer.strides[0]} g{layer.groups} {layer.outputs}"
                if isinstance(layer, Case)
                else "x".join(map(str, layer))
            )
            print(
                f"  {name:24} {floor * 1e6:8.1f} {ours * 1e6:8.1f} ({flops / ours / 1e9:5.0f}, {floor / ours:4.2f}) "
                f"{results[0][0] * 1e6:8.1f} {theirs * 1e6:8.1f} {theirs / ours:6.2f}  {label}",
                flush=True,
            )
            if args.all:
                for t, other, _ in sorted(results):
                    print(f"      {t * 1e6:8.1f} {other}")
        print(f"  geometric mean of onnxruntime / ours: {math.exp(sum(map(math.log, ratios)) / len(ratios)):.2f}")


if __name__ == "__main__":
    main()
