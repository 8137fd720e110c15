"""What holds for any arrays, any answers, any settings: gates, results as JSON, precedence."""

from __future__ import annotations

import json
import math

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from policy_cases import SPECS, Function, honest

from pytest_reflex import settings
from pytest_reflex.errors import SettingsError
from pytest_reflex.inputs import Bernoulli, Gaussian, Image, InputSpec, Integers, State, Uniform
from pytest_reflex.judge.check import check
from pytest_reflex.report.json import result_from_json, result_to_json
from pytest_reflex.result import ParityResult
from pytest_reflex.verdict.gates import Evidence, judge_fixture
from pytest_reflex.verdict.metrics import difference, ulp_distance
from pytest_reflex.verdict.results import FIXTURE_GATE_NAMES, RUN_GATE_NAMES, Answer, FixtureResult
from pytest_reflex.verdict.tolerances import STRICT_THRESHOLD, Amount, Tolerances

pytestmark = pytest.mark.once

DTYPES = [
    *("float16", "float32", "float64", "bool", "int8", "int16", "int32", "int64"),
    *("uint8", "uint16", "uint32", "uint64"),
]
dtypes = st.sampled_from([np.dtype(name) for name in DTYPES])
shapes = hnp.array_shapes(max_dims=3, max_side=4)
thresholds = st.floats(1e-12, 1e3, exclude_min=True)


@st.composite
def arrays(draw: st.DrawFn) -> np.ndarray:
    return draw(hnp.arrays(draw(dtypes), draw(shapes)))


