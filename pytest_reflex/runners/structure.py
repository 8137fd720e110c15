"""What a module takes and returns, as named tensors: nested containers in, nested containers out.

A name is the way to a tensor, its parts joined by dots: ``boxes.0``, ``hidden_states.3``,
``past_key_values.0.key``.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from pytest_reflex.errors import RunnerError, a_type
from pytest_reflex.verdict.naming import unknown

Path = tuple[str, ...]


class StructureError(Exception):
    """What a module takes or returns does not fit; the runner says whose it is."""


def leaves(value: object, path: Path = ()) -> Iterator[tuple[Path, object]]:
    """Everything inside ``value`` that is no container, and the way to it; None is left out.

    Containers are mappings (``ModelOutput`` is one), tuples, lists, named tuples, dataclasses and
    transformers' caches, whose layers give a ``key`` and a ``value``.
    """
    if value is None:
        return
    parts = _parts(value)
    if parts is None:
        yield path, value
        return
    for name, part in parts:
        yield from leaves(part, (*path, name))


def named(
    value: object, asked: Sequence[str] | None, inputs: Iterable[str] = (), *, apart: bool = False
) -> dict[str, object]:
    """What a module returned, by name.

    One tensor is ``output``; of a plain tuple or list the first is ``output_0``.

    Args:
        value: what it returned.
        asked: names for every tensor, or for what is at the top; a mapping must have just these, in this
            order.
        inputs: names of the inputs.
        apart: whether an output that has the name of an input, ``hidden`` say, becomes ``hidden_out``, as in
            a graph, which has one value of one name.

    Raises:
        StructureError: nothing is in it, the names do not fit, or two would be one.
    """
    ways = [(_top(value, way), *way[1:]) for way, _ in leaves(value)]
    names = [".".join(way) for way in ways]
    if not names:
        raise StructureError(
            f"returned {a_type(value)} without a tensor in it; return one, or give a "
            "TorchRunner(policy, call) that does"
        )
    taken = set(inputs)
    others = [".".join((f"{way[0]}_out", *way[1:])) for way in ways]
    told = [other if name in taken else name for name, other in zip(names, others, strict=True)]
    if asked is None:
        names = told if apart else names
    else:  # a bundle asks for the names that it was exported with
        names = told if list(asked) == told else _renamed(list(asked), value, ways)
    # Of two outputs of one name, one would never be compared.
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        own = next((".".join(way) for way, name in zip(ways, names, strict=True) if name == twice), twice)
        if own != twice and own in taken:
            raise StructureError(
                f"returned {own!r} and {twice!r}, and {own!r} is an input too, so that as an output it is "
                f"called {twice!r} in a graph; give the output {twice!r} another name"
            )
        raise StructureError(f"returned two outputs that are named {twice!r}; give each a name of its own")
    return dict(zip(names, (leaf for _, leaf in leaves(value)), strict=True))


def _renamed(asked: list[str], value: object, ways: Sequence[Path]) -> list[str]:
    names, parts = [".".join(way) for way in ways], _parts(value) or [("", value)]
    tops = [_top(value, (name,)) for name, _ in parts]
    if isinstance(value, Mapping):
        if asked not in (names, tops):
            raise StructureError(f"returned {names}; its outputs should be {asked}")
        return names
    if len(asked) == len(names):
        return asked
    if len(asked) == len(tops):
        called = dict(zip(tops, asked, strict=True))
        return [".".join((called[way[0]], *way[1:])) for way in ways]
    raise StructureError(f"returned {len(names)} outputs; {len(asked)} are named: {asked}")


def _top(value: object, way: Path) -> str:
    """What the first part of a way is called."""
    if not way or not way[0]:
        return "output"
    plain = isinstance(value, tuple | list) and not hasattr(value, "_fields")
    return f"output_{way[0]}" if plain else way[0]


def _parts(value: object) -> list[tuple[str, object]] | None:
    if isinstance(value, Mapping):
        return [(str(key), part) for key, part in value.items()]
    if isinstance(value, tuple | list):
        names = getattr(value, "_fields", None) or range(len(value))
        return [(str(name), part) for name, part in zip(names, value, strict=True)]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [(field.name, getattr(value, field.name)) for field in dataclasses.fields(value)]
    return _cache_parts(value)


def _cache_parts(value: object) -> list[tuple[str, object]] | None:
    """The layers of one of transformers' caches, or the caches of an encoder and decoder."""
    if not any(kind.__module__ == "transformers.cache_utils" for kind in type(value).__mro__):
        return None
    both = ("self_attention_cache", "cross_attention_cache")
    if all(hasattr(value, name) for name in both):
        return [(name.removesuffix("_cache"), getattr(value, name)) for name in both]
    layers = getattr(value, "layers", None)
    if layers is None:
        return [("key", value.keys), ("value", value.values)] if hasattr(value, "values") else None  # type: ignore[attr-defined]
    return [(str(index), layer) for index, layer in enumerate(layers)]


