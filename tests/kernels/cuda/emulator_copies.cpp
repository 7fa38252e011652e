// Copies to shared memory and what counts them; see emulator_threads.cpp, with which this is compiled.

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

void copy_image(uint32_t target, const TensorMap *map, int channel, int x, int y, int image, uint32_t barrier) {
    const uint32_t line = map->box[0] * 2;
    if (!inputs_are_there || target % (map->swizzle ? 1024 : 128) || map->rank != 4 || map->box[3] != 1)
        fail("a copy of a part of an image that is early, not aligned, or of another map");
    uint32_t at = target;
    for (int64_t row = 0; row < map->box[2]; row++)
        for (int64_t column = 0; column < map->box[1]; column++)
            for (int64_t c = 0; c < map->box[0]; c++, at += 2) {
                const uint16_t value = element_at(*map, {channel + c, x + column, y + row, image});
                memcpy(memory_of(map->swizzle ? at ^ (at >> 7 & line / 16 - 1) << 4 : at), &value, 2);
            }
    barrier_at(barrier).change(0, -map->box[2] * map->box[1] * line);
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

void cluster_arrive_relaxed() { running->arrival = cluster.arrive(); }

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
