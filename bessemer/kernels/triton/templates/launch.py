"""How kernels follow one another. Read as text: a module gets the functions that it uses.

With programmatic dependent launch (PDL, from sm_90 on) a kernel may start while the one ahead of it still runs. Every
kernel calls `begin` first, and `wait` once before it reads or writes anything that another kernel may write or read:
before that it computes addresses, and reads or prefetches constants.
"""

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait


@triton.jit
def begin(PDL: tl.constexpr):
    """Lets the kernel behind this one start once all programs of this one have: it gets what they leave free."""
    if PDL:
        gdc_launch_dependents()


@triton.jit
def wait(PDL: tl.constexpr):
    """Waits for the end of the kernel ahead, and so of all before it, which that one has waited for itself: therefore
    every program calls it, on every path. A kernel with an empty grid is not launched, and not waited for."""
    if PDL:
        gdc_wait()


@triton.jit
def prefetch(at):
    """Asks L2 for the lines of 128 bytes that hold the addresses `at`."""
    tl.inline_asm_elementwise("prefetch.global.L2 [$1]; // $0", "=r,l", [at], dtype=tl.int32, is_pure=False, pack=1)


@triton.jit
def prefetch_matrix(base, stride, rows, cols, R: tl.constexpr):
    """Asks L2 for [rows, cols] elements in rows `stride` apart, R rows and at least 128 lines at a time."""
    LINE: tl.constexpr = 1024 // base.dtype.element_ty.primitive_bitwidth  # elements of 128 bytes
    C: tl.constexpr = 128 // R if R < 128 else 1
    for r0 in range(0, rows, R):
        r = tl.minimum(r0 + tl.arange(0, R), rows - 1)
        for c0 in range(0, cols, C * LINE):
            c = tl.minimum(c0 + tl.arange(0, C) * LINE, cols - 1)
            prefetch(base + r[:, None] * stride + c[None, :])
