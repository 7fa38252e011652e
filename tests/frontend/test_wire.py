"""Large weights are read from the file, whatever the file does to its wire format."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bessemer.core.errors import ModelError
from bessemer.frontend import wire
from bessemer.frontend.onnx import import_model
from tests.frontend.models import model, node, tensor, value

LARGE = np.arange(3000, dtype=np.float32)


def _large() -> onnx.ModelProto:
    nodes = [node("Add", ["x", "w"], ["s"]), node("Add", ["s", "b"], ["y"])]
    weights = [tensor("w", LARGE), tensor("b", np.float32(1))]
    return model(nodes, [value("x", [3000])], ["y"], weights)


def test_large_weights_are_cut_out_and_found_again():
    data = _large().SerializeToString()
    rest, slices = wire.cut(memoryview(data))
    assert len(rest) < len(data) - LARGE.nbytes + 200
    w, b = onnx.ModelProto.FromString(rest).graph.initializer
    found = slices.find(w.doc_string)
    assert found is not None and bytes(found) == LARGE.tobytes()
    assert b.HasField("raw_data") and slices.find(b.doc_string) is None


def test_a_model_cannot_forge_a_ticket():
    proto = _large()
    proto.graph.initializer[1].doc_string = "0" * 32 + ":0:4"
    _, slices = wire.cut(memoryview(proto.SerializeToString()))
    assert slices.find(proto.graph.initializer[1].doc_string) is None
    assert wire.Slices().find("anything") is None


def test_a_graph_imported_from_a_file_holds_no_copy_of_a_weight(tmp_path: Path):
    path = tmp_path / "m.onnx"
    path.write_bytes(_large().SerializeToString())
    graph = import_model(path)
    loaded = graph.constants["w"].load()
    assert np.array_equal(loaded, LARGE) and not loaded.flags.owndata and not loaded.flags.writeable
    assert graph == import_model(_large()) == import_model(_large().SerializeToString())


def test_a_large_weight_of_a_wrong_size_is_named(tmp_path: Path):
    proto = _large()
    proto.graph.initializer[0].dims[0] = 2999
    with pytest.raises(ModelError, match=r"tensor 'w' of type f32\[2999\] holds 12000 bytes, not 11996"):
        import_model(proto.SerializeToString())


DATA = _large().SerializeToString()
START = DATA.find(LARGE.tobytes())
HEADERS = [k for k in range(len(DATA)) if not START <= k < START + LARGE.nbytes]


@given(st.sampled_from(HEADERS), st.integers(0, 255))
@settings(max_examples=400)
def test_what_is_cut_parses_as_the_whole_does(at: int, byte: int):
    data = bytearray(DATA)
    data[at] = byte
    rest, slices = wire.cut(memoryview(bytes(data)))
    try:
        whole = onnx.ModelProto.FromString(bytes(data))
    except Exception:
        with pytest.raises(Exception):  # noqa: B017 - the same failure of the same parser
            onnx.ModelProto.FromString(rest)
        return
    parsed = onnx.ModelProto.FromString(rest)
    for t in parsed.graph.initializer:
        found = slices.find(t.doc_string) if isinstance(t.doc_string, str) else None
        if found is not None:
            t.raw_data = bytes(found)
    for a, b in zip(parsed.graph.initializer, whole.graph.initializer, strict=True):
        assert (a.name, list(a.dims), a.data_type, a.raw_data) == (b.name, list(b.dims), b.data_type, b.raw_data)
