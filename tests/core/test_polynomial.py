"""The arithmetic of terms, on atoms that are letters."""

from __future__ import annotations

import pytest

from bessemer.core.polynomial import Monomial, added, common_factor, exact_quotient, in_order, multiplied

Terms = dict[Monomial[str], int]


def terms(text: str) -> Terms:
    """The terms of a sum such as "2ab+3": a coefficient and letters each."""
    out: Terms = {}
    for term in text.split("+"):
        letters = term.lstrip("-0123456789")
        out[tuple(sorted(letters))] = int(term[: len(term) - len(letters)])
    return out


def test_sums_keep_what_comes_to_nothing() -> None:
    assert added(terms("2ab+3"), terms("1ab+-1c"), 1) == terms("3ab+3+-1c")
    assert added(terms("2ab+3"), terms("2ab"), -1) == terms("0ab+3")


def test_products_have_sorted_monomials() -> None:
    assert multiplied(terms("1b+2"), terms("1a+-2")) == terms("1ab+-2b+2a+-4")
    assert multiplied(terms("1a+1b"), terms("1a+1b")) == terms("1aa+2ab+1bb")


@pytest.mark.parametrize(
    ("a", "b", "quotient"),
    [("6aab+4ab", "2ab", "3a+2"), ("6", "-3", "-2"), ("6ab+3", "3", "2ab+1"), ("6ab+3", "2", None),
     ("1ab+1a", "1b", None), ("1a", "1aa", None), ("1aa", "1a+1b", None), ("1a", "0", None)],
)  # fmt: skip
def test_quotients_are_exact_or_none(a: str, b: str, quotient: str | None) -> None:
    assert exact_quotient(terms(a), terms(b)) == (None if quotient is None else terms(quotient))


@pytest.mark.parametrize(
    ("a", "b", "factor"),
    [("4aab+6ab", "8aabc", (("a", "b"), 2)), ("4aab", "2aa", (("a", "a"), 2)), ("3a+5b", "15ab", ((), 1)),
     ("6", "4a", ((), 2))],
)  # fmt: skip
def test_the_common_factor_of_a_term_and_a_sum(a: str, b: str, factor: tuple[Monomial[str], int]) -> None:
    ((monomial, coefficient),) = terms(b).items()
    assert common_factor(terms(a), monomial, coefficient) == factor


def test_the_greatest_degree_comes_first_then_the_text() -> None:
    assert [m for m, _ in in_order(terms("7+1b+1a+1ab+1aab"))] == [("a", "a", "b"), ("a", "b"), ("a",), ("b",), ()]
