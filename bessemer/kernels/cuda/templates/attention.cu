// Attention: o = softmax(q k^T SCALE + mask) v, with the softmax kept running over steps of KEYS keys.
//
// A warpgroup has 64 queries of one head; the GROUPS warpgroups of a CTA share the keys. Scores stay in registers, and
// become the left side of the product with v there. Rows of a head lie in shared memory in blocks of at most 64 elements
// whose 16-byte units are XORed with the row, as warpgroup products read them. A row that is masked entirely gives 0.

constexpr int WIDTH = D < 64 ? D : 64;       // elements of a head in one block
constexpr int BLOCKS = D / WIDTH;
constexpr int LINE = WIDTH * 2;              // bytes of a block's row
constexpr int UNITS = D / 8;                 // 16-byte units of a head's row
constexpr int THREADS = 128 * GROUPS;
constexpr int QUERIES = 64 * GROUPS;
constexpr int Q_BYTES = QUERIES * D * 2, K_BYTES = KEYS * D * 2;
constexpr int K_AT = Q_BYTES, V_AT = K_AT + STAGES * K_BYTES;
constexpr int PITCH = D + 8;                 // floats of a staged row of the result; the eight spread stores over banks
constexpr int ADD = 1, KEEP = 2;             // what MASK says

inline float none() { return __int_as_float(0xff800000); }  // minus infinity: the score of a key that is masked

@SCALARS@

constexpr float UNIT = 1.4426950408889634f * (MASK == ADD ? 1.0f : SCALE);  // of the scores, in powers of two

@PRODUCTS@

// What one head's tensors are in memory, in elements from one row to the next.
struct Head {
    const uint16_t *q, *k, *v;
    int q_step, k_step;
    int row, row_step;  // of the result: row + s * row_step
};

inline Head head_of(const uint16_t *q, const uint16_t *k, const uint16_t *v, int queries, int keys, int heads) {
    const int tiles = (queries + QUERIES - 1) / QUERIES, number = blockIdx.x / tiles;
    const int64_t batch = number / heads;
    const int h = number % heads, shared_heads = heads / REPEAT, g = h / REPEAT;
    if constexpr (INSIDE) {
        const int64_t first_q = (batch * queries * heads + h) * D, first_k = (batch * keys * shared_heads + g) * D;
        return {q + first_q, k + first_k, v + first_k, heads * D, shared_heads * D,
                static_cast<int>(batch) * queries * heads + h, heads};
    } else {
        const int64_t first_q = (batch * heads + h) * queries * D, first_k = (batch * shared_heads + g) * keys * D;
        return {q + first_q, k + first_k, v + first_k, D, D, static_cast<int>(batch * heads + h) * queries, 1};
    }
}

// Where 16-byte unit `unit` of row `row` lies among `rows` rows.
inline uint32_t place(int row, int unit, int rows) {
    const int block = unit / (WIDTH / 8), u = unit % (WIDTH / 8);
    const int turn = LINE == 128 ? row % 8 : row / 2 % 4;
    return block * rows * LINE + row * LINE + ((u ^ turn) << 4);
}

inline uint64_t rows_operand(uint32_t address) {
    const uint64_t leading = 1, eight_rows = LINE * 8 >> 4, swizzle = LINE == 128 ? 1 : 2;
    return (address & 0x3ffff) >> 4 | leading << 16 | eight_rows << 32 | swizzle << 62;
}

// Copies rows [first, first + COUNT) of a head; those from `end` on are zero.
template <int COUNT> inline void copy_rows(uint32_t target, const uint16_t *source, int first, int end, int step) {
#pragma unroll
    for (int i = 0; i < (COUNT * UNITS + THREADS - 1) / THREADS; i++) {
        const int at = threadIdx.x + i * THREADS, row = at / UNITS, unit = at % UNITS;
        if (COUNT * UNITS % THREADS && at >= COUNT * UNITS)
            break;
        const bool inside = first + row < end;
        copy_16(target + place(row, unit, COUNT), source + (inside ? static_cast<int64_t>(first + row) * step : 0) + unit * 8,
                inside ? 16 : 0);
    }
}

