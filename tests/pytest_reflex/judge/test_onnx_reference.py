"""ONNX against ONNX, where it is said so: a verdict of another kind, on every face of the report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import toy_transformer
from onnx import version_converter

import exporters
from exporters.bundle.manifest import write_manifest
from exporters.bundles import open_bundle
from exporters.serving.service import prepared
from pytest_reflex import OnnxReference, OnnxRunner, ParityResult, ReflexError, check
from pytest_reflex.cli import main
from pytest_reflex.errors import BundleError, RunnerError
from pytest_reflex.report.html.pages import page
from pytest_reflex.report.json import schema
from pytest_reflex.report.json.documents import Entry, Run, document
from pytest_reflex.report.markdown import markdown
from pytest_reflex.report.rejudge import rejudge
from pytest_reflex.report.text.summary import summary_lines
from pytest_reflex.report.text.terminal import headline
from pytest_reflex.runners import RecordedRunner, TorchRunner

pytestmark = pytest.mark.once

SPECS = toy_transformer.inputs()
STEPS = 3


def exported(out: Path, **more: Any) -> exporters.Export:
    policy = toy_transformer.Toy().eval()
    options = {"inputs": SPECS, "steps": STEPS, "threshold": 0.05, **more}
    return exporters.export(policy, out, **options)


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same policy in float32, in int8, and through a converter of opsets."""
    place = tmp_path_factory.mktemp("graphs")
    for precision in ("float32", "float16", "int8"):
        exported(place / precision, precision=precision, fixtures=3)
    exported(place / "stepwise", layout="stepwise", fixtures=3)
    model = onnx.load(place / "float32" / "model.onnx")
    newer = version_converter.convert_version(model, model.opset_import[0].version + 1)
    onnx.save(newer, place / "newer.onnx")
    return {path.stem: path for path in place.iterdir()}


def judged(bundles: dict[str, Path], reference: str, candidate: str, **options: Any) -> ParityResult:
    def opened(name: str) -> Any:
        return bundles[name] if bundles[name].suffix else open_bundle(bundles[name])

    return check(OnnxReference(opened(reference)), opened(candidate), **options)


def test_one_opset_against_another_agrees_and_says_that_pytorch_was_not_asked(
    bundles: dict[str, Path],
) -> None:
    result = judged(bundles, "float32", "newer")  # its inputs are the reference's
    assert result.passed
    assert result.against == "onnx"
    assert headline(result).startswith("agreement PASS: PyTorch was not asked; max_abs_diff ")
    assert result.reference["kind"] == "onnx reference"
    assert result.reference["of"] == "bundle"
    assert [doubt.gate for doubt in result.doubts if "PyTorch was not asked" in doubt.said] == ["reference"]


def test_quantised_against_float_by_the_float_graph_s_own_float64(bundles: dict[str, Path]) -> None:
    result = judged(bundles, "float32", "int8", floor=True, threshold=0.05)
    assert result.passed
    assert result.word == "undecided"  # what quantising must cost is known of a policy, and none was asked
    again = judged(bundles, "float32", "stepwise", threshold="4x floor")
    assert again.passed
    floor = again.fixtures[0].outputs[0].floor
    assert floor is not None
    assert floor.reference_max is not None
    assert floor.candidate_max is not None
    # The truth is the graph's, in float64: both are some float32 steps from it.
    assert 0 < floor.reference_max <= 64 * floor.absolute
    assert floor.candidate_max <= 64 * floor.absolute


@pytest.mark.parametrize("name", ["float32", "stepwise", "float16"])
def test_a_graph_in_float64_is_its_policy_in_float64(bundles: dict[str, Path], name: str) -> None:
    policy = toy_transformer.Toy().eval()
    bundle = open_bundle(bundles[name])
    fixture = bundle.recording().recorded()[0]
    reference: Any = bundle.reference_runner(policy)
    with reference, bundle.runner() as runner:
        truth, own = reference.exact(fixture)["actions"], runner.exact(fixture)["actions"]
        plain, gave = reference.run(fixture)["actions"], runner.run(fixture)["actions"]
    assert own.dtype == np.float64
    if name == "float16":  # its weights are rounded, and that is all of its error on this runtime
        ratio = np.abs(own - truth).max() / np.abs(gave - truth).max()
        assert 0.5 < ratio < 2
    else:
        closer = np.abs(own - truth).max() / np.abs(plain - truth).max()
        assert closer < 0.5  # what the graph has written down in float32, such as a step's length


