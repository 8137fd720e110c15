"""Real-time chunking: lerobot's own processor around its own policy, against the graph that holds both."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pytest_reflex import ParityResult, check, check_sequence
from pytest_reflex.errors import InputError
from pytest_reflex.inputs import Chain, chain, left_over, make_fixture
from pytest_reflex.runners import ServedRunner, TorchRunner
from pytest_reflex.verdict.tolerances import STRICT_THRESHOLD

pytest.importorskip("lerobot", reason="live lerobot policies need lerobot (Python 3.12 or later)")
pytestmark = pytest.mark.lerobot

from floors import ROUNDING, Remembered, multiples, require_rounding  # noqa: E402
from lerobot.configs import RTCAttentionSchedule  # noqa: E402
from lerobot.policies.rtc.action_queue import ActionQueue  # noqa: E402
from lerobot.policies.rtc.configuration_rtc import RTCConfig  # noqa: E402
from robots import FAULTS, Robot, honest  # noqa: E402
from serve_cases import same_bits, serving  # noqa: E402
from tiny_lerobot import SHALLOW, tiny_policy  # noqa: E402

from exporters import Policy, open_bundle, pi0  # noqa: E402
from exporters.bundle.chunk_queue import ChunkQueue  # noqa: E402
from exporters.families.base import set_to  # noqa: E402
from exporters.families.real_time import RealTimeFlow  # noqa: E402
from exporters.flow.schedule import LAYOUTS, EulerSchedule  # noqa: E402

STEPS, HORIZON, CHUNKS, BREAKS = 2, 4, 24, 17
SMALL = {"cameras": 2, "prompt_tokens": 4}


def module(family: str) -> Any:
    return importlib.import_module(f"exporters.families.{family}")


@pytest.fixture(scope="module")
def truths(golden: Callable[[str], Any]) -> Callable[..., Remembered]:
    """The policy's own sample_actions with its own processor; each set of inputs is run once."""
    made: dict[tuple[str, int], Remembered] = {}

    def truth(family: str, steps: int = STEPS) -> Remembered:
        if (family, steps) not in made:
            reference = module(family).reference(golden(family), steps=steps, rtc=True)
            made[family, steps] = Remembered(reference)
        return made[family, steps]

    return truth


@pytest.fixture(scope="module")
def bundles(
    golden: Callable[[str], Any], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str, str], Any]:
    made: dict[tuple[str, str], Any] = {}

    def bundle(family: str, layout: str) -> Any:
        if (family, layout) not in made:
            place = tmp_path_factory.mktemp(f"{family}-{layout}") / "p"
            made[family, layout] = module(family).export(
                golden(family), place, steps=STEPS, layout=layout, rtc=True, fixtures=1, **SMALL
            )
        return made[family, layout]

    return bundle


def inputs_of(family: str, policy: Any) -> Any:
    return module(family).inputs(policy, rtc=True, **SMALL)


# What decides the layouts is the halves: of the other two families one is enough.
EXPORTS = [*(("pi0", layout) for layout in LAYOUTS), ("pi05", "loop"), ("smolvla", "stepwise")]


@pytest.mark.parametrize(("family", "layout"), EXPORTS)
def test_parity_with_lerobot_s_own_processor(
    family: str, layout: str, truths: Callable[..., Remembered], bundles: Callable[[str, str], Any]
) -> None:
    made = bundles(family, layout)
    result = check(truths(family), made, fixtures=5, strict=True, floor=True)
    require_rounding(result)
    assert result.candidate["live_inputs"] == [spec.name for spec in made.inputs]
    assert {"prev_chunk", "execution_horizon", "inference_delay"} <= set(result.candidate["live_inputs"])
    if (family, layout) == ("pi0", "loop"):
        other = Policy(made, steps=5)
        more = check(truths(family, 5), other, inputs=made.inputs, fixtures=3, strict=True, floor=True)
        require_rounding(more)


@pytest.mark.parametrize(
    ("family", "schedule"),
    [*(("pi0", schedule) for schedule in RTCAttentionSchedule), ("pi05", "LINEAR"), ("smolvla", "EXP")],
)
def test_the_halves_compute_lerobot_s_bits_by_every_schedule(
    family: str, schedule: str, golden: Callable[[str], Any]
) -> None:
    policy = golden(family)
    config = RTCConfig(prefix_attention_schedule=RTCAttentionSchedule(schedule), max_guidance_weight=3.5)
    with set_to(policy.config, "rtc_config", config):
        found = module(family)
        truth = found.reference(policy, steps=10, rtc=True)
        flow = found.flow(policy, rtc=True)
        flow.steps = 10
        result = check(truth, TorchRunner(flow), inputs=inputs_of(family, policy), fixtures=5)
    assert result.passed, str(result)
    assert result.max_abs_diff_across_all == 0.0
    assert policy.config.rtc_config is None
    assert policy.model.rtc_processor is None


