/* softmax(scale Q K^T + mask) V, ROWS queries at a time: all their scores at once, so that the softmax is the plain one.

   The keys of a head are transposed once per work item, so that scores are vectors along the keys; V is read in place
   (KV_FLOAT) or converted. Scratch of a thread: keys [D][TP], values [T][DV] (unless in place), queries [ROWS][D], scores
   [ROWS][TP], results [ROWS][DVP]. */
#define UNROLL _Pragma("GCC unroll 16")
#define INLINE static inline __attribute__((always_inline))
enum { ROWS = 6 };

struct shape {
    int64_t s, t, heads, d, dv, tp, dvp;
    int64_t q_batch, q_head, q_row; /* elements between batches, heads and rows of q */
    int64_t k_batch, k_head, k_row, v_batch, v_head, v_row;
    int64_t m_batch, m_head, m_row;
    int64_t o_batch, o_head, o_row; /* rows of the output */
    int64_t repeat, blocks, block, scratch;
};

/* c[rows][vecs] = sum over k of a[row][k] b[k][vecs]; the last vector is `last` lanes wide. */
INLINE void tile(const int rows, const int vecs, const float *a, int64_t a_step, const float *b, int64_t b_step,
                 int64_t depth, float *c, int64_t c_step, int64_t last) {
    vf acc[ROWS][VECS];
    const vmask m = vf_mask(last);
    UNROLL for (int i = 0; i < rows; i++)
        UNROLL for (int j = 0; j < vecs; j++) acc[i][j] = vf_zero();
    for (int64_t k = 0; k < depth; k++, b += b_step) {
        vf col[VECS];
        UNROLL for (int j = 0; j < vecs; j++)
            col[j] = j + 1 < vecs || last == VL ? vf_load(b + j * VL) : vf_loadm(b + j * VL, m);
        UNROLL for (int i = 0; i < rows; i++) {
            const vf s = vf_set(a[i * a_step + k]);
            UNROLL for (int j = 0; j < vecs; j++) acc[i][j] = vf_fma(s, col[j], acc[i][j]);
        }
    }
    UNROLL for (int i = 0; i < rows; i++)
        UNROLL for (int j = 0; j < vecs; j++) vf_store(c + i * c_step + j * VL, acc[i][j]);
}

/* c[rows][cols] = a b, c padded to whole vectors. */
INLINE void product_of(const int rows, const float *a, int64_t a_step, const float *b, int64_t b_step, int64_t depth,
                       float *c, int64_t c_step, int64_t cols) {
    int64_t j = 0;
    for (; j + VECS * VL <= cols; j += VECS * VL)
        tile(rows, VECS, a, a_step, b + j, b_step, depth, c + j, c_step, VL);
    for (; j + VL <= cols; j += VL) tile(rows, 1, a, a_step, b + j, b_step, depth, c + j, c_step, VL);
    if (j < cols) tile(rows, 1, a, a_step, b + j, b_step, depth, c + j, c_step, cols - j);
}

static void product(int64_t rows, const float *a, int64_t a_step, const float *b, int64_t b_step, int64_t depth,
                    float *c, int64_t c_step, int64_t cols) {
    switch (rows) {
    case 6: product_of(6, a, a_step, b, b_step, depth, c, c_step, cols); return;
    case 5: product_of(5, a, a_step, b, b_step, depth, c, c_step, cols); return;
    case 4: product_of(4, a, a_step, b, b_step, depth, c, c_step, cols); return;
    case 3: product_of(3, a, a_step, b, b_step, depth, c, c_step, cols); return;
    case 2: product_of(2, a, a_step, b, b_step, depth, c, c_step, cols); return;
    case 1: product_of(1, a, a_step, b, b_step, depth, c, c_step, cols); return;
    }
}

/* Few queries do not pay for transposed keys: one dot product for each key. */
static void scores_by_dots(int64_t rows, const float *q, int64_t d, const KV_T *k, int64_t k_row, int64_t t, float *c,
                           int64_t c_step) {
    for (int64_t j = 0; j < t; j++) {
        const KV_T *x = k + j * k_row;
        for (int64_t r = 0; r < rows; r++) {
            float lane[16] = {0};
            int64_t i = 0;
            for (; i + 16 <= d; i += 16)
                for (int l = 0; l < 16; l++) lane[l] += q[r * d + i + l] * READ_KV(x[i + l]);
            for (int l = 0; i + l < d; l++) lane[l] += q[r * d + i + l] * READ_KV(x[i + l]);
            for (int w = 8; w; w /= 2)
                for (int l = 0; l < w; l++) lane[l] += lane[l + w];
            c[r * c_step + j] = lane[0];
        }
    }
}

