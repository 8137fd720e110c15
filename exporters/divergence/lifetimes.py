"""How long the walk needs each value: until the last node that reads it has been compared."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import onnx_ir as ir

from exporters.divergence.interpreter import Key
from exporters.divergence.parts import Graphs, Names, Part

# The names of a step's own `x`, which is the step's before in PyTorch.
X_INPUTS = ("x_t", "loop/x_t")
EARLIER_INPUT = "loop/earlier"


class Lifetimes:
    """When the graphs' values and PyTorch's are read for the last time.

    Time is counted in nodes: each node of each part is one, and the end of each part is one more.

    Args:
        graphs: what is walked through.
        names: which value of the one side is which of the other.
    """

    def __init__(self, graphs: Graphs, names: Names) -> None:
        self._names = names
        self._keys: dict[Key, int] = {}
        self._values: dict[int, list[ir.Value]] = defaultdict(list)
        last: dict[ir.Value, int] = {}
        now = 0
        for part in graphs.parts:
            for node in part.nodes:
                for value in node.inputs:
                    if value is not None and not value.is_initializer():
                        last[value] = now
                        self._read(self.key_of_input(value, part), now)
                for value in node.outputs:
                    # A repeated part makes it anew: the old one is let go where it was read last.
                    if value in last:
                        self._values[last.pop(value)].append(value)
                    last[value] = now
                    self._read(names.key(value, part.step), now)
                now += 1
            if part.following is not None:
                last[part.following] = now
                if part.earlier is not None:
                    last[part.earlier] = now
                self._read(Key("loop", part.step, "x_next"), now)
            now += 1
        for value, at in last.items():
            self._values[at].append(value)

    def _read(self, key: Key | None, now: int) -> None:
        if key is not None:
            self._keys[key] = now

    def key_of_input(self, value: ir.Value, part: Part) -> Key | None:
        """PyTorch's value for what a node reads, if it has one."""
        if value.producer() is not None:
            return self._names.key(value, part.step)
        if str(value.name) in X_INPUTS and part.step:
            return Key("loop", part.step - 1, "x_next")
        if str(value.name) == EARLIER_INPUT and part.step and part.earlier is not None:
            return self._names.key(part.earlier, part.step - 1)
        return None

    def lasts(self, key: Key, now: int) -> bool:
        """Whether a value of PyTorch's is still read at ``now`` or later."""
        return self._keys.get(key, -1) >= now

    def over(self, start: int, stop: int) -> Iterator[ir.Value]:
        """The graphs' values that are read for the last time from ``start`` to before ``stop``."""
        for now in range(start, stop):
            yield from self._values.get(now, ())
