"""Fusion patterns, one per file, in the order in which they run."""

from __future__ import annotations

from bessemer.passes import simplify
from bessemer.passes.base import Pass
from bessemer.passes.fusion import (
    attention,
    attention_folded,
    channel_runs,
    gelu,
    group_norm,
    matmul,
    normalize,
    siblings,
    softmax,
    swish,
)

PATTERNS: tuple[Pass, ...] = (
    gelu.PASS,
    swish.PASS,
    normalize.PASS,
    softmax.PASS,
    matmul.PASS,
    group_norm.PASS,
    simplify.PASS,
    attention.PASS,
    attention_folded.PASS,
    simplify.PASS,
    attention.HEADS,
    simplify.PASS,
    channel_runs.PASS,
    siblings.PASS,
)
