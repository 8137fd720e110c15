"""One parity test from setup to teardown: what it found, and whether anything of that was swallowed.

A test is one item, run in one attempt or, where something runs it again, in several. What it finds goes onto
its reports, each of which carries all that is known by then: who runs a test again may drop a report.
"""

from __future__ import annotations

import json
import mmap
import os
import re
from pathlib import Path
from types import CodeType, TracebackType
from typing import TYPE_CHECKING, Any, Final, TypeVar

import pytest

from pytest_reflex.errors import ReflexError
from pytest_reflex.plugin.baseline import BASELINE
from pytest_reflex.plugin.collector import ATTRIBUTE, Told, told_by

if TYPE_CHECKING:
    from pytest_reflex.result import ParityResult

NOTHING: Final = "nothing was compared: the test never called parity.check"
ELSEWHERE: Final = (
    "its parity was used in another process, which can tell nobody its verdict; use it in the test's own"
)
RUNNING: Final = "a comparison was still running when its test ended; wait for it in the test"
NO_BODY: Final = "the test itself was not run, only what it is set up with"


class Attempt:
    """One run of a parity test. It is entered while something is compared, and that can be in threads.

    Attributes:
        number: which run of the test it is, from 1.
        over: whether its test has ended, or is being run again.
        passed: whether its test was seen to pass.
        fails: what has to fail its test, however it is swallowed, one line each.
        failures: how many reports of it failed.
        told: how many of the fails some report has said, or was expected to say.
        called: whether its test's body was run.
    """

    def __init__(self, outcome: Outcome, number: int) -> None:
        self.number = number
        self.over = self.passed = self.called = False
        self.fails: list[str] = []
        self.failures = self.told = 0
        self._outcome = outcome
        self._process = os.getpid()
        # One byte that a process which is forked from this one has too.
        self._elsewhere = mmap.mmap(-1, 1)
        # Lists, as appending to one is one step: `+= 1` loses what another thread does meanwhile.
        self._begun: list[None] = []
        self._ended: list[None] = []
        self._judged: list[None] = []
        # Those that prove something, which a baseline knows by their number.
        self._kept: list[None] = []

    def __enter__(self) -> None:
        if os.getpid() != self._process:
            self._elsewhere[0] = 1
            raise ReflexError(f"{self._outcome.nodeid}: {ELSEWHERE}")
        if self.over:
            why = (
                "its parity was used after its test, where no report can say the verdict; use it in the test"
            )
            self._outcome.told.problems.append(f"{self._outcome.nodeid}: {why}")
            raise ReflexError(f"{self._outcome.nodeid}: {why}")
        self._begun.append(None)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.append(None)

    @property
    def elsewhere(self) -> bool:
        """Whether another process was to compare something."""
        return bool(self._elsewhere[0])

    @property
    def running(self) -> bool:
        return len(self._begun) > len(self._ended)

    @property
    def begun(self) -> bool:
        """Whether anything was to be compared."""
        return bool(self._begun)

    @property
    def judged(self) -> int:
        """How many comparisons reached a verdict."""
        return len(self._judged)

    @property
    def unjudged(self) -> int:
        """How many ended without one."""
        return len(self._ended) - len(self._judged)

    @property
    def suffix(self) -> str:
        """What tells its results from those of the attempts before; empty for the first."""
        return "" if self.number == 1 else f" (attempt {self.number})"

    def held(self, result: ParityResult) -> ParityResult:
        """A result that passed, refused where it is worse than the baseline has its call."""
        return self._outcome.held(result, len(self._kept)) if result.passed else result

    def record(self, result: ParityResult, *, expected: str = "", unmet: str = "", stage: str = "") -> None:
        """Take one result.

        Args:
            result: the result.
            expected: what is said of a fail that was expected, and came.
            unmet: what is said where another one was expected.
            stage: which stage of a pipeline it is, all of which are one comparison.
        """
        if not stage or _is_first(stage):
            self._judged.append(None)
        if fail := unmet or ("" if result.passed or expected else _headline(result)):
            self.fails.append(f"pipeline FAIL in {stage}: {fail}" if stage else fail)
        if not expected and not unmet:
            self._kept.append(None)
        self._outcome.add(self, result, expected, unmet, stage)

    def absent(self, name: str, reason: str) -> None:
        """Take what was to be judged and reached no verdict, under a name of its own."""
        self._outcome.leave("failed", reason, name)

    def drove(self, said: str, *, passed: bool, note: str = "") -> None:
        """Take the verdict of a closed loop, in one line; it is no parity, and stands in no report of it."""
        self._judged.append(None)
        if not passed:
            self.fails.append(said)
        self._outcome.add_rollout(self, said, passed=passed, note=note)


