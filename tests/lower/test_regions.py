"""Which nodes become one kernel, and that the composed kernels compute what the nodes did."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bessemer.core import dtype as dt
from bessemer.core.dim import sym
from bessemer.core.interval import Range
from bessemer.ir import expr as ex
from bessemer.ir import exprtree
from bessemer.lower.items import AliasItem, HostItem, JoinItem, KernelItem
from tests.graphs import G
from tests.lower.checks import check, kernels
from tests.random_graphs import STEPS, grown


def residual_block(g: G, x: str, w: str, bias: str) -> str:
    return g.relu(g.add(g.add(g.conv(x, w, pad=1), bias), x))


def test_convolution_bias_residual_and_activation_are_one_kernel() -> None:
    g = G()
    x = g.input(2, 4, 5, 6)
    lowered = check(g.done(residual_block(g, x, g.weight(4, 4, 3, 3), g.weight(4, 1, 1, seed=2))))
    assert kernels(lowered) == ["conv+add+add+relu"]
    (item,) = lowered.items
    assert isinstance(item, KernelItem)
    assert item.operands[:2] == item.nodes[0].inputs and len(item.operands) == 3, "the residual is the input again"
    p = item.problem
    assert (p.op, p.anchors) == ("conv", 2) and [o.constant for o in p.operands] == [False, True, True]
    assert p.epilogue is not None and any(isinstance(n, ex.Acc) for n in exprtree.walk(p.epilogue))


def test_equal_blocks_are_equal_problems() -> None:
    g = G()
    x = g.input(2, 4, 5, 6)
    y = residual_block(g, x, g.weight(4, 4, 3, 3), g.weight(4, 1, 1, seed=2))
    z = residual_block(g, y, g.weight(4, 4, 3, 3, seed=3), g.weight(4, 1, 1, seed=4))
    lowered = check(g.done(z))
    first, second = (i.problem for i in lowered.items if isinstance(i, KernelItem))
    assert first == second and hash(first) == hash(second)


def test_silu_after_a_convolution_reads_the_accumulator_twice() -> None:
    g = G()
    y = g.conv(g.input(1, 3, 5, 5), g.weight(8, 3, 3, 3))
    lowered = check(g.done(g.mul(y, g.sigmoid(y))))
    assert kernels(lowered) == ["conv+sigmoid+mul"]


def test_a_value_that_is_also_an_output_is_stored() -> None:
    g = G()
    y = g.conv(g.input(1, 3, 5, 5), g.weight(8, 3, 3, 3))
    lowered = check(g.done(g.relu(y), y))
    assert sorted(kernels(lowered)) == ["conv", "relu"]


def test_an_output_in_the_middle_of_a_chain() -> None:
    g = G()
    a = g.relu(g.input(4, 5))
    b = g.exp(a)
    assert sorted(kernels(check(g.done(g.add(b, 1.0), b)))) == ["add", "relu+exp"]


def test_two_consumers_in_two_kernels_keep_the_value() -> None:
    g = G()
    y = g.relu(g.input(4, 8))
    a, b = g.matmul(y, g.weight(8, 3)), g.matmul(y, g.weight(8, 5, seed=2))
    assert sorted(kernels(check(g.done(a, b)))) == ["matmul", "matmul", "relu"]


def test_costly_code_is_not_repeated_across_a_broadcast() -> None:
    g = G()
    row = g.exp(g.input(1, 64))
    lowered = check(g.done(g.add(g.input(32, 64, name="y"), row)))
    assert sorted(kernels(lowered)) == ["add", "exp"]


def test_cheap_code_is_repeated_across_a_broadcast() -> None:
    g = G()
    row = g.neg(g.input(1, 64))
    assert kernels(check(g.done(g.add(g.input(32, 64, name="y"), row)))) == ["neg+add"]


def test_costly_code_before_a_reduction_runs_once_per_element() -> None:
    g = G()
    x = g.input(4, 16)
    assert kernels(check(g.done(g.reduce(g.exp(x), "sum", 1)))) == ["exp+reduce"]


def test_a_reduction_takes_what_follows_at_its_own_shape() -> None:
    g = G()
    x = g.input(4, 16)
    assert kernels(check(g.done(g.sqrt(g.add(g.reduce(g.mul(x, x), "mean", 1), 1e-5))))) == ["mul+reduce+add+sqrt"]


def test_a_reduction_is_not_repeated_for_every_element() -> None:
    g = G()
    x = g.input(4, 16)
    lowered = check(g.done(g.sub(x, g.reduce(x, "max", 1))))
    assert kernels(lowered) == ["reduce", "sub"]


def test_an_index_map_after_a_product_is_another_kernel() -> None:
    g = G()
    y = g.matmul(g.input(4, 8), g.weight(8, 6))
    assert kernels(check(g.done(g.transpose(y, perm=(1, 0))))) == ["matmul", "transpose"]


def test_slices_behind_a_product_that_its_epilogue_reads_are_in_its_kernel() -> None:
    g = G()
    film, product = g.relu(g.input(2, 1, 1, 16)), g.matmul(g.input(2, 3, 4, 8), g.weight(8, 8))
    film = g.reshape(film, shape=(2, 1, 1, 16))
    scale = g.slice(film, starts=(0, 0, 0, 0), sizes=(2, 1, 1, 8), steps=(1, 1, 1, 1))
    shift = g.slice(film, starts=(0, 0, 0, 8), sizes=(2, 1, 1, 8), steps=(1, 1, 1, 1))
    graph = g.done(g.add(g.mul(product, scale), shift))
    assert kernels(check(graph)) == ["relu", "matmul+slice+slice+mul+add"]


def test_other_index_maps_behind_a_product_are_not() -> None:
    g = G()
    product = g.matmul(g.input(2, 4, 8), g.weight(8, 8))
    graph = g.done(g.add(product, g.transpose(g.input(2, 8, 4), perm=(0, 2, 1))))
    assert kernels(check(graph)) == ["matmul", "transpose+add"]


def test_a_slice_of_the_product_itself_is_another_kernel() -> None:
    g = G()
    product = g.matmul(g.input(2, 4, 8), g.weight(8, 8))
    half = g.slice(product, starts=(0, 0, 4), sizes=(2, 4, 4), steps=(1, 1, 1))
    assert kernels(check(g.done(g.relu(half)))) == ["matmul", "slice+relu"]


def test_index_maps_compose() -> None:
    g = G()
    x = g.input(4, 6)
    y = g.slice(g.transpose(x, perm=(1, 0)), starts=(1, 0), sizes=(4, 4), steps=(1, 1))
    z = g.concat(y, g.pad(g.relu(y), pads=(0, 0, 0, 0), mode="constant"), axis=1)
    lowered = check(g.done(z))
    assert len(kernels(lowered)) <= 2


def test_views_are_no_kernels_and_end_groups() -> None:
    g = G()
    y = g.reshape(g.relu(g.input(4, 6)), shape=(2, 12))
    lowered = check(g.done(g.exp(y)))
    assert kernels(lowered) == ["relu", "exp"]
    assert sum(isinstance(i, AliasItem) for i in lowered.items) == 1


def halves(g: G, *lead: int) -> tuple[str, str]:
    """Two products, each with an activation."""
    a, b = g.input(*lead, 8, 16, name="a"), g.input(*lead, 8, 16, name="b")
    w = g.weight(16, 16)
    return g.relu(g.matmul(a, w)), g.tanh(g.matmul(b, w))


@pytest.mark.parametrize("lead", [(), (1,), (1, 1)])
def test_what_is_joined_along_the_outermost_axis_is_written_in_place(lead: tuple[int, ...]) -> None:
    g = G()
    y, z = halves(g, *lead)
    lowered = check(g.done(g.exp(g.matmul(g.concat(y, z, axis=len(lead)), g.weight(16, 4, seed=2)))))
    assert kernels(lowered) == ["matmul+relu", "matmul+tanh", "matmul+exp"]
    (join,) = [i for i in lowered.items if isinstance(i, JoinItem)]
    assert join.parts == (y, z) and join.offsets == (0, 8 * 16 * 4)


def test_parts_may_be_read_by_others_too() -> None:
    g = G()
    y, z = halves(g)
    joined = g.matmul(g.concat(y, z, axis=0), g.weight(16, 4, seed=2))
    lowered = check(g.done(joined, g.reshape(g.add(y, z), shape=(2, 64))))
    assert sum(isinstance(i, JoinItem) for i in lowered.items) == 1


NO_JOINS: dict[str, Callable[[G], str]] = {
    "an inner axis": lambda g: g.exp(g.concat(*halves(g), axis=1)),
    "an outer axis above it": lambda g: g.exp(g.concat(*halves(g, 2), axis=1)),
    "an output": lambda g: g.concat(*halves(g), axis=0),
    "a part that is not aligned": lambda g: g.exp(g.concat(
        g.matmul(g.input(1, 8), g.weight(8, 4)), g.matmul(g.input(2, 8, name="y"), g.weight(8, 4)), axis=0)),
    "the caller's part": lambda g: g.exp(g.concat(halves(g)[0], g.input(8, 16, name="c"), axis=0)),
    "a part twice": lambda g: g.exp(g.concat(*[halves(g)[0]] * 2, axis=0)),
    "pointwise parts": lambda g: g.matmul(
        g.concat(g.exp(g.input(8, 16)), g.relu(g.input(8, 16, name="y")), axis=0), g.weight(16, 4)),
    "a view": lambda g: g.exp(g.concat(*[g.reshape(v, shape=(16, 8)) for v in halves(g)], axis=0)),
}  # fmt: skip


@pytest.mark.parametrize("build", NO_JOINS.values(), ids=NO_JOINS)
def test_other_concatenations_are_kernels(build: Callable[[G], str]) -> None:
    g = G()
    lowered = check(g.done(build(g)))
    assert not any(isinstance(i, JoinItem) for i in lowered.items)


def test_a_slice_of_what_was_joined_is_a_kernel() -> None:
    """It would be a view of bytes that two kernels wrote."""
    g = G()
    joined = g.concat(*halves(g), axis=0)
    part = g.slice(joined, starts=(4, 0), sizes=(8, 16), steps=(1, 1))
    lowered = check(g.done(g.matmul(part, g.weight(16, 4, seed=2)), g.exp(joined)))
    assert "slice" in "+".join(kernels(lowered)) and sum(isinstance(i, JoinItem) for i in lowered.items) == 1


def test_two_products_are_never_in_one_kernel() -> None:
    g = G()
    x = g.input(4, 8)
    y = g.add(g.matmul(x, g.weight(8, 8)), g.matmul(x, g.weight(8, 8, seed=2)))
    assert sorted(kernels(check(g.done(y)))) == ["matmul", "matmul+add"]


def test_a_product_that_is_broadcast_afterwards_stays_alone() -> None:
    g = G()
    y = g.matmul(g.input(1, 8), g.weight(8, 8))
    assert kernels(check(g.done(g.add(y, g.input(4, 8, name="y"))))) == ["matmul", "add"]


def test_a_normalised_row_keeps_its_template() -> None:
    g = G()
    y = g.softmax(g.input(4, 8), axis=1, log=False)
    assert kernels(check(g.done(g.mul(y, 2.0)))) == ["softmax+mul"]


def test_casts_in_an_epilogue() -> None:
    g = G()
    x = g.input(4, 8, dtype=dt.f16)
    y = g.cast(g.matmul(x, g.cast(g.weight(8, 6), to=dt.f16)), to=dt.f32)
    assert kernels(check(g.done(g.add(y, 1.0)), tolerance=2e-3)) == ["matmul+cast+add"]


def test_symbolic_shapes() -> None:
    g = G(n=Range(1, 64, 5), s=Range(1, 32, 3))
    x = g.input(sym("n"), sym("s"), 8)
    y = g.relu(g.add(g.matmul(x, g.weight(8, 4)), g.weight(4, seed=2)))
    z = g.concat(y, g.transpose(g.transpose(y, perm=(1, 0, 2)), perm=(1, 0, 2)), axis=1)
    check(g.done(z))


def test_what_no_tactic_takes_runs_alone_and_then_on_the_host() -> None:
    g = G()
    x = g.input(2, 4, 5, 6)
    graph = g.done(residual_block(g, x, g.weight(4, 4, 3, 3), g.weight(4, 1, 1, seed=2)))
    unfused = check(graph, lambda p: "epilogues are not taken" if p.op == "conv" and p.epilogue is not None else None)
    assert kernels(unfused) == ["conv", "add", "add", "relu"]
    host = check(graph, lambda p: "gemm: no float32")
    assert [i.node.op for i in host.items if isinstance(i, HostItem)] == ["conv", "add", "add", "relu"]
    assert all("gemm: no float32" in i.why for i in host.items if isinstance(i, HostItem))


def test_large_expressions_are_split() -> None:
    g = G()
    x = y = g.input(4, 4)
    for k in range(150):
        y = g.add(g.mul(y, 1.0 - k * 1e-3), x)
    lowered = check(g.done(y), tolerance=1e-4)
    assert 300 / 32 <= len(kernels(lowered)) < 12


def test_many_operands_are_split() -> None:
    g = G()
    inputs = [g.input(4, name=f"x{k}") for k in range(40)]
    y = inputs[0]
    for x in inputs[1:]:
        y = g.add(y, x)
    lowered = check(g.done(y))
    assert all(len(i.problem.operands) <= 16 for i in lowered.items if isinstance(i, KernelItem))


@given(st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 500)), min_size=1, max_size=12))
def test_random_graphs_compute_the_same_in_groups(choices: list[tuple[str, int]]) -> None:
    graph = grown([c for c in choices if c[0] != "cast"])
    check(graph, tolerance=1e-4)
    check(graph, lambda p: "no templates" if p.op != "group" else None, tolerance=1e-4)


def test_composition_is_named_in_errors() -> None:
    with pytest.raises(KeyError, match="unknown op"):
        G().no_such_op("x")
