"""A candidate is held to the rounding of what its graph is in, and of nothing wider."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_dynamic, quantize_static
from onnxruntime.transformers.float16 import convert_float_to_float16
from torch import nn

import exporters
from pytest_reflex import InputSpec, OnnxRunner, ParityResult, TorchRunner, check
from pytest_reflex.errors import RunnerError, SettingsError
from pytest_reflex.inputs import Gaussian, make_fixture
from pytest_reflex.report.json import document, schema
from pytest_reflex.report.text.terminal import result_text
from pytest_reflex.verdict.quantised import same_scales
from pytest_reflex.verdict.tolerances import Amount

INPUTS = [InputSpec("x", (4, 64), "float32", Gaussian())]
LAYERS = 6


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.layers = nn.ModuleList(nn.Linear(64, 64) for _ in range(LAYERS))

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        for layer in self.layers:
            x = x + torch.tanh(layer(x))
        return {"y": x}


def graph(tail: Sequence[Any] = (), *, fault: float = 0.0, **held: Any) -> onnx.ModelProto:
    """The net, its result named ``true``, and behind it ``tail``; ``fault`` is added to one weight's row."""
    nodes, stored, x = [], [numpy_helper.from_array(np.asarray(v), n) for n, v in held.items()], "x"
    for at, layer in enumerate(Net().layers):
        weight = layer.weight.detach().numpy().T.copy()
        weight[5] += fault if at == 2 else 0.0
        stored += [numpy_helper.from_array(weight, f"w{at}")]
        stored += [numpy_helper.from_array(layer.bias.detach().numpy(), f"b{at}")]
        last = "true" if at == LAYERS - 1 else f"x{at}"
        nodes += [
            helper.make_node("MatMul", [x, f"w{at}"], [f"m{at}"], f"product{at}"),
            helper.make_node("Add", [f"m{at}", f"b{at}"], [f"a{at}"], f"bias{at}"),
            helper.make_node("Tanh", [f"a{at}"], [f"t{at}"], f"tanh{at}"),
            helper.make_node("Add", [x, f"t{at}"], [last], f"sum{at}"),
        ]
        x = last
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [4, 64]) for n in ("x", "y")]
    tail = tail or [helper.make_node("Identity", ["true"], ["y"])]
    made = helper.make_graph([*nodes, *tail], "net", ends[:1], ends[1:], stored)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


# One value goes to float16 and back, and nothing of that is in the result but for a zero.
ONE_CAST = [
    helper.make_node("Cast", ["tiny"], ["there"], to=TensorProto.FLOAT16),
    helper.make_node("Cast", ["there"], ["back"], to=TensorProto.FLOAT),
    helper.make_node("Add", ["true", "back"], ["y"]),
]
TINY = np.float32(0)


def half(model: onnx.ModelProto, **options: Any) -> onnx.ModelProto:
    made: onnx.ModelProto = convert_float_to_float16(model, keep_io_types=True, **options)
    return made


def judged(model: onnx.ModelProto, **options: Any) -> ParityResult:
    return judged_of(OnnxRunner(model.SerializeToString(), optimization="basic", name="m.onnx"), **options)


def judged_of(runner: OnnxRunner, **options: Any) -> ParityResult:
    return check(TorchRunner(Net()), runner, inputs=INPUTS, **options)


def first_line(result: ParityResult) -> str:
    return result_text(result).splitlines()[0]


@functools.cache
def honest_half() -> ParityResult:
    return judged(half(graph()))


def test_an_honest_float16_is_rounding_in_float16_and_passes_by_default() -> None:
    result = honest_half()
    assert result.passed, str(result)
    assert result.word == "rounding in float16"
    assert result.by_default
    assert result.asked.rest == Amount(2.0, in_floors=True)
    line = first_line(result)
    assert "candidate: float16; asked: 2x floor by default" in line
    assert (
        result_text(result)
        .splitlines()[1]
        .startswith("Floor: rounding in float16: the candidate is as near ")
    )
    assert result.precision.name == "float16"
    assert all(
        o.floor is not None and o.floor.precision == "float16" for f in result.fixtures for o in f.outputs
    )


class HandsOn(nn.Module):
    """Beside what it computes it gives what it was given, and a sum of that joined."""

    def __init__(self, off: float = 0.0) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.linear, self.off = nn.Linear(9, 5), off

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        joined = torch.cat([x, x], dim=-1)
        moved = x * 1.0 if not self.off else x + self.off
        return {"y": self.linear(x), "moved": moved, "summed": joined.sum(dim=-1)}


