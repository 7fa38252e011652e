// Products of many tokens: y[t][n] = sum over k of x[t][k] w[n][k], finished by the problem's epilogue. Batches of
// weights share the tokens; the output has the tokens of one batch after the other's.
//
// A CTA walks over tiles of BM tokens and BN channels. One of its threads copies chunks of 64 elements of k into a ring
// of STAGES stages, rows of x by tensor copies and packed weights by bulk copies; GROUPS warpgroups multiply them, each
// BLOCKS times 64 tokens. While they store a tile, the chunks of the next one are under way. With SPLIT > 1 the CTAs of
// a cluster share the sum of one tile: each adds up a part of k, and finishes a part of the tile.
//
// Row 8 j + 2 q + e of 32 rows of packed weights is channel 8 q + 2 j + e: so what a thread holds of a product, two
// neighbours in every eight columns, are eight neighbouring channels.

@INSTRUCTIONS@

constexpr int CHUNK = 64;               // elements of k in a row of 128 bytes
constexpr int BM = 64 * BLOCKS * GROUPS;
constexpr int STAGE = (BM + BN) * 128;  // bytes: rows of x, then of weights
constexpr int PIECE = BN % 64 ? 32 : 64;                      // rows of one copy of weights
constexpr bool HAND_OVER = GROUPS == 2 && BLOCKS * BN >= 256;  // the copying warpgroup's registers go to the others
constexpr int THREADS = 128 * GROUPS + (HAND_OVER ? 128 : 32);
constexpr int FULL_AT = STAGES * STAGE, EMPTY_AT = FULL_AT + 8 * STAGES;  // a barrier for every stage
constexpr int PARTS = BLOCKS * BN / 32;  // 16 sums of a thread each: two tokens of eight channels
constexpr int OWN = PARTS / SPLIT;       // parts that a CTA finishes

struct Shape {
    @SHAPE_FIELDS@
};

@ROWS_OF_X@

@PRODUCT@

// The tiles of a CTA, in bands of BAND tiles of tokens that go through all channels of all batches: they share x and
// weights in L2.
struct Walk {
    int down, columns, across, first, step;  // `columns` tiles of channels in each batch, and all of them

    Walk(const Shape &shape)
        : down((shape.tokens + BM - 1) / BM), columns((shape.channels + BN - 1) / BN), across(columns * shape.batches),
          first(blockIdx.x / SPLIT), step(gridDim.x / SPLIT) {}

    int end() const { return down * across; }

    int token(int tile) const { return (tile / (BAND * across) * BAND + tile % (BAND * across) % height(tile)) * BM; }

    int batch(int tile) const { return tile % (BAND * across) / height(tile) / columns; }

    int channel(int tile) const { return tile % (BAND * across) / height(tile) % columns * BN; }

    // The row of the packed weights, whose batches are whole blocks.
    int weight(int tile) const { return batch(tile) * ((columns * BN + 63) / 64 * 64) + channel(tile); }

    int height(int tile) const { return min(down - tile / (BAND * across) * BAND, BAND); }
};

// The chunks of k that a CTA adds up.
struct Chunks {
    int first, end;

    Chunks(const Shape &shape, int rank)
        : first(rank * shape.chunks / SPLIT), end((rank + 1) * shape.chunks / SPLIT) {}

    int count() const { return end - first; }
};

inline void copy_weights(uint32_t shared, const uint16_t *w, int chunks, int stage, int first_row, int chunk) {
    const uint32_t barrier = shared + FULL_AT + 8 * stage, target = shared + stage * STAGE + BM * 128;
    barrier_expect(barrier, STAGE);
#pragma unroll
    for (int row = 0; row < BN; row += PIECE) {
        const int64_t block = static_cast<int64_t>((first_row + row) / 64) * chunks + chunk;
        const uint16_t *source = w + block * 64 * CHUNK + (first_row + row) % 64 * CHUNK;
        copy_bulk(target + row * 128, source, PIECE * 128, barrier);
    }
}

