// The GPU that emulator.h declares: every thread of a cluster is a thread.
//
// Copies of 16 bytes happen when they are waited for, so that a missing wait shows; barriers have phases, and products
// read their operands by descriptor, as the hardware does; a store that is outside any buffer, or a barrier that waits
// for ever, ends the process with a message.

#include <barrier>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "emulator.h"

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

struct Shared : Block {
    std::vector<unsigned char> bytes = std::vector<unsigned char>((1u << ADDRESS_BITS) + 1024, 0xff);
    std::vector<Lane> shown;
    std::barrier<> barrier;
    std::deque<std::barrier<>> warpgroups, warps;
    std::map<int, std::barrier<>> named;
    std::mutex mutex;

    explicit Shared(int threads) : shown(threads), barrier(threads) {
        memory = bytes.data() + (1024 - reinterpret_cast<uintptr_t>(bytes.data()) % 1024) % 1024;
        lanes = shown.data();
        for (int g = 0; g < threads / 128; g++)
            warpgroups.emplace_back(128);
        for (int w = 0; w < threads / 32; w++)
            warps.emplace_back(32);
    }
};

struct Copy {
    uint32_t target;
    const void *source;
    uint32_t nbytes;
};

static std::deque<Shared> blocks;  // of the cluster that runs
static std::unique_ptr<std::barrier<>> cluster_barrier;
static thread_local std::vector<std::vector<Copy>> copies;  // committed groups, and one that is open
static thread_local std::optional<std::barrier<>::arrival_token> arrival;
Dim3 gridDim;
constinit thread_local Dim3 threadIdx, blockIdx;
constinit thread_local Block *own;
constinit thread_local int own_rank;
constinit thread_local bool inputs_are_there;

void fail(const char *what) {
    fprintf(stderr, "%s\n", what);
    _Exit(3);
}

unsigned char *memory_of(uint32_t address) { return blocks[address >> ADDRESS_BITS].memory + (address & OFFSET); }

static Shared &shared() { return *static_cast<Shared *>(own); }

void __syncwarp() { shared().warps[threadIdx.x / 32].arrive_and_wait(); }

void __syncthreads() { shared().barrier.arrive_and_wait(); }

void barrier_among(int number, int threads) {
    std::barrier<> *found;
    {
        std::lock_guard lock(shared().mutex);
        found = &shared().named.try_emplace(number, threads).first->second;
    }
    found->arrive_and_wait();
}

float __shfl_xor_sync(uint32_t, float value, int distance) {
    own->lanes[threadIdx.x].value = value;
    __syncwarp();
    const float other = own->lanes[threadIdx.x ^ distance].value;
    __syncwarp();
    return other;
}

static Barrier &barrier_at(uint32_t address) { return *reinterpret_cast<Barrier **>(memory_of(address))[0]; }

void barrier_init(uint32_t address, uint32_t arrivals) {
    if (address % 8)
        fail("a barrier that is not aligned");
    auto &barrier = *reinterpret_cast<Barrier **>(memory_of(address)) = new Barrier;
    barrier->count = barrier->pending = arrivals;
}

void barrier_expect(uint32_t barrier, uint32_t nbytes) { barrier_at(barrier).change(1, nbytes); }

void barrier_arrive(uint32_t barrier) { barrier_at(barrier).change(1, 0); }

void barrier_wait(uint32_t address, uint32_t parity) {
    Barrier &barrier = barrier_at(address);
    std::unique_lock lock(barrier.mutex);
    if (!barrier.done.wait_for(lock, std::chrono::seconds(30), [&] { return barrier.phase % 2 != parity; }))
        fail("a barrier waits for what nobody does");
}

void copy_bulk(uint32_t target, const void *source, uint32_t nbytes, uint32_t barrier) {
    if (nbytes % 16 || target % 16 || reinterpret_cast<uintptr_t>(source) % 16)
        fail("a bulk copy that is not aligned");
    memcpy(memory_of(target), source, nbytes);
    barrier_at(barrier).change(0, -static_cast<int64_t>(nbytes));
}

static uint16_t element_at(const TensorMap &map, const int64_t (&index)[4]) {
    int64_t offset = index[0] * 2;
    for (int k = 0; k < map.rank; k++) {
        if (index[k] < 0 || index[k] >= map.sizes[k])
            return 0;
        offset += k ? index[k] * map.strides[k - 1] : 0;
    }
    return map.elements[offset / 2];
}

// Writes element `unit` of row `row` of a copy to `target`, as hardware swizzles rows of 128 bytes.
static void put(uint32_t target, int64_t row, int64_t unit, uint16_t value) {
    const uint32_t at = target + row * 128 + unit * 2;
    memcpy(memory_of(at ^ (at >> 7 & 7) << 4), &value, 2);
}

