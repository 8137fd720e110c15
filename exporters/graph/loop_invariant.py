"""Prefix and step -> what is computed once, and what is computed in every step.

A node of the step that reads neither ``x_t`` nor ``time``, directly or through others, gives the same
bits in every step. It is moved behind the prefix and computed once: attention masks, rotary tables,
the projected state, and the keys and values of cross-attention where a policy has it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np
import onnx_ir as ir

from pytest_reflex.errors import TracingError

X_T, TIME, VELOCITY = "x_t", "time", "velocity"
HALF_KEY = "pytest_reflex.half"
_GRAPHS = (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)


def check_fit(prefix: ir.Model, step: ir.Model) -> None:
    """Refuse halves that cannot be joined.

    Raises:
        TracingError: the step reads what the prefix does not give, or gives as another dtype or shape.
    """
    given = {v.name: v for v in prefix.graph.outputs}
    for value in step.graph.inputs:
        if value.name in (X_T, TIME):
            continue
        source = given.get(value.name)
        if source is None:
            raise TracingError(f"the step reads {value.name!r}, which the prefix does not give")
        if source.dtype != value.dtype or _fixed(source) != _fixed(value):
            raise TracingError(
                f"{value.name!r} is {source.dtype}{dims(source)} out of the prefix "
                f"and {value.dtype}{dims(value)} into the step"
            )
    for model in (prefix, step):
        if model.functions:
            raise TracingError(
                f"the graph calls local functions, which were not inlined: {list(model.functions)}"
            )
        for node in model.graph:
            if holds_graph(node):
                raise TracingError(
                    f"node {node.name!r} ({node.op_type}) holds a graph of its own; trace it flat"
                )


def holds_graph(node: ir.Node) -> bool:
    return any(attribute.type in _GRAPHS for attribute in node.attributes.values())


def dims(value: ir.Value) -> list[int | str | None]:
    return [d if isinstance(d, int) else d.value for d in value.shape] if value.shape is not None else []


def _fixed(value: ir.Value) -> list[int | None]:
    """The dimensions, a free one as None: each trace gives it a name of its own."""
    return [d if isinstance(d, int) else None for d in dims(value)]


def qualify(model: ir.Model, half: str) -> None:
    """Put the half's name before every node and value; weights keep the one name that both halves share."""
    for node in model.graph:
        node.name = f"{half}/{node.name}"
        node.metadata_props[HALF_KEY] = half
        for output in node.outputs:
            if not output.is_graph_output():
                output.name = f"{half}/{output.name}"
    for value in list(model.graph.initializers.values()):
        if not _is_weight(value):
            value.name = f"{half}/{value.name}"


def _is_weight(value: ir.Value) -> bool:
    """Whether an initializer's name is from the policy's state dict, and not made up by the tracer."""
    return value.name is not None and "." in value.name


