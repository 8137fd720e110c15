"""Result files that were damaged or made to harm, given to ``reflex report``: one line, never a pass."""

from __future__ import annotations

import copy
import json
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from corruption import manifest_key_lost, manifest_value_changed
from report_cases import FAILING, PASSING, result

from pytest_reflex.cli import main
from pytest_reflex.report import json as as_json
from pytest_reflex.report.text.summary import summary_lines

Report = Callable[..., tuple[int, str, str]]
# What a terminal obeys, what is no text, and a line that somebody would like to see there.
EVIL = "\x1b[2J\x9b31m\x07\udcff\rx\nPASS  1.000e-09  1.0e-05  forged\n::error::forged"


def entry(found: Any, nodeid: str = "a.py::t") -> dict[str, Any]:
    return {**as_json.result_to_json(found), "nodeid": nodeid, "call": 1}


@pytest.fixture
def report(capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Report:
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[int, str, str]:
        capfd.readouterr()
        with pytest.raises(SystemExit) as left:
            main(["report", *arguments, "-o", "out"])
        said = capfd.readouterr()
        return int(str(left.value.code)), said.out, said.err

    return run


def in_one_line(ended: tuple[int, str, str]) -> bool:
    code, out, err = ended
    return (code, out) == (2, "") and bool(re.fullmatch(r"reflex: error: [^\n]+\n", err))


@pytest.mark.parametrize("how", ["bits", "cut", "value", "key"])
def test_a_damaged_fail_is_never_a_pass(how: str, report: Report, tmp_path: Path) -> None:
    text = as_json.dumps(as_json.document([entry(PASSING), entry(FAILING, "b.py::t")]))
    # The functions that damage a manifest damage any JSON in a file of its name.
    file = tmp_path / "reflex.json"
    refused = 0
    for seed in range(40):
        rng = random.Random(seed)
        file.write_text(text)
        if how == "bits":
            data = bytearray(text.encode())
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
            file.write_bytes(data)
        elif how == "cut":
            file.write_bytes(text.encode()[: rng.randrange(len(text) - 1)])
        else:
            (manifest_value_changed if how == "value" else manifest_key_lost)(tmp_path, rng)
        ended = report("reflex.json")
        # A figure from which no other follows may be another one: then it is still a fail.
        assert ended[0] == 1 or in_one_line(ended), (seed, ended)
        refused += ended[0] == 2
    assert refused > 10


@pytest.mark.parametrize("depth", [50, 100, 300, 600, 800, 900, 940, 960, 980, 1000, 2000, 200_000])
def test_a_document_nested_without_end_is_refused(depth: int, report: Report, tmp_path: Path) -> None:
    made = as_json.document([entry(FAILING)])
    made["results"][0]["reference"]["kind"] = "HERE"
    text = json.dumps(made).replace('"HERE"', "[" * depth + "]" * depth)
    (tmp_path / "deep.json").write_text(text)
    ended = report("deep.json")
    assert ended[0] == 1 or in_one_line(ended), ended
    assert ended[0] == (1 if depth < 90 else 2)


def test_a_pass_that_is_not_what_its_figures_give_is_refused(report: Report, tmp_path: Path) -> None:
    made = as_json.document([entry(FAILING)])
    for key in ("passed", "results"):
        turned = copy.deepcopy(made)
        if key == "passed":
            turned["passed"] = True
        else:
            turned["results"][0]["passed"] = turned["passed"] = True
        (tmp_path / "turned.json").write_text(json.dumps(turned))
        assert in_one_line(report("turned.json")), key


@pytest.mark.parametrize("where", ["name", "nodeid", "reason", "problem", "against"])
def test_what_a_file_holds_is_shown_and_not_obeyed(where: str, report: Report, tmp_path: Path) -> None:
    found = result(*FAILING.fixtures, name=EVIL if where in ("name", "against") else "n")
    entries = [entry(found, as_json.plain(EVIL) if where in ("nodeid", "against") else "a.py::t")]
    tests = [{"nodeid": "c.py::t", "outcome": "failed", "reason": EVIL}] if where == "reason" else []
    made = as_json.document(entries, not_compared=tests, problems=[EVIL] if where == "problem" else [])
    (tmp_path / "evil.json").write_text(as_json.dumps(made), encoding="utf-8")
    (tmp_path / "good.json").write_text(as_json.dumps(as_json.document([entry(FAILING)])))
    files = ["good.json", "--against", "evil.json"] if where == "against" else ["evil.json"]
    code, out, err = report(*files)
    assert (code, err) == (1, "")
    assert out.isascii()
    assert all(character.isprintable() or character == "\n" for character in out)
    assert "forged" in out
    assert not any(line.startswith(("PASS", "::")) for line in out.splitlines())


def test_pytest_s_summary_shows_and_does_not_obey_either() -> None:
    made = as_json.document([entry(FAILING, EVIL)], problems=[EVIL])
    made["not_compared"] = [{"nodeid": EVIL, "outcome": "passed", "reason": EVIL}]
    lines = [text for text, _ in summary_lines(as_json.run_of(made), [(f"report: {EVIL}", "plain")])]
    assert sum("forged" in line for line in lines) == 4
    assert all(line.isascii() and line.isprintable() for line in lines)


@pytest.mark.parametrize("error", [7, [], {}, {"type": "T", "message": []}, None])
def test_an_error_that_is_none_is_refused(error: object, report: Report, tmp_path: Path) -> None:
    made = {**as_json.error_document(ValueError("gone")), "error": error}
    (tmp_path / "error.json").write_text(json.dumps(made))
    assert in_one_line(report("error.json"))
