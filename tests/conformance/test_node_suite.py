"""Every case of ONNX's node suite does what the golden file of its target says, or better."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.conformance.node_suite import FAILED, PASS, REFUSED, cases, golden, outcome, ratio
from tests.conformance.update import outcomes_of

FIXED, DYNAMIC = 0.95, 0.90  # of the cases that count
REQUIRED = {f"{target}{how}": share for target in ("reference", "cpu", "cuda")
            for how, share in (("", FIXED), ("-dynamic", DYNAMIC))}  # fmt: skip
TARGETS = tuple(target for target in REQUIRED if not target.startswith("cuda"))  # of any machine
RECORDED = {target: golden(target) for target in REQUIRED}
# By target: of how many cases one runs by default, the others with --slow; and of how many cases of functions that are
# written out as nodes, which have cases of their own.
EVERY = {"cpu": (1, 4), "cpu-dynamic": (5, 15)}


def _runs() -> Iterator[object]:
    kinds = [[name for name in sorted(cases()) if ("_expanded" in name) == expanded] for expanded in (False, True)]
    for target in TARGETS:
        for names, every in zip(kinds, EVERY.get(target, (1, 1))):
            for number, name in enumerate(names):
                often = number % every == 0
                yield pytest.param(target, name, id=f"{target}-{name}", marks=() if often else pytest.mark.slow)


def test_the_golden_file_lists_every_case():
    for target in REQUIRED:
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


@pytest.mark.gpu
@pytest.mark.timeout(600)
@pytest.mark.parametrize("target", [target for target in REQUIRED if target not in TARGETS])
def test_cases_on_a_gpu(target: str):
    """All of them, in as many processes as there are cores."""
    found = outcomes_of(target, os.cpu_count() or 1)
    failed = {name: result for name, result in found.items() if result.startswith(FAILED)}
    worse = {name: result for name, result in found.items() if RECORDED[target].get(name) == PASS != result}
    assert not failed and not worse


@pytest.mark.parametrize("target", REQUIRED)
def test_enough_cases_pass(target: str):
    passed, counted = ratio(RECORDED[target])
    assert passed >= REQUIRED[target] * counted, f"{passed} of {counted}"
