/* F(4x4, 3x3): 36 products of [tiles, channels] by [channels, outputs] make 4x4 outputs from 6x6 inputs, with the points
   0, +-P, +-Q and infinity. Multiples of 3/4 are exact in f32, and lose the fewest bits of those that are.

   A work item is a block of tiles and a block of panels. It transforms its inputs into `v` [36][tiles][channels rounded
   up to VL], and then for each panel multiplies into `m` [36][tiles][panel] and transforms that into the output. */
#define POINTS 36
#define P 0.75f
#define Q 1.5f
#define SUM (P * P + Q * Q)
#define PRODUCT (P * P * Q * Q)
#define GAP 16 /* floats between the 36 parts of v and of m, so that they fall into different cache sets */

static const float zero_row[ZERO_ROW];

struct sizes {
    int64_t channels, outputs, height, width, out_height, out_width, pad_h, pad_w;
    int64_t tiles, tile_block, panels, panel_block;
};

/* to[0..6] = B^T from[0..6] */
INLINE void transform_input(const vf *from, const int step, vf *to) {
    const vf d0 = from[0], d1 = from[step], d2 = from[2 * step], d3 = from[3 * step], d4 = from[4 * step];
    const vf p_even = vf_fma(vf_set(-Q * Q), d2, d4), p_odd = vf_mul(vf_set(P), vf_fma(vf_set(-Q * Q), d1, d3));
    const vf q_even = vf_fma(vf_set(-P * P), d2, d4), q_odd = vf_mul(vf_set(Q), vf_fma(vf_set(-P * P), d1, d3));
    to[0] = vf_fma(vf_set(PRODUCT), d0, vf_fma(vf_set(-SUM), d2, d4));
    to[1] = vf_add(p_even, p_odd);
    to[2] = vf_sub(p_even, p_odd);
    to[3] = vf_add(q_even, q_odd);
    to[4] = vf_sub(q_even, q_odd);
    to[5] = vf_fma(vf_set(PRODUCT), d1, vf_fma(vf_set(-SUM), d3, from[5 * step]));
}

/* to[0..4] = A^T from[0..6] */
INLINE void transform_output(const vf *from, const int step, vf *to, const int to_step) {
    const vf p_even = vf_add(from[step], from[2 * step]), p_odd = vf_sub(from[step], from[2 * step]);
    const vf q_even = vf_add(from[3 * step], from[4 * step]), q_odd = vf_sub(from[3 * step], from[4 * step]);
    to[0] = vf_add(from[0], vf_add(p_even, q_even));
    to[to_step] = vf_fma(vf_set(P), p_odd, vf_mul(vf_set(Q), q_odd));
    to[2 * to_step] = vf_fma(vf_set(P * P), p_even, vf_mul(vf_set(Q * Q), q_even));
    to[3 * to_step] = vf_fma(vf_set(P * P * P), p_odd, vf_fma(vf_set(Q * Q * Q), q_odd, from[5 * step]));
}

/* Where tile `tile` lies: its image and the first of its outputs. */
static void locate(const struct sizes *s, int64_t tile, int64_t *image, int64_t *oh, int64_t *ow) {
    const int64_t across = (s->out_width + 3) / 4, down = (s->out_height + 3) / 4;
    *ow = tile % across * 4;
    *oh = tile / across % down * 4;
    *image = tile / across / down;
}

static void input_tile(const struct sizes *s, const float *x, int64_t tile, float *v, int64_t v_part) {
    const float *from[POINTS];
    int64_t image, oh, ow;
    locate(s, tile, &image, &oh, &ow);
    for (int i = 0; i < 6; i++)
        for (int j = 0; j < 6; j++) {
            const int64_t ih = oh - s->pad_h + i, iw = ow - s->pad_w + j;
            const int inside = (uint64_t)ih < (uint64_t)s->height && (uint64_t)iw < (uint64_t)s->width;
            from[6 * i + j] = inside ? x + ((image * s->height + ih) * s->width + iw) * s->channels : zero_row;
        }
    for (int64_t c = 0; c < s->channels; c += VL) {
        const vmask mask = vf_mask(s->channels - c);
        vf d[POINTS], t[POINTS];
        UNROLL for (int j = 0; j < 6; j++) {
            vf column[6];
            UNROLL for (int i = 0; i < 6; i++) column[i] = vf_loadm(from[6 * i + j] + c, mask);
            transform_input(column, 1, d + 6 * j);
        }
        UNROLL for (int i = 0; i < 6; i++) {
            transform_input(d + i, 6, t + 6 * i);
            UNROLL for (int j = 0; j < 6; j++) vf_store(v + (6 * i + j) * v_part + c, t[6 * i + j]);
        }
    }
}

