"""Whatever is asked of the outputs, on whatever way in: each face says it, and stored results are judged."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from plugin_cases import Run, written

from pytest_reflex.cli import main
from pytest_reflex.report.json import results as as_results
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


def entry(name: str, **changes: Any) -> dict[str, Any]:
    (found,) = written(name)["results"]
    return {**found, "name": "", "nodeid": "", **changes}


def flags(asked: Mapping[str, str], before: str = "--reflex-") -> list[str]:
    return [f"{before}{name}={value}" for name, value in asked.items()]


@pytest.mark.parametrize("strict", [False, True], ids=["plain", "strict"])
@pytest.mark.parametrize("asked", COMBINATIONS.values(), ids=COMBINATIONS)
def test_every_way_in_and_every_face(asked: dict[str, str], strict: bool, run: Run) -> None:
    also = ["--reflex-floor", "--reflex-locate=0", *(["--reflex-strict"] if strict else [])]
    keywords = ", ".join(f"{name}={value!r}" for name, value in asked.items())
    plain = TWO + "def test_it(parity): two(parity)\n"
    ways = {
        "call": (TWO + f"def test_it(parity): two(parity, {keywords})\n", []),
        "marker": (TWO + f"@reflex.parity({keywords})\ndef test_it(parity): two(parity)\n", []),
        "line": (plain, flags(asked)),
        "ini": (plain, [f"-oreflex_{name}={value}" for name, value in asked.items()]),
    }
    found = {}
    for name, (source, more) in ways.items():
        run(source, *also, *more, f"--reflex-report={name}", f"--junitxml={name}.xml")
        found[name] = entry(f"{name}/parity.json")
    first = found["call"]
    assert all(one == first for one in found.values())

    result = as_results.result_from_json({**first, "name": "x"})
    bounds = {o.name: result.limit_of(o) for f in result.fixtures for o in f.outputs}
    assert not strict or max(bounds.values()) <= STRICT_THRESHOLD
    text = result.asked.text
    page = Path("call/index.html").read_text(encoding="utf-8")
    properties = {p.get("name"): p.get("value") for p in ElementTree.parse("call.xml").iter("property")}
    if not result.asked.is_plain:
        assert text in page
        assert properties["reflex_asked"] == text
        assert f"asked: {text}" in str(result).splitlines()[0]
    assert "reflex_asked" in properties or result.asked.is_plain

    # A result that was asked for something else, judged again from its file.
    run(plain, "--reflex-floor", "--reflex-locate=0", "--reflex-json=stored.json")
    again = ["report", "stored.json", "-o", "again", *flags(asked, "--"), *(["--strict"] if strict else [])]
    with pytest.raises(SystemExit) as left:
        main(again)
    assert left.value.code == int(not result.passed)
    same = {"by_default": first["by_default"], "unseen": first["unseen"]}
    assert entry("again/parity.json", **same) == first


def test_the_nearest_output_is_named_and_nothing_is_called_equal(run: Run) -> None:
    """With rtol what is left beyond it is 0 where all is well; that is no figure of the outputs."""
    found = run(
        TWO + "@reflex.parity(threshold=1e-9, rtol=1e-5)\ndef test_it(parity): two(parity)\n",
        "--reflex-report=out",
    )
    assert found.ret == 0
    result = as_results.result_from_json(json.loads(Path("out/parity.json").read_text())["results"][0])
    seen, limit = result.margin
    assert seen is not None
    assert 0 < seen < limit
    page = Path("out/index.html").read_text(encoding="utf-8")
    assert "equal to the last bit" not in page
    assert "times below the threshold" in page
    assert "that of the largest value" in page
