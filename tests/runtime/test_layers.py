"""The runtime stays lean, and the layers stay in order."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

import bessemer

BUILDER = [
    f"bessemer.{name}" for name in "ir ops frontend passes quant kernels targets lower tune plan builder cli".split()
]
HEAVY = ["onnx", "onnxruntime", "triton", "torch", "cuda", "typer", "rich", "hypothesis", *BUILDER]
PROBE = """
import json, sys, time
started = time.thread_time()
import {module}
seconds = time.thread_time() - started
print(json.dumps([seconds, sorted(sys.modules)]))
"""


def probe(module: str, bytecode: Path) -> tuple[float, set[str]]:
    """Seconds of CPU that a new process takes to import `module`, and all that it has imported then.

    Modules are compiled once, into the folder `bytecode`, as those of an installed package are.
    """
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    command = [sys.executable, "-X", f"pycache_prefix={bytecode}", "-c", PROBE.format(module=module)]
    result = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    seconds, modules = json.loads(result.stdout)
    return seconds, set(modules)


@pytest.mark.parametrize(
    "module", ["bessemer", "bessemer.engine.reader", "bessemer.runtime", "bessemer.runtime.session"]
)
def test_the_runtime_imports_no_builder_and_no_framework(module: str, tmp_path: Path) -> None:
    _, modules = probe(module, tmp_path)
    assert not modules & set(HEAVY)


@pytest.mark.parametrize("module", ["bessemer.runtime", "bessemer.runtime.session"])
def test_the_runtime_is_imported_in_a_fifth_of_a_second(module: str, tmp_path: Path) -> None:
    """CPU time of the best of five, numpy's own import in it: a busy machine must not fail it.

    The time is that of the thread which imports: the pool that numpy's OpenBLAS starts spins while it waits, for as
    long again where another core is idle.
    """
    assert min(probe(module, tmp_path)[0] for _ in range(5)) < 0.2


def test_public_names_resolve() -> None:
    for name in bessemer.__all__:
        assert getattr(bessemer, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        bessemer.nonsense  # noqa: B018
    assert set(bessemer.__all__) <= set(dir(bessemer))


def test_every_error_is_exported_and_drawn() -> None:
    from bessemer.core import errors

    tree = {n for n, v in vars(errors).items() if isinstance(v, type) and issubclass(v, errors.BessemerError)}
    assert tree == {n for n in bessemer.__all__ if n in vars(errors)}
    assert errors.__doc__ is not None
    assert all(name in errors.__doc__ for name in tree)


def test_import_contracts_hold() -> None:
    linter = Path(sysconfig.get_path("scripts")) / "lint-imports"
    if not linter.exists():
        pytest.skip("import-linter is not installed")
    result = subprocess.run([linter, "--no-cache"], capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert result.returncode == 0, result.stdout[-3000:]
