"""Compiles GPU kernels: the process behind compile_pool.

One job a line on stdin (JSON, see `Job` in compile_pool), one answer a line on stdout: {"ok": true}, with the result in
the job's folder, or {"error": text}.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bessemer.targets import nvrtc_compile, triton_compile

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)


def answer(job: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Compile one job and keep the result; whatever fails is this job's failure, not the process's.

    For want of room on a disk nothing can be said of the job: {"room": text}."""
    try:
        cuda = job["language"] == "cuda"
        found = nvrtc_compile.compile_job(job) if cuda else triton_compile.compile_job(job, folder)
    except Exception as error:
        if isinstance(error, OSError) and error.errno in NO_ROOM:
            return {"room": error.strerror}
        return {"error": f"{type(error).__name__}: {error}"}
    try:
        keep(Path(job["out"]), *found)
    except OSError as error:
        return {"room": error.strerror}
    return {"ok": True}


def keep(out: Path, cubin: bytes, abi: Mapping[str, Any]) -> None:
    """Write OUT.cubin and then OUT.json, which holds the cubin's hash: each is complete or absent."""
    out.parent.mkdir(parents=True, exist_ok=True)
    record = {"abi": abi, "sha256": hashlib.sha256(cubin).hexdigest()}
    for suffix, data in ((".cubin", cubin), (".json", json.dumps(record, sort_keys=True).encode())):
        part = out.with_suffix(f"{suffix}.{os.getpid()}")
        try:
            part.write_bytes(data)
            os.replace(part, out.with_suffix(suffix))
        finally:
            part.unlink(missing_ok=True)


def main() -> None:
    """Answer jobs until stdin ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what compilers print must not reach the answers
    with tempfile.TemporaryDirectory(prefix="bessemer-compile-") as folder:
        triton_compile.settle(Path(folder))
        for line in sys.stdin:
            answers.write(json.dumps(answer(json.loads(line), Path(folder))) + "\n")
            answers.flush()


if __name__ == "__main__":
    main()