// What the copying thread does. Weights that find room come before the kernels ahead are done.
inline void copy(uint32_t shared, const TensorMap *x, const uint16_t *w, const Shape &shape, const Walk &walk,
                 const Chunks &chunks) {
    const int early = min(chunks.count(), STAGES);
    for (int c = 0; c < early; c++)
        copy_weights(shared, w, shape.chunks, c, walk.weight(walk.first), chunks.first + c);
    wait_for_inputs();
    int count = 0;
    for (int tile = walk.first; tile < walk.end(); tile += walk.step) {
        const int weight = walk.weight(tile);
        Rows rows(shape, walk.token(tile), chunks.first);
        for (int chunk = chunks.first; chunk < chunks.end; chunk++, count++) {
            const int stage = count % STAGES;
            if (count >= STAGES)
                barrier_wait(shared + EMPTY_AT + 8 * stage, (count / STAGES - 1) % 2);
            if (count >= early)
                copy_weights(shared, w, shape.chunks, stage, weight, chunk);
            rows.copy_next(shared + stage * STAGE, x, shared + FULL_AT + 8 * stage);
        }
    }
}

// A warp is done with what the ring held for chunk `count`.
inline void release(uint32_t shared, int count) {
    if (threadIdx.x % 32 == 0)
        barrier_arrive(shared + EMPTY_AT + 8 * (count % STAGES));
}

// The sums of one tile; `count` is the ring's.
inline void multiply(uint32_t shared, float (&sums)[BLOCKS][BN / 2], int chunks, int &count) {
    const int first_row = threadIdx.x / 128 * BLOCKS * 64;
    for (int c = 0; c < chunks; c++, count++) {
        const int stage = count % STAGES;
        barrier_wait(shared + FULL_AT + 8 * stage, count / STAGES % 2);
        const uint64_t rows = operand(shared + stage * STAGE + first_row * 128);
        const uint64_t weights = operand(shared + stage * STAGE + BM * 128);
        products_begin();
#pragma unroll
        for (int k = 0; k < CHUNK / 16; k++)
#pragma unroll
            for (int b = 0; b < BLOCKS; b++)
                product(sums[b], rows + b * (64 * 128 / 16) + 2 * k, weights + 2 * k, c + k > 0);
        products_commit();
        if (c > 0) {
            products_wait_for_others();
            release(shared, count - 1);
        }
    }
    products_wait();
    release(shared, count - 1);
}

// Sends the parts that other CTAs of the cluster finish to them, and adds theirs to the own ones.
inline void exchange(uint32_t shared, const unsigned char *memory, float *sums, int rank) {
    constexpr int LINE = 128 * GROUPS * 16;  // bytes of four sums of every thread
    cluster_arrive();
    cluster_wait();  // the rings are free
#pragma unroll
    for (int r = 0; r < SPLIT; r++)
        if (r != rank) {
            const int from = rank < r ? rank : rank - 1;
            const uint32_t target = address_in(shared + from * OWN * 4 * LINE + threadIdx.x * 16, r);
#pragma unroll
            for (int v = 0; v < OWN * 4; v++)
                store_remote(target + v * LINE, sums + r * OWN * 16 + v * 4);
        }
    cluster_arrive();
    cluster_wait();
#pragma unroll
    for (int r = 0; r < SPLIT; r++)
        if (r == rank) {
#pragma unroll
            for (int v = 0; v < OWN * 4; v++)
#pragma unroll
                for (int from = 0; from < SPLIT - 1; from++) {
                    const unsigned char *at = memory + (from * OWN * 4 + v) * LINE + threadIdx.x * 16;
                    const float4 other = *reinterpret_cast<const float4 *>(at);
                    float *sum = sums + r * OWN * 16 + v * 4;
                    sum[0] += other.x, sum[1] += other.y, sum[2] += other.z, sum[3] += other.w;
                }
        }
}

