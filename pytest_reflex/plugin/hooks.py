"""The pytest plugin: each hook is a few lines onto the files beside it. Imports nothing heavy."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import re
import shlex
import sys
from argparse import Namespace
from collections.abc import Generator
from pathlib import Path
from typing import Any, Final

import pytest

from pytest_reflex import settings
from pytest_reflex.errors import ParityError, ReflexError, SettingsError
from pytest_reflex.plugin.baseline import BASELINE, Baseline
from pytest_reflex.plugin.collector import Collector, Told, told_by
from pytest_reflex.plugin.exits import WatchedExits
from pytest_reflex.plugin.fixture import Parity
from pytest_reflex.plugin.outcome import Outcome, is_parity_test, refuse, users_frames, verdict_first
from pytest_reflex.plugin.progress_line import line_for

_SOURCES: Final = pytest.StashKey[tuple[settings.Source, settings.Source]]()
_SETTINGS: Final = pytest.StashKey[settings.Settings]()
_OUTCOME: Final = pytest.StashKey[Outcome]()
_COLLECTOR: Final = pytest.StashKey[Collector]()
_EXITS: Final = pytest.StashKey[WatchedExits]()
# What a worker says when it ends, by the name that it has in xdist's message.
_TOLD: Final = "reflex_told"
# What pytest does instead of running tests.
_OTHERWISE: Final = (
    "help", "version", "markers", "showfixtures", "show_fixtures_per_test", "cacheshow", "collectonly"
)  # fmt: skip


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("reflex", "parity of an ONNX export with its PyTorch reference")
    for name, setting in settings.RUN.items():
        text = setting.help_with_default
        flag, *twin = setting.flags(name, "--reflex-")
        how = "store_true" if setting.switch else "append" if setting.repeated else "store"
        kind = {"action": how} if setting.switch else {"action": how, "metavar": setting.metavar}
        # No default but None: anything else would hide the ini file's value.
        given: dict[str, Any] = {"dest": f"reflex_{name}", "default": None}
        group.addoption(flag, help=text, **given, **kind)
        for no in twin:
            group.addoption(no, action="store_false", help=f"the opposite of {flag}", **given)
        # Before pytest 9.2 an ini value has no union of types.
        type_ = setting.ini if pytest.version_tuple >= (9, 2) else "string"
        parser.addini(f"reflex_{name}", text, type=type_, default=None)  # type: ignore[arg-type]


def _marker_line() -> str:
    keywords = ", ".join(
        f"{name}={setting.default!r}" if setting.ini is str else f"{name}={setting.default}"
        for name, setting in settings.PARITY.items()
    )
    return (
        f"parity({keywords}): "
        "a test that compares an export with its PyTorch reference through the `parity` fixture."
    )


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_load_initial_conftests(
    early_config: pytest.Config, args: list[str]
) -> Generator[None, None, None]:
    """Before anything of the user's runs, which may end the process."""
    options = [given.partition("=")[0] for given in args if given.startswith("--reflex-")]
    _require_known("option", options, _flags())
    # What is wrong is said once the command line is read to its end; a worker's files are not its own.
    with contextlib.suppress(SettingsError, pytest.UsageError):
        # What a worker's test starts has its environment too, and was not started as execnet starts one.
        if "PYTEST_XDIST_WORKER" not in os.environ or sys.argv[:1] != ["-c"]:
            _begin(early_config, early_config.known_args_namespace)
    try:
        made = yield
        early_config.pluginmanager.register(_LastWord())
        return made
    except SystemExit as error:
        if _SETTINGS in early_config.stash and early_config.stash[_SETTINGS].strict:
            raise pytest.UsageError(f"a conftest.py called exit({error}), so no test was run") from error
        raise


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", _marker_line())
    # Not public: an ini value that nobody reads is else a warning that few see, and its default is taken.
    ini = config._inicfg if hasattr(config, "_inicfg") else getattr(config, "inicfg", {})
    lines = [name for name in ini if name.startswith("reflex_")]
    _require_known("ini value", lines, [f"reflex_{name}" for name in settings.RUN])
    try:
        _begin(config, config.option)
    except SettingsError as error:
        raise pytest.UsageError(str(error)) from None
    config.stash[BASELINE].require_file(config.stash[_SOURCES][0].named("baseline"))
    if not hasattr(config, "workerinput"):
        # Without a name: `-p no:` and that name would leave the session without a last word.
        config.pluginmanager.register(_Controller(config, config.stash[_COLLECTOR]))
    shown = line_for(config)
    if shown is not None:
        config.pluginmanager.register(shown, "reflex-live")


