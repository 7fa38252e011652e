import triton
import triton.language as tl


@triton.jit
def pixel_at(p, OD, OH, OW):
    """The image and the coordinates of output pixels."""
    ow = p % OW
    oh = (p // OW) % OH
    rest = p // (OW * OH)
    od = rest % OD
    n = rest // OD
    return n, od, oh, ow


@triton.jit
def tap_at(tap, KH: tl.constexpr, KW: tl.constexpr):
    """The coordinates of taps."""
    kd = tap // (KH * KW)
    kh = tap // KW % KH
    kw = tap % KW
    return kd, kh, kw


@triton.jit
def inside_of(live, d, h, w, ID, IH, IW):
    """Which coordinates are those of x, for pixels that are live."""
    return live & (d >= 0) & (d < ID) & (h >= 0) & (h < IH) & (w >= 0) & (w < IW)


@triton.jit
def step_of_tap(
    x_ptr, base, live, d0, h0, w0, step, ID, IH, IW, across, along, BK: tl.constexpr, IC: tl.constexpr,
    CHUNKS: tl.constexpr, KH: tl.constexpr, KW: tl.constexpr, DD: tl.constexpr, DH: tl.constexpr, DW: tl.constexpr,
):  # fmt: skip
    """[BM, BK] of x: BK channels of one tap; the tap and the channels."""
    tap = step // CHUNKS
    c = (step % CHUNKS) * BK + tl.arange(0, BK)
    kd, kh, kw = tap_at(tap, KH, KW)
    inside = inside_of(live, d0 + kd * DD, h0 + kh * DH, w0 + kw * DW, ID, IH, IW)
    offset = ((kd * DD * IH + kh * DH) * IW + kw * DW) * along
    at = x_ptr + offset + (base[:, None] + (c * across)[None, :])
    mask = inside[:, None]
    if IC % BK != 0:
        mask = mask & (c < IC)[None, :]
    return tl.load(at, mask=mask, other=0.0), tap, c


@triton.jit
def step_over_taps(
    x_ptr, base, live, d0, h0, w0, step, ID, IH, IW, across, along, BK: tl.constexpr, IC: tl.constexpr,
    TAPS: tl.constexpr, KH: tl.constexpr, KW: tl.constexpr, DD: tl.constexpr, DH: tl.constexpr, DW: tl.constexpr,
):  # fmt: skip
    """[BM, BK] of x: the channels of taps side by side; the taps and the channels."""
    k = step * BK + tl.arange(0, BK)
    tap = k // IC
    c = k % IC
    kd, kh, kw = tap_at(tap, KH, KW)
    d = d0[:, None] + (kd * DD)[None, :]
    h = h0[:, None] + (kh * DH)[None, :]
    w = w0[:, None] + (kw * DW)[None, :]
    mask = inside_of(live[:, None], d, h, w, ID, IH, IW) & (tap < TAPS)[None, :]
    offset = ((kd * DD * IH + kh * DH) * IW + kw * DW) * along + c * across
    return tl.load(x_ptr + (base[:, None] + offset[None, :]), mask=mask, other=0.0), tap, c


@triton.jit
def corner_of(n, group, d0, h0, w0, ID, IH, IW, GROUPS: tl.constexpr, IC: tl.constexpr, LAST: tl.constexpr):
    """Where the windows of pixels begin in x, and how far its channels and its pixels are from each other."""
    if LAST:
        base = (((n * ID + d0) * IH + h0) * IW + w0) * (GROUPS * IC) + group * IC
        across = 1
        along = GROUPS * IC
    else:
        across = ID * IH * IW
        base = ((n * GROUPS + group) * IC * ID + d0) * IH * IW + h0 * IW + w0
        along = 1
    return base, across, along


@triton.jit
def fetch_weights(
    w_ptr, row, oc0, OC, first, steps, K: tl.constexpr, BK: tl.constexpr, BN: tl.constexpr, MOST: tl.constexpr
):
    """Fetches up to MOST steps of the sum of a tile's packed weights to L2."""
    ahead = tl.minimum(steps * BK, MOST)
    own = w_ptr + row * K + first * BK
    prefetch_matrix(own, K, tl.minimum(BN, OC - oc0), ahead, BN)


@triton.jit
def store(acc, p, n, pixel, channel, mask, EPILOGUE, LAST: tl.constexpr):
    """Finishes and stores a tile: by output pixels over all images, or by image, channel and pixel."""
    if LAST:
        epilogue_store(acc, p[:, None], channel, mask, EPILOGUE)
    else:
        epilogue_store(acc, n[:, None], channel, pixel[:, None], mask, EPILOGUE)


@triton.jit
def kernel(
    x_ptr, w_ptr, partial_ptr, counters_ptr, P, OC, ID, IH, IW, OD, OH, OW, PD, PH, PW, EPILOGUE,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, SPLIT: tl.constexpr, GROUPS: tl.constexpr, IC: tl.constexpr,
    KD: tl.constexpr, KH: tl.constexpr, KW: tl.constexpr, SD: tl.constexpr, SH: tl.constexpr, SW: tl.constexpr,
    DD: tl.constexpr, DH: tl.constexpr, DW: tl.constexpr, LAST: tl.constexpr, CHUNKED: tl.constexpr,
    PACKED: tl.constexpr, SWAP: tl.constexpr, PRECISION: tl.constexpr, PREFETCH: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """Convolution as a product [P, taps * IC] x [taps * IC, OC]; P counts output pixels, OC and IC are of one group.

    x is [N, spatial, GROUPS * IC], channels first unless LAST. A packed w is [GROUPS * OC, K], K running over taps and,
    inside a tap, over channels; where CHUNKED each tap is padded to whole BK steps, so that a step stays inside one
    tap. Grid (tiles, SPLIT, GROUPS). With SPLIT > 1 the sum is cut into parts, see parts.py.
    Of a packed w, up to PREFETCH steps of the sum are fetched to L2 ahead.
    """
    begin(PDL)
    TAPS: tl.constexpr = KD * KH * KW
    CHUNKS: tl.constexpr = (IC + BK - 1) // BK
    STEPS: tl.constexpr = TAPS * CHUNKS if CHUNKED else (TAPS * IC + BK - 1) // BK
    group = tl.program_id(2)
    tiles_n = tl.cdiv(OC, BN)
    pid = tl.program_id(0)
    p = (pid // tiles_n) * BM + tl.arange(0, BM)
    oc = (pid % tiles_n) * BN + tl.arange(0, BN)

    n, od, oh, ow = pixel_at(p, OD, OH, OW)
    d0 = od * SD - PD
    h0 = oh * SH - PH
    w0 = ow * SW - PW
    live = p < P
    base, across, along = corner_of(n, group, d0, h0, w0, ID, IH, IW, GROUPS, IC, LAST)
    row = (group * OC + tl.minimum(oc, OC - 1)) * (STEPS * BK if PACKED else TAPS * IC)

    SHARE: tl.constexpr = (STEPS + SPLIT - 1) // SPLIT
    first = tl.program_id(1) * SHARE
    last = tl.minimum(first + SHARE, STEPS)
    lane = tl.arange(0, BK)
    if PDL and PREFETCH > 0:
        oc0 = (pid % tiles_n) * BN
        fetch_weights(w_ptr, group * OC + oc0, oc0, OC, first, last - first, STEPS * BK, BK, BN, PREFETCH)
        epilogue_prefetch(group * OC + tl.minimum(oc, OC - 1), EPILOGUE)
    wait(PDL)

    acc = tl.zeros((BN, BM) if SWAP else (BM, BN), tl.float32)
    for step in range(first, last):
        if CHUNKED:
            a, tap, c = step_of_tap(
                x_ptr, base, live, d0, h0, w0, step, ID, IH, IW, across, along, BK, IC, CHUNKS, KH, KW, DD, DH, DW
            )
        else:
            a, tap, c = step_over_taps(
                x_ptr, base, live, d0, h0, w0, step, ID, IH, IW, across, along, BK, IC, TAPS, KH, KW, DD, DH, DW
            )
        if PACKED:
            b = tl.load(w_ptr + step * BK + (row[:, None] + lane[None, :]))
        else:
            known = c < IC if CHUNKED else tap < TAPS
            b = tl.load(w_ptr + row[:, None] + (c * TAPS + tap)[None, :], mask=known[None, :], other=0.0)
        if SWAP:
            acc = tl.dot(b, tl.trans(a), acc, input_precision=PRECISION)
        else:
            acc = tl.dot(a, tl.trans(b), acc, input_precision=PRECISION)
    if SWAP:
        acc = tl.trans(acc)

    mask = live[:, None] & (oc < OC)[None, :]
    channel = (group * OC + oc)[None, :]
    done = True
    if SPLIT > 1:
        tile = group * tl.num_programs(0) + tl.program_id(0)
        done = leave_part(acc, partial_ptr, counters_ptr, tile, tl.program_id(1), SPLIT)
    if done:
        if SPLIT > 1:
            acc = sum_parts(partial_ptr, tile, BM, BN, SPLIT)
        store(acc, p, n, (od * OH + oh) * OW + ow, channel, mask, EPILOGUE, LAST)
