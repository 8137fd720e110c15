"""That no test decides by a bound on accuracy without a unit, nor by the clock."""

from __future__ import annotations

import ast
import functools
from pathlib import Path

import pytest
from absolute_bounds import Names, absolute_bounds, absolute_times, numbers_of, own_thresholds

from pytest_reflex.verdict.tolerances import STRICT_THRESHOLD, THRESHOLD

pytestmark = pytest.mark.once

ROOT = Path(__file__).resolve().parent.parent


@functools.cache
def parsed(path: Path) -> ast.Module:
    """A file's tree; not before a test asks, for every worker collects this file."""
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


MEASURING = {
    path.relative_to(ROOT).as_posix(): path
    for folder in ("tests", "benchmarks", "examples")
    for path in sorted((ROOT / folder).rglob("*.py"))
    if "node_modules" not in path.parts
} | {"conftest.py": ROOT / "conftest.py"}


@functools.cache
def constants() -> Names:
    """The numbers that any of these files gives a name to."""
    return {
        name: number
        for path in MEASURING.values()
        for name, number in numbers_of(parsed(path)).items()
        if len(name) > 1
    }


# What is no bound of a test's, by file, as it is written there.
LET_BE = {
    # Which of a graph's constants keeps a norm from 0, and which hides nothing: what is to be changed.
    "tests/mutants/mutant_operators.py": {
        "0 < float(array.reshape(-1)[0]) < 0.0001", "0.0001 < largest < _MASKING",
    },
    # The threshold gate itself, over figures that are made up.
    "tests/support/report_cases.py": {"worst < threshold"},
    # How exactly a text gives a threshold back, as a share of it.
    "tests/pytest_reflex/report/test_advice.py": {"abs(value - threshold) > 1e-07 * threshold"},
    # Two estimates of one length side by side, as a factor.
    "tests/exporters/test_repair.py": {"nearest < 2"},
    # What a text has to say, digit by digit.
    "tests/pytest_reflex/judge/test_half_reference.py": {
        "f'itself up to output {np.abs(truth - gave).max():.1e} from float64' in said(result)",
    },
    # The rule for rtol itself, counted a second time over numbers that are made up.
    "tests/pytest_reflex/verdict/test_tolerances.py": {
        "pytest.approx(expected, rel=1e-12, abs=1e-15)", "apart >= atol",
        "pytest.approx(max(expected, 0.0), rel=1e-09, abs=1e-18)",
        "pytest.approx(float(shares.max()), rel=1e-12, abs=1e-15)",
    },
    "tests/support/absolute_bounds.py": {"UNREACHED < value < SMALL"},
    # How many simulated sessions are wrong, beside one in twenty of them.
    "benchmarks/claims.py": {"row[key] * sessions > most", "row['times_the_claim'] > 1",
        # Whether a simulated bound is below the share that the session was made with.
        "claim.bound < share",
    },
}  # fmt: skip


@pytest.mark.parametrize("name", MEASURING)
def test_every_bound_on_accuracy_has_a_unit(name: str) -> None:
    """Another processor has other last bits: a bound is in floors, in ulps, or is the product's own."""
    found = absolute_bounds(parsed(MEASURING[name]), constants())
    assert {bound.partition(": ")[2] for bound in found} == LET_BE.get(name, set()), found


@pytest.mark.parametrize("name", [n for n in MEASURING if n.startswith("tests/")])
def test_no_test_decides_by_the_clock(name: str) -> None:
    """Another machine has another pace: a time is held against one that was taken beside it."""
    assert absolute_times(parsed(MEASURING[name])) == []


# Where policies are exported, and not results made up.
EXPORTING = ("tests/exporters", "tests/parity", "tests/mutants", "tests/hostile")


@pytest.mark.parametrize("name", [n for n in MEASURING if n.startswith(EXPORTING)])
def test_an_export_is_judged_by_the_product_s_own_threshold(name: str) -> None:
    assert own_thresholds(parsed(MEASURING[name]), (THRESHOLD, STRICT_THRESHOLD)) == []


# --- the rules' own test: each sees what it is there to see -------------------------------------------


