"""CUDA C++ through the compilers' pool: cubins and ABIs, errors, and what is said where the compiler is missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from bessemer.core.errors import CompilerError
from bessemer.targets import compile_pool, nvrtc_compile
from bessemer.targets.compile_pool import Job, compile_all
from bessemer.targets.cuda import ARCHS, CudaTarget

needs_nvrtc = pytest.mark.skipif(nvrtc_compile.version() is None, reason="needs NVRTC")
TEXT = 'extern "C" __global__ void k(float *x, int n) { x[threadIdx.x] = n; }\n'
OPTIONS = (("cluster", 2), ("pdl", True), ("shared", 64), ("warps", 4))


def job(text: str = TEXT, options: tuple[tuple[str, object], ...] = OPTIONS, arch: str = "sm_90") -> Job:
    return Job(text, "k", arch, ("*fp32", "i32"), (), (), options, "cuda")


@needs_nvrtc
@pytest.mark.parametrize("arch", ARCHS)
def test_a_cubin_with_its_abi(arch: str, tmp_path: Path) -> None:
    (found,) = compile_all([job(arch=arch)], folder=tmp_path)
    assert isinstance(found, tuple), found
    cubin, abi = found
    assert cubin[:4] == b"\x7fELF" and abi == {
        "symbol": "k", "params": [64, 32], "scratch": [], "shared": 64, "warps": 4, "pdl": True, "cluster": 2,
    }  # fmt: skip


@needs_nvrtc
def test_errors_are_the_compilers(tmp_path: Path) -> None:
    broken, odd = compile_all([job("void k() { missing(); }"), job(options=(("warps", 4),))], folder=tmp_path)
    assert isinstance(broken, str) and 'identifier "missing" is undefined' in broken
    assert isinstance(odd, str) and "CUDA kernels with cluster, pdl, shared, warps" in odd


def test_without_the_compiler_there_are_no_cuda_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvrtc_compile, "version", lambda: None)
    target = CudaTarget("sm_90", ARCHS["sm_90"])
    assert target.languages == ("triton",)
    (note,) = target.notes
    assert "pip install 'bessemer[cuda]'" in note
    with pytest.raises(CompilerError, match="NVRTC"):
        compile_pool.compiler_version("cuda")


@needs_nvrtc
def test_timings_of_one_language_do_not_depend_on_the_others_compiler() -> None:
    target = CudaTarget("sm_90", ARCHS["sm_90"], languages=("cuda",))
    version = nvrtc_compile.version()
    assert version is not None and target.fingerprint()["cuda"] == version.split(".")[0], "whatever its minor release"
    assert "triton" not in target.fingerprint()
    assert target.notes == ()
