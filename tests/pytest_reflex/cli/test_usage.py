"""Options that contradict each other: one line that says which to leave away, before anything is opened."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from bundle_cases import Reflex

from pytest_reflex.cli.reference import is_script

pytestmark = pytest.mark.once

REFERENCE = ("validate", "export", "b", "--reference", "g.onnx")
ROLLOUT = ("rollout", "b", "--model", "arm.py:policy", "--env", "planar-reach")


@pytest.fixture
def refused(here: Reflex) -> Callable[..., str]:
    def run(*arguments: str) -> str:
        ran = here(*arguments)
        assert (ran.code, ran.out) == (2, "")
        return ran.err

    return run


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ("certify", "b", "--key", "k", "--verify", "--result", "r"),
            "--result was given, and --verify takes what was certified",
        ),
        (("certify", "b", "--key", "k", "--key", "l"), "--key was given twice, and one key signs"),
        ((*REFERENCE, "--episodes", "e"), "--episodes was given, and with --reference fixtures are drawn"),
        ((*REFERENCE, "--processors"), "--processors was given, and a graph that is the judge has none"),
        ((*REFERENCE, "--steps", "3"), "--steps was given, and a graph that is the judge takes its own"),
        (
            ("validate", "a.onnx", "--reference", "g.onnx", "--episodes", "e"),
            "--episodes was given, and with --reference fixtures are drawn",
        ),
        (
            ("init", "checkpoint", "--inputs", "SPECS"),
            "--inputs was given, and a checkpoint says itself what it reads; leave it out",
        ),
        (
            ("rollout", "ws://localhost:1", *ROLLOUT[2:], "--runtime", "openvino"),
            "ws://localhost:1 is served, and its server says on what; leave --runtime away",
        ),
        (
            (*ROLLOUT, "--latency", "now"),
            "invalid value for '--latency': 'now' is no latency; give a number of control periods, "
            "or measured",
        ),
        (
            ("locate", "b", "--model", "arm.py:policy", "--runtime", "ort"),
            "--model was given, and with --runtime PyTorch is not asked",
        ),
        (("locate", "b"), "missing option '--model', or '--runtime'"),
    ],
)
def test_what_contradicts_itself_is_one_line(
    arguments: tuple[str, ...], said: str, refused: Callable[..., str]
) -> None:
    err = refused(*arguments)
    assert err.startswith(f"reflex: error: {said}; see `reflex ")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ("validate", "arm.py:policy", "--model", "b"),
            "'arm.py:policy' is a policy; give first what is judged, and it by --model arm.py:policy",
        ),
        (
            ("validate", "export", "b", "arm.py:policy"),
            "got unexpected extra argument (arm.py:policy); a policy is given by --model arm.py:policy",
        ),
        (
            ("locate", "b", "arm.py:policy"),
            "got unexpected extra argument (arm.py:policy); a policy is given by --model arm.py:policy",
        ),
    ],
)
def test_a_policy_in_the_place_of_what_is_judged_is_told_its_own(
    arguments: tuple[str, ...], said: str, refused: Callable[..., str]
) -> None:
    assert refused(*arguments).startswith(f"reflex: error: {said}; see `reflex ")


def test_a_server_is_no_policy(refused: Callable[..., str]) -> None:
    said = refused("validate", "ws://localhost:1", "--model", "arm.py:policy")
    assert "is a policy" not in said
    assert not is_script("ws://localhost:1")
    assert "is a policy" not in refused("validate", "--model=arm.py:policy", "b")


@pytest.mark.parametrize(
    ("arguments", "page"),
    [
        (("init", "--bundle"), "reflex init"),
        (("validate", "export", "b", "--model"), "reflex validate export"),
        (("--model",), "reflex"),
    ],
)
def test_an_option_without_its_argument_names_its_own_page(
    arguments: tuple[str, ...], page: str, refused: Callable[..., str]
) -> None:
    assert refused(*arguments).endswith(f"; see `{page} -h`\n")
