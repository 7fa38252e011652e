import triton
import triton.language as tl


@triton.jit
def kernel(
    a_ptr, b_ptr, M, N, K, EPILOGUE,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, GROUP: tl.constexpr, B_T: tl.constexpr, SWAP: tl.constexpr,
    PRECISION: tl.constexpr, FLATTEN: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """C = A B with tiles fetched by the copy engine: A is [M, K], B is [K, N] ([N, K] where B_T).

    Every program walks tiles in bands of GROUP rows, num_programs apart, so that the loads of the next tile run under
    the stores of the last one (FLATTEN makes one loop of tiles and steps). What lies outside a matrix reads as 0.
    """
    begin(PDL)
    wait(PDL)  # the descriptors lie in memory that an earlier launch may be reading
    a = tl.make_tensor_descriptor(a_ptr, [M, K], [K, 1], [BM, BK])
    if B_T:
        b = tl.make_tensor_descriptor(b_ptr, [N, K], [K, 1], [BN, BK])
    else:
        b = tl.make_tensor_descriptor(b_ptr, [K, N], [N, 1], [BK, BN])
    tiles_m = tl.cdiv(M, BM)
    tiles_n = tl.cdiv(N, BN)
    for tile in tl.range(tl.program_id(0), tiles_m * tiles_n, tl.num_programs(0), flatten=FLATTEN):
        band = tile // (GROUP * tiles_n)
        height = tl.minimum(tiles_m - band * GROUP, GROUP)
        inside = tile % (GROUP * tiles_n)
        m0 = (band * GROUP + inside % height) * BM
        n0 = (inside // height) * BN
        acc = tl.zeros((BN, BM) if SWAP else (BM, BN), tl.float32)
        for k in range(0, K, BK):
            x = a.load([m0, k])
            if B_T:
                y = b.load([n0, k]).T
            else:
                y = b.load([k, n0])
            if SWAP:
                acc = tl.dot(y.T, x.T, acc, input_precision=PRECISION)
            else:
                acc = tl.dot(x, y, acc, input_precision=PRECISION)
        if SWAP:
            out = tl.trans(acc)
        else:
            out = acc
        rows = m0 + tl.arange(0, BM)
        cols = n0 + tl.arange(0, BN)
        mask = (rows[:, None] < M) & (cols[None, :] < N)
        epilogue_store(out, rows[:, None], cols[None, :], mask, EPILOGUE)
