"""What the kernels for GPUs share, in whichever language they are written: products, windows and sizes."""
