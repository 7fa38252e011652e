// The tokens of a convolution: output pixel t reads a window of x [batch, height, width, C]. Element k of its row is
// channel k % C of tap k / C.
struct Rows {
    static constexpr int OUTSIDE = -(1 << 28);

    const uint16_t *image[ROWS];
    int top[ROWS], left[ROWS];
    int height, width;

    Rows(const uint16_t *x, int first, const Shape &shape, int) : height(shape.height), width(shape.width) {
        const int pixels = shape.out_height * shape.out_width;
#pragma unroll
        for (int i = 0; i < ROWS; i++) {
            const int t = first + i * ROW_STEP;
            const bool inside = t < shape.tokens;
            const int batch = inside ? t / pixels : 0, pixel = t - batch * pixels, y = pixel / shape.out_width;
            image[i] = x + static_cast<int64_t>(batch) * height * width * C;
            top[i] = inside ? y * STRIDE_H - shape.pad_h : OUTSIDE;
            left[i] = (pixel - y * shape.out_width) * STRIDE_W - shape.pad_w;
        }
    }

    const uint16_t *at(int i, int chunk, int element, int &nbytes) const {
        const int k = chunk + element;
        const int tap = (C % CHUNK ? k : chunk) / C;  // a chunk that lies in one tap needs one division for all threads
        const int y = top[i] + tap / KERNEL_W * DILATION_H, x = left[i] + tap % KERNEL_W * DILATION_W;
        const bool inside = static_cast<unsigned>(y) < height && static_cast<unsigned>(x) < width && (WHOLE || k < K);
        nbytes = inside ? 16 : 0;
        return image[i] + (inside ? (static_cast<int64_t>(y) * width + x) * C + (k - tap * C) : 0);
    }
};
