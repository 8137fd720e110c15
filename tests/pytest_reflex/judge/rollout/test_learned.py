"""The examples that learn to reach: the same policy from the same seed, and one that can be exported."""

from __future__ import annotations

import importlib
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

import exporters
from pytest_reflex.inputs import make_fixture

ROOT = Path(__file__).resolve().parents[4]


@pytest.fixture
def example(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "examples")
    return importlib.import_module(request.param)


def alike(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.once
@pytest.mark.parametrize("example", ["reach"], indirect=True)
def test_a_flow_that_reaches(example: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if any(find_spec(name) is None for name in ("mujoco", "gym_hil")):
        pytest.skip("mujoco is not installed: pip install 'pytest-reflex[sim]'")
    learned = example.trained(starts=1, epochs=2)
    assert alike(learned, example.trained(starts=1, epochs=2))
    assert not alike(learned, example.trained(starts=1, epochs=2, seed=1))
    assert exporters.export(learned, tmp_path / "reach", inputs=learned.inputs, strict=True).result.passed
    example.save_file(learned.state_dict(), tmp_path / "reach.safetensors")
    monkeypatch.setenv("REACH", str(tmp_path))
    assert alike(learned, example.policy())
    assert example.succeeds(learned, starts=1, seconds=0.5) in (0.0, 1.0)


@pytest.mark.lerobot
@pytest.mark.parametrize("example", ["reach_act"], indirect=True)
def test_lerobots_act_that_reaches(
    example: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("lerobot", reason="needs lerobot (Python 3.12 or later)")
    rng = np.random.default_rng(0)
    states = torch.tensor(rng.standard_normal((64, example.WHOLE)), dtype=torch.float32)
    chunks = states[:, None, : example.ACTIONS].expand(-1, example.CHUNK, -1).tanh()
    monkeypatch.setattr(example, "demonstrations", lambda *told: (torch.zeros(0), states, chunks))
    learned = example.trained(epochs=20)
    assert alike(learned, example.trained(epochs=20))
    specs = exporters.act.inputs(learned)
    assert [(spec.name, spec.shape) for spec in specs] == [("state", (1, 18)), ("environment_state", (1, 21))]
    # It has learned what the states say: nearer to what was shown than before.
    given = {"observation.state": states[:, :18], "observation.environment_state": states}
    off = [
        float((policy.predict_action_chunk(dict(given)) - chunks).detach().abs().mean())
        for policy in (learned, example.untrained().eval())
    ]
    assert off[0] < off[1] / 2
    bundle = exporters.act.export(learned, tmp_path / "bundle", strict=True)
    assert bundle.result.passed
    assert exporters.open_bundle(tmp_path / "bundle").family == "act"
    assert set(make_fixture(specs, 0, 0)) == {"state", "environment_state"}
