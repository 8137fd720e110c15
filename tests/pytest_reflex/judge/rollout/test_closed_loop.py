"""A closed loop's verdict: what is called rounding, what is further, what is said where none is reached."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rollout_cases
from rollout_cases import INPUTS, SHORT, changed, driven, policy
from serve_cases import serving

import pytest_reflex
from exporters import open_bundle
from exporters.bundles import Bundle
from exporters.serving.candidate import open_served
from pytest_reflex.errors import InputError, ParityError, ReflexError, RunnerError, SettingsError
from pytest_reflex.inputs import Image, InputSpec, ScaledImage, State
from pytest_reflex.judge.rollout.driving import Terms, drive
from pytest_reflex.judge.rollout.environments import Unstable, environment_named
from pytest_reflex.judge.rollout.observing import Observing, jittered
from pytest_reflex.judge.rollout.planar import PlanarReach
from pytest_reflex.judge.rollout.rounded import Rounded
from pytest_reflex.report.text.rollout import rollout_text, sentence
from pytest_reflex.verdict.rollout import CANDIDATE, FLOORS, REFERENCE
from pytest_reflex.verdict.rounding import CHANCE

pytestmark = pytest.mark.once

Array = np.ndarray[Any, Any]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return rollout_cases.bundle_in(tmp_path_factory.mktemp("rollout"))


@pytest.fixture(scope="module")
def of_bundle(bundle: Bundle) -> Any:
    return driven(bundle)


def test_a_bundle_drifts_by_rounding(of_bundle: Any) -> None:
    assert of_bundle.word == "rounding"
    assert of_bundle.passed
    assert of_bundle.exit_code == 0
    assert len(of_bundle.starts) == SHORT["starts"]
    assert of_bundle.require() is of_bundle


def test_a_bundle_drifts_at_most_twice_its_floor_in_every_start(of_bundle: Any) -> None:
    for start in of_bundle.starts:
        for quantity in of_bundle.quantities:
            assert of_bundle.ratio(start, quantity.name) <= rollout_cases.ROUNDING


def test_the_same_policy_does_not_drift_at_all() -> None:
    made = rollout_cases.honest()
    assert all(d.largest == 0.0 for q in made.quantities for d in made.of(CANDIDATE, q.name))
    assert made.open_loop is not None
    assert made.open_loop.candidate == 0.0
    assert made.open_loop.float64


def test_repeated_runs_agree_to_the_bit(bundle: Bundle, of_bundle: Any) -> None:
    again = driven(open_bundle(bundle.path))
    assert json.dumps(again.to_json()["starts"]) == json.dumps(of_bundle.to_json()["starts"])


def late_by_one(actions: Array) -> Array:
    return np.concatenate([actions[:, :1], actions[:, :-1]], axis=1)


def without_camera(inputs: Mapping[str, Array]) -> dict[str, Array]:
    return {**inputs, "image": np.zeros_like(inputs["image"])}


FAULTS: dict[str, tuple[Callable[[Array], Array], Any]] = {
    "a bias": (lambda actions: actions + np.float32(1e-4), None),
    "a stale action": (late_by_one, None),
    "a joint turned round": (lambda actions: actions * np.float32([1, -1, 1]), None),
    "a camera that sees nothing": (lambda actions: actions, without_camera),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_called(fault: str) -> None:
    made = driven(changed(*FAULTS[fault]))
    assert made.word == "further"
    assert (made.passed, made.exit_code) == (False, 1)
    for start in made.starts:
        assert made.ratio(start, "tip") > 10
    assert str(made).startswith("rollout FAIL: rollout on planar-reach")
    with pytest.raises(ParityError, match="further than rounding") as raised:
        made.require()
    assert raised.value.result is made


def test_a_drift_that_was_allowed_passes_and_is_still_said() -> None:
    candidate = changed(FAULTS["a bias"][0])
    wide = driven(candidate, within=1e6)
    assert wide.passed
    assert wide.word == "further"
    assert "further than rounding" in str(wide)
    assert not driven(candidate, within=1e-9).passed


def test_a_narrower_precision_is_further_than_rounding() -> None:
    reference = policy().own_runner()
    made = driven(Rounded(reference, "bfloat16", INPUTS), reference)
    assert made.word == "further"
    assert made.facts[CANDIDATE]["precision"] == "bfloat16"


def test_a_reference_without_float64_is_held_to_the_jitter() -> None:
    made = driven(changed(lambda a: a), changed(lambda a: a))
    assert made.passed
    assert [*made.sides] == [CANDIDATE, "jitter"]
    assert "the floor is the jitter's alone" in str(made)


@pytest.mark.parametrize("latency", [0, 1, 2])
def test_latency_is_shown_as_what_it_is(bundle: Bundle, of_bundle: Any, latency: int) -> None:
    made = driven(bundle, latency=latency)
    assert made.latency == latency
    if latency == 0:
        assert made.to_json()["starts"] == of_bundle.to_json()["starts"]
        return
    assert made.word == "further"
    assert f"{latency} control periods late" in str(made)


def test_a_measured_latency_is_a_number_of_periods(bundle: Bundle) -> None:
    made = driven(bundle, latency="measured", hz=0.5, seconds=6.0, starts=1)
    assert 0 < made.latency < SHORT["execute"]


def test_a_served_policy_gives_the_local_bits(bundle: Bundle, of_bundle: Any) -> None:
    with serving(bundle.path) as server:
        made = driven(open_served(server.url))
    assert made.to_json()["starts"] == of_bundle.to_json()["starts"]


def test_another_runtime_is_judged_as_any(bundle: Bundle) -> None:
    assert driven(bundle.on("evaluator"), starts=1).word == "rounding"


class Amplifies(PlanarReach):
    """Chaos: what is apart by a last place is apart by millimetres within a second."""

    name = "amplifies"

    def step(self, action: Array) -> bool:
        goes_on = super().step(action)
        self._angles = np.remainder(self._angles * 3.0, 1.0)
        return goes_on


def test_in_chaos_an_honest_candidate_is_not_called_further() -> None:
    made = driven(Rounded(policy().own_runner(), "bfloat16", INPUTS), policy().own_runner(), env=Amplifies)
    assert all(start.parted("tip") is not None for start in made.starts)
    assert made.word in ("rounding", "undecided")
    assert "Chaos: in 3 of 3 starts rounding alone was visible" in str(made)


# --- what cannot be driven -------------------------------------------------------------------------------


class Ends(PlanarReach):
    """An environment that ends one of its starts."""

    name = "ends"
    ended_start = 1

    def reset(self, start: int) -> None:
        super().reset(start)
        self.left = 10 if start == self.ended_start else 1 << 30

    def step(self, action: Array) -> bool:
        self.left -= 1
        return super().step(action) and self.left > 0


class EndsAtOnce(Ends):
    ended_start = 0


def test_an_environment_that_ends_early_loses_no_earlier_start() -> None:
    made = driven(changed(lambda a: a), env=Ends)
    said = "start 1: ends ended after 0.33 of 2 s, driven by the reference; give --seconds 0.33 or less"
    assert made.error.startswith(said)
    assert (made.passed, made.exit_code, len(made.starts)) == (False, 2, 1)
    assert "Not driven to the end: start 1" in str(made)
    with pytest.raises(RunnerError, match="ends ended"):
        made.require()
    with pytest.raises(ReflexError, match="start 0: ends ended after"):
        driven(changed(lambda a: a), env=EndsAtOnce)


class Blows(Ends):
    """An environment whose physics comes to no number in one of its starts, and goes on all the same."""

    name = "blows"

    def pose(self) -> Any:
        return {name: values * (np.nan if self.left < 1 else 1.0) for name, values in super().pose().items()}

    def step(self, action: Array) -> bool:
        super().step(action)
        return True


class Gives(Blows):
    """The same, by an environment that says so itself."""

    def step(self, action: Array) -> bool:
        super().step(action)
        if self.left < 1:
            raise Unstable("the engine's own words")
        return True


@pytest.mark.parametrize(
    ("env", "cause"), [(Blows, r"tip is \[nan nan\]"), (Gives, "the engine's own words")]
)
def test_physics_that_come_to_no_number_are_no_drift(env: Any, cause: str) -> None:
    made = driven(changed(lambda a: a), env=env)
    said = (
        rf"start 1: blows's physics came to no number \({cause}\) after 0.33 s, driven by the reference; look"
    )
    assert re.match(said, made.error), made.error
    assert (made.passed, made.exit_code, len(made.starts)) == (False, 2, 1)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_no_arm_can_carry_out_is_said_in_one_line(value: float) -> None:
    def broken(actions: Array) -> Array:
        spoilt = actions.copy()
        spoilt[0, 2, 1] = value
        return spoilt

    with pytest.raises(ReflexError) as raised:
        driven(changed(broken))
    said = f"start 0: the candidate gave {value} for elbow (row 2) after 0.00 s; no arm can carry that out"
    assert str(raised.value).startswith(said)
    assert "\n" not in str(raised.value)


def test_a_later_nan_keeps_what_was_driven() -> None:
    seen: list[int] = []

    def breaks(actions: Array) -> Array:
        seen.append(0)
        # After the first start: sixteen plans without a robot, then twenty of two seconds.
        return actions * np.nan if len(seen) > 45 else actions

    made = driven(changed(breaks))
    assert len(made.starts) == 1
    assert made.exit_code == 2
    assert "the candidate gave nan" in made.error


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"starts": 0}, "starts is 0, expected a whole number of at least 1"),
        ({"execute": 2.5}, "execute is 2.5, expected a whole number"),
        ({"latency": 3}, "latency is 3, expected a whole number of at least 0 and below execute, which is 3"),
        ({"latency": "soon"}, "latency is 'soon'; give a number of control periods, or 'measured'"),
        ({"seconds": float("nan")}, "seconds is nan, expected a finite number above 0"),
        ({"hz": 0}, "hz is 0, expected a finite number above 0"),
        ({"within": -1.0}, "within is -1.0, expected a finite number above 0"),
        ({"seconds": 0.05}, "seconds is 0.05, which is 2 actions at 30 Hz; give at least 0.1"),
        ({"env": "panda-rech"}, "environment 'panda-rech' is unknown (did you mean 'panda-reach'?)"),
        ({"joints": ["elbw"]}, "joint 'elbw' is unknown (did you mean 'elbow'?)"),
    ],
)
def test_a_bad_setting_is_named(told: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError) as raised:
        driven(changed(lambda a: a), **told)
    assert str(raised.value).startswith(said)


def test_what_is_no_chunk_of_this_arm_is_refused() -> None:
    with pytest.raises(RunnerError, match=r"the candidate's actions are \[1, 5, 2\]; planar-reach takes"):
        driven(changed(lambda a: a[..., :2]))
    with pytest.raises(RunnerError, match="chunk has 2 rows, and 3 are to be carried out"):
        driven(changed(lambda a: a[:, :2]))
    with pytest.raises(InputError, match="inputs are recorded"):
        driven(changed(lambda a: a), inputs=[{"image": np.zeros(1)}])


def test_joints_that_were_named_are_judged_alone() -> None:
    def wrist_alone(actions: Array) -> Array:
        return np.concatenate([np.zeros_like(actions[..., :2]), actions[..., 2:]], axis=-1)

    def wrist_off(actions: Array) -> Array:
        return wrist_alone(actions) + np.float32([0, 0, 1e-3])

    reference = changed(wrist_alone)
    assert "joints" in driven(changed(wrist_off), reference).further
    made = driven(changed(wrist_off), reference, joints=["shoulder", "elbow"])
    assert "joints" not in made.further
    assert made.quantities[1].parts == ("shoulder", "elbow")


# --- what a side is shown --------------------------------------------------------------------------------


def test_every_side_is_shown_the_same_noise_and_each_plan_another() -> None:
    arm, observing = PlanarReach(30.0), Observing(INPUTS, 0)
    one, same, other = (observing.inputs(arm, 0, plan) for plan in (0, 0, 1))
    assert all(np.array_equal(one[name], same[name]) for name in one)
    assert {name for name in one if not np.array_equal(one[name], other[name])} == {"noise"}
    assert not np.array_equal(one["noise"], observing.inputs(arm, 1, 0)["noise"])


def test_an_input_one_last_place_off_is_just_that() -> None:
    inputs = Observing(INPUTS, 0).inputs(PlanarReach(30.0), 0, 0)
    shaken = jittered(inputs, INPUTS, 0, 0, 0)
    pictures = {spec.name for spec in INPUTS if isinstance(spec.meaning, Image)}
    for name, array in inputs.items():
        if array.dtype.kind == "f" and name not in pictures:
            assert np.array_equal(
                np.abs(shaken[name].view(np.int32) - array.view(np.int32)), np.ones(array.shape)
            )
        elif name not in pictures:
            assert np.array_equal(shaken[name], array)


@pytest.mark.parametrize("meaning", [Image(), ScaledImage(0.0, 1.0)], ids=["signed", "unsigned"])
def test_a_picture_one_last_place_off_has_one_pixel_one_level_off(meaning: Image) -> None:
    spec = InputSpec("image", (1, 3, 8, 8), meaning=meaning)
    plain = Observing([spec], 0).inputs(PlanarReach(30.0), 0, 0)
    shaken = jittered(plain, [spec], 0, 0, 0)
    levels = np.rint(255 * (shaken["image"] - plain["image"]) / np.ptp(plain["image"]))
    assert sorted(np.abs(levels).ravel())[-2:] == [0, 1]
    assert shaken["image"].min() >= plain["image"].min()
    assert shaken["image"].max() <= plain["image"].max()


def test_a_camera_becomes_what_the_input_means() -> None:
    spec = InputSpec("image", (1, 3, 8, 8), meaning=Image())
    arm = PlanarReach(30.0)
    seen = Observing([spec], 0).inputs(arm, 0, 0)["image"]
    pixels = arm.image("above", 8, 8)
    assert np.array_equal(seen[0].transpose(1, 2, 0) > 0, pixels > 0)
    assert (seen.min(), seen.max()) == (-1.0, 1.0)
    with pytest.raises(InputError, match="needs a camera more than planar-reach has"):
        Observing([spec, InputSpec("wrist", (1, 3, 8, 8), meaning=Image())], 0).inputs(arm, 0, 0)


def test_what_observe_gives_takes_the_place_of_what_is_shown() -> None:
    spec = InputSpec("state", (1, 3), meaning=State())
    given = Observing([spec], 0, lambda env: {"state": np.full((1, 3), 0.25)})
    assert given.inputs(PlanarReach(30.0), 0, 0)["state"].tolist() == [[0.25] * 3]
    wrong = Observing([spec], 0, lambda env: {"state": np.zeros(2)})
    with pytest.raises(InputError, match=r"input 'state' is \[2\]; give \[1, 3\]"):
        wrong.inputs(PlanarReach(30.0), 0, 0)


def test_a_late_chunk_begins_where_it_is() -> None:
    """Rows that were for instants that are over are left out; until the first is there the arm holds."""
    carried: list[float] = []

    class Watched(PlanarReach):
        def step(self, action: Array) -> bool:
            carried.append(float(action[0]))
            return super().step(action)

    rows = np.arange(1.0, 9.0)[None, :, None].repeat(3, axis=2) / 100
    plans = iter(range(100))

    def ask(inputs: Mapping[str, Array]) -> dict[str, Array]:
        return {"actions": rows + next(plans)}

    observing = Observing([InputSpec("state", (1, 3), meaning=State())], 0)
    drive("candidate", ask, Watched(10.0), observing, Terms(1.0, 10.0, 4, 0), 0, latency=2)
    assert carried == [0, 0, 0.03, 0.04, 0.05, 0.06, 1.03, 1.04, 1.05, 1.06]


def test_memory_holds_what_was_driven_and_no_more() -> None:
    """What is kept of a start does not hang on what its policy looked at."""
    made = driven(changed(lambda a: a), starts=1, seconds=8.0)
    assert len(made.instants) <= 121
    assert made.seen is not None
    assert all(len(row) == len(made.instants) for row in made.seen.parts["joints"])


def test_it_is_a_public_name() -> None:
    assert pytest_reflex.closed_loop.__module__ == "pytest_reflex.judge.rollout.closed_loop"
    with pytest.raises(SettingsError, match="planar-reach"):
        environment_named("none")


# --- how it shows itself ---------------------------------------------------------------------------------


def test_the_json_holds_every_figure_and_the_text_its_units(of_bundle: Any) -> None:
    made = json.loads(json.dumps(of_bundle.to_json(), allow_nan=False))
    assert (made["kind"], made["passed"], made["word"]) == ("rollout", True, "rounding")
    first = made["starts"][0]["quantities"][0]
    assert first["drifts"][CANDIDATE]["largest"] == of_bundle.starts[0].drift(CANDIDATE, "tip").largest
    assert {q["name"]: q["unit"] for q in made["quantities"]} == {"tip": "mm", "joints": "mrad"}
    text = str(of_bundle)
    assert " mm" in text
    assert " mrad" in text
    assert "3 starts could have shown no difference at all; give at least 6" in text
    assert "Open loop, the same 16 observations" in text


def test_no_difference_is_never_said_without_what_could_have_been_seen() -> None:
    many = driven(changed(lambda a: a), starts=6, seconds=1.0)
    line = next(line for line in str(many).splitlines() if line.startswith("Success"))
    assert "no difference was found; 6 starts could have shown one of 100% or more" in line


@pytest.mark.parametrize("width", [40, 60, 80])
def test_the_text_keeps_to_its_columns(of_bundle: Any, width: int) -> None:
    assert max(map(len, rollout_text(of_bundle, width).splitlines())) <= width


def test_the_page_needs_nothing_else_and_says_the_verdict(tmp_path: Path) -> None:
    made = driven(changed(FAULTS["a stale action"][0]), name="<b>stale</b>")
    page = made.page()
    assert "rollout FAIL" in page
    assert "<b>stale</b>" not in page
    assert page.count("<svg") == 3 + len(made.quantities[1].parts)
    assert "apart from" in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert made._repr_html_().startswith('<div class="reflex fragment">')


def test_every_word_has_its_sentence(of_bundle: Any) -> None:
    """Rounding, undecided, further, allowed, done by one side alone, not driven at all."""
    head = sentence(of_bundle).partition(": rounding in ")[0]
    assert sentence(of_bundle).startswith(f"{head}: rounding in 3 starts; tip ")
    undriven = replace(of_bundle, starts=(), error="start 0: it ended")
    assert sentence(undriven) == f"{head.replace('PASS', 'ERROR')}: no start was driven"
    assert rollout_text(undriven).splitlines()[1] == "Not driven to the end: start 0: it ended"
    stale = driven(changed(FAULTS["a stale action"][0]), starts=2, seconds=1.0, within=1e9)
    assert "further than rounding (" in sentence(stale)
    assert sentence(stale).endswith("; 1e+09 mm was allowed")
    many = replace(of_bundle, starts=of_bundle.starts * 8)
    assert "and 4 more, which drifted less" in rollout_text(many)
    # The candidate alone fails everywhere.
    succeeded = {CANDIDATE: False, REFERENCE: True}
    alone = replace(many, starts=tuple(replace(start, succeeded=succeeded) for start in many.starts))
    assert sentence(alone).endswith("; it does the job differently often")
    without = replace(
        many, starts=tuple(replace(start, succeeded=dict.fromkeys(succeeded)) for start in many.starts)
    )
    assert "Success: planar-reach has no task" in rollout_text(without)


def test_where_rounding_alone_is_visible_what_is_near_it_is_undecided(of_bundle: Any) -> None:
    first = of_bundle.starts[0]
    floor = {quantity.name: first.floor(quantity.name) for quantity in of_bundle.quantities}
    parted = {side: tuple(replace(one, diverged_s=0.1) for one in first.drifts[side]) for side in FLOORS}
    far = tuple(replace(one, largest=CHANCE * floor[one.quantity]) for one in first.drifts[CANDIDATE])
    chaotic = replace(first, drifts={**first.drifts, **parted, CANDIDATE: far})
    made = replace(of_bundle, starts=(chaotic, *of_bundle.starts[1:]))
    assert (made.word, made.passed) == ("undecided", False)
    assert ": undecided, for rounding alone parts the ways visibly; tip " in sentence(made)
    assert "Chaos: in 1 of 3 starts rounding alone was visible" in rollout_text(made)
    calm = replace(
        of_bundle, starts=(replace(first, drifts={**first.drifts, CANDIDATE: far}), *of_bundle.starts[1:])
    )
    assert calm.word == "further"
