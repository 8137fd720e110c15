"""Small wrong changes to a graph, such as a faulty exporter could make: each operator lists its sites.

An operator takes a model and gives ``(where, change)`` for each place that it can change; calling
``change`` changes that one model in place. The list is the same for the same model, so a mutant is
known by the operator's name and a number.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
import onnx_ir as ir

Site = tuple[str, Callable[[], None]]
Operator = Callable[[ir.Model], list[Site]]

STEP: Final = "pytest_reflex.step"
RELATIVE: Final = 1e-3
_MASKING: Final = 1e9


def nodes_of(model: ir.Model) -> list[ir.Node]:
    """Every node, those of a loop's body too."""
    return list(model.graph.all_nodes())


def constant(value: ir.Value | None) -> np.ndarray[Any, Any] | None:
    """What a value is when the graph holds it."""
    return None if value is None or value.const_value is None else value.const_value.numpy()


def shape_of(value: ir.Value | None) -> list[object] | None:
    return None if value is None or value.shape is None else [str(n) for n in value.shape]


def is_float(value: ir.Value | None) -> bool:
    return value is not None and value.dtype == ir.DataType.FLOAT


def set_constant(value: ir.Value, array: np.ndarray[Any, Any]) -> None:
    value.const_value = ir.tensor(np.ascontiguousarray(array), name=value.name)


def new_constant(model: ir.Model, name: str, array: np.ndarray[Any, Any]) -> ir.Value:
    made = ir.Value(name=name, const_value=ir.tensor(array, name=name))
    made.dtype, made.shape = made.const_value.dtype, made.const_value.shape  # type: ignore[union-attr]
    model.graph.register_initializer(made)
    return made


def become_identity(node: ir.Node, value: ir.Value) -> None:
    """Make the node hand ``value`` on, which keeps it an output where it is one."""
    node.op_type = "Identity"
    node.attributes.clear()
    node.resize_inputs(1)
    node.replace_input_with(0, value)


def insert(node: ir.Node, index: int, *chain: tuple[str, dict[str, int]]) -> None:
    """Put one-input operators between a node and its input."""
    value = node.inputs[index]
    for number, (op, attributes) in enumerate(chain):
        made = ir.node(op, [value], attributes=attributes, name=f"{node.name}/mutant{index}.{number}")
        made.outputs[0].name = f"{node.name}/mutant{index}.{number}"
        node.graph.insert_before(node, made)  # type: ignore[union-attr]
        value = made.outputs[0]
    node.replace_input_with(index, value)


def _label(node: ir.Node) -> str:
    return f"{node.op_type} {node.name}"


def mask_dropped(model: ir.Model) -> list[Site]:
    """The mask of an attention, a choice between two values, one side of an "and"."""
    found: list[Site] = []
    for node in nodes_of(model):
        if node.op_type == "Where":
            kept = 1 if shape_of(node.inputs[1]) == shape_of(node.outputs[0]) else 2
            if constant(node.inputs[kept]) is None:
                found.append((_label(node), lambda n=node, k=kept: become_identity(n, n.inputs[k])))
        elif node.op_type == "And":
            for side in (0, 1):
                if shape_of(node.inputs[side]) == shape_of(node.outputs[0]):
                    found.append(
                        (f"{_label(node)}[{side}]", lambda n=node, s=side: become_identity(n, n.inputs[s]))
                    )
        elif node.op_type == "Softmax":
            scores = node.inputs[0].producer() if node.inputs[0] is not None else None
            if scores is not None and scores.op_type == "Add":
                found.append((_label(scores), lambda n=scores: become_identity(n, n.inputs[0])))
    return found


def mask_flipped(model: ir.Model) -> list[Site]:
    """True for false in what a mask is made of."""
    found: list[Site] = []
    for node in nodes_of(model):
        for index, value in enumerate(node.inputs):
            if value is not None and value.dtype == ir.DataType.BOOL and node.op_type not in ("Loop", "Not"):
                found.append((f"{_label(node)}[{index}]", lambda n=node, i=index: insert(n, i, ("Not", {}))))
    return found


