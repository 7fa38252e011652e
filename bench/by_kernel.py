"""Where the time of rows goes, by kernel and against its floor, from the profiles of `bench.gpu --profile`.

    python -m bench.by_kernel --from bench/results/h200-profiles.json [ROW ...] [--into docs/performance.md]

The floor of a step is what its bytes take at the GPU's copy rate, or its sums at its product rate, whichever is more;
steps are added up by the tactic that made their kernel. What takes less than a twentieth of a row is "others".
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.document import markdown, put_into

BEGIN, END = "<!-- by kernel: written by python -m bench.by_kernel --from FILE --into -->", "<!-- end of by kernel -->"
HEAD = ("row", "kernel", "steps", "us", "of the row", "floor, us", "floor of it")
LEAST = 0.05  # of a row's time; what takes less is among the others
OTHERS = "others"


@dataclass
class Sum:
    """Steps of one kernel: how many, their time and their floors in us."""

    steps: int = 0
    us: float = 0.0
    floor_us: float = 0.0

    def add(self, steps: int, us: float, floor_us: float) -> None:
        """Count some more."""
        self.steps, self.us, self.floor_us = self.steps + steps, self.us + us, self.floor_us + floor_us

    def cells(self, whole: float) -> tuple[str, ...]:
        """The columns behind the kernel's name; `whole` is the row's time in us."""
        shares = (f"{self.us / whole:.0%}", f"{self.floor_us:.1f}", f"{self.floor_us / self.us:.0%}")
        return (str(self.steps), f"{self.us:.1f}", *shares)


def by_kernel(steps: Sequence[Mapping[str, Any]]) -> dict[str, Sum]:
    """The sums of a row, by kernel, the longest first and the others last."""
    sums: dict[str, Sum] = {}
    for s in steps:
        sums.setdefault(s["kernel"], Sum()).add(s["times"], s["us"] * s["times"], s["floor_us"] * s["times"])
    whole = sum(s.us for s in sums.values())
    out, others = {}, Sum()
    for name, found in sorted(sums.items(), key=lambda item: -item[1].us):
        if found.us >= LEAST * whole:
            out[name] = found
        else:
            others.add(found.steps, found.us, found.floor_us)
    return {**out, OTHERS: others} if others.steps else out


def table(rows: Mapping[str, Any]) -> str:
    """The table of some rows of a file; each row's name stands in its first line."""
    lines = []
    for name, row in rows.items():
        sums = by_kernel(row["steps"])
        whole = sum(s.us for s in sums.values())
        lines += [(name if k == 0 else "", kernel, *s.cells(whole)) for k, (kernel, s) in enumerate(sums.items())]
    return markdown(HEAD, lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", metavar="ROW", help="all of the file where none is named")
    parser.add_argument("--from", dest="source", type=Path, required=True)
    parser.add_argument("--into", type=Path, help="document to put the table into")
    args = parser.parse_args()
    rows = json.loads(args.source.read_text(encoding="utf-8"))["rows"]
    unknown = [name for name in args.rows if name not in rows]
    if unknown:
        raise SystemExit(f"{args.source} has no {', '.join(unknown)}; it has {', '.join(rows)}")
    text = table({name: rows[name] for name in args.rows or rows})
    print(text)
    if args.into:
        put_into(args.into, BEGIN, END, text)


if __name__ == "__main__":
    main()
