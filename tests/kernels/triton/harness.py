"""Runs KernelCode. Without a GPU `interpret` computes it in Triton's interpreter, `compile_for` compiles it ahead of
time, and `resources` and `instructions` look into what came out; `run_on_gpu` runs the cubins on this machine's GPU."""

from __future__ import annotations

import atexit
import pickle
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from bessemer.core import dtype as dt
from bessemer.core.dim import evaluate
from bessemer.core.dtype import DType
from bessemer.device.cuda import Device
from bessemer.device.tensor_map import EncodedMap
from bessemer.ir.graph import TensorType
from bessemer.kernels.base import COUNTERS, TRANSFORMS, WORKSPACE, Arg, Int, KernelCode, Launch, Map, Problem
from bessemer.targets.cuda import ARCHS, CompiledKernel, CudaTarget, Request
from bessemer.tune.oracle import as_values, outputs_in
from tests.kernels.triton.waits import check_waits

TORCH = {"f64": "float64", "f32": "float32", "f16": "float16", "bf16": "bfloat16", "i64": "int64", "i32": "int32",
         "i16": "int16", "i8": "int8", "u64": "uint64", "u32": "uint32", "u16": "uint16", "u8": "uint8",
         "bool": "int8"}  # fmt: skip
NOT_CONSTEXPR = ("num_warps", "num_stages", "num_ctas", "maxnreg")
GUARD = b"\xff" * 256  # NaN, -1
Array = np.ndarray[Any, Any]


