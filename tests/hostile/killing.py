"""Exports that are killed: in a forked process, at an instant or just before one of their file operations.

Run as a script it is a loop that serves one attempt after another, so that torch is imported once.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

HERE: Final = Path(__file__).resolve().parent
ROOT: Final = HERE.parents[1]
# What an export does to the disk, by the names of CPython's audit events.
EVENTS: Final = frozenset(
    {
        *("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.chmod", "os.truncate", "os.scandir"),
        *("shutil.rmtree", "tempfile.mkdtemp", "ctypes.dlsym", "fcntl.flock"),
    }
)
# Far longer than any export here: what takes it is ended by SIGALRM, which nobody takes for a kill.
HANG_S: Final = 120


def contents(directory: Path) -> dict[str, str]:
    """SHA-256 of every file of a directory."""
    return {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in sorted(directory.iterdir())}


def export_at(place: Path, weight: float) -> None:
    """A small bundle; ``weight`` tells one export from another."""
    import torch

    from exporters import export
    from pytest_reflex.inputs import InputSpec

    module = torch.nn.Sequential(torch.nn.Linear(16, 64), torch.nn.GELU(), torch.nn.Linear(64, 4)).eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.fill_(weight / 16)
            parameter.view(-1)[::3] = -weight / 8
    export(module, place, inputs=[InputSpec("input", (2, 16))], outputs=["y"], fixtures=2)


@dataclass(frozen=True)
class Attempt:
    """How one export ended.

    Attributes:
        signal: the number of the signal that ended it, or 0.
        code: its exit code, or 0.
        events: how many file operations it came to.
        seconds: how long it took.
    """

    signal: int
    code: int
    events: int
    seconds: float


class Exporter:
    """Exports to one place, each time in a fresh fork of a process that has torch loaded."""

    def __init__(self, place: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / "killing.py"), str(place)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
            text=True,
        )

    def __enter__(self) -> Exporter:
        return self

    def __exit__(self, *error: object) -> None:
        self._process.kill()
        self._process.communicate()

    def attempt(
        self, weight: float, *, at_event: int = 0, after_s: float = 0.0, limit_bytes: int = 0
    ) -> Attempt:
        """One export.

        Args:
            weight: which bundle it makes.
            at_event: kill it before this file operation, counted from 1; 0 kills it before none.
            after_s: kill it after so long; 0 lets it run.
            limit_bytes: the most bytes that one file may have, as on a full disk; 0 for no limit.
        """
        order = {"weight": weight, "at_event": at_event, "after_s": after_s, "limit_bytes": limit_bytes}
        if self._process.stdin is None or self._process.stdout is None:
            raise RuntimeError("the process has no pipes")
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return Attempt(**json.loads(self._process.stdout.readline()))


def _child(place: Path, order: dict[str, Any], counter: int) -> None:
    """The export itself, in the fork; ``counter`` takes a byte for each file operation."""
    seen = 0
    signal.alarm(HANG_S)

    def hook(event: str, args: tuple[Any, ...]) -> None:
        nonlocal seen
        if event not in EVENTS or (event == "open" and not _writes(args)):
            return
        seen += 1
        os.write(counter, b".")
        if seen == order["at_event"]:
            os.kill(os.getpid(), signal.SIGKILL)

    if order["limit_bytes"]:
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (order["limit_bytes"],) * 2)
    sys.addaudithook(hook)
    from pytest_reflex.errors import ReflexError

    code = 70
    try:
        export_at(place, order["weight"])
        code = 0
    except ReflexError as error:
        code = 2
        with contextlib.suppress(OSError):  # stderr may be on a full disk too
            print(error, file=sys.stderr)
    except BaseException as error:
        with contextlib.suppress(OSError):
            print(repr(error), file=sys.stderr)
    finally:
        # Past the exit handlers of libraries whose threads are in the parent.
        os._exit(code)


def _writes(args: tuple[Any, ...]) -> bool:
    _, mode, flags = args
    if isinstance(mode, str):
        return any(letter in mode for letter in "wax+")
    # A directory that is opened to be flushed or locked counts too.
    return bool(flags & (os.O_WRONLY | os.O_RDWR)) or mode is None


def _serve(place: Path) -> None:
    import torch

    torch.set_num_threads(1)
    # Once here, so that every fork finds it done: what torch loads when it first traces.
    export_at(place.parent / "warm-up", 0.5)
    for line in sys.stdin:
        order = json.loads(line)
        reading, counter = os.pipe()
        begin = time.perf_counter()
        pid = os.fork()
        if pid == 0:
            _child(place, order, counter)
        os.close(counter)
        if order["after_s"]:
            time.sleep(order["after_s"])
            os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        events = 0
        while found := os.read(reading, 1 << 16):
            events += len(found)
        os.close(reading)
        code = os.waitstatus_to_exitcode(status)
        ended = Attempt(max(-code, 0), max(code, 0), events, time.perf_counter() - begin)
        print(json.dumps(vars(ended)), flush=True)


if __name__ == "__main__":
    _serve(Path(sys.argv[1]))
