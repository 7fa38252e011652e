"""The cpu target: ISA levels, compilers, the cache of objects, and what goes wrong."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

import bessemer
from bessemer.core.errors import BuildError, CompilerError
from bessemer.device.cpu import Library
from bessemer.kernels.base import KernelCode, Launch, Problem
from bessemer.targets import c_compiler
from bessemer.targets.base import resolve
from bessemer.targets.c_compiler import INTRINSICS, Compiler, Source, compile_objects, find_compiler
from bessemer.targets.cpu import LEVELS, NEEDS, CpuTarget, cpu_flags, cpu_target, detect_level
from tests.kernels.c.harness import supported

PROBLEM = Problem("test", (), ())
SIGNATURE = "(void *const *p, const long *d, long begin, long end, long thread)"


def code(body: str, entry: str = "same") -> KernelCode:
    return KernelCode("c", f"void {entry}{SIGNATURE} {{ {body} }}\n", (Launch(entry, (1,), ()),))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BESSEMER_CACHE", str(tmp_path))
    return tmp_path / "objects"


def test_levels() -> None:
    level = detect_level()
    assert cpu_flags() >= NEEDS[level]
    assert all(not cpu_flags() >= NEEDS[better] for better in LEVELS[: LEVELS.index(level)])
    assert resolve("cpu").arch == level
    assert resolve("cpu:scalar").arch == "scalar"
    assert resolve("cpu:avx2", 3).limits["threads"] == 3
    with pytest.raises(BuildError, match="unknown ISA level 'mmx'"):
        resolve("cpu:mmx")
    with pytest.raises(BuildError, match="unknown target"):
        resolve("tpu")


def test_limits_and_fingerprint() -> None:
    target = cpu_target(threads=2)
    assert target.limits["l1"] < target.limits["l2"] < target.limits["l3"]
    assert target.limits["vector_bytes"] in (16, 32, 64)
    assert {"target", "arch", "cpu", "threads", "compiler"} <= set(target.fingerprint())


def test_kernels_of_one_name_live_in_one_object(cache: Path) -> None:
    target = cpu_target("scalar", 1)
    first, second = code("*(int *)p[0] = 1;"), code("*(int *)p[0] = 2;")
    linked = target.link([(PROBLEM, first), (PROBLEM, second), (PROBLEM, first)])
    symbols = {linked.placement(PROBLEM, c, c.launches[0]).symbol for c in (first, second)}
    assert len(symbols) == 2 and len(linked.blobs) == 1
    library = Library(linked.blobs[0])
    assert len({library.address(s) for s in symbols}) == 2


def test_equal_sources_give_equal_bytes(cache: Path) -> None:
    target = cpu_target("scalar", 1)
    codes = [code(f"*(int *)p[0] = {k};") for k in range(4)]
    blob = target.link((PROBLEM, c) for c in codes).blobs[0]
    assert target.link((PROBLEM, c) for c in reversed(codes)).blobs[0] == blob


def test_objects_are_compiled_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = Source("int f(void) { return 1; }\n", ("f",))
    (found,) = compile_objects([source], "scalar")
    assert isinstance(found, Path) and found.parent == cache
    broken = replace(find_compiler(), command=("false",))
    monkeypatch.setattr(c_compiler, "find_compiler", lambda: broken)
    assert compile_objects([source], "scalar") == [found]
    (other,) = compile_objects([source], "avx2")
    assert isinstance(other, str), "another ISA level is another object"


def test_a_kernel_that_does_not_compile_is_named(cache: Path) -> None:
    with pytest.raises(CompilerError, match="nonsense") as error:
        cpu_target("scalar", 1).link([(PROBLEM, code("nonsense here;", "strange"))])
    assert "strange" in str(error.value)
    good, bad = Source("int f(void) { return 1; }\n", ("f",)), Source("int g(void) { return x; }\n", ("g",))
    found = compile_objects([bad, good], "scalar")
    assert isinstance(found[0], str) and isinstance(found[1], Path)


def test_a_compiler_that_hangs_is_given_up(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = Compiler((sys.executable, "-c", "import time; time.sleep(30)"), "slow")
    monkeypatch.setattr(c_compiler, "find_compiler", lambda: slow)
    (found,) = compile_objects([Source("int f;\n", ())], "scalar", timeout=0.5)
    assert isinstance(found, str) and "did not finish" in found


def test_after_its_seconds_the_compiler_is_stopped(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(c_compiler, "processors", lambda: 1)
    command = ("sh", "-c", 'case "$*" in *slow*) sleep 60;; esac; touch kernel.o', "cc")
    monkeypatch.setattr(c_compiler, "find_compiler", lambda: c_compiler.Compiler(command, "patient"))
    sources = [c_compiler.Source(name, (name,)) for name in ("quick", "slow", "later")]
    quick, slow, later = c_compiler.compile_objects(sources, "scalar", seconds=1.0)
    assert isinstance(quick, Path) and slow is None and later is None


def test_no_compiler_says_how_to_get_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr(c_compiler.shutil, "which", lambda name: None)
    monkeypatch.setattr(c_compiler.importlib.util, "find_spec", lambda name: None)
    find_compiler.cache_clear()
    try:
        with pytest.raises(CompilerError, match=r"bessemer\[cpu\]"):
            find_compiler()
    finally:
        find_compiler.cache_clear()


@pytest.mark.skipif(not find_compiler().is_gnu, reason="another compiler than GCC")
def test_objects_are_the_same_with_a_precompiled_header(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = Source(f"{INTRINSICS}void f(int *p) {{ _mm_stream_si32(p, 1); }}\n", ("f",))
    (found,) = compile_objects([source], "scalar")
    assert isinstance(found, Path) and [path.stat().st_size > 1 << 20 for path in cache.glob("*.h.gch")] == [True]
    bytes_with = found.read_bytes()
    found.unlink()
    monkeypatch.setattr(c_compiler, "find_compiler", lambda: replace(find_compiler(), is_gnu=False))
    (found,) = compile_objects([source], "scalar")
    assert isinstance(found, Path) and found.read_bytes() == bytes_with


@pytest.mark.parametrize("fails", ["c-header", "-include"])
def test_a_header_that_cannot_be_precompiled_or_used_is_done_without(
    fails: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ("sh", "-c", f'case "$*" in *{fails}*) exit 1;; esac; touch kernel.o', "cc")
    monkeypatch.setattr(c_compiler, "find_compiler", lambda: Compiler(command, "strange", is_gnu=True))
    (found,) = compile_objects([Source(INTRINSICS, ())], "scalar")
    assert isinstance(found, Path)


def test_quick_compiles_use_other_objects(cache: Path) -> None:
    c = code("*(int *)p[0] = 1;")
    for optimise in (True, False):
        assert CpuTarget("scalar", 1, optimise).link([(PROBLEM, c)]).blobs
    assert len(list(cache.glob("*.o"))) == 4  # the kernel and the interpreter, twice


@pytest.mark.parametrize("arch", supported())
def test_concatenations_of_three_parts_at_full_optimisation(arch: str) -> None:
    """gcc 12 splits such loops wrongly where it is let (see c_compiler.py)."""
    rows = (4, 5, 6, 8, 10, 12, 20, 24, 40, 127)
    inputs = [helper.make_tensor_value_info(f"{k}{n}", TensorProto.FLOAT, [1, n, 3]) for n in rows for k in "abc"]
    outputs = [helper.make_tensor_value_info(f"y{n}", TensorProto.FLOAT, None) for n in rows]
    nodes = [helper.make_node("Concat", [f"{k}{n}" for k in "abc"], [f"y{n}"], axis=1) for n in rows]
    graph = helper.make_graph(nodes, "parts", inputs, outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    session = bessemer.load(bessemer.build(model, target=f"cpu:{arch}", tune="off"))
    rng = np.random.default_rng()
    feeds = {f"{k}{n}": rng.random((1, n, 3), np.float32) for n in rows for k in "abc"}
    found = session.run(feeds)
    for n in rows:
        assert np.array_equal(found[f"y{n}"], np.concatenate([feeds[f"{k}{n}"] for k in "abc"], 1)), n
