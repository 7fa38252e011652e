// A GPU in ordinary C++: every thread of a cluster is a thread, and templates/ptx.cuh's instructions are functions.
//
// Addresses of shared memory are rank << 18 | offset. Copies of 16 bytes happen when they are waited for, so that a
// missing wait shows; barriers have phases, and products read their operands by descriptor, as the hardware does; a read of
// inputs before `wait_for_inputs`, a store that is outside any buffer, or a barrier that waits for ever, ends the process
// with a message.

#include <barrier>
#include <chrono>
#include <cmath>
#include <condition_variable>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#define __global__
#define __grid_constant__
#define __launch_bounds__(...)
#define __cluster_dims__(x, y, z)

struct Dim3 {
    unsigned x, y, z;
};

struct float2 {
    float x, y;
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

struct Barrier {
    int64_t count, pending, bytes = 0;  // arrivals of a phase, those that lack, and bytes that are expected and lack
    uint32_t phase = 0;
    std::mutex mutex;
    std::condition_variable done;

    void change(int64_t arrivals, int64_t nbytes) {
        std::lock_guard lock(mutex);
        pending -= arrivals, bytes += nbytes;
        if (pending < 0)
            fail("more arrivals than a barrier counts");
        if (pending == 0 && bytes == 0) {
            pending = count, phase++;
            done.notify_all();
        }
    }
};

struct Lane {
    float value;
    uint32_t fragment[4];
};

struct Block {
    std::vector<unsigned char> bytes = std::vector<unsigned char>((1u << ADDRESS_BITS) + 1024, 0xff);
    unsigned char *memory = bytes.data() + (1024 - reinterpret_cast<uintptr_t>(bytes.data()) % 1024) % 1024;
    std::unique_ptr<std::barrier<>> barrier;
    std::vector<std::unique_ptr<std::barrier<>>> warpgroups, warps;
    std::vector<Lane> lanes;  // what threads show each other
    std::map<int, std::unique_ptr<std::barrier<>>> named;
    std::mutex mutex;
};

struct Copy {
    uint32_t target;
    const void *source;
    uint32_t nbytes;
};

static std::deque<Block> blocks;  // of the cluster that runs
static std::unique_ptr<std::barrier<>> cluster_barrier;
static Dim3 gridDim;
static thread_local Dim3 threadIdx, blockIdx;
static thread_local Block *own;
static thread_local int own_rank;
static thread_local bool inputs_are_there;
static thread_local std::vector<std::vector<Copy>> copies;  // committed groups, and one that is open
static thread_local std::optional<std::barrier<>::arrival_token> arrival;

inline unsigned char *memory_of(uint32_t address) { return blocks[address >> ADDRESS_BITS].memory + (address & OFFSET); }

inline void __syncwarp() { own->warps[threadIdx.x / 32]->arrive_and_wait(); }

inline void __syncthreads() { own->barrier->arrive_and_wait(); }

inline void barrier_among(int number, int threads) {
    std::barrier<> *found;
    {
        std::lock_guard lock(own->mutex);
        auto &barrier = own->named[number];
        barrier = barrier ? std::move(barrier) : std::make_unique<std::barrier<>>(threads);
        found = barrier.get();
    }
    found->arrive_and_wait();
}

inline float __shfl_xor_sync(uint32_t, float value, int distance) {
    own->lanes[threadIdx.x].value = value;
    __syncwarp();
    const float other = own->lanes[threadIdx.x ^ distance].value;
    __syncwarp();
    return other;
}

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

inline float exp2_16(float x) { return exp2f(x); }

inline float reciprocal_16(float x) { return 1.0f / x; }

inline float two_to(float x) { return exp2f(x); }

inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }

inline float2 make_float2(float x, float y) { return {x, y}; }

inline uint32_t pair_f16(float low, float high) {
    const _Float16 both[2] = {static_cast<_Float16>(low), static_cast<_Float16>(high)};
    uint32_t bits;
    memcpy(&bits, both, 4);
    return bits;
}

