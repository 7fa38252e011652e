"""Names while importing: which IR value each ONNX name stands for, in nested graphs and function bodies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import onnx

from bessemer.core.errors import InvalidModel
from bessemer.frontend.opsets import Opsets
from bessemer.frontend.weights import Weights
from bessemer.ir.builder import GraphBuilder
from bessemer.ir.importer import Refusal

MAX_DEPTH = 48  # of scopes: subgraphs and function calls together
ABSENT = ""  # an optional input that was not given


class Skipped(Refusal):
    """A value is missing because an earlier node was refused; that one is reported, its readers are not."""


@dataclass
class Scope:
    """One graph or function body being imported. `parent` is the scope whose values it may read."""

    builder: GraphBuilder
    opsets: Opsets
    weights: Weights
    parent: Scope | None = None
    attributes: Mapping[str, onnx.AttributeProto] | None = None  # of the function call, for references
    path: str = ""  # of the calls that led here, for node names
    depth: int = 0
    values: dict[str, str | None] = field(default_factory=dict)  # None: could not be imported
    pending: dict[str, onnx.TensorProto | onnx.SparseTensorProto] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.depth > MAX_DEPTH:
            raise InvalidModel(f"functions and subgraphs are nested more than {MAX_DEPTH} deep", where=self.path)

    def add_initializers(self, graph: onnx.GraphProto) -> None:
        """Note the initializers; one becomes a constant when it is first read."""
        for tensor in graph.initializer:
            self.pending[tensor.name] = tensor
        for sparse in graph.sparse_initializer:
            self.pending[sparse.values.name] = sparse

    def lookup(self, name: str) -> str:
        """The IR value of `name`, ABSENT where it was not given; Skipped where it could not be imported."""
        scope: Scope | None = self
        while scope is not None:
            if name in scope.values:
                value = scope.values[name]
                if value is None:
                    raise Skipped(name)
                return value
            if name in scope.pending:
                return scope._materialize(name)
            scope = scope.parent
        raise InvalidModel(f"the value {name!r} is used and nothing produces it", where=self.path or None)

    def _materialize(self, name: str) -> str:
        tensor = self.pending.pop(name)
        self.values[name] = None
        sparse = isinstance(tensor, onnx.SparseTensorProto)
        try:
            constant = self.weights.sparse(tensor) if sparse else self.weights.constant(tensor)
        except Skipped:
            raise
        except Refusal as refusal:
            raise Refusal(f"initializer {name!r}: {refusal}") from None
        value = self.builder.constant(constant, name=name)
        self.values[name] = value
        return value