@pytest.mark.parametrize(
    "code",
    [
        "assert result.max_abs_diff < 3e-6",
        "assert 3e-6 > result.max_abs_diff_across_all",
        "assert 0 < fixture['max_abs_diff'] <= 1e-6",
        "assert fixture.cos > 0.9999999",
        "assert result.max_abs_diff < BOUND",
        "assert output.floor.candidate_max < 1e-6",
        "LIMIT = 3e-6\nassert result.max_abs_diff < LIMIT",
        "LIMIT = 3e-6\nassert result.max_abs_diff < 2 * LIMIT",
        "assert result.max_abs_diff < float('3e-6')",
        "assert not result.max_abs_diff >= np.float32(3e-6)",
        "assert all(s.max_abs_diff < 3e-6 for s in result.steps)",
        "assert np.abs(a - b).max() < 1e-6",
        "assert (a - b).abs().max() < 1e-6",
        "assert np.linalg.norm(a - b) < 1e-6",
        "worst = result.max_abs_diff\nassert worst < 3e-6",
        "worst = abs(a - b).max()\nhighest = worst\nassert highest < 3e-6",
        "def off(a, b):\n    return abs(a - b).max()\nassert off(a, b) < 3e-6",
        "if worst := result.max_abs_diff:\n    assert worst < 3e-6",
        "np.testing.assert_allclose(a, b, rtol=0, atol=1e-6)",
        "np.testing.assert_allclose(a, b)",
        "assert np.allclose(a, b, atol=TOLERANCE)",
        "assert a == pytest.approx(b, rel=1e-3)",
        "assert a == pytest.approx(b)",
        "torch.testing.assert_close(a, b)",
        "assert fixture.get('max_abs_diff') < 3e-6",
        "assert getattr(result, 'max_abs_diff') < 3e-6",
        "assert max(map(attrgetter('max_abs_diff'), fixtures)) < 3e-6",
        "assert np.less(result.max_abs_diff, 3e-6)",
        "self.assertLess(result.max_abs_diff, 3e-6)",
        "np.testing.assert_array_less(abs(a - b), 3e-6)",
        "match result.max_abs_diff:\n    case x if x < 3e-6:\n        pass",
        "def near(a, b, by):\n    return abs(a - b).max() < by\nassert near(a, b, 1e-6)",
        "def near(a, b, by):\n    assert abs(a - b).max() < by\nnear(a, b, by=1e-6)",
        "def near(a, b, by=1e-6):\n    assert abs(a - b).max() < by",
        "def near(a, b, *, by=1e-6):\n    assert abs(a - b).max() < by",
        "near = lambda a, b, by=1e-6: abs(a - b).max() < by",
        "async def off(a, b):\n    return abs(a - b).max()\nassert off(a, b) < 3e-6",
        "@pytest.mark.parametrize('bound', [3e-6])\ndef test_it(bound):\n"
        "    assert result.max_abs_diff < bound",
        "@pytest.mark.parametrize('name, bound', [pytest.param('pi0', 3e-6, id='x')])\n"
        "def test_it(name, bound):\n    assert result.max_abs_diff < bound",
        "@pytest.fixture\ndef bound():\n    return 3e-6\ndef test_it(bound):\n"
        "    assert result.max_abs_diff < bound",
        "BOUNDS = {'pi0': 3e-6}\nassert result.max_abs_diff < BOUNDS['pi0']",
        "BOUNDS = {'pi0': 3e-6}\nassert result.max_abs_diff < BOUNDS.get(name)",
        "LOW, HIGH = 1e-9, 3e-6\nassert result.max_abs_diff < HIGH",
        "assert result.max_abs_diff < (3e-6 if long else 1e-6)",
        "for r, bound in zip(results, (3e-6, 1e-6)):\n    assert r.max_abs_diff < bound",
        "assert result.max_abs_diff < max(3e-6, 1e-6 * scale)",
        "assert np.abs(a - b).max() < 1e-5 * np.abs(b).max()",
        "assert result.max_abs_diff - 3e-6 < 0",
        "assert result.max_abs_diff < 3e-6 + EPS",
        "diff = a - b\nassert diff.abs().max() < 1e-6",
        "assert np.absolute(np.subtract(a, b)).max() < 1e-6",
        "assert ((a - b) ** 2).mean() < 1e-12",
        "assert (a - b).max() < 1e-6",
        "assert torch.dist(a, b) < 1e-6",
        "worst = []\nfor f in fixtures:\n    worst.append(f.max_abs_diff)\nassert max(worst) < 3e-6",
        "assert all(x < 3e-6 for x in [f.max_abs_diff for f in fixtures])",
        "assert sum(f.max_abs_diff for f in fixtures) / len(fixtures) < 3e-6",
        "assert result.max_abs_diff < 3e-6 * len(fixtures)",
        "EPS = 3e-6\nassert result.max_abs_diff < EPS",
        "from cases import lower\nassert result.max_abs_diff < lower",
        "assert np.allclose(a, b, atol=0)",
        "assert np.allclose(a, b, 1e-5, atol=0)",
        "np.testing.assert_approx_equal(a, b, significant=5)",
        "close = partial(np.allclose, rtol=0, atol=1e-6)",
        "from numpy import allclose as same\nassert same(a, b, rtol=0, atol=1e-6)",
        "assert round(result.max_abs_diff, 6) == 0",
        "assert np.array_equal(a.round(5), b.round(5))",
        "np.testing.assert_array_equal(np.round(a, 5), np.round(b, 5))",
        "assert np.array_equal(a.astype(np.float16), b.astype(np.float16))",
        "assert torch.equal(a.half(), b.half())",
        "assert f'{result.max_abs_diff:.6f}' == '0.000000'",
        "assert '%.6f' % result.max_abs_diff == '0.000000'",
        "assert 'e-07' in str(result.max_abs_diff)",
        "assert not int(result.max_abs_diff * 1e6)",
        "assert result.max_abs_diff // 1e-6 == 0",
        "assert max(result.max_abs_diff, 3e-6) == 3e-6",
        "assert sorted([3e-6, result.max_abs_diff])[-1] == 3e-6",
        "assert result.max_abs_diff.__lt__(3e-6)",
        "from cases import off\nassert off(a, b) < 3e-6",
        "assert worst < 3e-6",
        "assert worst < 3 * 1e-6",
        "assert worst < 3 / 1_000_000",
        "assert result.worst_error < 1e-6",
        "assert cosine(a, b) > 0.999999",
        "ok = lambda d: d < 3e-6\nassert ok(result.max_abs_diff)",
        "bound = lambda: 3e-6\nassert result.max_abs_diff < bound()",
        "assert (a <= b + 1e-6).all() and (a >= b - 1e-6).all()",
        "assert -1e-6 < a - b < 1e-6",
        "d = a - b\nassert d @ d < 1e-12",
        "from helpers import require\nrequire(result, 3e-6)",
        "from helpers import require\nrequire(result, within=3e-6)",
        "assert_almost(a, b, 1e-6)",
        "def near(r, by):\n    assert r.max_abs_diff < by\nnear(*(r, 3e-6))",
        "def near(r, by):\n    assert r.max_abs_diff < by\nnear(r, **{'by': 3e-6})",
        "def near(r, by):\n    assert r.max_abs_diff < by\npartial(near, by=3e-6)(r)",
        "class C:\n    def near(self, r, by):\n        assert r.max_abs_diff < by\nC().near(r, 3e-6)",
        "self.bound = 3e-6\nassert result.max_abs_diff < self.bound",
        "import cases\nassert result.max_abs_diff < cases.lower",
        "from cases import *\nassert result.max_abs_diff < lower",
        "@pytest.fixture(params=[3e-6])\ndef bound(request):\n    return request.param\n"
        "def test_it(bound):\n    assert result.max_abs_diff < bound",
        "@pytest.mark.parametrize(argnames='b', argvalues=[3e-6])\ndef test_it(b):\n"
        "    assert result.max_abs_diff < b",
        "@pytest.mark.parametrize('b', [x * 1e-6 for x in (1, 2)])\ndef test_it(b):\n"
        "    assert result.max_abs_diff < b",
        "assert result.max_abs_diff < float(os.environ['BOUND'])",
        "assert result.max_abs_diff < Fraction(3, 1000000)",
        "assert result.max_abs_diff < math.pow(10, -6)",
        "assert abs(a - b).max() < 25 * np.finfo(np.float32).eps",
        "assert result.max_abs_diff < 0.03 * THRESHOLD",
        "assert result.max_abs_diff < THRESHOLD / 30",
        "ratio = result.max_abs_diff * 1e6\nassert ratio < 3",
        "def floors(a, b):\n    return abs(a - b).max()\nassert floors(a, b) < 3",
        "ulp = lambda: 3e-6\nassert result.max_abs_diff < ulp()",
        "from cases import BOUND as EPS\nassert result.max_abs_diff < EPS",
        "from cases import TOLERANCE as EPS\nassert result.max_abs_diff < 3 * EPS",
        "same = np.allclose\nassert same(a, b, atol=1e-6, rtol=0)",
        "assert getattr(np, 'allclose')(a, b)",
        "assert np.isclose(a, b, atol=2 * EPS).all()",
        "assert math.isclose(a, b, abs_tol=EPS)",
    ],
)
def test_a_bound_without_a_unit_is_seen(code: str) -> None:
    assert absolute_bounds(ast.parse(code), {"BOUND": 3e-6, "TOLERANCE": 1e-6, "lower": 1e-6})


