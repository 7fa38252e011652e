"""The arguments of a launch, as the code that is written asks for them: pointers and sizes by name."""

from __future__ import annotations

from dataclasses import dataclass, field

from bessemer.core.dim import Dim
from bessemer.kernels.base import WORKSPACE, Arg, Int, Problem, Ptr
from bessemer.kernels.c import scalar


@dataclass
class Params:
    """The launch's arguments, as expressions ask for them, after `ptr0` pointers and `int0` integers of the kernel."""

    problem: Problem
    ptr0: int = 0
    int0: int = 0
    pointers: dict[int, str] = field(default_factory=dict)
    sizes: dict[Dim, str] = field(default_factory=dict)
    blocks: list[Dim] = field(default_factory=list)

    def pointer(self, operand: int) -> str:
        """The name of an operand's (or output's, or the workspace's) pointer."""
        name = "work" if operand == WORKSPACE else f"x{operand}"
        return self.pointers.setdefault(operand, name)

    def size(self, d: Dim) -> str:
        """The text of a dim: a literal where it is small, else the name of an integer argument."""
        if isinstance(d, int) and abs(d) <= 4:
            return str(d) if d >= 0 else f"({d})"
        return self.sizes.setdefault(d, f"n{len(self.sizes)}")

    def block(self, d: Dim) -> str:
        """The name of an argument for how work is cut up: never a literal, so that kernels of other sizes are equal."""
        self.blocks.append(d)
        return f"g{len(self.blocks) - 1}"

    @property
    def args(self) -> tuple[Arg, ...]:
        return (*(Ptr(k) for k in self.pointers), *(Int(d) for d in (*self.sizes, *self.blocks)))

    def declarations(self) -> list[str]:
        """Locals for all of them."""
        outputs, lines = len(self.problem.operands), []
        for k, (operand, name) in enumerate(self.pointers.items()):
            if operand == WORKSPACE:
                lines.append(f"char *{name} = p[{self.ptr0 + k}];")
                continue
            written = operand >= outputs
            t = self.problem.outputs[operand - outputs] if written else self.problem.operands[operand].type
            c = f"{'' if written else 'const '}{scalar.STORAGE[t.dtype.name]}"
            lines.append(f"{c} *restrict {name} = p[{self.ptr0 + k}];")
        names = [*self.sizes.values(), *(f"g{k}" for k in range(len(self.blocks)))]
        return [*lines, *(f"const int64_t {name} = d[{self.int0 + k}];" for k, name in enumerate(names))]
