// Products of few tokens: y[t][n] = sum over k of x[t][k] w[n][k], finished by the problem's epilogue. Batches of
// weights have their own tokens, or share them; the output has the tokens of one batch after the other's.
//
// A CTA sums over KS = 64 CHUNKS elements of k, for BT tokens and BN = 64 NB channels; the CL CTAs of a cluster share
// the sum of one tile. Both its slabs lie in shared memory as a whole, in blocks of 64 (BT) rows of 128 bytes that
// warpgroup products read as they are. Weights are packed that way; since nothing before this kernel writes them, their
// copies start before it waits for the kernels ahead. CTA `rank` of a cluster finishes tokens [rank OWN, (rank + 1) OWN)
// of the tile: it receives all partial sums of these in its shared memory and adds them up in the order of ranks.
//
// The tokens of a slab are permuted (see place_of) so that the sums of a thread are neighbours, stored at once.

constexpr int CHUNK = 64;            // elements of k in a row of 128 bytes
constexpr int UNITS = 8;             // 16-byte units in such a row, and in 64 channels
constexpr int BN = 64 * NB;          // channels of a tile
constexpr int THREADS = 128 * NB * SLICES;  // a warpgroup for each block of 64 channels and slice of the sum
constexpr int W_BLOCK = 64 * CHUNK * 2, X_BLOCK = BT * CHUNK * 2;  // bytes
constexpr int STEPS = (CHUNKS + STEP - 1) / STEP;                 // copies that are waited for one by one
constexpr int KS = CHUNK * CHUNKS;
constexpr bool WHOLE = KS * CL == K;
constexpr int OWN = BT / CL;       // tokens that a CTA finishes
constexpr int PARTS = CL * SLICES;   // partial sums of each
constexpr int PERMUTED = BT < 32 ? BT : 32;  // tokens that are permuted among themselves
constexpr int NEIGHBOURS = PERMUTED / 4;     // tokens of these whose sums a thread holds
constexpr int WIDTH = OWN < 4 ? OWN : 4;     // sums that are stored at once
constexpr int PART = BN * OWN + BN / 2;      // floats of a partial sum, see sum_at
constexpr int ROW_STEP = THREADS / UNITS;                     // rows between those that a thread copies
constexpr int ROWS = (BT + ROW_STEP - 1) / ROW_STEP;          // rows that a thread copies units of
constexpr int RUNS = BN / UNITS;                              // runs of 8 channels of a tile
constexpr int ITEM_STEP = THREADS / RUNS;                     // tokens between those that a thread finishes
constexpr int ITEMS = (OWN + ITEM_STEP - 1) / ITEM_STEP;      // tokens that a thread finishes
constexpr int W_AT = 0, X_AT = W_AT + NB * CHUNKS * W_BLOCK, PARTS_AT = X_AT + CHUNKS * X_BLOCK;
constexpr int BARRIERS_AT = PARTS_AT + PARTS * PART * 4, RECEIVED_AT = BARRIERS_AT + 8 * STEPS;
constexpr int RECEIVED = PARTS * BN * OWN * 4;  // bytes of partial sums that the CTAs of a cluster send

struct Shape {
    @SHAPE_FIELDS@
};

@ROWS@

@PRODUCT@

// The row of a slab that holds token t of the tile: products give a thread columns 2 q and 2 q + 1 of every eight.
inline constexpr unsigned place_of(unsigned t) {
    const unsigned j = t % NEIGHBOURS / 2, q = t % PERMUTED / NEIGHBOURS;
    return t - t % PERMUTED + 8 * j + 2 * q + t % 2;
}

// The channel that row r of a block of packed weights is. Other kernels finish products where they are, and want it so.
inline int channel_of(int r) { return r - r % 32 + r / 2 % 4 * 8 + r / 8 % 4 * 2 + r % 2; }

// Where in a partial sum channel and token of the tile lie: tokens are neighbours, and four floats after every eight
// channels spread the reads of `gather` over all banks.
inline constexpr int sum_at(int channel, int t) { return channel * OWN + channel / 8 * 4 + t % OWN; }

