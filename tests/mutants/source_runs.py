"""Has the tests judge mutants of the source: each in a copy of the tree, those that run its lines first."""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final

import pytest
from source_child import FORKS, MEASURE, NOT_HERE, TEST, TOLD, TOO_LONG
from source_operators import Mutant

ROOT: Final = Path(__file__).resolve().parents[2]
SUITES: Final = ("tests/pytest_reflex", "tests/known_bad", "tests/hostile")
# How much longer than on the honest tree a test may take: its fixtures may have been another's to make.
TIMES: Final = 10
SECONDS: Final = 60.0
QUICK_S: Final = 20.0
_PR_SET_CHILD_SUBREAPER: Final = 36


@dataclass(frozen=True)
class Known:
    """What the honest tree's tests of one file do.

    Attributes:
        seconds: how long each test that passes takes, its fixtures included.
        failed: those that do not pass here; they kill nothing.
        lines: for each file of the source the tests that run each of its lines, in any process.
        imports: the lines that run before any test does.
    """

    seconds: dict[str, float]
    failed: list[str]
    lines: dict[str, dict[int, list[str]]]
    imports: dict[str, list[int]]


@dataclass(frozen=True)
class End:
    """How a mutant ended: ``killed``, ``too long`` or ``survived``.

    Attributes:
        end: one of these.
        by: the test that refused it.
        stage: how far it came: 0 for the first tests that were asked.
        seconds: how long that took.
    """

    end: str
    by: str
    stage: int
    seconds: float


@dataclass
class Ran:
    """How one pytest ended, and its tests."""

    code: int
    outcomes: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    text: str = ""

    @property
    def first_bad(self) -> str:
        return next((test for test, outcome in self.outcomes.items() if outcome not in _GOOD), "")


_GOOD: Final = ("passed", "skipped")
# A mutant that leaves no test to run is refused by none.
_DONE: Final = (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED)


def tree_files() -> list[str]:
    """What belongs to the tree: environments and what is ignored do not."""
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    done = subprocess.run(listed, cwd=ROOT, check=True, capture_output=True)
    return sorted(name for name in done.stdout.decode().split("\0") if name and (ROOT / name).is_file())


