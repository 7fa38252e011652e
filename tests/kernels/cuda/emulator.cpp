// The GPU that emulator.h declares: every thread of a cluster is a context with a stack of its own, which runs until it
// has to wait. CTAs, their warps and lanes of these are in a random order, and the first that can goes on, as far ahead
// of the others as it gets: threads that should have waited for each other and did not are in a wrong order.
//
// Copies of 16 bytes happen when they are waited for, so that a missing wait shows; barriers have phases, and products
// read their operands by descriptor, as the hardware does; a store that is outside any buffer, or a cluster of which
// all threads wait, ends the process with a message.

#include <sys/mman.h>
#include <ucontext.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <map>
#include <numeric>
#include <random>
#include <vector>

#include "emulator.h"

// Where threads meet: each counts the phases it saw end.
struct Meeting {
    int count, arrived = 0;
    unsigned phase = 0;

    unsigned arrive() {
        const unsigned now = phase;
        if (++arrived == count)
            arrived = 0, phase++;
        return now;
    }
};

struct Barrier {
    int64_t count, pending, bytes = 0;  // arrivals of a phase, those that lack, and bytes that are expected and lack
    unsigned phase = 0, filled = 0, awaited = 0;  // the phases up to the last with copies, and with somebody who waited

    void change(int64_t arrivals, int64_t nbytes) {
        pending -= arrivals, bytes += nbytes;
        if (nbytes < 0)
            filled = phase + 1;
        if (pending < 0)
            fail("more arrivals than a barrier counts");
        if (pending == 0 && bytes == 0)
            pending = count, phase++;
    }
};

struct Shared : Block {
    std::vector<unsigned char> bytes = std::vector<unsigned char>((1u << ADDRESS_BITS) + 1024, 0xff);
    std::vector<Lane> shown;
    Meeting all;
    std::vector<Meeting> warpgroups, warps;
    std::map<int, Meeting> named;

    explicit Shared(int threads)
        : shown(threads), all{threads}, warpgroups(threads / 128, {128}), warps(threads / 32, {32}) {
        memory = bytes.data() + (1024 - reinterpret_cast<uintptr_t>(bytes.data()) % 1024) % 1024;
        lanes = shown.data();
    }
};

struct Copy {
    uint32_t target;
    const void *source;
    uint32_t nbytes;
};

struct Thread {
    unsigned index;  // in its block
    int rank;        // its block's in the cluster
    ucontext_t context;
    const unsigned *phase = nullptr;  // what it waits for: that these bits of a phase are no longer those of `seen`
    unsigned seen, bits;
    bool inputs_are_there = false, ended = false;
    unsigned arrival;                       // the cluster's phase in which it arrived
    std::vector<std::vector<Copy>> copies;  // committed groups, and one that is open

    bool waits() const { return phase && ((*phase ^ seen) & bits) == 0; }
};

constexpr size_t STACK = 64 << 10;
static std::deque<Shared> blocks;  // of the cluster that runs
static std::deque<Barrier> barriers;
static Meeting cluster;
static std::vector<Thread> threads;  // who goes first is first
static Thread *running;
static ucontext_t launcher;
static const Value *arguments;
static unsigned first_block;
Dim3 gridDim, threadIdx, blockIdx;
Block *own;
int own_rank;
bool inputs_are_there;

void fail(const char *what) {
    fprintf(stderr, "%s\n", what);
    _Exit(3);
}

unsigned char *memory_of(uint32_t address) { return blocks[address >> ADDRESS_BITS].memory + (address & OFFSET); }

static void become(Thread &thread) {
    running = &thread;
    threadIdx = {thread.index, 0, 0};
    const unsigned block = first_block + thread.rank;
    blockIdx = {block % gridDim.x, block / gridDim.x % gridDim.y, block / gridDim.x / gridDim.y};
    own = &blocks[thread.rank];
    own_rank = thread.rank;
    inputs_are_there = thread.inputs_are_there;
}

// Runs the first thread that waits for nothing, or ends the cluster where all threads ended.
static void give_way() {
    Thread &thread = *running;
    thread.inputs_are_there = inputs_are_there;
    bool ended = true;
    for (Thread &next : threads) {
        ended = ended && next.ended;
        if (next.ended || next.waits())
            continue;
        become(next);
        swapcontext(&thread.context, &next.context);
        return;
    }
    if (!ended)
        fail("a barrier waits for what nobody does");
    setcontext(&launcher);
}

static void wait(const unsigned &phase, unsigned seen, unsigned bits = ~0u) {
    running->phase = &phase, running->seen = seen, running->bits = bits;
    if (running->waits())
        give_way();
    running->phase = nullptr;
}

static void meet(Meeting &meeting) { wait(meeting.phase, meeting.arrive()); }

