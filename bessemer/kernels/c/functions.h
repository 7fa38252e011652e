/* Scalar functions of generated kernels: straight-line code that compilers vectorise. f16 and bf16 are stored as their
   bits and computed in float. scalar.py takes from here what a kernel calls; a blank line ends a definition. */

static inline float f32_of_bits(uint32_t u) { float x; __builtin_memcpy(&x, &u, sizeof x); return x; }

static inline uint32_t bits_of_f32(float x) { uint32_t u; __builtin_memcpy(&u, &x, sizeof u); return u; }

static inline float f32_of_bf16(uint16_t h) { return f32_of_bits((uint32_t)h << 16); }

static inline uint16_t bf16_of_f32(float x) {
    const uint32_t u = bits_of_f32(x), rounded = u + 0x7fffu + (u >> 16 & 1u);
    return (uint16_t)((x != x ? u | 0x400000u : rounded) >> 16);
}

/* Exponents are shifted by a multiplication, which is exact and turns subnormals into normal numbers. */
static inline float f32_of_f16(uint16_t h) {
    const uint32_t sign = (uint32_t)(h & 0x8000u) << 16, body = (uint32_t)(h & 0x7fffu) << 13;
    const float scaled = f32_of_bits(body) * 0x1p112f;
    const uint32_t special = body >= 0x0f800000u ? 0x7f800000u : 0u;
    return f32_of_bits(bits_of_f32(scaled) | special | sign);
}

/* Adding 2^(e+13) rounds to a multiple of f16's step at exponent e, to nearest even. */
static inline uint16_t f16_of_f32(float x) {
    const uint32_t u = bits_of_f32(x), sign = u >> 16 & 0x8000u, body = u & 0x7fffffffu;
    const uint32_t c = body > 0x47800000u ? 0x47800000u : body;
    const uint32_t exponent = c & 0x7f800000u, least = exponent < 0x38800000u ? 0x38800000u : exponent;
    const float magic = f32_of_bits(least + 0x06800000u);
    const float rounded = (f32_of_bits(c) + magic) - magic;
    const uint32_t r = bits_of_f32(rounded);
    const uint32_t normal = (r - 0x38000000u) >> 13, tiny = (uint32_t)(int32_t)(rounded * 0x1p24f);
    const uint32_t finite = rounded >= 65536.0f ? 0x7c00u : r < 0x38800000u ? tiny : normal;
    return (uint16_t)((body > 0x7f800000u ? 0x7e00u : finite) | sign);
}

static inline uint16_t f16_of_f64(double x) {
    const float near = (float)x;
    const uint32_t u = bits_of_f32(near);
    /* Rounding twice is once if the first is to odd: a bit that was lost is kept as the last one. */
    const uint32_t toward = u - (__builtin_fabs((double)near) > __builtin_fabs(x));
    return f16_of_f32(f32_of_bits((double)near == x || x != x ? u : toward | 1u));
}

static inline uint16_t bf16_of_f64(double x) {
    const float near = (float)x;
    const uint32_t u = bits_of_f32(near);
    const uint32_t toward = u - (__builtin_fabs((double)near) > __builtin_fabs(x));
    return bf16_of_f32(f32_of_bits((double)near == x || x != x ? u : toward | 1u));
}

/* exp(r) = 1 + r + r^2 P(r) for |r| <= ln(2)/2, times 2^n in two steps, so that subnormals are rounded once. */
static inline float exp_f32(float x) {
    const float low = x < -104.0f ? -104.0f : x, c = low > 89.0f ? 89.0f : low;
    const float shifted = c * 0x1.715476p+0f + 0x1.8p23f, n = shifted - 0x1.8p23f;
    const float r = (c - n * 0x1.62e4p-1f) - n * 0x1.7f7d1cp-20f;
    const float p = (((0x1.6a258ap-10f * r + 0x1.1239fp-7f) * r + 0x1.5558fp-5f) * r + 0x1.555492p-3f) * r + 0x1.fffffcp-2f;
    const float e = (p * r) * r + r + 1.0f;
    const int32_t k = (int32_t)(bits_of_f32(shifted) - 0x4b400000u), half = k >> 1;
    return e * f32_of_bits((uint32_t)(half + 127) << 23) * f32_of_bits((uint32_t)(k - half + 127) << 23);
}

static inline float expm1_f32(float x) {
    const float p = ((((0x1.a2569cp-13f * x + 0x1.6e189p-10f) * x + 0x1.110ffcp-7f) * x + 0x1.5553ecp-5f) * x
                     + 0x1.555556p-3f) * x + 0.5f;
    const float near = x * x * p + x, far = exp_f32(x) - 1.0f;
    return __builtin_fabsf(x) < 0.42f ? near : far;
}

