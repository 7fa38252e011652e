// Products of few tokens whose weights stream from memory into registers: y[t][n] = sum over k of x[t][k] w[n][k],
// finished by the problem's epilogue. Batches of weights share the tokens; the output has the tokens of one batch after
// the other's.
//
// A CTA computes BT tokens and 64 BLOCKS channels, each warpgroup 64 channels of all tokens. A thread copies chunks of 64
// elements of the rows of x into a ring of STAGES stages; weights are packed as the left side of products, DEPTH chunks
// of them under way into each thread's registers: shared memory, which bounds small tiles, holds and hands out x alone.
// All of the CTA's weights are fetched into L2 first, for what registers hold is too little to bridge device memory.
//
// The CTAs of a cluster compute ACROSS neighbouring runs of channels of the same tokens, and copy a part of the rows each
// to all of these. SPLIT such groups share the sum: each adds up a part of k, and finishes a part of its tile.
//
// A thread holds, of eight tokens 8 j + {0 .. 7}, those 2 (lane % 4) + {0, 1} of channels lane / 4 and lane / 4 + 8 of
// its warp's 16. Where it finishes sums, lanes exchange them, so that each has eight channels of one token.

@INSTRUCTIONS@

constexpr int CHUNK = 64;            // elements of k in a row of 128 bytes
constexpr int STAGE = BT * 128;      // bytes
constexpr int PEERS = ACROSS, CLUSTER = SPLIT * PEERS;
constexpr int COPIED = BT / ACROSS;  // rows of x that a CTA copies
constexpr int PARTS = BT / 32;       // 16 sums of a thread each: a token of twice eight channels
constexpr int THREADS = 128 * BLOCKS + 64;
constexpr int LINE = 128 * BLOCKS * 16;  // bytes of four sums of every thread
constexpr int FRAGMENT = 16;             // registers of a chunk of weights

// The parts that a CTA finishes are those from first_part(rank) up to first_part(rank + 1).
inline constexpr int first_part(int rank) { return rank * PARTS / SPLIT; }

constexpr int MOST_PARTS = (PARTS + SPLIT - 1) / SPLIT;                      // of one CTA
constexpr int RECEIVED_AT = STAGES * STAGE;                                  // sums of the other CTAs
constexpr int ROWS_AT = RECEIVED_AT + (SPLIT - 1) * MOST_PARTS * 4 * LINE;   // what follows from the sums of each row
constexpr int ADDED_AT = ROWS_AT + BT * OF_ROW * 4;                          // what warps add up of each row
constexpr int FULL_AT = ADDED_AT + (ADDS ? BT * 4 * BLOCKS * 8 : 0);         // a barrier for every stage
constexpr int EMPTY_AT = FULL_AT + 8 * STAGES;
constexpr int SUMS_AT = EMPTY_AT + 8 * STAGES;  // a barrier that counts the sums of other CTAs

struct Shape {
    @SHAPE_FIELDS@
};

@PRODUCT@

// What a CTA computes: its tile, and its part of the sum.
struct Tile {
    int column, rank, peers;            // CTAs [peers, peers + ACROSS) of the cluster add up the same part of k
    int token, batch, channel;          // where the tile begins
    int64_t block;                      // of the packed weights, the first one of the tile, times chunks
    int first, chunks;                  // of k

    Tile(const Shape &shape)
        : column(ACROSS > 1 ? blockIdx.x % ACROSS : 0), rank(SPLIT > 1 ? blockIdx.x / ACROSS % SPLIT : 0),
          peers(rank * ACROSS) {
        const unsigned number = blockIdx.x / CLUSTER, down = (shape.tokens + BT - 1) / BT;
        const unsigned runs = (shape.channels + 64 * BLOCKS * ACROSS - 1) / (64 * BLOCKS * ACROSS);
        const unsigned across = down > 1 ? number / down : number, of_batch = shape.batches > 1 ? across / runs : 0;
        const int rows = (shape.channels + 63) / 64, row = ((across - of_batch * runs) * ACROSS + column) * BLOCKS;
        token = settled((number - across * down) * BT);
        batch = settled(of_batch);
        channel = settled(row * 64);
        block = static_cast<int64_t>(min(batch * rows + row + static_cast<int>(threadIdx.x / 128), shape.batches * rows - 1)) *
                shape.chunks;
        first = rank * shape.chunks / SPLIT;
        chunks = (rank + 1) * shape.chunks / SPLIT - first;
    }
};

// Waits until a stage has room for chunk `count`.
inline void wait_for_room(uint32_t shared, int count) {
    if (count >= STAGES)
        barrier_wait(shared + EMPTY_AT + 8 * (count % STAGES), (count / STAGES - 1) % 2);
}

