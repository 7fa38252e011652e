#ifndef BSM_VF
#define BSM_VF
/* 4 lanes of float in portable C (the vector extension of gcc and clang): any CPU.
   vf_mask(n): the first n lanes, n clipped to 0..4. */
typedef float vf __attribute__((vector_size(16)));
typedef int64_t vmask;
enum { VL = 4 };
static inline vf vf_set(float s) { return (vf){s, s, s, s}; }
static inline vf vf_zero(void) { return vf_set(0.0f); }
static inline vf vf_load(const float *p) { vf v; __builtin_memcpy(&v, p, sizeof v); return v; }
static inline void vf_store(float *p, vf v) { __builtin_memcpy(p, &v, sizeof v); }
#define vf_fma(a, b, c) ((a) * (b) + (c))
#define vf_add(a, b) ((a) + (b))
#define vf_sub(a, b) ((a) - (b))
#define vf_mul(a, b) ((a) * (b))
#define vf_div(a, b) ((a) / (b))
/* As on x86: the second operand where either is NaN. */
static inline vf vf_pick(vf a, vf b, int32_t __attribute__((vector_size(16))) c) {
    typedef int32_t vi __attribute__((vector_size(16)));
    return (vf)(((vi)a & c) | ((vi)b & ~c));
}
#define vf_min(a, b) vf_pick(a, b, (a) < (b))
#define vf_max(a, b) vf_pick(a, b, (a) > (b))
static inline vmask vf_mask(int64_t n) { return n >= VL ? VL : n > 0 ? n : 0; }
static inline vf vf_loadm(const float *p, vmask n) {
    vf v = vf_zero();
    for (int64_t i = 0; i < n; i++) v[i] = p[i];
    return v;
}
static inline void vf_storem(float *p, vmask n, vf v) {
    for (int64_t i = 0; i < n; i++) p[i] = v[i];
}
/* to[j][i] = from[i][j], 4 x 4. */
static inline void vf_transpose(const float *from, int64_t from_step, float *to, int64_t to_step) {
    for (int i = 0; i < VL; i++)
        for (int j = 0; j < VL; j++) to[j * to_step + i] = from[i * from_step + j];
}
#endif
