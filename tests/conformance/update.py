"""Record what each case of the node suite does on a target.

    python -m tests.conformance.update TARGET [--jobs N] [--force]

The record may only improve: a case that passed and no longer does stops the update, unless --force is given.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

from tests.conformance.node_suite import FAILED, PASS, RUNNERS, cases, golden, golden_path, outcome, ratio


def run(target: str, name: str) -> str:
    return outcome(target, cases()[name])


def outcomes_of(target: str, jobs: int) -> dict[str, str]:
    """What every case does, by name, in so many processes."""
    names = sorted(cases())
    with ProcessPoolExecutor(jobs, get_context("spawn")) as pool:
        return dict(zip(names, pool.map(run, [target] * len(names), names, chunksize=4)))


def main(target: str, jobs: int, force: bool) -> int:
    outcomes, before = outcomes_of(target, jobs), golden(target)
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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", choices=RUNNERS)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--force", action="store_true")
    options = parser.parse_args()
    sys.exit(main(options.target, options.jobs, options.force))
