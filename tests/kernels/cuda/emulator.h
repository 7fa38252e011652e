// A GPU in ordinary C++: every thread of a cluster is a thread, and templates/ptx.cuh's instructions are functions.
//
// Addresses of shared memory are rank << 18 | offset. Copies happen when they are waited for, so that a missing wait
// shows; products read their operands as the hardware does, by descriptor; a read of inputs before `wait_for_inputs`, a
// store that is outside any buffer, or a barrier that expects other bytes than come, ends the process with a message.

#include <barrier>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <optional>
#include <thread>
#include <vector>

#define __global__
#define __launch_bounds__(threads)
#define __cluster_dims__(x, y, z)

struct Dim3 {
    unsigned x, y, z;
};

struct float4 {
    float x, y, z, w;
};

constexpr int ADDRESS_BITS = 18;
constexpr uint32_t OFFSET = (1u << ADDRESS_BITS) - 1;

[[noreturn]] static void fail(const char *what) {
    fprintf(stderr, "%s\n", what);
    _Exit(3);
}

struct Transfer {
    int64_t expected = 0, arrived = 0;
};

struct Block {
    std::vector<unsigned char> bytes = std::vector<unsigned char>((1u << ADDRESS_BITS) + 1024, 0xff);
    unsigned char *memory = bytes.data() + (1024 - reinterpret_cast<uintptr_t>(bytes.data()) % 1024) % 1024;
    std::unique_ptr<std::barrier<>> barrier;
    std::vector<std::unique_ptr<std::barrier<>>> warpgroups;
};

struct Copy {
    uint32_t target;
    const void *source;
    uint32_t nbytes;
};

static std::vector<Block> blocks;  // of the cluster that runs
static std::unique_ptr<std::barrier<>> cluster_barrier;
static thread_local Dim3 threadIdx, blockIdx;
static thread_local Block *own;
static thread_local int own_rank;
static thread_local bool inputs_are_there;
static thread_local std::vector<std::vector<Copy>> copies;  // committed groups, and one that is open
static thread_local std::optional<std::barrier<>::arrival_token> arrival;

inline unsigned char *memory_of(uint32_t address) { return blocks[address >> ADDRESS_BITS].memory + (address & OFFSET); }

inline void __syncthreads() { own->barrier->arrive_and_wait(); }

inline float __uint_as_float(uint32_t u) {
    float x;
    memcpy(&x, &u, 4);
    return x;
}

inline uint32_t __float_as_uint(float x) {
    uint32_t u;
    memcpy(&u, &x, 4);
    return u;
}

inline float __int_as_float(int32_t i) { return __uint_as_float(static_cast<uint32_t>(i)); }

inline double __longlong_as_double(long long i) {
    double x;
    memcpy(&x, &i, 8);
    return x;
}

inline float __expf(float x) { return expf(x); }

inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }

inline int min(int a, int b) { return a < b ? a : b; }

inline uint32_t shared_address(const void *p) {
    return static_cast<uint32_t>(own_rank) << ADDRESS_BITS |
           static_cast<uint32_t>(static_cast<const unsigned char *>(p) - own->memory);
}

inline void launch_dependents() {}

inline void wait_for_inputs() { inputs_are_there = true; }

inline Transfer &transfer(uint32_t barrier) { return *reinterpret_cast<Transfer **>(memory_of(barrier))[0]; }

inline void barrier_init(uint32_t barrier, uint32_t arrivals) {
    if (arrivals != 1 || barrier % 8)
        fail("a barrier that the emulator does not know");
    *reinterpret_cast<Transfer **>(memory_of(barrier)) = new Transfer;
}

inline void fence_barrier_init() {}

inline void barrier_expect(uint32_t barrier, uint32_t nbytes) { transfer(barrier).expected += nbytes; }

inline void barrier_wait(uint32_t barrier, uint32_t phase) {
    if (phase != 0 || transfer(barrier).expected != transfer(barrier).arrived || !transfer(barrier).expected)
        fail("a barrier waits for bytes that nobody copies");
}

inline void copy_bulk(uint32_t target, const void *source, uint32_t nbytes, uint32_t barrier) {
    if (nbytes % 16 || target % 16 || reinterpret_cast<uintptr_t>(source) % 16)
        fail("a bulk copy that is not aligned");
    memcpy(memory_of(target), source, nbytes);
    transfer(barrier).arrived += nbytes;
}

