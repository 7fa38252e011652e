"""Ahead-of-time compilation without a GPU: every architecture, the launch ABI, the cache, and failures."""

from __future__ import annotations

import errno
import json
import subprocess
from pathlib import Path

import pytest

from bessemer.core import dtype as dt
from bessemer.core.dim import sym
from bessemer.core.errors import BuildError, CompilerError
from bessemer.core.interval import Range
from bessemer.ir import expr as ex
from bessemer.kernels.base import Int, KernelCode, Launch, Problem, Ptr
from bessemer.kernels.triton.group import Group
from bessemer.targets import compile_pool, triton_compile
from bessemer.targets.base import resolve
from bessemer.targets.compile_pool import Job, compile_all
from bessemer.targets.cuda import ARCHS, CudaTarget, Request, cuda_target, installed_languages
from tests.kernels.triton.cases import group
from tests.kernels.triton.harness import compile_for, instructions, resources

pytestmark = pytest.mark.triton

TACTIC = Group()
AXES = ex.out_axes(2)


def emitted(problem: Problem, target: CudaTarget, number: int = 0) -> KernelCode:
    return TACTIC.emit(problem, target, TACTIC.configs(problem, target)[number])


def pointwise(fn: str, dtype: dt.DType, rows: int = 4096) -> Problem:
    shape = (rows, 1024)
    return group([(dtype, shape)], shape, dtype, ex.call(fn, ex.load(0, AXES, dtype)))


def softmax() -> Problem:
    r, q = ex.Axis("r"), ex.Axis("q")
    top = ex.Reduce("max", (("r", 1024),), ex.load(0, (AXES[0], r), dt.f32), dt.f32)
    above = ex.call("exp", ex.call("sub", ex.load(0, (AXES[0], q), dt.f32), top))
    total = ex.Reduce("sum", (("q", 1024),), above, dt.f32)
    e = ex.call("div", ex.call("exp", ex.call("sub", ex.load(0, AXES, dt.f32), top)), total)
    return group([(dt.f32, (64, 1024))], (64, 1024), dt.f32, e)


@pytest.mark.parametrize("arch", ARCHS)
def test_groups_compile_for_every_architecture(arch: str, tmp_path: Path) -> None:
    target = CudaTarget(arch, ARCHS[arch])
    problems = [softmax(), pointwise("sigmoid", dt.bf16), pointwise("erf", dt.f32), pointwise("atan", dt.f64)]
    for (kernel,) in compile_for(arch, [(p, emitted(p, target)) for p in problems], tmp_path):
        assert kernel.cubin[:4] == b"\x7fELF" and kernel.symbol == "group"
        usage = resources(kernel)
        assert usage["LOCAL"] == 0 and usage["REG"] <= 255


TARGET = CudaTarget("sm_90", ARCHS["sm_90"])
FLOATS = sorted(ex.UNARY - {"not", "bitnot", "popcount"}) + "div floordiv floormod fmod pow min max atan2".split()
INTEGERS = "div floordiv floormod fmod pow shl shr bitxor min neg abs sign bitnot".split()


@pytest.mark.parametrize("dtype", [dt.f32, dt.f64, dt.f16, dt.i64, dt.u8], ids=str)
def test_every_scalar_function_compiles(dtype: dt.DType, tmp_path: Path) -> None:
    """All of them in one kernel, as a sum."""
    x, y = (ex.load(k, (ex.Axis("i0"),), dtype) for k in range(2))
    total: ex.Expr = x
    for fn in FLOATS if dtype.is_float else INTEGERS:
        value = ex.call(fn, x) if fn in ex.UNARY else ex.call(fn, x, y)
        total = ex.call("add", total, value if value.dtype == dtype else ex.Select(value, x, y))
    problem = group([(dtype, (4096,))] * 2, (4096,), dtype, total)
    code = TACTIC.emit(problem, TARGET, {"form": "flat", "block": 128, "warps": 4})
    ((kernel,),) = compile_for("sm_90", [(problem, code)], tmp_path)
    assert resources(kernel)["REG"] <= 255


def test_loads_and_stores_are_16_bytes_wide(tmp_path: Path) -> None:
    problem = pointwise("exp", dt.f16)
    code = TACTIC.emit(problem, TARGET, {"form": "flat", "block": 1024, "warps": 4})
    ((kernel,),) = compile_for("sm_90", [(problem, code)], tmp_path)
    found = instructions(kernel)
    assert found.get("LDG.E.128") == 1 and found.get("STG.E.128") == 1


