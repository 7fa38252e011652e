// The sums of the runs of rows of another tensor. One warp finishes those of the tokens that its CTA finishes.
inline void finish_rows(unsigned char *memory, const float *sums, const Shape &shape, const Tile &tile@EPILOGUE_PARAMETERS@) {
    wait_for_inputs();
#pragma unroll 1
    for (int part = first_part(tile.rank); part < first_part(tile.rank + 1); part++) {
        const int own = part * 32 + threadIdx.x % 32, row = min(tile.token + own, shape.tokens - 1);
        const auto *runs = reinterpret_cast<const float4 *>(sums + static_cast<int64_t>(row) * RUNS * 2);
        float added[2] = {}, of_row[OF_ROW];
#pragma unroll
        for (int k = 0; k < RUNS / 2; k++) {
            const float4 two = runs[k];
            added[0] += two.x + two.z, added[1] += two.y + two.w;
        }
        finish_row(added, of_row@EPILOGUE_NAMES@);
#pragma unroll
        for (int k = 0; k < OF_ROW; k++)
            reinterpret_cast<float *>(memory + ROWS_AT)[own * OF_ROW + k] = of_row[k];
    }
    barrier_among(1, 128 * BLOCKS + 32);
}