def test_the_first_chunk_is_the_policy_s_own_without_guidance(
    golden: Callable[[str], Any], truths: Callable[..., Remembered]
) -> None:
    plain = module("pi0").reference(golden("pi0"), steps=STEPS)
    given = make_fixture(inputs_of("pi0", golden("pi0")), 0, 1)
    assert int(given["execution_horizon"]) == 0
    told = {name: array for name, array in given.items() if name not in RTC}
    with plain as before, truths("pi0") as guided:
        assert same_bits(guided.run(given)["actions"], before.run(told)["actions"])
        other = guided.run({**given, "execution_horizon": np.asarray(HORIZON)})["actions"]
        assert not same_bits(other, before.run(told)["actions"])


RTC = ("prev_chunk", "execution_horizon", "inference_delay")


@pytest.mark.parametrize("used", [1, 4, 6])
def test_what_lerobot_is_given_ragged_is_the_same_padded(
    used: int, golden: Callable[[str], Any], truths: Callable[..., Remembered]
) -> None:
    policy = golden("pi0")
    given = make_fixture(inputs_of("pi0", policy), 0, 0)
    rows = given["noise"].shape[1]
    horizon = min(HORIZON, rows - used)
    told = {
        "prev_chunk": left_over(given["prev_chunk"], used),
        "execution_horizon": np.asarray(horizon),
        "inference_delay": np.asarray(min(2, horizon)),
    }
    t = {name: torch.from_numpy(np.array(array)) for name, array in given.items()}
    with (
        set_to(policy.config, "rtc_config", RTCConfig(execution_horizon=HORIZON)),
        set_to(policy.model, "rtc_processor", None),
        set_to(policy, "rtc_processor", None),
        torch.no_grad(),
    ):
        policy.init_rtc_processor()
        ragged = policy.model.sample_actions(
            [t["image_0"], t["image_1"]], [t["image_mask_0"], t["image_mask_1"]],
            t["lang_tokens"], t["lang_masks"], t["state"],
            noise=t["noise"], num_steps=STEPS,
            prev_chunk_left_over=t["prev_chunk"][:, used:], inference_delay=2,
        ).numpy()  # fmt: skip
        policy.model.rtc_processor = None
    with truths("pi0") as runner:
        assert same_bits(runner.run({**given, **told})["actions"], ragged)


# --- chains -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def chains(golden: Callable[[str], Any]) -> Callable[[str], Chain]:
    made: dict[str, Chain] = {}

    def of(family: str) -> Chain:
        if family not in made:
            specs = inputs_of(family, golden(family))
            made[family] = chain(specs, CHUNKS, horizon=HORIZON, sequences=1)
        return made[family]

    return of


def judged(truth: Any, candidate: Any, drawn: Chain, **more: Any) -> Any:
    given = {"inputs": drawn.sequences, "states": drawn.states, "hand_over": drawn.hand_over}
    return check_sequence(truth, candidate, threshold=STRICT_THRESHOLD, **{**given, **more})


def test_a_chain_has_every_delay_and_late_chunks(chains: Callable[[str], Chain]) -> None:
    drawn = chains("pi0")
    first = drawn.sequences[0]
    assert set(first["inference_delay"].tolist()) == set(range(HORIZON + 1))
    assert set(first["execution_horizon"].tolist()) > {0, HORIZON}
    assert (first["inference_delay"] <= first["execution_horizon"]).all()
    rows = first["noise"].shape[2]
    assert all(h <= rows - used for h, used in zip(first["execution_horizon"], drawn.used, strict=True))


@pytest.mark.parametrize(("family", "layout"), [("pi0", "unrolled")])
def test_chunks_in_a_chain(
    family: str,
    layout: str,
    truths: Callable[..., Remembered],
    bundles: Callable[[str, str], Any],
    chains: Callable[[str], Chain],
) -> None:
    """Each side plans upon what it planned itself, with every delay from 0 to the horizon."""
    result = judged(truths(family), bundles(family, layout), chains(family))
    assert result.require() is result
    assert (result.steps, result.begins, result.cause) == (CHUNKS, None, "")
    assert multiples(result.free)["actions"] < ROUNDING


@pytest.mark.parametrize("fault", FAULTS)
def test_a_robot_that_tells_something_else_is_refused_where_it_begins(
    fault: str,
    truths: Callable[..., Remembered],
    bundles: Callable[[str, str], Any],
    chains: Callable[[str], Chain],
) -> None:
    drawn = chains("pi0")
    robot = Robot(Policy(bundles("pi0", "unrolled")), drawn, FAULTS[fault](BREAKS))
    result = judged(truths("pi0"), bundles("pi0", "unrolled"), drawn, loop=robot)
    assert result.forced.passed
    assert not result
    assert result.begins == BREAKS
    assert result.cause.startswith(
        f"the hand-over of the state is wrong, from step {BREAKS} on, in 'actions'"
    )


