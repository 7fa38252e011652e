"""DFT and STFT. A transform of known, moderate length is a matrix product (STFT: a convolution with the windowed
waves); others are host ops: `dft`, and `dft_dynamic` and `stft_dynamic` where a parameter is data.

A signal's last axis holds 1 (real) or 2 (real and imaginary) numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bessemer.core.dim import Dim, evaluate, floordiv
from bessemer.ir.graph import TensorType
from bessemer.ir.importer import ImportContext, Values, onnx_op
from bessemer.ir.opdef import Fusion, InferContext, OpDef, Sample, register

MATRIX_LIMIT = 1 << 21  # elements of a transform's matrix, above which the host's FFT is used


def transform(x: np.ndarray, axis: int, length: int, inverse: bool, onesided: bool) -> np.ndarray:
    """The DFT of `x` along `axis`, cut or zero-padded to `length`; in f64.

    `onesided` keeps the first length // 2 + 1 frequencies; with `inverse` it takes those and gives a real signal.
    """
    signal = x[..., 0].astype(np.float64) if x.shape[-1] == 1 else x[..., 0] + 1j * x[..., 1].astype(np.float64)
    if inverse and onesided:
        return np.asarray(np.fft.irfft(signal, length, axis)[..., None])
    out = (np.fft.ifft if inverse else np.fft.fft)(signal, length, axis)
    if onesided:
        out = np.take(out, np.arange(length // 2 + 1), axis)
    return np.stack([out.real, out.imag], -1)


def transform_matrix(count: int, parts: int, length: int, inverse: bool, onesided: bool) -> np.ndarray:
    """The transform of `count` numbers of `parts` parts: a matrix [count, parts, frequencies, parts of the result]."""
    basis = np.eye(count * parts).reshape(count * parts, count, parts)
    out = transform(basis, 1, length, inverse, onesided)
    return out.reshape(count, parts, *out.shape[1:])


def _sizes(size: Dim, length: Dim | None, inverse: bool, onesided: bool) -> tuple[Dim, Dim]:
    """(transform length, size of the result along the axis)."""
    if length is None:
        length = 2 * (size - 1) if inverse and onesided else size
    return length, floordiv(length, 2) + 1 if onesided and not inverse else length


def _check(x: TensorType, axis: int) -> None:
    if x.rank < 2 or x.shape[-1] not in (1, 2) or not 0 <= axis < x.rank - 1 or not x.dtype.is_float:
        raise ValueError(f"a transform along axis {axis} takes a signal whose last axis is 1 or 2, not {x}")


def _infer(ctx: InferContext) -> tuple[TensorType, ...]:
    x, axis, inverse, onesided = ctx.type(0), ctx.attr("axis"), ctx.attr("inverse"), ctx.attr("onesided")
    _check(x, axis)
    size = _sizes(x.shape[axis], ctx.attr("length"), inverse, onesided)[1]
    shape = (*x.shape[:axis], size, *x.shape[axis + 1 : -1], 1 if inverse and onesided else 2)
    return (TensorType(x.dtype, shape),)


def _reference(inputs: Sequence[np.ndarray | None], attrs: Mapping[str, Any]) -> tuple[np.ndarray, ...]:
    (x,) = inputs
    assert x is not None
    length = evaluate(_sizes(x.shape[attrs["axis"]], attrs["length"], attrs["inverse"], attrs["onesided"])[0], {})
    return (transform(x, attrs["axis"], length, attrs["inverse"], attrs["onesided"]).astype(x.dtype),)


def _samples(rng: np.random.Generator) -> Sequence[Sample]:
    x = rng.standard_normal((2, 9, 5, 2)).astype(np.float32)
    base = {"axis": 1, "length": None, "inverse": False, "onesided": False}
    return (
        Sample((x,), base),
        Sample((x[..., :1],), {**base, "axis": 2, "length": 8, "onesided": True}),
        Sample((x,), {**base, "inverse": True, "onesided": True}),
    )


register(OpDef("dft", _infer, _reference, Fusion.HOST, samples=_samples))


def _dynamic_infer(ctx: InferContext) -> tuple[TensorType, ...]:
    x = ctx.type(0)
    _check(x, 0)
    assert ctx.fresh is not None
    fresh = ctx.fresh
    whole = ctx.attr("inverse") and ctx.attr("onesided")
    return (TensorType(x.dtype, (*(fresh("dft", None) for _ in x.shape[:-1]), 1 if whole else 2)),)


def _dynamic_reference(inputs: Sequence[np.ndarray | None], attrs: Mapping[str, Any]) -> tuple[np.ndarray, ...]:
    x, length, axis = inputs
    assert x is not None
    at = (attrs["axis"] if axis is None else int(axis.reshape(()))) % x.ndim
    known = None if length is None else int(length.reshape(()))
    return _reference((x,), {**attrs, "axis": at, "length": known})


def _dynamic_samples(rng: np.random.Generator) -> Sequence[Sample]:
    x = rng.standard_normal((2, 9, 5, 1)).astype(np.float32)
    return (Sample((x, np.array(6), np.array(-2)), {"axis": 1, "inverse": False, "onesided": True}),)


register(OpDef("dft_dynamic", _dynamic_infer, _dynamic_reference, Fusion.HOST, samples=_dynamic_samples))


@onnx_op("DFT", since=(17, 20))
def _import_dft(ctx: ImportContext) -> Values:
    x, inverse, onesided = ctx.input(0), bool(ctx.attr("inverse", 0)), bool(ctx.attr("onesided", 0))
    _require_parts(ctx, x)
    given = ctx.ints(ctx.input(2)) if ctx.has(2) else (ctx.attr("axis", 1) if ctx.since == 17 else -2,)
    length = ctx.dims(ctx.input(1)) if ctx.has(1) else (None,)
    if given is None or length is None:
        operands = (ctx.input(k) if ctx.has(k) else None for k in (1, 2))
        axis = given[0] if given is not None else 0
        return ctx.emit("dft_dynamic", x, *operands, axis=axis, inverse=inverse, onesided=onesided)
    axis, shape = ctx.axis(given[0], ctx.rank(x)), ctx.shape(x)
    count, parts = shape[axis], shape[-1]
    n, out = _sizes(count, length[0], inverse, onesided)
    if isinstance(count, int) and isinstance(parts, int) and isinstance(n, int) and isinstance(out, int):
        if axis < ctx.rank(x) - 1 and 2 * count * parts * out <= MATRIX_LIMIT:
            return _product(ctx, x, axis, transform_matrix(count, parts, n, inverse, onesided))
    return ctx.emit("dft", x, axis=axis, length=length[0], inverse=inverse, onesided=onesided)


def _require_parts(ctx: ImportContext, x: str) -> None:
    if ctx.rank(x) < 2 or ctx.shape(x)[-1] not in (1, 2):
        ctx.unsupported(f"the signal is {ctx.type(x)}; its last axis must be known to be 1 (real) or 2 (complex)")


def _product(ctx: ImportContext, x: str, axis: int, matrix: np.ndarray) -> str:
    """`x` times a transform's matrix along `axis` and the last axis."""
    rank, shape = ctx.rank(x), ctx.shape(x)
    others = [k for k in range(rank - 1) if k != axis]
    perm = (*others, axis, rank - 1)
    moved = ctx.emit("transpose", x, perm=perm) if axis != rank - 2 else x
    count, parts, frequencies, results = matrix.shape
    lead = tuple(shape[k] for k in others)
    rows = ctx.emit("reshape", moved, shape=(*lead, 1, count * parts))
    table = ctx.const(matrix.reshape(count * parts, frequencies * results), ctx.dtype(x))
    y = ctx.emit("matmul", rows, table, transpose_a=False, transpose_b=False)
    y = ctx.emit("reshape", y, shape=(*lead, frequencies, results))
    back = tuple(perm.index(k) for k in range(rank))
    return ctx.emit("transpose", y, perm=back) if axis != rank - 2 else y


