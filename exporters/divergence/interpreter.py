"""The traced PyTorch program, run value by value: what every node of a bundle's graphs should give."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import fx
from torch.export.graph_signature import InputKind

from exporters.flow.schedule import Loop
from exporters.flow.update import MODEL, X_NEXT, X, updated
from exporters.graph.loop_invariant import TIME, X_T
from exporters.graph.tracing import Traced

Array = np.ndarray[Any, Any]


class Key(NamedTuple):
    """Which value: of which half, in which denoising step (None: once, before the loop), by which name."""

    half: str
    step: int | None
    name: str


# What the epilogue ends in.
END = Key("epilogue", None, "")
_ATTENTION = (torch.ops.aten.scaled_dot_product_attention.default,)


def _all_mended(node: fx.Node) -> bool:
    """Whether every reader of an attention takes zeros where a row is masked; see graph.program_passes."""
    where = torch.ops.aten.where.self
    return all(user.target is where and user.args[1] is node for user in node.users)


def _is_tensor(node: fx.Node) -> bool:
    return isinstance(node.meta.get("val"), torch.Tensor)


def _begin_gradient(value: object) -> None:
    """Let a float that depends on nothing with a gradient, such as what is made of inputs, have one."""
    if isinstance(value, torch.Tensor) and value.is_floating_point() and not value.requires_grad:
        value.requires_grad_()


class Program:
    """A traced program that can be run node by node.

    Args:
        traced: what :func:`exporters.graph.tracing.trace_program` gave.
        half: ``prefix``, ``step``, or ``model`` for a module without a loop.
    """

    def __init__(self, traced: Traced, half: str) -> None:
        program = traced.program
        self.half, self.title = half, traced.title
        self.nodes = [n for n in program.graph.nodes if n.op not in ("placeholder", "output")]
        self.inputs, self.outputs = traced.given, traced.made
        placeholders = [n for n in program.graph.nodes if n.op == "placeholder"]
        held = {**program.constants, **program.state_dict}
        # What it holds besides its inputs, what the policy calls it, and which of that are its weights.
        self.held: dict[fx.Node, Any] = {
            node: held[str(spec.target)]
            for node, spec in zip(placeholders, program.graph_signature.input_specs, strict=True)
            if spec.kind is not InputKind.USER_INPUT
        }
        self.fixed = frozenset(self.held)
        self.called = {
            node: str(spec.target).removeprefix("owner.")
            for node, spec in zip(placeholders, program.graph_signature.input_specs, strict=True)
            if node in self.held
        }
        self.weights = frozenset(
            node
            for node, spec in zip(placeholders, program.graph_signature.input_specs, strict=True)
            if spec.kind is InputKind.PARAMETER
        )
        # Attention whose rows may be all masked is mended behind it: only what is handed on can be compared.
        self.mended = {n.name for n in self.nodes if n.target in _ATTENTION and _all_mended(n)}

    def split(self, varying: Iterable[str]) -> tuple[list[fx.Node], list[fx.Node]]:
        """The nodes that depend on none of the inputs ``varying``, and those that do, each in order."""
        touched = {self.inputs[name] for name in varying}
        parts: tuple[list[fx.Node], list[fx.Node]] = ([], [])
        for node in self.nodes:
            depends = any(n in touched for n in node.all_input_nodes)
            if depends:
                touched.add(node)
            parts[depends].append(node)
        return parts

    def input_name(self, node: fx.Node) -> str:
        """What the policy calls an input, or what else it holds."""
        given = (name for name, placeholder in self.inputs.items() if placeholder is node)
        return next(given, self.called.get(node, node.name))

    def values(self, given: Mapping[str, torch.Tensor]) -> dict[fx.Node, Any]:
        """What is known before any node has run."""
        return {**self.held, **{self.inputs[name]: tensor for name, tensor in given.items()}}

    @staticmethod
    def compute(node: fx.Node, values: Mapping[fx.Node, Any]) -> Any:
        """One node, from the values of those before it."""
        args, kwargs = fx.map_arg((node.args, node.kwargs), lambda n: values[n])
        return cast("Callable[..., Any]", node.target)(*args, **kwargs)


@dataclass
class Step:
    """One value that PyTorch computes.

    Attributes:
        key: which value.
        tensor: what PyTorch gives.
        node: the program's node that made it; None for the loop's own arithmetic.
        given: what the node read, to make it again otherwise.
    """

    key: Key
    tensor: torch.Tensor
    node: fx.Node | None = None
    given: Mapping[fx.Node, Any] = field(default_factory=dict)


class Interpreter:
    """All values of a program, or of a flow's two programs and its loop, in the order of a bundle's graphs.

    Iterated, it computes as it goes, and keeps only what PyTorch itself will read again.

    Args:
        programs: ``{"model": ...}``, or ``{"prefix": ..., "step": ...}``.
        inputs: the fixture, by name.
        loop: the loop, where there is one.
        gradients: whether every value keeps the way that it was computed on, so that the output has a
            gradient in it; it takes the memory of all of them.
    """

    def __init__(
        self,
        programs: Mapping[str, Program],
        inputs: Mapping[str, Array],
        loop: Loop | None,
        *,
        gradients: bool = False,
    ) -> None:
        self._gradients = gradients
        self._programs = programs
        self._inputs = {name: torch.from_numpy(np.array(array)) for name, array in inputs.items()}
        self._loop = loop
        self.output: torch.Tensor | None = None

    @property
    def halves(self) -> tuple[str, ...]:
        """The names of its programs."""
        return tuple(self._programs)

    def program(self, half: str) -> Program:
        """The program of a half."""
        return self._programs[half]

    def nodes_in_order(self, half: str) -> list[fx.Node]:
        """A half's operators, those first that a graph computes once, before its loop."""
        program = self._programs[half]
        if half != "step":
            return program.nodes
        once, varying = program.split((X_T, TIME))
        return [*once, *varying]

    def names(self, half: str) -> dict[str, str]:
        """Every name that a value of a half may have in a graph, with the name it has here."""
        program = self._programs[half]
        found = {node.name: node.name for node in program.nodes if node.name not in program.mended}
        return found | {name: node.name for name, node in program.outputs.items()}

    def code(self, half: str) -> str:
        """What of the user's is running outside of any submodule: ``Reach.velocity``, or a module's class."""
        method = {"prefix": ".prefix", "step": ".velocity"}.get(half, "")
        return f"{self._programs[half].title}{method}"

    def keys(self) -> set[Key]:
        """Every value that it will give."""
        if self._loop is None:
            return {Key("model", None, n.name) for n in self._programs["model"].nodes if _is_tensor(n)}
        prefix, step = self._programs["prefix"], self._programs["step"]
        fixed, varying = step.split((X_T, TIME))
        every = range(self._loop.steps)
        once = {Key("prefix", None, n.name) for n in prefix.nodes if _is_tensor(n)}
        once |= {Key("step", None, n.name) for n in fixed if _is_tensor(n)}
        own = ("time", *(operation.name for operation in self._loop.schedule.update))
        once |= {Key("loop", i, name) for i in every for name in own}
        ends = self._loop.epilogue
        once |= {Key("epilogue", None, o.name) for o in ends[:-1]} | ({END} if ends else set())
        return once | {Key("step", i, n.name) for i in every for n in varying if _is_tensor(n)}

    def __iter__(self) -> Iterator[Step]:
        with torch.set_grad_enabled(self._gradients):
            if self._loop is None:
                program = self._programs["model"]
                values = program.values(self._inputs)
                yield from self._run(program, program.nodes, values, None)
                self.output = values[next(iter(program.outputs.values()))]
            else:
                yield from self._walk(self._loop)

    def _walk(self, loop: Loop) -> Iterator[Step]:
        prefix, step = self._programs["prefix"], self._programs["step"]
        observation = {name: t for name, t in self._inputs.items() if name not in loop.noises}
        encoded = prefix.values(observation)
        yield from self._run(prefix, prefix.nodes, encoded, None, keep=prefix.outputs.values())
        context = {name: encoded[node] for name, node in prefix.outputs.items() if name in step.inputs}
        del encoded
        fixed, varying = step.split((X_T, TIME))
        once = step.values(context)
        # A value that only the varying nodes read is needed in every step.
        yield from self._run(step, fixed, once, None, keep={n for v in varying for n in v.all_input_nodes})
        x, *noises = (self._inputs[name] for name in loop.noises)
        start = earlier = x
        for index, now in enumerate(loop.times):
            time = torch.full(x.shape[:1], now, dtype=getattr(torch, loop.schedule.dtype))
            values = {**once, step.inputs[X_T]: x, step.inputs[TIME]: time}
            yield Step(Key("loop", index, "time"), time)
            velocity = step.outputs["velocity"]
            yield from self._run(step, varying, values, index, keep=[velocity])
            made = {MODEL: values[velocity]}
            for name, tensor in loop.advanced(index, x, values[velocity], earlier, start, *noises):
                made[name] = tensor
                yield Step(Key("loop", index, name), tensor)
            x, earlier = made[X_NEXT], made[loop.schedule.earlier or X_NEXT]
        self.output = x
        for name, self.output in updated(loop.epilogue, {X: x}):
            last = name == loop.epilogue[-1].name
            yield Step(END if last else Key("epilogue", None, name), self.output)

    def _run(
        self,
        program: Program,
        nodes: Sequence[fx.Node],
        values: dict[fx.Node, Any],
        step: int | None,
        keep: Iterable[fx.Node] = (),
    ) -> Iterator[Step]:
        kept = {*keep, *program.outputs.values()}
        own = set(nodes)
        last: dict[fx.Node, fx.Node] = {}
        for node in nodes:
            for read in node.all_input_nodes:
                last[read] = node
        for node in nodes:
            values[node] = program.compute(node, values)
            if self._gradients:
                _begin_gradient(values[node])
            if _is_tensor(node):
                given = {read: values[read] for read in node.all_input_nodes}
                yield Step(Key(program.half, step, node.name), values[node], node, given)
            for read in node.all_input_nodes:
                if last[read] is node and read in own - kept:
                    values.pop(read, None)
