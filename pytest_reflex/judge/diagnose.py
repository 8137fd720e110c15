"""What a failing test looks for by itself: where the two sides part, within a budget of time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from pytest_reflex.errors import ReflexError
from pytest_reflex.inputs.fixtures import Made, MakesFixtures
from pytest_reflex.judge.sides import known_inputs
from pytest_reflex.runners.base import first_line

if TYPE_CHECKING:
    import numpy as np

    from pytest_reflex.result import ParityResult
    from pytest_reflex.verdict.divergence import Divergence


@runtime_checkable
class Locatable(Protocol):
    """A candidate that knows how to look into itself, as a bundle does."""

    def locate(
        self,
        reference: Any,
        *,
        fixture_idx: int,
        seed: int,
        inputs: Sequence[Mapping[str, np.ndarray]] | None,
        seconds: float | None,
    ) -> Divergence:
        """Where it and its reference part; see :func:`exporters.bundles.locate`."""


def diagnosed(
    result: ParityResult,
    reference: Any,
    candidate: Any,
    *,
    inputs: object = None,
    seconds: float,
    progress: Callable[[str], None] | None = None,
) -> ParityResult:
    """The result with the place where its worst fixture goes wrong, where that can be found in time.

    Only a fixture that was refused for its figures is looked into: what is of another shape, or ran on
    another provider, says where it is wrong itself. A search that fails says so in a note.
    """
    worst = result.worst_refused_for_figures
    if not seconds or worst is None:
        return result
    if not isinstance(candidate, Locatable):
        file = _graph_file(candidate)
        if file is None:
            return result
        return replace(result, notes=(*result.notes, f"the place was not looked for: {plain_file(file)}"))
    recorded = _recorded(inputs, candidate)
    if result.seed is None and recorded is None:
        return result
    try:
        divergence = candidate.locate(
            reference,
            fixture_idx=worst.fixture_idx,
            seed=result.seed or 0,
            inputs=recorded,
            seconds=seconds,
        )
    except (Exception, SystemExit) as error:  # whatever it is, the verdict stands
        said = str(error) if isinstance(error, ReflexError) else first_line(error)
        return replace(result, notes=(*result.notes, f"the place was not found: {said}"))
    return replace(result, located=divergence)


def plain_file(file: Path, model: str = "MODEL") -> str:
    """Why nobody looks into a graph that is no bundle's, and what to do."""
    return (
        f"{file} is a plain file, and only a bundle says what line of the policy its values are of; "
        f"`reflex export {model} DIR` makes one, and shows whether exporting is wrong or the file"
    )


def _graph_file(candidate: object) -> Path | None:
    """The file, of a candidate that is given as an ONNX graph."""
    if not isinstance(candidate, (str, PathLike)):
        return None
    file = Path(candidate)
    return file if file.suffix.lower() == ".onnx" else None


def _recorded(inputs: object, candidate: object) -> Sequence[Mapping[str, Any]] | None:
    """Recorded inputs, where they were given; None where they were drawn."""
    if isinstance(inputs, MakesFixtures):
        return Made(inputs.fixtures(known_inputs(candidate), 0, 0))
    if not isinstance(inputs, Sequence):
        return None
    found = [one for one in inputs if isinstance(one, Mapping)]
    return found if found and len(found) == len(inputs) else None