inline void copy_keys(uint32_t shared, const Head &head, int step, int keys) {
    const uint32_t stage = step % STAGES * K_BYTES;
    copy_rows<KEYS>(shared + K_AT + stage, head.k, step * KEYS, keys, head.k_step);
    copy_rows<KEYS>(shared + V_AT + stage, head.v, step * KEYS, keys, head.k_step);
}

// Adds the mask, and takes out what lies beyond the keys. Element i of a thread is of query lane / 4 + 8 (i / 2 % 2) of
// its warp's 16, and key 8 (i / 4) + 2 (lane % 4) + i % 2.
inline void mask_scores(float (&scores)[KEYS / 2], int first, int keys, int query, int queries, const MASK_TYPE *mask,
                        int64_t mask_row) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int i = 0; i < KEYS / 2; i++) {
        const int key = first + i / 4 * 8 + lane % 4 * 2 + i % 2, row = query + i / 2 % 2 * 8;
        const MASK_TYPE *line = mask + min(row, queries - 1) * mask_row;
        bool keep = key < keys && (!CAUSAL || key <= row);
        if constexpr (MASK == ADD)
            scores[i] = scores[i] * SCALE + (keep ? mask_value(line[key * MASK_T]) : 0.0f);
        else if constexpr (MASK == KEEP)
            keep = keep && line[key * MASK_T];
        scores[i] = keep ? scores[i] : none();
    }
}

// One row's part of the running softmax: scores become exponentials; returns the factor of all that was summed before.
template <int ROW> inline float soften(float (&scores)[KEYS / 2], float &top, float &sum) {
    float best = top;
#pragma unroll
    for (int i = 0; i < KEYS / 8; i++)
        best = fmaxf(best, fmaxf(scores[4 * i + 2 * ROW], scores[4 * i + 2 * ROW + 1]));
    best = fmaxf(best, __shfl_xor_sync(~0u, best, 1));
    best = fmaxf(best, __shfl_xor_sync(~0u, best, 2));
    const float base = best == none() ? 0.0f : best;
    const float factor = two_to((top - base) * UNIT);
    float total = 0.0f;
#pragma unroll
    for (int i = 0; i < KEYS / 8; i++)
#pragma unroll
        for (int e = 0; e < 2; e++) {
            float &x = scores[4 * i + 2 * ROW + e];
            // The fused form is one operation less; masks may reach the largest f32, where only the difference is safe.
            x = two_to(MASK == ADD ? (x - base) * UNIT : __fmaf_rn(x, UNIT, -base * UNIT));
            total += x;
        }
    top = best;
    sum = sum * factor + total;
    return factor;
}

inline float across_row(float sum) {
    sum += __shfl_xor_sync(~0u, sum, 1);
    return sum + __shfl_xor_sync(~0u, sum, 2);
}

