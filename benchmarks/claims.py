"""Is a claim wrong as seldom as it says? Sessions with a known share of inputs that exceed the threshold.

    python benchmarks/claims.py --evidence parity_reports

Three kinds of sessions, 10,000 for each of several true shares around the claim: ones that draw on and stop
at the first refusal, as `check(claim=...)` does, by its own code; the same with a budget of time that ends
anywhere; and ones that judge a number that was fixed before, by Clopper and Pearson. Beside them the way that
is wrong: to look at that bound after each fixture, and to stop as soon as it is small enough. Then whole
checks, from input specifications to the verdict, of a candidate that is wrong in a known share of what is
drawn; and how long a claim of a thousandth takes on the tiny pi0.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Generator, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT)]

# ruff: noqa: E402
from side_by_side import table, write

from pytest_reflex import InputSpec, check
from pytest_reflex.judge.claim import Worst, draw_on
from pytest_reflex.runners import RunnerBase
from pytest_reflex.verdict.claim import Asked, Claim, anytime, clopper_pearson, draws_for
from pytest_reflex.verdict.results import FIXTURE_GATE_NAMES, Answer, FixtureResult

SHARE, WHOLE_SHARE = 0.01, 0.1
WRONG = 0.05
TIMES = (0.1, 0.25, 0.5, 0.75, 0.9, 1.0, 1.01, 1.1, 1.25, 1.5, 2.0, 4.0)
FIRST = 5
# So many sessions of each row are drawn fixture by fixture.
STEPPED = 100
_YES = tuple(Answer.yes(gate) for gate in FIXTURE_GATE_NAMES)
PASSES, FAILS = FixtureResult(0, _YES), FixtureResult(0, (*_YES[:-1], Answer.no("threshold", "above it")))

Arrays = Mapping[str, np.ndarray]


class Session:
    """One session of simulated fixtures, a second each, of which a share is refused."""

    def __init__(self, share: float, rng: np.random.Generator) -> None:
        # The first that is refused is all there is to know.
        self.first = int(rng.geometric(share)) - 1
        self.time = 0.0

    def stopped(self, asked: Asked, until: float) -> Claim:
        """What :meth:`claim` gives, at once: the session by where it stops."""
        ends = FIRST + (int(until) if until < float("inf") else asked.draws)
        judged = max(FIRST, min(self.first + 1, asked.draws, ends))
        refused = int(self.first < judged)
        clean = min(self.first, judged)
        claim = Claim("drawn", judged, judged, refused, clean, asked)
        return claim if claim.settled else replace(claim, stopped="budget")

    def judge(self, idxs: range, until: float) -> Generator[FixtureResult, None, None]:
        for idx in idxs:
            if self.time >= until:
                return
            self.time += 1.0
            yield FAILS if idx == self.first else PASSES

    def claim(self, asked: Asked, until: float) -> Claim:
        first = [idx != self.first for idx in range(FIRST)]
        claim = Claim.of(first, source="drawn", distinct=FIRST, asked=asked)
        if claim.settled:
            return claim
        worst = Worst(0.0, 1.0)
        return draw_on(claim, self.judge, worst, each=1.0, until=until, now=lambda: self.time)


@cache
def fixed_bound(refused: int, judged: int) -> float:
    return clopper_pearson(refused, judged)


def simulated(times: float, sessions: int, seed: int) -> dict[str, Any]:
    """Sessions of one true share: how many pass, and how many say less than is true."""
    share, asked = SHARE * times, Asked(SHARE)
    rng = np.random.default_rng([seed, round(1000 * times)])
    early = [claimed(Session(share, rng), asked, float("inf"), n) for n in range(sessions)]
    ends = rng.integers(0, 2 * asked.draws, sessions)
    timed = [claimed(Session(share, rng), asked, float(end), n) for n, end in enumerate(ends)]
    several = 2 * asked.draws
    fixed = [fixed_bound(int(k), several) for k in rng.binomial(several, share, sessions)]
    first_lie = next(n for n in range(10**6) if anytime(n) < share)
    return {
        "true_share": share,
        "times_the_claim": times,
        "early_pass": _share(claim.reached for claim in early),
        "early_pass_exact": (1 - share) ** asked.draws,
        "early_says_less": _share(claim.bound < share for claim in early),
        "early_says_less_exact": (1 - share) ** first_lie if first_lie <= asked.draws else 0.0,
        "budget_pass": _share(claim.reached for claim in timed),
        "budget_says_less": _share(claim.bound < share for claim in timed),
        "fixed_pass": _share(bound <= SHARE for bound in fixed),
        "fixed_says_less": _share(bound < share for bound in fixed),
        "peeking_pass": _share(peeks(share, several, rng) for _ in range(sessions)),
        "draws": statistics.mean(claim.judged for claim in early),
    }


def claimed(session: Session, asked: Asked, until: float, number: int) -> Claim:
    """A session's claim by where it stops; of the first ones fixture by fixture too, by the judge's code."""
    found = session.stopped(asked, until)
    if number < STEPPED and session.claim(asked, until) != found:
        raise SystemExit(f"a session that is refused at {session.first} and ends at {until} stops elsewhere")
    return found


def peeks(share: float, most: int, rng: np.random.Generator) -> bool:
    """Whether the bound of a fixed number is as small as was wanted after any of so many draws."""
    refused = np.cumsum(rng.random(most) < share)
    ends = [*(np.flatnonzero(np.diff(refused, prepend=0)) - 1), most - 1]
    # Between two refusals it only falls, so that it is least just before the next.
    return any(end >= 0 and fixed_bound(int(refused[end]), int(end) + 1) <= SHARE for end in ends)


def _share(found: Any) -> float:
    every = [bool(one) for one in found]
    return sum(every) / len(every)


class Toy(RunnerBase):
    """Doubles its input; above a limit it is off by one."""

    def __init__(self, name: str, limit: float, kind: str) -> None:
        self.name, self._limit, self._kind = name, limit, kind

    def open(self) -> None: ...

    def close(self) -> None: ...

    def run(self, inputs: Arrays) -> dict[str, np.ndarray]:
        x = inputs["x"]
        return {"actions": 2 * x + np.float32(x[0, 0] > self._limit)}

    def facts(self) -> dict[str, Any]:
        return {"kind": self._kind}


def whole(times: float, sessions: int) -> dict[str, Any]:
    """Whole checks, each with a seed of its own."""
    share = WHOLE_SHARE * times
    limit = statistics.NormalDist().inv_cdf(1 - share)
    sides = Toy("reference", float("inf"), "torch"), Toy("candidate", limit, "function")
    inputs = [InputSpec("x", (1, 4))]
    results = [check(*sides, inputs=inputs, seed=seed, claim=Asked(WHOLE_SHARE)) for seed in range(sessions)]
    return {
        "true_share": share,
        "times_the_claim": times,
        "sessions": sessions,
        "pass": _share(result.passed for result in results),
        "pass_exact": (1 - share) ** draws_for(WHOLE_SHARE),
        "says_less": _share(r.claim is not None and r.claim.bound < share for r in results),
    }


def tiny_pi0_claim(share: str) -> dict[str, Any]:
    """How long a claim takes on the tiny pi0, and what is kept of it."""
    from examples.tiny_pi0 import tiny_pi0
    from exporters import pi0

    with tempfile.TemporaryDirectory() as folder:
        policy = tiny_pi0()
        bundle = pi0.export(policy, Path(folder) / "p0", cameras=2, prompt_tokens=6, verify=False)
        begun, used = time.perf_counter(), time.process_time()
        result = check(policy, bundle, claim=share)
        seconds, used = time.perf_counter() - begun, time.process_time() - used
    return {
        "share": share,
        "seconds": seconds,
        "processor_seconds": used,
        "passed": result.passed,
        "judged": result.count,
        "kept": len(result.fixtures),
        "max_abs_diff": result.max_abs_diff_across_all,
        "claim": result.claim and result.claim.text,
    }


def beyond(rows: list[dict[str, Any]], sessions: int, *keys: str) -> list[str]:
    """What was wrong more often than one time in twenty, by more than chance (3.3 of its deviations)."""
    most = sessions * WRONG + 3.3 * (sessions * WRONG * (1 - WRONG)) ** 0.5
    return [
        f"{key} at {row['times_the_claim']}" for row in rows for key in keys if row[key] * sessions > most
    ]


COLUMNS = {
    "true_share": "true share",
    "times_the_claim": "times the claim",
    "early_pass": "early: pass",
    "early_pass_exact": "worked out",
    "early_says_less": "says less",
    "early_says_less_exact": "worked out",
    "budget_pass": "budget: pass",
    "budget_says_less": "says less",
    "fixed_pass": "fixed: pass",
    "fixed_says_less": "says less",
    "peeking_pass": "peeking: pass",
    "draws": "fixtures, mean",
}
CHECK_COLUMNS = {
    "true_share": "true share",
    "times_the_claim": "times the claim",
    "sessions": "sessions",
    "pass": "pass",
    "pass_exact": "worked out",
    "says_less": "says less",
}
HEAD = """# Claims, and how often they are wrong

