// More instructions of sm_90: for values that a warp or a warpgroup holds in registers, and copies of boxes.

// A box of a tensor of three dims from (column, row, batch) on.
inline void copy_box(uint32_t target, const TensorMap *map, int column, int row, int batch, uint32_t barrier) {
    asm volatile("cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes "
                 "[%0], [%1, {%2, %3, %4}], [%5];" ::"r"(target),
                 "l"(map), "r"(column), "r"(row), "r"(batch), "r"(barrier)
                 : "memory");
}

// Keeps the compiler from moving reads of sums across the products that make them.
template <int N> inline void hold(float (&sums)[N]) {
#pragma unroll
    for (int i = 0; i < N; i++)
        asm volatile("" : "+f"(sums[i])::"memory");
}

inline float two_to(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// Two values of 16 bits in one register, the first in its low half.

inline uint32_t pair_f16(float low, float high) {
    uint32_t both;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
    return both;
}

inline uint32_t pair_bf16(float low, float high) {
    uint32_t both;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
    return both;
}

// Waits for `threads` threads, whole warps, at barrier `number` from 1 to 15.
inline void barrier_among(int number, int threads) {
    asm volatile("bar.sync %0, %1;" ::"r"(number), "r"(threads) : "memory");
}
