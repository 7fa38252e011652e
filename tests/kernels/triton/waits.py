"""Whether a Triton kernel waits for those ahead of it, read from its text.

Follows every launch's entry, and the functions that it calls, through all paths: tests that its constants decide are
decided, both sides of the others are taken. On each the kernel calls `begin` first and `wait` once, outside of loops;
before that it loads from constant operands alone, and stores nothing.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bessemer.kernels.base import KernelCode, Launch, Problem, Ptr

WRITES = ("store", "atomic_add", "make_tensor_descriptor")
UNKNOWN = object()


def check_waits(problem: Problem, code: KernelCode) -> None:
    """AssertionError, with the line, for the first launch that does not keep the order. C and CUDA kernels pass."""
    if code.language != "triton":
        return
    functions = {n.name: n for n in ast.parse(code.text).body if isinstance(n, ast.FunctionDef)}
    for launch in code.launches:
        entry = functions[launch.entry]
        walk = _Walk(functions)
        walk.function(entry, _arguments(problem, entry, launch))
        assert walk.waited, f"{launch.entry} does not wait for the kernels ahead"


@dataclass(frozen=True)
class _Value:
    """What is known of a value: its constant, and the operands that it points into and others may write."""

    constant: Any = UNKNOWN
    changing: frozenset[str] = frozenset()


def _arguments(problem: Problem, entry: ast.FunctionDef, launch: Launch) -> dict[str, _Value]:
    constants = {**dict(launch.options), "PDL": True}
    out = {name: _Value(value) for name, value in constants.items()}
    names = [a.arg for a in entry.args.args]
    for name, arg in zip([n for n in names if n not in constants], launch.args, strict=True):
        fixed = not isinstance(arg, Ptr) or (
            0 <= arg.operand < len(problem.operands) and problem.operands[arg.operand].constant
        )
        out[name] = _Value(changing=frozenset() if fixed else frozenset((name,)))
    return {name: out[name] for name in names}


@dataclass
class _Walk:
    functions: Mapping[str, ast.FunctionDef]
    begun: bool = False
    waited: bool = False
    returned: list[_Value] = field(default_factory=list)

    def function(self, node: ast.FunctionDef, names: dict[str, _Value]) -> _Value:
        outer, self.returned = self.returned, []
        self.statements(node.body, names)
        result = _Value(changing=frozenset().union(*(v.changing for v in self.returned)))
        self.returned = outer
        return result

    def statements(self, body: Sequence[ast.stmt], names: dict[str, _Value]) -> None:
        for node in body:
            match node:
                case ast.If():
                    self._if(node, names)
                case ast.For():
                    self.value(node.iter, names)
                    before = self.waited
                    for _ in range(2):  # what a turn assigns counts in the next one
                        self.statements(node.body, names)
                    assert self.waited == before, f"line {node.lineno}: waits in a loop"
                case ast.Assign(targets=[target]):
                    self._assign(target, self.value(node.value, names), names)
                case ast.AnnAssign(value=ast.expr() as value):
                    self._assign(node.target, self.value(value, names), names)
                case ast.AugAssign(target=ast.Name(id=name)):
                    added = self.value(node.value, names)
                    names[name] = _Value(changing=names[name].changing | added.changing)
                case ast.Return(value=ast.expr() as value):
                    self.returned.append(self.value(value, names))
                case ast.Expr():
                    self.value(node.value, names)
                case ast.Pass():
                    pass
                case _:
                    raise AssertionError(f"line {node.lineno}: unknown statement {ast.unparse(node)}")

    def _if(self, node: ast.If, names: dict[str, _Value]) -> None:
        known = self.value(node.test, names).constant
        if known is not UNKNOWN:
            self.statements(node.body if known else node.orelse, names)
            return
        before, other = self.waited, dict(names)
        self.statements(node.body, names)
        after, self.waited = self.waited, before
        self.statements(node.orelse, other)
        assert self.waited == after, f"line {node.lineno}: waits on one side only"
        for name, value in other.items():
            mine = names.get(name, value)
            same = mine.constant is value.constant
            names[name] = _Value(value.constant if same else UNKNOWN, mine.changing | value.changing)

    def _assign(self, target: ast.expr, value: _Value, names: dict[str, _Value]) -> None:
        if isinstance(target, ast.Tuple):
            value = _Value(changing=value.changing)
        for name in ast.walk(target):
            if isinstance(name, ast.Name):
                names[name.id] = value

    def value(self, node: ast.expr, names: dict[str, _Value]) -> _Value:
        if isinstance(node, ast.Call):
            return self._call(node, names)
        parts = [self.value(n, names) for n in ast.iter_child_nodes(node) if isinstance(n, ast.expr)]
        if isinstance(node, ast.Name):
            return names.get(node.id, _Value())
        return _Value(_constant(node, names), frozenset().union(*(p.changing for p in parts)))

    def _call(self, node: ast.Call, names: dict[str, _Value]) -> _Value:
        args = [self.value(a, names) for a in (*node.args, *(k.value for k in node.keywords))]
        name = ast.unparse(node.func).rpartition(".")[2]
        if name == "begin":
            self.begun = True
        elif name == "wait":
            assert args[0].constant is not UNKNOWN, f"line {node.lineno}: waits on a condition"
            if args[0].constant:
                assert self.begun and not self.waited, f"line {node.lineno}: waits twice, or before it begins"
                self.waited = True
        elif isinstance(node.func, ast.Name) and name in self.functions:
            callee = self.functions[name]
            given = dict(zip((a.arg for a in callee.args.args), args, strict=False))
            return self.function(callee, {a.arg: given.get(a.arg, _Value()) for a in callee.args.args})
        elif name in WRITES:
            assert self.waited, f"line {node.lineno}: writes before it waits: {ast.unparse(node)}"
        elif name == "load":
            source = args[0] if ast.unparse(node.func) == "tl.load" else self.value(node.func, names)
            assert self.waited or not source.changing, f"line {node.lineno}: reads before it waits: {ast.unparse(node)}"
            return _Value()
        inner = self.value(node.func.value, names).changing if isinstance(node.func, ast.Attribute) else frozenset()
        return _Value(changing=inner.union(*(a.changing for a in args)))


def _constant(node: ast.expr, names: Mapping[str, _Value]) -> Any:
    """The value of an expression of constants alone."""
    used = {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
    known = {n: names[n].constant for n in used if n in names and names[n].constant is not UNKNOWN}
    if set(known) != used:
        if isinstance(node, ast.BoolOp) and isinstance(node.op, ast.And):  # one false side is enough
            sides = [_constant(v, names) for v in node.values]
            return False if any(s is not UNKNOWN and not s for s in sides) else UNKNOWN
        return UNKNOWN
    try:
        return eval(compile(ast.Expression(node), "constant", "eval"), {"__builtins__": {}}, known)
    except Exception:
        return UNKNOWN
