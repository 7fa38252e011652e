"""Shapes on the command line: `x:1x3x224x224`, several separated by commas; `x:scalar` is of rank 0."""

from __future__ import annotations

from bessemer.core.errors import InputError
from bessemer.frontend.profile import Profile


def parse_shapes(text: str | None) -> dict[str, tuple[int, ...]]:
    """{input: shape}; InputError shows the form."""
    out: dict[str, tuple[int, ...]] = {}
    parts = [part for part in (text or "").split(",") if part]
    for k, part in enumerate(parts):
        if ":" not in part and k + 1 < len(parts):  # a name that holds a comma
            parts[k + 1] = f"{part},{parts[k + 1]}"
            continue
        name, colon, dims = part.rpartition(":")
        try:
            shape = tuple(int(d) for d in dims.split("x")) if dims != "scalar" else ()
        except ValueError:
            shape = (-1,)
        if not colon or not name or any(d < 0 for d in shape):
            raise InputError(f"{part!r} is not a shape", fix="write INPUT:1x3x224x224, several separated by commas")
        if name in out:
            raise InputError(f"input {name!r} is given two shapes: {text}", fix="leave one of them out")
        out[name] = shape
    return out


def parse_profile(low: str | None, opt: str | None, high: str | None) -> list[Profile] | None:
    """The profile of --min-shapes, --opt-shapes and --max-shapes; a missing end is the opt shape."""
    if not (low or opt or high):
        return None
    parts = [parse_shapes(t) for t in (low, opt, high)]
    names = dict.fromkeys(n for p in parts for n in p)
    ranges = {}
    for name in names:
        least, usual, greatest = (p.get(name) for p in parts)
        fallback = next(g for g in (usual, greatest, least) if g is not None)
        first, middle, last = (fallback if g is None else g for g in (least, usual, greatest))
        ranges[name] = (first, middle, last)
    return [Profile(ranges)]
