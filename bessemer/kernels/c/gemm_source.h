/* A [batch, rows, depth] and B of a matrix product. BATCH_RANK dims of batch, each (size, step of A, step of B): steps
   count matrices, 0 where the operand broadcasts. A_TRANSPOSED and B_PACKED, B_TRANSPOSED say how they are stored. */
struct source {
    const float *a, *b;
    float *scratch;
    const int64_t *batch;
    int64_t b_matrix, scratch_floats;
};

static struct source read_source(void *const *p, const int64_t *d) {
    return (struct source){p[0], p[1], SCRATCH, d + 2, d[0], d[1]};
}

static int64_t matrix_of(const struct source *src, int64_t group, int which) {
    int64_t at = 0;
    for (int i = BATCH_RANK - 1; i >= 0; i--) {
        const int64_t *dim = src->batch + 3 * i;
        at += group % dim[0] * dim[which];
        group /= dim[0];
    }
    return at;
}

/* to[j][i] = from[i][j] for i < rows, j < cols. */
static inline void transpose(const float *from, int64_t from_step, int64_t rows, int64_t cols, float *to,
                             int64_t to_step) {
    int64_t i = 0;
    for (; i + VL <= rows; i += VL) {
        int64_t j = 0;
        for (; j + VL <= cols; j += VL)
            vf_transpose(from + i * from_step + j, from_step, to + j * to_step + i, to_step);
        for (; j < cols; j++)
            for (int64_t r = i; r < i + VL; r++) to[j * to_step + r] = from[r * from_step + j];
    }
    for (; i < rows; i++)
        for (int64_t j = 0; j < cols; j++) to[j * to_step + i] = from[i * from_step + j];
}

static void source_rows(const struct source *src, const struct product *s, int64_t group, int64_t tile0, int64_t tile1,
                        int64_t thread, const float **rows) {
    const float *a = src->a + matrix_of(src, group, 1) * s->rows * s->depth;
    const int64_t first = part(s->rows, s->row_tiles, tile0), last = part(s->rows, s->row_tiles, tile1);
    if (A_TRANSPOSED) {
        float *own = src->scratch + thread * src->scratch_floats;
        transpose(a + first, s->rows, s->depth, last - first, own, s->depth);
        a = own - first * s->depth;
    }
    for (int64_t i = tile0; i < tile1; i++, rows += TILE_ROWS) {
        const int64_t row = part(s->rows, s->row_tiles, i), end = part(s->rows, s->row_tiles, i + 1);
        for (int64_t r = row; r < end; r++) rows[r - row] = a + r * s->depth;
    }
}

static const float *source_panel(const struct source *src, const struct product *s, int64_t group, int64_t panel,
                                 int64_t thread) {
    const int64_t vectors = (s->cols + VL - 1) / VL, vec0 = part(vectors, s->panels, panel);
    const float *b = src->b + matrix_of(src, group, 2) * src->b_matrix;
    if (B_PACKED) return b + s->depth * vec0 * VL;
    const int64_t vecs = part(vectors, s->panels, panel + 1) - vec0, width = vecs * VL;
    const int64_t col = vec0 * VL, n = smaller(width, s->cols - col);
    float *own = src->scratch + (thread + 1) * src->scratch_floats - s->depth * TILE_VECS * VL;
    if (n < width)
        for (int64_t k = 0; k < s->depth; k++) vf_store(own + (k + 1) * width - VL, vf_zero());
    if (B_TRANSPOSED) {
        transpose(b + col * s->depth, s->depth, n, s->depth, own, width);
        return own;
    }
    const vmask tail = vf_mask(n - (vecs - 1) * VL);
    for (int64_t k = 0; k < s->depth; k++) {
        const float *from = b + k * s->cols + col;
        float *to = own + k * width;
        for (int64_t j = 0; j + 1 < vecs; j++) vf_store(to + j * VL, vf_load(from + j * VL));
        vf_store(to + width - VL, vf_loadm(from + width - VL, tail));
    }
    return own;
}

static int64_t source_taps(const struct source *src, const struct product *s, int64_t group) {
    (void)src, (void)group;
    return s->taps;
}

static int64_t source_out_row(const struct source *src, const struct product *s, int64_t group, int64_t row) {
    (void)src;
    return group * s->rows + row;
}

static int64_t source_out_col(const struct source *src, const struct product *s, int64_t group, int64_t col) {
    (void)src, (void)s, (void)group;
    return col;
}

static void source_store(const struct source *src, const struct product *s, int64_t group, int64_t row0, int64_t row1,
                         int64_t col, int64_t n, const float *acc, int64_t step, void *const *p, const int64_t *d) {
    for (int64_t r = row0; r < row1; r++, acc += step)
        store_row(p, d, source_out_row(src, s, group, r), source_out_col(src, s, group, col), n, acc);
}
