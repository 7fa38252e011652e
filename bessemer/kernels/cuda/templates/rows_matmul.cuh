// The tokens of a product: row t of x [tokens, K], of a batch's own x where OWN_TOKENS.
struct Rows {
    const uint16_t *row[ROWS];
    int end[ROWS];  // elements of the row; 0 beyond the last token

    Rows(const uint16_t *x, int first, const Shape &shape, int batch) {
        if constexpr (OWN_TOKENS)
            x += static_cast<int64_t>(batch) * shape.tokens * K;
#pragma unroll
        for (int i = 0; i < ROWS; i++) {
            const int t = first + i * ROW_STEP;
            row[i] = x + (t < shape.tokens ? static_cast<int64_t>(t) * K : 0);
            end[i] = t < shape.tokens ? K : 0;
        }
    }

    // Where the 16 bytes of row i from `element` of the chunk at `chunk` on are, and how many of them there are.
    const uint16_t *at(int i, int chunk, int element, int &nbytes) const {
        const int k = chunk + element;
        const bool inside = WHOLE ? end[i] > 0 : k < end[i];
        nbytes = inside ? 16 : 0;
        return row[i] + (inside ? k : 0);
    }
};
