"""The pipeline from a model to an engine; the one file that sees every builder stage.

Stages: import, fuse, layout, precision, lower, tune, plan. A build can stop after any of them, and dump what it holds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bessemer.core import canon
from bessemer.core.dim import symbols
from bessemer.core.errors import BuildError, NoTacticError
from bessemer.core.files import replacing
from bessemer.engine.engine import Engine, Weights
from bessemer.engine.equalities import check_equalities
from bessemer.engine.program import Equality
from bessemer.engine.verify import verify as verify_program
from bessemer.frontend.onnx import import_model
from bessemer.frontend.profile import Profile
from bessemer.ir import text
from bessemer.ir.graph import Graph
from bessemer.kernels.base import TACTICS, Problem, of_language
from bessemer.lower.items import Lowered
from bessemer.lower.text import lowered_text
from bessemer.lower.ways import ways
from bessemer.options import STAGES, BuildOptions, Progress
from bessemer.passes import pipeline, ranges
from bessemer.passes.base import PassOptions
from bessemer.passes.check_branches import check_branches
from bessemer.passes.precision import kept_wide, scaled_wide
from bessemer.passes.probe_inputs import generated, sizes_at
from bessemer.plan.equalities import equalities
from bessemer.plan.manifest import manifest
from bessemer.plan.plan import plan
from bessemer.plan.unbounded import unbounded_notes
from bessemer.targets.base import Target, resolve
from bessemer.tune.cache import Seen, TimingCache, shipped
from bessemer.tune.in_place import Choices, settled
from bessemer.tune.measure import clock_for, measurer_for
from bessemer.tune.rivals import Rivals
from bessemer.tune.text import choices_text
from bessemer.tune.tuner import Needed, Tuner
from bessemer.tune.ways import fastest, problems_of

if TYPE_CHECKING:
    from onnx import ModelProto

AFTER_TUNING = 3.0  # seconds of a budget that are kept for what follows the tuning: it took up to 2.1 on a busy host


def build(
    model: str | Path | bytes | ModelProto,
    *,
    target: str = "cpu",
    precision: str = "fp32",
    tf32: bool = False,
    shapes: Mapping[str, Sequence[int]] | None = None,
    profiles: Sequence[Profile] | None = None,
    tune: str = "device",
    timing_cache: TimingCache | str | Path | None = None,
    workspace: int | None = None,
    build_budget: float | None = None,
    threads: int | None = None,
    calibration: Sequence[Mapping[str, np.ndarray]] = (),
    progress: Progress | None = None,
    log: Callable[[str], None] | None = None,
) -> Engine:
    """Build an engine from an ONNX model (a path, bytes or ModelProto).

    target: "cpu" (this machine's ISA; "cpu:avx2" forces a level) or "cuda" (the GPU here; "cuda:sm_90" needs none).
    precision: "fp32", "fp16" or "bf16" (a pass that writes casts; inputs and outputs keep their dtypes). Nodes whose
    values fp16 cannot hold stay in fp32, and the engine's notes tell.
    calibration: for fp16, inputs ({name: array} each) that show how large values become; without, they are generated.
    tf32: allow TF32 in fp32 products on GPUs.
    shapes: {input: shape} fixes dynamic inputs. profiles: ranges of dynamic inputs, see Profile.
    tune: "device" times kernels on the device, "cache" uses the timing cache alone, "off" the roofline model.
    timing_cache: a path (read, and written back) or a TimingCache; what it lacks may be in one that the package brings.
    workspace: most bytes of scratch for one kernel. threads: of the CPU runs that tune.
    build_budget: seconds that the build may take, compilers included; what there is no time to tune is chosen by the
    model, and the engine's notes tell what that may cost.
    progress(stage, done, total, what) and log(line) are told what goes on.

    Raises ModelError (the model), BuildError (the build), DeviceError (the device).
    """
    options = BuildOptions(
        target, precision, tf32, shapes, profiles, tune, timing_cache, workspace, build_budget, threads,
        calibration=calibration, progress=progress, log=log,
    )  # fmt: skip
    engine = run(model, options)
    assert engine is not None
    return engine


def run(model: str | Path | bytes | ModelProto, options: BuildOptions) -> Engine | None:
    """The pipeline; None where `stop_after` ended it early."""
    try:
        return _run(model, options)
    except MemoryError as error:
        raise BuildError(
            f"there is too little memory to build this model: {error}",
            fix="free memory, or build on a machine with about three times the size of the model's weights",
        ) from error


def _run(model: str | Path | bytes | ModelProto, options: BuildOptions) -> Engine | None:
    build_ = _Build(options)
    graph = build_.imported(model)
    if build_.done("import", lambda: text.print_graph(graph)):
        return None
    passes = PassOptions(build_.target.name, options.precision, options.tf32)
    stopped: list[str] = []

    def after(stage: str, g: Graph) -> PassOptions | None:
        if not stopped and build_.done(stage, lambda: text.print_graph(g)):
            stopped.append(stage)
        return build_.ranged(g, passes) if stage == "layout" and not stopped else None

    optimised = pipeline.run(graph, passes, after)
    if stopped:
        return None
    tuner = build_.tuner()
    found = ways(optimised, passes, tuner.supports, tuner.estimate)
    if build_.done("lower", lambda: "\n\n".join(lowered_text(way) for way in found)):
        return None
    lowered, alone = build_.fastest(tuner, found)
    problems = problems_of(lowered)
    choices = build_.placed(tuner, problems, alone, lambda c: build_.assembled(graph, lowered, c), graph)
    build_.finish_tuning(tuner)
    if build_.done("tune", lambda: choices_text(choices)):
        return None
    build_.tell("plan", 0, 1)
    engine = build_.assembled(graph, lowered, choices)
    build_.done("plan", lambda: canon.dumps({"steps": len(engine.program.steps), **engine.memory}))
    return engine


@dataclass
class _Build:
    options: BuildOptions
    target: Target = field(init=False)
    cache: TimingCache = field(init=False)
    notes: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)  # nodes that stay in fp32, and why
    equalities: tuple[Equality, ...] = ()  # of the model as imported
    started: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        target = self.options.target
        self.target = resolve(target, self.options.threads) if isinstance(target, str) else target
        given = self.options.timing_cache
        self.cache = given if isinstance(given, TimingCache) else TimingCache(given)
        self.cache.shipped = shipped(self.target.fingerprint())
        self.notes += getattr(self.target, "notes", ())
        if self.options.tf32 and self.target.name == "cpu":
            self.notes.append("TF32 is for GPUs: products run in fp32 here")
        if self.options.precision != "fp32" and self.target.name == "cpu":
            self.notes.append(f"{self.options.precision} is for GPUs: on a CPU it rounds, and saves no time")

    def tell(self, stage: str, done: int, total: int, what: str = "") -> None:
        if self.options.progress is not None:
            self.options.progress(stage, done, total, what)

    def done(self, stage: str, dump: Callable[[], str]) -> bool:
        """Report and dump a finished stage; True where the build ends here."""
        self.tell(stage, 1, 1)
        if self.options.dump is not None:
            with replacing(self.options.dump / f"{STAGES.index(stage)}-{stage}.txt") as file:
                file.write(f"{dump()}\n".encode())
        return self.options.stop_after == stage

    def imported(self, model: str | Path | bytes | ModelProto) -> Graph:
        self.tell("import", 0, 1)
        graph = check_branches(import_model(model, shapes=self.options.shapes, profiles=self.options.profiles))
        self.equalities = equalities(graph)
        if self.options.profiles:  # kernels are timed at the opt shape, and the model must run there
            told = {str(d) for name in graph.inputs for d in graph.types[name].shape}
            check_equalities(self.equalities, {s: r.typical for s, r in graph.ranges.items() if s in told})
        return graph

    def ranged(self, graph: Graph, passes: PassOptions) -> PassOptions:
        """`passes` with what fp16 cannot hold, where fp16 is asked for."""
        if passes.precision != "fp16":
            return passes
        found = self._measured(graph)
        passes = replace(passes, wide=found.wide, exponents=found.exponents)
        self.kept = [str(k) for k in kept_wide(graph, passes)]
        if self.kept:
            more = f", and {len(self.kept) - 1} more" if len(self.kept) > 1 else ""
            self.notes.append(f"stays in fp32: {self.kept[0]}{more}; ranges were {found.how}")
        elif not found.complete:
            self.notes.append(f"fp16 may overflow: ranges were {found.how}; give calibration inputs")
        if self.options.log is not None:
            self.options.log(f"ranges for fp16 were {found.how}")
            if scaled := scaled_wide(graph, passes):
                most = max(found.exponents.values(), default=0)
                self.options.log(f"stored in fp16 as v / 2^k, k up to {most}: what {scaled} nodes read or write")
            for line in (f"stays in fp32: {k}" for k in self.kept):
                self.options.log(line)
        return passes

    def _measured(self, graph: Graph) -> ranges.Measured:
        """The ranges of `graph`, which the timing cache knows where they were measured on generated inputs before."""
        if self.options.calibration:
            return ranges.measure(graph, self.options.calibration)
        key = ranges.key_of(graph)
        found = self.cache.ranges_of(key)
        if found is None:
            found = ranges.measure(graph)
            self.cache.put(Seen(key, found))
        return found

    def tuner(self) -> Tuner:
        tactics = of_language(TACTICS.discover(), self.target.languages)
        measure = self.options.tune == "device"
        measurer = measurer_for(self.target) if measure else None
        return Tuner(
            self.target, self.target.fingerprint(), tactics, self.cache, self.options.tune, measurer,
            workspace=self.options.workspace, log=self.options.log,
            progress=lambda done, total, what: self.tell("tune", done, total, what),
        )  # fmt: skip

    def seconds_to_tune(self) -> float | None:
        """What is left of the budget, less what the rest of the build takes: about half of what went before."""
        if self.options.build_budget is None:
            return None
        spent = time.monotonic() - self.started
        return max(0.0, self.options.build_budget - 1.5 * spent - AFTER_TUNING)

    def chosen(
        self, tuner: Tuner, problems: Sequence[Problem], symbols: Collection[str], needed: Needed | None = None
    ) -> Choices:  # fmt: skip
        """The kernel of each problem alone, and of those that are `needed` at other shapes too. One that was not timed
        may fail to compile: another takes its place."""
        tuner.budget = self.seconds_to_tune()
        while True:
            choices = tuner.choose(problems, symbols, needed)
            defects = self.target.defects((p, v.choice.code) for p, found in choices.items() for v in found)
            if not defects:
                return choices
            tuner.defects.update(defects)
            tuner.budget = 0.0  # of what takes their places nothing is timed any more

    def fastest(self, tuner: Tuner, found: Sequence[Lowered]) -> tuple[Lowered, Choices]:
        """The fastest way to lower the graph, and the kernel of each of its problems alone. No way but the first is one
        where a problem has no kernel that works."""
        bound, estimate = found[0].bound_symbols, cache(tuner.estimate)
        try:
            choices = self.chosen(
                tuner, problems_of(*found), bound, lambda c: problems_of(fastest(found, c, estimate, bound))
            )
        except NoTacticError as error:
            if len(found) == 1:
                raise
            if self.options.log is not None:
                self.options.log(f"norms stay whole: {error}")
            return self.fastest(tuner, found[:1])
        lowered = fastest(found, choices, estimate, bound)
        return lowered, {p: choices[p] for p in problems_of(lowered)}

    def placed(
        self, tuner: Tuner, problems: Sequence[Problem], choices: Choices, assemble: Callable[[Choices], Engine],
        graph: Graph,
    ) -> Choices:  # fmt: skip
        """The choices with the kernels that are fastest in their places, where they are known or a GPU can tell."""
        clock = None
        if self.options.tune == "device" and tuner.left is None:
            inputs = partial(generated, graph, sizes_at(graph, "opt"), "centred")
            clock = clock_for(self.target, assemble, inputs, self.options.log)
        budget = self.options.build_budget
        seconds = None if budget is None else budget - (time.monotonic() - self.started) - AFTER_TUNING
        return settled(choices, Rivals(tuner), problems, clock, seconds)

    def finish_tuning(self, tuner: Tuner) -> None:
        self.cache.save()
        if tuner.unchecked:
            more = f", and {len(tuner.unchecked) - 1} more" if len(tuner.unchecked) > 1 else ""
            self.notes.append(f"neither checked nor timed: {tuner.unchecked[0]}{more}")
        if tuner.left is not None:
            self.notes.append(f"{tuner.left}; build again with the same timing cache to go on")

    def assembled(self, graph: Graph, lowered: Lowered, choices: Choices) -> Engine:
        compiled = self.target.link((problem, v.choice.code) for problem, found in choices.items() for v in found)
        program, parts = plan(lowered, choices, compiled.placement)
        known = program.symbols.keys()  # of sizes that depend on data those that no step is left to tell are not
        taken = tuple(e for e in self.equalities if symbols(e.left) | symbols(e.right) <= known)
        program = replace(program, equalities=taken)
        weights = Weights(program.weights_bytes, parts=parts)
        verify_program(program, len(compiled.blobs), weights.nbytes)
        notes = [*self.notes, *unbounded_notes(program)]
        told = manifest(graph, lowered, self.target, self.options.precision, self.kept, notes)
        return Engine(told, program, compiled.blobs, weights)
