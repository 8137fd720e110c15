"""Run documents put together: shards of one run, in any order, give the same document."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pytest_reflex.report.json.documents import document
from pytest_reflex.report.json.values import dumps
from pytest_reflex.report.rejudge import rejudge_entry


def merge(
    documents: Iterable[Mapping[str, Any]], *, threshold: float | None = None, strict: bool = False
) -> dict[str, Any]:
    """One document of several.

    What stands twice, the same to the last digit, is kept once, so a shard that is given twice changes
    nothing. A document that reached no verdict becomes a problem of the run.

    Args:
        documents: what :func:`pytest_reflex.report.json.read` gave.
        threshold: judge every result again at this threshold.
        strict: judge every result again strictly, and let no parity test go without a result.

    Returns:
        The document, without an ``exit_code``: that belonged to the processes that wrote the shards.
    """
    results: list[dict[str, Any]] = []
    not_compared: list[dict[str, Any]] = []
    problems: set[str] = set()
    for made in documents:
        if "error" in made:
            problems.add(f"no verdict: {made['error']['type']}: {made['error']['message']}")
            continue
        results += made["results"]
        not_compared += made["not_compared"]
        problems |= set(made["problems"])
    if threshold is not None or strict:
        results = [rejudge_entry(e, threshold=threshold, strict=strict or None) for e in results]
    if strict:
        not_compared = [
            test
            if test["outcome"] == "failed"
            else {**test, "outcome": "failed", "reason": f"{test['outcome']}: {test['reason']} (--strict)"}
            for test in not_compared
        ]
        if not results:
            problems.add("no parity result in these documents; --strict wants at least one")
    return document(in_order(results), not_compared=_tests(not_compared), problems=sorted(problems))


def in_order(results: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Entries by test, call and name; of two that are the same in all they hold, one."""
    found = {(e.get("nodeid", ""), e.get("call", 0), e["name"], dumps(e)): e for e in results}
    return [found[key] for key in sorted(found)]


def _tests(not_compared: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    found = {(t["nodeid"], t["outcome"], t["reason"]): t for t in not_compared}
    return [found[key] for key in sorted(found)]
