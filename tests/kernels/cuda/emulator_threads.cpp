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

static float from_thread(uint32_t thread, float value) {
    own->lanes[threadIdx.x].value = value;
    __syncwarp();
    const float other = own->lanes[thread].value;
    __syncwarp();
    return other;
}

float __shfl_xor_sync(uint32_t, float value, int distance) { return from_thread(threadIdx.x ^ distance, value); }

uint32_t __shfl_sync(uint32_t, uint32_t value, int lane) {
    return __float_as_uint(from_thread(threadIdx.x / 32 * 32 + lane, __uint_as_float(value)));
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
