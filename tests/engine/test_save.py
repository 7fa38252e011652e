"""Saving is all or nothing: a full disk, a kill, a read-only folder."""

from __future__ import annotations

import os
import resource
import signal
import stat
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bessemer.core.errors import BuildError
from bessemer.engine.engine import WeightPart, Weights
from bessemer.engine.reader import read
from tests.engine.engines import engine, file_of

ROOT = Path(__file__).parents[2]


@pytest.fixture
def old(tmp_path: Path) -> Path:
    return engine().save(tmp_path / "model.engine")


def large(nbytes: int) -> Weights:
    return Weights(nbytes, parts=(WeightPart(0, nbytes, lambda: np.ones(nbytes, np.uint8)),))


def test_a_full_disk_leaves_the_old_engine(old: Path) -> None:
    before = old.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    try:
        with pytest.raises(BuildError, match="could not be written: File too large") as caught:
            replace(engine(weights_bytes=1 << 20), weights=large(1 << 20)).save(old)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.where == str(old) and caught.value.fix
    assert old.read_bytes() == before
    assert os.listdir(old.parent) == [old.name], "nothing half-written is left"


def test_what_is_no_ordinary_file_is_left_alone_and_links_are_followed(tmp_path: Path, old: Path) -> None:
    pipe, link = tmp_path / "pipe", tmp_path / "link.engine"
    os.mkfifo(pipe)
    link.symlink_to(old)
    for path in (pipe, tmp_path):
        with pytest.raises(BuildError, match="there already, and no ordinary file"):
            engine().save(path)
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    old.write_bytes(b"")
    engine().save(link)
    assert link.is_symlink() and old.read_bytes() == file_of(engine())


def test_a_weight_that_cannot_be_made_leaves_the_old_engine(old: Path) -> None:
    def fail() -> np.ndarray:
        raise ValueError("the weight's file changed")

    before = old.read_bytes()
    with pytest.raises(ValueError, match="changed"):
        replace(engine(), weights=Weights(70, parts=(WeightPart(0, 70, fail),))).save(old)
    wrong = Weights(70, parts=(WeightPart(0, 70, lambda: np.zeros(69, np.uint8)),))
    with pytest.raises(RuntimeError, match="70 bytes was made with 69"):
        replace(engine(), weights=wrong).save(old)
    assert old.read_bytes() == before
    assert os.listdir(old.parent) == [old.name]


KILLED = """
import sys, time
import numpy as np
from dataclasses import replace
from pathlib import Path
from bessemer.engine.engine import WeightPart, Weights
from tests.engine.engines import engine

made = []
def slow():
    made.append(1)
    if len(made) > 1:  # the first time is for the digest
        print("writing", flush=True)
        time.sleep(60)
    return np.ones(1 << 20, np.uint8)

parts = (WeightPart(0, 1 << 20, lambda: np.zeros(1 << 20, np.uint8)), WeightPart(1 << 20, 1 << 20, slow))
replace(engine(weights_bytes=2 << 20), weights=Weights(2 << 20, parts=parts)).save(Path(sys.argv[1]))
"""


@pytest.mark.parametrize("exists", [True, False])
def test_a_killed_build_leaves_the_old_engine_or_none(tmp_path: Path, exists: bool) -> None:
    path = tmp_path / "model.engine"
    if exists:
        engine().save(path)
    command = [sys.executable, "-c", KILLED, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "writing\n"
        process.send_signal(signal.SIGKILL)
    assert path.exists() == exists
    if exists:
        assert read(path).program == engine().program


def test_folders_are_made_and_files_have_ordinary_permissions(tmp_path: Path) -> None:
    path = engine().save(str(tmp_path / "a" / "b" / "model.engine"))
    current = os.umask(0)
    os.umask(current)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~current
    assert path.read_bytes() == file_of(engine())


def test_places_that_cannot_be_written_are_build_errors(tmp_path: Path, old: Path) -> None:
    for path in (old / "inside.engine", Path("/proc/model.engine"), tmp_path / ("x" * 300)):
        with pytest.raises(BuildError, match="could not be written"):
            engine().save(path)
    (tmp_path / "folder").mkdir()
    with pytest.raises(BuildError, match="could not be written"):
        engine().save(tmp_path / "folder")


def test_an_engine_can_be_saved_over_the_file_it_is_mapped_from(old: Path) -> None:
    opened = read(old)
    assert opened.save(old).read_bytes() == file_of(engine())
    assert list(np.frombuffer(next(iter(opened.weights.chunks())), np.float32, 4)) == [1, 2, 3, 4]


def test_weights_are_streamed_part_by_part(tmp_path: Path) -> None:
    """Building memory stays small: the peak is one part, not their sum."""
    parts = 16
    part = 8 << 20
    weights = Weights(
        parts * part, parts=tuple(WeightPart(k * part, part, lambda: np.ones(part, np.uint8)) for k in range(parts))
    )
    import tracemalloc

    tracemalloc.start()
    path = replace(engine(weights_bytes=parts * part), weights=weights).save(tmp_path / "big.engine")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    path.unlink()
    assert peak < 3 * part


def test_saving_is_repeatable(tmp_path: Path) -> None:
    first = engine().save(tmp_path / "a.engine").read_bytes()
    time.sleep(0.01)
    assert engine().save(tmp_path / "b.engine").read_bytes() == first
