"""Tables of documents that programs write: between two marks, the first naming the program."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table."""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ("---",) * len(head), *rows))


def put(document: str, begin: str, end: str, text: str) -> str:
    """`document` with what lies between the marks replaced; ValueError where it has none."""
    head, first, rest = document.partition(begin)
    _, last, tail = rest.partition(end)
    if not (first and last):
        raise ValueError(f"the document has no {begin} followed by {end}")
    return f"{head}{first}\n{text}\n{last}{tail}"


def put_into(path: Path, begin: str, end: str, text: str) -> None:
    """The same in a file."""
    path.write_text(put(path.read_text(encoding="utf-8"), begin, end, text), encoding="utf-8")
