"""Ways past the verdict inside pytest: swallowed fails, tests run again or not at all, and old evidence."""

from __future__ import annotations

import os
import signal
import sys
from importlib.util import find_spec
from pathlib import Path
from xml.etree import ElementTree

import pytest
from plugin_cases import FAILS, PASSES, Run, run, written

pytestmark = pytest.mark.once

__all__ = ["run"]

both = pytest.mark.parametrize("strict", [(), ("--reflex-strict",)], ids=["plain", "strict"])


# --- a fail that the test swallows -----------------------------------------------------------------------


BAD = "judged(parity, off_by(0.5))"
EXIT = "pytest.exit('enough', returncode=0)"
SWALLOWED = {
    "an_except": f"def test_x(parity):\n    try: {BAD}\n    except BaseException: pass\n",
    "pytest_raises": f"def test_x(parity):\n    with pytest.raises(AssertionError): {BAD}\n",
    "a_return_in_finally": f"def test_x(parity):\n    try: {BAD}\n    finally: return\n",
    "a_skip_instead": f"def test_x(parity):\n    try: {BAD}\n    finally: pytest.skip('flaky')\n",
    "an_xfail_that_passes": (
        f"@pytest.mark.xfail\ndef test_x(parity):\n    with pytest.raises(AssertionError): {BAD}\n"
    ),
    "an_unread_future": (
        "from concurrent.futures import ThreadPoolExecutor\n"
        f"def test_x(parity):\n    with ThreadPoolExecutor(1) as pool: pool.submit(lambda: {BAD})\n"
    ),
    "a_search_that_breaks": (
        "class Broken:\n    inputs = INPUTS\n    def runner(self, provider): return off_by(0.5)\n"
        "    def reference_runner(self, model): return model\n"
        "    def locate(self, *sides, **options): raise SystemExit(0)\n"
        "def test_x(parity):\n    try: parity.check(TWICE, Broken())\n    except SystemExit: pass\n"
        "    except AssertionError: pass\n"
    ),
    "a_fixture_s_setup": (
        f"@pytest.fixture(autouse=True)\ndef ready(parity):\n    try: {BAD}\n    except Exception: pass\n"
        "def test_x(parity): judged(parity)\n"
    ),
    "a_fixture_s_teardown": (
        f"@pytest.fixture\ndef late(parity):\n    yield\n    try: {BAD}\n    except AssertionError: pass\n"
        "def test_x(late, parity): judged(parity)\n"
    ),
    "unittest_s_assertRaises": (
        "import unittest\nclass TestX(unittest.TestCase):\n"
        "    @pytest.fixture(autouse=True)\n    def _own(self, parity): self.parity = parity\n"
        "    def test_x(self):\n"
        "        with self.assertRaises(AssertionError): judged(self.parity, off_by(0.5))\n"
    ),
    "an_exit_instead": f"def test_x(parity):\n    try: {BAD}\n    finally: {EXIT}\n",
    "an_exit_later": f"def test_x(parity): {BAD}\ndef test_y(): {EXIT}\n",
}  # fmt: skip
HOOKS = {
    "a_hook_around_the_call": (
        "@pytest.hookimpl(wrapper=True)\ndef pytest_pyfunc_call(pyfuncitem):\n"
        "    try: return (yield)\n    except AssertionError: return True\n"
    ),
    "a_hook_that_runs_it_twice": (
        "@pytest.hookimpl(wrapper=True)\ndef pytest_pyfunc_call(pyfuncitem):\n"
        "    try: return (yield)\n    except AssertionError:\n"
        "        pyfuncitem.funcargs['parity'].check = lambda *sides, **options: None\n"
        "        pyfuncitem.obj(pyfuncitem.funcargs['parity'])\n        return True\n"
    ),
    "a_hook_on_its_report": (
        "@pytest.hookimpl(wrapper=True, tryfirst=True)\ndef pytest_runtest_makereport():\n"
        "    report = yield\n    report.outcome, report.longrepr = 'passed', None\n"
        "    vars(report).pop('reflex', None)\n"
        "    return report\n"
    ),
    "a_hook_that_reports_nothing": (
        "from _pytest.runner import runtestprotocol\ndef pytest_runtest_protocol(item, nextitem):\n"
        "    runtestprotocol(item, nextitem=nextitem, log=False)\n    return True\n"
    ),
    "a_hook_on_the_exit_code": (
        "@pytest.hookimpl(wrapper=True, tryfirst=True)\ndef pytest_cmdline_main():\n    yield\n    return 0\n"
    ),
    "a_hook_at_the_end": (
        "@pytest.hookimpl(trylast=True)\ndef pytest_sessionfinish(session): session.exitstatus = 0\n"
    ),
}  # fmt: skip


