"""What the float64 floor says, as text: a word, and how far both sides are from the truth in each fixture."""

from __future__ import annotations

from typing import Final

from pytest_reflex.report.text.layout import UNBROKEN, Form, table, wrapped
from pytest_reflex.verdict.results import RunResult, fixture_name
from pytest_reflex.verdict.rounding import WORDS, Floor, in_words

_MEANING: Final = {
    "rounding": "the candidate is as near to float64 as PyTorch is",
    "bug": "the candidate is further from float64 than PyTorch's rounding explains",
    "undecided": "no fixture could be compared with float64",
}
# The same of another precision than float32.
_NARROW: Final = {
    "rounding": "the candidate is as near to float64 as PyTorch rounded to {} is",
    "bug": "the candidate is further from float64 than rounding to {} explains",
}
COLUMNS: Final = ("fixture_idx", "torch_error", "onnx_error", "allowed", "ratio", "rms_ratio", "word")
_SHORT: Final = ("idx", "torch", "onnx", "allowed", "ratio", "rms", "word")
_FORMS: Final = (
    Form(COLUMNS, (0, 1, 2, 3, 4, 5, 6)),
    Form(_SHORT, (0, 1, 2, 3, 4, 5, 6)),
    Form(_SHORT, (0, 1, 2, 3, 4, 6), gap=1),
    Form(_SHORT, (0, 1, 2, 4, 6), gap=1),
    Form(_SHORT, (0, 4, 6), gap=1),
)
# PyTorch itself is called far from the truth beyond so many times what the two sides differ by.
_FAR: Final = 4.0


def word_line(result: RunResult) -> str:
    """``Floor: bug (...)`` in one line; empty when nobody asked."""
    if result.word is None:
        return ""
    runtime = next((o.quantised for f in result.fixtures for o in f.outputs if o.quantised), None)
    if runtime is not None and runtime.word == "bug":
        return f"Floor: {runtime.text}"
    worst = worst_floor(result)
    if worst is None or worst.word == "undecided":
        reason = worst.reason if worst else ""
        return f"Floor: undecided: {reason or _MEANING['undecided']}"
    name = worst.precision
    meaning = _MEANING[worst.word] if name == "float32" else _NARROW[worst.word].format(name)
    figures = f"{worst.candidate_max:.1e} against {worst.reference_max:.1e}, ratio {_times(worst.ratio)}"
    # A threshold in plain numbers may be wider than what a fault does.
    wide = (
        "; the threshold is wider than that: '2x floor' is not"
        if result.passed and worst.word == "bug"
        else ""
    )
    return f"Floor: {in_words(worst.word, name)}: {meaning} ({figures}){wide}"


def floor_table(result: RunResult, width: int = UNBROKEN) -> list[str]:
    """A row per fixture that has a floor: the output that says most against it."""
    rows = [floor_cells(idx, floor) for idx, floor in fixture_floors(result)]
    if not rows:
        return []
    far = [line for said in reference_far(result) for line in wrapped(said, width)]
    return ["Distance from float64", *table(rows, _FORMS, width), *far]


def floor_cells(fixture_idx: int, floor: Floor) -> tuple[str, ...]:
    """A fixture's row under :data:`COLUMNS`."""
    return (
        fixture_name(fixture_idx),
        _error(floor.reference_max),
        _error(floor.candidate_max),
        _error(floor.allowed),
        _times(floor.ratio),
        _times(floor.rms_ratio),
        in_words(floor.word, floor.precision),
    )


def reference_far(result: RunResult) -> list[str]:
    """A fact about the reference: it rounds far more than the two sides differ."""
    if result.precision.name != "float32":
        return []  # what is in the floors is no run of PyTorch as it is
    found = [
        (floor.reference_max, fixture.max_abs_diff)
        for fixture in result.fixtures
        for floor in (o.floor for o in fixture.outputs if o.floor is not None)
        if floor.reference_max is not None and fixture.max_abs_diff is not None
    ]
    if not found:
        return []
    error, apart = max(found, key=lambda pair: pair[0])
    if not error > _FAR * apart:
        return []
    return [f"PyTorch itself is {error:.1e} from float64, while the two sides are {apart:.1e} apart."]


def worst_floor(result: RunResult) -> Floor | None:
    """The floor that decides the run's word."""
    return _worst([floor for _, floor in fixture_floors(result)])


def fixture_floors(result: RunResult) -> list[tuple[int, Floor]]:
    """Index of each fixture that has a floor, and the floor that decides its word."""
    found = (
        (f.fixture_idx, _worst([o.floor for o in f.outputs if o.floor is not None])) for f in result.fixtures
    )
    return [(idx, floor) for idx, floor in found if floor is not None]


def _worst(floors: list[Floor]) -> Floor | None:
    return max(floors, key=lambda f: (WORDS.index(f.word), f.ratio or 0.0), default=None)


def _error(value: float | None) -> str:
    return "-" if value is None else f"{value:.3e}"


def _times(value: float | None) -> str:
    """A ratio of two figures of which two digits are shown: three digits, and two of a very large one."""
    if value is None:
        return "-"
    if value >= 1000:
        return f"{value:.1e}"
    return f"{value:.{0 if value >= 100 else 1 if value >= 10 else 2}f}"
