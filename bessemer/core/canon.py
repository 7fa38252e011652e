"""Canonical JSON and content hashes: the same data always gives the same bytes."""

from __future__ import annotations

import hashlib
import json
from typing import Any


def dumps(data: Any) -> str:
    """JSON with sorted keys, no spaces and no NaN, so that equal data are equal text."""
    return json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest(data: Any) -> str:
    """sha256 (hex) of bytes, or of the canonical JSON of anything else."""
    raw = data if isinstance(data, (bytes, bytearray, memoryview)) else dumps(data).encode()
    return hashlib.sha256(raw).hexdigest()