@both
@pytest.mark.parametrize("how", SWALLOWED)
def test_fail_session__swallowed_by(how: str, strict: tuple[str, ...], run: Run) -> None:
    found = run(SWALLOWED[how], *strict, "--reflex-json", "out.json")
    assert found.ret == 1, found.stdout.str()
    assert written("out.json")["passed"] is False
    assert "parity FAIL: max_abs_diff 5.000e-01 is not below" in found.stdout.str()


@pytest.mark.parametrize("how", HOOKS)
def test_fail_session__swallowed_by_hooks(how: str, run: Run) -> None:
    found = run(
        f"def test_x(parity): {BAD}\n", "--reflex-json", "out.json", conftest=f"import pytest\n{HOOKS[how]}"
    )
    assert found.ret == 1, found.stdout.str()
    assert written("out.json")["passed"] is False
    assert "max_abs_diff 5.000e-01 is not below" in found.stdout.str()


IN_CHILDREN = {
    "a_child_process": (
        f"import os\ndef test_x(parity):\n    judged(parity)\n    if not (child := os.fork()):\n"
        f"        try: {BAD}\n        finally: os._exit(0)\n    os.waitpid(child, 0)\n"
    ),
    "an_unread_future_of_a_child": (
        "import multiprocessing\nfrom concurrent.futures import ProcessPoolExecutor as Pool\n"
        f"def off(): {BAD.replace('parity', 'PARITY')}\n"
        "def test_x(parity):\n    global PARITY; PARITY = parity; judged(parity)\n"
        "    with Pool(1, mp_context=multiprocessing.get_context('fork')) as pool: pool.submit(off)\n"
    ),
}  # fmt: skip


@both
@pytest.mark.parametrize("how", IN_CHILDREN)
def test_fail_session__compared_in(how: str, strict: tuple[str, ...], run: Run) -> None:
    found = run(IN_CHILDREN[how], *strict, "-p", "no:warnings", "--reflex-json", "out.json", apart=True)
    assert found.ret == 1, found.stdout.str()
    assert written("out.json")["passed"] is False
    assert "parity FAIL: its parity was used in another process" in found.stdout.str()


@pytest.mark.parametrize("how", ["an_unread_future", "a_fixture_s_teardown", "a_hook_on_its_report"])
def test_fail_session__swallowed_in_a_worker(how: str, run: Run) -> None:
    pytest.importorskip("xdist")
    source = SWALLOWED.get(how, f"def test_x(parity): {BAD}\n")
    conftest = {"conftest": f"import pytest\n{HOOKS[how]}"} if how in HOOKS else {}
    found = run(source + PASSES, "-n2", "--reflex-json", "out.json", **conftest)
    assert found.ret == 1, found.stdout.str()
    assert written("out.json")["passed"] is False


def test_a_swallowed_fail_is_said_where_it_was_swallowed(run: Run) -> None:
    found = run(SWALLOWED["an_except"])
    assert found.parseoutcomes() == {"failed": 1}
    found.stdout.fnmatch_lines(
        ["parity FAIL: max_abs_diff 5.000e-01 * the test went on (parity.expect_fail expects one)"]
    )


