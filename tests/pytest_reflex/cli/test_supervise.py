"""The command in a child process: its end is the parent's to tell, whatever it was."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest

from pytest_reflex.cli.supervise import _end_with, death, supervised

pytestmark = pytest.mark.once

WORK = """
import os, signal, sys
from pytest_reflex.cli.supervise import death, supervised
parent = os.getpid()
ended = supervised()
if ended is None:
    assert os.getpid() != parent
    {child}
    sys.exit(7)
print(ended, death(ended))
"""


@pytest.mark.parametrize(
    ("child", "said"),
    [
        ("pass", "7 "),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "-11 SIGSEGV"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "-9 SIGKILL"),
        # What is sent to the one that waits, once it does, reaches the one that works.
        ("import time; time.sleep(1); os.kill(parent, signal.SIGTERM); signal.pause()", "-15 SIGTERM"),
    ],
)
def test_a_child_s_end_is_told(child: str, said: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WORK.format(child=child)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout == f"{said}\n"


def test_without_a_fork_the_work_is_done_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "fork")
    assert supervised() is None


def test_a_death_has_a_name() -> None:
    assert death(0) == death(2) == ""
    assert death(-signal.SIGBUS) == "SIGBUS"
    assert death(-200) == "signal 200"


def test_the_child_works_in_a_group_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the child does, in this process: a fork that says so, and system calls that are noted."""
    done: list[tuple[object, ...]] = []
    monkeypatch.setattr(os, "fork", lambda: 0)
    monkeypatch.setattr(os, "setpgid", lambda *group: done.append(("group", *group)))
    monkeypatch.setattr(os, "kill", lambda *signalled: done.append(("kill", *signalled)))
    monkeypatch.setattr(sys, "platform", "darwin")
    assert supervised() is None
    assert done == [("group", 0, 0)]


@pytest.mark.skipif(sys.platform != "linux", reason="the child dies with its parent on Linux only")
@pytest.mark.parametrize("gone", [False, True])
def test_a_parent_that_died_at_once_takes_the_child_along(
    gone: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its death came before anyone asked to hear of it, so nobody would tell."""
    killed: list[tuple[int, int]] = []
    parent = os.getppid() + gone
    library = SimpleNamespace(prctl=lambda *asked: killed.append(asked) if asked[0] != 1 else 0)
    monkeypatch.setattr(os, "setpgid", lambda *group: None)
    monkeypatch.setattr(os, "kill", lambda *signalled: killed.append(signalled))
    monkeypatch.setattr(ctypes, "CDLL", lambda name: library)
    _end_with(parent)
    assert killed == ([(os.getpid(), signal.SIGKILL)] if gone else [])
