/* Depthwise convolution, x [batch, depth, height, width, channels] with one filter per channel, packed [tap][channels
   rounded up to VL]. PIXELS outputs of a line are computed together, so that a loaded x serves several taps.
   KERNEL_*, STRIDE_W and DILATION_W are known; a work item is one output line of one block of channels. */
#define BLOCK 128

struct line {
    const float *x, *w;          /* of tap (0, 0, 0) and the block's first channel; may point outside the image */
    int64_t plane, row;          /* floats per plane and per line of x */
    int64_t channels, w_tap;     /* floats per pixel of x and per tap of w */
    int64_t width;               /* pixels of a line of x */
    int64_t d0, d1, h0, h1;      /* taps that fall inside, first and past the last */
    int64_t step_d, step_h;      /* dilations */
};

/* `pixels` neighbours, n channels; the first tap of the first lies at column `at` of x. Columns outside of x count as
   zeros where `clipped`, and are not there otherwise. The result goes to output row `row`, column `col` and on. */
INLINE void pixels_sum(const struct line *s, const int pixels, const int clipped, int64_t at, int64_t n,
                       void *const *p, const int64_t *d, int64_t row, int64_t col) {
    float acc[PIXELS * BLOCK] __attribute__((aligned(64)));
    for (int64_t c = 0; c < n; c += VL) {
        const vmask mask = vf_mask(n - c);
        vf sum[TILE_ROWS][TILE_VECS];
        UNROLL for (int i = 0; i < pixels; i++) sum[i][0] = vf_zero();
        for (int64_t kd = s->d0; kd < s->d1; kd++)
            for (int64_t kh = s->h0; kh < s->h1; kh++) {
                const float *x = s->x + kd * s->step_d * s->plane + kh * s->step_h * s->row + at * s->channels + c;
                const float *w = s->w + (kd * KERNEL_H + kh) * KERNEL_W * s->w_tap + c;
                UNROLL for (int k = 0; k < KERNEL_W; k++) {
                    const vf weight = vf_load(w + k * s->w_tap);
                    UNROLL for (int i = 0; i < pixels; i++) {
                        const int column = i * STRIDE_W + k * DILATION_W;
                        const float *from = x + column * s->channels;
                        if (clipped && (uint64_t)(at + column) >= (uint64_t)s->width) continue;
                        sum[i][0] = vf_fma(n - c < VL ? vf_loadm(from, mask) : vf_load(from), weight, sum[i][0]);
                    }
                }
            }
        if (STORES_TILES) {
            const struct tile_out out = {p, d, row, col + c, n - c < VL ? n - c : VL};
            store_tile(&out, pixels, 1, sum);
        } else {
            UNROLL for (int i = 0; i < pixels; i++) vf_store(acc + i * BLOCK + c, sum[i][0]);
        }
    }
    if (!STORES_TILES)
        for (int i = 0; i < pixels; i++) store_row(p, d, row + i, col, n, acc + i * BLOCK);
}

#define PIXELS_SUM(N)                                                                                               \
    static __attribute__((noinline)) void pixels_##N(const struct line *s, int64_t at, int64_t n, void *const *p,   \
                                                     const int64_t *d, int64_t row, int64_t col) {                  \
        if (at >= 0 && at + ((N) - 1) * STRIDE_W + (KERNEL_W - 1) * DILATION_W < s->width)                          \
            pixels_sum(s, N, 0, at, n, p, d, row, col);                                                             \
        else                                                                                                        \
            pixels_sum(s, N, 1, at, n, p, d, row, col);                                                             \
    }
typedef void pixels_fn(const struct line *, int64_t, int64_t, void *const *, const int64_t *, int64_t, int64_t);

/* The taps of `kernel` that fall inside 0..size when the first is at `from`: [first, past). */
static inline void taps_inside(int64_t from, int64_t size, int64_t kernel, int64_t step, int64_t *first, int64_t *past) {
    *first = from >= 0 ? 0 : (-from + step - 1) / step;
    *past = from >= size ? 0 : (size - 1 - from) / step + 1;
    if (*past > kernel) *past = kernel;
    if (*first > *past) *first = *past;
}
