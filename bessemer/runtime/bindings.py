"""From what the caller gives to what a program takes: names, dtypes, shapes and symbols, with precise errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from bessemer.core.dim import Dim, DimExpr, evaluate, symbols
from bessemer.core.errors import InputError, ShapeError
from bessemer.core.interval import INF, Range, bounds
from bessemer.device.interop import storage, view_of
from bessemer.engine.equalities import check_equalities
from bessemer.engine.program import Equality, Program, Symbol, Tensor

HOST_MEMORY = (1, 3, 11, 13)  # DLPack's types of devices whose memory a CPU reads: its own, pinned, and managed


@dataclass(frozen=True)
class Signature:
    """Inputs and outputs of a program, ready to be asked."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    symbols: Mapping[str, Symbol]
    equalities: Sequence[Equality]
    shrinking: Mapping[Dim, str]  # what may fall below zero at shapes in range: sizes, with the ONNX nodes behind

    @staticmethod
    def of(program: Program) -> Signature:
        told = {name for name, symbol in program.symbols.items() if symbol.input >= 0}
        sizes: dict[Dim, str] = {}
        for step in program.steps:
            for d in (d for n in step.writes for d in program.tensors[n].shape if isinstance(d, DimExpr)):
                if symbols(d) <= told:
                    sizes.setdefault(d, ", ".join(step.origin) or step.name)
        return Signature(
            tuple(program.tensors[n] for n in program.inputs),
            tuple(program.tensors[n] for n in program.outputs),
            program.symbols,
            program.equalities,
            {d: nodes for d, nodes in sizes.items() if bounds(d, program.ranges)[0] < 0},
        )

    def ordered(self, feeds: Mapping[str, Any] | Sequence[Any]) -> list[Any]:
        """The arrays in signature order; InputError names what is missing and what is unknown."""
        if not isinstance(feeds, (Mapping, Sequence)) or isinstance(feeds, (str, bytes)):
            raise InputError(
                f"inputs were given as {type(feeds).__name__}", fix="give {name: array}, or [array] in signature order"
            )
        if not isinstance(feeds, Mapping):
            if len(feeds) != len(self.inputs):
                raise InputError(
                    f"{len(feeds)} arrays were given by position, the engine has {len(self.inputs)} inputs",
                    fix=f"give them in this order: {', '.join(t.name for t in self.inputs)}",
                )
            return list(feeds)
        known = [t.name for t in self.inputs]
        missing = [n for n in known if n not in feeds]
        unknown = [n for n in feeds if n not in known]
        if missing or unknown:
            parts = [f"missing: {', '.join(missing)}"] if missing else []
            parts += [f"unknown: {', '.join(map(str, unknown))}"] if unknown else []
            raise InputError(f"wrong input names ({'; '.join(parts)})", fix=f"the inputs are {', '.join(known)}")
        return [feeds[n] for n in known]

    def taken(self, k: int, array: np.ndarray) -> np.ndarray:
        """The array as input `k` takes it: numbers of ml_dtypes.bfloat16 as their bits. InputError for other dtypes."""
        self.check_dtype(k, array.dtype)
        return array.view(np.uint16) if _is_bfloat16(array.dtype) else array

    def check_dtype(self, k: int, dtype: np.dtype[Any]) -> None:
        """InputError where input `k` was given with another dtype."""
        wanted = self.inputs[k].dtype.numpy
        if dtype != wanted and not (wanted.kind == "O" and dtype.kind in "US"):
            if self.inputs[k].dtype.name == "bf16" and _is_bfloat16(dtype):
                return
            raise InputError(
                f"input {self.inputs[k].name} has dtype {dtype}, the engine takes {self.inputs[k].dtype}"
                + (" (as uint16 bits)" if self.inputs[k].dtype.name == "bf16" else ""),
                fix=_conversion(self.inputs[k].dtype.name, str(wanted), dtype),
            )

    def bind(self, shapes: Sequence[tuple[int, ...]]) -> dict[str, int]:
        """Symbol values for these input shapes; ShapeError where one does not fit the profile."""
        env: dict[str, int] = {}
        for name, symbol in self.symbols.items():
            if symbol.input >= 0:
                shape = shapes[symbol.input]
                self._check_rank(symbol.input, shape)
                env[name] = shape[symbol.axis]
        for k, shape in enumerate(shapes):
            self._check_rank(k, shape)
            for axis, (size, dim) in enumerate(zip(shape, self.inputs[k].shape)):
                self._check_dim(k, axis, size, dim, env)
        for dim, nodes in self.shrinking.items():
            if evaluate(dim, env) < 0:
                at = ", ".join(f"{name} = {env[name]}" for name in sorted(symbols(dim)))
                raise ShapeError(
                    f"the inputs are too small: at {at} a value would have a dimension of {evaluate(dim, env)}",
                    where=f"ONNX nodes {nodes}", fix="give larger inputs",
                )  # fmt: skip
        check_equalities(self.equalities, env)
        return env

    def _check_rank(self, k: int, shape: tuple[int, ...]) -> None:
        t = self.inputs[k]
        if len(shape) != len(t.shape):
            raise ShapeError(
                f"input {t.name} has rank {len(shape)} {list(shape)}, the engine takes rank {len(t.shape)}: "
                f"[{', '.join(str(d) for d in t.shape)}]"
            )

    def _check_dim(self, k: int, axis: int, size: int, dim: Dim, env: Mapping[str, int]) -> None:
        name = self.inputs[k].name
        if isinstance(dim, DimExpr) and str(dim) in self.symbols:
            r = self.symbols[str(dim)].range
            if not r.lo <= size <= r.hi or size % r.multiple:
                raise ShapeError(
                    f"input {name}: dimension {axis} ({dim}) is {size}, allowed are {_allowed(r)}",
                    fix=f"the nearest valid size is {_nearest(size, r)}; or build with a profile that holds {size}",
                )
        wanted = evaluate(dim, env)
        if wanted != size:
            same = f" ({dim} = {wanted} by the other inputs)" if isinstance(dim, DimExpr) else ""
            raise ShapeError(
                f"input {name}: dimension {axis} is {size}, the engine takes {wanted}{same}",
                fix=None if same else "build the engine with that size, or with a profile",
            )


