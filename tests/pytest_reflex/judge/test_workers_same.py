"""What makes a worker the first process's like, without Ray: path, variables, modules, libraries."""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import pickle
import socket
import subprocess
import sys
import types
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from worker_cases import SPECS, Called, Off, plain

from pytest_reflex.errors import RunnerError
from pytest_reflex.inputs import make_fixture
from pytest_reflex.judge.workers import modules, process
from pytest_reflex.judge.workers.hands import Hands
from pytest_reflex.judge.workers.here import Here, gave
from pytest_reflex.judge.workers.sent import received, sent
from pytest_reflex.judge.workers.work import Answer, Work

pytestmark = pytest.mark.once

POLICY = """
import enum
from dataclasses import dataclass
import numpy as np

Mode = enum.Enum("Mode", "OLD NEW")

@dataclass
class Config:
    mode: Mode = Mode.NEW

@dataclass
class Held:
    model: object = None

NUMBER, WORD, NOTHING, PAIR = 1, "new", None, (1, 2.5)
ARRAY, TABLE, CONFIG, LOADED = np.arange(3), {"mode": "new"}, Config(), None
CHOSEN: object = Mode.NEW

class Policy:
    scale = 1.0

    def run(self, x):
        return helper(x) * self.scale

def helper(x, by=1):
    return [one for one in x if one in {"a", "b"}]
"""


@pytest.fixture
def policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    (tmp_path / "held_policy.py").write_text(POLICY)
    monkeypatch.syspath_prepend(tmp_path)
    return importlib.import_module("held_policy")


def named(theirs: modules.Modules, after: modules.Modules | None = None) -> str:
    return modules.other_values(modules.loaded(), theirs, theirs if after is None else after)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("NUMBER", 2),
        ("NUMBER", True),
        ("WORD", "old" * 999),
        ("NOTHING", 0),
        ("PAIR", (1, 2)),
        ("ARRAY", np.arange(3, dtype="float32")),
        ("ARRAY", np.array([0, 1, 3])),
        ("TABLE", {"mode": "old"}),
        ("CONFIG", types.SimpleNamespace(mode="old")),
        ("CHOSEN", "old"),
        ("ADDED", 1),
        ("Policy.scale", 2.0),
        ("Policy.run", lambda self, x: x),
        ("helper", lambda x, by=2: [one for one in x if one in {"a", "b"}]),
        ("helper", plain),
    ],
)
def test_another_value_in_a_module_is_named(policy: ModuleType, monkeypatch, name: str, value) -> None:
    before = modules.loaded()
    assert named(before) == ""
    place, _, last = name.rpartition(".")
    monkeypatch.setattr(getattr(policy, place) if place else policy, last, value, raising=False)
    said = named(before)
    assert said.startswith(f"held_policy.{name} is ")
    assert said.endswith("--workers 1")
    assert len(said) < 500 + len(policy.__file__)


def test_what_is_made_when_something_runs_is_no_other_value(policy: ModuleType, monkeypatch) -> None:
    fresh = modules.loaded()
    policy.LOADED = object()  # as a model that is loaded once
    assert named(fresh) == ""
    policy.LOADED = 5  # a worker has it as soon as it runs
    assert "held_policy.LOADED is None there and 5 here" in named(fresh)
    assert named(fresh, modules.loaded()) == ""
    ran = modules.loaded()
    policy.LOADED = None  # and here nothing has run yet
    assert named(fresh, ran) == ""


def test_the_same_module_is_the_same_in_another_process(policy: ModuleType) -> None:
    """Sets of words have another order in each, and classes another place in memory."""
    held = modules.loaded()["held_policy"].held
    code = (
        "import held_policy, json; from pytest_reflex.judge.workers.modules import loaded;"
        "print(json.dumps(loaded()['held_policy'].held))"
    )
    for seed in "12":
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONHASHSEED": seed}
        told = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, check=True)
        assert json.loads(told.stdout) == held


def test_a_function_whose_asserts_pytest_wrote_anew_is_no_other(policy: ModuleType) -> None:
    def rewritten(x):
        def within():
            assert x, "only this module's asserts are written anew"

        return within

    rewritten.__module__ = "held_policy"
    before = modules.loaded()
    policy.helper = rewritten
    assert named(before) == ""
    policy.helper = 1
    assert "held_policy.helper is not there what it is here" in named(before)


def test_another_file_is_named_with_both_and_the_same_elsewhere_is_not(policy: ModuleType) -> None:
    ours = modules.loaded()
    one = ours["held_policy"]
    there = {"held_policy": dataclasses.replace(one, file="/elsewhere/held_policy.py")}
    assert modules.other_files(ours, there) == ""
    there = {"held_policy": dataclasses.replace(there["held_policy"], sha256="0")}
    said = modules.other_files(ours, there)
    assert said.startswith(f"module held_policy is /elsewhere/held_policy.py there and {one.file} here")
    assert f"have what is in {Path(one.file).parent} there too" in said


def test_installed_modules_are_compared_where_they_are_named_alone() -> None:
    assert "numpy" not in modules.loaded()
    assert modules.loaded({"numpy"})["numpy"].held == {}