def test_fail_session__a_comparison_that_outlives_its_test(run: Run) -> None:
    source = (
        "import threading, time\nSTARTED = threading.Event()\n"
        "def slow(x):\n    STARTED.set(); time.sleep(1); return x * 2 + np.float32(0.5)\n"
        "def test_x(parity):\n    judged(parity)\n"
        "    threading.Thread(target=lambda: judged(parity, Toy(slow))).start()\n    STARTED.wait()\n"
    )
    found = run(source, "-p", "no:threadexception", apart=True)
    assert found.ret == 1
    assert "parity FAIL: a comparison was still running when its test ended" in found.stdout.str()


def test_fail_session__a_parity_that_is_used_after_its_test(run: Run) -> None:
    source = (
        "KEPT = []\ndef test_a(parity): judged(parity); KEPT.append(parity)\n"
        "def test_b():\n    try: judged(KEPT[0], off_by(0.5))\n    except Exception: pass\n"
    )
    found = run(source, "--reflex-json", "out.json")
    assert found.ret == 1
    (problem,) = written("out.json")["problems"]
    assert problem.startswith("test_it.py::test_a: its parity was used after its test")


def test_an_expected_failure_that_is_marked_stays_one(run: Run) -> None:
    """What pytest shows as xfailed is hidden from nobody; strict refuses it."""
    found = run(f"@pytest.mark.xfail\ndef test_x(parity): {BAD}\n" + PASSES, "--reflex-json", "out.json")
    assert found.ret == 0
    assert written("out.json")["passed"] is False


# --- a fail that is expected -----------------------------------------------------------------------------


EXPECTS = "def test_x(parity): parity.expect_fail(TWICE, off_by({off}), inputs=INPUTS{gate})\n"


@both
@pytest.mark.parametrize("gate", ["", ", gate='threshold'"])
def test_an_expected_fail_is_content_with_a_fail_and_proves_nothing(
    gate: str, strict: tuple[str, ...], run: Run
) -> None:
    source = EXPECTS.format(off=0.5, gate=gate)
    found = run(source + PASSES, *strict, "--reflex-json", "out.json", "--junitxml=junit.xml")
    assert found.ret == 0, found.stdout.str()
    made = written("out.json")
    assert made["passed"] is True
    assert [entry["nodeid"] for entry in made["results"]] == ["test_it.py::test_good"]
    (beside,) = made["not_compared"]
    assert (beside["nodeid"], beside["outcome"]) == ("test_it.py::test_x", "expected")
    assert "max_abs_diff 5.000e-01 is not below" in beside["reason"]
    assert f"expected fail: {beside['reason']}" in found.outlines
    assert 'value="FAIL, as expected"' in Path("junit.xml").read_text()
    # Alone it shows nothing of any export.
    assert run(source, "--reflex-strict").ret == 1
    assert run(source, "--reflex-json", "out.json").ret == 0
    assert written("out.json")["passed"] is False


@both
@pytest.mark.parametrize(
    ("off", "gate", "said"),
    [
        ("0", "", "a fail was expected, and the verdict is: parity PASS: "),
        (
            "0.5",
            ", gate='finite'",
            "a fail by the finite gate was expected, and the verdict is: parity FAIL: ",
        ),
    ],
    ids=["a_pass", "another_gate"],
)
def test_fail_session__expected_otherwise(
    off: str, gate: str, said: str, strict: tuple[str, ...], run: Run
) -> None:
    raised = EXPECTS.format(off=off, gate=gate)
    swallowed = raised.replace("): parity", "):\n    with pytest.raises(AssertionError): parity")
    for source in (raised, swallowed):
        found = run(source + PASSES, *strict, "--reflex-json", "out.json")
        assert found.parseoutcomes() == {"passed": 1, "failed": 1}
        assert f"parity FAIL: {said}" in found.stdout.str()
        assert written("out.json")["passed"] is False


