// Attention with the keys and values of a whole head in shared memory: o = softmax(q k^T SCALE + mask) v.
//
// A warpgroup takes 64 queries of the CTA's head at a time, ROUNDS times, while all it needs of the next 64 is q. Keys
// are STEPS times KEYS for each of SPLIT parts: SPLIT warpgroups have the same queries, each its part of the keys, and
// their sums are added where they are stored. Scores stay in registers, and become the left side of the product with v
// there, which goes on while the next step's scores are softened. A row that is masked entirely gives 0.

@INSTRUCTIONS@

@SCALARS@

@HEADS@

@PRODUCTS@

constexpr int TEAM = 128 * SPLIT;            // threads that have the same queries
constexpr int THREADS = TEAM * GROUPS;
constexpr int PART = STEPS * KEYS, ROWS = SPLIT * PART;
static_assert(SPLIT == 1 || ROUNDS == 1);
constexpr int Q_BYTES = 64 * D * 2, KV_BYTES = ROWS * D * 2;
constexpr int STAGED = SPLIT > 1 ? D : 32;   // columns of the result that are staged at once
constexpr int PITCH = STAGED + 8;            // floats of a staged row; the eight spread stores over banks
constexpr int K_AT = GROUPS * Q_BYTES, V_AT = K_AT + KV_BYTES, MASK_AT = V_AT + KV_BYTES;
constexpr int STAGE_AT = MASK_AT + (FLAT ? ROWS * 4 : 0), TOPS_AT = STAGE_AT + THREADS / 2 * PITCH * 4;
constexpr int BARRIERS_AT = TOPS_AT + (SPLIT > 1 ? THREADS / 2 * 8 : 0);

// This thread's part in its CTA: which team, which of its warpgroups, and which of its threads.
struct Place {
    int group, part, thread, lane, warp;
};

// The barriers of what arrives: keys and values of each step of each part, and q of each team.
struct Arrivals {
    uint32_t first;

    uint32_t keys(int step, int part) const { return first + 16 * (step * SPLIT + part); }

    uint32_t values(int step, int part) const { return keys(step, part) + 8; }

    uint32_t q(int group) const { return first + 16 * STEPS * SPLIT + 8 * group; }
};

// Which head a CTA has, as tensor maps count: rows of heads that lie inside rows of all heads begin at `column`.
struct Head {
    int batch, column;
};

inline Head head_of(int number, int heads, int repeat) {
    const int batch = number / heads, h = number % heads / repeat;
    return INSIDE ? Head{settled(batch), settled(h * D)} : Head{settled(batch * (heads / repeat) + h), 0};
}

// The steps of keys that queries before `end` need; at least one, which fetches q for the next round.
inline int steps_of(int end, int queries, int keys, int first_key) {
    const int seen = CAUSAL ? min(keys, end + keys - queries) : keys;
    const int own = min(CAUSAL && SPLIT == 1 ? max(seen, 1) : seen - first_key, PART);
    return FIXED_KEYS > ROWS - KEYS && !CAUSAL ? STEPS : min((own + KEYS - 1) / KEYS, STEPS);
}

// Copies as many rows as the map's box has to blocks of `all` rows.
inline void copy_blocks(uint32_t target, int all, const TensorMap *map, Head head, int row, uint32_t barrier) {
#pragma unroll
    for (int b = 0; b < BLOCKS; b++)
        copy_box(target + b * all * LINE, map, head.column + b * WIDTH, row, head.batch, barrier);
}

inline void copy_step(uint32_t target, const TensorMap *map, Head head, int row, uint32_t barrier) {
    barrier_expect(barrier, KEYS * D * 2);
    copy_blocks(target + row * LINE, ROWS, map, head, row, barrier);
}

inline void copy_q(uint32_t target, const TensorMap *map, Head head, int row, uint32_t barrier) {
    barrier_expect(barrier, Q_BYTES);
    copy_blocks(target, 64, map, head, row, barrier);
}

struct Maps {
    const TensorMap *q, *k, *v;
};

