// More instructions of sm_90: parts of images, and fragments of products that lie in registers.

// A part of an image, channels last: a box from (channel, x, y, image) on. What lies outside the image is zero.
inline void copy_image(uint32_t target, const TensorMap *map, int channel, int x, int y, int image, uint32_t barrier) {
    asm volatile("cp.async.bulk.tensor.4d.shared::cluster.global.tile.mbarrier::complete_tx::bytes "
                 "[%0], [%1, {%2, %3, %4, %5}], [%6];" ::"r"(target),
                 "l"(map), "r"(channel), "r"(x), "r"(y), "r"(image), "r"(barrier)
                 : "memory");
}

// A warp's part of the left side of a product, 16 rows of 16 elements: lane k names where row k % 16 has its elements from
// 8 (k / 16) on.
inline void load_fragment(uint32_t (&fragment)[4], uint32_t address) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(fragment[0]), "=r"(fragment[1]), "=r"(fragment[2]), "=r"(fragment[3])
                 : "r"(address)
                 : "memory");
}

// The same value, of which compilers know nothing: what is computed from it in a loop stays there, and takes no registers
// around it.
inline uint32_t anew(uint32_t x) {
    asm volatile("" : "+r"(x));
    return x;
}
