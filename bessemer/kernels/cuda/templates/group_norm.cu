// Group and instance norms of [images, rows, C] in one pass: clusters hold the rows of some channels in registers.
//
// A cluster of CL CTAs normalises W channels of an image, which are whole groups of CG. A CTA holds a share of the rows:
// each of its LANES threads of a run of eight channels holds up to HOLD. All sums are of distances from a group's first
// element, so that data far from zero keep their digits. Every CTA hands its means and squared deviations to all others
// of the cluster, and adds up all parts in the same order.

constexpr int RUNS = W / 8, THREADS = RUNS * LANES, SLICES = C / W;
constexpr int SUMS = RUNS * 16, SEGMENTS = LANES / 16;  // a run has eight sums and eight sums of squares
constexpr int SEGMENTS_AT = THREADS * 64, PIVOT_AT = SEGMENTS_AT + THREADS * 4, PARTS_AT = PIVOT_AT + W * 4;
constexpr int CHANNELS_AT = PARTS_AT + CL * W * 8;
constexpr int GROUPS_AT = CHANNELS_AT + W * 8, BARRIER_AT = GROUPS_AT + W * 8;

@READ@

// Where a thread's four pieces of four sums lie: neighbours write and read different banks.
inline uint32_t sums_at(int thread, int piece) { return thread * 64 + ((piece ^ (thread >> 1 & 3)) * 16); }

inline int share_of(int rows) { return static_cast<unsigned>(rows + CL - 1) / CL; }

inline int rows_of(int rank, int rows) {
    const int left = rows - rank * share_of(rows);
    return left < 0 ? 0 : min(share_of(rows), left);
}

extern "C" __global__ void@CLUSTER@ __launch_bounds__(THREADS)
kernel(const ELEMENT *x, const SCALE *scale, const BIAS *bias, int rows@EPILOGUE_PARAMETERS@) {
    extern __shared__ __align__(1024) unsigned char memory[];
    const uint32_t shared = settled(shared_address(memory)), barrier = shared + BARRIER_AT;
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
        cluster_arrive_relaxed();
    }
    launch_dependents();
    Columns columns;
    load_constant_columns(columns, column, image@EPILOGUE_NAMES@);
    Run<SCALE> scales;
    Run<BIAS> biases;
    if constexpr (CONSTANT)
        scales = load_run(scale + column), biases = load_run(bias + column);
    const int own = rows_of(rank, rows), before = image * rows + rank * share_of(rows);
    const int left = settled(own - lane);  // rows from the thread's first one on
    const ELEMENT *const own_x = settled(x + static_cast<int64_t>(before + lane) * C + column);
    const ELEMENT *const pivot_x =
        settled(x + static_cast<int64_t>(image) * rows * C + first + threadIdx.x / CG * CG);
    wait_for_inputs_after(own_x);
    if (threadIdx.x < W)
        pivots[threadIdx.x] = element_value(*pivot_x);
    Run<ELEMENT> held[HOLD];
#pragma unroll
    for (int i = 0; i < HOLD; i++)
        if (i * LANES < left)
            held[i] = load_run(own_x + static_cast<int64_t>(i) * LANES * C);
    if constexpr (!CONSTANT)
        scales = load_run(scale + column), biases = load_run(bias + column);
    load_columns(columns, column, image@EPILOGUE_NAMES@);
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
    for (int piece = 0; piece < 2; piece++) {
        store_shared<4>(shared + sums_at(threadIdx.x, piece), sum + 4 * piece);
        store_shared<4>(shared + sums_at(threadIdx.x, piece + 2), square + 4 * piece);
    }
    __syncthreads();
    auto *const segments = reinterpret_cast<float *>(memory + SEGMENTS_AT);  // [SEGMENTS][SUMS]
    const int own_sum = threadIdx.x % SUMS, first_lane = threadIdx.x / SUMS * 16;
    float total = 0.0f;
#pragma unroll
    for (int i = 0; i < 16; i++) {
        const uint32_t at = sums_at((first_lane + i) * RUNS + own_sum / 16, own_sum % 16 / 4);
        total += reinterpret_cast<const float *>(memory + at)[own_sum % 4];
    }
    segments[threadIdx.x] = total;
    __syncthreads();
    if constexpr (CL > 1)
        cluster_wait();
    if (threadIdx.x < W) {
        const int at_sum = threadIdx.x / 8 * 16 + threadIdx.x % 8;
        float sums = 0.0f, squares = 0.0f;
#pragma unroll
        for (int k = 0; k < SEGMENTS; k++) {
            sums += segments[k * SUMS + at_sum];
            squares += segments[k * SUMS + at_sum + 8];
        }
        const float mean = own ? sums / own : 0.0f, part[2] = {mean, squares - mean * sums};
        const uint32_t at = shared + PARTS_AT + (rank * W + threadIdx.x) * 8;
        if constexpr (CL == 1)
            store_shared<2>(at, part);
        else
#pragma unroll
            for (int other = 0; other < CL; other++)
                store_async<2>(address_in(at, other), part, address_in(barrier, other));
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
