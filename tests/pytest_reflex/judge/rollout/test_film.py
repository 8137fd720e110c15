"""The film of a closed loop: both ways of the arm and their difference, which a browser plays."""

from __future__ import annotations

import base64
import importlib.util
import io
import sys
from typing import Any

import numpy as np
import pytest
import rollout_cases
from rollout_cases import changed

from pytest_reflex import FunctionRunner, InputSpec, closed_loop
from pytest_reflex.errors import MissingPackageError
from pytest_reflex.inputs import State
from pytest_reflex.judge.rollout import film
from pytest_reflex.judge.rollout.shown import RolloutResult

pytestmark = pytest.mark.once

Array = np.ndarray[Any, Any]
SECONDS, HZ, JOINTS, STATE = 1.0, 30.0, 8, 21


def panda(off: float) -> FunctionRunner:
    """A policy of the Panda that moves by its state, and is off by so many rad from a joint's first place."""

    def run(state: Array) -> dict[str, Array]:
        row = np.tanh(0.5 * state[0, :JOINTS]) + off
        return {"actions": np.tile(row.astype(np.float32), (1, 4, 1))}

    return FunctionRunner(run, name="panda")


def filmed(off: float) -> RolloutResult:
    return closed_loop(
        panda(0.0),
        panda(off),
        inputs=[InputSpec("state", (1, STATE), meaning=State())],
        env="panda-reach",
        seconds=SECONDS,
        hz=HZ,
        starts=1,
        execute=3,
        film=True,
    )


def frames_of(data: bytes) -> list[Array]:
    import av

    with av.open(io.BytesIO(data)) as container:
        assert "webm" in container.format.name
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


@pytest.fixture(scope="module")
def apart() -> RolloutResult:
    for package in ("mujoco", "gym_hil", "av"):  # not imported: who draws says how, before
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed: pip install 'pytest-reflex[sim]'")
    return filmed(0.4)


def test_it_shows_both_ways_and_what_is_between_them(apart: RolloutResult) -> None:
    assert apart.film is not None
    shown = frames_of(apart.film)
    # Every third instant of the thirty at which an action began.
    assert len(shown) == round(SECONDS * film.FRAMES_A_SECOND)
    assert {frame.shape for frame in shown} == {(film.SIDE, 3 * film.SIDE, 3)}
    between = [float(frame[:, 2 * film.SIDE :].mean()) for frame in shown]
    assert between[0] < min(between[3:]), "they begin at one place and come apart"
    left, right = shown[-1][:, : film.SIDE], shown[-1][:, film.SIDE : 2 * film.SIDE]
    seen = np.minimum(np.abs(left.astype(np.float32) - right) * film.STRONGER, np.iinfo(np.uint8).max).mean()
    # What compression leaves of it: the panel is that difference, and no other picture.
    assert seen / 2 < between[-1] < 2 * seen


def test_the_same_ways_are_the_same_bytes(apart: RolloutResult) -> None:
    assert filmed(0.4).film == apart.film


def test_it_stands_in_the_page(apart: RolloutResult) -> None:
    assert apart.film is not None
    assert f"data:video/webm;base64,{base64.b64encode(apart.film).decode()}" in apart.page()


def test_an_arm_that_keeps_no_configuration_has_none() -> None:
    assert rollout_cases.driven(changed(lambda actions: actions), film=True).film is None


def test_without_av_it_is_one_line(apart: RolloutResult, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingPackageError, match=r"a film needs av, .*pytest-reflex\[sim\]"):
        filmed(0.4)