def _flags() -> list[str]:
    return [flag for name, setting in settings.RUN.items() for flag in setting.flags(name, "--reflex-")]


def _require_known(what: str, given: list[str], known: list[str]) -> None:
    if strange := [name for name in given if name not in known]:
        from pytest_reflex.verdict.naming import unknown

        raise pytest.UsageError(f"{unknown(what, strange, known)}; there are {', '.join(known)}")


def _begin(config: pytest.Config, option: Namespace) -> None:
    """Read the settings, and have the files of an earlier run say that this one has not finished."""
    given = settings.command_line({name: getattr(option, f"reflex_{name}", None) for name in settings.RUN})
    ini = settings.ini_file({name: config.getini(f"reflex_{name}") for name in settings.RUN})
    config.stash[_SOURCES] = (given, ini)
    config.stash[_SETTINGS] = chosen = settings.resolve(given, ini)
    places = {name: _place(config, name) for name in ("json", "report")}
    baseline = _place(config, "baseline")
    config.stash[BASELINE] = Baseline(baseline, chosen.baseline_factor, chosen.baseline_update)
    written = [places["json"], places["report"] and places["report"] / "parity.json"]
    if baseline is not None and baseline.resolve() in [path.resolve() for path in written if path]:
        raise pytest.UsageError(
            f"{given.named('baseline')}: {baseline.name!r} is where this run writes what it finds; give a "
            "copy"
        )
    if not hasattr(config, "workerinput"):
        config.stash[_COLLECTOR] = Collector(strict=chosen.strict, root=config.rootpath, **places)
        if _runs_tests(option):
            config.stash[_COLLECTOR].begin()
            if _EXITS not in config.stash:
                config.stash[_EXITS] = exits = WatchedExits(
                    lambda: _why_not(config), lambda why: _cry(config, why)
                )
                config.add_cleanup(exits.restore)


def _why_not(config: pytest.Config, code: int = pytest.ExitCode.OK) -> str:
    return config.stash[_COLLECTOR].overruled(code, config)


def _cry(config: pytest.Config, why: str) -> None:
    """Say on stderr that the exit code is to be another, also while a test's output is captured."""
    capture = config.pluginmanager.getplugin("capturemanager")
    if capture is not None:
        capture.suspend_global_capture(in_=False)
    sys.stderr.write(f"reflex: error: pytest was to exit with 0, and that would hide this: {why}\n")
    sys.stderr.flush()


def _runs_tests(option: Namespace) -> bool:
    return not any(getattr(option, name, False) for name in _OTHERWISE)


def _place(config: pytest.Config, name: str) -> Path | None:
    """Where to write: relative to where pytest was started, or for the ini file's value to the ini file."""
    text = getattr(config.stash[_SETTINGS], name)
    if text is None:
        return None
    from_ini = config.stash[_SOURCES][0].values[name] is None
    home = (
        (config.inipath.parent if config.inipath else config.rootpath)
        if from_ini
        else config.invocation_params.dir
    )
    place = Path(home, text)
    if place.is_dir() if name != "report" else place.exists() and not place.is_dir():
        what = "a file; give a directory" if name == "report" else "a directory; give a file"
        raise pytest.UsageError(f"{config.stash[_SOURCES][from_ini].named(name)}: {text!r} is {what}")
    return place


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> Generator[None, int, int]:
    """The last word on the exit code: an exit from anywhere else goes past the end of the session."""
    if (exits := config.stash.get(_EXITS, None)) is not None:
        exits.held = True  # pytest tidies up before it has its code
    code: int = pytest.ExitCode.TESTS_FAILED
    try:
        try:
            code = yield
        except SystemExit as error:  # of a hook at the session's end
            if error.code:
                raise
            code = pytest.ExitCode.OK
        if _EXITS in config.stash and (why := _why_not(config, code)):
            _cry(config, why)
            code = pytest.ExitCode.TESTS_FAILED
        return code
    finally:
        if exits is not None:
            exits.ended(code)


class _LastWord:
    """The same once more, around what a conftest has registered meanwhile."""

    pytest_cmdline_main = staticmethod(pytest_cmdline_main)


