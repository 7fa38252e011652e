"""The timing caches that the package brings: pruned to winners and rivals, and second to one's own."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from bessemer.tune.cache import CACHES, Entry, Slower, TimingCache, shipped
from tests.tune.fakes import entry

SLOWER = st.lists(
    st.builds(Slower, st.sampled_from("pq"), st.just("d"), st.frozensets(st.sampled_from("abc"))), max_size=4
)


@given(SLOWER, SLOWER)
def test_what_is_only_known_as_slower_merges_too(a: list[Slower], b: list[Slower]) -> None:
    one, other = TimingCache(), TimingCache()
    one.merge([*a, *b])
    other.merge([*b, *a, *a])
    assert one.lines() == other.lines()
    assert one.slower == other.slower
    assert all(one.is_slower(key) for line in a for key in line.keys)


def test_pruning_keeps_winners_and_rivals_and_names_the_others(tmp_path: Path) -> None:
    def of(problem: str, key: str, us: float | None) -> Entry:
        error = "crash" if us is None else None
        return Entry(key * 16, us, error, "gemm", {}, "matmul", "dev", problem)

    cache = TimingCache()
    cache.merge([of("p", "a", 10.0), of("p", "b", 10.4), of("p", "c", 11.0), of("p", "d", None), of("q", "e", 99.0)])
    cache.merge([of("", "f", 1.0)])
    path = tmp_path / "small.jsonl"
    path.write_text("".join(f"{line.to_line()}\n" for line in cache.pruned(0.05)))
    small = TimingCache(path)
    assert {e.key[0] for e in small.entries.values()} == {"a", "b", "e"}
    assert [small.is_slower(k * 16) for k in "abcdef"] == [False, False, True, True, False, False]
    assert small.slower == {("p", "dev"): frozenset({"c" * 12, "d" * 12})}
    assert small.pruned(0.05) == small.lines()


def test_what_the_package_brings_counts_where_the_own_cache_has_nothing(tmp_path: Path) -> None:
    own = TimingCache(tmp_path / "own.jsonl")
    own.shipped = TimingCache()
    own.shipped.merge([entry("a", 1.0), entry("b", 2.0), Slower("problem", "dev", frozenset({"c"}))])
    own.put(entry("a", 3.0))
    assert (own.get("a"), own.get("b"), own.get("c")) == (entry("a", 3.0), entry("b", 2.0), None)
    assert own.is_slower("c")
    own.save()
    assert list(TimingCache(own.path).entries) == ["a"], "it is not written into the own one"
    own.mode = "off"
    assert own.get("b") is None and not own.is_slower("c")


def test_the_shipped_caches_are_whole_small_and_pruned() -> None:
    assert shipped({"target": "cpu", "cpu": "any"}) is None
    paths = sorted(CACHES.glob("*.jsonl"))
    assert paths
    for path in paths:
        found = shipped({"gpu": path.stem.replace("-", " ").upper()})
        assert found is not None and found.entries and path.stat().st_size < 1 << 20
        assert found.lines() == found.pruned()
