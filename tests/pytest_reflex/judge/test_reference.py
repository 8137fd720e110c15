"""The reference gate: asked again, watched for state, and never the candidate's own file."""

from __future__ import annotations

import random
import tracemalloc

import numpy as np
import pytest
import torch
from policy_cases import SPECS, Function, Policy, candidate, honest, only_refusal, policy_model
from torch import nn

from pytest_reflex.inputs import InputSpec, Integers
from pytest_reflex.judge.check import check
from pytest_reflex.runners import FunctionRunner, OnnxRunner, TorchRunner
from pytest_reflex.runners.state import state_of


class Kept(Policy):
    """The policy, with something that changes when it runs; its answers hang on that by ``answers``."""

    def __init__(self, keep, answers):
        super().__init__()
        self.keep, self.answers = keep, answers
        self.calls, self.cache, self.last, self.rng = 0, {}, None, np.random.default_rng(0)
        self.register_buffer("seen", torch.zeros(1))

    def forward(self, x, mask):
        made = super().forward(x, mask)["actions"]
        return {"actions": made + self.answers * self.keep(self, x)}


def counted(self, x):
    self.calls += 1
    return float(self.calls)


def filled(self, x):
    self.seen += 1
    return self.seen


def drawn(self, x):
    return float(self.rng.standard_normal())


def remembered(self, x):
    self.last = x.clone()
    return 0.0


def cached(self, x):
    self.cache.setdefault(tuple(x.shape), torch.arange(x.shape[-1]))
    return 0.0


@pytest.mark.parametrize(
    ("keep", "name"),
    [(counted, "attribute 'calls'"), (filled, "buffer 'seen'"), (drawn, "attribute 'rng'")],
)
def test_what_answers_otherwise_is_refused_and_what_moved_is_named(keep, name):
    plain = check(Kept(keep, 0.0), candidate(), inputs=SPECS)
    assert plain.passed
    assert any(f"the reference keeps count: {name} changes" in note for note in plain.notes)
    strict = check(Kept(keep, 0.0), candidate(), inputs=SPECS, strict=True)
    assert name in only_refusal(strict, "reference")
    wrong = check(Kept(keep, 0.1), candidate(), inputs=SPECS)
    (reason,) = [a.said for _, a in wrong.refusals if a.gate == "reference"]
    assert reason.startswith(
        "the reference is no function of its inputs: fixture 4 asked again gave other bits"
    )
    assert reason.endswith(f"; {name} changed meanwhile")


class Counter:
    calls = 0


class Shared(Policy):
    """Counts in its class, and in an object that it holds."""

    total = 0

    def __init__(self, where):
        super().__init__()
        self.where, self.counter = where, Counter()

    def forward(self, x, mask):
        if self.where == "class":
            Shared.total += 1
        else:
            self.counter.calls += 1
        return super().forward(x, mask)


@pytest.mark.parametrize(("where", "name"), [("class", "Shared.total"), ("object", "counter")])
def test_a_count_that_is_kept_elsewhere_is_named_too(where, name):
    strict = check(Shared(where), candidate(), inputs=SPECS, strict=True)
    assert f"the reference keeps count: attribute '{name}' changes" in only_refusal(strict, "reference")


@pytest.mark.parametrize("keep", [remembered, cached])
def test_what_is_kept_of_the_inputs_is_no_state(keep):
    result = check(Kept(keep, 0.0), candidate(), inputs=SPECS, strict=True)
    assert (result.passed, result.notes) == (True, ())


def test_an_answer_that_is_off_by_less_than_the_threshold_is_a_doubt():
    calls = []

    def drifting(x, mask):
        calls.append(x)
        return {"actions": honest(x, mask)["actions"] + np.float32(1e-6 * (len(calls) > 5))}

    result = check(Function(drifting, "reference"), candidate(), inputs=SPECS)
    assert result.passed
    assert result.notes[0].startswith("the reference is no function of its inputs: fixture 4 asked again")