class Outcome:
    """Stands beside one test item and puts what it found onto the item's reports.

    Attributes:
        nodeid: the test's node id.
        told: what this process says when its session ends.
    """

    def __init__(self, item: pytest.Item) -> None:
        self.nodeid = str(item.nodeid)
        self.told: Told = told_by(item.config)
        self._item = item
        self._attempts: list[Attempt] = []
        self._taken = False  # whether the fixture has asked for the attempt that there is
        # As text: xdist's pipe has no room for every number that an int64 output can hold.
        self._results: list[str] = []
        self._start()

    def _start(self) -> None:
        self._outcome = ("passed", NOTHING)
        self._not_compared: list[dict[str, Any]] = []
        self._failures: list[dict[str, Any]] = []
        self._rollouts: list[tuple[str, str, str]] = []
        self._taken = False

    def begin(self) -> Attempt:
        """The attempt that a ``parity`` fixture is made for: each that is made anew begins another one."""
        if self._attempts and self._taken:
            self._attempts[-1].over = True
        now = self._current()
        self._taken = True
        return now

    def _current(self) -> Attempt:
        if not self._attempts or self._attempts[-1].over:
            self._start()
            again = bool(self._attempts) and not self._attempts[-1].passed
            self._attempts.append(Attempt(self, len(self._attempts) + 1))
            self.told.fails.pop(self.nodeid, None)
            if again:
                self.told.notes.append(f"{self.nodeid}: {_again(self._attempts[-1])}")
        return self._attempts[-1]

    def held(self, result: ParityResult, call: int) -> ParityResult:
        """A call's result, refused where it is worse than the baseline."""
        said = self._item.config.stash[BASELINE].worse(self.nodeid, call, result)
        if not said:
            return result
        from dataclasses import replace

        from pytest_reflex.verdict.results import BASELINE_GATE, Answer

        return replace(result, answers=(*result.answers, Answer.no(BASELINE_GATE, said)))

    def add(self, attempt: Attempt, result: ParityResult, expected: str, unmet: str, stage: str = "") -> None:
        """Keep one result for the reports; JUnit sees its verdict, later ones with their number."""
        entry = {"nodeid": self.nodeid, "call": len(self._results), **result.to_json()}
        if expected or unmet:
            self.leave("expected" if expected else "failed", expected or unmet)
        else:
            self._results.append(json.dumps(entry, allow_nan=False))
        if attempt.fails:
            self.told.fails[self.nodeid] = attempt.fails[0]
        suffix = "" if attempt.number == 1 else f"_attempt_{attempt.number}"
        suffix += "" if attempt.judged == 1 else f"_{attempt.judged}"
        suffix += f"_{stage}" if stage else ""
        largest = entry["max_abs_diff_across_all"]
        verdict = ("PASS" if result.passed else "FAIL") + (", as expected" if expected else "")
        verdict += "" if result.against == "policy" else ", against ONNX: PyTorch was not asked"
        self._item.user_properties += [
            (f"reflex_verdict{suffix}", verdict),
            (f"reflex_max_abs_diff{suffix}", "not measured" if largest is None else largest),
            (f"reflex_threshold{suffix}", entry["threshold"]),
        ]
        if not result.asked.is_plain:  # the threshold is the largest of several then, or not all
            self._item.user_properties.append((f"reflex_asked{suffix}", result.asked.text))
        if result.precision.short:
            self._item.user_properties.append((f"reflex_precision{suffix}", result.precision.short))

    def add_rollout(self, attempt: Attempt, said: str, *, passed: bool, note: str) -> None:
        """Keep the verdict of a closed loop for the terminal; JUnit sees it."""
        self._rollouts.append((said, "pass" if passed else "fail", note))
        if not passed:
            self.leave("failed", said)
        if attempt.fails:
            self.told.fails[self.nodeid] = attempt.fails[0]
        self._item.user_properties.append(("reflex_rollout", said))

    def leave(self, outcome: str, reason: str, name: str = "") -> None:
        """Keep what is no result, under the test's own name unless it has another."""
        self._not_compared.append({"nodeid": name or self.nodeid, "outcome": outcome, "reason": reason})

    def see(self, report: pytest.TestReport, *, strict: bool) -> None:
        """Look at a report of the test: refuse it where it hides a fail, and put what was found onto it."""
        now = self._current()
        now.called |= report.when == "call"
        refused = "" if report.failed else self._hidden(report, now) or self._empty(report, now)
        if not refused and not report.failed and strict and (why := self._silent(report, now)):
            refused = f"{why} (--reflex-strict)"
        if refused:
            refuse(report, refused)
            self.told.fails.setdefault(self.nodeid, refused)  # whoever runs tests again may drop this report
            if now.judged and not now.fails:  # what was judged says nothing of it
                self.leave("failed", _reason(report))
        now.told = len(now.fails)
        if report.failed:
            now.failures += 1
        elif _expected(report):
            self.told.fails.pop(self.nodeid, None)
        self._keep(report, now)
        if report.when == "teardown":
            now.over = True
        elif report.when == "call":
            now.passed = report.passed

    def _keep(self, report: pytest.TestReport, now: Attempt) -> None:
        """Put what was found onto the report."""
        if report.failed and self._outcome[0] != "failed":
            self._outcome = ("failed", _reason(report))
            where = {"file": str(self._item.path), "line": _line_in(self._item, report)}
            self._failures = [{"nodeid": self.nodeid, **where, "reason": self._outcome[1]}]
        elif report.skipped and self._outcome[0] == "passed":
            self._outcome = ("skipped", _reason(report))
        if report.when == "teardown" and not now.judged:
            self.leave(*self._outcome)
        found = {
            "results": self._results,
            "not_compared": self._not_compared,
            "failures": self._failures,
            "rollouts": self._rollouts,
        }
        if any(found.values()):
            setattr(report, ATTRIBUTE, json.dumps({"attempt": now.number, **found}))

    def _hidden(self, report: pytest.TestReport, now: Attempt) -> str:
        """Which fail this report would hide; empty when it hides none."""
        fails = [] if _expected(report) else now.fails[now.told :]
        if fails:
            return (
                f"{fails[0].removeprefix('parity FAIL: ')}; the test went on (parity.expect_fail expects one)"
            )
        if report.when != "teardown":
            return ""
        return RUNNING if now.running else ELSEWHERE if now.elsewhere else ""

    def _empty(self, report: pytest.TestReport, now: Attempt) -> str:
        """What is said of a parity test that ran to its end and compared nothing; empty of any other.

        A comparison without a verdict raised, for the test to see.
        """
        if not report.passed or now.begun or now.failures:
            return ""
        # What a fixture compares when it is taken down is seen only then.
        if report.when == "call" and not _compares_later(self._item):
            return NOTHING
        return NOTHING if report.when == "teardown" and now.passed else ""

    def _silent(self, report: pytest.TestReport, now: Attempt) -> str:
        """How this report would let a parity test by without a verdict; empty when it does not."""
        if hasattr(report, "wasxfail"):
            ended = "and did" if report.skipped else "but passed"
            return f"expected to fail, {ended}: {report.wasxfail or 'no reason given'}"
        if report.skipped:
            return f"skipped: {_reason(report)}"
        last = report.when == "teardown"
        if report.when == "setup" or (last and now.failures):
            return ""
        if not now.called:
            return NO_BODY
        if now.number > 1 and not self._attempts[-2].passed:
            return _again(now)
        return f"{now.unjudged} of its comparisons reached no verdict" if now.unjudged else ""


