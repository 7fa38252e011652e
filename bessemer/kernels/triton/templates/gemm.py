import triton
import triton.language as tl


@triton.jit
def rows_tile(base, first, limit, stride, k, K, R: tl.constexpr, BK: tl.constexpr, EVEN: tl.constexpr):
    """A tile [R, BK] of a matrix whose rows are contiguous: `base` points at (row `first`, column k)."""
    r = tl.minimum(tl.arange(0, R), limit - 1 - first)
    c = tl.arange(0, BK)
    at = base + r[:, None] * stride + c[None, :]
    if EVEN:
        return tl.load(at)
    return tl.load(at, mask=c[None, :] < K - k, other=0.0)


@triton.jit
def columns_tile(base, first, limit, stride, k, K, R: tl.constexpr, BK: tl.constexpr, EVEN: tl.constexpr):
    """A tile [BK, R] of a matrix whose rows run along R: `base` points at (row k, column `first`)."""
    c = tl.arange(0, R)
    r = tl.arange(0, BK)
    at = base + r[:, None] * stride + c[None, :]
    inside = c[None, :] < limit - first
    if EVEN:
        return tl.load(at, mask=inside, other=0.0)
    return tl.load(at, mask=inside & (r[:, None] < K - k), other=0.0)


@triton.jit
def left(base, m0, M, K, k, last, BM: tl.constexpr, BK: tl.constexpr, A_T: tl.constexpr, EVEN: tl.constexpr):
    """The tile [BM, BK] of A at `base`, and where the next one is."""
    if A_T:
        return tl.trans(columns_tile(base, m0, M, M, k, last, BM, BK, EVEN)), base + BK * M
    return rows_tile(base, m0, M, K, k, last, BM, BK, EVEN), base + BK


@triton.jit
def right(base, n0, N, K, k, last, BN: tl.constexpr, BK: tl.constexpr, B_T: tl.constexpr, EVEN: tl.constexpr):
    """The tile [BK, BN] of B at `base`, and where the next one is."""
    if B_T:
        return tl.trans(rows_tile(base, n0, N, K, k, last, BN, BK, EVEN)), base + BK
    return columns_tile(base, n0, N, N, k, last, BN, BK, EVEN), base + BK * N


@triton.jit
def tile_at(pid, tiles_m, tiles_n, GROUP: tl.constexpr):
    """The tile of a program: bands of GROUP rows of tiles go through all columns together."""
    band = pid // (GROUP * tiles_n)
    height = tl.minimum(tiles_m - band * GROUP, GROUP)
    inside = pid % (GROUP * tiles_n)
    return band * GROUP + inside % height, inside // height


@triton.jit
def fetch_weights(b_ptr, n0, N, K, depth, BN: tl.constexpr, B_T: tl.constexpr):
    """Fetches `depth` steps of the sum of BN columns of B to L2."""
    if B_T:
        prefetch_matrix(b_ptr, K, tl.minimum(BN, N - n0), depth, BN)
    else:
        prefetch_matrix(b_ptr, N, depth, tl.minimum(BN, N - n0), 128 if BN <= 64 else 8192 // BN)


@triton.jit
def kernel(
    a_ptr, b_ptr, partial_ptr, counters_ptr, M, N, K, inner, a_outer, a_inner, b_outer, b_inner, EPILOGUE,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, GROUP: tl.constexpr, SPLIT: tl.constexpr,
    BATCHED: tl.constexpr, A_T: tl.constexpr, B_T: tl.constexpr, EVEN: tl.constexpr, SWAP: tl.constexpr,
    PRECISION: tl.constexpr, PREFETCH: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """C = A B. A is [M, K] ([K, M] where A_T), B is [K, N] ([N, K] where B_T).

    Grid (tiles * batch, SPLIT). With SPLIT > 1 the sum is cut into parts, see parts.py.
    SWAP computes the transposed tile: N on the tensor core's long side, for few rows. Where B is constant, up to
    PREFETCH steps of the sum are fetched to L2 ahead.
    """
    begin(PDL)
    tiles_m = tl.cdiv(M, BM)
    tiles_n = tl.cdiv(N, BN)
    pid = tl.program_id(0)
    batch = 0
    if BATCHED:
        batch = pid // (tiles_m * tiles_n)
        pid = pid % (tiles_m * tiles_n)
        outer = (batch // inner).to(tl.int64)
        a_ptr += outer * a_outer + (batch % inner).to(tl.int64) * a_inner
        b_ptr += outer * b_outer + (batch % inner).to(tl.int64) * b_inner
    row, column = tile_at(pid, tiles_m, tiles_n, GROUP)
    m0 = row * BM
    n0 = column * BN

    first = 0
    last = K
    if SPLIT > 1:
        share = tl.cdiv(tl.cdiv(K, BK), SPLIT) * BK
        first = tl.program_id(1) * share
        last = tl.minimum(K, first + share)
    if A_T:
        a_ptr += first.to(tl.int64) * M + m0 if SPLIT > 1 else m0
    else:
        a_ptr += m0.to(tl.int64) * K + first
    if B_T:
        b_ptr += n0.to(tl.int64) * K + first
    else:
        b_ptr += first.to(tl.int64) * N + n0 if SPLIT > 1 else n0

    cols = n0 + tl.arange(0, BN)
    if PDL and PREFETCH > 0:
        fetch_weights(b_ptr, n0, N, K, tl.minimum(last - first, PREFETCH), BN, B_T)
        epilogue_prefetch(tl.minimum(cols, N - 1), EPILOGUE)
    wait(PDL)

    acc = tl.zeros((BN, BM) if SWAP else (BM, BN), tl.float32)
    for k in range(first, last, BK):
        a, a_ptr = left(a_ptr, m0, M, K, k, last, BM, BK, A_T, EVEN)
        b, b_ptr = right(b_ptr, n0, N, K, k, last, BN, BK, B_T, EVEN)
        if SWAP:
            acc = tl.dot(tl.trans(b), tl.trans(a), acc, input_precision=PRECISION)
        else:
            acc = tl.dot(a, b, acc, input_precision=PRECISION)
    if SWAP:
        acc = tl.trans(acc)

    rows = m0 + tl.arange(0, BM)
    mask = (rows[:, None] < M) & (cols[None, :] < N)
    if BATCHED:
        rows = rows + batch.to(tl.int64) * M
    if SPLIT > 1:
        tile = tl.program_id(0)
        if leave_part(acc, partial_ptr, counters_ptr, tile, tl.program_id(1), SPLIT):
            acc = sum_parts(partial_ptr, tile, BM, BN, SPLIT)
            epilogue_store(acc, rows[:, None], cols[None, :], mask, EPILOGUE)
    else:
        epilogue_store(acc, rows[:, None], cols[None, :], mask, EPILOGUE)
