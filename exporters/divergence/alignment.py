"""Which operator of the policy's program an operator of the graph is, where the two are no longer the same.

A graph keeps the names that its operators had in the program it was made of. A policy that was changed since
gives other names (``silu`` for ``gelu``), and the same names to other operators (one addition less, and what
was ``add_1`` is ``add``). So names are trusted only where all of a kind agree in what they compute and in
which module; the others of both sides are put beside each other in order.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from difflib import SequenceMatcher
from typing import Final

import onnx_ir as ir

from exporters.divergence.interpreter import Interpreter
from exporters.divergence.parts import Graphs
from exporters.divergence.scopes import Origin, origin_in_program, origin_of
from exporters.graph.loop_invariant import HALF_KEY

# Operators that move values, or pass them on: a graph may do without, and nothing is computed in them.
MOVING: Final = frozenset(
    {
        "alias",
        "bitwise_not",
        "clone",
        "contiguous",
        "detach",
        "dropout",
        "expand",
        "getitem",
        "lift_fresh_copy",
    }
    | {"logical_not", "permute", "reshape", "select", "slice", "split", "squeeze", "t", "to", "transpose"}
    | {"type_as", "unsqueeze", "view", "_to_copy", "_unsafe_view"}
)


class Alignment:
    """The operators of one half on both sides.

    Attributes:
        graph: what the graph was made of, by name, in order.
        policy: the policy's own, likewise.
        found: the policy's operators that the graph has counterparts of.
        pairs: which of the policy's each of the graph's is; those without a counterpart are missing.
    """

    def __init__(self, graph: Sequence[Origin], policy: Sequence[Origin]) -> None:
        self.graph = {origin.name: origin for origin in graph}
        self.policy = {origin.name: origin for origin in policy}
        agreed = all(_alike(origin, self.policy.get(origin.name)) for origin in graph)
        self.pairs = {o.name: o.name for o in policy} if agreed else dict(_paired(graph, policy))
        self.found = frozenset(self.pairs[o.name] for o in graph if o.name in self.pairs)
        self._agreed = agreed

    def named(self, known: Mapping[str, str]) -> dict[str, str]:
        """``known`` names of the policy's values, by the names that the graph has for them."""
        if self._agreed:
            return dict(known)
        kept = {name: own for name, own in known.items() if name not in self.graph}
        return kept | {name: known[own] for name, own in self.pairs.items() if own in known}


def alignments(graphs: Graphs, interpreter: Interpreter) -> dict[str, Alignment]:
    """The alignment of each half of a bundle."""
    made: dict[str, dict[str, Origin]] = {half: {} for half in interpreter.halves}
    done: set[ir.Node] = set()
    for node in (node for part in graphs.parts for node in part.nodes):
        if node in done:
            continue
        done.add(node)
        of_half, origin = made.get(node.metadata_props.get(HALF_KEY, "model")), origin_of(node)
        if of_half is not None and origin is not None:
            of_half.setdefault(origin.name, origin)
    return {
        half: Alignment(
            list(origins.values()), [origin_in_program(node) for node in interpreter.nodes_in_order(half)]
        )
        for half, origins in made.items()
    }


def _alike(a: Origin, b: Origin | None) -> bool:
    return b is not None and (a.kind, a.module) == (b.kind, b.module)


def _paired(graph: Sequence[Origin], policy: Sequence[Origin]) -> Iterator[tuple[str, str]]:
    """What agrees by name; the same operator of the same module; between these the same operator; then ends.

    Names are numbered kind by kind: one kind's are trusted where all of the graph's agree.
    """
    own = {origin.name: origin for origin in policy}
    strange = {o.kind for o in graph if not _alike(o, own.get(o.name))}
    anchors = {o.name for o in graph if o.kind not in strange}

    def anchor(origin: Origin) -> str:
        return origin.name if origin.name in anchors else ""

    yield from ((name, name) for name in anchors)
    for mine, theirs, same in _blocks(graph, policy, lambda o: (o.kind, o.module, anchor(o))):
        left = [o for o in mine if o.name not in anchors]
        right = [o for o in theirs if o.name not in anchors]
        if same:
            yield from _by_place(left, right)
            continue
        for some, others, alike in _blocks(left, right, lambda o: o.kind):
            yield from _by_place(some, others) if alike else _ends(some, others)


def _by_place(graph: Sequence[Origin], policy: Sequence[Origin]) -> Iterator[tuple[str, str]]:
    return zip((o.name for o in graph), (o.name for o in policy), strict=True)


def _blocks(
    graph: Sequence[Origin], policy: Sequence[Origin], told: Callable[[Origin], Hashable]
) -> Iterator[tuple[Sequence[Origin], Sequence[Origin], bool]]:
    """Both sides cut where they begin or cease to agree in what is ``told``, and whether they do."""
    found = SequenceMatcher(None, [told(o) for o in graph], [told(o) for o in policy], autojunk=False)
    for tag, i, i_end, j, j_end in found.get_opcodes():
        yield graph[i:i_end], policy[j:j_end], tag == "equal"


def _ends(graph: Sequence[Origin], policy: Sequence[Origin]) -> Iterator[tuple[str, str]]:
    """What a module computes last is the same thing on both sides, by whatever operators it is made."""
    last = {o.module: o for o in graph if o.kind not in MOVING}
    own = {o.module: o for o in policy if o.kind not in MOVING}
    for module in last.keys() & own.keys():
        yield last[module].name, own[module].name
