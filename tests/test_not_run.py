"""What was not run is counted by its cause, and what could have been run fails the run under CI."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LEROBOT = "GR00T's action head needs lerobot (Python 3.12 or later)"
SYSTEM = "this system has no renameat2"
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


Suite = Callable[..., tuple[int, str]]


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
        how = pytester.runpytest_subprocess if options else pytester.runpytest_inprocess
        done = how("-p", "no:cacheprovider", *options)
        # Nothing but pytest's own count comes after it.
        assert done.outlines[-2].startswith("not run here: ")
        return done.ret, done.outlines[-2].removeprefix("not run here: ")

    return suite


NOTHING = "0 without lerobot, 0 for what the system lacks, 0 else"


@pytest.mark.parametrize("ci", [False, True])
def test_what_a_machine_lacks_is_counted_and_fails_nothing(run: Suite, ci: bool) -> None:
    line = f"4 without lerobot, 1 for what the system lacks ({SYSTEM}), 0 else"
    assert run(ci=ci, test_several=SEVERAL, test_whole=WHOLE) == (0, line)


@pytest.mark.parametrize("ci", [False, True])
def test_what_could_have_run_fails_under_ci_alone(run: Suite, ci: bool) -> None:
    line = "0 without lerobot, 0 for what the system lacks, 1 else (openpi-client is not installed)"
    expected = (1, f"{line}; under CI these fail the run") if ci else (0, line)
    assert run(ci=ci, test_forgotten=FORGOTTEN) == expected


def test_workers_are_counted_together(run: Suite) -> None:
    code, line = run("-n2", ci=True, test_several=SEVERAL, test_whole=WHOLE, test_forgotten=FORGOTTEN)
    assert (code, line.startswith(f"4 without lerobot, 1 for what the system lacks ({SYSTEM}), 1 else")) == (
        1,
        True,
    )


def test_where_lerobot_is_installed_its_absence_is_no_reason(run: Suite) -> None:
    code, line = run(ci=True, lerobot=True, test_several=SEVERAL)
    assert (
        code,
        f"0 without lerobot, 1 for what the system lacks ({SYSTEM}), 3 else ({LEROBOT})" in line,
    ) == (1, True)


def test_a_full_run_says_so(run: Suite) -> None:
    assert run(ci=True, test_good="def test_runs(): pass\n") == (0, NOTHING)


def test_a_failure_stays_a_failure(run: Suite) -> None:
    assert run(ci=True, test_bad="def test_fails(): assert False\n") == (1, NOTHING)


def test_every_reason_that_is_allowed_is_one_that_a_test_gives(pytestconfig: pytest.Config) -> None:
    allowed = pytestconfig.pluginmanager.get_plugin(str(ROOT / "conftest.py"))
    texts = [
        file.read_text(encoding="utf-8") for file in (ROOT / "tests").rglob("*.py") if file != Path(__file__)
    ]
    for words in (words for several in allowed.ALLOWED.values() for words in several):
        assert any(words in text for text in texts), words