inline uint32_t pair_bf16(float low, float high) {
    const auto rounded = [](float x) {
        const uint32_t bits = __float_as_uint(x);
        return bits + 0x7fff + (bits >> 16 & 1) >> 16;
    };
    return rounded(low) | rounded(high) << 16;
}

template <int N> inline void hold(float (&)[N]) {}

inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }

inline int min(int a, int b) { return a < b ? a : b; }

inline uint32_t shared_address(const void *p) {
    return static_cast<uint32_t>(own_rank) << ADDRESS_BITS |
           static_cast<uint32_t>(static_cast<const unsigned char *>(p) - own->memory);
}

inline void launch_dependents() {}

inline void wait_for_inputs() { inputs_are_there = true; }

inline Barrier &barrier_at(uint32_t address) { return *reinterpret_cast<Barrier **>(memory_of(address))[0]; }

inline void barrier_init(uint32_t address, uint32_t arrivals) {
    if (address % 8)
        fail("a barrier that is not aligned");
    auto &barrier = *reinterpret_cast<Barrier **>(memory_of(address)) = new Barrier;
    barrier->count = barrier->pending = arrivals;
}

inline void fence_barrier_init() {}

inline void barrier_expect(uint32_t barrier, uint32_t nbytes) { barrier_at(barrier).change(1, nbytes); }

inline void barrier_arrive(uint32_t barrier) { barrier_at(barrier).change(1, 0); }

inline void barrier_wait(uint32_t address, uint32_t parity) {
    Barrier &barrier = barrier_at(address);
    std::unique_lock lock(barrier.mutex);
    if (!barrier.done.wait_for(lock, std::chrono::seconds(30), [&] { return barrier.phase % 2 != parity; }))
        fail("a barrier waits for what nobody does");
}

inline void copy_bulk(uint32_t target, const void *source, uint32_t nbytes, uint32_t barrier) {
    if (nbytes % 16 || target % 16 || reinterpret_cast<uintptr_t>(source) % 16)
        fail("a bulk copy that is not aligned");
    memcpy(memory_of(target), source, nbytes);
    barrier_at(barrier).change(0, -static_cast<int64_t>(nbytes));
}

inline void barrier_arrive_at(uint32_t address) { barrier_at(address).change(1, 0); }

// What the driver's 128 bytes say, in words of two bytes each, innermost dim first.
struct TensorMap {
    const uint16_t *elements;
    int64_t rank, sizes[4], strides[4], box[2], lower[2], upper[2], steps[2];  // strides in bytes, of sizes[1] on

    uint16_t at(const int64_t (&index)[4]) const {
        int64_t offset = index[0] * 2;
        for (int k = 0; k < rank; k++) {
            if (index[k] < 0 || index[k] >= sizes[k])
                return 0;
            offset += k ? index[k] * strides[k - 1] : 0;
        }
        return elements[offset / 2];
    }
};

// Writes element `unit` of row `row` of a copy to `target`, as hardware swizzles rows of 128 bytes.
inline void put(uint32_t target, int64_t row, int64_t unit, uint16_t value) {
    const uint32_t at = target + row * 128 + unit * 2;
    memcpy(memory_of(at ^ (at >> 7 & 7) << 4), &value, 2);
}

inline void check_copy(uint32_t target, const TensorMap *map, int64_t rank) {
    if (!inputs_are_there || target % 1024 || map->rank != rank || map->box[0] != 64)
        fail("a tensor copy that is early, not aligned, or of another map");
}

inline void copy_tile(uint32_t target, const TensorMap *map, int column, int row, uint32_t barrier) {
    check_copy(target, map, 2);
    for (int64_t r = 0; r < map->box[1]; r++)
        for (int64_t c = 0; c < 64; c++)
            put(target, r, c, map->at({column + c, row + r, 0, 0}));
    barrier_at(barrier).change(0, -map->box[1] * 128);
}

