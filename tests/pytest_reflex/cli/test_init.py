"""``reflex init``: what it writes passes as it is, by pytest and by the schemas of those who run the jobs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from bundle_cases import Reflex, linted

from pytest_reflex.cli.init import _job
from pytest_reflex.cli.jobs import JOBS, RUN, TESTS

pytestmark = pytest.mark.once

ROOT = Path(__file__).resolve().parents[3]
WORKFLOW, GITLAB = ".github/workflows/parity.yml", ".gitlab-ci.yml"
CHECK = "check_jsonschema"

INSTANCE = """
import torch
from pytest_reflex import InputSpec

INPUTS = [InputSpec("x", (1, 4))]
torch.manual_seed(0)
actor = torch.nn.Linear(4, 2)
"""
FUNCTION = """
import torch
from pytest_reflex.inputs import InputSpec, Integers
from sizes import SIZE

SPECS = (InputSpec("ids", (1, 3), "int64", Integers(0, SIZE)),)


class Table(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.table = torch.nn.Embedding(SIZE, 2)

    def forward(self, ids):
        return {"actions": self.table(ids)}


def policy():
    torch.manual_seed(0)
    return Table()
"""

PACKAGE = {
    "arms/__init__.py": "",
    "arms/layers.py": "import torch\n\n\ndef layer():\n    return torch.nn.Linear(4, 2)\n",
    "arms/sizes.py": "SIZE = 4\n",
    "arms/left/__init__.py": "from ..layers import layer\n",
    "arms/left/actor.py": """
import torch
from pytest_reflex import InputSpec
from . import layer
from ..sizes import SIZE

INPUTS = [InputSpec("x", (1, SIZE))]


def policy():
    torch.manual_seed(0)
    return layer()
""",
}


@pytest.fixture(autouse=True)
def _in_a_repository(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


def passes(place: Path, python: list[str], plugin_args: list[str]) -> None:
    """The command that ``init`` ends with, in its repository; and linters have nothing to say of the test."""
    linted(place / TESTS)
    done = subprocess.run(
        [*python, "-m", "pytest", *plugin_args, TESTS, "--reflex-strict", "-q"],
        cwd=place,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout
    assert "PASS " in done.stdout


def fits(place: Path) -> None:
    """Both jobs, by the schemas of those who run them; and what they run is what there is."""
    for file, kind in ((WORKFLOW, "github-workflows"), (GITLAB, "gitlab-ci")):
        done = subprocess.run(
            [sys.executable, "-m", CHECK, "--builtin-schema", f"vendor.{kind}", str(place / file)],
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr
    if shutil.which("actionlint"):
        subprocess.run(["actionlint", str(place / WORKFLOW)], check=True)
    steps = yaml.safe_load((place / WORKFLOW).read_text())["jobs"]["parity"]["steps"]
    runs = [step["run"] for step in steps if "run" in step]
    assert runs == yaml.safe_load((place / GITLAB).read_text())["parity"]["script"]
    assert any(run.startswith(f"python -m pytest {TESTS} --reflex-strict ") for run in runs)


GUARDS = (
    "Without --bundle the test guards the export and not a file that was shipped. Where one was shipped, "
    "judge it: reflex init"
)
IGNORE = (
    "The jobs write parity_reports/ and junit.xml; where you run them yourself, add these to .gitignore\n"
)


def test_a_checkpoint(
    checkpoint: Path, tmp_path: Path, here: Reflex, python: list[str], plugin_args: list[str]
) -> None:
    shutil.copytree(checkpoint, tmp_path / "checkpoints" / "tiny-pi0")
    ran = here("init", "checkpoints/tiny-pi0")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out == (
        f"written     {TESTS}/test_tiny_pi0.py\nwritten     {WORKFLOW}\nwritten     {GITLAB}\n\n"
        f"{GUARDS} checkpoints/tiny-pi0 --bundle PATH\n\n{IGNORE}\nNext: {RUN}\n"
    )
    assert str(tmp_path) not in (tmp_path / TESTS / "test_tiny_pi0.py").read_text()
    assert "'pytest-reflex[export]'" in (tmp_path / WORKFLOW).read_text()
    passes(tmp_path, python, plugin_args)
    fits(tmp_path)
    again = here("init", "checkpoints/tiny-pi0")
    assert again.out == ran.out.replace("written   ", "as it was ")


@pytest.mark.parametrize(
    ("file", "text", "name", "more"),
    [
        ("actor.py", INSTANCE, "actor", []),
        ("models/table.py", FUNCTION, "policy", ["--inputs", "SPECS"]),
        ('of "the" \\N/actor.py', INSTANCE, "actor", []),
        # The name that the documentation gives both, and one that the test itself might use.
        ("policy.py", (ROOT / "examples" / "own_policy.py").read_text(), "policy", []),
        ("src/reflex.py", INSTANCE.replace("actor", "export"), "export", []),
    ],
)
def test_a_script(
    file: str,
    text: str,
    name: str,
    more: list[str],
    tmp_path: Path,
    here: Reflex,
    python: list[str],
    plugin_args: list[str],
) -> None:
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text(text)
    (tmp_path / file).with_name("sizes.py").write_text("SIZE = 5\n")
    ran = here("init", f"{file}:{name}", *more)
    assert (ran.code, ran.err) == (0, "")
    # A function that every script has does not say which policy that is; the file does.
    (written,) = (tmp_path / TESTS).iterdir()
    assert written.name == f"test_{name if name != 'policy' else Path(file).stem}.py"
    assert str(tmp_path) not in written.read_text()
    folder = {"": "ROOT", "models": 'ROOT / "models"', "src": 'ROOT / "src"'}.get(
        file.rpartition("/")[0], "ROOT / 'of \"the\" \\\\N'"
    )
    assert f"[str({folder})]" in written.read_text()
    passes(tmp_path, python, plugin_args)
    fits(tmp_path)


def test_a_script_and_the_bundle_that_was_shipped(
    tmp_path: Path, here: Reflex, python: list[str], plugin_args: list[str]
) -> None:
    (tmp_path / "actor.py").write_text(INSTANCE)
    assert here("export", "actor.py:actor", "shipped", "--fixtures", "3").code == 0
    both = here("init", "actor.py:actor", "--bundle", "shipped", "--inputs", "SPECS")
    assert both.code == 2
    assert both.err.startswith(
        "reflex: error: --inputs was given, and --bundle says itself what it reads; leave it out"
    )
    ran = here("init", "actor.py:actor", "--bundle", "shipped", "--ci", "none")
    assert (ran.code, ran.out) == (0, f"written     {TESTS}/test_actor.py\n\n{IGNORE}\nNext: {RUN}\n")
    written = (tmp_path / TESTS / "test_actor.py").read_text()
    assert written.startswith('"""actor.py:actor and shipped compute the same."""\n')
    assert "    policy = bundle.reference_runner(script.actor, inputs=script.INPUTS)\n" in written
    passes(tmp_path, python, plugin_args)
    assert here("validate", "shipped", "--model", "actor.py:actor", "--strict").code == 0
    # The file says now that it reads another thing: the command says so, and strict refuses it.
    narrower = INSTANCE.replace("(1, 4))", "(1, 4), meaning=State())")
    (tmp_path / "actor.py").write_text(f"from pytest_reflex.inputs import State\n{narrower}")
    del sys.modules["actor"]
    said = here("validate", "shipped", "--model", "actor.py:actor", "--strict", "--fixtures", "3")
    assert said.code == 1
    assert (
        "the bundle reads 'x' float32 [1, 4] Gaussian(mean=0.0, std=1.0) and the policy's file says 'x' "
        "float32 [1, 4] State(); export it again, or have the file say what the bundle reads"
    ) in " ".join(said.out.split())
    # The policy was trained on: the bundle is of another one, and a test that exports cannot see it.
    (tmp_path / "actor.py").write_text(INSTANCE + "with torch.no_grad():\n    actor.weight += 1e-2\n")
    assert "test_actor_actor_parity.py" in here("init", "actor.py:actor", "--ci", "none").out
    exports = (tmp_path / TESTS / "test_actor_actor_parity.py").read_text()
    assert exports.startswith(
        '"""actor.py:actor and its export compute the same.\n\nWritten by `reflex init`; without --bundle '
        'the test guards the export and not a file that was shipped.\n"""\n'
    )
    done = subprocess.run(
        [*python, "-m", "pytest", *plugin_args, TESTS, "-q"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert "1 failed, 1 passed" in done.stdout
    assert f"FAILED {TESTS}/test_actor.py::test_actor - parity FAIL: max_abs_diff " in done.stdout


def test_a_script_and_a_plain_file_that_was_shipped(
    tmp_path: Path, here: Reflex, python: list[str], plugin_args: list[str]
) -> None:
    (tmp_path / "actor.py").write_text(INSTANCE)
    assert here("export", "actor.py:actor", "made", "--fixtures", "3").code == 0
    shutil.copytree(tmp_path / "made", tmp_path / "shipped", ignore=shutil.ignore_patterns("*.json"))
    (graph,) = (tmp_path / "shipped").glob("*.onnx")
    plain = f"shipped/{graph.name}"
    ran = here("init", "actor.py:actor", "--bundle", plain, "--ci", "none")
    assert (ran.code, ran.out) == (0, f"written     {TESTS}/test_actor.py\n\n{IGNORE}\nNext: {RUN}\n")
    written = (tmp_path / TESTS / "test_actor.py").read_text()
    assert f'    parity.check(script.actor, ROOT / "{plain}", inputs=script.INPUTS)\n' in written
    passes(tmp_path, python, plugin_args)
    # No file says what its inputs stand for.
    (tmp_path / "actor.py").write_text(INSTANCE.replace("INPUTS", "SPECS"))
    del sys.modules["actor"]
    assert here("init", "actor.py:actor", "--bundle", plain, "--ci", "none").err == (
        "reflex: error: actor.py has no 'INPUTS', and a test has to know what the policy reads; "
        "give --inputs SPECS\n"
    )
    again = here("init", "actor.py:actor", "--bundle", plain, "--ci", "none", "--inputs", "SPECS")
    assert again.out.startswith(f"left alone  {TESTS}/test_actor.py, which is another\n")
    for asked, said in (
        (
            [plain],
            f"MODEL is '{plain}', a graph, and a test wants the policy too; give that as file.py:name, and "
            f"--bundle {plain}",
        ),
        (["actor.py:actor", "--bundle", "gone.onnx"], "gone.onnx: there is no such file"),
    ):
        ran = here("init", *asked)
        assert (ran.code, ran.out, ran.err) == (2, "", f"reflex: error: {said}\n")


def test_a_file_of_a_package(tmp_path: Path, here: Reflex, python: list[str], plugin_args: list[str]) -> None:
    for file, text in PACKAGE.items():
        (tmp_path / "src" / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "src" / file).write_text(text)
    # What lies beside it is no name of a module of its own, as in a run of Python's.
    (tmp_path / "src" / "arms" / "left" / "torch.py").write_text("raise ImportError('another torch')\n")
    ran = here("init", "src/arms/left/actor.py:policy")
    assert (ran.code, ran.err) == (0, "")
    assert "\nimport arms.left.actor as script  # noqa" in (tmp_path / TESTS / "test_actor.py").read_text()
    passes(tmp_path, python, plugin_args)
    assert here("export", "src/arms/left/actor.py:policy", "out", "--fixtures", "3").code == 0
    assert here("validate", "export", "out", "--model", "src/arms/left/actor.py:policy").code == 0
    (tmp_path / "src" / "arms" / "left" / "__init__.py").unlink()
    ran = here("init", "src/arms/left/actor.py:policy")
    assert ran.err.endswith("a file that imports from its package by dots needs an __init__.py beside it\n")


def test_each_model_has_a_test_of_its_own(tmp_path: Path, here: Reflex) -> None:
    for file in ("reach.py", "grasp.py", "lift.py"):
        (tmp_path / file).write_text(FUNCTION.replace("SPECS", "INPUTS").replace("from sizes import", "#"))
        (tmp_path / file).write_text((tmp_path / file).read_text().replace("SIZE", "5"))
    assert "test_reach.py\n" in here("init", "reach.py:policy", "--ci", "none").out
    (tmp_path / TESTS / "test_reach.py").write_text(
        (tmp_path / TESTS / "test_reach.py").read_text().replace("1e-4", "1e-5")
    )
    assert here("init", "reach.py:policy", "--ci", "none").out.startswith(
        f"left alone  {TESTS}/test_reach.py, which is another\n"
    )
    # Whatever it is called: by its owner, or by a version that had other names.
    (tmp_path / TESTS / "test_reach.py").rename(tmp_path / TESTS / "test_policy.py")
    again = here("init", "reach.py:policy", "--ci", "none").out
    assert again.startswith(f"left alone  {TESTS}/test_policy.py, which is another\n")
    assert [*(tmp_path / TESTS).glob("test_*.py")] == [tmp_path / TESTS / "test_policy.py"]
    (tmp_path / TESTS / "test_grasp.py").write_text("def test_grasps(): pass\n")
    assert here("init", "grasp.py:policy", "--ci", "none").out.startswith(
        f"written     {TESTS}/test_grasp_policy.py\n"
    )
    # pytest takes no two files of one name from directories that are no packages.
    (tmp_path / "tests" / "test_lift.py").write_text("def test_lifts(): pass\n")
    (tmp_path / "tests" / "test_lift_policy.py").write_text("def test_lifts(): pass\n")
    assert here("init", "lift.py:policy", "--ci", "none").out.startswith(
        f"written     {TESTS}/test_lift_policy_parity.py\n"
    )


def test_what_comes_next_can_be_pasted(tmp_path: Path, here: Reflex) -> None:
    (tmp_path / "actor.py").write_text(INSTANCE)
    ran = here("init", "actor.py:actor", "-o", tmp_path / "my arm")
    assert ran.out.endswith(f"\nNext: cd '{tmp_path}/my arm' && {RUN}\n")


def test_the_jobs_of_lerobot_s_policies(tmp_path: Path) -> None:
    for job in JOBS.values():
        (tmp_path / job.place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / job.place).write_text(job.text("lerobot"))
    fits(tmp_path)


def test_what_is_there_is_left_alone(tmp_path: Path, here: Reflex) -> None:
    (tmp_path / "actor.py").write_text(INSTANCE)
    (tmp_path / GITLAB).write_text("mine: {script: [true]}\n")
    ran = here("init", "actor.py:actor")
    assert f"left alone  {GITLAB}, which is another\n" in ran.out
    assert (tmp_path / GITLAB).read_text() == "mine: {script: [true]}\n"
    told = ran.out.partition(f"{GITLAB} runs no parity test; add to its jobs:\n\n")[2].partition("\n\n")[0]
    pasted = yaml.safe_load((tmp_path / GITLAB).read_text() + told)
    assert pasted["parity"] == yaml.safe_load(JOBS["gitlab"].text("export"))["parity"]


def test_a_job_of_its_own_gets_the_extra_of_one_more_policy(tmp_path: Path, here: Reflex) -> None:
    (tmp_path / "actor.py").write_text(INSTANCE)
    for extra, left, line in (
        ("lerobot", "lerobot", f"as it was   {WORKFLOW}\n"),
        ("export", "export", f"as it was   {WORKFLOW}\n"),
    ):
        for job in JOBS.values():
            (tmp_path / job.place).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / job.place).write_text(job.text(extra))
        assert line in here("init", "actor.py:actor").out
        assert (tmp_path / WORKFLOW).read_text() == JOBS["github"].text(left)
    for job in JOBS.values():
        assert job.again(job.text("export"), "lerobot") == job.text("lerobot")
        assert job.again(job.text("export") + "#\n", "lerobot") is None
        below: list[str] = []
        said = _job(tmp_path, job, "lerobot", below)
        assert said == f"updated     {tmp_path / job.place}, which installs the extra lerobot now"
        assert (tmp_path / job.place).read_text() == job.text("lerobot")
        assert below == []


def test_a_job_that_somebody_has_changed_is_told_which_lines_it_lacks() -> None:
    job = JOBS["github"]
    mine = job.text("export").replace("ubuntu-latest", "ubuntu-24.04")
    assert job.advice(mine, "export") == ""
    assert job.advice(mine, "lerobot") == (
        "lacks what this policy needs; write there, in place of `pip install 'pytest-reflex[export]'`:\n\n"
        "      - run: pip install 'pytest-reflex[lerobot]'"
    )
    assert job.advice(mine.replace(TESTS, "tests/unit"), "export") == (
        "lacks what this policy needs; write there:\n\n"
        f"      - run: {RUN} --reflex-report parity_reports --junitxml junit.xml"
    )
    theirs = job.advice("name: parity\non: [push]\njobs: {}\n", "export")
    assert theirs.startswith(
        "runs no parity test; add to its jobs:\n\n  parity:\n    runs-on: ubuntu-latest\n"
    )


@pytest.mark.parametrize(
    ("files", "installs"),
    [
        ({"pyproject.toml": "[project]\nname = 'arm'\n"}, True),
        ({"pyproject.toml": "[build-system]\n"}, True),
        ({"pyproject.toml": "[tool.ruff]\n"}, False),
        ({"setup.py": ""}, True),
        ({}, False),
    ],
)
def test_the_jobs_install_a_repository_that_is_a_package(
    files: dict[str, str], installs: bool, tmp_path: Path
) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    script = yaml.safe_load(JOBS["gitlab"].text("export"))["parity"]["script"]
    (line,) = [line for line in script if "pyproject.toml" in line]
    action = yaml.safe_load((ROOT / "action.yml").read_text())["runs"]["steps"]
    assert [step["run"] for step in action if "pyproject.toml" in step.get("run", "")] == [
        line.replace("pip install", "python -m pip install")
    ]
    done = subprocess.run(
        ["bash", "-ec", f'pip() {{ echo "$@"; }}\n{line}'], cwd=tmp_path, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, "install -e .\n" if installs else "")


def test_a_bundle_of_another_policy_is_refused(tmp_path: Path, here: Reflex) -> None:
    (tmp_path / "actor.py").write_text(INSTANCE)
    (tmp_path / "other.py").write_text(INSTANCE.replace('"x"', '"input"'))
    assert here("export", "other.py:actor", "shipped", "--fixtures", "3").code == 0
    ran = here("init", "actor.py:actor", "--bundle", "shipped", "--ci", "none")
    assert (ran.code, ran.err) == (
        2,
        "reflex: error: shipped reads 'input', and INPUTS beside actor.py:actor has 'x'; give the bundle "
        "that was exported from it\n",
    )
    assert not (tmp_path / TESTS).exists()


@pytest.mark.parametrize("pattern", ["shipped/", "*.onnx"])
def test_a_bundle_that_git_ignores_is_warned_of(pattern: str, tmp_path: Path, here: Reflex) -> None:
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    (tmp_path / "actor.py").write_text(INSTANCE)
    assert here("export", "actor.py:actor", "shipped", "--fixtures", "3").code == 0
    said = here("init", "actor.py:actor", "--bundle", "shipped", "--ci", "none").out
    assert "git ignores" not in said
    (tmp_path / ".gitignore").write_text(f"{pattern}\n")
    said = here("init", "actor.py:actor", "--bundle", "shipped", "--ci", "none").out
    lost = "shipped" if pattern == "shipped/" else "shipped/model.onnx"
    assert (
        f"git ignores {lost}, so the test finds it on this machine alone, and no job does; take it out of "
        ".gitignore, large files into Git LFS, or have the job fetch it before the test\n"
    ) in said
    # What is in the repository in spite of that is there for a job too.
    subprocess.run(["git", "-C", tmp_path, "add", "--force", "shipped"], check=True)
    assert "git ignores" not in here("init", "actor.py:actor", "--bundle", "shipped", "--ci", "none").out


def test_a_policy_from_outside_of_the_repository_is_warned_of(tmp_path: Path, here: Reflex) -> None:
    (tmp_path / "actor.py").write_text(INSTANCE)
    (tmp_path / "arm").mkdir()
    (tmp_path / "arm" / ".gitignore").write_text("/parity_reports\njunit.xml\n")
    ran = here("init", "actor.py:actor", "-o", "arm", "--ci", "none")
    assert ran.out == (
        f"written     arm/{TESTS}/test_actor.py\n\n"
        f"actor.py is not in the repository {tmp_path / 'arm'}, so the test finds it on this machine alone, "
        "and no job does; copy it into the repository, or give its own by --out\n\n"
        f"{GUARDS} actor.py:actor --bundle PATH\n\n"
        f"Next: cd arm && {RUN}\n"
    )


def test_one_job_or_none(tmp_path: Path, here: Reflex) -> None:
    (tmp_path / "actor.py").write_text(INSTANCE)
    here("init", "actor.py:actor", "--ci", "none", "-o", tmp_path / "a")
    here("init", "actor.py:actor", "--ci", "gitlab", "-o", tmp_path / "b")
    assert sorted(str(p.relative_to(tmp_path / "a")) for p in (tmp_path / "a").rglob("*.*")) == [
        f"{TESTS}/test_actor.py"
    ]
    assert (tmp_path / "b" / GITLAB).exists()
    assert not (tmp_path / "b" / WORKFLOW).exists()


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("actor.py", "MODEL is 'actor.py', a Python file; say what in it: actor.py:NAME"),
        ("math:pi", "MODEL is 'math:pi'; a test imports a file, so give file.py:name"),
        ("actor.py:akt", "MODEL is 'actor.py:akt', and actor.py has no 'akt'"),
        (
            "actor.py:Table",
            "actor.py:Table is the class Table, which would have other weights each time it is opened",
        ),
        (
            "bare.py:actor",
            "bare.py has no 'INPUTS', and a test has to know what the policy reads; write there: "
            "from pytest_reflex import InputSpec; "
            'INPUTS = [InputSpec("input", (1, ...))], each with its shape, and with '
            "its dtype where that is not float32; or name what is there by --inputs",
        ),
        (
            "models/table.py:policy",
            "models/table.py has no 'INPUTS', and a test has to know what the policy reads; "
            "give --inputs SPECS",
        ),
        ("odd.py:actor", "INPUTS in odd.py is no list of InputSpec; give the name of one by --inputs"),
        ("my-actor.py:actor", "my-actor.py: a test imports it, and 'my-actor' is no module's name; rename"),
        ("class.py:actor", "class.py: a test imports it, and 'class' is no module's name; rename the file"),
        ("select.py:actor", "select.py: a test imports it, and 'select' is the name of a module of Python's"),
        (
            "actor.py:sized",
            "actor.py:sized has to be given something, sized(width, *, depth=2), and is given "
            "nothing; write a function without",
        ),
        (
            "exporters.py:actor",
            "exporters.py: a test imports it, and 'exporters' is the name of a package that ",
        ),
        ("nowhere", "no checkpoint directory 'nowhere'"),
    ],
)
def test_what_cannot_be_had_is_one_line(model: str, said: str, tmp_path: Path, here: Reflex) -> None:
    (tmp_path / "actor.py").write_text(
        INSTANCE + "class Table(torch.nn.Module): pass\n" + "def sized(width, *, depth=2): pass\n"
    )
    (tmp_path / "bare.py").write_text(re.sub("INPUTS = .*", "", INSTANCE))
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "sizes.py").write_text("SIZE = 5\n")
    (tmp_path / "models" / "table.py").write_text(FUNCTION)
    (tmp_path / "odd.py").write_text(INSTANCE + "INPUTS = {'x': (1, 4)}\n")
    ran = here("init", model)
    assert ran.code == 2
    assert ran.err.startswith(f"reflex: error: {said}")
    assert ran.err.count("\n") == 1
    assert not (tmp_path / TESTS).exists()
