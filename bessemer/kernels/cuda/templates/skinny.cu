// Products of few tokens: y[t][n] = sum over k of x[t][k] w[n][k], finished by the problem's epilogue. Batches of
// weights have their own tokens, or share them; the output has the tokens of one batch after the other's.
//
// A CTA sums over KS = 64 CHUNKS elements of k, for BT tokens and BN = 64 NB channels; the CL CTAs of a cluster share
// the sum of one tile. Both its slabs lie in shared memory as a whole, in blocks of 64 (BT) rows of 128 bytes that
// warpgroup products read as they are. Weights are packed that way; since nothing before this kernel writes them, their
// copies start before it waits for the kernels ahead. CTA `rank` of a cluster finishes tokens [rank OWN, (rank + 1) OWN)
// of the tile: it receives all partial sums of these in its shared memory and adds them up in the order of ranks.

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
constexpr int LINE = BN + 4;       // floats of a token's partial sums; the four spread stores over all banks
constexpr int ROW_STEP = THREADS / UNITS;                     // rows between those that a thread copies
constexpr int ROWS = (BT + ROW_STEP - 1) / ROW_STEP;          // rows that a thread copies units of
constexpr int RUNS = BN / UNITS;                              // runs of 8 channels of a tile
constexpr int ITEM_STEP = THREADS / RUNS;                     // tokens between those that a thread finishes
constexpr int ITEMS = (OWN + ITEM_STEP - 1) / ITEM_STEP;      // tokens that a thread finishes
constexpr int W_AT = 0, X_AT = W_AT + NB * CHUNKS * W_BLOCK, PARTS_AT = X_AT + CHUNKS * X_BLOCK;
constexpr int BARRIERS_AT = PARTS_AT + PARTS * OWN * LINE * 4;

struct Shape {
    @SHAPE_FIELDS@
};

@ROWS@

@PRODUCT@

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
    for (int s = 0; s < STEPS; s++)
        barrier_init(shared + BARRIERS_AT + 8 * s, 1);
    fence_barrier_init();
    for (int s = 0; s < STEPS; s++) {
        const uint32_t barrier = shared + BARRIERS_AT + 8 * s, nbytes = chunks_of(s) * W_BLOCK;
        barrier_expect(barrier, NB * nbytes);
        for (int b = 0; b < NB; b++) {
            const int64_t first = (static_cast<int64_t>(block + b) * CL + rank) * CHUNKS + s * STEP;
            copy_bulk(shared + W_AT + (b * CHUNKS + s * STEP) * W_BLOCK, w + first * (W_BLOCK / 2), nbytes, barrier);
        }
    }
}

inline void copy_tokens(uint32_t shared, const Rows &rows, int rank) {
    const int unit = threadIdx.x % UNITS, first = threadIdx.x / UNITS;
#pragma unroll
    for (int c = 0; c < CHUNKS; c++) {
#pragma unroll
        for (int i = 0; i < ROWS; i++) {
            const int r = first + i * ROW_STEP;
            if (BT % ROW_STEP == 0 || r < BT) {
                int nbytes;
                const uint16_t *source = rows.at(i, rank * KS + c * CHUNK, unit * 8, nbytes);
                copy_16(shared + X_AT + c * X_BLOCK + r * 128 + ((unit ^ r % UNITS) << 4), source, nbytes);
            }
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

// Sends the warpgroup's sums to the CTAs that finish their tokens. A thread holds, of 8 tokens and 64 channels at a
// time, tokens 2 (lane % 4) + {0, 1} and channels 16 warp + lane / 4 + {0, 8}.
inline void send(uint32_t shared, const float (&sums)[BT / 2], int part, int block) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
#pragma unroll
    for (int e = 0; e < BT / 2; e++) {
        const int t = e / 4 * 8 + lane % 4 * 2 + e % 2;
        const int channel = block * 64 + warp * 16 + lane / 4 + e / 2 % 2 * 8;
        const uint32_t at = shared + PARTS_AT + ((part * OWN + t % OWN) * LINE + channel) * 4;
        if constexpr (CL > 1)
            store_remote(address_in(at, t / OWN), sums[e]);
        else
            store_shared(at, sums[e]);
    }
}

// The sums of 8 channels of one token, parts in their order.
inline void gather(const float *parts, float (&acc)[8]) {
#pragma unroll
    for (int j = 0; j < 8; j++)
        acc[j] = 0.0f;
#pragma unroll
    for (int p = 0; p < PARTS; p++) {
        const float4 *line = reinterpret_cast<const float4 *>(parts + p * OWN * LINE);
        const float4 a = line[0], b = line[1];
        acc[0] += a.x, acc[1] += a.y, acc[2] += a.z, acc[3] += a.w;
        acc[4] += b.x, acc[5] += b.y, acc[6] += b.z, acc[7] += b.w;
    }
}

extern "C" __global__ void@CLUSTER@ __launch_bounds__(THREADS)
kernel(const uint16_t *x, const uint16_t *w, @SHAPE@@EPILOGUE_PARAMETERS@) {
    extern __shared__ __align__(1024) unsigned char memory[];
    const uint32_t shared = shared_address(memory);
    const int group = threadIdx.x / 128, block = group % NB, slice = group / NB;
    const int rank = blockIdx.x % CL, tile = blockIdx.x / CL, first_token = blockIdx.y * BT, batch = blockIdx.z;
    if (threadIdx.x == 0)
        copy_weights(shared, w, (batch * (gridDim.x / CL) + tile) * NB, rank);
    if constexpr (CL > 1)
        cluster_arrive();  // the others may write here once all CTAs have come this far
    launch_dependents();
    const Shape shape{@SHAPE_NAMES@};
    const Rows rows(x, first_token + threadIdx.x / UNITS, shape, batch);
    const int line = threadIdx.x / RUNS, run = threadIdx.x % RUNS * 8;
    const int before = batch * shape.tokens;  // rows of the output
    const int column = tile * BN + run, token = before + first_token + rank * OWN + line;
    // Rows that this thread finishes: all but those beyond the tile's share or the last token.
    const int end = column < shape.channels ? before + min(shape.tokens, first_token + (rank + 1) * OWN) : 0;
    Columns columns;
    if (token < end)
        load_constant_columns(columns, column@EPILOGUE_NAMES@);
    wait_for_inputs();
    copy_tokens(shared, rows, rank);
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
        fence_copies_before_products();
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
    send(shared, sums, rank * SLICES + slice, block);
    if constexpr (CL > 1) {
        cluster_arrive();
        cluster_wait();
    } else {
        __syncthreads();
    }
    const float *parts = reinterpret_cast<const float *>(memory + PARTS_AT) + line * LINE + run;
#pragma unroll
    for (int i = 0; i < ITEMS; i++)
        if (token + i * ITEM_STEP < end) {
            float acc[8];
            gather(parts + i * ITEM_STEP * LINE, acc);
            finish(acc, columns, cells[i], token + i * ITEM_STEP, column@EPILOGUE_NAMES@);
        }
}
