"""The results that show themselves: as text, as JSON, in a notebook, and as the failure of a test."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self

from pytest_reflex.errors import ParityError
from pytest_reflex.verdict.divergence import Divergence
from pytest_reflex.verdict.results import RunResult

if TYPE_CHECKING:
    import pandas

__all__ = [
    "POLICY",
    "POSTPROCESS",
    "PREPROCESS",
    "STAGES",
    "WHOLE",
    "Located",
    "ParityResult",
    "PipelineResult",
]

PREPROCESS: Final = "preprocess"
POLICY: Final = "policy"
POSTPROCESS: Final = "postprocess"
WHOLE: Final = "whole"
# Of a policy with its processors: in the order in which an observation goes through them; the whole last.
STAGES: Final = (PREPROCESS, POLICY, POSTPROCESS, WHOLE)


class ParityResult(RunResult):
    """The verdict on a run, with everything a report needs to say why, which shows itself.

    What it holds is what a :class:`~pytest_reflex.verdict.results.RunResult` holds. Printed it is the whole
    text; in a notebook it is the table and its pictures.
    """

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The result that :meth:`to_json` wrote. The keys a run document adds are ignored.

        Raises:
            ReflexError: ``data`` is no such result, or contradicts itself.
        """
        from pytest_reflex.report.json.results import read_result

        return read_result(data, cls)

    def require(self) -> Self:
        """Return the result itself when it passed.

        Raises:
            ParityError: it did not; the message is the whole report, its first line the verdict.
        """
        if self.passed:
            return self
        from pytest_reflex.report.text.terminal import failure_message

        raise ParityError(failure_message(self), self)

    def to_json(self) -> dict[str, object]:
        """The result as builtins, strict JSON once dumped; ``parity.schema.json`` describes it."""
        from pytest_reflex.report.json.results import result_to_json

        return result_to_json(self)

    def to_frame(self) -> pandas.DataFrame:
        """A pandas frame, a row for each output of each fixture; see :mod:`pytest_reflex.report.frame`.

        Raises:
            MissingPackageError: pandas is not installed.
        """
        from pytest_reflex.report.frame import frame

        return frame([self])

    def _repr_html_(self) -> str:
        from pytest_reflex.report.html.pages import result_html

        return result_html(self)

    def __str__(self) -> str:
        from pytest_reflex.report.text.terminal import result_text

        return result_text(self)


class Located(Divergence):
    """Where two sides part, which shows itself.

    What it holds is what a :class:`~pytest_reflex.verdict.divergence.Divergence` holds, and it is equal to
    one that holds the same. Printed it is what ``reflex locate`` prints; in a notebook it has its picture.
    """

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Divergence) and vars(self) == vars(other)

    __hash__ = Divergence.__hash__

    def _repr_html_(self) -> str:
        from pytest_reflex.report.html.pages import divergence_html

        return divergence_html(self)

    def __str__(self) -> str:
        from pytest_reflex.report.text.divergence import divergence_text

        return divergence_text(self)


@dataclass(frozen=True)
class PipelineResult:
    """The verdict on a policy with its processors, from the camera to the joint.

    Attributes:
        stages: the result of each of :data:`STAGES`, by its name, in order.
        left_out: why some of them could not be judged by themselves, where the whole was; empty where all
            have to be.
    """

    stages: Mapping[str, ParityResult]
    left_out: str = ""

    @property
    def passed(self) -> bool:
        """Whether every stage has been judged, by itself or in the whole, and has passed."""
        whole = bool(self.left_out) and WHOLE in self.stages
        asked = tuple(self.stages) == STAGES or whole
        return asked and all(result.passed for result in self.stages.values())

    def __bool__(self) -> bool:
        """The verdict."""
        return self.passed

    @property
    def failing(self) -> str | None:
        """The first stage that failed."""
        return next((stage for stage, result in self.stages.items() if not result.passed), None)

    @property
    def headline(self) -> str:
        """The whole verdict in one line, which names the stage that failed first."""
        from pytest_reflex.report.text.terminal import headline

        if self.failing is not None:
            return f"pipeline FAIL in {self.failing}: {headline(self.stages[self.failing])}"
        if self.passed:
            beside = f"; {self.left_out}" if self.left_out else ""
            return f"pipeline PASS: {', '.join(self.stages)}{beside}"
        return f"pipeline FAIL: not judged: {', '.join(s for s in STAGES if s not in self.stages)}"

    @property
    def lines(self) -> list[str]:
        """The verdict on each stage, in a line."""
        from pytest_reflex.report.text.terminal import headline

        return [f"{stage}: {headline(result)}" for stage, result in self.stages.items()]

    def __str__(self) -> str:
        """:attr:`headline`; then each stage in a line, and the whole report of the one that failed first.

        Of a pass there is the whole in the robot's units instead, where they are known.
        """
        from pytest_reflex.report.text.in_units import in_units_lines
        from pytest_reflex.report.text.terminal import WIDTH

        if self.failing is not None:
            below = ["", str(self.stages[self.failing])]
        else:
            shown = in_units_lines(self.stages[WHOLE], WIDTH) if WHOLE in self.stages else []
            below = ["", *shown] if shown else []
        return "\n".join([self.headline, *self.lines, *below])

    def failure(self, **told: Any) -> str:
        """What an error says: :attr:`headline`, each stage in a line, what refused the one that failed first.

        Args:
            **told: keywords of :func:`~pytest_reflex.report.text.terminal.failure_message`.
        """
        from pytest_reflex.report.text.terminal import failure_message

        said = [self.headline, *self.lines]
        if self.failing is not None:
            said += ["", failure_message(self.stages[self.failing], **told)]
        return "\n".join(said)

    def require(self) -> PipelineResult:
        """Itself where every stage passed.

        Raises:
            ParityError: one did not; the first line names the first that did not.
        """
        if self.passed:
            return self
        raise ParityError(self.failure(), self.stages.get(self.failing or WHOLE), self)
