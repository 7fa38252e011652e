"""A target, tactics, problems, a clock, a measurer and entries of timing caches that need no device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from bessemer.core import dtype as dt
from bessemer.core.dim import Dim
from bessemer.core.interval import Range
from bessemer.ir.graph import TensorType
from bessemer.kernels.base import Config, Int, KernelCode, Launch, Limits, Operand, Problem, Ptr, Reason, other_op
from bessemer.tune.cache import Entry
from bessemer.tune.task import Candidate, Measured


@dataclass(frozen=True)
class FakeTarget:
    name: str = "fake"
    arch: str = "one"
    limits: Mapping[str, int] = field(default_factory=lambda: {"mflops": 1000, "mbytes_per_s": 1000})


@dataclass
class FakeTactic:
    """Computes `op`, with one candidate per configuration; each may need scratch."""

    name: str
    op: str = "matmul"
    tiles: tuple[int, ...] = (0,)
    workspace: Mapping[int, Dim] = field(default_factory=dict)
    reason: str | None = None
    version: int = 1
    language: str = "c"

    def applicable(self, problem: Problem, target: Limits) -> Reason | None:
        other = other_op(problem, (self.op,))
        return other if other is not None or self.reason is None else Reason(self.reason)

    def configs(self, problem: Problem, target: Limits) -> Sequence[Config]:
        return [{"tile": t} if t else {} for t in self.tiles]

    def emit(self, problem: Problem, target: Limits, config: Config) -> KernelCode:
        tile = int(config.get("tile", 0))
        launch = Launch(self.name, (tile,), (Ptr(0), Ptr(1), Int(tile)))
        return KernelCode(self.language, f"{self.name} {tile}", (launch,), workspace=self.workspace.get(tile, 0))


class FakeClock:
    """Goes on by what is asked of it, never by itself."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class FakeMeasurer:
    """Times by label (microseconds, or the text of a failure); remembers what it was asked; costs `seconds` each, and
    `compile_seconds` for each candidate that is prepared."""

    times: Mapping[str, float | str]
    clock: FakeClock | None = None
    seconds: float = 1.0
    asked: list[tuple[str, ...]] = field(default_factory=list)
    compile_seconds: float = 0.0
    prepared: list[list[tuple[str, ...]]] = field(default_factory=list)
    compiled: set[tuple[str, str]] = field(default_factory=set)
    opened: bool = False

    def open(self) -> None:
        self.opened = True

    def close(self) -> None:
        self.opened = False

    def prepare(self, work: Sequence[tuple[Problem, Sequence[Candidate]]], seconds: float | None = None) -> None:
        self.prepared.append([tuple(c.label for c in candidates) for _, candidates in work])
        for p, c in ((p, c) for p, candidates in work for c in candidates if (p.key, c.label) not in self.compiled):
            if seconds is not None and seconds < self.compile_seconds:
                return
            seconds = None if seconds is None else seconds - self.compile_seconds
            self.compiled.add((p.key, c.label))
            if self.clock is not None:
                self.clock.now += self.compile_seconds

    def ready(self, problem: Problem, candidate: Candidate) -> bool:
        return (problem.key, candidate.label) in self.compiled

    def measure(self, problem: Problem, candidates: Sequence[Candidate]) -> Sequence[Measured]:
        assert self.opened
        self.asked.append(tuple(c.label for c in candidates))
        if self.clock is not None:
            self.clock.now += self.seconds
        found = [self.times[c.label] for c in candidates]
        return [Measured(None, t) if isinstance(t, str) else Measured(t) for t in found]


def problem(m: Dim = 8, op: str = "matmul", **ranges: Range) -> Problem:
    """A product [m, 8] x [8, 8]."""
    a, b, c = (TensorType(dt.f32, shape) for shape in ((m, 8), (8, 8), (m, 8)))
    return Problem(
        op, (Operand(a), Operand(b, True)), (c,), (("transpose_a", False), ("transpose_b", False)), 2, c,
        ranges=tuple(sorted(ranges.items())),
    )  # fmt: skip


def entry(key: str = "k", us: float | None = 1.0, error: str | None = None) -> Entry:
    return Entry(key, us, error, "gemm", {"tile": 8}, "matmul", "dev", "problem")
