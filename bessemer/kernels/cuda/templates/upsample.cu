// Transposed convolutions whose windows do not overlap (kernel = stride): x [batch, height, width, IC] times one tap of
// w [taps, IC, OC] gives each output pixel, finished by the problem's epilogue.
//
// With ALONG_WIDTH (one output channel) a thread computes STRIDE_H runs of eight neighbours along the width, from the
// 8 / STRIDE_W = PIXELS input pixels below them, and the output is seen as [batch, height, width]. Else it computes eight
// channels of PIXELS output pixels that use the same tap. The weights lie in shared memory.

constexpr int TAPS = STRIDE_H * STRIDE_W, UNITS = TAPS * IC * OC / 8;  // of 16 bytes

struct Place {
    int image, y, x, kh, kw, run;
};

// What item number `item` computes: outputs that are neighbours in memory have neighbours as items.
inline Place place_of(unsigned item, unsigned height, unsigned across) {
    Place at;
    at.run = ALONG_WIDTH ? 0 : item % (OC / 8);
    unsigned rest = ALONG_WIDTH ? item : item / (OC / 8);
    at.kw = ALONG_WIDTH ? 0 : rest % STRIDE_W;
    rest = ALONG_WIDTH ? rest : rest / STRIDE_W;
    const unsigned line = rest / across;
    at.x = (rest - line * across) * PIXELS;
    at.kh = ALONG_WIDTH ? 0 : line % STRIDE_H;
    rest = ALONG_WIDTH ? line : line / STRIDE_H;
    at.image = rest < height ? 0 : rest / height;  // a branch is shorter than a division
    at.y = rest - at.image * height;
    return at;
}

// The weights of eight input channels for the one output, or of eight outputs for one input channel.
inline void weights_of(float (&weights)[8], uint32_t at) {
    const Run<uint16_t> run = load_shared_run(at);
#pragma unroll
    for (int j = 0; j < 8; j++)
        weights[j] = f32_of_@KIND@(run.v[j]);
}

// Adds the products of input channels [channel, channel + 8) of the pixels.
inline void add_along_width(float (&acc)[OUTPUTS][8], const Run<uint16_t> (&pixels)[PIXELS], uint32_t w, int channel) {
#pragma unroll
    for (int kh = 0; kh < STRIDE_H; kh++)
#pragma unroll
        for (int kw = 0; kw < STRIDE_W; kw++) {
            float weights[8];
            weights_of(weights, w + ((kh * STRIDE_W + kw) * IC + channel) * 2);
#pragma unroll
            for (int p = 0; p < PIXELS; p++)
#pragma unroll
                for (int c = 0; c < 8; c++)
                    acc[kh % OUTPUTS][(p * STRIDE_W + kw) % 8] += f32_of_@KIND@(pixels[p].v[c]) * weights[c];
        }
}

inline void add_channels(float (&acc)[OUTPUTS][8], const Run<uint16_t> (&pixels)[PIXELS], uint32_t w, int channel) {
#pragma unroll
    for (int c = 0; c < 8; c++) {
        float weights[8];
        weights_of(weights, w + (channel + c) * OC * 2);
#pragma unroll
        for (int p = 0; p < PIXELS; p++)
#pragma unroll
            for (int j = 0; j < 8; j++)
                acc[p % OUTPUTS][j] += f32_of_@KIND@(pixels[p].v[c]) * weights[j];
    }
}

extern "C" __global__ void __launch_bounds__(THREADS)
kernel(const uint16_t *x, const uint16_t *w, int items, int height, int width@EPILOGUE_PARAMETERS@) {
    extern __shared__ __align__(1024) unsigned char memory[];
    const int item = blockIdx.x * THREADS + threadIdx.x, across = (width + PIXELS - 1) / PIXELS;
    const Place at = place_of(item, height, across);
    const bool live = item < items;
    launch_dependents();
    for (int k = threadIdx.x; k < UNITS; k += THREADS)
        reinterpret_cast<Run<uint16_t> *>(memory)[k] = load_run(w + k * 8);
    __syncthreads();
    const int column = ALONG_WIDTH ? at.x * STRIDE_W : at.run * 8;
    Columns columns;
    if (live)
        load_constant_columns(columns, column@EPILOGUE_NAMES@);
    // Output o of the thread is at row first + o * next of the epilogue's.
    const int line = (at.image * height + at.y) * STRIDE_H + at.kh, next = ALONG_WIDTH ? 1 : STRIDE_W;
    const int first = settled(ALONG_WIDTH ? line : (line * width + at.x) * STRIDE_W + at.kw);
    const int64_t line_in = at.image * height + at.y;
    const uint16_t *const corner = settled(x + (line_in * width + at.x) * IC);
    wait_for_inputs_after(corner);
    if (!live)
        return;
    load_columns(columns, column@EPILOGUE_NAMES@);

    const int last = ALONG_WIDTH ? OUTPUTS : min(PIXELS, width - at.x);
    Cells cells[OUTPUTS];
#pragma unroll
    for (int o = 0; o < OUTPUTS; o++)
        if (o < last)
            load_cells(cells[o], first + o * next, column@EPILOGUE_NAMES@);
    const uint32_t weights =
        shared_address(memory) + (ALONG_WIDTH ? 0 : (at.kh * STRIDE_W + at.kw) * IC * OC * 2 + at.run * 16);
    float acc[OUTPUTS][8] = {};
#pragma unroll(IC <= 32 ? IC / 8 : 1)
    for (int channel = 0; channel < IC; channel += 8) {
        Run<uint16_t> pixels[PIXELS];
#pragma unroll
        for (int p = 0; p < PIXELS; p++)
            pixels[p] = load_run_if(at.x + p < width, corner + p * IC + channel);
        if constexpr (ALONG_WIDTH)
            add_along_width(acc, pixels, weights, channel);
        else
            add_channels(acc, pixels, weights, channel);
    }
#pragma unroll
    for (int o = 0; o < OUTPUTS; o++)
        if (o < last)
            finish(acc[o], columns, cells[o], first + o * next, column@EPILOGUE_NAMES@);
}
