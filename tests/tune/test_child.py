"""Processes that crash, hang and answer, and what is told of them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bessemer.core.process import environment
from bessemer.tune.child import Lost, forked, started
from bessemer.tune.shared import Shared

ECHO = """
import os, time
from bessemer.tune.child import parent
from bessemer.tune.shared import Shared
connection, handles = parent()
while True:
    match connection.recv():
        case "hang": time.sleep(1000)
        case "crash": os.abort()
        case "exit": os._exit(3)
        case "raise": raise ValueError("that is\\nit")
        case "pieces": connection.send([float(Shared(handles[0]).bytes(p).sum()) for p in connection.recv()])
        case message: connection.send(message)
"""


@pytest.fixture
def echo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module for a new process."""
    (tmp_path / "bessemer_echo.py").write_text(ECHO)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}")
    return "bessemer_echo"


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


WAYS: dict[str, tuple[Callable[[], Any], str]] = {
    "aborts": (os.abort, "crashed (signal 6)"),
    "exits": (lambda: os._exit(3), "crashed"),
    "raises": (lambda: 1 // 0, "crashed"),
    "sleeps": (lambda: time.sleep(1000), "did not end within 1 s"),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_copy_answers_until_it_is_lost(way: str) -> None:
    act, told = WAYS[way]

    def work(send: Callable[[Any], None]) -> None:
        send({"first": 1})
        act()

    child = forked(work)
    assert child.receive(20) == {"first": 1}
    with pytest.raises(Lost) as lost:
        child.receive(1)
    assert str(lost.value) == told and gone(child.pid)
    with pytest.raises(Lost):
        child.receive(1)


ORDERS = {
    "crash": "crashed (signal 6)", "exit": "crashed", "raise": "crashed: it", "hang": "did not end within 3 s",
}  # fmt: skip


@pytest.mark.parametrize("order", ORDERS)
def test_a_new_process_answers_until_it_is_lost(echo: str, order: str) -> None:
    child = started(echo)
    for message in ({"a": (1, b"x")}, "again"):
        child.send(message)
        assert child.receive(60) == message
    child.send(order)
    with pytest.raises(Lost) as lost:
        child.receive(3)
    assert str(lost.value) == ORDERS[order] and gone(child.pid)
    with pytest.raises(Lost):
        child.send("more")


def test_one_that_is_no_longer_needed_is_ended(echo: str) -> None:
    child = started(echo)
    child.send("hang")
    assert child.close() == child.close() == -signal.SIGKILL
    assert gone(child.pid)


def test_memory_is_shared_with_a_new_process(echo: str) -> None:
    shared = Shared()
    first, none = shared.put(np.arange(9, dtype=np.uint8).reshape(3, 3).T), shared.put(np.empty((0, 4), np.float32))
    child = started(echo, shared.handle)
    last = shared.room(5000)  # after the child knows the memory
    shared.bytes(last)[:] = 2
    child.send("pieces")
    child.send([first, none, last])
    assert child.receive(60) == [36, 0, 10000]
    child.close()
    assert shared.bytes(first).tolist() == [0, 3, 6, 1, 4, 7, 2, 5, 8]
    shared.clear()
    again = shared.room(5000)
    assert again == type(again)(0, 5000) and not shared.bytes(again).any()
    shared.close()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends children with their parents")
@pytest.mark.parametrize("kind", ["forked(lambda send: time.sleep(1000))", "hanging()"])
def test_a_parent_that_is_killed_leaves_no_child(echo: str, kind: str) -> None:
    code = f"""
import time
from bessemer.tune.child import forked, started
def hanging():
    child = started({echo!r})
    for message in ("up", "hang"):
        child.send(message)
    child.receive(60)
    return child
print(({kind}).pid, flush=True)
time.sleep(1000)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=environment(), text=True) as made:
        assert made.stdout is not None
        pid = int(made.stdout.readline())
        made.kill()
    end = time.monotonic() + 20
    while not (dead := _ended(pid)) and time.monotonic() < end:
        time.sleep(0.02)
    assert dead


def _ended(pid: int) -> bool:
    """Whether a process that is nobody's child here has ended; nobody may have waited for it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] in "ZX"
    except FileNotFoundError:
        return True
