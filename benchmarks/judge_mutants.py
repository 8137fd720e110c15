"""Mutants of the judge itself: small wrong changes to what decides, and which of them no test refuses.

    python benchmarks/judge_mutants.py --seed 1 --mutants 450 --out parity_reports

A mutant is one change (``tests/mutants/source_operators.py``) to one file of ``pytest_reflex/verdict``,
``judge``, ``plugin`` or ``inputs``. The tests that run its lines judge it first, those of its room and the
quickest before others; then all those of ``tests/pytest_reflex``, ``tests/known_bad`` and ``tests/hostile``
that may see what its lines do. One that fails, and fails again, has killed it, and so has one that takes ten
times as long as on the honest tree. A mutant that survives is a hole in the tests, unless
``judge_equivalents.toml``, beside the report, says why no test could tell it: then it is *equivalent*. Those
are put into one tree, all that do not overlap, and every test has to pass on that. One that survived without
a reason makes the exit code 1.

A first look at few tests (``--tests tests/pytest_reflex/verdict``, ``--quick 12``) takes less: what they kill
is killed. Those that survive them are asked again by the next run. A change within functions is judged in
forks of a process that has imported the tests, a tenth of a second each; what runs at an import is judged in
processes of its own.

Which tests run which lines is measured once and kept in ``--work``, with every mutant's end as soon as it is
known: the same command goes on where it was cut off. A file that changed has its mutants judged anew, and
``--again`` asks those that survived once more. Without ``--out`` nothing is written but that.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import platform
import signal
import subprocess
import sys
import threading
import time
import tomllib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from queue import Queue
from typing import Any, Final, TypeVar

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests" / "support"), str(ROOT / "tests" / "mutants")]

# ruff: noqa: E402
from side_by_side import mutants_by_operator
from source_operators import OPERATORS, Mutant, mutants_of, spread
from source_runs import Bench, End, Judge, Known, surviving, test_files, without_overlaps

ROOMS: Final = ("verdict", "judge", "plugin", "inputs")
ENDS: Final = ("killed", "equivalent", "survived")
EXPLAINED: Final = ROOT / "parity_reports" / "judge_equivalents.toml"
T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Judged:
    """A mutant with its end, and why it is equivalent where it is."""

    mutant: Mutant
    end: End
    because: str = ""

    @property
    def counted_as(self) -> str:
        if self.end.end == "survived":
            return "equivalent" if self.because else "survived"
        return "killed"

    def to_json(self) -> dict[str, Any]:
        m = self.mutant
        what = {"file": m.path, "line": m.line, "in": m.within, "operator": m.operator}
        told = {"because": self.because} if self.because else {}
        ended = {"end": self.counted_as, "by": self.end.by, "seconds": self.end.seconds}
        return {**what, "was": m.was, "becomes": m.becomes, **ended, **told}


@cache
def _digest(path: str) -> str:
    return hashlib.sha256((ROOT / path).read_bytes()).hexdigest()


class Kept:
    """Ends that are known already, a line for each in a file."""

    def __init__(self, path: Path) -> None:
        self._path, self._lock = path, threading.Lock()
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        self._ends = {one["id"]: End(**one["end"]) for one in map(json.loads, lines)}

    @staticmethod
    def _id(mutant: Mutant) -> str:
        whole = [_digest(mutant.path), *mutant.key, mutant.operator, mutant.nth]
        return hashlib.sha256(json.dumps(whole).encode()).hexdigest()[:32]

    def end(self, mutant: Mutant) -> End | None:
        return self._ends.get(self._id(mutant))

    def keep(self, mutant: Mutant, end: End, *, lasting: bool) -> None:
        self._ends[self._id(mutant)] = end
        if not lasting:
            return
        with self._lock, self._path.open("a", encoding="utf-8") as file:
            shown = f"{mutant.path}:{mutant.line}: {mutant.was} => {mutant.becomes}"
            file.write(json.dumps({"id": self._id(mutant), "what": shown, "end": asdict(end)}) + "\n")


def judges_files() -> list[str]:
    found = [path for room in ROOMS for path in sorted((ROOT / "pytest_reflex" / room).rglob("*.py"))]
    return [path.relative_to(ROOT).as_posix() for path in found]


def explanations(path: Path = EXPLAINED) -> dict[tuple[str, str, str, str], str]:
    """Why a mutant is equivalent, by its file, its function, its line before and after."""
    told = tomllib.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return {(e["file"], e["in"], e["was"], e["becomes"]): e["because"] for e in told.get("equivalent", [])}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--mutants", type=int, default=450)
    parser.add_argument("--files", nargs="+", default=[""], help="only files whose names hold one of these")
    parser.add_argument(
        "--tests", nargs="+", default=[], help="only tests below these; no last word on survivors"
    )
    parser.add_argument(
        "--quick", type=float, help="only so many seconds of tests for each; no last word on survivors"
    )
    parser.add_argument("--jobs", type=int, choices=(1, 2), default=2, help="mutants at a time")
    parser.add_argument("--again", action="store_true", help="judge anew those that survived")
    parser.add_argument("--work", type=Path, default=ROOT / "demo" / "judge_mutants")
    parser.add_argument("--out", type=Path, help="write judge_mutants.json and .md into this directory")
    options = parser.parse_args()

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    options.work.mkdir(parents=True, exist_ok=True)
    paths = [path for path in judges_files() if any(part in path for part in options.files)]
    by_file = {path: mutants_of(path, (ROOT / path).read_bytes()) for path in paths}
    chosen = spread(by_file, options.mutants, options.seed)
    kept, why = Kept(options.work / "ends.jsonl"), explanations()
    left = [m for m in chosen if _is_open(m, kept, why, options.again)]
    print(
        f"{sum(map(len, by_file.values()))} mutants, {len(chosen)} chosen, {len(left)} to be judged",
        flush=True,
    )
    if _is_a_look(options) and options.out:
        parser.error("--out: a table of what survived some tests says nothing; leave out --tests and --quick")
    if left:
        _judge(left, kept, why, options)
    judged = [Judged(m, end, why.get(m.key, "")) for m in chosen if (end := kept.end(m)) is not None]
    counted = Counter(one.counted_as for one in judged)
    print(", ".join(f"{counted[end]} {end}" for end in ENDS))
    for one in judged:
        if one.counted_as == "survived":
            print(f"SURVIVED: {_shown(one)}")
    if options.out is not None:
        about = {
            "seed": options.seed,
            "possible": sum(map(len, by_file.values())),
            "chosen": len(judged),
            "seconds": round(sum(one.end.seconds for one in judged)),
            "versions": {name: version(name) for name in ("pytest", "torch", "onnxruntime", "numpy")},
            "commit": _commit(),
            "machine": f"{platform.machine()}, {platform.system()}, Python {platform.python_version()}",
        }
        write(options.out, about, judged)
    sys.exit(1 if counted["survived"] else 0)


def _commit() -> str:
    """Which commit the files are of, and whether they are as it has them."""
    said = ["git", "describe", "--always", "--abbrev=12", "--dirty", "--exclude", "*"]
    return subprocess.run(said, cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()


def _is_open(mutant: Mutant, kept: Kept, why: dict[tuple[str, str, str, str], str], again: bool) -> bool:
    end = kept.end(mutant)
    return end is None or (again and end.end == "survived" and mutant.key not in why)


def _is_a_look(options: argparse.Namespace) -> bool:
    """Whether only some tests are asked, so that what survives them has not survived."""
    return bool(options.tests) or options.quick is not None


def _judge(
    left: Sequence[Mutant],
    kept: Kept,
    why: Mapping[tuple[str, str, str, str], str],
    options: argparse.Namespace,
) -> None:
    work: Path = options.work
    jobs: int = options.jobs
    begin = time.monotonic()
    benches: Queue[Bench] = Queue()
    with ExitStack() as opened:
        made = [opened.enter_context(Bench(work / f"tree{number}")) for number in range(jobs)]
        for bench in made:
            benches.put(bench)

        def each(what: Sequence[T], done: Callable[[Bench, T], R]) -> list[R]:
            def one(item: T) -> R:
                bench = benches.get()
                try:
                    return done(bench, item)
                finally:
                    benches.put(bench)

            with ThreadPoolExecutor(jobs) as pool:
                try:
                    return list(pool.map(one, what))
                except BaseException:
                    pool.shutdown(wait=False, cancel_futures=True)
                    for bench in made:
                        bench.close()
                    raise

        explained = [] if _is_a_look(options) else [m for m in left if m.key in why]
        apart = each(without_overlaps(explained), lambda bench, group: surviving(bench, group))
        for mutant, end in itertools.chain.from_iterable(apart):
            kept.keep(mutant, end, lasting=True)
            print(f"{time.monotonic() - begin:6.0f} s {_shown(Judged(mutant, end))}", flush=True)
        left = [mutant for mutant in left if kept.end(mutant) is None or mutant.key not in why]
        if not left:
            return
        files = [file for file in test_files() if file.startswith(tuple(options.tests or [""]))]
        judge = Judge(each(files, lambda bench, file: _known(bench, file, work)), options.quick)
        for test in judge.failed:
            print(f"fails on the honest tree, and kills nothing: {test}", flush=True)
        print(f"{len(judge.seconds)} tests in {sum(judge.seconds.values()):.0f} s", flush=True)

        for bench in made:
            bench.collect(files)

        def judged(bench: Bench, mutant: Mutant) -> None:
            end = judge.judge(bench, mutant)
            kept.keep(mutant, end, lasting=not _is_a_look(options) or end.end != "survived")
            print(f"{time.monotonic() - begin:6.0f} s {_shown(Judged(mutant, end))}", flush=True)

        each(left, judged)


def _known(bench: Bench, test_file: str, work: Path) -> Known:
    kept = work / "known" / f"{bench.digest(test_file)}.json"
    if not kept.exists():
        kept.parent.mkdir(exist_ok=True)
        begin = time.monotonic()
        try:
            text = json.dumps(asdict(bench.known(test_file)))
        except RuntimeError as error:  # it ends its process in a way that cannot be measured
            print(f"not measured: {str(error).splitlines()[0]}", flush=True)
            return Known({}, [test_file], {}, {})
        kept.write_text(text, encoding="utf-8")
        print(f"measured {test_file} in {time.monotonic() - begin:.0f} s", flush=True)
    return Known(**json.loads(kept.read_text(encoding="utf-8")))


def _shown(one: Judged) -> str:
    m = one.mutant
    by = f" by {one.end.by}" if one.end.by else ""
    return (
        f"{one.end.end} in {one.end.seconds:.0f} s{by}\n"
        f"    {m.path}:{m.line} {m.within} ({m.operator})\n    - {m.was}\n    + {m.becomes}"
    )


def write(directory: Path, about: dict[str, Any], judged: Sequence[Judged]) -> None:
    """The table of all of them as JSON and as a page."""
    directory.mkdir(parents=True, exist_ok=True)
    # One line for each, so that what changes from one table to the next can be read.
    head = json.dumps(about, indent=1).removesuffix("\n}")
    rows = ",\n".join("  " + json.dumps(one.to_json()) for one in judged)
    (directory / "judge_mutants.json").write_text(
        f'{head},\n "mutants": [\n{rows}\n ]\n}}\n', encoding="utf-8"
    )
    (directory / "judge_mutants.md").write_text(_page(about, judged), encoding="utf-8")


def _page(about: dict[str, Any], judged: Sequence[Judged]) -> str:
    counted = Counter(one.counted_as for one in judged)
    too_long = sum(one.end.end == "too long" for one in judged)
    lines = [
        "# Mutants of the judge",
        "",
        f"{len(judged)} mutants of what decides: {counted['killed']} killed, "
        f"{counted['equivalent']} equivalent, {counted['survived']} survived.",
        "",
        "Each is one small wrong change to one file of `pytest_reflex/verdict`, `judge`, `plugin` or "
        f"`inputs`, drawn with seed {about['seed']} from {about['possible']}, from each file as many as its "
        "share is. The tests of `tests/pytest_reflex`, `tests/known_bad` and `tests/hostile` that may see "
        "what its lines do judge it: one that fails, and fails again, has killed it, and so has one that "
        "takes ten times as long "
        f"({too_long} of them). An *equivalent* one survived because no test could tell it from the honest "
        "judge, for the reason that is given below; all of those together, but for such as overlap, were put "
        "into one tree, and every test passed on it.",
        "",
        f"Made by `python benchmarks/judge_mutants.py --seed {about['seed']} --mutants {about['chosen']} "
        f"--out parity_reports` at commit {about['commit']} in {about['seconds']} s of judging "
        f"({about['machine']}; "
        + ", ".join(f"{name} {found}" for name, found in about["versions"].items())
        + "). Every mutant is in [judge_mutants.json](judge_mutants.json).",
        "",
        "## By file",
        "",
        "| file | killed | equivalent | survived |",
        "| --- | --- | --- | --- |",
    ]
    for path in dict.fromkeys(one.mutant.path for one in judged):
        lines.append(f"| {path} | {_cells(one for one in judged if one.mutant.path == path)} |")
    lines += mutants_by_operator(
        OPERATORS, lambda name: _cells(one for one in judged if one.mutant.operator == name)
    )
    for end, title in (("survived", "Those that survived"), ("equivalent", "The equivalent ones")):
        some = [one for one in judged if one.counted_as == end]
        lines += ["", f"## {title}"] if some else []
        for one in some:
            m = one.mutant
            lines += ["", f"`{m.path}`, `{m.within or 'its top'}`, {m.operator}:", "", "```diff"]
            lines += [f"- {m.was}", f"+ {m.becomes}", "```"]
            lines += ["", one.because] if one.because else []
    return "\n".join(lines) + "\n"


def _cells(judged: Iterable[Judged]) -> str:
    counted = Counter(one.counted_as for one in judged)
    return " | ".join(str(counted[end]) for end in ENDS)


if __name__ == "__main__":
    main()
