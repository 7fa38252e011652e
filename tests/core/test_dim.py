"""Symbolic integers against Python's own: every law is tried on random expressions and random values."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from bessemer.core import dim as dm
from bessemer.core import dimtext
from bessemer.core import interval as iv
from bessemer.core.dim import Dim, DimExpr, sym
from bessemer.core.errors import ShapeError
from bessemer.core.interval import INF, Range

NAMES = ("a", "b", "n")
CONSTANTS = st.integers(-9, 40)
LEAVES: st.SearchStrategy[Any] = st.one_of(CONSTANTS, st.sampled_from([("sym", n) for n in NAMES]))
BINARY: dict[str, tuple[Callable[[Any, Any], Any], Callable[[int, int], int]]] = {
    "add": (operator.add, operator.add),
    "sub": (operator.sub, operator.sub),
    "mul": (operator.mul, operator.mul),
    "floordiv": (dm.floordiv, operator.floordiv),
    "mod": (dm.mod, operator.mod),
    "min": (dm.minimum, min),
    "max": (dm.maximum, max),
}
TREES = st.recursive(LEAVES, lambda t: st.tuples(st.sampled_from(sorted(BINARY)), t, t), max_leaves=7)
ENVS = st.fixed_dictionaries({n: st.integers(0, 50) for n in NAMES})


def symbolic(tree: Any) -> Dim:
    match tree:
        case int():
            return tree
        case ("sym", name):
            return sym(name)
        case (op, a, b):
            return BINARY[op][0](symbolic(a), symbolic(b))
    raise AssertionError


def concrete(tree: Any, env: dict[str, int]) -> int:
    match tree:
        case int():
            return tree
        case ("sym", name):
            return env[name]
        case (op, a, b):
            return BINARY[op][1](concrete(a, env), concrete(b, env))
    raise AssertionError


def either(tree: Any, env: dict[str, int]) -> tuple[Dim, int]:
    """The dim and its value; examples that divide by zero are thrown away."""
    try:
        return symbolic(tree), concrete(tree, env)
    except ZeroDivisionError:
        assume(False)
        raise


@given(TREES, ENVS)
def test_evaluation_agrees_with_python(tree: Any, env: dict[str, int]) -> None:
    d, value = either(tree, env)
    assert dm.evaluate(d, env) == value
    assert isinstance(d, (int, DimExpr))


@given(TREES, ENVS)
def test_text_parses_back_to_the_same_normal_form(tree: Any, env: dict[str, int]) -> None:
    d, _ = either(tree, env)
    assert dimtext.parse(str(d)) == d
    assert hash(dimtext.parse(str(d))) == hash(d)


@given(TREES, ENVS)
def test_substitution_is_the_identity_on_the_empty_environment(tree: Any, env: dict[str, int]) -> None:
    d, _ = either(tree, env)
    assert dm.substitute(d, {}) == d


@given(TREES, ENVS, st.sampled_from(NAMES))
def test_partial_substitution_agrees_with_the_whole(tree: Any, env: dict[str, int], name: str) -> None:
    d, value = either(tree, env)
    try:
        partly = dm.substitute(d, {name: env[name]})
    except ZeroDivisionError:
        assume(False)
        raise
    assert dm.evaluate(partly, env) == value
    assert name not in dm.symbols(partly)


@given(TREES, TREES, TREES, ENVS)
def test_normal_form_makes_equal_polynomials_identical(x: Any, y: Any, z: Any, env: dict[str, int]) -> None:
    a, b, c = (either(t, env)[0] for t in (x, y, z))
    assert a + b == b + a
    assert a * b == b * a
    assert (a + b) + c == a + (b + c)
    assert (a * b) * c == a * (b * c)
    assert a * (b + c) == a * b + a * c
    assert a - a == 0
    assert a + b - b == a
    assert 0 - (0 - a) == a
    assert 0 + a == a * 1 == a


@given(TREES, st.fixed_dictionaries({n: st.tuples(st.integers(0, 20), st.integers(0, 20)) for n in NAMES}), st.data())
def test_bounds_hold_every_value(tree: Any, ends: dict[str, tuple[int, int]], data: st.DataObject) -> None:
    ranges = {n: Range(min(e), max(e)) for n, e in ends.items()}
    env = {n: data.draw(st.integers(r.lo, r.hi), label=n) for n, r in ranges.items()}
    d, value = either(tree, env)
    lo, hi = iv.bounds(d, ranges)
    assert lo <= value <= hi
    loose = iv.bounds(d, {})
    assert loose[0] <= value <= loose[1]


@given(
    TREES, TREES, st.fixed_dictionaries({n: st.tuples(st.integers(0, 9), st.integers(0, 9)) for n in NAMES}), st.data()
)
def test_compare_is_never_wrong(x: Any, y: Any, ends: dict[str, tuple[int, int]], data: st.DataObject) -> None:
    ranges = {n: Range(min(e), max(e)) for n, e in ends.items()}
    env = {n: data.draw(st.integers(r.lo, r.hi), label=n) for n, r in ranges.items()}
    (a, p), (b, q) = either(x, env), either(y, env)
    equal, less = iv.compare(a, b, ranges)
    assert equal in (None, p == q)
    assert less in (None, p < q)
    if isinstance(a, int) and isinstance(b, int):
        assert (equal, less) == (p == q, p < q)


@given(TREES, st.fixed_dictionaries({n: st.tuples(st.integers(0, 12), st.sampled_from([1, 2, 8, 96])) for n in NAMES}))
def test_divisor_divides(tree: Any, values: dict[str, tuple[int, int]]) -> None:
    ranges = {n: Range(multiple=m) for n, (_, m) in values.items()}
    d, value = either(tree, {n: k * m for n, (k, m) in values.items()})
    found = iv.divisor(d, ranges)
    assert found in (1, 2, 4, 8, 16, 32, 64, 128, 256)
    assert value % found == 0
    for by in (1, 3, 4, 6, 96):
        assert not iv.divisible(d, by, ranges) or value % by == 0
    assert iv.divisible(3 * d, 3, ranges) and iv.divisible(d, found, ranges)


def test_what_divides_both_ends_divides_the_lesser() -> None:
    """A grid of at most so many clusters, that is empty at other shapes: kernels of clusters need whole ones."""
    b = sym("b")
    grid, here = dm.minimum(16 * b, 240), dm.minimum(1, dm.floordiv(b, 6))
    ranges = {"b": Range(1, 100)}
    assert iv.divisible(grid - here * grid, 4, ranges) and iv.divisible(here * grid, 16, ranges)
    assert not iv.divisible(dm.minimum(16 * b, 242), 4, ranges) and not iv.divisible(here * 2, 4, ranges)
    assert iv.divisor(grid, ranges) == 16 and iv.divisor(0, ranges) == 256


def test_quotients_are_taken_out() -> None:
    n, m = sym("n"), sym("m")
    assert (4 * n) // 2 == 2 * n
    assert (4 * n + 3) // 2 == 2 * n + 1
    assert (n * m) // m == n
    assert (n // 2) // 3 == n // 6
    assert (4 * n) % 4 == 0
    assert dm.ceildiv(4 * n, 4) == n
    assert str((n + 1) // 2) == "floordiv(n+1,2)"
    assert n // n == 1


@given(ENVS, st.integers(1, 9), st.integers(1, 9))
def test_nested_floor_division_by_positive_constants_collapses_rightly(env: dict[str, int], p: int, q: int) -> None:
    nested = ((sym("a") + 1) // p + 5) // q
    assert dm.evaluate(nested, env) == ((env["a"] + 1) // p + 5) // q


def test_extremes_know_constant_differences() -> None:
    n = sym("n")
    assert dm.minimum(n, n + 3) == n
    assert dm.maximum(n, n + 3) == n + 3
    assert dm.minimum(n, 4) == dm.minimum(4, n)
    assert dm.maximum(n, n) == n


@pytest.mark.parametrize(
    "text",
    [
        "",
        "n +",
        "n n",
        "n/2",
        "min(1)",
        "min(n,2,3)",
        "n**2",
        "True",
        "1.5",
        "'n'",
        "f(n,1)",
        "n[0]",
        "__import__('os')",
        "min(n,b=2)",
        "not n",
    ],
)
def test_foreign_text_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError):
        dimtext.parse(text)


@pytest.mark.parametrize(
    "text", ["(" * 5000 + "n" + ")" * 5000, "-" * 100_000 + "1", "n+" * 50_000 + "n", "9" * 5000, "n\x00"]
)
def test_monstrous_text_is_a_value_error_or_parses(text: str) -> None:
    try:
        dimtext.parse(text)
    except ValueError:
        pass


@pytest.mark.parametrize("text", ["floordiv(n,0)", "mod(4,0)", "mod(n,0)", "floordiv(1,n-n)"])
def test_division_by_zero_is_refused_while_parsing(text: str) -> None:
    with pytest.raises(ValueError):
        dimtext.parse(text)


def test_undecided_comparisons_raise_with_a_fix() -> None:
    n = sym("n")
    ranges = {"n": Range(1, 8)}
    assert iv.decide_eq(n, n, ranges)
    assert not iv.decide_eq(n, 9, ranges)
    with pytest.raises(ShapeError, match="cannot decide whether dimensions n and 8 are equal") as caught:
        iv.decide_eq(n, 8, ranges)
    assert caught.value.fix and "--shapes" in caught.value.fix
    with pytest.raises(ShapeError, match="truth of the symbolic dimension"):
        bool(n)
    with pytest.raises(ShapeError, match="n is unknown here"):
        dm.evaluate(n + 1, {})


def test_typical_size() -> None:
    assert Range(1, 64, 8).typical == 8
    assert Range(1, 64).typical == 64
    assert Range(1, INF).typical == 16
    assert Range(32, INF).typical == 32
    typical = Range(1, INF, multiple=12).typical
    assert typical % 12 == 0 and typical > 0


def test_products() -> None:
    n = sym("n")
    assert dm.product([]) == 1
    assert dm.product([2, n, 3]) == 6 * n
    assert dm.product([n, 0]) == 0


def test_a_quotient_by_zero_is_named() -> None:
    with pytest.raises(ShapeError, match=r"floordiv\(12,m-1\) has no value: it divides by zero at m = 1"):
        dm.evaluate(dm.floordiv(12, sym("m") - 1), {"m": 1, "n": 2})
