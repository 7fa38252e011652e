import triton
import triton.language as tl


@triton.jit
def kernel(
    x_ptr, P, C, ID, IH, IW, OD, OH, OW, PD, PH, PW, QD, QH, QW, EPILOGUE,
    BM: tl.constexpr, BN: tl.constexpr, KD: tl.constexpr, KH: tl.constexpr, KW: tl.constexpr, SD: tl.constexpr,
    SH: tl.constexpr, SW: tl.constexpr, DD: tl.constexpr, DH: tl.constexpr, DW: tl.constexpr, LAST: tl.constexpr,
    KIND: tl.constexpr, INCLUDE_PAD: tl.constexpr, POWER: tl.constexpr, WIDE: tl.constexpr,
    PDL: tl.constexpr,
):  # fmt: skip
    """Pools x [N, spatial, C] over windows: KIND "max", "avg" or "lp". P counts output pixels of all images.

    Channels first is N * C images of one channel: C = 1, and LAST is false. Q is the padding at the end.
    """
    begin(PDL)
    tiles_n = tl.cdiv(C, BN)
    p = (tl.program_id(0) // tiles_n) * BM + tl.arange(0, BM)
    c = (tl.program_id(0) % tiles_n) * BN + tl.arange(0, BN)
    if WIDE:
        p = (tl.program_id(0) // tiles_n).to(tl.int64) * BM + tl.arange(0, BM)
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
    acc = tl.full((BM, BN), float("-inf") if KIND == "max" else 0.0, tl.float32)
    count = tl.zeros((BM,), tl.float32)
    wait(PDL)
    for kd in tl.static_range(KD):
        for kh in tl.static_range(KH):
            for kw in tl.static_range(KW):
                d = d0 + kd * DD
                h = h0 + kh * DH
                w = w0 + kw * DW
                inside = live & (d >= 0) & (d < ID) & (h >= 0) & (h < IH) & (w >= 0) & (w < IW)
                offset = ((kd * DD * IH + kh * DH) * IW + kw * DW) * C
                mask = inside[:, None] & whole
                if KIND == "max":
                    x = tl.load(at + offset, mask=mask, other=float("-inf")).to(tl.float32)
                    acc = tl.maximum(acc, x, propagate_nan=tl.PropagateNan.ALL)
                else:
                    x = tl.load(at + offset, mask=mask, other=0.0).to(tl.float32)
                    if KIND == "avg":
                        acc += x
                        if INCLUDE_PAD:
                            inside = (d < ID + QD) & (h < IH + QH) & (w < IW + QW)
                        count += inside.to(tl.float32)
                    elif POWER == 1:
                        acc += tl.abs(x)
                    elif POWER == 2:
                        acc += x * x
                    else:
                        acc += tl.where(x == 0.0, 0.0, tl.exp2(POWER * tl.log2(tl.abs(x))))
    if KIND == "avg":
        acc = acc / tl.maximum(count, 1.0)[:, None]
    elif KIND == "lp":
        if POWER == 2:
            acc = tl.sqrt_rn(acc)
        elif POWER != 1:
            acc = tl.where(acc == 0.0, 0.0, tl.exp2(tl.log2(acc) / POWER))
    if LAST:
        epilogue_store(acc, p[:, None], c[None, :], live[:, None] & whole, EPILOGUE)
    else:
        epilogue_store(acc, p[:, None], live[:, None] & whole, EPILOGUE)