// What the warp does of which a thread copies rows of x.
inline void copy_rows(uint32_t shared, const TensorMap *x, const Tile &tile) {
    const int own_row = tile.column * COPIED;
    wait_for_inputs();
    if (threadIdx.x % 32 != 0)
        return;
#pragma unroll 1
    for (int count = 0; count < tile.chunks; count++) {
        const int stage = count % STAGES;
        const uint32_t barrier = shared + FULL_AT + 8 * stage;
        const uint32_t target = shared + stage * STAGE + own_row * 128;
        const int column = (tile.first + count) * CHUNK, row = tile.token + own_row;
        wait_for_room(shared, count);
        barrier_expect(barrier, STAGE);
        if constexpr (ACROSS > 1)
            copy_tile_to_all(target, x, column, row, barrier, ((1 << ACROSS) - 1) << tile.peers);
        else
            copy_tile(target, x, column, row, barrier);
    }
}

// A warp is done with chunk `count`. All CTAs that copied it are told, but not of the last chunks, which nobody waits
// for: those CTAs may be gone.
inline void release(uint32_t shared, const Tile &tile, int count) {
    const int lane = threadIdx.x % 32;
    const uint32_t barrier = shared + EMPTY_AT + 8 * (count % STAGES);
    if (ACROSS == 1 && lane == 0)
        barrier_arrive(barrier);
    if (ACROSS > 1 && lane < ACROSS && count + STAGES < tile.chunks)
        barrier_arrive_at(address_in(barrier, tile.peers + lane));
}

// The next chunk of weights of the warpgroup's channels: the threads' fragments of 16 elements of k, one after another.
inline void load_weights(uint32_t (&weights)[FRAGMENT], const uint16_t *&next) {
#pragma unroll
    for (int k = 0; k < CHUNK / 16; k++)
        load_streamed(weights + 4 * k, next + k * 128 * 8);
    next += 64 * CHUNK;
}

// The warpgroup's sums. DEPTH divides the number of chunks; the first ones are in `weights`.
inline void multiply(uint32_t shared, float (&sums)[BT / 2], uint32_t (&weights)[DEPTH][FRAGMENT], const uint16_t *next,
                     const Tile &tile) {
#pragma unroll 1
    for (int first = 0; first < tile.chunks; first += DEPTH) {
#pragma unroll
        for (int d = 0; d < DEPTH; d++) {
            const int count = first + d, stage = count % STAGES;
            barrier_wait(shared + FULL_AT + 8 * stage, count / STAGES % 2);
            const uint64_t rows = operand(shared + stage * STAGE);
            products_begin();
#pragma unroll
            for (int k = 0; k < CHUNK / 16; k++)
                product(sums, weights[d] + 4 * k, rows + 2 * k, count + k > 0);
            products_commit();
            if (count > 0) {  // all but this chunk's products are done: others may have their registers and their stage
                products_wait_for_others();
                release(shared, tile, count - 1);
                if (count - 1 + DEPTH < tile.chunks)
                    load_weights(weights[(d + DEPTH - 1) % DEPTH], next);
            }
        }
    }
    products_wait();
    release(shared, tile, tile.chunks - 1);
}

@ROW_SUMS@

@SHARED_SUMS@

// The eight values of each of eight lanes with the same lane % 4, turned: value k of lane 4 m becomes value m of lane 4 k.
inline void turn(float (&values)[8]) {
#pragma unroll
    for (int step = 1; step < 8; step *= 2) {
        const bool high = threadIdx.x / 4 & step;
#pragma unroll
        for (int k = 0; k < 8; k++)
            if (!(k & step)) {
                const float other = __shfl_xor_sync(~0u, high ? values[k] : values[k | step], 4 * step);
                (high ? values[k] : values[k | step]) = other;
            }
    }
}

// What the epilogue reads for a part: of twice eight channels.
struct Ahead {
    Cells cells[2];
};

// The token of 32 whose sums a lane finishes.
inline int own_token() { return threadIdx.x / 8 % 4 * 8 + threadIdx.x % 4 * 2 + threadIdx.x / 4 % 2; }

// Where a thread's sums are: the output's row of the batch's first token, and the token and channel of part 0.
struct Place {
    int first_row, token, channel;
};

// Outside the output that is of the last row or channels.
inline void load(Ahead &ahead, int part, const Place &place, const Shape &shape@EPILOGUE_PARAMETERS@) {
#pragma unroll
    for (int e = 0; e < 2; e++)
        load_cells(ahead.cells[e], place.first_row + min(place.token + part * 32, shape.tokens - 1),
                   min(place.channel + 8 * e, shape.channels - 8)@EPILOGUE_NAMES@);
}

