import triton
import triton.language as tl


@triton.jit
def rows_of(at, columns, COUNT: tl.constexpr, PADDED: tl.constexpr):
    """Rows of COUNT elements, followed by zeros up to PADDED."""
    if COUNT == PADDED:
        return tl.load(at)
    return tl.load(at, mask=(columns < COUNT)[None, :], other=0.0)


@triton.jit
def scores(
    q, k, mask_row, s, t, row, S, T, SCALE: tl.constexpr, CAUSAL: tl.constexpr, MASK: tl.constexpr,
    MASK_T: tl.constexpr, EVEN: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """The scores of queries s and keys t, scaled and masked; without a mask, times log2(e)."""
    LOG2E: tl.constexpr = 1.4426950408889634
    x = tl.dot(q, tl.trans(k), input_precision=PRECISION)
    if MASK == "none":
        x *= SCALE * LOG2E
    elif MASK == "add":
        x = x * SCALE + tl.load(mask_row + (row * MASK_T)[None, :]).to(tl.float32)
    else:
        x = tl.where(tl.load(mask_row + (row * MASK_T)[None, :]) != 0, x * SCALE, float("-inf"))
    if not EVEN:
        x = tl.where((t < T)[None, :], x, float("-inf"))
    if CAUSAL:
        x = tl.where(t[None, :] <= (s + T - S)[:, None], x, float("-inf"))
    return x


@triton.jit
def softened(x, top, MASK: tl.constexpr, CAUSAL: tl.constexpr):
    """The powers of scores over their maxima so far, these, and what sums so far are worth beside them."""
    LOG2E: tl.constexpr = 1.4426950408889634
    best = tl.maximum(top, tl.max(x, 1))
    safe = tl.where(best == float("-inf"), 0.0, best) if MASK != "none" or CAUSAL else best
    if MASK == "none":
        p = tl.exp2(x - safe[:, None])
        keep = tl.exp2(top - safe)
    else:
        p = tl.exp2((x - safe[:, None]) * LOG2E)
        keep = tl.exp2((top - safe) * LOG2E)
    return p, best, keep


@triton.jit
def kernel(
    q_ptr, k_ptr, v_ptr, mask_ptr, S, T, H, mask_b, mask_h, mask_s, EPILOGUE,
    BM: tl.constexpr, BN: tl.constexpr, D: tl.constexpr, DP: tl.constexpr, DV: tl.constexpr, DVP: tl.constexpr,
    REPEAT: tl.constexpr, SCALE: tl.constexpr, CAUSAL: tl.constexpr, MASK: tl.constexpr, MASK_T: tl.constexpr,
    HEADS_INSIDE: tl.constexpr, EVEN: tl.constexpr, PRECISION: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """softmax(q k^T * SCALE + mask) v, one program per BM queries of one head, keys in steps of BN.

    q is [B, H, S, D] ([B, S, H, D] where HEADS_INSIDE), k and v likewise with H / REPEAT heads and T rows. MASK is
    "none", "add" or "keep" (a bool); its element is at b * mask_b + h * mask_h + s * mask_s + t * MASK_T. CAUSAL: query
    s sees keys up to s + T - S. DP and DVP are D and DV raised to powers of two. A row that is masked entirely gives 0.
    Grid: (tiles of S) * B * H.
    """
    begin(PDL)
    tiles = tl.cdiv(S, BM)
    s = (tl.program_id(0) % tiles) * BM + tl.arange(0, BM)
    head = tl.program_id(0) // tiles
    b = (head // H).to(tl.int64)
    h = head % H
    if HEADS_INSIDE:
        q_ptr += b * S * H * D + h * D
        k_ptr += b * T * (H // REPEAT) * D + (h // REPEAT) * D
        v_ptr += b * T * (H // REPEAT) * DV + (h // REPEAT) * DV
        q_step = H * D
        k_step = (H // REPEAT) * D
        v_step = (H // REPEAT) * DV
        rows = (b * S + s) * H + h
    else:
        q_ptr += (b * H + h) * S * D
        k_ptr += (b * (H // REPEAT) + h // REPEAT) * T * D
        v_ptr += (b * (H // REPEAT) + h // REPEAT) * T * DV
        q_step = D
        k_step = D
        v_step = DV
        rows = (b * H + h) * S + s
    d = tl.arange(0, DP)
    dv = tl.arange(0, DVP)
    lane = tl.arange(0, BN)
    at = q_ptr + tl.minimum(s, S - 1)[:, None] * q_step + d[None, :]
    wait(PDL)
    q = rows_of(at, d, D, DP)
    mask_row = mask_ptr
    if MASK != "none":
        mask_ptr += b * mask_b + h.to(tl.int64) * mask_h
        mask_row = mask_ptr + tl.minimum(s, S - 1)[:, None].to(tl.int64) * mask_s

    top = tl.full((BM,), float("-inf"), tl.float32)
    total = tl.zeros((BM,), tl.float32)
    acc = tl.zeros((BM, DVP), tl.float32)
    last = T
    if CAUSAL:
        last = tl.minimum(T, (tl.program_id(0) % tiles + 1) * BM + T - S)
    for t0 in range(0, last, BN):
        t = t0 + lane
        row = t if EVEN else tl.minimum(t, T - 1)
        k_at = k_ptr + row[:, None] * k_step + d[None, :]
        v_at = v_ptr + row[:, None] * v_step + dv[None, :]
        k = rows_of(k_at, d, D, DP)
        x = scores(q, k, mask_row, s, t, row, S, T, SCALE, CAUSAL, MASK, MASK_T, EVEN, PRECISION)
        p, top, keep = softened(x, top, MASK, CAUSAL)
        total = total * keep + tl.sum(p, 1)
        v = rows_of(v_at, dv, DV, DVP)
        acc = tl.dot(p.to(v.dtype), v, acc * keep[:, None], input_precision=PRECISION)
    acc = acc / tl.where(total == 0.0, 1.0, total)[:, None]
    epilogue_store(acc, rows[:, None], dv[None, :], (s < S)[:, None] & (dv < DV)[None, :], EPILOGUE)