# -- short-time transforms -----------------------------------------------------------------------------------------


def _stft_infer(ctx: InferContext) -> tuple[TensorType, ...]:
    x = ctx.type(0)
    _check(x, 1)
    assert ctx.fresh is not None
    return (TensorType(x.dtype, (x.shape[0], ctx.fresh("frames", x.shape[1]), ctx.fresh("bins", x.shape[1]), 2)),)


def _stft_reference(inputs: Sequence[np.ndarray | None], attrs: Mapping[str, Any]) -> tuple[np.ndarray, ...]:
    """Frames of the signal, windowed and transformed: [N, frames, frequencies, 2]."""
    x, step, window, length = inputs
    assert x is not None and step is not None
    n = int(length.reshape(())) if length is not None else len(window) if window is not None else x.shape[1]
    hop = int(step.reshape(()))
    frames = np.lib.stride_tricks.sliding_window_view(x, n, axis=1)[:, ::hop].swapaxes(-1, -2)
    wave = frames if window is None else frames * window[:, None]
    return (transform(wave, 2, n, False, attrs["onesided"]).astype(x.dtype),)


def _stft_samples(rng: np.random.Generator) -> Sequence[Sample]:
    x, window = rng.standard_normal((2, 40, 1)).astype(np.float32), rng.random(16).astype(np.float32)
    return (
        Sample((x, np.array(8), window, None), {"onesided": True}),
        Sample((x, np.array(5), None, np.array(12)), {"onesided": False}),
    )


