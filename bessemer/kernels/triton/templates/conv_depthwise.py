import triton
import triton.language as tl


@triton.jit
def kernel(
    x_ptr, w_ptr, P, C, ID, IH, IW, OD, OH, OW, PD, PH, PW, EPILOGUE,
    BM: tl.constexpr, BN: tl.constexpr, KD: tl.constexpr, KH: tl.constexpr, KW: tl.constexpr, SD: tl.constexpr,
    SH: tl.constexpr, SW: tl.constexpr, DD: tl.constexpr, DH: tl.constexpr, DW: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """Depthwise convolution: x [N, spatial, C], w [taps, C]. One program: BM output pixels of BN channels.

    The filter is constant: it and what the epilogue needs are fetched to L2 ahead."""
    begin(PDL)
    tiles_n = tl.cdiv(C, BN)
    p = (tl.program_id(0) // tiles_n) * BM + tl.arange(0, BM)
    c = (tl.program_id(0) % tiles_n) * BN + tl.arange(0, BN)
    ow = p % OW
    oh = (p // OW) % OH
    rest = p // (OW * OH)
    n = rest // OD
    d0 = (rest % OD) * SD - PD
    h0 = oh * SH - PH
    w0 = ow * SW - PW
    base = (((n * ID + d0) * IH + h0) * IW + w0) * C
    at = x_ptr + (base[:, None] + c[None, :])
    live = p < P
    whole = (c < C)[None, :]
    if PDL:
        inner = tl.minimum(c, C - 1)
        for tap in tl.static_range(KD * KH * KW):
            prefetch(w_ptr + tap * C + inner)
        epilogue_prefetch(inner, EPILOGUE)
    wait(PDL)
    acc = tl.zeros((BM, BN), tl.float32)
    for kd in tl.static_range(KD):
        for kh in tl.static_range(KH):
            for kw in tl.static_range(KW):
                d = d0 + kd * DD
                h = h0 + kh * DH
                w = w0 + kw * DW
                inside = live & (d >= 0) & (d < ID) & (h >= 0) & (h < IH) & (w >= 0) & (w < IW)
                offset = ((kd * DD * IH + kh * DH) * IW + kw * DW) * C
                x = tl.load(at + offset, mask=inside[:, None] & whole, other=0.0)
                f = tl.load(w_ptr + ((kd * KH + kh) * KW + kw) * C + c[None, :], mask=whole, other=0.0)
                acc += x.to(tl.float32) * f.to(tl.float32)
    epilogue_store(acc, p[:, None], c[None, :], live[:, None] & whole, EPILOGUE)
