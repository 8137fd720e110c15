"""``--model file.py:name`` in every command: what it takes, and what it says of what it does not take."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from bundle_cases import Reflex

from pytest_reflex.runners import RecordedRunner

pytestmark = pytest.mark.once

SCRIPT = """
import torch
from weights import SCALE
from pytest_reflex import FunctionRunner, InputSpec
from pytest_reflex.inputs import Uniform

INPUTS = [InputSpec("x", (1, 4), meaning=Uniform(-2.0, 2.0))]


class Actor(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.rand(4))

    def forward(self, x):
        return self.scale * x


def actor():
    made = Actor()
    with torch.no_grad():
        made.scale.fill_(SCALE)
    return made


def of_arrays(x):
    return x * x.dtype.type(SCALE)


ready = actor()
runner = FunctionRunner(of_arrays)
number = 3
"""


class Scaled(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.full((4,), 3.0)


class Chosen(torch.nn.Module):
    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return torch.full((4,), 3.0)[ids]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A script with what it imports beside it, and ONNX files of its policy, one of a free batch."""
    made = tmp_path_factory.mktemp("script")
    (made / "policy.py").write_text(SCRIPT)
    (made / "weights.py").write_text("SCALE = 3.0\n")
    (made / "bare.py").write_text("from policy import ready\n")
    batch = torch.export.Dim("batch")
    for name, shapes in (("actor", None), ("free", {"x": {0: batch}})):
        torch.onnx.export(
            Scaled().eval(),
            (torch.ones(2, 4) if shapes else torch.ones(1, 4),),
            made / f"{name}.onnx",
            dynamo=True,
            input_names=["x"],
            output_names=["action"],
            dynamic_shapes=shapes,
            verbose=False,
        )
    ids = torch.zeros(1, 2, dtype=torch.int64)
    torch.onnx.export(
        Chosen().eval(), (ids,), made / "ids.onnx", dynamo=True, input_names=["ids"], verbose=False
    )
    return made


@pytest.mark.parametrize("name", ["actor", "ready", "runner", "of_arrays"])
def test_an_onnx_file_is_judged_against_a_script(name: str, place: Path, here: Reflex) -> None:
    ran = here("validate", place / "actor.onnx", "--model", f"{place / 'policy.py'}:{name}", "--strict")
    assert ran.code == 0, ran.err
    assert ran.out.startswith("parity PASS: max_abs_diff 0.000e+00 is below 1.0e-05 (5 fixtures)\n")
    assert ran.out.endswith(f"Inputs: those of {place / 'policy.py'}:INPUTS; --inputs names others\n")


def test_without_inputs_beside_the_policy_they_are_as_the_graph_states_them(
    place: Path, here: Reflex
) -> None:
    ran = here("validate", place / "actor.onnx", "--model", f"{place / 'bare.py'}:ready", "--strict")
    assert ran.code == 0, ran.err
    assert ran.out.endswith(
        "Inputs: x [1, 4] float32, as the graph states them; --inputs file.py:NAME says what they stand for\n"
    )


def test_the_options_may_come_first_and_the_inputs_may_be_named(place: Path, here: Reflex) -> None:
    script = place / "policy.py"
    ran = here("validate", "--model", f"{script}:actor", "--inputs", f"{script}:INPUTS", place / "actor.onnx")
    assert ran.code == 0, ran.err
    assert "Inputs:" not in ran.out


def test_a_name_without_its_file_is_told_the_file(place: Path, here: Reflex) -> None:
    script = place / "policy.py"
    ran = here("validate", place / "actor.onnx", "--model", f"{script}:actor", "--inputs", "INPUTS")
    said = f"--inputs is 'INPUTS'; say of which file: --inputs {script}:INPUTS"
    assert (ran.code, ran.err) == (2, f"reflex: error: {said}\n")


def test_the_place_in_a_plain_file_is_not_to_be_had(place: Path, here: Reflex) -> None:
    ran = here("locate", place / "actor.onnx", "--model", "policy.py:actor")
    assert (ran.code, ran.err) == (
        2,
        f"reflex: error: {place / 'actor.onnx'} is a plain file, and only a bundle says what line of the "
        "policy its values are of; `reflex export policy.py:actor DIR` makes one, and shows whether "
        "exporting is wrong or the file\n",
    )


