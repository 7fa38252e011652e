/* What the tiled kernels share. Rows and columns are split evenly: `part` says where piece i of n starts, and pieces
   differ by at most one, so that no piece is a thin rest. */
#define UNROLL _Pragma("GCC unroll 32")
#define INLINE static inline __attribute__((always_inline))

static inline int64_t part(int64_t total, int64_t pieces, int64_t i) {
    const int64_t base = total / pieces, extra = total % pieces;
    return i * base + (i < extra ? i : extra);
}

static inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

/* Where a tile's result goes: output rows row, row + 1, ... (the output seen as [rows, cols]), columns col..col+n. */
struct tile_out {
    void *const *p;
    const int64_t *d;
    int64_t row, col, n;
};