def test_known_divisors_widen_loads(tmp_path: Path) -> None:
    """A dynamic size that is a multiple of 8 gives 16-byte loads of f16; an unknown one single elements."""
    s = sym("s")
    widths = {}
    for multiple in (1, 8):
        ranges = {"s": Range(8, 4096, 1024, multiple)}
        problem = group([(dt.f16, (3, s))], (3, s), dt.f16, ex.call("exp", ex.load(0, AXES, dt.f16)), ranges)
        code = TACTIC.emit(problem, TARGET, {"form": "flat", "block": 1024, "warps": 4})
        ((kernel,),) = compile_for("sm_90", [(problem, code)], tmp_path)
        widths[multiple] = [n for n in instructions(kernel) if n.startswith("LDG")]
    assert widths == {1: ["LDG.E.U16"], 8: ["LDG.E.128"]}


def test_floats_are_rounded_to_nearest_even(tmp_path: Path) -> None:
    problem = group([(dt.f32, (4096,))], (4096,), dt.bf16, ex.cast(ex.load(0, AXES[:1], dt.f32), dt.bf16))
    code = TACTIC.emit(problem, TARGET, {"form": "flat", "block": 1024, "warps": 4})
    ((kernel,),) = compile_for("sm_90", [(problem, code)], tmp_path)
    assert any(n.startswith("F2FP.BF16") and ".RZ" not in n for n in instructions(kernel))


def test_the_abi_lists_parameters_and_hidden_pointers(tmp_path: Path) -> None:
    s = sym("s")
    problem = group(
        [(dt.f32, (s,))], (s,), dt.f32, ex.call("neg", ex.load(0, AXES[:1], dt.f32)), {"s": Range(1, 100, 10)}
    )
    target = CudaTarget("sm_90", ARCHS["sm_90"], folder=tmp_path)
    code = emitted(problem, target)
    kernel = target.compile_one(Request(problem, code, code.launches[0]))
    args = code.launches[0].args
    assert kernel.abi["params"] == [32 if isinstance(a, Int) else 64 for a in args]
    assert all(size == 0 for size, _ in kernel.abi["scratch"]) and kernel.abi["shared"] == 0
    assert json.loads(json.dumps(kernel.abi)) == kernel.abi


def test_equal_kernels_are_compiled_once_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = CudaTarget("sm_90", ARCHS["sm_90"], folder=tmp_path)
    problem = pointwise("tanh", dt.f32)
    code = emitted(problem, target)
    request = Request(problem, code, code.launches[0])
    seen: list[tuple[int, int]] = []
    first = target.compile([request, request], done=lambda n, of: seen.append((n, of)))
    assert seen == [(1, 1)] and first[0] == first[1]
    monkeypatch.setattr(compile_pool, "_take", lambda: pytest.fail("a kept kernel was compiled again"))
    assert target.compile([request]) == first[:1]


def test_a_damaged_result_is_compiled_again(tmp_path: Path) -> None:
    target = CudaTarget("sm_90", ARCHS["sm_90"], folder=tmp_path)
    problem = pointwise("neg", dt.f32)
    code = emitted(problem, target)
    request = Request(problem, code, code.launches[0])
    first = target.compile_one(request)
    (stored,) = tmp_path.rglob("*.cubin")
    stored.write_bytes(first.cubin[:100])
    assert target.compile_one(request) == first


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    text = HEAD + "@triton.jit\ndef k(x):\n    tl.store(x, 1.0)\n"
    with pytest.raises(BuildError, match="compiled kernels cannot be written: Not a directory") as caught:
        compile_all([Job(text, "k", "sm_90", ("*fp32",), (16,), (), ())], folder=tmp_path / "file")
    assert caught.value.where == str(tmp_path / "file")


def test_cubins_do_not_depend_on_the_folder(tmp_path: Path) -> None:
    problem, cubins = softmax(), []
    for name in ("a", "b"):
        compile_pool.close_idle()
        ((kernel,),) = compile_for("sm_90", [(problem, emitted(problem, TARGET))], tmp_path / name)
        cubins.append(kernel.cubin)
    assert cubins[0] == cubins[1]


def test_linking_gives_blobs_and_placements(tmp_path: Path) -> None:
    target = CudaTarget("sm_89", ARCHS["sm_89"], folder=tmp_path)
    codes = [(p, emitted(p, target)) for p in (softmax(), pointwise("exp", dt.f32), pointwise("exp", dt.f32, 8192))]
    linked = target.link(codes)
    places = [linked.placement(p, c, c.launches[0]) for p, c in codes]
    assert [linked.blobs[p.blob][:4] for p in places] == [b"\x7fELF"] * 3
    assert linked.blobs == target.link(codes[::-1]).blobs
    assert places[0].symbol == "group" and places[0].abi["warps"] >= 1