static void check_copy(uint32_t target, const TensorMap *map, int64_t rank) {
    if (!inputs_are_there || target % 1024 || map->rank != rank || map->box[0] != 64)
        fail("a tensor copy that is early, not aligned, or of another map");
}

void copy_tile(uint32_t target, const TensorMap *map, int column, int row, uint32_t barrier) {
    check_copy(target, map, 2);
    for (int64_t r = 0; r < map->box[1]; r++)
        for (int64_t c = 0; c < 64; c++)
            put(target, r, c, element_at(*map, {column + c, row + r, 0, 0}));
    barrier_at(barrier).change(0, -map->box[1] * 128);
}

// Rows of 128 bytes, or of 64, swizzled as the products of attention read them.
void copy_box(uint32_t target, const TensorMap *map, int column, int row, int batch, uint32_t barrier) {
    const uint32_t line = map->box[0] * 2;
    if (!inputs_are_there || target % 1024 || map->rank != 3 || (line != 128 && line != 64))
        fail("a copy of a box that is early, not aligned, or of another map");
    for (int64_t r = 0; r < map->box[1]; r++)
        for (int64_t c = 0; c < map->box[0]; c++) {
            const uint32_t at = target + r * line + c * 2;
            const uint16_t value = element_at(*map, {column + c, row + r, batch, 0});
            memcpy(memory_of(at ^ (at >> 7 & line / 16 - 1) << 4), &value, 2);
        }
    barrier_at(barrier).change(0, -map->box[1] * line);
}

void copy_window(uint32_t target, const TensorMap *map, int channel, Corner at, uint16_t dx, uint16_t dy,
                 uint32_t barrier) {
    check_copy(target, map, 4);
    for (int64_t pixel = 0; pixel < map->box[1]; pixel++) {
        for (int64_t c = 0; c < 64; c++)
            put(target, pixel, c, element_at(*map, {channel + c, at.x + dx, at.y + dy, at.image}));
        if ((at.x += map->steps[0]) < map->sizes[1] + map->upper[0])
            continue;
        at.x = map->lower[0];
        if ((at.y += map->steps[1]) < map->sizes[2] + map->upper[1])
            continue;
        at.y = map->lower[1], at.image++;
    }
    barrier_at(barrier).change(0, -map->box[1] * 128);
}

void copy_bulk_to_all(uint32_t target, const void *source, uint32_t nbytes, uint32_t barrier, uint16_t ranks) {
    if (!(ranks >> own_rank & 1))
        fail("a copy to other CTAs alone");
    for (uint32_t rank = 0; rank < 16; rank++)
        if (ranks >> rank & 1)
            copy_bulk(address_in(target, rank), source, nbytes, address_in(barrier, rank));
}

void copy_16(uint32_t target, const void *source, uint32_t nbytes) {
    if (!inputs_are_there)
        fail("inputs are read before they are there");
    if (copies.empty())
        copies.emplace_back();
    copies.back().push_back({target, source, nbytes});
}

void copy_commit() { copies.emplace_back(); }

void copies_wait(unsigned pending) {
    while (copies.size() > pending + 1) {
        for (const Copy &c : copies.front()) {
            unsigned char bytes[16] = {};
            memcpy(bytes, c.source, c.nbytes);
            memcpy(memory_of(c.target), bytes, 16);
        }
        copies.erase(copies.begin());
    }
}

void cluster_arrive() { arrival.emplace(cluster_barrier->arrive()); }

void cluster_wait() {
    cluster_barrier->wait(std::move(*arrival));
    arrival.reset();
}

void floats_store_shared(uint32_t address, const float *values, uint32_t count) {
    if (address % (4 * count) || memory_of(address) < own->memory || memory_of(address) > own->memory + OFFSET)
        fail("a store to shared memory that is not aligned, or to another CTA's");
    memcpy(memory_of(address), values, 4 * count);
}

void floats_store_async(uint32_t address, const float *values, uint32_t count, uint32_t barrier) {
    if (address % (4 * count) || address >> ADDRESS_BITS != barrier >> ADDRESS_BITS)
        fail("a store to another CTA that is not aligned, or whose barrier is elsewhere");
    memcpy(memory_of(address), values, 4 * count);
    barrier_at(barrier).change(0, -static_cast<int64_t>(4 * count));
}

static void sync_warpgroup() { shared().warpgroups[threadIdx.x / 128].arrive_and_wait(); }

void products_wait() { sync_warpgroup(); }