@st.composite
def pairs(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Two arrays of one form."""
    dtype, shape = draw(dtypes), draw(shapes)
    return draw(hnp.arrays(dtype, shape)), draw(hnp.arrays(dtype, shape))


def judged(reference: np.ndarray, candidate: np.ndarray, threshold: float = 1e-4) -> FixtureResult:
    return judge_fixture(0, Evidence({"x": reference}, {"x": candidate}, threshold, "", ()))


# --- gates --------------------------------------------------------------------------------------------


@given(pairs(), thresholds)
def test_a_pass_means_that_every_element_is_close(pair: tuple[np.ndarray, np.ndarray], bound: float) -> None:
    reference, candidate = pair
    result = judged(reference, candidate, bound)
    with np.errstate(all="ignore"):
        if reference.dtype.kind == "f":
            far = np.abs(reference.astype(np.float64) - candidate.astype(np.float64))
            close = bool((far < bound).all())
        else:
            # In Python's own integers, which know no end.
            close = reference.tolist() == candidate.tolist()
    finite = reference.dtype.kind != "f" or bool(np.isfinite([reference, candidate]).all())
    assert result.passed is (finite and close)


@given(pairs(), thresholds)
def test_a_verdict_does_not_depend_on_which_side_is_which(
    pair: tuple[np.ndarray, np.ndarray], bound: float
) -> None:
    one, other = judged(*pair, bound), judged(*reversed(pair), bound)
    assert one.passed is other.passed
    assert [a.gate for a in one.answers] == [a.gate for a in other.answers]


@given(pairs(), thresholds, st.randoms(use_true_random=False))
def test_a_verdict_does_not_depend_on_the_order_of_elements(
    pair: tuple[np.ndarray, np.ndarray], bound: float, random: object
) -> None:
    order = np.random.default_rng(random.randrange(2**32)).permutation(pair[0].size)  # type: ignore[attr-defined]
    shuffled = [array.reshape(-1)[order] for array in pair]
    assert judged(*pair, bound).passed is judged(*shuffled, bound).passed


@given(arrays(), arrays())
def test_arrays_of_another_form_never_pass(reference: np.ndarray, candidate: np.ndarray) -> None:
    result = judged(reference, candidate)
    if reference.dtype != candidate.dtype or reference.shape != candidate.shape:
        assert result.refusal is not None
        assert result.refusal.gate == "structure"


@given(hnp.arrays(np.float32, shapes, elements=st.floats(-1e3, 1e3, width=32)), st.data())
def test_one_nan_or_infinity_anywhere_is_refused(array: np.ndarray, data: st.DataObject) -> None:
    index = data.draw(st.sampled_from(list(np.ndindex(array.shape))))
    strange = array.copy()
    strange[index] = data.draw(st.sampled_from([np.nan, np.inf, -np.inf]))
    for pair in ((array, strange), (strange, array), (strange, strange.copy())):
        refusal = judged(*pair, 1e3).refusal
        assert refusal is not None
        assert refusal.gate == "finite"
        assert f"x{list(index)} is " in refusal.said


said = st.sampled_from([None, "no", "yes", "Yes", "y"])
results = st.builds(
    lambda fixtures, run: ParityResult(
        "r",
        1e-4,
        False,
        0,
        tuple(
            FixtureResult(i, tuple(Answer(g, s) for g, s in zip(FIXTURE_GATE_NAMES, answers, strict=False)))
            for i, answers in enumerate(fixtures)
        ),
        tuple(Answer(g, s) for g, s in zip(RUN_GATE_NAMES, run, strict=False)),
    ),
    st.lists(st.lists(said, max_size=len(FIXTURE_GATE_NAMES)), max_size=3),
    st.lists(said, max_size=len(RUN_GATE_NAMES)),
)


@given(results)
def test_a_result_passes_only_when_every_gate_was_asked_and_said_yes(result: ParityResult) -> None:
    asked = [[a.refusal for a in f.answers] for f in result.fixtures]
    every = [None] * len(FIXTURE_GATE_NAMES)
    good = bool(asked) and all(answers == every for answers in asked)
    good = good and [a.refusal for a in result.answers] == [None] * len(RUN_GATE_NAMES)
    assert result.passed is good
    assert bool(result.refusals) is not good


# --- distances ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["float16", "float32", "float64"])
@given(st.data())
def test_one_spacing_is_one_ulp(name: str, data: st.DataObject) -> None:
    dtype = np.dtype(name)
    width = 8 * dtype.itemsize
    # Subnormals and zero too; the largest has no neighbour that is a number.
    x = np.array([data.draw(st.floats(width=width, allow_nan=False, allow_infinity=False))], dtype)
    with np.errstate(all="ignore"):
        above = x + np.copysign(np.spacing(np.abs(x)), x)
    if np.isfinite(above).all():
        assert ulp_distance(x, above).tolist() == [1]
        assert ulp_distance(x, np.nextafter(x, np.copysign(np.inf, x).astype(dtype))).tolist() == [1]


@given(hnp.arrays(np.float32, 6))
def test_a_distance_is_zero_only_between_equals(x: np.ndarray) -> None:
    y = np.roll(x, 1)
    same = (x == y).tolist()
    assert [d == 0 for d in ulp_distance(x, y).tolist()] == same
    assert ulp_distance(x, -x).tolist() == ulp_distance(-x, x).tolist()


@given(st.lists(st.floats(-100, 100, width=16), min_size=3, max_size=3, unique=True))
def test_distances_add_up_along_the_line(values: list[float]) -> None:
    for dtype in (np.float16, ml_dtypes.bfloat16, np.float32, np.float64):
        a, b, c = (np.array([v], dtype) for v in sorted(values))
        whole = int(ulp_distance(a, c)[0])
        assert int(ulp_distance(a, b)[0]) + int(ulp_distance(b, c)[0]) == whole


# --- JSON ---------------------------------------------------------------------------------------------


@given(pairs(), thresholds, st.booleans(), st.text(max_size=8))
def test_a_result_survives_json(
    pair: tuple[np.ndarray, np.ndarray], bound: float, strict: bool, name: str
) -> None:
    fixture = judged(*pair, bound)
    answers = tuple(Answer.yes(gate) for gate in RUN_GATE_NAMES)
    result = ParityResult(
        name, bound, strict, 7, (fixture,), answers, {"kind": name}, {"n": [1, 2.5]}, (name,)
    )
    text = json.dumps(result_to_json(result), allow_nan=False)
    again = result_from_json(json.loads(text))
    assert again.passed is result.passed
    assert json.dumps(result_to_json(again), allow_nan=False) == text
    if fixture.outputs[0].difference is not None:
        before, after = fixture.outputs[0].difference, again.fixtures[0].outputs[0].difference
        assert after is not None
        for key in vars(before):
            one, other = getattr(before, key), getattr(after, key)
            assert one == other or (math.isnan(one) and math.isnan(other)), key


@given(pairs(), st.booleans())
def test_a_verdict_that_was_turned_around_is_refused(
    pair: tuple[np.ndarray, np.ndarray], strict: bool
) -> None:
    from pytest_reflex.errors import ReflexError

    answers = tuple(Answer.yes(gate) for gate in RUN_GATE_NAMES)
    made = result_to_json(ParityResult("r", 1e-4, strict, 0, (judged(*pair),), answers))
    made["passed"] = not made["passed"]
    with pytest.raises(ReflexError, match="contradicts itself"):
        result_from_json(made)


finite = st.floats(-1e6, 1e6)
specs = st.one_of(
    st.builds(
        lambda low, by: InputSpec("x", (2, 3), meaning=Uniform(low, low + by)), finite, st.floats(1, 10)
    ),
    st.builds(lambda mean, std: InputSpec("x", (2,), meaning=Gaussian(mean, std)), finite, st.floats(0.1, 9)),
    st.builds(
        lambda low, by: InputSpec("x", (3,), "int64", Integers(low, low + by)),
        st.integers(-(2**62), 2**61),
        st.integers(1, 2**61),
    ),
    st.builds(lambda p: InputSpec("x", (3,), "bool", Bernoulli(p)), st.floats(0.01, 0.99)),
    st.builds(lambda n, name: InputSpec("x", (n, 5, 4), meaning=Image(), free=(name, None, None)),
              st.integers(1, 4), st.text(min_size=1, max_size=5)),
    st.just(InputSpec("x", (1, 4), meaning=State())),
)  # fmt: skip


@given(specs)
def test_an_input_survives_json(spec: InputSpec) -> None:
    assert InputSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec


# --- settings -----------------------------------------------------------------------------------------

values = st.fixed_dictionaries(
    {},
    optional={
        "threshold": st.floats(1e-9, 1e3),
        "fixtures": st.integers(1, 99),
        "seed": st.integers(0, 2**31),
        "provider": st.sampled_from(sorted(settings.PROVIDERS)),
    },
)


@given(values, values, values, values)
def test_the_first_source_that_speaks_wins(
    line: dict[str, object], call: dict[str, object], mark: dict[str, object], ini: dict[str, object]
) -> None:
    text = {name: str(value) for name, value in line.items()}
    made = settings.resolve(
        settings.command_line(text),
        settings.call(call),
        settings.marker(mark),
        settings.ini_file({name: str(value) for name, value in ini.items()}),
    )
    default = settings.resolve()
    for name in ("threshold", "fixtures", "seed", "provider"):
        given = [source[name] for source in (line, call, mark, ini) if name in source]
        expected = given[0] if given else getattr(default, name)
        if name == "provider":
            expected = settings.provider_name(str(expected))
            assert settings.provider_name(str(getattr(made, name))) == expected
        else:
            wanted = Tolerances(Amount(expected)) if isinstance(expected, float) else expected
            assert getattr(made, name) == wanted


@given(st.floats(1e-12, 1e3), st.booleans())
def test_strict_only_ever_tightens(threshold: float, strict: bool) -> None:
    sides = [Function(honest, name) for name in "ab"]
    made = check(*sides, inputs=SPECS, fixtures=3, threshold=threshold, strict=strict)
    assert made.threshold == (min(threshold, STRICT_THRESHOLD) if strict else threshold)
    assert made.passed


@given(st.one_of(st.floats(max_value=0), st.just(math.nan), st.just(math.inf), st.text(max_size=4)))
def test_a_threshold_is_a_number_above_zero_or_an_error(value: object) -> None:
    try:
        made = settings.threshold(value)
    except SettingsError as error:
        assert len(str(error).splitlines()) == 1  # noqa: PT017
    else:
        # A name is there where text such as "a=1" gives one.
        amounts = [*made.outputs.values(), *([made.rest] if made.rest != settings.UNSAID else [])]
        assert amounts
        assert all(math.isfinite(amount.number) and amount.number > 0 for amount in amounts)


@given(pairs())
def test_figures_of_a_pair_follow_from_each_other(pair: tuple[np.ndarray, np.ndarray]) -> None:
    d = difference(*pair)
    assert d.unequal <= d.elements
    assert d.ulp_p50 <= d.ulp_p99 <= d.ulp_max
    if math.isfinite(d.max_abs_diff):
        assert d.mean_abs_diff <= d.max_abs_diff * (1 + 1e-12)
        assert d.mean_abs_diff <= d.rmse * (1 + 1e-9)
        assert (d.max_abs_diff == 0) is (d.unequal == 0)
