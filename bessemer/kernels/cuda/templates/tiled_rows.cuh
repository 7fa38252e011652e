// The sums of the runs of rows of another tensor. Behind the chunks of each tile a stage takes those of its tokens.

inline void copy_sums(uint32_t shared, const float *sums, const Shape &shape, int token, int count) {
    const int stage = count % STAGES, nbytes = max(0, min(BM, shape.tokens - token)) * shape.runs * 8;
    if (count >= STAGES)
        barrier_wait(shared + EMPTY_AT + 8 * stage, (count / STAGES - 1) % 2);
    barrier_expect(shared + FULL_AT + 8 * stage, nbytes);
    if (nbytes > 0)
        copy_bulk(shared + stage * STAGE, sums + static_cast<int64_t>(token) * shape.runs * 2, nbytes,
                  shared + FULL_AT + 8 * stage);
}

inline void release(uint32_t shared, const Walk &walk, int count, int all);

// Of each of a thread's tokens.
struct RowSums {
    float of[BLOCKS][2][2];
};

// Four lanes add up the runs of a row.
inline void read_sums(RowSums &rows, const unsigned char *memory, uint32_t shared, int first_row, const Shape &shape,
                      const Walk &walk, int &count, int all) {
    const int stage = count % STAGES, lane = threadIdx.x % 32;
    const auto *runs = reinterpret_cast<const float2 *>(memory + stage * STAGE);
    barrier_wait(shared + FULL_AT + 8 * stage, count / STAGES % 2);
#pragma unroll
    for (int b = 0; b < BLOCKS; b++)
#pragma unroll
        for (int e = 0; e < 2; e++) {
            const int row = first_row + b * 64 + threadIdx.x / 32 % 4 * 16 + lane / 4 + 8 * e;
            float sum = 0.0f, squares = 0.0f;
            for (int run = lane % 4; run < shape.runs; run += 4) {
                const float2 found = runs[row * shape.runs + run];
                sum += found.x, squares += found.y;
            }
#pragma unroll
            for (int distance = 1; distance < 4; distance *= 2) {
                sum += __shfl_xor_sync(~0u, sum, distance);
                squares += __shfl_xor_sync(~0u, squares, distance);
            }
            rows.of[b][e][0] = sum, rows.of[b][e][1] = squares;
        }
    release(shared, walk, count++, all);
}
