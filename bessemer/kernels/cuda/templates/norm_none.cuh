// Tokens that are multiplied as they are.
struct Norm {
    explicit Norm(int) {}

    void load(int) {}

    void add(const unsigned char *, int) {}

    void total(unsigned char *) {}

    void apply(const unsigned char *, int, float (&)[8]) const {}

    void store(const unsigned char *, int, const Shape &) const {}
};
