"""Every error of Bessemer, one tree.

    BessemerError                 what, where (ONNX node, IR value) and how to fix it
    |-- ModelError                the model cannot be imported
    |   |-- UnsupportedModel      it is valid, but holds ops or attributes that are not supported (all of them listed)
    |   `-- InvalidModel          it is malformed: bad protobuf, cycles, missing data, impossible shapes
    |-- GraphError                the IR broke one of its rules (a defect of a pass, with the offending lines)
    |-- ShapeError                a dim could not be decided, or a shape lies outside the profile
    |-- InputError                wrong name, dtype, rank or device of an array given to run()
    |-- BuildError                a build could not finish
    |   |-- NoTacticError         no kernel is applicable (with each tactic's reason)
    |   |-- CompilerError         the kernel compiler failed or is missing
    |   `-- TimingCacheError      a timing cache is damaged, or a miss under mode "require"
    |-- EngineFormatError         an engine file is truncated, altered, foreign, or of another format version
    |   `-- EngineMismatchError   an engine for another ISA, GPU or library version (both sides named)
    `-- DeviceError               no such device, a driver call failed, or too little memory
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bessemer.core.dim import Dim


class BessemerError(Exception):
    """Base of all errors. `what` happened, `where` (node, value, file), and how to `fix` it."""

    def __init__(self, what: str, *, where: str | None = None, fix: str | None = None) -> None:
        self.what, self.where, self.fix = what, where, fix
        parts = [what]
        if where:
            parts.append(f"  where: {where}")
        if fix:
            parts.append(f"  fix: {fix}")
        super().__init__("\n".join(parts))


class ModelError(BessemerError):
    """The model cannot be imported."""


class UnsupportedModel(ModelError):
    """A valid model with parts that are not supported; lists all of them at once."""


class InvalidModel(ModelError):
    """A malformed model."""


class GraphError(BessemerError):
    """The IR broke one of its own rules."""


class ShapeError(BessemerError):
    """A dimension could not be decided, or lies outside the allowed range.

    `undecided` are the symbols on which an open comparison depends, `sizes` the two that are compared; empty for any
    other fault.
    """

    def __init__(
        self, what: str, *, where: str | None = None, fix: str | None = None, undecided: frozenset[str] = frozenset(),
        sizes: tuple[()] | tuple[Dim, Dim] = (),
    ) -> None:  # fmt: skip
        super().__init__(what, where=where, fix=fix)
        self.undecided = undecided
        self.sizes = sizes

    def at(self, where: str) -> ShapeError:
        """The same, with the place."""
        return ShapeError(self.what, where=where, fix=self.fix, undecided=self.undecided, sizes=self.sizes)


class InputError(BessemerError):
    """A wrong array was given to run()."""


class BuildError(BessemerError):
    """A build could not finish."""


class NoTacticError(BuildError):
    """No kernel is applicable to a problem."""


class CompilerError(BuildError):
    """The kernel compiler failed or is missing."""


class TimingCacheError(BuildError):
    """A timing cache is damaged, or a required entry is missing."""


class EngineFormatError(BessemerError):
    """An engine file is truncated, altered, foreign, or of another format version."""


class EngineMismatchError(EngineFormatError):
    """An engine made for another ISA, GPU or library version."""


class DeviceError(BessemerError):
    """A device is missing, failed, or has too little memory."""
