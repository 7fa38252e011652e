"""Scalar functions that Triton lacks or only approximates. Read as text: a module gets those that it uses.

All work on tensors and scalars. Plain names take f32 and stay within 3 units in the last place; `*_16` serve values
that are stored in 16 bits; `*64` take f64. They are made of primitives that compile ahead of time on every
architecture and run in Triton's interpreter (which has no libdevice), so all places give the same numbers.
"""

import triton
import triton.language as tl


@triton.jit
def round_even(x):
    """To the nearest integer, ties to even: adding and taking away 1.5 * 2^23 leaves no fraction bits."""
    return tl.where(tl.abs(x) < 8388608.0, (x + 12582912.0) - 12582912.0, x)


@triton.jit
def round_even64(x):
    """To the nearest integer, ties to even, for f64."""
    return tl.where(tl.abs(x) < 4503599627370496.0, (x + 6755399441055744.0) - 6755399441055744.0, x)


@triton.jit
def truncate(x):
    """Toward zero."""
    return tl.where(x < 0, tl.ceil(x), tl.floor(x))


@triton.jit
def sign(x):
    """-1, 0 or 1; NaN stays."""
    one = (x == x).to(x.dtype)
    return tl.where(x > 0, one, tl.where(x < 0, 0 - one, x))


@triton.jit
def clamp_nan(x, lo, hi):
    """x within [lo, hi]; NaN stays."""
    return tl.where(x < lo, lo, tl.where(x > hi, hi, x))


@triton.jit
def power_of_two(n):
    """2^n as f32, of an i32 n in [-126, 127]."""
    return ((n + 127) << 23).to(tl.float32, bitcast=True)


@triton.jit
def exp_parts(x):
    """e^x = (1 + p) * 2^n with |p| < 0.42: x = n * ln(2) + r, and a polynomial for p = e^r - 1.

    Every product that is added to something is a fused one: the compiler may fuse any other, so that a difference that
    should tell what rounding took would be none."""
    shifted = tl.fma(x, 1.4426950408889634, 12582912.0)  # 1.5 * 2^23 leaves no fraction bits: n is in the low bits
    n = shifted - 12582912.0
    r = tl.fma(n, -0.693145751953125, x)
    r = tl.fma(n, -1.428606765330187e-06, r)
    p = tl.fma(r, 1.98412698e-04, 1.38888889e-03)
    p = tl.fma(r, p, 8.33333333e-03)
    p = tl.fma(r, p, 4.16666667e-02)
    p = tl.fma(r, p, 1.66666667e-01)
    p = tl.fma(r, p, 0.5)
    p = tl.fma(r * r, p, r)
    return p, shifted.to(tl.int32, bitcast=True) - 0x4B400000


@triton.jit
def exp(x):
    """e^x. The power of two is applied in two halves, as 2^128 and 2^-150 are no normal f32."""
    p, n = exp_parts(clamp_nan(x, -104.0, 89.0))
    half = power_of_two(n >> 1)
    return tl.fma(p, half, half) * power_of_two(n - (n >> 1))


@triton.jit
def expm1(x):
    """e^x - 1."""
    p, n = exp_parts(clamp_nan(x, -30.0, 89.0))
    half = power_of_two(n - 1)  # 2^128 is no f32
    return tl.where(n == 0, p, tl.fma(p, half, half - 0.5) * 2)


@triton.jit
def expm164(x):
    """e^x - 1."""
    c = clamp_nan(x, -0.4, 0.4)
    p = c / 17 + 1
    for k in tl.static_range(16, 1, -1):
        p = p * c / k + 1
    return tl.where(tl.abs(x) < 0.4, p * x, tl.exp(x) - 1)


@triton.jit
def log1p(x):
    """log(1 + x); the rounding error of 1 + x cancels."""
    u = 1.0 + x
    y = tl.log(u) * tl.div_rn(x, u - 1.0)
    return tl.where(u == 1.0, x, tl.where(u == float("inf"), u, tl.where(u == 0.0, -float("inf"), y)))