// Rows of 128 bytes, or of 64, swizzled as the products of attention read them.
inline void copy_box(uint32_t target, const TensorMap *map, int column, int row, int batch, uint32_t barrier) {
    const uint32_t line = map->box[0] * 2;
    if (!inputs_are_there || target % 1024 || map->rank != 3 || (line != 128 && line != 64))
        fail("a copy of a box that is early, not aligned, or of another map");
    for (int64_t r = 0; r < map->box[1]; r++)
        for (int64_t c = 0; c < map->box[0]; c++) {
            const uint32_t at = target + r * line + c * 2;
            const uint16_t value = map->at({column + c, row + r, batch, 0});
            memcpy(memory_of(at ^ (at >> 7 & line / 16 - 1) << 4), &value, 2);
        }
    barrier_at(barrier).change(0, -map->box[1] * line);
}

struct Corner {
    int x, y, image;
};

inline void copy_window(uint32_t target, const TensorMap *map, int channel, Corner at, uint16_t dx, uint16_t dy,
                        uint32_t barrier) {
    check_copy(target, map, 4);
    for (int64_t pixel = 0; pixel < map->box[1]; pixel++) {
        for (int64_t c = 0; c < 64; c++)
            put(target, pixel, c, map->at({channel + c, at.x + dx, at.y + dy, at.image}));
        if ((at.x += map->steps[0]) < map->sizes[1] + map->upper[0])
            continue;
        at.x = map->lower[0];
        if ((at.y += map->steps[1]) < map->sizes[2] + map->upper[1])
            continue;
        at.y = map->lower[1], at.image++;
    }
    barrier_at(barrier).change(0, -map->box[1] * 128);
}