class Bench:
    """A copy of the tree, a process that has imported what is slow to import, and what runs in them.

    Args:
        place: where the copy lies; it is made anew.
        nice: how much others on this machine come first, at least.
    """

    def __init__(self, place: Path, nice: int = 10) -> None:
        self.tree, self._nice = place, nice
        shutil.rmtree(place, ignore_errors=True)
        self._files = tree_files()
        for name in self._files:
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, place / name)
        # Short, for the name of a socket may have 107 bytes.
        self._work = Path(tempfile.mkdtemp(prefix="mutant"))
        self._work.chmod(0o755)  # there are tests that go on as another user
        self._socket = self._work / "s"
        # Another time for each change, or a compiled file of the last one would be taken for it.
        self._time = itertools.count(int(time.time()), 2)
        self._env = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("COVERAGE_", "PYTEST_"))},
            "OMP_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1",
            "TMPDIR": str(self._work),
            "PYTHONPATH": os.pathsep.join([str(self.tree), str(Path(__file__).parent)]),
            "REFLEX_WARM": str(self._socket),
        }
        self._is_closed = False
        self._forks: subprocess.Popen[bytes] | None = None
        self._spared: int | None = None
        self._collected: set[str] = set()
        self._start()

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        shutil.rmtree(self._work, ignore_errors=True)

    def close(self) -> None:
        """End what runs here; nothing can be run any more."""
        self._is_closed = True
        _kill(_below(self._server.pid))
        self._server.kill()
        self._server.wait()

    def _start(self) -> None:
        self._socket.unlink(missing_ok=True)
        log = (self._work / "server").open("w")
        self._server = subprocess.Popen(
            [sys.executable, str(Path(__file__).parent / "source_child.py"), str(self._socket)],
            env=self._env, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            preexec_fn=lambda: _as_server(self._nice),
        )  # fmt: skip
        log.close()
        while not self._socket.exists():
            if self._server.poll() is not None:
                raise RuntimeError(f"no server for the tests:\n{(self._work / 'server').read_text()}")
            time.sleep(0.05)

    def pytest(
        self,
        files: Iterable[str],
        tests: Sequence[str] | None = None,
        limits: Mapping[str, float] | None = None,
        *arguments: str,
        env: Mapping[str, str] | None = None,
        seconds: float | None = None,
    ) -> Ran:
        """Run tests of these files in this order, and leave no process behind.

        Raises:
            RuntimeError: the bench was closed meanwhile, which says nothing of the tests.
        """
        ended = self._work / "ended"
        ended.write_text("")
        with (self._work / "said").open("w+") as said:
            client = self._client(files, {"tests": tests, "limits": limits or {}, "ended": str(ended)},
                                  arguments, env or {}, said)  # fmt: skip
            try:
                code = client.wait(seconds)
            except subprocess.TimeoutExpired:
                client.kill()
                code = client.wait() and TOO_LONG
            said.seek(0)
            text = said.read()
        return self._ran(code, text)

    def _client(
        self,
        files: Iterable[str],
        told: object,
        arguments: Iterable[str],
        env: Mapping[str, str],
        said: IO[str],
    ) -> subprocess.Popen[bytes]:
        """Have the server run pytest; ``told`` is for the plugin in there."""
        place = self._work / f"told{next(self._time)}"
        place.write_text(json.dumps(told))
        command = [
            sys.executable, "-S", "-E", str(ROOT / "tests" / "support" / "warm.py"), str(self._socket),
            "-m", "pytest", "-q", "--no-header", "-p", "source_child", "-p", "no:cacheprovider",
            f"--basetemp={self._work / 't'}", *arguments, *files,
        ]  # fmt: skip
        return subprocess.Popen(
            command, cwd=self.tree, env={**self._env, TOLD: str(place), TEST: "", **env},
            stdin=subprocess.DEVNULL, stdout=said, stderr=said,
        )  # fmt: skip

    def _ran(self, code: int, text: str = "") -> Ran:
        if self._is_closed:
            raise RuntimeError("ended before its tests had")
        _kill(pid for pid in _below(self._server.pid) if pid != self._spared)
        if self._server.poll() is not None:
            self._start()
        found = Ran(code, text=text)
        for line in (self._work / "ended").read_text().splitlines():
            one = json.loads(line)
            test = one["test"]
            found.seconds[test] = found.seconds.get(test, 0.0) + one["seconds"]
            if found.outcomes.get(test) in (None, *_GOOD):
                found.outcomes[test] = one["outcome"]
        return found

    def collect(self, files: Iterable[str]) -> None:
        """Import these files of tests once, so that :meth:`forked` need not.

        Raises:
            RuntimeError: they could not be collected.
        """
        place, said = self._work / "f", self._work / "forks"
        self._collected = set(files)
        told = {"tests": None, "limits": {}, "ended": str(self._work / "ended")}
        with said.open("w") as file:
            self._forks = self._client(
                sorted(self._collected), told, ["-x", "--tb=native"], {FORKS: str(place)}, file
            )
        while not place.exists():
            if self._forks.poll() is not None:
                raise RuntimeError(f"no forks for the tests:\n{said.read_text()}")
            time.sleep(0.05)
        self._spared = next(iter(_below(self._server.pid)))

    def forked(
        self, tests: Sequence[str], limits: Mapping[str, float], seconds: float, path: str, honest: bytes
    ) -> Ran | None:
        """Run tests in a fork of the process that has collected them, until one fails.

        Args:
            tests: which, in their order.
            limits: seconds of each.
            seconds: how long they may take together.
            path: a file of the source whose text is not what was imported; empty where there is none.
            honest: the text that was imported.

        Returns:
            How they ended; None where this change, or these tests, need a process of their own.
        """
        if self._forks is None or not {_file(test) for test in tests} <= self._collected:
            return None
        ended = self._work / "ended"
        ended.write_text("")
        changed = {"file": str(self.tree / path), "honest": honest.decode()} if path else None
        asked = {"tests": list(tests), "limits": dict(limits), "ended": str(ended), "changed": changed}
        with socket.socket(socket.AF_UNIX) as caller:
            caller.settimeout(seconds)
            try:
                caller.connect(str(self._work / "f"))
                with caller.makefile("rw") as lines:
                    lines.write(json.dumps(asked) + "\n")
                    lines.flush()
                    code = int(lines.readline() or NOT_HERE)
            except TimeoutError:
                code = TOO_LONG
            except OSError:
                code = NOT_HERE
        return None if code == NOT_HERE else self._ran(code)

    def digest(self, test_file: str) -> str:
        """Of the source, of what tests share, and of one file of tests: what its lines depend on."""
        whole = hashlib.sha256()
        for name in self._files:
            shared = name.startswith("tests/") and not Path(name).name.startswith("test_")
            counts = name.startswith("pytest_reflex/") or shared or name == test_file
            if name.endswith(".py") and counts and not name.startswith("tests/mutants/"):
                whole.update(f"{name}\0".encode() + (self.tree / name).read_bytes())
        return whole.hexdigest()

    @contextlib.contextmanager
    def with_text(self, path: str, text: bytes) -> Iterator[None]:
        """The tree with another text of one file."""
        file = self.tree / path
        honest = file.read_bytes()
        self._write(file, text)
        try:
            yield
        finally:
            self._write(file, honest)

    def _write(self, file: Path, text: bytes) -> None:
        file.write_bytes(text)
        now = next(self._time)
        os.utime(file, (now, now))

    def known(self, test_file: str) -> Known:
        """Measure the tests of one file on the honest tree.

        Raises:
            RuntimeError: they could not be run.
        """
        import coverage

        place = self._work / "measured"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        (place / "rc").write_text(
            f"[run]\nsource = {self.tree / 'pytest_reflex'}\ndata_file = {place / 'data'}\nparallel = true\n"
            f"context = ${{{TEST}}}\npatch = fork, _exit\ndisable_warnings = no-data-collected, "
            "module-not-measured, module-not-imported, couldnt-parse\ncore = ctrace\n"
        )
        ran = self.pytest([test_file], env={MEASURE: str(place / "rc")})
        if ran.code not in (0, 1):
            raise RuntimeError(f"{test_file}: pytest ended with {ran.code}:\n{ran.text[-2000:]}")
        bad = [test for test, outcome in ran.outcomes.items() if outcome not in _GOOD]
        # A memory or a time may be another when lines are measured.
        again = self.pytest([test_file], bad) if bad else Ran(0)
        failed = [test for test in bad if again.outcomes.get(test) not in _GOOD]
        combined = coverage.Coverage(data_file=str(place / "data"), config_file=str(place / "rc"))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what was killed leaves files without data
            combined.combine([str(place)])
        data = combined.get_data()
        known = Known({t: s for t, s in ran.seconds.items() if t not in failed}, failed, {}, {})
        for file in data.measured_files():
            path = str(Path(file).relative_to(self.tree))
            for line, contexts in data.contexts_by_lineno(file).items():
                tests = sorted({c.rpartition("|")[2] for c in contexts} & set(known.seconds))
                known.lines.setdefault(path, {})[line] = tests
                if "" in contexts:
                    known.imports.setdefault(path, []).append(line)
        return known


