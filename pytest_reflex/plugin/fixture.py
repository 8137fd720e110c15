"""What runs inside a test: the ``parity`` fixture's object, which checks, records and then raises."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack, cast

from pytest_reflex.errors import ParityError, ReflexError, RunnerError, SettingsError
from pytest_reflex.settings import CallOptions, CheckOptions, ParityOptions, Settings, Source, call

if TYPE_CHECKING:
    import numpy as np

    from pytest_reflex.inputs import InputSpec
    from pytest_reflex.inputs.episodes import Episodes
    from pytest_reflex.inputs.fixtures import MakesFixtures
    from pytest_reflex.judge.rollout.closed_loop import Driving
    from pytest_reflex.judge.rollout.environments import Made
    from pytest_reflex.judge.rollout.shown import RolloutResult
    from pytest_reflex.result import ParityResult, PipelineResult
    from pytest_reflex.verdict.matrix import Matrix


class Parity:
    """Proves inside a test that a candidate computes what its reference computes.

    Attributes:
        results: what this test has found so far, the failing ones too, in the order of the calls.
        rollouts: the same of its closed loops.
        matrices: what several runtimes gave beside each other, of the calls that were told ``runtimes``.
    """

    def __init__(
        self,
        name: str,
        resolve: Callable[[Source], Settings],
        record: Callable[..., None],
        *,
        report: str | None = None,
        rerun: str | None = None,
        during: AbstractContextManager[object] | None = None,
        suffix: str = "",
        store: Callable[[str], Path | None] | None = None,
        held: Callable[[ParityResult], ParityResult] = lambda result: result,
        drove: Callable[..., None] | None = None,
        rollouts: Callable[[str], Path | None] | None = None,
        absent: Callable[[str, str], None] = lambda name, reason: None,
    ) -> None:
        """
        Args:
            name: what results are called when the call gives no name: the test's node id.
            resolve: settings from one call's keywords and all other sources.
            record: told every result, before a failing one raises: ``record(result)``; by
                :meth:`expect_fail` what it says, as ``expected`` or as ``unmet``; and of a stage by
                :meth:`check_pipeline` its name, as ``stage``.
            report: where the report will lie, for the message.
            rerun: the command that runs this test again and keeps a report, for the message.
            during: entered while something is compared; it raises where nothing may be any more.
            suffix: what every result's name ends with.
            store: where the simplest failing input of a result goes, by its name; None keeps none.
            held: gives a result back, refused where it is worse than what is kept of an earlier run.
            drove: told the verdict of every closed loop, ``drove(said, passed=..., note=...)``.
            rollouts: where the page of a closed loop goes, by its name; None keeps none.
            absent: told of a runtime that reached no verdict, by the result's name, and why.
        """
        self.results: list[ParityResult] = []
        self.rollouts: list[RolloutResult] = []
        self.matrices: list[Matrix] = []
        self._calls = 0
        self._drove, self._rollouts = drove, rollouts
        self._name = name
        self._resolve = resolve
        self._record = record
        self._report = report
        self._rerun = rerun
        self._during = during or nullcontext()
        self._suffix = suffix
        self._store = store
        self._held = held
        self._absent = absent

    def __repr__(self) -> str:
        return f"<parity of {self._name}>"

    def check(
        self,
        reference: Any,
        candidate: Any,
        inputs: Sequence[InputSpec] | Sequence[Mapping[str, np.ndarray]] | Episodes | None = None,
        *,
        name: str | None = None,
        **options: Unpack[CallOptions],
    ) -> ParityResult:
        """Check the candidate against the reference; see :func:`pytest_reflex.check`.

        A setting is taken from the command line, then from here, then from the ``parity`` marker, then
        from the ini file, then its default. ``--reflex-strict`` tightens the threshold after that.

        Args:
            reference: the PyTorch policy, an ``nn.Module`` or a runner.
            candidate: an export, a path to an ``.onnx`` file, or a runner.
            inputs: input specifications, recorded inputs, or the episodes of a recording; None takes the
                candidate's own.
            name: what the result is called in reports.
            **options: ``threshold``, ``fixtures`` and so on, the keywords of
                :class:`~pytest_reflex.settings.CallOptions`.

        Returns:
            The result, which passed; of several ``runtimes`` the worst, all of which are in ``matrices``.

        Raises:
            ParityError: the verdict is fail, of several runtimes that of any. It fails the test, also where
                the test goes on after it.
            ReflexError: no verdict could be reached, of several runtimes on any.
        """
        __tracebackhide__ = True
        made: Matrix | None = None
        with self._during, ExitStack() as others:
            settings = self._told(options)
            if settings.runtimes:
                from pytest_reflex.report.text.matrix import no_verdict

                for _ in settings.runtimes[1:]:  # each is a comparison
                    others.enter_context(self._during)
                made = self._judged_on(reference, candidate, inputs, name, settings)
                if made.worst.result is None:
                    raise RunnerError(no_verdict(made))
                result = cast("ParityResult", made.worst.result)
            else:
                result = self._judged(reference, candidate, inputs, name, settings, diagnose=True)
                self._record(result)
        if not result.passed:
            from pytest_reflex.report.text.console import columns
            from pytest_reflex.report.text.matrix import matrix_failure
            from pytest_reflex.report.text.terminal import PREFIX, failure_message

            width = columns() - PREFIX
            said = failure_message(result, report=self._report, rerun=self._rerun, width=width)
            raise ParityError(said if made is None else matrix_failure(made, said, width), result)
        return result

    def check_pipeline(
        self,
        policy: Any,
        bundle: Any,
        source: Any = None,
        *,
        inputs: MakesFixtures | None = None,
        thresholds: Mapping[str, Any] | None = None,
        name: str | None = None,
        **options: Unpack[ParityOptions],
    ) -> PipelineResult:
        """Check a bundle with its processors from the camera to the joint, stage by stage and whole.

        Each stage is a result of the report, judged with the same settings; see
        :func:`pytest_reflex.judge.pipeline.check_pipeline`.

        Args:
            policy: the live policy that the bundle was made from.
            bundle: a bundle with processors, as ``export_policy(..., processors=True)`` makes it.
            source: what lerobot runs around the policy: a checkpoint's directory, or the two pipelines; by
                default that of the checkpoint the policy was loaded from.
            inputs: the episodes of a recording; by default raw observations are drawn.
            thresholds: the threshold of a stage, by its name, where it is not ``threshold``'s.
            name: what the results are called, before their stage.
            **options: as for :meth:`check`; a threshold in a physical unit is for what has that unit.

        Returns:
            The result, of which every stage passed.

        Raises:
            ParityError: a stage failed; the first line names the first that did. It fails the test.
            ReflexError: no verdict could be reached, or the bundle has no processors.
        """
        __tracebackhide__ = True
        called = name or self._next_name()
        with self._during:
            settings = self._told(options, "check_pipeline")
            made = self._of_stages(policy, bundle, source, inputs, thresholds, called, settings)
            held = {}
            for stage, result in made.stages.items():
                held[stage] = self._held(result)
                self.results.append(held[stage])
                self._record(held[stage], stage=stage)
            found = replace(made, stages=held)
        if not found.passed:
            from pytest_reflex.report.text.console import columns
            from pytest_reflex.report.text.terminal import PREFIX

            said = found.failure(report=self._report, rerun=self._rerun, width=columns() - PREFIX)
            raise ParityError(said, found.stages.get(found.failing or ""), found)
        return found

    def expect_fail(
        self,
        reference: Any,
        candidate: Any,
        *,
        gate: str | None = None,
        inputs: Sequence[InputSpec] | Sequence[Mapping[str, np.ndarray]] | Episodes | None = None,
        name: str | None = None,
        **options: Unpack[CallOptions],
    ) -> ParityResult:
        """Check as :meth:`check` does, for a fail: the test of an export that has to be refused.

        The result proves nothing of any export, so it stands beside the results of a report and is none.

        Args:
            reference: as for :meth:`check`.
            candidate: what has to be refused.
            gate: the gate that has to refuse it; None takes any.
            inputs: as for :meth:`check`.
            name: as for :meth:`check`.
            **options: as for :meth:`check`.

        Returns:
            The result, which did not pass.

        Raises:
            ParityError: the verdict is pass, or other gates refused.
            SettingsError: there is no such gate.
            ReflexError: no verdict could be reached, so nothing was refused.
        """
        __tracebackhide__ = True
        from pytest_reflex.report.text.terminal import headline
        from pytest_reflex.verdict.results import FIXTURE_GATE_NAMES, RUN_GATE_NAMES

        gates = (*FIXTURE_GATE_NAMES, *RUN_GATE_NAMES)
        if options.get("runtimes") is not None:
            raise SettingsError(
                f"expect_fail(runtimes=...): {options['runtimes']!r} is for parity.check; give "
                'expect_fail the bundle on one of them, such as bundle.on("openvino")'
            )
        if gate is not None and gate not in gates:
            raise SettingsError(f"expect_fail(gate=...): {gate!r} is no gate; give one of {', '.join(gates)}")
        with self._during:
            settings = self._told(options)
            result = self._judged(reference, candidate, inputs, name, settings, diagnose=False)
            refused = {answer.gate for _, answer in result.refusals}
            met = bool(refused) if gate is None else gate in refused
            wanted = "a fail" if gate is None else f"a fail by the {gate} gate"
            said = f"{wanted} was expected, and the verdict is: {headline(result)}"
            if met:
                self._record(result, expected=f"{result.name}: {said}")
            else:
                self._record(result, unmet=f"parity FAIL: {said}")
        if not met:
            noted = "".join(f"\nNote: {note}" for note in result.notes)
            raise ParityError(f"parity FAIL: {said}{noted}", result)
        return result

    def rollout(
        self,
        reference: Any,
        candidate: Any,
        env: str | Made = "panda-reach",
        *,
        name: str | None = None,
        **driving: Unpack[Driving],
    ) -> RolloutResult:
        """Have both drive a simulated arm; see :func:`pytest_reflex.closed_loop`.

        With ``--reflex-report`` its page lies beside the report, in ``rollouts``. It is no parity: a strict
        run wants a :meth:`check` besides.

        Args:
            reference: as for :meth:`check`.
            candidate: as for :meth:`check`.
            env: the environment.
            name: what the result is called.
            **driving: ``seconds``, ``starts`` and so on, the keywords of :func:`pytest_reflex.closed_loop`.

        Returns:
            The result, which passed.

        Raises:
            ParityError: it drifted further than it may, or does the job less often. It fails the test.
            ReflexError: a start could not be driven to its end.
        """
        __tracebackhide__ = True
        from pytest_reflex.judge.rollout.closed_loop import closed_loop
        from pytest_reflex.report.text.rollout import sentence

        called = f"{name or self._next_rollout()}{self._suffix}"
        with self._during:
            try:
                result = closed_loop(reference, candidate, env, name=called, **driving)
            except ReflexError as error:
                raise error.with_traceback(None)  # noqa: B904
            self.rollouts.append(result)
            place = self._rollouts(called) if self._rollouts is not None else None
            if place is not None:
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_text(result.page(), encoding="utf-8")
            if self._drove is not None and not result.error:
                self._drove(sentence(result), passed=result.passed, note=result.not_driven)
        return result.require()

    def _next_rollout(self) -> str:
        earlier = len(self.rollouts)
        return self._name if not earlier else f"{self._name} (rollout {earlier + 1})"

    def _told(self, options: CallOptions | ParityOptions, called: str = "check") -> Settings:
        """What one call is told."""
        __tracebackhide__ = True
        try:
            return self._resolve(call(options, called))
        except ReflexError as error:
            # The message says it all; the way it took through the library helps nobody. Its cause stays.
            raise error.with_traceback(None)  # noqa: B904

    def _judged(
        self,
        reference: Any,
        candidate: Any,
        inputs: Any,
        name: str | None,
        settings: Settings,
        *,
        diagnose: bool,
    ) -> ParityResult:
        __tracebackhide__ = True
        from pytest_reflex.judge.check import check

        called, told, inputs = self._asked(name, inputs, settings)
        try:
            if diagnose:
                found = self._looked_into(settings, reference, candidate, inputs, called, told)
                result = self._held(found)
            else:
                result = check(reference, candidate, inputs=inputs, name=called, **told)
        except ReflexError as error:
            raise error.with_traceback(None)  # noqa: B904
        self.results.append(result)
        self._calls += 1
        return result

    def _judged_on(
        self, reference: Any, candidate: Any, inputs: Any, name: str | None, settings: Settings
    ) -> Matrix:
        """The candidate on several runtimes, each a result of the test; and recorded, one after the other."""
        __tracebackhide__ = True
        from pytest_reflex.judge.matrix import matrix
        from pytest_reflex.judge.on_runtimes import on_runtimes

        called, told, inputs = self._asked(name, inputs, settings)
        columns = []
        try:
            candidates = on_runtimes(candidate, settings.runtimes, reference, settings.provider)
            made = matrix(reference, candidates, inputs=inputs, name=called, **told)
            for column in made.columns:
                result = cast("ParityResult | None", column.result)
                if result is None:
                    self._absent(f"{called} [{column.runtime}]", column.error)
                else:
                    one, each = candidates[column.runtime], column.run_s or 0.0
                    result = self._held(self._diagnosed(result, reference, one, inputs, settings, each))
                    self._record(result)
                    self.results.append(result)
                columns.append(replace(column, result=result))
        except ReflexError as error:
            raise error.with_traceback(None)  # noqa: B904
        self._calls += 1
        made = replace(made, columns=tuple(columns))
        self.matrices.append(made)
        return made

    def _of_stages(
        self,
        policy: Any,
        bundle: Any,
        source: Any,
        inputs: MakesFixtures | None,
        thresholds: Mapping[str, Any] | None,
        called: str,
        settings: Settings,
    ) -> PipelineResult:
        __tracebackhide__ = True
        from pytest_reflex.judge.pipeline import judged, stages_of

        def judge(reference: Any, candidate: Any, *, inputs: Any, name: str, **told: Any) -> ParityResult:
            __tracebackhide__ = True
            return self._looked_into(settings, reference, candidate, inputs, f"{name}{self._suffix}", told)

        try:
            if settings.runtimes:
                raise SettingsError(
                    f"runtimes: {', '.join(settings.runtimes)} was given, and check_pipeline judges stages "
                    "on ONNX Runtime alone; leave it out of this test, and judge the policy by parity.check"
                )
            sides = stages_of(bundle, policy, source, settings.seed, settings.provider, None)
            told = self._of_check(settings)
            made = judged(sides, inputs=inputs, thresholds=thresholds, name=called, judge=judge, **told)
        except ReflexError as error:
            raise error.with_traceback(None)  # noqa: B904
        self._calls += 1
        return made

    def _asked(self, name: str | None, inputs: Any, settings: Settings) -> tuple[str, CheckOptions, Any]:
        """What a comparison is called, what it is told, and its inputs."""
        from pytest_reflex.inputs.fixtures import MakesFixtures

        if isinstance(inputs, MakesFixtures):
            inputs = inputs.told(settings.fixtures, settings.seed)
        return f"{name or self._next_name()}{self._suffix}", self._of_check(settings), inputs

    def _of_check(self, settings: Settings) -> CheckOptions:
        told = settings.check_options()
        if settings.trajectory is None and settings.report is not None:
            told["trajectory"] = True  # the page has a place for it
        return told

    def _looked_into(
        self,
        settings: Settings,
        reference: Any,
        candidate: Any,
        inputs: Any,
        called: str,
        told: Mapping[str, Any],
    ) -> ParityResult:
        """One check, and of a fail what a failing test looks for."""
        __tracebackhide__ = True
        from pytest_reflex.judge.check import check
        from pytest_reflex.judge.simplest import Pace
        from pytest_reflex.progress import progress_callback

        pace = Pace(progress_callback(None))
        result = check(reference, candidate, inputs=inputs, name=called, progress=pace, **told)
        return self._diagnosed(result, reference, candidate, inputs, settings, pace.each)

    def _diagnosed(
        self,
        result: ParityResult,
        reference: Any,
        candidate: Any,
        inputs: Any,
        settings: Settings,
        each: float,
    ) -> ParityResult:
        """Of a fail also where it goes wrong, and the simplest input that does."""
        if result.passed:
            return result
        from pytest_reflex.judge.diagnose import diagnosed
        from pytest_reflex.judge.simplest import simplified

        result = diagnosed(result, reference, candidate, inputs=inputs, seconds=settings.locate)
        place = self._store(result.name) if self._store is not None else None
        budget = settings.simplest
        return simplified(result, reference, candidate, inputs=inputs, seconds=budget, each=each, place=place)

    def _next_name(self) -> str:
        earlier = self._calls
        return self._name if not earlier else f"{self._name} (call {earlier + 1})"
