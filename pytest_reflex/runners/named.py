"""What a model of somebody's own returns -> outputs by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pytest_reflex.errors import RunnerError


def named_outputs(
    who: str, outputs: object, names: Sequence[str] | None, one: tuple[type, ...], wanted: str = "tensors"
) -> dict[str, Any]:
    """The outputs by name: a mapping's own names, ``output`` for one value, ``output_0``, ... for several.

    Args:
        who: the runner's name.
        outputs: what was returned.
        names: what the outputs are to be called; a mapping must have just these, in this order.
        one: the types of a single output.
        wanted: what they are, for the message.

    Raises:
        RunnerError: it is nothing of these, two have one name, or there are more or fewer than ``names``.
    """
    if isinstance(outputs, Mapping):
        own = tuple(str(name) for name in outputs)
        require_unlike(who, own)
        if names is not None and own != tuple(names):
            raise RunnerError(f"{who} returned {list(own)}; its outputs should be {list(names)}")
        return dict(zip(own, outputs.values(), strict=True))
    if isinstance(outputs, one):
        given = {"output": outputs}
    elif isinstance(outputs, tuple | list):
        given = {f"output_{i}": value for i, value in enumerate(outputs)}
    else:
        raise RunnerError(f"{who} returned a {type(outputs).__name__}; return {wanted}, or use call=")
    called = tuple(given) if names is None else tuple(names)
    require_unlike(who, called)
    if len(called) != len(given):
        raise RunnerError(f"{who} returned {len(given)} outputs; {len(called)} are named: {list(called)}")
    return dict(zip(called, given.values(), strict=True))


def require_unlike(who: str, names: Sequence[str]) -> None:
    """Two outputs of one name would be one, and the other never compared."""
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise RunnerError(f"{who}: two outputs are named {twice!r}; give each a name of its own")
