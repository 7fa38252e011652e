// Group and instance norms of [images, rows, C] in one pass: clusters hold the rows of some channels in registers.
//
// A cluster of CL CTAs normalises W channels of an image, which are whole groups of CG. A CTA holds a share of the rows:
// each of its LANES threads of a run of eight channels holds up to HOLD. All sums are of distances from a group's first
// element, so that data far from zero keep their digits. Every CTA hands its means and squared deviations to all others
// of the cluster, and adds up all parts in the same order.

constexpr int RUNS = W / 8, THREADS = RUNS * LANES, SLICES = C / W;
constexpr int HALF = THREADS * 32;  // bytes: a thread's eight sums; then its eight sums of squares
constexpr int PIVOT_AT = 2 * HALF, PARTS_AT = PIVOT_AT + W * 4, CHANNELS_AT = PARTS_AT + CL * W * 8;
constexpr int GROUPS_AT = CHANNELS_AT + W * 8, BARRIER_AT = GROUPS_AT + W * 8;

@READ@

// The eight sums of a thread lie in two pieces, so that the threads of a warp write to neighbouring places.
inline uint32_t sums_at(uint32_t half, int thread, int piece) { return half + piece * (THREADS * 16) + thread * 16; }

inline void add_shared(float (&acc)[8], const unsigned char *memory, uint32_t half, int thread) {
#pragma unroll
    for (int piece = 0; piece < 2; piece++) {
        const auto *const values = reinterpret_cast<const float *>(memory + sums_at(half, thread, piece));
#pragma unroll
        for (int j = 0; j < 4; j++)
            acc[4 * piece + j] += values[j];
    }
}

inline int rows_of(int rank, int rows) {
    const int share = (rows + CL - 1) / CL;
    const int left = rows - rank * share;
    return left < 0 ? 0 : min(share, left);
}

