"""What the tests of the command share: the command in the test's own process."""

from __future__ import annotations

import sys

import pytest
from bundle_cases import Ran, Reflex

from pytest_reflex.cli import main


@pytest.fixture
def here(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Reflex:
    """The same command as ``reflex`` in this process, for what would import torch anew each time."""
    monkeypatch.setattr(sys, "path", [*sys.path])

    def run(*arguments: object) -> Ran:
        capfd.readouterr()
        with pytest.raises(SystemExit) as left:
            main([str(argument) for argument in arguments])
        said = capfd.readouterr()
        return Ran(int(str(left.value.code)), said.out, said.err)

    return run