inline void copy_16(uint32_t target, const void *source, uint32_t nbytes) {
    if (!inputs_are_there)
        fail("inputs are read before they are there");
    if (copies.empty())
        copies.emplace_back();
    copies.back().push_back({target, source, nbytes});
}

inline void copy_commit() { copies.emplace_back(); }

inline void copy_now(const Copy &c) {
    unsigned char bytes[16] = {};
    memcpy(bytes, c.source, c.nbytes);
    memcpy(memory_of(c.target), bytes, 16);
}

template <int PENDING> inline void copy_wait() {
    while (copies.size() > PENDING + 1) {
        for (const Copy &c : copies.front())
            copy_now(c);
        copies.erase(copies.begin());
    }
}

inline void cluster_arrive() { arrival.emplace(cluster_barrier->arrive()); }

inline void cluster_wait() {
    cluster_barrier->wait(std::move(*arrival));
    arrival.reset();
}

inline uint32_t address_in(uint32_t address, uint32_t rank) { return rank << ADDRESS_BITS | (address & OFFSET); }

inline void store_remote(uint32_t address, float value) { memcpy(memory_of(address), &value, 4); }

inline void store_shared(uint32_t address, float value) { memcpy(memory_of(address), &value, 4); }

inline uint64_t operand(uint32_t address) { return (address & OFFSET) >> 4; }

inline void fence_copies_before_products() {}

inline void products_begin() {}

inline void products_commit() {}

inline void products_wait() {}

template <class T> struct alignas(sizeof(T) * 8 < 16 ? sizeof(T) * 8 : 16) Run {
    T v[8];
};

template <class T> inline Run<T> load_run(const T *source) {
    if (reinterpret_cast<uintptr_t>(source) % alignof(Run<T>))
        fail("a run that is not aligned");
    return *reinterpret_cast<const Run<T> *>(source);
}

template <class T> inline void store_run(T *target, const Run<T> &run) {
    if (!inputs_are_there || reinterpret_cast<uintptr_t>(target) % alignof(Run<T>))
        fail("a store that is early or not aligned");
    *reinterpret_cast<Run<T> *>(target) = run;
}

// Element (row, k) of an operand of 128-byte rows in groups of eight: the address bits 4 to 6 are XORed with 7 to 9.
inline uint16_t element(uint64_t descriptor, int row, int k) {
    const uint32_t at = static_cast<uint32_t>(descriptor << 4) + row / 8 * 1024 + row % 8 * 128 + k * 2;
    uint16_t value;
    memcpy(&value, own->memory + (at ^ (at >> 7 & 7) << 4), 2);
    return value;
}

// The share of one thread in a [64, 16] times b [2 COUNT, 16] transposed.
template <int COUNT, class Read> inline void product_by_thread(float (&sums)[COUNT], uint64_t a, uint64_t b, Read read) {
    own->warpgroups[threadIdx.x / 128]->arrive_and_wait();
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
    for (int e = 0; e < COUNT; e++) {
        const int row = 16 * warp + lane / 4 + (e & 2 ? 8 : 0), column = e / 4 * 8 + lane % 4 * 2 + e % 2;
        for (int k = 0; k < 16; k++)
            sums[e] += read(element(a, row, k)) * read(element(b, column, k));
    }
}

// Runs `kernel` for every block of the grid, a cluster at a time.
static void launch(Dim3 grid, int cluster, int threads, const std::function<void()> &kernel) {
    for (unsigned y = 0; y < grid.y; y++)
        for (unsigned x = 0; x < grid.x; x += cluster) {
            blocks = std::vector<Block>(cluster);
            cluster_barrier = std::make_unique<std::barrier<>>(cluster * threads);
            std::vector<std::thread> pool;
            for (int rank = 0; rank < cluster; rank++) {
                blocks[rank].barrier = std::make_unique<std::barrier<>>(threads);
                for (int g = 0; g < threads / 128; g++)
                    blocks[rank].warpgroups.push_back(std::make_unique<std::barrier<>>(128));
                for (int t = 0; t < threads; t++)
                    pool.emplace_back([=, &kernel] {
                        threadIdx = {static_cast<unsigned>(t), 0, 0};
                        blockIdx = {x + rank, y, 0};
                        own = &blocks[rank];
                        own_rank = rank;
                        inputs_are_there = false;
                        kernel();
                    });
            }
            for (std::thread &t : pool)
                t.join();
        }
}