def test_an_expected_fail_needs_a_gate_that_there_is_and_a_verdict(run: Run) -> None:
    found = run(EXPECTS.format(off=0.5, gate=", gate='size'") + EXPECTS.format(off=0.5, gate=", fixtures=0"))
    assert found.ret == 1
    found = run(EXPECTS.format(off=0.5, gate=", gate='size'"))
    assert "expect_fail(gate=...): 'size' is no gate; give one of structure, provider, " in found.stdout.str()


# --- a test that is run again ----------------------------------------------------------------------------


# What pytest-rerunfailures does, and what flaky does: who of them is installed adds a way.
RERUNS = """
from _pytest.runner import runtestprotocol

def pytest_runtest_protocol(item, nextitem):
    for left in (1, 0):
        for report in runtestprotocol(item, nextitem=nextitem, log=False):
            if report.failed and left:
                {logged}
                break
            {said}
        else:
            return True
"""
LOGGED = "item.ihook.pytest_runtest_logreport(report=report)"
AGAIN = {
    "reported": RERUNS.format(said=LOGGED, logged=f"report.outcome = 'rerun'; {LOGGED}"),
    "unreported": RERUNS.format(said=LOGGED, logged="pass"),
    **({"pytest_rerunfailures": ""} if find_spec("pytest_rerunfailures") else {}),
}  # fmt: skip
SECOND_TIME = "TIMES = []\ndef test_x(parity):\n    TIMES.append(1)\n    {first}\n    judged(parity)\n"
FIRST_FAILS = SECOND_TIME.format(first="judged(parity, off_by(0.5 if len(TIMES) < 2 else 0))")
FIRST_BREAKS = SECOND_TIME.format(first="assert len(TIMES) > 1")


@pytest.mark.parametrize("source", [FIRST_FAILS, FIRST_BREAKS], ids=["a_fail", "an_error"])
@pytest.mark.parametrize("how", AGAIN)
def test_fail_session__run_again(how: str, source: str, run: Run) -> None:
    args = ("--reflex-json", "out.json", "--junitxml=junit.xml", *["--reruns=1"] * how.startswith("pytest_"))
    found = run(source, "--reflex-strict", *args, apart=True, conftest=AGAIN[how])
    assert found.ret == 1, found.stdout.str()
    made = written("out.json")
    assert made["passed"] is False
    names = [entry["name"] for entry in made["results"]]
    assert len(set(names)) == len(names)
    # Without strict it is a note, and the attempts are told apart all the same.
    found = run(source, *args, apart=True, conftest=AGAIN[how])
    assert found.ret == 0, found.stdout.str()
    assert "warning: test_it.py::test_x: run again (attempt 2), as attempt 1 did not pass" in found.outlines
    made = written("out.json")
    second = ["test_it.py::test_x (attempt 2)", "test_it.py::test_x (call 2) (attempt 2)"]
    first = ["test_it.py::test_x"] if source == FIRST_FAILS else []
    assert [entry["name"] for entry in made["results"]] == first + second[: 1 + len(first)]
    assert [entry["call"] for entry in made["results"]] == list(range(len(made["results"])))
    assert made["passed"] is (source == FIRST_BREAKS)
    properties = {(p.get("name"), p.get("value")) for p in ElementTree.parse("junit.xml").iter("property")}
    # Whoever reports both attempts has the first one's written twice, and never with another value.
    assert len(dict(properties)) == len(properties)
    assert ("reflex_verdict_attempt_2", "PASS") in properties


def test_a_test_that_passes_at_once_may_be_run_again(run: Run) -> None:
    assert run(PASSES, "--reflex-strict", conftest=AGAIN["reported"]).ret == 0


def test_a_test_that_passed_may_be_run_again(run: Run) -> None:
    twice = (
        "from _pytest.runner import runtestprotocol\n"
        "def pytest_runtest_protocol(item, nextitem):\n"
        "    for _ in range(2): runtestprotocol(item, nextitem=nextitem)\n"
        "    return True\n"
    )
    found = run(PASSES, "--reflex-strict", "--reflex-json", "out.json", conftest=twice)
    assert found.ret == 0
    assert "run again" not in found.stdout.str()
    names = [entry["name"] for entry in written("out.json")["results"]]
    assert names == ["test_it.py::test_good", "test_it.py::test_good (attempt 2)"]


