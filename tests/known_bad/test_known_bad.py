"""Each case of the corpus gets its verdict from the gate that its name says, whichever way it is judged."""

from __future__ import annotations

import functools
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from known_bad_cases import CASES, GATES, Case, first_refusal

from pytest_reflex.cli import main
from pytest_reflex.errors import ReflexError
from pytest_reflex.judge.check import check
from pytest_reflex.verdict.results import Answer

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PATHS = os.pathsep.join([str(HERE), str(ROOT / "tests" / "support"), str(ROOT)])
EXIT = {"pass": 0, "fail": 1, "error": 2}

every_case = pytest.mark.parametrize("name", CASES)


def verdict_of(case: Case, work: Path) -> tuple[str, str]:
    """What the API makes of a case: the verdict, and the first gate that refused or the kind of error."""
    try:
        result = case.judge(functools.partial(check, strict=case.strict), work)
    except ReflexError as error:
        lines = len(str(error).splitlines())
        return "error", type(error).__name__.removesuffix("Error").lower() if lines == 1 else f"{lines} lines"
    assert bool(result.refusals) is not result.passed
    return ("pass" if result.passed else "fail"), first_refusal(result)


def test_every_gate_and_every_verdict_has_a_case() -> None:
    assert {case.gate for case in CASES.values() if case.verdict == "fail"} == set(GATES)
    assert {case.verdict for case in CASES.values()} == set(EXIT)


@every_case
def test_through_the_api(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    assert verdict_of(case, tmp_path) == (case.verdict, case.gate)


@pytest.mark.once
@pytest.mark.parametrize("gate", GATES)
def test_a_gate_that_always_says_yes_turns_a_case_red(
    gate: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def weak(self: Answer) -> bool:
        return self.gate == gate or self.refusal is None

    own = [case for case in CASES.values() if case.gate == gate]
    monkeypatch.setattr(Answer, "passed", property(weak))
    red = []
    for number, case in enumerate(own):
        try:
            seen = verdict_of(case, tmp_path / str(number))
        except (ValueError, KeyError):  # structure lets arrays by that cannot be laid side by side
            seen = "error", ""
        if seen != (case.verdict, case.gate):
            red.append(case.name)
    assert red == [case.name for case in own]


# --- through the command line --------------------------------------------------------------------------


def judged_by_command(
    case: Case, work: Path, capfd: pytest.CaptureFixture[str], *options: str
) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of ``reflex validate export`` on the case's bundle, in this process."""
    model = work / "truth.safetensors"
    if case.recorded:
        case.bundle(work / "b")
        case.record(model)
    else:  # a recording brings its own fixtures, so their number is a choice only beside a live policy
        Case("pass", case.model).bundle(work / "b")
        model, options = work / "model.py:policy", (*options, "--fixtures", "0")
    arguments = ["validate", "export", str(work / "b"), "--model", str(model), *case.command_line(), *options]
    capfd.readouterr()
    with pytest.raises(SystemExit) as left:
        main(arguments)
    said = capfd.readouterr()
    return int(str(left.value.code)), said.out, said.err


@pytest.mark.once
@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.on_the_command_line])
def test_through_the_command_line(name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    case = CASES[name]
    code, out, err = judged_by_command(case, tmp_path, capfd, "--output-json")
    assert code == EXIT[case.verdict]
    document = json.loads(out)
    assert document["exit_code"] == code
    if case.verdict == "error":
        assert re.fullmatch(r"reflex: error: [^\n]+\n", err)
        return
    assert document["passed"] is (code == 0)
    assert err == ""
    assert _gate(document["results"][0]) == case.gate


def _gate(result: dict[str, Any]) -> str:
    """The first gate that a result in JSON says refused; empty for a pass."""
    gates = [f["gate"] for f in result["fixtures"] if not f["passed"]]
    gates += [answer["gate"] for answer in result["gates"] if not answer["passed"]]
    return gates[0] if gates else ""


@pytest.mark.once
@pytest.mark.parametrize(
    "name", ["pass__the_honest_export", "fail_finite__nan_on_both_sides", "error_runner__a_custom_operator"]
)
def test_through_the_real_command(name: str, tmp_path: Path, reflex: Any) -> None:
    case = CASES[name]
    case.bundle(tmp_path / "b")
    ran = reflex("validate", "export", tmp_path / "b", "--model", tmp_path / "b" / "fixtures.safetensors")
    assert ran.code == EXIT[case.verdict]
    assert len(ran.err.splitlines()) == (case.verdict == "error")


# --- through pytest ------------------------------------------------------------------------------------


Inner = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def inner_pytest(tmp_path: Path, python: list[str], plugin_args: list[str]) -> Inner:
    """``inner_pytest("-n2", "test_it.py")``: an inner pytest with the plugin, in the test's directory."""
    (tmp_path / "pytest.ini").write_text("[pytest]\npython_files = *.py\n")
    command = [*python, "-m", "pytest", "-p", "no:cacheprovider", "-c", str(tmp_path / "pytest.ini")]

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*command, *plugin_args, *arguments],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": PATHS},
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )

    return run


