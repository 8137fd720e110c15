"""locate() names the module, and the step, in which a fault was planted; and nothing where none was."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import onnx_ir as ir
import pytest
import torch
import toy_transformer
from floors import ulps
from torch import fx
from toy_transformer import HEADS, STEPS, WIDTH, Toy

import exporters
from exporters import locate
from exporters.bundle.store import file_facts
from exporters.bundles import Bundle
from exporters.divergence import Search, write_reproduction
from exporters.divergence.interpreter import Key, Step
from exporters.divergence.local_error import _beyond, apart, judge_local, spacing
from pytest_reflex import ReflexError, check
from pytest_reflex.inputs import InputSpec
from pytest_reflex.judge.diagnose import diagnosed
from pytest_reflex.report import html
from pytest_reflex.report.json import document, schema
from pytest_reflex.report.json.results import result_from_json, result_to_json
from pytest_reflex.report.markdown import markdown
from pytest_reflex.report.text.divergence import divergence_text
from pytest_reflex.report.text.terminal import failure_message
from pytest_reflex.verdict.tolerances import THRESHOLD

pytestmark = pytest.mark.once

# The graph of the unrolled bundle, to plant a fault in, and what is planted where.
Plant = Callable[[ir.Graph], None]


@pytest.fixture(scope="module")
def toy() -> Toy:
    return Toy().eval()


@pytest.fixture(scope="module")
def bundles(toy: Toy, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Bundle]:
    place = tmp_path_factory.mktemp("toy")
    inputs = toy_transformer.inputs()
    return {
        layout: exporters.export(toy, place / layout, inputs=inputs, layout=layout, strict=True)
        for layout in ("unrolled", "loop", "stepwise")
    }


@pytest.fixture(scope="module")
def search(toy: Toy, bundles: dict[str, Bundle]) -> dict[str, Search]:
    return {layout: bundle.search(toy) for layout, bundle in bundles.items()}


def planted(bundle: Bundle, plant: Plant) -> dict[str, ir.Model]:
    models = {role: ir.load(bundle.path / file) for role, file in bundle.manifest["graphs"].items()}
    plant(models.get("model", next(iter(models.values()))).graph)
    return models


def of(graph: ir.Graph, module: str, operator: str, step: int | None) -> Iterator[ir.Node]:
    """The nodes of a module, told by the metadata on them."""
    for node in graph:
        scopes = node.metadata_props.get("pkg.torch.onnx.name_scopes", "")
        at = node.metadata_props.get("pytest_reflex.step")
        if (
            f"'owner.{module}'" in scopes
            and node.op_type == operator
            and at == (None if step is None else str(step))
        ):
            yield node


def first(graph: ir.Graph, module: str, operator: str, step: int | None = None) -> ir.Node:
    return next(of(graph, module, operator, step))


def weight(graph: ir.Graph, name: str, array: np.ndarray) -> ir.Value:
    value = ir.Value(
        name=name,
        shape=ir.Shape(array.shape),
        type=ir.TensorType(ir.DataType.from_numpy(array.dtype)),
        const_value=ir.tensor(array, name=name),
    )
    graph.register_initializer(value)
    return value


def constant_of(node: ir.Node) -> tuple[int, np.ndarray]:
    """Which input of a node is a constant, and what it holds."""
    for index, value in enumerate(node.inputs):
        tensor = ir.convenience.get_const_tensor(value) if value is not None else None
        if tensor is not None:
            return index, tensor.numpy()
    raise LookupError(node.name)


def changed(node: ir.Node, graph: ir.Graph, change: Callable[[np.ndarray], np.ndarray]) -> None:
    index, array = constant_of(node)
    node.replace_input_with(index, weight(graph, f"planted/{node.name}", change(array.copy())))


def epsilon(graph: ir.Graph) -> None:
    changed(first(graph, "layers.2.norm_2", "Add", 3), graph, lambda eps: eps + np.float32(1e-2))


def one_head(graph: ir.Graph) -> None:
    """The first two heads of one layer's values change places."""
    softmax = first(graph, "layers.1.attention", "Softmax", 0)
    values = next(node for node, _ in softmax.outputs[0].uses() if node.op_type == "MatMul")
    order = weight(graph, "planted/order", np.array([1, 0, *range(2, HEADS)], np.int64))
    gathered = ir.node("Gather", [values.inputs[1], order], attributes={"axis": 1}, name="planted/heads")
    gathered.outputs[0].name = "planted/heads"
    gathered.outputs[0].type, gathered.outputs[0].shape = values.inputs[1].type, values.inputs[1].shape
    graph.insert_before(values, gathered)
    values.replace_input_with(1, gathered.outputs[0])


