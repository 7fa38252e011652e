// Tokens that are normalised and then multiplied. With mean m and deviation s of a token, and weights w that hold the
// scale, the product is (sum over k of x[k] w[n][k] - m sums[0][n]) / s + sums[1][n]: the sum runs over x as it lies in
// the slab, and threads find m and s of the units that they copied while the products are under way.
//
// Means and squared distances from them (M2) are merged by Chan's formula, so that large means cost no digits. Where
// KEEP, the CTAs of a tile of tokens share the work of storing the normalised tokens, scaled and shifted by affine.
struct Norm {
    static constexpr int STATS_AT = RECEIVED_AT + 8, MOMENTS_AT = STATS_AT + BT * 8;  // [BT] and [8, BT] pairs

    const float *sums, *affine;
    uint16_t *normal;
    float mean[ROWS] = {}, squares[ROWS] = {};
    float by_mean[8] = {}, shift[8] = {};

    Norm(int batch, const float *sums, const float *affine = nullptr, uint16_t *normal = nullptr)
        : sums(sums + static_cast<int64_t>(batch) * 2 * CHANNELS), affine(affine), normal(normal) {}

    // The columns' own numbers.
    void load(int column) {
        const Run<float> m = load_run(sums + column), c = load_run(sums + CHANNELS + column);
#pragma unroll
        for (int j = 0; j < 8; j++)
            by_mean[j] = m.v[j], shift[j] = c.v[j];
    }

    // Eight elements of a chunk, of the i-th token that this thread copies.
    static Run<uint16_t> unit_of(const unsigned char *memory, int chunk, int i) {
        const int r = place_of(threadIdx.x / UNITS + i * ROW_STEP), place = threadIdx.x % UNITS ^ r % UNITS;
        return *reinterpret_cast<const Run<uint16_t> *>(memory + X_AT + chunk * X_BLOCK + r * 128 + place * 16);
    }

    void add(const unsigned char *memory, int chunk) {
        const float share = 1.0f / (chunk + 1), weight = 8.0f * chunk / (chunk + 1);
#pragma unroll
        for (int i = 0; i < ROWS; i++) {
            if (BT % ROW_STEP != 0 && threadIdx.x / UNITS + i * ROW_STEP >= BT)
                continue;
            const Run<uint16_t> unit = unit_of(memory, chunk, i);
            float x[8], own = 0.0f, sum = 0.0f;
#pragma unroll
            for (int j = 0; j < 8; j++)
                x[j] = f32_of_@KIND@(unit.v[j]);
            if constexpr (CENTRE) {
#pragma unroll
                for (int j = 0; j < 8; j++)
                    own += x[j] * 0.125f;
                const float distance = own - mean[i];
                mean[i] += distance * share;
                sum = distance * distance * weight;
            }
#pragma unroll
            for (int j = 0; j < 8; j++)
                sum += (x[j] - own) * (x[j] - own);
            squares[i] += sum;
        }
    }

    // Mean and reciprocal deviation of every token, for all threads after the next barrier.
    void total(unsigned char *memory) {
        float2 *moments = reinterpret_cast<float2 *>(memory + MOMENTS_AT);
#pragma unroll
        for (int i = 0; i < ROWS; i++) {
            const int t = threadIdx.x / UNITS + i * ROW_STEP;
            if (BT % ROW_STEP == 0 || t < BT)
                moments[threadIdx.x % UNITS * BT + t] = {mean[i], squares[i]};
        }
        __syncthreads();
        if (threadIdx.x < BT) {
            float all = 0.0f, square = 0.0f;
#pragma unroll
            for (int u = 0; u < UNITS; u++)
                all += moments[u * BT + threadIdx.x].x * (1.0f / UNITS);
#pragma unroll
            for (int u = 0; u < UNITS; u++) {
                const float2 part = moments[u * BT + threadIdx.x];
                square += part.y + (part.x - all) * (part.x - all) * (CENTRE ? K / UNITS : 0);
            }
            const float variance = square * (1.0f / K) + __int_as_float(EPSILON);
            reinterpret_cast<float2 *>(memory + STATS_AT)[threadIdx.x] = {all, 1.0f / sqrtf(variance)};
        }
    }

    // Eight channels of a token of the tile.
    void apply(const unsigned char *memory, int t, float (&acc)[8]) const {
        const float2 stats = reinterpret_cast<const float2 *>(memory + STATS_AT)[t];
#pragma unroll
        for (int j = 0; j < 8; j++)
            acc[j] = (acc[j] - stats.x * by_mean[j]) * stats.y + shift[j];
    }

    void store(const unsigned char *memory, int first_token, const Shape &shape) const {
        if constexpr (!KEEP)
            return;
        const int ctas = gridDim.x * gridDim.z, number = blockIdx.z * gridDim.x + blockIdx.x;
        for (int chunk = number; chunk < CHUNKS; chunk += ctas) {
            const int k = chunk * CHUNK + threadIdx.x % UNITS * 8;
            const Run<float> scale = load_run(affine + k), offset = load_run(affine + K + k);
#pragma unroll
            for (int i = 0; i < ROWS; i++) {
                const int t = threadIdx.x / UNITS + i * ROW_STEP;
                if (t >= BT || first_token + t >= shape.tokens)
                    continue;
                const float2 stats = reinterpret_cast<const float2 *>(memory + STATS_AT)[t];
                Run<uint16_t> unit = unit_of(memory, chunk, i);
#pragma unroll
                for (int j = 0; j < 8; j++)
                    unit.v[j] = @KIND@_of_f32((f32_of_@KIND@(unit.v[j]) - stats.x) * stats.y * scale.v[j] + offset.v[j]);
                store_run(normal + static_cast<int64_t>(first_token + t) * K + k, unit);
            }
        }
    }
};
