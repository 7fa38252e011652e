/* Convolution by definition, for any layout and groups and a filter as it comes, [OC, IC/groups, kd, kh, kw]. A work
   item is one row of the output: the columns of a line (channels first) or the channels of a pixel (channels last). */
#define BLOCK 64

struct sizes {
    const float *x, *w;
    int64_t inner, outer;              /* channels and output channels of one group */
    int64_t channels;
    const int64_t *in, *out, *kernel, *stride, *dilation, *pad;
};

/* Columns ow0..ow0+n of one output line of channel `oc`. */
static void line_sum(const struct sizes *s, int64_t image, int64_t oc, int64_t od, int64_t oh, int64_t ow0, int64_t n,
                     float *acc) {
    const float *w = s->w + oc * s->inner * s->kernel[0] * s->kernel[1] * s->kernel[2];
    const int64_t step = s->stride[2];
    memset(acc, 0, n * sizeof *acc);
    for (int64_t ic = 0; ic < s->inner; ic++)
        for (int64_t kd = 0; kd < s->kernel[0]; kd++)
            for (int64_t kh = 0; kh < s->kernel[1]; kh++, w += s->kernel[2]) {
                const int64_t id = od * s->stride[0] - s->pad[0] + kd * s->dilation[0];
                const int64_t ih = oh * s->stride[1] - s->pad[1] + kh * s->dilation[1];
                if (id < 0 || id >= s->in[0] || ih < 0 || ih >= s->in[1]) continue;
                const int64_t channel = oc / s->outer * s->inner + ic;
                const float *x = s->x + (((image * s->channels + channel) * s->in[0] + id) * s->in[1] + ih) * s->in[2];
                for (int64_t kw = 0; kw < s->kernel[2]; kw++) {
                    const int64_t from = ow0 * step - s->pad[2] + kw * s->dilation[2];
                    const int64_t j0 = from >= 0 ? 0 : (-from + step - 1) / step;
                    const int64_t past = from >= s->in[2] ? 0 : (s->in[2] - 1 - from) / step + 1;
                    const int64_t j1 = past < n ? past : n;
                    for (int64_t j = j0; j < j1; j++) acc[j] += w[kw] * x[from + j * step];
                }
            }
}

/* Channels oc0..oc0+n of one output pixel. */
static void pixel_sum(const struct sizes *s, int64_t image, int64_t od, int64_t oh, int64_t ow, int64_t oc0, int64_t n,
                      float *acc) {
    const int64_t taps = s->kernel[0] * s->kernel[1] * s->kernel[2];
    memset(acc, 0, n * sizeof *acc);
    for (int64_t tap = 0; tap < taps; tap++) {
        const int64_t kw = tap % s->kernel[2], kh = tap / s->kernel[2] % s->kernel[1];
        const int64_t id = od * s->stride[0] - s->pad[0] + tap / s->kernel[2] / s->kernel[1] * s->dilation[0];
        const int64_t ih = oh * s->stride[1] - s->pad[1] + kh * s->dilation[1];
        const int64_t iw = ow * s->stride[2] - s->pad[2] + kw * s->dilation[2];
        if (id < 0 || id >= s->in[0] || ih < 0 || ih >= s->in[1] || iw < 0 || iw >= s->in[2]) continue;
        const float *pixel = s->x + (((image * s->in[0] + id) * s->in[1] + ih) * s->in[2] + iw) * s->channels;
        for (int64_t j = 0; j < n; j++) {
            const float *x = pixel + (oc0 + j) / s->outer * s->inner, *w = s->w + (oc0 + j) * s->inner * taps + tap;
            float sum = 0;
            for (int64_t ic = 0; ic < s->inner; ic++) sum += x[ic] * w[ic * taps];
            acc[j] += sum;
        }
    }
}

void conv_direct(void *const *p, const int64_t *d, int64_t begin, int64_t end, int64_t thread) {
    const struct sizes s = {p[0], p[1], d[0] / d[20], d[19] / d[20], d[0], d + 1, d + 4, d + 7, d + 10, d + 13, d + 16};
    const int64_t outputs = d[19], cols = CHANNELS_LAST ? outputs : s.out[2];
    (void)thread;
    for (int64_t row = begin; row < end; row++) {
        int64_t at = row;
        const int64_t ow = CHANNELS_LAST ? at % s.out[2] : 0;
        if (CHANNELS_LAST) at /= s.out[2];
        const int64_t oh = at % s.out[1], od = at / s.out[1] % s.out[0];
        at = at / s.out[1] / s.out[0];
        for (int64_t col = 0; col < cols; col += BLOCK) {
            float acc[BLOCK];
            const int64_t n = cols - col < BLOCK ? cols - col : BLOCK;
            if (CHANNELS_LAST) pixel_sum(&s, at, od, oh, ow, col, n, acc);
            else line_sum(&s, at / outputs, at % outputs, od, oh, col, n, acc);
            store_row(p, d, row, col, n, acc);
        }
    }
}
