/* Copies the lines of x into the workspace, with `pad` pixels of zeros before them and zeros up to `width` pixels. */
void pad_lines(void *const *p, const int64_t *d, int64_t begin, int64_t end, int64_t thread) {
    const int64_t channels = d[0], from = d[1] * channels, pad = d[2] * channels, width = d[3] * channels;
    const int64_t kept = from < width - pad ? from : width - pad;
    (void)thread;
    for (int64_t line = begin; line < end; line++) {
        float *to = (float *)p[1] + line * width;
        memset(to, 0, pad * sizeof *to);
        memcpy(to + pad, (const float *)p[0] + line * from, kept * sizeof *to);
        memset(to + pad + kept, 0, (width - pad - kept) * sizeof *to);
    }
}
