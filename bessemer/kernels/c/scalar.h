/* Scalar functions of generated kernels, written so that a compiler vectorises loops over them: no branches, no calls
   of libm where a loop is hot. Polynomials are least-squares fits in the maximum norm; errors are of float results:
   exp, sigmoid 2 ulp; log, erf, tanh 3 ulp. */
#ifndef BSM_SCALAR
#define BSM_SCALAR
#include <math.h>
#include <stdint.h>
#include <string.h>
#define BSM static inline __attribute__((always_inline, unused))

BSM float bsm_float(int32_t bits) { float f; memcpy(&f, &bits, 4); return f; }
BSM int32_t bsm_bits(float f) { int32_t i; memcpy(&i, &f, 4); return i; }

/* exp: 2^n * (1 + r + r^2 P(r)) with |r| <= ln(2)/2; the scale is applied in two halves, for subnormal results. */
BSM float bsm_exp(float x) {
    float c = x < 104.0f ? x : 104.0f;
    c = c > -110.0f ? c : -110.0f;
    const float n = (c * 1.44269504f + 12582912.0f) - 12582912.0f;
    float r = c - n * 0.693145752f;
    r = r - n * 1.42860677e-6f;
    float p = 0.00139421097f;
    p = p * r + 0.00836376939f;
    p = p * r + 0.0416663624f;
    p = p * r + 0.166665733f;
    p = p * r + 0.5f;
    p = p * (r * r) + r + 1.0f;
    const int32_t i = (int32_t)n, half = i >> 1;
    p = p * bsm_float((half + 127) << 23) * bsm_float((i - half + 127) << 23);
    return x != x ? x : p;
}

/* log: x = 2^e * (1 + m), sqrt(1/2) <= 1 + m < sqrt(2); m - m^2/2 + m^3 P(m) + e ln 2. */
BSM float bsm_log(float x) {
    const float tiny = x < 1.17549435e-38f ? 1.0f : 0.0f;
    const float y = tiny != 0.0f ? x * 8388608.0f : x;
    const int32_t bits = bsm_bits(y), e = (bits - 0x3f3504f3) >> 23;
    const float m = bsm_float(bits - (e << 23)) - 1.0f;
    const float k = (float)e - tiny * 23.0f;
    float p = 0.0733323023f;
    p = p * m - 0.116613112f;
    p = p * m + 0.116350278f;
    p = p * m - 0.12396539f;
    p = p * m + 0.14251107f;
    p = p * m - 0.166691557f;
    p = p * m + 0.200006902f;
    p = p * m - 0.249999806f;
    p = p * m + 0.333333313f;
    float out = p * (m * m * m) - 0.5f * (m * m) + m;
    out = out + k * 1.42860677e-6f;
    out = out + k * 0.693145752f;
    out = x == 0.0f ? -INFINITY : out;
    out = x < 0.0f ? NAN : out;
    out = x == INFINITY ? x : out;
    return x != x ? x : out;
}

/* erf: odd polynomial up to 0.9277, then 1 - exp(-t Q(t)), which is 1 in float from 4 on. */
BSM float bsm_erf(float x) {
    const float t = fabsf(x), s = x * x;
    const float u = t < 4.0f ? t : 4.0f;
    float q = -8.25168172e-7f;
    q = q * u + 3.05588729e-5f;
    q = q * u - 0.00047126968f;
    q = q * u + 0.00419747224f;
    q = q * u - 0.0249027964f;
    q = q * u + 0.10755235f;
    q = q * u + 0.63435459f;
    q = q * u + 1.12884533f;
    const float large = copysignf(1.0f - bsm_exp(-u * q), x);
    float p = 8.32745936e-5f;
    p = p * s - 0.000813320803f;
    p = p * s + 0.00520025985f;
    p = p * s - 0.0268591195f;
    p = p * s + 0.112836912f;
    p = p * s - 0.376126349f;
    p = p * s + 0.128379166f;
    const float small = x + x * p;
    const float out = t < 0.927734375f ? small : large;
    return x != x ? x : out;
}

/* tanh: odd polynomial up to 0.63, then 1 - 2 / (exp(2 t) + 1). */
BSM float bsm_tanh(float x) {
    const float t = fabsf(x), s = x * x;
    const float large = copysignf(1.0f - 2.0f / (bsm_exp(2.0f * (t < 10.0f ? t : 10.0f)) + 1.0f), x);
    float p = -0.00607897621f;
    p = p * s + 0.0209866241f;
    p = p * s - 0.0538491532f;
    p = p * s + 0.133327633f;
    p = p * s - 0.333333284f;
    const float small = x + x * s * p;
    const float out = t < 0.63f ? small : large;
    return x != x ? x : out;
}

BSM float bsm_sigmoid(float x) { return 1.0f / (1.0f + bsm_exp(-x)); }
BSM double bsm_sigmoidd(double x) { return 1.0 / (1.0 + exp(-x)); }

BSM float bsm_from_bf16(uint16_t v) { return bsm_float((int32_t)((uint32_t)v << 16)); }
BSM uint16_t bsm_to_bf16(float f) {
    const uint32_t bits = (uint32_t)bsm_bits(f);
    const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    return (uint16_t)(f != f ? (bits >> 16) | 0x40u : rounded);
}

/* max and min give NaN where either side is NaN */
#define BSM_MAX(a, b) ((a) > (b) || (a) != (a) ? (a) : (b))
#define BSM_MIN(a, b) ((a) < (b) || (a) != (a) ? (a) : (b))
#define BSM_SIGN(a) ((a) != (a) ? (a) : ((a) > 0) - ((a) < 0))

BSM int64_t bsm_floordiv(int64_t a, int64_t b) {
    if (b == 0) return 0;
    if (b == -1) return (int64_t)(0 - (uint64_t)a);
    const int64_t q = a / b;
    return q - ((a % b != 0) && ((a < 0) != (b < 0)));
}
BSM int64_t bsm_floormod(int64_t a, int64_t b) {
    if (b == 0 || b == -1) return 0;
    const int64_t r = a % b;
    return r + ((r != 0) && ((r < 0) != (b < 0)) ? b : 0);
}
BSM int64_t bsm_truncdiv(int64_t a, int64_t b) { return b == 0 ? 0 : b == -1 ? (int64_t)(0 - (uint64_t)a) : a / b; }
BSM int64_t bsm_truncmod(int64_t a, int64_t b) { return b == 0 || b == -1 ? 0 : a % b; }
BSM double bsm_floormodf(double a, double b) {
    const double r = fmod(a, b);
    return r != 0 && ((r < 0) != (b < 0)) ? r + b : r;
}
BSM int64_t bsm_ipow(int64_t base, int64_t exponent) {
    if (exponent < 0) return base == 1 ? 1 : base == -1 ? (exponent & 1 ? -1 : 1) : 0;
    uint64_t out = 1, b = (uint64_t)base;
    for (; exponent; exponent >>= 1, b *= b)
        if (exponent & 1) out *= b;
    return (int64_t)out;
}
/* a float of any size as an integer: saturated, NaN as 0 */
BSM int64_t bsm_to_i64(double v) {
    return v != v ? 0 : v >= 9223372036854775808.0 ? INT64_MAX : v < -9223372036854775808.0 ? INT64_MIN : (int64_t)v;
}
BSM uint64_t bsm_to_u64(double v) {
    return v != v || v <= 0 ? 0 : v >= 18446744073709551616.0 ? UINT64_MAX : (uint64_t)v;
}
#endif
