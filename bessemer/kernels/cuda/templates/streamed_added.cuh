// The sums of the rows of the output: those that the four warps of a warpgroup have of its run of 64 channels.
inline void store_rows(const unsigned char *memory, const Place &place, const Shape &shape, const Tile &tile@EPILOGUE_PARAMETERS@) {
    const int group = threadIdx.x / 128, channel = tile.channel + group * 64;
    barrier_among(2 + group, 128);
    for (int own = first_part(tile.rank) * 32 + threadIdx.x % 128; own < first_part(tile.rank + 1) * 32; own += 128) {
        const auto *warps = reinterpret_cast<const float4 *>(memory + ADDED_AT) + (group * BT + own) * 2;
        const float4 low = warps[0], high = warps[1];
        if (tile.token + own < shape.tokens && channel < shape.channels)
            store_added(make_float2((low.x + low.z) + (high.x + high.z), (low.y + low.w) + (high.y + high.w)),
                        place.first_row + tile.token + own, channel@EPILOGUE_NAMES@);
    }
}