@triton.jit
def log1p64(x):
    """log(1 + x)."""
    u = 1.0 + x
    y = tl.log(u) * (x / (u - 1.0))
    return tl.where(u == 1.0, x, tl.where(u == float("inf"), u, tl.where(u == 0.0, -float("inf"), y)))


@triton.jit
def sigmoid(x):
    """1 / (1 + e^-x), which is e^x / (1 + e^x): the form whose power does not overflow."""
    e = exp(-tl.abs(x))
    return tl.div_rn(tl.where(x < 0, e, 1.0), 1.0 + e)


@triton.jit
def sigmoid_16(x):
    """1 / (1 + e^-x), relative error below 1e-5."""
    return 1.0 / (1.0 + tl.exp(-x))


@triton.jit
def sigmoid64(x):
    """1 / (1 + e^-x)."""
    return 1.0 / (1.0 + tl.exp(-x))


@triton.jit
def tanh_small(x):
    """tanh(x) for |x| <= 0.625: an odd polynomial, fitted to a relative error of 9e-9."""
    s = x * x
    p = tl.fma(s, -5.704986397e-03, 2.063908614e-02)
    p = tl.fma(s, p, -5.373971537e-02)
    p = tl.fma(s, p, 1.333144158e-01)
    p = tl.fma(s, p, -3.333328068e-01)
    return tl.fma(x * s, p, x)


@triton.jit
def tanh(x):
    """The hyperbolic tangent."""
    a = tl.abs(x)
    big = 1.0 - tl.div_rn(tl.full((), 2.0, tl.float32), exp(2.0 * a) + 1.0)
    return tl.where(a < 0.625, tanh_small(x), tl.where(x < 0, -big, tl.where(x > 0, big, x)))


@triton.jit
def tanh_16(x):
    """The hyperbolic tangent, relative error below 1e-5."""
    a = tl.abs(x)
    big = 1.0 - 2.0 / (tl.exp(2.0 * a) + 1.0)
    return tl.where(a < 0.625, tanh_small(x), tl.where(x < 0, -big, tl.where(x > 0, big, x)))


@triton.jit
def tanh64(x):
    """The hyperbolic tangent."""
    m = expm164(2.0 * clamp_nan(x, -30.0, 30.0))
    return m / (m + 2.0)


@triton.jit
def sinh64(x):
    """The hyperbolic sine; e^|x| / 2 where e^-|x| no longer counts, so that nothing overflows early."""
    a = tl.abs(x)
    m = expm164(tl.where(a < 30.0, a, 0.0))
    half = tl.exp(0.5 * a)
    y = tl.where(a < 30.0, 0.5 * (m + m / (m + 1.0)), 0.5 * half * half)
    return tl.where(x < 0, -y, tl.where(x > 0, y, x))


@triton.jit
def cosh64(x):
    """The hyperbolic cosine."""
    half = tl.exp(0.5 * tl.abs(x))
    return 0.5 * half * half + 0.5 / half / half


@triton.jit
def asinh64(x):
    """The inverse hyperbolic sine."""
    a = tl.abs(x)
    c = tl.where(a < 1e8, a, 1.0)
    y = tl.where(a < 1e8, log1p64(c + c * c / (1.0 + tl.sqrt(c * c + 1.0))), tl.log(a) + 0.6931471805599453)
    return tl.where(x < 0, -y, tl.where(x > 0, y, x))


@triton.jit
def acosh64(x):
    """The inverse hyperbolic cosine; NaN below 1."""
    t = tl.where(x >= 1e8, 1.0, x) - 1.0
    y = log1p64(t + tl.sqrt(t * (t + 2.0)))
    return tl.where(x >= 1e8, tl.log(x) + 0.6931471805599453, y)


@triton.jit
def atanh64(x):
    """The inverse hyperbolic tangent; NaN beyond 1."""
    a = tl.abs(x)
    y = 0.5 * log1p64(2.0 * a / (1.0 - a))
    y = tl.where(a == 1.0, float("inf"), y)
    return tl.where(x < 0, -y, tl.where(x > 0, y, x))