def test_a_robot_that_tells_the_truth_passes(
    truths: Callable[..., Remembered],
    bundles: Callable[[str, str], Any],
    chains: Callable[[str], Chain],
) -> None:
    drawn = chains("pi0")
    robot = Robot(Policy(bundles("pi0", "unrolled")), drawn, honest)
    assert judged(truths("pi0"), bundles("pi0", "unrolled"), drawn, loop=robot)


def test_a_chain_over_the_wire(
    truths: Callable[..., Remembered],
    bundles: Callable[[str, str], Any],
    chains: Callable[[str], Chain],
) -> None:
    made, drawn = bundles("pi0", "unrolled"), chains("pi0")
    with serving(made.path) as running:
        assert judged(truths("pi0"), ServedRunner(running.url), drawn).require()
        with ServedRunner(running.url) as served, Policy(made) as local:
            step = {n: a[3] for n, a in drawn.sequences[0].items() if n != "prev_chunk"}
            step["prev_chunk"] = drawn.sequences[0]["noise"][4]
            assert same_bits(served.run(step)["actions"], local.run(step)["actions"])


# --- faults of an export ------------------------------------------------------------------------------


class _Other(RealTimeFlow):
    """The halves with one thing done otherwise."""

    def __init__(self, policy: Any, **done: Any) -> None:
        plain = module("pi0").flow(policy, rtc=False)
        super().__init__(plain, policy.model, policy.config.chunk_size)
        self.done = done

    def prefix(self, **given: torch.Tensor) -> Any:  # type: ignore[override]
        told = {name: change(given) for name, change in self.done.items() if name in given}
        return super().prefix(**{**given, **told})


def _delay_left_out(policy: Any) -> RealTimeFlow:
    return _Other(policy, inference_delay=lambda given: given["inference_delay"] * 0)


def _delay_one_more(policy: Any) -> RealTimeFlow:
    return _Other(policy, inference_delay=lambda given: given["inference_delay"] + 1)


def _horizon_one_less(policy: Any) -> RealTimeFlow:
    return _Other(policy, execution_horizon=lambda given: given["execution_horizon"] - 1)


def _rows_moved(policy: Any) -> RealTimeFlow:
    return _Other(policy, prev_chunk=lambda given: given["prev_chunk"].roll(1, 1))


def _weight_not_bounded(policy: Any) -> RealTimeFlow:
    flow = _Other(policy)
    flow.guidance.most = 1e3
    return flow


def _another_schedule(policy: Any) -> RealTimeFlow:
    config = RTCConfig(prefix_attention_schedule=RTCAttentionSchedule.EXP)
    with set_to(policy.config, "rtc_config", config):
        return _Other(policy)


@pytest.mark.parametrize(
    "fault",
    [
        _delay_left_out, _delay_one_more, _horizon_one_less, _rows_moved, _weight_not_bounded,
        _another_schedule,
    ],
)  # fmt: skip
def test_an_export_with_a_fault_is_refused(
    fault: Callable[[Any], RealTimeFlow], golden: Callable[[str], Any], truths: Callable[..., Remembered]
) -> None:
    policy = golden("pi0")
    flow = fault(policy)
    flow.steps = STEPS
    result: ParityResult = check(
        truths("pi0"), TorchRunner(flow), inputs=inputs_of("pi0", policy), fixtures=4, strict=True
    )
    assert not result.passed
    assert result.max_abs_diff_across_all is not None
    assert result.max_abs_diff_across_all > 2 * STRICT_THRESHOLD
    assert {answer.gate for _, answer in result.refusals} <= {"threshold", "inputs"}


# --- the ways in --------------------------------------------------------------------------------------


def test_a_policy_that_is_configured_so_is_exported_so_with_one_delay_for_a_free_batch(
    tmp_path: Path,
) -> None:
    policy = tiny_policy("pi0", tmp_path, **SHALLOW["pi0"])
    policy.config.rtc_config = RTCConfig(enabled=True, max_guidance_weight=5.0)
    policy.config.num_inference_steps = 2
    made = pi0.export(
        policy, tmp_path / "p", layout="loop", dynamic_batch=True, strict=True, floor=True, **SMALL
    )
    assert {spec.name: spec.shape for spec in made.inputs}["inference_delay"] == ()
    require_rounding(made.result)
    assert [spec.name for spec in made.inputs if spec.name in RTC] == list(RTC)
    assert (made.manifest["call"], made.manifest["options"]["rtc"]) == ({"rtc": 1}, 1)
    assert made.manifest["loop"]["schedule"] == {
        "kind": "euler", "start": 1.0, "end": 0.0, "dtype": "float64",
    }  # fmt: skip
    reference = open_bundle(made.path).reference_runner(policy)
    assert not reference.doubts(made.inputs)
    plain = pi0.inputs(policy, rtc=False, **SMALL)
    assert not [spec.name for spec in plain if spec.name in RTC]


