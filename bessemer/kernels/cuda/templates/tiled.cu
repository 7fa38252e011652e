// Products of many tokens: y[t][n] = sum over k of x[t][k] w[n][k], finished by the problem's epilogue. Batches of
// weights share the tokens; the output has the tokens of one batch after the other's.
//
// A CTA walks over tiles of BM tokens and BN channels. One of its threads copies chunks of 64 elements of k into a ring
// of STAGES stages, rows of x by tensor copies and packed weights by bulk copies; GROUPS warpgroups multiply them, each
// BLOCKS times 64 tokens. While they store a tile, the chunks of the next one are under way.
//
// The CTAs of a cluster compute the tiles of DOWN neighbouring runs of tokens, each copies a part of the weights to all
// of these, and SPLIT such groups share the sum: each adds up a part of k, and finishes a part of its tile. With
// SPLIT > 1 a CTA computes one tile alone.
//
// Row 8 j + 2 q + e of 32 rows of packed weights is channel 8 q + 2 j + e: so what a thread holds of a product, two
// neighbours in every eight columns, are eight neighbouring channels.

@INSTRUCTIONS@

constexpr int CHUNK = 64;               // elements of k in a row of 128 bytes
constexpr int BM = 64 * BLOCKS * GROUPS;
constexpr int STAGE = (BM + BN) * 128;  // bytes: rows of x, then of weights
constexpr int CLUSTER = SPLIT * DOWN;
constexpr int THREADS = 128 * GROUPS + (TAKE > 0 ? 128 : 32);  // with TAKE, a copying warpgroup gives registers away
constexpr int PARTS = BLOCKS * BN / 32;  // 16 sums of a thread each: two tokens of eight channels
constexpr int LINE = 128 * GROUPS * 16;  // bytes of four sums of every thread

// The parts that a CTA finishes are those from first_part(rank) up to first_part(rank + 1).
inline constexpr int first_part(int rank) { return rank * PARTS / SPLIT; }

constexpr int MOST_PARTS = (PARTS + SPLIT - 1) / SPLIT;  // of one CTA
constexpr int RECEIVED_AT = STAGES * STAGE;              // sums of the other CTAs
constexpr int FULL_AT = RECEIVED_AT + (SPLIT - 1) * MOST_PARTS * 4 * LINE;  // a barrier for every stage
constexpr int EMPTY_AT = FULL_AT + 8 * STAGES;
constexpr int SUMS_AT = EMPTY_AT + 8 * STAGES;  // a barrier that counts the sums of other CTAs

struct Shape {
    @SHAPE_FIELDS@
};

@ROWS_OF_X@

@PRODUCT@

// The tiles of a cluster, DOWN at once, in bands of BAND rows of such that go through all channels of all batches: they
// share x and weights in L2. CTAs [peers, peers + DOWN) of the cluster add up the same part of k, this one is `row` of
// them.
struct Walk {
    int down, columns, across;  // steps: `columns` in each batch, `across` in all of them
    int first, step, row, peers, rows_of_weights;

    Walk(const Shape &shape)
        : down((shape.tokens + BM * DOWN - 1) / (BM * DOWN)), columns((shape.channels + BN - 1) / BN),
          across(columns * shape.batches), first(blockIdx.x / CLUSTER), step(gridDim.x / CLUSTER),
          row(DOWN > 1 ? blockIdx.x % DOWN : 0), peers(SPLIT > 1 ? blockIdx.x % CLUSTER / DOWN * DOWN : 0),
          rows_of_weights((shape.channels + 63) / 64 * 64) {}

    int end() const { return down * across; }

    int count() const { return first < end() ? (end() - first - 1) / step + 1 : 0; }

    int token(int tile) const {
        return ((tile / (BAND * across) * BAND + tile % (BAND * across) % height(tile)) * DOWN + row) * BM;
    }

    int batch(int tile) const { return tile % (BAND * across) / height(tile) / columns; }

    int channel(int tile) const { return tile % (BAND * across) / height(tile) % columns * BN; }

    // The row of the packed weights, whose batches are whole blocks.
    int weight(int tile) const { return batch(tile) * rows_of_weights + channel(tile); }

    int height(int tile) const { return min(down - tile / (BAND * across) * BAND, BAND); }
};

// The chunks of k that a CTA adds up.
struct Chunks {
    int first, end;

    Chunks(const Shape &shape, int rank)
        : first(rank * shape.chunks / SPLIT), end((rank + 1) * shape.chunks / SPLIT) {}

    int count() const { return end - first; }
};

