// Which tiles a CTA of tiled.cu computes, and which chunks of their sums.

// Where a tile begins.
struct Start {
    int token, batch, channel;
};

// The tiles of a cluster, DOWN at once, in bands of BAND rows of such that go through all channels of all batches: they
// share x and weights in L2. CTAs [peers, peers + DOWN) of the cluster add up the same part of k, this one is `row` of
// them.
struct Walk {
    int down, columns, across;  // steps: `columns` in each batch, `across` in all of them
    int first, step, row, peers, rows_of_weights;

    Walk(const Shape &shape)
        : down((shape.tokens + BM * DOWN - 1) / (BM * DOWN)), columns((shape.channels + BN - 1) / BN),
          across(columns * shape.batches), first(blockIdx.x / CLUSTER), step(gridDim.x / CLUSTER),
          row(DOWN > 1 ? blockIdx.x % DOWN : 0), peers(SPLIT > 1 ? blockIdx.x % CLUSTER / DOWN * DOWN : 0),
          rows_of_weights((shape.channels + 63) / 64 * 64) {}

    int end() const { return down * across; }

    int count() const { return first < end() ? (end() - first - 1) / step + 1 : 0; }

    // Where this CTA's tile of step `tile` begins; of a step behind the last one, anywhere.
    Start at(int tile) const {
        unsigned first_down = 0, rest = tile;
        if (tile >= BAND * across) {
            first_down = rest / (BAND * across) * BAND;
            rest -= first_down * across;
        }
        const unsigned height = max(min(down - static_cast<int>(first_down), BAND), 1), step_across = rest / height;
        const unsigned batch = across > columns ? step_across / columns : 0;
        return {static_cast<int>((first_down + rest - step_across * height) * DOWN + row) * BM, static_cast<int>(batch),
                static_cast<int>(step_across - batch * columns) * BN};
    }

    // The first row of its packed weights, whose batches are whole blocks.
    int weight(const Start &start) const { return start.batch * rows_of_weights + start.channel; }
};

// The chunks of k that a CTA adds up.
struct Chunks {
    int first, end;

    Chunks(const Shape &shape, int rank)
        : first(rank * shape.chunks / SPLIT), end((rank + 1) * shape.chunks / SPLIT) {}

    int count() const { return end - first; }
};
