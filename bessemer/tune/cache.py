"""The timing cache: what each candidate kernel measured on a device, one JSON object a line.

An entry's key hashes {problem, tactic, version, config, device fingerprint}, so an entry is never used for another
kernel, another version of it, or another device. Failures are entries too. Merging is commutative and idempotent: of
two entries with one key the faster wins, a time beats a failure, and equal times are ordered by their text.

A pruned cache keeps the times of each problem's winner and its close rivals; the others are named in one line, the
start of their keys, so that nobody times them again. A further kind of line says which kernels won in their places in a
sequence (`Placed`): of two merged ones the faster wins, but a build's own outcome over what was known. Another says how
large the values of a graph became (`Seen`), which takes longer to find out than all else of a build that needs no
timing. The package brings such caches for some devices (`shipped`): they count where the user's has nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bessemer.core import canon
from bessemer.core.errors import TimingCacheError
from bessemer.core.files import alone_in, replacing
from bessemer.kernels.base import LANGUAGES, Config, Problem, Tactic
from bessemer.passes.ranges import Measured

MODES = ("off", "read", "append", "require")
SHORT = 12  # characters of the keys of slower candidates
WITHIN = 0.05  # rivals this close to the fastest keep their times when a cache is pruned
CACHES = Path(__file__).parent / "caches"


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
    problem: str  # see problem_key; "" in caches of older versions

    def to_line(self) -> str:
        return canon.dumps(
            {"key": self.key, "us": self.us, "error": self.error, "tactic": self.tactic, "config": dict(self.config),
             "op": self.op, "device": self.device, "problem": self.problem}
        )  # fmt: skip

    def order(self) -> tuple[bool, float, str]:
        """The better of two entries with one key is the lesser."""
        return (self.us is None, self.us or 0.0, self.to_line())


@dataclass(frozen=True, slots=True)
class Slower:
    """Candidates of a problem that lost, by the first SHORT characters of their keys."""

    problem: str
    device: str
    keys: frozenset[str]

    def to_line(self) -> str:
        return canon.dumps({"slower": sorted(self.keys), "device": self.device, "problem": self.problem})


@dataclass(frozen=True, slots=True)
class Placed:
    """What was chosen in its place in a sequence of problems, see tune/in_place.py: of each problem that had rivals the
    keys of its fastest candidate alone and of the chosen one. `us` is the time of a run."""

    sequence: str
    device: str
    us: float
    chosen: Mapping[str, tuple[str, str]]

    def to_line(self) -> str:
        chosen = {problem: list(keys) for problem, keys in self.chosen.items()}
        return canon.dumps({"placed": chosen, "device": self.device, "sequence": self.sequence, "us": self.us})

    def order(self) -> tuple[float, str]:
        """The better of two for one sequence is the lesser."""
        return (self.us, self.to_line())


@dataclass(frozen=True, slots=True)
class Seen:
    """The ranges of a graph's values, by ranges.key_of the graph."""

    graph: str
    ranges: Measured

    def to_line(self) -> str:
        r = self.ranges
        return canon.dumps(
            {"seen": self.graph, "wide": dict(r.wide), "exponents": dict(r.exponents), "how": r.how,
             "complete": r.complete}
        )  # fmt: skip


Line = Entry | Slower | Placed | Seen


