"""Where two sides part: the first module whose inputs agree and whose output does not, as plain data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

__all__ = ["CAUSES", "Divergence", "Growth", "Location"]

# graph: a node of the graph computes something else than PyTorch's operator. split: the traced halves are not
# the upstream policy. runtime: the graph is right, and ONNX Runtime's own rewriting or settings change it.
# reference: PyTorch itself gives what is not finite, and the graph follows it. rounding: nothing is further
# from PyTorch than float32 explains.
Cause = Literal["graph", "split", "runtime", "reference", "rounding"]
CAUSES: Final[tuple[Cause, ...]] = ("graph", "split", "runtime", "reference", "rounding")

# So many operators that were compared together are named.
_NAMED: Final = 6


@dataclass(frozen=True)
class Location:
    """One value of the graph that is wrong though everything it is made of is right.

    Attributes:
        step: the denoising step, from 0; None outside the loop.
        module: dotted path of the PyTorch module.
        source: ``file.py:line`` in it; empty when torch wrote none.
        value: the value's name in the graph.
        node: the name of the node that gives it, or that has no counterpart among those compared together;
            empty where PyTorch alone was looked at, or has an operator that the graph does not.
        operator: the node's ONNX operator.
        index: the worst element.
        reference: what PyTorch gives there.
        candidate: what the node gives there when it is fed with PyTorch's own inputs.
        error: how far the two are apart there.
        rounding: how far PyTorch itself is from float64 in this one operator; None when that was not run.
        scale: the largest value that PyTorch gives here.
        together: the operators that were compared as one, for PyTorch has no value between them, or is not
            given the same in front of them; empty where one operator was, fed alike.
        span: what made the values in front of these, and the module that they end in, in words.
        unpaired: what of these has no counterpart on the other side; or how the two sides' operators differ
            where they are counterparts, and not the same.
    """

    step: int | None
    module: str
    source: str
    value: str
    node: str
    operator: str
    index: tuple[int, ...]
    reference: float | int | bool
    candidate: float | int | bool
    error: float
    rounding: float | None
    scale: float
    together: tuple[str, ...] = ()
    span: str = ""
    unpaired: str = ""

    @property
    def operators(self) -> str:
        """What was compared together, each operator once, the first of them where they are many."""
        named = list(dict.fromkeys(self.together))
        return ", ".join([*named[:_NAMED], *(["..."] if len(named) > _NAMED else [])])

    @property
    def fed_alike(self) -> bool:
        """Whether one operator was compared, given the same on both sides."""
        return not self.together

    @property
    def where(self) -> str:
        """``step 7, model.layers.3.self_attn (modeling.py:88)``."""
        step = f"step {self.step}, " if self.step is not None else ""
        source = f" ({self.source})" if self.source else ""
        return f"{step}{self.module}{source}"


@dataclass(frozen=True)
class Growth:
    """How far apart the two sides are behind one module.

    Attributes:
        step: the denoising step; None outside the loop.
        module: the module, at the depth of a layer.
        propagated: how far apart is what it hands on, each side on its own way.
        local: the largest difference of any of its nodes when fed with PyTorch's own inputs.
        scale: the largest value that PyTorch gives there.
    """

    step: int | None
    module: str
    propagated: float
    local: float
    scale: float


@dataclass(frozen=True, repr=False)
class Divergence:
    """What the search found.

    Attributes:
        fixture_idx: the fixture that was walked through.
        cause: see :data:`CAUSES`.
        said: the answer in one sentence.
        place: the first place that is wrong; None where none is.
        growth: behind each layer, in the order of the run.
        values: how many values were compared.
        unmatched: how many of the graph's values have no counterpart in PyTorch's program.
        seconds: how long the walk took: all values on both sides, tracing left out.
    """

    fixture_idx: int
    cause: Cause
    said: str
    place: Location | None
    growth: tuple[Growth, ...]
    values: int
    unmatched: int
    seconds: float

    def __repr__(self) -> str:
        return f"<Divergence of fixture {self.fixture_idx}, {self.cause}: {self.said}>"