def test_an_output_that_hands_an_input_on_costs_what_rounding_the_input_does(tmp_path: Path) -> None:
    inputs = [InputSpec("x", (1, 9))]
    made = exporters.export(HandsOn().eval(), tmp_path / "half", inputs=inputs, precision="float16")
    assert made.result is not None
    assert made.result.passed
    # Off by more than one rounding of what goes by, which float16 does not explain.
    result = check(HandsOn(off=2.0**-7).eval(), made)
    assert not result.passed
    assert {output.name for f in result.fixtures for output in f.outputs if not f.passed} >= {"moved"}


class Encoder(nn.Module):
    """Computes with a count far from 0, and hands a part of it on."""

    def __init__(self, bias: float = 0.0) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.linear, self.bias = nn.Linear(9, 5), bias

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"y": self.linear(x - 1000.0) + self.bias, "first": x[..., :2]}


def test_rounding_what_goes_by_buys_nothing_for_what_is_computed(tmp_path: Path) -> None:
    inputs = [InputSpec("x", (1, 9), meaning=Gaussian(1000.0, 3.0))]
    told: dict[str, Any] = {"inputs": inputs, "precision": "float16", "verify": False}
    result = check(Encoder().eval(), exporters.export(Encoder(bias=0.1).eval(), tmp_path / "b", **told))
    assert {output.name for f in result.fixtures for output in f.outputs if not f.passed} >= {"y"}
    assert not result.passed


def test_held_to_float32_it_is_a_bug() -> None:
    result = judged(half(graph()), rounding="float32", floor=True)
    assert (result.passed, result.word) == (False, "bug")
    assert "judged as float32, as was told" in first_line(result)


def test_a_plain_threshold_is_still_possible() -> None:
    result = judged(half(graph()), threshold=1e-6)
    assert not result.passed
    assert result.word is None
    assert not result.by_default
    assert "is not below 1.0e-06" in first_line(result)
    assert "candidate: float16" in first_line(result)


def test_a_row_of_weights_that_is_off_is_a_bug_in_float16() -> None:
    result = judged(half(graph(fault=0.05)))
    assert (result.passed, result.word) == (False, "bug")
    assert "than rounding to float16 explains" in result_text(result)


def test_strict_keeps_its_promise() -> None:
    result = judged(half(graph()), strict=True)
    assert not result.passed
    assert {o.bound for f in result.fixtures for o in f.outputs} == {1e-5}
    # What it advises is nothing that is asked already.
    both = str(judged(half(graph()), strict=True, threshold="2x floor"))
    assert "strict holds every output to 1e-05, whatever else is asked" in " ".join(both.split())
    assert "Judge it without strict" in " ".join(both.split())


# --- what buys no wider bound ----------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [0.0, 1e-3])
def test_one_cast_buys_no_wider_bound(fault: float) -> None:
    result = judged(graph(ONE_CAST, fault=fault, tiny=TINY), floor=True)
    assert result.precision.name == "float32"
    assert result.asked.rest == Amount(1e-4)
    assert (result.word, result.passed) == (("bug", False) if fault else ("rounding", True))
    assert "candidate: float32 with 1 cast float32 to float16, judged as float32" in first_line(result)


def test_many_casts_of_one_value_buy_none_either() -> None:
    there = [
        helper.make_node("Cast", [f"c{at - 1}" if at else "tiny"], [f"c{at}"], to=kind)
        for at, kind in enumerate([TensorProto.FLOAT16, TensorProto.FLOAT] * 10 * LAYERS)
    ]
    last = helper.make_node("Add", ["true", there[-1].output[0]], ["y"])
    result = judged(graph([*there, last], fault=1e-3, tiny=TINY), floor=True)
    assert (result.precision.name, result.word, result.passed) == ("float32", "bug", False)


def test_what_is_partly_float16_is_held_to_float32_until_somebody_says_otherwise() -> None:
    model = half(graph(), node_block_list=[f"product{at}" for at in range(3)])
    plain = judged(model)
    assert (plain.precision.name, plain.passed) == ("float32", False)
    assert "judged as float32" in first_line(plain)
    allowed = judged(model, rounding="float16")
    assert (allowed.passed, allowed.word) == (True, "rounding in float16")
    assert "judged as float16, as was told" in first_line(allowed)


def test_weights_that_nothing_reads_count_for_nothing() -> None:
    large = np.zeros((1 << 16,), np.float16)
    result = judged(graph(fault=1e-3, unread=large), floor=True)
    assert (result.precision.name, result.precision.short, result.word) == ("float32", "", "bug")