@pytest.mark.parametrize(
    ("again", "said"),
    [
        (lambda y: {"actions": y[:, :4]}, "actions was float32 [1, 8] and then float32 [1, 4]"),
        (lambda y: {"others": y}, "the outputs were ['actions'] and then ['others']"),
        (lambda y: {"actions": y.astype(np.float64)}, "actions was float32 [1, 8] and then float64 [1, 8]"),
    ],
)
def test_an_answer_of_another_form_is_refused_however_loose_the_threshold_is(again, said):
    calls = []

    def unsteady(x, mask):
        calls.append(x)
        return honest(x, mask) if len(calls) <= 5 else again(honest(x, mask)["actions"])

    result = check(Function(unsteady, "reference"), candidate(), inputs=SPECS, threshold=1e3)
    assert f"fixture 4 asked again gave other bits: {said}" in only_refusal(result, "reference")


@pytest.mark.parametrize(("draw", "whose"), [(np.random.random, "numpy's"), (random.random, "Python's")])
def test_whose_random_numbers_were_drawn_is_said(draw, whose):
    def noisy(x, mask):
        draw()
        return honest(x, mask)

    result = check(Function(noisy, "reference"), candidate(), inputs=SPECS)
    assert result.passed
    assert result.notes[0].startswith(f"the reference drew from {whose} random generator")


def test_a_reference_that_holds_still_is_asked_once_more():
    asked = []

    class Counting(TorchRunner):
        def run(self, inputs):
            asked.append(inputs)
            return super().run(inputs)

    assert check(Counting(Policy()), candidate(), inputs=SPECS).passed
    assert len(asked) == 6
    assert (asked[5]["x"] == asked[0]["x"]).all()


def test_two_sides_are_two(tmp_path):
    one, copy, other = (tmp_path / name for name in ("one.onnx", "copy.onnx", "other.onnx"))
    for path in (one, copy):
        path.write_bytes(policy_model())
    other.write_bytes(policy_model(offset=0.50001))
    (tmp_path / "link.onnx").symlink_to(one)
    for path, said in [
        (one, "both sides are"),
        (tmp_path / "link.onnx", "both sides are"),
        (copy, "both sides hold the same bytes"),
        (other, "neither PyTorch nor a recording of it"),
    ]:
        result = check(OnnxRunner(one), OnnxRunner(path), inputs=SPECS, threshold=1e-3)
        assert said in only_refusal(result, "reference")
    assert check(OnnxRunner(one), TorchRunner(Policy()), inputs=SPECS).passed
    assert check(Function(honest, "reference"), OnnxRunner(one), inputs=SPECS).passed


def test_state_is_what_can_be_compared():
    module = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    module.nested = {"a": [1, (2.0, torch.ones(1))], "b": float("nan")}
    before = state_of(module)
    assert {"buffer '1.running_mean'", "parameter '0.weight'", "attribute 'nested'"} <= set(before)
    assert state_of(module) == before
    module.nested["a"][1][1].add_(1)
    assert [name for name, value in state_of(module).items() if value != before[name]] == [
        "attribute 'nested'"
    ]
    with torch.no_grad():
        module[0].weight.mul_(2)
    module[1].running_mean.data.add_(1)
    moved = [name for name, value in state_of(module).items() if value != before[name]]
    assert moved == ["attribute 'nested'", "parameter '0.weight'", "buffer '1.running_mean'"]


class Remembers(Policy):
    """Keeps its last activations, as some do for a picture of them."""

    def forward(self, x, mask):
        self.last = torch.outer(x.reshape(-1), torch.linspace(1, 2, 20_000)).contiguous()
        return super().forward(x, mask)


def test_what_is_made_anew_by_each_run_is_no_count():
    """It is another tensor each time, and the same values, however many they are."""
    result = check(TorchRunner(Remembers()), candidate(), inputs=SPECS, strict=True)
    assert result.require().passed
    module = Remembers().eval()
    x, mask = torch.ones(1, 8), torch.ones(1, 8, dtype=torch.bool)
    module(x, mask)
    kept, before = module.last, state_of(module)
    module(x, mask)
    assert module.last.data_ptr() != kept.data_ptr()
    assert state_of(module) == before
    module(x + 1, mask)
    other = state_of(module)
    assert other != before
    module.last.add_(1)
    assert state_of(module) != other


