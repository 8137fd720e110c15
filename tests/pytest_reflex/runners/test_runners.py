"""Runners: what they run, what they restore, and how they say no."""

from __future__ import annotations

import json
import sys

import ml_dtypes
import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import nn

from pytest_reflex.errors import ReflexError, RunnerError, SettingsError
from pytest_reflex.runners import (
    FunctionRunner,
    OnnxRunner,
    RecordedRunner,
    Runner,
    TorchRunner,
    base,
    save_recording,
)
from pytest_reflex.runners.base import RunnerBase

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
X = np.arange(6, dtype=np.float32).reshape(2, 3)


class Head(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5))

    def forward(self, x):
        return self.body(x)


def double_model(shape=(2, 3), dtype=TensorProto.FLOAT) -> bytes:
    """y = x + x"""
    x, y = (helper.make_tensor_value_info(name, dtype, shape) for name in "xy")
    graph = helper.make_graph([helper.make_node("Add", ["x", "x"], ["y"])], "double", [x], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def gelu_model() -> bytes:
    """y = x * 0.5 * (1 + erf(x / sqrt(2))), in the operators that ONNX Runtime fuses to one."""
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, (2, 3)) for name in "xy")
    nodes = [
        helper.make_node("Div", ["x", "root"], ["scaled"]),
        helper.make_node("Erf", ["scaled"], ["erf"]),
        helper.make_node("Add", ["erf", "one"], ["sum"]),
        helper.make_node("Mul", ["x", "sum"], ["product"]),
        helper.make_node("Mul", ["product", "half"], ["y"]),
    ]
    constants = [
        helper.make_tensor(name, TensorProto.FLOAT, (), [value])
        for name, value in (("root", 2**0.5), ("one", 1.0), ("half", 0.5))
    ]
    graph = helper.make_graph(nodes, "gelu", [x], [y], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def run(runner, **inputs):
    with runner:
        return runner.run(inputs)


def test_all_three_are_runners(tmp_path):
    for runner in (TorchRunner(Head()), OnnxRunner(b""), RecordedRunner(tmp_path)):
        assert isinstance(runner, Runner)
        runner.close()
        with pytest.raises(RunnerError, match="is not open"):
            runner.run({})
        with pytest.raises(RunnerError, match="is not open"):
            runner.facts()


# --- torch


def test_a_module_runs_in_eval_mode_and_gets_each_flag_back():
    model = Head().train()
    model.body.eval()
    model.body[1].train()
    flags = {name: module.training for name, module in model.named_modules()}
    runner = TorchRunner(model)
    for _ in range(2):  # it can be opened again
        with runner:
            assert not any(module.training for module in model.modules())
            first, second = runner.run({"x": X})["output"], runner.run({"x": X})["output"]
            assert (first == second).all()
            assert not runner.facts()["drew_random"]
        assert {name: module.training for name, module in model.named_modules()} == flags
    with pytest.raises(ZeroDivisionError), runner:
        raise ZeroDivisionError
    assert {name: module.training for name, module in model.named_modules()} == flags


def test_no_graph_is_kept_and_inputs_are_not_written_to():
    seen = []

    def call(x):
        seen.append(torch.is_grad_enabled())
        return x.add_(1)

    x = X.copy()
    assert (run(TorchRunner(nn.Identity(), call), x=x)["output"] == X + 1).all()
    assert (x == X).all()
    assert seen == [False]


def test_outputs_do_not_share_the_models_memory():
    buffer = torch.zeros(2)
    output = run(TorchRunner(nn.Identity(), lambda x: buffer), x=X)["output"]
    buffer += 1
    assert output.tolist() == [0, 0]


def test_a_loader_is_called_on_open_with_the_module_handed_to_call():
    made = []

    def load():
        made.append(nn.Linear(3, 1))
        return made[-1]

    runner = TorchRunner(load, lambda model, x: model(x))
    assert runner.name == "load"
    assert not made
    assert run(runner, x=X)["output"].shape == (2, 1)
    assert len(made) == 1


@pytest.mark.parametrize(
    ("returned", "outputs", "names"),
    [
        (lambda x: x, None, ["output"]),
        (lambda x: x, ["actions"], ["actions"]),
        (lambda x: (x, x), None, ["output_0", "output_1"]),
        (lambda x: [x, x], ["a", "b"], ["a", "b"]),
        (lambda x: {"b": x, "a": x}, None, ["b", "a"]),
        (lambda x: {"b": x, "a": x}, ["b", "a"], ["b", "a"]),
    ],
)
def test_outputs_get_names(returned, outputs, names):
    assert list(run(TorchRunner(nn.Identity(), returned, outputs=outputs), x=X)) == names


@pytest.mark.parametrize(
    ("returned", "outputs", "message"),
    [
        (lambda x: None, None, "returned None"),
        (lambda x: (x, x), ["a"], r"returned 2 outputs; 1 are named: \['a'\]"),
        (lambda x: {"a": x}, ["b"], r"returned \['a'\]; its outputs should be \['b'\]"),
        (lambda x: {"a": 1.0}, None, "output 'a' is a float, not a tensor"),
        (lambda x: 1 / 0, None, r"Identity failed on inputs x \[2, 3\]: ZeroDivisionError: division by zero"),
        (lambda y: y, None, "takes y, and is given x: no 'y', unknown input 'x'"),
    ],
)
def test_a_model_that_does_not_give_tensors_says_so(returned, outputs, message):
    with pytest.raises(RunnerError, match=message):
        run(TorchRunner(nn.Identity(), returned, outputs=outputs), x=X)


def test_bfloat16_outputs_keep_their_dtype():
    output = run(TorchRunner(nn.Identity(), lambda x: x.to(torch.bfloat16).T), x=X)["output"]
    assert output.dtype == ml_dtypes.bfloat16
    assert output.astype(np.float32).tolist() == X.T.tolist()


def test_a_reference_in_another_precision_is_refused():
    with pytest.raises(RunnerError, match=r"parameter body\.0\.weight is torch\.float64; .*call \.float\(\)"):
        TorchRunner(Head().double()).open()
    model = Head()
    model.register_buffer("exact", torch.zeros(1, dtype=torch.float64))
    run(TorchRunner(model), x=X)
    model.register_buffer("coarse", torch.zeros(1, dtype=torch.float16))
    with pytest.raises(RunnerError, match=r"buffer coarse is torch\.float16"):
        TorchRunner(model).open()


def test_randomness_is_noticed():
    runner = TorchRunner(nn.Identity(), lambda x: x + torch.randn(3))
    run(runner, x=X)
    assert runner.drew_random


@pytest.mark.parametrize(
    ("load", "message"),
    [
        (lambda: 3, "returned an int; it must return an nn.Module$"),
        (
            lambda: FunctionRunner(lambda x: x),
            "returned a FunctionRunner; it must return an nn.Module; name a runner itself, and no function",
        ),
        (lambda: 1 / 0, "could not be loaded: ZeroDiv"),
    ],
)
def test_a_loader_that_fails_says_so(load, message):
    with pytest.raises(RunnerError, match=message):
        TorchRunner(load).open()
    with pytest.raises(RunnerError, match="model is a str"):
        TorchRunner("model.pt")


# --- onnx


def test_a_model_runs_from_bytes_and_from_a_path(tmp_path):
    path = tmp_path / "double.onnx"
    path.write_bytes(double_model())
    for model in (path, str(path), double_model()):
        runner = OnnxRunner(model, threads=1, prepack=False)
        for _ in range(2):
            assert (run(runner, x=X)["y"] == X + X).all()
        assert (runner.inputs, runner.outputs) == (("x",), ("y",))
        assert (runner.provider_asked, runner.providers_used) == (CPU, (CPU,))


@pytest.mark.parametrize(
    ("level", "fused"), [("all", True), ("extended", True), ("basic", False), ("disable", False)]
)
def test_the_level_of_optimization_is_the_one_asked_for(level, fused, tmp_path, monkeypatch):
    """Seen from what ONNX Runtime makes of a graph that its extended level fuses."""
    import onnxruntime

    kept = tmp_path / "optimized.onnx"
    real = onnxruntime.InferenceSession

    def keeping(model, options, **rest):
        options.optimized_model_filepath = str(kept)
        return real(model, options, **rest)

    monkeypatch.setattr(onnxruntime, "InferenceSession", keeping)
    runner = OnnxRunner(gelu_model(), optimization=level)
    with runner:
        assert runner.facts()["optimization"] == level
    assert ("Gelu" in {node.op_type for node in onnx.load(kept).graph.node}) is fused


@pytest.mark.parametrize(
    ("policy", "config", "asked"),
    [
        ("PASSIVE", {}, "0"),
        ("passive", {}, "0"),
        ("ACTIVE", {}, None),
        (None, {}, None),
        ("PASSIVE", {"session.intra_op.allow_spinning": "1"}, "1"),
    ],
)
def test_threads_that_wait_leave_their_core_where_openmp_is_told_so(policy, config, asked, monkeypatch):
    import onnxruntime

    found = []
    real = onnxruntime.InferenceSession

    def seen(model, options, **rest):
        try:
            found.append(options.get_session_config_entry("session.intra_op.allow_spinning"))
        except RuntimeError:  # nobody asked
            found.append(None)
        return real(model, options, **rest)

    monkeypatch.setattr(onnxruntime, "InferenceSession", seen)
    monkeypatch.setenv("OMP_WAIT_POLICY", policy or "")
    run(OnnxRunner(double_model(), config=config), x=X)
    assert found == [asked]


def test_a_level_of_optimization_that_does_not_exist_is_refused():
    with pytest.raises(RunnerError, match=r"optimization is 'O3'; give one of disable, basic, extended, all"):
        OnnxRunner(double_model(), optimization="O3")


def test_scalars_and_columns_go_in_and_out_unchanged():
    output = run(OnnxRunner(double_model(())), x=np.float32(2).reshape(()))["y"]
    assert isinstance(output, np.ndarray)
    assert (output.shape, float(output)) == ((), 4.0)
    assert (run(OnnxRunner(double_model((3, 2))), x=X.T)["y"] == 2 * X.T).all()
    assert run(OnnxRunner(double_model(("n", None))), x=X)["y"].shape == (2, 3)


def test_a_provider_that_is_not_there_is_not_hidden():
    import onnxruntime

    if CUDA in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime has CUDA")
    runner = OnnxRunner(double_model(), provider="cuda")
    run(runner, x=X)
    assert runner.provider_asked == CUDA
    assert runner.providers_used[0] == CPU


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "missing 'x'; it takes x"),
        ({"x": X, "mask": X}, "unexpected 'mask'; it takes x"),
        ({"x": X.astype(np.float64)}, "input 'x' is float64; it takes float32"),
        ({"x": X[0]}, r"input 'x' has shape \[3\]; it takes \[2, 3\]"),
        ({"x": X[:1]}, r"input 'x' has shape \[1, 3\]; it takes \[2, 3\]"),
    ],
)
def test_inputs_that_are_not_the_models_are_refused(inputs, message):
    with pytest.raises(RunnerError, match=message):
        run(OnnxRunner(double_model(), name="double"), **inputs)


