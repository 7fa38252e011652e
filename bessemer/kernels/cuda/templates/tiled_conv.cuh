// The rows of a convolution: output pixel t reads a window of x [images, height, width, channels], tap by tap.
struct Rows {
    const Shape &shape;
    Corner corner;
    int chunk, tap_y, tap_x;

    Rows(const Shape &shape) : shape(shape) {}

    void start(int token, int first) {
        const int pixels = shape.out_height * shape.out_width, pixel = token % pixels;
        const int tap = first / shape.chunks_of_tap;
        corner.image = token / pixels;
        corner.y = pixel / shape.out_width * shape.stride_y - shape.pad_y;
        corner.x = pixel % shape.out_width * shape.stride_x - shape.pad_x;
        chunk = first % shape.chunks_of_tap;
        tap_y = tap / shape.kernel_x, tap_x = tap % shape.kernel_x;
    }

    void settle() {
        corner = {settled(corner.x), settled(corner.y), settled(corner.image)};
        chunk = settled(chunk), tap_y = settled(tap_y), tap_x = settled(tap_x);
    }

    void copy_next(uint32_t target, const TensorMap *map, uint32_t barrier) {
        const int dx = tap_x * shape.dilation_x, dy = tap_y * shape.dilation_y;
        copy_window(target, map, chunk * CHUNK, corner, dx, dy, barrier);
        if (++chunk < shape.chunks_of_tap)
            return;
        chunk = 0;
        if (++tap_x < shape.kernel_x)
            return;
        tap_x = 0, tap_y++;
    }
};
