"""README.md says what is so: its code runs, its options exist, its failure is the one that is printed."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import click
import docs_families
import pytest
from bundle_cases import Reflex, add_to_weight

from exporters import FAMILIES
from pytest_reflex.cli.commands import (
    export,
    locate_place,
    report,
    serve,
    validate_export,
    validate_onnx,
    validate_serve,
)
from pytest_reflex.settings import RUN

pytestmark = pytest.mark.once

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
# (language, code) of every fenced block, in order
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
PYTHON = [code for language, code in BLOCKS if language == "python"]
# Where the README says to read on.
OPTIONS = (ROOT / "docs" / "howto" / "command-line.md").read_text(encoding="utf-8")
SERVING = (ROOT / "docs" / "howto" / "serve.md").read_text(encoding="utf-8")
BUNDLES = (ROOT / "docs" / "howto" / "bundles.md").read_text(encoding="utf-8")
OWN_POLICY = (ROOT / "examples" / "own_policy.py").read_text(encoding="utf-8")


def table(first: str, page: str = README) -> list[list[str]]:
    """The rows of a page's table whose first column has this heading."""
    found = re.search(rf"^\| {first} \|.*\n\|(?: ---? \|| --- \|)+\n((?:\|.*\n)+)", page, re.MULTILINE)
    assert found, f"no table of {first}"
    return [[cell.strip() for cell in row.strip("|").split(" | ")] for row in found[1].splitlines()]


@pytest.fixture
def place(tmp_path: Path, checkpoint: Path, bundle: Path) -> Path:
    """A directory with what the README's code finds in its own."""
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "pi0").symlink_to(checkpoint)
    shutil.copytree(bundle, tmp_path / "p0")
    return tmp_path


@pytest.mark.parametrize("code", PYTHON, ids=range(len(PYTHON)))
def test_the_python_code_runs(code: str, place: Path, plugin_args: list[str], python: list[str]) -> None:
    is_test = "\ndef test_" in code
    file = place / ("test_readme_block.py" if is_test else "block.py")
    file.write_text(code)
    how = ["-m", "pytest", "-q", "-p", "no:cacheprovider", *plugin_args] if is_test else []
    done = subprocess.run(
        [*python, *how, file.name],
        cwd=place,
        env={**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    if is_test:
        assert "1 passed" in done.stdout
        assert "PASS " in done.stdout


def test_it_is_short() -> None:
    assert README.count("\n") <= 200


def test_the_own_policy_is_the_example_s() -> None:
    assert OWN_POLICY in (ROOT / "docs" / "howto" / "own-policy.md").read_text(encoding="utf-8")


def test_the_pytest_options_are_those_there_are() -> None:
    rows = re.findall(r"^\| `(--reflex-[a-z-]+)[^`]*` \| `(\w+)` \|", OPTIONS, re.MULTILINE)
    flags = {name: setting.flags(name, "--reflex-") for name, setting in RUN.items()}
    assert rows == [(flag, f"reflex_{name}") for name, (flag, *_) in flags.items()]
    assert set(re.findall(r"--reflex-[a-z-]+", OPTIONS)) == set().union(*flags.values())
    assert set(re.findall(r"--reflex-[a-z-]+", README)) <= set().union(*flags.values())


def test_the_command_s_options_are_those_there_are() -> None:
    def options(command: click.Command) -> set[str]:
        return {name for p in command.params if isinstance(p, click.Option) for name in p.opts}

    made, judged = options(export), options(validate_export)
    expected = {
        name: "both" if name in made & judged else "export" if name in made else "validate"
        for name in made | judged
    }
    served = options(serve)
    of_served = {"--api-key", "--bundle"}
    assert options(validate_serve) == (judged - {"--reference", "--save-fixtures", "--simplest"}) | of_served
    assert set(re.findall(r"^\| `(--[a-z-]+)", SERVING, re.MULTILINE)) == served
    rows = dict(re.findall(r"^\| `(--(?!reflex-)[a-z-]+)[^`]*` \| (\w+) \|", OPTIONS, re.MULTILINE))
    assert rows == expected
    named = {name for name in re.findall(r"(?<![\w-])--[a-z][a-z-]+", README) if "--reflex-" not in name}
    reported = {name for name in options(report) if name.startswith("--")}
    assert named <= set(expected) | served | reported | options(locate_place) | {"--inputs"}
    left_out = {"--steps", "--save-fixtures", "--processors"}
    assert options(validate_onnx) == (judged - left_out) | {"--inputs"}


def test_the_figures_are_those_that_the_benchmarks_wrote(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import figures

    reports = ROOT / "parity_reports"
    page = (reports / "figures" / "README.md").read_text(encoding="utf-8")
    assert page == figures.page(reports / "figures", reports / "fullsize")
    measured = README[README.index("## Measured") : README.index("## Where to read on")]
    lines = [line for line in measured.splitlines() if line.startswith("|")]
    assert len(lines) == 2 + 8 + 2 + 4
    assert not set(lines) - {
        *page.splitlines(),
        *figures.let_pass(reports / "figures" / "known_bad_peers.json"),
    }


def test_the_exit_codes_are_three() -> None:
    assert [row[0] for row in table("exit")] == ["0", "1", "2"]


def test_every_family_is_named() -> None:
    assert [row[0] for row in table("family", BUNDLES)] == [f"`{name}`" for name in FAMILIES]


def test_every_linked_file_exists() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", README)
    assert links
    assert [link for link in links if not link.startswith("http") and not (ROOT / link).exists()] == []


def test_the_failure_is_what_is_printed(place: Path, bundle: Path, checkpoint: Path, reflex: Reflex) -> None:
    (shown,) = [code for language, code in BLOCKS if language == "console"]
    command, _, expected = shown.partition("\n")
    demo = place / "demo"
    demo.mkdir()
    (demo / "checkpoint").symlink_to(checkpoint)
    shutil.copytree(bundle, demo / "p0")
    add_to_weight(demo / "p0", "policy.action_out_proj.weight.T", 0.01)
    words = shlex.split(command)
    assert words[:2] == ["$", "reflex"]
    ran = reflex(*words[2:], cwd=place)
    assert (ran.code, ran.err) == (1, "")
    # Whether a mask can be varied without its prompt, which a note tells, depends on transformers.
    printed = re.sub(r"(?m)^Note: .*\n(?:  .*\n)*\n", "", ran.out)
    assert _without_figures(printed) == _without_figures(expected)


def _without_figures(text: str) -> list[str]:
    """Lines with every figure as ``#``: they belong to one checkpoint and one machine."""
    text = re.sub(r"\b[0-9a-f]{12}\b", "#", text)
    text = re.sub(r"[+-]?\d[\d.]*(?:e[+-]\d+)?", "#", text)
    return [" ".join(line.split()) for line in text.splitlines()]


def test_the_table_of_policies_is_the_registrys() -> None:
    assert docs_families.written(BUNDLES) == BUNDLES
