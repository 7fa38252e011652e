// Reads a launch from a file, runs it cluster by cluster and writes the buffers back; compiled with emulator_threads.cpp.

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
