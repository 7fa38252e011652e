// Depthwise convolutions, channels last: x [batch, height, width, C], w [taps, C], finished by the problem's epilogue.
//
// A thread computes TH x TW output pixels of eight channels: it reads every input pixel of their windows once, and uses
// it for all outputs that it has a tap for. The THREADS of a CTA are BR runs of eight channels (neighbours, so that loads
// are whole lines) of PLACES tiles, and each computes REPEAT tiles. Filters of few taps stay in registers; larger ones
// lie in shared memory. Both are read before this kernel waits for those ahead.

constexpr int RUNS = C / 8, BLOCKS = (RUNS + BR - 1) / BR, PLACES = THREADS / BR, TAPS = KERNEL_H * KERNEL_W;
constexpr int REACH_H = (TH - 1) * STRIDE_H + (KERNEL_H - 1) * DILATION_H + 1;  // input rows of a tile
constexpr int REACH_W = (TW - 1) * STRIDE_W + (KERNEL_W - 1) * DILATION_W + 1;

// The tap through which an output at `step` reads input `place` along one axis, or -1.
template <int STRIDE, int DILATION, int COUNT> inline constexpr int tap_of(int place, int step) {
    const int distance = place - step * STRIDE;
    return distance >= 0 && distance % DILATION == 0 && distance / DILATION < COUNT ? distance / DILATION : -1;
}

inline constexpr int tap_of_row(int row, int step) { return tap_of<STRIDE_H, DILATION_H, KERNEL_H>(row, step); }

inline constexpr int tap_of_column(int column, int step) {
    return tap_of<STRIDE_W, DILATION_W, KERNEL_W>(column, step);
}

inline constexpr bool any_row(int row) {
    for (int i = 0; i < TH; i++)
        if (tap_of_row(row, i) >= 0)
            return true;
    return false;
}

inline constexpr bool any_column(int column) {
    for (int i = 0; i < TW; i++)
        if (tap_of_column(column, i) >= 0)
            return true;
    return false;
}

struct Shape {
    int height, width, out_height, out_width, pad_h, pad_w;
};

// The filter of a thread's eight channels.
struct Filter {
    Run<uint16_t> taps[HELD ? TAPS : 1];
    uint32_t at;  // in shared memory

    Filter(const uint16_t *w, unsigned char *memory, int run, bool live) : at(0) {
        if constexpr (HELD) {
#pragma unroll
            for (int k = 0; k < TAPS; k++)
                if (live)
                    taps[k] = load_run(w + k * C + run * 8);
        } else {
            const int first = run - threadIdx.x % BR;
            auto *const target = reinterpret_cast<Run<uint16_t> *>(memory);
            for (int k = threadIdx.x; k < TAPS * BR; k += THREADS)
                if (first + k % BR < RUNS)
                    target[k] = load_run(w + k / BR * C + (first + k % BR) * 8);
            __syncthreads();
            at = shared_address(memory) + threadIdx.x % BR * 16;
        }
    }

    Run<uint16_t> operator[](int tap) const {
        if constexpr (HELD)
            return taps[tap];
        else
            return load_shared_run(at + tap * BR * 16);
    }
};

// Reads the columns of an input row at `corner` that have a tap. `inside` has a bit for every column inside the image.
inline void load_row(Run<uint16_t> (&pixels)[REACH_W], const uint16_t *corner, uint32_t inside) {
#pragma unroll
    for (int p = 0; p < REACH_W; p++)
        if (any_column(p))
            pixels[p] = load_run_if(inside >> p & 1, corner + p * C);
}

// Adds what row `r` of the tile's input gives.
inline void add_row(float (&acc)[TH][TW][8], const Filter &filter, const Run<uint16_t> (&pixels)[REACH_W], int r) {
#pragma unroll
    for (int i = 0; i < TH; i++) {
        const int kh = tap_of_row(r, i);
        if (kh < 0)
            continue;
        float weights[KERNEL_W][8];
#pragma unroll
        for (int k = 0; k < KERNEL_W; k++) {
            const Run<uint16_t> run = filter[kh * KERNEL_W + k];
#pragma unroll
            for (int c = 0; c < 8; c++)
                weights[k][c] = f32_of_@KIND@(run.v[c]);
        }
#pragma unroll
        for (int p = 0; p < REACH_W; p++)
#pragma unroll
            for (int j = 0; j < TW; j++)
                if (tap_of_column(p, j) >= 0)
#pragma unroll
                    for (int c = 0; c < 8; c++)
                        acc[i][j][c] += f32_of_@KIND@(pixels[p].v[c]) * weights[tap_of_column(p, j)][c];
    }
}

