"""The plugin costs a session without parity tests next to nothing; and a test that this would be noticed."""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.once

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("numpy", "torch", "onnx", "onnxruntime", "rich", "jinja2", "jsonschema", "transformers", "exporters")
# Names are told apart from their packages by the importer itself, so nothing else in the process counts.
PROBE = """
import json, sys
before = set(sys.modules)
{planted}
import pytest_reflex, pytest_reflex.plugin
{besides}
print(json.dumps(sorted(set(sys.modules) - before)))
"""
# What a marker and a test that skips may import besides.
BESIDES = "import pytest_reflex.settings, pytest_reflex.errors, pytest_reflex.verdict"
# Its files, and those of the house that they are built on.
MOST_MODULES = 17
MUTANTS = ("plugin/hooks.py", "settings.py", "errors.py")


def modules(planted: str = "", besides: str = BESIDES, source: Path | None = None) -> set[str]:
    """What importing the plugin, of this source or of another, brings in, pytest already there."""
    code = "import pytest\n" + PROBE.format(planted=planted, besides=besides)
    environment = dict(os.environ)
    if source is not None:
        environment["PYTHONPATH"] = str(source)
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment, cwd=source
    )
    return set(json.loads(found.stdout))


def packages(names: set[str]) -> set[str]:
    return {name.partition(".")[0] for name in names}


def test_importing_the_plugin_imports_nothing_heavy() -> None:
    assert packages(modules()).isdisjoint(HEAVY)


def test_a_planted_heavy_import_is_caught() -> None:
    assert not packages(modules("import numpy")).isdisjoint(HEAVY)


def few(names: set[str]) -> bool:
    """Whether they are the plugin's own, and few; what comes with Python may be among them."""
    foreign = packages(names) - {"pytest_reflex"} - sys.stdlib_module_names
    return not foreign and len({name for name in names if name.startswith("pytest_reflex")}) <= MOST_MODULES


def test_the_plugin_is_a_few_modules_of_its_own() -> None:
    found = modules(besides="")
    assert "pytest_reflex.plugin.hooks" in found
    assert few(found), sorted(found)


@pytest.mark.parametrize("heavy", ["onnxruntime", "torch"])
@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_that_imports_what_is_heavy_is_caught(name: str, heavy: str, tmp_path: Path) -> None:
    """In a copy of the source; a package of that name stands there, so that the real one need not be read."""
    unspoilt = shutil.copytree(ROOT / "pytest_reflex", tmp_path / "pytest_reflex")
    (tmp_path / f"{heavy}.py").write_text("")
    assert few(modules(besides="", source=tmp_path))
    file = unspoilt / name
    head = "from __future__ import annotations\n"
    text = file.read_text()
    assert head in text
    file.write_text(text.replace(head, f"{head}\nimport {heavy}\n", 1))
    found = modules(besides="", source=tmp_path)
    assert heavy in found
    assert not few(found)
    assert not packages(found).isdisjoint(HEAVY)


def test_many_modules_are_caught() -> None:
    found = modules(besides="import pytest_reflex.judge.check")
    assert len([name for name in found if name.startswith("pytest_reflex")]) > MOST_MODULES
    assert not few(found)


def session_modules(pytester: pytest.Pytester, args: list[str], source: str) -> set[str]:
    """The top-level packages that are there when a session without parity tests ends."""
    pytester.makeconftest(
        "import json, sys\n"
        "def pytest_unconfigure():\n"
        "    open('modules.json', 'w').write(json.dumps([name.partition('.')[0] for name in sys.modules]))\n"
    )
    pytester.makepyfile(source)
    # Other plugins may import what they like; only this one is judged.
    alone = [
        part for name in ("hypothesispytest", "anyio", "html", "metadata") for part in ("-p", f"no:{name}")
    ]
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


# The processor's time of pytest and then of the plugin, in one process: what else the machine does counts
# little, and for both.
SIDE_BY_SIDE = """
import time
start = time.process_time()
import pytest
between = time.process_time()
{planted}
import pytest_reflex.plugin
print((time.process_time() - between) / (between - start))
"""
AS_LONG_AGAIN = "while time.process_time() < between + (between - start) / 2: pass"
PAIRS = 9
# More than twice what it is; what is heavy takes as long as pytest itself.
MOST_OF_PYTEST = 1 / 6


def share_of_pytest(cache: Path, planted: str = "") -> float:
    """How long the plugin takes to be imported, in units of what pytest takes; the median over pairs."""
    # Installed packages come with bytecode; without a cache the compiler would be measured. Where the suite's
    # coverage is measured, this is not.
    environment = {
        name: value
        for name, value in os.environ.items()
        if name != "PYTHONDONTWRITEBYTECODE" and not name.startswith(("COV_", "COVERAGE_"))
    }
    environment["PYTHONPYCACHEPREFIX"] = str(cache)

    def once() -> float:
        code = SIDE_BY_SIDE.format(planted=planted)
        run = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
        )
        return float(run.stdout)

    once()
    return statistics.median(once() for _ in range(PAIRS))


def test_the_plugin_takes_a_fraction_of_what_pytest_takes(tmp_path: Path) -> None:
    assert share_of_pytest(tmp_path) < MOST_OF_PYTEST


@pytest.mark.parametrize("planted", [AS_LONG_AGAIN, "import numpy"])
def test_a_slow_import_is_caught(tmp_path: Path, planted: str) -> None:
    assert share_of_pytest(tmp_path, planted) > MOST_OF_PYTEST
