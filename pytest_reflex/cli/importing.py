"""Which installed packages cannot be imported: tried in another process, which may die of it or hang."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from typing import Final

__all__ = ["SECONDS", "why_not_imported"]

# How long one package may take before it is left; on a cold disk torch alone takes half a minute.
SECONDS: Final = 120.0
# What a package prints is nobody's answer: the answers go out by a copy of stdout, one line before and one
# after each import.
_CHILD: Final = """
import importlib, json, os, sys
path, names = json.loads(sys.argv[1])
sys.path[:] = path
out = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
for name in names:
    print(json.dumps([name, None]), file=out, flush=True)
    try:
        importlib.import_module(name.replace("-", "_"))
        said = ""
    except BaseException as error:
        said = " ".join(f"{type(error).__name__}: {error}".split())
    print(json.dumps([name, said]), file=out, flush=True)
os._exit(0)
"""


def why_not_imported(names: Sequence[str], seconds: float = SECONDS) -> dict[str, str]:
    """Of each package that does not import, why, in one line.

    All are imported by one process. Where it dies or hangs the package at hand is the one, and another
    process goes on behind it.

    Args:
        names: the packages, as distributions are called; modules have the same names with ``_`` for ``-``.
        seconds: how long a process may take.
    """
    found: dict[str, str] = {}
    left = list(dict.fromkeys(names))
    while left:
        heard, ended = _asked(left, seconds)
        found |= {name: said for name, said in heard.items() if said}
        if (at_hand := next((name for name, said in heard.items() if said is None), None)) is not None:
            found[at_hand] = ended
        if not heard:
            return found | dict.fromkeys(left, f"it was not tried, for no Python could be started ({ended})")
        left = left[len(heard) :]
    return found


def _asked(names: Sequence[str], seconds: float) -> tuple[dict[str, str | None], str]:
    """What one process said of each package that it got to, and how it ended where it did not by itself."""
    told = json.dumps([sys.path, list(names)])
    command = [sys.executable, "-c", _CHILD, told]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=seconds,
        )
        text, ended = done.stdout, f"Python died of it (exit {done.returncode})"
    except subprocess.TimeoutExpired as error:
        text, ended = error.stdout or b"", f"not done in {seconds:g} s"
    except OSError as error:
        return {}, error.strerror or str(error)
    answers = [json.loads(line) for line in text.decode("utf-8", "replace").splitlines()]
    return dict(answers), ended