def test_strict_wants_parity_with_a_policy(bundles: dict[str, Path]) -> None:
    result = judged(bundles, "float32", "stepwise", strict=True)
    assert [answer.gate for _, answer in result.refusals] == ["reference"]
    assert headline(result).startswith("agreement FAIL: PyTorch was not asked; reference: PyTorch was not")
    # And so it is when a stored result is judged again.
    plain = judged(bundles, "float32", "stepwise")
    assert plain.passed
    assert not rejudge(plain, strict=True).passed


@pytest.mark.parametrize("as_path", [True, False])
def test_the_same_file_on_both_sides_is_no_comparison(
    bundles: dict[str, Path], tmp_path: Path, as_path: bool
) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in bundles["float32"].iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    given = copy / "model.onnx" if as_path else open_bundle(copy)
    result = check(OnnxReference(open_bundle(bundles["float32"])), given, inputs=SPECS)
    assert [answer.gate for _, answer in result.refusals] == ["reference"]
    assert "both sides hold the same bytes" in result.refusals[0][1].said


def test_what_is_no_graph_is_no_such_reference(bundles: dict[str, Path], tmp_path: Path) -> None:
    policy = toy_transformer.Toy().eval()
    for given in (TorchRunner(policy), policy, 3, RecordedRunner(bundles["int8"] / "fixtures.safetensors")):
        with pytest.raises(RunnerError, match=r"OnnxReference is given an? .*; give the path"):
            OnnxReference(given)
    with pytest.raises(RunnerError, match="does not exist"):
        OnnxReference(tmp_path / "no.onnx")
    with pytest.raises(RunnerError, match="is a directory; open it with"):
        OnnxReference(bundles["int8"])
    said = OnnxReference(bundles["newer"])
    with pytest.raises(ReflexError, match="is given as candidate and is said to be a reference"):
        check(policy, said, inputs=SPECS)
    # Without the word it stays refused, and a path is told which word that is.
    plain = check(OnnxRunner(bundles["newer"]), open_bundle(bundles["int8"]), threshold=0.05)
    assert [answer.gate for _, answer in plain.refusals] == ["reference"]
    with pytest.raises(ReflexError, match=r"give OnnxReference\(path\)"):
        check(bundles["newer"], OnnxRunner(bundles["newer"]), inputs=SPECS)
    turned = check(said, open_bundle(bundles["int8"]).reference_runner(policy), inputs=SPECS)
    assert [answer.gate for _, answer in turned.refusals] == ["reference"]


def test_a_reference_on_another_provider_than_asked_is_none(bundles: dict[str, Path]) -> None:
    runner = OnnxRunner(bundles["newer"], provider="cuda")
    with pytest.raises(RunnerError, match="runs on CPUExecutionProvider, not on CUDAExecutionProvider"):
        check(OnnxReference(runner), open_bundle(bundles["int8"]))


def test_a_reference_that_is_written_to_meanwhile_passes_nothing(
    bundles: dict[str, Path], tmp_path: Path
) -> None:
    model = tmp_path / "m.onnx"
    model.write_bytes(bundles["newer"].read_bytes())

    class Meddled(OnnxRunner):
        def run(self, inputs: Any) -> Any:
            gave = super().run(inputs)
            model.write_bytes(model.read_bytes() + b"\0")
            return gave

    result = check(OnnxReference(Meddled(model)), open_bundle(bundles["float32"]))
    assert "intact" in {answer.gate for _, answer in result.refusals}


def test_another_graph_s_inputs_are_named(bundles: dict[str, Path], tmp_path: Path) -> None:
    model = onnx.load(bundles["newer"])
    model.graph.input[0].name = "renamed"
    for node in model.graph.node:
        for index, name in enumerate(node.input):
            if name == SPECS[0].name:
                node.input[index] = "renamed"
    onnx.save(model, tmp_path / "m.onnx")
    with pytest.raises(RunnerError, match="missing 'renamed'; unexpected"):
        check(OnnxReference(tmp_path / "m.onnx"), open_bundle(bundles["float32"]))


