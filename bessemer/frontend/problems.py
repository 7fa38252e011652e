"""What a model holds that cannot be imported: collected while importing goes on, and reported all at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bessemer.core.errors import UnsupportedModel

SHOWN = 5  # node names per line


@dataclass(frozen=True)
class Problem:
    """One node (or tensor) that is refused: `what` it is ("Resize-19"), its name, and why."""

    what: str
    name: str
    reason: str


def error_of(problems: Sequence[Problem]) -> UnsupportedModel:
    """One error that lists all problems, those of one kind and reason on one line."""
    groups: dict[tuple[str, str], dict[str, None]] = {}
    for p in problems:
        groups.setdefault((p.what, p.reason), {})[p.name] = None
    lines = []
    for (what, reason), names in sorted(groups.items()):
        shown = ", ".join(list(names)[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
        lines.append(f"  {what}: {reason} [{shown}]")
    if len(groups) == 1:
        return UnsupportedModel(lines[0].strip())
    return UnsupportedModel("\n".join([f"{len(groups)} parts of the model are not supported:", *lines]))
