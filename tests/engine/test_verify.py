"""Each rule of the verifier, by a program that breaks it and nothing else."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bessemer.core import dtype as dt
from bessemer.core.dim import Dim, sym
from bessemer.core.errors import EngineFormatError
from bessemer.core.interval import Range
from bessemer.engine.liveness import Owners
from bessemer.engine.program import Arg, Equality, Program, Step, Symbol, Tensor
from bessemer.engine.verify import verify
from tests.engine.engines import N, U, program, step, symbol, tensor


def test_the_whole_program_is_safe() -> None:
    verify(program(), 2, 70)


def clusters(size: object, grid: Dim) -> Program:
    """The program whose first step has that grid and a kernel of clusters of `size`."""
    changed, (first, other) = step(0, grid=(grid,)), program().kernels
    return replace(changed, kernels=(replace(first, abi={"cluster": size}), other))


BROKEN: dict[str, tuple[Program, str]] = {
    "weights too short": (replace(program(), weights_bytes=71), "needs 71 bytes of weights, the file has 70"),
    "negative arena": (replace(program(), arena_bytes=-1), "an arena of -1"),
    "impossible arena": (replace(program(), arena_bytes=1 << 48), "needs an arena"),
    "input does not exist": (replace(program(), inputs=(9,)), "input 0 is tensor 9 of 8"),
    "input is negative": (replace(program(), inputs=(-1,)), "input 0 is tensor -1"),
    "input is no input": (replace(program(), inputs=(2,)), r"input 0 \(h\) lies in space 'arena'"),
    "outputs swapped": (replace(program(), outputs=(5, 5)), "output 1"),
    "output is no output": (replace(program(), outputs=(2,)), "output 0"),
    "symbol of no input": (symbol("n", lambda s: replace(s, input=1)), "bound to input 1 of 1"),
    "symbol of a negative input": (symbol("n", lambda s: replace(s, input=-2)), "bound to input -2"),
    "symbol of no axis": (symbol("n", lambda s: replace(s, axis=2)), "axis 2 of an input of rank 2"),
    "symbol of a negative axis": (symbol("n", lambda s: replace(s, axis=-1)), "axis -1"),
    "empty range": (symbol("n", lambda s: replace(s, range=Range(8, 1))), "symbol n has no valid range"),
    "negative range": (symbol("n", lambda s: replace(s, range=Range(-1, 8))), "no valid range"),
    "multiple of zero": (symbol("n", lambda s: replace(s, range=Range(1, 8, 4, 0))), "no valid range"),
    "opt outside": (symbol("n", lambda s: replace(s, range=Range(1, 8, 9))), "no valid range"),
    "unknown space": (tensor(2, space="heap"), "unknown space 'heap'"),
    "negative offset": (tensor(2, offset=-64), "negative offset"),
    "negative size": (tensor(2, nbytes=-1), "negative offset or size"),
    "unknown symbol": (tensor(2, shape=(sym("m"),)), r"tensor 2 \(h\) uses unknown symbols \['m'\]"),
    "negative dim": (tensor(4, shape=(-1,)), "impossible shape"),
    "impossible dim": (tensor(0, shape=(1 << 60,)), "impossible shape"),
    "grows past its block": (tensor(2, shape=(N, 5)), "can grow to 160 bytes, it has 128"),
    "input grows past its block": (tensor(0, shape=(N, 5)), "can grow to 160"),
    "ends behind the arena": (tensor(4, offset=256), "ends at 257, its space at 256"),
    "ends behind the weights": (tensor(7, offset=128), "ends at 134, its space at 70"),
    "unbounded in the arena": (tensor(2, shape=(sym("u0") * (1 << 40),)), "can grow to"),
    "unaligned weight": (tensor(7, offset=62), "not aligned to 64"),
    "view that moves out": (tensor(3, shift=64 * N), "64\\*n bytes into what it looks into, and may end outside"),
    "view that moves back": (tensor(3, shape=(N,), shift=-64 * N), "may end outside"),
    "weights that move": (tensor(7, shift=64 * N), "may end outside"),
    "view at any byte": (tensor(3, shape=(2 * N,), shift=8 * N), "not at multiples of 64"),
    "view that moves by what nobody knows": (tensor(3, shift=64 * sym("m")), "unknown symbols"),
    "view out of what is allocated": (tensor(6, shift=64 * U), "may end outside"),
    "string in the arena": (tensor(2, dtype=dt.string), "strings"),
    "view of no binding": (tensor(0, space="output", offset=3), "lies in space"),
    "view larger than its binding": (
        replace(tensor(3, space="input", shape=(N, 8), nbytes=256)), "larger than input 0, which it views"),
    "view of a binding that is not there": (tensor(3, space="output", offset=1), "views output 1 of 1"),
    "no such binary": (replace(program(), kernels=(replace(program().kernels[0], blob=2),)), "in binary 2 of 2"),
    "negative binary": (replace(program(), kernels=(replace(program().kernels[0], blob=-1),)), "in binary -1"),
    "unknown kind": (step(0, kind="loop"), "unknown kind 'loop'"),
    "reads no tensor": (step(0, reads=(0, 8)), "uses tensor 8 of 8"),
    "writes a negative tensor": (step(0, writes=(-1,)), "uses tensor -1"),
    "writes weights": (step(0, writes=(1,)), "writes to weights"),
    "writes an input": (step(1, writes=(0,)), "writes to input"),
    "no such kernel": (step(0, kernel=2), "uses kernel 2 of 2"),
    "kernel step without a kernel": (step(0, kernel=-1), "uses kernel -1"),
    "no grid": (step(0, grid=()), "a grid of 0 dims"),
    "grid of four": (step(0, grid=(1, 1, 1, 1)), "a grid of 4 dims"),
    "grid of an unknown symbol": (step(0, grid=(sym("m"),)), r"unknown symbols \['m'\]"),
    "clusters of nine": (clusters(9, 18), "has clusters of 9, not of 1 to 8"),
    "clusters in text": (clusters("2", 6), "has clusters of '2'"),
    "a part of a cluster": (clusters(4, 6), "a grid of 6 in clusters of 4"),
    "perhaps a part of a cluster": (clusters(2, N), "a grid of n in clusters of 2"),
    "a part of a cluster of three": (clusters(3, 2 * N), r"a grid of 2\*n in clusters of 3"),
    "flops of an unknown symbol": (step(0, flops=sym("m")), "unknown symbols"),
    "jump back": (step(4, target=4), "goes to step 4"),
    "jump far": (step(4, target=8), "goes to step 8 of 7"),
    "branch nowhere": (step(2, target=-1), "goes to step -1"),
    "branch on a float": (step(2, reads=(2,)), "does not branch on one bool"),
    "branch on nothing": (step(2, reads=()), "does not branch on one bool"),
    "copy of two": (step(3, reads=(2, 0)), "copies 2 tensors to 1"),
    "copy of other sizes": (step(3, reads=(3,)), "copies between tensors of different types"),
    "workspace outside": (step(0, workspace=(200, 64)), r"a workspace at 200\+64, the arena has 256"),
    "negative workspace": (step(0, workspace=(-64, 64)), "a workspace at -64"),
    "passes a stranger": (step(0, args=(Arg("tensor", 5),)), "passes tensor 5, which it neither reads nor writes"),
    "passes a symbolic tensor": (step(0, args=(Arg("tensor", N),)), "passes tensor n"),
    "unknown integer": (step(0, args=(Arg("int", sym("m")),)), "unknown symbols"),
    "odd integer": (step(0, args=(Arg("int", 1, 48),)), "an integer argument of 48 bits"),
    "shifted workspace": (step(0, args=(Arg("workspace", 64),)), "its workspace at 64 of itself"),
    "shifted counters": (step(0, args=(Arg("counters", 4),), counters=9), "its counters at 4 of itself"),
    "counters of nothing": (step(0, args=(Arg("counters", 0),)), "is passed counters and has none"),
    "too many counters": (step(0, counters=65537), "65537 counters, not up to 65536"),
    "unknown argument": (step(0, args=(Arg("pointer", 0),)), "unknown kind 'pointer'"),
    "reads an output early": (step(0, reads=(0, 1, 5)), r"step 0 \(mul\) reads tensor 5 \(y\) before anything"),
    "reads a dynamic early": (step(0, reads=(0, 1, 6)), "reads tensor 6"),
    "reads the arena early": (step(0, reads=(0, 1, 4)), r"reads tensor 4 \(flag\) before anything writes it"),
    "writes over what it reads": (step(5, writes=(3,), args=()), r"writes tensor 3 \(h as a vector\) over tensor 2"),
    "workspace over its output": (step(0, workspace=(64, 64)), r"writes tensor 2 \(h\) over its workspace"),
    "workspace over its input": (step(5, workspace=(0, 64)), r"writes its workspace over tensor 2 \(h\)"),
    "workspace over a live tensor": (step(1, workspace=(128, 64)), "over its workspace"),
    "overlap of live tensors": (tensor(4, offset=100), r"step 1 \(any\) writes tensor 4 \(flag\) over tensor 3"),
}  # fmt: skip


@pytest.mark.parametrize("program,message", BROKEN.values(), ids=BROKEN)
def test_broken_rules(program: Program, message: str) -> None:
    with pytest.raises(EngineFormatError, match=message) as caught:
        verify(program, 2, 70)
    assert "the engine's program 'tiny' is unsafe" in caught.value.what


def same(left: Dim, right: Dim, or_one: bool = False) -> Equality:
    return Equality(left, right, "Reshape_0", or_one)


@pytest.mark.parametrize(
    "equalities,safe",
    [
        ([], False),
        ([same(5 * N, 4 * N)], True),
        ([same(6 * N, 4 * N), same(6 * N, 5 * N)], True),
        ([same(5 * N, 32)], True),
        ([same(5 * N, 33)], False),
        ([same(5 * N, 4 * N, or_one=True)], False),
        ([same(5 * N + 1, 4 * N)], False),
        ([same(5 * N, U)], False),  # u0 is at most 32, and nothing tells it before the tensor is written
        ([same(5 * N, 2 * U), same(2 * U, 4 * N)], False),
    ],
)
def test_a_loose_bound_is_tight_where_runs_compare_it_with_a_tight_one(equalities: list[Equality], safe: bool) -> None:
    changed = replace(tensor(3, shape=(5 * N,)), equalities=tuple(equalities))
    if safe:
        verify(changed, 2, 70)
    else:
        with pytest.raises(EngineFormatError, match="can grow to 1.. bytes, it has 128"):
            verify(changed, 2, 70)


def test_sizes_that_data_tell_bound_what_is_of_that_size() -> None:
    """The comparison comes as soon as the symbol is known, so before a tensor of that size is."""
    for right, safe in ((32, True), (4 * N, True), (sym("u1"), False)):
        p = replace(tensor(3, shape=(5 * U,)), equalities=(same(5 * U, right),))
        p = replace(p, symbols={**p.symbols, "u1": Symbol(Range(0, 4))})
        if safe:
            verify(p, 2, 70)
        else:
            with pytest.raises(EngineFormatError, match="can grow to 640 bytes, it has 128"):
                verify(p, 2, 70)


# -- who wrote which byte of the arena ---------------------------------------------------------------------------------


def chain(*steps: Step, **blocks: tuple[int, int]) -> Program:
    """A program over bytes of the arena; `blocks` are (offset, size) by name, tensors in that order after x and y."""
    tensors = [Tensor("x", dt.u8, (8,), "input", 0, 8), Tensor("y", dt.u8, (8,), "output", 0, 8)]
    tensors += [Tensor(name, dt.u8, (size,), "arena", offset, size) for name, (offset, size) in blocks.items()]
    return Program("chain", (0,), (1,), tuple(tensors), steps, (), {}, 64, 0, 0)


def does(reads: tuple[int, ...], *writes: int, workspace: tuple[int, int] = (0, 0)) -> Step:
    return Step("host", "f", "f", reads=reads, writes=writes, workspace=workspace)


def test_memory_is_reused_after_the_last_read() -> None:
    verify(chain(does((0,), 2), does((2,), 3), does((3,), 4), does((4,), 1), a=(0, 8), b=(8, 8), c=(0, 8)), 0, 0)


def test_memory_reused_too_early_is_an_overlap() -> None:
    early = chain(does((0,), 2), does((2,), 3), does((3,), 4), does((2, 4), 1), a=(0, 8), b=(8, 8), c=(4, 8))
    with pytest.raises(EngineFormatError, match=r"writes tensor 4 \(c\) over tensor 3 \(b\)"):
        verify(early, 0, 0)
    late = chain(does((0,), 2), does((2,), 3), does((0,), 4), does((2, 4), 1), a=(0, 8), b=(8, 8), c=(4, 4))
    with pytest.raises(
        EngineFormatError, match=r"step 3 \(f\) reads tensor 2 \(a\) after tensor 4 \(c\) took its bytes 4 to 8"
    ):
        verify(late, 0, 0)


def test_the_same_block_written_by_another_is_an_overlap_too() -> None:
    with pytest.raises(EngineFormatError, match=r"reads tensor 2 \(a\) after tensor 3 \(b\) took its bytes"):
        verify(chain(does((0,), 2), does((0,), 3), does((2, 3), 1), a=(0, 8), b=(0, 8)), 0, 0)


def test_a_workspace_takes_the_bytes_it_covers() -> None:
    with pytest.raises(EngineFormatError, match="after a kernel's workspace took its bytes 4 to 8"):
        verify(chain(does((0,), 2), does((0,), 3, workspace=(4, 4)), does((2, 3), 1), a=(0, 8), b=(8, 8)), 0, 0)


def test_views_may_share_bytes() -> None:
    whole = chain(does((0,), 2), does((3,), 1), does((4,), 1), a=(0, 8), same=(0, 8), part=(2, 4))
    verify(whole, 0, 0)
    joined = chain(does((0,), 2), does((0,), 3), does((4,), 1), left=(0, 4), right=(4, 4), both=(0, 8))
    verify(joined, 0, 0)


def test_half_of_a_view_is_not_enough() -> None:
    with pytest.raises(EngineFormatError, match=r"reads tensor 3 \(both\) before anything writes it"):
        verify(chain(does((0,), 2), does((3,), 1), left=(0, 4), both=(0, 8)), 0, 0)
    with pytest.raises(EngineFormatError, match=r"reads tensor 3 \(across\) after tensor 2 \(a\) took"):
        verify(chain(does((0,), 4), does((0,), 2), does((3,), 1), a=(0, 8), across=(4, 8), old=(8, 8)), 0, 0)


def test_empty_tensors_overlap_nothing() -> None:
    verify(chain(does((0,), 2), does((0,), 3), does((2, 3), 1), a=(0, 8), b=(4, 0)), 0, 0)


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 20)), max_size=12), st.integers(0, 45), st.integers(0, 20))
def test_owners_agree_with_an_array(writes: list[tuple[int, int]], start: int, size: int) -> None:
    owners, array = Owners(), [-1] * 80
    for number, (at, length) in enumerate(writes):
        owners.write(at, at + length, number)
        array[at : at + length] = [number] * length
    read = [(k, owner) for a, b, owner in owners.read(start, start + size) for k in range(a, b)]
    assert read == [(k, array[k]) for k in range(start, start + size)]


def test_a_network_of_ten_thousand_steps_is_checked_in_a_second() -> None:
    import time

    n = 10_000
    tensors = [Tensor("x", dt.u8, (8,), "input", 0, 8), Tensor("y", dt.u8, (8,), "output", 0, 8)]
    tensors += [Tensor(f"t{k}", dt.u8, (8,), "arena", 8 * (k % 64), 8) for k in range(n)]
    steps = [does((0 if k == 0 else k + 1,), k + 2) for k in range(n)]
    started = time.process_time()
    verify(Program("long", (0,), (1,), tuple(tensors), (*steps, does((n + 1,), 1)), (), {}, 512, 0, 512), 0, 0)
    assert time.process_time() - started < 1


def test_symbols_without_an_input_are_data_dependent() -> None:
    verify(symbol("u0", lambda s: Symbol(Range(0, 7))), 2, 70)


def test_clusters_of_any_size_up_to_eight_fill_their_grids() -> None:
    for size in range(1, 9):
        verify(clusters(size, 6 * size), 2, 70)
        verify(clusters(size, size * N + 2 * size), 2, 70)
