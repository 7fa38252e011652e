// The tokens of a product: row t of x [tokens, K], of a batch's own x where OWN_TOKENS.
struct Rows {
    const uint16_t *start;  // of what the thread copies: its first row, from its element of the CTA's first chunk on
    int left[ROWS];         // elements of a row from there on; 0 beyond the last token

    // Rows from `first` on, of which the thread copies eight elements of every chunk: from k + element on.
    Rows(const uint16_t *x, int first, int k, int element, const Shape &shape, int batch) {
        if constexpr (OWN_TOKENS)
            x += static_cast<int64_t>(batch) * shape.tokens * K;
        start = settled(x + static_cast<int64_t>(first) * K + k + element);
#pragma unroll
        for (int i = 0; i < ROWS; i++)
            left[i] = first + i * ROW_STEP < shape.tokens ? K - k - element : 0;
    }

    // What the thread's copies of a chunk share.
    int chunk(int c) const { return c * CHUNK; }

    // Where the 16 bytes of row i are, and how many of them there are: where there are none it may be anywhere.
    const uint16_t *at(int i, int from, int &nbytes) const {
        nbytes = (WHOLE ? 0 : from) < left[i] ? 16 : 0;
        return start + i * ROW_STEP * K + from;
    }
};
