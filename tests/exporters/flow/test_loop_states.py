"""A bundle shows what its loop holds after each step, in every layout; an upstream's loop is only watched."""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from floors import ROUNDING, floors
from serve_cases import INPUTS, Small, policy

from examples.tiny_pi0 import tiny_pi0
from exporters import export, open_bundle, pi0
from exporters.flow.loop_states import watched_states, with_states
from exporters.flow.policy import flow_states
from exporters.flow.schedule import LAYOUTS, Layout
from pytest_reflex import check
from pytest_reflex.errors import BundleError, ParityError, RunnerError
from pytest_reflex.inputs import InputSpec, make_fixture
from pytest_reflex.runners.float64 import lifted
from pytest_reflex.verdict.tolerances import STRICT_THRESHOLD, THRESHOLD

FIXTURE = make_fixture(INPUTS, 0, 1)


def in_torch(flow: Small, inputs: dict[str, np.ndarray], *, exact: bool = False) -> np.ndarray:
    """The states, counted here once more; with ``exact`` in float64."""
    named = {name: torch.from_numpy(array) for name, array in inputs.items()}
    if exact:
        with torch.no_grad(), lifted():
            return torch.stack(flow_states(flow, **named)).numpy()
    x, states = named.pop("noise"), []
    with torch.no_grad():
        context = flow.prefix(**named)
        for index in range(flow.steps):
            x = x - 1 / flow.steps * flow.velocity(x, torch.tensor([1 - index / flow.steps]), **context)
            states.append(x)
    return torch.stack(states).numpy()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_bundle_shows_its_steps(layout: Layout, small: Callable[..., Path]) -> None:
    place = small(layout)
    before = {file.name: hashlib.sha256(file.read_bytes()).digest() for file in place.iterdir()}
    bundle = open_bundle(place)
    runner = bundle.runner()
    assert runner.trajectory is not None
    states = runner.trajectory(FIXTURE)
    assert (states.shape, states.dtype) == ((3, 1, 5, 3), np.float32)
    expected = in_torch(policy(), FIXTURE)
    truth = in_torch(policy(), FIXTURE, exact=True)
    drawn = [make_fixture(INPUTS, 1, fixture_idx) for fixture_idx in range(12)]
    more = [(in_torch(policy(), f), in_torch(policy(), f, exact=True)) for f in drawn]
    assert floors([states], [expected], [truth], more) < ROUNDING
    # Not one state over and over.
    assert np.abs(np.diff(expected, axis=0)).max(axis=(1, 2, 3)).min() > 100 * THRESHOLD
    with runner:
        assert states[-1].tobytes() == runner.run(FIXTURE)["actions"].tobytes()
    assert {file.name: hashlib.sha256(file.read_bytes()).digest() for file in place.iterdir()} == before
    result = check(policy(), bundle, fixtures=3, strict=True, trajectory=True)
    assert result.passed
    assert [s.step for s in result.steps] == [1, 2, 3]
    assert 0 < max(s.max_abs_diff for s in result.steps) < STRICT_THRESHOLD
    wrong = check(policy(1), bundle, fixtures=2)
    assert wrong.steps[-1].max_abs_diff == wrong.max_abs_diff_across_all
    assert wrong.steps[0].max_abs_diff > 100 * THRESHOLD


@pytest.mark.parametrize("layout", ["loop", "stepwise"])
def test_another_number_of_steps(layout: str, small: Callable[..., Path]) -> None:
    from exporters import Policy

    shown = Policy(open_bundle(small(layout)), steps=5).trajectory
    assert shown is not None
    assert len(shown(FIXTURE)) == 5


def test_the_export_s_own_verdict_holds_them(tmp_path: Path) -> None:
    made = export(policy(), tmp_path / "small", inputs=INPUTS, fixtures=2, trajectory=True)
    assert made.result is not None
    assert len(made.result.steps) == made.manifest["steps"] == 3
    # Nothing of the extra run is among the recorded fixtures.
    assert len(made.recording().recorded()) == 2


def test_a_flow_that_is_its_own_reference_takes_as_many_steps_as_its_export(tmp_path: Path) -> None:
    assert policy().steps == 3
    made = export(policy(), tmp_path / "five", inputs=INPUTS, steps=5, fixtures=2, trajectory=True)
    assert made.result is not None
    assert len(made.result.steps) == made.manifest["steps"] == 5
    # It is still so for whoever judges the bundle again, and for one who loads the policy then.
    for reference in (policy(), policy):
        again = check(made.reference_runner(reference), open_bundle(tmp_path / "five"), threshold=1e-5)
        assert again.passed, str(again)
        # What the manifest alone says, and the policy does not, is said.
        assert [doubt.refusal for doubt in again.doubts] == [
            "the bundle takes 5 steps and the policy itself 3; where that is meant, set the policy's steps, "
            "on the command line --steps 5"
        ]
        assert not check(made.reference_runner(reference), open_bundle(tmp_path / "five"), strict=True).passed
        meant = made.reference_runner(reference, steps=5)
        assert check(meant, open_bundle(tmp_path / "five"), strict=True).passed
        with pytest.raises(BundleError, match="the bundle takes 5 steps and 3 were asked for; export one"):
            made.reference_runner(reference, steps=3)
    assert policy().steps == 3


