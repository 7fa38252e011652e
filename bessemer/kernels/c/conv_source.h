/* x [batch, depth, height, width, channels] of a convolution, read in place: one pointer per output pixel and tap, to
   `zero_row` where the tap falls into the padding. A convolution of fewer spatial dims has extents of 1. */
static const float zero_row[ZERO_ROW];

struct source {
    const float *x, *panels;
    int64_t channels;                       /* of all groups */
    int64_t in[3], out[3], kernel[3], stride[3], dilation[3], pad[3];
};

static struct source read_source(void *const *p, const int64_t *d) {
    struct source s = {.x = p[0], .panels = p[1], .channels = d[0]};
    for (int i = 0; i < 3; i++) {
        s.in[i] = d[1 + i], s.out[i] = d[4 + i], s.kernel[i] = d[7 + i];
        s.stride[i] = d[10 + i], s.dilation[i] = d[13 + i], s.pad[i] = d[16 + i];
    }
    return s;
}

/* The lines of x that the taps of output line (image, od, oh) read, at column 0; null in the padding. */
static void tap_lines(const struct source *s, const float *x, int64_t image, int64_t od, int64_t oh,
                      const float *lines[TAP_LINES]) {
    const int64_t id0 = od * s->stride[0] - s->pad[0], ih0 = oh * s->stride[1] - s->pad[1];
    for (int64_t kd = 0; kd < s->kernel[0]; kd++)
        for (int64_t kh = 0; kh < s->kernel[1]; kh++) {
            const int64_t id = id0 + kd * s->dilation[0], ih = ih0 + kh * s->dilation[1];
            const int inside = (uint64_t)id < (uint64_t)s->in[0] && (uint64_t)ih < (uint64_t)s->in[1];
            *lines++ = inside ? x + ((image * s->in[0] + id) * s->in[1] + ih) * s->in[2] * s->channels : 0;
        }
}

/* Pointers of `run` neighbours of an output line, whose first reads column `iw` of `line` with this tap. */
static inline void tap_pointers(const struct source *s, const float *line, int64_t iw, int64_t run, const float **to) {
    const int64_t stride = s->stride[2], width = s->in[2], step = s->channels;
    if (line && iw >= 0 && iw + (run - 1) * stride < width) {
        const float *from = line + iw * step;
        for (int64_t i = 0; i < run; i++, from += stride * step) to[i] = from;
        return;
    }
    for (int64_t i = 0; i < run; i++, iw += stride)
        to[i] = line && (uint64_t)iw < (uint64_t)width ? line + iw * step : zero_row;
}

static void tile_row_pointers(const struct source *s, const float *x, int64_t row, int64_t rows, const float **to) {
    int64_t ow = row % s->out[2], q = row / s->out[2];
    for (int64_t run; rows; rows -= run, to += run, ow = 0, q++) {
        const float *lines[TAP_LINES], **tap = to;
        const int64_t iw = ow * s->stride[2] - s->pad[2];
        run = smaller(rows, s->out[2] - ow);
        tap_lines(s, x, q / s->out[1] / s->out[0], q / s->out[1] % s->out[0], q % s->out[1], lines);
        for (int64_t l = 0; l < TAP_LINES; l++)
            for (int64_t kw = 0; kw < s->kernel[2]; kw++, tap += TILE_ROWS)
                tap_pointers(s, lines[l], iw + kw * s->dilation[2], run, tap);
    }
}

static void source_rows(const struct source *src, const struct product *s, int64_t group, int64_t tile0, int64_t tile1,
                        int64_t thread, const float **rows) {
    (void)thread;
    for (int64_t i = tile0; i < tile1; i++, rows += s->taps * TILE_ROWS) {
        const int64_t row = part(s->rows, s->row_tiles, i);
        tile_row_pointers(src, src->x + group * s->depth, row, part(s->rows, s->row_tiles, i + 1) - row, rows);
    }
}

static const float *source_panel(const struct source *src, const struct product *s, int64_t group, int64_t panel,
                                 int64_t thread) {
    (void)thread;
    const int64_t vectors = (s->cols + VL - 1) / VL;
    return src->panels + s->taps * s->depth * VL * (group * vectors + part(vectors, s->panels, panel));
}

static int64_t source_taps(const struct source *src, const struct product *s, int64_t group) {
    (void)src, (void)group;
    return s->taps;
}

static int64_t source_out_row(const struct source *src, const struct product *s, int64_t group, int64_t row) {
    (void)src, (void)s, (void)group;
    return row;
}

static int64_t source_out_col(const struct source *src, const struct product *s, int64_t group, int64_t col) {
    (void)src;
    return group * s->cols + col;
}

static void source_store(const struct source *src, const struct product *s, int64_t group, int64_t row0, int64_t row1,
                         int64_t col, int64_t n, const float *acc, int64_t step, void *const *p, const int64_t *d) {
    for (int64_t r = row0; r < row1; r++, acc += step)
        store_row(p, d, source_out_row(src, s, group, r), source_out_col(src, s, group, col), n, acc);
}