def _again(now: Attempt) -> str:
    return f"run again (attempt {now.number}), as attempt {now.number - 1} did not pass"


def _headline(result: ParityResult) -> str:
    from pytest_reflex.report.text.terminal import headline

    return headline(result)


def _is_first(stage: str) -> bool:
    from pytest_reflex.result import STAGES

    return stage == STAGES[0]


def _expected(report: pytest.TestReport) -> bool:
    """Whether the test failed as its xfail marker says, for everyone to see."""
    return report.skipped and hasattr(report, "wasxfail")


def _compares_later(item: pytest.Item) -> bool:
    """Whether a fixture of the test has ``parity`` too, and may compare in its teardown."""
    known = getattr(getattr(item, "_fixtureinfo", None), "name2fixturedefs", {})
    return any("parity" in definition.argnames for several in known.values() for definition in several)


def is_parity_test(item: pytest.Item) -> bool:
    """Whether a test compares, by what it asks for; or by its text where it was skipped before it could."""
    if item.get_closest_marker("parity") is not None or "parity" in getattr(item, "fixturenames", ()):
        return True
    owner: Any = getattr(item, "cls", None)
    if not getattr(owner, "__unittest_skip__", False):
        return False
    import inspect

    # The fixtures of a unittest class that is skipped as a whole are never looked at.
    return re.search(r"\bparity\b", inspect.getsource(owner)) is not None


