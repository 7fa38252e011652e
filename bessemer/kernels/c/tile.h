/* Register-tiled products on packed panels. TILE_ROWS x TILE_VECS bound the tile; every count below is at most those.

   A is read through row pointers, one per tile row and tap, so that a convolution needs no im2col; B is a packed
   panel, [taps * depth][vecs * VL]. With `out` the result goes from the registers to
   the output (`store_tile`), else to c. */

/* c[rows][vecs] (+)= sum over taps and k of a[tap][row][from + k] * b[tap][k][vecs]; c is read unless `first`. */
INLINE void tile_product(const int rows, const int vecs, const float *const *a, int64_t taps, int64_t from,
                         int64_t depth, const float *b, int64_t tap_step, float *c, int first,
                         const struct tile_out *out, const char *ahead, int64_t ahead_step) {
    vf acc[TILE_ROWS][TILE_VECS];
    UNROLL for (int i = 0; i < rows; i++)
        UNROLL for (int j = 0; j < vecs; j++) acc[i][j] = first ? vf_zero() : vf_load(c + (i * vecs + j) * VL);
    for (int64_t t = 0; t < taps; t++, a += TILE_ROWS, b += tap_step) {
        const float *row[TILE_ROWS], *bk = b;
        UNROLL for (int i = 0; i < rows; i++) row[i] = a[i] + from;
        for (int64_t k = 0; k < depth; k++, bk += vecs * VL) {
            vf col[TILE_VECS];
            __builtin_prefetch(ahead, 0, 2);
            ahead += ahead_step;
            UNROLL for (int j = 0; j < vecs; j++) col[j] = vf_load(bk + j * VL);
            UNROLL for (int i = 0; i < rows; i++) {
                const vf s = vf_set(row[i][k]);
                UNROLL for (int j = 0; j < vecs; j++) acc[i][j] = vf_fma(s, col[j], acc[i][j]);
            }
        }
    }
    if (STORES_TILES && out) {
        store_tile(out, rows, vecs, acc);
        return;
    }
    UNROLL for (int i = 0; i < rows; i++)
        UNROLL for (int j = 0; j < vecs; j++) vf_store(c + (i * vecs + j) * VL, acc[i][j]);
}

typedef void tile_fn(const float *const *, int64_t, int64_t, int64_t, const float *, int64_t, float *, int,
                     const struct tile_out *, const char *, int64_t);
#define TILE(ROWS, VECS)                                                                                          \
    static __attribute__((noinline)) void tile_##ROWS##_##VECS(const float *const *a, int64_t taps, int64_t from, \
                                                               int64_t depth, const float *b, int64_t tap_step,   \
                                                               float *c, int first, const struct tile_out *out,   \
                                                               const char *ahead, int64_t ahead_step) {           \
        tile_product(ROWS, VECS, a, taps, from, depth, b, tap_step, c, first, out, ahead, ahead_step);            \
    }
