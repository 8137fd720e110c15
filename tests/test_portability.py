"""The script that runs tests as other processors would: what it sets, what it reads, and when it fails."""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.once

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = ROOT / "benchmarks" / "portability.py"

# Passes in all settings but one, and says what it measured.
TESTS = """
import json, os
import torch

def test_threads():
    asked = os.environ.get("OMP_NUM_THREADS")
    assert torch.get_num_threads() == int(asked)
    with open(os.environ["REFLEX_FLOORS_LOG"], "a") as log:
        entry = {"test": "t", "ratio": 0.5 * int(asked), "max_abs_diff": 1e-6, "floor": 2e-6}
        log.write(json.dumps(entry) + "\\n")

def test_that_other_settings_are_not_left_over():
    assert "MKL_CBWR" not in os.environ

def test_skipped():
    import pytest
    pytest.skip("no reason")

def test_one_thread_only():
    assert torch.get_num_threads() == 1, "sums in another order"
"""


def script(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SCRIPT), *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )


@pytest.fixture
def portability(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    import portability

    return portability


def test_each_setting_has_its_row_and_one_that_failed_fails_the_run(tmp_path: Path) -> None:
    tests, out = tmp_path / "test_it.py", tmp_path / "rows.json"
    tests.write_text(TESTS)
    ran = script(
        *("--settings", "as-it-is", "as-it-is-2-threads", "--tests", tests, "--json", out),
        MKL_CBWR="COMPATIBLE",
        OMP_NUM_THREADS="7",
    )
    assert ran.returncode == 1, ran.stdout + ran.stderr
    rows = json.loads(out.read_text())["rows"]
    told = [(r["setting"], r["threads"], r["passed"], r["failed"], r["skipped"]) for r in rows]
    assert told == [("as-it-is", 1, 3, 0, 1), ("as-it-is-2-threads", 2, 2, 1, 1)]
    assert [r["worst ratio to floor"] for r in rows] == ["0.50", "1.00"]
    assert [r["worst max_abs_diff"] for r in rows] == ["1.0e-06", "1.0e-06"]
    failed = [line for line in ran.stdout.splitlines() if line.startswith("FAILED")]
    assert len(failed) == 1
    assert failed[0].startswith("FAILED: as-it-is-2-threads, this: ")
    assert "test_one_thread_only: AssertionError: sums in another order" in failed[0]


def test_a_run_without_a_test_that_passes_fails(tmp_path: Path) -> None:
    tests = tmp_path / "test_it.py"
    for text, said in (
        ("import pytest\ndef test_it(): pytest.skip('all')\n", "no test passed"),
        ("", "pytest exits with 5"),
        ("import nothing.of.this.name\n", ""),
    ):
        tests.write_text(text)
        ran = script("--settings", "as-it-is", "--tests", tests)
        assert ran.returncode == 1, ran.stdout
        assert f"FAILED: as-it-is, this: {said}" in ran.stdout


def test_what_a_machine_lacks_is_named(portability: Any) -> None:
    old = {"processor": "AMD (AuthenticAMD family 23)", "instructions": ["sse4_1", "sse4_2", "avx2", "fma"]}
    lacked = {name: portability.lacking(one, old) for name, one in portability.SETTINGS.items()}
    assert lacked["as-it-is"] == lacked["oldest"] == lacked["avx2-2-threads"] == []
    assert lacked["avx512"] == ["avx512f", "avx512dq", "avx512bw", "avx512vl"]
    assert lacked["amx"] == ["amx_tile", "amx_bf16"]
    assert lacked["mkl-avx2"] == ["a processor of Intel's, on which alone MKL obeys this"]
    intel = {**old, "processor": "Intel Xeon (GenuineIntel family 6)"}
    assert portability.lacking(portability.SETTINGS["mkl-avx2"], intel) == []
    arm = {"processor": "implementer 0x41", "instructions": ["asimd"]}
    able = [name for name, one in portability.SETTINGS.items() if not portability.lacking(one, arm)]
    assert able == ["as-it-is", "as-it-is-2-threads", "asimd"]


OLD = ("DEFAULT", 1, "COMPATIBLE", "SSE4.1")
NEW = ("AVX512", 1, "AUTO", "AVX-512 with AVX512BW, AVX512VL, and AVX512DQ extensions")


@pytest.mark.parametrize(
    ("name", "seen", "intel", "said"),
    [
        ("oldest", OLD, True, []),
        ("oldest", ("AVX2", *OLD[1:]), True, ["PyTorch runs as AVX2, not as DEFAULT"]),
        ("oldest-2-threads", OLD, True, ["PyTorch has 1 threads, not 2"]),
        ("oldest", (*OLD[:2], "OFF", OLD[3]), False, ["MKL runs as OFF, not as COMPATIBLE"]),
        ("onednn-sse41", (*OLD[:3], "AVX2"), True, ["oneDNN runs as AVX2, not as SSE41"]),
        ("onednn-sse41", (*OLD[:3], "-"), True, ["oneDNN runs as -, not as SSE41"]),
        ("avx512", NEW, False, []),
        ("avx512", NEW, True, ["MKL runs as AUTO, not as AVX512"]),
        ("amx", NEW, True, [f"oneDNN runs as {NEW[3]}, not as AVX512_CORE_AMX"]),
        ("amx", (*NEW[:3], "AVX10.1 and Intel AMX with bfloat16 and 8-bit integer support"), True, []),
        ("as-it-is", ("NEON", 1, "-", "-"), False, []),
    ],
)
def test_a_setting_that_a_library_passes_over_is_named(
    portability: Any, name: str, seen: tuple[Any, ...], intel: bool, said: list[str]
) -> None:
    maker = "GenuineIntel" if intel else "AuthenticAMD"
    kernels = portability.Kernels(*seen)
    assert (
        portability.disobeyed(portability.SETTINGS[name], kernels, f"a processor ({maker} family 6)") == said
    )


MINE = {"DNNL_MAX_CPU_ISA": "SSE41", "MKL_NUM_THREADS": "3", "OMP_THREAD_LIMIT": "1", "REFLEX_WARM": "/none"}


def test_what_the_user_has_set_reaches_no_test(tmp_path: Path) -> None:
    tests = tmp_path / "test_it.py"
    tests.write_text(f"import os\ndef test_it():\n    assert not {set(MINE)} & os.environ.keys()\n")
    ran = script("--settings", "as-it-is", "--tests", tests, PYTEST_ADDOPTS="--collect-only", **MINE)
    assert ran.returncode == 0, ran.stdout
    assert "as-it-is, this: 1 passed, 0 failed" in ran.stdout


def test_a_report_that_was_cut_off_is_a_failure(portability: Any, tmp_path: Path) -> None:
    junit = tmp_path / "junit.xml"
    junit.write_text("<testsuites><testsuite><testcase name='test_it'>")
    counts, failures = portability.outcomes(junit)
    assert counts == {"passed": 0, "failed": 0, "skipped": 0}
    assert failures[0].startswith("pytest left a report that cannot be read: ")


def test_every_test_that_it_names_is_there(portability: Any) -> None:
    named = (*portability.NEWEST, *portability.LEROBOT, *portability.NEWEST_SLICE, *portability.LEROBOT_SLICE)
    for name in named:
        file, _, test = name.partition("::")
        assert (ROOT / file).exists(), name
        assert f"def {test.partition('[')[0]}(" in (ROOT / file).read_text() if test else True, name
    assert set(portability.SLICE) <= set(portability.SETTINGS)


def test_figures_that_are_not_there_or_no_numbers(portability: Any, tmp_path: Path) -> None:
    log = tmp_path / "floors.jsonl"
    assert portability.figures(log) == (None, None)
    lines = [{"ratio": 0.5, "max_abs_diff": 2e-6}, {"ratio": None, "max_abs_diff": 3e-6}]
    log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert portability.figures(log) == (0.5, 3e-6)
    with log.open("a") as file:
        file.write(json.dumps({"ratio": math.nan, "max_abs_diff": 0.0}) + "\n")
    ratio, largest = portability.figures(log)
    assert math.isnan(ratio)
    assert largest == 3e-6


# The candidate, in an emulator


@pytest.fixture
def emulated(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    import emulated

    return emulated


def seen(same: bool = True, passed: bool = True, **features: bool) -> dict[str, Any]:
    return {"rows": [{"bundle": "pi0", "passed": passed, "same bits": same}], "features": features}


@pytest.mark.parametrize(
    ("there", "code", "said"),
    [
        (seen(AVX2=True), 0, ""),
        (seen(AVX2=True, same=False), 1, "FAILED: Haswell, 1 threads, pi0: "),
        (seen(AVX2=True, passed=False), 1, "FAILED: Haswell, 1 threads, pi0: "),
        (seen(AVX2=True, AVX512F=True), 1, "FAILED: Haswell: AVX512F is seen there, so it is no Haswell"),
        (seen(), 1, "NOT RUN: Haswell: the emulator does not offer AVX2"),
        ("exit 132: illegal instruction", 1, "FAILED: Haswell, 1 threads: exit 132: illegal instruction"),
    ],
)
def test_an_older_processor_has_to_be_one_and_to_pass(
    there: Any,
    code: int,
    said: str,
    emulated: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    own = seen(AVX2=True, AVX512F=True)
    monkeypatch.setattr(emulated, "emulated", lambda _, name, *rest: there if name == "Haswell" else own)
    options = argparse.Namespace(processors=["Haswell"], threads=[1], json=None)
    assert emulated.run("qemu", Path(), options) == code
    out = capsys.readouterr().out
    assert said in out
    assert (code == 0) == ("FAILED" not in out and "NOT RUN" not in out)


def test_a_crash_on_this_processor_fails_too(
    emulated: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    good = seen(AVX2=True)
    monkeypatch.setattr(
        emulated, "emulated", lambda _, name, *rest: good if name == "Haswell" else "exit -11: "
    )
    options = argparse.Namespace(processors=["Haswell"], threads=[1], json=None)
    assert emulated.run("qemu", Path(), options) == 1
    assert "FAILED: this one, 1 threads: exit -11" in capsys.readouterr().out


def test_without_an_emulator_that_is_said(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, str(SCRIPT.with_name("emulated.py"))],
        capture_output=True,
        text=True,
        env={**os.environ, "PATH": str(tmp_path)},
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.startswith("NOT RUN: ONNX Runtime as on older processors: ")
