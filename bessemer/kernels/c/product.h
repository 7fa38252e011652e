/* The loops around the tiles: groups x column blocks x row blocks of work items.

   The kernel defines before this text: TILES, the tile functions by [rows][vecs]; `store_row`, the epilogue; and of its
   A and B `struct source`, `source_rows` (pointers to the rows of tiles, [tile][tap][TILE_ROWS]), `source_panel` (a
   packed panel of B), `source_taps` (the taps of a group, at least one), where a tile's first row and column lie in the
   output when its rows follow each other there (`source_out_row`, else negative, and `source_out_col`), and
   `source_store`, which stores the rows of a tile one by one. */
static void product_block(const struct product *s, const struct source *src, int64_t group, int64_t tile0,
                          int64_t tile1, int64_t panel, const float *const *rows, const float *b, const float *next,
                          float *c, void *const *p, const int64_t *d) {
    const int64_t vectors = (s->cols + VL - 1) / VL;
    const int64_t vec0 = part(vectors, s->panels, panel), vecs = part(vectors, s->panels, panel + 1) - vec0;
    const int64_t col = vec0 * VL, n = smaller(vecs * VL, s->cols - col);
    const int whole = s->tap_block >= s->taps && s->depth_block >= s->depth;
    /* While the tiles multiply, they ask for the panel that comes next: weights often lie in main memory. */
    const char *ahead = (const char *)(next ? next : b);
    const int64_t ahead_step = next ? smaller(64, vecs * VL * 4 / (tile1 - tile0)) : 0;
    const int64_t out_col = source_out_col(src, s, group, col);
    const int64_t all_taps = source_taps(src, s, group);
    for (int64_t t = 0; t < all_taps; t += s->tap_block) {
        int64_t k = 0;
        do { /* once at least: a sum of nothing is zero */
            const int64_t taps = smaller(s->tap_block, all_taps - t), depth = smaller(s->depth_block, s->depth - k);
            const int last = t + taps == all_taps && k + depth == s->depth;
            const float *const *a = rows + t * TILE_ROWS;
            for (int64_t i = tile0; i < tile1; i++, a += s->taps * TILE_ROWS) {
                const int64_t row0 = part(s->rows, s->row_tiles, i), row1 = part(s->rows, s->row_tiles, i + 1);
                float *acc = whole ? c : c + (i - tile0) * TILE_ROWS * TILE_VECS * VL;
                const struct tile_out out = {p, d, source_out_row(src, s, group, row0), out_col, n};
                const int direct = last && STORES_TILES && out.row >= 0;
                TILES[row1 - row0][vecs](a, taps, k, depth, b + (t * s->depth + k) * vecs * VL,
                                         s->depth * vecs * VL, acc, !t && !k, direct ? &out : 0, ahead, ahead_step);
                ahead += ahead_step * taps * depth;
                if (last && !direct) source_store(src, s, group, row0, row1, col, n, acc, vecs * VL, p, d);
            }
        } while ((k += s->depth_block) < s->depth);
    }
}

static void product_items(const struct product *s, const struct source *src, int64_t begin, int64_t end,
                          int64_t thread, void *const *p, const int64_t *d) {
    const int64_t row_blocks = (s->row_tiles + s->item_tiles - 1) / s->item_tiles;
    const int64_t col_blocks = (s->panels + s->item_panels - 1) / s->item_panels;
    const int64_t kept = s->tap_block >= s->taps && s->depth_block >= s->depth ? 1 : s->item_tiles;
    const float *rows[s->item_tiles * s->taps * TILE_ROWS + 1];
    float c[kept * TILE_ROWS * TILE_VECS * VL] __attribute__((aligned(64)));
    for (int64_t item = begin; item < end; item++) {
        const int64_t group = item / (row_blocks * col_blocks), cell = item % (row_blocks * col_blocks);
        const int64_t tile0 = part(s->row_tiles, row_blocks, cell % row_blocks);
        const int64_t tile1 = part(s->row_tiles, row_blocks, cell % row_blocks + 1);
        const int64_t panel0 = part(s->panels, col_blocks, cell / row_blocks);
        const int64_t panel1 = part(s->panels, col_blocks, cell / row_blocks + 1);
        source_rows(src, s, group, tile0, tile1, thread, rows);
        for (int64_t panel = panel0; panel < panel1; panel++) {
            const int64_t next = panel + 1 < panel1 ? panel + 1 : panel + s->ahead;
            const float *b = source_panel(src, s, group, panel, thread);
            product_block(s, src, group, tile0, tile1, panel, rows, b,
                          s->ahead && next < s->panels ? source_panel(src, s, group, next, thread) : 0, c, p, d);
        }
    }
}