def test_a_file_that_is_no_model_is_refused_in_one_line(tmp_path):
    truncated, empty = tmp_path / "truncated.onnx", tmp_path / "empty.onnx"
    truncated.write_bytes(double_model()[:-9])
    empty.write_bytes(b"")
    bad = [
        (truncated, "no model"),
        (empty, "no model"),
        (tmp_path, "is a directory"),
        (tmp_path / "x", "not exist"),
    ]
    for path, message in bad:
        with pytest.raises(RunnerError, match=message) as refused:
            OnnxRunner(path).open()
        assert str(path) in str(refused.value)
        assert "\n" not in str(refused.value)
    with pytest.raises(SettingsError):
        OnnxRunner(double_model(), provider="gpu")
    with pytest.raises(RunnerError, match="threads is 0"):
        OnnxRunner(double_model(), threads=0)


def test_facts_are_builtins(tmp_path):
    path = tmp_path / "recording.safetensors"
    save_recording(path, [({"x": X}, {"y": X})], ["x"])
    for runner in (TorchRunner(Head()), OnnxRunner(double_model()), RecordedRunner(path)):
        with runner:
            facts = runner.facts()
        assert json.loads(json.dumps(facts)) == facts
        assert {"kind", "name", "versions"} <= set(facts)


def test_an_error_of_the_project_itself_passes_through_a_model():
    def call(x):
        raise ReflexError("as it is")

    with pytest.raises(ReflexError, match=r"^as it is$"):
        run(TorchRunner(nn.Identity(), call), x=X)


