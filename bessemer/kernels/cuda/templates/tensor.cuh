// More instructions of sm_90: tensor copies, barriers that count arrivals, products and registers of long loops.

struct alignas(64) TensorMap {
    uint64_t words[16];
};

inline void barrier_arrive(uint32_t barrier) {
    asm volatile("mbarrier.arrive.shared.b64 _, [%0];" ::"r"(barrier) : "memory");
}

// At a barrier of any CTA of the cluster; it releases memory to the own CTA alone.

inline void barrier_arrive_at(uint32_t address_in_cluster) {
    asm volatile("mbarrier.arrive.shared::cluster.b64 _, [%0];" ::"r"(address_in_cluster) : "memory");
}

// The same bulk copy to the CTAs of a cluster whose bits are set, each at the same place, counted by its own barrier.

inline void copy_bulk_to_all(uint32_t target, const void *source, uint32_t nbytes, uint32_t barrier, uint16_t ranks) {
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster "
                 "[%0], [%1], %2, [%3], %4;" ::"r"(target),
                 "l"(source), "r"(nbytes), "r"(barrier), "h"(ranks)
                 : "memory");
}

// A box of a matrix, rows of 128 bytes, from (column, row) on.

inline void copy_tile(uint32_t target, const TensorMap *map, int column, int row, uint32_t barrier) {
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes "
                 "[%0], [%1, {%2, %3}], [%4];" ::"r"(target),
                 "l"(map), "r"(column), "r"(row), "r"(barrier)
                 : "memory");
}

// Channels of a run of pixels, channels last: of those (dx, dy) from a window's corner, first at (x, y, image).

struct Corner {
    int x, y, image;
};

inline void copy_window(uint32_t target, const TensorMap *map, int channel, Corner at, uint16_t dx, uint16_t dy,
                        uint32_t barrier) {
    asm volatile("cp.async.bulk.tensor.4d.shared::cluster.global.im2col.mbarrier::complete_tx::bytes "
                 "[%0], [%1, {%2, %3, %4, %5}], [%6], {%7, %8};" ::"r"(target),
                 "l"(map), "r"(channel), "r"(at.x), "r"(at.y), "r"(at.image), "r"(barrier), "h"(dx), "h"(dy)
                 : "memory");
}

// Waits for all products but those that were committed last.
inline void products_wait_for_others() { asm volatile("wgmma.wait_group.sync.aligned 1;" ::: "memory"); }

// Registers of a warpgroup's threads, which others take.

template <int COUNT> inline void registers_keep() { asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(COUNT)); }

template <int COUNT> inline void registers_take() { asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(COUNT)); }
