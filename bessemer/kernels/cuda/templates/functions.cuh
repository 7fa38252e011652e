/* Scalar functions as the GPU has them; those that are not here are kernels/c/functions.h's. Plain names stay within 3
   units in the last place, `*_16` serve values that are stored in 16 bits (relative error below 1e-5). The text takes
   what a kernel calls; a blank line ends a definition. */

static inline float f32_of_bits(uint32_t u) { return __uint_as_float(u); }

static inline uint32_t bits_of_f32(float x) { return __float_as_uint(x); }

static inline float f32_of_bf16(uint16_t h) { return __uint_as_float((uint32_t)h << 16); }

static inline uint16_t bf16_of_f32(float x) {
    uint16_t h;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(h) : "f"(x));
    return h;
}

static inline float f32_of_f16(uint16_t h) {
    float x;
    asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"(h));
    return x;
}

static inline uint16_t f16_of_f32(float x) {
    uint16_t h;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(h) : "f"(x));
    return h;
}

static inline uint16_t f16_of_f64(double x) {
    uint16_t h;
    asm("cvt.rn.f16.f64 %0, %1;" : "=h"(h) : "d"(x));
    return h;
}

static inline float min_f32(float a, float b) {
    float r;
    asm("min.NaN.f32 %0, %1, %2;" : "=f"(r) : "f"(a), "f"(b));
    return r;
}

static inline float max_f32(float a, float b) {
    float r;
    asm("max.NaN.f32 %0, %1, %2;" : "=f"(r) : "f"(a), "f"(b));
    return r;
}

static inline float exp_f32(float x) { return expf(x); }

static inline float exp_16(float x) { return __expf(x); }

/* 2^x, zero where that is no normal number. Volatile, so that it is no reason for a branch around it. */
static inline float exp2_16(float x) {
    float r;
    asm volatile("ex2.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x));
    return r;
}

static inline float reciprocal_16(float x) {
    float r;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x));
    return r;
}

static inline float rsqrt_16(float x) {
    float r;
    asm("rsqrt.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x));
    return r;
}

static inline float expm1_f32(float x) { return expm1f(x); }

static inline float log_f32(float x) { return logf(x); }

static inline float log1p_f32(float x) { return log1pf(x); }

static inline float erf_f32(float x) { return erff(x); }

/* x P(x^2) near zero, else 1 - e^Q(|x|): Q is a fit of log(erfc). */
static inline float erf_16(float x) {
    const float a = fabsf(x), z = x * x, c = a > 4.0f ? 4.0f : a;
    float p = fmaf(z, -2.228878811e-02f, 1.114926115e-01f);
    p = fmaf(z, p, -3.759976923e-01f);
    p = fmaf(z, p, 1.128377199e+00f);
    float q = fmaf(c, 7.906073704e-03f, -7.317077368e-02f);
    q = fmaf(c, q, -6.707255840e-01f);
    q = fmaf(c, q, -1.109620571e+00f);
    q = fmaf(c, q, -3.999175970e-03f);
    const float far = 1.0f - exp2_16(q * 1.442695041e+00f);
    return a < 0.7f ? x * p : copysignf(far, x);
}

/* x (1 + erf(x / sqrt(2))) / 2 = max(x, 0) - |x| H(|x|), where H(a) = erfc(a / sqrt(2)) / 2 is 2^Q(a). */
static inline float gelu_16(float x) {
    const float c = min_f32(fabsf(x), 6.0f);
    float q = fmaf(c, 3.471550599e-05f, -7.764994742e-04f);
    q = fmaf(c, q, 8.072043334e-03f);
    q = fmaf(c, q, -5.332788724e-02f);
    q = fmaf(c, q, -4.589043037e-01f);
    q = fmaf(c, q, -1.151131361e+00f);
    q = fmaf(c, q, -1.000002266e+00f);
    return fmaf(-c, exp2_16(q), max_f32(x, 0.0f));
}

static inline float tanh_f32(float x) { return tanhf(x); }

/* An odd polynomial near zero, where 1 - 2 / (e^2x + 1) would lose its digits. */
static inline float tanh_16(float x) {
    const float a = fabsf(x), s = x * x;
    float p = fmaf(s, -5.704042525e-03f, 2.063786149e-02f);
    p = fmaf(s, p, -5.373915650e-02f);
    p = fmaf(s, p, 1.333143175e-01f);
    p = fmaf(s, p, -3.333333128e-01f);
    const float near = fmaf(x * s, p, x), far = fmaf(-2.0f, reciprocal_16(exp2_16(a * 2.885390082e+00f) + 1.0f), 1.0f);
    return a < 0.625f ? near : copysignf(far, x);
}

/* The form whose power does not overflow. */
static inline float sigmoid_f32(float x) {
    const float e = expf(-fabsf(x));
    return (x < 0.0f ? e : 1.0f) / (1.0f + e);
}

static inline float sigmoid_16(float x) { return reciprocal_16(1.0f + exp2_16(x * -1.442695041e+00f)); }