def test_a_missing_package_is_named_with_what_to_do(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(RunnerError, match="double needs ONNX Runtime; pip install onnxruntime"):
        OnnxRunner(double_model(), name="double").open()
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    with pytest.raises(RunnerError, match=r"is bfloat16, which numpy does not know; install ml_dtypes, or"):
        run(TorchRunner(nn.Identity(), lambda x: x.to(torch.bfloat16)), x=X)


def test_an_output_that_is_no_array_is_refused():
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, (2, 3))
    y = helper.make_tensor_sequence_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph([helper.make_node("SequenceConstruct", ["x", "x"], ["y"])], "two", [x], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    with pytest.raises(RunnerError, match="two: output 'y' is a list, not an array"):
        run(OnnxRunner(model.SerializeToString(), name="two"), x=X)


def test_a_reference_is_traced_by_what_it_computes():
    with pytest.raises(RunnerError, match="head has not been loaded; open it first"):
        TorchRunner(lambda: Head(), lambda head, x: head(x), name="head").forward(x=torch.zeros(2, 3))
    head = Head().eval()
    runner = TorchRunner(head, name="head")
    x = torch.from_numpy(X)
    assert torch.equal(runner.forward(x=x)["output"], head(x))
    np.testing.assert_array_equal(run(runner, x=X)["output"], head(x).detach().numpy())


def test_what_a_runner_can_do_besides_is_told_by_its_protocols():
    class Plain(RunnerBase):
        name = "plain"
        trajectory = None
        exact = None

    assert not isinstance(Plain(), base.HasFloat64 | base.OnProvider | base.SaysProviders)
    assert isinstance(Plain(), base.HasTrajectory)
    assert base.trajectory_of(Plain()) is None
    assert base.trajectory_of(object()) is None
    onnx = OnnxRunner("absent.onnx")
    assert isinstance(onnx, base.OnProvider)
    assert isinstance(onnx, base.SaysProviders)
    assert isinstance(onnx, base.HasFloat64)
    assert not isinstance(onnx, base.HasTrajectory)
    torch_runner = TorchRunner(nn.Identity())
    assert isinstance(torch_runner, base.HasFloat64)
    assert isinstance(torch_runner, base.HasTrajectory)
    assert not isinstance(torch_runner, base.OnProvider | base.SaysProviders)
