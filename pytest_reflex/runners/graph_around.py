"""What is known of an ONNX graph, from its inputs and from the graphs around it. Needs onnx."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_reflex.runners.graph_finite import WHOLE
from pytest_reflex.runners.graph_ranges import Known, Range, ranges_of
from pytest_reflex.runners.graph_sizes import Sizes, shape_of
from pytest_reflex.runners.graph_weights import finite_weights

if TYPE_CHECKING:
    import onnx

__all__ = ["Around", "begin", "discrete_inputs", "inside_of", "known_of"]


@dataclass(frozen=True)
class Around:
    """What is known where a graph begins: of its inputs, and of what it can read of graphs around it."""

    fixed: frozenset[str]
    sized: frozenset[str]
    finite: frozenset[str]
    ranges: Mapping[str, Range]
    kinds: Mapping[str, int]
    discrete: frozenset[str]

    def without(self, names: Collection[str]) -> Around:
        """The same where these are names of something else."""
        ranges = {name: one for name, one in self.ranges.items() if name not in names}
        kinds = {name: one for name, one in self.kinds.items() if name not in names}
        fixed, sized, finite, discrete = (
            known - {*names} for known in (self.fixed, self.sized, self.finite, self.discrete)
        )
        return Around(fixed, sized, finite, ranges, kinds, discrete)


def discrete_inputs(graph: onnx.GraphProto) -> frozenset[str]:
    """Its inputs of whole numbers and booleans."""
    kinds = {value.name: value.type.tensor_type.elem_type for value in graph.input}
    return frozenset(name for name, kind in kinds.items() if kind in WHOLE)


def inside_of(known: Known) -> Around:
    """What is known in a graph, for those inside of it."""
    return Around(
        frozenset(known.sizes.fixed),
        frozenset(known.sizes.sized),
        frozenset(known.finite.finite),
        known.ranges,
        known.kinds,
        frozenset(known.finite.discrete),
    )


def known_of(graph: onnx.GraphProto, around: Around, place: Path | None) -> Known:
    """What no input changes in a graph, the sizes, the ranges, and what is finite."""
    given = {value.name for value in graph.input}
    constants = {value.name for value in graph.initializer} - given
    inside = {name for node in graph.node for name in node.output} | constants
    sizes = Sizes((around.fixed - inside) | constants, around.sized - inside)
    for node in graph.node:
        sizes.read(node)
    kinds = {name: kind for name, kind in around.kinds.items() if name not in inside}
    kinds |= {value.name: value.type.tensor_type.elem_type for value in graph.value_info}
    kinds |= {tensor.name: tensor.data_type for tensor in graph.initializer}
    shapes = {value.name: shape for value in graph.value_info if (shape := shape_of(value)) is not None}
    finite = set(around.finite - inside) | finite_weights(graph, place)
    known = Known(sizes, finite, kinds, shapes, (around.discrete - inside) | constants)
    seen = {name: one for name, one in around.ranges.items() if name not in inside}
    ranges = ranges_of(graph, seen, place, known)
    known.settled.update(name for name, (low, high) in ranges.items() if (low == high).all())
    sizes.fixed |= known.settled & sizes.sized  # what is made of it may hang on its size
    for node in graph.node:
        sizes.read(node)
    return known


def begin(node: onnx.NodeProto, body: onnx.GraphProto, known: Known, place: Path | None) -> Around:
    """What is known where a body begins; what goes round is finite where it begins so and stays so."""
    names = [value.name for value in body.input]
    outer = inside_of(known).without(names)
    finite = {name for name, given in zip(names, node.input, strict=True) if known.finite.is_finite(given)}
    if node.op_type == "Loop":
        alike = frozenset(names[:2])
        outer = replace(outer, sized=outer.sized | alike, discrete=outer.discrete | {*names[:1]})
        finite.update(alike)
        round_about = dict(zip(names[2:], (value.name for value in body.output[1:]), strict=False))
    else:
        read = {name for name, given in zip(names, node.input, strict=True) if given in known.sizes.sized}
        scanned = next(a.i for a in node.attribute if a.name == "num_scan_inputs")
        states = names[: len(names) - scanned]
        told = zip(names[len(states) :], node.input[len(states) :], strict=True)
        discrete = {name for name, given in told if given in known.finite.discrete}
        outer = replace(outer, sized=outer.sized | read, discrete=outer.discrete | discrete)
        round_about = dict(zip(states, (value.name for value in body.output), strict=False))
    while True:
        around = replace(outer, finite=outer.finite | finite)
        inside = known_of(body, around, place).finite
        lost = {name for name, made in round_about.items() if name in finite and not inside.is_finite(made)}
        if not lost:
            return around
        finite -= lost
