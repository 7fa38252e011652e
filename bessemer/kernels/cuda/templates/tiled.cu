// Products of many tokens: y[t][n] = sum over k of x[t][k] w[n][k], finished by the problem's epilogue. Batches of
// weights share the tokens; the output has the tokens of one batch after the other's.
//
// A CTA walks over tiles of BM tokens and BN channels. Two of its threads copy chunks of 64 elements of k into a ring of
// STAGES stages, one rows of x by tensor copies and one packed weights by bulk copies; GROUPS warpgroups multiply them,
// each BLOCKS times 64 tokens. While they store a tile, the chunks of the next one are under way.
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
constexpr int THREADS = 128 * GROUPS + (TAKE > 0 ? 128 : 64);  // with TAKE, a copying warpgroup gives registers away
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

@WALK@

// Waits until a stage has room for what the ring counts as `count`.
inline void wait_for_room(uint32_t shared, int count) {
    if (count >= STAGES)
        barrier_wait(shared + EMPTY_AT + 8 * (count % STAGES), (count / STAGES - 1) % 2);
}

// What the thread does that copies weights. They do not depend on the kernels ahead, which it does not wait for. Behind
// the last weights come the last ones again: their products are not stored.
inline void copy_weights(uint32_t shared, const uint16_t *w, const Shape &shape, const Walk &walk, const Chunks &chunks,
                         int first_row) {
    constexpr int PIECES = (BN / PIECE + DOWN - 1) / DOWN, UNIT = 8 * CHUNK;  // elements of 8 rows of a chunk
    const int last = walk.rows_of_weights / 64 * shape.batches - 1;
    for (int tile = walk.first, count = 0; tile < walk.end();) {
        int units[PIECES];
#pragma unroll
        for (int p = 0; p < PIECES; p++) {
            const int row = first_row + (p * DOWN + walk.row) * PIECE;
            units[p] = (min(row / 64, last) * shape.chunks + chunks.first) * 8 + row % 64 / 8;
        }
        count += MORE;
#pragma unroll 1
        for (int chunk = chunks.first; chunk < chunks.end; chunk++, count++) {
            const int stage = count % STAGES;
            const uint32_t barrier = shared + FULL_AT + 8 * stage, target = shared + stage * STAGE + BM * 128;
            wait_for_room(shared, count);
            barrier_expect(barrier, STAGE);
#pragma unroll
            for (int p = 0; p < PIECES; p++) {
                const int row = (p * DOWN + walk.row) * PIECE;
                if (BN / PIECE % DOWN != 0 && row >= BN)
                    break;
                const uint16_t *source = w + static_cast<int64_t>(units[p]) * UNIT;
                if constexpr (DOWN > 1)
                    copy_bulk_to_all(target + row * 128, source, PIECE * 128, barrier, ((1 << DOWN) - 1) << walk.peers);
                else
                    copy_bulk(target + row * 128, source, PIECE * 128, barrier);
                units[p] += 8;
            }
        }
        tile += walk.step;
        first_row = walk.weight(walk.at(tile));
    }
}

@ROW_SUMS@

