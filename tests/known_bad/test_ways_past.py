"""Ways past the verdict: each ends in anything but exit 0, however the wrong export tries to leave."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from known_bad_cases import CASES

from pytest_reflex.cli import main
from pytest_reflex.judge.check import check

pytestmark = pytest.mark.once

ROOT = Path(__file__).resolve().parents[2]

# --- a result that is asked whether it is true -----------------------------------------------------------


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.verdict != "error"])
def test_fail_result__asserted_and_not_required(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    result = case.judge(lambda *sides, **options: check(*sides, strict=case.strict, **options), tmp_path)
    assert bool(result) is (case.verdict == "pass")
    assert [bool(fixture) for fixture in result.fixtures] == [fixture.passed for fixture in result.fixtures]
    if not result:
        with pytest.raises(AssertionError, match=r"^(parity|agreement) FAIL: "):
            result.require()


@pytest.mark.parametrize("said", ["assert {}", "if not {}: raise SystemExit(1)", "assert all([{}])"])
def test_fail_result__a_script_that_asserts_its_check(said: str, tmp_path: Path) -> None:
    case = CASES["fail_finite__nan_on_both_sides"]
    asked = said.format("case.judge(check, work)")
    with pytest.raises((AssertionError, SystemExit)):
        exec(asked, {"case": case, "check": check, "work": tmp_path})


# --- a model that leaves the command before its verdict --------------------------------------------------


# What the corpus's reference computes, in PyTorch.
POLICY = """
import atexit, click, os, sys, threading
import torch

class Policy(torch.nn.Module):
    def forward(self, cameras, state, noise):
        masks = cameras.float()
        seen = state * masks[:, :1] + 2 * state * masks[:, 1:]
        for _ in range(3):
            noise = noise + (-1 / 3) * (0.5 * noise + seen[:, None, :])
        return {"actions": noise, "ids": torch.where(cameras, 2**63 - 1, 2**53), "done": ~cameras}

def policy():
    return Policy()

def leave(self=None, **inputs):
"""
WRONG = "fail_threshold__one_joint_of_1600_off_by_a_half"
BEFORE = "exited with 0 before it reached a verdict: a model, or what loads it, ended it; nothing is proven"
AFTER = "was to exit with 1 and exited with 0: something that a model left ended it; nothing is proven"
RAISED = (
    "the model, or what loads it, raised {} before there was a verdict; have it return, nothing is proven"
)
LEAVES = {
    "exit_when_imported": ("sys.exit(0)", "leave()", RAISED.format("SystemExit(0)")),
    "exit_when_loaded": ("raise SystemExit", "policy = leave", RAISED.format("SystemExit()")),
    "exit_when_run": ("sys.exit(0)", "Policy.forward = leave", RAISED.format("SystemExit(0)")),
    "the_end_of_a_generator": ("raise GeneratorExit", "leave()", RAISED.format("GeneratorExit()")),
    "the_exit_of_click": (
        "raise click.exceptions.Exit(0)",
        "class Late(Policy):\n    def eval(self): leave()\npolicy = Late",
        "",
    ),
    "_exit_when_imported": ("os._exit(0)", "leave()", BEFORE),
    "_exit_when_run": ("os._exit(0)", "Policy.forward = leave", BEFORE),
    "_exit_below_python": ("import ctypes; ctypes.CDLL(None)._exit(0)", "policy = leave", BEFORE),
    "another_program": ("os.execv('/bin/sh', ['sh', '-c', 'exit 0'])", "leave()", BEFORE),
    "a_child_that_says_the_verdict": (
        "if not os.fork(): os.write(2, b'parity PASS\\n')\n    os._exit(0)", "leave()", BEFORE,
    ),
    "a_child_that_goes_on_alone": ("if os.fork(): os._exit(0)", "leave()", BEFORE),
    "_exit_at_exit": ("os._exit(0)", "atexit.register(leave)", AFTER),
    "_exit_for_exit": ("sys.exit = lambda code: os._exit(0)", "leave()", AFTER),
    "_exit_of_a_thread": (
        "threading.main_thread().join(); os._exit(0)", "threading.Thread(target=leave).start()", AFTER,
    ),
}  # fmt: skip


@pytest.mark.parametrize("how", LEAVES)
def test_error_session__a_model_that_leaves(how: str, tmp_path: Path, reflex: Any) -> None:
    body, where, said = LEAVES[how]
    CASES[WRONG].bundle(tmp_path / "b")
    (tmp_path / "own.py").write_text(f"{POLICY}    {body}\n\n{where}\n")
    commands = ["validate export", "locate"] if how.endswith("when_imported") else ["validate export"]
    for command in commands:
        ran = reflex(*command.split(), tmp_path / "b", "--model", f"{tmp_path}/own.py:policy")
        assert (ran.code, ran.out) == (2, ""), ran
        # A child of its own may write before that line or after it.
        assert [said in line for line in ran.err.splitlines() if line.startswith("reflex: error: ")] == [True]


def test_pass_session__a_model_that_stays(tmp_path: Path, reflex: Any) -> None:
    """What the models above leave from: the same policy, its honest export, and what it prints kept aside."""
    CASES["pass__the_honest_export"].bundle(tmp_path / "b")
    (tmp_path / "own.py").write_text(f"{POLICY}    pass\nprint('parity FAIL')\natexit.register(leave)\n")
    ran = reflex("validate", "export", tmp_path / "b", "--model", f"{tmp_path}/own.py:policy")
    assert (ran.code, ran.err) == (0, "parity FAIL\n")
    assert ran.out.startswith("parity PASS: ")


def test_error_session__an_exit_where_nobody_can_fork(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    CASES["pass__the_honest_export"].bundle(tmp_path / "b")
    (tmp_path / "own.py").write_text(f"{POLICY}    sys.exit(0)\n\nleave()\n")
    monkeypatch.delattr(os, "fork")
    monkeypatch.setattr(
        sys, "argv", ["reflex", "validate", "export", f"{tmp_path}/b", "--model", f"{tmp_path}/own.py:policy"]
    )
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 2
    assert capfd.readouterr() == ("", f"reflex: error: {RAISED.format('SystemExit(0)')}\n")


@pytest.mark.parametrize("onto", [">&-", "> /dev/full", "| exit 0"])
def test_error_session__a_verdict_that_nobody_could_read(onto: str, tmp_path: Path) -> None:
    CASES["pass__the_honest_export"].bundle(tmp_path / "b")
    said = f"{sys.executable} -m pytest_reflex validate export b --model b/fixtures.safetensors"
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {said} {onto}"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("reflex: error: stdout: the verdict could not be printed (")
    assert len(done.stderr.splitlines()) == 1
