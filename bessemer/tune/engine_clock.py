"""Whole engines against each other on this machine's GPU, as the runtime will run them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from bessemer.core.errors import BessemerError, DeviceError
from bessemer.engine.engine import Engine, Weights
from bessemer.runtime.cuda import CudaSession
from bessemer.tune.in_place import Choices

ROUNDS, AGREE = 6, 5  # of runs in turns; in so many of them the challenger must be faster
LEAST = 0.002  # the share of the time that it must save
HOPELESS = 0.01  # a challenger that loses so much in the first round is let go
BLOCK_MS, FEWEST, MOST = 5.0, 2, 12  # runs of one engine in a round: as many as take so long
WRONG = 0.05  # relative error against the first engine's outputs; kernels were checked one by one before


class GpuEngineClock:
    """Times engines that `assemble` makes, on the same `inputs`."""

    def __init__(
        self, assemble: Callable[[Choices], Engine], inputs: Callable[[], Mapping[str, np.ndarray]],
        log: Callable[[str], None] | None,
    ) -> None:  # fmt: skip
        self.assemble, self.inputs, self.log = assemble, inputs, log
        self.feeds: Mapping[str, np.ndarray] = {}
        self.made: dict[str, np.ndarray] = {}  # the weights of the engine to beat: packing them takes longest
        self.best: CudaSession | None = None
        self.wanted: dict[str, np.ndarray] = {}
        self.ms = 0.0
        self.lost = False

    def begin(self, choices: Choices) -> None:
        """Load the first engine. Where that fails all kernels keep their places: there may be no room for it, or the
        model may refuse inputs that are made up."""
        try:
            self.feeds = self.inputs()
            self.best = self._loaded(choices)
            self.wanted = self.best.run(self.feeds)
            self.ms = float(np.median(self.best.device_ms(self.feeds, MOST)))
        except BessemerError as error:
            self.lost = True
            self._dropped(f"the engine does not run here: {error}")

    def beats(self, choices: Choices) -> bool:
        """Whether the engine of these choices saves LEAST, in two series of rounds; one that fails or errs does not.

        After a fault nothing runs in this process any more: the clock is lost, and the build goes on without it."""
        assert self.best is not None
        before = dict(self.made)
        try:
            challenger = self._loaded(choices)
        except BessemerError as error:
            return self._dropped(str(error))
        try:
            won = self._right(challenger) and self._faster(challenger) and self._faster(challenger)
        except DeviceError as error:
            self.lost = True
            return self._dropped(f"{error.what}; no others are tried")
        loser, self.best = (self.best, challenger) if won else (challenger, self.best)
        loser.close()
        kept = {part.key for part in self.best.engine.weights.parts}
        self.made = {key: array for key, array in (before | self.made).items() if key in kept}
        return won

    def end(self) -> float:
        """Close the engine that won; the microseconds of a run."""
        if self.best is not None and not self.lost:
            self.best.close()
        self.best, self.made = None, {}
        return self.ms * 1e3

    def _loaded(self, choices: Choices) -> CudaSession:
        engine = self.assemble(choices)
        parts = tuple(replace(part, load=self._once(part.key, part.load)) for part in engine.weights.parts)
        return CudaSession(replace(engine, weights=Weights(engine.weights.nbytes, parts=parts)))

    def _once(self, key: str, load: Callable[[], np.ndarray]) -> Callable[[], np.ndarray]:
        def made() -> np.ndarray:
            if key not in self.made:
                self.made[key] = load()
            return self.made[key]

        return made

    def _right(self, challenger: CudaSession) -> bool:
        """Whether its outputs are those of the first engine, but for rounding."""
        for name, got in challenger.run(self.feeds).items():
            want = self.wanted[name]
            if got.dtype.kind != "f" or not np.isfinite(want).all():
                continue
            off = np.linalg.norm((got.astype(np.float64) - want).ravel())
            if got.shape != want.shape or not off <= WRONG * np.linalg.norm(want.astype(np.float64).ravel()):
                return self._dropped(f"output {name} differs from that of the engine before")
        return True

    def _faster(self, challenger: CudaSession) -> bool:
        assert self.best is not None
        runs = int(np.clip(BLOCK_MS / max(self.ms, 1e-3), FEWEST, MOST))
        shares, times = [], []
        for number in range(ROUNDS):
            old, new = (float(np.median(s.device_ms(self.feeds, runs))) for s in (self.best, challenger))
            shares.append(1 - new / old)
            times.append(new)
            if number == 0 and shares[0] < -HOPELESS:
                return False
        won = sum(share > 0 for share in shares) >= AGREE and float(np.median(shares)) >= LEAST
        if won:
            self.ms = float(np.median(times))
        return won

    def _dropped(self, why: str) -> bool:
        if self.log is not None:
            self.log(f"kernels in their places: {why}")
        return False