// Chunks of step s.
inline constexpr int chunks_of(int s) { return CHUNKS - s * STEP < STEP ? CHUNKS - s * STEP : STEP; }

// Waits until the copies of x of step s have landed; later ones may be under way.
template <int S = 0> inline void wait_for_step(int s) {
    if constexpr (S < STEPS) {
        if (s == S)
            copy_wait<STEPS - 1 - S>();
        else
            wait_for_step<S + 1>(s);
    }
}

inline void copy_weights(uint32_t shared, const uint16_t *w, int block, int rank) {
#pragma unroll
    for (int s = 0; s < STEPS; s++)
        barrier_init(shared + BARRIERS_AT + 8 * s, 1);
    if constexpr (CL > 1)
        barrier_init(shared + RECEIVED_AT, 1);
    fence_barrier_init();
    w += static_cast<int64_t>(block * CL + rank) * (CHUNKS * W_BLOCK / 2);
#pragma unroll(STEPS <= 4 ? STEPS : 1)
    for (int s = 0; s < STEPS; s++) {
        const uint32_t barrier = shared + BARRIERS_AT + 8 * s, nbytes = chunks_of(s) * W_BLOCK;
        barrier_expect(barrier, NB * nbytes);
#pragma unroll
        for (int b = 0; b < NB; b++)
            copy_bulk(shared + W_AT + (b * CHUNKS + s * STEP) * W_BLOCK,
                      w + (b * CL * CHUNKS + s * STEP) * (W_BLOCK / 2), nbytes, barrier);
    }
    if constexpr (CL > 1)
        barrier_expect(shared + RECEIVED_AT, RECEIVED);
}

// Where in chunk 0 the 16 bytes of row i that a thread copies lie. Settled, as every chunk needs it.
struct Targets {
    uint32_t at[ROWS];

    explicit Targets(uint32_t shared) {
        const int unit = threadIdx.x % UNITS, first = threadIdx.x / UNITS;
#pragma unroll
        for (int i = 0; i < ROWS; i++) {
            const unsigned r = place_of(first + i * ROW_STEP);
            at[i] = settled(shared + X_AT + r * 128 + ((unit ^ r % UNITS) << 4));
        }
    }
};

inline void copy_tokens(const Targets &targets, const Rows &rows) {
#pragma unroll
    for (int c = 0; c < CHUNKS; c++) {
        const auto chunk = rows.chunk(c);
#pragma unroll
        for (int i = 0; i < ROWS; i++)
            if (BT % ROW_STEP == 0 || threadIdx.x / UNITS + i * ROW_STEP < BT) {
                int nbytes;
                const uint16_t *source = rows.at(i, chunk, nbytes);
                copy_16(targets.at[i] + c * X_BLOCK, source, nbytes);
            }
        if (c % STEP == STEP - 1 || c == CHUNKS - 1)
            copy_commit();
    }
}

// Adds the products of chunk c to the warpgroup's sums.
inline void multiply(uint32_t shared, float (&sums)[BT / 2], int c, int block) {
    const uint64_t tokens = operand(shared + X_AT + c * X_BLOCK);
    const uint64_t weights = operand(shared + W_AT + (block * CHUNKS + c) * W_BLOCK);
#pragma unroll
    for (int k = 0; k < CHUNK / 16; k++)
        product(sums, weights + 2 * k, tokens + 2 * k);
}

// Sends the warpgroup's sums to the CTAs that finish their tokens. A thread holds, of 8 columns and 64 rows at a time,
// columns 2 (lane % 4) + {0, 1} and rows 16 warp + lane / 4 + {0, 8}.
inline void send(uint32_t shared, const float (&sums)[BT / 2], int rank, int slice, int block) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
    const uint32_t target = shared + PARTS_AT + (rank * SLICES + slice) * PART * 4;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const int channel = block * 64 + channel_of(warp * 16 + half * 8 + lane / 4);
