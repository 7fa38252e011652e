"""Every code block of README.md and docs/ is executed, in order, in a folder that holds a model; and the commands that
are too long for a test exist."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from bessemer.cli.main import app
from tests.cli.conftest import small_model

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "zoo" / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```(\w+) run\n(.*?)^```$", re.M | re.S)
SETUP = 'set -eu\nbessemer() { "$PYTHON" -m bessemer.cli.main "$@"; }\npython() { "$PYTHON" "$@"; }\n'


def blocks(page: Path) -> list[tuple[str, str]]:
    return BLOCK.findall(page.read_text())


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p)], ids=lambda p: p.name)
def test_commands_run(page: Path, tmp_path: Path) -> None:
    if "onnxruntime" in page.read_text():
        pytest.importorskip("onnxruntime")
    small_model(tmp_path / "model.onnx")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHON": sys.executable, "COLUMNS": "160"}
    for language, code in blocks(page):
        command = ["bash", "-c", SETUP + code] if language == "sh" else [sys.executable, "-c", code]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=250)
        assert done.returncode == 0, f"{code}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"


def test_every_block_is_run() -> None:
    for page in PAGES:
        fences = re.findall(r"^```(.*)$", page.read_text(), re.M)
        assert set(fences[::2]) <= {"python run", "sh run"} and set(fences[1::2]) <= {""}, page.name
    assert [language for language, _ in blocks(ROOT / "README.md")] == ["python", "sh"]


def test_commands_that_are_only_shown_exist() -> None:
    """Those that stand indented, because they take minutes or change the machine."""
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M)
    for page in PAGES:
        for line in re.findall(r"^ {4}(?:make|python -m) \S+", page.read_text(), re.M):
            name = line.split()[-1]
            known = name in targets if "make" in line else importlib.util.find_spec(name) is not None
            assert known, f"{page.name}: {line}"


def test_links_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            assert "://" in target or (page.parent / target).exists(), f"{page.name}: {target}"


def test_paths_that_the_documents_name_exist() -> None:
    for page in PAGES:
        for path in re.findall(r"`((?:bessemer|tests|docs)/[\w/.-]+?\.(?:py|md|txt))`", page.read_text()):
            assert (ROOT / path).exists(), f"{page.name}: {path}"


def test_the_command_line_documents_every_verb() -> None:
    text = (ROOT / "docs" / "cli.md").read_text()
    verbs = [p.stem for p in (ROOT / "bessemer" / "cli" / "verbs").glob("*.py") if p.stem != "__init__"]
    assert [v for v in verbs if f"`bessemer {v} " not in text] == []


def documented_keys(command: str) -> list[str]:
    """The keys that docs/cli.md names for a command."""
    found = re.search(rf"^\| `{re.escape(command)}` \|[^|]*\| (.*) \|$", (ROOT / "docs" / "cli.md").read_text(), re.M)
    assert found is not None, command
    return found.group(1).split(", ")


def test_json_has_the_documented_keys(tmp_path: Path) -> None:
    small_model(tmp_path / "m.onnx")
    engine, cache = str(tmp_path / "m.engine"), str(tmp_path / "t.jsonl")
    model = str(tmp_path / "m.onnx")

    def said(*args: str, status: int = 0) -> Any:
        result = CliRunner().invoke(app, [*args, "--json"])
        assert result.exit_code == status, (args, result.exception)
        return json.loads(result.stdout)

    built = said("build", model, "-o", engine, "--shapes", "x:4x8", "--timing-cache", cache)
    assert list(built) == documented_keys("build --json")
    assert list(said("run", engine)[0]) == documented_keys("run --json")
    assert list(said("bench", engine, "--runs", "3")) == documented_keys("bench --json")
    profiled = said("bench", engine, "--runs", "3", "--profile")
    assert list(profiled["steps"][0]) == documented_keys("bench --profile --json")
    assert list(said("inspect", engine)) == documented_keys("inspect --json")
    assert list(said("inspect", engine, "--step", "0")["steps"][0]) == documented_keys("inspect --step 0 --json")
    compared = said("compare", model, "--engine", engine, "--against", "reference")
    assert list(compared) == documented_keys("compare --json")
    marked = said("compare", model, "--engine", engine, "--against", "reference", "--mark", "all")
    assert list(marked["tensors"][0]) == documented_keys("compare --mark all --json")
    other = str(tmp_path / "other.engine")
    said("build", model, "-o", other, "--shapes", "x:2x8", "--tune", "off")
    assert list(said("diff", engine, other, status=1)[0]) == documented_keys("diff --json")
    assert list(said("cache", "show", cache)[0]) == documented_keys("cache show --json")
