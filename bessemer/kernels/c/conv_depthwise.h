/* Depthwise convolution, x [batch, depth, height, width, channels] with one filter per channel, packed [tap][channels
   rounded up to VL]. PIXELS outputs of a line are computed together, so that a loaded x serves several taps.
   KERNEL_*, STRIDE_W and DILATION_W are known; a work item is one output line of one block of channels. */
#define BLOCK 128

struct line {
    const float *x, *w;          /* of tap (0, 0, 0) and the block's first channel; may point outside the image */
    int64_t plane, row;          /* floats per plane and per line of x */
    int64_t channels, w_tap;     /* floats per pixel of x and per tap of w */
    int64_t d0, d1, h0, h1;      /* taps that fall inside, first and past the last */
    int64_t step_d, step_h;      /* dilations */
};

/* `pixels` neighbours, n channels: over every tap of the width where `whole`, else (one pixel) over w0..w1. The result
   goes to output row `row`, column `col` and on. */
INLINE void pixels_sum(const struct line *s, const int pixels, int64_t at, int64_t w0, int64_t w1, int64_t n,
                       const int whole, void *const *p, const int64_t *d, int64_t row, int64_t col) {
    float acc[PIXELS * BLOCK] __attribute__((aligned(64)));
    for (int64_t c = 0; c < n; c += VL) {
        const vmask mask = vf_mask(n - c);
        vf sum[PIXELS][TILE_VECS];
        UNROLL for (int i = 0; i < pixels; i++) sum[i][0] = vf_zero();
        for (int64_t kd = s->d0; kd < s->d1; kd++)
            for (int64_t kh = s->h0; kh < s->h1; kh++) {
                const float *x = s->x + kd * s->step_d * s->plane + kh * s->step_h * s->row + at * s->channels + c;
                const float *w = s->w + (kd * KERNEL_H + kh) * KERNEL_W * s->w_tap + c;
                if (whole) {
                    UNROLL for (int k = 0; k < KERNEL_W; k++) {
                        const vf weight = vf_load(w + k * s->w_tap);
                        UNROLL for (int i = 0; i < pixels; i++) {
                            const float *from = x + (i * STRIDE_W + k * DILATION_W) * s->channels;
                            sum[i][0] = vf_fma(n - c < VL ? vf_loadm(from, mask) : vf_load(from), weight, sum[i][0]);
                        }
                    }
                } else {
                    for (int64_t k = w0; k < w1; k++)
                        sum[0][0] = vf_fma(vf_loadm(x + k * DILATION_W * s->channels, mask), vf_load(w + k * s->w_tap),
                                           sum[0][0]);
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

/* The taps of `kernel` that fall inside 0..size when the first is at `from`: [first, past). */
static inline void taps_inside(int64_t from, int64_t size, int64_t kernel, int64_t step, int64_t *first, int64_t *past) {
    *first = from >= 0 ? 0 : (-from + step - 1) / step;
    *past = from >= size ? 0 : (size - 1 - from) / step + 1;
    if (*past > kernel) *past = kernel;
    if (*first > *past) *first = *past;
}

void conv_depthwise(void *const *p, const int64_t *d, int64_t begin, int64_t end, int64_t thread) {
    const float *x = p[0], *w = p[1];
    const int64_t channels = d[0], *in = d + 1, *out = d + 4, *stride = d + 10, *dilation = d + 13, *pad = d + 16;
    const int64_t blocks = (channels + BLOCK - 1) / BLOCK, vectors = (channels + VL - 1) / VL;
    /* Outputs in lo..hi have every tap of the width inside. */
    int64_t lo = (pad[2] + STRIDE_W - 1) / STRIDE_W, hi = in[2] - 1 - (KERNEL_W - 1) * DILATION_W + pad[2];
    hi = hi < 0 ? 0 : hi / STRIDE_W + 1;
    if (lo < 0) lo = 0;
    if (hi > out[2]) hi = out[2];
    (void)thread;
    for (int64_t item = begin; item < end; item++) {
        const int64_t block = item % blocks, line = item / blocks;
        const int64_t oh = line % out[1], od = line / out[1] % out[0], image = line / out[1] / out[0];
        const int64_t c0 = vectors * block / blocks * VL, c1 = vectors * (block + 1) / blocks * VL;
        const int64_t n = (c1 < channels ? c1 : channels) - c0;
        const int64_t id = od * stride[0] - pad[0], ih = oh * stride[1] - pad[1];
        struct line s = {
            .plane = in[1] * in[2] * channels, .row = in[2] * channels, .channels = channels, .w = w + c0,
            .w_tap = vectors * VL, .step_d = dilation[0], .step_h = dilation[1],
        };
        s.x = x + ((image * in[0] + id) * in[1] + ih) * s.row - pad[2] * channels + c0;
        taps_inside(id, in[0], KERNEL_D, dilation[0], &s.d0, &s.d1);
        taps_inside(ih, in[1], KERNEL_H, dilation[1], &s.h0, &s.h1);
        for (int64_t ow = 0; ow < out[2];) {
            const int64_t row = line * out[2] + ow;
            if (ow >= lo && ow + PIXELS <= hi) {
                pixels_sum(&s, PIXELS, ow * STRIDE_W, 0, 0, n, 1, p, d, row, c0);
                ow += PIXELS;
            } else if (ow >= lo && ow < hi) {
                pixels_sum(&s, 1, ow * STRIDE_W, 0, 0, n, 1, p, d, row, c0);
                ow++;
            } else {
                int64_t w0, w1;
                taps_inside(ow * STRIDE_W - pad[2], in[2], KERNEL_W, DILATION_W, &w0, &w1);
                pixels_sum(&s, 1, ow * STRIDE_W, w0, w1, n, 0, p, d, row, c0);
                ow++;
            }
        }
    }
}