def operands_swapped(model: ir.Model) -> list[Site]:
    """Two inputs of a node whose order matters."""
    found: list[Site] = []

    def swap(node: ir.Node) -> None:
        first, second = node.inputs[0], node.inputs[1]
        node.replace_input_with(0, second)
        node.replace_input_with(1, first)

    for node in nodes_of(model):
        if (
            node.op_type in ("Sub", "Div", "Pow", "MatMul", "Concat", "Less", "Greater")
            and len(node.inputs) > 1
        ):
            first, second = node.inputs[:2]
            same = shape_of(first) == shape_of(second)
            if first is not second and (same or node.op_type in ("Sub", "Concat")) and is_float(first):
                found.append((_label(node), lambda n=node: swap(n)))
    return found


def epsilon_changed(model: ir.Model) -> list[Site]:
    """1,000 times what a normalization adds to its variance."""
    found: list[Site] = []
    for node in nodes_of(model):
        if "epsilon" in node.attributes:
            found.append(
                (
                    _label(node),
                    lambda n=node: _attribute(n, "epsilon", 1000 * n.attributes["epsilon"].as_float()),
                )
            )
    for value in model.graph.initializers.values():
        array = constant(value)
        if (
            is_float(value)
            and array is not None
            and array.size == 1
            and 0 < float(array.reshape(-1)[0]) < 1e-4
        ):
            found.append((str(value.name), lambda v=value, a=array: set_constant(v, a * a.dtype.type(1000))))
    return found


def _attribute(node: ir.Node, name: str, value: object) -> None:
    node.attributes[name] = ir.convenience.convert_attribute(name, value)  # type: ignore[arg-type]


