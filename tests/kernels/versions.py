"""The versions of the GPU's tactics and the texts of their templates, as they were when somebody last looked at both.

    python -m tests.kernels.versions [--same-kernels]

records the present ones. A version is part of the timing cache's key: where a template changes and no version is
raised, times of other kernels count for the new ones, and the tuner does not try them. So that stops the update, unless
--same-kernels says that the compiled kernels were compared and are the same.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
from pathlib import Path

import bessemer.kernels
from bessemer.kernels.base import TACTICS, of_language

RECORD = Path(__file__).with_name("versions.json")
FOLDERS = ("cuda/templates", "triton/templates")
C = r"//[^\n]*|/\*.*?\*/"
COMMENT = {".py": r"#[^\n]*|\"\"\".*?\"\"\"", ".cu": C, ".cuh": C}
Record = dict[str, dict[str, int | str]]


def present() -> Record:
    """Versions by tactic, and digests by template, of what is left without comments and spaces."""
    versions: dict[str, int | str] = {t.name: t.version for t in of_language(TACTICS.discover(), ("cuda", "triton"))}
    root = Path(bessemer.kernels.__file__).parent
    paths = [p for folder in FOLDERS for p in (root / folder).iterdir() if p.suffix in COMMENT]
    return {
        "versions": versions,
        "templates": {p.relative_to(root).as_posix(): _digest(p) for p in sorted(paths)},
    }


def recorded() -> Record:
    found: Record = json.loads(RECORD.read_text(encoding="utf-8"))
    return found


def changed(before: Record, now: Record, kind: str) -> list[str]:
    """The names whose entries are new, gone or others."""
    return sorted(n for n in {*before[kind], *now[kind]} if before[kind].get(n) != now[kind].get(n))


def _digest(path: Path) -> str:
    text = re.sub(COMMENT[path.suffix], "", path.read_text(encoding="utf-8"), flags=re.S)
    return hashlib.sha256("".join(text.split()).encode()).hexdigest()[:16]


def main(same_kernels: bool) -> int:
    before, now = recorded(), present()
    templates = changed(before, now, "templates")
    if templates and not changed(before, now, "versions") and not same_kernels:
        print(f"{', '.join(templates)} changed, and no tactic's version: raise those of the tactics that use them")
        return 1
    RECORD.write_text(json.dumps(now, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--same-kernels", action="store_true", help="the compiled kernels are the same")
    sys.exit(main(parser.parse_args().same_kernels))