register(OpDef("stft_dynamic", _stft_infer, _stft_reference, Fusion.HOST, samples=_stft_samples))


@onnx_op("STFT", since=(17,))
def _import_stft(ctx: ImportContext) -> Values:
    x, onesided = ctx.input(0), bool(ctx.attr("onesided", 1))
    _require_parts(ctx, x)
    window = ctx.input(2) if ctx.has(2) else None
    step, length = ctx.ints(ctx.input(1)), _frame_length(ctx, x, window)
    parts = ctx.shape(x)[-1]
    if step is None or length is None or not isinstance(parts, int) or 2 * length * parts * length > MATRIX_LIMIT:
        given = ctx.input(3) if ctx.has(3) else None
        return ctx.emit("stft_dynamic", x, ctx.input(1), window, given, onesided=onesided)
    if window is not None and ctx.shape(window) != (length,):
        ctx.unsupported(f"the window is {ctx.type(window)}, a frame has {length} elements")
    return _convolve(ctx, x, window, transform_matrix(length, parts, length, False, onesided), step[0])


def _frame_length(ctx: ImportContext, x: str, window: str | None) -> int | None:
    if ctx.has(3):
        given = ctx.ints(ctx.input(3))
        return given[0] if given else None
    size = ctx.shape(x)[1] if window is None else ctx.shape(window)[0]
    return size if isinstance(size, int) else None


def _convolve(ctx: ImportContext, x: str, window: str | None, matrix: np.ndarray, step: int) -> str:
    """Frames of `x` times a transform's matrix: a strided convolution with one output channel per number."""
    length, parts, bins, _ = matrix.shape
    weights = ctx.const(matrix.transpose(2, 3, 1, 0).reshape(bins * 2, parts, length), ctx.dtype(x))
    if window is not None:
        weights = ctx.emit("mul", weights, window)
    signal = ctx.emit("transpose", x, perm=(0, 2, 1))
    y = ctx.emit("conv", signal, weights, layout="NCHW", strides=(step,), dilations=(1,), pads=(0, 0), groups=1)
    batch, _, frames = ctx.shape(y)
    return ctx.emit("reshape", ctx.emit("transpose", y, perm=(0, 2, 1)), shape=(batch, frames, bins, 2))
