/* LSTM and GRU. Weights are packed so that a panel holds all GATES of UNITS hidden units, [depth][GATES][UNITS]: a
   product gives whole cells, which are updated while they are in cache. */
#define UNROLL _Pragma("GCC unroll 16")
#define INLINE static inline __attribute__((always_inline))
enum { UNITS = 2 * VL, WIDTH = GATES * UNITS };

struct shape {
    int64_t steps, batch, inputs, hidden, panels, directions;
    int64_t row_blocks, row_block, panel_blocks, panel_block; /* work items of the inputs */
    int64_t batch_blocks, batch_block;                        /* work items of the steps */
    int64_t bias, initial_h, initial_c;                       /* whether they are given */
    int64_t first_reversed;                                   /* the first direction that runs backwards */
    int64_t padded;                                           /* hidden units in whole panels */
};

/* g[rows][WIDTH] += a[row][depth] times gates [first, first + gates) of the panel b. */
INLINE void gates_product(const int rows, const int first, const int gates, const float *a, int64_t a_step,
                          int64_t depth, const float *b, float *g) {
    vf acc[ROWS][2 * GATES];
    UNROLL for (int r = 0; r < rows; r++)
        UNROLL for (int j = 0; j < 2 * gates; j++) acc[r][j] = vf_load(g + r * WIDTH + (2 * first + j) * VL);
    for (int64_t k = 0; k < depth; k++, b += WIDTH)
        UNROLL for (int r = 0; r < rows; r++) {
            const vf s = vf_set(a[r * a_step + k]);
            UNROLL for (int j = 0; j < 2 * gates; j++)
                acc[r][j] = vf_fma(s, vf_load(b + (2 * first + j) * VL), acc[r][j]);
        }
    UNROLL for (int r = 0; r < rows; r++)
        UNROLL for (int j = 0; j < 2 * gates; j++) vf_store(g + r * WIDTH + (2 * first + j) * VL, acc[r][j]);
}

INLINE void any_rows(int64_t rows, const int first, const int gates, const float *a, int64_t a_step, int64_t depth,
                     const float *b, float *g) {
    int64_t r = 0;
    for (; r + ROWS <= rows; r += ROWS) gates_product(ROWS, first, gates, a + r * a_step, a_step, depth, b, g + r * WIDTH);
    for (; r < rows; r++) gates_product(1, first, gates, a + r * a_step, a_step, depth, b, g + r * WIDTH);
}

/* Workspace: [direction][panel][step * batch][WIDTH] of inputs, then per direction and row the states. */
void inputs(void *const *p, const int64_t *d, int64_t begin, int64_t end, int64_t thread) {
    struct shape s;
    __builtin_memcpy(&s, d, sizeof s);
    const float *x = p[0], *w = p[1], *bias = p[2];
    float *work = p[3];
    const int64_t rows = s.steps * s.batch, h = s.hidden;
    for (int64_t u = begin; u < end; u++) {
        const int64_t row0 = u % s.row_blocks * s.row_block, v = u / s.row_blocks;
        const int64_t panel0 = v % s.panel_blocks * s.panel_block, dir = v / s.panel_blocks;
        const int64_t panel1 = panel0 + s.panel_block < s.panels ? panel0 + s.panel_block : s.panels;
        const int64_t n = row0 + s.row_block < rows ? s.row_block : rows - row0;
        for (int64_t panel = panel0; panel < panel1; panel++) {
            float start[WIDTH] = {0};
            if (s.bias)
                for (int g = 0; g < GATES; g++)
                    for (int64_t i = 0; i < UNITS && panel * UNITS + i < h; i++) {
                        const float *from = bias + dir * 2 * GATES * h + g * h + panel * UNITS + i;
                        start[g * UNITS + i] = from[0] + (LINEAR && g == 2 ? 0.0f : from[GATES * h]);
                    }
            float *to = work + ((dir * s.panels + panel) * rows + row0) * WIDTH;
            for (int64_t r = 0; r < n; r++) __builtin_memcpy(to + r * WIDTH, start, sizeof start);
            any_rows(n, 0, GATES, x + row0 * s.inputs, s.inputs, s.inputs,
                     w + (dir * s.panels + panel) * s.inputs * WIDTH, to);
        }
    }
}

struct states {
    float *old, *new, *cell; /* [rows][padded]; for a GRU `cell` holds reset * h */
};

