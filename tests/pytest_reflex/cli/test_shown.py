"""What is shown at a prompt: names to complete, helps of one line, objects of one line."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
from bundle_cases import Reflex
from policy_cases import SPECS, Policy, candidate
from report_cases import FAILING, PASSING, located

import exporters
from exporters import open_bundle
from pytest_reflex import FunctionRunner, TorchRunner, check
from pytest_reflex.cli.commands import app
from pytest_reflex.report.text.divergence import divergence_text
from pytest_reflex.result import Located
from pytest_reflex.verdict.divergence import Divergence

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize("group", [(), ("validate",)], ids=["reflex", "validate"])
def test_the_short_helps_are_whole(group: tuple[str, ...], reflex: Reflex) -> None:
    shown = reflex(*group, "-h", env={"COLUMNS": "80"}).out
    lines = shown.partition("Commands:\n")[2].splitlines()
    command: click.Command = app
    for name in group:
        assert isinstance(command, click.Group)
        command = command.commands[name]
    assert isinstance(command, click.Group)
    assert sorted(line.split()[0] for line in lines) == sorted(command.commands)
    for line in lines:
        assert line.endswith("."), line
        assert not line.endswith("..."), line


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_shell_gets_its_completion(shell: str, python: list[str]) -> None:
    env = {**os.environ, "PYTHONPATH": str(ROOT), "_REFLEX_COMPLETE": f"{shell}_source"}
    done = subprocess.run([*python, "-m", "pytest_reflex"], env=env, capture_output=True, text=True)
    assert done.stderr == ""
    assert f"_REFLEX_COMPLETE={shell}_complete" in done.stdout
    if shell == "bash":
        asked = {**env, "_REFLEX_COMPLETE": "bash_complete", "COMP_WORDS": "reflex val", "COMP_CWORD": "1"}
        done = subprocess.run([*python, "-m", "pytest_reflex"], env=asked, capture_output=True, text=True)
        assert done.stdout.split() == ["plain,validate"]


COMPLETE = """
import sys
{block}
import rlcompleter, exporters
names, i = [], 0
completer = rlcompleter.Completer({{"exporters": exporters}})
while (name := completer.complete("exporters.", i)) is not None:
    names.append(name.removeprefix("exporters.").rstrip("("))
    i += 1
print(*names)
"""


def test_tab_completes_what_can_be_had() -> None:
    assert set(dir(exporters)) == set(exporters.__all__)
    code = COMPLETE.format(block="sys.modules['torch'] = None")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr == ""
    assert {"open_bundle", "Bundle", "locate"} <= set(done.stdout.split()) <= set(exporters.__all__)


def test_objects_show_themselves_in_one_line(bundle: Path) -> None:
    made = open_bundle(bundle)
    shown = {
        repr(PASSING): (
            "<ParityResult pass: test_pi0.py::test_pi0, max_abs_diff 4.500e-07, threshold 1e-05, 2 fixtures>"
        ),
        repr(FAILING.fixtures[1]): "<fixture 1: fail (threshold), max_abs_diff 9.461e-03>",
        repr(
            Divergence(2, "graph", "see.1 (arm.py:29): Gelu is 2.3e-04 off by itself", None, (), 7, 0, 0.5)
        ): ("<Divergence of fixture 2, graph: see.1 (arm.py:29): Gelu is 2.3e-04 off by itself>"),
        repr(TorchRunner(Policy())): "<TorchRunner Policy>",
        repr(candidate()): "<OnnxRunner candidate>",
        repr(FunctionRunner(len, name="f")): "<FunctionRunner f>",
        repr(made): f"<Bundle {bundle}: pi0, unrolled, 2 steps, checked: pass>",
        repr(made.runner()): f"<BundleRunner {bundle}>",
    }
    assert list(shown) == list(shown.values())
    assert "\n" not in repr(check(Policy(), candidate(), inputs=SPECS))


@pytest.mark.once
def test_a_place_that_was_found_shows_itself_as_the_command_prints_it() -> None:
    plain = located()
    found = Located(**vars(plain))
    assert (found, hash(found), repr(found)) == (plain, hash(plain), repr(plain))
    assert plain == found
    assert found != Located(**{**vars(plain), "values": 0})
    assert str(found) == divergence_text(plain)
    assert str(found).startswith("Where: bug: ")
    html = found._repr_html_()
    for said in ("Where: bug: ", "Where the two sides part", "<svg", "Behind each layer"):
        assert said in html


def test_a_bundle_shows_itself_in_a_notebook(bundle: Path) -> None:
    shown = open_bundle(bundle)._repr_html_()
    assert "pi0, unrolled, 2 steps, checked: pass" in shown
    for spec in open_bundle(bundle).inputs:
        assert re.search(rf"<code>{spec.name}</code>.*{spec.dtype}", shown)
