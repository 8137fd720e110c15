"""Some nodes of a bundle's graphs as a model that runs by itself, on its own way or cut at every value."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import onnx_ir as ir
import torch

from exporters.divergence.arena import Arena
from exporters.divergence.parts import Graphs
from exporters.graph.loop_invariant import clone, twin

Array = np.ndarray[Any, Any]
Given = Callable[[ir.Value], Array]


@dataclass(frozen=True)
class Subgraph:
    """Some nodes as a model that runs by itself.

    Attributes:
        model: the model.
        inputs: its inputs: each one's name, and the value of the graphs that it stands for.
        outputs: its outputs, likewise.
    """

    model: ir.Model
    inputs: Mapping[str, ir.Value]
    outputs: Mapping[str, ir.Value]


def subgraph(
    nodes: Sequence[ir.Node],
    graphs: Graphs,
    *,
    outputs: Sequence[ir.Value],
    cut: frozenset[ir.Value] = frozenset(),
    example: Callable[[ir.Value], Array],
) -> Subgraph:
    """A model of ``nodes``.

    Args:
        nodes: a run of nodes of one part.
        graphs: what they are from.
        outputs: which of their values it gives.
        cut: values that it gives, and that every later node reads from an input instead.
        example: an array of the shape and dtype that a value from before has.
    """
    here: dict[ir.Value, ir.Value] = {}
    inputs: dict[str, ir.Value] = {}
    placed: list[ir.Value] = []
    made: dict[ir.Value, ir.Value] = {}
    weights: dict[str, ir.Value] = {}

    def given(value: ir.Value, name: str) -> ir.Value:
        array = example(value)
        dtype = ir.TensorType(ir.DataType.from_numpy(array.dtype))
        placed.append(ir.Value(name=name, shape=ir.Shape(array.shape), type=dtype))
        inputs[name] = value
        return placed[-1]

    copies: list[ir.Node] = []
    for node in nodes:
        for value in node.inputs:
            if value is None or value in here:
                continue
            if value.const_value is not None and value.producer() is None:
                weights[str(value.name)] = here[value] = twin(value, value.const_value)
            else:
                here[value] = given(value, f"given/{value.name}")
        copies += clone([node], here, {})
        for output in node.outputs:
            made[output] = here[output]
            if output in cut:
                here[output] = given(output, f"cut/{output.name}")
    wanted = {str(made[value].name): value for value in outputs}
    used = {id(v) for node in copies for v in node.inputs}
    kept = [v for v in placed if id(v) in used]
    graph = ir.Graph(
        kept,
        [made[value] for value in outputs],
        nodes=copies,
        initializers=list(weights.values()),
        opset_imports=dict(graphs.opsets),
        name="subgraph",
    )
    model = ir.Model(graph, ir_version=10, producer_name="pytest-reflex")
    return Subgraph(model, {str(v.name): inputs[str(v.name)] for v in kept}, wanted)


class BothWays:
    """Runs the same nodes twice at once: on their own way, and each fed with PyTorch's own values.

    A context manager, for it holds a thread. Much of the time of each way goes into making a model and
    opening a session, on one core; so the two have half of the cores each, and do not wait for each other.

    Args:
        graphs: what the nodes are from.
        folder: where the graphs' weights lie.
    """

    def __init__(self, graphs: Graphs, folder: Path) -> None:
        self._graphs, self._folder = graphs, folder
        # What a subgraph gives, on its own way and fed with PyTorch's values.
        self._whole, self._alone = Arena(), Arena()
        self._beside = ThreadPoolExecutor(1, "reflex-locate")
        self._cores = max(1, torch.get_num_threads() // 2)  # for each

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._beside.shutdown(cancel_futures=True)

    def run(
        self,
        nodes: Sequence[ir.Node],
        *,
        onward: Sequence[ir.Value],
        own: Given,
        alone: Sequence[ir.Value],
        cut: frozenset[ir.Value],
        given: Given,
    ) -> tuple[dict[ir.Value, Array], dict[ir.Value, Array], dict[str, Array]]:
        """What the nodes give both ways, and what the second was fed with; lost with the next call.

        Args:
            nodes: a run of nodes of one part.
            onward: which values the first way gives.
            own: a value from before, as the graph has it.
            alone: which values the second way gives.
            cut: values that every later node of the second way is given anew.
            given: a value from before, or one that is cut, as PyTorch has it.
        """
        beside = self._beside.submit(self._run, nodes, onward, frozenset(), own, self._whole)
        local, feed = self._run(nodes, alone, cut, given, self._alone)
        return beside.result()[0], local, feed

    def _run(
        self,
        nodes: Sequence[ir.Node],
        outputs: Sequence[ir.Value],
        cut: frozenset[ir.Value],
        example: Given,
        arena: Arena,
    ) -> tuple[dict[ir.Value, Array], dict[str, Array]]:
        arena.clear()
        if not outputs:
            return {}, {}
        made = subgraph(nodes, self._graphs, outputs=outputs, cut=cut, example=example)
        feed = {name: example(value) for name, value in made.inputs.items()}
        return run_subgraph(made, feed, self._folder, arena, self._cores), feed


def run_subgraph(
    made: Subgraph, feed: Mapping[str, Array], folder: Path, arena: Arena, threads: int
) -> dict[ir.Value, Array]:
    """Run a subgraph as it is written: no operator fused, nothing packed, weights mapped from ``folder``.

    What it gives lies in ``arena``, and is lost when that is cleared.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.add_session_config_entry("session.disable_prepacking", "1")
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(folder))
    session = onnxruntime.InferenceSession(
        ir.to_proto(made.model).SerializeToString(),
        options,
        providers=["CPUExecutionProvider"],
        enable_fallback=0,
    )
    binding = session.io_binding()
    for name in made.inputs:
        binding.bind_cpu_input(name, np.asarray(feed[name], order="C"))
    found: dict[ir.Value, Array] = {}
    for name, value in made.outputs.items():
        shape, dtype = _fixed_shape(value), value.dtype.numpy() if value.dtype else None
        # What numpy has no type for, or nobody knows the size of, ONNX Runtime finds a place for.
        if shape is None or dtype is None or dtype.isbuiltin != 1:
            binding.bind_output(name)
            continue
        array = found[value] = arena.array(shape, dtype)
        binding.bind_output(name, "cpu", 0, dtype, shape, array.ctypes.data)
    session.run_with_iobinding(binding)
    for value, given in zip(made.outputs.values(), binding.get_outputs(), strict=True):
        if value not in found:
            found[value] = given.numpy()
    return found


def _fixed_shape(value: ir.Value) -> list[int] | None:
    """The value's sizes; None where one is free, or 0, or not known."""
    sizes = [n for n in value.shape or () if isinstance(n, int) and n > 0]
    return sizes if value.shape is not None and len(sizes) == len(value.shape) else None
