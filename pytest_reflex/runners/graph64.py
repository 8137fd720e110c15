"""An ONNX graph taken at its word: evaluated in float64, its quantise and dequantise nodes exactly.

What a runtime gives for a quantised graph has two distances that must not be added up. From this evaluation:
does the runtime compute its own graph? And this evaluation's from the float64 reference: what did quantising
cost? :func:`quantised_distances` gives both.

It is onnx's own reference evaluator, of the graph with every float32 widened: no kernel of any runtime, and
slow. A graph that is a reference itself is widened whole, its float16 and bfloat16 too: what is stored keeps
its values, and nothing is rounded on the way.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pytest_reflex.errors import RunnerError
from pytest_reflex.runners.base import RunnerBase, first_line
from pytest_reflex.verdict.quantised import QuantisedDistances

if TYPE_CHECKING:
    import numpy as np
    import onnx

    Array = np.ndarray[Any, Any]

__all__ = ["Graph64Runner", "lifted_graph", "quantised_distances"]

# onnx.TensorProto.FLOAT and DOUBLE; what is widened, by default and of a whole graph.
_FLOAT, _DOUBLE = 1, 11
_SINGLE: Final = frozenset({_FLOAT})
_NARROW: Final = frozenset({_FLOAT, 10, 16})  # FLOAT16, BFLOAT16
# Beside a tie between two steps of a scale, float32's error in what is quantised decides: some units in the
# last place, of a sum of a thousand numbers.
_NUDGE: Final = 32 * 2.0**-23
_QUANTISE: Final = ("QuantizeLinear", "DynamicQuantizeLinear")
# Attributes that hold a number of a type.
_TYPED: Final = frozenset({"to", "dtype", "output_dtype"})


class Graph64Runner(RunnerBase):
    """Evaluates an ONNX graph in float64.

    Args:
        model: the model, the path of its file, or its bytes.
        lift: whether float32 is widened; without, the same evaluator computes in float32.
        lifted: whether the model is widened already.
        whole: whether float16 and bfloat16 are widened, too.
        name: for people; by default the path.
    """

    def __init__(
        self,
        model: onnx.ModelProto | str | Path | bytes,
        *,
        lift: bool = True,
        lifted: bool = False,
        whole: bool = False,
        name: str | None = None,
    ) -> None:
        self._given, self._lift, self._lifted, self._whole = model, lift, lifted, whole
        self.name = name or (str(model) if isinstance(model, str | Path) else "an ONNX graph")
        self._evaluator: Any = None

    def open(self) -> None:
        if self._evaluator is not None:
            return
        model = _loaded(self._given, self.name)
        from onnx.reference import ReferenceEvaluator

        try:
            widened = lifted_graph(model, whole=self._whole) if self._lift and not self._lifted else model
            self._evaluator = ReferenceEvaluator(widened)
        except Exception as error:
            raise RunnerError(f"{self.name} cannot be evaluated: {first_line(error)}") from error

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        import numpy as np

        if self._evaluator is None:
            raise RunnerError(f"{self.name} is not open; call open() or use it in a with statement")
        wide = np.float64 if self._lift else np.float32
        narrow = {"float32", "float16", "bfloat16"} if self._whole else {"float32"}
        feed = {n: a.astype(wide) if a.dtype.name in narrow else a for n, a in inputs.items()}
        try:
            with np.errstate(all="ignore"):
                outputs = self._evaluator.run(None, feed)
        except Exception as error:
            raise RunnerError(f"{self.name} cannot be evaluated: {first_line(error)}") from error
        return {
            name: np.asarray(array) for name, array in zip(self._evaluator.output_names, outputs, strict=True)
        }

    def close(self) -> None:
        self._evaluator = None

    def facts(self) -> dict[str, Any]:
        import onnx

        return {
            "kind": "graph",
            "name": self.name,
            "dtype": "float64" if self._lift else "float32",
            "versions": {"onnx": str(onnx.__version__)},
        }


def quantised_distances(
    model: onnx.ModelProto | str | Path | bytes,
    runtime: Mapping[str, Array],
    inputs: Mapping[str, Array],
    truth: Mapping[str, Array] | None = None,
) -> dict[str, QuantisedDistances]:
    """What a runtime made of a quantised graph, and what quantising cost, for one fixture; by output.

    Args:
        model: the graph that the runtime ran.
        runtime: what it gave.
        inputs: what it was given.
        truth: the float64 reference's outputs, for the cost.

    Raises:
        RunnerError: the graph cannot be evaluated, or the outputs are not those of the graph.
    """
    loaded = _loaded(model, "the graph")
    whole = lifted_graph(loaded)
    exact = _run(whole, inputs)
    if unlike := {n for n in exact if n not in runtime or exact[n].shape != runtime[n].shape}:
        raise RunnerError(f"outputs {sorted(unlike)} of the graph are not what the runtime gave")
    # Rounded once for real, and pushed over every tie that is near, to either side and to both.
    moved = [_run(loaded, inputs, lift=False)]
    moved += [_run(_nudged(whole, signs), inputs) for signs in ((1, 1), (-1, -1), (1, -1), (-1, 1))]
    return {
        name: QuantisedDistances(
            runtime=_apart(runtime[name], array),
            floor=max(_apart(other[name], array) for other in moved),
            cost=None if truth is None else _apart(array, truth[name]),
            scale=_apart(array, 0.0),
        )
        for name, array in exact.items()
    }


def _run(model: onnx.ModelProto, inputs: Mapping[str, Array], lift: bool = True) -> dict[str, Array]:
    with Graph64Runner(model, lift=lift, lifted=lift) as runner:
        return runner.run(inputs)


def _nudged(model: onnx.ModelProto, signs: tuple[int, int]) -> onnx.ModelProto:
    """A lifted model in which everything that is quantised is larger or smaller by some bits of float32."""
    from onnx import helper, numpy_helper

    copy = type(model)()
    copy.CopyFrom(model)
    graph = copy.graph
    for sign in (1, -1):
        value = numpy_helper.from_array(_double(1 + sign * _NUDGE), f"reflex/nudge{sign}")
        graph.initializer.append(value)
    stored = {tensor.name for tensor in graph.initializer}
    nodes, count = [], 0
    for node in graph.node:
        if node.op_type in _QUANTISE and node.input[0] not in stored:
            sign, pushed = signs[count % 2], f"reflex/nudged{count}"
            nodes.append(helper.make_node("Mul", [node.input[0], f"reflex/nudge{sign}"], [pushed]))
            node.input[0] = pushed
            count += 1
        nodes.append(node)
    kept = [type(node).FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(kept)
    return copy


def _apart(one: Any, other: Any) -> float:
    import numpy as np

    with np.errstate(all="ignore"):
        return float(np.max(np.abs(np.asarray(one, np.float64) - np.asarray(other, np.float64)), initial=0.0))


def _loaded(model: onnx.ModelProto | str | Path | bytes, name: str) -> onnx.ModelProto:
    try:
        import onnx
    except ImportError as error:
        raise RunnerError(f"{name} is evaluated by onnx; pip install onnx") from error
    try:
        if isinstance(model, bytes):
            return onnx.load_model_from_string(model)
        return model if isinstance(model, onnx.ModelProto) else onnx.load(model)
    except Exception as error:
        raise RunnerError(f"{name} cannot be read: {first_line(error)}") from error


def lifted_graph(model: onnx.ModelProto, *, whole: bool = False) -> onnx.ModelProto:
    """A copy of the model in which everything that was float32 is float64, scales too; no weight moves.

    Args:
        model: the model, its weights inside.
        whole: whether what was float16 or bfloat16 is float64, too.
    """
    kinds = _NARROW if whole else _SINGLE
    copy = type(model)()
    copy.CopyFrom(model)
    _lift_graph(copy.graph, kinds)
    for function in copy.functions:
        for node in function.node:
            _lift_node(node, kinds)
    return copy


def _lift_graph(graph: Any, kinds: frozenset[int]) -> None:
    for tensor in graph.initializer:
        _lift_tensor(tensor, kinds)
    del graph.value_info[:]
    for value in (*graph.input, *graph.output):
        if value.type.tensor_type.elem_type in kinds:
            value.type.tensor_type.elem_type = _DOUBLE
    for node in graph.node:
        _lift_node(node, kinds)


def _lift_node(node: Any, kinds: frozenset[int]) -> None:
    from onnx import numpy_helper

    made = {a.name: a for a in node.attribute}
    stated = next((made[name] for name in ("value_float", "value_floats") if name in made), None)
    if node.op_type == "Constant" and stated is not None:
        numbers = stated.f if stated.name == "value_float" else list(stated.floats)
        del node.attribute[:]
        attribute = node.attribute.add(name="value", type=4)
        attribute.t.CopyFrom(numpy_helper.from_array(_double(numbers)))
    for attribute in node.attribute:
        if attribute.name in _TYPED and attribute.i in kinds:
            attribute.i = _DOUBLE
        if attribute.HasField("t"):
            _lift_tensor(attribute.t, kinds)
        for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
            _lift_graph(inner, kinds)


def _lift_tensor(tensor: Any, kinds: frozenset[int]) -> None:
    from onnx import numpy_helper

    if tensor.data_type in kinds:
        wide = numpy_helper.from_array(_double(numpy_helper.to_array(tensor)), tensor.name)
        tensor.CopyFrom(wide)


def _double(value: Any) -> Array:
    import numpy as np

    return np.asarray(value, np.float64)
