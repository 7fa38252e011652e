"""The vector layer of the hand-tiled kernels: one header per ISA level, the same names in each."""

from __future__ import annotations

from functools import cache
from importlib import resources

LANES = {"avx512": 16, "avx2": 8, "scalar": 4}


def lanes(arch: str) -> int:
    """Floats per vector of ISA level `arch`; KeyError for a level that has no header."""
    return LANES[arch]


@cache
def template(name: str) -> str:
    """The text of `name`, a C file of this package."""
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def header(arch: str) -> str:
    """Includes and vector operations of ISA level `arch`."""
    return "#include <stdint.h>\n#include <string.h>\n" + template(f"isa_{arch}.h")
