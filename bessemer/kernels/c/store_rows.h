#define STORES_TILES 0
static inline void store_tile(const struct tile_out *out, const int rows, const int vecs,
                              vf acc[TILE_ROWS][TILE_VECS]) {
    (void)out, (void)rows, (void)vecs, (void)acc;
}