class Encoder:
    """The prefix, grown by all of the step that does not change from step to step.

    A node of the step that reads neither ``x_t`` nor ``time``, directly or through others, gives the
    same bits in every step. It is moved behind the prefix and computed once: attention masks, rotary
    tables, projected state, and the keys and values of cross-attention where a policy has it.

    Args:
        prefix: the prefix, which is consumed.
        step: the step, likewise.
        changes: the inputs of the step that are others in every step.
    """

    def __init__(self, prefix: ir.Model, step: ir.Model, changes: Iterable[str] = (X_T, TIME)) -> None:
        self.model = prefix
        self.graph = prefix.graph
        self._step = step
        context = self.given = {str(v.name): v for v in self.graph.outputs}
        inputs = self._inputs = {str(v.name): v for v in step.graph.inputs}
        self._placeholders = {inputs[name] for name in changes}

        varying, fixed = _split(step.graph, self._placeholders)
        initializers = dict(self.graph.initializers)
        # What a step's value is called in this graph.
        here: dict[ir.Value, ir.Value] = {
            value: context[name] for name, value in inputs.items() if name in context
        }
        for value in step.graph.initializers.values():
            name = value.name or ""
            shared = initializers.setdefault(name, value)
            if shared.dtype != value.dtype or dims(shared) != dims(value):
                raise TracingError(f"{name!r} is another tensor in the prefix than in the step")
            if shared is value:
                initializers[name] = twin(value, value.const_value)
            here[value] = initializers[name]
        self._initializers = initializers
        self.graph.extend(clone(fixed, here, {HALF_KEY: "step"}))
        self.varying = varying
        self.velocity = step.graph.outputs[0]
        if self.velocity.producer() not in varying:
            raise TracingError("the velocity reads neither x_t nor time, so there is no loop to export")
        self.here = here
        self.opset = dict(prefix.opset_imports)
        self.graph.outputs.clear()

    @property
    def x_t(self) -> ir.Value:
        return self._inputs[X_T]

    @property
    def time(self) -> ir.Value:
        return self._inputs[TIME]

    @property
    def reads(self) -> list[ir.Value]:
        """What the varying nodes read that is made before the loop, weights left out, in reading order."""
        made = {output for node in self.varying for output in node.outputs}
        found: dict[ir.Value, None] = {}
        for node in self.varying:
            for value in node.inputs:
                if value is None or value in made or value in self._placeholders or value.is_initializer():
                    continue
                found[value] = None
        return list(found)

    def step(
        self, x_t: ir.Value, time: ir.Value, scope: str, metadata: Mapping[str, str]
    ) -> tuple[list[ir.Node], ir.Value]:
        """A copy of the varying nodes that reads ``x_t`` and ``time``: its nodes and its velocity."""
        nodes, here = self.copied({self.x_t: x_t, self.time: time}, scope, metadata)
        return nodes, here[self.velocity]

    def copied(
        self, read: Mapping[ir.Value, ir.Value], scope: str, metadata: Mapping[str, str]
    ) -> tuple[list[ir.Node], dict[ir.Value, ir.Value]]:
        """A copy of the varying nodes that reads these in place of inputs; what each value became."""
        here = {**self.here, **read}
        nodes = clone(self.varying, here, metadata, lambda name: f"{scope}/{name.removeprefix('step/')}")
        return nodes, here

    def finish(self) -> ir.Model:
        """The encoder as a model of its own: observation -> what the step reads."""
        return self._ended([self.here[value] for value in self.reads])

    def step_model(self) -> ir.Model:
        """The varying nodes as a model: ``x_t``, ``time`` and what :meth:`finish` gives -> ``velocity``."""
        inputs = [twin(self.x_t), twin(self.time)]
        here: dict[ir.Value, ir.Value] = {self.x_t: inputs[0], self.time: inputs[1]}
        for value in self.reads:
            here[value] = twin(self.here[value])
            inputs.append(here[value])
        for value in self._step.graph.initializers.values():
            here[value] = twin(value, value.const_value)
        nodes = clone(self.varying, here, {HALF_KEY: "step"})
        output = here[self.velocity]
        output.name = VELOCITY
        weights = [v for v in here.values() if v.const_value is not None and v.producer() is None]
        used = {id(v) for node in nodes for v in node.inputs}
        graph = ir.Graph(
            inputs,
            [output],
            nodes=nodes,
            initializers=[v for v in weights if id(v) in used],
            opset_imports=self.opset,
            name="step",
        )
        return ir.Model(graph, ir_version=self.model.ir_version, producer_name=self.model.producer_name)

    def close(self, outputs: Mapping[str, ir.Value]) -> ir.Model:
        """Make these the graph's only outputs, by these names."""
        for name, output in outputs.items():
            output.name = name
        return self._ended(outputs.values())

    def constant(self, name: str, array: np.ndarray) -> ir.Value:
        """A small constant tensor of the graph."""
        value = ir.Value(
            name=name,
            shape=ir.Shape(array.shape),
            type=ir.TensorType(ir.DataType.from_numpy(array.dtype)),
            const_value=ir.tensor(array, name=name),
        )
        self._initializers[name] = value
        return value

    def _ended(self, outputs: Iterable[ir.Value]) -> ir.Model:
        """The model with these outputs, and with exactly the initializers that some node reads."""
        self.graph.outputs.extend(outputs)
        used = _used(self.graph)
        for name, value in self._initializers.items():
            if id(value) in used and name not in self.graph.initializers:
                self.graph.register_initializer(value)
            elif id(value) not in used and name in self.graph.initializers:
                del self.graph.initializers[name]
        return self.model


def _split(graph: ir.Graph, varying_inputs: Iterable[ir.Value]) -> tuple[list[ir.Node], list[ir.Node]]:
    """The graph's nodes that depend on ``varying_inputs``, and those that do not, each in order."""
    touched = set(varying_inputs)
    varying, fixed = [], []
    for node in graph:
        if any(value in touched for value in node.inputs if value is not None):
            touched.update(node.outputs)
            varying.append(node)
        else:
            fixed.append(node)
    return varying, fixed


def clone(
    nodes: Iterable[ir.Node],
    here: dict[ir.Value, ir.Value],
    metadata: Mapping[str, str],
    rename: Callable[[str], str] = str,
) -> list[ir.Node]:
    """Copies of ``nodes`` over the values that ``here`` puts in place of theirs; it learns their outputs."""
    copies = []
    for node in nodes:
        copy = ir.Node(
            node.domain,
            node.op_type,
            [None if value is None else here[value] for value in node.inputs],
            node.attributes.values(),
            overload=node.overload,
            num_outputs=len(node.outputs),
            name=rename(node.name or ""),
        )
        copy.metadata_props.update({**node.metadata_props, **metadata})
        for old, new in zip(node.outputs, copy.outputs, strict=True):
            new.name, new.type, new.shape = rename(old.name or ""), old.type, old.shape
            here[old] = new
        copies.append(copy)
    return copies


def twin(value: ir.Value, tensor: ir.TensorProtocol | None = None) -> ir.Value:
    return ir.Value(name=value.name, shape=value.shape, type=value.type, const_value=tensor)


def _used(graph: ir.Graph) -> set[int]:
    """The identities of all values that the graph's nodes read, those of its bodies included."""
    used: set[int] = set()
    for node in ir.traversal.RecursiveGraphIterator(graph):
        used.update(id(value) for value in node.inputs if value is not None)
    return used | {id(value) for value in graph.outputs}
