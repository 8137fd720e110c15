"""The documentation does what it says: blocks of code run, links lead somewhere, names exist."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from html import unescape
from pathlib import Path

import pytest
import yaml
from docs_reference import commands_page, json_page
from docs_roles import without_roles
from notebook import EXAMPLE, outputs

from pytest_reflex.verdict.results import FIXTURE_GATE_NAMES, RUN_GATE_NAMES

pytestmark = pytest.mark.once

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md"))
# What sets up an environment; here it is set up already. `make tutorial` runs these lines too.
INSTALLS = re.compile(r"(python3 -m venv|\. \.venv/|pip install) .*|\. \.venv/bin/activate")
# What installs a page's own distribution: its metadata is left as an installer leaves it.
INSTALLS_ITSELF = "pip install .\n"


@dataclass(frozen=True)
class Block:
    """A fenced block of a page: its language, the file it is saved as, and its text."""

    language: str
    title: str
    text: str


def blocks(page: str) -> list[Block]:
    text = (DOCS / page).read_text(encoding="utf-8")
    found = re.findall(r'^```(\w+)(?: title="([^"]+)")?\n(.*?)^```$', text, re.MULTILINE | re.DOTALL)
    assert len(found) == text.count("\n```") / 2, f"a block of {page} is of no known form"
    return [Block(*one) for one in found]


RUN = [page for page in PAGES if any(b.language in ("python", "sh") for b in blocks(page))]


def expecting(text: str) -> str:
    """A block as a script that goes on only where a line ends as the page says it does."""
    lines = []
    for line in text.splitlines():
        command, _, code = line.partition("  # exits ")
        lines.append(f"{command} && exit 99 || test $? -eq {code}" if code else command)
    return "\n".join(lines) + "\n"


def shell(text: str) -> str:
    """The same as a whole script, without the lines that install."""
    lines = [line for line in expecting(text).splitlines() if not INSTALLS.fullmatch(line)]
    return "\n".join(["set -eo pipefail", *lines]) + "\n"


def follow(page: str, place: Path, python: list[str]) -> str:
    """Do what a page says, in order; what it printed."""
    start = shlex.join(python)
    bin_ = place / ".bin"
    bin_.mkdir()
    (bin_ / "reflex").write_text(f'#!/bin/sh\nexec {start} -m pytest_reflex "$@"\n')
    (bin_ / "python").write_text(f'#!/bin/sh\nexec {start} "$@"\n')
    for file in bin_.iterdir():
        file.chmod(0o755)
    env = {
        **os.environ,
        "PATH": f"{bin_}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "HF_HUB_OFFLINE": "1",
        "PYTEST_ADDOPTS": "-p no:cacheprovider",
    }
    said = ""
    for script, text in scripts(page, place, python):
        done = subprocess.run(
            script,
            cwd=place,
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=240,
        )
        assert done.returncode == 0, f"{page}:\n{text}\n{done.stdout}"
        said += done.stdout
    return said


def scripts(page: str, place: Path, python: list[str]) -> Iterator[tuple[list[str], str]]:
    """What to run for a page. Python blocks in a row share a process, and nothing else."""
    waiting: list[str] = []
    for number, block in enumerate([*blocks(page), Block("sh", "", "")]):
        if block.title:
            (place / block.title).write_text(block.text, encoding="utf-8")
        elif block.language == "python":
            file = place / f"block_{number}.py"
            file.write_text(block.text, encoding="utf-8")
            waiting.append(str(file))
        elif block.language == "sh":
            if block.text.startswith(INSTALLS_ITSELF):
                install(place)
            if waiting:
                run = f"import runpy\nfor file in {waiting!r}: runpy.run_path(file, run_name='__main__')"
                yield [*python, "-c", run], f"the Python blocks before {block.text!r}"
            yield ["bash", "-c", shell(block.text)], block.text
            waiting = []
        else:
            assert block.language in ("yaml", "text", "ini"), f"{page}: who runs {block.language}?"


def install(place: Path) -> None:
    """Leave the metadata of the distribution in a directory, whose modules are found there."""
    project = tomllib.loads((place / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    info = place / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir()
    name = f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    (info / "METADATA").write_text(name, encoding="utf-8")
    points = [
        f"[{group}]\n" + "".join(f"{key} = {value}\n" for key, value in held.items())
        for group, held in project["entry-points"].items()
    ]
    (info / "entry_points.txt").write_text("\n".join(points), encoding="utf-8")


@pytest.fixture(scope="module")
def tutorial(tmp_path_factory: pytest.TempPathFactory, python: list[str]) -> tuple[Path, str]:
    """The tutorial, followed; what it leaves is what the other pages start from."""
    place = tmp_path_factory.mktemp("tutorial")
    return place, follow("tutorial.md", place, python)


def test_the_tutorial_followed_to_the_letter_works(tutorial: tuple[Path, str]) -> None:
    place, said = tutorial
    for line in (
        r"^parity PASS: max_abs_diff \S+ is below 1\.0e-04 \(5 fixtures\)$",
        r"^parity PASS: max_abs_diff \S+ is below 1\.0e-04 \(8 fixtures\)$",
        r"^parity FAIL: max_abs_diff \S+ is not below 1\.0e-04 \(",
        r"intact: broken/model\.onnx\.data was changed after its check",
        r"^=+ 1 passed in",
        r"^parity FAIL$",
    ):
        assert re.search(line, said, re.MULTILINE), f"{line} is not in\n{said}"
    assert (place / "parity_reports" / "index.html").is_file()


@pytest.mark.parametrize("page", [page for page in RUN if page != "tutorial.md"])
def test_every_block_of_code_runs(
    page: str, tutorial: tuple[Path, str], tmp_path: Path, python: list[str]
) -> None:
    for name in ("arm.py", "test_arm.py", "reach", "parity_reports"):
        source = tutorial[0] / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, tmp_path / name)
    follow(page, tmp_path, python)


def test_the_jobs_of_the_page_are_those_that_init_writes() -> None:
    from pytest_reflex.cli.jobs import JOBS, RUN

    page = blocks("howto/ci.md")
    assert [block.text for block in page if block.language == "yaml"][:2] == [
        job.text("export") for job in JOBS.values()
    ]
    assert f"{RUN}\n" in [block.text for block in page]


def test_a_block_that_ends_otherwise_than_it_says_is_caught(tmp_path: Path) -> None:
    for text, good in (
        ("true\n", True),
        ("false\ntrue\n", False),
        ("false  # exits 1\n", True),
        ("true  # exits 1\n", False),
    ):
        assert (subprocess.run(["bash", "-c", shell(text)]).returncode == 0) is good


def test_the_notebook_runs_and_shows_the_table_and_the_heat_map(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    notebook = json.loads(EXAMPLE.read_text(encoding="utf-8"))
    found = outputs(notebook)
    shown = [["".join(o["data"].get("text/html", "")) for o in cell if "data" in o] for cell in found]
    assert ["PASS" in html for cell in shown for html in cell] == [True, False]
    for html in (html for cell in shown for html in cell):
        assert "fixture_idx" in html
        assert "heat-" in html
    # What is kept in the file is what such a run shows.
    kept = [cell["outputs"] for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert [[sorted(o.get("data", o)) for o in cell] for cell in kept] == [
        [sorted(o.get("data", o)) for o in cell] for cell in found
    ]
    assert kept[-1] == found[-1]


def anchors(page: str) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", (DOCS / page).read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_somewhere(page: str) -> None:
    for link in re.findall(r"\]\(([^)]+)\)", (DOCS / page).read_text(encoding="utf-8")):
        if "://" in link:
            continue
        target, _, anchor = link.partition("#")
        file = ((DOCS / page).parent / target).resolve() if target else DOCS / page
        assert file.is_file(), f"{page}: {link}"
        if anchor:
            assert anchor in anchors(str(file.relative_to(DOCS))), f"{page}: {link}"


def test_every_page_is_in_the_navigation() -> None:
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert sorted(re.findall(r"[\w/-]+\.md", text)) == PAGES


def test_the_names_of_the_python_reference_exist() -> None:
    import importlib

    names = re.findall(r"^::: ([\w.]+)$", (DOCS / "reference" / "python.md").read_text(), re.MULTILINE)
    assert len(names) > 20
    for name in names:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError:
            module, _, attribute = name.rpartition(".")
            assert getattr(importlib.import_module(module), attribute).__doc__, name


def test_the_reference_lists_what_a_meaning_is_made_of() -> None:
    from dataclasses import fields

    from pytest_reflex.inputs import distributions

    kinds = [kind for kind in vars(distributions).values() if isinstance(kind, type)]
    own = [kind for kind in kinds if kind.__module__ == distributions.__name__]
    assert len(own) > 5
    for kind in own:
        told = re.findall(r"^        ([a-z]\w*): ", kind.__doc__ or "", re.MULTILINE)
        assert told == [field.name for field in fields(kind)], kind


ANY_ROLE = re.compile(r":[a-z:]+:`")


def test_names_marked_up_for_sphinx_are_plain_code_in_the_reference() -> None:
    assert without_roles("a :class:`~a.b.C`, :py:func:`d.e` and :data:`F`.") == "a `C`, `d.e` and `F`."
    found = 0
    for path in (
        file for package in ("pytest_reflex", "exporters") for file in (ROOT / package).rglob("*.py")
    ):
        text = path.read_text(encoding="utf-8")
        found += len(ANY_ROLE.findall(text))
        left = [line for line in without_roles(text).splitlines() if ANY_ROLE.search(line)]
        assert left == [], path
    assert found > 20


def test_the_documentation_builds_without_a_warning_and_shows_no_markup(tmp_path: Path) -> None:
    pytest.importorskip(
        "mkdocstrings_handlers.python", reason="mkdocs is not installed: pip install '.[docs]'"
    )
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", tmp_path / "site"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "NO_MKDOCS_2_WARNING": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=240,
    )
    assert (done.returncode, done.stdout) == (0, "")
    shown = (tmp_path / "site" / "reference" / "python" / "index.html").read_text(encoding="utf-8")
    assert "<code>Candidate</code>" in shown
    assert re.findall(r":[a-z]+:(?:`|<code>)[^<]*", shown) == []


def test_the_gallery_is_what_the_verdicts_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from docs_gallery import FAILURES, judged

    from pytest_reflex.report.text.terminal import first_refusal

    said = (DOCS / "gallery.md").read_text(encoding="utf-8")
    assert re.findall(r"^## (.*)$", said, re.MULTILINE) == [failure.title for failure in FAILURES]
    assert said.count("\nparity FAIL: ") == len(FAILURES)
    for failure in FAILURES:
        page = (DOCS / "gallery" / f"{failure.name}.html").read_text(encoding="utf-8")
        assert "<title>parity FAIL</title>" in page
        assert failure.title in unescape(page)
        assert tempfile.gettempdir() not in page
        assert len(page) < 250_000
    # One of them made again: another machine gives other figures, the same gate and the same place.
    monkeypatch.chdir(tmp_path)
    failure = next(one for one in FAILURES if one.name == "activation")
    result = judged(failure)
    assert first_refusal(result)[1].gate == failure.gate
    assert result.located is not None
    assert result.located.said.partition(":")[0] in said


@pytest.mark.parametrize(("file", "text"), [("commands.md", commands_page()), ("json.md", json_page())])
def test_the_reference_is_what_the_code_says(file: str, text: str) -> None:
    said = (DOCS / "reference" / file).read_text(encoding="utf-8")
    assert said == text, "write it again: python tests/support/docs_reference.py"


def test_the_gates_are_those_that_are_asked_in_that_order() -> None:
    rows = re.findall(
        r"^\| (\w+) \| [^|]+ \|$", (DOCS / "gates.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert rows == ["gate", *FIXTURE_GATE_NAMES, *RUN_GATE_NAMES]


def test_the_two_jobs_are_yaml_and_run_the_same_commands() -> None:
    workflow, gitlab, more = (
        made
        for block in blocks("howto/ci.md")
        if block.language == "yaml" and "repos" not in (made := yaml.safe_load(block.text))
    )
    steps = workflow["jobs"]["parity"]["steps"]
    # What is to be added to it is steps as well, and caches the place that is the default.
    assert all(step.keys() <= {"uses", "with", "run", "if"} for step in more)
    assert more[0]["with"]["path"] == "~/.cache/pytest-reflex"
    commands = [step["run"] for step in steps if "run" in step]
    assert commands == gitlab["parity"]["script"]
    assert "--reflex-strict" in commands[-1]
    assert any(step.get("if") == "always()" for step in steps)
    assert gitlab["parity"]["artifacts"]["when"] == "always"


def test_the_gitlab_job_fits_gitlab_s_schema(tmp_path: Path) -> None:
    (text,) = (b.text for b in blocks("howto/ci.md") if b.language == "yaml" and "artifacts:" in b.text)
    job = tmp_path / ".gitlab-ci.yml"
    job.write_text(text, encoding="utf-8")
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.gitlab-ci", str(job)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


SCRIPTS = sorted(set(re.findall(r"python (\S+\.py)", (ROOT / "Makefile").read_text(encoding="utf-8"))))


@pytest.mark.parametrize("script", SCRIPTS)
def test_what_make_runs_finds_what_it_imports(script: str, python: list[str]) -> None:
    """Some of them take gigabytes, so that nothing else in the suite starts them."""
    load = f"import runpy, sys; sys.path[0] = {str(Path(script).parent)!r}; runpy.run_path({script!r})"
    done = subprocess.run([*python, "-c", load], cwd=ROOT, capture_output=True, text=True)
    assert not done.returncode, done.stderr[-400:]
