"""Canonical JSON, registries and errors."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bessemer.core import canon
from bessemer.core.errors import BessemerError, EngineFormatError, EngineMismatchError
from bessemer.core.registry import Registry

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda t: st.lists(t, max_size=4) | st.dictionaries(st.text(max_size=5), t, max_size=4),
    max_leaves=12,
)


def reversed_keys(data: Any) -> Any:
    if isinstance(data, dict):
        return {k: reversed_keys(v) for k, v in reversed(data.items())}
    return [reversed_keys(v) for v in data] if isinstance(data, list) else data


@given(JSON)
def test_canonical_json_round_trips_and_ignores_key_order(data: Any) -> None:
    text = canon.dumps(data)
    assert json.loads(text) == data
    assert canon.dumps(reversed_keys(data)) == text
    assert canon.digest(reversed_keys(data)) == canon.digest(data)


def test_canonical_json_refuses_what_has_no_one_spelling() -> None:
    for bad in (float("nan"), float("inf"), {1, 2}, object()):
        with pytest.raises((ValueError, TypeError)):
            canon.dumps([bad])


def test_digests() -> None:
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert canon.digest(b"") == canon.digest(memoryview(b"")) == canon.digest(bytearray()) == empty
    assert canon.digest("") != empty, "a string is JSON, with its quotes"
    assert canon.digest({"a": 1, "b": [2]}) == canon.digest({"b": [2], "a": 1}) != canon.digest({"a": 1, "b": [3]})


def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, **modules: str) -> str:
    folder = tmp_path / name
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    for module, source in modules.items():
        (folder / f"{module}.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    for module in [m for m in sys.modules if m.split(".")[0] == name]:
        monkeypatch.delitem(sys.modules, module)
    return name


def test_registry_discovers_in_sorted_order_then_freezes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    source = "import tests_registry_seen\ntests_registry_seen.append(__name__)\n"
    monkeypatch.setitem(sys.modules, "tests_registry_seen", seen)  # type: ignore[arg-type]
    name = package(tmp_path, monkeypatch, "found_in_order", b=source, a=source)
    registry: Registry[int] = Registry("thing", name)
    registry.add("early", 1)
    assert list(registry) == ["early"]
    assert seen == ["found_in_order.a", "found_in_order.b"]
    assert "early" in registry and "late" not in registry
    registry.discover()
    assert len(seen) == 2, "modules are imported once"
    with pytest.raises(RuntimeError, match="thing 'late' registered after discovery"):
        registry.add("late", 2)


def test_registry_refuses_duplicates_and_names_what_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registry: Registry[object] = Registry("op", package(tmp_path, monkeypatch, "duplicates"))
    assert registry.add("add", int) is int
    with pytest.raises(RuntimeError, match="op 'add' is registered twice"):
        registry.add("add", 2)
    assert registry.get("add") is int
    with pytest.raises(KeyError, match="unknown op 'sub'; known: add"):
        registry.get("sub")


def test_a_module_that_fails_to_import_is_not_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registry: Registry[int] = Registry(
        "op", package(tmp_path, monkeypatch, "broken", bad="raise OSError('broken module')")
    )
    for _ in range(2):
        with pytest.raises(OSError, match="broken module"):
            registry.get("anything")


def test_errors_say_what_where_and_how() -> None:
    error = EngineMismatchError("made for sm_90", where="x.engine", fix="build it again")
    assert str(error) == "made for sm_90\n  where: x.engine\n  fix: build it again"
    assert (error.what, error.where, error.fix) == ("made for sm_90", "x.engine", "build it again")
    assert isinstance(error, EngineFormatError) and isinstance(error, BessemerError)
    assert str(BessemerError("only what")) == "only what"