// Element (row, k) of an operand of 128-byte rows, or of 64, in groups of eight: the address bits 4 to 6 are XORed
// with 7 to 9, or 4 and 5 with 7 and 8.
static uint16_t element(uint64_t descriptor, int row, int k) {
    const bool half = descriptor >> 62 == 2;
    const uint32_t line = half ? 64 : 128, at = (static_cast<uint32_t>(descriptor << 4) & OFFSET) + row * line + k * 2;
    uint16_t value;
    memcpy(&value, own->memory + (at ^ (at >> 7 & (half ? 3 : 7)) << 4), 2);
    return value;
}

void product_by_thread(float *sums, int count, uint64_t a, uint64_t b, bool keep, float (*read)(uint16_t)) {
    sync_warpgroup();
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
    for (int e = 0; e < count; e++) {
        sums[e] = keep ? sums[e] : 0.0f;
        const int row = 16 * warp + lane / 4 + (e & 2 ? 8 : 0), column = e / 4 * 8 + lane % 4 * 2 + e % 2;
        for (int k = 0; k < 16; k++)
            sums[e] += read(element(a, row, k)) * read(element(b, column, k));
    }
}

void product_of_registers_by_thread(float *sums, int count, const uint32_t *a, uint64_t b, float (*read)(uint16_t)) {
    memcpy(own->lanes[threadIdx.x].fragment, a, 16);
    sync_warpgroup();
    for (int e = 0; e < count; e++) {
        const int column = e / 4 * 8 + threadIdx.x % 4 * 2 + e % 2;
        for (int k = 0; k < 16; k++) {
            const Lane &lane = own->lanes[threadIdx.x / 4 * 4 + k / 2 % 4];
            const uint32_t both = lane.fragment[(e / 2 % 2) + k / 8 * 2];
            sums[e] += read(static_cast<uint16_t>(k % 2 ? both >> 16 : both)) * read(element(b, k, column));
        }
    }
    sync_warpgroup();
}

// Runs the kernel for every block of the grid, a cluster at a time.
static void launch(const Value *values, int cluster, int threads) {
    for (unsigned number = 0; number < gridDim.x * gridDim.y * gridDim.z; number += cluster) {
        blocks.clear();
        cluster_barrier = std::make_unique<std::barrier<>>(cluster * threads);
        for (int rank = 0; rank < cluster; rank++)
            blocks.emplace_back(threads);
        std::vector<std::thread> pool;
        for (int rank = 0; rank < cluster; rank++)
            for (int t = 0; t < threads; t++)
                pool.emplace_back([=] {
                    threadIdx = {static_cast<unsigned>(t), 0, 0};
                    blockIdx = {number % gridDim.x + rank, number / gridDim.x % gridDim.y,
                                number / gridDim.x / gridDim.y};
                    own = &blocks[rank];
                    own_rank = rank;
                    inputs_are_there = false;
                    kernel_of(values);
                });
        for (std::thread &t : pool)
            t.join();
    }
}

// Arguments: a file of the kernel's arguments, the grid's sizes, CTAs of a cluster, threads of a CTA, bytes of a guard.
int main(int, char **argv) {
    FILE *file = fopen(argv[1], "r+b");
    const int cluster = atoi(argv[5]), threads = atoi(argv[6]), guard = atoi(argv[7]);
    gridDim = {static_cast<unsigned>(atoi(argv[2])), static_cast<unsigned>(atoi(argv[3])),
               static_cast<unsigned>(atoi(argv[4]))};
    std::vector<Value> values;
    std::vector<int64_t> sizes;  // of buffers in bytes, or -1
    for (int64_t size; fread(&size, 8, 1, file) == 1;) {
        Value value{};
        if (fread(&value.number, 8, 1, file) != 1 || fread(&value.map, sizeof(TensorMap), 1, file) != 1)
            fail("short input");
        if (size >= 0) {
            char *bytes = static_cast<char *>(aligned_alloc(256, (size + 255) / 256 * 256));
            if (fread(bytes, 1, size, file) != static_cast<size_t>(size))
                fail("short input");
            value.pointer = bytes + guard;
            value.map.elements = reinterpret_cast<const uint16_t *>(bytes + guard);
        }
        values.push_back(value);
        sizes.push_back(size);
    }
    launch(values.data(), cluster, threads);
    rewind(file);
    for (size_t k = 0; k < values.size(); k++) {
        fseek(file, 16 + sizeof(TensorMap), SEEK_CUR);
        if (sizes[k] >= 0)
            fwrite(static_cast<char *>(values[k].pointer) - guard, 1, sizes[k], file);
    }
    return fclose(file);
}
