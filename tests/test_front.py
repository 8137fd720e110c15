"""The front of the house: what GitHub, pre-commit and who cites read, by the schemas of those who read it."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from bundle_cases import add_to_weight

from pytest_reflex import __version__
from pytest_reflex.cli import hook

ROOT = Path(__file__).resolve().parent.parent
FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("[!c]*.yml"))
SCHEMAS = {
    "action.yml": "github-actions",
    ".github/workflows/ci.yml": "github-workflows",
    ".github/ISSUE_TEMPLATE/config.yml": "github-issue-config",
    "CITATION.cff": "citation-file-format",
    **{str(form.relative_to(ROOT)): "github-issue-forms" for form in FORMS},
}


def judged(file: Path, schema: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}", str(file)]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.mark.once
@pytest.mark.parametrize("file", SCHEMAS)
def test_each_file_fits_the_schema_of_who_reads_it(file: str) -> None:
    done = judged(ROOT / file, SCHEMAS[file])
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_file_that_does_not_fit_is_seen(tmp_path: Path) -> None:
    (tmp_path / "action.yml").write_text("name: x\n")
    assert judged(tmp_path / "action.yml", "github-actions").returncode == 1


def test_the_issue_forms_ask_for_the_doctor() -> None:
    assert len(FORMS) == 2
    for form in FORMS:
        fields = yaml.safe_load(form.read_text())["body"]
        (asked,) = [field for field in fields if field.get("id") == "doctor"]
        assert "`reflex doctor`" in asked["attributes"]["label"]
        assert asked["validations"]["required"] is True


def test_the_workflow_runs_what_is_there() -> None:
    steps = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]["suite"]["steps"]
    (run,) = [step["run"] for step in steps if "run" in step]
    assert (ROOT / run).stat().st_mode & 0o111


def test_the_action_runs_commands_that_there_are() -> None:
    action = yaml.safe_load((ROOT / "action.yml").read_text())
    text = "\n".join(step.get("run", "") for step in action["runs"]["steps"])
    assert "reflex doctor" in text
    assert "--reflex-report" in text
    # What a caller gives goes through the environment, and never into a script's text.
    assert "${{" not in text
    used = set(re.findall(r"inputs\.(\w+)", (ROOT / "action.yml").read_text()))
    assert used == set(action["inputs"])


def test_the_version_that_is_cited_is_this_one() -> None:
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == __version__
    assert f"=={__version__};" in (ROOT / "action.yml").read_text()
    assert f"@v{__version__}\n" in (ROOT / "docs" / "howto" / "ci.md").read_text()
    assert f"    rev: v{__version__}\n" in (ROOT / "docs" / "howto" / "ci.md").read_text()
    assert f"## [{__version__}] - " in (ROOT / "CHANGELOG.md").read_text()


@pytest.mark.once
def test_the_readme_that_an_index_shows_links_into_the_repository() -> None:
    from hatch_build import readme

    place = f"https://example.org/a/b/blob/v{__version__}/"
    own = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = readme(ROOT, "https://example.org/a/b", __version__)
    before, after = (re.findall(r"\]\(([^)]+)\)", text) for text in (own, shown))
    assert len(before) == len(after) > 20
    assert all(link.startswith("https://") for link in after)
    for link in after:
        path, _, heading = link.removeprefix(place).partition("#")
        assert not link.startswith(place) or (ROOT / path).exists(), link
        if heading and link.startswith(place):
            named = re.findall(r"^#+ (.+)$", (ROOT / path).read_text(encoding="utf-8"), re.MULTILINE)
            assert heading in {re.sub(r"[^\w]+", "-", title.lower()).strip("-") for title in named}, link
    assert shown.replace(place, "") == own


def test_pre_commit_runs_what_is_there() -> None:
    own = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    targets = [hook["entry"].split()[1] for repo in own for hook in repo["hooks"]]
    made = (ROOT / "Makefile").read_text()
    assert all(re.search(rf"^{target}:", made, re.MULTILINE) for target in targets)
    (theirs,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())
    assert theirs["entry"] == "python -m pytest_reflex.cli.hook"
    for name in ("p0/reflex.json", "p0/model.onnx", "p0/model.onnx.data", "a/b/fixtures.safetensors"):
        assert re.search(theirs["files"], name)
    assert not re.search(theirs["files"], "p0/notes.txt")


def test_the_hook_judges_each_bundle_that_a_file_belongs_to(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "plain.onnx").write_bytes(b"")
    files = [str(bundle / "model.onnx"), str(bundle / "reflex.json"), str(tmp_path / "plain.onnx")]
    assert hook.bundles(files) == [bundle]
    assert hook.main([str(tmp_path / "plain.onnx")]) == 0
    broken = tmp_path / "broken"
    shutil.copytree(bundle, broken)
    add_to_weight(broken, "policy.action_out_proj.weight.T", 0.5)
    assert hook.main([*files, str(broken / "model.onnx.data")]) == 1
    assert hook.main(files) == 0


@pytest.mark.parametrize("file", ["README.md", "SECURITY.md", "CHANGELOG.md"])
def test_no_link_leads_nowhere(file: str) -> None:
    text = (ROOT / file).read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
        assert link.startswith("https://") or (ROOT / link).exists(), link