def test_the_command_takes_a_switch() -> None:
    from pytest_reflex.cli.commands import export as command

    for words, meant in ([], None), (["--rtc"], True):
        assert command.make_context("export", ["checkpoint", "p", *words]).params["rtc"] is meant


def test_what_cannot_be_guided_is_said(golden: Callable[[str], Any]) -> None:
    from examples.tiny_pi0 import tiny_pi0

    with pytest.raises(
        InputError, match=r"rtc is True, and transformers' PI0For.* has no real-time chunking"
    ):
        pi0.inputs(tiny_pi0(), rtc=True)
    with pytest.raises(InputError, match="rtc is 'yes', expected True, False, or None"):
        pi0.inputs(golden("pi0"), rtc="yes")


def test_the_robot_is_told_which_numbers_there_are(bundles: Callable[[str, str], Any]) -> None:
    made = bundles("pi0", "loop")
    given = make_fixture(made.inputs, 0, 0)
    with Policy(made) as policy:
        assert policy.infer(given)["actions"].shape == given["noise"].shape
        for name, value in (("inference_delay", -1), ("execution_horizon", 7)):
            with pytest.raises(
                InputError, match=f"input '{name}' is {value}; it takes whole numbers from 0 to 6"
            ):
                policy.infer({**given, name: np.asarray(value)})


def test_the_queue_is_lerobot_s(bundles: Callable[[str, str], Any]) -> None:
    """What is carried out and what is left are what lerobot's own queue says, chunk by chunk."""
    made = bundles("pi0", "unrolled")
    fixture = make_fixture(made.inputs, 0, 0)
    shape = fixture["noise"].shape
    ours, theirs = ChunkQueue(shape, HORIZON), ActionQueue(RTCConfig(enabled=True))
    assert (ours.get(), theirs.get(), len(ours)) == (None, None, 0)
    with Policy(made) as policy:
        for number, (delay, more) in enumerate([(0, 1), (1, 1), (2, 2), (3, 0), (1, 5)]):
            observation = {n: a for n, a in make_fixture(made.inputs, 0, number).items() if n not in RTC}
            told, left = ours.inputs(delay), theirs.get_left_over()
            if left is not None:
                rows = len(left)
                assert np.array_equal(told["prev_chunk"][0, :rows], left.numpy())
                assert not told["prev_chunk"][0, rows:].any()
                assert int(told["execution_horizon"]) == min(HORIZON, rows)
            else:
                assert int(told["execution_horizon"]) == 0
            actions = policy.infer({**observation, **told})["actions"]
            ours.merge(actions, delay)
            chunk = torch.from_numpy(actions[0].copy())
            theirs.merge(chunk, chunk, delay)
            assert len(ours) == theirs.qsize()
            for _ in range(more):
                a, b = ours.get(), theirs.get()
                assert (a is None) == (b is None)
                assert a is None or np.array_equal(a[0], b.numpy())


def test_what_is_no_queue_is_refused() -> None:
    with pytest.raises(InputError, match="horizon is 7, expected a whole number from 1 to 6"):
        ChunkQueue((1, 6, 8), 7)
    queue = ChunkQueue((1, 6, 8), 4)
    with pytest.raises(InputError, match="delay is -1, expected a whole number of at least 0"):
        queue.inputs(-1)
    with pytest.raises(InputError, match=r"actions are \[1, 6\], expected \[1, 6, 8\]"):
        queue.merge(np.zeros((1, 6), np.float32), 0)
    with pytest.raises(InputError, match="used is 9, expected a whole number from 0 to 6"):
        queue.merge(np.zeros((1, 6, 8), np.float32), 9)
    with pytest.raises(InputError, match="a horizon of 4 in 6 chunks"):
        chain(_specs(), 6, horizon=4)
    with pytest.raises(InputError, match="no 'prev_chunk', Horizon and Delay"):
        chain(_specs()[:1], 9)


def _specs() -> Any:
    from exporters.families.real_time import real_time_inputs

    return real_time_inputs((1, 6, 8))


def test_a_schedule_says_how_it_tells_the_time() -> None:
    from pytest_reflex.errors import SettingsError

    assert replace(EulerSchedule(), dtype="float64").to_json()["dtype"] == "float64"
    assert "dtype" not in EulerSchedule().to_json()
    with pytest.raises(SettingsError, match="tells its time as float32 or float64, not 'float16'"):
        EulerSchedule(dtype="float16")