def arguments(call: Callable[..., Any], tensors: Mapping[str, Any]) -> dict[str, Any]:
    """The keywords that ``call`` takes, built from tensors by name.

    A name that is no parameter belongs to one: ``hidden.0`` and ``hidden.1`` to ``hidden``, as a tuple, and
    ``batch.image`` to ``batch``, as a dict; ``past_key_values.0.key`` and ``.value`` make a transformers
    ``DynamicCache``. What then is left goes whole, under its own names, into the one dict that ``call``
    asks for, as in ``forward(batch: dict)``. Anything else is passed as it is named.

    Args:
        call: a module, whose ``forward`` says what it takes, or any function.
        tensors: the inputs by name.

    Raises:
        StructureError: a parameter is given both whole and in parts, or parts of it are missing.
    """
    parameters = _parameters(call)
    if all(name in parameters for name in tensors):
        return dict(tensors)
    whole = {name: value for name, value in tensors.items() if name in parameters}
    parts: dict[str, dict[str, Any]] = {}
    rest: dict[str, Any] = {}
    for name, value in tensors.items():
        root, _, way = name.partition(".")
        if name in whole:
            continue
        if way and root in parameters:
            parts.setdefault(root, {})[way] = value
        else:
            rest[name] = value
    for root, inside in parts.items():
        if root in whole:
            part = f"{root}.{next(iter(inside))}"
            raise StructureError(f"is given {root!r} and {part!r}, which is a part of it; give either")
        whole[root] = _built(root, inside)
    taker = _dict_taker(parameters, whole, rest)
    return {**whole, taker: rest} if taker else {**whole, **rest}


def misfit(call: Callable[..., Any], given: Iterable[str], besides: Iterable[str] = ()) -> str:
    """Why ``call`` cannot be given inputs of these names, in words; empty where it can, or nobody knows.

    Args:
        call: a module, whose ``forward`` says what it takes, or any function.
        given: the names.
        besides: what else is taken, before ``call`` is asked.
    """
    try:
        parameters = inspect.signature(getattr(call, "forward", call)).parameters.values()
    except (TypeError, ValueError):
        return ""
    plain = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    anything = any(one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters)
    takes = [*(one.name for one in parameters if one.kind in plain), *besides]
    needs = [one.name for one in parameters if one.kind in plain and one.default is one.empty]
    names = list(given)
    missing = [name for name in (*needs, *besides) if name not in names]
    strange = [name for name in names if name not in takes and not anything]
    if not missing and not strange:
        return ""
    said = [*(f"no {name!r}" for name in missing)]
    said += [unknown("input", strange, missing or takes)] if strange else []
    if not takes and any(one.kind is inspect.Parameter.VAR_POSITIONAL for one in parameters):
        told = ", ".join(name for name in names if name.isidentifier())
        return (
            f"takes its inputs without names, and is given {', '.join(names)}; give TorchRunner(policy, "
            f"call=lambda {told}: policy({told}))"
        )
    return f"takes {', '.join(takes) or 'no input'}, and is given {', '.join(names)}: {', '.join(said)}"


def by_name(call: Callable[..., Any], given: Mapping[str, Any], who: str) -> Any:
    """What ``call`` gives for inputs by name.

    Raises:
        RunnerError: it has other names for them; the message says both.
    """
    try:
        return call(**given)
    except TypeError as error:
        if said := misfit(call, given):
            raise RunnerError(f"{who} {said}") from error
        raise


def _parameters(call: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    try:
        found = inspect.signature(getattr(call, "forward", call)).parameters
    except (TypeError, ValueError):
        return {}
    plain = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {name: one for name, one in found.items() if one.kind in plain}


def _dict_taker(
    parameters: Mapping[str, inspect.Parameter], given: Mapping[str, Any], rest: Mapping[str, Any]
) -> str | None:
    """The one parameter that is missing and stands for a dict; None where nothing says so."""
    needed = [
        one
        for name, one in parameters.items()
        if one.default is inspect.Parameter.empty and name not in given
    ]
    if not rest or len(needed) != 1:
        return None
    asked = needed[0].annotation
    if asked is inspect.Parameter.empty:
        # Nothing is said of it: one plain name is a slip, several cannot mean one tensor.
        takes = len(rest) > 1 or any("." in name for name in rest)
    else:
        words = asked if isinstance(asked, str) else repr(asked)
        takes = any(word in words.lower() for word in ("dict", "mapping", "batch"))
    return needed[0].name if takes else None


def _built(root: str, inside: Mapping[str, Any]) -> Any:
    """A dict, or the tuple or cache that numbered parts make."""
    firsts = list(dict.fromkeys(way.partition(".")[0] for way in inside))
    if not all(first.isdecimal() for first in firsts):
        return dict(inside)
    if sorted(map(int, firsts)) != list(range(len(firsts))):
        raise StructureError(
            f"is given parts of {root!r} that are numbered {', '.join(firsts)}; "
            f"number them 0 to {len(firsts) - 1}"
        )
    items = []
    for first in sorted(firsts, key=int):
        under = {way.partition(".")[2]: value for way, value in inside.items() if way.split(".")[0] == first}
        items.append(under[""] if list(under) == [""] else _built(f"{root}.{first}", under))
    layered = all(isinstance(item, dict) and sorted(item) == ["key", "value"] for item in items)
    return _cache(items) if layered else tuple(items)


def _cache(layers: Sequence[Mapping[str, Any]]) -> Any:
    from transformers import DynamicCache

    cache = DynamicCache()
    for index, layer in enumerate(layers):
        cache.update(layer["key"], layer["value"], index)
    return cache