// What the warp does of which a thread copies rows of x; the other one has made the barriers count them.
inline void copy_rows(uint32_t shared, const TensorMap *x@SUMS_PARAMETER@, const Shape &shape, const Walk &walk,
                      const Chunks &chunks, int token) {
    Rows rows(shape);
    rows.start(token, chunks.first);
    rows.settle();
    wait_for_inputs();
    if (threadIdx.x % 32 != 0)
        return;
    for (int tile = walk.first, count = 0; tile < walk.end();) {
        @COPY_SUMS@
#pragma unroll 1
        for (int chunk = chunks.first; chunk < chunks.end; chunk++, count++) {
            const int stage = count % STAGES;
            wait_for_room(shared, count);
            rows.copy_next(shared + stage * STAGE, x, shared + FULL_AT + 8 * stage);
        }
        tile += walk.step;
        token = walk.at(tile).token;
        rows.start(token, chunks.first);
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
inline void multiply(uint32_t shared, float (&sums)[BLOCKS * HALVES][BN / HALVES / 2], int first_row, const Walk &walk,
                     int chunks, int &count, int all) {
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

// What the epilogue reads for a part, and for how many parts it is under way at once.
struct Ahead {
    Columns columns;
    Cells cells[2];
};

constexpr bool ROOMY = SPARE > 0;  // for two tokens at once, inside or not, and loads ahead for more than two parts
constexpr int WORDS = (sizeof(Columns) + (__is_empty(Cells) ? 0 : 2 * sizeof(Cells)) + 3) / 4;  // registers of one part
constexpr int MOST_AHEAD = ROOMY ? 2 + SPARE / WORDS : LEAST_AHEAD;
constexpr int DEPTH = MOST_AHEAD < MOST_PARTS ? MOST_AHEAD : MOST_PARTS;

// Where a thread's sums are: the output's row of the batch's first token, and the token and channel of part 0.
struct Place {
    int batch, first_row, token, channel;

    Place(const Start &start, const Shape &shape, int row)
        : batch(start.batch), first_row(start.batch * shape.tokens), token(start.token + row),
          channel(start.channel + threadIdx.x % 4 * 8) {}

    int token_of(int part, int e) const { return token + part / (BN / 32) * 64 + 8 * e; }

    int channel_of(int part) const { return channel + part % (BN / 32) * 32; }

    // The row and column of the output, or its last ones: what lies outside reads these too, and is not stored.
    int row_of(int part, int e, const Shape &shape) const { return first_row + min(token_of(part, e), shape.tokens - 1); }

    int column_of(int part, const Shape &shape) const { return min(channel_of(part), shape.channels - 8); }
};

// Loads what the epilogue reads for a part. Loads that depended on what is outside would take twice the registers.
inline void load(Ahead &ahead, int part, const Place &place, const Shape &shape@EPILOGUE_PARAMETERS@) {
    const int col = place.column_of(part, shape);
    load_constant_columns(ahead.columns, col@BATCH@@EPILOGUE_NAMES@);
    load_columns(ahead.columns, col@BATCH@@EPILOGUE_NAMES@);
#pragma unroll
    for (int e = 0; e < 2; e++)
        load_cells(ahead.cells[e], place.row_of(part, e, shape), col@EPILOGUE_NAMES@);
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
            const int row = ROOMY ? place.row_of(part, e, shape) : place.first_row + place.token_of(part, e);
            const int col = ROOMY ? place.column_of(part, shape) : place.channel_of(part);
            float acc[8];
#pragma unroll
            for (int j = 0; j < 8; j++)
                acc[j] = sums[part * 16 + j / 2 * 4 + e * 2 + j % 2];
            if (ROOMY || inside)
                finish_if(inside, acc, now.columns, now.cells[e]@OF_ROW@, row, col@EPILOGUE_NAMES@);
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
    const uint32_t shared = settled(shared_address(memory));
    const Shape shape{@SHAPE_NAMES@};
    const Walk walk(shape);
    const Start begin = walk.at(walk.first), first = {settled(begin.token), settled(begin.batch), settled(begin.channel)};
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
            copy_weights(shared, w, shape, walk, own_chunks, walk.weight(first));
        if (warp == 4 * GROUPS + 1)
            copy_rows(shared, &x@SUMS_NAME@, shape, walk, own_chunks, first.token);
        return;
    }
    if constexpr (TAKE > 0)
        registers_take<TAKE>();
    const int first_row = warp / 4 * BLOCKS * 64, all = walk.count() * (own_chunks.count() + MORE);
    float sums[BLOCKS * HALVES][BN / HALVES / 2];
    const int own_row = first_row + warp % 4 * 16 + lane / 4;
    Place place(first, shape, own_row);
    int count = 0;
    wait_for_inputs();
    for (int tile = walk.first; tile < walk.end();) {
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
        tile += walk.step;
        if (tile < walk.end())
            place = Place(walk.at(tile), shape, own_row);
    }
}