/* log(m 2^k) with m in [sqrt(1/2), sqrt(2)): s = f / (2 + f) with f = m - 1, log(1 + f) = 2 atanh(s). */
static inline float log_f32(float x) {
    const int small = x < 0x1p-126f;
    const uint32_t u = bits_of_f32(small ? x * 0x1p23f : x) - 0x3f3504f3u;
    const float k = (float)((int32_t)u >> 23) - (small ? 23.0f : 0.0f);
    const float f = f32_of_bits((u & 0x7fffffu) + 0x3f3504f3u) - 1.0f;
    const float s = f / (2.0f + f), z = s * s;
    const float p = (((0x1.c71c72p-3f * z + 0x1.24924ap-2f) * z + 0x1.99999ap-2f) * z + 0x1.555556p-1f) * z;
    const float half = 0.5f * f * f;
    const float y = k * 0x1.62e4p-1f + (f - (half - (s * (half + p) + k * 0x1.7f7d1cp-20f)));
    const float end = x == 0.0f ? -__builtin_inff() : __builtin_nanf("");
    const float odd = x > 0.0f ? x : end;
    return x > 0.0f && x < __builtin_inff() ? y : odd;
}

static inline float log1p_f32(float x) {
    const float u = 1.0f + x, lost = (x - (u - 1.0f)) / u;
    return log_f32(u) + (u < __builtin_inff() && u > 0.0f ? lost : 0.0f);
}

/* exp where the result is a normal number: -87 <= x <= 88. NaN stays NaN. */
static inline float near_exp_f32(float x) {
    const float shifted = x * 0x1.715476p+0f + 0x1.8p23f, n = shifted - 0x1.8p23f;
    const float r = (x - n * 0x1.62e4p-1f) - n * 0x1.7f7d1cp-20f;
    const float p = (((0x1.6a258ap-10f * r + 0x1.1239fp-7f) * r + 0x1.5558fp-5f) * r + 0x1.555492p-3f) * r + 0x1.fffffcp-2f;
    return ((p * r) * r + r + 1.0f) * f32_of_bits((bits_of_f32(shifted) << 23) + 0x3f800000u);
}

/* exp for x <= 0: what is below the normal numbers is 0. */
static inline float weight_f32(float x) { return x < -87.0f ? 0.0f : near_exp_f32(x); }

static inline double weight_f64(double x) { return __builtin_exp(x); }

static inline float sigmoid_f32(float x) {
    const float e = weight_f32(-__builtin_fabsf(x));
    return (x >= 0.0f ? 1.0f : e) / (1.0f + e);
}

static inline float tanh_f32(float x) {
    const float z = x * x, a = __builtin_fabsf(x), c = a > 10.0f ? 10.0f : a;
    const float p = (((-0x1.6a5a5cp-8f * z + 0x1.4f9b3ep-6f) * z - 0x1.b7dab2p-5f) * z + 0x1.110452p-3f) * z - 0x1.555526p-2f;
    const float near = x + x * (z * p), far = 1.0f - 2.0f / (near_exp_f32(c + c) + 1.0f);
    return a >= 0.65f ? __builtin_copysignf(far, x) : near;
}

/* x P(x^2) near zero, else 1 - exp(Q(|x|)): Q is a fit of log(erfc). */
static inline float erf_f32(float x) {
    const float z = x * x, a = __builtin_fabsf(x), c = a > 4.0f ? 4.0f : a;
    const float p = (((((0x1.5f9534p-14f * z - 0x1.ab105ap-11f) * z + 0x1.54df1ap-8f) * z - 0x1.b810e8p-6f) * z
                      + 0x1.ce2e24p-4f) * z - 0x1.812744p-2f) * z + 0x1.20dd76p+0f;
    const float q = ((((((-0x1.5ecddcp-16f * c + 0x1.c54d74p-12f) * c - 0x1.10aa1p-8f) * c + 0x1.9b195ep-6f) * c
                       - 0x1.bb5654p-4f) * c - 0x1.444b42p-1f) * c - 0x1.212698p+0f) * c + 0x1.65ac6cp-13f;
    const float far = 1.0f - near_exp_f32(q);
    return a >= 0.92f ? __builtin_copysignf(far, x) : x * p;
}

static inline double log_f64(double x) { return __builtin_log(x); }

static inline double exp_f64(double x) { return __builtin_exp(x); }

static inline double sigmoid_f64(double x) {
    const double e = __builtin_exp(-__builtin_fabs(x));
    return (x >= 0.0 || x != x ? 1.0 : e) / (1.0 + e);
}

static inline float min_f32(float a, float b) { return a < b || a != a ? a : b; }

static inline float max_f32(float a, float b) { return a > b || a != a ? a : b; }

