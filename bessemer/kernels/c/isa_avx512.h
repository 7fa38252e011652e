#ifndef BSM_VF
#define BSM_VF
#include <immintrin.h>
/* 16 lanes of float. vf_mask(n): the first n lanes, n clipped to 0..16. */
typedef __m512 vf;
typedef __mmask16 vmask;
enum { VL = 16 };
#define vf_zero() _mm512_setzero_ps()
#define vf_set(s) _mm512_set1_ps(s)
#define vf_load(p) _mm512_loadu_ps(p)
#define vf_store(p, v) _mm512_storeu_ps(p, v)
#define vf_fma(a, b, c) _mm512_fmadd_ps(a, b, c)
#define vf_add(a, b) _mm512_add_ps(a, b)
#define vf_sub(a, b) _mm512_sub_ps(a, b)
#define vf_mul(a, b) _mm512_mul_ps(a, b)
#define vf_div(a, b) _mm512_div_ps(a, b)
#define vf_min(a, b) _mm512_min_ps(a, b)
#define vf_max(a, b) _mm512_max_ps(a, b)
static inline vmask vf_mask(int64_t n) { return n >= VL ? 0xffff : n > 0 ? (vmask)((1u << n) - 1) : 0; }
#define vf_loadm(p, m) _mm512_maskz_loadu_ps(m, p)
#define vf_storem(p, m, v) _mm512_mask_storeu_ps(p, m, v)
#endif
