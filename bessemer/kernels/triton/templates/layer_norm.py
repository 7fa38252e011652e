import triton
import triton.language as tl


@triton.jit
def kernel(
    x_ptr, scale_ptr, bias_ptr, R, N, EPILOGUE,
    BR: tl.constexpr, BN: tl.constexpr, WHOLE: tl.constexpr, EPSILON: tl.constexpr, CENTER: tl.constexpr,
    SCALE: tl.constexpr, BIAS: tl.constexpr, CONSTANT: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """Normalises the rows of x [R, N]: to zero mean (CENTER) and unit variance, or to unit mean square.

    WHOLE keeps a row in registers (BN >= N), else it is read again for each pass. One program: BR rows. Scale and bias
    that are CONSTANT are read ahead.
    """
    begin(PDL)
    r = tl.program_id(0) * BR + tl.arange(0, BR)
    k = tl.arange(0, BN)
    live = (r < R)[:, None]
    count = N.to(tl.float32)
    at = x_ptr + r.to(tl.int64)[:, None] * N + k[None, :]
    if WHOLE:
        inside = (k < N)[None, :]
        wait(PDL and not CONSTANT)
        if SCALE:
            scale = tl.load(scale_ptr + k, mask=k < N, other=0.0).to(tl.float32)
        if BIAS:
            bias = tl.load(bias_ptr + k, mask=k < N, other=0.0).to(tl.float32)
        wait(PDL and CONSTANT)
        x = tl.load(at, mask=live & inside, other=0.0).to(tl.float32)
        if CENTER:
            mean = tl.sum(x, 1) / count
            x = tl.where(inside, x - mean[:, None], 0.0)
        y = x * tl.rsqrt(tl.sum(x * x, 1) / count + EPSILON)[:, None]
        if SCALE:
            y *= scale[None, :]
        if BIAS:
            y += bias[None, :]
        epilogue_store(y, r[:, None], k[None, :], live & inside, EPILOGUE)
    else:
        wait(PDL)
        mean = tl.zeros((BR,), tl.float32)
        if CENTER:
            total = tl.zeros((BR, BN), tl.float32)
            for k0 in range(0, N, BN):
                total += tl.load(at + k0, mask=live & (k0 + k < N)[None, :], other=0.0).to(tl.float32)
            mean = tl.sum(total, 1) / count
        square = tl.zeros((BR, BN), tl.float32)
        for k0 in range(0, N, BN):
            inside = (k0 + k < N)[None, :]
            x = tl.load(at + k0, mask=live & inside, other=0.0).to(tl.float32)
            x = tl.where(inside, x - mean[:, None], 0.0)
            square += x * x
        inverse = tl.rsqrt(tl.sum(square, 1) / count + EPSILON)
        for k0 in range(0, N, BN):
            inside = (k0 + k < N)[None, :]
            y = tl.load(at + k0, mask=live & inside, other=0.0).to(tl.float32)
            y = (y - mean[:, None]) * inverse[:, None]
            if SCALE:
                y *= tl.load(scale_ptr + k0 + k, mask=k0 + k < N, other=0.0).to(tl.float32)[None, :]
            if BIAS:
                y += tl.load(bias_ptr + k0 + k, mask=k0 + k < N, other=0.0).to(tl.float32)[None, :]
            epilogue_store(y, r[:, None], (k0 + k)[None, :], live & inside, EPILOGUE)