@pytest.mark.parametrize("told", ["bfloat16", "int8"])
def test_nothing_is_allowed_that_the_graph_has_not(told: str) -> None:
    with pytest.raises(
        SettingsError, match=rf"rounding: {told} is asked for, and m.onnx is in float16; give"
    ):
        judged(half(graph()), rounding=told)


class Claims(OnnxRunner):
    """Shows another graph than the one that it runs."""

    shown: onnx.ModelProto

    @property
    def graphs(self) -> Sequence[Path | bytes]:
        return (self.shown.SerializeToString(),)


def test_a_graph_that_is_exchanged_behind_the_judge_s_back_is_refused() -> None:
    runner = Claims(graph(fault=0.01).SerializeToString())
    runner.shown = half(graph())
    result = check(TorchRunner(Net()), runner, inputs=INPUTS, threshold=1.0)
    assert [answer.gate for _, answer in result.refusals] == ["intact"]
    assert "was written to between being read and being opened" in str(result)


def test_a_precision_that_the_manifest_does_not_say_is_refused() -> None:
    class Stated(OnnxRunner):
        precision_stated = "float16"

    result = check(TorchRunner(Net()), Stated(graph().SerializeToString()), inputs=INPUTS)
    assert [(answer.gate, answer.said) for _, answer in result.refusals] == [
        ("intact", "its manifest says float16, and its graph is float32; export it again")
    ]
    assert check(TorchRunner(Net()), Stated(half(graph()).SerializeToString()), inputs=INPUTS).passed


# --- quantised -------------------------------------------------------------------------------------------


class Feed(CalibrationDataReader):
    def __init__(self, seed: int = 0) -> None:
        self._left = [make_fixture(INPUTS, seed, idx) for idx in range(5)]

    def get_next(self) -> dict[str, np.ndarray] | None:
        return dict(self._left.pop()) if self._left else None


def quantised(work: Path, kind: str, *, seed: int = 0, **options: Any) -> onnx.ModelProto:
    onnx.save(graph(**options), work / "m.onnx")
    if kind == "static":
        quantize_static(work / "m.onnx", work / "q.onnx", Feed(seed), op_types_to_quantize=["MatMul"])
    else:
        # With signed weights an x86 without VNNI saturates, which is no rounding.
        unsigned = {"weight_type": QuantType.QUInt8}
        quantize_dynamic(work / "m.onnx", work / "q.onnx", op_types_to_quantize=["MatMul"], **unsigned)
    return onnx.load(work / "q.onnx")


@pytest.mark.parametrize("kind", ["static", "dynamic"])
def test_an_honest_int8_is_rounding_in_int8_and_says_both_numbers(kind: str, tmp_path: Path) -> None:
    import jsonschema

    result = judged(quantised(tmp_path, kind))
    assert result.passed, str(result)
    assert result.word == "rounding in int8"
    (found,) = [o.quantised for f in result.fixtures for o in f.outputs if o.quantised is not None]
    assert (found.word, found.cost is not None) == ("rounding", True)
    text = result_text(result)
    assert "the runtime is" in text
    assert "quantising cost" in text
    made: Mapping[str, Any] = document([result])
    jsonschema.validate(made, schema())
    assert made["results"][0]["fixtures"][0]["outputs"][0]["quantised"]["word"] == "rounding"


@pytest.mark.parametrize(("kind", "word"), [("static", "undecided"), ("dynamic", "bug")])
def test_a_fault_in_an_int8_graph_does_not_pass(kind: str, word: str, tmp_path: Path) -> None:
    """Scales that were taken with the fault in place are others, and other data would explain as much."""
    result = judged(quantised(tmp_path, kind, fault=0.05))
    assert (result.passed, result.word) == (False, word), str(result)
    assert {answer.gate for _, answer in result.refusals} == {"threshold"}


@pytest.mark.parametrize(("seed", "word"), [(0, "bug"), (1, "undecided")])
def test_fixed_scales_that_are_known_explain_nothing(seed: int, word: str, tmp_path: Path) -> None:
    """Where the fixtures have the very scales of a graph, nothing but a fault is left behind an error."""
    made = quantised(tmp_path, "static", seed=seed)
    assert judged(made).word in ("rounding in int8", "undecided")
    (weight,) = (tensor for tensor in made.graph.initializer if tensor.name == "w2_quantized")
    values = numpy_helper.to_array(weight).copy()
    values[5] = -values[5]
    weight.CopyFrom(numpy_helper.from_array(values, weight.name))
    result = judged(made)
    assert (result.passed, result.word) == (False, word), str(result)


