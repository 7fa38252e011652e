"""Dimensions without an upper end: no memory is planned for what they size, and the build says so."""

from __future__ import annotations

import numpy as np
import pytest

from bessemer import Profile, build, load
from bessemer.core.dim import Dim, sym
from bessemer.core.interval import INF, UNBOUNDED, Range
from bessemer.frontend.onnx import import_model
from bessemer.ir.interp import run
from bessemer.plan.storage import planned_bytes
from bessemer.plan.unbounded import unbounded_notes
from tests.frontend.models import model, node, tensor, value

N = sym("n")


@pytest.mark.parametrize(
    ("size", "upper", "planned"),
    [(4 * N, 1000, 4000), (4 * N, UNBOUNDED, 4 * UNBOUNDED), (4096 * N, UNBOUNDED, None), (4096 * N, 2**19, 2**31),
     (4 * N, INF, None), (4 * N, 2**32, None), (48, UNBOUNDED, 48), (2**33, UNBOUNDED, 2**33)],
)  # fmt: skip
def test_memory_is_planned_for_what_has_an_upper_end(size: Dim, upper: int, planned: int | None) -> None:
    assert planned_bytes(size, {"n": Range(1, upper)}) == planned


def two_products() -> bytes:
    """Two products in a row, so that there is a value between kernels."""
    rng = np.random.default_rng(3)
    weights = [tensor(name, rng.standard_normal((64, 64)).astype(np.float32) / 8) for name in "ab"]
    nodes = [node("MatMul", ["bytes", "a"], ["h"]), node("MatMul", ["h", "b"], ["y"])]
    return model(nodes, [value("bytes", ["batch", 64])], ["y"], weights).SerializeToString()


def test_any_batch_runs_and_the_note_names_the_input_and_the_fix() -> None:
    engine = build(two_products(), tune="off")
    (note,) = unbounded_notes(engine.program)
    assert note in engine.manifest["notes"]
    assert note.startswith("input 'bytes', dimension 0 (batch) has no upper end: no memory is planned for what")
    assert "gets 1 block while running" in note and "--max-shapes" in note
    session = load(engine)
    for rows in (1, 3, 700, 2):
        x = np.random.default_rng().standard_normal((rows, 64)).astype(np.float32)
        want = run(import_model(two_products()), {"bytes": x})["y"]
        np.testing.assert_allclose(session.run({"bytes": x})["y"], want, 1e-4, 1e-4)


def test_values_that_are_never_in_use_together_share_a_block() -> None:
    """A chain of products of ever other widths, with the first value used once more at the end."""
    rng = np.random.default_rng()
    widths = (64, 256, 32, 128, 64, 256)
    sizes = list(zip(widths, widths[1:]))
    weights = [tensor(f"w{k}", rng.standard_normal(s).astype(np.float32) / 8) for k, s in enumerate(sizes)]
    nodes = [node("MatMul", [f"h{k}" if k else "x", f"w{k}"], [f"h{k + 1}"]) for k in range(len(sizes))]
    nodes.append(node("MatMul", ["h5", "again"], ["z"]))
    again = tensor("again", rng.standard_normal((256, 256)).astype(np.float32) / 16)
    nodes.append(node("Add", ["z", "h1"], ["y"]))
    proto = model(nodes, [value("x", ["batch", 1024, 64])], ["y"], [*weights, again]).SerializeToString()
    engine = build(proto, tune="off")
    assert {t.offset for t in engine.program.tensors if t.space == "dynamic"} == {0, 1, 2}
    session = load(engine)
    for batch in (1, 4, 2, 5):
        x = rng.standard_normal((batch, 1024, 64)).astype(np.float32)
        want = run(import_model(proto), {"x": x})["y"]
        np.testing.assert_allclose(session.run({"x": x})["y"], want, 1e-4, 1e-4)


def test_a_profile_plans_the_memory() -> None:
    engine = build(two_products(), tune="off", profiles=[Profile({"bytes": ((1, 64), (1, 64), (8, 64))})])
    assert engine.memory["arena"] >= 8 * 64 * 4 and unbounded_notes(engine.program) == []