def refuse(report: pytest.TestReport | pytest.CollectReport, why: str) -> None:
    """Turn a report into a failure."""
    # A real exception, so that the short summary and JUnit show the message as they do for any other.
    try:
        raise pytest.fail.Exception(f"parity FAIL: {why}")
    except pytest.fail.Exception:
        shown = verdict_first(pytest.ExceptionInfo.from_current()).getrepr(style="value")
    report.outcome = "failed"
    report.longrepr = shown
    if hasattr(report, "wasxfail"):
        del report.wasxfail


# What stands between a test and its policy: this package, and what torch calls any module by.
_OWN: Final = str(Path(__file__).resolve().parent.parent)
_TORCH: Final = ("_wrapped_call_impl", "_call_impl")

_Info = TypeVar("_Info", bound=pytest.ExceptionInfo[BaseException])


def verdict_first(info: _Info) -> _Info:
    """Let pytest show the message without the exception's name before it, as it does for a plain assert."""
    kind = info.type
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    # Not public: where pytest knows no such attribute the name stays, and nothing else changes.
    info._striptext = f"{name}: "
    return info


def users_frames(error: BaseException) -> None:
    """Let what went wrong in a policy be told from the policy's own line on, not from what called it here.

    What did not get as far as that is told by the message alone.
    """
    causes: list[BaseException] = []
    following = error.__cause__
    while following is not None and following not in causes:
        causes.append(following)
        following = following.__cause__
    own = [_from_a_policy(cause.__traceback__) for cause in causes]
    if causes and not any(own) and all(cause.__traceback__ for cause in causes):
        error.__cause__, error.__suppress_context__ = None, True
    for cause, found in zip(causes, own, strict=True):
        cause.__traceback__ = found or cause.__traceback__


def _from_a_policy(found: TracebackType | None) -> TracebackType | None:
    """The frames from the first on that neither is this package's nor what torch calls any module by."""
    while found is not None and _calls_a_policy(found.tb_frame.f_code):
        found = found.tb_next
    return found


def _calls_a_policy(code: CodeType) -> bool:
    return code.co_filename.startswith(_OWN) or code.co_name in _TORCH


def _line_in(item: pytest.Item, report: pytest.TestReport) -> int:
    """The line, from 1, at which a test failed in its own file; its first line where it did not get there."""
    entries = getattr(getattr(report.longrepr, "reprtraceback", None), "reprentries", ())
    places = [place for entry in entries if (place := getattr(entry, "reprfileloc", None)) is not None]
    own = [int(place.lineno) for place in places if Path(item.config.rootpath, place.path) == item.path]
    own += [int(place.lineno) for place in places if Path(place.path).absolute() == item.path]
    return own[-1] if own else (item.location[1] or 0) + 1


def _reason(report: pytest.TestReport) -> str:
    """Why a report says what it says, in one line."""
    if hasattr(report, "wasxfail"):
        return f"xfail: {report.wasxfail or 'no reason given'}"
    longrepr = report.longrepr
    if isinstance(longrepr, tuple):
        text = str(longrepr[2]).removeprefix("Skipped: ")
    else:
        crash = getattr(longrepr, "reprcrash", None)
        text = str(crash.message if crash is not None else longrepr).removeprefix("Failed: ")
    lines = text.strip().splitlines()
    return lines[0] if lines else "no reason given"