def _markers(item: pytest.Item) -> list[settings.Source]:
    return [settings.marker(mark.kwargs, mark.args, item.nodeid) for mark in item.iter_markers("parity")]


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """A bad marker is a fail of its own test: the others run, and each bad one is told of."""
    bad = ""
    try:
        settings.resolve(*_markers(item))
    except SettingsError as error:
        bad = str(error)
    if bad:  # out here, for what is raised in there is shown with what it was raised for
        pytest.fail(bad, pytrace=False)


def pytest_collection_finish(session: pytest.Session) -> None:
    told_by(session.config).collected += [item.nodeid for item in session.items if is_parity_test(item)]


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    worker = getattr(session.config, "workeroutput", None)
    if worker is not None:
        worker[_TOLD] = json.dumps(vars(told_by(session.config)))


@pytest.fixture
def parity(request: pytest.FixtureRequest) -> Parity:
    """Compares an export with its PyTorch reference: ``parity.check(reference, candidate)``."""
    item = request.node
    given, ini = request.config.stash[_SOURCES]

    def resolve(call: settings.Source) -> settings.Settings:
        own = call, *_markers(item)
        return settings.with_its_claim(settings.resolve(given, *own, ini), *own)

    report = request.config.stash[_SETTINGS].report
    page = None if report is None else str(Path(report, "index.html"))
    rerun = None if report else f"pytest {shlex.quote(_from_here(item))} --reflex-report parity_reports"
    attempt = _outcome_of(item).begin()
    return Parity(
        str(item.nodeid),
        resolve,
        attempt.record,
        report=page,
        rerun=rerun,
        during=attempt,
        suffix=attempt.suffix,
        store=functools.partial(_simplest_place, request.config),
        held=attempt.held,
        drove=attempt.drove,
        rollouts=functools.partial(_rollout_place, request.config),
        absent=attempt.absent,
    )


def _rollout_place(config: pytest.Config, name: str) -> Path | None:
    """Where the page of a closed loop goes, beside the report; nowhere without one."""
    report = _place(config, "report")
    return None if report is None else report / "rollouts" / f"{_short(name)}.html"


def _simplest_place(config: pytest.Config, name: str) -> Path | None:
    """Where a result's simplest failing input goes: to the report, or into pytest's cache; else nowhere."""
    report, cache = _place(config, "report"), getattr(config, "cache", None)
    if report is not None:
        home = report / "simplest"
    elif cache is not None:
        home = Path(cache.mkdir("simplest"))
    else:
        return None
    return home / f"{_short(name)}.safetensors"


def _short(name: str) -> str:
    """A file's name for a result's, short, for it stands in a line of the failure."""
    words = re.sub(r"[^A-Za-z0-9_.-]+", "-", name.rpartition("::")[2])[:16].strip("-._")
    return f"{words}-{hashlib.sha256(name.encode()).hexdigest()[:6]}"


def _from_here(item: pytest.Item) -> str:
    """The item's node id as it is written on a command line where pytest was started."""
    _, colons, rest = str(item.nodeid).partition("::")
    return os.path.relpath(item.path, item.config.invocation_params.dir) + colons + rest


def _outcome_of(item: pytest.Item) -> Outcome:
    return item.stash.setdefault(_OUTCOME, Outcome(item))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    if call.excinfo is not None and isinstance(call.excinfo.value, ParityError):
        verdict_first(call.excinfo)
    elif (
        call.excinfo is not None
        and isinstance(call.excinfo.value, ReflexError)
        and not item.config.getoption("fulltrace")
    ):
        users_frames(call.excinfo.value)
    report = yield
    if _OUTCOME in item.stash or is_parity_test(item):
        _outcome_of(item).see(report, strict=item.config.stash[_SETTINGS].strict)
    return report


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    if not collector.config.stash[_SETTINGS].strict:
        return report
    if report.skipped and isinstance(collector, pytest.Module):
        from pytest_reflex.plugin.skipped_modules import mentions_parity

        if mentions_parity(collector):
            why = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
            why = f"a module with parity tests was skipped: {why.removeprefix('Skipped: ')}"
            refuse(report, f"{why} (--reflex-strict)")
    elif report.passed and not report.result and isinstance(collector, pytest.Class):
        from pytest_reflex.plugin.skipped_modules import has_parity_tests

        if has_parity_tests(collector):
            refuse(
                report, "a class with parity tests was not collected: it has a constructor (--reflex-strict)"
            )
    return report


