import triton
import triton.language as tl


@triton.jit
def kernel(
    x_ptr, w_ptr, P, OC, ID, IH, IW, OD, OH, OW, PD, PH, PW, EPILOGUE,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, GROUPS: tl.constexpr, IC: tl.constexpr,
    KD: tl.constexpr, KH: tl.constexpr, KW: tl.constexpr, SD: tl.constexpr, SH: tl.constexpr, SW: tl.constexpr,
    DD: tl.constexpr, DH: tl.constexpr, DW: tl.constexpr, LAST: tl.constexpr,
    PRECISION: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """Transposed convolution, gathered: output o reads input i through tap k where o + P = i * S + k * D.

    Outputs of one phase, (o + P) mod S, share their taps: grid (tiles, phases, GROUPS), tiles cover the P pixels of
    a phase. x is [N, spatial, GROUPS * IC], channels first unless LAST; w is [GROUPS * OC, taps * ICP], ICP the
    channels of a group padded to whole BK steps. P counts the pixels of the largest phase, over all images.
    """
    begin(PDL)
    CHUNKS: tl.constexpr = (IC + BK - 1) // BK
    STEPS: tl.constexpr = KD * KH * KW * CHUNKS
    group = tl.program_id(2)
    phase = tl.program_id(1)
    fw = phase % SW
    fh = phase // SW % SH
    fd = phase // (SW * SH)
    tiles_n = tl.cdiv(OC, BN)
    p = (tl.program_id(0) // tiles_n) * BM + tl.arange(0, BM)
    oc = (tl.program_id(0) % tiles_n) * BN + tl.arange(0, BN)
    across_w = tl.cdiv(OW, SW)
    across_h = tl.cdiv(OH, SH)
    across_d = tl.cdiv(OD, SD)
    ow = (p % across_w) * SW + fw
    oh = (p // across_w % across_h) * SH + fh
    rest = p // (across_w * across_h)
    od = (rest % across_d) * SD + fd
    n = rest // across_d
    live = (p < P) & (od < OD) & (oh < OH) & (ow < OW)
    if LAST:
        along = GROUPS * IC
        across = 1
        base = n * ID * IH * IW * along + group * IC
    else:
        along = 1
        across = ID * IH * IW
        base = (n * GROUPS + group) * IC * across
    row = (group * OC + tl.minimum(oc, OC - 1)) * (STEPS * BK)
    lane = tl.arange(0, BK)
    wait(PDL)
    acc = tl.zeros((BM, BN), tl.float32)
    for kd in tl.static_range(KD):
        for kh in tl.static_range(KH):
            for kw in tl.static_range(KW):
                # whether any output of this phase uses the tap is one test for the whole program
                taken = (fd + PD - kd * DD) % SD == 0
                taken = taken & ((fh + PH - kh * DH) % SH == 0) & ((fw + PW - kw * DW) % SW == 0)
                if taken:
                    d = od + PD - kd * DD
                    h = oh + PH - kh * DH
                    w = ow + PW - kw * DW
                    inside = live & (d >= 0) & (d < ID * SD) & (h >= 0) & (h < IH * SH) & (w >= 0) & (w < IW * SW)
                    pixel = ((d // SD) * IH + h // SH) * IW + w // SW
                    x_at = x_ptr + (base + pixel * along)[:, None]
                    for chunk in range(CHUNKS):
                        c = chunk * BK + lane
                        mask = inside[:, None]
                        if IC % BK != 0:
                            mask = mask & (c < IC)[None, :]
                        a = tl.load(x_at + (c * across)[None, :], mask=mask, other=0.0)
                        step = ((kd * KH + kh) * KW + kw) * CHUNKS + chunk
                        b = tl.load(w_ptr + step * BK + (row[:, None] + lane[None, :]))
                        acc = tl.dot(a, tl.trans(b), acc, input_precision=PRECISION)
    mask = live[:, None] & (oc < OC)[None, :]
    channel = (group * OC + oc)[None, :]
    pixel = (od * OH + oh) * OW + ow
    if LAST:
        epilogue_store(acc, (n * OD * OH * OW + pixel)[:, None], channel, mask, EPILOGUE)
    else:
        epilogue_store(acc, n[:, None], channel, pixel[:, None], mask, EPILOGUE)
