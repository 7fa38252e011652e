// What attention kernels share: rows of heads in shared memory, masks, and the softmax of scores in registers.
//
// Rows lie in shared memory in blocks of at most 64 elements whose 16-byte units are XORed with the row, as warpgroup
// products read them. A thread has KEYS / 2 scores of its warp's 16 queries: score i is of query
// lane / 4 + 8 (i / 2 % 2) and key 8 (i / 4) + 2 (lane % 4) + i % 2.

constexpr int WIDTH = D < 64 ? D : 64;       // elements of a head in one block
constexpr int BLOCKS = D / WIDTH;
constexpr int LINE = WIDTH * 2;              // bytes of a block's row
constexpr int ADD = 1, KEEP = 2;             // what MASK says
constexpr float LOG2_E = 1.4426950408889634f;
constexpr bool SCALED = MASK == ADD || FLAT;  // whether the mask has turned scores into powers of two
constexpr float UNIT = SCALED ? 1.0f : SCALE * LOG2_E;

inline float none() { return __int_as_float(0xff800000); }  // minus infinity: the score of a key that is masked

inline uint64_t rows_operand(uint32_t address) {
    const uint64_t leading = 1, eight_rows = LINE * 8 >> 4, swizzle = LINE == 128 ? 1 : 2;
    return (address & 0x3ffff) >> 4 | leading << 16 | eight_rows << 32 | swizzle << 62;
}

// A mask as a power of two. Masks may reach the largest f32, and stay finite then.
inline float power(float mask) { return mask == none() ? mask : fmaxf(mask * LOG2_E, -3e38f); }

// A mask that is the same for all queries, `count` keys of it, by `threads` threads.
inline void stage_mask(float *staged, const MASK_TYPE *mask, int keys, int count, int threads) {
    for (int key = threadIdx.x; key < count; key += threads) {
        float x = none();
        if (key < keys)
            x = MASK == KEEP ? (mask[key * MASK_T] ? 0.0f : none()) : power(mask_value(mask[key * MASK_T]));
        staged[key] = x;
    }
}

// Adds the mask to the scores of keys from `first` on and this thread's queries from `query` on, and takes out what
// lies beyond the keys; with CAUSAL query i sees keys up to i + keys - queries. A FLAT mask comes from `staged`, which begins with key `first`.
inline void mask_scores(float (&scores)[KEYS / 2], int first, int keys, int query, int queries, const MASK_TYPE *mask,
                        int64_t mask_row, const float *staged) {
#pragma unroll
    for (int i = 0; i < KEYS / 2; i++) {
        const int start = first + i / 4 * 8, key = start + threadIdx.x % 4 * 2 + i % 2, row = query + i / 2 % 2 * 8;
        const bool seen = !CAUSAL || key <= row + keys - queries;
        const bool keep = (start + 8 <= keys || key < keys) && seen;
        if constexpr (FLAT) {
            scores[i] = __fmaf_rn(scores[i], SCALE * LOG2_E, staged[key - first]);
            scores[i] = seen ? scores[i] : none();
        } else if constexpr (MASK != 0) {
            const MASK_TYPE x = mask[min(row, queries - 1) * mask_row + min(key, keys - 1) * MASK_T];
            if constexpr (MASK == ADD)
                scores[i] = __fmaf_rn(scores[i], SCALE * LOG2_E, power(mask_value(x)));
            scores[i] = keep && (MASK == ADD || x) ? scores[i] : none();
        } else {
            scores[i] = keep ? scores[i] : none();
        }
    }
}

// The running softmax of this thread's two rows: scores become exponentials; gives the factors of earlier sums.
inline void soften(float (&scores)[KEYS / 2], float (&top)[2], float (&sum)[2], float (&factors)[2]) {
    float best[2][4], base[2], totals[2][4] = {};  // four chains each, as they are long
#pragma unroll
    for (int i = 0; i < KEYS / 2; i++) {
        float &b = best[i / 2 % 2][i / 4 % 2 * 2 + i % 2];
        b = i < 8 ? scores[i] : fmaxf(b, scores[i]);
    }
#pragma unroll
    for (int e = 0; e < 2; e++) {
        float b = fmaxf(fmaxf(best[e][0], best[e][1]), fmaxf(best[e][2], best[e][3]));
        b = fmaxf(b, __shfl_xor_sync(~0u, b, 1));
        b = fmaxf(fmaxf(b, __shfl_xor_sync(~0u, b, 2)), top[e]);
        base[e] = (b == none() ? 0.0f : b) * UNIT;
        factors[e] = two_to(top[e] * UNIT - base[e]);
        top[e] = b;
    }
#pragma unroll
    for (int i = 0; i < KEYS / 2; i++) {
        const int e = i / 2 % 2;
        scores[i] = two_to(SCALED ? scores[i] - base[e] : __fmaf_rn(scores[i], UNIT, -base[e]));
        totals[e][i / 4 % 2 * 2 + i % 2] += scores[i];
    }
#pragma unroll
    for (int e = 0; e < 2; e++)
        sum[e] = sum[e] * factors[e] + ((totals[e][0] + totals[e][1]) + (totals[e][2] + totals[e][3]));
}

inline float across_row(float sum) {
    sum += __shfl_xor_sync(~0u, sum, 1);
    return sum + __shfl_xor_sync(~0u, sum, 2);
}