static Shared &shared() { return *static_cast<Shared *>(own); }

void __syncwarp() { meet(shared().warps[threadIdx.x / 32]); }

void __syncthreads() { meet(shared().all); }

void barrier_among(int number, int threads) {
    meet(shared().named.try_emplace(number, Meeting{threads}).first->second);
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
    *reinterpret_cast<Barrier **>(memory_of(address)) = &barriers.emplace_back(Barrier{arrivals, arrivals});
}

void barrier_expect(uint32_t barrier, uint32_t nbytes) { barrier_at(barrier).change(1, nbytes); }

void barrier_arrive(uint32_t barrier) { barrier_at(barrier).change(1, 0); }

void barrier_wait(uint32_t address, uint32_t parity) {
    Barrier &barrier = barrier_at(address);
    wait(barrier.phase, parity, 1);
    barrier.awaited = barrier.phase;
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
    if (running->copies.empty())
        running->copies.emplace_back();
    running->copies.back().push_back({target, source, nbytes});
}

void copy_commit() { running->copies.emplace_back(); }

void copies_wait(unsigned pending) {
    auto &copies = running->copies;
    while (copies.size() > pending + 1) {
        for (const Copy &c : copies.front()) {
            unsigned char bytes[16] = {};
            memcpy(bytes, c.source, c.nbytes);
            memcpy(memory_of(c.target), bytes, 16);
        }
        copies.erase(copies.begin());
    }
}

void cluster_arrive() { running->arrival = cluster.arrive(); }

void cluster_wait() { wait(cluster.phase, running->arrival); }

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

static void sync_warpgroup() { meet(shared().warpgroups[threadIdx.x / 128]); }

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
    float rows[2][16], column[16];
    for (int k = 0; k < 32; k++)
        rows[k / 16][k % 16] = read(element(a, 16 * warp + lane / 4 + k / 16 * 8, k % 16));
    for (int c = 0; c < count / 2; c++) {
        for (int k = 0; k < 16; k++)
            column[k] = read(element(b, c / 2 * 8 + lane % 4 * 2 + c % 2, k));
        for (int r = 0; r < 2; r++) {
            float &sum = sums[c / 2 * 4 + r * 2 + c % 2];
            sum = keep ? sum : 0.0f;
            for (int k = 0; k < 16; k++)
                sum += rows[r][k] * column[k];
        }
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

static void run() {
    kernel_of(arguments);
    for (const auto &group : running->copies)
        if (!group.empty())
            fail("a thread ends before its copies have arrived");
    running->ended = true;
    give_way();
}

// Runs the kernel for every block of the grid, a cluster at a time.
static void launch(int ranks, unsigned size) {
    std::minstd_rand random;
    const auto shuffled = [&](int count) {
        std::vector<int> found(count);
        std::iota(found.begin(), found.end(), 0);
        std::shuffle(found.begin(), found.end(), random);
        return found;
    };
    threads.reserve(ranks * size);
    const auto stacks = static_cast<char *>(
        mmap(nullptr, ranks * size * STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    if (stacks == MAP_FAILED)
        fail("no memory for stacks");
    for (first_block = 0; first_block < gridDim.x * gridDim.y * gridDim.z; first_block += ranks) {
        blocks.clear();
        barriers.clear();
        cluster = {static_cast<int>(ranks * size)};
        for (int rank = 0; rank < ranks; rank++)
            blocks.emplace_back(size);
        threads.clear();
        for (int rank : shuffled(ranks))
            for (unsigned warp : shuffled(size / 32))
                for (unsigned lane : shuffled(32))
                    threads.push_back({warp * 32 + lane, rank});
        for (size_t k = 0; k < threads.size(); k++) {
            getcontext(&threads[k].context);
            threads[k].context.uc_stack = {stacks + k * STACK, 0, STACK};
            makecontext(&threads[k].context, run, 0);
        }
        become(threads.front());
        swapcontext(&launcher, &running->context);
        for (const Barrier &barrier : barriers)
            if (barrier.filled > barrier.awaited)
                fail("a CTA ends before a copy to it has arrived");
    }
}

// Arguments: a file of the kernel's arguments, the grid's sizes, CTAs of a cluster, threads of a CTA, bytes of a guard.
int main(int, char **argv) {
    FILE *file = fopen(argv[1], "r+b");
    const int guard = atoi(argv[7]);
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
    arguments = values.data();
    launch(atoi(argv[5]), atoi(argv[6]));
    rewind(file);
    for (size_t k = 0; k < values.size(); k++) {
        fseek(file, 16 + sizeof(TensorMap), SEEK_CUR);
        if (sizes[k] >= 0)
            fwrite(static_cast<char *>(values[k].pointer) - guard, 1, sizes[k], file);
    }
    return fclose(file);
}
