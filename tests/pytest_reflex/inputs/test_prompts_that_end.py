"""Prompts that a tokenizer closes: the end is each row's last word, once, wherever its words stand."""

from __future__ import annotations

import numpy as np
import pytest

from pytest_reflex.inputs import InputSpec, PromptMask, Tokens, make_fixture

VOCABULARY, LENGTH = 12, 5


@pytest.mark.parametrize("padding", ["right", "left"])
@pytest.mark.parametrize("end", [0, 4, VOCABULARY - 1])
def test_the_end_is_the_last_word_and_no_other(end: int, padding: str) -> None:
    shape = (3, LENGTH)
    specs = [
        InputSpec("mask", shape, "bool", PromptMask(padding)),
        InputSpec("ids", shape, "int64", Tokens(VOCABULARY, "mask", pad=end, end=end)),
    ]
    lengths = set()
    for index in range(40):
        drawn = make_fixture(specs, 0, index)
        for mask, ids in zip(drawn["mask"], drawn["ids"], strict=True):
            words = ids[mask]
            lengths.add(len(words))
            assert words[-1] == end
            assert end not in words[:-1]
            assert ((words >= 0) & (words < VOCABULARY)).all()
            assert (ids[~mask] == end).all()
    assert lengths == set(range(1, LENGTH + 1))


def test_without_a_mask_the_last_place_ends() -> None:
    spec = InputSpec("ids", (2, LENGTH), "int64", Tokens(VOCABULARY, end=3))
    drawn = [make_fixture([spec], 0, index)["ids"] for index in range(8)]
    assert all((ids[:, -1] == 3).all() and (ids[:, :-1] != 3).all() for ids in drawn)


def test_prompts_without_an_end_are_drawn_as_before() -> None:
    plain, ended = (
        InputSpec("ids", (2, LENGTH), "int64", Tokens(VOCABULARY, end=one)) for one in (None, VOCABULARY)
    )
    for index in range(6):
        ids, closed = make_fixture([plain], 0, index)["ids"], make_fixture([ended], 0, index)["ids"]
        np.testing.assert_array_equal(ids[:, :-1], closed[:, :-1])