inline void copy_bulk_to_all(uint32_t target, const void *source, uint32_t nbytes, uint32_t barrier, uint16_t ranks) {
    if (!(ranks >> own_rank & 1))
        fail("a copy to other CTAs alone");
    for (uint32_t rank = 0; rank < 16; rank++)
        if (ranks >> rank & 1)
            copy_bulk(rank << ADDRESS_BITS | (target & OFFSET), source, nbytes, rank << ADDRESS_BITS | (barrier & OFFSET));
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

inline void cluster_arrive_relaxed() { cluster_arrive(); }

inline void cluster_wait() {
    cluster_barrier->wait(std::move(*arrival));
    arrival.reset();
}

inline uint32_t address_in(uint32_t address, uint32_t rank) { return rank << ADDRESS_BITS | (address & OFFSET); }

template <int COUNT> inline void store_shared(uint32_t address, const float *values) {
    if (address % (4 * COUNT) || memory_of(address) < own->memory || memory_of(address) > own->memory + OFFSET)
        fail("a store to shared memory that is not aligned, or to another CTA's");
    memcpy(memory_of(address), values, 4 * COUNT);
}

template <int COUNT> inline void store_async(uint32_t address, const float *values, uint32_t barrier) {
    if (address % (4 * COUNT) || address >> ADDRESS_BITS != barrier >> ADDRESS_BITS)
        fail("a store to another CTA that is not aligned, or whose barrier is elsewhere");
    memcpy(memory_of(address), values, 4 * COUNT);
    barrier_at(barrier).change(0, -4 * COUNT);
}

inline uint64_t operand(uint32_t address) { return (address & OFFSET) >> 4; }

inline void fence_copies_before_products() {}

inline void products_begin() {}

inline void products_commit() {}

inline void products_wait() { own->warpgroups[threadIdx.x / 128]->arrive_and_wait(); }

inline void products_wait_for_others() { products_wait(); }

template <int COUNT> inline void registers_keep() {}

template <int COUNT> inline void registers_take() {}

template <class T> struct alignas(sizeof(T) * 8 < 16 ? sizeof(T) * 8 : 16) Run {
    T v[8];
};

template <class T> inline Run<T> load_run(const T *source) {
    if (reinterpret_cast<uintptr_t>(source) % alignof(Run<T>))
        fail("a run that is not aligned");
    return *reinterpret_cast<const Run<T> *>(source);
}

inline Run<uint16_t> load_run_if(bool wanted, const uint16_t *source) {
    if (!inputs_are_there)
        fail("inputs are read before they are there");
    return wanted ? load_run(source) : Run<uint16_t>{};
}

inline Run<uint16_t> load_shared_run(uint32_t address) {
    return load_run(reinterpret_cast<const uint16_t *>(memory_of(address)));
}

template <class T> inline void store_run(T *target, const Run<T> &run) {
    if (!inputs_are_there || reinterpret_cast<uintptr_t>(target) % alignof(Run<T>))
        fail("a store that is early or not aligned");
    *reinterpret_cast<Run<T> *>(target) = run;
}

// Element (row, k) of an operand of 128-byte rows, or of 64, in groups of eight: the address bits 4 to 6 are XORed
// with 7 to 9, or 4 and 5 with 7 and 8.
inline uint16_t element(uint64_t descriptor, int row, int k) {
    const bool half = descriptor >> 62 == 2;
    const uint32_t line = half ? 64 : 128, at = (static_cast<uint32_t>(descriptor << 4) & OFFSET) + row * line + k * 2;
    uint16_t value;
    memcpy(&value, own->memory + (at ^ (at >> 7 & (half ? 3 : 7)) << 4), 2);
    return value;
}

// The share of one thread in a [64, 16] times b [2 COUNT, 16] transposed.
template <int COUNT, class Read>
inline void product_by_thread(float (&sums)[COUNT], uint64_t a, uint64_t b, bool keep, Read read) {
    own->warpgroups[threadIdx.x / 128]->arrive_and_wait();
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
    for (int e = 0; e < COUNT; e++) {
        sums[e] = keep ? sums[e] : 0.0f;
        const int row = 16 * warp + lane / 4 + (e & 2 ? 8 : 0), column = e / 4 * 8 + lane % 4 * 2 + e % 2;
        for (int k = 0; k < 16; k++)
            sums[e] += read(element(a, row, k)) * read(element(b, column, k));
    }
}

// The same with a's fragments in registers, and b as [16, 2 COUNT].
template <int COUNT, class Read>
inline void product_of_registers_by_thread(float (&sums)[COUNT], const uint32_t *a, uint64_t b, Read read) {
    memcpy(own->lanes[threadIdx.x].fragment, a, 16);
    own->warpgroups[threadIdx.x / 128]->arrive_and_wait();
    for (int e = 0; e < COUNT; e++) {
        const int column = e / 4 * 8 + threadIdx.x % 4 * 2 + e % 2;
        for (int k = 0; k < 16; k++) {
            const Lane &lane = own->lanes[threadIdx.x / 4 * 4 + k / 2 % 4];
            const uint32_t both = lane.fragment[(e / 2 % 2) + k / 8 * 2];
            sums[e] += read(static_cast<uint16_t>(k % 2 ? both >> 16 : both)) * read(element(b, k, column));
        }
    }
    own->warpgroups[threadIdx.x / 128]->arrive_and_wait();
}

// Runs `kernel` for every block of the grid, a cluster at a time.
static void launch(Dim3 grid, int cluster, int threads, const std::function<void()> &kernel) {
    gridDim = grid;
    for (unsigned number = 0; number < grid.x * grid.y * grid.z; number += cluster) {
        blocks.clear();
        blocks.resize(cluster);
        cluster_barrier = std::make_unique<std::barrier<>>(cluster * threads);
        std::vector<std::thread> pool;
        for (int rank = 0; rank < cluster; rank++) {
            blocks[rank].barrier = std::make_unique<std::barrier<>>(threads);
            blocks[rank].lanes.resize(threads);
            for (int g = 0; g < threads / 128; g++)
                blocks[rank].warpgroups.push_back(std::make_unique<std::barrier<>>(128));
            for (int w = 0; w < threads / 32; w++)
                blocks[rank].warps.push_back(std::make_unique<std::barrier<>>(32));
            for (int t = 0; t < threads; t++)
                pool.emplace_back([=, &kernel] {
                    threadIdx = {static_cast<unsigned>(t), 0, 0};
                    blockIdx = {number % grid.x + rank, number / grid.x % grid.y, number / grid.x / grid.y};
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