def test_a_parity_that_each_attempt_asks_for_itself_is_of_that_attempt(run: Run) -> None:
    source = FIRST_FAILS.replace("(parity)", "(request)", 1).replace(
        "TIMES.append(1)", "TIMES.append(1); parity = request.getfixturevalue('parity')"
    )
    run(source, "--reflex-json", "out.json", conftest=AGAIN["reported"])
    names = {entry["name"] for entry in written("out.json")["results"]}
    second = {"test_it.py::test_x (attempt 2)", "test_it.py::test_x (call 2) (attempt 2)"}
    assert names == {"test_it.py::test_x", *second}


# --- a session that leaves parity tests out --------------------------------------------------------------


LATER = "def test_later(parity): judged(parity, off_by(0.5))\n"
LEFT_OUT = {
    "an_exit_between_tests": PASSES + f"def test_x(): {EXIT}\n" + LATER,
    "an_exit_in_a_test": f"def test_x(parity): judged(parity); {EXIT}\n",
    "an_exit_in_a_teardown": f"@pytest.fixture\ndef f():\n    yield\n    {EXIT}\n"
    "def test_x(f, parity): judged(parity)\n" + LATER,
    "an_exit_while_collecting": PASSES + f"{EXIT}\n",
    "a_body_without_a_verdict": PASSES
    + "def test_x(parity):\n    judged(parity)\n"
    + "    with pytest.raises(reflex.ReflexError): judged(parity, threshold=-1)\n",
    "a_class_with_a_constructor": PASSES + "class TestX:\n    def __init__(self): pass\n"
    "    def test_x(self, parity): judged(parity, off_by(0.5))\n",
    "a_skipped_unittest_class": PASSES + "import unittest\n"
    "@unittest.skip('off')\nclass TestX(unittest.TestCase):\n"
    "    @pytest.fixture(autouse=True)\n    def _own(self, parity): self.parity = parity\n"
    "    def test_x(self): judged(self.parity, off_by(0.5))\n",
}  # fmt: skip
CONFTESTS = {
    "an_exit_at_the_start": f"import pytest\ndef pytest_sessionstart(): {EXIT}\n",
    "an_exit_at_the_end": f"import pytest\ndef pytest_sessionfinish(): {EXIT}\n",
    "a_loop_that_runs_nothing": "def pytest_runtestloop(session): return True\n",
    "a_protocol_that_runs_some": (
        "def pytest_runtest_protocol(item): return item.name == 'test_later' or None\n"
    ),
}


@pytest.mark.parametrize("how", LEFT_OUT)
def test_fail_session__left_out_by(how: str, run: Run) -> None:
    found = run(LEFT_OUT[how], "--reflex-strict", "--reflex-json", "out.json")
    assert found.ret in (1, 2), found.stdout.str()
    assert written("out.json")["passed"] is False


@pytest.mark.parametrize("how", CONFTESTS)
def test_fail_session__left_out_by_a_conftest(how: str, run: Run) -> None:
    found = run(PASSES + LATER, "--reflex-strict", "--reflex-json", "out.json", conftest=CONFTESTS[how])
    assert found.ret == 1, found.stdout.str()
    assert written("out.json").get("passed", False) is False


@pytest.mark.parametrize("option", ["--setup-only", "--setup-plan", "-pno:reflex-controller"])
def test_fail_session__left_out_by_an_option(option: str, run: Run) -> None:
    ready = "@pytest.fixture\ndef ready(parity): judged(parity)\n"
    found = run(f"{ready}def test_x(ready): {EXIT}\n", "--reflex-strict", option)
    assert found.ret == 1, found.stdout.str()


def test_fail_session__a_conftest_that_exits(run: Run) -> None:
    found = run(PASSES, "--reflex-strict", apart=True, conftest="import sys\nsys.exit(0)\n")
    assert found.ret == 4
    assert "ERROR: a conftest.py called exit(0), so no test was run" in found.errlines


