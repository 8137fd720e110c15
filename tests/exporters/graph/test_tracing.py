"""Tracing keeps torch's bits: float64 stays float64, constants are torch's own, weights keep their names."""

from __future__ import annotations

import gc

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch
from floors import ulps
from torch import nn

from exporters.graph.graph_passes import refuse_narrowed_constants
from exporters.graph.program_passes import widen_scalars
from exporters.graph.tracing import trace
from pytest_reflex.errors import TracingError


def run(model: ir.Model, **inputs: torch.Tensor) -> dict[str, np.ndarray]:
    session = ort.InferenceSession(ir.to_proto(model).SerializeToString())
    arrays = session.run(None, {name: tensor.numpy() for name, tensor in inputs.items()})
    return {output.name: array for output, array in zip(session.get_outputs(), arrays, strict=True)}


class Sinusoid(nn.Module):
    """The time embedding of the openpi family: float64 inside, angles up to 1,571 rad."""

    def forward(self, time: torch.Tensor) -> dict[str, torch.Tensor]:
        fraction = torch.linspace(0.0, 1.0, 16, dtype=torch.float64)
        period = 4e-3 * (4.0 / 4e-3) ** fraction
        angle = (1.0 / period * 2 * torch.pi)[None] * time[:, None]
        return {"embedding": torch.cat([angle.sin(), angle.cos()], dim=1).float()}


class ScaledTime(nn.Module):
    """Python numbers on both sides of every elementwise operator that takes one, beside a float64 input."""

    def forward(self, time: torch.Tensor) -> dict[str, torch.Tensor]:
        t = time.double()
        return {
            "mul": t * 0.0037,
            "add": 0.1 + t,
            "sub": 0.3 - t,
            "div": 0.7 / (t + 2.0),
            "pow": 0.9**t,
            "power": t**2.1,
            "remainder": t % 0.3,
        }


def test_a_float64_time_embedding_keeps_its_bits() -> None:
    module, time = Sinusoid(), torch.tensor([1.0, 0.9, 0.1])
    model = trace(module, module.forward, {"time": time})
    expected = module(time)["embedding"].numpy()
    # float32 constants would cost 1e-4 here; what is left is the last bit of a float64 sine.
    largest = float(2 * torch.pi / 4e-3)  # the angle, whose own last bit moves its sine
    assert ulps(run(model, time=time)["embedding"], expected, dtype=np.float64, scale=largest) <= 2


def test_every_operator_that_takes_a_number_keeps_it_in_float64() -> None:
    module, time = ScaledTime(), torch.rand(5)
    model = trace(module, module.forward, {"time": time})
    got = run(model, time=time)
    for name, expected in module(time).items():
        assert got[name].dtype == np.float64
        assert ulps(got[name], expected.numpy(), dtype=np.float64) <= 2, name


def test_without_the_mending_the_graph_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("exporters.graph.tracing.widen_scalars", lambda program: None)
    module, time = ScaledTime(), torch.rand(5)
    with pytest.raises(TracingError, match=r"widens the float32 constant .* to float64"):
        trace(module, module.forward, {"time": time})


def test_a_constant_that_float32_holds_is_not_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("exporters.graph.tracing.widen_scalars", lambda program: None)

    class Halved(nn.Module):
        def forward(self, time: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"half": time.double() * 0.5}

    module, time = Halved(), torch.rand(3)
    assert run(trace(module, module.forward, {"time": time}), time=time)["half"].dtype == np.float64


def test_what_depends_on_no_input_is_computed_by_torch() -> None:
    class Frequencies(nn.Module):
        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            # numpy's and ONNX Runtime's exp differ from torch's in the last bit of some of these.
            return {"y": x * torch.exp(-torch.arange(512) * np.log(10000.0) / 511)}

    module, x = Frequencies(), torch.full((512,), 750.0)
    model = trace(module, module.forward, {"x": x})
    assert [node.op_type for node in model.graph] == ["Mul"]
    np.testing.assert_array_equal(run(model, x=x)["y"], module(x)["y"].numpy())


def test_a_random_draw_is_not_folded() -> None:
    class Noisy(nn.Module):
        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"y": x + torch.rand(4)}

    module, x = Noisy(), torch.zeros(4)
    model = trace(module, module.forward, {"x": x})
    assert any("Random" in node.op_type for node in model.graph)


def test_weights_keep_their_names_and_are_transposed_only_when_read() -> None:
    module = nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 2, bias=False))
    model = trace(module, lambda x: {"y": module(x)}, {"x": torch.rand(2, 4, 3)})
    weights = {name: value.const_value for name, value in model.graph.initializers.items() if "." in name}
    assert "0.bias" in weights
    assert "1.weight.T" in weights
    lazy = weights["1.weight.T"]
    assert isinstance(lazy, ir.LazyTensor)
    with torch.no_grad():
        module[1].weight.fill_(7.0)
    assert (lazy.numpy() == 7.0).all()
    assert list(lazy.shape) == [5, 2]


def test_an_input_handed_through_is_an_output_of_its_own() -> None:
    class Through(nn.Module):
        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"same": x, "again": x, "more": x + 1}

    module, x = Through(), torch.rand(3)
    got = run(trace(module, module.forward, {"x": x}), x=x)
    assert list(got) == ["same", "again", "more"]
    np.testing.assert_array_equal(got["again"], x.numpy())


def test_one_name_for_input_and_output_is_refused() -> None:
    class Clash(nn.Module):
        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"x": x + 1}

    module = Clash()
    with pytest.raises(TracingError, match=r"\['x'\] name both an input and an output of Clash; rename one"):
        trace(module, module.forward, {"x": torch.rand(3)})


