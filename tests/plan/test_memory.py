"""The arena: no two live blocks share a byte, and it is at most a tenth larger than what lives at once."""

from __future__ import annotations

import random
import time
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bessemer.plan.memory import ALIGN, Interval, aligned, peak, place, prove_disjoint, share

LIVES = st.tuples(st.integers(0, 12), st.integers(0, 12)).map(sorted)
BLOCKS = st.lists(st.tuples(st.integers(0, 5000), LIVES), max_size=14).map(
    lambda rows: [Interval(f"b{k}", size, first, last) for k, (size, (first, last)) in enumerate(rows)]
)


@given(BLOCKS)
def test_live_blocks_share_no_byte(blocks: list[Interval]) -> None:
    offsets, size = place(blocks)
    assert set(offsets) == {b.name for b in blocks}
    for b in blocks:
        assert offsets[b.name] % ALIGN == 0
        assert 0 <= offsets[b.name] and offsets[b.name] + b.nbytes <= size
    for a, b in combinations(blocks, 2):
        if a.first <= b.last and b.first <= a.last:
            ends = offsets[a.name] + a.nbytes, offsets[b.name] + b.nbytes
            assert ends[0] <= offsets[b.name] or ends[1] <= offsets[a.name] or 0 in (a.nbytes, b.nbytes)


@given(BLOCKS)
def test_allocations_are_shared_by_what_is_never_alive_together(blocks: list[Interval]) -> None:
    numbers = share(blocks)
    assert set(numbers) == {b.name for b in blocks} and set(numbers.values()) == set(range(len(set(numbers.values()))))
    for a, b in combinations(blocks, 2):
        assert numbers[a.name] != numbers[b.name] or not a.overlaps(b)


@given(BLOCKS)
def test_peak_is_the_largest_live_sum_and_bounds_the_arena(blocks: list[Interval]) -> None:
    live = (sum(aligned(b.nbytes) for b in blocks if b.first <= step <= b.last) for step in range(14))
    assert peak(blocks) == max(live, default=0)
    assert peak(blocks) <= place(blocks)[1] <= sum(aligned(b.nbytes) for b in blocks)


@given(BLOCKS, st.randoms(use_true_random=False))
def test_the_plan_does_not_depend_on_the_order_given(blocks: list[Interval], rng: random.Random) -> None:
    shuffled = blocks[:]
    rng.shuffle(shuffled)
    assert place(shuffled) == place(blocks)


def convolutions(rng: random.Random, n: int) -> list[Interval]:
    """Feature maps that shrink, residual links, scratch of kernels."""
    blocks, size = [], rng.choice([1 << 20, 3 << 18, 150528 * 4])
    for k in range(n):
        if rng.random() < 0.15:
            size = max(1024, int(size / rng.choice([2, 4, 1.3])))
        share = rng.choice([1, 1, 0.25, 0.5, 6, rng.random()])
        life = rng.choice([1, 1, 1, 2, 3, rng.randint(1, 10)])
        blocks.append(Interval(f"t{k}", max(64, int(size * share)), k, min(n, k + life)))
        if rng.random() < 0.2:
            blocks.append(Interval(f"w{k}", rng.randint(1, size), k, k))
    return blocks


def unet(rng: random.Random, n: int) -> list[Interval]:
    """Long links from the way down to the way up."""
    blocks, size = [], 1 << 20
    for k in range(n):
        size = max(4096, size // 2) if k < n // 2 else size * 2
        blocks.append(Interval(f"d{k}", size, 2 * k, 2 * k + 1))
        last = 2 * (n - k) + 1 if k < n // 2 else 2 * k + 2
        blocks.append(Interval(f"e{k}", size // rng.choice([1, 2]), 2 * k + 1, last))
    return blocks


def transformer(rng: random.Random, n: int) -> list[Interval]:
    blocks, t, hidden = [], 0, 64 * rng.randint(1, 4096)
    for k in range(n // 4 + 1):
        lives = {
            "x": (1, 0, 5),
            "q": (1, 1, 2),
            "k": (1, 1, 2),
            "v": (1, 1, 2),
            "a": (1, 2, 3),
            "o": (1, 3, 4),
            "f": (4, 4, 5),
        }
        blocks += [Interval(f"{name}{k}", share * hidden, t + a, t + b) for name, (share, a, b) in lives.items()]
        t += 5
    return blocks


def anything(rng: random.Random, n: int) -> list[Interval]:
    blocks = []
    for k in range(n):
        first = rng.randrange(n)
        size = rng.randint(1, 1 << rng.randint(6, 20))
        blocks.append(Interval(f"r{k}", size, first, min(n, first + rng.randint(0, n // 3))))
    return blocks


@pytest.mark.parametrize("network", [convolutions, unet, transformer, anything], ids=lambda f: f.__name__)
def test_the_arena_is_at_most_a_tenth_above_the_peak(network) -> None:  # type: ignore[no-untyped-def]
    for seed in range(150):
        rng = random.Random(seed)
        blocks = network(rng, rng.randint(4, 80))
        assert place(blocks)[1] <= 1.1 * peak(blocks), seed


def test_a_large_network_is_planned_in_seconds() -> None:
    blocks = anything(random.Random(5), 1000) + transformer(random.Random(5), 1000)
    started = time.process_time()
    size = place(blocks)[1]
    assert time.process_time() - started < 10
    assert size <= 1.1 * peak(blocks)


def test_the_proof_finds_an_overlap() -> None:
    a, b = Interval("a", 100, 0, 3), Interval("b", 100, 3, 5)
    prove_disjoint([a, b], {"a": 0, "b": 128})
    for offsets in ({"a": 0, "b": 0}, {"a": 64, "b": 0}, {"a": 0, "b": 99}):
        with pytest.raises(RuntimeError, match="lets (a and b|b and a) overlap"):
            prove_disjoint([a, b], offsets)
    prove_disjoint([a, Interval("b", 100, 4, 5)], {"a": 0, "b": 0})
    prove_disjoint([a, Interval("b", 0, 1, 2)], {"a": 0, "b": 50})
