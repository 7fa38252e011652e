"""Kernels in CUDA C++, compiled by NVRTC: where Triton is measured to fall short."""
