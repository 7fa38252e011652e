// Convolutions of few channels: y[t][n] = sum over k of window(t)[k] w[n][k], finished by the problem's epilogue. The
// elements k of a window are its taps, and of each tap the channels.
//
// A CTA holds the whole filter in shared memory. Each of its GROUPS warpgroups walks over tiles of BLOCKS times 64 output
// pixels: blocks WIDE pixels wide, one below the other. It has a ring of STAGES parts of the image with all that a tile's
// windows reach, so that a pixel is copied once for all windows of the tile that it is in, and not for every tap. The
// left sides of products are gathered from there into registers, where a window's rows need not lie as products want them.
//
// Row 8 j + 2 q + e of 32 rows of packed weights is channel 8 q + 2 j + e: so what a thread holds of a product, two
// neighbours in every eight columns, are eight neighbouring channels.

@INSTRUCTIONS@

constexpr int THREADS = 128 * GROUPS;
constexpr int HIGH = 64 / WIDE;        // lines of a block
constexpr int LINE = C * 2;            // bytes of a pixel
constexpr int PART_WIDTH = (WIDE - 1) * STRIDE_X + (KERNEL_X - 1) * DILATION_X + 1;
constexpr int PART_HEIGHT = (HIGH * BLOCKS - 1) * STRIDE_Y + (KERNEL_Y - 1) * DILATION_Y + 1;
constexpr int COPIED = PART_WIDTH * PART_HEIGHT * LINE;
constexpr int STAGE = (COPIED + 1023) / 1024 * 1024;
constexpr int UNITS = KERNEL_Y * KERNEL_X * C / 8;  // of eight elements of a window
constexpr int STEPS = (UNITS + 1) / 2;              // products of 16 elements
constexpr int CHUNKS = (UNITS + 7) / 8;             // of 64 elements, as weights are packed
constexpr int CHUNK = BN * 128;                     // bytes
constexpr int BATCH = BLOCKS > 1 ? 2 : 4;           // steps that are gathered at once
constexpr int PARTS = BLOCKS * BN / 32;             // 16 sums of a thread each: two pixels of eight channels
constexpr int DEPTH = PARTS < 2 ? PARTS : 2;        // parts for which the epilogue's loads are under way at once
constexpr int STAGES_AT = CHUNKS * CHUNK, ZEROS_AT = STAGES_AT + GROUPS * STAGES * STAGE;
constexpr int WEIGHTS_AT = ZEROS_AT + 16, FULL_AT = WEIGHTS_AT + 8;  // barriers: of the weights, and of every stage

struct Shape {
    int images, out_height, out_width, channels;
};

@PRODUCT@

// The tiles of a warpgroup, line by line, and where one begins. Every CTA has one before any has a second.
struct Tile {
    int image, y, x;  // of the first output pixel
};

struct Walk {
    int across, down, all, first, step;

    Walk(const Shape &shape, int group)
        : across((shape.out_width + WIDE - 1) / WIDE), down((shape.out_height + HIGH * BLOCKS - 1) / (HIGH * BLOCKS)),
          all(across * down * shape.images), first(group * gridDim.x + blockIdx.x), step(gridDim.x * GROUPS) {}

    Tile at(int number) const {
        const int line = number / across;
        return {line / down, line % down * (HIGH * BLOCKS), (number - line * across) * WIDE};
    }
};

// All of the filter. It does not depend on the kernels ahead, which nobody waits for here.
inline void copy_filter(uint32_t shared, const uint16_t *w) {
    barrier_expect(shared + WEIGHTS_AT, CHUNKS * CHUNK);
#pragma unroll 1
    for (int chunk = 0; chunk < CHUNKS; chunk++)
#pragma unroll
        for (int row = 0; row < BN; row += 64)
            copy_bulk(shared + chunk * CHUNK + row * 128, w + (row / 64 * CHUNKS + chunk) * (64 * 64),
                      (BN - row < 64 ? BN - row : 64) * 128, shared + WEIGHTS_AT);
}

