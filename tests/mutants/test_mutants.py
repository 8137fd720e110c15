"""A slice of the mutants that ``benchmarks/mutants.py`` makes: none that a fixture could tell survives.

One layout of each family and one mutant of each operator; the figures of all of them are in
``parity_reports/mutants.md``.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("torch")

from mutant_judge import HOST, Subject, judge, judged, mutants, refused
from mutant_operators import OPERATORS
from mutant_subjects import ALL, FAMILIES, families, layouts_of, subject

pytestmark = pytest.mark.usefixtures("traced_once")

ROOT = Path(__file__).resolve().parents[2]
LAYOUTS = {"groot": "stepwise", "pi0": "unrolled", "pi05": "loop", "smolvla": "loop", "diffusion": "loop"}
# Of lerobot's that read features, one with a loop and one without; the benchmark makes the others too.
SLICE = (*FAMILIES, "act", "diffusion")

Made = Callable[[str], Subject]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    work = tmp_path_factory.mktemp("mutants")
    known: dict[str, Subject] = {}

    def of(family: str) -> Subject:
        if family not in known:
            known[family] = subject(family, LAYOUTS.get(family), work)
        return known[family]

    return of


@pytest.mark.parametrize(
    "family",
    [pytest.param(family, marks=[] if family == "pi0" else [pytest.mark.lerobot]) for family in SLICE],
)
def test_no_mutant_survives(family: str, made: Made) -> None:
    if family not in families():
        pytest.skip("needs lerobot (Python 3.12 or later)")
    honest = made(family)
    assert not refused(judged(honest, honest.bundle.runner()))
    ends = [judge(honest, mutant) for mutant in mutants(honest, 1)]
    assert [end for end in ends if end.end == "survived"] == []
    counted = Counter(end.end for end in ends)
    assert counted["killed"] >= 10, counted
    assert counted["killed"] > 4 * counted["equivalent"], counted


def test_mutants_are_the_same_each_time(made: Made) -> None:
    first, again = ([(m.graph, m.operator, m.where) for m in mutants(made("pi0"), 2)] for _ in range(2))
    assert first == again
    assert len(set(first)) == len(first)
    # An unrolled pi0 has a place for every operator.
    assert {operator for _, operator, _ in first} == set(OPERATORS)


def test_the_published_table_has_every_family_layout_and_operator_and_no_survivor() -> None:
    table = json.loads((ROOT / "parity_reports" / "mutants.json").read_text(encoding="utf-8"))
    ends = Counter(mutant["end"] for mutant in table["mutants"])
    assert ends["survived"] == 0
    assert ends["killed"] + ends["equivalent"] >= 500
    assert {(m["family"], m["layout"]) for m in table["mutants"]} == {
        (family, layout or "single") for family in ALL for layout in layouts_of(family)
    }
    assert {m["operator"] for m in table["mutants"]} == set(OPERATORS)
    assert HOST in {m["graph"] for m in table["mutants"]}
