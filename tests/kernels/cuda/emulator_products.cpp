// Warpgroup products, which read their operands as descriptors tell; compiled with emulator_threads.cpp.

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

// The share of a thread where a's fragments are in registers; `right` knows b's element (column, k).
template <class T>
static void multiply_fragments(float *sums, int count, const uint32_t *a, bool keep, float (*read)(uint16_t), T right) {
    memcpy(own->lanes[threadIdx.x].fragment, a, 16);
    sync_warpgroup();
    for (int e = 0; e < count; e++) {
        const int column = e / 4 * 8 + threadIdx.x % 4 * 2 + e % 2;
        sums[e] = keep ? sums[e] : 0.0f;
        for (int k = 0; k < 16; k++) {
            const Lane &lane = own->lanes[threadIdx.x / 4 * 4 + k / 2 % 4];
            const uint32_t both = lane.fragment[(e / 2 % 2) + k / 8 * 2];
            sums[e] += read(static_cast<uint16_t>(k % 2 ? both >> 16 : both)) * read(right(column, k));
        }
    }
    sync_warpgroup();
}

void product_of_registers_by_thread(float *sums, int count, const uint32_t *a, uint64_t b, float (*read)(uint16_t)) {
    multiply_fragments(sums, count, a, true, read, [b](int column, int k) { return element(b, k, column); });
}

void product_of_gathered_rows_by_thread(float *sums, int count, const uint32_t *a, uint64_t b, bool keep,
                                        float (*read)(uint16_t)) {
    multiply_fragments(sums, count, a, keep, read, [b](int column, int k) { return element(b, column, k); });
}

// Lanes 8 m to 8 m + 7 name the rows of matrix m; lane k gets elements 2 (k % 4) and the next of row k / 4 of each.
void load_fragment(uint32_t (&fragment)[4], uint32_t address) {
    if (address % 16)
        fail("a row of a fragment that is not aligned");
    own->lanes[threadIdx.x].fragment[0] = address;
    __syncwarp();
    const unsigned lane = threadIdx.x % 32, first = threadIdx.x - lane;
    for (unsigned m = 0; m < 4; m++)
        memcpy(&fragment[m], memory_of(own->lanes[first + 8 * m + lane / 4].fragment[0] + lane % 4 * 4), 4);
    __syncwarp();
}