@triton.jit
def tan(x):
    """The tangent."""
    return tl.div_rn(tl.sin(x), tl.cos(x))


@triton.jit
def tan64(x):
    """The tangent."""
    return tl.sin(x) / tl.cos(x)


@triton.jit
def atan64(x):
    """The arc tangent: at most 1 by reflection, at most tan(pi/16) by halving the angle twice, then the series."""
    a = tl.abs(x)
    t = tl.where(a > 1.0, 1.0 / a, a)
    t = t / (1.0 + tl.sqrt(1.0 + t * t))
    t = t / (1.0 + tl.sqrt(1.0 + t * t))
    s = -t * t
    p = s * 0 + 1.0 / 27.0
    for k in tl.static_range(25, 0, -2):
        p = p * s + 1.0 / k
    y = 4.0 * t * p
    y = tl.where(a > 1.0, 1.5707963267948966 - y, y)
    return tl.where(x < 0, -y, tl.where(x > 0, y, x))


@triton.jit
def asin64(x):
    """The arc sine; NaN beyond 1."""
    return 2.0 * atan64(x / (1.0 + tl.sqrt((1.0 - x) * (1.0 + x))))


@triton.jit
def acos64(x):
    """The arc cosine; NaN beyond 1."""
    return 2.0 * atan64(tl.sqrt((1.0 - x) / (1.0 + x)))


@triton.jit
def atan264(y, x):
    """The angle of (x, y) in [-pi, pi]; the signs of zeros count."""
    ay = tl.abs(y)
    ax = tl.abs(x)
    t = atan64(tl.where(ay == ax, (ay > 0).to(tl.float64), ay / ax))  # also inf / inf and 0 / 0
    t = tl.where((x < 0) | ((x == 0) & (1.0 / x < 0)), 3.141592653589793 - t, t)
    t = tl.where((x != x) | (y != y), x + y, t)
    return tl.where((y < 0) | ((y == 0) & (1.0 / y < 0)), -t, t)


@triton.jit
def pow64(x, y):
    """x to the power y, with IEEE's special cases. Small whole powers are products: integers stay exact."""
    y = tl.where(x == x, y, y)  # each as wide as the other
    x = tl.where(y == y, x, x)
    a = tl.abs(x)
    n = tl.abs(y)
    whole = tl.floor(n) == n
    odd = whole & (tl.floor(0.5 * n) != 0.5 * n)
    r = tl.exp2(y * tl.log2(a))
    bits = tl.where(n < 64.0, n, 0.0).to(tl.int32)
    p = tl.where(a == a, 1.0, a)
    square = a
    for _ in tl.static_range(6):
        p = tl.where((bits & 1) != 0, p * square, p)
        square = square * square
        bits = bits >> 1
    r = tl.where(whole & (n < 64.0), tl.where(y < 0, 1.0 / p, p), r)
    r = tl.where((x < 0) & odd, -r, r)
    r = tl.where((x < 0) & (a != float("inf")) & (whole == 0), float("nan"), r)
    r = tl.where((a == 1.0) & (n == float("inf")), 1.0, r)
    return tl.where((y == 0) | (x == 1.0), 1.0, r)


@triton.jit
def pow_int(x, y):
    """x to the power y, modulo the width of the type, by squaring; 1 / x^|y| rounded toward zero for negative y."""
    base = x + y * 0
    n = y + x * 0
    out = base * 0 + 1
    b = base
    for _ in range(64):
        out = tl.where((n & 1) != 0, out * b, out)
        b = b * b
        n = n >> 1
    inverse = tl.where(base == 1, base, tl.where(base == -1, tl.where((y & 1) != 0, base, -base), base * 0))
    return tl.where(y < 0, inverse, out)


@triton.jit
def pow_uint(x, y):
    """x to the power y, modulo the width of the type, by squaring."""
    b = x + y * 0
    n = y + x * 0
    out = b * 0 + 1
    for _ in range(64):
        out = tl.where((n & 1) != 0, out * b, out)
        b = b * b
        n = n >> 1
    return out