SKIPS = "import pytest\npytest.skip('no GPU here', allow_module_level=True)\n"


@pytest.mark.parametrize(
    "module",
    [
        SKIPS + "from tests_of_it import *\n",
        SKIPS + "from tests_of_it import test_good as test_renamed\n",
        SKIPS + "from between import *\n",
        SKIPS + "import tests_of_it\nclass TestX(tests_of_it.Base): pass\n",
        SKIPS + "import tests_of_it\ntest_renamed = tests_of_it.test_good\n",
    ],
    ids=["by_star", "by_name", "by_two_stars", "by_a_base", "by_an_assignment"],
)
def test_fail_session__a_skipped_module_takes_its_tests_from_another(module: str, run: Run) -> None:
    files = {
        "tests_of_it": f"from toys import *\nclass Base:\n    def test_b(self, parity): pass\n{PASSES}",
        "between": "from tests_of_it import *\n",
    }
    found = run(PASSES, "--reflex-strict", test_skipped=module, **files)
    assert found.ret != 0
    assert "a module with parity tests was skipped: no GPU here" in found.stdout.str()


def test_a_skipped_module_that_only_uses_another_is_no_parity_test(run: Run) -> None:
    files = {"helpers": "def parity_of(x): return x\ndef half(x): return x / 2  # not parity\n"}
    module = f"{SKIPS}import json\nfrom helpers import half\nfrom absent import *\n"
    assert run(PASSES, "--reflex-strict", test_skipped=module, **files).ret == 0


def test_a_fixture_may_compare_in_its_teardown(run: Run) -> None:
    source = "@pytest.fixture\ndef late(parity):\n    yield\n    {}\ndef test_x(late): pass\n"
    assert run(source.format("judged(parity)"), "--reflex-strict").ret == 0
    found = run(source.format("pass") + PASSES, "--reflex-strict")
    assert found.ret == 1
    assert "parity FAIL: nothing was compared" in found.stdout.str()


# --- a process that ends without pytest ------------------------------------------------------------------


LEAVES = {
    "a_test": "def test_x(parity): judged(parity); os._exit(0)\n",
    "a_model": "def test_x(parity): judged(parity, Toy(lambda x: os._exit(0)))\n",
    "the_reference": "def test_x(parity):\n"
    "    parity.check(Toy(lambda x: os._exit(False)), TWICE, inputs=INPUTS)\n",
    "another_0": "def test_x(parity): judged(parity, Toy(lambda x: os._exit(256)))\n",
    "a_thread": "import threading\n"
    "def leave(x): threading.Thread(target=os._exit, args=[0]).start(); time.sleep(60)\n"
    "def test_x(parity): judged(parity, Toy(leave))\n",
    "a_teardown": "@pytest.fixture\ndef f():\n    yield\n    os._exit(status=0)\n"
    "def test_x(f, parity): judged(parity)\n",
    "another_program": "def test_x(parity):\n"
    "    judged(parity, Toy(lambda x: os.execl('/bin/sh', 'sh', '-c', '')))\n",
    "a_child_that_goes_on_alone": "def test_x(parity):\n    if os.fork(): os._exit(0)\n",
    "what_os_has_it_from": "import posix\n"
    "def test_x(parity): judged(parity, Toy(lambda x: posix._exit(0)))\n",
    "a_fail_that_is_left_behind": f"def test_x(parity):\n    try: {BAD}\n    finally: os._exit(0)\n",
}  # fmt: skip
HIDES = "reflex: error: pytest was to exit with 0, and that would hide this: "


