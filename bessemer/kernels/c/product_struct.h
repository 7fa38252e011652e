struct product {
    int64_t rows, cols;            /* of one group */
    int64_t taps, depth;           /* the reduction: taps * depth */
    int64_t row_tiles, panels;     /* pieces that rows and vectors of columns are split into */
    int64_t item_tiles, item_panels; /* pieces of one work item, at most */
    int64_t tap_block, depth_block;  /* pieces of the reduction: one tap at a time where depth is split */
    int64_t ahead;                   /* panels to the one that this thread likely takes next; 0 to not ask for it */
};
