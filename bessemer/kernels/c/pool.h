/* Pooling over channel-last windows of up to three axes: runs of LANES channels, accumulated over the taps inside.

   ACC is the type of the accumulator, ELEMENT that of the input. START, STEP(a, v) and FINISH(a) make one kind; where
   NOTICE is 1, NaNs are noticed in `bad` beside an extreme, which so stays one instruction. */
enum { LANES = 64 };

struct axis {
    int64_t size, out, kernel, stride, dilation, begin, end; /* pads at begin and end */
};

struct taps {
    int64_t from, to;  /* taps that lie inside the input */
    int64_t first;     /* the coordinate that tap 0 reads */
    int64_t counted;   /* taps that an average counts */
};

static struct taps taps_of(const struct axis *a, int64_t at) {
    const int64_t first = at * a->stride - a->begin, d = a->dilation;
    const int64_t from = first < 0 ? (-first + d - 1) / d : 0;
    const int64_t inside = first < a->size ? (a->size - first + d - 1) / d : 0;
    const int64_t padded = first < a->size + a->end ? (a->size + a->end - first + d - 1) / d : 0;
    const int64_t to = inside < a->kernel ? inside : a->kernel;
    return (struct taps){from, to > from ? to : from, first, padded < a->kernel ? padded : a->kernel};
}

static inline void window(const ELEMENT *restrict x, const struct axis *a, struct taps t0, struct taps t1,
                          struct taps t2, int64_t channels, int64_t n, ACC *restrict acc, int32_t *restrict bad) {
    for (int64_t l = 0; l < n; l++) acc[l] = START, bad[l] = 0;
    for (int64_t i = t0.from; i < t0.to; i++)
        for (int64_t j = t1.from; j < t1.to; j++) {
            const int64_t row = (t0.first + i * a[0].dilation) * a[1].size + t1.first + j * a[1].dilation;
            for (int64_t k = t2.from; k < t2.to; k++) {
                const ELEMENT *restrict v = x + (row * a[2].size + t2.first + k * a[2].dilation) * channels;
                for (int64_t l = 0; l < n; l++) {
                    const ACC value = READ(v[l]);
                    acc[l] = STEP(acc[l], value);
                    if (NOTICE) bad[l] |= value != value;
                }
            }
        }
}

void pool(void *const *p, const int64_t *d, int64_t begin, int64_t end, int64_t thread) {
    struct axis a[3];
    __builtin_memcpy(a, d, sizeof a);
    const int64_t channels = d[21], rows = d[22], group = d[23];
    const int64_t last = end * group < rows ? end * group : rows;
    const int64_t image = a[0].size * a[1].size * a[2].size * channels;
    for (int64_t row = begin * group; row < last; row++) { /* a line of output pixels */
        const int64_t at1 = row % a[1].out, at0 = row / a[1].out % a[0].out, batch = row / a[1].out / a[0].out;
        const ELEMENT *x = (const ELEMENT *)p[0] + batch * image;
        const struct taps t0 = taps_of(a, at0), t1 = taps_of(a + 1, at1);
        for (int64_t at2 = 0; at2 < a[2].out; at2++) {
            const struct taps t2 = taps_of(a + 2, at2);
            const int64_t inside = (t0.to - t0.from) * (t1.to - t1.from) * (t2.to - t2.from);
            const int64_t counted = INCLUDE_PAD ? t0.counted * t1.counted * t2.counted : inside;
            (void)counted;
            for (int64_t c = 0; c < channels; c += LANES) {
                ACC acc[LANES];
                int32_t bad[LANES];
                const int64_t n = channels - c < LANES ? channels - c : LANES;
                if (n == LANES)
                    window(x + c, a, t0, t1, t2, channels, LANES, acc, bad);
                else
                    window(x + c, a, t0, t1, t2, channels, n, acc, bad);
                for (int64_t l = 0; l < n; l++) acc[l] = NOTICE && bad[l] ? (ACC)__builtin_nan("") : FINISH(acc[l]);
                store_row(p, d, row * a[2].out + at2, c, n, acc);
            }
        }
    }
}