@both
@pytest.mark.parametrize("how", LEAVES)
def test_fail_session__left_by(how: str, strict: tuple[str, ...], run: Run) -> None:
    source = f"import os, time\n{LEAVES[how]}{LATER}"
    found = run(source, *strict, "--reflex-json", "out.json", apart=True)
    assert found.ret == 1, found.stdout.str()
    (said,) = [line for line in found.errlines if line.startswith(HIDES)]
    assert said.startswith(
        f"{HIDES}test_it.py::test_x: parity FAIL: max_abs_diff" if "fail" in how else HIDES
    )
    assert "this run has not finished" in written("out.json")["error"]["message"]


ELSEWHERE = {
    "a_conftest": {"conftest": "import os\nos._exit(0)\n"},
    "a_module": {"test_it2": "import os\nos._exit(0)\n"},
    "a_test_without_parity": {"test_it2": "import os\ndef test_x(): os._exit(0)\n"},
    "the_end": {"conftest": "import os\ndef pytest_sessionfinish(): os._exit(0)\n"},
}


@pytest.mark.parametrize("where", ELSEWHERE)
def test_fail_session__left_elsewhere_under_strict(where: str, run: Run) -> None:
    found = run(PASSES, "--reflex-strict", apart=True, **ELSEWHERE[where])
    assert found.ret == 1, found.stdout.str()
    assert f"{HIDES}the session did not come to its end" in found.errlines
    # Where every parity test has had its verdict, or none was collected, a plain run ends as it is told.
    assert run(PASSES, apart=True, **ELSEWHERE[where]).ret == 0


AT_EXIT = {
    "atexit": "import atexit\natexit.register(os._exit, 0)\n",
    "atexit_by_name": "import atexit\natexit.register(lambda: os._exit(0))\n",
    "another_program": "import atexit\natexit.register(lambda: os.execv('/bin/sh', ['sh', '-c', '']))\n",
    "a_thread": "import threading\ndef late():\n    threading.main_thread().join(); os._exit(0)\n"
    "threading.Thread(target=late).start()\n",
}


@pytest.mark.parametrize("how", AT_EXIT)
def test_fail_session__left_after_its_end(how: str, run: Run) -> None:
    source = f"import os\n{AT_EXIT[how]}"
    assert run(source + FAILS, cold=True).ret == 1
    assert run(source + PASSES, "--reflex-strict", cold=True).ret == 0


def test_a_session_that_a_conftest_ends_with_its_own_code_ends_with_that(run: Run) -> None:
    conftest = "import os\ndef pytest_unconfigure(): os._exit({})\n"
    assert run(PASSES, "--reflex-strict", cold=True, conftest=conftest.format(0)).ret == 0
    assert run(PASSES, "--reflex-strict", cold=True, conftest=conftest.format(7)).ret == 7
    assert run(FAILS, cold=True, conftest=conftest.format(0)).ret == 1


@pytest.mark.parametrize("hook", ["pytest_sessionfinish", "pytest_terminal_summary", "pytest_unconfigure"])
def test_fail_session__a_hook_that_exits_at_the_end(hook: str, run: Run) -> None:
    conftest = f"import sys\ndef {hook}(): sys.exit({{}})\n"
    found = run(FAILS, apart=True, conftest=conftest.format(0))
    assert found.ret == 1, found.stdout.str()
    assert any(line.startswith(HIDES) for line in found.errlines)
    assert run(PASSES, apart=True, conftest=conftest.format("")).ret == 0
    assert run(PASSES, apart=True, conftest=conftest.format(7)).ret == 7


CHILDREN = """
import multiprocessing, os, subprocess, sys
from concurrent.futures import ProcessPoolExecutor

def half(x): return x / 2

def leave(code): os._exit(code)

def test_x(parity):
    judged(parity)
    child = os.fork()
    if not child:
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    if not (child := os.fork()):
        os.execv("/bin/sh", ["sh", "-c", "exit 3"])
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3
    for how in ("fork", "spawn"):
        context = multiprocessing.get_context(how)
        process = context.Process(target={leave}, args=(0,))
        process.start(); process.join()
        assert process.exitcode == 0
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork")) as pool:
        assert pool.submit(half, 4).result() == 2
    assert subprocess.run([sys.executable, "-c", "import os; os._exit(0)"]).returncode == 0
"""