def axis_changed(model: ir.Model) -> list[Site]:
    """The neighbouring axis of a softmax, a reduction, a concatenation, a lookup."""
    found: list[Site] = []

    def shifted(axis: int, rank: int) -> int:
        axis %= rank
        return axis - 1 if axis > 0 else axis + 1

    for node in nodes_of(model):
        source = node.inputs[0] if node.inputs else None
        rank = len(source.shape) if source is not None and source.shape is not None else 0
        if rank < 2:
            continue
        if "axis" in node.attributes and node.op_type in ("Softmax", "Concat", "Gather", "Split", "CumSum"):
            axis = shifted(node.attributes["axis"].as_int(), rank)
            found.append((_label(node), lambda n=node, a=axis: _attribute(n, "axis", a)))
        elif node.op_type in ("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "CumSum"):
            axes = constant(node.inputs[1]) if len(node.inputs) > 1 else None
            if axes is not None and axes.size == 1:
                moved = np.full_like(axes, shifted(int(axes.reshape(-1)[0]), rank))
                found.append(
                    (
                        _label(node),
                        lambda n=node, a=moved: n.replace_input_with(
                            1, new_constant(model, f"{n.name}/mutant.axes", a)
                        ),
                    )
                )
    return found


def permutation_changed(model: ir.Model) -> list[Site]:
    """Two neighbouring axes of a transposition, exchanged."""
    found: list[Site] = []

    def exchanged(perm: Sequence[int], at: int) -> list[int]:
        changed = list(perm)
        changed[at], changed[at + 1] = changed[at + 1], changed[at]
        return changed

    for node in nodes_of(model):
        if node.op_type == "Transpose" and "perm" in node.attributes:
            perm = list(node.attributes["perm"].as_ints())
            for at in range(len(perm) - 1):
                other = exchanged(perm, at)
                found.append((f"{_label(node)}[{at}]", lambda n=node, p=other: _attribute(n, "perm", p)))
    return found


def slice_moved(model: ir.Model) -> list[Site]:
    """A slice of the same length, one place on or back; two parts of a split, exchanged."""
    found: list[Site] = []

    def move(node: ir.Node, by: int, *inputs: int) -> None:
        for index in inputs:
            array = constant(node.inputs[index])
            if array is not None:
                made = new_constant(model, f"{node.name}/mutant.{index}", array + array.dtype.type(by))
                node.replace_input_with(index, made)

    for node in nodes_of(model):
        if node.op_type == "Slice":
            starts, ends = constant(node.inputs[1]), constant(node.inputs[2])
            if starts is None or ends is None or starts.size != 1:
                continue
            start, end = int(starts.reshape(-1)[0]), int(ends.reshape(-1)[0])
            if start > 0 and end < 1 << 31:
                found.append((f"{_label(node)} -1", lambda n=node: move(n, -1, 1, 2)))
            elif start == 0 and end < 1 << 31:
                found.append((f"{_label(node)} +1", lambda n=node: move(n, 1, 1, 2)))
            elif start > 0:
                found.append((f"{_label(node)} wider", lambda n=node: move(n, -1, 1)))
        elif (
            node.op_type == "Split"
            and len(node.outputs) > 1
            and shape_of(node.outputs[0]) == shape_of(node.outputs[1])
        ):
            # The parts handed out in another order: each slice of it begins elsewhere.
            found.append((_label(node), lambda n=node: _exchange_outputs(n)))
    return found


def _exchange_outputs(node: ir.Node) -> None:
    first, second = node.outputs[0], node.outputs[1]
    uses = [(list(value.uses()), other) for value, other in ((first, second), (second, first))]
    for places, other in uses:
        for user, index in places:
            user.replace_input_with(index, other)


def constant_scaled(model: ir.Model) -> list[Site]:
    """A small constant (a scale, a time, a frequency, a bias) by 1e-3 of itself."""
    found: list[Site] = []
    for value in model.graph.initializers.values():
        array = constant(value)
        if array is None or array.dtype not in (np.float32, np.float64) or not 1 <= array.size <= 64:
            continue
        largest = float(np.abs(array).max())
        # What masks, and what keeps a division from zero, is no number to be off by a little.
        if 1e-4 < largest < _MASKING:
            scale = array.dtype.type(1 + RELATIVE)
            found.append((str(value.name), lambda v=value, a=array, s=scale: set_constant(v, a * s)))
    return found


def weight_column_zeroed(model: ir.Model) -> list[Site]:
    """One column of a matrix of weights."""
    found: list[Site] = []

    def zero(value: ir.Value, array: np.ndarray[Any, Any]) -> None:
        changed = array.copy()
        changed[..., array.shape[-1] // 2] = 0
        set_constant(value, changed)

    for value in model.graph.initializers.values():
        array = constant(value)
        if array is not None and array.dtype == np.float32 and array.ndim >= 2 and array.size >= 64:
            found.append((str(value.name), lambda v=value, a=array: zero(v, a)))
    return found


def _through(model: ir.Model, dtype: ir.DataType) -> list[Site]:
    found: list[Site] = []
    chain = (("Cast", {"to": int(dtype)}), ("Cast", {"to": int(ir.DataType.FLOAT)}))
    for node in nodes_of(model):
        if node.op_type in ("MatMul", "Gemm", "LayerNormalization", "Add", "Mul", "Softmax", "Sin", "Cos"):
            for index, value in enumerate(node.inputs[:2]):
                if is_float(value) and constant(value) is None:
                    found.append((f"{_label(node)}[{index}]", lambda n=node, i=index: insert(n, i, *chain)))
    return found


def through_float16(model: ir.Model) -> list[Site]:
    """A value rounded to float16 on its way."""
    return _through(model, ir.DataType.FLOAT16)


def through_bfloat16(model: ir.Model) -> list[Site]:
    """A value rounded to bfloat16 on its way."""
    return _through(model, ir.DataType.BFLOAT16)


def residual_dropped(model: ir.Model) -> list[Site]:
    """One of two values of the same shape that are added."""
    found: list[Site] = []
    for node in nodes_of(model):
        if node.op_type != "Add" or len(node.inputs) != 2:
            continue
        if any(constant(value) is not None or not is_float(value) for value in node.inputs):
            continue
        if shape_of(node.inputs[0]) == shape_of(node.inputs[1]):
            for side in (0, 1):
                found.append(
                    (f"{_label(node)} keeps {side}", lambda n=node, s=side: become_identity(n, n.inputs[s]))
                )
    return found


def _values(model: ir.Model) -> dict[str, ir.Value]:
    named = {str(v.name): v for v in (*model.graph.inputs, *model.graph.initializers.values())}
    for node in nodes_of(model):
        named.update({str(v.name): v for v in node.outputs})
        for attribute in node.attributes.values():
            if attribute.type == ir.AttributeType.GRAPH:
                named.update({str(v.name): v for v in attribute.as_graph().inputs})
    return named


def _steps(model: ir.Model) -> list[tuple[ir.Value, ir.Node]]:
    """For each unrolled step what it starts from, and the node that ends it."""
    values = _values(model)
    ends: list[tuple[ir.Value, ir.Node]] = []
    while (end := values.get(f"step.{len(ends)}/x_next")) is not None or (end := _last(model, len(ends))):
        node = end.producer()
        if node is None or node.inputs[0] is None:
            break
        ends.append((node.inputs[0], node))
    return ends


def _last(model: ir.Model, index: int) -> ir.Value | None:
    """The last step's end, which bears the output's name."""
    return next((n.outputs[0] for n in nodes_of(model) if n.name == f"step.{index}/x_next"), None)


def stale_step_input(model: ir.Model) -> list[Site]:
    """A step that reads what an earlier step read, or its time; in a loop, each step the noise."""
    found: list[Site] = []
    steps = _steps(model)

    def restart(index: int, old: ir.Value, stale: ir.Value) -> None:
        for user, place in list(old.uses()):
            # Its last node still adds to what it should: only the velocity is a stale one.
            if user.metadata_props.get(STEP) == str(index) and user.name != f"step.{index}/x_next":
                user.replace_input_with(place, stale)

    for index in range(1, len(steps)):
        now, before = steps[index][0], steps[index - 1][0]
        found.append((f"step {index}", lambda i=index, n=now, b=before: restart(i, n, b)))
    values = _values(model)
    for index in range(1, len(steps)):
        now, before = values.get(f"step.{index}/time"), values.get(f"step.{index - 1}/time")
        if now is not None and before is not None:
            found.append((f"time of step {index}", lambda n=now, b=before: _replace(n, b)))
    loop = next((n for n in nodes_of(model) if n.op_type == "Loop"), None)
    if loop is not None:
        body = loop.attributes["body"].as_graph()
        inner, noise = body.inputs[2], loop.inputs[2]

        def always_noise() -> None:
            for user, place in list(inner.uses()):
                if user.name != "loop/x_next" and noise is not None:
                    user.replace_input_with(place, noise)

        def always_first() -> None:
            zero = new_constant(model, "mutant/zero", np.asarray(0, np.int64))
            _replace(body.inputs[0], zero)

        found += [("every step reads the noise", always_noise), ("the counter stands still", always_first)]
    return found


def _replace(old: ir.Value, new: ir.Value) -> None:
    for user, place in list(old.uses()):
        user.replace_input_with(place, new)


def step_skipped(model: ir.Model) -> list[Site]:
    """One step less."""
    found: list[Site] = [
        (f"step {index}", lambda n=end, v=start: become_identity(n, v))
        for index, (start, end) in enumerate(_steps(model))
    ]
    loop = next((n for n in nodes_of(model) if n.op_type == "Loop"), None)
    if loop is not None:

        def one_less() -> None:
            one = new_constant(model, "mutant/one", np.asarray(1, np.int64))
            less = ir.node("Sub", [loop.inputs[0], one], name="mutant/less")
            less.outputs[0].name = "mutant/less"
            loop.graph.insert_before(loop, less)  # type: ignore[union-attr]
            loop.replace_input_with(0, less.outputs[0])

        found.append(("the loop", one_less))
    return found


def layers_exchanged(model: ir.Model) -> list[Site]:
    """The weights of two layers of one kind."""
    found: list[Site] = []
    kinds: dict[tuple[str, tuple[int, ...]], list[ir.Value]] = {}
    for value in model.graph.initializers.values():
        array = constant(value)
        name = str(value.name)
        if array is not None and array.dtype == np.float32 and re.search(r"\.\d+\.", name):
            kinds.setdefault((re.sub(r"\.\d+\.", ".N.", name), array.shape), []).append(value)

    def exchange(a: ir.Value, b: ir.Value) -> None:
        first, second = constant(a), constant(b)
        if first is not None and second is not None:
            set_constant(a, second)
            set_constant(b, first)

    for layers in kinds.values():
        for a, b in itertools.pairwise(layers):
            found.append((f"{a.name} and {b.name}", lambda a=a, b=b: exchange(a, b)))
    return found


OPERATORS: Final[dict[str, Operator]] = {
    operator.__name__: operator
    for operator in (
        mask_dropped,
        mask_flipped,
        operands_swapped,
        epsilon_changed,
        axis_changed,
        permutation_changed,
        slice_moved,
        constant_scaled,
        weight_column_zeroed,
        through_float16,
        through_bfloat16,
        residual_dropped,
        stale_step_input,
        step_skipped,
        layers_exchanged,
    )
}
