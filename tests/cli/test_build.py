"""bessemer build: what it says and dumps, and the timing caches that it keeps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bessemer.core.errors import BessemerError, BuildError, InputError, TimingCacheError
from tests.cli.calls import as_json, call, command, ok


def test_build_says_what_it_made(tmp_path: Path, model: Path) -> None:
    out = tmp_path / "new" / "m.engine"
    summary = as_json("build", model, "-o", out, "--tune", "off")
    assert summary["engine"] == str(out) and summary["bytes"] == out.stat().st_size
    assert summary["target"].startswith("cpu:") and summary["steps"] >= 1 and summary["slow_paths"] == []
    assert (summary["timed"], summary["notes"]) == (0, []) and summary["by_model"] == summary["steps"]
    done = command("build", model, "-o", out, "--tune", "off", "--tf32")
    assert done.returncode == 0 and str(out) in done.stdout and "built in" in done.stdout
    assert f"0 kernels chosen by time, {summary['steps']} by the roofline model" in done.stdout
    assert "note: TF32 is for GPUs: products run in fp32 here" in done.stdout


def test_build_and_inspect_tell_what_fp16_cannot_hold(tmp_path: Path, model: Path) -> None:
    calibration, out = tmp_path / "sample.npz", tmp_path / "half.engine"
    np.savez(calibration, x=np.full((2, 8), 6e4, np.float32))
    plain = as_json("build", model, "-o", out, "--fp16", "--tune", "off")
    assert plain["notes"] == ["fp16 is for GPUs: on a CPU it rounds, and saves no time"]
    told = as_json("build", model, "-o", out, "--fp16", "--calibration", calibration, "--tune", "off")
    assert "stays in fp32: softmax Rank" in told["notes"][1] and "measured on 1 calibration" in told["notes"][1]
    assert "stays in fp32: softmax Rank" in ok("inspect", out)
    done = command("build", model, "-o", out, "--calibration", calibration)
    assert done.returncode == 1 and "calibration inputs are for fp16" in done.stderr


def test_build_stops_and_dumps(tmp_path: Path, model: Path) -> None:
    from bessemer.ir.text import parse

    ok("build", model, "--stop-after", "lower", "--dump", tmp_path, "--tune", "off")
    stopped = as_json("build", model, "--stop-after", "fuse", "--tune", "off")
    assert stopped["engine"] is None and stopped["stopped_after"] == "fuse"
    names = sorted(p.name for p in tmp_path.iterdir())
    assert names == ["0-import.txt", "1-fuse.txt", "2-layout.txt", "3-precision.txt", "4-lower.txt"]
    assert [n.op for n in parse((tmp_path / "0-import.txt").read_text()).nodes] == ["matmul", "add", "relu", "softmax"]
    assert "matmul+add+relu" in (tmp_path / "4-lower.txt").read_text()
    with pytest.raises(BessemerError, match="stop_after is 'nowhere'"):
        raise call("build", model, "--stop-after", "nowhere").exception or AssertionError


def test_timing_caches_are_written_shown_and_merged(tmp_path: Path, model: Path) -> None:
    first, second, both = (tmp_path / f"{n}.jsonl" for n in "abc")
    ok("build", model, "-o", tmp_path / "a.engine", "--timing-cache", first, "--shapes", "x:4x8")
    ok("build", model, "-o", tmp_path / "b.engine", "--timing-cache", second, "--shapes", "x:64x8")
    assert first.exists() and second.exists()
    ok("cache", "merge", first, second, "-o", both)
    rows = as_json("cache", "show", both)
    assert sum(r["entries"] for r in rows) == len(both.read_text().splitlines())
    (tmp_path / "empty.jsonl").touch()
    assert ok("cache", "show", tmp_path / "empty.jsonl") == "no entries\n"
    again = tmp_path / "again.engine"
    ok("build", model, "-o", again, "--timing-cache", both, "--cache-mode", "require", "--shapes", "x:4x8")
    once_more = tmp_path / "once-more.engine"
    ok("build", model, "-o", once_more, "--timing-cache", both, "--cache-mode", "require", "--shapes", "x:4x8")
    assert again.read_bytes() == once_more.read_bytes(), "the same model, cache and target give the same bytes"


def test_what_is_no_timing_cache_is_said(tmp_path: Path, model: Path) -> None:
    """And nobody is told to delete it."""
    out, before = tmp_path / "m.engine", model.read_bytes()
    (tmp_path / "cache.jsonl").touch()
    for args in (
        ("build", model, "-o", out, "--timing-cache", model), ("compare", model, "--timing-cache", model),
        ("cache", "show", model), ("cache", "merge", tmp_path / "cache.jsonl", "-o", model),
        ("cache", "merge", model, "-o", out), ("cache", "prune", model, "-o", out),
        ("cache", "prune", tmp_path / "cache.jsonl", "-o", model),
    ):  # fmt: skip
        found = call(*args).exception
        assert isinstance(found, TimingCacheError) and found.what.startswith("not a timing cache: it starts with")
        assert (found.where, found.fix) == (str(model), "name another file") and not out.exists()
    assert model.read_bytes() == before
    (tmp_path / "cache.jsonl").write_text('{"key": \n')
    found = call("cache", "show", tmp_path / "cache.jsonl").exception
    assert isinstance(found, TimingCacheError) and found.what.startswith("line 1 is damaged")


def test_a_required_cache_that_nobody_named_is_said(tmp_path: Path, model: Path) -> None:
    build = ("build", model, "-o", tmp_path / "m.engine", "--shapes", "x:4x8", "--cache-mode", "require")
    found = call(*build).exception
    assert isinstance(found, TimingCacheError) and "are not in the timing cache: none was named" in found.what
    assert found.fix == "name one that has them: --timing-cache FILE"
    (tmp_path / "empty.jsonl").touch()
    found = call(*build, "--timing-cache", tmp_path / "empty.jsonl").exception
    assert isinstance(found, TimingCacheError) and "none was named" not in found.what


def test_calibration_inputs_that_are_none_are_said(tmp_path: Path, model: Path) -> None:
    (tmp_path / "empty.bin").touch()
    np.save(tmp_path / "one.npy", np.ones((2, 8), np.float32))
    for name in ("empty.bin", "one.npy"):
        found = call("build", model, "-o", tmp_path / "m.engine", "--fp16", "--calibration", tmp_path / name).exception
        assert isinstance(found, InputError) and f"{name} is no array file" in found.what
        assert found.fix == "write it with numpy.savez"
    np.savez(tmp_path / "a=b.npz", x=np.ones((2, 8), np.float32))
    (tmp_path / "a=b.npz").rename(tmp_path / "a=b")
    ok("build", model, "-o", tmp_path / "m.engine", "--fp16", "--calibration", tmp_path / "a=b", "--tune", "off")


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs /proc")
def test_a_place_where_no_file_can_be_made_has_room(model: Path, engine: Path) -> None:
    found = call("build", model, "-o", "/proc/x.engine", "--tune", "off").exception
    assert isinstance(found, BuildError) and found.where == "/proc/x.engine"
    assert found.fix == "choose another -o: a file that can be made"
    done = command("run", engine, "-o", "/proc/x.npz")
    assert done.returncode == 1 and "check the path" in done.stderr and "free space" not in done.stderr


def test_a_build_with_a_timing_cache_measures_ranges_once(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bessemer import build
    from bessemer.passes import ranges

    counts: list[int] = []
    measure = ranges.measure

    def counted(graph: Any, calibration: Any = ()) -> ranges.Measured:
        counts.append(1)
        return measure(graph, calibration)

    monkeypatch.setattr(ranges, "measure", counted)
    cache = tmp_path / "times.jsonl"
    for _ in range(2):
        first = build(model, precision="fp16", tune="off", timing_cache=cache)
    assert len(counts) == 1
    other = build(model, precision="fp16", tune="off", timing_cache=cache, shapes={"x": (3, 8)})
    assert len(counts) == 2 and other.program != first.program
    sample = {"x": np.ones((2, 8), np.float32)}
    build(model, precision="fp16", tune="off", timing_cache=cache, calibration=[sample])
    assert len(counts) == 3, "calibration inputs are looked at every time"
