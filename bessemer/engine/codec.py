"""Attributes of host steps as JSON: dtypes, dims, arrays and tuples carry a tag; everything else is plain."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np

from bessemer.core import dtype as dt
from bessemer.core.dim import DimExpr
from bessemer.core.dimtext import parse


def encode(value: Any) -> Any:
    """JSON-ready form of an attribute value; TypeError for what has none (graphs)."""
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, (int, np.integer)):
        return int(value)
    if isinstance(value, (float, np.floating)):
        return {"f": float(value).hex()}
    if isinstance(value, dt.DType):
        return {"dtype": value.name}
    if isinstance(value, DimExpr):
        return {"dim": str(value)}
    if isinstance(value, (tuple, list)):
        return [encode(v) for v in value]
    if isinstance(value, np.ndarray) and value.dtype != object:
        data = base64.b64encode(np.ascontiguousarray(value).tobytes()).decode()
        return {"array": [value.dtype.str, list(value.shape), data]}
    raise TypeError(f"attribute value {value!r} cannot be stored in an engine")


def decode(data: Any) -> Any:
    """The value that `encode` wrote (lists as tuples)."""
    if isinstance(data, list):
        return tuple(decode(v) for v in data)
    if isinstance(data, dict):
        ((tag, body),) = data.items()
        match tag:
            case "f":
                return float.fromhex(body)
            case "dtype":
                return dt.parse(body)
            case "dim":
                return parse(body)
            case "array":
                kind, shape, raw = body
                return np.frombuffer(base64.b64decode(raw), np.dtype(kind)).reshape(shape)
        raise ValueError(f"unknown attribute tag {tag!r}")
    return data
