"""The BEFORE and AFTER texts of every pattern: the pass turns one into the other, and both compute the same."""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType

import pytest

from bessemer.ir.builder import renamed
from bessemer.ir.graph import Graph
from bessemer.ir.text import parse, print_graph
from bessemer.ir.verify import verify
from bessemer.passes import fusion
from bessemer.passes.base import Pass, PassOptions, apply
from tests.graphs import assert_same_numbers

MODULES = [importlib.import_module(m.name) for m in pkgutil.iter_modules(fusion.__path__, fusion.__name__ + ".")]
GPU = PassOptions("cuda")  # every pattern holds there; some only there
PATTERNS = {m.__name__.rsplit(".", 1)[1]: m for m in MODULES if isinstance(getattr(m, "PASS", None), Pass)}


def canonical(graph: Graph) -> str:
    """The text with values named by the order of their nodes, and folded weights by type alone."""
    outputs = [o for n in graph.nodes for o in n.outputs if o]
    names = {old: f"v{k}" for k, old in enumerate(outputs)}
    names |= {old: f"c{k}" for k, old in enumerate(c for n in graph.nodes for c in n.inputs if c in graph.constants)}
    plain = Graph(
        graph.name, graph.inputs, tuple(names.get(o, o) for o in graph.outputs),
        tuple(renamed(n, names) for n in graph.nodes), {names.get(k, k): t for k, t in graph.types.items()},
        {names[k]: c for k, c in graph.constants.items() if k in names}, graph.ranges,
    )  # fmt: skip
    lines = print_graph(plain).splitlines()
    return "\n".join(line.split("  //")[0].split(" = constant ")[0] for line in lines) + "\n"


def test_every_pattern_has_texts() -> None:
    assert {id(p) for p in fusion.PATTERNS} >= {id(m.PASS) for m in PATTERNS.values()}
    assert [name for name, m in PATTERNS.items() if not (hasattr(m, "BEFORE") and hasattr(m, "AFTER"))] == []


@pytest.mark.parametrize("module", PATTERNS.values(), ids=PATTERNS)
def test_before_becomes_after(module: ModuleType) -> None:
    before = parse(module.BEFORE)
    verify(before)
    after = apply(module.PASS, before, GPU)
    verify(after)
    assert canonical(after).split() == module.AFTER.split()
    assert_same_numbers(before, after)
    again = apply(module.PASS, after, GPU)
    assert canonical(again) == canonical(after), "a second run finds nothing"
