"""Attributes of host steps survive the file."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bessemer.core import canon
from bessemer.core import dtype as dt
from bessemer.core.dim import sym
from bessemer.engine.codec import decode, encode

SCALARS = (
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.floats(allow_nan=False)
    | st.sampled_from([*dt.ALL.values()]) | st.sampled_from([sym("n") + 1, sym("n") * sym("m") // 3])
)  # fmt: skip
VALUES = st.recursive(SCALARS, lambda t: st.lists(t, max_size=3).map(tuple), max_leaves=8)


@given(VALUES)
def test_values_round_trip_through_json(value: Any) -> None:
    assert decode(json.loads(canon.dumps(encode(value)))) == value


def test_special_floats_and_numpy_scalars() -> None:
    for value in (math.inf, -math.inf, 5e-324, -0.0, 0.1):
        back = decode(json.loads(canon.dumps(encode(value))))
        assert back == value and math.copysign(1, back) == math.copysign(1, value)
    assert math.isnan(decode(encode(math.nan)))
    assert encode(np.int64(3)) == 3 and encode(np.float32(0.5)) == encode(0.5)
    assert encode([1, 2]) == encode((1, 2))


@pytest.mark.parametrize("array", [
    np.arange(6, dtype=np.int64).reshape(2, 3), np.array(1.5, np.float16), np.zeros((0, 3), bool),
    np.arange(6, dtype=">f4").reshape(2, 3).T,
], ids=str)  # fmt: skip
def test_arrays_round_trip(array: np.ndarray) -> None:
    back = decode(json.loads(canon.dumps(encode(array))))
    assert back.dtype == array.dtype and np.array_equal(back, array)


def test_what_has_no_form_is_refused() -> None:
    for value in (object(), {"a": 1}, np.array(["a"], object), 1j):
        with pytest.raises(TypeError, match="cannot be stored in an engine"):
            encode(value)
    with pytest.raises(ValueError, match="unknown attribute tag 'pickle'"):
        decode({"pickle": "gASVAAAA"})