static inline double min_f64(double a, double b) { return a < b || a != a ? a : b; }

static inline double max_f64(double a, double b) { return a > b || a != a ? a : b; }

static inline float sign_f32(float x) { return x != x ? x : (float)((x > 0.0f) - (x < 0.0f)); }

static inline double sign_f64(double x) { return x != x ? x : (double)((x > 0.0) - (x < 0.0)); }

static inline float floormod_f32(float a, float b) {
    const float r = __builtin_fmodf(a, b);
    return r != 0.0f && (r < 0.0f) != (b < 0.0f) ? r + b : r == 0.0f ? __builtin_copysignf(0.0f, b) : r;
}

static inline double floormod_f64(double a, double b) {
    const double r = __builtin_fmod(a, b);
    return r != 0.0 && (r < 0.0) != (b < 0.0) ? r + b : r == 0.0 ? __builtin_copysign(0.0, b) : r;
}

/* Integer division never traps: by zero it gives 0, and the least integer by -1 wraps. */
static inline int64_t div_i64(int64_t a, int64_t b) { return b == 0 ? 0 : b == -1 ? (int64_t)(0 - (uint64_t)a) : a / b; }

static inline int32_t div_i32(int32_t a, int32_t b) { return b == 0 ? 0 : b == -1 ? (int32_t)(0 - (uint32_t)a) : a / b; }

static inline uint64_t div_u64(uint64_t a, uint64_t b) { return b == 0 ? 0 : a / b; }

static inline uint32_t div_u32(uint32_t a, uint32_t b) { return b == 0 ? 0 : a / b; }

static inline int64_t fmod_i64(int64_t a, int64_t b) { return b == 0 || b == -1 ? 0 : a % b; }

static inline int32_t fmod_i32(int32_t a, int32_t b) { return b == 0 || b == -1 ? 0 : a % b; }

static inline uint64_t fmod_u64(uint64_t a, uint64_t b) { return b == 0 ? 0 : a % b; }

static inline uint32_t fmod_u32(uint32_t a, uint32_t b) { return b == 0 ? 0 : a % b; }

static inline int64_t floormod_i64(int64_t a, int64_t b) {
    const int64_t r = fmod_i64(a, b);
    return r != 0 && (r ^ b) < 0 ? r + b : r;
}

static inline int64_t floordiv_i64(int64_t a, int64_t b) {
    return div_i64(a, b) - (fmod_i64(a, b) != 0 && (a ^ b) < 0);
}

static inline int32_t floormod_i32(int32_t a, int32_t b) {
    const int32_t r = fmod_i32(a, b);
    return r != 0 && (r ^ b) < 0 ? r + b : r;
}

static inline int32_t floordiv_i32(int32_t a, int32_t b) {
    return div_i32(a, b) - (fmod_i32(a, b) != 0 && (a ^ b) < 0);
}

static inline uint64_t pow_u64(uint64_t a, uint64_t n) {
    uint64_t r = 1;
    for (; n; n >>= 1, a *= a)
        if (n & 1) r *= a;
    return r;
}

/* A negative power truncates to 0, but for 1 and -1. */
static inline int64_t pow_i64(int64_t a, int64_t n) {
    if (n >= 0) return (int64_t)pow_u64((uint64_t)a, (uint64_t)n);
    return a == 1 ? 1 : a == -1 ? (n & 1 ? -1 : 1) : 0;
}

/* Casts of floats to integers truncate; NaN and what is too low give the least value, what is too high the greatest. */
static inline int32_t i32_of_f32(float x) {
    const float c = x > -0x1p31f ? x : -0x1p31f, d = c < 0x1.fffffep30f ? c : 0x1.fffffep30f;
    return x >= 0x1p31f ? INT32_MAX : (int32_t)d;
}

static inline int32_t i32_of_f64(double x) {
    const double c = x > -0x1p31 ? x : -0x1p31, d = c < 2147483647.0 ? c : 2147483647.0;
    return (int32_t)d;
}

static inline int64_t i64_of_f32(float x) {
    const float c = x > -0x1p63f ? x : -0x1p63f, d = c < 0x1.fffffep62f ? c : 0x1.fffffep62f;
    return x >= 0x1p63f ? INT64_MAX : (int64_t)d;
}

static inline int64_t i64_of_f64(double x) {
    const double c = x > -0x1p63 ? x : -0x1p63, d = c < 0x1.fffffffffffffp62 ? c : 0x1.fffffffffffffp62;
    return x >= 0x1p63 ? INT64_MAX : (int64_t)d;
}

static inline uint64_t u64_of_f64(double x) {
    return x >= 0x1p63 ? (uint64_t)i64_of_f64(x - 0x1p63) + 0x8000000000000000u : (uint64_t)i64_of_f64(x);
}