def test_an_untraceable_module_is_named_with_its_reason() -> None:
    class Branching(nn.Module):
        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"y": x if x.sum() > 0 else -x}

    module = Branching()
    with pytest.raises(TracingError, match=r"torch\.export could not trace Branching: what it does next"):
        trace(module, module.forward, {"x": torch.rand(3)})


def test_metadata_names_the_module_and_no_path_of_this_machine() -> None:
    module = nn.Sequential(nn.Linear(3, 5))
    model = trace(module, lambda x: {"y": module(x)}, {"x": torch.rand(4, 3)})
    for node in model.graph:
        scopes = node.metadata_props["pkg.torch.onnx.name_scopes"]
        assert "owner.0" in scopes
        stack = node.metadata_props.get("pkg.torch.onnx.stack_trace", "")
        assert "/root" not in stack
        assert "site-packages" not in stack


def test_tracing_leaves_the_module_and_the_loggers_as_they_were() -> None:
    import logging

    module = nn.Sequential(nn.Linear(3, 5), nn.Dropout(0.5))
    before = {name: p.clone() for name, p in module.named_parameters()}
    level = logging.getLogger("torch.onnx").level
    trace(module, lambda x: {"y": module(x)}, {"x": torch.rand(4, 3)})
    assert logging.getLogger("torch.onnx").level == level
    assert all(torch.equal(before[name], p) for name, p in module.named_parameters())
    assert sorted(before) == sorted(dict(module.named_parameters()))


def test_the_refusal_reads_constants_and_initializers_alike() -> None:
    value = ir.Value(
        name="c",
        type=ir.TensorType(ir.DataType.FLOAT),
        const_value=ir.tensor(np.array(0.1, np.float32), name="c"),
    )
    cast = ir.node("Cast", [value], attributes={"to": int(ir.DataType.DOUBLE)}, name="widen")
    cast.outputs[0].type = ir.TensorType(ir.DataType.DOUBLE)
    graph = ir.Graph([], cast.outputs, nodes=[cast], initializers=[value], opset_imports={"": 20})
    with pytest.raises(TracingError, match=r"node 'widen' widens the float32 constant 0\.1 to float64"):
        refuse_narrowed_constants(ir.Model(graph, ir_version=10))


def test_widening_leaves_float32_alone() -> None:
    program = torch.export.export(nn.Identity(), (torch.rand(3),))
    before = str(program.graph)
    widen_scalars(program)
    assert str(program.graph) == before


def test_a_torch_that_lacks_what_tracing_needs_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch.onnx._internal.exporter import _core

    monkeypatch.delattr(_core, "_exported_program_to_onnx_program")
    with pytest.raises(TracingError, match=r"_exported_program_to_onnx_program.*2\.9 to 2\.13"):
        trace(nn.Linear(2, 2), lambda x: {"y": x}, {"x": torch.zeros(1, 2)})


@pytest.mark.parametrize("before", [True, False])
def test_garbage_is_collected_again_after_a_trace(before: bool) -> None:
    seen: list[bool] = []

    class Watching(nn.Module):
        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            seen.append(gc.isenabled())
            if len(seen) > 1:
                raise ValueError("no more")
            return {"y": x + 1}

    module = Watching().eval()
    try:
        (gc.enable if before else gc.disable)()
        trace(module, module.forward, {"x": torch.ones(2)})
        assert gc.isenabled() is before
        with pytest.raises(TracingError, match="no more"):
            trace(module, module.forward, {"x": torch.ones(2)})
        assert gc.isenabled() is before
    finally:
        gc.enable()
    assert seen == [False, False]


def masked(mask: torch.Tensor) -> np.ndarray:
    """Attention, the whole of what is returned, under a mask that hides every key of some queries."""

    class Attention(nn.Module):
        def forward(self, q: torch.Tensor, mask: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"y": nn.functional.scaled_dot_product_attention(q, q, q, attn_mask=mask)}

    q, module = torch.randn(1, 1, 3, 4, generator=torch.Generator().manual_seed(0)), Attention()
    expected = module(q, mask)["y"].numpy()
    assert (expected[0, 0, 1] == 0).all()
    found = run(trace(module, module.forward, {"q": q, "mask": mask}), q=q, mask=mask)["y"]
    assert ulps(found, expected, dtype=np.float32) <= 4
    return found


def test_a_query_that_may_look_at_no_key_gives_zeros_under_either_mask() -> None:
    keep = torch.tensor([[True, False, True], [False, False, False], [True, True, True]])[None, None]
    added = torch.zeros(keep.shape).masked_fill(~keep, float("-inf"))
    assert np.array_equal(masked(keep)[0, 0, 1], masked(added)[0, 0, 1])


def test_an_output_may_be_called_like_a_value_or_a_weight_inside() -> None:
    class Clashing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            linear = self.layer(x)
            relu = linear.relu()
            return {
                "linear": relu,
                "relu": linear,
                "add": relu + linear,
                "layer.weight": relu - 1,
                "val_0": x,
            }

    torch.manual_seed(0)
    module, x = Clashing().eval(), torch.randn(2, 4)
    with torch.no_grad():
        expected = {name: value.numpy() for name, value in module(x).items()}
    found = run(trace(module, module.forward, {"x": x}), x=x)
    assert list(found) == list(expected)
    # All come of one product, whose sums have the last places of its largest values.
    top = max(float(np.abs(value).max()) for value in expected.values())
    assert all(ulps(found[name], expected[name], scale=top) <= 4 for name in expected)


def test_a_constant_and_an_input_may_be_outputs() -> None:
    class Constant(nn.Module):
        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"scale": torch.arange(4.0).exp(), "same": x, "double": x * 2}

    module, x = Constant(), torch.randn(2, 4)
    found = run(trace(module, module.forward, {"x": x}), x=x)
    assert all(np.array_equal(found[name], value.numpy()) for name, value in module(x).items())
