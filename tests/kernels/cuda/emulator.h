// A GPU in ordinary C++, as kernels see it: templates/ptx.cuh's instructions are functions, and those that need more of
// C++ than arithmetic are in emulator_*.cpp, which are compiled once for all kernels.
//
// Addresses of shared memory are rank << 18 | offset. A read of inputs before `wait_for_inputs`, a run that is not
// aligned, and what those files see, end the process with a message.

#include <cmath>
#include <cstdint>
#include <cstring>

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

struct Lane {
    float value;
    uint32_t fragment[4];
};

struct Block {
    unsigned char *memory;
    Lane *lanes;  // what threads show each other
};

extern Dim3 gridDim, threadIdx, blockIdx;  // these and what follows: of the thread that runs
extern Block *own;
extern int own_rank;
extern bool inputs_are_there;

[[noreturn]] void fail(const char *what);

unsigned char *memory_of(uint32_t address);

void __syncwarp();

void __syncthreads();

void barrier_among(int number, int threads);

float __shfl_xor_sync(uint32_t mask, float value, int distance);

uint32_t __shfl_sync(uint32_t mask, uint32_t value, int lane);

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

inline float rsqrt_16(float x) { return 1.0f / sqrtf(x); }

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
inline int max(int a, int b) { return a > b ? a : b; }

inline uint32_t shared_address(const void *p) {
    return static_cast<uint32_t>(own_rank) << ADDRESS_BITS |
           static_cast<uint32_t>(static_cast<const unsigned char *>(p) - own->memory);
}

inline void launch_dependents() {}

inline void wait_for_inputs() { inputs_are_there = true; }

template <class T> inline void wait_for_inputs_after(T) { inputs_are_there = true; }

void barrier_init(uint32_t address, uint32_t arrivals);

inline void fence_barrier_init() {}

void barrier_expect(uint32_t barrier, uint32_t nbytes);

void barrier_arrive(uint32_t barrier);

void barrier_wait(uint32_t address, uint32_t parity);

inline void barrier_arrive_at(uint32_t address) { barrier_arrive(address); }

void copy_bulk(uint32_t target, const void *source, uint32_t nbytes, uint32_t barrier);

// What the driver's 128 bytes say, in words of two bytes each, innermost dim first.
struct TensorMap {
    const uint16_t *elements;
    int64_t rank, sizes[4], strides[4], box[4], swizzle, lower[2], upper[2], steps[2];  // strides in bytes, of sizes[1] on
};

void copy_tile(uint32_t target, const TensorMap *map, int column, int row, uint32_t barrier);

void copy_box(uint32_t target, const TensorMap *map, int column, int row, int batch, uint32_t barrier);

void copy_image(uint32_t target, const TensorMap *map, int channel, int x, int y, int image, uint32_t barrier);

void load_fragment(uint32_t (&fragment)[4], uint32_t address);

inline uint32_t anew(uint32_t x) { return x; }

template <class T> inline T settled(T x) { return x; }

struct Corner {
    int x, y, image;
};

void copy_window(uint32_t target, const TensorMap *map, int channel, Corner at, uint16_t dx, uint16_t dy,
                 uint32_t barrier);

void copy_bulk_to_all(uint32_t target, const void *source, uint32_t nbytes, uint32_t barrier, uint16_t ranks);

void copy_16(uint32_t target, const void *source, uint32_t nbytes);

void copy_commit();

void copies_wait(unsigned pending);

template <int PENDING> inline void copy_wait() { copies_wait(PENDING); }

void cluster_arrive_relaxed();

void cluster_wait();

inline uint32_t address_in(uint32_t address, uint32_t rank) { return rank << ADDRESS_BITS | (address & OFFSET); }

void floats_store_shared(uint32_t address, const float *values, uint32_t count);

template <int COUNT> inline void store_shared(uint32_t address, const float *values) {
    floats_store_shared(address, values, COUNT);
}

void floats_store_async(uint32_t address, const float *values, uint32_t count, uint32_t barrier);

template <int COUNT> inline void store_async(uint32_t address, const float *values, uint32_t barrier) {
    floats_store_async(address, values, COUNT, barrier);
}

inline uint64_t operand(uint32_t address) { return (address & OFFSET) >> 4; }

inline void fence_async_proxy() {}

inline void products_begin() {}

inline void products_commit() {}

void products_wait();

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

// The share of one thread, `count` sums, in a [64, 16] times b [2 count, 16] transposed; `read` knows the elements.
void product_by_thread(float *sums, int count, uint64_t a, uint64_t b, bool keep, float (*read)(uint16_t));

// The same with a's fragments in registers, and b as [16, 2 count].
void product_of_registers_by_thread(float *sums, int count, const uint32_t *a, uint64_t b, float (*read)(uint16_t));

// The same with b as it is elsewhere.
void product_of_gathered_rows_by_thread(float *sums, int count, const uint32_t *a, uint64_t b, bool keep,
                                        float (*read)(uint16_t));

// An argument of the kernel, as emulator.py writes it.
struct Value {
    void *pointer;
    int64_t number;
    TensorMap map;

    template <class T> operator T *() const { return static_cast<T *>(pointer); }

    operator int() const { return static_cast<int>(number); }

    operator int64_t() const { return number; }

    operator TensorMap() const { return map; }
};

void kernel_of(const Value *values);  // one thread of the kernel; emulator.py writes it after the kernel's own text