extern "C" __global__ void __launch_bounds__(THREADS)
kernel(const uint16_t *q, const uint16_t *k, const uint16_t *v, const MASK_TYPE *mask, int queries, int keys, int heads,
       int64_t mask_batch, int64_t mask_head, int64_t mask_row @EPILOGUE_PARAMETERS@) {
    extern __shared__ __align__(1024) unsigned char memory[];
    const uint32_t shared = shared_address(memory);
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4, group = threadIdx.x / 128;
    const int tiles = (queries + QUERIES - 1) / QUERIES, first_query = blockIdx.x % tiles * QUERIES;
    const int own = first_query + group * 64 + warp * 16;  // the warp's first query
    const Head head = head_of(q, k, v, queries, keys, heads);
    const int number = blockIdx.x / tiles;
    if constexpr (MASK != 0)
        mask += number / heads * mask_batch + number % heads * mask_head;
    const int end = CAUSAL ? min(keys, first_query + QUERIES) : keys, steps = (end + KEYS - 1) / KEYS;
    launch_dependents();
    wait_for_inputs();
    copy_rows<QUERIES>(shared, head.q, first_query, queries, head.q_step);
#pragma unroll
    for (int s = 0; s < STAGES; s++) {
        if (s < steps)
            copy_keys(shared, head, s, keys);
        copy_commit();
    }

    float sums[BLOCKS][WIDTH / 2] = {}, top[2] = {none(), none()}, total[2] = {};
    for (int step = 0; step < steps; step++) {
        copy_wait<STAGES - 1>();
        fence_copies_before_products();
        __syncthreads();
        float scores[KEYS / 2] = {};
        const uint32_t stage = step % STAGES * K_BYTES;
        products_begin();
#pragma unroll
        for (int b = 0; b < BLOCKS; b++) {
            const uint64_t left = rows_operand(shared + b * QUERIES * LINE + group * 64 * LINE);
            const uint64_t right = rows_operand(shared + K_AT + stage + b * KEYS * LINE);
#pragma unroll
            for (int i = 0; i < WIDTH / 16; i++)
                product_scores(scores, left + 2 * i, right + 2 * i);
        }
        products_commit();
        products_wait();
        hold(scores);
        if (MASK != 0 || CAUSAL || (step + 1) * KEYS > keys)
            mask_scores(scores, step * KEYS, keys, own + lane / 4, queries, mask, mask_row);
        const float factors[2] = {soften<0>(scores, top[0], total[0]), soften<1>(scores, top[1], total[1])};
#pragma unroll
        for (int b = 0; b < BLOCKS; b++) {
#pragma unroll
            for (int i = 0; i < WIDTH / 2; i++)
                sums[b][i] *= factors[i / 2 % 2];
            hold(sums[b]);
        }
        uint32_t weights[KEYS / 4];
#pragma unroll
        for (int i = 0; i < KEYS / 4; i++)
            weights[i] = pair(scores[2 * i], scores[2 * i + 1]);
        products_begin();
#pragma unroll
        for (int b = 0; b < BLOCKS; b++) {
            const uint64_t values = rows_operand(shared + V_AT + stage + b * KEYS * LINE);
#pragma unroll
            for (int i = 0; i < KEYS / 16; i++)
                product_values(sums[b], weights + 4 * i, values + i * LINE);
        }
        products_commit();
        products_wait();
        if (step + STAGES < steps) {
            __syncthreads();
            copy_keys(shared, head, step + STAGES, keys);
        }
        copy_commit();
    }

    __syncthreads();
    float *staged = reinterpret_cast<float *>(memory) + (group * 64 + warp * 16) * PITCH;
#pragma unroll
    for (int e = 0; e < 2; e++) {
        const float sum = across_row(total[e]), scale = sum == 0.0f ? 0.0f : 1.0f / sum;
#pragma unroll
        for (int b = 0; b < BLOCKS; b++)
#pragma unroll
            for (int i = 0; i < WIDTH / 8; i++)
                *reinterpret_cast<float2 *>(staged + (lane / 4 + e * 8) * PITCH + b * WIDTH + i * 8 + lane % 4 * 2) =
                    make_float2(sums[b][4 * i + 2 * e] * scale, sums[b][4 * i + 2 * e + 1] * scale);
    }
    __syncwarp();
#pragma unroll
    for (int i = 0; i < 16 * UNITS / 32; i++) {
        const int at = lane + i * 32, row = at / UNITS, column = at % UNITS * 8, s = own + row;
        if (s >= queries)
            continue;
        const int out = head.row + s * head.row_step;
        Columns columns;
        load_constant_columns(columns, column@EPILOGUE_NAMES@);
        load_columns(columns, column@EPILOGUE_NAMES@);
        Cells cells;
        load_cells(cells, out, column@EPILOGUE_NAMES@);
        float acc[8];
#pragma unroll
        for (int j = 0; j < 8; j++)
            acc[j] = staged[row * PITCH + column + j];
        finish(acc, columns, cells, out, column@EPILOGUE_NAMES@);
    }
}
