"""The Hann, Hamming and Blackman windows: sums of cosines over a range."""

from __future__ import annotations

import math
from collections.abc import Callable

from bessemer.core import dtype as dt
from bessemer.ir.importer import ImportContext, Values, onnx_op
from bessemer.ops.generate import emit_range

# the coefficients of cos(2 pi k n / N) for k = 0, 1, 2
WINDOWS = {
    "HannWindow": (0.5, -0.5),
    "HammingWindow": (25 / 46, -21 / 46),
    "BlackmanWindow": (0.42, -0.5, 0.08),
}


def _importer(coefficients: tuple[float, ...]) -> Callable[[ImportContext], Values]:
    def importer(ctx: ImportContext) -> Values:
        size, dtype = ctx.input(0), ctx.dtype_attr("output_datatype", dt.f32)
        wide = dt.f64 if dtype == dt.f64 else dt.f32
        known = ctx.dims(size)
        one, zero = ctx.const(1, ctx.dtype(size)), ctx.const(0, ctx.dtype(size))
        n = emit_range(ctx, known[0], dt.i64) if known else ctx.emit("range_dynamic", zero, size, one)
        period = size if ctx.attr("periodic", 1) else ctx.emit("sub", size, one)
        turn = ctx.emit("div", ctx.cast(n, wide), ctx.cast(period, wide))
        out = ctx.const(coefficients[0], wide)
        for k, factor in enumerate(coefficients[1:], 1):
            wave = ctx.emit("cos", ctx.emit("mul", turn, ctx.const(2 * math.pi * k, wide)))
            out = ctx.emit("add", out, ctx.emit("mul", wave, ctx.const(factor, wide)))
        return ctx.cast(out, dtype)

    return importer


for _name, _coefficients in WINDOWS.items():
    onnx_op(_name, since=(17,))(_importer(_coefficients))
