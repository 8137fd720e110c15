"""The command in a child process: its end is the parent's to tell, whatever it was."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from pytest_reflex.guard import death, supervised

WORK = """
import os, signal, sys
from pytest_reflex.guard import death, supervised
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
        # What is sent to the one that waits reaches the one that works.
        ("os.kill(parent, signal.SIGTERM); signal.pause()", "-15 SIGTERM"),
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