def _as_server(nice: int) -> None:
    os.nice(max(0, nice - os.nice(0)))
    # What loses its parent is still found below the server.
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _below(pid: int) -> list[int]:
    """The processes that come from one, the nearest first."""
    parents: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError, ValueError, IndexError):
                state, parent = Path("/proc", entry, "stat").read_text().rpartition(")")[2].split()[:2]
                if state != "Z":
                    parents.setdefault(int(parent), []).append(int(entry))
    found = list(parents.get(pid, []))
    for child in found:
        found += parents.get(child, [])
    return found


def _kill(pids: Iterable[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def test_files() -> list[str]:
    return sorted(
        name
        for name in tree_files()
        if name.startswith(SUITES) and Path(name).name.startswith("test_") and name.endswith(".py")
    )


class Judge:
    """The tests of the honest tree, and what they say of a mutant.

    Args:
        known: what each file of tests does.
        quick: so many seconds of the tests that run a mutant's lines are asked, and no others; None for all.
    """

    def __init__(self, known: Iterable[Known], quick: float | None = None) -> None:
        self._quick = quick
        self._lines: dict[str, dict[int, set[str]]] = {}
        self._imports: dict[str, set[int]] = {}
        self.seconds: dict[str, float] = {}
        self.failed: list[str] = []
        self._alone: dict[str, bool] = {}
        for one in known:
            self.seconds |= one.seconds
            self.failed += one.failed
            for path, lines in one.lines.items():
                for line, tests in lines.items():
                    self._lines.setdefault(path, {}).setdefault(int(line), set()).update(tests)
            for path, early in one.imports.items():
                self._imports.setdefault(path, set()).update(early)
        self._limits = {test: SECONDS + TIMES * seconds for test, seconds in self.seconds.items()}

    def stages(self, mutant: Mutant) -> list[list[str]]:
        """The tests that run its lines, its room's and the quickest first; then what else may see it.

        What runs at an import is run by all tests that import it, so the quick ones of its room begin. A
        fixture is made in the test that asks for it first, and others look at it: so all tests of a file
        may see what one of them runs. Each file is measured in a process of its own, so a file of which no
        test runs the lines, in whatever process, does not.
        """
        lines = range(mutant.lines[0], mutant.lines[1] + 1)
        known = self._lines.get(mutant.path, {})
        room = f"tests/{Path(mutant.path).parent}/"
        good = {test for test in self.seconds if self._alone.get(test, True)}
        early = self._imports.get(mutant.path, set()) & set(lines)
        ours = {test for test in good if test.startswith(room)}
        first = self._within(QUICK_S, sorted(ours, key=self._seconds)) if early else []
        own = set().union(*(known.get(line, set()) for line in lines)) & good - set(first)
        # Apart, as a file of tests whose turn has not come is not imported either.
        stages = [first, sorted(own & ours, key=self._seconds), sorted(own - ours, key=self._seconds)]
        if self._quick is not None:
            asked = set(self._within(self._quick, itertools.chain(*stages)))
            return [kept for stage in stages if (kept := [test for test in stage if test in asked])]
        seen = {_file(test) for test in own}
        rest = {t for t in good if t.startswith(room) or _file(t) in seen} - own - set(first)
        stages.append(sorted(rest, key=lambda test: (test not in ours, _file(test))))
        return [stage for stage in stages if stage]

    def _within(self, seconds: float, tests: Iterable[str]) -> list[str]:
        """The first of these that take no longer than this together."""
        several = list(tests)
        spent = itertools.accumulate(map(self._seconds, several))
        return [test for test, sum_ in zip(several, spent, strict=True) if sum_ <= seconds]

    def _seconds(self, test: str) -> float:
        return self.seconds[test]

    def judge(self, bench: Bench, mutant: Mutant) -> End:
        """Run tests until one refuses the mutant; a refusal is asked for twice."""
        begin = time.monotonic()
        honest = (bench.tree / mutant.path).read_bytes()
        while True:
            with bench.with_text(mutant.path, mutant.of(honest)):
                end, by, stage = self._asked(bench, self.stages(mutant), mutant.path, honest)
            if by not in self.seconds or self._passes_alone(bench, by):
                return End(end, by, stage, round(time.monotonic() - begin, 1))

    def _asked(
        self, bench: Bench, stages: Sequence[Sequence[str]], path: str, honest: bytes
    ) -> tuple[str, str, int]:
        for number, stage in enumerate(stages):
            left = list(stage)
            while left:
                ran = self._run(bench, left, path, honest)
                if ran.code in _DONE:
                    break
                by = ran.first_bad
                # A machine that others use may have made the test fail, and not the mutant.
                again = self._run(bench, [by] if by else left, path, honest)
                if again.code not in _DONE:
                    end = "too long" if ran.code == TOO_LONG else "killed"
                    return end, by or again.first_bad or "pytest itself", number
                left = left[left.index(by) + 1 :] if by else []
        return "survived", "", len(stages)

    def _passes_alone(self, bench: Bench, test: str) -> bool:
        """Whether the honest tree passes it so; a test that needs another before it can say nothing here."""
        if test not in self._alone:
            self._alone[test] = self._run(bench, [test]).code == 0
        return self._alone[test]

    def _run(self, bench: Bench, tests: Sequence[str], path: str = "", honest: bytes = b"") -> Ran:
        seconds = 2 * (SECONDS + TIMES * sum(map(self._seconds, tests)))
        ran = bench.forked(tests, self._limits, seconds, path, honest)
        if ran is not None:
            return ran
        files = list(dict.fromkeys(_file(test) for test in tests))
        return bench.pytest(files, tests, self._limits, "-x", seconds=seconds)


def without_overlaps(mutants: Iterable[Mutant]) -> list[list[Mutant]]:
    """The mutants in groups, as few as there may be, of which no two change the same text."""
    groups: list[list[Mutant]] = []
    for mutant in sorted(mutants, key=lambda m: (m.path, m.start, m.end)):
        for group in groups:
            if (group[-1].path, group[-1].end) < (mutant.path, mutant.start) or group[-1].path != mutant.path:
                group.append(mutant)
                break
        else:
            groups.append([mutant])
    return groups


def surviving(bench: Bench, mutants: Sequence[Mutant]) -> list[tuple[Mutant, End]]:
    """Those of the mutants, which do not overlap, that all tests pass with, many of them in one tree.

    A test that fails on the honest tree too says nothing.
    """
    begin = time.monotonic()
    with contextlib.ExitStack() as changed:
        for path, several in itertools.groupby(mutants, key=lambda m: m.path):
            text = (bench.tree / path).read_bytes()
            for mutant in sorted(several, key=lambda m: -m.start):
                text = mutant.of(text)
            changed.enter_context(bench.with_text(path, text))
        ran = bench.pytest(test_files())
        bad = [test for test, outcome in ran.outcomes.items() if outcome not in _GOOD]
        if bad:
            again = bench.pytest(dict.fromkeys(map(_file, bad)), bad)
            bad = [test for test in bad if again.outcomes.get(test) not in _GOOD]
    if bad:
        honest = bench.pytest(dict.fromkeys(map(_file, bad)), bad)
        bad = [test for test in bad if honest.outcomes.get(test) in _GOOD]
    if ran.code in (*_DONE, pytest.ExitCode.TESTS_FAILED) and not bad:
        seconds = round((time.monotonic() - begin) / len(mutants), 1)
        return [(mutant, End("survived", "", 0, seconds)) for mutant in mutants]
    half = len(mutants) // 2
    return [one for part in (mutants[:half], mutants[half:]) if half for one in surviving(bench, part)]


def _file(test: str) -> str:
    return test.partition("::")[0]
