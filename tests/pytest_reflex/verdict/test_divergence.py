"""Where two sides part, in words: as much of a place as is known of it."""

from __future__ import annotations

from dataclasses import replace

from pytest_reflex.verdict.divergence import Location

PLACE = Location(
    step=7,
    module="model.layers.3.self_attn",
    source="modeling.py:88",
    value="add_7",
    node="node_add_7",
    operator="Add",
    index=(0, 1),
    reference=1.0,
    candidate=2.0,
    error=1.0,
    rounding=None,
    scale=4.0,
)


def test_a_place_is_named_by_its_step_its_module_and_its_line() -> None:
    assert PLACE.where == "step 7, model.layers.3.self_attn (modeling.py:88)"
    assert replace(PLACE, step=0).where.startswith("step 0, ")
    assert replace(PLACE, step=None).where == "model.layers.3.self_attn (modeling.py:88)"
    assert replace(PLACE, source="").where == "step 7, model.layers.3.self_attn"
