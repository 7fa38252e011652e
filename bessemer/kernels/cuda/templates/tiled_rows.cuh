// Sums of the rows of other tensors, of each of a thread's tokens.
struct RowSums {
    float of[BLOCKS][2][2];
};

// Two lanes load the sums of one of a warp's sixteen rows each, and all lanes take those of theirs.
inline void load_rows(RowSums &rows, const Place &place, const Shape &shape@EPILOGUE_PARAMETERS@) {
    const int lane = threadIdx.x % 32, first = place.token - lane / 4 + lane / 2;
#pragma unroll
    for (int b = 0; b < BLOCKS; b++) {
        float own[2];
        load_row(own, place.first_row + min(first + b * 64, shape.tokens - 1), lane % 2@EPILOGUE_NAMES@);
#pragma unroll
        for (int k = 0; k < 2; k++) {
            own[k] += __shfl_xor_sync(~0u, own[k], 1);
#pragma unroll
            for (int e = 0; e < 2; e++)
                rows.of[b][e][k] = __shfl_sync(~0u, own[k], 2 * (lane / 4 + 8 * e));
        }
    }
}