def test_a_free_axis_is_judged_in_several_sizes(place: Path, here: Reflex) -> None:
    ran = here("validate", "onnx", place / "free.onnx", "--model", f"{place / 'bare.py'}:ready", "--strict")
    assert ran.code == 0, ran.err + ran.out
    # Inputs of one size alone say nothing of the others.
    ran = here("validate", "onnx", place / "free.onnx", "--model", f"{place / 'policy.py'}:actor", "--strict")
    assert ran.code == 1
    assert "axis 0 of input 'x'" in ran.out


@pytest.mark.parametrize("verb", [("locate",), ("repair", "--budget", "1e-2")], ids=["locate", "repair"])
def test_a_recording_is_no_policy_to_look_into(verb: tuple[str, ...], place: Path, here: Reflex) -> None:
    ran = here(verb[0], place, *verb[1:], "--model", "seen.safetensors")
    assert ran.code == 2
    assert ran.err.startswith(
        "reflex: error: --model is 'seen.safetensors', a recording, and without the policy itself "
    )


def test_a_wrong_file_fails(place: Path, here: Reflex) -> None:
    (place / "other.py").write_text(SCRIPT.replace("from weights import SCALE", "SCALE = 2.5"))
    ran = here("validate", place / "actor.onnx", "--model", f"{place / 'other.py'}:of_arrays")
    assert (ran.code, ran.err) == (1, "")


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (
            "{}:Actor",
            "model is the class Actor, which would have other weights each time it is opened; give one of "
            "it, or a function that loads its weights",
        ),
        ("{}:aktor", "--model is '{}:aktor', and {} has no 'aktor' (did you mean 'actor'?)"),
        ("{}", "--model is '{}', a Python file; say what in it: {}:NAME"),
        ("{}:number", "model is an int; give an nn.Module or a function that returns one"),
        ("checkpoints/pi0", "--model is 'checkpoints/pi0'; give module:name or file.py:name"),
        (
            "actor.onnx",
            "--model is 'actor.onnx', a graph; give the policy, or --reference actor.onnx where it is the "
            "judge",
        ),
    ],
)
def test_what_a_name_is_that_cannot_be_taken(model: str, said: str, place: Path, here: Reflex) -> None:
    script = str(place / "policy.py")
    ran = here("validate", place / "actor.onnx", "--model", model.replace("{}", script))
    assert (ran.code, ran.err) == (2, f"reflex: error: {said.replace('{}', script)}\n")


