"""Compilers that tests call themselves. What they make is kept for one run of pytest, by all its workers."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory


def compiled(command: Sequence[str | Path], text: str, ending: str = "") -> Path:
    """What `command` makes of `text`, a file named `source` where it runs. AssertionError with what it says."""
    words = [str(word) for word in command]
    path = Path(os.environ["BESSEMER_CACHE"], "tests", sha256("\0".join((*words, text)).encode()).hexdigest() + ending)
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=path.parent) as folder:
            Path(folder, "source").write_text(text)
            done = subprocess.run([*words, "-o", "made"], cwd=folder, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
            Path(folder, "made").replace(path)
    return path
