"""A manifest that asks its policy for something else than the policy is: each difference names both."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from arm_family import Arm, ArmFamily, ArmFlow
from arm_halves import Around
from torch import nn

from exporters import FlowPolicy, export, open_bundle
from exporters.bundle import registry
from exporters.bundle.manifest import MANIFEST, seal
from exporters.flow.policy import flow_runner, own_sampler
from pytest_reflex import InputSpec, TorchRunner, check
from pytest_reflex.errors import BundleError, ParityError, RunnerError
from pytest_reflex.inputs import Gaussian, State
from pytest_reflex.result import ParityResult

pytestmark = pytest.mark.once

FAMILY = ArmFamily()


@pytest.fixture(scope="module")
def policy() -> Arm:
    torch.manual_seed(0)
    return Arm(3).eval()


@pytest.fixture
def arm(policy: Arm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    named = registry.family_named
    monkeypatch.setattr(registry, "family_named", lambda name: FAMILY if name == "arm" else named(name))
    FAMILY.export(policy, tmp_path / "arm", fixtures=3)
    return tmp_path / "arm"


def told(bundle: Path, **changes: Any) -> None:
    manifest = {**json.loads((bundle / MANIFEST).read_text()), **changes}
    (bundle / MANIFEST).write_text(json.dumps({**manifest, "sha256": seal(manifest)}))


def doubts(policy: Any, bundle: Path, **options: Any) -> list[str]:
    """What a plain run notes and a strict one refuses."""
    said = [
        str(d.refusal) for d in check(policy, open_bundle(bundle), **options).doubts if d.gate == "reference"
    ]
    strict = check(policy, open_bundle(bundle), **{"fixtures": 5, **options, "strict": True})
    assert strict.passed is not bool(said)
    return said


def test_an_honest_bundle_is_doubted_by_nobody(policy: Arm, arm: Path, tmp_path: Path) -> None:
    assert doubts(policy, arm) == []
    for name, how in {
        "horizon": {"horizon": 5},
        "batch": {"batch": 2},
        "free": {"dynamic_batch": True},
    }.items():
        FAMILY.export(policy, tmp_path / name, fixtures=5, **how)
        assert doubts(policy, tmp_path / name, fixtures=6) == []


def test_another_number_of_steps_is_doubted_unless_the_caller_says_it(
    policy: Arm, tmp_path: Path, arm: Path
) -> None:
    FAMILY.export(policy, arm, fixtures=3, steps=1)
    (said,) = doubts(policy, arm)
    assert said.startswith("the bundle takes 1 steps and the policy itself 3; ")
    assert check(FAMILY.reference(policy, steps=1), open_bundle(arm), strict=True).passed


def narrower(spec: dict[str, Any]) -> dict[str, Any]:
    return {**spec, "meaning": {"kind": "gaussian", "mean": 0.0, "std": 1e-3}}


def uniform(spec: dict[str, Any]) -> dict[str, Any]:
    return {**spec, "meaning": {"kind": "uniform", "low": 0.0, "high": 1.0}}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (narrower, "Gaussian(mean=0.0, std=0.001) and the policy 'joints' float32 [1, 3] State()"),
        (
            lambda spec: {**spec, "meaning": {"kind": "uniform", "low": 0.0, "high": 1.0}},
            "Uniform(low=0.0, high=1.0)",
        ),
    ],
    ids=["narrower", "of-another-kind"],
)
def test_inputs_of_another_distribution_are_doubted(
    change: Callable[..., Any], words: str, policy: Arm, arm: Path
) -> None:
    joints, noise = json.loads((arm / MANIFEST).read_text())["inputs"]
    told(arm, inputs=[change(joints), noise])
    (said,) = doubts(policy, arm)
    assert said.startswith("the bundle reads 'joints' float32 [1, 3] ")
    assert words in said
    # Whoever gives inputs has said what is meant.
    assert check(policy, open_bundle(arm), inputs=FAMILY.inputs(policy), strict=True).passed


def test_options_that_say_less_than_the_inputs_are_doubted(policy: Arm, arm: Path, tmp_path: Path) -> None:
    FAMILY.export(policy, tmp_path / "short", fixtures=3, horizon=2)
    said = json.loads((tmp_path / "short" / MANIFEST).read_text())
    assert said["options"] == {"horizon": 2}
    told(tmp_path / "short", options={})
    assert "[1, 2, 2]" in doubts(policy, tmp_path / "short")[0]
    told(tmp_path / "short", options={"height": 2})
    assert doubts(policy, tmp_path / "short")[0].startswith(
        "the bundle's options {'height': 2} are none of arm's"
    )
    told(tmp_path / "short", options={"horizon": "2"})
    with pytest.raises(BundleError, match=r"options\.horizon is '2', expected a whole number, or null"):
        open_bundle(tmp_path / "short")


def test_a_schedule_and_names_of_a_loop_are_doubted(policy: Arm, arm: Path) -> None:
    loop = json.loads((arm / MANIFEST).read_text())["loop"]
    told(arm, loop={**loop, "schedule": {**loop["schedule"], "end": 0.5}})
    (said,) = doubts(policy, arm)
    assert (
        "schedule EulerSchedule(start=1.0, end=0.5, dtype='float32') and the policy's "
        "EulerSchedule(start=1.0, end=0.0, dtype='float32')" in said
    )
    told(arm, loop={**loop, "noise": "joints"})
    assert "noise 'joints' and the policy's 'noise'" in doubts(policy, arm)[0]
    told(arm, loop={**loop, "noise": "nothing"})
    with pytest.raises(BundleError, match=r"loop\.noise is 'nothing', expected one of its inputs"):
        open_bundle(arm)


def test_what_no_reference_of_the_family_can_be_told_is_refused(policy: Arm, arm: Path) -> None:
    for key in ("steps", "policy", "horizon"):
        told(arm, call={key: 1})
        with pytest.raises(
            BundleError, match=f"tells the reference '{key}', and arm's takes nothing besides"
        ):
            check(policy, open_bundle(arm))


# --- a policy with a way of its own ----------------------------------------------------------------------

INPUTS = [InputSpec("joints", (1, 3), meaning=State()), InputSpec("noise", (1, 4, 2), meaning=Gaussian())]


class Halved(ArmFlow):
    """Its halves, and a way of its own beside them that is right."""

    steps = 3

    def sample_actions(self, joints: torch.Tensor, noise: torch.Tensor, num_steps: int = 3) -> torch.Tensor:
        return self.arm.act(joints, noise, num_steps)


class Otherwise(Halved):
    def sample_actions(self, joints: torch.Tensor, noise: torch.Tensor, num_steps: int = 3) -> torch.Tensor:
        return super().sample_actions(joints, noise, num_steps) * 1.01


class Chunked(ArmFlow):
    steps = 3

    def predict_action_chunk(self, joints: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        return self.arm.act(joints, noise, 3) + 0.01


class Queued(ArmFlow):
    steps = 3

    def select_action(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return self.arm.act(**batch, steps=3)[:, 0]


def exported(flow: FlowPolicy, out: Path, **options: Any) -> ParityResult:
    result = export(flow.eval(), out, inputs=INPUTS, fixtures=3, **options).result
    assert result is not None
    return result


def test_the_policy_s_own_way_is_the_reference(policy: Arm, tmp_path: Path) -> None:
    assert exported(Halved(policy), tmp_path / "right", strict=True).doubts == ()
    assert exported(Halved(policy), tmp_path / "two", steps=2).passed
    for wrong in (Otherwise, Chunked):
        with pytest.raises(ParityError, match="max_abs_diff"):
            exported(wrong(policy), tmp_path / "wrong")
        # Not by way of a bundle that nobody has proven either.
        exported_ = export(wrong(policy).eval(), tmp_path / "wrong", inputs=INPUTS, verify=False)
        assert not check(wrong(policy).eval(), open_bundle(exported_.path)).passed


def test_one_that_cannot_be_called_with_the_inputs_is_refused_before_anything_is_traced(
    policy: Arm, tmp_path: Path
) -> None:
    expected = r"Queued has its own select_action, .* cannot be called with joints, noise; give a TorchRunner"
    with pytest.raises(RunnerError, match=expected):
        exported(Queued(policy), tmp_path / "q", progress=lambda *_: pytest.fail("it was traced"))
    with pytest.raises(RunnerError, match=expected):
        check(flow_runner(Queued(policy), None), TorchRunner(policy), inputs=INPUTS)
    # As it says: a reference that calls it, and the halves beside it.
    flow = Queued(policy).eval()
    truth = TorchRunner(flow, lambda **inputs: {"actions": flow.arm.act(**inputs, steps=3)})
    assert export(truth, tmp_path / "q", inputs=INPUTS, fixtures=3, flow=flow, strict=True).result is not None


def test_a_way_of_a_policy_inside_that_nobody_asks_is_a_doubt(policy: Arm, tmp_path: Path) -> None:
    flow = Around(Otherwise(policy), 3)
    result = exported(flow, tmp_path / "apart")
    assert [d.refusal for d in result.doubts] == [
        "Around is judged by its own halves, and policy (Otherwise) has a sample_actions of its own; give a "
        "reference that calls it, and flow="
    ]
    with pytest.raises(ParityError, match="sample_actions of its own"):
        exported(flow, tmp_path / "apart", strict=True)
    assert not check(flow.eval(), open_bundle(tmp_path / "apart"), strict=True).passed


def test_a_way_of_its_own_is_asked_of_a_policy_beside_whose_halves_it_is_exported(
    policy: Arm, tmp_path: Path
) -> None:
    class Whole(nn.Module):
        """No flow itself, so that its halves are another's."""

        def __init__(self) -> None:
            super().__init__()
            self.arm = policy

        def forward(self, joints: torch.Tensor, noise: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"actions": self.arm.act(joints, noise, 3)}

        def sample_actions(self, joints: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
            return 2 * self(joints=joints, noise=noise)["actions"]

    flow = ArmFlow(policy).eval()
    with pytest.raises(ParityError, match="max_abs_diff"):
        export(Whole().eval(), tmp_path / "w", inputs=INPUTS, fixtures=3, flow=flow, steps=3)
    # What is exported by its forward is judged by that.
    assert export(Whole().eval(), tmp_path / "w", inputs=INPUTS, fixtures=3, strict=True).result is not None
    assert check(Whole().eval(), open_bundle(tmp_path / "w"), strict=True).passed


def test_a_flow_whose_manifest_says_that_it_has_no_loop_is_asked_its_own_way(
    policy: Arm, tmp_path: Path
) -> None:
    export(ArmFlow(policy).eval(), tmp_path / "b", inputs=INPUTS, fixtures=3, steps=3)
    told(tmp_path / "b", layout="single", steps=None, loop=None)
    assert not check(Otherwise(policy).eval(), open_bundle(tmp_path / "b")).passed
    result = check(Halved(policy).eval(), open_bundle(tmp_path / "b"))
    assert result.passed
    assert [d.refusal for d in result.doubts] == [
        "the bundle has no loop, and the policy one of 3 steps; export it again"
    ]


def test_a_plain_file_leaves_it_to_the_policy_how_it_is_asked(policy: Arm, tmp_path: Path) -> None:
    class Whole(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.arm = policy

        def forward(self, joints: torch.Tensor, noise: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"actions": self.arm.act(joints, noise, 3)}

        def select_action(self, joints: torch.Tensor, noise: torch.Tensor) -> dict[str, torch.Tensor]:
            return self(joints, noise)

    export(Halved(policy).eval(), tmp_path / "b", inputs=INPUTS, verify=False)
    plain = tmp_path / "b" / "model.onnx"
    for right in (Halved, ArmFlow):
        flow = right(policy).eval()
        flow.steps = 3
        assert check(flow, plain, inputs=INPUTS, strict=True).passed
    for wrong in (Otherwise, Chunked):
        assert not check(wrong(policy).eval(), plain, inputs=INPUTS).passed
    with pytest.raises(RunnerError, match=r"Queued has its own select_action, .* give a TorchRunner"):
        check(Queued(policy).eval(), plain, inputs=INPUTS)
    (doubt,) = check(Around(Halved(policy), 3).eval(), plain, inputs=INPUTS).doubts
    assert "a sample_actions of its own" in doubt.said
    # What is no flow is its forward, unless somebody says otherwise.
    whole = Whole().eval()
    (doubt,) = check(whole, plain, inputs=INPUTS).doubts
    assert doubt.said == (
        "Whole was asked by its forward and has a select_action too, and the candidate does not say which "
        "it was made from; give TorchRunner(policy) for the first, TorchRunner(policy, "
        "policy.select_action) for the other"
    )
    for said in (TorchRunner(whole), TorchRunner(whole, whole.select_action)):
        assert check(said, plain, inputs=INPUTS, strict=True).passed


def test_what_has_no_way_of_its_own_is_asked_as_it_was() -> None:
    assert own_sampler(ArmFlow(Arm(2)), ["joints", "noise"]) is None
    assert own_sampler(nn.Linear(2, 2), ["x"]) is None
