#ifndef BSM_VF
#define BSM_VF
#include <immintrin.h>
/* 8 lanes of float. vf_mask(n): the first n lanes, n clipped to 0..8. */
typedef __m256 vf;
typedef __m256i vmask;
enum { VL = 8 };
#define vf_zero() _mm256_setzero_ps()
#define vf_set(s) _mm256_set1_ps(s)
#define vf_load(p) _mm256_loadu_ps(p)
#define vf_store(p, v) _mm256_storeu_ps(p, v)
#define vf_fma(a, b, c) _mm256_fmadd_ps(a, b, c)
#define vf_add(a, b) _mm256_add_ps(a, b)
#define vf_sub(a, b) _mm256_sub_ps(a, b)
#define vf_mul(a, b) _mm256_mul_ps(a, b)
#define vf_div(a, b) _mm256_div_ps(a, b)
#define vf_min(a, b) _mm256_min_ps(a, b)
#define vf_max(a, b) _mm256_max_ps(a, b)
static inline vmask vf_mask(int64_t n) {
    const int32_t k = n >= VL ? VL : n > 0 ? (int32_t)n : 0;
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(k), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
#define vf_loadm(p, m) _mm256_maskload_ps(p, m)
#define vf_storem(p, m, v) _mm256_maskstore_ps(p, m, v)
#endif
