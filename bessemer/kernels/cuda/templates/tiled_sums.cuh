// What the CTAs of a cluster hand on that add up parts of k.

// Sends the parts that other CTAs of the cluster finish to them.
template <int TO = 0> inline void send(uint32_t shared, const float *sums, int rank) {
    const int cta = TO * DOWN + blockIdx.x % DOWN;
    if constexpr (TO < SPLIT) {
        if (TO != rank) {
            constexpr int FIRST = first_part(TO) * 4, END = first_part(TO + 1) * 4;
            const int place = RECEIVED_AT + (rank < TO ? rank : rank - 1) * MOST_PARTS * 4 * LINE;
            const uint32_t target = address_in(shared + place + threadIdx.x * 16, cta);
            const uint32_t barrier = address_in(shared + SUMS_AT, cta);
#pragma unroll
            for (int v = FIRST; v < END; v++)
                store_async<4>(target + (v - FIRST) * LINE, sums + v * 4, barrier);
        }
        send<TO + 1>(shared, sums, rank);
    }
}

// Adds the sums of the others to those of the parts from FIRST up to END.
template <int FIRST, int END> inline void add_received(const unsigned char *memory, float *sums) {
#pragma unroll
    for (int v = FIRST * 4; v < END * 4; v++)
#pragma unroll
        for (int from = 0; from < SPLIT - 1; from++) {
            const int place = RECEIVED_AT + (from * MOST_PARTS * 4 + v - FIRST * 4) * LINE;
            const float4 other = *reinterpret_cast<const float4 *>(memory + place + threadIdx.x * 16);
            float *sum = sums + v * 4;
            sum[0] += other.x, sum[1] += other.y, sum[2] += other.z, sum[3] += other.w;
        }
}
