"""Each rule of the IR, broken once."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bessemer.core import dtype as dt
from bessemer.core.errors import GraphError
from bessemer.ir.graph import TensorType
from bessemer.ir.text import parse
from bessemer.ir.verify import verify

GOOD = """\
graph "g"(%x: f32[N,4], %c: bool[]) -> (%z) {
  sym N = [1, 8] opt 2
  %k: f32[4] = constant "normal:1"
  %y: f32[N,4] = add(%x, %k)  // sum
  %z: f32[N,4] = if(%c) {then_branch = graph "t"() -> (%t) {
    %t: f32[N,4] = neg(%y)
  }, else_branch = graph "e"() -> (%e) {
    %e: f32[N,4] = exp(%y)
  }}
}
"""


def test_a_good_graph_passes():
    verify(parse(GOOD))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("%y: f32[N,4] = add(%x, %k)", "%y: f32[N,4] = add(%x, %missing)", "%missing is read before it is written"),
        ("%y: f32[N,4] = add(%x, %k)", "%y: f32[N,5] = add(%x, %k)", "%y is typed f32[N,5], and add gives f32[N,4]"),
        ("%y: f32[N,4] = add(%x, %k)", "%y: f16[N,4] = add(%x, %k)", "%y is typed f16[N,4]"),
        ("%y: f32[N,4] = add(%x, %k)", "%y: f32[M,4] = add(%x, %k)", "the symbol M in the type of %y has no range"),
        ("%y: f32[N,4] = add(%x, %k)", "%y: f32[N,4] = frob(%x, %k)", "unknown op 'frob'"),
        ("%y: f32[N,4] = add(%x, %k)", "%x: f32[N,4] = add(%x, %k)", "%x is written twice"),
        ("%y: f32[N,4] = add(%x, %k)", "%y: f32[N,4] = reshape(%x)", "the attribute 'shape' is missing"),
        ("= add(%x, %k)", "= reshape(%x) {shape = (<Q>, 4)}", "the symbol Q in its attributes has no range"),
        ("%y: f32[N,4] = add(%x, %k)", "%y: f32[N,4] = reshape(%x) {shape = (7, 9)}", "its types cannot be inferred"),
        ("%y: f32[N,4] = add(%x, %k)", "%y: f32[N,4], %q: f32[N,4] = add(%x, %k)", "it has 2 outputs; add gives 1"),
        ("-> (%z)", "-> (%nowhere)", "the output %nowhere is written nowhere"),
        ("%t: f32[N,4] = neg(%y)", "%t: f32[N,4] = neg(%e)", "%e is read before it is written"),
        ("%t: f32[N,4] = neg(%y)", "%t: f32[N,9] = neg(%y)", "%t is typed f32[N,9], and neg gives f32[N,4]"),
        ('"t"() -> (%t)', '"t"() -> (%y)', "the output %y is a value of a graph around this one"),
    ],
)
def test_a_broken_rule_is_named_with_the_line(old: str, new: str, message: str):
    assert old in GOOD
    with pytest.raises(GraphError) as error:
        verify(parse(GOOD.replace(old, new)))
    assert message in str(error.value), str(error.value)
    if "read before" in message or "typed" in message:
        assert new in str(error.value)


def test_a_constant_of_another_type_and_a_missing_type():
    graph = parse(GOOD)
    other = TensorType(dt.f32, (4, 1))
    with pytest.raises(GraphError, match=r"%k is typed f32\[4,1\] and holds f32\[4\]"):
        verify(replace(graph, types={**graph.types, "k": other}))
    with pytest.raises(GraphError, match="%y has no type"):
        verify(replace(graph, types={k: t for k, t in graph.types.items() if k != "y"}))


def test_data_dependent_sizes_need_not_keep_their_names():
    text = GOOD.replace("%z: f32[N,4] = if", "%z: f32[u9,4] = if").replace("sym N", "sym u9 = [0, 8]\n  sym N")
    text = text.replace("%e: f32[N,4] = exp(%y)", "%e: f32[3,4] = exp(%k3)")
    verify(parse(text.replace("  %y:", '  %k3: f32[3,4] = constant "normal:2"\n  %y:')))
