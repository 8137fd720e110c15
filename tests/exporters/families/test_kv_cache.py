"""PrefixCache: joined with every step's keys, never grown by them."""

from __future__ import annotations

import pytest
import torch

from exporters.families.kv_cache import PrefixCache, cache_tensors, prefix_cache


def layers(count: int, length: int) -> list[torch.Tensor]:
    return [torch.full((1, 1, length, 2), float(index)) for index in range(count)]


def test_an_update_joins_and_keeps_nothing() -> None:
    cache = PrefixCache(layers(3, 5), layers(3, 5))
    suffix = torch.ones(1, 1, 2, 2)
    for _ in range(2):
        for index in range(3):
            keys, values = cache.update(suffix, suffix, index)
            assert keys.shape == values.shape == (1, 1, 7, 2)
            assert torch.equal(keys[:, :, :5], layers(3, 5)[index])
            assert torch.equal(keys[:, :, 5:], suffix)
    assert cache.get_seq_length() == 5
    assert [layer.keys.shape[-2] for layer in cache.layers] == [5, 5, 5]


def test_masks_are_sized_for_prefix_and_suffix() -> None:
    assert PrefixCache(layers(1, 5), layers(1, 5)).layers[0].get_mask_sizes(2)[0] == 7


def test_tensors_go_out_and_in_by_name() -> None:
    tensors = cache_tensors(PrefixCache(layers(12, 3), layers(12, 3)))
    assert list(tensors)[:4] == ["keys.0", "values.0", "keys.1", "values.1"]
    again = prefix_cache({**tensors, "state": torch.zeros(1)})
    # Layer 10 comes after layer 9, not after layer 1.
    assert [int(layer.keys[0, 0, 0, 0]) for layer in again.layers] == list(range(12))


def test_keys_without_values_are_refused() -> None:
    with pytest.raises(ValueError, match="zip"):
        PrefixCache(layers(2, 3), layers(1, 3))