// Behind the last weights come the last ones again: their products are not stored.
inline void copy_weights(uint32_t shared, const uint16_t *w, const Shape &shape, const Walk &walk, int stage,
                         int first_row, int chunk) {
    const int last = walk.rows_of_weights / 64 * shape.batches - 1;
    const uint32_t barrier = shared + FULL_AT + 8 * stage, target = shared + stage * STAGE + BM * 128;
    barrier_expect(barrier, STAGE);
#pragma unroll
    for (int piece = 0; piece < (BN / PIECE + DOWN - 1) / DOWN; piece++) {
        const int row = (piece * DOWN + walk.row) * PIECE;
        if (BN / PIECE % DOWN != 0 && row >= BN)
            break;
        const int64_t block = static_cast<int64_t>(min((first_row + row) / 64, last)) * shape.chunks + chunk;
        const uint16_t *source = w + block * 64 * CHUNK + (first_row + row) % 64 * CHUNK;
        if constexpr (DOWN > 1)
            copy_bulk_to_all(target + row * 128, source, PIECE * 128, barrier, ((1 << DOWN) - 1) << walk.peers);
        else
            copy_bulk(target + row * 128, source, PIECE * 128, barrier);
    }
}

@ROW_SUMS@

// What the copying thread does. Weights that find room come before the kernels ahead are done.
inline void copy(uint32_t shared, const TensorMap *x, const uint16_t *w@SUMS_PARAMETER@, const Shape &shape,
                 const Walk &walk, const Chunks &chunks) {
    const int early = min(chunks.count() + MORE, STAGES);
    for (int c = MORE; c < early; c++)
        copy_weights(shared, w, shape, walk, c, walk.weight(walk.first), chunks.first + c - MORE);
    wait_for_inputs();
    int count = 0;
    for (int tile = walk.first; tile < walk.end(); tile += walk.step) {
        const int weight = walk.weight(tile);
        @COPY_SUMS@
        Rows rows(shape, walk.token(tile), chunks.first);
        for (int chunk = chunks.first; chunk < chunks.end; chunk++, count++) {
            const int stage = count % STAGES;
            if (count >= STAGES)
                barrier_wait(shared + EMPTY_AT + 8 * stage, (count / STAGES - 1) % 2);
            if (count >= early)
                copy_weights(shared, w, shape, walk, stage, weight, chunk);
            rows.copy_next(shared + stage * STAGE, x, shared + FULL_AT + 8 * stage);
        }
    }
}

// A warp is done with what the ring held for chunk `count` of `all`. All CTAs that copied it are told, but not of the
// last chunks, which nobody waits for: those CTAs may be gone.
inline void release(uint32_t shared, const Walk &walk, int count, int all) {
    const int lane = threadIdx.x % 32;
    const uint32_t barrier = shared + EMPTY_AT + 8 * (count % STAGES);
    if (DOWN == 1 && lane == 0)
        barrier_arrive(barrier);
    if (DOWN > 1 && lane < DOWN && count + STAGES < all)
        barrier_arrive_at(address_in(barrier, walk.peers + lane));
}

// The sums of one tile, of which the warpgroup multiplies the rows from `first_row` on; `count` is the ring's, of `all`.
inline void multiply(uint32_t shared, float (&sums)[BLOCKS * HALVES][BN / HALVES / 2], int first_row, const Walk &walk, int chunks,
                     int &count, int all) {
    for (int c = 0; c < chunks; c++, count++) {
        const int stage = count % STAGES;
        barrier_wait(shared + FULL_AT + 8 * stage, count / STAGES % 2);
        const uint64_t rows = operand(shared + stage * STAGE + first_row * 128);
        const uint64_t weights = operand(shared + stage * STAGE + BM * 128);
        products_begin();
#pragma unroll
        for (int k = 0; k < CHUNK / 16; k++)
#pragma unroll
            for (int b = 0; b < BLOCKS * HALVES; b++)
                product(sums[b], rows + b / HALVES * (64 * 128 / 16) + 2 * k,
                        weights + b % HALVES * (BN / HALVES * 128 / 16) + 2 * k, c + k > 0);
        products_commit();
        if (c > 0) {
            products_wait_for_others();
            release(shared, walk, count - 1, all);
        }
    }
    products_wait();
    release(shared, walk, count - 1, all);
}

@SHARED_SUMS@

// What the epilogue reads for a part.
struct Ahead {
    Columns columns;
    Cells cells[2];
};

// Where a thread's sums are: the output's row of the batch's first token, and the token and channel of part 0.
struct Place {
    int first_row, token, channel;

    int token_of(int part, int e) const { return token + part / (BN / 32) * 64 + 8 * e; }

    int channel_of(int part) const { return channel + part % (BN / 32) * 32; }
};

// Loads what the epilogue reads for a part. Outside the output that is of the last row or channels: loads that depended
// on it would take twice the registers.
inline void load(Ahead &ahead, int part, const Place &place, const Shape &shape@EPILOGUE_PARAMETERS@) {
    const int col = min(place.channel_of(part), shape.channels - 8);
    load_constant_columns(ahead.columns, col@EPILOGUE_NAMES@);
    load_columns(ahead.columns, col@EPILOGUE_NAMES@);
#pragma unroll
    for (int e = 0; e < 2; e++)
        load_cells(ahead.cells[e], place.first_row + min(place.token_of(part, e), shape.tokens - 1), col@EPILOGUE_NAMES@);
}

