"""``reflex init`` on each family's checkpoint: the test that it writes passes as it is, strict as well."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
from bundle_cases import Reflex, linted
from tiny_checkpoints import LEROBOT_PI0, tiny_checkpoint

from exporters import FAMILIES, gaussian_actor
from pytest_reflex.cli.jobs import RUN, TESTS

WORKFLOW, GITLAB = ".github/workflows/parity.yml", ".gitlab-ci.yml"

pytestmark = [pytest.mark.lerobot, pytest.mark.usefixtures("traced_once")]


class Seen:
    """How the tests of an inner run ended."""

    def __init__(self) -> None:
        self.outcomes: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or not report.passed:
            self.outcomes.append(report.outcome)


def passes(plugin_args: list[str]) -> None:
    """The command that ``init`` ends with, and strict, in this process; a linter has nothing to say of it.

    pytester would forget every module that it was the first to import, and torchvision cannot be imported
    twice.
    """
    linted(Path(TESTS))
    seen = Seen()
    code = pytest.main([*plugin_args, TESTS, "--reflex-strict"], plugins=[seen])
    assert (code, seen.outcomes) == (pytest.ExitCode.OK, ["passed"])


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    place = tmp_path / "repository"
    place.mkdir()
    monkeypatch.chdir(place)
    monkeypatch.setattr(sys, "path", [*sys.path])
    # Whatever of ours has the name of what is written: pytest takes no two files of one name.
    for name in [name for name in sys.modules if name.startswith("test_")]:
        monkeypatch.delitem(sys.modules, name)
    return place


# transformers' pi0 is in test_init.py, where no lerobot is needed.
@pytest.mark.parametrize("family", [*(each for each in FAMILIES if each != "pi0"), LEROBOT_PI0])
def test_what_is_written_passes_as_it_is(
    family: str,
    here: Reflex,
    capfd: pytest.CaptureFixture[str],
    repository: Path,
    plugin_args: list[str],
    tmp_path: Path,
) -> None:
    pytest.importorskip("lerobot", reason="needs lerobot (Python 3.12 or later)")
    with tiny_checkpoint(family, repository / "checkpoints" / family, tmp_path):
        ran = here("init", f"checkpoints/{family}")
        name = family.replace("-", "_")
        assert (ran.code, ran.err) == (0, "")
        assert ran.out == (
            f"written     {TESTS}/test_{name}.py\nwritten     {WORKFLOW}\nwritten     {GITLAB}\n\n"
            "Without --bundle the test guards the export and not a file that was shipped. Where one was "
            f"shipped, judge it: reflex init checkpoints/{family} --bundle PATH\n\n"
            "The jobs write parity_reports/ and junit.xml; where you run them yourself, add these to "
            ".gitignore\n\n"
            f"Next: {RUN}\n"
        )
        assert str(repository) not in (repository / TESTS / f"test_{name}.py").read_text()
        for job in (WORKFLOW, GITLAB):
            assert "pip install 'pytest-reflex[lerobot]'" in (repository / job).read_text()
        capfd.readouterr()
        passes(plugin_args)
    assert "\nPASS " in capfd.readouterr().out


def test_a_script_that_loads_a_policy_of_a_family_says_nothing_of_inputs(
    here: Reflex,
    repository: Path,
    plugin_args: list[str],
    tmp_path: Path,
) -> None:
    pytest.importorskip("lerobot", reason="needs lerobot (Python 3.12 or later)")
    with tiny_checkpoint("gaussian_actor", repository / "trained", tmp_path):
        (repository / "actor.py").write_text(
            "from exporters import gaussian_actor\n\n\n"
            "def policy():\n    return gaussian_actor.load('trained')\n\n\n"
            # The family says what it reads, whatever else stands there.
            "from pytest_reflex import InputSpec\n\nINPUTS = [InputSpec('x', (1, 4))]\n"
        )
        assert here("init", "actor.py:policy", "--inputs", "MINE", "--ci", "none").err == (
            "reflex: error: --inputs was given, and a policy of gaussian_actor says itself what it reads; "
            "leave it out\n"
        )
        assert here("init", "actor.py:policy", "--ci", "github").err == ""
        assert "pip install 'pytest-reflex[lerobot]'" in (repository / WORKFLOW).read_text()
        passes(plugin_args)
        # With a bundle that is there the family is held against the policy's, and nothing is exported.
        gaussian_actor.export(gaussian_actor.load("trained"), "shipped", verify=False)
        assert here("init", "actor.py:policy", "--bundle", "shipped", "--ci", "none").err == ""
        (written,) = [p for p in Path(TESTS).glob("*.py") if "and shipped compute" in p.read_text()]
        assert '    parity.check(script.policy(), open_bundle(ROOT / "shipped"))\n' in written.read_text()
        Path("other.py").write_text("import torch\n\nlayer = torch.nn.Linear(4, 2)\n")
        assert here("init", "other.py:layer", "--bundle", "shipped").err == (
            "reflex: error: shipped is a bundle of gaussian_actor, and the policy of other.py:layer is a "
            "Linear\n"
        )


def test_a_training_is_called_by_its_own_name(here: Reflex, repository: Path, tmp_path: Path) -> None:
    pytest.importorskip("lerobot", reason="needs lerobot (Python 3.12 or later)")
    inside = "checkpoints/020000/pretrained_model"
    with tiny_checkpoint("gaussian_actor", tmp_path / "made", tmp_path):
        for training in ("outputs/train/sac_arm", "outputs/again/sac_arm"):
            shutil.copytree(tmp_path / "made", repository / training / inside)
            (repository / training / "checkpoints" / "last").symlink_to("020000")
        ran = here("init", f"outputs/train/sac_arm/{inside}", "--ci", "none")
        assert ran.out.startswith(f"written     {TESTS}/test_sac_arm.py\n")
        ran = here("init", "outputs/again/sac_arm", "--ci", "none")
        assert ran.out.startswith(f"written     {TESTS}/test_again_sac_arm.py\n")
