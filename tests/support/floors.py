"""How far two computations are apart, in units that every processor shares.

Another processor sums in another order and rounds other last bits, so that no difference between two float32
programs has a bound of its own. It has one in *floors*: one floor is what PyTorch itself is away from float64
over the same fixtures on the machine that runs the test. What has no float64 run is counted in *ulps*, the
dtype's own steps at the size of what was computed.

Where ``REFLEX_FLOORS_LOG`` names a file, every figure is written to it, one JSON object a line.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from pytest_reflex import InputSpec, ParityResult
from pytest_reflex.inputs import make_fixture
from pytest_reflex.runners import RunnerBase

Array = np.ndarray[Any, Any]

# An honest export's largest error over a run is PyTorch's own, give or take: at most 1.71 times it in the two
# hundred of benchmarks/unit_bounds.py. A fault of four floors is never within twice: at least 2.69 times.
ROUNDING: Final = 2.0


def ulp(dtype: Any, scale: float) -> float:
    """The step between neighbours of ``dtype`` at ``scale``."""
    return float(np.spacing(np.asarray(abs(scale), dtype)))


def ulps(got: Any, expected: Any, *, dtype: Any = np.float32, scale: float | None = None) -> float:
    """The largest ``|got - expected|`` in steps of ``dtype`` at ``scale`` (the largest ``|expected|``)."""
    got, expected = np.asarray(got, np.float64), np.asarray(expected, np.float64)
    if got.shape != expected.shape or not np.isfinite(got).all() or not np.isfinite(expected).all():
        raise AssertionError(f"shapes {got.shape} and {expected.shape}, or a value that is not finite")
    top = float(np.abs(expected).max()) if scale is None else scale
    return float(np.abs(got - expected).max()) / ulp(dtype, top)


def floors(
    candidates: Sequence[Array],
    references: Sequence[Array],
    truths: Sequence[Array],
    more: Sequence[tuple[Array, Array]] = (),
) -> float:
    """The candidate's largest distance from float64 over all fixtures, in the reference's.

    Args:
        candidates: one output of the candidate for each fixture.
        references: the same of the reference, in float32.
        truths: the same of the reference's run in float64.
        more: further fixtures of the reference alone, in float32 and in float64: where a candidate has
            few values, PyTorch's largest error in as few would be luck.
    """
    top = max(_finite(np.abs(t)) for t in truths)
    theirs = _distance(candidates, truths)
    own = max(_distance(references, truths), *(_distance([r], [t]) for r, t in more), 0.0)
    apart = _distance(candidates, references)
    return _counted(theirs, own, top, apart)


def rounding_of(
    runner: Any, specs: Sequence[InputSpec], output: str = "actions", fixtures: int = 12
) -> list[tuple[Array, Array]]:
    """An open reference's output over drawn fixtures, in float32 and in float64: its own rounding."""
    drawn = [make_fixture(specs, 0, fixture_idx) for fixture_idx in range(fixtures)]
    return [(runner.run(inputs)[output], runner.exact(inputs)[output]) for inputs in drawn]


def require_rounding(result: ParityResult | None, *, times: float = ROUNDING) -> None:
    """Every float output of every fixture is within ``times`` floors of float64, and points where it should.

    The result is of a check or an export with ``floor=True``.
    """
    assert result is not None, "nothing was judged"
    assert result.passed, str(result)
    found = multiples(result)
    assert found, "nothing was measured: was floor=True given?"
    for name, multiple in found.items():
        assert multiple < times, f"{name} is {multiple:.2f} floors from float64\n{result}"
    # Two vectors that differ by rounding alone are parallel but for float32's own.
    assert all(f.cos is not None and 1 - f.cos < np.finfo(np.float32).eps for f in result.fixtures)


def multiples(result: ParityResult) -> dict[str, float]:
    """How many floors each float output of a whole run is from float64, by name."""
    found: dict[str, float] = {}
    for name in dict.fromkeys(o.name for f in result.fixtures for o in f.outputs):
        outputs = [o for f in result.fixtures for o in f.outputs if o.name == name and o.floor is not None]
        measured = [o.floor for o in outputs if o.floor is not None]
        every = [o for f in result.fixtures for o in f.outputs if o.name == name]
        if not measured and not any("float" in o.dtype for o in every):
            continue
        assert len(measured) == len(every) == len(result.fixtures), f"{name}: not measured in every fixture"
        wrong = next((floor.unknown for floor in measured if floor.unknown), "")
        assert not wrong, f"{name}: {wrong}"
        found[name] = _counted(
            max(_number(floor.candidate_max) for floor in measured),
            max(_number(floor.reference_max) for floor in measured),
            max(_number(floor.scale) for floor in measured),
            max(o.difference.max_abs_diff for o in outputs if o.difference is not None),
        )
    return found


class Remembered(RunnerBase):
    """A reference that runs each set of inputs once, however many candidates it is asked for."""

    def __init__(self, runner: Any) -> None:
        self.name, self._runner = runner.name, runner
        self._known: dict[tuple[Any, ...], dict[str, Array]] = {}

    def open(self) -> None:
        self._runner.open()

    def close(self) -> None:
        self._runner.close()

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        return self._remembered(self._runner.run, inputs)

    def exact(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        return self._remembered(self._runner.exact, inputs)

    def facts(self) -> dict[str, Any]:
        return dict(self._runner.facts())

    def _remembered(self, run: Any, inputs: Mapping[str, Array]) -> dict[str, Array]:
        key = run.__name__, *((n, a.dtype.name, a.shape, a.tobytes()) for n, a in inputs.items())
        if key not in self._known:
            self._known[key] = run(inputs)
        return {name: array.copy() for name, array in self._known[key].items()}


def _distance(side: Sequence[Array], truths: Sequence[Array]) -> float:
    """The largest; of unlike shapes numpy would stretch one, and of NaN ``max`` keeps what it saw first."""
    pairs = [(np.asarray(a), np.asarray(t)) for a, t in zip(side, truths, strict=True)]
    unlike = next(((a.shape, t.shape) for a, t in pairs if a.shape != t.shape), None)
    assert unlike is None, f"shapes {unlike}"
    return max(_finite(np.abs(a.astype(np.float64) - t)) for a, t in pairs)


def _finite(sizes: Any) -> float:
    largest = float(np.max(sizes))
    assert np.isfinite(largest), "a value that is not finite"
    return largest


def _counted(theirs: float, own: float, scale: float, apart: float) -> float:
    # Where PyTorch hits float64 by luck, the last bit of the largest value is what it could have missed.
    floor = max(own, ulp(np.float32, scale))
    times = theirs / floor
    if log := os.environ.get("REFLEX_FLOORS_LOG"):
        test = os.environ.get("PYTEST_CURRENT_TEST", "").rpartition(" (")[0]
        line = {"test": test, "ratio": times, "max_abs_diff": apart, "floor": floor}
        with open(log, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
    return times


def _number(value: float | None) -> float:
    assert value is not None
    return value
