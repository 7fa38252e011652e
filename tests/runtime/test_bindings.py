"""What the caller gives against what the program takes: each mistake is named with what would be right."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bessemer.core import dtype as dt
from bessemer.core.dim import sym
from bessemer.core.errors import InputError, ShapeError
from bessemer.core.interval import INF, Range
from bessemer.engine.program import Program, Step, Symbol, Tensor
from bessemer.runtime.bindings import Signature, check_out

B, S = sym("batch"), sym("s")


BATCH, LENGTH = Range(1, 16, 4), Range(8, 64, 16, 8)


def signature(batch: Range = BATCH, s: Range = LENGTH) -> Signature:
    tensors = (
        Tensor("x", dt.f32, (B, S, 3), "input", 0, 0),
        Tensor("mask", dt.bool_, (B, S), "input", 1, 0),
        Tensor("scale", dt.bf16, (), "input", 2, 2),
        Tensor("y", dt.f32, (B, 2 * S), "output", 0, 0),
    )
    symbols = {"batch": Symbol(batch, 0, 0), "s": Symbol(s, 0, 1), "u0": Symbol(Range())}
    return Signature.of(Program("p", (0, 1, 2), (3,), tensors, (), (), symbols, 0, 0, 0))


def test_symbols_get_their_values() -> None:
    assert signature().bind([(4, 16, 3), (4, 16), ()]) == {"batch": 4, "s": 16}


@pytest.mark.parametrize("shapes,message,fix", [
    ([(17, 16, 3), (17, 16), ()], r"x: dimension 0 \(batch\) is 17, allowed are 1 to 16", "nearest valid size is 16"),
    ([(0, 16, 3), (0, 16), ()], "dimension 0 .* is 0", "nearest valid size is 1"),
    ([(4, 15, 3), (4, 15), ()], r"dimension 1 \(s\) is 15, .*multiple of 8", "nearest valid size is 16"),
    ([(4, 1, 3), (4, 1), ()], "is 1, allowed are 8 to 64", "nearest valid size is 8"),
    ([(4, 90, 3), (4, 90), ()], "is 90", "nearest valid size is 64"),
    ([(4, 16, 4), (4, 16), ()], "input x: dimension 2 is 4, the engine takes 3", "build the engine with that size"),
    ([(4, 16, 3), (5, 16), ()], r"input mask: dimension 0 is 5, the engine takes 4 \(batch = 4", None),
    ([(4, 16), (4, 16), ()], r"input x has rank 2 \[4, 16\], the engine takes rank 3: \[batch, s, 3\]", None),
    ([(), (4, 16), ()], "input x has rank 0", None),
    ([(4, 16, 3), (4, 16), (1,)], "input scale has rank 1", None),
])  # fmt: skip
def test_shapes_outside_the_profile(shapes: list[tuple[int, ...]], message: str, fix: str | None) -> None:
    with pytest.raises(ShapeError, match=message) as caught:
        signature().bind(shapes)
    assert (fix is None and caught.value.fix is None) or (fix is not None and fix in (caught.value.fix or ""))


def test_inputs_that_leave_less_than_nothing_of_a_value() -> None:
    """A kernel of a convolution may not fit: two such sizes multiply to a positive one, so each is looked at."""
    tensors = (
        Tensor("x", dt.f32, (B, S), "input", 0, 0),
        Tensor("/c/Conv", dt.f32, (B - 3, S - 12, 8), "arena", 0, 0),
        Tensor("y", dt.f32, (B, S), "output", 0, 0),
    )
    ranges = {"batch": Symbol(BATCH, 0, 0), "s": Symbol(LENGTH, 0, 1)}
    steps = (Step("kernel", "conv", origin=("/c/Conv", "/r/Relu"), reads=(0,), writes=(1,)),)
    narrow = Signature.of(Program("p", (0,), (2,), tensors, steps, (), ranges, 0, 0, 0))
    assert narrow.bind([(3, 16)]) == {"batch": 3, "s": 16}
    for shape, told in (((1, 8), "batch = 1 a value would have a dimension of -2"), ((4, 8), "s = 8 .* of -4")):
        with pytest.raises(ShapeError, match=f"the inputs are too small: at {told}") as caught:
            narrow.bind([shape])
        assert caught.value.where == "ONNX nodes /c/Conv, /r/Relu"


@pytest.mark.parametrize("lo,hi,multiple", [(9, 64, 8), (8, 63, 8), (1, 100, 32), (5, 5, 1)])
def test_the_nearest_valid_size_is_valid(lo: int, hi: int, multiple: int) -> None:
    bound = signature(s=Range(lo, hi, None, multiple))
    valid = [s for s in range(lo, hi + 1) if s % multiple == 0]
    for s in range(hi + 40):
        shapes = [(1, s, 3), (1, s), ()]
        if s in valid:
            bound.bind(shapes)
            continue
        with pytest.raises(ShapeError) as caught:
            bound.bind(shapes)
        nearest = int(str(caught.value.fix).split("nearest valid size is ")[1].split(";")[0])
        assert nearest in valid and abs(nearest - s) == min(abs(v - s) for v in valid)


def test_unbounded_dimensions_say_so() -> None:
    with pytest.raises(ShapeError, match="allowed are 8 or more"):
        signature(s=Range(8, INF)).bind([(1, 2, 3), (1, 2), ()])


def test_names() -> None:
    s = signature()
    assert s.ordered({"scale": 3, "x": 1, "mask": 2}) == [1, 2, 3] == s.ordered([1, 2, 3])
    with pytest.raises(InputError, match=r"missing: mask, scale; unknown: maks") as caught:
        s.ordered({"x": 1, "maks": 2})
    assert caught.value.fix == "the inputs are x, mask, scale"
    with pytest.raises(InputError, match="2 arrays were given by position, the engine has 3 inputs"):
        s.ordered([1, 2])


def test_dtypes() -> None:
    s = signature()
    s.check_dtype(0, np.dtype(np.float32))
    s.check_dtype(2, np.dtype(np.uint16))
    with pytest.raises(InputError, match="input x has dtype float64, the engine takes f32") as caught:
        s.check_dtype(0, np.dtype(np.float64))
    assert caught.value.fix == "convert it: array.astype('float32')"
    with pytest.raises(InputError, match=r"takes bf16 \(as uint16 bits\)"):
        s.check_dtype(2, np.dtype(np.float32))
    strings = replace(s, inputs=(Tensor("t", dt.string, (B,), "input", 0, 0),))
    strings.check_dtype(0, np.dtype("<U7"))
    strings.check_dtype(0, np.dtype(object))


def test_out_buffers() -> None:
    y = signature().outputs[0]
    good = np.empty((2, 4), np.float32)
    assert check_out(good, y, (2, 4)) is good
    frozen = np.empty((2, 4), np.float32)
    frozen.flags.writeable = False
    for bad, message in [
        (np.empty((2, 5), np.float32), r"is float32 \[2, 5\], needed is float32 \[2, 4\]"),
        (np.empty((2, 4)), "is float64"),
        ([1.0], "is list"),
        (np.empty((4, 2), np.float32).T, "must be C-contiguous and writable"),
        (frozen, "must be C-contiguous and writable"),
    ]:
        with pytest.raises(InputError, match=message):
            check_out(bad, y, (2, 4))
