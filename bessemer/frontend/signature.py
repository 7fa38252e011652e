"""Types of the graph's inputs: declared shapes, the user's shapes and profiles, and the symbols these leave."""

from __future__ import annotations

import difflib
import keyword
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import onnx

from bessemer.core.dim import Dim, substitute, sym
from bessemer.core.errors import InvalidModel, ShapeError
from bessemer.core.interval import UNBOUNDED, Range
from bessemer.frontend.profile import Profile, Shape, checked_shape
from bessemer.frontend.same_sizes import SameSizes
from bessemer.ir.graph import TensorType
from bessemer.ir.importer import ONNX_DTYPES, ONNX_NAMES, Refusal

TYPICAL = 128  # where a dimension of which the user says nothing is tuned, but for the first axis: that one at 1


@dataclass(frozen=True)
class Axis:
    """One declared dimension: a size, or the key of a symbol (equal dim_params are one symbol)."""

    size: int | None
    key: str = ""


@dataclass
class Signature:
    """The types of all inputs, and the ranges of their symbols."""

    types: dict[str, TensorType] = field(default_factory=dict)
    ranges: dict[str, Range] = field(default_factory=dict)


@dataclass(frozen=True)
class _Bound:
    """What one profile (or a fixed shape) says of one symbol, and where it says so."""

    low: int
    opt: int
    high: int
    where: str


def signature(
    inputs: Sequence[onnx.ValueInfoProto],
    shapes: Mapping[str, Sequence[int]] | None,
    profiles: Sequence[Profile] | None,
    multiples: Mapping[str, int] | None = None,
    same: SameSizes | None = None,
) -> Signature:
    """Resolve the inputs. ShapeError where shapes or profiles contradict the model, each other or themselves.

    `multiples` are what symbols are to be divisible by (see `bessemer.frontend.multiples`), `same` which are taken to
    be others (`bessemer.frontend.same_sizes`).
    """
    fixed = {name: checked_shape(name, shape) for name, shape in (shapes or {}).items()}
    profiles = tuple(profiles or ())
    names = [i.name for i in inputs]
    _check_names(names, fixed, profiles)
    axes = {i.name: _declared(i, fixed, profiles) for i in inputs}
    symbols = _Symbols()
    for profile in profiles or (Profile({}),):
        _bind(axes, fixed, profile, symbols)
    for name in names:
        for k, axis in enumerate(axes[name]):
            symbols.default(axis, first=k == 0)
    same = same or SameSizes()
    resolved = {key: substitute(d, same.taken) for key, d in symbols.resolve().items()}
    ranges = same.joined(symbols.ranges())
    out = Signature(ranges={s: _stepped(r, (multiples or {}).get(s, 1)) for s, r in ranges.items()})
    for info in inputs:
        dims: list[Dim] = [resolved[a.key] if a.size is None else a.size for a in axes[info.name]]
        out.types[info.name] = TensorType(ONNX_DTYPES[info.type.tensor_type.elem_type], tuple(dims))
    return out


def refusal(info: onnx.ValueInfoProto) -> str:
    """Why an input of this type is not supported, or ""."""
    kind = info.type.WhichOneof("value")
    if kind is None:
        raise InvalidModel(f"input {info.name!r} has no type")
    if kind != "tensor_type":
        return f"inputs of type {kind.removesuffix('_type')} are not supported"
    code = info.type.tensor_type.elem_type
    return "" if code in ONNX_DTYPES else f"element type {ONNX_NAMES.get(code, code)} is not supported"


def declared_type(info: onnx.ValueInfoProto) -> TensorType:
    """The type of a subgraph's input as declared; Refusal where it is dynamic or of no supported element type."""
    reason = refusal(info)
    if reason:
        raise Refusal(f"input {info.name!r} of a subgraph: {reason}")
    axes = [_axis(info.name, k, d) for k, d in enumerate(info.type.tensor_type.shape.dim)]
    if not info.type.tensor_type.HasField("shape") or any(a.size is None for a in axes):
        raise Refusal(f"input {info.name!r} of a subgraph has no static type")
    return TensorType(ONNX_DTYPES[info.type.tensor_type.elem_type], tuple(a.size for a in axes if a.size is not None))


def _check_names(names: Sequence[str], fixed: Mapping[str, Shape], profiles: Sequence[Profile]) -> None:
    for given in (*fixed, *(name for p in profiles for name in p.inputs)):
        if given not in names:
            close = difflib.get_close_matches(given, names, 1)
            raise ShapeError(
                f"the model has no input {given!r}" + (f"; did you mean {close[0]!r}?" if close else ""),
                fix=f"its inputs are {', '.join(map(repr, names)) or 'none'}",
            )
    for profile in profiles:
        for name in profile.inputs:
            if name in fixed:
                raise ShapeError(f"input {name!r} has a fixed shape and a profile", fix="give one of the two")