/* keys [D][TP], zero past key T. */
static void transpose_keys(const struct shape *g, const KV_T *k, float *to) {
    for (int64_t i = 0; i < g->d; i++)
        for (int64_t j = g->t; j < g->tp; j++) to[i * g->tp + j] = 0.0f;
#if KV_FLOAT
    transpose_4(k, g->k_row, g->t, g->d, to, g->tp);
#else
    for (int64_t j = 0; j < g->t; j++)
        for (int64_t i = 0; i < g->d; i++) to[i * g->tp + j] = READ_KV(k[j * g->k_row + i]);
#endif
}

/* exp of a row of scores, unnormalised; gives 1 / their sum, and 0 where all keys are hidden. */
static float soften(float *c, int64_t t, const MASK_T *mask) {
#if HAS_MASK
    for (int64_t j = 0; j < t; j++) c[j] = MASKED(c[j], mask[j * MASK_STEP]);
#else
    (void)mask;
#endif
    const float top = top_of_f32(c, t);
    const float sum = weights_of_f32(c, c, t, top == -__builtin_inff() ? 0.0f : top);
    return sum == 0.0f ? 0.0f : 1.0f / sum;
}

static void some_rows(const struct shape *g, int64_t batch, int64_t head, int64_t row, int64_t rows, const Q_T *q,
                      const KV_T *k, const KV_T *v, const MASK_T *mask, float scale, float *keys, float *values,
                      int few, void *const *p, const int64_t *d) {
    float *own = values + VALUES_FLOATS, *c = own + ROWS * g->d, *out = c + ROWS * g->tp;
    for (int64_t r = 0; r < rows; r++)
        for (int64_t i = 0; i < g->d; i++) own[r * g->d + i] = READ_Q(q[(row + r) * g->q_row + i]) * scale;
    int64_t seen = g->t;
    if (CAUSAL) seen = row + rows + g->t - g->s < g->t ? row + rows + g->t - g->s : g->t;
    seen = seen > 0 ? seen : 0;
    if (few)
        scores_by_dots(rows, own, g->d, k, g->k_row, seen, c, g->tp);
    else
        product(rows, own, g->d, keys, g->tp, g->d, c, g->tp, (seen + VL - 1) / VL * VL);
    float scales[ROWS];
    for (int64_t r = 0; r < rows; r++) {
        int64_t n = seen;
        if (CAUSAL) n = row + r + 1 + g->t - g->s < seen ? row + r + 1 + g->t - g->s : seen;
        n = n > 0 ? n : 0;
        scales[r] = soften(c + r * g->tp, n, mask + (row + r) * g->m_row);
        for (int64_t j = n; j < seen; j++) c[r * g->tp + j] = 0.0f;
    }
#if KV_FLOAT
    product(rows, c, g->tp, v, g->v_row, seen, out, g->dvp, g->dv);
#else
    product(rows, c, g->tp, values, g->dv, seen, out, g->dvp, g->dv);
#endif
    for (int64_t r = 0; r < rows; r++) {
        for (int64_t i = 0; i < g->dv; i++) out[r * g->dvp + i] *= scales[r];
        store_row(p, d, batch * g->o_batch + head * g->o_head + (row + r) * g->o_row, 0, g->dv, out + r * g->dvp);
    }
}

void attention(void *const *p, const int64_t *d, int64_t begin, int64_t end, int64_t thread) {
    struct shape g;
    __builtin_memcpy(&g, d, sizeof g);
    float scale;
    __builtin_memcpy(&scale, &d[SHAPE_FIELDS], sizeof scale);
    float *keys = (float *)p[4] + thread * g.scratch, *values = keys + g.d * g.tp;
    for (int64_t u = begin; u < end; u++) {
        const int64_t batch = u / g.blocks / g.heads, head = u / g.blocks % g.heads, block = u % g.blocks;
        const int64_t row0 = block * g.block, row1 = row0 + g.block < g.s ? row0 + g.block : g.s;
        const Q_T *q = (const Q_T *)p[0] + batch * g.q_batch + head * g.q_head;
        const KV_T *k = (const KV_T *)p[1] + batch * g.k_batch + head / g.repeat * g.k_head;
        const KV_T *v = (const KV_T *)p[2] + batch * g.v_batch + head / g.repeat * g.v_head;
        const MASK_T *mask = (const MASK_T *)p[3] + batch * g.m_batch + head * g.m_head;
        const int few = row1 - row0 < 4;
        if (!few) transpose_keys(&g, k, keys);
#if !KV_FLOAT
        for (int64_t j = 0; j < g.t; j++)
            for (int64_t i = 0; i < g.dv; i++) values[j * g.dv + i] = READ_KV(v[j * g.v_row + i]);
#endif
        for (int64_t row = row0; row < row1; row += ROWS)
            some_rows(&g, batch, head, row, row1 - row < ROWS ? row1 - row : ROWS, q, k, v, mask, scale, keys, values,
                      few, p, d);
    }
}
