"""What a policy draws inside of itself, taken from inputs instead: its code stays as it is.

torch has a public way to see every call of its functions, and to answer some of them otherwise. What is
answered here is a draw of normal numbers, or of one of several choices, in the order in which the policy
draws; nothing of a policy, its library or torch is replaced.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, Final

import torch
from torch.overrides import TorchFunctionMode

from pytest_reflex.errors import RunnerError

__all__ = ["given_draws"]

_NORMAL: Final = (torch.randn, torch.randn_like, torch.normal, torch.Tensor.normal_)


@contextlib.contextmanager
def given_draws(*draws: torch.Tensor) -> Iterator[None]:
    """Within, each draw is the next of ``draws``: normal numbers themselves; of a choice the exponential
    numbers that ``torch.multinomial`` divides the probabilities by, before it takes the largest.

    Raises:
        RunnerError: the policy draws more, fewer, or of another shape: the inputs are not what it draws.
    """
    mode = _Given(list(draws))
    with mode:
        yield
    if mode.left:
        raise RunnerError(
            f"the policy drew {len(draws) - len(mode.left)} times, and {len(draws)} draws are given"
        )


class _Given(TorchFunctionMode):
    def __init__(self, draws: list[torch.Tensor]) -> None:
        super().__init__()
        self.left = draws

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        named = dict(kwargs or {})
        if func is torch.multinomial and named.get("num_samples", args[-1]) == 1:
            return torch.argmax(args[0] / self._next(tuple(args[0].shape), named), dim=-1, keepdim=True)
        if func not in _NORMAL:
            return func(*args, **named)
        return self._next(_shape(args, named), named)

    def _next(self, shape: tuple[int, ...], named: dict[str, Any]) -> torch.Tensor:
        if not self.left or tuple(self.left[0].shape) != shape:
            wanted = f"{list(self.left[0].shape)} is next" if self.left else "none is left"
            raise RunnerError(f"the policy draws noise of shape {list(shape)}, and of the inputs {wanted}")
        drawn = self.left.pop(0)
        # In float64 where the whole policy runs in it; the values are the input's in either.
        wide = torch.float64 in (named.get("dtype"), torch.get_default_dtype())
        return drawn.to(torch.float64 if wide else drawn.dtype, copy=True)


def _shape(args: tuple[Any, ...], named: dict[str, Any]) -> tuple[int, ...]:
    first = named["size"] if "size" in named else args[0]
    if isinstance(first, torch.Tensor):
        return tuple(first.shape)
    return tuple(args) if isinstance(first, int) else tuple(first)
