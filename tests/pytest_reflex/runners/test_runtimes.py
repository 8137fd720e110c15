"""What opens a graph besides ONNX Runtime: OpenVINO, onnx's own evaluator, and what others bring."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from floors import require_rounding
from onnx import numpy_helper
from torch import nn

import exporters
from exporters.bundles import Bundle
from pytest_reflex import InputSpec, TorchRunner, check
from pytest_reflex.errors import RunnerError
from pytest_reflex.inputs import Gaussian, Integers, make_fixture
from pytest_reflex.judge.simplest import simplified
from pytest_reflex.runners.evaluator import EvaluatorRunner
from pytest_reflex.runners.openvino import OpenVinoRunner
from pytest_reflex.runners.runtimes import GROUP, runtime_named, runtimes

INPUTS = [InputSpec("seen", (2, 16), meaning=Gaussian()), InputSpec("told", (2,), "int64", Integers(0, 8))]
OTHERS = ("openvino", "evaluator")


class Net(nn.Module):
    """Wide enough that a narrower precision shows, with an input of whole numbers."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.words, self.see = nn.Embedding(8, 16), nn.Linear(16, 64)
        self.say, self.norm = nn.Linear(64, 4), nn.LayerNorm(64)

    def forward(self, seen: torch.Tensor, told: torch.Tensor) -> dict[str, torch.Tensor]:
        held = torch.tanh(self.norm(self.see(seen + self.words(told))))
        return {"actions": self.say(held), "sure": torch.sigmoid(held.mean(-1))}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return exporters.export(Net().eval(), tmp_path_factory.mktemp("net") / "b", inputs=INPUTS)


@pytest.fixture
def graph(bundle: Bundle) -> Path:
    return bundle.path / "model.onnx"


@pytest.mark.parametrize("runtime", OTHERS)
def test_a_bundle_is_judged_on_another_runtime(runtime: str, bundle: Bundle) -> None:
    # Of eight values a fixture PyTorch's largest error in five would be luck.
    result = check(Net().eval(), bundle.on(runtime), strict=True, floor=True, fixtures=100)
    require_rounding(result)
    assert result.candidate["runtime"] == runtime
    assert result.candidate["sha256"]["model.onnx"] == bundle.stated.files["model.onnx"]["sha256"]


@pytest.mark.parametrize("runtime", OTHERS)
def test_a_wrong_graph_fails_there_too(runtime: str, bundle: Bundle, tmp_path: Path) -> None:
    model = onnx.load(bundle.path / "model.onnx")
    wrong = next(t for t in model.graph.initializer if list(t.dims) in ([16, 64], [64, 16]))
    wrong.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(wrong) * np.float32(1.01), wrong.name))
    onnx.save(model, tmp_path / "m.onnx")
    runner = runtime_named(runtime)(tmp_path / "m.onnx")
    result = check(TorchRunner(Net().eval()), runner, inputs=INPUTS)
    assert {answer.gate for _, answer in result.refusals} == {"threshold"}


@pytest.mark.parametrize("runtime", OTHERS)
def test_a_fail_there_has_its_simplest_input_too(runtime: str, bundle: Bundle) -> None:
    other = Net().eval()
    with torch.no_grad():
        other.say.weight *= 1.5
    result = check(other, bundle.on(runtime))
    noted = simplified(result, other, bundle.on(runtime), seconds=30)
    assert noted.notes[-1].startswith("the simplest input found that fails as fixture ")


def test_openvino_says_what_it_ran_in(graph: Path) -> None:
    with OpenVinoRunner(graph) as runner:
        assert (runner.inputs, runner.outputs) == (("seen", "told"), ("actions", "sure"))
        assert runner.providers_used == (runner.provider_asked,) == ("OpenVINO CPU in float32",)


def test_a_precision_that_openvino_does_not_honour_is_refused_by_name(graph: Path) -> None:
    """A CPU has bfloat16, or float32 alone; asked for float16 it takes one of these and says nothing."""
    runner = OpenVinoRunner(graph, precision="float16")
    result = check(TorchRunner(Net().eval()), runner, inputs=INPUTS, threshold=1.0)
    if runner.providers_used == ("OpenVINO CPU in float16",):  # one that has it runs in it, and says so
        assert result.passed
        return
    gates = {answer.gate: answer.said for _, answer in result.refusals}
    assert list(gates) == ["provider"]
    assert "OpenVINO CPU in float16" in gates["provider"]
    assert "bfloat16 in" in gates["provider"] or "float32 in" in gates["provider"]


def test_a_device_that_is_not_there_is_named(graph: Path) -> None:
    with pytest.raises(RunnerError, match=r"OpenVINO has no device 'NPU' here; there is .*CPU"):
        OpenVinoRunner(graph, device="NPU").open()


