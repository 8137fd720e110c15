"""The verdict on a closed loop that shows itself: as text, as JSON, as a page, as the failure of a test."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

from pytest_reflex.errors import ParityError, RunnerError
from pytest_reflex.verdict.rollout import Rollout

__all__ = ["RolloutResult"]


@dataclass(frozen=True)
class RolloutResult(Rollout):
    """What a :class:`~pytest_reflex.verdict.rollout.Rollout` holds, which shows itself.

    Attributes:
        film: both sides beside each other and their difference, a film as a browser plays it; None where
            none was asked for or the environment cannot be filmed.
    """

    film: bytes | None = None

    def require(self) -> Self:
        """Return the result itself when it passed.

        Raises:
            RunnerError: not every start could be driven to its end.
            ParityError: the candidate drifted further than it may, or does the job less often.
        """
        if self.passed:
            return self
        if self.exit_code != 1:
            raise RunnerError(self.error or "no start was driven")
        raise ParityError(str(self), self)

    def to_json(self) -> dict[str, Any]:
        """The result as builtins; :mod:`pytest_reflex.report.json.rollout` says what is in it."""
        from pytest_reflex.report.json.rollout import rollout_to_json

        return rollout_to_json(self)

    def page(self) -> str:
        """The result as a page of its own, one file."""
        from pytest_reflex.report.html.rollout import rollout_page

        return rollout_page(self, self.film)

    def _repr_html_(self) -> str:
        from pytest_reflex.report.html.rollout import rollout_html

        return rollout_html(self, self.film)

    def __str__(self) -> str:
        from pytest_reflex.report.text.rollout import rollout_text

        return rollout_text(self)