#if IS_LSTM
static void update(const struct shape *s, int64_t dir, const float *r, const float *bias, const float *from,
                   int64_t from_panel, struct states st, int64_t rows) {
    (void)bias;
    for (int64_t panel = 0; panel < s->panels; panel++) {
        float g[BATCH * WIDTH];
        __builtin_memcpy(g, from + panel * from_panel, (size_t)rows * WIDTH * sizeof *g);
        any_rows(rows, 0, GATES, st.old, s->padded, s->hidden, r + (dir * s->panels + panel) * s->hidden * WIDTH, g);
        for (int64_t row = 0; row < rows; row++) {
            const float *restrict a = g + row * WIDTH;
            float *restrict c = st.cell + row * s->padded + panel * UNITS;
            float *restrict h = st.new + row * s->padded + panel * UNITS;
            for (int i = 0; i < UNITS; i++) {
                const float next = sigmoid_f32(a[2 * UNITS + i]) * c[i] + sigmoid_f32(a[i]) * tanh_f32(a[3 * UNITS + i]);
                c[i] = next;
                h[i] = sigmoid_f32(a[UNITS + i]) * tanh_f32(next);
            }
        }
    }
}
#elif LINEAR
static void update(const struct shape *s, int64_t dir, const float *r, const float *bias, const float *from,
                   int64_t from_panel, struct states st, int64_t rows) {
    for (int64_t panel = 0; panel < s->panels; panel++) {
        float g[BATCH * WIDTH];
        for (int64_t row = 0; row < rows; row++) {
            __builtin_memcpy(g + row * WIDTH, from + panel * from_panel + row * WIDTH, 2 * UNITS * sizeof *g);
            for (int64_t i = 0; i < UNITS; i++) {
                const int64_t unit = panel * UNITS + i;
                g[row * WIDTH + 2 * UNITS + i] =
                    s->bias && unit < s->hidden ? bias[(dir * 6 + 5) * s->hidden + unit] : 0.0f;
            }
        }
        any_rows(rows, 0, GATES, st.old, s->padded, s->hidden, r + (dir * s->panels + panel) * s->hidden * WIDTH, g);
        for (int64_t row = 0; row < rows; row++) {
            const float *restrict a = g + row * WIDTH, *restrict x = from + panel * from_panel + row * WIDTH;
            const float *restrict old = st.old + row * s->padded + panel * UNITS;
            float *restrict h = st.new + row * s->padded + panel * UNITS;
            for (int i = 0; i < UNITS; i++) {
                const float z = sigmoid_f32(a[i]), reset = sigmoid_f32(a[UNITS + i]);
                const float candidate = tanh_f32(x[2 * UNITS + i] + reset * a[2 * UNITS + i]);
                h[i] = candidate + z * (old[i] - candidate);
            }
        }
    }
}
#else
static void update(const struct shape *s, int64_t dir, const float *r, const float *bias, const float *from,
                   int64_t from_panel, struct states st, int64_t rows) {
    (void)bias;
    for (int64_t panel = 0; panel < s->panels; panel++) { /* st.new holds z until the candidate is known */
        float g[BATCH * WIDTH];
        __builtin_memcpy(g, from + panel * from_panel, (size_t)rows * WIDTH * sizeof *g);
        any_rows(rows, 0, 2, st.old, s->padded, s->hidden, r + (dir * s->panels + panel) * s->hidden * WIDTH, g);
        for (int64_t row = 0; row < rows; row++) {
            const float *restrict a = g + row * WIDTH, *restrict old = st.old + row * s->padded + panel * UNITS;
            float *restrict z = st.new + row * s->padded + panel * UNITS;
            float *restrict reset = st.cell + row * s->padded + panel * UNITS;
            for (int i = 0; i < UNITS; i++) {
                z[i] = sigmoid_f32(a[i]);
                reset[i] = sigmoid_f32(a[UNITS + i]) * old[i];
            }
        }
    }
    for (int64_t panel = 0; panel < s->panels; panel++) {
        float g[BATCH * WIDTH];
        __builtin_memcpy(g, from + panel * from_panel, (size_t)rows * WIDTH * sizeof *g);
        any_rows(rows, 2, 1, st.cell, s->padded, s->hidden, r + (dir * s->panels + panel) * s->hidden * WIDTH, g);
        for (int64_t row = 0; row < rows; row++) {
            const float *restrict a = g + row * WIDTH, *restrict old = st.old + row * s->padded + panel * UNITS;
            float *restrict h = st.new + row * s->padded + panel * UNITS;
            for (int i = 0; i < UNITS; i++) {
                const float candidate = tanh_f32(a[2 * UNITS + i]);
                h[i] = candidate + h[i] * (old[i] - candidate);
            }
        }
    }
}
#endif

static void load_state(float *to, const float *from, int given, const struct shape *s, int64_t rows) {
    for (int64_t r = 0; r < rows; r++)
        for (int64_t i = 0; i < s->padded; i++)
            to[r * s->padded + i] = given && i < s->hidden ? from[r * s->hidden + i] : 0.0f;
}

static void store_state(float *to, const float *from, const struct shape *s, int64_t rows) {
    for (int64_t r = 0; r < rows; r++)
        __builtin_memcpy(to + r * s->hidden, from + r * s->padded, (size_t)s->hidden * sizeof *to);
}

void steps(void *const *p, const int64_t *d, int64_t begin, int64_t end, int64_t thread) {
    struct shape s;
    __builtin_memcpy(&s, d, sizeof s);
    const float *r = p[0], *bias = p[1], *h0 = p[2], *c0 = p[3];
    float *work = p[4], *y = p[5], *y_h = p[6], *y_c = p[7];
    const int64_t rows_in_all = s.steps * s.batch, h = s.hidden;
    float *states = work + s.directions * s.panels * rows_in_all * WIDTH;
    for (int64_t u = begin; u < end; u++) {
        const int64_t dir = u / s.batch_blocks, row = u % s.batch_blocks * s.batch_block;
        const int64_t rows = row + s.batch_block < s.batch ? s.batch_block : s.batch - row;
        const int64_t at = dir * s.batch + row, size = s.directions * s.batch * s.padded;
        float *base = states + at * s.padded;
        struct states st = {base, base + size, base + 2 * size};
        load_state(st.old, h0 + at * h, s.initial_h != 0, &s, rows);
        load_state(st.cell, c0 + at * h, s.initial_c != 0, &s, rows);
        for (int64_t k = 0; k < s.steps; k++) {
            const int64_t t = dir >= s.first_reversed ? s.steps - 1 - k : k;
            const float *from = work + (dir * s.panels * rows_in_all + t * s.batch + row) * WIDTH;
            update(&s, dir, r, bias, from, rows_in_all * WIDTH, st, rows);
            store_state(y + ((t * s.directions + dir) * s.batch + row) * h, st.new, &s, rows);
            float *swap = st.old;
            st.old = st.new;
            st.new = swap;
        }
        store_state(y_h + at * h, st.old, &s, rows);
        if (IS_LSTM) store_state(y_c + at * h, st.cell, &s, rows);
    }
}
