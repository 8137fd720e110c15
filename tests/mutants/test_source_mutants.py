"""The mutants that ``benchmarks/judge_mutants.py`` makes: what is changed, and what is left alone."""

from __future__ import annotations

import importlib
import itertools
import json
import sys
import textwrap
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

if sys.platform != "linux":
    pytest.skip("mutants are judged on Linux only", allow_module_level=True)

from source_child import exchange_code
from source_operators import OPERATORS, Mutant, mutants_of, spread
from source_runs import ROOT, Bench, End, Judge, Ran, surviving, without_overlaps

pytestmark = pytest.mark.once

JUDGES_OWN = sorted(
    path.relative_to(ROOT).as_posix()
    for room in ("verdict", "judge", "plugin", "inputs")
    for path in (ROOT / "pytest_reflex" / room).rglob("*.py")
)


def changes(source: str, operator: str) -> list[str]:
    """The lines that an operator makes of a text."""
    text = textwrap.dedent(source).encode()
    return [mutant.becomes for mutant in mutants_of("x.py", text) if mutant.operator == operator]


# What each operator makes of a line.
MADE = [
    ("comparison", "a < b <= c", ["a <= b <= c", "a < b < c"]),
    ("comparison", "a is not None", ["a is None"]),
    ("comparison", "a not in (b)", ["a in (b)"]),
    ("comparison", "(a) == (b)", ["(a) != (b)"]),
    ("letter", "kind in 'iub'", ["kind in 'ub'", "kind in 'ib'", "kind in 'iu'"]),
    ("letter", "kind == 'iub'", ["kind == 'ub'"]),
    ("and_or", "a and b or c", ["a and b and c", "a or b or c"]),
    ("not_removed", "not (a and b)", ["(a and b)"]),
    ("not_removed", "~a[-1]", ["a[-1]", "~a[1]"]),
    ("number", "x[0] + 0.5 + 0.0", ["x[1] + 0.5 + 0.0", "x[0] + 1.0 + 0.0", "x[0] + 0.5 + 1.0"]),
    ("truth", "f(strict=True)", ["f(strict=False)"]),
    ("default_none", "def f(a=None, *, b=None): g(None)", [
        "def f(a=0, *, b=None): g(None)",
        "def f(a=None, *, b=0): g(None)",
    ]),
    ("arithmetic", "a + b * c", ["a - b * c", "a + b / c"]),
    ("arithmetic", "a += b // c", ["a -= b // c", "a += b * c"]),
    ("any_all_min_max", "any(x.min(axis=0))", ["all(x.min(axis=0))", "any(x.max(axis=0))"]),
    ("any_all_min_max", "np.maximum(a, b)", ["np.minimum(a, b)"]),
    ("condition", "a if b else c", ["a if True else c", "a if False else c"]),
    ("condition", "[a for a in b if a]", ["[a for a in b if True]", "[a for a in b if False]"]),
    ("condition", "while a: f(a)", ["while False: f(a)"]),
    ("call_removed", "f(a)", ["pass"]),
    ("raise_removed", "raise Wrong(1 + 2)", ["pass"]),
    ("loop_end", "for a in b: continue", ["for a in b: break"]),
    ("nothing_returned", "def f(): return a", ["def f(): return None"]),
    ("element_removed", "zip(names, (_a, _b, _c))", [
        "zip(names, (_b, _c))",
        "zip(names, (_a, _c))",
        "zip(names, (_a, _b))",
    ]),
    ("element_removed", "GATES = (_a, _b)", ["GATES = (_b,)", "GATES = (_a,)"]),
]  # fmt: skip


@pytest.mark.parametrize(("operator", "source", "expected"), MADE)
def test_an_operator_makes_of_a_line(operator: str, source: str, expected: list[str]) -> None:
    assert sorted(changes(source, operator)) == sorted(expected)


def test_every_operator_is_tried_above_and_explained_in_a_line() -> None:
    assert {operator for operator, _, _ in MADE} == set(OPERATORS)
    assert all((operator.__doc__ or "").endswith(".") for operator in OPERATORS.values())


@pytest.mark.parametrize(
    "source",
    [
        '"""The first of 3, and not the last."""',
        "__all__ = ('a', 'b')",
        "Arrays = Mapping[str, Literal[1, 2]]",
        "Word: Final[tuple[Literal[1], int]]",
        "def f(a: Literal[1] | None) -> X[2]: ...",
        "class Runner(Protocol):\n    def run(self, a=1): return a + 1",
        "if TYPE_CHECKING:\n    a = 1 + 2",
        "import a.b as c",
        "x = f'{a + 1} of {b if c else d}'",
        "x = Wrong_Error(1 if a else b)",
        "a, b = c, d",
        "@overload\ndef f(a=1): return a",
    ],
)
def test_what_decides_nothing_is_left_alone(source: str) -> None:
    assert mutants_of("x.py", source.encode()) == []


