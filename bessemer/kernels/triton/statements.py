"""The lines of a Triton kernel: variables that are assigned once, nested blocks, and kinds of values."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from bessemer.kernels.triton import scalar
from bessemer.kernels.triton.params import Value


class Statements:
    """Writes lines, and remembers what they computed until the block ends that it was computed in."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.indent = 1
        self._scopes: list[dict[object, Value]] = [{}]
        self._count = 0

    def line(self, text: str) -> None:
        """One statement at the current indentation."""
        self.lines.append("    " * self.indent + text)

    def number(self) -> int:
        """A number for a new name."""
        self._count += 1
        return self._count - 1

    @contextmanager
    def block(self, head: str) -> Iterator[None]:
        """A nested block: what it computes is forgotten afterwards."""
        self.line(head)
        self.indent += 1
        self._scopes.append({})
        yield
        self._scopes.pop()
        self.indent -= 1

    def known(self, key: object) -> Value | None:
        """What is remembered under `key` here."""
        return next((scope[key] for scope in self._scopes if key in scope), None)

    def remember(self, key: object, value: Value) -> Value:
        """`value`, under `key` until this block ends."""
        self._scopes[-1][key] = value
        return value

    def let(self, text: str, kind: str, deps: frozenset[str] = frozenset()) -> Value:
        """`text` as a variable; equal texts are computed once."""
        found = self.known(text)
        if found is not None:
            return found
        name = f"v{self.number()}"
        self.line(f"{name} = {text}")
        return self.remember(text, Value(name, kind, deps))

    def as_kind(self, value: Value, kind: str) -> Value:
        """`value` converted; integer literals only change their kind."""
        if value.kind == kind:
            return value
        if value.text.lstrip("-").isdigit():
            return Value(value.text if kind == "i32" else scalar.literal(int(value.text), kind), kind)
        return self.let(scalar.converted(value.text, value.kind, kind), kind, value.deps)

    def typed(self, value: Value) -> Value:
        """A bare integer as a typed constant."""
        bare = value.text.lstrip("-").isdigit()
        return Value(scalar.literal(int(value.text), value.kind), value.kind) if bare else value
