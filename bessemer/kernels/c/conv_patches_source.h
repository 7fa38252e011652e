/* A transposed convolution whose kernel is its stride: every pixel of x makes a patch of outputs of its own. Columns of
   the product are (phase, output channel), phases counting the patch. ACROSS is the stride of the width. LINES: the output has one channel, and is seen as
   [lines, width], so that the neighbours of a line are stored together. */
#define LINE 256

struct source {
    const float *x, *panels;
    int64_t channels, outputs;
    int64_t in[3], stride[3];
};

static struct source read_source(void *const *p, const int64_t *d) {
    return (struct source){p[0], p[1], d[0], d[1], {d[2], d[3], d[4]}, {d[5], d[6], d[7]}};
}

static void source_rows(const struct source *src, const struct product *s, int64_t group, int64_t tile0, int64_t tile1,
                        int64_t thread, const float **rows) {
    (void)group, (void)thread;
    for (int64_t i = tile0; i < tile1; i++, rows += TILE_ROWS) {
        const int64_t row0 = part(s->rows, s->row_tiles, i), row1 = part(s->rows, s->row_tiles, i + 1);
        for (int64_t r = row0; r < row1; r++) rows[r - row0] = src->x + r * src->channels;
    }
}

static const float *source_panel(const struct source *src, const struct product *s, int64_t group, int64_t panel,
                                 int64_t thread) {
    (void)group, (void)thread;
    return src->panels + s->depth * VL * part((s->cols + VL - 1) / VL, s->panels, panel);
}

static int64_t source_taps(const struct source *src, const struct product *s, int64_t group) {
    (void)src, (void)s, (void)group;
    return 1;
}

static int64_t source_out_row(const struct source *src, const struct product *s, int64_t group, int64_t row) {
    (void)src, (void)s, (void)group, (void)row;
    return -1;
}

static int64_t source_out_col(const struct source *src, const struct product *s, int64_t group, int64_t col) {
    (void)src, (void)s, (void)group;
    return col;
}

/* The output line (of all images) that pixel `row` of x and the depth and height of `phase` fall on. */
static int64_t line_of(const struct source *src, int64_t row, int64_t phase) {
    const int64_t ih = row / src->in[2] % src->in[1], plane = row / src->in[2] / src->in[1];
    const int64_t ph = phase / src->stride[2] % src->stride[1], pd = phase / src->stride[2] / src->stride[1];
    return (plane * src->stride[0] + pd) * (src->in[1] * src->stride[1]) + ih * src->stride[1] + ph;
}

static void source_store(const struct source *src, const struct product *s, int64_t group, int64_t row0, int64_t row1,
                         int64_t col, int64_t n, const float *acc, int64_t step, void *const *p, const int64_t *d) {
    const int64_t width = src->in[2] * ACROSS;
    (void)s, (void)group;
    for (int64_t row = row0; row < row1;) {
        const int64_t iw = row % src->in[2], run = smaller(row1 - row, src->in[2] - iw);
        if (LINES) { /* a panel holds whole patches: col is 0, n the phases */
            for (int64_t phase = 0; phase < n; phase += ACROSS) {
                float line[LINE];
                for (int64_t i = 0; i < run; i++)
                    for (int64_t j = 0; j < ACROSS; j++) line[i * ACROSS + j] = acc[i * step + phase + j];
                store_row(p, d, line_of(src, row, phase), iw * ACROSS, run * ACROSS, line);
            }
        } else {
            for (int64_t i = 0; i < run; i++)
                for (int64_t at = col; at < col + n;) {
                    const int64_t phase = at / src->outputs, first = at % src->outputs;
                    const int64_t count = smaller(src->outputs - first, col + n - at);
                    const int64_t pixel = line_of(src, row, phase) * width + (iw + i) * ACROSS + phase % ACROSS;
                    store_row(p, d, pixel, first, count, acc + i * step + at - col);
                    at += count;
                }
        }
        row += run;
        acc += run * step;
    }
}