/* Channels col..col+n (at most VL) of one tile; m is [36] vectors, `m_part` floats apart. */
static void output_tile(const struct sizes *s, int64_t tile, const float *m, int64_t m_part, void *const *p,
                        const int64_t *d, int64_t col, int64_t n) {
    vf t[24], y[4][TILE_ROWS][TILE_VECS];
    int64_t image, oh, ow;
    locate(s, tile, &image, &oh, &ow);
    UNROLL for (int j = 0; j < 6; j++) {
        vf column[6];
        UNROLL for (int i = 0; i < 6; i++) column[i] = vf_load(m + (6 * i + j) * m_part);
        transform_output(column, 1, t + j, 6);
    }
    const int64_t rows = smaller(4, s->out_height - oh), cols = smaller(4, s->out_width - ow);
    UNROLL for (int i = 0; i < 4; i++) {
        vf line[4];
        transform_output(t + 6 * i, 1, line, 1);
        UNROLL for (int j = 0; j < 4; j++) y[i][j][0] = line[j];
    }
    UNROLL for (int i = 0; i < 4; i++) {
        if (i >= rows) break;
        const int64_t row = (image * s->out_height + oh + i) * s->out_width + ow;
        struct tile_out out = {p, d, row, col, n};
        if (STORES_TILES && cols == 4) {
            store_tile(&out, 4, 1, y[i]);
            continue;
        }
        float acc[4 * VL] __attribute__((aligned(64)));
        UNROLL for (int j = 0; j < 4; j++) vf_store(acc + j * VL, y[i][j][0]);
        for (int64_t j = 0; j < cols; j++) store_row(p, d, row + j, col, n, acc + j * VL);
    }
}

static void block(const struct sizes *s, const float *x, const float *u, float *v, int64_t tile0, int64_t tile1,
                  int64_t panel0, int64_t panel1, void *const *p, const int64_t *d) {
    const int64_t depth = (s->channels + VL - 1) / VL * VL, vectors = (s->outputs + VL - 1) / VL;
    const int64_t tiles = tile1 - tile0, v_part = tiles * depth + GAP, pieces = (tiles + TILE_ROWS - 1) / TILE_ROWS;
    float *m = v + POINTS * v_part;
    for (int64_t i = 0; i < tiles; i++) input_tile(s, x, tile0 + i, v + i * depth, v_part);
    for (int64_t panel = panel0; panel < panel1; panel++) {
        const int64_t vec0 = part(vectors, s->panels, panel), vecs = part(vectors, s->panels, panel + 1) - vec0;
        const int64_t width = vecs * VL, m_part = tiles * width + GAP;
        const float *b = u + POINTS * s->channels * vec0 * VL;
        for (int k = 0; k < POINTS; k++, b += s->channels * width) {
            /* While the tiles multiply, they ask for the filters of the next part. */
            const int asks = pieces > 1 && k + 1 < POINTS;
            const char *ahead = (const char *)(asks ? b + s->channels * width : b);
            const int64_t ahead_step = asks ? smaller(64, width * 4 / pieces) : 0;
            for (int64_t i = 0; i < pieces; i++, ahead += ahead_step * s->channels) {
                const int64_t row0 = part(tiles, pieces, i), rows = part(tiles, pieces, i + 1) - row0;
                const float *a[TILE_ROWS];
                for (int64_t r = 0; r < rows; r++) a[r] = v + k * v_part + (row0 + r) * depth;
                TILES[rows][vecs](a, 1, 0, s->channels, b, 0, m + k * m_part + row0 * width, 1, 0,
                                  ahead, ahead_step);
            }
        }
        for (int64_t i = 0; i < tiles; i++)
            for (int64_t j = 0; j < vecs; j++) {
                const int64_t col = (vec0 + j) * VL;
                output_tile(s, tile0 + i, m + i * width + j * VL, m_part, p, d, col, smaller(VL, s->outputs - col));
            }
    }
}

void conv_winograd(void *const *p, const int64_t *d, int64_t begin, int64_t end, int64_t thread) {
    const struct sizes s = {d[0], d[1], d[2], d[3], d[4], d[5], d[6], d[7], d[8], d[9], d[10], d[11]};
    const int64_t row_blocks = (s.tiles + s.tile_block - 1) / s.tile_block;
    const int64_t col_blocks = (s.panels + s.panel_block - 1) / s.panel_block;
    float *scratch = (float *)p[2] + thread * d[12];
    for (int64_t item = begin; item < end; item++) {
        const int64_t i = item % row_blocks, j = item / row_blocks;
        block(&s, p[0], p[1], scratch, part(s.tiles, row_blocks, i), part(s.tiles, row_blocks, i + 1),
              part(s.panels, col_blocks, j), part(s.panels, col_blocks, j + 1), p, d);
    }
}