HEAD = "import triton\nimport triton.language as tl\n\n\n"
BROKEN = HEAD + "@triton.jit\ndef k(x, PDL: tl.constexpr):\n    tl.store(x, tl.load(x) + missing)\n"


def test_a_kernel_that_does_not_compile_is_named(tmp_path: Path) -> None:
    target = CudaTarget("sm_90", ARCHS["sm_90"], folder=tmp_path)
    problem = pointwise("exp", dt.f32)
    launch = Launch("k", (1,), (Ptr(0),), (("num_warps", 4),))
    with pytest.raises(CompilerError, match="k for group") as caught:
        target.compile_one(Request(problem, KernelCode("triton", BROKEN, (launch,)), launch))
    assert "missing" in str(caught.value) and caught.value.where == "sm_90"
    (text,) = target.compile([Request(problem, KernelCode("triton", BROKEN, (launch,)), launch)])
    assert isinstance(text, str) and "NameError" in text


def test_too_much_shared_memory_is_a_failure_of_that_candidate(tmp_path: Path) -> None:
    small = CudaTarget("sm_90", type(ARCHS["sm_90"])("tiny", 1, 16, 1, 1, 1), folder=tmp_path)
    index = (ex.Axis("i0"), ex.Axis("i2"), ex.Axis("i1"))
    turned = group([(dt.f16, (64, 64, 128))], (64, 128, 64), dt.f16, ex.load(0, index, dt.f16))
    code = TACTIC.emit(turned, small, {"form": "tile", "axis": 1, "by": 64, "bx": 64, "warps": 8})
    (kernel,) = small.compile([Request(turned, code, code.launches[0])])
    assert isinstance(kernel, str) and "shared memory" in kernel


def test_a_compiler_that_hangs_costs_one_kernel(tmp_path: Path) -> None:
    hang = "import time\ntime.sleep(60)\n"
    fine = HEAD + "@triton.jit\ndef k(x):\n    tl.store(x, 1.0)\n"
    die = "import os\nos._exit(3)\n"
    jobs = [Job(text, "k", "sm_90", ("*fp32",), (16,), (), (("num_warps", 4),)) for text in (hang, fine, die)]
    late, good, dead = compile_all(jobs, workers=2, timeout=4, folder=tmp_path)
    assert isinstance(late, str) and "more than 4 s" in late
    assert not isinstance(good, str) and good[1]["symbol"] == "k"
    assert isinstance(dead, str) and "exit code 3" in dead


def test_after_its_seconds_the_pool_is_stopped_and_nothing_counts_as_failed(tmp_path: Path) -> None:
    texts = ["import time\ntime.sleep(60)", "import time\ntime.sleep(61)"]
    jobs = [Job(text, "k", "sm_90", (), (), (), ()) for text in texts]
    assert compile_all(jobs, workers=1, folder=tmp_path, seconds=2.0) == [None, None]


def test_a_compiler_that_does_not_start_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And is no defect of the kernels that waited for it."""

    def refused(*command: object, **options: object) -> None:
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    monkeypatch.setattr(compile_pool, "_idle", [])
    monkeypatch.setattr(subprocess, "Popen", refused)
    with pytest.raises(CompilerError, match="a compiler process does not start: .*Cannot allocate memory") as caught:
        compile_all([Job("x", "k", "sm_90", (), (), (), ())], folder=tmp_path)
    assert caught.value.fix == "free memory, or end other processes"


def test_arguments_must_fit_the_kernel(tmp_path: Path) -> None:
    text = HEAD + "@triton.jit\ndef k(x, n):\n    tl.store(x, n)\n"
    (error,) = compile_all([Job(text, "k", "sm_90", ("*i32",), (16,), (), ())], folder=tmp_path)
    assert isinstance(error, str) and "k(x, n) is called with 1 arguments" in error


def test_targets_by_name() -> None:
    target = resolve("cuda:sm_90")
    assert (target.name, target.arch, target.languages) == ("cuda", "sm_90", installed_languages())
    assert target.limits["sms"] == 132 and target.fingerprint()["arch"] == "sm_90"
    with pytest.raises(BuildError, match="sm_13"):
        cuda_target("sm_13")


def test_without_triton_the_fix_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    triton_compile.version.cache_clear()
    try:
        with pytest.raises(CompilerError, match=r"bessemer\[cuda\]"):
            compile_all([Job("", "k", "sm_90", (), (), (), ())])
    finally:
        triton_compile.version.cache_clear()
