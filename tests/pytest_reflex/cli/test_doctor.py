"""``reflex doctor``: one page that says what is there, beside what is needed and what was tested."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from importlib.metadata import metadata, version
from pathlib import Path

import docs_tested
import pytest
from bundle_cases import Reflex

from pytest_reflex import __version__
from pytest_reflex.cli.commands import app
from pytest_reflex.cli.importing import why_not_imported


def test_the_page(reflex: Reflex) -> None:
    ran = reflex("doctor")
    assert (ran.code, ran.err) == (0, "")
    lines = ran.out.splitlines()
    assert lines[0].startswith(f"pytest-reflex {__version__}, Python {sys.version.split()[0]}, ")
    for name in ("numpy", "onnxruntime", "torch"):
        (line,) = {line for line in lines if line.split()[:1] == [name]}
        assert version(name) in line
        assert "not installed" not in line
        assert "not import" not in line
    assert any(line.startswith("  processor ") for line in lines)
    assert any("CPUExecutionProvider" in line for line in lines)
    assert lines[-1] == "A candidate can be judged here."
    assert len(lines) < 80


def test_the_json_says_the_same(reflex: Reflex) -> None:
    found = json.loads(reflex("doctor", "--output-json").out)
    assert found["able"] is True
    assert {p["name"] for p in found["packages"]} == {
        *("click", "jinja2", "numpy", "onnxruntime", "pytest", "rich", "safetensors", "svgwrite"),
    }
    # Of what users install; the others are for those who work on this very code.
    told = set(metadata("pytest-reflex").get_all("Provides-Extra") or ())
    assert set(found["extras"]) == told - {"docs", "dev"}
    assert all(found["extras"].values())
    assert {"name", "version", "needed", "tested", "enough", "possible", "broken"} == set(
        found["packages"][0]
    )


def test_what_is_missing_or_too_old_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib.metadata import PackageNotFoundError

    def installed(name: str) -> str:
        if name == "torch":
            raise PackageNotFoundError(name)
        return "1.0" if name == "numpy" else version(name)

    module = sys.modules["pytest_reflex.cli.doctor"]
    assert module.doctor is app.commands["doctor"]
    monkeypatch.setattr(module, "version", installed)
    monkeypatch.setattr(module, "why_not_imported", lambda names: {})
    found = module.examined()
    assert found["able"] is False
    shown = module.page(found)
    assert "numpy             1.0, too old: >=1.26; tested with " in shown
    assert "[export] makes bundles: pip install 'pytest-reflex[export]'" in shown
    assert "torch             not installed; tested with " in shown
    assert shown.endswith("Nothing can be judged here: see above.\n")


def test_what_is_installed_and_does_not_import_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    broken = {
        "torch": "raise ImportError('libtorch_cpu.so: cannot open\\nshared object file')",
        "onnx": "import os; os.abort()",
        "onnxruntime": "raise SystemExit(3)",
        "onnx_ir": "import time; time.sleep(600)",
        "transformers": 'print(\'["transformers", "no"]\')',
    }
    for name, text in broken.items():
        (tmp_path / f"{name}.py").write_text(text + "\n")
    monkeypatch.syspath_prepend(tmp_path)
    module = sys.modules["pytest_reflex.cli.doctor"]

    def asked(names: Sequence[str]) -> dict[str, str]:
        return why_not_imported([name for name in names if name.replace("-", "_") in broken], 10)

    monkeypatch.setattr(module, "why_not_imported", asked)
    found = module.examined()
    shown = module.page(found)
    of_torch = "does not import: ImportError: libtorch_cpu.so: cannot open shared object file"
    assert f"  torch             {version('torch')}, {of_torch}" in shown
    assert "onnx-ir" in shown.partition("\n[export] makes bundles: cannot be used: ")[2].splitlines()[0]
    assert ", does not import: Python died of it (exit -6)" in shown
    assert ", does not import: not done in 10 s" in shown
    assert f"  transformers      {version('transformers')}" in shown
    assert f"  transformers      {version('transformers')}, does not import" not in shown
    assert ", does not import: SystemExit: 3" in shown
    assert "  providers     none: there is no onnxruntime that imports\n" in shown
    assert found["able"] is False
    monkeypatch.setattr(sys, "executable", str(tmp_path / "nowhere"))
    untried = "it was not tried, for no Python could be started (No such file or directory)"
    assert asked(["torch", "onnx"]) == {"torch": untried, "onnx": untried}


def test_the_tested_versions_are_those_of_the_constraints() -> None:
    assert docs_tested.PLACE.read_text(encoding="utf-8") == docs_tested.tested_versions()