def test_scales_are_the_same_where_nearly_all_of_them_are() -> None:
    seen = [0.5, 1.0, 2.0, 4.0]
    assert same_scales([1.0, 2.0], seen)
    assert same_scales([np.nextafter(np.float32(4), np.float32(5))], seen)
    assert not same_scales([], seen)
    assert not same_scales([1.0], [])
    assert not same_scales([4.1], seen)
    # One of ten may be what is wrong; of two, the whole is.
    assert same_scales([0.5] * 9 + [3.0], seen)
    assert not same_scales([0.5, 3.0], seen)


def weights_of_8_bits(model: onnx.ModelProto) -> onnx.ModelProto:
    """Its matrices in int8, each widened before its product."""
    widening = []
    for tensor in list(model.graph.initializer):
        values = numpy_helper.to_array(tensor)
        if values.ndim < 2:
            continue
        scale = np.float32(np.abs(values).max() / 127)
        stored = np.rint(values / scale).astype(np.int8)
        wide, name = tensor.name, f"{tensor.name}/int8"
        tensor.CopyFrom(numpy_helper.from_array(stored, name))
        model.graph.initializer.append(numpy_helper.from_array(scale, f"{wide}/scale"))
        widening.append(helper.make_node("DequantizeLinear", [name, f"{wide}/scale"], [wide]))
    nodes = [*widening, *model.graph.node]
    kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del model.graph.node[:]
    model.graph.node.extend(kept)
    return model


@pytest.mark.parametrize(("fault", "word"), [(0.0, "rounding in int8"), (0.2, "bug")])
def test_weights_of_8_bits_alone_are_held_to_that(fault: float, word: str) -> None:
    result = judged(weights_of_8_bits(graph(fault=fault)))
    assert (result.word, result.passed) == (word, not fault), str(result)
    assert "candidate: int8 (weights alone); asked: 2x floor by default" in first_line(result)


def test_a_graph_that_nobody_can_read_says_what_it_is_said_to_be() -> None:
    class Unread(OnnxRunner):
        precision_stated = "float16"
        graphs = ()  # type: ignore[assignment]

    result = judged_of(Unread(half(graph()).SerializeToString()))
    assert not result.passed
    assert "candidate: said to be float16 (not read), judged as float32" in first_line(result)
    assert judged_of(Unread(half(graph()).SerializeToString()), rounding="float16").passed


def test_inputs_that_were_converted_too_are_named() -> None:
    whole = convert_float_to_float16(graph())
    with pytest.raises(
        RunnerError, match=r"input 'x' is float32; it takes float16, and is judged with inputs"
    ):
        judged(whole)


def test_a_recorded_reference_has_no_other_precision() -> None:
    class Recorded(TorchRunner):
        exact = None  # type: ignore[assignment]
        rounded = None  # type: ignore[assignment]

    result = check(Recorded(Net()), OnnxRunner(half(graph()).SerializeToString()), inputs=INPUTS)
    assert (result.passed, result.word) == (False, "undecided")
    assert "give the threshold as a number" in first_line(result)


@pytest.mark.parametrize(
    ("op", "given", "told", "draws"),
    [
        ("Dropout", ["true", "none", "off"], {}, False),
        ("Dropout", ["true", "none"], {}, False),
        ("Dropout", ["true", "none", "on"], {}, True),
        ("RandomNormalLike", ["true"], {"scale": 1e-30}, True),
        ("RandomUniformLike", ["true"], {"low": 0.0, "high": 1e-30}, True),
    ],
)
def test_a_graph_that_draws_is_doubted_and_under_strict_refused(
    op: str, given: list[str], told: dict[str, float], draws: bool
) -> None:
    """It may say the same in every run of this process; dropout of none is drawn, and drops nothing."""
    tail = [helper.make_node(op, given, ["drawn"], **told)]
    tail += [
        helper.make_node("Sub", ["drawn", "drawn"], ["zero"]),
        helper.make_node("Add", ["true", "zero"], ["y"]),
    ]
    made = graph(tail, none=np.float32(0), on=np.bool_(True), off=np.bool_(False))
    candidate = OnnxRunner(made.SerializeToString())
    doubt = f"the candidate's graph draws random numbers by itself ({op})"
    found = check(TorchRunner(Net()), candidate, inputs=INPUTS)
    assert found.passed
    assert any(note.startswith(doubt) for note in found.notes) is draws
    strict = check(TorchRunner(Net()), candidate, inputs=INPUTS, strict=True)
    assert [answer.gate for _, answer in strict.refusals] == ["compared"] * draws
