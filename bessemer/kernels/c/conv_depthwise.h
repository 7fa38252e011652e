void conv_depthwise(void *const *p, const int64_t *d, int64_t begin, int64_t end, int64_t thread) {
    const float *x = p[0], *w = p[1];
    const int64_t channels = d[0], *in = d + 1, *out = d + 4, *stride = d + 10, *dilation = d + 13, *pad = d + 16;
    const int64_t blocks = (channels + BLOCK - 1) / BLOCK, vectors = (channels + VL - 1) / VL;
    const int64_t pieces = (out[2] + PIXELS - 1) / PIXELS;
    (void)thread;
    for (int64_t item = begin; item < end; item++) {
        const int64_t block = item % blocks, line = item / blocks;
        const int64_t oh = line % out[1], od = line / out[1] % out[0], image = line / out[1] / out[0];
        const int64_t c0 = vectors * block / blocks * VL, c1 = vectors * (block + 1) / blocks * VL;
        const int64_t n = (c1 < channels ? c1 : channels) - c0;
        const int64_t id = od * stride[0] - pad[0], ih = oh * stride[1] - pad[1];
        struct line s = {
            .x = x + ((image * in[0] + id) * in[1] + ih) * in[2] * channels + c0, .w = w + c0,
            .plane = in[1] * in[2] * channels, .row = in[2] * channels, .channels = channels, .w_tap = vectors * VL,
            .width = in[2], .step_d = dilation[0], .step_h = dilation[1],
        };
        taps_inside(id, in[0], KERNEL_D, dilation[0], &s.d0, &s.d1);
        taps_inside(ih, in[1], KERNEL_H, dilation[1], &s.h0, &s.h1);
        for (int64_t i = 0; i < pieces; i++) {
            const int64_t ow = part(out[2], pieces, i), count = part(out[2], pieces, i + 1) - ow;
            SUMS[count](&s, ow * STRIDE_W - pad[2], n, p, d, line * out[2] + ow, c0);
        }
    }
}
