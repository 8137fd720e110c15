"""Bundles judged on what a robot recorded, in Python and on the command line; and kept for a robot."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import nn

import pytest_reflex as reflex
from exporters import Bundle, export, open_bundle
from exporters.bundle.kept import keep_episodes
from exporters.bundle.store import EPISODES
from pytest_reflex.cli.commands import app
from pytest_reflex.errors import BundleError, InputError, SettingsError
from pytest_reflex.inputs import Gaussian, Image, InputSpec, State
from pytest_reflex.judge.diagnose import diagnosed
from pytest_reflex.runners import FunctionRunner

GOLDEN = Path(__file__).parents[1] / "golden" / "episodes"
SPECS = [
    InputSpec("image", (1, 3, 32, 32), meaning=Image()),
    InputSpec("state", (1, 7), meaning=State()),
    InputSpec("noise", (1, 4, 7), meaning=Gaussian()),
]


class Arm(nn.Module):
    """One camera, joints in degrees and noise in; four steps of seven joints out."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.see, self.feel = nn.Linear(3 * 32 * 32, 7), nn.Linear(7, 7)

    def forward(self, image: torch.Tensor, state: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        seen = self.see(image.flatten(1)) + self.feel(state / 60)
        return torch.tanh(seen[:, None] + 0.1 * noise)


SCRIPT = "from test_episodes_kept import Arm\n"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return export(Arm().eval(), tmp_path_factory.mktemp("arm") / "arm", inputs=SPECS, outputs=["actions"])


@pytest.fixture
def bundle(made: Bundle, tmp_path: Path) -> Bundle:
    """A copy that a test may keep something in."""
    import shutil

    return open_bundle(shutil.copytree(made.path, tmp_path / "arm"))


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """What --model names; the class is this file's."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    (tmp_path / "arm_script.py").write_text(f"{SCRIPT}\n\ndef policy():\n    return Arm().eval()\n")
    return f"{tmp_path / 'arm_script.py'}:policy"


def test_a_bundle_passes_on_frames_and_says_which(made: Bundle) -> None:
    result = reflex.check(Arm().eval(), made, inputs=reflex.episodes(GOLDEN), fixtures=9, strict=True)
    assert result.passed, str(result)
    assert len(result.fixtures) == 9
    assert result.seed is None
    assert result.claim.source == "recorded"
    assert "9 of 24 frames" in str(result)


def test_a_fault_on_real_data_alone_is_found_and_its_frame_named(made: Bundle) -> None:
    # Silent on whatever is drawn: a state drawn in [-1, 1] never reaches 30 degrees.
    arm = Arm().eval()

    def faulty(image: np.ndarray, state: np.ndarray, noise: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            gave = arm(*map(torch.from_numpy, (image, state, noise))).numpy()
        return gave + np.float32(0.01) * np.float32(state[0, 0] > 30)

    candidate = FunctionRunner(faulty, name="faulty")
    assert reflex.check(arm, candidate, inputs=SPECS, fixtures=200).passed
    seen = reflex.episodes(GOLDEN, frames=24, inputs=SPECS)
    result = reflex.check(arm, candidate, inputs=seen)
    assert not result.passed
    first = next(f.fixture_idx for f in result.fixtures if not f.passed)
    assert any(f"fixture {first} is frame" in note for note in result.notes)


def test_what_a_candidate_reads_has_to_be_said_by_somebody(made: Bundle) -> None:
    file = made.path / "model.onnx"
    with pytest.raises(InputError, match="does not say what it reads"):
        reflex.check(Arm().eval(), file, inputs=reflex.episodes(GOLDEN))
    assert reflex.check(Arm().eval(), file, inputs=reflex.episodes(GOLDEN, inputs=SPECS)).passed


def test_frames_are_kept_and_judged_without_the_policy(bundle: Bundle) -> None:
    seen: list = []
    result = reflex.check(
        Arm().eval(), bundle, inputs=reflex.episodes(GOLDEN, frames=6), record=lambda *one: seen.append(one)
    )
    keep_episodes(bundle, seen, result.candidate["live_inputs"])
    again = open_bundle(bundle.path)
    assert set(again.stated.files) == {*bundle.stated.files, EPISODES}
    recording = again.recording(EPISODES)
    judged = reflex.check(recording, again, strict=True)
    assert judged.passed, str(judged)
    assert len(judged.fixtures) == 6
    names = recording.recorded()[0].keys()
    # Twice is no harm, and what was proven before is there as it was.
    keep_episodes(again, seen[:3], ["image"])
    assert len(reflex.check(open_bundle(bundle.path).recording(EPISODES), again).fixtures) == 3
    assert again.recording().recorded()[0].keys() == names


def test_nothing_is_kept_in_a_bundle_that_was_changed(bundle: Bundle) -> None:
    weights = bundle.path / "fixtures.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(bytes(data))
    with pytest.raises(BundleError, match="was changed"):
        keep_episodes(open_bundle(bundle.path, to_judge=True), [], [])


def test_an_export_is_proven_on_frames_too_and_keeps_them(tmp_path: Path) -> None:
    seen = reflex.episodes(GOLDEN, frames=5)
    made = export(
        Arm().eval(), tmp_path / "arm", inputs=SPECS, outputs=["actions"], episodes=seen, save_fixtures=True
    )
    assert made.result is not None
    assert any("it passed 5 of 24 frames" in note for note in made.result.notes)
    opened = open_bundle(made.path)
    assert len(opened.recording(EPISODES).recorded()) == 5
    for options in ({"save_fixtures": True}, {"episodes": seen, "verify": False}):
        with pytest.raises(SettingsError, match="save_fixtures keeps what episodes="):
            export(Arm().eval(), tmp_path / "b", inputs=SPECS, outputs=["actions"], **options)  # type: ignore[arg-type]


def test_the_command_line_judges_frames_and_keeps_them(bundle: Bundle, script: str) -> None:
    asked = ["validate", "export", str(bundle.path), "--model", script, "--episodes", str(GOLDEN)]
    ran = CliRunner().invoke(app, [*asked, "--fixtures", "8", "--save-fixtures"], standalone_mode=False)
    assert ran.exception is None, ran.output
    result, said = ran.return_value
    assert result.passed
    assert len(result.fixtures) == 8
    assert said == f"Kept: {bundle.path / EPISODES}"
    kept = str(bundle.path / EPISODES)
    # As a robot does it, in a process that may not import torch.
    words = ["validate", "export", str(bundle.path), "--model", kept, "--strict"]
    main = f"from pytest_reflex.cli import main; sys.exit(main({words!r}))"
    code = f"import sys; sys.modules['torch'] = None\n{main}"
    robot = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert robot.returncode == 0, robot.stdout + robot.stderr
    assert "parity PASS" in robot.stdout


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--save-fixtures"], "no --episodes whose frames it would keep"),
        (["--episodes", "x", "--model", "a.safetensors"], "a recording brings its own fixtures"),
        (["--episodes", "x", "--reference", "b"], "with --reference fixtures are drawn"),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    options: list[str], said: str, bundle: Bundle, script: str
) -> None:
    model = [] if {"--model", "--reference"} & {*options} else ["--model", script]
    ran = CliRunner().invoke(app, ["validate", "export", str(bundle.path), *options, *model])
    assert ran.exit_code == 2
    assert said in ran.output


def test_a_plain_file_is_judged_on_frames(bundle: Bundle, script: str, tmp_path: Path) -> None:
    inputs = f"{tmp_path / 'arm_inputs.py'}:INPUTS"
    (tmp_path / "arm_inputs.py").write_text("from test_episodes_kept import SPECS as INPUTS\n")
    asked = ["validate", "onnx", str(bundle.path / "model.onnx"), "--model", script, "--inputs", inputs]
    ran = CliRunner().invoke(app, [*asked, "--episodes", str(GOLDEN)], standalone_mode=False)
    assert ran.exception is None, ran.output
    assert ran.return_value[0].passed
    assert "5 of 24 frames" in ran.return_value[0].notes[0]


def test_the_place_is_found_with_the_frame_that_was_refused(made: Bundle) -> None:
    arm = Arm().eval()
    with torch.no_grad():
        arm.feel.weight[0, 0] += 0.5
    seen = reflex.episodes(GOLDEN).told(4, 0)
    refused = reflex.check(arm, made, inputs=seen)
    assert not refused.passed
    found = diagnosed(refused, arm, made, inputs=seen, seconds=600)
    assert found.located is not None, str(found)
    assert "feel" in str(found)
