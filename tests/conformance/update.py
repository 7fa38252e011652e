"""Record what each case of the node suite does on a target: `python -m tests.conformance.update TARGET [--force]`.

The record may only improve: a case that passed and no longer does stops the update, unless --force is given.
"""

from __future__ import annotations

import json
import sys
from collections import Counter

from tests.conformance.node_suite import FAILED, PASS, cases, golden, golden_path, outcome, ratio


def main(target: str, force: bool) -> int:
    outcomes = {name: outcome(target, case) for name, case in sorted(cases().items())}
    before = golden(target)
    for name, result in outcomes.items():
        if result.startswith(FAILED):
            print(f"{name}: {result}")
    worse = [name for name, result in outcomes.items() if before.get(name) == PASS and result != PASS]
    for name in worse:
        print(f"{name} passed before; now {outcomes[name]}")
    kinds = Counter(result.split(":")[0] for result in outcomes.values())
    passed, counted = ratio(outcomes)
    summary = {**dict(sorted(kinds.items())), "counted": counted, "passed of counted": passed}
    print(summary, f"{passed / counted:.4f}")
    if (worse or kinds["failed"]) and not force:
        return 1
    golden_path(target).write_text(json.dumps({"summary": summary, "cases": outcomes}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    arguments = [a for a in sys.argv[1:] if a != "--force"]
    sys.exit(main(arguments[0] if arguments else "reference", "--force" in sys.argv))