@pytest.mark.parametrize("here", [True, False])
def test_a_worker_has_the_first_process_s_variables_but_for_ray_s(monkeypatch, here: bool) -> None:
    monkeypatch.setattr(os, "environ", {"RAY_JOB_ID": "1", "HOME": "/there", "GONE": "1", "OTHER": "old"})
    host = socket.gethostname() if here else "elsewhere"
    process.set_environment({"HOME": "/here", "OTHER": "new", "SET": "1", "RAY_JOB_ID": "2"}, host)
    home = "/here" if here else "/there"
    assert os.environ == {"RAY_JOB_ID": "1", "HOME": home, "OTHER": "new", "SET": "1"}
    os.environ["REFLEX_KEY_PASSWORD"] = "secret"
    assert process.carried() == {"HOME": home, "OTHER": "new", "SET": "1"}, "nor has it the key's password"


def test_what_cannot_be_set_as_it_is_there_is_refused() -> None:
    import torch

    here = Here.of_this_process()
    assert not here.set_libraries()
    assert here.torch["get_default_dtype"] == "float32"
    other = dataclasses.replace(here, torch={**here.torch, "get_num_interop_threads": -7})
    with pytest.raises(
        RunnerError, match=r"torch get_num_interop_threads is \d+ there and -7 here.*--workers"
    ):
        other.set_libraries()
    other = dataclasses.replace(here, torch={**here.torch, "get_default_dtype": "float64"}, flushes=True)
    try:
        assert other.set_libraries()
        assert torch.get_default_dtype() == torch.float64
        assert process.flushes_denormals()
    finally:
        assert here.set_libraries()
    assert not process.flushes_denormals()


def place(path: list[str], here: Here) -> tuple[Hands, str]:
    hands = Hands()
    return hands, hands.place(path, pickle.dumps(here))[1]


@pytest.fixture
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray's store, as a list of what lies in it."""
    ray = pytest.importorskip("ray", reason="needs Ray, the extra [ray]")
    monkeypatch.setattr(ray, "get", lambda given: given)


def work(candidate, own: int = 3) -> Work:
    sides = Called(plain, name="r"), candidate
    return Work(*sides, lambda idx: make_fixture(SPECS, 0, idx), SPECS, False, own)


def test_a_worker_finds_modules_in_the_first_process_s_order(monkeypatch: pytest.MonkeyPatch) -> None:
    here = Here.of_this_process()
    ours = [*sys.path]
    monkeypatch.setattr(sys, "path", ["/of/ray", *reversed(ours)])
    assert place(ours, here)[1] == ""
    assert sys.path == [*ours, "/of/ray"]


def test_hands_say_why_they_cannot_be_a_worker_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    here = Here.of_this_process()
    assert "0.0.1 here" in place(sys.path, dataclasses.replace(here, version="0.0.1"))[1]
    assert Hands().place(sys.path, b"no pickle")[1]


def test_hands_hold_both_sides_and_judge(no_ray, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    hands, wrong = place(sys.path, Here.of_this_process())
    assert wrong == ""
    sides = hands.hold(*sent(work(Called(Off(2, far=None), name="c"))))
    first = [gave(plain(**make_fixture(SPECS, 0, idx))) for idx in range(3)]
    assert [*sides[0].digests] == first
    assert [one.startswith("failed: ValueError") for one in sides[1].digests] == [False, False, True]
    answer = hands.judge(7)
    assert isinstance(answer, Answer)
    assert gave(answer.reference) == gave(plain(**make_fixture(SPECS, 0, 7)))


def test_hands_say_why_they_cannot_hold(no_ray, policy: ModuleType, monkeypatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    hands, _ = place(sys.path, Here.of_this_process())

    class Shut(Called):
        def open(self):
            raise OSError("no such checkpoint")

    assert hands.hold(*sent(work(Shut(plain)))) == "OSError: no such checkpoint"
    given = sent(work(Called(policy.helper)))
    monkeypatch.setattr(policy, "NUMBER", 2)
    assert "held_policy.NUMBER is 2 there and 1 here" in hands.hold(*given)
    monkeypatch.delattr(policy, "helper")
    said = hands.hold(*given)
    assert "what is judged cannot be loaded there" in said
    assert "helper" in said
    Path(policy.__file__).write_text("NUMBER = 1\n")
    assert hands.hold(*given).startswith(f"module held_policy is {policy.__file__} there and ")


def test_large_parameters_are_read_where_they_lie(no_ray) -> None:
    import torch

    large = torch.nn.Parameter(torch.arange(1 << 15, dtype=torch.float16).reshape(128, -1))
    frozen = torch.nn.Parameter(torch.ones(1 << 15), requires_grad=False)
    small = torch.nn.Parameter(torch.ones(3))
    given = Called(plain, name="c", one=large, tied=large, frozen=frozen, small=small)
    parts, weights = sent(work(given))
    assert [array.nbytes for array in weights] == [1 << 16, 1 << 17]
    # Beside what this process has loaded, which is sent in any case.
    bare, _ = sent(work(Called(plain, name="c", small=small)))
    assert len(parts) - len(bare) < large.nbytes
    held = received(parts, weights)[0].candidate.given
    assert held["one"] is held["tied"]
    assert held["one"].data_ptr() == weights[0].ctypes.data
    for name, one in given.given.items():
        if name != "name":
            assert torch.equal(held[name], one)
            assert held[name].requires_grad == one.requires_grad
            assert held[name].dtype == one.dtype
