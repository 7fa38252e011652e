// The tokens of a convolution: output pixel t reads a window of x [batch, height, width, C]. Element k of its row is
// channel k % C of tap k / C.
//
// A thread knows of each of its rows where its window begins, and has a bit for every row and column of the filter that
// says whether it is outside the image there: little is left to do for a copy, behind the wait for the kernels ahead.
struct Rows {
    static constexpr int KERNEL_H = K / C / KERNEL_W, BITS = KERNEL_H + KERNEL_W + 1, WORDS = (BITS + 31) / 32;

    const uint16_t *corner[ROWS];  // of row i's window; no pixel of the image where that is outside
    uint32_t outside[ROWS][WORDS];

    // What the thread's copies of a chunk share: where they are from the window's corner, and the bits of their tap.
    struct Chunk {
        uint32_t at, bits[WORDS];

        // What a lane of the warp has, settled.
        Chunk from(int lane) const {
            Chunk found{__shfl_sync(~0u, at, lane), {}};
#pragma unroll
            for (int n = 0; n < WORDS; n++)
                found.bits[n] = __shfl_sync(~0u, bits[n], lane);
            return found;
        }
    } chunks[CHUNKS];

    // Rows from `row` on, of which the thread copies eight elements of every chunk: from k + element on.
    Rows(const uint16_t *x, int row, int k, int element, const Shape &shape, int) {
        const unsigned out_height = shape.out_height, out_width = shape.out_width, width = shape.width;
        unsigned image = 0;
#pragma unroll
        for (int i = 0; i < ROWS; i++) {
            const unsigned t = row + i * ROW_STEP, line = t / out_width;
            unsigned y = line - image * out_height;
            if (i == 0 && y >= out_height)  // there is one image, or the next rows are not far
                image = line / out_height, y -= image * out_height;
#pragma unroll 1
            for (; i > 0 && y >= out_height; image++)
                y -= out_height;
            const int top = y * STRIDE_H - shape.pad_h, left = (t - line * out_width) * STRIDE_W - shape.pad_w;
            const int64_t line_in = static_cast<int>(image * shape.height + top);
            corner[i] = settled(x + (line_in * shape.width + left) * C + (C % CHUNK ? 0 : element));
            uint32_t found[WORDS] = {};
            put(found, BITS - 1, true);
#pragma unroll
            for (int n = 0; n < KERNEL_H; n++)
                put(found, n, static_cast<unsigned>(top + n * DILATION_H) >= shape.height);
#pragma unroll
            for (int n = 0; n < KERNEL_W; n++)
                put(found, KERNEL_H + n, static_cast<unsigned>(left + n * DILATION_W) >= shape.width);
#pragma unroll
            for (int n = 0; n < WORDS; n++)
                outside[i][n] = settled(t < shape.tokens ? found[n] : ~0u);
        }
        const int lane = threadIdx.x % 32;
        Chunk own;
#pragma unroll
        for (int c = 0; c < CHUNKS; c++)
            if constexpr (C % CHUNK == 0 && CL == 1) {
                chunks[c] = chunk_of(c * CHUNK, width);
            } else {  // the lanes of a warp share what there is to compute for four chunks
                if (c % 4 == 0)
                    own = chunk_of(k + (c + lane / UNITS) * CHUNK + (C % CHUNK ? element : 0), width);
                chunks[c] = own.from(c % 4 * UNITS + lane % UNITS);
            }
    }

    static void put(uint32_t (&bits)[WORDS], int bit, bool value) { bits[bit / 32] |= (value ? 1u : 0u) << bit % 32; }

    // All is outside beyond the last tap, which the last bit stands for.
    static Chunk chunk_of(unsigned k, unsigned width) {
        const unsigned tap = k / C, y = tap / KERNEL_W, x = tap % KERNEL_W;
        Chunk found{(y * DILATION_H * width + x * DILATION_W) * C + k % C, {}};
#pragma unroll
        for (unsigned n = 0; n < WORDS; n++) {
            const unsigned high = y - n * 32, low = KERNEL_H + x - n * 32;
            found.bits[n] = (high < 32 ? 1u << high : 0) | (low < 32 ? 1u << low : 0);
        }
        if constexpr (!WHOLE)
            put(found.bits, BITS - 1, k >= K);
        return found;
    }

    const Chunk &chunk(int c) const { return chunks[c]; }

    // Where the 16 bytes of row i are, and how many of them there are: where there are none it may be anywhere.
    const uint16_t *at(int i, const Chunk &chunk, int &nbytes) const {
        bool inside = true;
#pragma unroll
        for (int n = 0; n < WORDS; n++)
            inside = inside && (outside[i][n] & chunk.bits[n]) == 0;
        nbytes = inside ? 16 : 0;
        return corner[i] + chunk.at;
    }
};
