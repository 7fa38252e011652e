// Products of one or a few rows: y[m][n] = sum over k of x[m][k] w[n][k], finished by the problem's epilogue.
//
// A CTA computes eight neighbours n. Its threads share k in units of eight elements, and hold their units of all eight
// rows of w in registers before this kernel waits for those ahead: what is left then is to read x, and to add up.

constexpr int UNITS = K / 8, TURNS = (UNITS + THREADS - 1) / THREADS;

inline constexpr int eighth(int count) { return (count + 7) / 8; }

// Adds up [COUNT, 8] floats at `parts` to [1, 8]; returns where they lie, behind `parts`.
template <int COUNT> inline float *add_up(float *parts) {
    __syncthreads();
    if constexpr (COUNT == 1) {
        return parts;
    } else {
        constexpr int LEFT = eighth(COUNT);
        float *const sums = parts + COUNT * 8;
        if (threadIdx.x < LEFT * 8) {
            float sum = 0.0f;
#pragma unroll
            for (int i = 0; i < 8; i++)
                if (threadIdx.x / 8 + i * LEFT < COUNT)
                    sum += parts[threadIdx.x + i * LEFT * 8];
            sums[threadIdx.x] = sum;
        }
        return add_up<LEFT>(sums);
    }
}

extern "C" __global__ void __launch_bounds__(THREADS)
kernel(const uint16_t *x, const uint16_t *w, int rows@EPILOGUE_PARAMETERS@) {
    extern __shared__ __align__(1024) unsigned char memory[];
    const int column = blockIdx.x * 8;
    const uint32_t own = shared_address(memory) + threadIdx.x * 32;
    launch_dependents();
    Run<uint16_t> weights[TURNS][8];
#pragma unroll
    for (int t = 0; t < TURNS; t++)
#pragma unroll
        for (int n = 0; n < 8; n++)
            if (threadIdx.x + t * THREADS < UNITS)
                weights[t][n] = load_run(w + static_cast<int64_t>(column + n) * K + (threadIdx.x + t * THREADS) * 8);
    Columns columns;
    if (threadIdx.x == 0)
        load_constant_columns(columns, column@EPILOGUE_NAMES@);
    const uint16_t *const own_x = settled(x + threadIdx.x * 8);
    Run<uint16_t> units[TURNS];  // of the row that comes next
    const auto load = [&](int m) {
#pragma unroll
        for (int t = 0; t < TURNS; t++)
            if (threadIdx.x + t * THREADS < UNITS)
                units[t] = load_run(own_x + static_cast<int64_t>(m) * K + t * THREADS * 8);
    };
    wait_for_inputs_after(own_x);
    load(0);
    if (threadIdx.x == 0)
        load_columns(columns, column@EPILOGUE_NAMES@);
    for (int m = 0; m < rows; m++) {
        Cells cells;
        if (threadIdx.x == 0)
            load_cells(cells, m, column@EPILOGUE_NAMES@);
        float acc[8] = {};
#pragma unroll
        for (int t = 0; t < TURNS; t++)
            if (threadIdx.x + t * THREADS < UNITS) {
#pragma unroll
                for (int c = 0; c < 8; c++)
#pragma unroll
                    for (int n = 0; n < 8; n++)
                        acc[n] += f32_of_@KIND@(units[t].v[c]) * f32_of_@KIND@(weights[t][n].v[c]);
            }
        if (m + 1 < rows)
            load(m + 1);
        store_shared<4>(own, acc);
        store_shared<4>(own + 16, acc + 4);
        const float *const sums = add_up<THREADS>(reinterpret_cast<float *>(memory));
        if (threadIdx.x == 0) {
#pragma unroll
            for (int n = 0; n < 8; n++)
                acc[n] = sums[n];
            finish(acc, columns, cells, m, column@EPILOGUE_NAMES@);
        }
    }
}
