// Sums over rows: of terms [images, rows, channels] over the rows of an image, finished by the problem's epilogue as
// [images, channels].
//
// A CTA adds up BR runs of eight channels; its LANES threads of each run take rows in turns. The CL CTAs of a cluster
// share the rows of an image, and send their sums to the first of them. All parts are added in the same order always.

constexpr int THREADS = BR * LANES, RUNS = C / 8, BLOCKS = (RUNS + BR - 1) / BR;
constexpr int STEP = CL * LANES;  // between the rows of a thread
constexpr int BARRIER_AT = THREADS * 32, RECEIVED_AT = BARRIER_AT + 16;  // bytes; a thread's sums are 32
constexpr int PART = BR * 32;     // bytes of the sums of a CTA

inline void add_shared(float (&acc)[8], const unsigned char *from) {
    const auto *const values = reinterpret_cast<const float *>(from);
#pragma unroll
    for (int j = 0; j < 8; j++)
        acc[j] += values[j];
}

extern "C" __global__ void@CLUSTER@ __launch_bounds__(THREADS)
kernel(int rows@EPILOGUE_PARAMETERS@) {
    extern __shared__ __align__(1024) unsigned char memory[];
    const uint32_t shared = shared_address(memory), barrier = shared + BARRIER_AT;
    const int rank = blockIdx.x % CL, tile = blockIdx.x / CL, image = tile / BLOCKS;
    const int lane = threadIdx.x / BR, run = tile % BLOCKS * BR + threadIdx.x % BR, column = run * 8;
    const bool live = run < RUNS;
    if constexpr (CL > 1) {
        if (threadIdx.x == 0) {
            barrier_init(barrier, 1);
            fence_barrier_init();
            barrier_expect(barrier, rank == 0 ? (CL - 1) * PART : 0);
        }
        cluster_arrive_relaxed();
    }
    launch_dependents();
    TermColumns term_columns;
    Columns columns;
    if (live) {
        load_constant_columns(term_columns, column@EPILOGUE_NAMES@);
        load_constant_columns(columns, column@EPILOGUE_NAMES@);
    }
    wait_for_inputs();
    float acc[8] = {};
    if (live) {
        load_columns(term_columns, column@EPILOGUE_NAMES@);
        load_columns(columns, column@EPILOGUE_NAMES@);
        const int before = image * rows;
        for (int row = rank * LANES + lane; row < rows; row += AHEAD * STEP) {
            TermCells cells[AHEAD];
#pragma unroll
            for (int i = 0; i < AHEAD; i++)
                if (row + i * STEP < rows)
                    load_cells(cells[i], before + row + i * STEP, column@EPILOGUE_NAMES@);
#pragma unroll
            for (int i = 0; i < AHEAD; i++)
                if (row + i * STEP < rows)
                    add_term(acc, term_columns, cells[i], before + row + i * STEP, column@EPILOGUE_NAMES@);
        }
    }
#pragma unroll
    for (int half = LANES / 2; half > 0; half /= 2) {  // the upper half of the lanes hand their sums to the lower half
        if (lane >= half && lane < 2 * half) {
            store_shared<4>(shared + threadIdx.x * 32, acc);
            store_shared<4>(shared + threadIdx.x * 32 + 16, acc + 4);
        }
        __syncthreads();
        if (lane < half)
            add_shared(acc, memory + (threadIdx.x + half * BR) * 32);
    }
    if constexpr (CL > 1) {
        cluster_wait();
        if (rank > 0 && lane == 0) {
            const uint32_t at = address_in(shared + RECEIVED_AT + (rank - 1) * PART + threadIdx.x * 32, 0);
            store_async<4>(at, acc, address_in(barrier, 0));
            store_async<4>(at + 16, acc + 4, address_in(barrier, 0));
        }
        if (rank > 0)
            return;
        barrier_wait(barrier, 0);
        if (lane == 0)
#pragma unroll
            for (int part = 0; part < CL - 1; part++)
                add_shared(acc, memory + RECEIVED_AT + part * PART + threadIdx.x * 32);
    }
    if (lane == 0 && live) {
        Cells cells;
        load_cells(cells, image, column@EPILOGUE_NAMES@);
        finish(acc, columns, cells, image, column@EPILOGUE_NAMES@);
    }
}
