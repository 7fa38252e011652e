#define STORES_TILES 1
INLINE vf epilogue(vf acc@PARAMETERS@) {
@LINES@    return @RESULT@;
}

static inline void store_row(void *const *p, const int64_t *d, int64_t row, int64_t col, int64_t n,
                             const float *restrict acc) {
    const int64_t at = row * d[@COLS@] + col@START@;
    float *restrict out = (float *)p[@OUT@] + at;
@POINTERS@    int64_t j = 0;
    for (; j + VL <= n; j += VL) vf_store(out + j, epilogue(vf_load(acc + j)@ROW_WHOLE@));
    if (j < n) {
        const vmask m = vf_mask(n - j);
        vf_storem(out + j, m, epilogue(vf_load(acc + j)@ROW_TAIL@));
    }
}

/* Every vector of the tile but the last of a row is whole. */
INLINE void store_tile(const struct tile_out *to, const int rows, const int vecs, vf acc[TILE_ROWS][TILE_VECS]) {
    void *const *p = to->p;
    const int64_t *d = to->d, row = to->row, col = to->col, step = d[@COLS@], at = row * step + col@START@;
    const int whole = to->n == vecs * VL ? vecs : vecs - 1;
    float *restrict out = (float *)p[@OUT@] + at;
@POINTERS@    UNROLL for (int j = 0; j < vecs; j++)
        if (j < whole) {
            UNROLL for (int i = 0; i < rows; i++)
                vf_store(out + i * step + j * VL, epilogue(acc[i][j]@TILE_WHOLE@));
        } else {
            const vmask m = vf_mask(to->n - j * VL);
            UNROLL for (int i = 0; i < rows; i++)
                vf_storem(out + i * step + j * VL, m, epilogue(acc[i][j]@TILE_TAIL@));
        }
}