// Copies q of all teams' first round, keys and values. Those of a part have barriers of their own: they are multiplied
// while those of the next part arrive. What none of the CTA waits for is not copied, as it could outlive the CTA.
inline void copy_all(uint32_t shared, const Maps &maps, Head head_of_q, Head head_of_keys, const Arrivals &arrivals,
                     int first_query, int queries, int keys) {
#pragma unroll
    for (int g = 0; g < GROUPS; g++)
        copy_q(shared + g * Q_BYTES, maps.q, head_of_q, first_query + g * 64, arrivals.q(g));
#pragma unroll
    for (int i = 0; i < 2 * STEPS * SPLIT; i++) {
        const int step = i / (2 * SPLIT), part = i % SPLIT, row = part * PART + step * KEYS;
        if (step >= steps_of(first_query + 64 * GROUPS * ROUNDS, queries, keys, part * PART))
            continue;
        if (i / SPLIT % 2 == 0)
            copy_step(shared + K_AT, maps.k, head_of_keys, row, arrivals.keys(step, part));
        else
            copy_step(shared + V_AT, maps.v, head_of_keys, row, arrivals.values(step, part));
    }
}

// Products that are under way until a wait for them; what they read and add to stays as it is until then.
inline void begin_keys(float (&scores)[KEYS / 2], uint32_t q, uint32_t k) {
#pragma unroll
    for (int b = 0; b < BLOCKS; b++) {
        const uint64_t left = rows_operand(q + b * 64 * LINE), right = rows_operand(k + b * ROWS * LINE);
#pragma unroll
        for (int i = 0; i < WIDTH / 16; i++)
            product_scores(scores, left + 2 * i, right + 2 * i, b + i > 0);
    }
    products_commit();
}

inline void begin_values(float (&sums)[BLOCKS][WIDTH / 2], const uint32_t (&weights)[KEYS / 4], uint32_t v) {
#pragma unroll
    for (int b = 0; b < BLOCKS; b++) {
        const uint64_t values = rows_operand(v + b * ROWS * LINE);
#pragma unroll
        for (int i = 0; i < KEYS / 16; i++)
            product_values(sums[b], weights + 4 * i, values + i * LINE);
    }
    products_commit();
}

inline void hold_sums(float (&sums)[BLOCKS][WIDTH / 2]) {
#pragma unroll
    for (int b = 0; b < BLOCKS; b++)
        hold(sums[b]);
}

inline void pack(uint32_t (&weights)[KEYS / 4], const float (&scores)[KEYS / 2]) {
#pragma unroll
    for (int i = 0; i < KEYS / 4; i++)
        weights[i] = pair(scores[2 * i], scores[2 * i + 1]);
}

// What rows are divided by, of all threads that have a part of one, and what their sums are scaled by to be staged.
inline void totals_of_rows(float (&total)[2], float (&scales)[2]) {
#pragma unroll
    for (int e = 0; e < 2; e++) {
        total[e] = across_row(total[e]);
        scales[e] = SPLIT > 1 ? 1.0f : total[e] == 0.0f ? 0.0f : 1.0f / total[e];
    }
}

// Stages columns c * STAGED on of this warp's 16 rows: divided by their sums, or, of parts, with what they are to be
// divided by.
inline void stage(unsigned char *memory, const Place &at, int c, const float (&sums)[BLOCKS][WIDTH / 2],
                  const float (&top)[2], const float (&total)[2], const float (&scales)[2]) {
    const int first = (at.group * SPLIT + at.part) * 64 + at.warp * 16 + at.lane / 4;
#pragma unroll
    for (int e = 0; e < 2; e++) {
        float *const row = reinterpret_cast<float *>(memory + STAGE_AT) + (first + e * 8) * PITCH;
#pragma unroll
        for (int i = 0; i < STAGED / 8; i++) {
            const int column = c * STAGED + i * 8;
            const float *pair = sums[column / WIDTH] + column % WIDTH / 2 + 2 * e;
            *reinterpret_cast<float2 *>(row + i * 8 + at.lane % 4 * 2) =
                make_float2(pair[0] * scales[e], pair[1] * scales[e]);
        }
        if (SPLIT > 1 && at.lane % 4 == 0)
            reinterpret_cast<float2 *>(memory + TOPS_AT)[first + e * 8] = make_float2(top[e], total[e]);
    }
}