// Where a tile is: its image, its first output, and the corner of its input, with a bit for every column of that which
// is inside the image.
struct Tile {
    int image, oy, ox;
    uint32_t inside;
    const uint16_t *corner;

    Tile(const uint16_t *x, unsigned number, const Shape &shape, int column) {
        const unsigned across = (shape.out_width + TW - 1) / TW, down = (shape.out_height + TH - 1) / TH;
        const unsigned line = number / across;
        image = line < down ? 0 : line / down;  // a branch is shorter than a division
        ox = (number - line * across) * TW, oy = (line - image * down) * TH;
        const int left = ox * STRIDE_W - shape.pad_w;
        inside = 0;
#pragma unroll
        for (int p = 0; p < REACH_W; p++)
            inside |= (static_cast<unsigned>(left + p) < shape.width ? 1u : 0u) << p;
        const int64_t row = static_cast<int64_t>(image) * shape.height + top(shape);
        corner = x + (row * shape.width + left) * C + column;
    }

    void settle() {
        image = settled(image), oy = settled(oy), ox = settled(ox), inside = settled(inside), corner = settled(corner);
    }

    int top(const Shape &shape) const { return oy * STRIDE_H - shape.pad_h; }
};

// Adds all rows, the next one under way while one is added.
inline void add_window(float (&acc)[TH][TW][8], const Filter &filter, const Shape &shape, const Tile &tile) {
    constexpr int STEP = TH == 1 ? DILATION_H : 1;  // between rows that are read
    const int64_t line = static_cast<int64_t>(shape.width) * C;
    const int top = tile.top(shape);
    const auto inside_of = [&](int r) { return static_cast<unsigned>(top + r) < shape.height ? tile.inside : 0; };
    Run<uint16_t> pixels[REACH_W], next[REACH_W];
    load_row(pixels, tile.corner, inside_of(0));
#pragma unroll(UNROLLED ? REACH_H : 1)
    for (int r = 0; r < REACH_H; r += STEP) {
        if (r + STEP < REACH_H && any_row(r + STEP))
            load_row(next, tile.corner + (r + STEP) * line, inside_of(r + STEP));
        add_row(acc, filter, pixels, r);
#pragma unroll
        for (int p = 0; p < REACH_W; p++)
            pixels[p] = next[p];
    }
}

extern "C" __global__ void __launch_bounds__(THREADS)
kernel(const uint16_t *x, const uint16_t *w, int tiles, int step, int height, int width, int out_height, int out_width,
       int pad_h, int pad_w@EPILOGUE_PARAMETERS@) {
    extern __shared__ __align__(1024) unsigned char memory[];
    const int run = blockIdx.x % BLOCKS * BR + threadIdx.x % BR, place = threadIdx.x / BR, column = run * 8;
    const bool live = place < PLACES && run < RUNS;
    const Shape shape{height, width, out_height, out_width, pad_h, pad_w};
    launch_dependents();
    const Filter filter(w, memory, run, live);
    Columns columns;
    if (live)
        load_constant_columns(columns, column@EPILOGUE_NAMES@);
    int number = blockIdx.x / BLOCKS * PLACES + place;
    Tile tile(x, number, shape, column);
    tile.settle();
    wait_for_inputs_after(tile.corner);
    if (!live)
        return;
    load_columns(columns, column@EPILOGUE_NAMES@);
#pragma unroll 1
    for (int n = 0; n < REPEAT && number < tiles; n++, number += step) {
        if (n > 0)
            tile = Tile(x, number, shape, column);
        const int oy = tile.oy, ox = tile.ox, first = (tile.image * out_height + oy) * out_width + ox;
        Cells cells[TH][TW];
#pragma unroll
        for (int i = 0; i < TH; i++)
#pragma unroll
            for (int j = 0; j < TW; j++)
                if (oy + i < out_height && ox + j < out_width)
                    load_cells(cells[i][j], first + i * out_width + j, column@EPILOGUE_NAMES@);
        float acc[TH][TW][8] = {};
        add_window(acc, filter, shape, tile);
#pragma unroll
        for (int i = 0; i < TH; i++)
#pragma unroll
            for (int j = 0; j < TW; j++)
                if (oy + i < out_height && ox + j < out_width)
                    finish(acc[i][j], columns, cells[i][j], first + i * out_width + j, column@EPILOGUE_NAMES@);
    }
}
