"""The timing cache: merging is a lattice, damage is named, a full disk loses nothing."""

from __future__ import annotations

import itertools
import json
import os
import resource
import stat
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bessemer.core.dim import sym
from bessemer.core.errors import TimingCacheError
from bessemer.core.interval import Range
from bessemer.kernels.base import Into
from bessemer.passes.ranges import Measured
from bessemer.tune.cache import Entry, Placed, Seen, TimingCache, entry_key, read_lines
from tests.tune.fakes import FakeTactic, entry, problem

TIMES = st.floats(0, 1e9, allow_nan=False)
ENTRIES = st.lists(
    st.builds(
        lambda key, us, error, config: Entry(key, None if error else us, error or None, "t", config, "dot", "d", "p"),
        st.sampled_from("abc"), TIMES, st.none() | st.text(max_size=4),
        st.dictionaries(st.text(max_size=3), st.integers()),
    ),
    max_size=8,
)  # fmt: skip


def merged(*parts: list[Entry]) -> dict[str, Entry]:
    cache = TimingCache()
    for part in parts:
        cache.merge(part)
    return cache.entries


@given(ENTRIES, ENTRIES, ENTRIES)
def test_merge_is_commutative_associative_and_idempotent(a: list[Entry], b: list[Entry], c: list[Entry]) -> None:
    whole = merged(a, b, c)
    assert all(merged(*order) == whole for order in itertools.permutations([a, b, c]))
    assert merged(a, a) == merged(a)
    assert merged(list(merged(a, b).values()), c) == whole