def mask(graph: ir.Graph) -> None:
    """One layer's scores are softened as if nothing were masked."""
    where = first(graph, "layers.0.attention", "Where", 5)
    scores = next(v for v in where.inputs if v is not None and v.producer() in set(of_scores(graph)))
    ir.convenience.replace_all_uses_with(where.outputs[0], scores)


def of_scores(graph: ir.Graph) -> Iterator[ir.Node]:
    return (node for node in graph if node.op_type in ("Div", "Mul", "MatMul"))


def narrow_time(graph: ir.Graph) -> None:
    """The angle of the time embedding passes through float32, in every step."""
    for node in list(graph):
        if node.op_type not in ("Sin", "Cos"):
            continue
        angle = node.inputs[0]
        for to in (ir.DataType.FLOAT, ir.DataType.DOUBLE):
            cast = ir.node("Cast", [angle], attributes={"to": int(to)}, name=f"planted/{node.name}/{to}")
            cast.outputs[0].name = cast.name
            cast.outputs[0].type, cast.outputs[0].shape = ir.TensorType(to), node.inputs[0].shape
            graph.insert_before(node, cast)
            angle = cast.outputs[0]
        node.replace_input_with(0, angle)


def weight_row(graph: ir.Graph) -> None:
    def change(matrix: np.ndarray) -> np.ndarray:
        matrix[5] *= np.float32(1.01)
        return matrix

    name = "layers.3.up.weight.T"
    value = graph.initializers[name]
    value.const_value = ir.tensor(change(value.const_value.numpy().copy()), name=name)


def step_seven(graph: ir.Graph) -> None:
    changed(first(graph, "out", "Add", 7), graph, lambda bias: bias + np.float32(1e-3))


def half_block(graph: ir.Graph) -> None:
    """One block's MLP output passes through float16."""
    down = first(graph, "layers.2.down", "Add", 4)
    readers = list(down.outputs[0].uses())
    value = down.outputs[0]
    for to in (ir.DataType.FLOAT16, ir.DataType.FLOAT):
        cast = ir.node("Cast", [value], attributes={"to": int(to)}, name=f"planted/half/{to}")
        cast.outputs[0].name = cast.name
        cast.outputs[0].type, cast.outputs[0].shape = ir.TensorType(to), down.outputs[0].shape
        graph.insert_before(readers[0][0], cast)
        value = cast.outputs[0]
    for node, index in readers:
        node.replace_input_with(index, value)


