"""Caches of keys and values: PrefixCache, which steps read and none extends, and FixedCache, which has its
full size from the start."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from transformers.cache_utils import Cache, DynamicLayer


class PrefixLayer(DynamicLayer):
    """One layer's prefix keys and values, each ``[batch, kv_heads, prefix, head_dim]``.

    A ``DynamicLayer`` grows by what it is given, so a second denoising step would attend to the
    first. This one answers with prefix and suffix joined and keeps only the prefix; its length is
    the same before and after, which is what the mask builders ask for.
    """

    def __init__(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        super().__init__()
        self.dtype, self.device = keys.dtype, keys.device
        self.keys, self.values = keys, values
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: object, **kwargs: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return (torch.cat([self.keys, key_states], dim=-2), torch.cat([self.values, value_states], dim=-2))

    def crop(self, *args: object, **kwargs: object) -> None:
        """Nothing was added, so there is nothing to take away again."""


class PrefixCache(Cache):
    """A transformers ``Cache`` that holds one :class:`PrefixLayer` per decoder layer."""

    def __init__(self, keys: Sequence[torch.Tensor], values: Sequence[torch.Tensor]) -> None:
        super().__init__(layers=[PrefixLayer(k, v) for k, v in zip(keys, values, strict=True)])

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor, None]]:
        """Keys, values and the sliding window, which there is none of: as a ``DynamicCache`` is copied."""
        for layer in self.layers:
            yield layer.keys, layer.values, None


class FixedLayer(PrefixLayer):
    """One layer's keys and values, each ``[batch, kv_heads, room, head_dim]``; a token fills a place of them.

    Args:
        keys: what is there.
        values: likewise.
        here: true at the place, ``[room, 1]``.
    """

    def __init__(self, keys: torch.Tensor, values: torch.Tensor, here: torch.Tensor) -> None:
        super().__init__(keys, values)
        self._here = here

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: object, **kwargs: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        self.keys = torch.where(self._here, key_states, self.keys)
        self.values = torch.where(self._here, value_states, self.values)
        return self.keys, self.values


class FixedCache(PrefixCache):
    """A transformers ``Cache`` that holds one :class:`FixedLayer` per decoder layer."""

    def __init__(
        self, keys: Sequence[torch.Tensor], values: Sequence[torch.Tensor], here: torch.Tensor
    ) -> None:
        Cache.__init__(self, layers=[FixedLayer(k, v, here) for k, v in zip(keys, values, strict=True)])


def cache_tensors(cache: Cache) -> dict[str, torch.Tensor]:
    """The tensors of ``cache`` by name, ``keys.0``, ``values.0``, ``keys.1`` and so on, layer by layer."""
    tensors: dict[str, torch.Tensor] = {}
    for index, layer in enumerate(cache.layers):
        tensors[f"keys.{index}"] = layer.keys
        tensors[f"values.{index}"] = layer.values
    return tensors


def prefix_cache(tensors: dict[str, torch.Tensor], here: torch.Tensor | None = None) -> PrefixCache:
    """The :class:`PrefixCache` of tensors named as by :func:`cache_tensors`; other names are passed over.

    Given ``here``, the :class:`FixedCache` that is filled there.
    """
    layers = sum(name.startswith("keys.") for name in tensors)
    keys = [tensors[f"keys.{index}"] for index in range(layers)]
    values = [tensors[f"values.{index}"] for index in range(layers)]
    return PrefixCache(keys, values) if here is None else FixedCache(keys, values, here)