// Finishes the parts from FIRST up to END, while what the next one reads is under way.
template <int FIRST, int END>
inline void finish_parts(unsigned char *memory, const float *sums, Ahead &ahead, const Columns (&columns)[2],
                         const Place &place, const Shape &shape@EPILOGUE_PARAMETERS@) {
#pragma unroll
    for (int part = FIRST; part < END; part++) {
        const Ahead now = ahead;
        const int token = place.token + part * 32, row = place.first_row + token;
        if (part + 1 < END)
            load(ahead, part + 1, place, shape@EPILOGUE_NAMES@);
        @OF_ROW_VALUES@
        @RUN_SUMS@
#pragma unroll
        for (int e = 0; e < 2; e++) {
            float acc[8];
#pragma unroll
            for (int k = 0; k < 8; k++)
                acc[k] = sums[part * 16 + k / 2 * 4 + e * 2 + k % 2];
            turn(acc);
            const int col = place.channel + 8 * e;
            if (token < shape.tokens && col < shape.channels)
                finish(acc, columns[e], now.cells[e]@OF_ROW_NAME@, row, col@EPILOGUE_NAMES@);
            @ADD_SUMS@
        }
        @KEEP_SUMS@
    }
}

template <int RANK = 0>
inline void finish_own(unsigned char *memory, float *sums, int rank, Ahead &ahead, const Columns (&columns)[2],
                       const Place &place, const Shape &shape@EPILOGUE_PARAMETERS@) {
    if constexpr (RANK < SPLIT) {
        constexpr int FIRST = first_part(RANK), END = first_part(RANK + 1);
        if (rank == RANK) {
            add_received<FIRST, END>(memory, sums);
            finish_parts<FIRST, END>(memory, sums, ahead, columns, place, shape@EPILOGUE_NAMES@);
        } else {
            finish_own<RANK + 1>(memory, sums, rank, ahead, columns, place, shape@EPILOGUE_NAMES@);
        }
    }
}

@ADDED_ROWS@

extern "C" __global__ void@CLUSTER@ __launch_bounds__(THREADS, 1)
kernel(const __grid_constant__ TensorMap x, const uint16_t *w@SUMS_PARAMETER@, @SHAPE@@EPILOGUE_PARAMETERS@) {
    extern __shared__ __align__(1024) unsigned char memory[];
    const uint32_t shared = settled(shared_address(memory));
    const Shape shape{@SHAPE_NAMES@};
    const Tile tile(shape);
    const int warp = threadIdx.x / 32;
    if (threadIdx.x % 128 == 0 && warp <= 4 * (BLOCKS - 1))
        fetch(w + (tile.block + tile.first) * (64 * CHUNK), tile.chunks * 64 * CHUNK * 2);
    if (threadIdx.x == 128 * BLOCKS) {
        for (int s = 0; s < STAGES; s++) {
            barrier_init(shared + FULL_AT + 8 * s, 1);
            barrier_init(shared + EMPTY_AT + 8 * s, 4 * BLOCKS * ACROSS);
        }
        if constexpr (SPLIT > 1) {
            barrier_init(shared + SUMS_AT, 1);
            barrier_expect(shared + SUMS_AT, (SPLIT - 1) * (first_part(tile.rank + 1) - first_part(tile.rank)) * 4 * LINE);
        }
        fence_barrier_init();
    }
    uint32_t weights[DEPTH][FRAGMENT];
    const uint16_t *next = w + (tile.block + tile.first) * (64 * CHUNK) + threadIdx.x % 128 * 8;
    if (warp < 4 * BLOCKS)
#pragma unroll
        for (int d = 0; d < DEPTH; d++)
            load_weights(weights[d], next);
    __syncthreads();
    if constexpr (CLUSTER > 1)
        cluster_arrive_relaxed();  // the others may write here once all CTAs have come this far
    launch_dependents();
    if (warp >= 4 * BLOCKS) {
        if constexpr (ACROSS > 1)
            cluster_wait();
        if (warp == 4 * BLOCKS)
            copy_rows(shared, &x, tile);
        @FINISH_ROWS@
        return;
    }
    const int channel = tile.channel + warp * 16;
    const Place place{tile.batch * shape.tokens, tile.token + own_token(), channel};
    Columns columns[2];
#pragma unroll
    for (int e = 0; e < 2; e++)
        load_constant_columns(columns[e], min(channel + 8 * e, shape.channels - 8)@EPILOGUE_NAMES@);
    wait_for_inputs();
#pragma unroll
    for (int e = 0; e < 2; e++)
        load_columns(columns[e], min(channel + 8 * e, shape.channels - 8)@EPILOGUE_NAMES@);
    Ahead ahead;
    load(ahead, first_part(tile.rank), place, shape@EPILOGUE_NAMES@);
    float sums[BT / 2];
    multiply(shared, sums, weights, next, tile);
    if constexpr (SPLIT > 1) {
        cluster_wait();
        send(shared, sums, tile.rank);
        barrier_wait(shared + SUMS_AT, 0);
    }
    @WAIT_FOR_ROWS@
    finish_own(memory, sums, tile.rank, ahead, columns, place, shape@EPILOGUE_NAMES@);
    @STORE_ADDED@
}
