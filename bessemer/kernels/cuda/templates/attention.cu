// Attention: o = softmax(q k^T SCALE + mask) v, with the softmax kept running over steps of KEYS keys.
//
// A warpgroup has 64 queries of one head; the GROUPS warpgroups of a CTA share the keys. Scores stay in registers, and
// become the left side of the product with v there. A row that is masked entirely gives 0.

@INSTRUCTIONS@

@SCALARS@

@HEADS@

@PRODUCTS@

constexpr int THREADS = 128 * GROUPS;
constexpr int UNITS = D / 8;                 // 16-byte units of a head's row
constexpr int QUERIES = 64 * GROUPS;
constexpr int Q_BYTES = QUERIES * D * 2, K_BYTES = KEYS * D * 2;
constexpr int K_AT = Q_BYTES, V_AT = K_AT + STAGES * K_BYTES;
constexpr int MASK_AT = V_AT + STAGES * K_BYTES;
constexpr int PITCH = D + 8;                 // floats of a staged row of the result; the eight spread stores over banks

// What one head's tensors are in memory, in elements from one row to the next.
struct Head {
    const uint16_t *q, *k, *v;
    int q_step, k_step;
    int row, row_step;  // of the result: row + s * row_step
};

// Head `h` of a batch. Settled, as copies need it.
inline Head head_of(const uint16_t *q, const uint16_t *k, const uint16_t *v, int64_t batch, int h, int queries, int keys,
                    int heads) {
    const int shared_heads = heads / REPEAT, g = h / REPEAT;
    if constexpr (INSIDE) {
        const int64_t first_q = (batch * queries * heads + h) * D, first_k = (batch * keys * shared_heads + g) * D;
        return {settled(q + first_q), settled(k + first_k), settled(v + first_k), heads * D, shared_heads * D,
                static_cast<int>(batch) * queries * heads + h, heads};
    } else {
        const int64_t first_q = (batch * heads + h) * queries * D, first_k = (batch * shared_heads + g) * keys * D;
        return {settled(q + first_q), settled(k + first_k), settled(v + first_k), D, D,
                static_cast<int>(batch * heads + h) * queries, 1};
    }
}

// Where 16-byte unit `unit` of row `row` lies among `rows` rows.
inline uint32_t place(unsigned row, unsigned unit, int rows) {
    const unsigned block = unit / (WIDTH / 8), u = unit % (WIDTH / 8);
    const unsigned turn = LINE == 128 ? row % 8 : row / 2 % 4;
    return block * rows * LINE + row * LINE + ((u ^ turn) << 4);
}

// Copies COUNT rows of a head from row `first` on; those from `end` on are zero.
template <int COUNT> inline void copy_rows(uint32_t target, const uint16_t *source, int first, int end, int step) {
#pragma unroll
    for (int i = 0; i < (COUNT * UNITS + THREADS - 1) / THREADS; i++) {
        const unsigned at = threadIdx.x + i * THREADS, row = at / UNITS, unit = at % UNITS;
        if (COUNT * UNITS % THREADS && at >= COUNT * UNITS)
            break;
        const int r = first + row;
        copy_16(target + place(row, unit, COUNT), source + static_cast<int64_t>(r) * step + unit * 8, r < end ? 16 : 0);
    }
}

inline void copy_keys(unsigned char *memory, const Head &head, int step, int keys, const MASK_TYPE *mask) {
    const uint32_t shared = shared_address(memory), stage = step % STAGES * K_BYTES;
    copy_rows<KEYS>(shared + K_AT + stage, head.k, step * KEYS, keys, head.k_step);
    copy_rows<KEYS>(shared + V_AT + stage, head.v, step * KEYS, keys, head.k_step);
    if constexpr (FLAT)
        stage_mask(reinterpret_cast<float *>(memory + MASK_AT) + step % STAGES * KEYS, mask + step * KEYS * MASK_T,
                   keys - step * KEYS, KEYS, THREADS);
}

extern "C" __global__ void __launch_bounds__(THREADS)
kernel(const uint16_t *q, const uint16_t *k, const uint16_t *v, const MASK_TYPE *mask, int queries, int keys, int heads,
       int64_t mask_batch, int64_t mask_head, int64_t mask_row @EPILOGUE_PARAMETERS@) {
    extern __shared__ __align__(1024) unsigned char memory[];
    const uint32_t shared = shared_address(memory);
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4, group = threadIdx.x / 128;
    const unsigned tiles = (queries + QUERIES - 1) / QUERIES, number = blockIdx.x / tiles;
    const unsigned batch = number / heads, h = number - batch * heads;
    const int first_query = settled((blockIdx.x - number * tiles) * QUERIES);
    const int own = first_query + group * 64 + warp * 16;  // the warp's first query
    const Head head = head_of(q, k, v, batch, h, queries, keys, heads);
    if constexpr (MASK != 0)
        mask += batch * mask_batch + h * mask_head;
    const int end = CAUSAL ? min(keys, first_query + QUERIES + keys - queries) : keys, steps = (end + KEYS - 1) / KEYS;
    launch_dependents();
    wait_for_inputs_after(head.v);
    copy_rows<QUERIES>(shared, head.q, first_query, queries, head.q_step);
#pragma unroll
    for (int s = 0; s < STAGES; s++) {
        if (s < steps)
            copy_keys(memory, head, s, keys, mask);
        copy_commit();
    }

    float sums[BLOCKS][WIDTH / 2] = {}, top[2] = {none(), none()}, total[2] = {};
    for (int step = 0; step < steps; step++) {
        copy_wait<STAGES - 1>();
        fence_async_proxy();
        __syncthreads();
        float scores[KEYS / 2], factors[2];
        const uint32_t stage = step % STAGES * K_BYTES;
        products_begin();
#pragma unroll
        for (int b = 0; b < BLOCKS; b++) {
            const uint64_t left = rows_operand(shared + b * QUERIES * LINE + group * 64 * LINE);
            const uint64_t right = rows_operand(shared + K_AT + stage + b * KEYS * LINE);
#pragma unroll
            for (int i = 0; i < WIDTH / 16; i++)
                product_scores(scores, left + 2 * i, right + 2 * i, b + i > 0);
        }
        products_commit();
        products_wait();
        hold(scores);
        if (MASK != 0 || CAUSAL || (step + 1) * KEYS > keys)
            mask_scores(scores, step * KEYS, keys, own + lane / 4, queries, mask, mask_row,
                        reinterpret_cast<float *>(memory + MASK_AT) + step % STAGES * KEYS);
        soften(scores, top, total, factors);
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
            copy_keys(memory, head, step + STAGES, keys, mask);
        }
        copy_commit();
    }

    if constexpr (CAUSAL)
        copy_wait<0>();  // where no key is seen nobody has waited for q, and the result is staged in its place
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