def test_words_of_a_refusal_are_left_alone_and_its_gate_is_not() -> None:
    assert changes("Answer.no(gate(1), say(2))", "number") == ["Answer.no(gate(2), say(2))"]
    assert {m.operator for m in mutants_of("x.py", b"raise Wrong(f(1) if a else b)")} == {"raise_removed"}
    assert {m.operator for m in mutants_of("x.py", b"warnings.warn(f(1) if a else b)")} == {"call_removed"}


def test_a_change_of_several_lines_leaves_the_others_their_numbers() -> None:
    text = (
        b"if (\n    a\n    and b\n):\n    f(\n        c\n    )\nelse:\n    raise Wrong(\n        d)\nlast\n"
    )
    found = mutants_of("x.py", text)
    assert {m.operator for m in found} == {"condition", "and_or", "call_removed", "raise_removed"}
    for mutant in found:
        lines = mutant.of(text).splitlines()
        assert len(lines) == len(text.splitlines()), mutant
        assert lines[-1] == b"last"
        # What is measured of the statement is found by its own lines.
        assert mutant.lines[0] <= mutant.line <= mutant.lines[1], mutant


def test_the_judge_has_mutants_of_every_kind_and_each_is_known_by_its_text() -> None:
    # The largest ones, for the whole of it takes ten seconds.
    largest = sorted(JUDGES_OWN, key=lambda path: (ROOT / path).stat().st_size)[-3:]
    found = {path: mutants_of(path, (ROOT / path).read_bytes()) for path in largest}
    every = [mutant for some in found.values() for mutant in some]
    assert len(every) > 400
    assert {m.operator for m in every} >= set(OPERATORS) - {"loop_end"}
    assert len({(*m.key, m.operator, m.nth) for m in every}) == len(every)
    assert all(m.was != m.becomes for m in every)


def several(path: str, count: int) -> list[Mutant]:
    return mutants_of(path, "\n".join(f"a{n} < b" for n in range(count)).encode())


def test_a_sample_is_spread_in_proportion_and_the_same_for_a_seed() -> None:
    by_file = {"large.py": several("large.py", 60), "small.py": several("small.py", 30), "none.py": []}
    chosen = spread(by_file, 10, 1)
    counts = [sum(m.path == path for m in chosen) for path in by_file]
    assert counts == [7, 3, 0]
    assert spread(by_file, 10, 1) == chosen
    assert spread(by_file, 10, 2) != chosen
    # A larger one begins with it, so what was judged before counts.
    assert set(spread(by_file, 20, 1)) > set(chosen)
    assert len(spread(by_file, 1000, 1)) == 90


def test_a_mutant_is_killed_by_a_test_that_runs_its_line_and_an_equal_one_survives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, tests = "pytest_reflex/verdict/gates.py", "tests/pytest_reflex/verdict/test_verdict.py"
    text = (ROOT / path).read_bytes()
    found = mutants_of(path, text)
    wrong = next(m for m in found if m.becomes.startswith("if d.excess(rtol) <= bound"))
    at = text.index(b"0.0", text.index(b"rtol: float = 0.0"))
    equal = replace(wrong, start=at, end=at + 3, text="0.00", becomes="rtol: float = 0.00")
    broken = replace(wrong, start=at, end=at + 3, text="1 / 0", becomes="rtol: float = 1 / 0")
    with Bench(tmp_path / "tree", nice=0) as bench:
        known = bench.known(tests)
        assert known.failed == []
        judge = Judge([known])
        killed = judge.judge(bench, wrong)
        assert (killed.end, killed.stage) == ("killed", 0)
        assert killed.by in known.lines[path][wrong.line]
        assert (bench.tree / path).read_bytes() == text
        assert judge.judge(bench, broken).end == "killed"
        with monkeypatch.context() as patched:
            patched.setattr("source_runs.SECONDS", 2.0)
            hangs = replace(wrong, text="< __import__('time').sleep(100) or")
            assert Judge([known]).judge(bench, hangs).end == "too long"
        survived = judge.judge(bench, equal)
        # All were asked.
        assert (survived.end, survived.by, survived.stage) == ("survived", "", len(judge.stages(equal)))


