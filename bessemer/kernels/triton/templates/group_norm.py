import triton
import triton.language as tl


@triton.jit
def stats(
    x_ptr, partial_ptr, S, G, C, share,
    BP: tl.constexpr, BC: tl.constexpr, CHUNKS: tl.constexpr, LAST: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """Mean and sum of squared deviations of `share` pixels of a group, to partial[N, G, CHUNKS, 2] (f32).

    The mean is from the group's first element on: data far from zero keep their digits.

    x is [N, S, G * C] (LAST) or [N, G * C, S]. Grid (N * G, CHUNKS).
    """
    begin(PDL)
    n = (tl.program_id(0) // G).to(tl.int64)
    g = tl.program_id(0) % G
    first = tl.program_id(1) * share
    last = tl.minimum(first + share, S)
    c = tl.arange(0, BC)
    lane = tl.arange(0, BP)
    if LAST:
        at = x_ptr + n * S * G * C + g * C + lane[:, None] * (G * C) + c[None, :]
        step = G * C
    else:
        at = x_ptr + (n * G + g) * C * S + lane[:, None] + (c * S)[None, :]
        step = 1
    wait(PDL)
    pivot = tl.load(x_ptr + (n * S * G * C + g * C if LAST else (n * G + g) * C * S)).to(tl.float32)
    count = 0.0
    mean = 0.0
    square = 0.0
    for p0 in range(first, last, BP):
        inside = (p0 + lane < last)[:, None] & (c < C)[None, :]
        x = tl.where(inside, tl.load(at + p0 * step, mask=inside, other=0.0).to(tl.float32) - pivot, 0.0)
        here = (tl.minimum(BP, last - p0) * C).to(tl.float32)
        mid = tl.sum(tl.sum(x, 1), 0) / here
        off = tl.where(inside, x - mid, 0.0)
        both = count + here
        shift = mid - mean
        square += tl.sum(tl.sum(off * off, 1), 0) + shift * shift * (count * here / both)
        mean += shift * (here / both)
        count = both
    out = partial_ptr + (tl.program_id(0) * CHUNKS + tl.program_id(1)) * 2
    tl.store(out, mean)
    tl.store(out + 1, square)


@triton.jit
def kernel(
    x_ptr, scale_ptr, bias_ptr, partial_ptr, S, G, C, share, EPILOGUE,
    BP: tl.constexpr, BC: tl.constexpr, CHUNKS: tl.constexpr, LAST: tl.constexpr, EPSILON: tl.constexpr,
    PDL: tl.constexpr,
):  # fmt: skip
    """Adds the parts of `stats` in order, then normalises, scales and stores the same pixels. Grid (N * G, CHUNKS)."""
    begin(PDL)
    n = (tl.program_id(0) // G).to(tl.int64)
    g = tl.program_id(0) % G
    part = tl.arange(0, CHUNKS)
    counts = (tl.maximum(tl.minimum(share, S - part * share), 0) * C).to(tl.float32)
    at = partial_ptr + (tl.program_id(0) * CHUNKS + part) * 2
    wait(PDL)
    means = tl.load(at)
    total = (S * C).to(tl.float32)
    mean = tl.sum(means * counts, 0) / total
    shift = means - mean
    square = tl.sum(tl.load(at + 1) + shift * shift * counts, 0)
    inverse = tl.rsqrt(square / total + EPSILON)
    pivot = tl.load(x_ptr + (n * S * G * C + g * C if LAST else (n * G + g) * C * S)).to(tl.float32)

    first = tl.program_id(1) * share
    last = tl.minimum(first + share, S)
    c = tl.arange(0, BC)
    lane = tl.arange(0, BP)
    scale = tl.load(scale_ptr + g * C + c, mask=c < C, other=0.0).to(tl.float32) * inverse
    bias = tl.load(bias_ptr + g * C + c, mask=c < C, other=0.0).to(tl.float32)
    if LAST:
        at = x_ptr + n * S * G * C + g * C + lane[:, None] * (G * C) + c[None, :]
        step = G * C
    else:
        at = x_ptr + (n * G + g) * C * S + lane[:, None] + (c * S)[None, :]
        step = 1
    for p0 in range(first, last, BP):
        p = p0 + lane
        inside = (p < last)[:, None] & (c < C)[None, :]
        x = tl.load(at + p0 * step, mask=inside, other=0.0).to(tl.float32)
        y = (x - pivot - mean) * scale[None, :] + bias[None, :]
        if LAST:
            epilogue_store(y, (n * S + p)[:, None], (g * C + c)[None, :], inside, EPILOGUE)
        else:
            row = tl.zeros((BP,), tl.int64) + n
            epilogue_store(y, row[:, None], (g * C + c)[None, :], p[:, None], inside, EPILOGUE)
