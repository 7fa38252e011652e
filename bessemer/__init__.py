"""Bessemer: an inference compiler and runtime. Models in, engines out.

    engine = bessemer.build("model.onnx", target="cpu")
    engine.save("model.engine")
    session = bessemer.load("model.engine")
    outputs = session.run({"input": array})
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_EXPORTS = {
    "build": "bessemer.builder",
    "Profile": "bessemer.frontend.profile",
    "Engine": "bessemer.engine.engine",
    "TensorInfo": "bessemer.engine.engine",
    "load": "bessemer.runtime.session",
    "Session": "bessemer.runtime.session",
    **{
        name: "bessemer.core.errors"
        for name in (
            "BessemerError ModelError UnsupportedModel InvalidModel GraphError ShapeError InputError BuildError "
            "NoTacticError CompilerError TimingCacheError EngineFormatError EngineMismatchError DeviceError"
        ).split()
    },
}
__all__ = [*_EXPORTS]

if TYPE_CHECKING:
    from bessemer.builder import build as build
    from bessemer.core.errors import *  # noqa: F403
    from bessemer.engine.engine import Engine as Engine
    from bessemer.engine.engine import TensorInfo as TensorInfo
    from bessemer.frontend.profile import Profile as Profile
    from bessemer.runtime.session import Session as Session
    from bessemer.runtime.session import load as load


def __getattr__(name: str) -> Any:
    """Public names are resolved on first use, so that a runtime-only import stays light."""
    if name not in _EXPORTS:
        raise AttributeError(f"module 'bessemer' has no attribute {name!r}")
    value = getattr(import_module(_EXPORTS[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