// Finishes the parts from FIRST up to END, while what later ones read is under way.
template <int FIRST, int END>
inline void finish_parts(const float *sums, Ahead (&ahead)[DEPTH]@ROWS_PARAMETER@, const Place &place,
                         const Shape &shape@EPILOGUE_PARAMETERS@) {
    @RUN_SUMS@
#pragma unroll
    for (int part = FIRST; part < END; part++) {
        Ahead &now = ahead[(part - FIRST) % DEPTH];
#pragma unroll
        for (int e = 0; e < 2; e++) {
            const bool inside = place.token_of(part, e) < shape.tokens && place.channel_of(part) < shape.channels;
            if (!TOGETHER && !inside)
                continue;
            const int row = place.first_row + place.token_of(part, e), col = place.channel_of(part);
            float acc[8];
#pragma unroll
            for (int j = 0; j < 8; j++)
                acc[j] = sums[part * 16 + j / 2 * 4 + e * 2 + j % 2];
            if (inside)
                finish(acc, now.columns, now.cells[e]@OF_ROW@, row, col@EPILOGUE_NAMES@);
            @STORE_SUMS@
        }
        if (part + DEPTH < END)
            load(now, part + DEPTH, place, shape@EPILOGUE_NAMES@);
    }
}

template <int RANK = 0>
inline void finish_own(const unsigned char *memory, float *sums, int rank, Ahead (&ahead)[DEPTH]@ROWS_PARAMETER@,
                       const Place &place, const Shape &shape@EPILOGUE_PARAMETERS@) {
    if constexpr (RANK < SPLIT) {
        constexpr int FIRST = first_part(RANK), END = first_part(RANK + 1);
        if (rank == RANK) {
            add_received<FIRST, END>(memory, sums);
            finish_parts<FIRST, END>(sums, ahead@ROWS@, place, shape@EPILOGUE_NAMES@);
        } else {
            finish_own<RANK + 1>(memory, sums, rank, ahead@ROWS@, place, shape@EPILOGUE_NAMES@);
        }
    }
}

extern "C" __global__ void@CLUSTER@ __launch_bounds__(THREADS, RESIDENT)
kernel(const __grid_constant__ TensorMap x, const uint16_t *w@SUMS_PARAMETER@, @SHAPE@@EPILOGUE_PARAMETERS@) {
    extern __shared__ __align__(1024) unsigned char memory[];
    const uint32_t shared = shared_address(memory);
    const Shape shape{@SHAPE_NAMES@};
    const Walk walk(shape);
    const int rank = SPLIT > 1 ? blockIdx.x / DOWN % SPLIT : 0, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const Chunks own_chunks(shape, rank);
    if (threadIdx.x == 0) {
        for (int s = 0; s < STAGES; s++) {
            barrier_init(shared + FULL_AT + 8 * s, 1);
            barrier_init(shared + EMPTY_AT + 8 * s, 4 * GROUPS * DOWN);
        }
        if constexpr (SPLIT > 1) {
            barrier_init(shared + SUMS_AT, 1);
            barrier_expect(shared + SUMS_AT, (SPLIT - 1) * (first_part(rank + 1) - first_part(rank)) * 4 * LINE);
        }
        fence_barrier_init();
    }
    __syncthreads();
    if constexpr (CLUSTER > 1)
        cluster_arrive_relaxed();  // the others may write here once all CTAs have come this far
    launch_dependents();
    if (warp >= 4 * GROUPS) {
        if constexpr (TAKE > 0)
            registers_keep<KEEP>();
        if constexpr (CLUSTER > 1)
            cluster_wait();
        if (warp == 4 * GROUPS && lane == 0)
            copy(shared, &x, w@SUMS_NAME@, shape, walk, own_chunks);
        return;
    }
    if constexpr (TAKE > 0)
        registers_take<TAKE>();
    const int first_row = warp / 4 * BLOCKS * 64, all = walk.count() * (own_chunks.count() + MORE);
    float sums[BLOCKS * HALVES][BN / HALVES / 2];
    int count = 0;
    wait_for_inputs();
    for (int tile = walk.first; tile < walk.end(); tile += walk.step) {
        const Place place{walk.batch(tile) * shape.tokens, walk.token(tile) + first_row + warp % 4 * 16 + lane / 4,
                          walk.channel(tile) + lane % 4 * 8};
        Ahead ahead[DEPTH];
#pragma unroll
        for (int i = 0; i < DEPTH; i++)
            load(ahead[i], first_part(rank) + i, place, shape@EPILOGUE_NAMES@);
        @READ_SUMS@
        multiply(shared, sums, first_row, walk, own_chunks.count(), count, all);
        if constexpr (SPLIT > 1) {
            cluster_wait();
            send(shared, sums[0], rank);
            barrier_wait(shared + SUMS_AT, 0);
        }
        finish_own(memory, sums[0], rank, ahead@ROWS@, place, shape@EPILOGUE_NAMES@);
        if constexpr (SPLIT > 1)
            return;
    }
}
