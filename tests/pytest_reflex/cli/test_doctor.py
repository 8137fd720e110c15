"""``reflex doctor``: one page that says what is there, beside what is needed and what was tested."""

from __future__ import annotations

import json
import sys
from importlib.metadata import version

import pytest
from bundle_cases import Reflex
from docs_tested import PLACE, tested_versions

from pytest_reflex import __version__
from pytest_reflex.cli.commands import app


def test_the_page(reflex: Reflex) -> None:
    ran = reflex("doctor")
    assert (ran.code, ran.err) == (0, "")
    lines = ran.out.splitlines()
    assert lines[0].startswith(f"pytest-reflex {__version__}, Python {sys.version.split()[0]}, ")
    for name in ("numpy", "onnxruntime", "torch"):
        (line,) = {line for line in lines if line.split()[:1] == [name]}
        assert version(name) in line
        assert "not installed" not in line
    assert any(line.startswith("  processor ") for line in lines)
    assert any("CPUExecutionProvider" in line for line in lines)
    assert lines[-1] == "A candidate can be judged here."
    assert len(lines) < 60


def test_the_json_says_the_same(reflex: Reflex) -> None:
    found = json.loads(reflex("doctor", "--output-json").out)
    assert found["able"] is True
    assert {p["name"] for p in found["packages"]} == {
        *("click", "jinja2", "numpy", "onnxruntime", "pytest", "rich", "safetensors", "svgwrite"),
    }
    assert list(found["extras"]) == ["export", "lerobot", "serve", "certify"]
    assert {"name", "version", "needed", "tested", "enough", "possible"} == set(found["packages"][0])


def test_what_is_missing_or_too_old_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib.metadata import PackageNotFoundError

    def installed(name: str) -> str:
        if name == "torch":
            raise PackageNotFoundError(name)
        return "1.0" if name == "numpy" else version(name)

    module = sys.modules["pytest_reflex.cli.doctor"]
    assert module.doctor is app.commands["doctor"]
    monkeypatch.setattr(module, "version", installed)
    found = module.examined()
    assert found["able"] is False
    shown = module.page(found)
    assert "numpy             1.0, too old: >=1.26; tested with " in shown
    assert "[export] makes bundles: pip install 'pytest-reflex[export]'" in shown
    assert "torch             not installed; tested with " in shown
    assert shown.endswith("Nothing can be judged here: see above.\n")


def test_the_tested_versions_are_those_of_the_constraints() -> None:
    assert PLACE.read_text(encoding="utf-8") == tested_versions()
