"""ACT's temporal ensemble as state: lerobot's own select_action, step by step over five hundred of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch

from pytest_reflex import check_sequence
from pytest_reflex.errors import SettingsError
from pytest_reflex.inputs import make_fixture
from pytest_reflex.runners import RunnerBase
from pytest_reflex.verdict.tolerances import STRICT_THRESHOLD

pytest.importorskip("lerobot", reason="live lerobot policies need lerobot (Python 3.12 or later)")
pytestmark = pytest.mark.lerobot

from floors import Remembered, require_rounding  # noqa: E402
from tiny_features import features, tiny_policy  # noqa: E402

from exporters import Policy, export  # noqa: E402
from exporters.families import act, temporal_ensemble  # noqa: E402
from exporters.families.temporal_ensemble import COUNT, MEAN, STATES, TemporalEnsemble  # noqa: E402

STEPS, BREAKS = 500, 371
Arrays = Mapping[str, np.ndarray]


@pytest.fixture(scope="module")
def policy() -> Any:
    # Without cameras: five hundred steps of a vision tower would say no more of the ensemble.
    return tiny_policy("act", temporal_ensemble_coeff=0.01, n_action_steps=1, **features(cameras=0))


@pytest.fixture(scope="module")
def made(policy: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return export(
        temporal_ensemble.reference(policy),
        tmp_path_factory.mktemp("act") / "p",
        inputs=temporal_ensemble.inputs(policy),
        whole=TemporalEnsemble(policy),
        strict=True,
        floor=True,
    )


@pytest.fixture(scope="module")
def sequence(policy: Any) -> dict[str, np.ndarray]:
    """An episode: five hundred observations, and nothing planned yet."""
    specs = temporal_ensemble.inputs(policy)
    drawn = [make_fixture(specs, 0, step) for step in range(STEPS)]
    over = {s.name: np.stack([one[s.name] for one in drawn]) for s in specs if s.name not in STATES}
    return {**over, **{name: np.zeros_like(drawn[0][name]) for name in STATES}}


def test_a_step_is_select_action_s(made: Any) -> None:
    require_rounding(made.result)
    assert [output["name"] for output in made.manifest["outputs"]] == ["action", *STATES.values()]


def test_the_reference_is_select_action_itself(policy: Any, sequence: Arrays) -> None:
    """What is handed in and out is what lerobot remembers by itself, from an episode's beginning on."""
    policy.reset()
    state = {name: sequence[name] for name in STATES}
    with temporal_ensemble.reference(policy) as runner, torch.no_grad():
        for step in range(12):
            observation = {n: a[step] for n, a in sequence.items() if n not in STATES}
            gave = runner.run({**observation, **state})
            tensors = {n: torch.from_numpy(a.copy()) for n, a in observation.items()}
            own = policy.select_action(act.FAMILY.batch(policy, tensors))
            assert np.array_equal(gave["action"], own.numpy())
            assert np.array_equal(gave[STATES[MEAN]], policy.temporal_ensembler.ensembled_actions.numpy())
            state = {name: gave[new] for name, new in STATES.items()}
    assert state[COUNT].max() == 8 - 1


@pytest.fixture(scope="module")
def truth(policy: Any) -> Remembered:
    return Remembered(temporal_ensemble.reference(policy))


def test_five_hundred_steps(truth: Remembered, made: Any, sequence: Arrays) -> None:
    result = check_sequence(truth, made, states=STATES, inputs=[sequence], threshold=STRICT_THRESHOLD)
    assert result.require().steps == STEPS
    assert result.free.word == "rounding"


class Loop(RunnerBase):
    """A robot's own loop, in which the count is not moved up once."""

    def __init__(self, runner: Any) -> None:
        self.name, self.runner = "loop", runner

    def open(self) -> None:
        self.runner.open()

    def close(self) -> None:
        self.runner.close()

    def facts(self) -> dict[str, Any]:
        return {"kind": "loop"}

    def run(self, inputs: Arrays) -> dict[str, np.ndarray]:
        state, found = {name: inputs[name] for name in STATES}, []
        for step in range(STEPS):
            if step == BREAKS:
                state[MEAN] = np.roll(state[MEAN], 1, axis=1)
            observation = {name: a[step] for name, a in inputs.items() if name not in STATES}
            found.append(self.runner.run({**observation, **state}))
            state = {name: found[-1][new] for name, new in STATES.items()}
        return {name: np.stack([one[name] for one in found]) for name in found[0]}


def test_a_mean_that_is_not_moved_up_is_a_wrong_hand_over(
    truth: Remembered, made: Any, sequence: Arrays
) -> None:
    result = check_sequence(truth, made, states=STATES, inputs=[sequence], loop=Loop(Policy(made)))
    assert result.forced.passed
    assert not result
    assert result.begins == BREAKS
    assert result.cause.startswith(f"the hand-over of the state is wrong, from step {BREAKS} on, in ")


def test_without_a_coefficient_there_is_no_ensemble() -> None:
    plain = tiny_policy("act")
    for ask in (temporal_ensemble.inputs, temporal_ensemble.reference, TemporalEnsemble):
        with pytest.raises(SettingsError, match="ACTPolicy has no temporal_ensemble_coeff"):
            ask(plain)
