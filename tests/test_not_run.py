"""What was not run is counted by its cause, and what could have been run fails the run under CI."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = pytest.mark.once

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
# Run, it fails.
MARKED = """
import pytest

def test_runs(): pass

@pytest.mark.once
@pytest.mark.parametrize("i", range(2))
def test_marked(i): assert False
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
