"""An ONNX graph cut at its values: each as onnx's evaluator has it, and parts that run by themselves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_reflex.errors import RunnerError
from pytest_reflex.runners.base import first_line
from pytest_reflex.runners.graph64 import lifted_graph

if TYPE_CHECKING:
    import numpy as np
    import onnx

    Array = np.ndarray[Any, Any]

__all__ = ["CutGraph", "evaluated"]


class CutGraph:
    """A graph, its local functions inlined and its weights inside.

    Args:
        file: the graph.

    Attributes:
        nodes: its nodes, in the order of the file, each of which comes after what it reads.

    Raises:
        RunnerError: onnx is not installed, or this is no model.
    """

    def __init__(self, file: Path) -> None:
        try:
            import onnx
        except ImportError as error:
            raise RunnerError(f"{file} is cut by onnx; pip install onnx") from error
        from pytest_reflex.runners.graph_file import inlined

        try:
            self.model = inlined(onnx.load(file))
        except Exception as error:
            raise RunnerError(f"{file} cannot be read: {first_line(error)}") from error
        self.nodes = list(self.model.graph.node)
        self._weights = {tensor.name: tensor for tensor in self.model.graph.initializer}

    @cached_property
    def maker(self) -> Mapping[str, int]:
        """Which node gives a value, by its name."""
        return {name: at for at, node in enumerate(self.nodes) for name in node.output if name}

    def before(self, value: str) -> list[int]:
        """The nodes that a value is made of, in order; the last gives it."""
        found: set[int] = set()
        left = [value]
        while left:
            at = self.maker.get(left.pop())
            if at is not None and at not in found:
                found.add(at)
                left += reads(self.nodes[at])
        return sorted(found)

    def part(
        self, nodes: Sequence[int], given: Mapping[str, Array], gives: Mapping[str, Array]
    ) -> onnx.ModelProto:
        """Some nodes as a model.

        Args:
            nodes: which.
            given: arrays like those that it reads, by name; what it does not read is left out.
            gives: arrays like those that it gives.
        """
        from onnx import helper

        chosen = [self.nodes[at] for at in nodes]
        made = {name for node in chosen for name in node.output}
        read = dict.fromkeys(name for node in chosen for name in reads(node) if name not in made)
        graph = helper.make_graph(
            chosen,
            "part",
            [_stated(name, given[name]) for name in read if name not in self._weights and name in given],
            [_stated(name, array) for name, array in gives.items()],
            [self._weights[name] for name in read if name in self._weights],
        )
        opsets = list(self.model.opset_import)
        return helper.make_model(graph, opset_imports=opsets, ir_version=self.model.ir_version)


def evaluated(model: onnx.ModelProto, feed: Mapping[str, Array], *, wide: bool) -> dict[str, Array]:
    """Every value of a graph by onnx's own evaluator, what is no array left out.

    Args:
        model: the graph, without local functions.
        feed: its inputs.
        wide: in float64, everything that is a narrower float widened.

    Raises:
        RunnerError: it cannot be evaluated.
    """
    import numpy as np
    from onnx import helper
    from onnx.reference import ReferenceEvaluator

    shown = lifted_graph(model, whole=True) if wide else type(model).FromString(model.SerializeToString())
    names = list(dict.fromkeys(name for node in shown.graph.node for name in node.output if name))
    del shown.graph.output[:]
    shown.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in names)
    given = {n: a.astype(np.float64) if wide and a.dtype.kind == "f" else a for n, a in feed.items()}
    try:
        with np.errstate(all="ignore"):
            values = ReferenceEvaluator(shown).run(None, given)
    except Exception as error:
        raise RunnerError(f"the graph cannot be evaluated: {first_line(error)}") from error
    pairs = zip(names, values, strict=True)
    return {name: np.asarray(v) for name, v in pairs if isinstance(v, np.ndarray | np.generic)}


def reads(node: onnx.NodeProto) -> Iterator[str]:
    """What a node reads, by name, its inner graphs' values from outside among them."""
    yield from (name for name in node.input if name)
    for attribute in node.attribute:
        for graph in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
            own = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
            for inner in graph.node:
                yield from (name for name in reads(inner) if name not in own)
                own.update(inner.output)
            yield from (value.name for value in graph.output if value.name not in own)


def _stated(name: str, array: Array) -> onnx.ValueInfoProto:
    from onnx import helper

    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