@given(ENTRIES)
def test_lines_round_trip(entries: list[Entry]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "cache.jsonl"
        path.write_bytes(b"".join(e.to_line().encode() + b"\n" for e in entries))
        assert read_lines(path) == entries


def test_the_faster_wins_and_a_time_beats_a_failure() -> None:
    assert merged([entry(us=2.0)], [entry(us=1.0)])["k"].us == 1.0
    assert merged([entry(us=None, error="crash")], [entry(us=9.0)])["k"].us == 9.0


def test_text_with_odd_line_ends_stays_one_line(tmp_path: Path) -> None:
    path = tmp_path / "cache.jsonl"
    cache = TimingCache(path)
    cache.put(entry(us=None, error="gcc said \u2018no\u2019\u2028\x85\r\n\x1c ok"))
    cache.put(entry("other"))
    cache.save()
    assert TimingCache(path).entries == cache.entries


LINES = [entry("a").to_line(), entry("b").to_line(), entry("c", None, "crash").to_line()]
DAMAGE = {
    "cut": LINES[1][:-9],
    "not an object": "[1]",
    "not json": "hello",
    "no key": '{"us": 1.0, "error": null}',
    "NaN": LINES[1].replace("1.0", "NaN"),
    "infinite": LINES[1].replace("1.0", "Infinity"),
    "negative": LINES[1].replace("1.0", "-1.0"),
    "text": LINES[1].replace("1.0", '"fast"'),
    "neither": LINES[1].replace("1.0", "null"),
    "both": LINES[1].replace('"error":null', '"error":"crash"'),
    "deep": "[" * 100_000,
    "bytes": "\udcff\udcfe",
}


@pytest.mark.parametrize("line", DAMAGE.values(), ids=DAMAGE)
def test_damage_is_named_unless_it_is_the_last_line(tmp_path: Path, line: str) -> None:
    path = tmp_path / "cache.jsonl"
    path.write_bytes("\n".join([LINES[0], line, LINES[2]]).encode(errors="surrogateescape"))
    with pytest.raises(TimingCacheError, match="line 2 is damaged") as caught:
        TimingCache(path)
    assert caught.value.where == str(path) and caught.value.fix == "delete the line or the file"
    path.write_bytes("\n".join([LINES[0], LINES[2], line]).encode(errors="surrogateescape"))
    assert sorted(TimingCache(path).entries) == ["a", "c"]


def test_a_cache_cut_anywhere_in_its_last_line_is_read(tmp_path: Path) -> None:
    path = tmp_path / "cache.jsonl"
    whole = ("\n".join(LINES) + "\n").encode()
    for length in range(len(whole) - len(LINES[2]), len(whole)):
        path.write_bytes(whole[:length])
        assert set(TimingCache(path).entries) >= {"a", "b"}


def test_empty_files_and_empty_lines(tmp_path: Path) -> None:
    path = tmp_path / "cache.jsonl"
    path.write_bytes(b"")
    assert TimingCache(path).entries == {}
    path.write_text(f"{LINES[0]}\n\n{LINES[1]}\n\n\n")
    assert sorted(TimingCache(path).entries) == ["a", "b"]


def test_a_file_that_is_no_cache_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    for text in ('{"a": 1}\n', "one line of words", "{"):
        path.write_text(text)
        with pytest.raises(TimingCacheError, match="line 1 is damaged"):
            TimingCache(path)
        assert path.read_text() == text


def test_modes(tmp_path: Path) -> None:
    path = tmp_path / "sub" / "cache.jsonl"
    for mode in ("read", "require"):
        with pytest.raises(TimingCacheError, match="does not exist"):
            TimingCache(path, mode)
    with pytest.raises(TimingCacheError, match="unknown timing cache mode 'write'"):
        TimingCache(path, "write")
    append = TimingCache(path)
    append.put(entry("a"))
    append.save()
    before = path.read_bytes()
    for mode in ("off", "read", "require"):
        cache = TimingCache(path, mode)
        cache.put(entry("b"))
        cache.save()
        assert path.read_bytes() == before
        assert (cache.get("a") is None) == (mode == "off")
        assert (cache.get("b") is None) == (mode != "read"), "read keeps new times for this build"


def test_saving_merges_what_others_wrote_and_is_sorted(tmp_path: Path) -> None:
    path = tmp_path / "cache.jsonl"
    one, two = TimingCache(path), TimingCache(path)
    one.put(entry("b"))
    two.put(entry("a"))
    one.save()
    two.save()
    keys = [json.loads(line)["key"] for line in path.read_text().splitlines()]
    assert keys == ["a", "b"]
    current = os.umask(0)
    os.umask(current)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~current, "others may read it"
    written = path.stat().st_mtime_ns
    TimingCache(path).save()
    assert path.stat().st_mtime_ns == written, "nothing new, nothing written"


def test_a_full_disk_leaves_the_old_cache(tmp_path: Path) -> None:
    path = tmp_path / "cache.jsonl"
    cache = TimingCache(path)
    cache.put(entry("a"))
    cache.save()
    before = path.read_bytes()
    cache.put(entry("b" * 5000))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(TimingCacheError, match="cannot be written: File too large"):
            cache.save()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == before and os.listdir(tmp_path) == [path.name]
    cache.save()
    assert len(TimingCache(path).entries) == 2, "a later save still has everything"


def test_places_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(TimingCacheError, match="cannot be read"):
        TimingCache(tmp_path)
    cache = TimingCache(tmp_path / "file" / "cache.jsonl")
    (tmp_path / "file").write_text("")
    cache.put(entry())
    with pytest.raises(TimingCacheError, match="cannot be written"):
        cache.save()


def test_the_key_changes_with_every_part() -> None:
    tactic, device = FakeTactic("gemm"), {"cpu": "x", "threads": 2}
    base = entry_key(problem(), tactic, {"tile": 8}, device)
    assert entry_key(problem(), FakeTactic("gemm", op="conv"), {"tile": 8}, dict(reversed(device.items()))) == base
    n = sym("n")
    others = [
        entry_key(problem(16), tactic, {"tile": 8}, device),
        entry_key(problem(op="conv"), tactic, {"tile": 8}, device),
        entry_key(problem(n, n=Range(1, 8, 4)), tactic, {"tile": 8}, device),
        entry_key(problem(n, n=Range(1, 8, 8)), tactic, {"tile": 8}, device),
        entry_key(problem(n, n=Range(1, 16, 4)), tactic, {"tile": 8}, device),
        entry_key(
            replace(problem(), attrs=(("transpose_a", True), ("transpose_b", False))), tactic, {"tile": 8}, device
        ),
        entry_key(replace(problem(), operands=problem().operands[::-1]), tactic, {"tile": 8}, device),
        entry_key(replace(problem(), into=Into(0, 16)), tactic, {"tile": 8}, device),
        entry_key(replace(problem(), into=Into(8, 16)), tactic, {"tile": 8}, device),
        entry_key(replace(problem(), into=Into(8, 24)), tactic, {"tile": 8}, device),
        entry_key(problem(), FakeTactic("gemm2"), {"tile": 8}, device),
        entry_key(problem(), FakeTactic("gemm", version=2), {"tile": 8}, device),
        entry_key(problem(), tactic, {"tile": 16}, device),
        entry_key(problem(), tactic, {"tile": "8"}, device),
        entry_key(problem(), tactic, {"tile": 8}, {**device, "threads": 4}),
    ]
    assert len({base, *others}) == 1 + len(others)


def test_ranges_are_kept_with_the_times(tmp_path: Path) -> None:
    path = tmp_path / "cache.jsonl"
    cache = TimingCache(path)
    seen = Seen("graph", Measured({"x": "reaches 7e+04", "y": "is small"}, {"x": 4}, "measured", True))
    cache.put(entry("a"))
    cache.put(seen)
    cache.put(seen)
    cache.save()
    assert len(read_lines(path)) == 2 and seen in read_lines(path)
    again = TimingCache(path)
    assert again.ranges_of("graph") == seen.ranges and again.ranges_of("other") is None
    assert TimingCache(path, "off").ranges_of("graph") is None
    assert again.pruned() == [entry("a")]
    other = Seen("graph", replace(seen.ranges, how="measured otherwise"))
    first, second = TimingCache(), TimingCache()
    first.merge([seen, other])
    second.merge([other, seen])
    assert first.seen == second.seen


def outcome(us: float, here: str, sequence: str = "s") -> Placed:
    return Placed(sequence, "dev", us, {"p": ("alone", here)})


def in_file(path: Path) -> list[tuple[str, float, str]]:
    return [(p.sequence, p.us, p.chosen["p"][1]) for p in read_lines(path) if isinstance(p, Placed)]


def test_the_newer_outcome_in_place_is_kept_though_the_file_has_a_faster_one(tmp_path: Path) -> None:
    """The older one compared other candidates, so its time is none to compare with."""
    path = tmp_path / "cache.jsonl"
    first = TimingCache(path)
    first.put(outcome(5.0, "old"))
    first.save()
    second = TimingCache(path)
    second.put(outcome(7.0, "new"))
    second.save()
    assert in_file(path) == [("s", 7.0, "new")]
    assert TimingCache(path).placed_in("s", "dev") == outcome(7.0, "new")
    first.put(entry("a"))
    first.save()
    assert in_file(path) == [("s", 7.0, "new")], "what was read or written before is no newer than the file"
    assert first.placed_in("s", "dev") == outcome(7.0, "new")


def test_of_builds_that_chose_in_place_at_once_the_last_to_save_wins(tmp_path: Path) -> None:
    path = tmp_path / "cache.jsonl"
    first, second = TimingCache(path), TimingCache(path)
    first.put(outcome(5.0, "first"))
    first.put(outcome(3.0, "untouched", "t"))
    second.put(outcome(7.0, "second"))
    first.save()
    second.save()
    assert in_file(path) == [("s", 7.0, "second"), ("t", 3.0, "untouched")], "what only the file has is kept"
    first.put(outcome(9.0, "again"))
    first.save()
    assert in_file(path) == [("s", 9.0, "again"), ("t", 3.0, "untouched")]


def test_merged_outcomes_in_place_are_the_faster_ones_in_any_order(tmp_path: Path) -> None:
    path = tmp_path / "cache.jsonl"
    path.write_text("".join(f"{outcome(us, h).to_line()}\n" for us, h in ((6.0, "slow"), (5.0, "fast"))))
    cache = TimingCache(path)
    cache.merge([outcome(4.0, "other")])
    cache.merge([outcome(8.0, "slower")])
    cache.save()
    assert in_file(path) == [("s", 4.0, "other")]
    cache.merge([outcome(6.0, "slow")])
    cache.put(entry("a"))
    cache.save()
    assert in_file(path) == [("s", 4.0, "other")]


def test_a_required_cache_keeps_its_outcome_in_place() -> None:
    cache = TimingCache(mode="require")
    cache.merge([outcome(5.0, "old")])
    cache.put(outcome(7.0, "new"))
    assert cache.placed_in("s", "dev") == outcome(5.0, "old")
