"""Whatever is asked of the outputs, on whatever way in: each face says it, and stored results are judged."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from plugin_cases import Run, written

from pytest_reflex import ParityResult
from pytest_reflex.cli import main
from pytest_reflex.report.text.terminal import asked_text
from pytest_reflex.verdict.tolerances import STRICT_THRESHOLD

pytestmark = pytest.mark.once

# Two outputs of very different sizes, each off by its own share, and a float64 run.
TWO = """
class Two(Toy):
    def __init__(self, off): self.off, self.name = off, f"Two{off}"
    def run(self, inputs):
        made = self.exact(inputs)
        return {n: (a * (1 + self.off)).astype(np.float32) for n, a in made.items()}
    def exact(self, inputs):
        x = inputs["x"].astype(np.float64)
        return {"actions": np.sin(x), "logits": 1e6 * np.cos(x)}

def two(parity, **given):
    return parity.check(Two(0.0), Two(2e-6), inputs=INPUTS, **given)
"""

COMBINATIONS: dict[str, dict[str, str]] = {
    "by default": {},
    "a number": {"threshold": "1e-3"},
    "floors": {"threshold": "3x floor"},
    "by name": {"threshold": "actions=1e-5, logits=1e3"},
    "by name, and another for the rest": {"threshold": "actions=1e-5, 4x floor"},
    "rtol": {"rtol": "1e-5"},
    "a number and rtol": {"threshold": "1e-7", "rtol": "1e-5"},
    "all of it": {"threshold": "actions=2x floor, logits=1e-2, 1e-5", "rtol": "3e-6"},
}


def entries(name: str) -> dict[str, dict[str, Any]]:
    """By test, what a document says of its result but for its name."""
    found = written(name)["results"]
    return {one["nodeid"].partition("::")[2]: {**one, "name": "", "nodeid": ""} for one in found}


def flags(asked: Mapping[str, str], before: str = "--reflex-") -> list[str]:
    return [f"{before}{name}={value}" for name, value in asked.items()]


PLAIN = TWO + "def test_plain(parity): two(parity)\n"
ALSO = ("--reflex-floor", "--reflex-locate=0", "--reflex-simplest=0")


def source() -> str:
    """Each combination in the call and on the marker."""
    made = PLAIN
    for at, asked in enumerate(COMBINATIONS.values()):
        keywords = ", ".join(f"{name}={value!r}" for name, value in asked.items())
        made += f"def test_call{at}(parity): two(parity, {keywords})\n"
        made += f"@reflex.parity({keywords})\ndef test_marker{at}(parity): two(parity)\n"
    return made


@pytest.mark.parametrize("strict", [False, True], ids=["plain", "strict"])
def test_every_face_says_it_and_what_is_stored_is_judged_so(strict: bool, run: Run) -> None:
    stricter, stricter_again = (["--reflex-strict"], ["--strict"]) if strict else ([], [])
    run(source(), *ALSO, *stricter, "--reflex-report=all", "--junitxml=all.xml")
    run(PLAIN, *ALSO, "--reflex-json=stored.json")
    found, page = entries("all/parity.json"), Path("all/index.html").read_text(encoding="utf-8")
    cases = {case.get("name"): case for case in ElementTree.parse("all.xml").iter("testcase")}
    for at, asked in enumerate(COMBINATIONS.values()):
        made = found[f"test_call{at}"]
        assert found[f"test_marker{at}"] == made
        result = ParityResult.from_json({**made, "name": "x"})
        bounds = [result.limit_of(output) for fixture in result.fixtures for output in fixture.outputs]
        assert not strict or max(bounds) <= STRICT_THRESHOLD
        properties = {p.get("name"): p.get("value") for p in cases[f"test_call{at}"].iter("property")}
        if result.asked.is_plain:
            assert "reflex_asked" not in properties
        else:
            assert properties["reflex_asked"] == result.asked.text
            # Of the outputs that there are: with a bound each, there are no others to speak of.
            said, first = asked_text(result), str(result).splitlines()[0]
            assert said
            assert said in page
            assert f"asked: {said}" in first or f" + {result.asked.rtol:g} of the value" in first
        # A result that was asked for something else, judged again from its file.
        again = ["report", "stored.json", "-o", "again", *flags(asked, "--")]
        again += ["--strict"] if strict else []
        with pytest.raises(SystemExit) as left:
            main(again)
        assert left.value.code == int(not result.passed)
        (judged,) = entries("again/parity.json").values()
        assert {**judged, "by_default": made["by_default"], "unseen": made["unseen"]} == made


@pytest.mark.parametrize("name", ["by name, and another for the rest", "all of it"])
def test_the_command_line_and_the_ini_file_ask_the_same(name: str, run: Run) -> None:
    asked = COMBINATIONS[name]
    at = list(COMBINATIONS).index(name)
    run(source(), *ALSO, "--reflex-json=call.json", "-k", f"call{at}")
    run(PLAIN, *ALSO, "--reflex-json=line.json", *flags(asked))
    run(PLAIN, *ALSO, "--reflex-json=ini.json", *[f"-oreflex_{key}={value}" for key, value in asked.items()])
    call, line, ini = (next(iter(entries(f"{way}.json").values())) for way in ("call", "line", "ini"))
    assert call == line == ini


def test_the_nearest_output_is_named_and_nothing_is_called_equal(run: Run) -> None:
    """With rtol what is left beyond it is 0 where all is well; that is no figure of the outputs."""
    found = run(
        TWO + "@reflex.parity(threshold=1e-9, rtol=1e-5)\ndef test_it(parity): two(parity)\n",
        "--reflex-report=out",
    )
    assert found.ret == 0
    result = ParityResult.from_json(written("out/parity.json")["results"][0])
    seen, limit = result.margin
    assert seen is not None
    assert 0 < seen < limit
    page = Path("out/index.html").read_text(encoding="utf-8")
    assert "equal to the last bit" not in page
    assert "times below the threshold" in page
    assert "that of the largest value" in page