// Eight staged columns of row `row` of a team: added up over its parts.
inline void staged_run(float (&acc)[8], const unsigned char *memory, int group, int row, int column) {
    const int first = group * SPLIT * 64 + row;
    const float *const source = reinterpret_cast<const float *>(memory + STAGE_AT) + first * PITCH + column;
    const float2 *const tops = reinterpret_cast<const float2 *>(memory + TOPS_AT) + first;
    float factors[SPLIT] = {1.0f}, best = none(), sum = 0.0f;
    if constexpr (SPLIT > 1) {
#pragma unroll
        for (int p = 0; p < SPLIT; p++)
            best = fmaxf(best, tops[p * 64].x);
        best = best == none() ? 0.0f : best;
#pragma unroll
        for (int p = 0; p < SPLIT; p++) {
            factors[p] = two_to((tops[p * 64].x - best) * UNIT);
            sum += tops[p * 64].y * factors[p];
        }
#pragma unroll
        for (int p = 0; p < SPLIT; p++)
            factors[p] *= sum == 0.0f ? 0.0f : 1.0f / sum;
    }
#pragma unroll
    for (int j = 0; j < 8; j++) {
        acc[j] = source[j] * factors[0];
#pragma unroll
        for (int p = 1; p < SPLIT; p++)
            acc[j] += source[p * 64 * PITCH + j] * factors[p];
    }
}

// Where the rows of a team's queries go, and how many of them there are.
struct Target {
    int row, step, count;
};

inline void store_rows(unsigned char *memory, const Place &at, const float (&sums)[BLOCKS][WIDTH / 2],
                       const float (&top)[2], float (&total)[2], const Target &target@EPILOGUE_PARAMETERS@) {
    constexpr int RUNS = STAGED / 8, AMONG = SPLIT > 1 ? TEAM : 32, ALL = (SPLIT > 1 ? 64 : 16) * RUNS;
    const int member = SPLIT > 1 ? at.thread : at.lane, first_row = SPLIT > 1 ? 0 : at.warp * 16;
    float scales[2];
    totals_of_rows(total, scales);
#pragma unroll
    for (int c = 0; c < D / STAGED; c++) {
        stage(memory, at, c, sums, top, total, scales);
        if constexpr (SPLIT > 1)
            barrier_among(1 + at.group, TEAM);
        else
            __syncwarp();
#pragma unroll
        for (int i = 0; i < (ALL + AMONG - 1) / AMONG; i++) {
            const int run = member + i * AMONG, row = first_row + run / RUNS, column = c * STAGED + run % RUNS * 8;
            if (row >= target.count || (ALL % AMONG && run >= ALL))
                continue;
            const int out = target.row + row * target.step;
            Columns columns;
            load_constant_columns(columns, column@EPILOGUE_NAMES@);
            load_columns(columns, column@EPILOGUE_NAMES@);
            Cells cells;
            load_cells(cells, out, column@EPILOGUE_NAMES@);
            float acc[8];
            staged_run(acc, memory, at.group, row, run % RUNS * 8);
            finish(acc, columns, cells, out, column@EPILOGUE_NAMES@);
        }
        if (SPLIT == 1)
            __syncwarp();
    }
}

