from __future__ import annotations

import os
import subprocess
import sys

import pytest

from bessemer.core.process import environment


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs a system that binds processes to processors")
def test_only_those_that_the_process_may_use() -> None:
    text = (
        "import os; from bessemer.core.processors import processors; "
        "os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); print(processors())"
    )
    ran = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, env=environment())
    assert (ran.stdout, ran.returncode) == ("1\n", 0), ran.stderr