def problem_key(problem: Problem) -> str:
    """What the entries of a problem have in common."""
    return canon.digest(problem.key)[:16]


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
        self.slower: dict[tuple[str, str], frozenset[str]] = {}  # by problem and device
        self._slower: set[str] = set()  # all of them
        self.placed: dict[tuple[str, str], Placed] = {}  # by sequence and device
        self._unwritten: set[tuple[str, str]] = set()  # of those, the ones that the file never had
        self.seen: dict[str, Seen] = {}  # by graph
        self.shipped: TimingCache | None = None
        self._changed = False
        if self.path is not None and mode != "off":
            if self.path.exists():
                self.merge(read_lines(self.path))
            elif mode in ("read", "require"):
                raise TimingCacheError(
                    "the timing cache does not exist", where=str(self.path), fix="build once with mode 'append'"
                )
        self._changed = False
        self._unwritten.clear()

    def get(self, key: str) -> Entry | None:
        """The entry of this cache, else of the one that the package brings."""
        if self.mode == "off":
            return None
        return self.entries.get(key) or (self.shipped.get(key) if self.shipped is not None else None)

    def is_slower(self, key: str) -> bool:
        """Whether the candidate with that key is only known to have lost."""
        if self.mode == "off":
            return False
        return key[:SHORT] in self._slower or (self.shipped is not None and self.shipped.is_slower(key))

    def placed_in(self, sequence: str, device: str) -> Placed | None:
        """What was chosen in its place in that sequence."""
        if self.mode == "off":
            return None
        found = self.placed.get((sequence, device))
        return found or (self.shipped.placed_in(sequence, device) if self.shipped is not None else None)

    def ranges_of(self, graph: str) -> Measured | None:
        """The ranges of the graph with that key."""
        found = self.seen.get(graph) if self.mode != "off" else None
        return found.ranges if found is not None else None

    def put(self, line: Entry | Placed | Seen) -> None:
        if self.mode in ("append", "read"):
            if isinstance(line, Placed):  # made after the entries it names: an older one compared other candidates
                self.placed.pop((line.sequence, line.device), None)
            self.merge([line])

    def merge(self, lines: Iterable[Line]) -> None:
        """Take in what another cache knows; see the module's rule for duplicates."""
        for line in lines:
            if isinstance(line, Placed):
                at = (line.sequence, line.device)
                if at not in self.placed or line.order() < self.placed[at].order():
                    self.placed[at] = line
                    self._unwritten.add(at)
                    self._changed = True
            elif isinstance(line, Seen):
                if line.graph not in self.seen or line.to_line() < self.seen[line.graph].to_line():
                    self.seen[line.graph] = line
                    self._changed = True
            elif isinstance(line, Slower):
                place = (line.problem, line.device)
                keys = self.slower.get(place, frozenset()) | line.keys
                self._changed |= keys != self.slower.get(place)
                self.slower[place] = keys
                self._slower |= line.keys
            elif line.key not in self.entries or line.order() < self.entries[line.key].order():
                self.entries[line.key] = line
                self._changed = True

    def lines(self) -> list[Line]:
        """All that is known, in the order of the file."""
        entries = [self.entries[key] for key in sorted(self.entries)]
        slower = (Slower(*place, keys) for place, keys in sorted(self.slower.items()))
        placed = (self.placed[at] for at in sorted(self.placed))
        return [*entries, *slower, *placed, *(self.seen[graph] for graph in sorted(self.seen))]

    def save(self) -> None:
        """Write the file atomically, sorted by key, merged with what others wrote meanwhile."""
        if self.path is None or self.mode != "append" or not self._changed:
            return
        try:
            with alone_in(self.path.parent):  # from reading to replacing: of two builds none overwrites the other's
                if self.path.exists():
                    self._catch_up(read_lines(self.path))
                with replacing(self.path) as file:
                    file.writelines(line.to_line().encode() + b"\n" for line in self.lines())
        except OSError as error:
            raise TimingCacheError(
                f"the timing cache cannot be written: {error.strerror}", where=str(self.path),
                fix="free space, or name a file in a folder that can be written",
            ) from error  # fmt: skip
        self._changed = False
        self._unwritten.clear()

    def _catch_up(self, lines: Iterable[Line]) -> None:
        """Merge what the file has by now. Of what was chosen in its place the newer outcome stays: this cache's where
        the file never had it, else the file's, which another build may have put there since it was read."""
        file = TimingCache()
        file.merge(lines)
        file.placed |= {at: self.placed[at] for at in self._unwritten}
        self.placed |= file.placed
        self.merge(file.lines())

    def pruned(self, within: float = WITHIN) -> list[Line]:
        """The lines of a small cache that chooses the same kernels: of every problem the fastest, the candidates within
        that share of it, and what was chosen in its place; the others are named as slower. Entries of no named problem
        are left out, and so are ranges."""
        needed = {key for p in self.placed.values() for keys in p.chosen.values() for key in keys}
        fastest: dict[tuple[str, str], float] = {}
        for e in self.entries.values():
            place = (e.problem, e.device)
            fastest[place] = min(fastest.get(place, float("inf")), float("inf") if e.us is None else e.us)
        out = TimingCache()
        out.merge(Slower(*place, keys) for place, keys in self.slower.items())
        out.merge(self.placed.values())
        for e in self.entries.values():
            place = (e.problem, e.device)
            if not e.problem:
                continue
            kept = e.us is not None and (e.us <= fastest[place] * (1 + within) or e.key in needed)
            out.merge([e if kept else Slower(*place, frozenset({e.key[:SHORT]}))])
        return out.lines()


def shipped(fingerprint: Mapping[str, Any]) -> TimingCache | None:
    """The cache that the package brings for a device; None where it has none."""
    path = CACHES / f"{str(fingerprint.get('gpu', '')).lower().replace(' ', '-')}.jsonl"
    return TimingCache(path, "read") if path.exists() else None


def read_lines(path: Path) -> list[Line]:
    """All lines of a file. A damaged last line (a killed build) is dropped; any other is an error naming the line, and
    so is a single one: the file may be no cache."""
    try:
        lines = path.read_bytes().rstrip(b"\n").split(b"\n")
    except OSError as error:
        raise TimingCacheError(
            f"the timing cache cannot be read: {error.strerror}", where=str(path), fix="name another file"
        ) from error
    out = []
    for number, line in enumerate(lines, 1):
        try:
            if line:
                out.append(_line(json.loads(line)))
        except (ValueError, KeyError, TypeError, RecursionError) as problem:
            if number == len(lines) > 1:
                break
            raise TimingCacheError(
                f"line {number} is damaged: {problem!r}", where=str(path), fix="delete the line or the file"
            ) from None
    return out


def _line(data: Mapping[str, Any]) -> Line:
    if "placed" in data:
        chosen = {str(p): (str(alone), str(here)) for p, (alone, here) in data["placed"].items()}
        return Placed(str(data["sequence"]), str(data["device"]), float(data["us"]), chosen)
    if "seen" in data:
        wide = {str(v): str(why) for v, why in data["wide"].items()}
        exponents = {str(v): int(k) for v, k in data["exponents"].items()}
        return Seen(str(data["seen"]), Measured(wide, exponents, str(data["how"]), bool(data["complete"])))
    if "slower" in data:
        return Slower(str(data["problem"]), str(data["device"]), frozenset(str(k) for k in data["slower"]))
    us, error = data["us"], data["error"]
    if (us is None) == (error is None) or (us is not None and not 0 <= float(us) < float("inf")):
        raise ValueError(f"a time or an error is needed, not us={us!r} and error={error!r}")
    return Entry(
        str(data["key"]), None if us is None else float(us), None if error is None else str(error), str(data["tactic"]),
        dict(data["config"]), str(data["op"]), str(data["device"]), str(data.get("problem", "")),
    )  # fmt: skip