@pytest.mark.parametrize(
    "code",
    [
        "assert result.max_abs_diff < STRICT_THRESHOLD",
        "assert result.max_abs_diff > 100 * THRESHOLD",
        "assert result.max_abs_diff == 0.5",
        "assert 0 < result.max_abs_diff",
        "assert np.array_equal(a, b)",
        "assert floors([a], [b], [c]) < ROUNDING",
        "assert ulps(a, b, dtype=np.float64) <= 2",
        "assert 1 - fixture.cos < np.finfo(np.float32).eps",
        "assert a == pytest.approx(b, rel=4 * EPS)",
        "assert np.allclose(a, b, rtol=0, atol=2 * ulp(np.float32, 4))",
        "assert len(fixtures) < 8",
        "assert len(str(error)) < 500",
        "assert np.allclose(a, b, rtol=0, atol=0)",
        "assert np.abs(a - b).max() < np.spacing(np.float32(1))",
        "bound = 4 * ulp(np.float32, 1.0)\nassert result.max_abs_diff < bound",
        "assert a.max_abs_diff / b.max_abs_diff < 2",
        "assert result.max_abs_diff < other.max_abs_diff",
        "@pytest.mark.parametrize('times', [2, 4])\ndef test_it(times):\n"
        "    assert result.max_abs_diff < times * THRESHOLD",
        "assert torch.equal(got, got.half().double())",
        "assert max(result.max_abs_diff, other.max_abs_diff) < THRESHOLD",
        "assert predicted < 20 * result.max_abs_diff",
        "assert shade(1e-9, edges) < shade(5e-5, edges)",
        "assert len(str(error).splitlines()) == 1",
    ],
)
def test_a_bound_with_a_unit_is_let_be(code: str) -> None:
    assert absolute_bounds(ast.parse(code), {"ROUNDING": 2.0}) == []


