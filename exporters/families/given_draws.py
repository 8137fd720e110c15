"""What a policy draws inside of itself, taken from inputs instead: its code stays as it is.

torch has a public way to see every call of its functions, and to answer some of them otherwise. What is
answered here is a draw of normal numbers, in the order in which the policy draws; nothing of a policy, its
library or torch is replaced.
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
    """Within, each draw of normal numbers is the next of ``draws``.

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
        if func not in _NORMAL:
            return func(*args, **named)
        shape = _shape(args, named)
        if not self.left or tuple(self.left[0].shape) != shape:
            wanted = f"{list(self.left[0].shape)} is next" if self.left else "none is left"
            raise RunnerError(f"the policy draws noise of shape {list(shape)}, and of the inputs {wanted}")
        return self.left.pop(0)


def _shape(args: tuple[Any, ...], named: dict[str, Any]) -> tuple[int, ...]:
    first = named["size"] if "size" in named else args[0]
    if isinstance(first, torch.Tensor):
        return tuple(first.shape)
    return tuple(args) if isinstance(first, int) else tuple(first)