class _Worker:
    """The interpreter's process, started on first use."""

    def __init__(self) -> None:
        path = Path(__file__).with_name("worker.py")
        self.process = subprocess.Popen([sys.executable, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        atexit.register(self.stop)

    def stop(self) -> None:
        self.process.kill()
        self.process.communicate()

    def run(self, job: dict[str, Any], timeout: float) -> dict[str, Any]:
        assert self.process.stdin is not None and self.process.stdout is not None
        alarm = threading.Timer(timeout, self.process.kill)
        alarm.start()
        try:
            pickle.dump(job, self.process.stdin)
            self.process.stdin.flush()
            answer: dict[str, Any] = pickle.load(self.process.stdout)
        except (EOFError, BrokenPipeError):
            _worker.cache_clear()
            return {"error": f"the interpreter died or took more than {timeout} s"}
        finally:
            alarm.cancel()
        return answer


@lru_cache(maxsize=1)
def _worker() -> _Worker:
    return _Worker()


def to_bits(values: Array, dtype: DType) -> Array:
    """Float32 values as a bf16 operand is stored; other dtypes as they are."""
    return dt.to_bf16(values) if dtype == dt.bf16 else np.ascontiguousarray(values, dtype.numpy)


def interpret(
    problem: Problem, code: KernelCode, operands: Sequence[Array], env: Mapping[str, int] | None = None,
    timeout: float = 240,
) -> list[Array]:  # fmt: skip
    """The outputs of `code` on `operands` (bf16 as float32 values, in and out). AssertionError where it fails.

    Outputs and workspace start as NaN; guards around all buffers are checked after the run."""
    env = dict(env or {})
    check_waits(problem, code)
    buffers = buffers_of(problem, code, operands, env)
    launches = [_launch(launch, env) for launch in code.launches]
    count = len(operands)
    outputs = list(range(count, count + len(problem.outputs)))
    job = {"text": code.text, "buffers": buffers, "launches": launches, "outputs": [*outputs, COUNTERS]}
    answer = _worker().run(job, timeout)
    assert "error" not in answer, f"{answer['error']}\n{code.text}"
    assert not any(answer["outputs"][COUNTERS]), "counters were left other than zero"
    return outputs_of(problem, [answer["outputs"][k] for k in outputs], env)


def buffers_of(
    problem: Problem, code: KernelCode, operands: Sequence[Array], env: Mapping[str, int]
) -> dict[int, tuple[bytes, str]]:
    """The bytes (and torch's dtype) of every pointer argument: operands as packed, poisoned outputs and workspace."""
    packs = {p.operand: p for p in code.packs}
    buffers: dict[int, tuple[bytes, str]] = {}
    for k, (operand, values) in enumerate(zip(problem.operands, operands, strict=True)):
        bits, dtype = to_bits(values, operand.type.dtype), operand.type.dtype
        if k in packs:
            bits = np.ascontiguousarray(TRANSFORMS.get(packs[k].transform).apply(bits, *packs[k].params))
            dtype = packs[k].type.dtype
        buffers[k] = (bits.tobytes(), TORCH[dtype.name])
    for j, out in enumerate(problem.written):
        buffers[len(operands) + j] = (b"\xff" * _nbytes(out, env), TORCH[out.dtype.name])
    buffers[COUNTERS] = (bytes(4 * max(1, evaluate(code.counters, env))), "int32")
    buffers[WORKSPACE] = (b"\xff" * max(4, evaluate(code.workspace, env)), "float32")
    return buffers


def run_on_gpu(
    problem: Problem, code: KernelCode, operands: Sequence[Array], env: Mapping[str, int] | None = None
) -> list[Array]:
    """The outputs of `code`, compiled for and run on GPU 0, with guards around all buffers as in `interpret`."""
    env, device = dict(env or {}), _device()
    kernels = compile_for(device.info.arch, [(problem, code)])[0]
    buffers = buffers_of(problem, code, operands, env)
    addresses: dict[int, int] = {}
    for number, (data, _) in buffers.items():
        whole = np.frombuffer(GUARD + data + GUARD, np.uint8)
        base = device.alloc(len(whole))
        device.upload(base, whole.ctypes.data, len(whole))
        addresses[number] = base + len(GUARD)
    stream = device.stream()
    kept = []
    for launch, kernel in zip(code.launches, kernels):
        loaded = device.load(kernel.cubin)
        runnable = loaded.kernel(kernel.symbol, kernel.abi)
        grid = [evaluate(d, env) for d in launch.grid]
        args = runnable.arguments([_argument(device, problem, a, addresses, env) for a in launch.args])
        for number, nbytes in enumerate(runnable.scratch_bytes(grid)):
            if nbytes:
                args.scratch(number, device.alloc(nbytes))
        runnable.launch(grid, args, stream)
        kept.append((loaded, args))
    stream.synchronize()
    results = {number: _fetched(device, addresses[number], len(data)) for number, (data, _) in buffers.items()}
    assert not any(results[COUNTERS][len(GUARD) : -len(GUARD)]), "counters were left other than zero"
    for number, data in results.items():
        assert data.startswith(GUARD) and data.endswith(GUARD), f"buffer {number} was written outside its bounds"
    for loaded, _ in kept:
        loaded.close()
    for address in addresses.values():
        device.free(address - len(GUARD))
    stream.close()
    count = len(operands)
    return outputs_of(problem, [results[count + j][len(GUARD) : -len(GUARD)] for j in range(len(problem.outputs))], env)


def _argument(
    device: Device, problem: Problem, arg: Arg, addresses: Mapping[int, int], env: Mapping[str, int]
) -> int | EncodedMap:
    if isinstance(arg, Int):
        return evaluate(arg.value, env)
    if isinstance(arg, Map):
        return device.tensor_map(problem.operands[arg.operand].type.dtype, addresses[arg.operand], arg.map.at(env))
    return addresses[arg.operand]


def _fetched(device: Device, address: int, nbytes: int) -> bytes:
    """A buffer with its guards."""
    whole = np.empty(nbytes + 2 * len(GUARD), np.uint8)
    device.download(whole.ctypes.data, address - len(GUARD), len(whole))
    return whole.tobytes()


@lru_cache(maxsize=1)
def _device() -> Device:
    return Device(0)


def _nbytes(t: TensorType, env: Mapping[str, int]) -> int:
    return evaluate(t.numel, env) * t.dtype.itemsize


def outputs_of(problem: Problem, data: Sequence[bytes], env: Mapping[str, int]) -> list[Array]:
    """The outputs as numbers, from the bytes of what they were written to; columns lie between poison."""
    outputs, beside = outputs_in(problem, [np.frombuffer(d, np.uint8) for d in data], env)
    assert all((b == 0xFF).all() for b in beside), f"wrote beside {problem.into}"
    return [as_values(a, t.dtype) for a, t in zip(outputs, problem.outputs)]


def _launch(launch: Launch, env: Mapping[str, int]) -> tuple[Any, ...]:
    grid = tuple(evaluate(d, env) for d in launch.grid)
    args = [("int", evaluate(a.value, env)) if isinstance(a, Int) else ("ptr", a.operand) for a in launch.args]
    options = {k: v for k, v in launch.options if k not in NOT_CONSTEXPR}
    return launch.entry, (*grid, 1, 1)[:3], args, {**options, "PDL": False}


def compile_for(
    arch: str, kernels: Sequence[tuple[Problem, KernelCode]], folder: Path | None = None
) -> list[list[CompiledKernel]]:
    """The cubins of each kernel's launches for one architecture. AssertionError with the compiler's text."""
    for problem, code in kernels:
        check_waits(problem, code)
    requests = [Request(problem, code, launch) for problem, code in kernels for launch in code.launches]
    found = CudaTarget(arch, ARCHS[arch], folder=folder).compile(requests)
    for request, kernel in zip(requests, found):
        assert not isinstance(kernel, str), f"{arch}: {request.label}: {kernel}\n{request.code.text}"
    rest = iter(k for k in found if not isinstance(k, str))
    return [[next(rest) for _ in code.launches] for _, code in kernels]


@lru_cache(maxsize=1)
def _cuobjdump() -> str:
    import triton

    return str(Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump")


def _dump(cubin: bytes, option: str) -> str:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        return subprocess.run([_cuobjdump(), option, file.name], capture_output=True, text=True, check=True).stdout


def resources(kernel: CompiledKernel) -> dict[str, int]:
    """`REG` (registers per thread), `STACK` and `LOCAL` (bytes that did not fit into them), `SHARED` (static bytes)."""
    usage = re.findall(r"(REG|STACK|LOCAL|SHARED):(\d+)", _dump(kernel.cubin, "-res-usage"))
    return {name: int(value) for name, value in usage}


def instructions(kernel: CompiledKernel) -> dict[str, int]:
    """How often each machine instruction occurs: HGMMA is wgmma, HMMA mma, LDG.E.128 a 16-byte load."""
    out: dict[str, int] = {}
    line = r"^\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][\w.]*)"
    for name in re.findall(line, _dump(kernel.cubin, "-sass"), re.M):
        out[name] = out.get(name, 0) + 1
    return out