extern "C" __global__ void@CLUSTER@ __launch_bounds__(THREADS)
kernel(const ELEMENT *x, const SCALE *scale, const BIAS *bias, int rows@EPILOGUE_PARAMETERS@) {
    extern __shared__ __align__(1024) unsigned char memory[];
    const uint32_t shared = shared_address(memory), barrier = shared + BARRIER_AT;
    auto *const pivots = reinterpret_cast<float *>(memory + PIVOT_AT);
    auto *const parts = reinterpret_cast<float *>(memory + PARTS_AT);  // [CL][W] of mean, from the pivot, and squared deviations
    auto *const channels = reinterpret_cast<float *>(memory + CHANNELS_AT);  // the same of channels
    auto *const groups = reinterpret_cast<float *>(memory + GROUPS_AT);      // mean and 1 / deviation, by channel
    const int rank = blockIdx.x % CL, tile = blockIdx.x / CL, image = tile / SLICES, first = tile % SLICES * W;
    const int run = threadIdx.x % RUNS, lane = threadIdx.x / RUNS, column = first + run * 8;
    if constexpr (CL > 1) {
        if (threadIdx.x == 0) {
            barrier_init(barrier, 1);
            fence_barrier_init();
            barrier_expect(barrier, CL * W * 8);
        }
        cluster_arrive();
    }
    launch_dependents();
    Columns columns;
    load_constant_columns(columns, column@EPILOGUE_NAMES@);
    Run<SCALE> scales;
    Run<BIAS> biases;
    if constexpr (CONSTANT)
        scales = load_run(scale + column), biases = load_run(bias + column);
    wait_for_inputs();
    if constexpr (!CONSTANT)
        scales = load_run(scale + column), biases = load_run(bias + column);

    if (threadIdx.x < W)
        pivots[threadIdx.x] = element_value(x[static_cast<int64_t>(image) * rows * C + first + threadIdx.x / CG * CG]);
    const int own = rows_of(rank, rows), before = image * rows + rank * ((rows + CL - 1) / CL);
    Run<ELEMENT> held[HOLD];
#pragma unroll
    for (int i = 0; i < HOLD; i++)
        if (lane + i * LANES < own)
            held[i] = load_run(x + static_cast<int64_t>(before + lane + i * LANES) * C + column);
    load_columns(columns, column@EPILOGUE_NAMES@);
    __syncthreads();
    float pivot[8], sum[8] = {}, square[8] = {};
#pragma unroll
    for (int j = 0; j < 8; j++)
        pivot[j] = pivots[run * 8 + j];
#pragma unroll
    for (int i = 0; i < HOLD; i++)
        if (lane + i * LANES < own) {
#pragma unroll
            for (int j = 0; j < 8; j++) {
                const float d = element_value(held[i].v[j]) - pivot[j];
                sum[j] += d;
                square[j] += d * d;
            }
        }
#pragma unroll
    for (int half = LANES / 2; half > 0; half /= 2) {  // the upper half of the lanes hand their sums to the lower half
        if (lane >= half && lane < 2 * half) {
#pragma unroll
            for (int piece = 0; piece < 2; piece++) {
                store_shared<4>(shared + sums_at(0, threadIdx.x, piece), sum + 4 * piece);
                store_shared<4>(shared + sums_at(HALF, threadIdx.x, piece), square + 4 * piece);
            }
        }
        __syncthreads();
        if (lane < half) {
            add_shared(sum, memory, 0, threadIdx.x + half * RUNS);
            add_shared(square, memory, HALF, threadIdx.x + half * RUNS);
        }
    }
    if constexpr (CL > 1)
        cluster_wait();
    if (lane == 0) {
#pragma unroll
        for (int j = 0; j < 8; j++) {
            const float off = own ? sum[j] / own : 0.0f;
            const float part[2] = {off, square[j] - off * sum[j]};
            const uint32_t at = shared + PARTS_AT + (rank * W + run * 8 + j) * 8;
            if constexpr (CL == 1)
                store_shared<2>(at, part);
            else
#pragma unroll
                for (int other = 0; other < CL; other++)
                    store_async<2>(address_in(at, other), part, address_in(barrier, other));
        }
    }
    if constexpr (CL > 1)
        barrier_wait(barrier, 0);
    else
        __syncthreads();

    // Channels merge the parts of all CTAs, and groups merge channels.
    if (threadIdx.x < W) {
        float mean = 0.0f, squares = 0.0f;
#pragma unroll
        for (int k = 0; k < CL; k++)
            mean += parts[(k * W + threadIdx.x) * 2] * rows_of(k, rows);
        mean /= rows;
#pragma unroll
        for (int k = 0; k < CL; k++) {
            const float off = parts[(k * W + threadIdx.x) * 2] - mean;
            squares += parts[(k * W + threadIdx.x) * 2 + 1] + off * off * rows_of(k, rows);
        }
        channels[threadIdx.x * 2] = mean;
        channels[threadIdx.x * 2 + 1] = squares;
    }
    __syncthreads();
    if (threadIdx.x < W) {
        const float *const own_group = channels + threadIdx.x / CG * CG * 2;
        float mean = 0.0f, squares = 0.0f;
#pragma unroll 8
        for (int k = 0; k < CG; k++)
            mean += own_group[k * 2];
        mean *= 1.0f / CG;
#pragma unroll 8
        for (int k = 0; k < CG; k++) {
            const float off = own_group[k * 2] - mean;
            squares += own_group[k * 2 + 1] + off * off * rows;
        }
        groups[threadIdx.x * 2] = mean;
        groups[threadIdx.x * 2 + 1] = 1.0f / sqrtf(squares / (static_cast<float>(rows) * CG) + EPSILON);
    }
    __syncthreads();
    float means[8], factors[8];
#pragma unroll
    for (int j = 0; j < 8; j++) {
        means[j] = groups[(run * 8 + j) * 2];
        factors[j] = groups[(run * 8 + j) * 2 + 1] * scale_value(scales.v[j]);
    }
#pragma unroll
    for (int i = 0; i < HOLD; i++)
        if (lane + i * LANES < own) {
            const int row = before + lane + i * LANES;
            Cells cells;
            load_cells(cells, row, column@EPILOGUE_NAMES@);
            float y[8];
#pragma unroll
            for (int j = 0; j < 8; j++)
                y[j] = (element_value(held[i].v[j]) - pivot[j] - means[j]) * factors[j] + bias_value(biases.v[j]);
            finish(y, columns, cells, row, column@EPILOGUE_NAMES@);
        }
}
