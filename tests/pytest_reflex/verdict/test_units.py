"""Thresholds in a robot's units: what they are in an output's own, element by element."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from pytest_reflex import InputSpec, ParityResult, check, settings
from pytest_reflex.errors import SettingsError
from pytest_reflex.report.json.documents import document, read_run, schema
from pytest_reflex.report.rejudge import rejudge
from pytest_reflex.runners import FunctionRunner
from pytest_reflex.verdict.tolerances import STRICT_THRESHOLD
from pytest_reflex.verdict.units import Amount, InUnits, Units, unit_named, units_of

OFF = np.float32([0.001, 0.0005, 0.02])


def actions(x: np.ndarray) -> np.ndarray:
    return np.tile(x, (1, 4, 1))


class Arm(FunctionRunner):
    """A candidate that is off by :data:`OFF`, and says what its actions are on the robot."""

    def __init__(self, units: InUnits | None = None) -> None:
        super().__init__(lambda x: {"actions": actions(x) + OFF}, name="arm")
        if units is not None:
            self.robot_units = {"actions": units}


def judged(threshold: Any, units: Any = None, said: InUnits | None = None, **more: Any) -> ParityResult:
    reference = FunctionRunner(lambda x: {"actions": actions(x)}, name="policy")
    inputs = [InputSpec("x", (1, 1, 3))]
    return check(reference, Arm(said), inputs=inputs, threshold=threshold, units=units, fixtures=3, **more)


@pytest.mark.parametrize(
    ("threshold", "units", "passes"),
    [
        ("0.03 deg", "deg", True),
        ("0.01 deg", "deg", False),
        ("0.0006 rad", "deg", True),
        ("0.0001 rad", "deg", False),
        ("1 deg", "rad", False),
        ("2 deg", "rad", True),
        ("21 mm", "m", True),
        ("0.019 metres", "m", False),
        ("0.002 deg and 0.03 %", "deg, 2=%", True),
        ("0.002 deg and 0.01 %", "deg, 2=percent", False),
        ("0.0009 degrees and 0.03 %", {"": "deg", "2": "%"}, False),
        ("0.03 units", "deg, 2=%", True),
        ("0.03 units", None, None),
        ({"actions": "0.03 deg"}, "deg", True),
        ("actions=0.01 deg", "deg", False),
    ],
)
def test_an_error_is_held_against_a_threshold_in_the_robots_units(
    threshold: Any, units: Any, passes: bool | None
) -> None:
    if passes is None:
        with pytest.raises(SettingsError, match="nobody says in which unit that is; say units='deg'"):
            judged(threshold, units)
        return
    result = judged(threshold, units)
    assert result.passed is passes, str(result)
    assert ParityResult.from_json(result.to_json()) == result
    # What is stored is judged again as if it were run again.
    for other in ("0.03 deg and 0.03 % and 30 mm", "0.0001 deg and 1 % and 1 mm"):
        again = rejudge(judged("1 units", units), threshold=other)
        assert again == judged(other, units)


def test_each_element_has_a_factor_of_its_own() -> None:
    said = InUnits(("deg", "deg", "%"), (10.0, -100.0, 0.5), ("shoulder", "elbow", "gripper"))
    result = judged("0.04 deg and 0.02 %", said=said)
    assert not result.passed
    (first, *_) = str(result).splitlines()
    assert "max_abs_diff 5.000e-02 deg of elbow is not below 4.0e-02 deg" in first
    text = str(judged("0.06 deg and 0.02 %", said=said))
    assert "max_abs_diff 5.000e-02 deg of elbow is below 6.0e-02 deg" in text.splitlines()[0]
    assert "In the robot's units\nactions, largest of any fixture" in text
    (gripper,) = [line.split() for line in text.splitlines() if line.split()[:1] == ["gripper"]]
    assert [gripper[2], float(gripper[4])] == ["%", 0.02]
    assert "actions by chunk step, fixture " in text


def test_a_figure_that_is_in_the_robots_unit_itself_is_shown_once() -> None:
    header = "element  max_abs_diff  unit  below"
    text = str(judged("0.04 deg and 0.04 %", said=InUnits(("deg", "deg", "%"), (1.0,) * 3)))
    assert [line.rstrip() for line in text.splitlines()].count(header) == 1
    assert "in its unit" not in text.partition("by chunk step")[0]
    scaled = str(judged("0.04 deg and 0.04 %", said=InUnits(("deg", "deg", "%"), (1.0, 2.0, 1.0))))
    assert header not in scaled
    assert "in its unit" in scaled.partition("by chunk step")[0]


def test_what_pads_a_policys_actions_is_held_to_the_strictest() -> None:
    said = InUnits(("deg", "deg"), (10.0, 1.0))
    assert judged("0.3 deg", said=said).passed
    assert not judged("0.1 deg", said=said).passed, "the padding is off by 0.02, and 0.1 deg is 0.01 of it"


@pytest.mark.parametrize(
    ("threshold", "units", "message"),
    [
        ("0.01 deg", "deg, 2=%", "says nothing of actions's element 2, which is in %; say that too"),
        ("0.01 mm", "deg", "says nothing of actions's element 0, which is in deg"),
        ("0.01 deg", "1=deg", "nobody says in which unit its element 0 is"),
        ("0.01 deg", "deg, wrist=%", "units: there is no element 'wrist' of an action; there are 0 to 2"),
        ("1e-3 furlong", "deg", "'1e-3 furlong' is not a threshold"),
        ("-1 deg", "deg", "'-1 deg' in '-1 deg' is not a threshold in a unit; give a finite number above 0"),
        ("1 deg and 1 rad", "deg", "has two thresholds for one angle"),
        ("1 deg", "inch", "units: 'inch' says 'inch'; give one of rad, deg, m, mm, %"),
        ("1 deg", "deg, 1=%, 1=deg", "gives '1' two units"),
        ("1 deg", {}, "says no unit"),
    ],
)
def test_what_is_not_said_is_one_line(threshold: str, units: Any, message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        judged(threshold, units)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_strict_does_not_lower_what_is_in_a_robots_unit() -> None:
    assert judged("0.03 deg", "deg", strict=True).fixtures[0].passed
    wide = judged("300 deg", "deg", strict=True)
    assert [answer.gate for answer in wide.answers if not answer.passed] == ["power"]


def test_strict_lowers_no_floor_of_what_is_in_a_robots_unit() -> None:
    asked = settings.threshold("2x floor")
    floor: Any = SimpleNamespace(unit=0.25)
    told: Any = {"strict": True, "floor": floor}
    assert asked.bound("action", **told, seen=(InUnits(("deg",), (1.0,)), (0.0,))) == 2 * floor.unit
    # What a policy gives has a factor between it and the robot, or no unit at all.
    for seen in ((InUnits(("deg",), (3.0,)), (0.0,)), None):
        assert asked.bound("actions", **told, seen=seen) == STRICT_THRESHOLD


def test_a_unit_that_contradicts_the_candidates_is_refused() -> None:
    said = {"action": InUnits(("rad", ""), (1.0, 1.0), ("elbow", "gripper"))}
    found = units_of(said, settings.units("rad, gripper=%"), "action", (1, 2))
    assert found is not None
    assert found.units == ("rad", "%")
    with pytest.raises(SettingsError, match="action's element elbow is in rad, as the bundle says, and deg"):
        units_of(said, settings.units("deg"), "action", (1, 2))


def test_a_nan_is_below_no_threshold() -> None:
    said = InUnits(("deg", "deg"), (1.0, 1.0))
    assert said.bound(Amount(1.0, unit="deg"), "actions", (0.5, math.nan)) == 1.0
    mixed = InUnits(("deg", "%"), (1.0, 1.0))
    asked = Amount(1.0, unit="deg", also=(Amount(2.0, unit="%"),))
    assert mixed.bound(asked, "actions", (0.5, math.nan)) == 0.0


def test_the_document_keeps_to_its_schema() -> None:
    import jsonschema

    jsonschema.validate(document([judged("0.03 deg and 1 %", "deg, 2=%")]), schema())


def test_words() -> None:
    assert [unit_named(word) for word in ("Degrees", "mm", "metre", "feet", 3)] == [
        "deg",
        "mm",
        "m",
        None,
        None,
    ]
    assert settings.units("deg, gripper.pos=%") == Units("deg", {"gripper.pos": "%"})
    assert str(settings.threshold("0.010 degrees and 1 mm").rest) == "0.01 deg and 1 mm"
    assert settings.threshold(settings.threshold("1 deg and 1 mm")) == settings.threshold("1 deg and 1 mm")
    assert settings.threshold("0.010 degrees and 1 mm").rest.in_words == "0.01 deg and 1 mm"
    own = settings.threshold("0.001 units")
    assert (str(own.rest), own.text) == ("0.001 units", "0.001 in each element's own unit")


def test_what_is_in_its_unit_already_has_one_column_of_figures() -> None:
    text = str(judged("0.03 deg and 1 %", "deg, 2=%"))
    assert "element  max_abs_diff  unit  below" in text
    assert "in its unit  unit  max_abs_diff" not in text


def test_a_document_from_before_units_is_read(tmp_path: Path) -> None:
    made = document([judged("0.03 units", "deg")])
    assert read_run(_written(tmp_path, made)).results[0].result.units
    (entry,) = document([judged(1.0)])["results"]
    assert "units" not in entry
    before = {**made, "schema_version": 5, "results": [entry]}
    assert read_run(_written(tmp_path, before)).results[0].result == judged(1.0)


def _written(place: Path, made: dict[str, Any]) -> Path:
    (place / "parity.json").write_text(json.dumps(made), encoding="utf-8")
    return place / "parity.json"