def test_a_fork_judges_as_a_process_of_its_own_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, tests = "pytest_reflex/verdict/gates.py", "tests/pytest_reflex/verdict/test_verdict.py"
    text = (ROOT / path).read_bytes()
    found = mutants_of(path, text)
    wrong = next(m for m in found if m.becomes.startswith("if d.excess(rtol) <= bound"))
    at = text.index(b"0.0", text.index(b"rtol: float = 0.0"))
    top = replace(wrong, start=at, end=at + 3, text="0.5", becomes="rtol: float = 0.5")
    at = text.index(b'"the reference gave no output, so')
    equal = replace(wrong, start=at + 1, end=at + 4, text="\\164he", becomes="the same text")
    by = f"{tests}::test_the_threshold_itself_is_no_pass"
    with Bench(tmp_path / "tree", nice=0) as bench:

        def forked(mutant: Mutant, *asked: str) -> Ran | None:
            with bench.with_text(path, mutant.of(text)):
                return bench.forked(asked, {}, 60, path, text)

        assert forked(wrong, by) is None, "nothing was collected"
        bench.collect([tests])
        ran = bench.forked([by], {}, 60, "", b"")
        assert ran is not None
        assert ran.outcomes == {by: "passed"}
        ran = forked(wrong, by)
        assert ran is not None
        assert (ran.code, ran.first_bad) == (1, by)
        ran = forked(equal, by)
        assert ran is not None
        assert ran.code == 0
        assert forked(top, by) is None, "what runs at an import is not run again"
        assert forked(wrong, "tests/pytest_reflex/verdict/test_power.py::test_x") is None
        # What all tests pass with is told from what one refuses, though both were in one tree.
        monkeypatch.setattr("source_runs.test_files", lambda: [tests])
        (group,) = without_overlaps([wrong, equal])
        assert [mutant for mutant, _ in surviving(bench, group)] == [equal]


def test_groups_hold_nothing_that_overlaps_and_are_few() -> None:
    several = [m for p in ("x.py", "y.py") for m in mutants_of(p, b"a if b < c else d\na if b else d\n")]
    groups = without_overlaps(several)
    assert sorted(map(repr, itertools.chain.from_iterable(groups))) == sorted(map(repr, several))
    assert len(groups) == 3  # true, false, and one of them with the end taken in
    for group in groups:
        for one, other in itertools.combinations(group, 2):
            assert one.path != other.path or one.end < other.start


@pytest.mark.parametrize(
    ("changed", "answers"),
    [
        ("def f(a): return a + 2", {"f": 3}),
        ("def f(a): return [a - n for n in (1,)][0]", {"f": 0}),
        ("def f(a, b=2): return a + b", None),
        ("def f(a): return a + 1\nTOP = 2", None),
    ],
)
def test_code_is_exchanged_within_functions_alone(changed: str, answers: dict[str, int] | None) -> None:
    honest, space = "def f(a): return a + 1", {}
    exec(compile(honest, "a file", "exec"), space)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("source_child._functions", [space["f"]])
        assert exchange_code("a file", honest, changed) is (answers is not None)
        assert not exchange_code("another file", honest, changed)
    assert space["f"](1) == (answers or {"f": 2})["f"]


@pytest.fixture
def judge_mutants(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module("judge_mutants")


def test_one_that_survived_without_a_reason_fails_the_run(
    judge_mutants: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = "pytest_reflex/verdict/divergence.py"
    found = mutants_of(path, (ROOT / path).read_bytes())
    kept = judge_mutants.Kept(tmp_path / "ends.jsonl")
    for mutant in found:
        end = "survived" if mutant == found[0] else "killed"
        kept.keep(mutant, End(end, "" if end == "survived" else "test_x.py::test_y", 0, 1.0), lasting=True)
    command = ["judge_mutants.py", "--files", path, "--work", str(tmp_path), "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", command)
    monkeypatch.setattr(judge_mutants, "explanations", dict)
    with pytest.raises(SystemExit, match="1"):
        judge_mutants.main()
    said, page = capsys.readouterr().out, (tmp_path / "judge_mutants.md").read_text()
    assert f"{len(found) - 1} killed, 0 equivalent, 1 survived" in said
    assert f"    - {found[0].was}\n    + {found[0].becomes}\n" in said
    assert f"```diff\n- {found[0].was}\n+ {found[0].becomes}\n```" in page
    monkeypatch.setattr(judge_mutants, "explanations", lambda: {found[0].key: "It is the same number."})
    with pytest.raises(SystemExit, match="0"):
        judge_mutants.main()
    assert "It is the same number." in (tmp_path / "judge_mutants.md").read_text()
    table = json.loads((tmp_path / "judge_mutants.json").read_text())["mutants"]
    assert Counter(one["end"] for one in table) == {"killed": len(found) - 1, "equivalent": 1}


def test_every_explanation_names_a_mutant_that_there_is(judge_mutants: ModuleType) -> None:
    told = judge_mutants.explanations()
    files = {path for path, _, _, _ in told}
    known = {m.key for path in files for m in mutants_of(path, (ROOT / path).read_bytes())}
    assert [key for key in told if key not in known] == []
    assert all(len(because.split()) > 5 for because in told.values())
