// Instructions of sm_90 that C++ has no words for. Addresses in shared memory are 32 bits.

inline uint32_t shared_address(const void *p) { return static_cast<uint32_t>(__cvta_generic_to_shared(p)); }

// Each lane's own value, computed here and once: compilers compute values again, or late, where they are used, which is
// behind a wait or in a loop. For whole warps.
inline int settled(int x) {
    int own;
    asm volatile("{ .reg .u32 lane; mov.u32 lane, %%laneid; shfl.sync.idx.b32 %0, %1, lane, 0x1f, 0xffffffff; }"
                 : "=r"(own)
                 : "r"(x));
    return own;
}

template <class T> inline T *settled(T *p) {
    const uint64_t bits = reinterpret_cast<uint64_t>(p);
    const uint32_t low = settled(static_cast<int>(bits)), high = settled(static_cast<int>(bits >> 32));
    return reinterpret_cast<T *>(static_cast<uint64_t>(high) << 32 | low);
}

// Programmatic dependent launch: the kernel behind this one may start; what the kernels ahead wrote may be read.

inline void launch_dependents() { asm volatile("griddepcontrol.launch_dependents;" ::: "memory"); }

inline void wait_for_inputs() { asm volatile("griddepcontrol.wait;" ::: "memory"); }

// The same once `ready`, which is settled and never ~0, is there: compilers move what reads no memory behind the wait.
inline void wait_for_inputs_after(uint32_t ready) {
    asm volatile("{ .reg .pred there; setp.ne.u32 there, %0, 0xffffffff; @there griddepcontrol.wait; }" ::"r"(ready)
                 : "memory");
}

inline void wait_for_inputs_after(const void *ready) {
    wait_for_inputs_after(static_cast<uint32_t>(reinterpret_cast<uint64_t>(ready)));
}

// Barriers in shared memory that count the bytes of bulk copies.

inline void barrier_init(uint32_t barrier, uint32_t arrivals) {
    asm volatile("mbarrier.init.shared.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}

inline void fence_barrier_init() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }

inline void barrier_expect(uint32_t barrier, uint32_t nbytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared.b64 _, [%0], %1;" ::"r"(barrier), "r"(nbytes) : "memory");
}

inline void barrier_wait(uint32_t barrier, uint32_t phase) {
    asm volatile(
        "{ .reg .pred done; again: mbarrier.try_wait.parity.shared.b64 done, [%0], %1; @!done bra again; }" ::"r"(barrier),
        "r"(phase)
        : "memory");
}

// Copies from global to shared memory. The bulk copy takes multiples of 16 bytes, the other 16 bytes, of which only the
// first `nbytes` are read and the rest is zero.

inline void copy_bulk(uint32_t target, const void *source, uint32_t nbytes, uint32_t barrier) {
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(target),
                 "l"(source), "r"(nbytes), "r"(barrier)
                 : "memory");
}

inline void copy_16(uint32_t target, const void *source, uint32_t nbytes) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(target), "l"(source), "r"(nbytes) : "memory");
}

inline void copy_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }

template <int PENDING> inline void copy_wait() { asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory"); }

// Clusters: CTAs that run together and reach each other's shared memory. An arrival orders no memory but barriers that
// were initialised before `fence_barrier_init`: to release more of it to other CTAs takes a fence of the whole GPU.

inline void cluster_arrive_relaxed() { asm volatile("barrier.cluster.arrive.relaxed.aligned;" ::: "memory"); }

inline void cluster_wait() { asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory"); }

inline uint32_t address_in(uint32_t address, uint32_t rank) {
    uint32_t remote;
    asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(remote) : "r"(address), "r"(rank));
    return remote;
}

// Stores two or four neighbours, here or in another CTA, whose barrier counts the bytes.

template <int COUNT> inline void store_shared(uint32_t address, const float *values) {
    if constexpr (COUNT == 4)
        asm volatile("st.shared.v4.f32 [%0], {%1, %2, %3, %4};" ::"r"(address), "f"(values[0]), "f"(values[1]),
                     "f"(values[2]), "f"(values[3])
                     : "memory");
    else
        asm volatile("st.shared.v2.f32 [%0], {%1, %2};" ::"r"(address), "f"(values[0]), "f"(values[1]) : "memory");
}

template <int COUNT> inline void store_async(uint32_t address, const float *values, uint32_t barrier) {
    if constexpr (COUNT == 4)
        asm volatile("st.async.shared::cluster.mbarrier::complete_tx::bytes.v4.f32 [%0], {%1, %2, %3, %4}, [%5];" ::"r"(
                         address),
                     "f"(values[0]), "f"(values[1]), "f"(values[2]), "f"(values[3]), "r"(barrier)
                     : "memory");
    else
        asm volatile("st.async.shared::cluster.mbarrier::complete_tx::bytes.v2.f32 [%0], {%1, %2}, [%3];" ::"r"(address),
                     "f"(values[0]), "f"(values[1]), "r"(barrier)
                     : "memory");
}

// Warpgroup products: operands in shared memory, rows of 128 bytes whose 16-byte units are XORed with the row.

inline uint64_t operand(uint32_t address) {
    const uint64_t leading = 1, eight_rows = 1024 >> 4, swizzle_128 = 1;
    return (address & 0x3ffff) >> 4 | leading << 16 | eight_rows << 32 | swizzle_128 << 62;
}

// What this thread wrote to or read from shared memory comes before products that read it, and before bulk and tensor
// copies that write there, of whoever is told after this: a barrier's arrival alone does not order these.
inline void fence_async_proxy() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

inline void products_begin() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }

inline void products_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }

inline void products_wait() { asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory"); }

// Eight neighbours in memory. `load_run` bypasses the read-only cache: kernels ahead may have written what it reads
// after this one had started.

template <class T> struct alignas(sizeof(T) * 8 < 16 ? sizeof(T) * 8 : 16) Run {
    T v[8];
};

template <class T> inline Run<T> load_run(const T *source) {
    Run<T> run;
    if constexpr (sizeof(run) < 16) {
        auto &words = reinterpret_cast<uint32_t(&)[2]>(run);
        asm volatile("ld.global.v2.u32 {%0, %1}, [%2];" : "=r"(words[0]), "=r"(words[1]) : "l"(source) : "memory");
    } else {
#pragma unroll
        for (int k = 0; k < sizeof(run) / 16; k++) {
            auto &words = reinterpret_cast<uint32_t(&)[sizeof(run) / 4]>(run);
            asm volatile("ld.global.v4.u32 {%0, %1, %2, %3}, [%4];"
                         : "=r"(words[4 * k]), "=r"(words[4 * k + 1]), "=r"(words[4 * k + 2]), "=r"(words[4 * k + 3])
                         : "l"(reinterpret_cast<const char *>(source) + 16 * k)
                         : "memory");
        }
    }
    return run;
}

// Eight elements of 16 bits at `source`, or zeros. They are not ordered with stores of the same kernel.
inline Run<uint16_t> load_run_if(bool wanted, const uint16_t *source) {
    Run<uint16_t> run;
    auto &words = reinterpret_cast<uint32_t(&)[4]>(run);
    asm volatile("{ .reg .pred wanted; setp.ne.b32 wanted, %5, 0; mov.u32 %0, 0; mov.u32 %1, 0; mov.u32 %2, 0; "
                 "mov.u32 %3, 0; @wanted ld.global.v4.u32 {%0, %1, %2, %3}, [%4]; }"
                 : "=&r"(words[0]), "=&r"(words[1]), "=&r"(words[2]), "=&r"(words[3])
                 : "l"(source), "r"(static_cast<int>(wanted)));
    return run;
}

inline Run<uint16_t> load_shared_run(uint32_t address) {
    Run<uint16_t> run;
    auto &words = reinterpret_cast<uint32_t(&)[4]>(run);
    asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
                 : "r"(address));
    return run;
}

template <class T> inline void store_run(T *target, const Run<T> &run) { *reinterpret_cast<Run<T> *>(target) = run; }