inline void copy_part(uint32_t target, const TensorMap *map, const Tile &tile, uint32_t barrier) {
    const int x = tile.x * STRIDE_X - PAD_X, y = tile.y * STRIDE_Y - PAD_Y;
    barrier_expect(barrier, COPIED);
    copy_image(target, map, LINES ? x * C : 0, LINES ? 0 : x, y, tile.image, barrier);
}

// Where a unit of a window is from the window's corner.
inline constexpr int place_of(int unit) {
    const int tap = unit * 8 / C;
    return (tap / KERNEL_X * DILATION_Y * PART_WIDTH + tap % KERNEL_X * DILATION_X) * LINE + unit * 8 % C * 2;
}

// Pixels of 16 bytes, of which every other one is read, lie in every other bank: half of eight rows then have the unit
// that the other half does not, which is a pixel further, and registers change places.
constexpr bool SPREAD = C == 8 && STRIDE_X == 2;

// Gathers a step of a block: lanes from 16 on name the second unit of their row. `corner` is that of the lane's row, with
// the second unit's place added where that always lies behind the first one's. Swizzled as the copy has written it.
inline void gather(uint32_t (&fragment)[4], int step, uint32_t corner, uint32_t zeros) {
    const int lane = threadIdx.x % 32;
    uint32_t at = corner + place_of(2 * step);
    if (C % 16 != 0) {
        const bool second = (lane >= 16) != (SPREAD && lane % 8 >= 4), padded = 2 * step + 1 >= UNITS;
        const int next = padded ? 0 : place_of(2 * step + 1) - place_of(2 * step);
        at += second ? next : 0;
        if (padded && second)
            at = zeros;
    }
    at ^= at >> 3 & (SWIZZLE > 0 ? SWIZZLE - 16u : 0u);
    load_fragment(fragment, at);
    if (SPREAD && lane >= 16) {
        const uint32_t first[2] = {fragment[0], fragment[1]};
        fragment[0] = fragment[2], fragment[1] = fragment[3];
        fragment[2] = first[0], fragment[3] = first[1];
    }
}

// The sums of a tile: products of one batch of steps are under way while the next one is gathered.
inline void multiply(float (&sums)[BLOCKS][BN / 2], uint32_t shared, uint32_t corner) {
    uint32_t left[2][BATCH][BLOCKS][4];
#pragma unroll
    for (int first = 0, batch = 0; first < STEPS; first += BATCH, batch ^= 1) {
#pragma unroll
        for (int i = 0; i < BATCH; i++)
#pragma unroll
            for (int b = 0; b < BLOCKS; b++)
                if (first + i < STEPS)
                    gather(left[batch][i][b], first + i, corner + b * HIGH * STRIDE_Y * PART_WIDTH * LINE,
                           shared + ZEROS_AT);
        products_begin();
#pragma unroll
        for (int i = 0; i < BATCH; i++)
#pragma unroll
            for (int b = 0; b < BLOCKS; b++)
                if (const int step = first + i; step < STEPS)
                    product(sums[b], left[batch][i][b], operand(shared + step / 4 * CHUNK) + step % 4 * 2, step > 0);
        products_commit();
        if (first > 0)
            products_wait_for_others();
    }
    products_wait();
#pragma unroll
    for (int b = 0; b < BLOCKS; b++)
        hold(sums[b]);
}

// Where a thread's sums of a tile are.
struct Place {
    const Shape &shape;
    Tile tile;
    int row, channel;  // of a block, and of part 0

    int y(int part, int e) const { return tile.y + part / (BN / 32) * HIGH + (row + 8 * e) / WIDE; }

    int x(int e) const { return tile.x + (row + 8 * e) % WIDE; }

    int channel_of(int part) const { return channel + part % (BN / 32) * 32; }

    bool inside(int part, int e) const {
        return y(part, e) < shape.out_height && x(e) < shape.out_width && channel_of(part) < shape.channels;
    }

    // The row and column of the output, or its last ones: what lies outside reads these too, and is not stored.
    int row_of(int part, int e) const {
        return (tile.image * shape.out_height + min(y(part, e), shape.out_height - 1)) * shape.out_width +
               min(x(e), shape.out_width - 1);
    }

    int column_of(int part) const { return min(channel_of(part), shape.channels - 8); }
};

// What the epilogue reads for a part.
struct Ahead {
    Columns columns;
    Cells cells[2];
};