def test_every_face_says_that_it_is_of_another_kind(bundles: dict[str, Path]) -> None:
    import jsonschema

    result = judged(bundles, "float32", "stepwise")
    said = json.loads(json.dumps(result.to_json()))
    assert said["against"] == "onnx"
    assert ParityResult.from_json(said) == result
    jsonschema.validate(document([result]), schema())
    # What is stored cannot be taken for parity.
    with pytest.raises(ReflexError, match="contradicts itself at 'against'"):
        ParityResult.from_json({**said, "against": "policy"})
    run = Run((Entry(result),))
    assert "<h1>✓ agreement PASS</h1>" in page(run)
    assert "PyTorch was not asked" in page(run)
    assert "parity PASS" not in page(run) + markdown(run) + str(result)
    assert markdown(run).startswith("## ✅ agreement PASS\n")
    row = summary_lines(run)[1][0]
    assert row.removesuffix(" (1 doubt)").endswith("[against ONNX: PyTorch was not asked]")
    assert "against ONNX" in result._repr_html_()


def test_no_bundle_is_proven_by_another_graph(bundles: dict[str, Path], tmp_path: Path) -> None:
    proof = judged(bundles, "float32", "stepwise").to_json()
    bundle = exported(tmp_path / "b", fixtures=3)
    assert bundle.proof is not None
    stated = bundle.stated
    write_manifest(tmp_path / "b", type(stated)(**{**vars(stated), "check": proof}))
    assert open_bundle(tmp_path / "b").proof is None
    with pytest.raises(BundleError, match="its manifest has no passed verdict"):
        prepared(tmp_path / "b")


def command(*arguments: object) -> int:
    with pytest.raises(SystemExit) as left:
        main([str(argument) for argument in arguments])
    return int(str(left.value.code))


def test_two_plain_files_on_the_command_line(
    bundles: dict[str, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    plain = ("--reference", bundles["float32"] / "model.onnx")
    assert command("validate", bundles["newer"], *plain) == 0
    out = capfd.readouterr().out
    assert out.startswith("agreement PASS: PyTorch was not asked; max_abs_diff ")
    assert "Inputs: prompt [1, " in out
    (tmp_path / "own.py").write_text("import toy_transformer\n\nINPUTS = toy_transformer.inputs()\n")
    assert command("validate", bundles["newer"], *plain, "--inputs", f"{tmp_path}/own.py:INPUTS") == 0
    assert "Inputs: " not in capfd.readouterr().out
    assert command("validate", bundles["int8"], "--reference", bundles["newer"], "--threshold", "0.1") == 0
    assert command("validate", bundles["newer"]) == 2
    assert "give --model, the policy, or --reference" in capfd.readouterr().err
    assert command("validate", bundles["newer"], "--reference", tmp_path / "none.onnx") == 2
    assert "none.onnx does not exist" in capfd.readouterr().err


def test_on_the_command_line(bundles: dict[str, Path], capfd: pytest.CaptureFixture[str]) -> None:
    validate = ("validate", "export")
    assert command(*validate, bundles["stepwise"], "--reference", bundles["float32"]) == 0
    assert capfd.readouterr().out.startswith("agreement PASS: PyTorch was not asked; max_abs_diff ")
    assert command(*validate, bundles["newer"], "--reference", bundles["float32"], "--output-json") == 0
    assert json.loads(capfd.readouterr().out)["results"][0]["against"] == "onnx"
    assert command(*validate, bundles["int8"], "--reference", bundles["newer"], "--threshold", "1e-9") == 1
    assert capfd.readouterr().out.startswith("agreement FAIL: PyTorch was not asked; max_abs_diff ")
    same = ("--reference", bundles["newer"], "--threshold", "1e-3")
    assert command(*validate, bundles["newer"], *same) == 1
    assert "reference: " in capfd.readouterr().out
    assert command(*validate, bundles["int8"]) == 2
    assert "give --model, the policy, or --reference" in capfd.readouterr().err
    both = ("--reference", bundles["float32"], "--model", "x.safetensors")
    assert command(*validate, bundles["int8"], *both) == 2
