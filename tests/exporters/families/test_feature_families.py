"""lerobot's policies that read features: their own predict_action_chunk, whole, against every layout."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch

from pytest_reflex import check
from pytest_reflex.errors import CheckpointError, ParityError, ReflexError, RunnerError, SettingsError
from pytest_reflex.inputs import Image, ScaledImage, make_fixture
from pytest_reflex.verdict.tolerances import STRICT_THRESHOLD, THRESHOLD

pytest.importorskip("lerobot", reason="live lerobot policies need lerobot (Python 3.12 or later)")
pytestmark = pytest.mark.lerobot

from floors import require_rounding, ulps  # noqa: E402
from tiny_features import features, normalised, queued_actions, save_checkpoint, tiny_policy  # noqa: E402
from tiny_pipelines import pipelines_of  # noqa: E402

from exporters import export, open_bundle  # noqa: E402
from exporters.bundle.registry import family_named, family_of  # noqa: E402
from exporters.families.end_to_end import add_processors  # noqa: E402
from exporters.families.given_draws import given_draws  # noqa: E402
from exporters.families.lerobot_processors import Pipelines, scale_of  # noqa: E402
from exporters.flow.schedule import LAYOUTS  # noqa: E402
from exporters.flow.update import Operation  # noqa: E402

# A kind of policy: its family, and what its configuration says otherwise than the tiny one's.
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "act": ("act", {}),
    "ddpm": ("diffusion", {}),
    "ddim": (
        "diffusion",
        {"noise_scheduler_type": "DDIM", "prediction_type": "sample", "n_obs_steps": 1},
    ),
    "dit": ("multi_task_dit", {}),
    "dit-flow": ("multi_task_dit", {"objective": "flow_matching"}),
    "sac": ("gaussian_actor", {}),
    "tdmpc": ("tdmpc", {}),
    "vqbet": ("vqbet", {}),
    "xvla": ("xvla", {}),
    # Grippers, and dimensions that are the network's alone.
    "xvla-so101": ("xvla", {"action_mode": "so101_bimanual"}),
}
# What decides the layouts is the family's halves: of a second kind of one family one layout is enough.
LAYOUTS_OF = {"ddim": ("loop",), "dit-flow": ("unrolled",), "xvla-so101": ("loop",)}
EXPORTS = [
    (kind, layout)
    for kind, (family, _) in KINDS.items()
    for layout in (LAYOUTS_OF.get(kind, LAYOUTS) if family_named(family).looped else (None,))
]
# Of so few values PyTorch's largest error would be luck.
BATCH = {"sac": 8, "tdmpc": 8}
# Of few fixtures too, where a gripper's sigmoid makes one value far more sensitive than all others.
FIXTURES = {"xvla": 24, "xvla-so101": 24}
# What each policy computes of a batch of its observations, by its own model and without its queues.
OWN: dict[str, Callable[[Any, Any, Any], torch.Tensor]] = {
    "act": lambda policy, batch, noise: policy.predict_action_chunk(batch),
    "diffusion": lambda policy, batch, noise: policy.predict_action_chunk(batch, noise=noise),
    "gaussian_actor": lambda policy, batch, noise: policy.select_action(batch),
    "multi_task_dit": lambda policy, batch, noise: policy._generate_actions(batch),
    "tdmpc": lambda policy, batch, noise: policy.model.pi(
        policy.model.encode({key: value[:, 0] for key, value in batch.items()})
    )[:, None],
    "vqbet": lambda policy, batch, noise: policy.vqbet(batch, rollout=True),
    "xvla": lambda policy, batch, noise: policy.model.generate_actions(
        **policy._build_model_inputs(batch), steps=5
    ),
}


@pytest.fixture(scope="module")
def live() -> Callable[[str], Any]:
    """``live("ddpm")``: the tiny policy, made once; not to be changed."""
    made: dict[str, Any] = {}

    def live(kind: str) -> Any:
        if kind not in made:
            family, overrides = KINDS[kind]
            made[kind] = tiny_policy(family, **overrides)
        return made[kind]

    return live


@pytest.fixture(scope="module")
def exported(live: Callable[[str], Any], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """``exported("ddpm", "loop")``: its bundle, judged over 8 fixtures or more, made once.

    Not strictly: on some processors PyTorch itself is as far from float64 as strict allows.
    """
    made: dict[tuple[str, Any], Any] = {}

    def exported(kind: str, layout: Any) -> Any:
        if (kind, layout) not in made:
            made[kind, layout] = family_named(KINDS[kind][0]).export(
                live(kind), tmp_path_factory.mktemp("bundles") / "b", layout=layout,
                fixtures=FIXTURES.get(kind, 8), floor=True, trajectory=True, batch=BATCH.get(kind, 1),
            )  # fmt: skip
        return made[kind, layout]

    return exported


def given(kind: str, policy: Any, fixture_idx: int = 1) -> dict[str, torch.Tensor]:
    fixture = make_fixture(family_named(KINDS[kind][0]).inputs(policy), 3, fixture_idx)
    return {name: torch.from_numpy(array) for name, array in fixture.items()}


@pytest.mark.parametrize(("kind", "layout"), EXPORTS)
def test_an_export_is_within_rounding(kind: str, layout: Any, exported: Callable[..., Any]) -> None:
    made, family = exported(kind, layout), family_named(KINDS[kind][0])
    require_rounding(made.result)
    assert not made.result.doubts
    assert made.manifest["family"] == family.name
    assert made.result.candidate["live_inputs"] == [spec.name for spec in made.inputs]
    assert len(made.result.steps) == (made.manifest["steps"] or 0)
    assert made.layout == (layout or "single")


@pytest.mark.parametrize("kind", list(KINDS))
def test_the_reference_is_the_policys_own_call(kind: str, live: Callable[[str], Any]) -> None:
    policy = live(kind)
    family = family_named(KINDS[kind][0])
    named = given(kind, policy)
    drawn = [named["step_noise"].unbind(1)] if "step_noise" in named else []
    drawn += [[named["code_noise"].flatten(0, 2)]] if "code_noise" in named else []
    if family.name in ("gaussian_actor", "multi_task_dit", "xvla"):
        drawn.insert(0, [named["noise"]])
    with torch.no_grad(), given_draws(*(draw for draws in drawn for draw in draws)):
        expected = OWN[family.name](policy, family.batch(policy, named), named.get("noise"))
    with family.reference(policy) as runner:
        got = runner.run({name: tensor.numpy() for name, tensor in named.items()})["actions"]
        assert not runner.drew_random
    assert np.array_equal(got, expected.numpy())


@pytest.mark.parametrize(("kind", "layout"), [EXPORTS[0], ("ddpm", "loop"), ("xvla", "unrolled")])
def test_the_actions_are_those_that_the_queue_hands_out(
    kind: str, layout: Any, live: Callable[[str], Any], exported: Callable[..., Any]
) -> None:
    policy, named = live(kind), given(kind, live(kind))
    count = policy.config.n_action_steps
    queued = torch.stack(queued_actions(policy, KINDS[kind][0], named, count), dim=1).numpy()
    with exported(kind, layout).runner() as runner:
        actions = runner.run({name: tensor.numpy() for name, tensor in named.items()})["actions"]
    assert np.abs(actions[:, :count] - queued).max() < THRESHOLD
    # Off by one, it would be as far off as two actions are from each other.
    assert np.abs(actions[:, 1:count] - queued[:, :-1]).max() > THRESHOLD


@pytest.mark.parametrize("kind", list(KINDS))
def test_a_checkpoint_is_read_by_lerobots_own_loader(
    kind: str, live: Callable[[str], Any], tmp_path: Path
) -> None:
    family, overrides = KINDS[kind]
    place = save_checkpoint(family, tmp_path / "c", **overrides)
    assert family_of(place) == family
    loaded, policy = family_named(family).load(place), live(kind)
    assert type(loaded) is type(policy)
    assert all(torch.equal(a, b) for a, b in zip(loaded.parameters(), policy.parameters(), strict=True))
    with pytest.raises(CheckpointError, match=f"is a checkpoint of {family!r}, expected type 'smolvla'"):
        family_named("smolvla").load(place)


def test_a_policy_of_another_family_is_refused(live: Callable[[str], Any]) -> None:
    said = "an ACTPolicy was given as diffusion, and its model .* has no diffusion.unet"
    with pytest.raises(ReflexError, match=said):
        family_named("diffusion").inputs(live("act"))


def test_what_has_no_loop_takes_no_steps_and_no_layout(live: Callable[[str], Any], tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="steps is 3, and act has no loop"):
        family_named("act").export(live("act"), tmp_path / "b", steps=3)
    with pytest.raises(SettingsError, match="layout is 'loop', and act has no loop"):
        family_named("act").export(live("act"), tmp_path / "b", layout="loop")


@pytest.mark.parametrize(
    ("mode", "meaning"),
    [("IDENTITY", ScaledImage(0.0, 1.0)), ("MEAN_STD", ScaledImage(-2.118, 2.64)), ("MIN_MAX", Image())],
)
def test_images_are_normalised_as_the_configuration_says(mode: str, meaning: Any) -> None:
    specs = family_named("act").inputs(tiny_policy("act", **normalised("act", mode)))
    assert specs[0].meaning == meaning
    drawn = [make_fixture(specs, 0, fixture_idx)["image_0"] for fixture_idx in range(3)]
    ends = (getattr(meaning, "low", -1.0), getattr(meaning, "high", 1.0))
    assert (min(a.min() for a in drawn), max(a.max() for a in drawn)) == tuple(map(np.float32, ends))


def test_what_a_policy_remembers_is_put_back(live: Callable[[str], Any]) -> None:
    policy, family = live("ddpm"), family_named("diffusion")
    queues = policy._queues
    with family.reference(policy) as runner:
        runner.run({name: tensor.numpy() for name, tensor in given("ddpm", policy).items()})
    assert policy._queues is queues
    assert policy.diffusion.num_inference_steps == 5


def test_draws_that_are_not_the_policys_are_refused(live: Callable[[str], Any]) -> None:
    policy, family = live("ddpm"), family_named("diffusion")
    named = {name: tensor.numpy() for name, tensor in given("ddpm", policy).items()}
    with family.reference(policy) as runner:
        with pytest.raises(RunnerError, match="the policy drew 4 times, and 5 draws are given"):
            runner.run({**named, "step_noise": np.repeat(named["step_noise"], [1, 1, 1, 2], axis=1)})
        with pytest.raises(RunnerError, match=r"draws noise of shape .*, and of the inputs none is left"):
            runner.run({**named, "step_noise": named["step_noise"][:, :3]})


def beta_schedule(policy: Any) -> None:
    scheduler = policy.diffusion.noise_scheduler
    policy.diffusion.noise_scheduler = type(scheduler)(
        **{**scheduler.config, "beta_schedule": "linear", "num_train_timesteps": 100}
    )


def epsilon_for_sample(policy: Any) -> None:
    scheduler = policy.diffusion.noise_scheduler
    policy.diffusion.noise_scheduler = type(scheduler)(**{**scheduler.config, "prediction_type": "sample"})


FAULTS = {
    "another beta schedule": beta_schedule,
    "epsilon taken for sample": epsilon_for_sample,
    "another step before": lambda policy: setattr(
        policy.diffusion.noise_scheduler, "previous_timestep", lambda t: t - 7
    ),
}


@pytest.mark.parametrize("fault", list(FAULTS))
def test_an_honest_bundle_fails_against_a_policy_that_computes_otherwise(
    fault: str, exported: Callable[..., Any]
) -> None:
    """The other way round is the same question: the bundle is as wrong for that policy as it would be."""
    policy = tiny_policy("diffusion")
    FAULTS[fault](policy)
    bundle = open_bundle(exported("ddpm", "loop").path)
    result = check(family_named("diffusion").reference(policy), bundle, fixtures=2)
    assert not result.passed
    assert {fixture.refusal.gate for fixture in result.fixtures} == {"threshold"}


def test_a_queue_that_is_off_by_one_fails(live: Callable[[str], Any], tmp_path: Path) -> None:
    family, policy = family_named("diffusion"), live("ddpm")
    flow = family.flow(policy)
    start, stop = flow.epilogue[0].reads[2:]
    flow.epilogue = (Operation("Slice", "kept", ("x", 1, start + 1, stop + 1)),)
    with pytest.raises(ParityError, match="threshold"):
        export(
            family.reference(policy), tmp_path / "b", inputs=family.inputs(policy), flow=flow, layout="loop",
            fixtures=2,
        )  # fmt: skip


@pytest.mark.parametrize(
    ("family", "overrides", "said"),
    [
        (
            "multi_task_dit",
            {"objective": "flow_matching", "integration_method": "rk4"},
            "'rk4', which asks",
        ),
        ("gaussian_actor", {"num_discrete_actions": 3}, "num_discrete_actions is 3, whose critic"),
        ("tdmpc", {"use_mpc": True}, "use_mpc is True, and a plan starts from the plan before it"),
        ("vqbet", {"sequentially_select": True}, "sequentially_select is True, and the second code"),
    ],
)
def test_what_cannot_be_exported_is_refused_with_the_reason(
    family: str, overrides: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(SettingsError, match=said):
        family_named(family).export(tiny_policy(family, **overrides), tmp_path / "b")


def test_a_scheduler_that_computes_nothing_is_named() -> None:
    policy = tiny_policy("diffusion")
    scheduler = policy.diffusion.noise_scheduler
    config = {**scheduler.config, "variance_type": "fixed_large_log"}  # the root of a logarithm below 0
    policy.diffusion.noise_scheduler = type(scheduler)(**config)
    with pytest.raises(
        SettingsError, match="the scheduler's own sigma of step 0 is nan, so that it computes"
    ):
        family_named("diffusion").flow(policy).schedule.over(5)


def test_cameras_may_be_of_different_sizes_where_the_policy_reads_them_so() -> None:
    seen = features(size=(66, 72))
    key = list(seen["input_features"])[1]
    seen["input_features"][key] = replace(seen["input_features"][key], shape=(3, 40, 48))
    policy, family = tiny_policy("act", **seen), family_named("act")
    named = {n: torch.from_numpy(a) for n, a in make_fixture(family.inputs(policy), 0, 0).items()}
    with torch.no_grad():
        own = policy.predict_action_chunk({key: named[name] for name, key in family.keys(policy).items()})
    with family.reference(policy) as runner:
        assert np.array_equal(runner.run({n: t.numpy() for n, t in named.items()})["actions"], own)


def test_processors_stand_around_a_policy_that_looks_back_and_reads_a_prompt(
    live: Callable[[str], Any], exported: Callable[..., Any], tmp_path: Path
) -> None:
    policy = live("dit-flow")
    both = pipelines_of("multi_task_dit", policy, tmp_path, None, vocab=38)
    bundle = open_bundle(shutil.copytree(exported("dit-flow", "unrolled").path, tmp_path / "b"))
    bundle, result = add_processors(policy, bundle, both, fixtures=3)
    assert result.passed, str(result)
    raw = make_fixture(bundle.stated.processors.raw, 0, 0)
    with bundle.runner() as robot:
        assert robot.act({**raw, "task": "go home"}).shape == (1, 12, 4)
        assert robot.act({**raw, "task": ""}).shape == (1, 12, 4)


def test_an_action_without_a_chunk_has_a_scale(live: Callable[[str], Any], tmp_path: Path) -> None:
    both = pipelines_of("gaussian_actor", live("sac"), tmp_path, None)
    whole = Pipelines(family_named("gaussian_actor"), live("sac"), *both)
    # From [-1, 1] to [-1, 2].
    assert ulps(np.float32(scale_of(whole, (1, 4))), np.float32([1.5] * 4)) < 2


def test_a_camera_that_upstream_itself_cannot_read_is_named() -> None:
    named = features(cameras=1, size=(64, 64), name="observation.images.top")
    with pytest.raises(SettingsError, match=r"its camera is 'observation\.images\.top'"):
        family_named("tdmpc").inputs(tiny_policy("tdmpc", **named))


def test_without_noise_an_actor_gives_its_mean(
    live: Callable[[str], Any], exported: Callable[..., Any]
) -> None:
    policy, named = live("sac"), given("sac", live("sac"))
    batch = family_named("gaussian_actor").batch(policy, named)
    with torch.no_grad(), given_draws(torch.zeros_like(named["noise"])):
        mean = torch.tanh(policy.actor(batch, None)[2]).numpy()
    inputs = {name: np.repeat(tensor.numpy(), 8, axis=0) for name, tensor in named.items()}
    with exported("sac", None).runner() as runner:
        actions = runner.run({**inputs, "noise": np.zeros_like(inputs["noise"])})["actions"]
    assert np.abs(actions - mean).max() < STRICT_THRESHOLD


def test_locate_reads_what_was_traced_in_place_of_the_policys_call(exported: Callable[..., Any]) -> None:
    policy = tiny_policy("gaussian_actor")
    with torch.no_grad():
        policy.actor.mean_layer.bias += 0.1
    found = open_bundle(exported("sac", None).path).locate(policy)
    assert found.place is not None
    assert found.place.module.endswith("actor.mean_layer"), str(found)


def test_a_hundred_steps_make_no_larger_graph_than_ten(live: Callable[[str], Any], tmp_path: Path) -> None:
    """What is traced, converted and written hangs on no number of steps, and so neither does the time."""
    sizes = []
    for steps in (10, 100):
        made = family_named("diffusion").export(
            live("ddpm"), tmp_path / str(steps), steps=steps, verify=False
        )
        assert made.inputs[-1].shape[1] == steps - 1
        nodes = ir.traversal.RecursiveGraphIterator(ir.load(made.path / "model.onnx").graph)
        sizes.append(sum(1 for _ in nodes))
    assert sizes[0] == sizes[1]
