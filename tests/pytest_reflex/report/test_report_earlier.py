"""Documents that earlier releases wrote are opened, and say what they said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from bundle_cases import Reflex

from pytest_reflex.errors import ReflexError
from pytest_reflex.report import json as as_json

# Written by 0.1.0: a pass, a pass in floors, a fail that was held against float64, a test without a result.
PLACE = Path(__file__).parents[2] / "golden" / "documents" / "parity_0_1.json"
# What a result was called then and is called today, and means the same.
KEPT = ("name", "passed", "threshold", "word", "strict", "seed", "reference", "candidate", "notes", "swings")
FIGURES = ("fixture_idx", "max_abs_diff", "mean_abs_diff", "cos", "passed", "gate", "reason")


@pytest.fixture
def old() -> Any:
    return json.loads(PLACE.read_text(encoding="utf-8"))


def test_one_of_0_1_means_what_it_meant(old: Any) -> None:
    run = as_json.read_run(PLACE)
    made = run.to_json()
    jsonschema.validate(made, as_json.schema())
    assert (run.passed, made["passed"], old["schema_version"], old["version"]) == (False, False, 3, "0.1.0")
    assert made["not_compared"] == old["not_compared"] != []
    assert len(made["results"]) == len(old["results"]) == 3
    for now, then in zip(made["results"], old["results"], strict=True):
        assert {key: now[key] for key in KEPT} == {key: then[key] for key in KEPT}
        assert (now["against"], now["claim"], now["coverage"]) == ("policy", None, None)
        assert now["asked"]["rest"]["in_floors"] is (then["floors"] is not None)
        for one, other in zip(now["fixtures"], then["fixtures"], strict=True):
            assert {key: one[key] for key in FIGURES} == {key: other[key] for key in FIGURES}
            assert [output["bound"] for output in one["outputs"]] == [o["bound"] for o in other["outputs"]]
    assert [entry["word"] for entry in made["results"]] == ["rounding", None, "bug"]
    assert as_json.read_run(PLACE).to_json() == made


def test_one_of_0_1_is_reported_judged_again_and_compared(reflex: Reflex, tmp_path: Path) -> None:
    ran = reflex("report", PLACE, "--out", tmp_path / "page")
    assert (ran.code, ran.out.splitlines()[0]) == (1, "parity FAIL")
    assert "test_old.py::test_wrong" in (tmp_path / "page" / "index.html").read_text(encoding="utf-8")
    assert reflex("report", PLACE, "--out", tmp_path / "again", "--threshold", "1e-2").code == 0
    ran = reflex("report", tmp_path / "page" / "parity.json", "--out", tmp_path / "both", "--against", PLACE)
    assert "nothing changed" in ran.out


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda entry: entry.update(passed=True), "contradicts itself at 'passed'"),
        (lambda entry: entry.update(word="rounding"), "contradicts itself at 'word'"),
        (lambda entry: entry["fixtures"][0].pop("outputs"), "not a parity result"),
        (lambda entry: entry.pop("floors"), "not a parity result"),
    ],
)
def test_one_of_0_1_that_was_changed_is_refused(old: Any, tmp_path: Path, change: Any, said: str) -> None:
    change(old["results"][2])
    path = tmp_path / "parity.json"
    path.write_text(json.dumps(old), encoding="utf-8")
    with pytest.raises(ReflexError, match=said):
        as_json.read_run(path)