def _is_bfloat16(dtype: np.dtype[Any]) -> bool:
    """Whether it is ml_dtypes.bfloat16, which numpy knows by name where its library is imported."""
    return dtype.kind == "V" and dtype.name == "bfloat16"  # the name alone takes longer to ask for


def _conversion(name: str, wanted: str, given: np.dtype[Any]) -> str:
    """How to make an array of `given` one of a tensor's dtype. bf16 is taken as its bits too, and shows so."""
    if name == "bf16":
        return "give the bits of bfloat16: array.astype(ml_dtypes.bfloat16).view('uint16')"
    if given == np.uint16 and wanted.startswith("float"):
        return f"convert it: array.astype({wanted!r}); or, if it is bfloat16, widen that first (torch: tensor.float())"
    return f"convert it: array.astype({wanted!r})"


def _allowed(r: Range) -> str:
    span = f"{r.lo} or more" if r.hi >= INF else f"{r.lo} to {r.hi}"
    return span if r.multiple == 1 else f"{span}, a multiple of {r.multiple}"


def _nearest(size: int, r: Range) -> int:
    """The valid size nearest to `size`."""
    least, greatest = -(-r.lo // r.multiple) * r.multiple, r.hi // r.multiple * r.multiple
    rounded = (size + r.multiple // 2) // r.multiple * r.multiple
    return min(max(rounded, least), greatest)


def check_out(out: Any, t: Tensor, shape: tuple[int, ...]) -> np.ndarray:
    """An output buffer given by the caller: a C-contiguous, writable array of the right dtype and shape."""
    if not isinstance(out, np.ndarray) or out.dtype != t.dtype.numpy or out.shape != shape:
        found = f"{out.dtype} {list(out.shape)}" if isinstance(out, np.ndarray) else type(out).__name__
        raise InputError(f"out buffer for {t.name} is {found}, needed is {t.dtype.numpy} {list(shape)}")
    if not out.flags.c_contiguous or not out.flags.writeable:
        raise InputError(f"out buffer for {t.name} must be C-contiguous and writable")
    return out


class Span(NamedTuple):
    """Memory that a caller gave: for what, its address and its bytes."""

    what: str
    start: int
    nbytes: int

    def meets(self, other: Span) -> bool:
        """Whether the two have a byte in common."""
        apart = self.start >= other.start + other.nbytes or other.start >= self.start + self.nbytes
        return not apart and self.nbytes > 0 and other.nbytes > 0


def check_apart(written: Sequence[Span], read: Sequence[Span]) -> None:
    """InputError where a buffer for an output is an input's too, or another output's: steps write while others read."""
    for k, span in enumerate(written):
        for other in (*read, *written[:k]):
            if span.meets(other):
                raise InputError(
                    f"the out buffer for {span.what} shares memory with that of {other.what}",
                    fix="give it memory of its own",
                )


def host_buffer(out: Any, name: str) -> np.ndarray:
    """A numpy array over an output buffer of any library; itself for a numpy array."""
    if isinstance(out, np.ndarray):
        return out
    view = view_of(out)
    if view.device != "cpu" or not view.writable:
        raise InputError(f"out buffer for {name} is {'read-only' if view.device == 'cpu' else 'on a GPU'}")
    return storage(view)


def as_array(value: Any) -> np.ndarray:
    """A C-contiguous numpy array over the caller's memory where that is possible."""
    if type(value) is np.ndarray:
        return value if value.flags.c_contiguous else np.ascontiguousarray(value)
    if _on_gpu(value):
        raise InputError(
            f"an input of type {type(value).__name__} is on a GPU, the engine runs on the CPU",
            fix="copy it to the host (torch: tensor.cpu()), or build the engine with --target cuda",
        )
    if hasattr(value, "__dlpack__") and not isinstance(value, np.generic):
        try:
            array = np.from_dlpack(value)
            return array if array.flags.c_contiguous else np.ascontiguousarray(array)  # which gives rank 0 an axis
        except (BufferError, RuntimeError, TypeError, AssertionError):
            pass  # read-only or of a dtype that numpy lacks: another protocol may still have it
    try:
        array = np.asarray(value)
    except (BufferError, RuntimeError, TypeError, ValueError):
        array = storage(view_of(value))
    if array.dtype == object:
        raise InputError(f"an input of type {type(value).__name__} is not an array")
    return array if array.ndim == 0 else np.ascontiguousarray(array)


def _on_gpu(value: Any) -> bool:
    """Whether only a GPU can read the array."""
    if hasattr(value, "__dlpack_device__"):
        return int(value.__dlpack_device__()[0]) not in HOST_MEMORY
    return hasattr(value, "__cuda_array_interface__") and not hasattr(value, "__array__")
