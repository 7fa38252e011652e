"""The command line, called in this process or as one of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from click.testing import Result
from typer.testing import CliRunner

from bessemer.cli.main import app


def call(*args: object) -> Result:
    """In this process; errors of Bessemer come out as exceptions."""
    return CliRunner().invoke(app, [str(a) for a in args])


def ok(*args: object) -> str:
    result = call(*args)
    assert result.exit_code == 0, (result.output, result.exception)
    return result.stdout


def as_json(*args: object, status: int = 0) -> Any:
    result = call(*args, "--json")
    assert result.exit_code == status, (result.output, result.exception)
    return json.loads(result.stdout, parse_constant=_no_json)


def _no_json(word: str) -> Any:
    raise AssertionError(f"{word} is no JSON")


def command(*args: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """As a process of its own."""
    environment = {**os.environ, "COLUMNS": "200"}
    line = [sys.executable, "-m", "bessemer.cli.main", *map(str, args)]
    return subprocess.run(line, capture_output=True, text=True, cwd=cwd, env=environment, timeout=120)