// Finishes the parts from FIRST on of a thread whose part 0 begins at (token, channel), in rows of the
// output that begin at `first_row`. What the epilogue reads for a
// part is under way while the one before it is finished; outside the output it is read of the last row or channels, for
// loads that depended on it would take twice the registers.
template <int FIRST>
inline void finish_parts(const float *sums, int first_row, int token, int channel,
                         const Shape &shape@EPILOGUE_PARAMETERS@) {
    Cells cells[2][2];
    const auto token_of = [&](int part, int e) { return token + part / (BN / 32) * 64 + 8 * e; };
    const auto channel_of = [&](int part) { return channel + part % (BN / 32) * 32; };
    const auto load = [&](int part) {
#pragma unroll
        for (int e = 0; e < 2; e++) {
            const int row = first_row + min(token_of(part, e), shape.tokens - 1);
            load_cells(cells[part % 2][e], row, min(channel_of(part), shape.channels - 8)@EPILOGUE_NAMES@);
        }
    };
    load(FIRST);
#pragma unroll
    for (int part = FIRST; part < FIRST + OWN; part++) {
        if (part + 1 < FIRST + OWN)
            load(part + 1);
        const int col = min(channel_of(part), shape.channels - 8);
        Columns columns;
        load_constant_columns(columns, col@EPILOGUE_NAMES@);
        load_columns(columns, col@EPILOGUE_NAMES@);
#pragma unroll
        for (int e = 0; e < 2; e++)
            if (token_of(part, e) < shape.tokens && channel_of(part) < shape.channels) {
                float acc[8];
#pragma unroll
                for (int j = 0; j < 8; j++)
                    acc[j] = sums[part * 16 + j / 2 * 4 + e * 2 + j % 2];
                const int row = first_row + token_of(part, e);
                finish(acc, columns, cells[part % 2][e], row, channel_of(part)@EPILOGUE_NAMES@);
            }
    }
}

template <int RANK = 0>
inline void finish_own(const float *sums, int rank, int first_row, int token, int channel,
                       const Shape &shape@EPILOGUE_PARAMETERS@) {
    if constexpr (RANK < SPLIT) {
        if (rank == RANK)
            finish_parts<RANK * OWN>(sums, first_row, token, channel, shape@EPILOGUE_NAMES@);
        else
            finish_own<RANK + 1>(sums, rank, first_row, token, channel, shape@EPILOGUE_NAMES@);
    }
}

extern "C" __global__ void@CLUSTER@ __launch_bounds__(THREADS, RESIDENT)
kernel(const __grid_constant__ TensorMap x, const uint16_t *w, @SHAPE@@EPILOGUE_PARAMETERS@) {
    extern __shared__ __align__(1024) unsigned char memory[];
    const uint32_t shared = shared_address(memory);
    const Shape shape{@SHAPE_NAMES@};
    const Walk walk(shape);
    const int rank = blockIdx.x % SPLIT, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const Chunks own_chunks(shape, rank);
    if (threadIdx.x == 0) {
        for (int s = 0; s < STAGES; s++) {
            barrier_init(shared + FULL_AT + 8 * s, 1);
            barrier_init(shared + EMPTY_AT + 8 * s, 4 * GROUPS);
        }
        fence_barrier_init();
    }
    __syncthreads();
    launch_dependents();
    if (warp >= 4 * GROUPS) {
        if constexpr (HAND_OVER)
            registers_keep<40>();
        if (warp == 4 * GROUPS && lane == 0)
            copy(shared, &x, w, shape, walk, own_chunks);
        __syncwarp();
        if constexpr (SPLIT > 1) {  // the barriers of `exchange`
            cluster_arrive();
            cluster_wait();
            cluster_arrive();
            cluster_wait();
        }
        return;
    }
    if constexpr (HAND_OVER)
        registers_take<232>();
    float sums[BLOCKS][BN / 2];
    int count = 0;
    wait_for_inputs();
    for (int tile = walk.first; tile < walk.end(); tile += walk.step) {
        multiply(shared, sums, own_chunks.count(), count);
        if constexpr (SPLIT > 1)
            exchange(shared, memory, sums[0], rank);
        const int token = walk.token(tile) + warp / 4 * BLOCKS * 64 + warp % 4 * 16 + lane / 4;
        const int channel = walk.channel(tile) + lane % 4 * 8;
        finish_own(sums[0], rank, walk.batch(tile) * shape.tokens, token, channel, shape@EPILOGUE_NAMES@);
    }
}
