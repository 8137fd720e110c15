"""Run documents put together: shards of one run, in any order, give the same document."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from pytest_reflex.report.json.documents import Entry, Run, run_of
from pytest_reflex.report.json.values import dumps
from pytest_reflex.report.rejudge import rejudge
from pytest_reflex.report.session import in_order as in_time


def merge(
    runs: Iterable[Run | Mapping[str, Any]],
    *,
    threshold: object = None,
    rtol: float | None = None,
    strict: bool = False,
) -> Run:
    """One run of several.

    What stands twice, the same to the last digit, is kept once, so a shard that is given twice changes
    nothing. A run that reached no verdict becomes a problem of the run.

    Args:
        runs: runs, or their documents.
        threshold: judge every result again at this threshold, as
            :func:`~pytest_reflex.report.rejudge.rejudge` takes it.
        rtol: judge every result again with this rtol.
        strict: judge every result again strictly, and let no parity test go without a result.

    Returns:
        The run. Its document has no ``exit_code``: that belonged to the processes that wrote the shards.
    """
    results: list[Entry] = []
    not_compared: list[Mapping[str, Any]] = []
    problems: set[str] = set()
    given = list(map(run_of, runs))
    for run in given:
        if run.error is not None:
            problems.add(f"no verdict: {run.error['type']}: {run.error['message']}")
        results += run.results
        not_compared += run.not_compared
        problems |= set(run.problems)
    if threshold is not None or rtol is not None or strict:
        told: dict[str, Any] = {"threshold": threshold, "rtol": rtol, "strict": strict or None}
        results = [replace(entry, result=rejudge(entry.result, **told)) for entry in results]
    if strict:
        not_compared = [
            test
            if test["outcome"] in ("failed", "expected")
            else {**test, "outcome": "failed", "reason": f"{test['outcome']}: {test['reason']} (--strict)"}
            for test in not_compared
        ]
        if not results:
            problems.add("no parity result in these documents; --strict wants at least one")
    return Run(
        in_order(results),
        _tests(not_compared),
        tuple(sorted(problems)),
        sessions=in_time(one for run in given for one in run.sessions),
    )


def in_order(results: Iterable[Entry]) -> tuple[Entry, ...]:
    """Entries by test, call and name; of two that are the same in all they hold, one."""
    found = {(e.nodeid or "", e.call or 0, e.result.name, dumps(e.json)): e for e in results}
    return tuple(found[key] for key in sorted(found))


def _tests(not_compared: Iterable[Mapping[str, Any]]) -> tuple[Mapping[str, Any], ...]:
    found = {(t["nodeid"], t["outcome"], t["reason"]): t for t in not_compared}
    return tuple(found[key] for key in sorted(found))