What `python benchmarks/claims.py` wrote: {sessions:,} sessions for each row. The claim is "at most
{share:g} % of inputs exceed the threshold, at 95 %", which takes {draws} fixtures without a refusal. Above
1.0 times the claim every pass is false, and at most 5 % may be.

- **early**: `check(claim=...)`, which stops at the first fixture that is refused.
- **budget**: the same, with a budget of time that ends anywhere.
- **fixed**: {fixed} fixtures, all judged, by Clopper and Pearson's bound.
- **peeking**: what nobody should do: that bound, looked at after each fixture, until it is small enough.
- **says less**: the bound that is reported is less than the truth; at most 5 % may be.
"""
WHOLE = """
Whole checks, from input specifications to the verdict, of a candidate that is wrong in a known share of what
is drawn; the claim is {share:g} % at 95 %:
"""
PI0 = """
`{share}` on the tiny pi0: {judged:,} fixtures in {seconds:.0f} s on this machine's two cores, for
{processor_seconds:.0f} s of a core's time, max_abs_diff {max_abs_diff:.1e}, {kept} fixtures kept. The
report: {claim}.
"""


def markdown(
    rows: list[dict[str, Any]], sessions: int, checks: list[dict[str, Any]], pi0: dict[str, Any] | None
) -> str:
    draws = draws_for(SHARE)
    head = HEAD.format(sessions=sessions, share=100 * SHARE, draws=draws, fixed=2 * draws)
    parts = [
        head,
        _table(rows, COLUMNS),
        WHOLE.format(share=100 * WHOLE_SHARE),
        _table(checks, CHECK_COLUMNS),
    ]
    return "\n".join([*parts, *([PI0.format(**pi0)] if pi0 is not None else [])]).rstrip() + "\n"


def _table(rows: list[dict[str, Any]], columns: Mapping[str, str]) -> str:
    plain = {"times_the_claim": "g", "draws": ".0f", "sessions": ","}
    lines = [f"| {' | '.join(columns.values())} |", "|" + " --- |" * len(columns)]
    for row in rows:
        cells = [format(row[key], plain[key]) if key in plain else f"{row[key]:.2%}" for key in columns]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--sessions", type=int, default=10_000)
    parser.add_argument("--checks", type=int, default=1000, help="whole checks of each share")
    parser.add_argument("--share", default="1e-3@95%", help="the claim of the tiny pi0")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-pi0", action="store_true", help="leave the tiny pi0 out")
    parser.add_argument("--evidence", type=Path, help="write claims.json and claims.md here")
    args = parser.parse_args()
    rows = [simulated(times, args.sessions, args.seed) for times in TIMES]
    table(f"{args.sessions} sessions each, a claim of {SHARE:g} at 95 %", rows)
    checks = [whole(times, args.checks) for times in (0.5, 1.1)]
    table(f"Whole checks, a claim of {WHOLE_SHARE:g} at 95 %", checks)
    found = None
    for with_pi0 in (False, True):  # what is known is written before what takes minutes
        if with_pi0 and not args.no_pi0:
            found = tiny_pi0_claim(args.share)
            table(f"{args.share} on the tiny pi0", [found])
        if args.evidence:
            more = {"sessions": args.sessions, "whole": checks, "tiny_pi0": found, "seed": args.seed}
            write(args.evidence / "claims.json", "claims", rows, **more)
            (args.evidence / "claims.md").write_text(markdown(rows, args.sessions, checks, found))
    false = [row for row in rows if row["times_the_claim"] > 1]
    said = beyond(rows, args.sessions, "early_says_less", "budget_says_less", "fixed_says_less")
    said += beyond(false, args.sessions, "early_pass", "budget_pass", "fixed_pass")
    said += beyond(checks, args.checks, "says_less") + beyond(checks[1:], args.checks, "pass")
    if said or (found is not None and not found["passed"]):
        sys.exit(f"wrong more often than said: {', '.join(said) or 'the tiny pi0 does not pass'}")


if __name__ == "__main__":
    main()
