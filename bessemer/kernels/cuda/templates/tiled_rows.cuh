// The sums of the runs of rows of another tensor. Ahead of the chunks of each tile a stage takes those of its tokens.

inline void copy_sums(uint32_t shared, const float *sums, const Shape &shape, int token, int count) {
    const int stage = count % STAGES, nbytes = max(0, min(BM, shape.tokens - token)) * RUNS * 8;
    wait_for_room(shared, count);
    barrier_expect(shared + FULL_AT + 8 * stage, nbytes);
    if (nbytes > 0)
        copy_bulk(shared + stage * STAGE, sums + static_cast<int64_t>(token) * RUNS * 2, nbytes,
                  shared + FULL_AT + 8 * stage);
}

inline void release(uint32_t shared, const Walk &walk, int count, int all);

// What follows from the sums of each of a thread's tokens.
struct RowValues {
    float of[BLOCKS][2][OF_ROW];
};

// Four lanes add up the runs of a row.
inline void read_sums(RowValues &rows, const unsigned char *memory, uint32_t shared, int first_row, const Walk &walk,
                      int &count, int all@EPILOGUE_PARAMETERS@) {
    const int stage = count % STAGES, lane = threadIdx.x % 32;
    const auto *runs = reinterpret_cast<const float2 *>(memory + stage * STAGE);
    barrier_wait(shared + FULL_AT + 8 * stage, count / STAGES % 2);
    float sums[BLOCKS][2][2];
#pragma unroll
    for (int b = 0; b < BLOCKS; b++)
#pragma unroll
        for (int e = 0; e < 2; e++) {
            const int row = first_row + b * 64 + threadIdx.x / 32 % 4 * 16 + lane / 4 + 8 * e;
            sums[b][e][0] = sums[b][e][1] = 0.0f;
#pragma unroll
            for (int k = 0; k < RUNS; k += 4)
                if (k + lane % 4 < RUNS) {
                    const float2 found = runs[row * RUNS + k + lane % 4];
                    sums[b][e][0] += found.x, sums[b][e][1] += found.y;
                }
        }
#pragma unroll
    for (int distance = 1; distance < 4; distance *= 2)
#pragma unroll
        for (int b = 0; b < BLOCKS; b++)
#pragma unroll
            for (int v = 0; v < 4; v++)
                sums[b][v / 2][v % 2] += __shfl_xor_sync(~0u, sums[b][v / 2][v % 2], distance);
    fence_async_proxy();
    __syncwarp();
    release(shared, walk, count++, all);
#pragma unroll
    for (int b = 0; b < BLOCKS; b++)
#pragma unroll
        for (int e = 0; e < 2; e++)
            finish_row(sums[b][e], rows.of[b][e]@EPILOGUE_NAMES@);
}
