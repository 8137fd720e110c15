"""GR00T's action head: get_action, whole, against every layout, embodiment and timestep."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pytest_reflex import check
from pytest_reflex.errors import InputError, ReflexError, RunnerError, TracingError
from pytest_reflex.inputs import make_fixture

pytest.importorskip("lerobot", reason="GR00T's action head needs lerobot (Python 3.12 or later)")
pytestmark = pytest.mark.lerobot

import torch  # noqa: E402
from floors import ROUNDING, floors, require_rounding, rounding_of  # noqa: E402
from tiny_groot import EMBODIMENTS, GOLDEN, cases, n16_checkpoint  # noqa: E402

from exporters import groot, open_bundle  # noqa: E402

LAYOUTS = ("stepwise", "unrolled", "loop")
RELEASES = ("n1.7", "n1.6")
Heads = Callable[[str], Any]


@pytest.fixture(scope="module")
def heads(tmp_path_factory: pytest.TempPathFactory) -> Heads:
    """``heads("n1.6")``: the release's live head, made once; not to be changed."""
    made: dict[str, Any] = {}

    def head(release: str) -> Any:
        if release not in made:
            n16 = tmp_path_factory.mktemp("n16") / "head"
            made[release] = groot.load(GOLDEN if release == "n1.7" else n16_checkpoint(n16))
        return made[release]

    return head


def test_golden_actions_are_reproduced(heads: Heads) -> None:
    with groot.reference(heads("n1.7")) as runner:
        actions = [runner.run(inputs)["actions"] for inputs, _ in cases()]
        truths = [runner.exact(inputs)["actions"] for inputs, _ in cases()]
        more = rounding_of(runner, groot.inputs(heads("n1.7")), fixtures=8)
    recorded = [expected for _, expected in cases()]
    assert [a.dtype for a in actions] == [r.dtype for r in recorded]
    # Another release or processor rounds another way, and the recorded actions are one more rounding.
    assert floors(recorded, actions, truths, more) < ROUNDING


@pytest.mark.parametrize("embodiment", [None, 2])
@pytest.mark.parametrize("release", RELEASES)
def test_the_halves_and_the_loop_give_the_upstreams_own_bits(
    release: str, embodiment: int | None, heads: Heads
) -> None:
    flow = groot.GrootFlow(heads(release), embodiment=embodiment)
    with torch.no_grad(), groot.reference(heads(release), embodiment=embodiment) as runner:
        for inputs, _ in cases():
            if embodiment is not None:
                inputs.pop("embodiment_id")
            split = flow(**{name: torch.from_numpy(array) for name, array in inputs.items()})["actions"]
            assert np.array_equal(split.numpy(), runner.run(inputs)["actions"])


@pytest.mark.parametrize(
    ("layout", "embodiment"), [*((layout, None) for layout in LAYOUTS), ("stepwise", 3), ("unrolled", 0)]
)
@pytest.mark.parametrize("release", RELEASES)
def test_parity(release: str, layout: Any, embodiment: int | None, heads: Heads, tmp_path: Path) -> None:
    head = heads(release)
    made = groot.export(
        head, tmp_path / "g", layout=layout, embodiment=embodiment, fixtures=8, strict=True, floor=True
    )
    result = made.result
    require_rounding(result)
    assert result.candidate["live_inputs"] == [spec.name for spec in made.inputs]
    with made.recording() as runner:
        recorded = runner.recorded()
        assert max(np.abs(runner.run(f)["actions"]).max() for f in recorded) > 2.5
    # Prompts of several lengths, with text alone, with images alone, with padding.
    assert [f["image_mask"].shape[1] for f in recorded] == [96, 96, 192, 288, 1, 480, 192, 288]
    assert not recorded[1]["image_mask"].any()
    assert recorded[2]["image_mask"].all()
    assert not recorded[0]["backbone_attention_mask"].all()
    assert ("embodiment_id" in recorded[0]) is (embodiment is None)


