"""Blocks marked `run` in README.md and docs/ are executed, in order, in a folder that holds a model."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import small_model

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
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


def test_every_command_of_the_front_page_is_run() -> None:
    assert [language for language, _ in blocks(ROOT / "README.md")] == ["python", "sh"]


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
    missing = [v for v in verbs if f"bessemer {v}" not in text and v != "run"]
    assert missing == []
