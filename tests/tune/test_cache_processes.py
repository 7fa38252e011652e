"""One timing cache and several builds at once, or one that is killed while it saves."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path

from bessemer.tune.cache import TimingCache
from tests.tune.fakes import entry

ROOT = Path(__file__).parents[2]
SAVING = """
import sys
from pathlib import Path
from bessemer.tune.cache import Entry, TimingCache

path, name = Path(sys.argv[1]), sys.argv[2]
print("ready", flush=True)
sys.stdin.readline()
for k in range(40):
    cache = TimingCache(path)
    cache.put(Entry(f"{name}{k}", 1.0, None, "gemm", {"pad": "x" * 2000}, "matmul", "dev", "p"))
    cache.save()
"""


def started(code: str, *arguments: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    return process


def test_builds_that_save_at_once_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "cache.jsonl"
    with contextlib.ExitStack() as stack:
        builds = [stack.enter_context(started(SAVING, str(path), name)) for name in "abc"]
        for build in builds:
            assert build.stdin is not None
            build.stdin.write("go\n")
            build.stdin.flush()
    assert [build.returncode for build in builds] == [0, 0, 0]
    assert set(TimingCache(path).entries) == {f"{name}{k}" for name in "abc" for k in range(40)}
    assert os.listdir(tmp_path) == [path.name], "nor is a lock left behind"


def test_a_build_that_is_killed_while_it_saves_leaves_a_valid_cache_and_no_lock(tmp_path: Path) -> None:
    path = tmp_path / "cache.jsonl"
    for k in range(6):
        with started(SAVING, str(path), f"{k}-") as build:
            assert build.stdin is not None
            build.stdin.write("go\n")
            build.stdin.flush()
            time.sleep(0.02 + 0.03 * k)
            build.kill()
        before = set(TimingCache(path).entries) if path.exists() else set()
    cache = TimingCache(path)
    cache.put(entry("after"))
    cache.save()
    assert set(TimingCache(path).entries) == before | {"after"}
