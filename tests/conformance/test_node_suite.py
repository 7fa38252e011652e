"""Every case of ONNX's node suite does what the golden file of its target says, or better."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conformance.node_suite import FAILED, PASS, REFUSED, cases, golden, outcome, ratio

REQUIRED = {"reference": 0.95, "reference-dynamic": 0.90, "cpu": 0.95, "cpu-dynamic": 0.90}  # of the cases that count
TARGETS = tuple(REQUIRED)
RECORDED = {target: golden(target) for target in TARGETS}
EVERY = {"cpu-dynamic": 5}  # by target: of how many cases one runs by default, the others with --slow


def _runs() -> Iterator[object]:
    for target in TARGETS:
        for number, name in enumerate(sorted(cases())):
            often = number % EVERY.get(target, 1) == 0
            yield pytest.param(target, name, id=f"{target}-{name}", marks=() if often else pytest.mark.slow)


def test_the_golden_file_lists_every_case():
    for target in TARGETS:
        assert RECORDED[target].keys() == cases().keys(), f"python -m tests.conformance.update {target}"


@pytest.mark.parametrize(("target", "name"), list(_runs()))
def test_case(target: str, name: str):
    recorded, result = RECORDED[target].get(name, ""), outcome(target, cases()[name])
    assert not result.startswith(FAILED), result
    assert result == PASS or recorded != PASS, f"passed before, and now: {result}"
    if result == PASS:
        assert recorded == PASS, f"passes now: python -m tests.conformance.update {target}"
    else:
        assert result.startswith(REFUSED)


@pytest.mark.parametrize("target", TARGETS)
def test_enough_cases_pass(target: str):
    passed, counted = ratio(RECORDED[target])
    assert passed >= REQUIRED[target] * counted, f"{passed} of {counted}"