@pytest.hookimpl(optionalhook=True)
def pytest_html_results_table_header(cells: list[str]) -> None:
    """A column of pytest-html's table, of the figure beside its threshold."""
    cells.insert(2, '<th class="sortable" data-column-type="parity">max_abs_diff</th>')


@pytest.hookimpl(optionalhook=True)
def pytest_html_results_table_row(report: pytest.TestReport, cells: list[str]) -> None:
    said = dict(getattr(report, "user_properties", ()))
    figure, bound = said.get("reflex_max_abs_diff"), said.get("reflex_threshold")
    text = f"{figure:.3e} of {bound:.1e}" if isinstance(figure, float) and isinstance(bound, float) else ""
    cells.insert(2, f"<td>{text}</td>")


def _last_line(error: object) -> str:
    """What an error says in the end; the ``assert`` that xdist wraps a worker's traceback in says nothing."""
    lines = [line.strip() for line in str(error).strip("' \n").splitlines()]
    said = [line for line in lines if line and not line.startswith("assert ")]
    return said[-1] if said else repr(error)


class _Controller:
    """The hooks of the process that sees every report and writes the files: never an xdist worker."""

    def __init__(self, config: pytest.Config, collector: Collector) -> None:
        self._config = config
        self._collector = collector
        self._commands: list[str] = []
        self._kept = ""

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._collector.saw(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed and not self._collector.uncollected:
            self._collector.uncollected = report.nodeid

    def pytest_internalerror(self, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        self._collector.problem(f"internal error: {_last_line(excinfo.value)}")

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        self._collector.workers.add(node.gateway.id)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any, error: object) -> None:
        output = getattr(node, "workeroutput", {})
        if told := output.get(_TOLD):
            self._collector.workers.discard(node.gateway.id)
            self._collector.hear(Told(**json.loads(told)))
        if error:
            self._collector.problem(f"worker {node.gateway.id} went down: {_last_line(error)}")

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int | pytest.ExitCode) -> None:
        if not _runs_tests(self._config.option):
            return
        self._collector.hear(told_by(self._config))
        if idle := self._idle_budget():
            self._collector.hear(Told(notes=[idle]))
        baseline = self._config.stash[BASELINE]
        if baseline.compares:  # a run is read for it, which no other session is to pay for
            self._kept, problem = baseline.told(self._collector.run(), strict=self._collector.strict)
            if problem:
                self._collector.problem(problem)
        self._collector.close()
        if baseline.update:
            self._kept, problem = baseline.write(self._collector.run())
            if problem:
                self._collector.problem(problem)
        self._commands = self._collector.tell_github()
        if not self._collector.problems:
            return
        if session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
        # Without a reporter, or with one that skips its summary after an internal error, say it here.
        silent = not self._config.pluginmanager.has_plugin("terminalreporter")
        if silent or exitstatus == pytest.ExitCode.INTERNAL_ERROR:
            sys.stderr.writelines(f"{command}\n" for command in self._commands)
            sys.stderr.writelines(f"reflex: error: {problem}\n" for problem in self._collector.problems)

    def _idle_budget(self) -> str:
        """That this run's budget for claims is nobody's; empty where it is somebody's, or none was given."""
        given, _ = self._config.stash[_SOURCES]
        budget = given.values.get("claim_budget")
        if budget is None or any(
            one.result.claim and one.result.claim.asked for one in self._collector.run().results
        ):
            return ""
        named = given.named("claim_budget")
        return f"{named} {budget}: no test asks for a claim; add --reflex-claim 1e-3@95%, or leave it out"

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if not _runs_tests(self._config.option) or (self._collector.empty and not self._kept):
            return
        terminalreporter.ensure_newline()
        terminalreporter.section("reflex: parity")
        markup = {"pass": {"green": True}, "fail": {"red": True}, "warning": {"yellow": True}, "plain": {}}
        width = self._config.get_terminal_writer().fullwidth
        notes = terminalreporter.verbosity > 0 or terminalreporter.hasopt("P")
        for text, kind in self._collector.summary(width, notes=notes):
            terminalreporter.write_line(text, **markup[kind])
        if self._kept:
            terminalreporter.write_line(self._kept)
        for command in self._commands:
            terminalreporter.write_line(command)