@pytest.mark.parametrize("release", RELEASES)
def test_every_embodiment(release: str, heads: Heads, tmp_path: Path) -> None:
    head = heads(release)
    made = groot.export(head, tmp_path / "g", fixtures=1, verify=False)
    fixtures = [
        {**make_fixture(made.inputs, 7, i), "embodiment_id": np.array([i % EMBODIMENTS])}
        for i in range(2 * EMBODIMENTS)
    ]
    require_rounding(check(head, made, inputs=fixtures, strict=True, floor=True))
    # The embodiments are not one: the same observation gives each its own actions.
    with made.runner() as runner:
        actions = {
            runner.run({**fixtures[0], "embodiment_id": np.array([e])})["actions"].tobytes()
            for e in range(EMBODIMENTS)
        }
    assert len(actions) == EMBODIMENTS


@pytest.mark.parametrize("release", RELEASES)
def test_one_step_at_each_of_the_four_timesteps(release: str, heads: Heads, tmp_path: Path) -> None:
    """The step graph against what the upstream's own loop computes on its way, seen through hooks."""
    head = heads(release)
    made = groot.export(head, tmp_path / "g", verify=False)
    seen: list[tuple[np.ndarray, float]] = []
    given: list[np.ndarray] = []
    hooks = [
        head.action_encoder.register_forward_pre_hook(
            lambda _, args: seen.append((args[0].numpy().copy(), float(args[1][0])))
        ),
        head.action_decoder.register_forward_hook(
            lambda _, args, out: given.append(out[:, -head.action_horizon :].numpy().copy())
        ),
    ]
    try:
        fixtures = [make_fixture(made.inputs, 0, i) for i in range(8)]
        with groot.reference(head) as reference:
            for fixture in fixtures:
                reference.run(fixture)
            true = len(given)
            for fixture in fixtures:
                reference.exact(fixture)
    finally:
        for hook in hooks:
            hook.remove()
    assert [time for _, time in seen[:4]] == [0, 250, 500, 750]
    given, truths = given[:true], given[true:]
    assert len(seen) == 2 * len(given) == 2 * len(truths) == 8 * len(fixtures)
    velocities = []
    with made.runner() as policy:
        for i, fixture in enumerate(fixtures):
            observation = {name: array for name, array in fixture.items() if name != "noise"}
            context = policy.sessions["encoder"].run(observation)
            for (x_t, time), velocity in zip(seen[4 * i : 4 * i + 4], given[4 * i : 4 * i + 4], strict=True):
                got = policy.sessions["step"].run({"x_t": x_t, "time": np.float32([time]), **context})[
                    "velocity"
                ]
                assert got.shape == velocity.shape
                velocities.append(got)
    assert floors(velocities, given, truths) < ROUNDING


@pytest.mark.parametrize("steps", [1, 3, 7, 10])
def test_other_numbers_of_steps_fall_into_the_upstreams_buckets(
    steps: int, heads: Heads, tmp_path: Path
) -> None:
    head = heads("n1.7")
    for layout in ("stepwise", "loop"):
        made = groot.export(
            head,
            tmp_path / layout,
            steps=steps,
            layout=layout,
            tokens=12,
            fixtures=5,
            strict=True,
            floor=True,
        )
        require_rounding(made.result)
    assert head.num_inference_timesteps == 4


def test_what_does_not_change_in_the_loop_is_computed_before_it(heads: Heads, tmp_path: Path) -> None:
    """Cross-attention's keys and values leave the encoder; the step projects no feature."""
    import onnx

    made = groot.export(heads("n1.7"), tmp_path / "g", verify=False)
    step = onnx.load(made.path / "step.onnx", load_external_data=False)
    weights = {tensor.name for tensor in step.graph.initializer}
    assert not any("vl_self_attention" in name or "state_encoder" in name for name in weights)
    cross = [f"head.model.transformer_blocks.{i}.attn1.to_{kv}." for i in (0, 2) for kv in "kv"]
    assert not any(name.startswith(tuple(cross)) for name in weights)
    assert any(name.startswith("head.model.transformer_blocks.1.attn1.to_k.") for name in weights)


