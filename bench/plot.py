"""The plot of a row's profile, as `bessemer bench --profile --plot` draws one: achieved against roofline by step.

    python -m bench.plot bert-base-b1-s128 --from bench/results/h200-profiles.json -o roofline.svg

The file has the profiles of `bench.gpu --profile`: of each row its steps, equal ones once with their number.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from bessemer.cli.plot import roofline_svg
from bessemer.cli.roofline import Ceilings, Profiled
from bessemer.targets.base import resolve

TARGET = "cuda:sm_90"


def profiled(steps: list[dict[str, Any]], ceilings: Ceilings) -> list[Profiled]:
    """The steps of a row of fp16, each as often as it is there."""
    out: list[Profiled] = []
    for s in steps:
        by_memory, by_sums = s["bytes"] / ceilings.bytes_per_s * 1e6, s["flops"] / ceilings.half_flops_per_s * 1e6
        least, seconds = max(by_memory, by_sums), s["us"] / 1e6
        out += [
            Profiled(
                len(out) + k, 1, s["name"], s["kernel"], s["us"], s["bytes"], s["flops"], True,
                "memory" if by_memory >= by_sums else "compute", least, 100 * least / s["us"],
                s["flops"] / seconds / 1e9, s["bytes"] / seconds / 1e9, (),
            )
            for k in range(s["times"])
        ]  # fmt: skip
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("row")
    parser.add_argument("--from", dest="source", type=Path, required=True)
    parser.add_argument("-o", "--output", type=Path, required=True)
    args = parser.parse_args()
    limits = resolve(TARGET).limits
    ceilings = Ceilings(limits["fp32_mflops"] * 1e6, limits["mflops"] * 1e6, limits["mbytes_per_s"] * 1e6)
    rows = json.loads(args.source.read_text(encoding="utf-8"))["rows"]
    if args.row not in rows:
        raise SystemExit(f"{args.source} has no {args.row}; it has {', '.join(rows)}")
    steps = profiled(rows[args.row]["steps"], ceilings)
    args.output.write_text(roofline_svg(f"{args.row}, {TARGET}", steps, ceilings), encoding="utf-8")


if __name__ == "__main__":
    main()
