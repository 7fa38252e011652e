"""LSTM, GRU and RNN over whole sequences.

Operands: x [T, B, I], w [dirs, G*H, I], r [dirs, G*H, H], then those that the attributes has_bias ([dirs, 2*G*H]),
has_initial_h ([dirs, B, H]) and has_initial_c (lstm) announce. Results: y [T, dirs, B, H], y_h [dirs, B, H], and
y_c for lstm. `lstm` and `gru` have the default activations; other forms (lengths, peepholes, clipping, other
activations) are `recurrent`, a host op.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from bessemer.core.dim import Dim
from bessemer.core.interval import compare
from bessemer.ir.graph import TensorType
from bessemer.ir.importer import ImportContext, Values, onnx_op
from bessemer.ir.opdef import Fusion, InferContext, OpDef, Sample, register

GATES = {"lstm": 4, "gru": 3, "rnn": 1}
DEFAULTS = {"lstm": ("sigmoid", "tanh", "tanh"), "gru": ("sigmoid", "tanh"), "rnn": ("tanh",)}
TAKE_BETA = frozenset({"affine", "scaledtanh", "hardsigmoid"})
TAKE_ALPHA = TAKE_BETA | {"leakyrelu", "thresholdedrelu", "elu"}
OPTIONAL = ("has_bias", "has_initial_h", "has_initial_c", "has_lengths", "has_peepholes")


def _infer(ctx: InferContext) -> tuple[TensorType, ...]:
    x, r = ctx.type(0), ctx.type(2)
    if x.rank != 3 or r.rank != 3:
        raise ValueError(f"data and recurrent weights are of rank 3, not {x.rank} and {r.rank}")
    for name, given, shape in operand_shapes([t for t in ctx.types if t is not None], ctx.attrs):
        if given.rank != len(shape) or any(compare(a, b, ctx.ranges)[0] is False for a, b in zip(given.shape, shape)):
            raise ValueError(f"{name} of {given}, where {TensorType(given.dtype, shape)} goes with the data")
    (t, b, _), (dirs, _, h) = x.shape, r.shape
    y, last = TensorType(x.dtype, (t, dirs, b, h)), TensorType(x.dtype, (dirs, b, h))
    return (y, last, last) if ctx.attr("cell") == "lstm" else (y, last)


def operand_shapes(
    types: Sequence[TensorType], attrs: Mapping[str, Any]
) -> Iterator[tuple[str, TensorType, tuple[Dim, ...]]]:
    """Of each operand behind x: its name, its type, and the shape in which kernels read it. Where it is open whether it
    has that shape, runs are refused at which it has not (see plan/equalities.py)."""
    (_, b, i), (dirs, _, h) = types[0].shape, types[2].shape
    gates = GATES[attrs["cell"]] * h
    shapes: dict[str, tuple[Dim, ...]] = {
        "has_bias": (dirs, 2 * gates), "has_initial_h": (dirs, b, h), "has_initial_c": (dirs, b, h),
        "has_lengths": (b,), "has_peepholes": (dirs, 3 * h),
    }  # fmt: skip
    optional = [(name.removeprefix("has_"), shapes[name]) for name in OPTIONAL if attrs.get(name)]
    for k, (name, shape) in enumerate([("weights", (dirs, gates, i)), ("recurrence", (dirs, gates, h)), *optional], 1):
        yield name, types[k], shape


def _taken(ctx: InferContext) -> Iterator[tuple[Dim, Dim]]:
    for _, given, shape in operand_shapes([t for t in ctx.types if t is not None], ctx.attrs):
        yield from zip(given.shape, shape)


# name: (values, alpha, beta) -> values
ACTIVATIONS: dict[str, Callable[[np.ndarray, float, float], np.ndarray]] = {
    "sigmoid": lambda v, a, b: 1 / (1 + np.exp(-v)),
    "tanh": lambda v, a, b: np.tanh(v),
    "relu": lambda v, a, b: np.maximum(v, 0),
    "affine": lambda v, a, b: a * v + b,
    "leakyrelu": lambda v, a, b: np.where(v < 0, a * v, v),
    "thresholdedrelu": lambda v, a, b: np.where(v > a, v, 0),
    "scaledtanh": lambda v, a, b: a * np.tanh(b * v),
    "hardsigmoid": lambda v, a, b: np.clip(a * v + b, 0, 1),
    "elu": lambda v, a, b: np.where(v < 0, a * np.expm1(v), v),
    "softsign": lambda v, a, b: v / (1 + np.abs(v)),
    "softplus": lambda v, a, b: np.logaddexp(v, 0),
}


def _activation(name: str, alpha: float | None, beta: float | None) -> Callable[[np.ndarray], np.ndarray]:
    a = {"leakyrelu": 0.01, "hardsigmoid": 0.2}.get(name, 1.0) if alpha is None else alpha
    b = {"hardsigmoid": 0.5, "scaledtanh": 1.0}.get(name, 0.0) if beta is None else beta
    fn = ACTIVATIONS[name]
    return lambda v: fn(v, a, b)


def _reference(inputs: Sequence[np.ndarray | None], attrs: Mapping[str, Any]) -> tuple[np.ndarray, ...]:
    """Every direction step by step, computed in f64."""
    rest = [i for i in inputs[3:] if i is not None]
    given = {name: rest.pop(0) for name in OPTIONAL if attrs.get(name)}
    x, w, r = (np.asarray(i, np.float64) for i in inputs[:3])
    (t, b, _), (dirs, _, h) = x.shape, r.shape
    cell = attrs["cell"]
    y, last_h, last_c = np.zeros((t, dirs, b, h)), np.zeros((dirs, b, h)), np.zeros((dirs, b, h))
    lengths = np.asarray(given.get("has_lengths", np.full(b, t)), np.int64)
    per = len(DEFAULTS[cell])
    for d in range(dirs):
        backwards = attrs["direction"] == "reverse" or d == 1
        names = attrs["activations"][d * per : (d + 1) * per]
        alphas, betas = attrs.get("alphas") or (None,) * per * dirs, attrs.get("betas") or (None,) * per * dirs
        fns = [_activation(n, alphas[d * per + k], betas[d * per + k]) for k, n in enumerate(names)]
        bias = given["has_bias"][d].astype(np.float64) if "has_bias" in given else np.zeros(2 * GATES[cell] * h)
        state_h = given["has_initial_h"][d].astype(np.float64) if "has_initial_h" in given else np.zeros((b, h))
        state_c = given["has_initial_c"][d].astype(np.float64) if "has_initial_c" in given else np.zeros((b, h))
        peep = given["has_peepholes"][d].astype(np.float64) if "has_peepholes" in given else np.zeros(3 * h)
        for k in range(t):
            at = np.where(backwards, lengths - 1 - k, k)
            live = (k < lengths)[:, None]
            now = x[np.clip(at, 0, t - 1), np.arange(b)]
            new_h, new_c = CELLS[cell](now, state_h, state_c, w[d], r[d], bias, peep, fns, attrs)
            state_h, state_c = np.where(live, new_h, state_h), np.where(live, new_c, state_c)
            ran = np.nonzero(live[:, 0])[0]
            y[at[ran], d, ran] = state_h[ran]
        last_h[d], last_c[d] = state_h, state_c
    assert inputs[0] is not None
    out = (y, last_h, last_c) if cell == "lstm" else (y, last_h)
    return tuple(a.astype(inputs[0].dtype) for a in out)


def _clip(v: np.ndarray, attrs: Mapping[str, Any]) -> np.ndarray:
    limit = attrs.get("clip")
    return v if limit is None else np.clip(v, -limit, limit)


def _lstm_cell(x: Any, h: Any, c: Any, w: Any, r: Any, bias: Any, peep: Any, fns: Any, attrs: Any) -> Any:
    """ONNX gate order i, o, f, c."""
    n = h.shape[1]
    gates = x @ w.T + h @ r.T + bias[: 4 * n] + bias[4 * n :]
    i, o, f, g = (gates[:, k * n : (k + 1) * n] for k in range(4))
    pi, po, pf = (peep[k * n : (k + 1) * n] for k in range(3))
    i = fns[0](_clip(i + pi * c, attrs))
    f = 1 - i if attrs.get("input_forget") else fns[0](_clip(f + pf * c, attrs))
    new_c = f * c + i * fns[1](_clip(g, attrs))
    return fns[0](_clip(o + po * new_c, attrs)) * fns[2](new_c), new_c


def _gru_cell(x: Any, h: Any, c: Any, w: Any, r: Any, bias: Any, peep: Any, fns: Any, attrs: Any) -> Any:
    """ONNX gate order z, r, h."""
    n = h.shape[1]
    a, wb, rb = x @ w.T, bias[: 3 * n], bias[3 * n :]
    z = fns[0](_clip(a[:, :n] + h @ r[:n].T + wb[:n] + rb[:n], attrs))
    reset = fns[0](_clip(a[:, n : 2 * n] + h @ r[n : 2 * n].T + wb[n : 2 * n] + rb[n : 2 * n], attrs))
    if attrs["linear_before_reset"]:
        candidate = a[:, 2 * n :] + wb[2 * n :] + reset * (h @ r[2 * n :].T + rb[2 * n :])
    else:
        candidate = a[:, 2 * n :] + wb[2 * n :] + (reset * h) @ r[2 * n :].T + rb[2 * n :]
    return (1 - z) * fns[1](_clip(candidate, attrs)) + z * h, c


def _rnn_cell(x: Any, h: Any, c: Any, w: Any, r: Any, bias: Any, peep: Any, fns: Any, attrs: Any) -> Any:
    n = h.shape[1]
    return fns[0](_clip(x @ w.T + h @ r.T + bias[:n] + bias[n:], attrs)), c


CELLS = {"lstm": _lstm_cell, "gru": _gru_cell, "rnn": _rnn_cell}


def _flops(ctx: InferContext) -> Dim:
    t, b, i = ctx.type(0).shape
    dirs, gates, h = ctx.type(2).shape
    return 2 * t * b * dirs * gates * (i + h)


def _samples_of(cell: str) -> Callable[[np.random.Generator], Sequence[Sample]]:
    def samples(rng: np.random.Generator) -> Sequence[Sample]:
        out = []
        for dirs, h, i, b, t, linear in ((1, 16, 9, 1, 3, False), (2, 20, 33, 3, 5, True)):
            g = GATES[cell]
            shapes = [(t, b, i), (dirs, g * h, i), (dirs, g * h, h), (dirs, 2 * g * h), (dirs, b, h)]
            shapes += [(dirs, b, h)] if cell == "lstm" else []
            arrays = tuple((rng.standard_normal(s) * 0.5).astype(np.float32) for s in shapes)
            attrs = {"cell": cell, "direction": "forward" if dirs == 1 else "bidirectional", "hidden_size": h,
                     "linear_before_reset": linear, "activations": DEFAULTS[cell] * dirs, "has_bias": True,
                     "has_initial_h": True, "has_initial_c": cell == "lstm"}  # fmt: skip
            out.append(Sample(arrays, attrs))
        return out

    return samples


def _general_samples(rng: np.random.Generator) -> Sequence[Sample]:
    def real(*shape: int) -> np.ndarray:
        return (rng.standard_normal(shape) * 0.5).astype(np.float32)

    attrs: dict[str, Any] = {
        "cell": "rnn", "direction": "reverse", "hidden_size": 4, "linear_before_reset": False, "activations": ("relu",),
        "has_bias": True, "has_initial_h": False, "has_initial_c": False, "has_lengths": True, "has_peepholes": False,
        "clip": 0.8, "input_forget": False, "alphas": (None,), "betas": (None,),
    }  # fmt: skip
    return (Sample((real(3, 2, 5), real(1, 4, 5), real(1, 4, 4), real(1, 8), np.array([3, 2], np.int32)), attrs),)


for _cell in ("lstm", "gru"):
    register(OpDef(_cell, _infer, _reference, Fusion.TEMPLATE, flops=_flops, samples=_samples_of(_cell), taken=_taken))
register(OpDef("recurrent", _infer, _reference, Fusion.HOST, flops=_flops, samples=_general_samples, taken=_taken))


@onnx_op("LSTM", since=(7, 14, 22))
@onnx_op("GRU", since=(7, 14, 22))
@onnx_op("RNN", since=(7, 14, 22))
def _import(ctx: ImportContext) -> Values:
    cell = ctx.op_type.lower()
    direction = ctx.attr("direction", "forward")
    dirs = 2 if direction == "bidirectional" else 1
    batch_first = bool(ctx.attr("layout", 0))
    x = ctx.input(0)
    if batch_first:
        x = ctx.emit("transpose", x, perm=(1, 0, 2))
    names = tuple(str(a).lower() for a in ctx.attr("activations", DEFAULTS[cell] * dirs))
    unknown = [name for name in names if name not in ACTIVATIONS]
    if unknown or len(names) != dirs * len(DEFAULTS[cell]):
        ctx.unsupported(f"activations {', '.join(names)}; known: {', '.join(sorted(ACTIVATIONS))}")
    numbers = {"bias": 3, "lengths": 4, "initial_h": 5, "initial_c": 6, "peepholes": 7}
    has = {f"has_{k}": ctx.has(n) and (cell == "lstm" or n < 6) for k, n in numbers.items()}
    lengths = ctx.ints(ctx.input(4)) if has["has_lengths"] else None
    if lengths is not None and all(n == ctx.shape(x)[0] for n in lengths):
        has["has_lengths"] = False
    states = [ctx.input(numbers[k[4:]]) for k in OPTIONAL if has[k]]
    if batch_first:
        places = [k for k in OPTIONAL if has[k]]
        states = [ctx.emit("transpose", s, perm=(1, 0, 2)) if "initial" in k else s for k, s in zip(places, states)]
    general: dict[str, Any] = {
        "clip": ctx.attr("clip", None), "input_forget": bool(ctx.attr("input_forget", 0)),
        "has_lengths": has["has_lengths"], "has_peepholes": has["has_peepholes"],
    }  # fmt: skip
    plain = cell != "rnn" and names == DEFAULTS[cell] * dirs and not any(general.values())
    attrs: dict[str, Any] = {
        "cell": cell, "direction": direction, "hidden_size": ctx.attr("hidden_size", ctx.shape(ctx.input(2))[2]),
        "linear_before_reset": bool(ctx.attr("linear_before_reset", 0)), "activations": names,
        "has_bias": has["has_bias"], "has_initial_h": has["has_initial_h"], "has_initial_c": has["has_initial_c"],
    }  # fmt: skip
    if plain:
        out = ctx.emit_all(cell, x, ctx.input(1), ctx.input(2), *states, **attrs)
    else:
        general["alphas"] = _per_activation(ctx.attr("activation_alpha", ()), names, TAKE_ALPHA)
        general["betas"] = _per_activation(ctx.attr("activation_beta", ()), names, TAKE_BETA)
        out = ctx.emit_all("recurrent", x, ctx.input(1), ctx.input(2), *states, **attrs, **general)
    if batch_first:
        perms = ((2, 0, 1, 3), (1, 0, 2), (1, 0, 2))
        out = tuple(ctx.emit("transpose", o, perm=p) for o, p in zip(out, perms))
    return out


def _per_activation(given: Sequence[float], names: Sequence[str], takers: frozenset[str]) -> tuple[float | None, ...]:
    """Parameters of the activations in order: those that take none are passed over, None stands for the default."""
    values = iter(given)
    return tuple(next(values, None) if name in takers else None for name in names)