@pytest.mark.parametrize("runtime", ["openvino", "evaluator", "onnxruntime"])
def test_what_cannot_be_opened_is_one_line(runtime: str, tmp_path: Path) -> None:
    opener = runtime_named(runtime)
    with pytest.raises(RunnerError, match=r"nowhere\.onnx does not exist"):
        opener(tmp_path / "nowhere.onnx").open()
    (tmp_path / "no.onnx").write_bytes(b"this is no graph")
    with pytest.raises(RunnerError) as caught:
        opener(tmp_path / "no.onnx").open()
    assert "\n" not in str(caught.value)
    assert "no.onnx" in str(caught.value)


@pytest.mark.parametrize("runtime", OTHERS)
def test_inputs_that_are_not_the_graph_s_are_refused(runtime: str, graph: Path) -> None:
    inputs = make_fixture(INPUTS, 0, 0)
    with runtime_named(runtime)(graph) as runner:  # type: ignore[attr-defined]
        runner.run(inputs)
        with pytest.raises(RunnerError, match="told"):
            runner.run({"seen": inputs["seen"]})
    with pytest.raises(RunnerError, match="is not open"):
        runner.run(inputs)


@pytest.mark.parametrize("runtime", OTHERS)
def test_a_file_that_is_written_to_meanwhile_is_refused(runtime: str, bundle: Bundle, tmp_path: Path) -> None:
    data = (bundle.path / "model.onnx").read_bytes()
    (tmp_path / "m.onnx").write_bytes(data)
    shutil.copy(bundle.path / "model.onnx.data", tmp_path)
    runner: Any = runtime_named(runtime)(tmp_path / "m.onnx")

    class Writes(type(runner)):  # type: ignore[misc]
        def run(self, inputs: Any) -> Any:
            (tmp_path / "m.onnx").write_bytes(data + b"\0\0")
            return super().run(inputs)

    runner.__class__ = Writes
    result = check(TorchRunner(Net().eval()), runner, inputs=INPUTS)
    assert "intact" in {answer.gate for _, answer in result.refusals}


@pytest.mark.parametrize("runtime", OTHERS)
def test_another_runtime_is_no_reference(runtime: str, bundle: Bundle) -> None:
    opened = runtime_named(runtime)(bundle.path / "model.onnx")
    result = check(opened, bundle.runner(), inputs=INPUTS)
    assert not result.passed
    assert "reference" in {answer.gate for _, answer in result.refusals}


def test_a_provider_of_onnx_runtime_is_none_of_another(bundle: Bundle) -> None:
    with pytest.raises(RunnerError, match="provider is 'cuda', which is one of ONNX Runtime's"):
        bundle.on("openvino").runner("cuda")


def test_a_name_that_nobody_has() -> None:
    with pytest.raises(RunnerError, match=r"no runtime is named 'openvin' \(did you mean 'openvino'\?\)"):
        runtime_named("openvin")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Installs a distribution that brings a runtime."""
    place = tmp_path / "site"
    place.mkdir()
    monkeypatch.syspath_prepend(str(place))

    def install(name: str, line: str) -> None:
        info = place / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[{GROUP}]\n{line}\n")

    (place / "brought_runtime.py").write_text(
        "from pytest_reflex.runners import OnnxRunner\n\n\n"
        "class Brought(OnnxRunner):\n"
        "    def __init__(self, model, *, threads=None, name=None):\n"
        "        super().__init__(model, threads=threads, name=name)\n"
    )
    return install


def test_another_distribution_brings_a_runtime(site: Callable[[str, str], None], bundle: Bundle) -> None:
    site("brought", "brought = brought_runtime:Brought")
    assert "brought" in runtimes()
    result = check(Net().eval(), bundle.on("brought"), strict=True)
    assert result.passed, str(result)
    assert type(bundle.on("brought").runner().sessions["model"]).__name__ == "Brought"


def test_a_runtime_that_cannot_be_imported_or_is_there_twice(site: Callable[[str, str], None]) -> None:
    site("broken", "broken = brought_runtime:Nothing")
    with pytest.raises(RunnerError, match=r"'broken' is brought_runtime:Nothing, which cannot be imported"):
        runtime_named("broken")
    site("one", "twice = brought_runtime:Brought")
    site("two", "twice = brought_runtime:Other")
    with pytest.raises(RunnerError, match="'twice' is installed twice"):
        runtime_named("twice")


def test_the_evaluator_gives_what_the_graph_says_without_a_runtime(graph: Path) -> None:
    inputs = make_fixture(INPUTS, 0, 0)
    with EvaluatorRunner(graph) as one, runtime_named("ort")(graph) as other:  # type: ignore[attr-defined]
        mine, theirs = one.run(inputs), other.run(inputs)
    assert mine.keys() == theirs.keys()
    assert all(mine[name].dtype == theirs[name].dtype == np.float32 for name in mine)
