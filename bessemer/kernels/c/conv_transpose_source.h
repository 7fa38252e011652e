/* x [batch, depth, height, width, channels] of a transposed convolution. Outputs are cut into phases, one per residue of
   their coordinates by the strides: within a phase every output gathers the same taps. A group of the product is
   (phase, channel group), its rows the phase's outputs, as if all phases were as large as the first. */
static const float zero_row[ZERO_ROW];

struct source {
    const float *x, *panels;
    int64_t channels, groups;
    int64_t in[3], out[3], kernel[3], stride[3], dilation[3], pad[3];
    int64_t size[3]; /* of a phase */
};

static struct source read_source(void *const *p, const int64_t *d) {
    struct source s = {.x = p[0], .panels = p[1], .channels = d[0], .groups = d[19]};
    for (int i = 0; i < 3; i++) {
        s.in[i] = d[1 + i], s.out[i] = d[4 + i], s.kernel[i] = d[7 + i];
        s.stride[i] = d[10 + i], s.dilation[i] = d[13 + i], s.pad[i] = d[16 + i];
        s.size[i] = (s.out[i] + s.stride[i] - 1) / s.stride[i];
    }
    return s;
}

/* The group's residues. */
static void phase_of(const struct source *src, int64_t group, int64_t phase[3]) {
    int64_t at = group / src->groups;
    for (int i = 2; i >= 0; i--) phase[i] = at % src->stride[i], at /= src->stride[i];
}

/* Taps of dim `i` that reach the phase: how many, and from which input each reads for the phase's first output. */
static int64_t reaching(const struct source *src, int i, int64_t phase, int64_t from[MAX_KERNEL]) {
    int64_t count = 0;
    for (int64_t k = 0; k < src->kernel[i]; k++) {
        const int64_t at = phase + src->pad[i] - k * src->dilation[i];
        if (at % src->stride[i] == 0) from[count++] = at / src->stride[i];
    }
    return count;
}

static int64_t source_taps(const struct source *src, const struct product *s, int64_t group) {
    int64_t phase[3], from[MAX_KERNEL], taps = 1;
    (void)s;
    phase_of(src, group, phase);
    for (int i = 0; i < 3; i++) taps *= reaching(src, i, phase[i], from);
    return taps > 0 ? taps : 1; /* a phase without taps multiplies by the zeros that its panels hold */
}

/* Coordinates of phase row `row`: image, then three output coordinates within the phase. */
static void coordinates(const struct source *src, int64_t row, int64_t q[4]) {
    for (int i = 2; i >= 0; i--) q[i + 1] = row % src->size[i], row /= src->size[i];
    q[0] = row;
}

static void source_rows(const struct source *src, const struct product *s, int64_t group, int64_t tile0, int64_t tile1,
                        int64_t thread, const float **rows) {
    int64_t phase[3], from[3][MAX_KERNEL], count[3], q[4];
    const float *x = src->x + group % src->groups * s->depth;
    (void)thread;
    phase_of(src, group, phase);
    for (int i = 0; i < 3; i++) count[i] = reaching(src, i, phase[i], from[i]);
    for (int64_t tile = tile0; tile < tile1; tile++, rows += s->taps * TILE_ROWS) {
        const int64_t row0 = part(s->rows, s->row_tiles, tile), row1 = part(s->rows, s->row_tiles, tile + 1);
        for (int64_t row = row0; row < row1; row++) {
            const float **to = rows + (row - row0);
            *to = zero_row;
            coordinates(src, row, q);
            for (int64_t a = 0; a < count[0]; a++)
                for (int64_t b = 0; b < count[1]; b++)
                    for (int64_t c = 0; c < count[2]; c++, to += TILE_ROWS) {
                        const int64_t id = q[1] + from[0][a], ih = q[2] + from[1][b], iw = q[3] + from[2][c];
                        const int inside = (uint64_t)id < (uint64_t)src->in[0] && (uint64_t)ih < (uint64_t)src->in[1] &&
                                           (uint64_t)iw < (uint64_t)src->in[2];
                        *to = zero_row;
                        if (inside)
                            *to = x + (((q[0] * src->in[0] + id) * src->in[1] + ih) * src->in[2] + iw) * src->channels;
                    }
        }
    }
}

static const float *source_panel(const struct source *src, const struct product *s, int64_t group, int64_t panel,
                                 int64_t thread) {
    (void)thread;
    const int64_t vectors = (s->cols + VL - 1) / VL;
    return src->panels + s->taps * s->depth * VL * (group * vectors + part(vectors, s->panels, panel));
}

static int64_t source_out_row(const struct source *src, const struct product *s, int64_t group, int64_t row) {
    (void)src, (void)s, (void)group, (void)row;
    return -1;
}

static int64_t source_out_col(const struct source *src, const struct product *s, int64_t group, int64_t col) {
    return group % src->groups * s->cols + col;
}

static void source_store(const struct source *src, const struct product *s, int64_t group, int64_t row0, int64_t row1,
                         int64_t col, int64_t n, const float *acc, int64_t step, void *const *p, const int64_t *d) {
    int64_t phase[3], q[4];
    phase_of(src, group, phase);
    for (int64_t r = row0; r < row1; r++, acc += step) {
        int inside = 1;
        coordinates(src, r, q);
        int64_t at = q[0];
        for (int i = 0; i < 3; i++) {
            const int64_t o = q[i + 1] * src->stride[i] + phase[i];
            inside &= o < src->out[i];
            at = at * src->out[i] + o;
        }
        if (inside) store_row(p, d, at, source_out_col(src, s, group, col), n, acc);
    }
}