extern "C" __global__ void __launch_bounds__(THREADS, RESIDENT)
kernel(const __grid_constant__ TensorMap q, const __grid_constant__ TensorMap k, const __grid_constant__ TensorMap v,
       const MASK_TYPE *mask, int queries, int some_keys, int heads, int64_t mask_batch, int64_t mask_head,
       int64_t mask_row @EPILOGUE_PARAMETERS@) {
    extern __shared__ __align__(1024) unsigned char memory[];
    const uint32_t shared = settled(shared_address(memory));
    const int keys = FIXED_KEYS ? FIXED_KEYS : some_keys, thread = threadIdx.x;
    const Place at = {thread / TEAM, thread / 128 % SPLIT, thread % TEAM, thread % 32, thread / 32 % 4};
    constexpr int QUERIES = 64 * GROUPS * ROUNDS;
    const int chunks = (queries + QUERIES - 1) / QUERIES, number = blockIdx.x / chunks;
    const int first_of_all = blockIdx.x % chunks * QUERIES;
    const Head head_of_q = head_of(number, heads, 1), head_of_keys = head_of(number, heads, REPEAT);
    const Arrivals arrivals = {shared + BARRIERS_AT};
    const uint32_t own_q = shared + at.group * Q_BYTES;
    int first_query = first_of_all + at.group * 64;  // the team's
    float *const staged_mask = reinterpret_cast<float *>(memory + MASK_AT);
    if constexpr (MASK != 0)
        mask += number / heads * mask_batch + number % heads * mask_head;
    if (thread == 0) {
#pragma unroll
        for (int i = 0; i < 2 * STEPS * SPLIT + GROUPS; i++)
            barrier_init(arrivals.first + 8 * i, 1);
        fence_barrier_init();
    }
    __syncthreads();
    launch_dependents();
    wait_for_inputs();
    if (thread == 0)
        copy_all(shared, {&q, &k, &v}, head_of_q, head_of_keys, arrivals, first_of_all, queries, keys);
    if constexpr (FLAT) {
        stage_mask(staged_mask, mask, keys, ROWS, THREADS);
        __syncthreads();
    }

#pragma unroll 1
    for (int round = 0; round < ROUNDS && first_query - at.group * 64 < queries; round++) {
        const int own = first_query + at.warp * 16;  // the warp's first query
        const int steps = steps_of(first_query + 64, queries, keys, at.part * PART), first_key = at.part * PART;
        const bool more = round + 1 < ROUNDS && first_query - at.group * 64 + 64 * GROUPS < queries;
        float sums[BLOCKS][WIDTH / 2] = {}, top[2] = {none(), none()}, total[2] = {}, scores[KEYS / 2];
        uint32_t weights[KEYS / 4];
        const auto soften_step = [&](int step, float (&factors)[2]) {
            const int first = first_key + step * KEYS;
            if (ROUNDS > 1 && step == steps - 1) {
                barrier_among(1 + at.group, TEAM);  // q has been read by all of the team
                if (more && at.thread == 0)
                    copy_q(own_q, &q, head_of_q, first_query + 64 * GROUPS, arrivals.q(at.group));
            }
            if (own >= queries)
                return;
            if (MASK != 0 || CAUSAL || first + KEYS > keys)
                mask_scores(scores, first, keys, own + at.lane / 4, queries, mask, mask_row, staged_mask + first);
            soften(scores, top, total, factors);
        };
        barrier_wait(arrivals.q(at.group), round % 2);
        if (steps > 0) {
            float factors[2];
            barrier_wait(arrivals.keys(0, at.part), 0);
            products_begin();
            begin_keys(scores, own_q, shared + K_AT + first_key * LINE);
            products_wait();
            hold(scores);
            soften_step(0, factors);
            pack(weights, scores);
        }
        // The values of a step are multiplied while the scores of the next one are softened.
#pragma unroll 1
        for (int step = 1; STEPS > 1 && step < steps; step++) {
            const uint32_t row = (first_key + step * KEYS) * LINE;
            float factors[2] = {1.0f, 1.0f};
            barrier_wait(arrivals.keys(step, at.part), 0);
            barrier_wait(arrivals.values(step - 1, at.part), 0);
            hold_sums(sums);
            products_begin();
            begin_keys(scores, own_q, shared + K_AT + row);
            begin_values(sums, weights, shared + V_AT + row - KEYS * LINE);
            products_wait_for_others();
            hold(scores);
            soften_step(step, factors);
            products_wait();
            hold_sums(sums);
#pragma unroll
            for (int i = 0; i < D / 2; i++)
                sums[i / (WIDTH / 2)][i % (WIDTH / 2)] *= factors[i / 2 % 2];
            pack(weights, scores);
        }
        if (steps > 0) {
            barrier_wait(arrivals.values(steps - 1, at.part), 0);
            hold_sums(sums);
            products_begin();
            begin_values(sums, weights, shared + V_AT + (first_key + (steps - 1) * KEYS) * LINE);
            products_wait();
            hold_sums(sums);
        }
        const int batch = number / heads, row_step = INSIDE ? heads : 1;
        const int row_of_first = INSIDE ? batch * queries * heads + number % heads : number * queries;
        const Target target = {row_of_first + first_query * row_step, row_step, queries - first_query};
        store_rows(memory, at, sums, top, total, target@EPILOGUE_NAMES@);
        first_query += 64 * GROUPS;
    }
}
