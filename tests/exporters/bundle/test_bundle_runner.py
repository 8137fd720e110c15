"""Policy.infer: what a robot calls. It takes what fits, draws the noise, and names what does not fit."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from floors import ROUNDING, floors, rounding_of
from torch import nn

from exporters import FlowPolicy, Policy, export
from pytest_reflex.errors import InputError, RunnerError
from pytest_reflex.inputs import InputSpec, State, make_fixture
from pytest_reflex.runners import TorchRunner

LAYOUTS = ("unrolled", "loop", "stepwise")
INPUTS = [
    InputSpec("seen", (1, 4, 3), "float32", free=("batch", "places", None)),
    InputSpec("state", (1, 3), "float32", State(), free=("batch", None)),
    InputSpec("noise", (1, 5, 3), "float32", free=("batch", None, None)),
]


class Walk(FlowPolicy):
    """The smallest flow whose observation has two free axes."""

    steps = 4

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.look, self.move = nn.Linear(3, 3), nn.Linear(7, 3)

    def prefix(self, seen: torch.Tensor, state: torch.Tensor) -> dict[str, torch.Tensor]:  # type: ignore[override]
        return {"context": self.look(seen).mean(1) + state}

    def velocity(self, x_t: torch.Tensor, time: torch.Tensor, context: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        beside = torch.cat([context, time[:, None]], -1)[:, None].expand(-1, x_t.shape[1], -1)
        return self.move(torch.cat([x_t, beside], -1)).tanh()  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    place = tmp_path_factory.mktemp("walk")
    return {
        layout: export(Walk(), place / layout, inputs=INPUTS, layout=layout, strict=True, fixtures=6)  # type: ignore[arg-type]
        for layout in LAYOUTS
    }


@pytest.fixture
def policy(bundles: dict[str, Any]) -> Iterator[Policy]:
    with Policy(bundles["stepwise"], seed=0) as opened:
        yield opened


def observation(batch: int = 1, places: int = 4) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    return {
        "seen": rng.standard_normal((batch, places, 3), np.float32),
        "state": rng.standard_normal((batch, 3), np.float32),
    }


NOISE = np.random.default_rng(4).standard_normal((1, 5, 3), np.float32)


def test_two_free_axes_are_proven_together(bundles: dict[str, Any]) -> None:
    with bundles["stepwise"].recording() as runner:
        shapes = [f["seen"].shape[:2] for f in runner.recorded()]
    # The sizes do not move in step, so that neither can stand for the other.
    assert shapes == [(1, 4), (1, 4), (2, 12), (3, 1), (1, 20), (5, 8)]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_infer_is_what_was_judged(layout: str, bundles: dict[str, Any]) -> None:
    seen = observation()
    with Policy(bundles[layout]) as policy:
        actions = policy.infer(seen, noise=NOISE)
        assert list(actions) == ["actions"]
        # Noise may stand in the observation, under its own name.
        assert np.array_equal(actions["actions"], policy.infer({**seen, "noise": NOISE})["actions"])
        assert np.array_equal(actions["actions"], policy.run({**seen, "noise": NOISE})["actions"])
    with TorchRunner(Walk()) as walk:
        expected, truth = (f({**seen, "noise": NOISE})["actions"] for f in (walk.run, walk.exact))
        more = rounding_of(walk, INPUTS)
    assert floors([actions["actions"]], [expected], [truth], more) < ROUNDING


@pytest.mark.parametrize("layout", LAYOUTS)
def test_one_that_is_sent_to_another_process_is_the_same(layout: str, bundles: dict[str, Any]) -> None:
    runner = bundles[layout].runner()
    inputs = make_fixture(INPUTS, 0, 2)
    with runner:
        gave = runner.run(inputs)
    with pickle.loads(pickle.dumps(runner)) as again:
        assert np.array_equal(again.run(inputs)["actions"], gave["actions"])
        drawn = again.infer({name: inputs[name] for name in ("seen", "state")})
        assert drawn["actions"].shape == gave["actions"].shape


def test_noise_is_drawn_anew_and_can_be_seeded(bundles: dict[str, Any], policy: Policy) -> None:
    first, second = (policy.infer(observation())["actions"] for _ in range(2))
    assert not np.array_equal(first, second)
    with Policy(bundles["stepwise"], seed=0) as again:
        assert np.array_equal(again.infer(observation())["actions"], first)
    with Policy(bundles["stepwise"]) as one, Policy(bundles["stepwise"]) as other:
        assert not np.array_equal(one.infer(observation())["actions"], other.infer(observation())["actions"])


def test_noise_has_the_batch_of_the_observation(policy: Policy) -> None:
    assert policy.infer(observation(batch=3, places=7))["actions"].shape == (3, 5, 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seen": None}, "input 'seen' is missing; this policy takes seen, state, noise"),
        ({"sight": np.zeros(3)}, "input 'sight' is not known; this policy takes seen, state, noise"),
        ({"state": np.zeros((1, 3))}, "input 'state' is float64; it takes float32"),
        ({"state": np.zeros((1, 3), ">f4")}, "input 'state' is >f4; it takes float32"),
        ({"state": np.zeros((1, 4), "f4")}, r"input 'state' has shape \[1, 4\]; it takes \[batch, 3\]"),
        ({"state": np.zeros(3, "f4")}, r"input 'state' has shape \[3\]; it takes \[batch, 3\]"),
        ({"state": np.zeros((2, 3), "f4")}, r"'state' has shape \[2, 3\]; .* with batch = 1, as the inputs"),
        (
            {"seen": np.zeros((1, 0, 3), "f4")},
            r"input 'seen' has shape \[1, 0, 3\]; it takes \[batch, places",
        ),
        ({"seen": np.full((1, 2, 3), np.nan, "f4")}, r"input 'seen' is nan at \[0, 0, 0\]; every value must"),
        ({"state": np.array([[0, -np.inf, 0]], "f4")}, r"input 'state' is -inf at \[0, 1\]"),
        ({"noise": np.zeros((1, 5, 2), "f4")}, r"input 'noise' has shape \[1, 5, 2\]"),
    ],
)
def test_what_does_not_fit_is_named(change: dict[str, Any], message: str, policy: Policy) -> None:
    given = {name: array for name, array in {**observation(), **change}.items() if array is not None}
    with pytest.raises(InputError, match=message):
        policy.infer(given)
    # And the policy goes on.
    assert np.isfinite(policy.infer(observation())["actions"]).all()


def test_noise_given_twice_is_refused(policy: Policy) -> None:
    with pytest.raises(InputError, match="noise is given twice"):
        policy.infer({**observation(), "noise": NOISE}, noise=NOISE)


def test_a_policy_without_a_loop_takes_no_noise(tmp_path: Path) -> None:
    made = export(nn.Linear(3, 2), tmp_path / "p", inputs=[InputSpec("input", (1, 3))], outputs=["y"])
    with Policy(made) as policy:
        assert policy.infer({"input": np.ones((1, 3), np.float32)})["y"].shape == (1, 2)
        with pytest.raises(InputError, match="this policy takes none"):
            policy.infer({"input": np.ones((1, 3), np.float32)}, noise=NOISE)


def test_a_closed_policy_says_so(bundles: dict[str, Any]) -> None:
    with pytest.raises(RunnerError, match="is not open"):
        Policy(bundles["loop"]).infer(observation())


def test_threads_may_share_a_policy(policy: Policy) -> None:
    expected = policy.infer(observation(), noise=NOISE)["actions"]
    found: list[np.ndarray] = []

    def ask() -> None:
        found.extend(policy.infer(observation(), noise=NOISE)["actions"] for _ in range(20))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 80
    assert all(np.array_equal(actions, expected) for actions in found)
