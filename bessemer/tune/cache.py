"""The timing cache: what each candidate kernel measured on a device, one JSON object a line.

An entry's key hashes {problem, tactic, version, config, device fingerprint}, so an entry is never used for another
kernel, another version of it, or another device. Failures are entries too. Merging is commutative and idempotent: of
two entries with one key the faster wins, a time beats a failure, and equal times are ordered by their text.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bessemer.core import canon
from bessemer.core.errors import TimingCacheError
from bessemer.core.files import replacing
from bessemer.kernels.base import LANGUAGES, Config, Problem, Tactic

MODES = ("off", "read", "append", "require")


@dataclass(frozen=True, slots=True)
class Entry:
    """One measurement: microseconds, or why the candidate failed."""

    key: str
    us: float | None
    error: str | None
    tactic: str
    config: Mapping[str, int | str]
    op: str
    device: str

    def to_line(self) -> str:
        return canon.dumps(
            {"key": self.key, "us": self.us, "error": self.error, "tactic": self.tactic, "config": dict(self.config),
             "op": self.op, "device": self.device}
        )  # fmt: skip

    def order(self) -> tuple[bool, float, str]:
        """The better of two entries with one key is the lesser."""
        return (self.us is None, self.us or 0.0, self.to_line())


def entry_key(problem: Problem, tactic: Tactic, config: Config, fingerprint: Mapping[str, Any]) -> str:
    """The hash an entry is found by. What compiles other languages than the tactic's takes no part."""
    others = LANGUAGES - {tactic.language}
    device = {name: value for name, value in fingerprint.items() if name not in others}
    return canon.digest(
        {"problem": problem.key, "tactic": tactic.name, "version": tactic.version, "config": dict(config),
         "device": device}
    )  # fmt: skip


class TimingCache:
    """Entries in memory, and the file they came from. Mode "append" writes new ones back on `save`."""

    def __init__(self, path: str | Path | None = None, mode: str = "append") -> None:
        if mode not in MODES:
            raise TimingCacheError(f"unknown timing cache mode {mode!r}", fix=f"use one of {', '.join(MODES)}")
        self.path, self.mode = Path(path) if path else None, mode
        self.entries: dict[str, Entry] = {}
        self._changed = False
        if self.path is not None and mode != "off":
            if self.path.exists():
                self.merge(read_entries(self.path))
            elif mode in ("read", "require"):
                raise TimingCacheError(
                    "the timing cache does not exist", where=str(self.path), fix="build once with mode 'append'"
                )
        self._changed = False

    def get(self, key: str) -> Entry | None:
        return None if self.mode == "off" else self.entries.get(key)

    def put(self, entry: Entry) -> None:
        if self.mode in ("append", "read"):
            self.merge([entry])

    def merge(self, entries: Iterable[Entry]) -> None:
        """Take in entries; see the module's rule for duplicates."""
        for entry in entries:
            known = self.entries.get(entry.key)
            if known is None or entry.order() < known.order():
                self.entries[entry.key] = entry
                self._changed = True

    def save(self) -> None:
        """Write the file atomically, sorted by key, merged with what others wrote meanwhile."""
        if self.path is None or self.mode != "append" or not self._changed:
            return
        if self.path.exists():
            self.merge(read_entries(self.path))
        try:
            with replacing(self.path) as file:
                file.writelines(self.entries[key].to_line().encode() + b"\n" for key in sorted(self.entries))
        except OSError as error:
            raise TimingCacheError(f"cannot be written: {error.strerror}", where=str(self.path)) from error
        self._changed = False


def read_entries(path: Path) -> list[Entry]:
    """All entries of a file. A damaged last line (a killed build) is dropped; any other is an error naming the line."""
    try:
        lines = path.read_bytes().rstrip(b"\n").split(b"\n")
    except OSError as error:
        raise TimingCacheError(f"cannot be read: {error.strerror}", where=str(path)) from error
    entries = []
    for number, line in enumerate(lines, 1):
        try:
            if line:
                entries.append(_entry(json.loads(line)))
        except (ValueError, KeyError, TypeError, RecursionError) as problem:
            if number == len(lines):
                break
            raise TimingCacheError(
                f"line {number} is damaged: {problem!r}", where=str(path), fix="delete the line or the file"
            ) from None
    return entries


def _entry(data: Mapping[str, Any]) -> Entry:
    us, error = data["us"], data["error"]
    if (us is None) == (error is None) or (us is not None and not 0 <= float(us) < float("inf")):
        raise ValueError(f"a time or an error is needed, not us={us!r} and error={error!r}")
    return Entry(
        str(data["key"]), None if us is None else float(us), None if error is None else str(error), str(data["tactic"]),
        dict(data["config"]), str(data["op"]), str(data["device"]),
    )  # fmt: skip
