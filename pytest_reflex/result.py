"""The results that show themselves: as text, as JSON, in a notebook, and as the failure of a test."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

from pytest_reflex.errors import ParityError
from pytest_reflex.verdict.divergence import Divergence
from pytest_reflex.verdict.results import RunResult

if TYPE_CHECKING:
    import pandas

__all__ = ["Located", "ParityResult"]


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
