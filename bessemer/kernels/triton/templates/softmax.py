import triton
import triton.language as tl


@triton.jit
def kernel(
    x_ptr, R, N, inner, EPILOGUE,
    BR: tl.constexpr, BN: tl.constexpr, WHOLE: tl.constexpr, LAST: tl.constexpr, LOG: tl.constexpr,
    PDL: tl.constexpr,
):  # fmt: skip
    """Softmax along the middle axis of x [outer, N, inner]; R = outer * inner. One program: BR such lines.

    WHOLE keeps a line in registers (BN >= N), else it is read twice in steps of BN. LAST says that inner is 1.
    """
    begin(PDL)
    r = tl.program_id(0) * BR + tl.arange(0, BR)
    k = tl.arange(0, BN)
    if LAST:
        outer = r
        i = tl.zeros((BR,), tl.int32)
        base = r.to(tl.int64) * N
    else:
        outer = r // inner
        i = r % inner
        base = outer.to(tl.int64) * N * inner + i
    at = x_ptr + base[:, None] + (k * (1 if LAST else inner))[None, :]
    live = (r < R)[:, None]
    wait(PDL)
    if WHOLE:
        mask = live & (k < N)[None, :]
        x = tl.load(at, mask=mask, other=float("-inf")).to(tl.float32)
        x -= tl.max(x, 1)[:, None]
        total = tl.sum(tl.exp(x), 1)
        if LOG:
            y = x - tl.log(total)[:, None]
        else:
            y = tl.exp(x) / total[:, None]
        if LAST:
            epilogue_store(y, outer[:, None], k[None, :], mask, EPILOGUE)
        else:
            epilogue_store(y, outer[:, None], k[None, :], i[:, None], mask, EPILOGUE)
    else:
        step = BN if LAST else inner * BN
        top = tl.full((BR,), float("-inf"), tl.float32)
        total = tl.zeros((BR,), tl.float32)
        first = at
        for k0 in range(0, N, BN):
            x = tl.load(at, mask=live & (k0 + k < N)[None, :], other=float("-inf")).to(tl.float32)
            best = tl.maximum(top, tl.max(x, 1))
            safe = tl.where(best == float("-inf"), 0.0, best)
            total = total * tl.exp(top - safe) + tl.sum(tl.exp(x - safe[:, None]), 1)
            top = best
            at += step
        at = first
        for k0 in range(0, N, BN):
            mask = live & (k0 + k < N)[None, :]
            x = tl.load(at, mask=mask, other=0.0).to(tl.float32) - top[:, None]
            if LOG:
                y = x - tl.log(total)[:, None]
            else:
                y = tl.exp(x) / total[:, None]
            if LAST:
                epilogue_store(y, outer[:, None], (k0 + k)[None, :], mask, EPILOGUE)
            else:
                epilogue_store(y, outer[:, None], (k0 + k)[None, :], i[:, None], mask, EPILOGUE)
            at += step