# How a session takes a verdict, no environment decides; the verdicts themselves run in both, through the API
# and the command line.
@pytest.mark.once
@pytest.mark.parametrize("how", [(), ("-n2",)], ids=["serially", "under-n2"])
@pytest.mark.parametrize("strict", [False, True])
def test_through_pytest(how: tuple[str, ...], strict: bool, tmp_path: Path, inner_pytest: Inner) -> None:
    chosen = {name: case for name, case in CASES.items() if case.strict is strict}
    options = ["--reflex-strict"] if strict else []
    tests = [f"{HERE / 'corpus.py'}::test_case[{name}]" for name in chosen]
    done = inner_pytest(*how, *options, "--reflex-json", str(tmp_path / "out.json"), *tests)
    assert done.returncode == 1, done.stdout + done.stderr
    document = json.loads((tmp_path / "out.json").read_text())
    assert document["passed"] is False
    seen = {_name(entry["nodeid"]): ("fail", _gate(entry)) for entry in document["results"]}
    seen |= {_name(e["nodeid"]): ("pass", "") for e in document["results"] if e["passed"]}
    seen |= {_name(test["nodeid"]): ("error", _kind(test["reason"])) for test in document["not_compared"]}
    assert seen == {name: (case.verdict, case.gate) for name, case in chosen.items()}
    assert {test["outcome"] for test in document["not_compared"]} <= {"failed"}


def _name(nodeid: str) -> str:
    return nodeid.partition("[")[2].removesuffix("]")


def _kind(reason: str) -> str:
    found = re.search(r"(\w+)Error: ", reason)
    return found[1].lower() if found else reason


@pytest.mark.once
def test_an_agreement_of_two_graphs_is_told_from_parity(tmp_path: Path, inner_pytest: Inner) -> None:
    test = f"{HERE / 'corpus.py'}::test_case[pass__a_graph_that_was_said_to_be_the_judge]"
    done = inner_pytest("--junitxml", "junit.xml", test)
    assert done.returncode == 0, done.stdout
    said = 'name="reflex_verdict" value="PASS, against ONNX: PyTorch was not asked"'
    assert said in (tmp_path / "junit.xml").read_text(encoding="utf-8")
    row = r"(?m)^PASS .*to_be_the_judge\] \[against ONNX: PyTorch was not asked\]( \(.*\))?$"
    assert re.search(row, done.stdout)
    assert inner_pytest("--reflex-strict", test).returncode == 1


# --- what ends a session and not a check -----------------------------------------------------------------


HALF_WAY = """
import os, signal, time
from pathlib import Path
from known_bad_cases import CASES
from pytest_reflex.judge.check import check

def test_killed(parity, tmp_path):
    def slow(side, done, total):
        Path({started!r}).touch()
        time.sleep(60)
    CASES["pass__the_honest_export"].judge(lambda *a, **k: check(*a, **k, progress=slow), tmp_path)
"""


def _when_there(path: Path, process: subprocess.Popen[bytes]) -> None:
    for _ in range(600):
        if path.exists():
            return
        if process.poll() is not None:
            pytest.fail(f"it ended with {process.returncode} before it was half-way")
        time.sleep(0.05)
    pytest.fail(f"{path} never came")


@pytest.mark.once
def test_fail_session__a_validator_killed_half_way(tmp_path: Path, plugin_args: list[str]) -> None:
    started, report = tmp_path / "started", tmp_path / "out.json"
    (tmp_path / "test_it.py").write_text(HALF_WAY.format(started=str(started)))
    environment = {**os.environ, "PYTHONPATH": PATHS}
    command = [sys.executable, "-m", "pytest", *plugin_args, "--reflex-json", str(report), "test_it.py"]
    process = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL)
    _when_there(started, process)
    process.kill()
    assert process.wait(30) == -signal.SIGKILL
    assert "has not finished" in json.loads(report.read_text())["error"]["message"]


MODEL = """
import os, signal, time
from pathlib import Path

def policy():
    raise SystemExit("never called")

Path({started!r}).touch()
{then}
"""


