"""What was not run is counted by its cause, and what could have been run fails the run under CI."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = pytest.mark.once

ROOT = Path(__file__).resolve().parent.parent
LEROBOT = "GR00T's action head needs lerobot (Python 3.12 or later)"
SYSTEM = "this system has no renameat2"
LINUX = "mutants are judged on Linux only"
SEVERAL = f"""
import pytest

def test_runs(): pass

@pytest.mark.parametrize("i", range(3))
def test_lerobot(i): pytest.skip({LEROBOT!r})

@pytest.mark.skip(reason={SYSTEM!r})
def test_system(): pass
"""
WHOLE = f"import pytest\npytest.importorskip('absent_module', reason={LEROBOT!r})\n"
FORGOTTEN = """
import pytest

def test_runs(): pass

def test_forgotten(): pytest.skip("openpi-client is not installed")
"""
# Run, it fails.
MARKED = """
import pytest

def test_runs(): pass

@pytest.mark.once
@pytest.mark.parametrize("i", range(2))
def test_marked(i): assert False
"""


# Ways for a test not to run that give no reason, or one that is not true.
WITHOUT_A_REASON = {
    "xfail": "@pytest.mark.xfail\ndef test_x(): assert False",
    "xfail not run": "@pytest.mark.xfail(run=False)\ndef test_x(): assert False",
    "xfail that passes": "@pytest.mark.xfail\ndef test_x(): pass",
    "a mark": "@pytest.mark.skip\ndef test_x(): pass",
    "a file's mark": "pytestmark = pytest.mark.skipif(True, reason='not today')\ndef test_x(): pass",
    "a fixture": "@pytest.fixture\ndef f(): pytest.skip('not today')\ndef test_x(f): pass",
    "unittest": "import unittest\ndef test_x(): raise unittest.SkipTest('not today')",
    "no cases": "@pytest.mark.parametrize('i', [])\ndef test_x(i): pass",
    "a package": "pytest.importorskip('absent_module')",
    "run nowhere": f"@pytest.mark.once\ndef test_x(): pytest.skip({LEROBOT!r})",
    "not elsewhere": "def test_x(): pytest.skip('marked once, and --once-elsewhere is given')",
}


Suite = Callable[..., tuple[int, str]]
SAYS = "not run here: "


@pytest.fixture
def run(warm_pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Suite:
    """``run("-n2", ci=True, lerobot=False, test_a="...")``: such a suite's exit code, and its line."""

    pytester = warm_pytester

    def suite(*options: str, ci: bool, lerobot: bool = False, **files: str) -> tuple[int, str]:
        text = (ROOT / "conftest.py").read_text(encoding="utf-8")
        pytester.makeconftest(f"{text}\nfind_spec = {{'lerobot': {lerobot or None}}}.get\n")
        pytester.makepyfile(**files)
        if ci:
            monkeypatch.setenv("CI", "true")
        how = pytester.runpytest_subprocess if "-n2" in options else pytester.runpytest_inprocess
        done = how("-p", "no:cacheprovider", *options)
        # Nothing but pytest's own count comes after it.
        (place, said), *more = [
            (place, said) for place, said in enumerate(reversed(done.outlines)) if said.startswith(SAYS)
        ]
        assert place <= 1 or "Exit: " in "".join(done.outlines[-place:])
        assert more == []
        return int(done.ret), said.removeprefix(SAYS)

    return suite


def line(*, lerobot: int = 0, once: int = 0, system: bool = False, other: str = "0 else") -> str:
    lacks = f"1 for what the system lacks ({SYSTEM})" if system else "0 for what the system lacks"
    return f"{lerobot} without lerobot, {once} that `make test` runs, {lacks}, {other}"


REFUSED = "; under CI these fail the run"


@pytest.mark.parametrize("ci", [False, True])
def test_what_a_machine_lacks_is_counted_and_fails_nothing(run: Suite, ci: bool) -> None:
    expected = (0, line(lerobot=4, system=True))
    assert run(ci=ci, test_several=SEVERAL, test_whole=WHOLE) == expected


@pytest.mark.parametrize("ci", [False, True])
def test_what_could_have_run_fails_under_ci_alone(run: Suite, ci: bool) -> None:
    said = line(other="1 else (openpi-client is not installed)")
    assert run(ci=ci, test_forgotten=FORGOTTEN) == ((1, said + REFUSED) if ci else (0, said))


