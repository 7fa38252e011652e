// The rows of a product: x [tokens, k].
struct Rows {
    int row, column;

    Rows(const Shape &) {}

    void start(int token, int chunk) { row = token, column = chunk * CHUNK; }

    void settle() {}

    void copy_next(uint32_t target, const TensorMap *x, uint32_t barrier) {
        copy_tile(target, x, column, row, barrier);
        column += CHUNK;
    }
};