def test_a_free_axis_and_a_category_are_varied_or_doubted():
    free = [InputSpec("x", (1, 8), free=("n", None))]
    sides = [Function(lambda x: {"y": x}, name) for name in ("reference", "candidate")]
    assert check(*sides, inputs=free, strict=True).passed
    for fixtures, sizes in ((1, "1"), (3, "1, 2")):
        (note,) = check(*sides, inputs=free, fixtures=fixtures).notes
        assert f"axis 'n' is free and was judged in sizes {sizes} alone" in note
    assert "axis 'n'" in only_refusal(check(*sides, inputs=free, fixtures=3, strict=True), "variation")
    ids = [InputSpec("i", (2,), "int64", Integers(0, 12))]
    sides = [Function(lambda i: {"y": i * 2}, name) for name in ("reference", "candidate")]
    assert check(*sides, inputs=ids, fixtures=7, strict=True).passed
    said = only_refusal(check(*sides, inputs=ids, strict=True), "variation")
    assert said.startswith("input 'i': ")
    assert said.endswith("draw 13 fixtures to judge each")


def open_graph(tmp_path):
    """Twice its input, for any batch that the graph leaves open."""
    from onnx import TensorProto, helper

    shape = ["batch", 3]
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "x"], ["y"])],
        "twice",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    path = tmp_path / "open.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def test_an_axis_that_the_graph_leaves_open_is_varied_or_doubted(tmp_path):
    sides = FunctionRunner(lambda x: {"y": x + x}), open_graph(tmp_path)
    said = (
        "axis 0 of input 'x' (batch) is open in the graph and was judged in size 2 alone; give "
        "InputSpec('x', ..., free=('batch', None)), or fix it in the file"
    )
    fixed, free = [InputSpec("x", (2, 3))], [InputSpec("x", (2, 3), free=("batch", None))]
    plain = check(*sides, inputs=fixed)
    assert plain.passed
    assert said in plain.notes
    assert only_refusal(check(*sides, inputs=fixed, strict=True), "variation") == said
    assert check(*sides, inputs=free, strict=True).passed
    recorded = [{"x": np.full((n, 3), n, np.float32)} for n in (1, 2, 4)]
    assert check(*sides, inputs=recorded, strict=True).passed


def test_a_check_takes_no_more_than_four_times_its_outputs():
    rows = 500_000

    def large(x):
        made = np.empty((rows, 8), np.float32)
        return {"y": np.multiply(x, np.arange(1, rows + 1, dtype=np.float32)[:, None], out=made)}

    def rounded(x):
        made = large(x)["y"]
        made[3, 3] = np.nextafter(made[3, 3], np.float32(9))
        return {"y": made}

    spec = [InputSpec("x", (1, 8))]
    for count in (1, 3):
        tracemalloc.start()
        try:
            result = check(Function(large, "reference"), Function(rounded), inputs=spec, fixtures=count)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert result.passed
        assert peak <= 4 * count * rows * 8 * 4


def test_what_a_policy_may_hold_is_known_by_its_value() -> None:
    """Arrays, generators of all three libraries, sparse and strided tensors, long collections."""
    sparse, wide = torch.eye(3).to_sparse(), torch.zeros(300, 400).t()
    held = [
        (np.zeros(3), lambda one: one.__setitem__(0, 1)),
        (np.random.default_rng(0), lambda one: one.random()),
        (np.random.RandomState(0), lambda one: one.random()),
        (random.Random(0), lambda one: one.random()),
        (torch.Generator(), lambda one: torch.rand(1, generator=one)),
        (sparse, lambda one: one.mul_(2)),
        (wide, lambda one: one.add_(1)),
        (torch.zeros(2), lambda one: one.add_(1)),
        ([*range(300)], lambda one: one.append(1)),
        ({"a": (1, [2.0])}, lambda one: one["a"][1].append(3)),
    ]
    for value, change in held:
        model = nn.Linear(2, 2)
        model.kept = value  # type: ignore[assignment]
        before = state_of(model)
        assert state_of(model) == before, f"{type(value).__name__} is itself"
        change(value)
        now = state_of(model)
        moved = {name for name in before if before[name] != now[name]}
        assert len(moved) == 1, f"a changed {type(value).__name__} is another"
        assert "'kept'" in moved.pop()