@pytest.mark.once
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT])
def test_error_session__a_process_that_a_model_ends(
    number: signal.Signals, tmp_path: Path, reflex: Any
) -> None:
    CASES["pass__the_honest_export"].bundle(tmp_path / "b")
    then = f"os.kill(os.getpid(), {int(number)})"
    (tmp_path / "own.py").write_text(MODEL.format(started=str(tmp_path / "started"), then=then))
    ran = reflex("validate", "export", tmp_path / "b", "--model", f"{tmp_path}/own.py:policy")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == (
        f"reflex: error: the process that judged was ended by {number.name}: a model crashed it, or the "
        "system ended it; nothing is proven\n"
    )


@pytest.mark.skipif(sys.platform != "linux", reason="the child dies with its parent on Linux only")
def test_fail_session__a_command_killed_half_way_leaves_no_child(tmp_path: Path) -> None:
    CASES["pass__the_honest_export"].bundle(tmp_path / "b")
    started, pid = tmp_path / "started", tmp_path / "pid"
    then = (
        f"Path({str(pid)!r}).write_text(str(os.getpid())); "
        f"os.rename({str(pid)!r}, {str(pid) + 's'!r}); time.sleep(60)"
    )
    (tmp_path / "own.py").write_text(MODEL.format(started=str(started), then=then))
    command = [sys.executable, "-m", "pytest_reflex", "validate", "export", str(tmp_path / "b")]
    command += ["--model", f"{tmp_path}/own.py:policy"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    _when_there(Path(f"{pid}s"), process)
    child = int(Path(f"{pid}s").read_text())
    assert child != process.pid
    process.kill()
    out, _ = process.communicate(timeout=30)
    assert (process.returncode, out) == (-signal.SIGKILL, b"")
    _gone(child)


def _gone(pid: int) -> None:
    for _ in range(200):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return
        if state == "Z":
            return
        time.sleep(0.05)
    pytest.fail(f"process {pid} outlives the one that was killed")


def _heeds_signals() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.once
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_command_reaches_the_one_that_judges(number: signal.Signals, tmp_path: Path) -> None:
    CASES["pass__the_honest_export"].bundle(tmp_path / "b")
    started = tmp_path / "started"
    (tmp_path / "own.py").write_text(MODEL.format(started=str(started), then="time.sleep(60)"))
    command = [sys.executable, "-m", "pytest_reflex", "validate", "export", str(tmp_path / "b")]
    command += ["--model", f"{tmp_path}/own.py:policy"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell has what it runs in the background ignore SIGINT, and this suite may run there.
        preexec_fn=_heeds_signals,
    )
    _when_there(started, process)
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    said = "interrupted; nothing was written" if number == signal.SIGINT else "ended by SIGTERM"
    assert (process.returncode, out) == (2, "")
    assert said in err.splitlines()[-1]


@pytest.mark.once
def test_fail_session__a_report_that_could_not_be_written(tmp_path: Path, inner_pytest: Inner) -> None:
    # A file stands where a directory is needed.
    (tmp_path / "taken").write_text("")
    test = f"{HERE / 'corpus.py'}::test_case[pass__the_honest_export]"
    for options in (["--reflex-json", "taken/out.json"], ["-n2", "--reflex-report", "taken/report"]):
        done = inner_pytest(*options, test)
        assert done.returncode == 1, done.stdout
        assert "the report could not be written" in done.stdout
        assert "1 passed" in done.stdout


CRASH = """
import os, signal
from known_bad_cases import CASES

def test_good(parity, tmp_path):
    CASES["pass__the_honest_export"].judge(parity.check, tmp_path)

def test_crash(parity, tmp_path):
    CASES["pass__the_honest_export"].judge(parity.check, tmp_path)
    {how}
"""


@pytest.mark.parametrize(
    ("how", "workers"),
    [
        pytest.param("os.kill(os.getpid(), signal.SIGKILL)", (), id="serially-killed"),
        pytest.param("os._exit(0)", (), id="serially-left"),
        pytest.param(
            "os.kill(os.getpid(), signal.SIGKILL)", ("-n2",), id="under-n2-killed", marks=pytest.mark.once
        ),
        pytest.param("os._exit(0)", ("-n2",), id="under-n2-left", marks=pytest.mark.once),
    ],
)
def test_fail_session__a_worker_that_crashes_after_its_check(
    how: str, workers: tuple[str, ...], tmp_path: Path, inner_pytest: Inner
) -> None:
    (tmp_path / "test_it.py").write_text(CRASH.format(how=how))
    done = inner_pytest(*workers, "--reflex-json", "out.json", "test_it.py")
    assert done.returncode not in (0, 5)
    if workers:
        document = json.loads((tmp_path / "out.json").read_text())
        assert document["passed"] is False
        assert any("went down" in problem for problem in document["problems"])