@pytest.mark.parametrize(
    ("package", "advice"),
    [
        ("torch", "; pip install 'pytest-reflex[export]'"),
        ("transformers", "; pip install 'pytest-reflex[export]'"),
        ("lerobot", "; pip install 'pytest-reflex[lerobot]'"),
        ("scaled_servo", ""),
    ],
)
def test_a_package_that_a_script_lacks_is_named_with_its_extra(
    package: str, advice: str, place: Path, here: Reflex, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = place / f"wants_{package}.py"
    script.write_text(f"import {package}\n")
    monkeypatch.setitem(sys.modules, package, None)
    ran = here("validate", place / "actor.onnx", "--model", f"{script}:policy")
    assert (ran.code, ran.err) == (
        2,
        f"reflex: error: --model is '{script}:policy', and {script} cannot be imported: ModuleNotFoundError: "
        f"import of {package} halted; None in sys.modules{advice}\n",
    )


def test_whole_numbers_need_a_meaning(place: Path, here: Reflex) -> None:
    ran = here("validate", place / "ids.onnx", "--model", f"{place / 'bare.py'}:ready")
    assert (ran.code, ran.err) == (
        2,
        f"reflex: error: {place / 'ids.onnx'}: input 'ids' is int64 [1, 2], and the graph does not say what "
        "its numbers mean; give inputs, such as InputSpec('ids', (1, 2), 'int64', Integers(LOW, HIGH))\n",
    )


def test_a_familys_bundle_takes_a_script_too(
    bundle: Path, checkpoint: Path, tmp_path: Path, here: Reflex
) -> None:
    script = tmp_path / "mine.py"
    script.write_text(
        "from exporters import pi0\nfrom where import PLACE\n\n\ndef policy():\n    return pi0.load(PLACE)\n"
    )
    (tmp_path / "where.py").write_text(f"PLACE = {str(checkpoint)!r}\n")
    ran = here("validate", "export", bundle, "--model", f"{script}:policy", "--fixtures", 3)
    assert ran.code == 0, ran.err
    ran = here("validate", "export", bundle, "--model", script)
    assert ran.err == f"reflex: error: --model is '{script}', a Python file; say what in it: {script}:NAME\n"
    ran = here("validate", "export", bundle, "--model", bundle)
    assert ran.err == (
        f"reflex: error: --model is '{bundle}', which is a bundle; give the policy that it was made from\n"
    )


def test_a_report_is_made_of_a_directory(place: Path, tmp_path: Path, here: Reflex) -> None:
    script = f"{place / 'policy.py'}:ready"
    ran = here("validate", place / "actor.onnx", "--model", script, "--output-json")
    for name in ("one", "two"):
        (tmp_path / "shards").mkdir(exist_ok=True)
        (tmp_path / "shards" / f"{name}.json").write_text(ran.out)
    ran = here("report", tmp_path / "shards", "--out", tmp_path / "out")
    assert ran.code == 0, ran.err
    assert ran.out.count("PASS  ") == 1  # one result, whoever tells it
    again = here("report", tmp_path / "out", "--out", tmp_path / "again")
    # Written among the shards it is one of them, as long as it has what they have.
    for _ in range(2):
        assert here("report", tmp_path / "shards", "--out", tmp_path / "shards").code == 0
    (tmp_path / "shards" / "notes.json").write_text('["no document"]')
    assert here("report", tmp_path / "shards").code == 0
    newer = here("validate", place / "actor.onnx", "--model", script, "--seed", "7", "--output-json")
    (tmp_path / "shards" / "one.json").write_text(newer.out)
    stale = here("report", tmp_path / "shards", "--out", tmp_path / "shards")
    assert stale.code == 2
    assert stale.err == (
        f"reflex: error: {tmp_path / 'shards'}: its parity.json has not all that one.json beside it has; "
        "name the files that are meant, and write the report to another directory with --out\n"
    )
    lost = here("validate", place / "nowhere.onnx", "--model", script, "--output-json")
    (tmp_path / "shards" / "one.json").write_text(lost.out)
    assert here("report", tmp_path / "shards").code == 2
    assert again.out == ran.out.replace(str(tmp_path / "out"), str(tmp_path / "again"))
    (tmp_path / "empty").mkdir()
    ran = here("report", tmp_path / "empty")
    assert ran.err == (
        f"reflex: error: {tmp_path / 'empty'}: holds no parity.json and no other .json; give the directory "
        "of a report\n"
    )


OFF = """

def off():
    def run(x):
        return x * x.dtype.type(SCALE) + (x[:, 1:2] > 0.5)
    return FunctionRunner(run)

wrong = off()
"""


def test_the_simplest_failing_input_is_stored_where_it_is_asked_for(
    tmp_path: Path, place: Path, here: Reflex
) -> None:
    """And judged again from there; of a pass there is none."""
    for name in ("weights.py", "actor.onnx"):
        shutil.copy(place / name, tmp_path)
    if (place / "actor.onnx.data").is_file():
        shutil.copy(place / "actor.onnx.data", tmp_path)
    script, graph, one = (
        tmp_path / "policy.py",
        tmp_path / "actor.onnx",
        tmp_path / "found" / "one.safetensors",
    )
    script.write_text((place / "policy.py").read_text() + OFF)
    ran = here("validate", graph, "--model", f"{script}:wrong", "--simplest", one)
    assert ran.code == 1
    said = " ".join(ran.out.split())
    assert "the simplest input found that fails as fixture " in said
    assert "stored in " in said
    (inputs,) = RecordedRunner(one).recorded()
    assert np.flatnonzero(inputs["x"]).tolist() == [1]
    assert inputs["x"][0, 1] > 0.5
    assert here("validate", graph, "--model", one).code == 1
    honest = tmp_path / "none.safetensors"
    assert here("validate", graph, "--model", f"{script}:ready", "--simplest", honest).code == 0
    assert not honest.exists()