inline void load(Ahead &ahead, int part, const Place &place@EPILOGUE_PARAMETERS@) {
    load_constant_columns(ahead.columns, place.column_of(part)@EPILOGUE_NAMES@);
    load_columns(ahead.columns, place.column_of(part)@EPILOGUE_NAMES@);
#pragma unroll
    for (int e = 0; e < 2; e++)
        load_cells(ahead.cells[e], place.row_of(part, e), place.column_of(part)@EPILOGUE_NAMES@);
}

inline void finish_tile(const float *sums, Ahead (&ahead)[DEPTH], const Place &place@EPILOGUE_PARAMETERS@) {
#pragma unroll
    for (int part = 0; part < PARTS; part++) {
        Ahead &now = ahead[part % DEPTH];
#pragma unroll
        for (int e = 0; e < 2; e++) {
            float acc[8];
#pragma unroll
            for (int j = 0; j < 8; j++)
                acc[j] = sums[part * 16 + j / 2 * 4 + e * 2 + j % 2];
            finish_if(place.inside(part, e), acc, now.columns, now.cells[e], place.row_of(part, e),
                      place.column_of(part)@EPILOGUE_NAMES@);
        }
        if (part + DEPTH < PARTS)
            load(now, part + DEPTH, place@EPILOGUE_NAMES@);
    }
}

extern "C" __global__ void __launch_bounds__(THREADS, 1)
kernel(const __grid_constant__ TensorMap x, const uint16_t *w, int images, int out_height, int out_width,
       int channels@EPILOGUE_PARAMETERS@) {
    extern __shared__ __align__(1024) unsigned char memory[];
    const uint32_t shared = settled(shared_address(memory));
    const Shape shape{images, out_height, out_width, channels};
    const int group = threadIdx.x / 128, thread = threadIdx.x % 128, warp = thread / 32, lane = thread % 32;
    const Walk walk(shape, group);
    const uint32_t stages = shared + STAGES_AT + group * STAGES * STAGE, full = shared + FULL_AT + group * STAGES * 8;
    if (threadIdx.x == 0) {
        for (int b = 0; b <= GROUPS * STAGES; b++)
            barrier_init(shared + WEIGHTS_AT + 8 * b, 1);
        fence_barrier_init();
        copy_filter(shared, w);
    }
    if (threadIdx.x < 2)
        *reinterpret_cast<uint64_t *>(memory + ZEROS_AT + 8 * threadIdx.x) = 0;
    __syncthreads();
    launch_dependents();
    wait_for_inputs();
    if (thread == 0)
        for (int s = 0, tile = walk.first; s < STAGES && tile < walk.all; s++, tile += walk.step)
            copy_part(stages + s * STAGE, &x, walk.at(tile), full + 8 * s);
    // Of the window's corner of the lane's row in a stage, and the unit of a step that it names.
    const int row = warp * 16 + lane % 16;
    const uint32_t corner =
        (row / WIDE * STRIDE_Y * PART_WIDTH + row % WIDE * STRIDE_X) * LINE + (C % 16 == 0 ? lane / 16 * 16 : 0);
    barrier_wait(shared + WEIGHTS_AT, 0);
    int count = 0;
#pragma unroll 1
    for (int tile = walk.first; tile < walk.all; tile += walk.step, count++) {
        const int stage = count % STAGES;
        const Place place{shape, walk.at(tile), warp * 16 + lane / 4, lane % 4 * 8};
        Ahead ahead[DEPTH];
#pragma unroll
        for (int i = 0; i < DEPTH; i++)
            load(ahead[i], i, place@EPILOGUE_NAMES@);
        float sums[BLOCKS][BN / 2];
        barrier_wait(full + 8 * stage, count / STAGES % 2);
        multiply(sums, anew(shared), stages + stage * STAGE + corner);
        fence_async_proxy();
        barrier_among(1 + group, 128);
        if (const int next = tile + STAGES * walk.step; thread == 0 && next < walk.all)
            copy_part(stages + stage * STAGE, &x, walk.at(next), full + 8 * stage);
        finish_tile(sums[0], ahead, place@EPILOGUE_NAMES@);
    }
}