@pytest.mark.parametrize("way", WITHOUT_A_REASON)
def test_whatever_did_not_run_without_a_reason_fails_under_ci(run: Suite, way: str) -> None:
    file = f"import pytest\n{WITHOUT_A_REASON[way]}\n"
    for ci in (False, True):
        code, said = run(ci=ci, test_it=file, test_good="def test_runs(): pass\n")
        assert (code, said.endswith(REFUSED)) == (int(ci), ci)
        assert ", 1 else (" in said


def test_what_linux_has_is_no_reason_there(run: Suite) -> None:
    code, said = run(ci=True, test_it=f"import pytest\ndef test_x(): pytest.skip({LINUX!r})\n")
    assert (code, f"1 else ({LINUX})" in said) == ((1, True) if sys.platform == "linux" else (0, False))


@pytest.mark.parametrize(
    "options",
    [
        ("-k", "other"),
        ("-m", "not once"),
        ("--deselect", "test_it.py::test_one"),
        ("--ignore", "test_gone.py"),
        ("-n2", "-k", "other"),
    ],
)
def test_an_option_that_leaves_tests_out_fails_under_ci(run: Suite, options: tuple[str, ...]) -> None:
    file = "def test_one(): pass\ndef test_other(): pass\n"
    code, said = run(*options, ci=False, test_it=file)
    assert (code, f"{options[-2]} is given" in said) == (0, True)
    code, said = run(*options, ci=True, test_it=file)
    assert (code, said.endswith(REFUSED)) == (1, True)


@pytest.mark.parametrize("option", ["--collect-only", "--setup-plan"])
def test_an_option_that_runs_nothing_fails_under_ci(run: Suite, option: str) -> None:
    assert run(option, ci=False, test_it="def test_one(): pass\n") == (0, line(other="1 else (never begun)"))
    assert run(option, ci=True, test_it="def test_one(): pass\n")[0] == 1


def test_a_run_that_ends_early_fails_under_ci(run: Suite) -> None:
    ends = "import pytest\ndef test_one(): pytest.exit('enough', returncode=0)\ndef test_two(): pass\n"
    for ci in (False, True):
        assert run(ci=ci, test_it=ends) == (int(ci), line(other="2 else (never begun)") + REFUSED * ci)


def test_workers_are_counted_together(run: Suite) -> None:
    code, said = run("-n2", ci=True, test_several=SEVERAL, test_whole=WHOLE, test_forgotten=FORGOTTEN)
    expected = line(lerobot=4, system=True, other="1 else (openpi-client is not installed)")
    assert (code, said) == (1, expected + REFUSED)


def test_where_lerobot_is_installed_its_absence_is_no_reason(run: Suite) -> None:
    expected = line(system=True, other=f"3 else ({LEROBOT})")
    assert run(ci=True, lerobot=True, test_several=SEVERAL) == (1, expected + REFUSED)


def test_what_is_marked_once_runs_unless_it_is_said_to_run_elsewhere(run: Suite) -> None:
    assert run(ci=True, test_marked=MARKED) == (1, line())
    assert run("--once-elsewhere", ci=True, test_marked=MARKED) == (0, line(once=2))
    assert run("--once-elsewhere", "-n2", ci=True, test_marked=MARKED) == (0, line(once=2))


def test_a_full_run_says_so(run: Suite) -> None:
    assert run(ci=True, test_good="def test_runs(): pass\n") == (0, line())


def test_a_failure_stays_a_failure(run: Suite) -> None:
    assert run(ci=True, test_bad="def test_fails(): assert False\n") == (1, line())


def test_every_reason_that_is_allowed_is_one_that_a_test_gives(pytestconfig: pytest.Config) -> None:
    allowed = pytestconfig.pluginmanager.get_plugin(str(ROOT / "conftest.py"))
    texts = [
        file.read_text(encoding="utf-8") for file in (ROOT / "tests").rglob("*.py") if file != Path(__file__)
    ]
    given = [
        words for cause, several in allowed.ALLOWED.items() if cause != allowed.ONCE for words in several
    ]
    for words in given:
        assert any(words in text for text in texts), words