@pytest.mark.parametrize(
    "code",
    [
        "begin = time.perf_counter()\nwork()\nassert time.perf_counter() - begin < 2",
        "took = time.monotonic() - begin\nassert took < 2",
        "took.append(time.perf_counter() - begin)\nassert min(took) < LIMIT_S",
        "def seconds():\n    return time.perf_counter() - begin\nassert seconds() < 0.01",
        "def fast():\n    return time.time() - begin < 2\nassert fast()",
        "if perf_counter() - begin > 5:\n    raise AssertionError",
        "if perf_counter() - begin > 5:\n    pytest.fail('slow')",
        "assert reply['infer_ms'] < 10_000",
        "assert took / 1000 < 2",
        "assert took / len(runs) < 2",
        "assert statistics.median(ran.seconds for ran in runs) < 1",
        "assert report.duration < 0.5",
    ],
)
def test_a_time_that_decides_is_seen(code: str) -> None:
    assert absolute_times(ast.parse(f"LIMIT_S = 2\n{code}"))


@pytest.mark.parametrize(
    "code",
    [
        "while time.monotonic() - begin < 60:\n    wait()",
        "if took < 2:\n    ready()",
        "took, other = timed(a), timed(b)\nassert took < 3 * other",
        "assert took / other < 3",
        "assert 0 < reply['infer_ms'] <= whole_ms",
        "process.wait(timeout=60)",
        "assert len(seconds) == 3",
    ],
)
def test_a_time_beside_another_and_one_that_waits_are_let_be(code: str) -> None:
    assert absolute_times(ast.parse(code)) == []


def test_a_threshold_of_one_s_own_is_seen() -> None:
    said = "made = pi0.export(policy, place, threshold={})"
    for own in ("3e-6", "1e-3", "3 * 1e-6"):
        assert own_thresholds(ast.parse(said.format(own)), (1e-4, 1e-5))
    for let_be in ("1e-5", "THRESHOLD", "'2x floor'", "1e-30"):
        assert own_thresholds(ast.parse(said.format(let_be)), (1e-4, 1e-5)) == []
