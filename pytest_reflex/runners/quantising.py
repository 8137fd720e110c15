"""The same PyTorch program with its products in 8 bits: what quantising must cost.

Nothing of the model is changed or copied. A mode watches every operator that the program calls, and gives
each matrix product and convolution operands that int8 and uint8 hold: weights with one scale for each, the
same to both sides of zero; activations with one scale and zero point for each tensor, from the least to the
largest value, zero among them. It is what onnxruntime's quantisers do by default.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, Literal

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["Activations", "Quantising", "Ranges"]

# Whose scales: only weights are quantised; each run takes its own; they are fixed over all fixtures.
Activations = Literal["weights", "dynamic", "static"]
# The least and the largest value of each operand, by the number of the product in a run, and its place there.
Ranges = dict[tuple[int, str], tuple[float, float]]
_aten = torch.ops.aten
# Where a product has its two operands.
_PRODUCTS: Final = {
    _aten.mm.default: (0, 1),
    _aten.bmm.default: (0, 1),
    _aten.addmm.default: (1, 2),
    _aten.baddbmm.default: (1, 2),
    _aten.convolution.default: (0, 1),
}


class Quantising(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Within, the products of float32 that torch computes are of 8 bits.

    Args:
        weights: the parameters.
        activations: ``weights``, only they are quantised; ``dynamic``, of products that have one the other
            operand too, with the range that it has in this run; ``static``, both operands and the result of
            every product, with ranges over all fixtures.
        ranges: for ``static``: the ranges, where ``learning`` is over.
        learning: whether this run is in float32, and widens ``ranges`` by what it shows.
    """

    def __init__(
        self,
        weights: Iterable[torch.Tensor],
        activations: Activations,
        ranges: Ranges,
        *,
        learning: bool = False,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._weights = {tensor.untyped_storage()._cdata for tensor in weights}
        self._activations = activations
        self._ranges = ranges
        self._learning = learning
        self._count = 0
        # A fused attention hides its products.
        self._unfused = sdpa_kernel(SDPBackend.MATH)

    def __enter__(self) -> Any:
        self._unfused.__enter__()
        return super().__enter__()  # type: ignore[no-untyped-call]

    def __exit__(self, *raised: Any) -> None:
        super().__exit__(*raised)  # type: ignore[no-untyped-call]
        self._unfused.__exit__(*raised)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        places = _PRODUCTS.get(func)
        if places is None or any(args[place].dtype != torch.float32 for place in places):
            return func(*args, **(kwargs or {}))
        of_weights = [args[place].untyped_storage()._cdata in self._weights for place in places]
        if self._activations != "static" and not any(of_weights):
            return func(*args, **(kwargs or {}))
        self._count += 1
        given = list(args)
        for place, is_weight in zip(places, of_weights, strict=True):
            if is_weight:
                given[place] = given[place] if self._learning else _weight(given[place])
            elif self._activations != "weights":
                given[place] = self._activation(given[place], str(place))
        made = func(*given, **(kwargs or {}))
        return self._activation(made, "result") if self._activations == "static" else made

    def _activation(self, value: torch.Tensor, place: str) -> torch.Tensor:
        low, high = float(value.min()), float(value.max())
        if self._activations == "static":
            key = self._count, place
            known = self._ranges.get(key, (low, high))
            if self._learning:
                self._ranges[key] = min(low, known[0]), max(high, known[1])
                return value
            low, high = known
        low, high = min(low, 0.0), max(high, 0.0)
        scale = (high - low) / 255
        if not scale > 0:
            return value
        zero = round(-low / scale)
        return (torch.clamp(torch.round(value / scale) + zero, 0, 255) - zero) * scale


def _weight(value: torch.Tensor) -> torch.Tensor:
    scale = value.abs().max() / 127
    return torch.round(value / scale) * scale if scale > 0 else value
