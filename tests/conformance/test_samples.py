"""Every C kernel that takes a sample of an op gives what the op's reference gives, within what tuning allows.

As groups the samples are in columns of wider tensors here, and whole in tests/kernels/c/test_group.py.
"""

from __future__ import annotations

import zlib

import numpy as np
import pytest

from bessemer.ir.opdef import OPS, Fusion
from bessemer.targets.cpu import LEVELS, NEEDS, CpuTarget, cpu_flags
from bessemer.tune.oracle import TOLERANCE, error_of
from tests.conformance.samples import asked, candidates, compiled, in_columns, run

BEST, *OTHERS = [level for level in LEVELS if cpu_flags() >= NEEDS[level]]
ARCHS = [BEST, *(pytest.param(level, marks=pytest.mark.slow) for level in OTHERS)]
HAVE_KERNELS = [n for n in OPS if OPS.get(n).samples and (OPS.get(n).compute or OPS.get(n).fusion is Fusion.TEMPLATE)]


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("name", HAVE_KERNELS)
def test_every_kernel_for_the_samples_of(name: str, arch: str) -> None:
    seed = int(np.random.default_rng().integers(1 << 30))
    target = CpuTarget(arch, threads=2, optimise=False)
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    problems = list(asked(name, rng))
    whole = [p for p in problems if p.problem.op != "group" or not p.problem.outputs[0].rank]
    found = candidates([*whole, *in_columns(problems, rng)], target)
    library = compiled(found, target)
    wrong = []
    for candidate in found:
        for got, wanted, t in zip(run(candidate, library, 2), candidate.asked.wanted, candidate.asked.problem.outputs):
            error = error_of(got, wanted, t.dtype)
            if not error <= TOLERANCE.get(t.dtype.name, 0.0):
                wrong.append(f"{candidate}: relative error {error:.1e} of {t}")
    assert not wrong, f"seed {seed}: {len(wrong)} of {len(found)} kernels\n" + "\n".join(wrong)


@pytest.mark.parametrize("name", HAVE_KERNELS)
def test_some_kernel_takes_a_sample_of(name: str) -> None:
    """A target without a kernel for an op would run it as a host step everywhere."""
    assert candidates(list(asked(name, np.random.default_rng(0))), CpuTarget(BEST, threads=2))
