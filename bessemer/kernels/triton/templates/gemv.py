import triton
import triton.language as tl


@triton.jit
def kernel(
    a_ptr, b_ptr, M, N, K, EPILOGUE,
    ROWS: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, STAGES: tl.constexpr, B_T: tl.constexpr, EVEN: tl.constexpr,
    PREFETCH: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """C = A B for few rows: A is [M, K], B is [K, N] ([N, K] where B_T). Grid (tiles of N, tiles of ROWS rows).

    Every lane keeps its own sums until the end, so that B streams through with no exchange between lanes. Of a
    constant B, up to PREFETCH steps of the sum are fetched to L2 ahead.
    """
    begin(PDL)
    r = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    n = tl.program_id(0) * BN + tl.arange(0, BN)
    k = tl.arange(0, BK)
    a_at = a_ptr + tl.minimum(r, M - 1).to(tl.int64)[:, None] * K + k[None, :]
    if B_T:
        b_at = b_ptr + tl.minimum(n, N - 1).to(tl.int64)[:, None] * K + k[None, :]
        acc = tl.zeros((ROWS, BN, BK), tl.float32)
        step = BK
    else:
        b_at = b_ptr + k[:, None] * N + n[None, :]
        acc = tl.zeros((ROWS, BK, BN), tl.float32)
        step = BK * N
    if PDL and PREFETCH > 0:
        n0 = tl.program_id(0) * BN
        depth = tl.minimum(K, PREFETCH)
        if B_T:
            prefetch_matrix(b_ptr + n0.to(tl.int64) * K, K, tl.minimum(BN, N - n0), depth, BN)
        else:
            prefetch_matrix(b_ptr + n0, N, depth, tl.minimum(BN, N - n0), 128 if BN <= 64 else 8192 // BN)
        epilogue_prefetch(tl.minimum(n, N - 1), EPILOGUE)
    wait(PDL)
    for k0 in tl.range(0, K, BK, num_stages=STAGES):
        inside = k0 + k < K
        if B_T:
            if EVEN:
                a = tl.load(a_at)
                b = tl.load(b_at)
            else:
                a = tl.load(a_at, mask=inside[None, :], other=0.0)
                b = tl.load(b_at, mask=inside[None, :], other=0.0)
            acc += a.to(tl.float32)[:, None, :] * b.to(tl.float32)[None, :, :]
        else:
            a = tl.load(a_at, mask=inside[None, :], other=0.0)
            b = tl.load(b_at, mask=inside[:, None] & (n < N)[None, :], other=0.0)
            acc += a.to(tl.float32)[:, :, None] * b.to(tl.float32)[None, :, :]
        a_at += BK
        b_at += step
    total = tl.sum(acc, 2) if B_T else tl.sum(acc, 1)
    mask = (r < M)[:, None] & (n < N)[None, :]
    epilogue_store(total, r[:, None], n[None, :], mask, EPILOGUE)