@triton.jit
def fmod_rounds(r, d, ROUNDS: tl.constexpr):
    """r less multiples of d: each round takes 50 bits off the quotient, and is exact."""
    scale = tl.exp2(tl.full((), 50.0 * (ROUNDS - 1), tl.float64))
    for _ in tl.static_range(ROUNDS):
        step = d * scale
        q = tl.floor(r / step)
        s = tl.fma(-q, step, r)
        s = tl.where(s < 0, s + step, s)
        s = tl.where(s >= step, s - step, s)
        r = tl.where((q > 0) & (step < float("inf")), s, r)
        scale = scale * 8.881784197001252e-16  # 2^-50
    return r


@triton.jit
def fmod64(x, y, ROUNDS: tl.constexpr):
    """The remainder of x / y with the sign of x; quotients are below 2^(50 * ROUNDS)."""
    x = tl.where(y == y, x, x)  # as wide as y
    d = tl.abs(y)
    r = tl.abs(x)
    if ROUNDS > 21:
        far = tl.exp2(tl.full((), 525.0, tl.float64))
        r = fmod_rounds(r, d * far * far, 21)
    r = fmod_rounds(r, d, 21 if ROUNDS > 21 else ROUNDS)
    r = tl.where((d == 0.0) | (tl.abs(x) == float("inf")), float("nan"), tl.where(d == float("inf"), tl.abs(x), r))
    r = tl.where((x != x) | (y != y), x + y, r)
    return tl.where(x < 0, -r, r)


@triton.jit
def floormod_float(r, y):
    """The remainder with the sign of y, of a remainder with the sign of the dividend."""
    return tl.where((r != 0) & ((r < 0) != (y < 0)), r + y, r)


@triton.jit
def div_int(x, y):
    """The quotient of signed integers, rounded toward zero: 0 where y is 0; the least integer by -1 wraps."""
    plain = (y != 0) & (y != -1)
    return tl.where(plain, x // tl.where(plain, y, 1), x * y)


@triton.jit
def fmod_int(x, y):
    """The remainder of signed integers, with the sign of the dividend; 0 where y is 0 or -1."""
    plain = (y != 0) & (y != -1)
    return tl.where(plain, x % tl.where(plain, y, 1), 0)


@triton.jit
def div_uint(x, y):
    """The quotient of unsigned integers; 0 where y is 0."""
    return tl.where(y != 0, x // tl.where(y != 0, y, 1), 0)


@triton.jit
def fmod_uint(x, y):
    """The remainder of unsigned integers; 0 where y is 0."""
    return tl.where(y != 0, x % tl.where(y != 0, y, 1), 0)


@triton.jit
def floordiv_int(x, y):
    """The quotient of signed integers, rounded down; 0 where y is 0."""
    q = div_int(x, y)
    r = tl.where(y != 0, x - q * y, 0)
    return tl.where((r != 0) & ((r < 0) != (y < 0)), q - 1, q)


@triton.jit
def floormod_int(x, y):
    """The remainder of signed integers, with the sign of the divisor; 0 where y is 0."""
    r = fmod_int(x, y)
    return tl.where((r != 0) & ((r < 0) != (y < 0)), r + y, r)


@triton.jit
def popcount32(x):
    """The number of one bits of a u32."""
    x = x - ((x >> 1) & 0x55555555)
    x = (x & 0x33333333) + ((x >> 2) & 0x33333333)
    x = (x + (x >> 4)) & 0x0F0F0F0F
    return (x * 0x01010101) >> 24


@triton.jit
def multiply(x, y):
    """The product, for reductions."""
    return x * y


@triton.jit
def maximum(x, y):
    """The greater, for reductions; NaN if either is NaN."""
    return tl.maximum(x, y, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def minimum(x, y):
    """The lesser, for reductions; NaN if either is NaN."""
    return tl.minimum(x, y, propagate_nan=tl.PropagateNan.ALL)