#pragma unroll
        for (int n = 0; n < BT / 4; n += WIDTH) {  // of the thread's tokens
            const int t = n / NEIGHBOURS * PERMUTED + lane % 4 * NEIGHBOURS + n % NEIGHBOURS;
            const uint32_t at = target + sum_at(channel, t) * 4;
            float values[WIDTH];
#pragma unroll
            for (int v = 0; v < WIDTH; v++)
                values[v] = sums[(n + v) / 2 * 4 + half * 2 + v % 2];
            if constexpr (CL == 1)
                store_shared<WIDTH>(at, values);
            else  // to itself as well: a branch for each store takes longer
                store_async<WIDTH>(address_in(at, t / OWN), values, address_in(shared + RECEIVED_AT, t / OWN));
        }
    }
}

// The sums of 8 channels of one token, parts in their order. The eight are a whole run.
inline void gather(const float *parts, int token, int channel, float (&acc)[8]) {
#pragma unroll
    for (int j = 0; j < 8; j++)
        acc[j] = 0.0f;
    const int first = sum_at(channel, token);
#pragma unroll
    for (int p = 0; p < PARTS; p++)
#pragma unroll
        for (int j = 0; j < 8; j++)
            acc[j] += parts[p * PART + first + j * OWN];
}

extern "C" __global__ void@CLUSTER@ __launch_bounds__(THREADS)
kernel(const uint16_t *x, const uint16_t *w, @SHAPE@@EPILOGUE_PARAMETERS@) {
    extern __shared__ __align__(1024) unsigned char memory[];
    const uint32_t shared = shared_address(memory);
    const int group = threadIdx.x / 128, block = group % NB, slice = SLICES > 1 ? group / NB : 0;
    const int rank = blockIdx.x % CL, tile = blockIdx.x / CL, first_token = blockIdx.y * BT, batch = blockIdx.z;
    if (threadIdx.x == 0)
        copy_weights(shared, w, (batch * (gridDim.x / CL) + tile) * NB, rank);
    if constexpr (CL > 1)
        cluster_arrive_relaxed();  // the others may write here once all CTAs have come this far
    launch_dependents();
    const Shape shape{@SHAPE_NAMES@};
    const Rows rows(x, first_token + threadIdx.x / UNITS, rank * KS, threadIdx.x % UNITS * 8, shape, batch);
    const Targets targets(shared);
    const int line = threadIdx.x / RUNS, run = threadIdx.x % RUNS * 8;
    const int before = batch * shape.tokens;  // rows of the output
    const int column = tile * BN + run, token = before + first_token + rank * OWN + line;
    // Rows that this thread finishes: all but those beyond the tile's share or the last token.
    const int end = column < shape.channels ? before + min(shape.tokens, first_token + (rank + 1) * OWN) : 0;
    Columns columns;
    if (token < end)
        load_constant_columns(columns, column@EPILOGUE_NAMES@);
    wait_for_inputs_after(targets.at[0]);
    copy_tokens(targets, rows);
    if (token < end)
        load_columns(columns, column@EPILOGUE_NAMES@);
    Cells cells[ITEMS];
#pragma unroll
    for (int i = 0; i < ITEMS; i++)
        if (token + i * ITEM_STEP < end)
            load_cells(cells[i], token + i * ITEM_STEP, column@EPILOGUE_NAMES@);

    float sums[BT / 2] = {};
#pragma unroll
    for (int s = 0; s < STEPS; s++) {
        wait_for_step(s);
        fence_async_proxy();
        __syncthreads();
        barrier_wait(shared + BARRIERS_AT + 8 * s, 0);
        products_begin();
#pragma unroll
        for (int c = 0; c < chunks_of(s) / SLICES; c++)
            multiply(shared, sums, s * STEP + slice * (chunks_of(s) / SLICES) + c, block);
        products_commit();
    }
    products_wait();

    if constexpr (CL > 1)
        cluster_wait();
    send(shared, sums, rank, slice, block);
    if constexpr (CL > 1)
        barrier_wait(shared + RECEIVED_AT, 0);
    else
        __syncthreads();
    const float *parts = reinterpret_cast<const float *>(memory + PARTS_AT);
#pragma unroll
    for (int i = 0; i < ITEMS; i++)
        if (token + i * ITEM_STEP < end) {
            float acc[8];
            gather(parts, line + i * ITEM_STEP, run, acc);
            finish(acc, columns, cells[i], token + i * ITEM_STEP, column@EPILOGUE_NAMES@);
        }
}
