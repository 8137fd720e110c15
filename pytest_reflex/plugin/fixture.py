"""What runs inside a test: the ``parity`` fixture's object, which checks, records and then raises."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Unpack

from pytest_reflex.errors import ParityError, ReflexError
from pytest_reflex.settings import ParityOptions, Settings, Source, call

if TYPE_CHECKING:
    import numpy as np

    from pytest_reflex.inputs import InputSpec
    from pytest_reflex.result import ParityResult


class Parity:
    """Proves inside a test that a candidate computes what its reference computes.

    Attributes:
        results: what this test has found so far, the failing ones too, in the order of the calls.
    """

    def __init__(
        self,
        name: str,
        resolve: Callable[[Source], Settings],
        record: Callable[[ParityResult], None],
        *,
        report: str | None = None,
        rerun: str | None = None,
    ) -> None:
        """
        Args:
            name: what results are called when the call gives no name: the test's node id.
            resolve: settings from one call's keywords and all other sources.
            record: told every result, before a failing one raises.
            report: where the report will lie, for the message.
            rerun: the command that runs this test again and keeps a report, for the message.
        """
        self.results: list[ParityResult] = []
        self._name = name
        self._resolve = resolve
        self._record = record
        self._report = report
        self._rerun = rerun

    def __repr__(self) -> str:
        return f"<parity of {self._name}>"

    def check(
        self,
        reference: Any,
        candidate: Any,
        *,
        inputs: Sequence[InputSpec] | Sequence[Mapping[str, np.ndarray]] | None = None,
        name: str | None = None,
        **options: Unpack[ParityOptions],
    ) -> ParityResult:
        """Check the candidate against the reference; see :func:`pytest_reflex.check`.

        A setting is taken from the command line, then from here, then from the ``parity`` marker, then
        from the ini file, then its default. ``--reflex-strict`` tightens the threshold after that.

        Args:
            reference: the PyTorch policy, an ``nn.Module`` or a runner.
            candidate: an export, a path to an ``.onnx`` file, or a runner.
            inputs: input specifications, or recorded inputs; None takes the candidate's own.
            name: what the result is called in reports.
            **options: ``threshold``, ``fixtures`` and so on, the keywords of
                :class:`~pytest_reflex.settings.ParityOptions`.

        Returns:
            The result, which passed.

        Raises:
            ParityError: the verdict is fail.
            ReflexError: no verdict could be reached.
        """
        __tracebackhide__ = True
        from pytest_reflex.judge.check import check

        try:
            settings = self._resolve(call(options))
            told = settings.check_options()
            if settings.trajectory is None and settings.report is not None:
                told["trajectory"] = True  # the page has a place for it
            result = check(reference, candidate, inputs=inputs, name=name or self._next_name(), **told)
            if not result.passed:
                from pytest_reflex.judge.diagnose import diagnosed

                result = diagnosed(result, reference, candidate, inputs=inputs, seconds=settings.locate)
        except ReflexError as error:
            # The message says it all; the way it took through the library helps nobody. Its cause stays.
            raise error.with_traceback(None)  # noqa: B904
        self.results.append(result)
        self._record(result)
        if not result.passed:
            from pytest_reflex.report.text.console import columns
            from pytest_reflex.report.text.terminal import PREFIX, failure_message

            said = failure_message(result, report=self._report, rerun=self._rerun, width=columns() - PREFIX)
            raise ParityError(said, result)
        return result

    def _next_name(self) -> str:
        earlier = len(self.results)
        return self._name if not earlier else f"{self._name} (call {earlier + 1})"
