"""An inner pytest for tests of the plugin: a file of tests about toys, run as its user runs it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema

# Imported here, because an inner run in this process would else import them a second time, which they refuse.
import numpy as np  # noqa: F401
import onnxruntime  # noqa: F401
import pytest
import torch  # noqa: F401

import pytest_reflex.judge.check  # noqa: F401
from pytest_reflex.report.json import schema

Run = Callable[..., pytest.RunResult]

TOYS = """
import numpy as np
import pytest
import pytest_reflex as reflex
from pytest_reflex import InputSpec


class Toy:
    def __init__(self, function, name="toy"):
        self.function, self.name = function, name

    def open(self): pass
    def close(self): pass
    def facts(self): return {"kind": "toy", "class": self.name, "count": 3}
    def run(self, inputs): return {"actions": self.function(inputs["x"])}


INPUTS = [InputSpec("x", (2, 3))]
TWICE = Toy(lambda x: x * 2, "Twice")


def off_by(amount):
    return Toy(lambda x: x * 2 + np.float32(amount), f"OffBy{amount}")


def judged(parity, candidate=None, **given):
    return parity.check(TWICE, candidate or off_by(0), inputs=INPUTS, **given)
"""


PYTHON = sys.executable


@pytest.fixture
def run(warm_pytester: pytest.Pytester, plugin_args: list[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """An inner pytest on a file of tests; with ``-n`` or ``apart=True`` in a process of its own.

    ``cold=True`` starts Python itself there: for what kills its parent, or is killed.
    """
    pytester = warm_pytester
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    pytester.makepyfile(toys=TOYS)
    pytester.syspathinsert()

    def run(
        source: str, *args: str, apart: bool = False, cold: bool = False, **files: str
    ) -> pytest.RunResult:
        pytester.makepyfile(test_it="from toys import *\n" + source, **files)
        if cold:
            with monkeypatch.context() as patched:
                patched.setattr(sys, "executable", PYTHON)
                return pytester.runpytest_subprocess("-p", "no:hypothesispytest", *plugin_args, *args)
        how = pytester.runpytest_subprocess if apart or "-n2" in args else pytester.runpytest_inprocess
        # Its plugin imports hypothesis, rewritten anew, at the end of each inner run.
        return how("-p", "no:hypothesispytest", *plugin_args, *args)

    return run


def written(path: str | Path) -> dict[str, Any]:
    made: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8"))
    jsonschema.validate(made, schema())
    return made


PASSES = "def test_good(parity): judged(parity)\n"
FAILS = "@reflex.parity(threshold=1e-5)\ndef test_bad(parity):\n    judged(parity, off_by(0.5))\n"
