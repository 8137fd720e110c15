"""``parity.check_pipeline``: every stage is a result of the run, and a fail names its stage first."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from plugin_cases import TOYS, Run

STAGES = """
from pytest_reflex.verdict.units import InUnits

ORDER = ["preprocess", "policy", "postprocess", "whole"]


class Given:
    # Fixtures of a stage: those that a robot gives, as they are.
    def __init__(self, raw): self.raw = raw
    def told(self, count, seed): return self
    def fixtures(self, specs, count, seed): return self.raw


class Stages:
    name, raw, narrower = "toy", INPUTS, False
    outputs = {stage: ["actions"] for stage in ORDER}

    def __init__(self, off): self.off, self.closed = off, False
    def close(self): self.closed = True

    def sides(self, stage, raw):
        candidate = off_by(self.off.get(stage, 0))
        if stage in ("postprocess", "whole"):
            candidate.robot_units = {"actions": InUnits(("",) * 3, (1.0,) * 3)}
        return TWICE, candidate, Given(raw)


class Processed:
    def __init__(self, **off): self.off = off

    def stages(self, policy, source=None, *, seed, provider, steps):
        assert (policy, source, provider) == ("policy", "checkpoint", "CPUExecutionProvider")
        return Stages(self.off)


def checked(parity, bundle, **given):
    return parity.check_pipeline("policy", bundle, "checkpoint", **given)
"""


def found(place: Path) -> list[tuple[str, bool]]:
    document = json.loads((place / "parity_reports" / "parity.json").read_text())
    return [(result["name"].rpartition("::")[2], result["passed"]) for result in document["results"]]


def test_every_stage_is_a_result(run: Run, pytester: pytest.Pytester) -> None:
    text = f"""{TOYS}{STAGES}
def test_arm(parity):
    result = checked(parity, Processed())
    assert result and list(result.stages) == ORDER
    assert [one.name.rpartition(": ")[2] for one in parity.results] == ORDER


def test_twice(parity):
    checked(parity, Processed(), name="first")
    checked(parity, Processed(), name="second")
"""
    ran = run(text, "--reflex-report", "parity_reports", "--junitxml", "junit.xml", "--reflex-strict")
    ran.assert_outcomes(passed=2)
    names = [name for name, passed in found(pytester.path) if passed]
    assert names[:4] == [f"test_arm: {stage}" for stage in ("preprocess", "policy", "postprocess", "whole")]
    assert names[4:6] == ["first: preprocess", "first: policy"]
    assert names[8:9] == ["second: preprocess"]
    page = (pytester.path / "parity_reports" / "index.html").read_text()
    assert "test_arm: postprocess" in page
    said = {each.get("name") for each in ET.parse(pytester.path / "junit.xml").iter("property")}
    assert {"reflex_verdict_preprocess", "reflex_verdict_whole", "reflex_verdict_2_whole"} <= said


def test_a_fail_names_its_stage_first(run: Run, pytester: pytest.Pytester) -> None:
    text = f"""{TOYS}{STAGES}
def test_arm(parity):
    checked(parity, Processed(postprocess=1, whole=1))
"""
    ran = run(text, "--reflex-report", "parity_reports", "--junitxml", "junit.xml")
    ran.assert_outcomes(failed=1)
    said = [line[1:].strip() for line in ran.outlines if line.startswith("E ")]
    assert said[0].startswith("pipeline FAIL in postprocess: parity FAIL: max_abs_diff 1.0")
    assert said[1].startswith("preprocess: parity PASS")
    assert said[4].startswith("whole: parity FAIL")
    assert "Per-fixture results" in said
    assert said[-1] == "Report: parity_reports/index.html"
    assert [passed for _, passed in found(pytester.path)] == [True, True, False, False]


def test_a_fail_that_a_test_swallows_is_one_still(run: Run) -> None:
    text = f"""{TOYS}{STAGES}
def test_arm(parity):
    with pytest.raises(reflex.ParityError):
        checked(parity, Processed(policy=1))
"""
    ran = run(text)
    ran.assert_outcomes(failed=1)
    ran.stdout.fnmatch_lines(["*pipeline FAIL in policy: parity FAIL: max_abs_diff 1.0*the test went on*"])


def test_settings_are_those_of_every_way_in(run: Run) -> None:
    text = f"""{TOYS}{STAGES}
@reflex.parity(threshold=0.5, fixtures=7)
def test_marker(parity):
    result = checked(parity, Processed(preprocess=0.25, policy=0.25))
    assert {{len(one.fixtures) for one in result.stages.values()}} == {{7}}
    with pytest.raises(reflex.ReflexError, match="there is no stage 'pre'"):
        checked(parity, Processed(), thresholds={{"pre": 1}})
    with pytest.raises(reflex.ReflexError, match=r"parity\\.check_pipeline\\(seed=\\.\\.\\.\\): -1"):
        checked(parity, Processed(), seed=-1)
    with pytest.raises(TypeError, match=r"Parity\\.check_pipeline\\(\\) got an unexpected .* 'steps'"):
        checked(parity, Processed(), steps=3)
    with pytest.raises(reflex.ReflexError, match="a Toy has no processors; give a bundle"):
        parity.check_pipeline("policy", TWICE)
    checked(parity, Processed(whole=0.25), thresholds={{"whole": 0.5}})
"""
    run(text).assert_outcomes(passed=1)
    run(text, "--reflex-strict").assert_outcomes(failed=1)


def test_runtimes_that_no_stage_would_be_asked_on_are_refused(run: Run) -> None:
    text = f"""{TOYS}{STAGES}
@reflex.parity(runtimes=["ort", "openvino"])
def test_arm(parity):
    checked(parity, Processed())
"""
    ran = run(text)
    ran.assert_outcomes(failed=1)
    ran.stdout.fnmatch_lines(
        ["*runtimes: onnxruntime, openvino was given, and check_pipeline judges stages on ONNX*"]
    )


def test_a_baseline_holds_each_stage(run: Run) -> None:
    text = f"""{TOYS}{STAGES}
import os


@reflex.parity(threshold=0.5)
def test_arm(parity):
    off = float(os.environ["OFF"])
    checked(parity, Processed(policy=off), thresholds={{stage: 0.5 for stage in ORDER}})
"""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("OFF", "0.125")
        run(text, "--reflex-baseline", "kept.json", "--reflex-baseline-update").assert_outcomes(passed=1)
        run(text, "--reflex-baseline", "kept.json").assert_outcomes(passed=1)
        patched.setenv("OFF", "0.375")
        ran = run(text, "--reflex-baseline", "kept.json")
    ran.assert_outcomes(failed=1)
    ran.stdout.fnmatch_lines(["*pipeline FAIL in policy: parity FAIL: *baseline*"])