class Own(Small):
    """Runs its loop in its own way."""

    def forward(self, **inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        return {self.output: flow_states(self, **inputs)[-1] + 1}


def test_a_flow_with_a_loop_of_its_own_runs_that(tmp_path: Path) -> None:
    own = Own()
    own.load_state_dict(policy().state_dict())
    with pytest.raises(ParityError, match=r"max_abs_diff 1\.000e\+00"):
        export(own, tmp_path / "own", inputs=INPUTS, fixtures=2)


def test_a_bundle_without_a_loop_and_a_recording_show_none(
    tmp_path: Path, small: Callable[..., Path]
) -> None:
    single = export(torch.nn.Identity(), tmp_path / "i", inputs=[InputSpec("input", (1, 3))], verify=False)
    assert single.runner().trajectory is None
    bundle = open_bundle(small("loop"))
    result = check(bundle.recording(), bundle)
    assert result.passed
    assert result.unseen == "the reference does not show what it holds after each step"


def test_a_graph_of_another_make_is_refused(small: Callable[..., Path], tmp_path: Path) -> None:
    loop = policy().loop()
    with pytest.raises(RunnerError, match=r"has no 9 steps by the names"):
        with_states(small("unrolled") / "model.onnx", "unrolled", loop.taking(9))
    with pytest.raises(RunnerError, match="by no Loop of one state"):
        with_states(small("unrolled") / "model.onnx", "loop", loop)
    model = onnx.load(small("loop") / "model.onnx", load_external_data=False)
    model.graph.output.append(model.graph.output[0])
    (tmp_path / "two.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(RunnerError, match=r"two\.onnx has 2 outputs"):
        with_states(tmp_path / "two.onnx", "loop", loop)


def test_a_loop_that_gives_its_noise_to_another_module_is_not_watched() -> None:
    module = torch.nn.Linear(2, 2)
    noise = torch.ones(1, 2)
    seen = watched_states(module, lambda: module(module(noise)), noise)
    assert len(seen) == 2
    with pytest.raises(RunnerError, match="Linear is not what the loop gives its noise to"):
        watched_states(module, lambda: module(noise + 1), noise)
    with pytest.raises(RunnerError, match="is not what the loop"):
        watched_states(module, lambda: noise, noise)
    assert not module._forward_pre_hooks


def test_pi0_of_transformers_from_end_to_end(tmp_path: Path) -> None:
    policy = tiny_pi0()
    made = pi0.export(policy, tmp_path / "p", steps=4, cameras=2, prompt_tokens=6, verify=False)
    truth = pi0.reference(policy, steps=4)
    result = check(truth, made, fixtures=3, strict=True, trajectory=True)
    assert result.passed, str(result)
    assert (len(result.steps), result.unseen) == (4, "")
    assert result.steps[-1].max_abs_diff == result.max_abs_diff_across_all
    assert all(s.max_abs_diff < STRICT_THRESHOLD for s in result.steps)


def require_watched(family: Any, policy: Any, flow: Any, **sizes: Any) -> None:
    """The upstream's states are those of its two halves, and watching leaves nothing behind."""
    hooks = {name: dict(module._forward_pre_hooks) for name, module in policy.named_modules()}
    inputs = make_fixture(family.inputs(policy, **sizes), 0, 1)
    runner = family.reference(policy, steps=4)
    states = runner.trajectory(inputs)
    with runner:
        assert states[-1].tobytes() == runner.run(inputs)["actions"].tobytes()
    assert {n: dict(m._forward_pre_hooks) for n, m in policy.named_modules()} == hooks
    flow.steps = 4
    with torch.no_grad():
        expected = flow_states(flow, **{name: torch.from_numpy(array) for name, array in inputs.items()})
    assert np.array_equal(states, torch.stack(expected).numpy())
    assert np.abs(np.diff(states, axis=0)).max(axis=(1, 2, 3)).min() > 100 * THRESHOLD


@pytest.mark.lerobot
@pytest.mark.parametrize("family", ["smolvla", "pi0", "pi05"])
def test_policies_of_lerobot(family: str, request: pytest.FixtureRequest) -> None:
    pytest.importorskip("lerobot", reason="live lerobot policies need lerobot (Python 3.12 or later)")
    module = importlib.import_module(f"exporters.families.{family}")
    policy = request.getfixturevalue("golden")(family)
    require_watched(module, policy, module.flow(policy), cameras=2, prompt_tokens=6)


@pytest.mark.lerobot
def test_groot() -> None:
    pytest.importorskip("lerobot", reason="GR00T's action head needs lerobot (Python 3.12 or later)")
    from tiny_groot import GOLDEN

    from exporters import groot

    head = groot.load(GOLDEN)
    require_watched(groot, head, groot.GrootFlow(head))
