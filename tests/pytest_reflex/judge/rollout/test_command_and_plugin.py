"""``reflex rollout`` and ``parity.rollout``: the same verdict, as an exit code and as a test."""

from __future__ import annotations

import html
import json
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from bundle_cases import Reflex
from rollout_cases import ROOT

from exporters import open_bundle
from exporters.bundle.store import StoredBundle
from pytest_reflex.cli.commands import app
from pytest_reflex.cli.report import Reported
from pytest_reflex.errors import ReflexError
from pytest_reflex.judge.sides import has_processors

pytestmark = pytest.mark.once

SHORT = ["--env", "planar-reach", "--seconds", "1", "--starts", "2", "--execute", "3"]
POLICY = f"{ROOT / 'tests' / 'support' / 'serve_cases.py'}:policy"
INNER = """
import numpy as np
from pytest_reflex import FunctionRunner, InputSpec
from pytest_reflex.inputs import Gaussian, State

INPUTS = [InputSpec("state", (1, 3), meaning=State()), InputSpec("noise", (1, 4, 3), meaning=Gaussian())]
SHORT = dict(env="planar-reach", seconds=1.0, starts=2, execute=4, inputs=INPUTS)


def acts(off):
    def act(state, noise):
        return {"actions": np.tanh(noise - state[:, None]) + np.float32(off)}
    return FunctionRunner(act)


def test_good(parity):
    made = parity.rollout(acts(0), acts(0), **SHORT)
    assert made.passed and parity.rollouts == [made]


def test_off(parity):
    parity.rollout(acts(0), acts(1e-3), **SHORT)


def test_swallowed(parity):
    try:
        parity.rollout(acts(0), acts(1e-3), **SHORT)
    except AssertionError:
        pass
"""


def said(*arguments: object) -> Reported:
    """What the command has to say, run in this process."""
    return app.main([*map(str, arguments)], prog_name="reflex", standalone_mode=False)


def test_the_command_says_the_verdict_and_writes_the_page(small: Callable[..., Path], tmp_path: Path) -> None:
    asked = ["rollout", small(), "--model", POLICY, *SHORT]
    ran = said(*asked, "--output-json", "--report", tmp_path / "r")
    assert ran.code == 0
    made = json.loads(ran.text)
    assert (made["kind"], made["word"], made["asked"]) == ("rollout", "rounding", 2)
    assert made["not_driven"] is None
    assert json.loads((tmp_path / "r" / "rollout.json").read_text()) == made
    assert "rollout PASS" in (tmp_path / "r" / "rollout.html").read_text()
    # A narrower precision fails, and passes within what is allowed.
    narrow = said(*asked, "--rounded", "bfloat16")
    assert narrow.code == 1
    assert narrow.text.startswith("rollout FAIL: ")
    assert said(*asked, "--rounded", "bfloat16", "--within", "1e6").code == 0


def test_processors_that_are_not_driven_are_said(
    small: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ["rollout", small(), "--model", POLICY, *SHORT, "--report", tmp_path / "r"]
    note = "the bundle's processors are not driven: what they do is judged by `reflex validate`"
    monkeypatch.setattr(StoredBundle, "has_processors", True)
    text = " ".join(said(*asked).text.split())
    assert text.startswith("rollout PASS: ")
    assert f" its floor Note: {note} Drift from the reference" in text
    assert json.loads((tmp_path / "r" / "rollout.json").read_text())["not_driven"] == note
    page = html.unescape((tmp_path / "r" / "rollout.html").read_text())
    assert f"Note: {note}" in page
    # A runner of the bundle, which is all that a caller may hold, says it as well.
    runner = open_bundle(small()).runner()
    assert has_processors(runner, runner)


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (["--env", "panda-rech"], "environment 'panda-rech' is unknown (did you mean 'panda-reach'?)"),
        (["--joints", "elbow,knee"], "joint 'knee' is unknown"),
        (["--latency", "soon"], "'soon' is no latency"),
        (["--starts", "0"], "starts is 0, expected a whole number of at least 1"),
    ],
)
def test_what_is_wrong_is_said(small: Callable[..., Path], more: list[str], expected: str) -> None:
    with pytest.raises((ReflexError, click.ClickException)) as raised:
        said("rollout", small(), "--model", POLICY, *SHORT, *more)
    assert expected in str(raised.value)
    assert "\n" not in str(raised.value)


def test_it_exits_with_2_and_one_line(reflex: Reflex, tmp_path: Path) -> None:
    ran = reflex("rollout", tmp_path, "--model", POLICY, "--env", "arm")
    assert (ran.code, ran.out, ran.err.count("\n")) == (2, "", 1)
    assert ran.err.startswith("reflex: error: environment 'arm' is unknown")


def test_a_rollout_in_a_test_passes_or_fails_it(pytester: pytest.Pytester, plugin_args: list[str]) -> None:
    pytester.makepyfile(INNER)
    done = pytester.runpytest(*plugin_args, "--reflex-report", "out")
    done.assert_outcomes(passed=1, failed=2)
    done.stdout.fnmatch_lines(
        ["*rollout FAIL: test_a_rollout*::test_off on planar-reach*further than rounding*"]
    )
    done.stdout.fnmatch_lines(["*test_swallowed*the test went on*"])
    summary = done.stdout.str().partition("= reflex: parity =")[2]
    assert " ".join(summary.split()).count("rollout PASS: test_a_rollout") == 1
    assert " ".join(summary.split()).count("rollout FAIL: test_a_rollout") == 2
    assert len([*(pytester.path / "out" / "rollouts").glob("*.html")]) == 3
    done = pytester.runpytest(*plugin_args, "-k", "good", "--reflex-strict")
    assert done.ret == 1
    done.stdout.fnmatch_lines(
        [
            "rollout PASS: test_a_rollout*::test_good on",
            "  planar-reach, 1 s at 30 Hz: rounding in 2 starts; *",
            "error: no parity result in this session; --reflex-strict wants at least one; a rollout is no "
            "parity: add parity.check",
        ]
    )