def test_one_embodiment_carries_its_own_weights_alone(heads: Heads, tmp_path: Path) -> None:
    head = heads("n1.7")
    whole = groot.export(head, tmp_path / "whole", verify=False)
    one = groot.export(head, tmp_path / "one", embodiment=3, fixtures=5, strict=True)
    assert one.manifest["call"] == {"embodiment": 3}
    assert whole.manifest["call"] == {"embodiment": None}
    tables = [p for name, p in head.named_parameters() if name.endswith((".W", ".b"))]
    saved = sum(p.numel() * 4 for p in tables) * (EMBODIMENTS - 1) / EMBODIMENTS

    def size(bundle: Any) -> int:
        return sum(
            facts["size"] for name, facts in bundle.manifest["files"].items() if name.endswith(".data")
        )

    # Up to the pages that each tensor is laid on.
    assert size(whole) - size(one) > 0.8 * saved
    # Judged again from its manifest, it is asked for the same embodiment; as another's it fails.
    assert check(head, open_bundle(one.path), strict=True).passed
    other = check(groot.reference(head, embodiment=1), open_bundle(one.path), strict=True)
    assert other.refusals[0][1].gate == "threshold"


def test_the_policy_is_taken_from_whatever_holds_it(heads: Heads) -> None:
    head = heads("n1.7")

    class Model(torch.nn.Module):
        def __init__(self, inside: Any) -> None:
            super().__init__()
            self.action_head = inside

    class Policy(torch.nn.Module):
        def __init__(self, inside: Any) -> None:
            super().__init__()
            self._groot_model = Model(inside)

    inputs, _ = cases()[0]
    with groot.reference(head) as runner:
        expected = runner.run(inputs)["actions"]
    for policy in (Model(head), Policy(head), lambda: head):
        with groot.reference(policy) as runner:
            assert np.array_equal(runner.run(inputs)["actions"], expected)
    with pytest.raises(ReflexError, match="a Linear was given as groot, and it has no get_action"):
        groot.export(torch.nn.Linear(1, 1), "unwritten")


def test_noise_is_handed_to_the_one_draw_and_nothing_else_is_touched(heads: Heads) -> None:
    head = heads("n1.7")
    inputs, _ = cases()[0]
    randn, state = torch.randn, torch.random.get_rng_state()
    with groot.reference(head) as runner:
        first, again = runner.run(inputs)["actions"], runner.run(inputs)["actions"]
        other = runner.run({**inputs, "noise": inputs["noise"] + 1})["actions"]
        assert runner.facts()["drew_random"] is False
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert torch.randn is randn
    assert torch.equal(torch.random.get_rng_state(), state)
    short = {**inputs, "noise": inputs["noise"][:, :5]}
    with (
        groot.reference(head) as runner,
        pytest.raises(
            RunnerError, match=r"draws noise of shape \[1, 6, 8\], and of the inputs \[1, 5, 8\] is next"
        ),
    ):
        runner.run(short)


def test_an_upstream_that_draws_more_noise_is_refused(heads: Heads, monkeypatch: pytest.MonkeyPatch) -> None:
    head = heads("n1.7")
    own = head.get_action

    def twice(*args: Any) -> Any:
        own(*args)
        return own(*args)

    monkeypatch.setattr(head, "get_action", twice, raising=True)
    with (
        groot.reference(head) as runner,
        pytest.raises(RunnerError, match=r"draws noise of shape .*, and of the inputs none is left"),
    ):
        runner.run(cases()[0][0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"embodiment": 4}, "embodiment is 4, expected a whole number from 0 to 3"),
        ({"embodiment": True}, "embodiment is True"),
        ({"tokens": 0}, "tokens is 0, expected a whole number of at least 1"),
        ({"batch": 1.5}, "batch is 1.5"),
    ],
)
def test_bad_sizes_are_named(options: dict[str, Any], message: str, heads: Heads, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        groot.export(heads("n1.7"), tmp_path / "g", **options)
    assert not (tmp_path / "g").exists()


def test_a_batch_of_observations(heads: Heads, tmp_path: Path) -> None:
    made = groot.export(heads("n1.7"), tmp_path / "g", batch=2, fixtures=6, strict=True, floor=True)
    require_rounding(made.result)


def test_a_free_batch_is_refused_by_name(heads: Heads, tmp_path: Path) -> None:
    """diffusers repeats the masks for each head by a count that fixes the batch."""
    with pytest.raises(TracingError, match="the size of batch is free, and the model fixes it to 2"):
        groot.export(heads("n1.7"), tmp_path / "g", dynamic_batch=True)
