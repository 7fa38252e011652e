"""A file is there whole or not at all; what killed processes left beside it goes, what is being written stays."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bessemer.core.files import ABANDONED, replacing

ROOT = Path(__file__).parents[2]
SAVING = """
import sys
from pathlib import Path
from bessemer.core.files import replacing

with replacing(Path(sys.argv[1])) as file:
    file.write(b"theirs")
    file.flush()
    print("ready", flush=True)
    sys.stdin.readline()
"""


def save(path: Path, what: bytes = b"mine") -> None:
    with replacing(path) as file:
        file.write(what)


def parts(folder: Path) -> list[Path]:
    return [p for p in folder.iterdir() if p.suffix == ".part"]


def age(path: Path, seconds: float) -> None:
    """As if the last write to it was so long ago."""
    then = path.stat().st_mtime - seconds
    os.utime(path, (then, then))


def test_a_block_that_fails_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "net.engine"
    save(path, b"old")
    with pytest.raises(ZeroDivisionError), replacing(path) as file:
        file.write(b"new")
        raise ZeroDivisionError
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["net.engine"]


def test_what_a_killed_save_left_is_removed_once_it_is_old(tmp_path: Path) -> None:
    path = tmp_path / "net.engine"
    with subprocess.Popen(
        [sys.executable, "-c", SAVING, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        (left,) = parts(tmp_path)
        age(left, 2 * ABANDONED)
        save(path)
        assert parts(tmp_path) == [left], "its process lives: it may only be slow"
        process.kill()
    age(left, -2 * ABANDONED)
    save(path)
    assert parts(tmp_path) == [left], "it may be that of a machine whose locks are not seen here"
    age(left, 2 * ABANDONED)
    save(path)
    assert parts(tmp_path) == [] and path.read_bytes() == b"mine"


def test_the_last_of_two_saves_at_once_wins_however_slow(tmp_path: Path) -> None:
    path = tmp_path / "net.engine"
    with replacing(path) as slow:
        slow.write(b"slow")
        slow.flush()
        (own,) = parts(tmp_path)
        age(own, 2 * ABANDONED)
        save(path, b"fast")
        assert path.read_bytes() == b"fast"
    assert path.read_bytes() == b"slow" and parts(tmp_path) == []


def test_only_temporary_files_of_the_same_target_are_removed(tmp_path: Path) -> None:
    stay = [".net.engine.part", ".net.engine.notes.part", "net.engine.abcdefgh.part", ".other.engine.abcdefgh.part",
            ".netxengine.abcdefgh.part", ".net.engine.abcdefgh.part.txt"]  # fmt: skip
    for name in (*stay, ".net.engine.abcdefgh.part"):
        (tmp_path / name).write_bytes(b"")
        age(tmp_path / name, 2 * ABANDONED)
    save(tmp_path / "net.engine")
    assert sorted(os.listdir(tmp_path)) == sorted([*stay, "net.engine"])


def test_a_folder_by_the_name_of_a_temporary_file_stays(tmp_path: Path) -> None:
    folder = tmp_path / ".net.engine.abcdefgh.part"
    folder.mkdir()
    age(folder, 2 * ABANDONED)
    save(tmp_path / "net.engine")
    assert folder.is_dir() and (tmp_path / "net.engine").read_bytes() == b"mine"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may list any folder")
def test_a_folder_that_may_be_written_and_not_listed(tmp_path: Path) -> None:
    tmp_path.chmod(0o300)
    try:
        save(tmp_path / "net.engine")
    finally:
        tmp_path.chmod(0o700)
    assert (tmp_path / "net.engine").read_bytes() == b"mine"
