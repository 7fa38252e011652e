// Rows of x [rows, C] to zero mean (CENTER) and unit variance, finished by the problem's epilogue.
//
// LANES threads of a warp hold a row, runs of eight neighbours each; a warp takes every so many rows. What the epilogue
// reads by column is in registers before the inputs are there, and the next row is under way while one is computed.

constexpr int WIDTH = LANES * 8, PIECES = (C + WIDTH - 1) / WIDTH, ROWS = 32 / LANES;

inline float row_sum(float x) {
#pragma unroll
    for (int distance = LANES / 2; distance > 0; distance /= 2)
        x += __shfl_xor_sync(0xffffffffu, x, distance);
    return x;
}

extern "C" __global__ void __launch_bounds__(32 * WARPS)
kernel(const @TYPE@ *x, int rows@EPILOGUE_PARAMETERS@) {
    launch_dependents();
    const int lane = threadIdx.x % LANES, step = gridDim.x * WARPS * ROWS;
    int first = (blockIdx.x * WARPS + threadIdx.x / 32) * ROWS;  // of the warp's rows
    const auto inside = [&](int piece) { return C % WIDTH == 0 || piece * WIDTH + lane * 8 < C; };
    const auto column = [&](int piece) { return min(piece * WIDTH + lane * 8, C - 8); };
    const auto row = [&] { return min(first + static_cast<int>(threadIdx.x) % 32 / LANES, rows - 1); };
    Columns columns[PIECES];
#pragma unroll
    for (int p = 0; p < PIECES; p++)
        load_constant_columns(columns[p], column(p)@EPILOGUE_NAMES@);
    wait_for_inputs();
    Run<@TYPE@> next[PIECES];
    const auto load = [&](int from) {
#pragma unroll
        for (int p = 0; p < PIECES; p++)
            next[p] = load_run(x + static_cast<int64_t>(from) * C + column(p));
    };
    load(row());
#pragma unroll
    for (int p = 0; p < PIECES; p++)
        load_columns(columns[p], column(p)@EPILOGUE_NAMES@);
    for (; first < rows; first += step) {
        float values[PIECES][8], total = 0.0f, squares = 0.0f;
        Cells cells[PIECES];
#pragma unroll
        for (int p = 0; p < PIECES; p++) {
#pragma unroll
            for (int j = 0; j < 8; j++)
                total += values[p][j] = inside(p) ? @VALUE@ : 0.0f;
            load_cells(cells[p], row(), column(p)@EPILOGUE_NAMES@);
        }
        if (first + step < rows)
            load(min(row() + step, rows - 1));
        const float mean = CENTER ? row_sum(total) * (1.0f / C) : 0.0f;
#pragma unroll
        for (int p = 0; p < PIECES; p++)
#pragma unroll
            for (int j = 0; j < 8; j++) {
                values[p][j] = inside(p) ? values[p][j] - mean : 0.0f;
                squares += values[p][j] * values[p][j];
            }
        const float factor = 1.0f / __builtin_sqrtf(row_sum(squares) * (1.0f / C) + @EPSILON@);
#pragma unroll
        for (int p = 0; p < PIECES; p++) {
#pragma unroll
            for (int j = 0; j < 8; j++)
                values[p][j] *= factor;
            if (inside(p) && first + static_cast<int>(threadIdx.x) % 32 / LANES < rows)
                finish(values[p], columns[p], cells[p], row(), column(p)@EPILOGUE_NAMES@);
        }
    }
}
