"""The plugin costs a session without parity tests next to nothing; and a test that this would be noticed."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ("numpy", "torch", "onnx", "onnxruntime", "rich", "jinja2", "jsonschema", "transformers", "exporters")
# Names are told apart from their packages by the importer itself, so nothing else in the process counts.
PROBE = """
import json, sys
before = set(sys.modules)
{planted}
import pytest_reflex, pytest_reflex.plugin
import pytest_reflex.settings, pytest_reflex.errors, pytest_reflex.verdict
print(json.dumps(sorted(set(sys.modules) - before)))
"""
BUDGET_S = 0.010


def imported(planted: str = "") -> set[str]:
    """The top-level packages that importing the plugin brings in, pytest already there."""
    code = "import pytest\n" + PROBE.format(planted=planted)
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return {name.partition(".")[0] for name in json.loads(found.stdout)}


def test_importing_the_plugin_imports_nothing_heavy() -> None:
    assert imported().isdisjoint(HEAVY)


def test_a_planted_heavy_import_is_caught() -> None:
    assert not imported("import numpy").isdisjoint(HEAVY)


def session_modules(pytester: pytest.Pytester, args: list[str], source: str) -> set[str]:
    """The top-level packages that are there when a session without parity tests ends."""
    pytester.makeconftest(
        "import json, sys\n"
        "def pytest_unconfigure():\n"
        "    open('modules.json', 'w').write(json.dumps([name.partition('.')[0] for name in sys.modules]))\n"
    )
    pytester.makepyfile(source)
    # Other plugins may import what they like; only this one is judged.
    alone = ["-p", "no:hypothesispytest", "-p", "no:anyio"]
    assert pytester.runpytest_subprocess(*alone, *args).ret == 0
    return set(json.loads(Path("modules.json").read_text()))


@pytest.mark.parametrize("args", [["--collect-only"], [], ["--reflex-report=rep", "--reflex-json=out.json"]])
def test_a_session_without_parity_tests_imports_nothing_heavy(
    pytester: pytest.Pytester, plugin_args: list[str], args: list[str]
) -> None:
    found = session_modules(pytester, [*plugin_args, *args], "def test_plain(): pass\n")
    assert "pytest_reflex" in found
    assert found.isdisjoint(HEAVY)


def test_a_heavy_import_in_a_session_is_caught(pytester: pytest.Pytester, plugin_args: list[str]) -> None:
    found = session_modules(pytester, plugin_args, "import numpy\ndef test_plain(): pass\n")
    assert "numpy" in found


def seconds(cache: Path, planted: str = "") -> float:
    """How long importing the plugin takes in a fresh interpreter that has pytest; the median of several."""
    code = (
        "import pytest, time\n"
        "start = time.perf_counter()\n"
        f"{planted}\n"
        "import pytest_reflex.plugin\n"
        "print(time.perf_counter() - start)\n"
    )
    # Installed packages come with bytecode; without a cache the compiler would be measured.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONPYCACHEPREFIX"] = str(cache)

    def once() -> float:
        run = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
        )
        return float(run.stdout)

    once()
    return statistics.median(once() for _ in range(7))


def test_the_plugin_adds_less_than_ten_milliseconds(tmp_path: Path) -> None:
    # A machine busy with other work is no fault of the plugin: the best of three medians counts.
    assert any(seconds(tmp_path) < BUDGET_S for _ in range(3))


def test_a_slow_import_is_caught(tmp_path: Path) -> None:
    assert seconds(tmp_path, "time.sleep(0.02)") > BUDGET_S