FAULTS: dict[str, tuple[Plant, str, int | None]] = {
    "a norm's epsilon": (epsilon, "layers.2.norm_2", 3),
    "one head's permutation": (one_head, "layers.1.attention", 0),
    "a mask dropped": (mask, "layers.0.attention", 5),
    "the time embedding in float32": (narrow_time, "Toy.velocity", 0),
    "one weight row": (weight_row, "layers.3.up", 0),
    "step 7 only": (step_seven, "out", 7),
    "a float16 cast in one block": (half_block, "layers.2", 4),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_planted_module_and_step_are_named_first(
    fault: str, search: dict[str, Search], bundles: dict[str, Bundle]
) -> None:
    plant, module, step = FAULTS[fault]
    found = search["unrolled"].walk(1, models=planted(bundles["unrolled"], plant))
    assert found.cause == "graph"
    assert found.place is not None
    assert (found.place.module, found.place.step) == (module, step)
    assert found.place.where in found.said
    assert found.place.error > 0
    assert found.place.reference != found.place.candidate
    # Also where the policy computes outside of any submodule of its own.
    assert found.place.source.startswith("toy_transformer.py:")


@pytest.mark.parametrize("fault", FAULTS)
def test_the_planted_fault_is_called_a_bug(
    fault: str, toy: Toy, bundles: dict[str, Bundle], tmp_path: Path
) -> None:
    clean = bundles["unrolled"]
    shutil.copytree(clean.path, tmp_path / "broken")
    ir.save(planted(clean, FAULTS[fault][0])["model"], tmp_path / "broken" / "model.onnx")
    result = check(toy, Bundle(tmp_path / "broken", clean.manifest), floor=True, fixtures=4)
    assert result.word == "bug"
    assert check(toy, clean, floor=True, fixtures=4).word == "rounding"


@pytest.mark.parametrize("layout", ["unrolled", "loop", "stepwise"])
def test_a_clean_export_is_rounding_and_every_value_was_compared(
    layout: str, search: dict[str, Search]
) -> None:
    found = search[layout].walk(2)
    assert found.cause == "rounding"
    assert found.place is None
    assert found.values > STEPS * 80
    assert found.unmatched < found.values
    assert {growth.step for growth in found.growth} >= {None, *range(STEPS)}
    assert all(growth.propagated <= THRESHOLD for growth in found.growth)


@pytest.mark.parametrize("layout", ["loop", "stepwise"])
def test_a_wrong_weight_is_found_in_every_layout(
    layout: str, search: dict[str, Search], bundles: dict[str, Bundle]
) -> None:
    bundle = bundles[layout]
    models = {role: ir.load(bundle.path / file) for role, file in bundle.manifest["graphs"].items()}
    graph = models["step" if layout == "stepwise" else "model"].graph
    weight_row(graph)
    found = search[layout].walk(models=models)
    assert found.place is not None
    assert (found.place.module, found.place.step) == ("layers.3.up", 0)


def test_a_masks_fill_hides_nothing() -> None:
    lowest = np.finfo(np.float32).min
    scores = np.array([1.0, -2.0, lowest, lowest], np.float32)
    assert apart(scores, scores).scale == 2.0
    assert apart(scores, np.nextafter(scores, np.float32(0))).error == float(np.spacing(np.float32(1)))
    off = apart(scores, scores + np.array([0.5, 0, 0, 0], np.float32))
    assert (off.error, off.index) == (0.5, (0,))
    unmasked = apart(scores, np.array([1.0, -2.0, lowest, 0.0], np.float32))
    assert (unmasked.error, unmasked.index) == (-float(lowest), (3,))
    endless = np.array([1.0, np.inf], np.float32)
    assert apart(endless, endless).error == 0
    assert apart(endless, scores[:2]).error == np.inf


def test_pieces_of_any_size_find_the_same(search: dict[str, Search], bundles: dict[str, Bundle]) -> None:
    whole, small = (
        search["unrolled"].walk(models=planted(bundles["unrolled"], epsilon), budget_bytes=size)
        for size in (1 << 30, 20_000)
    )
    assert whole.place == small.place
    assert whole.values == small.values
    assert [g.module for g in whole.growth] == [g.module for g in small.growth]
    propagated = ([g.propagated for g in walk.growth] for walk in (whole, small))
    assert ulps(*map(np.array, propagated)) < 16


def test_what_was_traced_is_not_the_policy(toy: Toy, tmp_path: Path) -> None:
    from pytest_reflex.runners import TorchRunner

    class Upstream(torch.nn.Module):
        """Runs the toy's own modules, and scales what goes into the third layer."""

        def __init__(self) -> None:
            super().__init__()
            self.toy = toy

        def forward(self, **named: torch.Tensor) -> dict[str, torch.Tensor]:
            handle = self.toy.layers[2].register_forward_pre_hook(
                lambda module, args: (args[0] * 1.01, *args[1:])
            )
            try:
                return self.toy(**named)
            finally:
                handle.remove()

    bundle = exporters.export(toy, tmp_path / "b", inputs=toy_transformer.inputs(), verify=False)
    upstream = Upstream().eval()
    runner = TorchRunner(toy, lambda **named: upstream(**named))
    found = locate(runner, bundle)
    assert found.cause == "split"
    assert found.said.startswith("layers.2, call 1, is given other inputs: ")


def test_what_is_not_finite_on_both_sides_is_the_reference_s_and_no_rounding(tmp_path: Path) -> None:
    class Log(torch.nn.Module):
        def forward(self, prompt: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"y": torch.log(prompt)}

    made = exporters.export(Log().eval(), tmp_path / "b", inputs=toy_transformer.inputs()[:1], verify=False)
    found = locate(Log().eval(), made)
    assert (found.cause, found.place) == ("reference", None)
    assert re.match(
        r"the reference itself gives nan at \[.*\] \(\d+ of \d+ elements are not finite\)", found.said
    )


def test_an_optimizer_that_changes_results_is_named(tmp_path: Path) -> None:
    class Rounded(torch.nn.Module):
        """Rounds through float16 on purpose, which the optimizer takes for a detour."""

        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = torch.nn.Linear(WIDTH, WIDTH), torch.nn.Linear(WIDTH, WIDTH)

        def forward(self, prompt: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"y": self.b(torch.relu(self.a(prompt).half().float()))}

    model = Rounded().eval()
    inputs = toy_transformer.inputs()[:1]
    clean = exporters.export(model, tmp_path / "b", inputs=inputs, verify=False)
    option = {"optimization.enable_cast_chain_elimination": "1"}
    session = {"optimization": "all", "config": option}
    bundle = Bundle(clean.path, {**clean.manifest, "session": session})
    assert locate(model, clean).cause == "rounding"
    found = locate(model, bundle)
    assert found.cause == "runtime"
    assert "CastChainElimination" in found.said


def test_a_reproduction_runs_alone_and_shows_the_error(
    search: dict[str, Search], bundles: dict[str, Bundle], tmp_path: Path
) -> None:
    found = search["unrolled"].walk(models=planted(bundles["unrolled"], weight_row))
    script = write_reproduction(search["unrolled"], tmp_path / "repro")
    assert sorted(p.name for p in script.parent.iterdir()) == [
        "expected.npy", "inputs.npz", "model.onnx", "repro.py",
    ]  # fmt: skip
    assert len(script.read_text().splitlines()) <= 25
    assert "torch" not in script.read_text()
    # Isolated from this environment's paths: numpy and onnxruntime are all that it may import.
    ran = subprocess.run(
        [sys.executable, "-I", str(script)], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    shown = float(ran.stdout.rsplit("max_abs_diff", 1)[1])
    assert found.place is not None
    largest = max(abs(found.place.reference), abs(found.place.candidate))
    assert ulps(shown, found.place.error, scale=largest) < 16
    with pytest.raises(ReflexError, match="not empty; give a directory"):
        write_reproduction(search["unrolled"], tmp_path / "repro")


def test_where_nothing_is_wrong_nothing_is_reproduced(search: dict[str, Search], tmp_path: Path) -> None:
    search["unrolled"].walk()
    with pytest.raises(ReflexError, match="nothing to reproduce"):
        write_reproduction(search["unrolled"], tmp_path / "repro")
    assert not (tmp_path / "repro").exists()


def test_a_result_with_a_place_survives_json(
    toy: Toy, search: dict[str, Search], bundles: dict[str, Bundle]
) -> None:
    found = search["unrolled"].walk(models=planted(bundles["unrolled"], epsilon))
    clean = bundles["unrolled"].result
    result = replace(clean, located=found)
    again = result_from_json(json.loads(json.dumps(result_to_json(result), allow_nan=False)))
    assert again == result
    jsonschema.validate(document([again]), schema())
    text = str(result).splitlines()
    assert text[1].startswith("Where: bug: step 3, layers.2.norm_2 (toy_transformer.py:")
    assert any(line.strip().startswith("layers.2 ") for line in text)


def test_a_failing_check_names_the_place_in_its_first_lines(
    toy: Toy, bundles: dict[str, Bundle], tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(bundles["unrolled"].path, broken)
    model = planted(bundles["unrolled"], step_seven)["model"]
    ir.save(model, broken / "model.onnx")
    made = bundles["unrolled"].manifest
    bundle = Bundle(broken, {**made, "files": {**made["files"], **file_facts(broken, ["model.onnx"])}})
    plain = check(toy, bundle, threshold=1e-5, floor=True)
    assert not plain.passed
    result = diagnosed(plain, toy, bundle, seconds=600)
    lines = failure_message(result).splitlines()
    assert lines[0].startswith("parity FAIL: max_abs_diff")
    assert lines[1].startswith("Floor: bug: ")
    assert re.match(r"Where: bug: step 7, out \(toy_transformer.py:\d+\): the graph's Add holds ", lines[2])
    assert " holds other numbers than `out.bias`: 32 of 32, by up to 0.001, and fed alike" in lines[2]
    assert len(lines) <= 64
    assert max(map(len, lines[3:])) <= 100
    # The page and the summary say the same, from the document alone.
    made = json.loads(json.dumps(document([result])))
    text = html.page(made)
    for said in (lines[1][:10], lines[2].partition(" (")[0], "first wrong here", "Distance from float64"):
        assert said in text
    told = markdown(made)
    assert "Where: bug: step 7, out (toy" in told
    assert "| module | worst step | propagated | local |" in told
    # What cannot be done in time is said, and the verdict stays what it was.
    hurried = diagnosed(plain, toy, bundle, seconds=1e-3)
    assert hurried.located is None
    assert "were not enough" in hurried.notes[-1] or "are too much" in hurried.notes[-1]
    assert diagnosed(plain, toy, bundle, seconds=0) == plain


def test_a_recording_cannot_be_walked_through(bundles: dict[str, Bundle]) -> None:
    bundle = bundles["unrolled"]
    with pytest.raises(ReflexError, match="no PyTorch policy"):
        locate(bundle.recording(), bundle)


PRODUCTS = {
    "linear": (torch.ops.aten.linear.default, lambda x, w, b: (x[None], w, b)),
    "mm": (torch.ops.aten.mm.default, lambda x, w, b: (x, w.T.contiguous())),
    "addmm": (torch.ops.aten.addmm.default, lambda x, w, b: (b, x, w.T.contiguous())),
    "addmm, a whole bias": (torch.ops.aten.addmm.default, lambda x, w, b: (b.expand(20, 8), x, w.T)),
    "mm by itself": (torch.ops.aten.mm.default, lambda x, w, b: (x[:, :20], x[:, :20])),
}


@pytest.mark.parametrize(("target", "operands"), PRODUCTS.values(), ids=PRODUCTS)
def test_the_suspicious_rows_alone_give_the_verdict_of_all(target: Any, operands: Any) -> None:
    torch.manual_seed(0)
    x, w, b = torch.randn(20, 300), torch.randn(8, 300), torch.randn(8)
    given = operands(x, w, b)
    graph = fx.Graph()
    names = {id(t): graph.placeholder(f"v{i}") for i, t in enumerate(given)}
    node = graph.call_function(target, tuple(names[id(t)] for t in given))
    values = {names[id(t)]: t for t in given}
    reference = target(*given)
    step = Step(Key("model", None, "product"), reference, node, values)
    unit = spacing(float(reference.abs().max()))
    verdicts = []
    for times in (1, 10, 12.1, 14, 15.9, 17, 20, 40, 200):
        for row, column in ((0, 0), (7, 3), (19, 7)):
            local = reference.clone()
            local[..., row, column] += times * unit
            ours = judge_local(
                step, reference.numpy(), local.numpy(), apart(reference.numpy(), local.numpy())
            )
            whole = _beyond(step, reference.numpy(), local.numpy(), unit)
            assert ours.wrong == whole.wrong, (times, row, column)
            if ours.wrong:
                assert ours.rounding == whole.rounding
            verdicts.append(whole.wrong)
    assert set(verdicts) == {True, False}


class Plain(torch.nn.Module):
    """No flow; what it adds is computed outside of any submodule."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = torch.nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x) + 0.5


def test_what_a_plain_module_computes_itself_is_named_by_its_class_and_line(tmp_path: Path) -> None:
    module = Plain().eval()
    bundle = exporters.export(module, tmp_path / "plain", inputs=[InputSpec("x", (1, 4))], verify=False)

    def more(model: ir.Model) -> None:
        (node,) = [n for n in model.graph if "0.5" in str(n) or n.name == "node_add"]
        half = next(v for v in node.inputs if v is not None and v.const_value is not None)
        half.const_value = ir.tensor(np.float32(0.75))

    model = ir.load(bundle.path / "model.onnx")
    more(model)
    found = bundle.locate(module, models={"model": model})
    line = Plain.forward.__code__.co_firstlineno + 1
    assert found.place is not None
    assert found.place.where == f"Plain (test_locate.py:{line})"
    assert "owner" not in divergence_text(found)


class Told(torch.nn.Module):
    """What an operator is told by one number, or reads in an order."""

    def __init__(
        self, scale: float = 0.125, add: float = 1.0, power: float = 2.0, turned: bool = False
    ) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear, self.told, self.turned = torch.nn.Linear(8, 8), (scale, add, power), turned

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scale, add, power = self.told
        x = ((self.linear(x) * scale).softmax(-1) + add) ** power
        parts = [x.cos(), x.sin()]
        return torch.cat(parts[::-1] if self.turned else parts, -1)


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"scale": 0.354}, "the graph's Mul has 0.354, the policy's mul 0.125"),
        ({"add": 1.5}, "the graph's Add has 1.5, the policy's add 1"),
        ({"power": 3.0}, "the graph's Pow has 3, the policy's pow 2"),
        ({"turned": True}, "the graph's Concat reads sin and cos in another order than the policy's does"),
    ],
)
def test_a_number_or_an_order_that_is_another_is_named(other: Any, said: str, tmp_path: Path) -> None:
    inputs = [InputSpec("x", (1, 4, 8))]
    made = exporters.export(Told(**other).eval(), tmp_path / "b", inputs=inputs, fixtures=3)
    assert f"): {said}, and fed alike they are" in str(made.locate(Told().eval()))
    assert made.locate(Told(**other).eval()).place is None


class Layer(torch.nn.Module):
    def __init__(self, kind: Any, *, both: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.rnn = kind(4, 8, batch_first=True, bidirectional=both)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.rnn(x)[0]
        return out


@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("kind", [torch.nn.GRU, torch.nn.LSTM])
def test_the_weight_of_a_recurrent_layer_is_named_though_onnx_orders_its_gates_otherwise(
    kind: Any, both: bool, tmp_path: Path
) -> None:
    made = exporters.export(
        Layer(kind, both=both).eval(), tmp_path / "b", inputs=[InputSpec("x", (1, 3, 4))], fixtures=3
    )
    assert made.locate(Layer(kind, both=both).eval()).place is None
    names = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
    for name in (*names, *(f"{name}_reverse" for name in names if both)):
        policy = Layer(kind, both=both).eval()
        with torch.no_grad():
            getattr(policy.rnn, name)[3] += 0.5
        numbers = getattr(policy.rnn, name)
        said = (
            f"holds other numbers than `rnn.{name}`: {numbers[3].numel()} of {numbers.numel()}, by up to 0.5"
        )
        assert said in str(made.locate(policy)), name


class TwoCameras(torch.nn.Module):
    def __init__(self, *, swapped: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.patch, self.wrist = torch.nn.Conv2d(3, 2, 2), torch.nn.Conv2d(3, 2, 2)
        self.swapped = swapped

    def forward(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        left, right = batch["images.left"], batch["images.right"]
        left, right = (right, left) if self.swapped else (left, right)
        return torch.tanh(self.patch(left)).flatten(1) + self.wrist(right).flatten(1)


def test_an_input_that_is_not_read_is_called_as_the_policy_calls_it(tmp_path: Path) -> None:
    inputs = [InputSpec(f"images.{side}", (1, 3, 4, 4)) for side in ("left", "right")]
    made = exporters.export(TwoCameras(swapped=True).eval(), tmp_path / "b", inputs=inputs, fixtures=3)
    said = str(made.locate(TwoCameras().eval()))
    assert "the policy's conv2d in `patch` reads images.left, and the graph's does not" in said


def test_the_reference_comes_first_as_in_check(tmp_path: Path) -> None:
    module = Plain().eval()
    bundle = exporters.export(module, tmp_path / "plain", inputs=[InputSpec("x", (1, 4))], verify=False)
    with pytest.raises(ReflexError) as refused:
        locate(bundle, module)  # type: ignore[arg-type]
    assert str(refused.value) == (
        "the bundle is a Plain; they are turned round; give locate(reference, bundle), in check's order"
    )
