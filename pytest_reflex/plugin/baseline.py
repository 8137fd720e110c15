"""A baseline: the figures of an earlier run, kept in the repository, that no later one is far above."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

if TYPE_CHECKING:
    from pytest_reflex.report.json.documents import Run
    from pytest_reflex.result import ParityResult

FORMAT: Final = "reflex-baseline"
VERSION: Final = 1
# Below this share of the threshold a figure is rounding, which another processor does otherwise.
SMALL: Final = 0.01
# What the name of a result of another attempt than the first ends with.
_ATTEMPT: Final = re.compile(r" \(attempt (\d+)\)$")
BASELINE: Final = pytest.StashKey["Baseline"]()


class Baseline:
    """What is compared with: nothing, where no file was given, or where it is being written anew.

    Args:
        path: the file: one that :meth:`write` wrote, or the ``parity.json`` of a run.
        factor: how many times as large as its figure another may be.
        update: whether it is written at the end, and so nothing is compared with it.
    """

    def __init__(self, path: Path | None, factor: float, update: bool) -> None:
        self.path, self.factor, self.update = path, factor, update
        self._known: dict[str, list[dict[str, Any]]] | None = None

    @property
    def compares(self) -> bool:
        """Whether anything is held against it."""
        return self.path is not None and not self.update

    def require_file(self, named: str) -> None:
        """Say at once what is wrong with the file.

        Raises:
            UsageError: it is not there, and not to be written; or it is no baseline.
        """
        if self.path is None:
            if self.update:
                raise pytest.UsageError("--reflex-baseline-update was given without --reflex-baseline PATH")
            return
        if not self.path.exists():
            if not self.update:
                raise pytest.UsageError(
                    f"{named}: {self.path.name!r} does not exist; write it with --reflex-baseline-update"
                )
            return
        self._figures()

    def worse(self, nodeid: str, call: int, result: ParityResult) -> str:
        """How a passing result is worse than it was, in words; empty where it is not, or was never seen."""
        if not self.compares:
            return ""
        earlier = self._figures().get(nodeid, [])
        if call >= len(earlier):
            return ""
        limits, known, before = _limits(result), earlier[call].get("outputs"), earlier[call]
        if isinstance(known, dict) and len(limits) > 1:
            now = _of_outputs(result.to_json())
            then = before.get("thresholds", {})
            every = [
                (f" of {name}", now.get(name), known.get(name), _lower(limits[name], then.get(name)))
                for name in limits
            ]
        else:
            limit = _lower(result.threshold, before.get("threshold"))
            every = [("", result.max_abs_diff_across_all, before.get("max_abs_diff"), limit)]
        return next(filter(None, (self._worse(*one) for one in every)), "")

    def _worse(self, whose: str, now: float | None, before: object, limit: float) -> str:
        if now is None or not isinstance(before, int | float) or not math.isfinite(before):
            return ""
        if now <= self.factor * before or now <= SMALL * limit:
            return ""
        times = f"{now / before:.3g} times" if before else "no longer equal to"
        return (
            f"max_abs_diff {now:.3e}{whose} is {times} the baseline's {before:.3e}, and may be "
            f"{self.factor:g} times"
        )

    def told(self, run: Run, *, strict: bool) -> tuple[str, str]:
        """What of a run was compared, in a line, and why that is too little; empty where there is nothing."""
        if self.path is None or not self.compares:
            return "", ""
        known = {test: len(calls) for test, calls in self._figures().items()}
        calls = {test: len(own) for test, own in _last_calls(entry.json for entry in run.results).items()}
        both = sum(min(count, known.get(test, 0)) for test, count in calls.items())
        new, gone = sum(calls.values()) - both, sum(known.values()) - both
        said = [f"{both} compared", *([f"{new} without an entry"] * bool(new))]
        said += [f"{gone} of its entries not in this run"] * bool(gone)
        if both or not calls:
            return f"baseline {self.path.name}: {', '.join(said)}", ""
        other = f", such as {min(calls)}; its own are such as {min(known)}" if known else ""
        why = f"baseline {self.path.name}: none of the {new} results of this run has an entry in it{other}"
        mend = "write it with --reflex-baseline-update"
        return ("", f"{why}; --reflex-strict wants one; {mend}") if strict else (f"{why}; {mend}", "")

    def write(self, run: Run) -> tuple[str, str]:
        """Write the figures of the run's passing results; those of tests that were not run stay.

        Returns:
            What became of it, in a line, and why it cannot be written; empty where there is nothing.
        """
        from pytest_reflex.report.files import write_text

        if self.path is None:
            return "", ""
        found = _by_test(entry.json for entry in run.results)
        if not found:
            why = "no test that compares passed" if run.results else "this run compared nothing"
            stays = (
                f"; {self.path} stays as it was" if self.path.exists() else f"; {self.path} is not written"
            )
            return f"baseline: nothing to write, for {why}{stays}", ""
        known = self._figures() if self.path.exists() else {}
        made = {"format": FORMAT, "version": VERSION, "results": dict(sorted({**known, **found}.items()))}
        try:
            write_text(self.path, json.dumps(made, indent=1, allow_nan=False) + "\n")
        except OSError as error:
            return "", f"{self.path}: the baseline could not be written ({error.strerror or error})"
        return f"baseline: {self.path} is written; commit it", ""

    def _figures(self) -> dict[str, list[dict[str, Any]]]:
        if self._known is None:
            self._known = _read(self.path) if self.path is not None else {}
        return self._known


def _lower(limit: float, then: object) -> float:
    """A threshold that was raised since makes no figure small."""
    return min(limit, then) if isinstance(then, int | float) else limit


def _figures(entry: Mapping[str, Any]) -> dict[str, Any]:
    """What is kept of a result: beside one output with large values those of another show nothing."""
    figures = {"max_abs_diff": entry["max_abs_diff_across_all"], "threshold": entry["threshold"]}
    outputs = _of_outputs(entry)
    if len(outputs) < 2:
        return figures
    bounds: dict[str, list[float]] = {name: [] for name in outputs}
    for output in (output for fixture in entry["fixtures"] for output in fixture["outputs"]):
        if output["name"] in bounds:
            bounds[output["name"]].append(output["bound"] or entry["threshold"])
    return {**figures, "outputs": outputs, "thresholds": {name: max(all_) for name, all_ in bounds.items()}}


def _of_outputs(entry: Mapping[str, Any]) -> dict[str, float]:
    """The largest difference of each output of floats in any fixture, where all are finite."""
    found: dict[str, list[Any]] = {}
    for output in (output for fixture in entry["fixtures"] for output in fixture["outputs"]):
        if output["difference"] is not None and "float" in output["dtype"]:
            found.setdefault(output["name"], []).append(output["difference"]["max_abs_diff"])
    return {name: max(far) for name, far in found.items() if all(isinstance(one, float) for one in far)}


def _limits(result: ParityResult) -> dict[str, float]:
    """The most that each output of floats may be off by anywhere."""
    found: dict[str, float] = {}
    for output in (output for fixture in result.fixtures for output in fixture.outputs):
        if output.difference is not None and "float" in output.dtype:
            found[output.name] = max(found.get(output.name, 0.0), result.most_of(output))
    return found


def _read(path: Path) -> dict[str, list[dict[str, Any]]]:
    """By test, the figures of each of its calls."""
    try:
        made = json.loads(path.read_text(encoding="utf-8"))
        results = made["results"]
        if isinstance(results, list):  # the document of a run
            return _by_test(results)
        if made["format"] != FORMAT or made["version"] != VERSION:
            raise ValueError(f"it is {made['format']!r}, version {made['version']!r}")
        return {str(test): [dict(call) for call in calls] for test, calls in results.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise pytest.UsageError(
            f"{path}: is no baseline ({type(error).__name__}: {error}); write it with "
            "--reflex-baseline-update"
        ) from None


def _by_test(results: Iterable[Mapping[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """By test, the figures of each call of its last attempt, where all of these passed."""
    return {
        nodeid: [_figures(call) for call in calls]
        for nodeid, calls in _last_calls(results).items()
        if all(call["passed"] is True for call in calls)
    }


def _last_calls(results: Iterable[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """By test, what each call of its last attempt found."""
    attempts: dict[str, dict[int, list[Mapping[str, Any]]]] = {}
    for entry in results:
        if entry.get("nodeid") is not None:
            again = _ATTEMPT.search(entry["name"])
            number = int(again[1]) if again else 1
            attempts.setdefault(entry["nodeid"], {}).setdefault(number, []).append(entry)
    return {nodeid: several[max(several)] for nodeid, several in attempts.items()}
