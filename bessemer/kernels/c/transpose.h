/* to[j * to_step + i] = from[i * from_step + j] for i < rows, j < cols, by element size. */
static inline void transpose_4(const void *source, int64_t from_step, int64_t rows, int64_t cols, void *target,
                               int64_t to_step) {
    const float *from = source;
    float *to = target;
    int64_t i = 0;
    for (; i + VL <= rows; i += VL) {
        int64_t j = 0;
        for (; j + VL <= cols; j += VL)
            vf_transpose(from + i * from_step + j, from_step, to + j * to_step + i, to_step);
        for (; j < cols; j++)
            for (int64_t r = i; r < i + VL; r++) to[j * to_step + r] = from[r * from_step + j];
    }
    for (; i < rows; i++)
        for (int64_t j = 0; j < cols; j++) to[j * to_step + i] = from[i * from_step + j];
}

#define TRANSPOSE(SIZE, TYPE)                                                                                   \
    static inline void transpose_##SIZE(const void *source, int64_t from_step, int64_t rows, int64_t cols,      \
                                        void *target, int64_t to_step) {                                        \
        const TYPE *from = source;                                                                              \
        TYPE *to = target;                                                                                      \
        for (int64_t i = 0; i < rows; i++)                                                                      \
            for (int64_t j = 0; j < cols; j++) to[j * to_step + i] = from[i * from_step + j];                   \
    }
TRANSPOSE(1, uint8_t)
TRANSPOSE(2, uint16_t)
TRANSPOSE(8, uint64_t)