def test_children_of_a_session_leave_as_they_always_did(run: Run) -> None:
    # Where coverage is measured, os._exit is a function of coverage's that no child can be sent.
    leave = "leave" if os.environ.get("COVERAGE_RUN") else "os._exit"
    source = CHILDREN.replace("{leave}", leave)
    found = run(source, "--reflex-strict", "-p", "no:warnings", cold=True)
    assert found.ret == 0, found.stdout.str()


def test_the_ways_out_are_as_they_were_after_a_session_that_others_go_on_from(run: Run) -> None:
    own = sys.modules[os.name]
    before = os._exit, os.execv, os.execve, own._exit, own.execv, own.execve
    assert run(PASSES, "--reflex-strict").ret == 0
    assert run(FAILS).ret == 1
    assert run(PASSES, "--reflex-threshold=-1").ret == 4
    assert (os._exit, os.execv, os.execve, own._exit, own.execv, own.execve) == before


# --- what an earlier run left ----------------------------------------------------------------------------


KILL = f"import os, signal\n    os.kill(os.getpid(), {int(signal.SIGKILL)})\n"
KILLED = {
    "before_the_tests": {"conftest": f"if True:\n    {KILL}"},
    "while_collecting": {"test_it2": f"if True:\n    {KILL}"},
    "between_tests": {"test_it2": f"def test_x(parity):\n    {KILL}"},
    "after_the_tests": {"conftest": f"def pytest_sessionfinish():\n    {KILL}"},
    "by_an_exit_of_0": {"test_it2": "import os\ndef test_x(): os._exit(0)\n"},
}


@pytest.mark.parametrize("when", KILLED)
def test_fail_session__killed_with_old_evidence(when: str, run: Run, pytester: pytest.Pytester) -> None:
    args = ("--reflex-json", "out.json", "--reflex-report", "rep")
    assert run(PASSES, *args, apart=True).ret == 0
    assert written("out.json")["passed"] is True
    found = run(PASSES, *args, cold=True, **KILLED[when])
    # Who ends the only process with 0 has the last word on its exit code, and none on what is written.
    assert found.ret == (0 if when == "by_an_exit_of_0" else -signal.SIGKILL)
    for path in ("out.json", "rep/parity.json"):
        assert "this run has not finished" in written(path)["error"]["message"]
    page = Path("rep/index.html").read_text(encoding="utf-8")
    assert "this run has not finished" in page
    assert "parity PASS" not in page


def test_fail_session__killed_with_its_workers(run: Run) -> None:
    pytest.importorskip("xdist")
    assert run(PASSES, "--reflex-json", "out.json").ret == 0
    killed = f"import os\ndef test_x():\n    os.kill(os.getppid(), {int(signal.SIGKILL)})\n"
    found = run(PASSES, "-n2", "--reflex-json", "out.json", cold=True, test_it2=killed)
    assert found.ret == -signal.SIGKILL
    assert "this run has not finished" in written("out.json")["error"]["message"]


@pytest.mark.parametrize("option", ["--collect-only", "--help", "--fixtures", "--markers", "--version"])
def test_what_runs_no_test_leaves_the_evidence(option: str, run: Run) -> None:
    assert run(PASSES, "--reflex-json", "out.json").ret == 0
    before = Path("out.json").read_bytes()
    assert run(FAILS, option, "--reflex-json", "out.json").ret == 0
    assert Path("out.json").read_bytes() == before


def test_a_run_that_was_broken_off_is_no_pass_in_the_document(run: Run) -> None:
    source = PASSES + "def test_x(): raise KeyboardInterrupt\n" + LATER
    found = run(source, "--reflex-json", "out.json", apart=True)
    assert found.ret == 2
    made = written("out.json")
    assert [entry["passed"] for entry in made["results"]] == [True]
    assert made["passed"] is False
    assert made["problems"] == [
        "of the parity tests that were collected, 1 did not come to an end: test_it.py::test_later"
    ]
