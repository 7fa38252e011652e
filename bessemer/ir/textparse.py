"""The parser of graph texts; see `bessemer.ir.text` for the language."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TypeVar

import numpy as np

from bessemer.core import dimtext
from bessemer.core import dtype as dt
from bessemer.core.dim import Dim
from bessemer.core.errors import GraphError
from bessemer.core.interval import INF, Range
from bessemer.ir.fold import constant_from
from bessemer.ir.graph import Attr, Constant, Graph, Node, TensorType

T = TypeVar("T")
_SPACE = re.compile(r"\s*")
_WORD = re.compile(r"\w+", re.ASCII)
_BARE = re.compile(r"[\w./~$-]+", re.ASCII)
_NUMBER = re.compile(r"-?(\d+\.?\d*([eE][+-]?\d+)?|inf|nan)")
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
_ORIGIN = re.compile(r'"(?:[^"\\]|\\.)*"|[\w./~$-][\w./~$:-]*|:', re.ASCII)


class Parser:
    """Recursive descent over the text, with one position."""

    def __init__(self, text: str, weights: Mapping[str, Constant]) -> None:
        self._text, self._weights, self._at = text, weights, 0
        self._ranges: dict[str, Range] = {}

    def graph(self) -> Graph:
        """The whole text as one graph."""
        graph = self._graph()
        self._skip()
        if self._at != len(self._text):
            raise self._error("expected the end of the text")
        return graph

    # -- grammar --------------------------------------------------------------------------------------------------

    def _graph(self) -> Graph:
        self._expect("graph")
        name, types = self._string(), {}
        inputs = []
        for value, type_ in self._list("(", ")", self._typed):
            inputs.append(value)
            types[value] = type_
        self._expect("->")
        outputs = self._list("(", ")", self._output)
        names = tuple(name for _, name in outputs if name is not None)
        constants: dict[str, Constant] = {}
        metadata: dict[str, str] = {}
        nodes: list[Node] = []
        self._expect("{")
        while not self._take("}"):
            if self._keyword("sym"):
                self._symbol()
            elif self._keyword("meta"):
                key = self._string()
                self._expect("=")
                metadata[key] = self._string()
            else:
                self._statement(types, constants, nodes)
        return Graph(name, tuple(inputs), tuple(o for o, _ in outputs), tuple(nodes), types, constants, self._ranges,
                     metadata, names)  # fmt: skip

    def _output(self) -> tuple[str, str | None]:
        value = self._value()
        return value, self._string() if self._keyword("as") else None

    def _symbol(self) -> None:
        name = self._word()
        self._expect("=")
        low, high = self._list("[", "]", lambda: self._number())
        opt = self._integer() if self._keyword("opt") else None
        multiple = self._integer() if self._keyword("multiple") else 1
        self._ranges[name] = Range(int(low), INF if high == float("inf") else int(high), opt, multiple)

    def _statement(self, types: dict[str, TensorType], constants: dict[str, Constant], nodes: list[Node]) -> None:
        outputs = []
        while True:
            value = self._value()
            outputs.append(value)
            if value:
                self._expect(":")
                types[value] = self._type()
            if not self._take(","):
                break
        self._expect("=")
        if self._keyword("constant"):
            constants[outputs[0]] = self._constant(types[outputs[0]])
            return
        op = self._word()
        inputs = self._list("(", ")", self._value)
        attrs = dict(self._list("{", "}", self._attribute)) if self._peek("{") else {}
        name, origin = self._comment()
        nodes.append(Node(op, tuple(inputs), tuple(outputs), MappingProxyType(attrs), name, origin))

    def _attribute(self) -> tuple[str, Attr]:
        name = self._word()
        self._expect("=")
        return name, self._attr()

    def _attr(self) -> Attr:
        if self._peek("("):
            return tuple(self._list("(", ")", self._attr))
        if self._peek('"'):
            return self._string()
        if self._take("<"):
            end = self._text.index(">", self._at)
            self._at, text = end + 1, self._text[self._at : end]
            return self._dim(text)
        if self._peek("graph"):
            return self._graph()
        for word, value in (("true", True), ("false", False), ("none", None)):
            if self._keyword(word):
                return value
        if self._match(_NUMBER, ahead=True):
            return self._number()
        word = self._word()
        if word not in dt.ALL:
            raise self._error(f"{word!r} is no attribute value")
        return dt.ALL[word]

    def _constant(self, type_: TensorType) -> Constant:
        if self._peek('"'):
            key = self._string()
            base = self._weights.get(key) or Constant(type_, _source(key, type_), key)
        else:
            items = self._list("[", "]", self._element) if self._peek("[") else [self._element()]
            shape = tuple(int(d) for d in type_.shape if isinstance(d, int))
            base = constant_from(np.array(items).astype(type_.dtype.numpy).reshape(shape), type_.dtype)
        steps = []
        while self._take("|"):
            step = self._word()
            steps.append((step, tuple(self._list("(", ")", self._attr))))
        return Constant(type_, base.load, base.key, tuple(steps))

    def _element(self) -> bool | int | float:
        for word, value in (("true", True), ("false", False)):
            if self._keyword(word):
                return value
        return self._number()

    def _typed(self) -> tuple[str, TensorType]:
        value = self._value()
        self._expect(":")
        return value, self._type()

    def _type(self) -> TensorType:
        name = self._word()
        if name not in dt.ALL:
            raise self._error(f"unknown dtype {name!r}")
        return TensorType(dt.ALL[name], tuple(self._dim(t) for t in self._bracketed()))

    def _bracketed(self) -> list[str]:
        """The texts between [ and ], split at commas outside parentheses."""
        self._expect("[")
        parts, depth, start = [], 0, self._at
        for at in range(self._at, len(self._text)):
            char = self._text[at]
            depth += (char == "(") - (char == ")")
            if char == "]" or (char == "," and depth == 0):
                parts.append(self._text[start:at].strip())
                start = at + 1
            if char == "]":
                self._at = at + 1
                return parts if parts != [""] else []
        raise self._error("a type has no closing ]")

    def _dim(self, text: str) -> Dim:
        try:
            return dimtext.parse(text)
        except ValueError as error:
            raise self._error(str(error)) from None

    def _comment(self) -> tuple[str, tuple[str, ...]]:
        """The name and origins after // on this line."""
        line = self._text[self._at :].split("\n", 1)[0]
        if not line.strip().startswith("//"):
            return "", ()
        self._at += len(line)
        words = _ORIGIN.findall(line.split("//", 1)[1])
        items = [str(json.loads(w)) if w.startswith('"') else w for w in words]
        if ":" in words[1:2]:
            return items[0], tuple(items[2:])
        return items[0], tuple(items)

    # -- tokens ---------------------------------------------------------------------------------------------------

    def _skipped(self) -> int:
        found = _SPACE.match(self._text, self._at)
        return found.end() if found else self._at

    def _skip(self) -> None:
        self._at = self._skipped()

    def _peek(self, token: str) -> bool:
        self._skip()
        return self._text.startswith(token, self._at)

    def _take(self, token: str) -> bool:
        found = self._peek(token)
        self._at += len(token) if found else 0
        return found

    def _expect(self, token: str) -> None:
        if not self._take(token):
            raise self._error(f"expected {token!r}")

    def _keyword(self, word: str) -> bool:
        found = self._match(_WORD, ahead=True)
        return found == word and self._take(word)

    def _match(self, pattern: re.Pattern[str], ahead: bool = False) -> str | None:
        self._skip()
        found = pattern.match(self._text, self._at)
        if found is None:
            return None
        if not ahead:
            self._at = found.end()
        return found.group()

    def _must(self, pattern: re.Pattern[str], what: str) -> str:
        found = self._match(pattern)
        if found is None:
            raise self._error(f"expected {what}")
        return found

    def _word(self) -> str:
        return self._must(_WORD, "a name")

    def _string(self) -> str:
        return str(json.loads(self._must(_STRING, "a string")))

    def _integer(self) -> int:
        return int(self._number())

    def _number(self) -> int | float:
        text = self._must(_NUMBER, "a number")
        return int(text) if re.fullmatch(r"-?\d+", text) else float(text)

    def _value(self) -> str:
        if self._keyword("_"):
            return ""
        self._expect("%")
        return self._string() if self._text.startswith('"', self._at) else self._must(_BARE, "a value")

    def _list(self, opening: str, closing: str, item: Callable[[], T]) -> list[T]:
        """Items between brackets, separated by commas; one may trail."""
        self._expect(opening)
        items: list[T] = []
        while not self._take(closing):
            items.append(item())
            if not self._take(","):
                self._expect(closing)
                break
        return items

    def _error(self, what: str) -> GraphError:
        line = self._text.count("\n", 0, self._at) + 1
        lines = self._text.split("\n")
        shown = lines[line - 1].strip() if line <= len(lines) else ""
        return GraphError(f"{what}, in a graph's text", where=f"line {line}: {shown}")


def _source(key: str, type_: TensorType) -> Callable[[], np.ndarray]:
    """The content behind a key: drawn for "normal:SEED", else not there."""

    def load() -> np.ndarray:
        kind, _, seed = key.partition(":")
        if kind != "normal":
            raise GraphError(f"the weight {key!r} is not part of the text")
        shape = tuple(int(d) for d in type_.shape if isinstance(d, int))
        drawn = np.random.default_rng(int(seed)).standard_normal(shape)
        return dt.to_bf16(drawn) if type_.dtype == dt.bf16 else drawn.astype(type_.dtype.numpy)

    return load