def _declared(info: onnx.ValueInfoProto, fixed: Mapping[str, Shape], profiles: Sequence[Profile]) -> tuple[Axis, ...]:
    """The declared dimensions, checked against the ranks of what the user gives."""
    ranks = [len(fixed[info.name])] if info.name in fixed else []
    ranks += [len(p.inputs[info.name][0]) for p in profiles if info.name in p.inputs]
    tensor = info.type.tensor_type
    if not tensor.HasField("shape"):
        if not ranks:
            raise ShapeError(
                f"input {info.name!r} has no declared shape",
                fix="give it with --shapes or a profile, e.g. x:1x3x224x224",
            )
        return tuple(Axis(None, f"{info.name}_{k}") for k in range(ranks[0]))
    axes = tuple(_axis(info.name, k, d) for k, d in enumerate(tensor.shape.dim))
    for rank in ranks:
        if rank != len(axes):
            shown = ", ".join(str(a.size) if a.size is not None else a.key for a in axes)
            raise ShapeError(
                f"input {info.name!r} has {len(axes)} dimensions [{shown}], the shape given for it has {rank}",
                fix="give one size per dimension",
            )
    return axes


def _axis(name: str, k: int, dim: onnx.TensorShapeProto.Dimension) -> Axis:
    if dim.WhichOneof("value") == "dim_value" and dim.dim_value != -1:
        if not 0 <= dim.dim_value < 2**31:
            raise InvalidModel(f"input {name!r}, dimension {k}: the size {dim.dim_value} is impossible")
        return Axis(dim.dim_value)
    # Exporters write "?", "-1" or "None" for what they do not know: such dimensions are not one. The separator, which
    # no dim_param carries, keeps unnamed dimensions apart from named ones.
    named = any(c.isalpha() for c in dim.dim_param) and dim.dim_param.lower() != "none"
    return Axis(None, dim.dim_param if named else f"{name}\0{k}")


def _bind(axes: Mapping[str, Sequence[Axis]], fixed: Mapping[str, Shape], profile: Profile, out: _Symbols) -> None:
    """Check one profile (with the fixed shapes) against the declared sizes, and note what it says of each symbol."""
    bound: dict[str, _Bound] = {}
    for name in axes:
        if name in fixed:
            triples = [(d, d, d) for d in fixed[name]]
        elif name in profile.inputs:
            triples = list(profile.axes(name))
        else:
            continue
        for k, (axis, (low, opt, high)) in enumerate(zip(axes[name], triples, strict=True)):
            new = _Bound(low, opt, high, f"input {name!r}, dimension {k}")
            if axis.size is not None:
                if (low, high) != (axis.size, axis.size):
                    given = str(low) if low == high else f"{low} to {high}"
                    raise ShapeError(f"{new.where} is {axis.size} in the model, and {given} was given",
                                     fix=f"give {axis.size}, or export the model with a dynamic dimension")  # fmt: skip
                continue
            old = bound.setdefault(axis.key, new)
            if (old.low, old.opt, old.high) != (low, opt, high):
                raise ShapeError(
                    f"{old.where} and {new.where} are the same dimension {axis.key!r} in the model, and were given "
                    f"{_shown(old)} and {_shown(new)}",
                    fix="give both the same sizes",
                )
    for key, found in bound.items():
        out.widen(key, found)


def _stepped(r: Range, multiple: int) -> Range:
    """`r` in steps of `multiple`; a default range begins at the first step."""
    return Range(r.lo if r.bounded else max(r.lo, multiple), r.hi, _step_up(r.opt, multiple), multiple)


def _step_up(opt: int | None, multiple: int) -> int | None:
    return None if opt is None else -(-opt // multiple) * multiple


def _shown(b: _Bound) -> str:
    return str(b.low) if b.low == b.high else f"{b.low} to {b.high} (opt {b.opt})"


class _Symbols:
    """Symbols by key, with the union of what profiles say of each."""

    def __init__(self) -> None:
        self._known: dict[str, Range] = {}
        self._names: dict[str, str] = {}

    def widen(self, key: str, b: _Bound) -> None:
        old = self._known.get(key)
        self._known[key] = (
            Range(b.low, b.high, b.opt) if old is None else Range(min(old.lo, b.low), max(old.hi, b.high), old.opt)
        )

    def default(self, axis: Axis, first: bool) -> None:
        if axis.size is None:
            self._known.setdefault(axis.key, Range(1, UNBOUNDED, 1 if first else TYPICAL))
            if axis.key not in self._names:
                self._names[axis.key] = _identifier(axis.key, set(self._names.values()))

    def resolve(self) -> dict[str, Dim]:
        return {k: r.lo if r.lo == r.hi else sym(self._names[k]) for k, r in self._known.items()}

    def ranges(self) -> dict[str, Range]:
        return {self._names[k]: r for k, r in self._known.items() if r.lo != r.hi}


def _identifier(key: str, taken: set[str]) -> str:
    """`key` as an identifier of its own; names that start with "u" are left to data-dependent sizes."""
    name = re.sub(r"\W", "_", key, flags=re.ASCII)
    if not name or name[0].isdigit() or name[0] == "u" or not name.strip("_"):
        name = f"d_{name}"
    if keyword.iskeyword(name):
        name += "_"
    unique, count = name, 2
    while unique in taken:
        unique, count = f"{name}_{count}", count + 1
    return unique
