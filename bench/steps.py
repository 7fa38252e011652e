"""How many steps each model of the zoo becomes: ONNX nodes in, steps of an engine out, for the CPU and for a GPU.

    python -m bench.steps [MODEL ...]                            # print the table
    python -m bench.steps --into docs/performance.md             # and put it between the marks of a document

Engines are built without tuning at each model's first shapes; the GPU's is for sm_90 in fp16 and needs no GPU, only
Triton. A step is one launch of a kernel, a copy, or an op on the host.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import bessemer
from bench.document import markdown, put_into
from bessemer.engine.engine import Engine
from zoo.models import MODELS

BEGIN, END = "<!-- steps: written by python -m bench.steps --into -->", "<!-- end of steps -->"
HEAD = ("model", "shapes", "ONNX nodes", "cpu, fp32", "cuda, fp16", "on the host")


@dataclass(frozen=True)
class Counted:
    """One model: its ONNX nodes, those in nested graphs too, and its steps."""

    model: str
    shapes: str
    nodes: int
    cpu: int
    cuda: int
    host: tuple[str, ...]  # ops that run on the host, of either target

    def cells(self) -> tuple[str, ...]:
        """The row of the table."""
        return (self.model, self.shapes, str(self.nodes), str(self.cpu), str(self.cuda), ", ".join(self.host) or "-")


def counted(key: str) -> Counted:
    """Build a model for both targets, and count."""
    model = MODELS[key]
    shapes = model.shapes[0]
    cpu = bessemer.build(model.path(), shapes=dict(shapes.dims), tune="off")
    cuda = bessemer.build(model.path(), target="cuda:sm_90", precision="fp16", shapes=dict(shapes.dims), tune="off")
    hosts = dict.fromkeys(s.op for e in (cpu, cuda) for s in e.program.steps if s.kind == "host")
    return Counted(key, shapes.name, cpu.manifest["model"]["nodes"], _steps(cpu), _steps(cuda), tuple(hosts))


def _steps(engine: Engine) -> int:
    return sum(s.kind not in ("branch", "jump") for s in engine.program.steps)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=list(MODELS), metavar="MODEL", help="all where none is named")
    parser.add_argument("--into", type=Path, help="document to put the table into")
    args = parser.parse_args()
    rows = []
    for key in args.models:
        rows.append(counted(key))
        print(" ".join(rows[-1].cells()), flush=True)
    table = markdown(HEAD, [row.cells() for row in rows])
    print(table)
    if args.into:
        put_into(args.into, BEGIN, END, table)


if __name__ == "__main__":
    main()
