"""Which version of an op a model means, by ONNX's own schemas."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import onnx
from onnx import defs

from bessemer.core.errors import InvalidModel, UnsupportedModel
from bessemer.ir.importer import IMPORTERS, Importer
from bessemer.ir.opdef import OPS

MICROSOFT = "com.microsoft"
SEQUENCE_OPS = frozenset(
    "Identity SequenceAt SequenceLength SequenceInsert SequenceErase ConcatFromSequence Optional OptionalGetElement "
    "OptionalHasElement".split()
)
Opsets = Mapping[str, int]
NARROW_OPS = frozenset(
    "Cast CastLike QuantizeLinear DequantizeLinear Identity Reshape Flatten Squeeze Unsqueeze Shape Size".split()
)


@dataclass(frozen=True)
class FormalInput:
    """An input as the schema has it: the types it may have; inputs with one `variable` are of one type."""

    name: str
    types: frozenset[str]
    variable: str


@dataclass(frozen=True)
class OpVersion:
    """One op under a model's opset: its importer, or what ONNX says of it. `reason` says why it is not supported."""

    domain: str
    name: str
    since: int
    schema: Any = None  # onnx.defs.OpSchema; None outside ONNX's domains
    importer: Importer | None = None
    reason: str = ""

    def __str__(self) -> str:
        prefix = f"{self.domain}." if self.domain else ""
        return f"{prefix}{self.name}-{self.since}" if self.since else f"{prefix}{self.name}"

    @property
    def takes_narrow(self) -> bool:
        """Whether an input may be of a narrow type (fp8, int4, ...)."""
        return self.name in NARROW_OPS and self.domain == ""

    @cached_property
    def formal_inputs(self) -> tuple[FormalInput, ...]:
        """The schema's inputs."""
        return tuple(
            FormalInput(i.name, frozenset(i.types), i.type_str if i.is_homogeneous else "") for i in self.schema.inputs
        )

    @property
    def is_constant(self) -> bool:
        """Whether it is ONNX's Constant, which is read as the initializers are."""
        return (self.domain, self.name) == ("", "Constant")

    @property
    def takes_sequences(self) -> bool:
        """Whether an input may be a sequence."""
        return self.name in SEQUENCE_OPS and self.domain == ""

    @property
    def is_function(self) -> bool:
        """Whether ONNX defines it by other ops."""
        return self.schema is not None and (self.schema.has_function or self.schema.has_context_dependent_function)


def domain_of(name: str) -> str:
    """The domain with its two spellings of ONNX's own made one."""
    return "" if name == "ai.onnx" else name


def read_opsets(imports: Iterable[onnx.OperatorSetIdProto], where: str, base: Opsets | None = None) -> dict[str, int]:
    """{domain: version} of a model or function; an opset newer than the installed onnx is refused."""
    opsets = dict(base or {})
    for item in imports:
        domain = domain_of(item.domain)
        if item.version < 1:
            raise InvalidModel(f"opset version {item.version} of domain {domain!r} is impossible", where=where)
        newest = defs.onnx_opset_version()
        if domain == "" and item.version > newest:
            raise UnsupportedModel(
                f"the model uses ONNX opset {item.version}; the installed onnx {onnx.__version__} knows up to {newest}",
                where=where,
                fix="install a newer onnx, or convert the model with onnx.version_converter",
            )
        opsets[domain] = item.version
    return opsets


@cache
def find(domain: str, name: str, opset: int | None) -> OpVersion:
    """The op `name` of `domain` (normalised) under opset version `opset` (None: the domain is not imported)."""
    OPS.discover()  # importers are registered by the same modules
    if domain == MICROSOFT:
        importer = IMPORTERS.get((domain, name, 1))
        reason = "" if importer else f"no importer for this op{_near(domain, name)}"
        return OpVersion(domain, name, 1, importer=importer, reason=reason)
    if opset is None:
        return OpVersion(domain, name, 0, reason=f"the model imports no opset of domain {domain!r}")
    try:
        schema = defs.get_schema(name, opset, domain)
    except defs.SchemaError:
        added = IMPORTERS.get((domain, name, 1))  # ops that onnxruntime adds to ONNX's own domain have version 1
        if added is not None:
            return OpVersion(domain, name, 1, importer=added)
        return OpVersion(domain, name, 0, reason=f"ONNX has no such op at opset {opset}{_near(domain, name)}")
    since = schema.since_version
    version = OpVersion(domain, name, since, schema, IMPORTERS.get((domain, name, since)))
    if version.importer or version.is_function or version.is_constant:
        return version
    return OpVersion(domain, name, since, schema, reason=_missing(domain, name, schema.deprecated))


def _missing(domain: str, name: str, deprecated: bool) -> str:
    known = sorted(v for d, n, v in IMPORTERS if (d, n) == (domain, name))
    if deprecated:
        return "deprecated by ONNX at this opset"
    if known:
        return f"this version has no importer (others have: {', '.join(map(str, known))})"
    return "no importer for this op"


def _near(domain: str, name: str) -> str:
    if any(n == name for d, n, _ in IMPORTERS if d != domain):
        others = sorted({d or "ai.onnx" for d, n, _ in IMPORTERS if n == name})
        return f"; domain {', '.join(others)} has it"
    close = difflib.get_close_matches(name, sorted({n for d, n, _ in IMPORTERS if d == domain}), 1, 0.75)
    return f"; did you mean {close[0]}?" if close else ""
