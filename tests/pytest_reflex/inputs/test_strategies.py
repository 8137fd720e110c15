"""What hypothesis draws keeps to the specifications, and what fails shrinks to what matters alone."""

from __future__ import annotations

import builtins

import numpy as np
import pytest
from hypothesis import HealthCheck, find, given, settings
from observation_cases import PROMPT, seven

import pytest_reflex as reflex
from pytest_reflex.errors import InputError, MissingPackageError
from pytest_reflex.inputs import make_fixture
from pytest_reflex.inputs.strategies import rest

pytestmark = pytest.mark.once

SEVEN = seven("float16")
# Each example is quick, but the first of all waits for hypothesis' own imports.
plainly = settings(max_examples=40, deadline=None, database=None, suppress_health_check=[*HealthCheck])


@plainly
@given(reflex.observations(SEVEN))
def test_every_observation_keeps_to_its_specifications(found):
    assert list(found) == [spec.name for spec in SEVEN]
    for spec in SEVEN:
        array = found[spec.name]
        assert (array.shape, array.dtype.name) == (spec.shape, spec.dtype)
        assert np.isfinite(array).all()
    assert np.abs(found["image"]).max() <= 1
    assert 0.25 <= found["scaled"].min() <= found["scaled"].max() <= 1
    assert 0.5 <= found["time"].item() <= 2
    assert 3 <= found["arm"].item() <= 8


@plainly
@given(reflex.observations(PROMPT, seed=3))
def test_inputs_that_hang_on_each_other_are_those_of_one_fixture(found):
    drawn = [make_fixture(PROMPT, 3, idx) for idx in range(256)]
    names = ("cameras", "mask", "tokens")
    assert any(all((one[name] == found[name]).all() for name in names) for one in drawn)


@pytest.mark.parametrize(
    ("name", "fails"),
    [
        ("state", lambda found: found["state"][0, 3] > 0.5),
        ("gripper", lambda found: found["gripper"][0, 1]),
        ("arm", lambda found: found["arm"][0] == 7),
        ("scaled", lambda found: found["scaled"].max() > 0.75),
    ],
)
def test_a_failing_policy_shrinks_to_the_input_that_breaks_it(name, fails):
    found = find(
        reflex.observations(SEVEN),
        lambda one: bool(fails(one)),
        settings=settings(max_examples=2000, deadline=None, database=None, derandomize=True),
    )
    assert fails(found)
    moved = {
        spec.name for spec in SEVEN if not (found[spec.name] == np.dtype(spec.dtype).type(rest(spec))).all()
    }
    assert moved == {name}
    kept = next(spec for spec in SEVEN if spec.name == name)
    assert (found[name] != np.dtype(kept.dtype).type(rest(kept))).sum() == 1


def test_at_rest_is_what_is_nearest_to_nothing():
    assert [rest(spec) for spec in SEVEN] == [0.0, 0.25, 0.0, False, 3, 0.5, 1.0]
    assert rest(PROMPT[1]) is None


def test_specifications_have_to_fit_together():
    with pytest.raises(InputError, match="needs 'cameras' before it"):
        reflex.observations(PROMPT[1:])


def test_without_hypothesis_it_says_so(monkeypatch):
    plain = builtins.__import__

    def missing(name, *rest):
        if name.startswith("hypothesis"):
            raise ModuleNotFoundError(name)
        return plain(name, *rest)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(MissingPackageError, match="pip install hypothesis"):
        reflex.observations(SEVEN)
