"""Every setting: what is good, what is refused and with which words, and which source wins."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

import pytest_reflex as reflex
from pytest_reflex import settings
from pytest_reflex.errors import SettingsError
from pytest_reflex.settings import Settings


@pytest.mark.parametrize(
    ("value", "good"),
    [(1e-5, 1e-5), ("1e-5", 1e-5), (1, 1.0), (np.float32(0.5), 0.5), (Fraction(1, 2), 0.5), (5e-324, 5e-324)],
)
def test_good_threshold(value: object, good: float) -> None:
    assert settings.threshold(value) == good
    assert type(settings.threshold(value)) is float


@pytest.mark.parametrize(
    "value",
    [0, -1e-5, "nan", float("nan"), float("inf"), "-inf", "1e400", True, "abc", "", None, [1], 10**400],
)
def test_bad_threshold(value: object) -> None:
    with pytest.raises(SettingsError) as caught:
        settings.threshold(value, "--reflex-threshold")
    assert (
        str(caught.value)
        == f"--reflex-threshold: {value!r} is not a threshold; give a finite number above 0, such as 1e-5"
    )


@pytest.mark.parametrize(("value", "good"), [(1, 1), ("5", 5), (" 7 ", 7), (np.int64(3), 3), ("+2", 2)])
def test_good_fixtures(value: object, good: int) -> None:
    assert settings.fixtures(value) == good
    assert type(settings.fixtures(value)) is int


@pytest.mark.parametrize("value", [0, -1, 1.0, "2.5", "1e3", True, "", "٣", "1_0", None])
def test_bad_fixtures(value: object) -> None:
    with pytest.raises(SettingsError) as caught:
        settings.fixtures(value, "--reflex-fixtures")
    assert (
        str(caught.value)
        == f"--reflex-fixtures: {value!r} is not a number of fixtures; give a whole number, 1 or more"
    )


def test_seed() -> None:
    assert settings.seed(0) == 0
    assert settings.seed("0") == 0
    for value in (-1, "-1", 0.0, False, "x"):
        with pytest.raises(SettingsError) as caught:
            settings.seed(value, "--reflex-seed")
        assert str(caught.value) == f"--reflex-seed: {value!r} is not a seed; give a whole number, 0 or more"


@pytest.mark.parametrize("short", settings.PROVIDERS)
def test_provider_names(short: str) -> None:
    full = settings.PROVIDERS[short]
    for name in (short, short.upper(), full, full.lower(), f" {short} "):
        assert settings.provider_name(name) == full


@pytest.mark.parametrize("value", ["gpu", "", 0, None, ["cpu"]])
def test_bad_provider(value: object) -> None:
    with pytest.raises(SettingsError) as caught:
        settings.provider_name(value, "--reflex-provider")
    assert str(caught.value) == (
        f"--reflex-provider: {value!r} is not an execution provider; give one of cpu, cuda, tensorrt, rocm, "
        "migraphx, openvino, coreml, dml, qnn (or ONNX Runtime's full name, such as CPUExecutionProvider)"
    )


def test_yes_or_no() -> None:
    for value in (True, "true", "Yes", "on", "1"):
        assert settings.yes_or_no(value) is True
    for value in (False, "false", "No", "off", "0"):
        assert settings.yes_or_no(value) is False
    for value in ("perhaps", "", 1, 0, None):
        with pytest.raises(SettingsError) as caught:
            settings.yes_or_no(value, "reflex_strict (ini file)")
        assert (
            str(caught.value)
            == f"reflex_strict (ini file): {value!r} is neither yes nor no; give true or false"
        )


def test_path() -> None:
    assert settings.path("a/b") == "a/b"
    assert settings.path(Path("a")) == "a"
    for value in ("", "  ", 3, None, "a\0b", b"a"):
        with pytest.raises(SettingsError) as caught:
            settings.path(value, "--reflex-json")
        assert str(caught.value) == f"--reflex-json: {value!r} is not a path; give the path to write to"


def test_defaults() -> None:
    defaults = Settings(1e-4, 5, 0, "CPUExecutionProvider", False, False, None, 60.0, None, None)
    assert settings.resolve() == defaults


def test_the_first_source_that_gives_a_value_wins() -> None:
    sources = [
        settings.command_line({"threshold": 1e-1}),
        settings.call({"threshold": 1e-2, "fixtures": 2}),
        settings.marker({"threshold": 1e-3, "fixtures": 3, "seed": 3}),
        settings.ini_file({"threshold": "1e-5", "fixtures": "4", "seed": "4", "provider": "cuda"}),
    ]
    assert settings.resolve(*sources) == Settings(1e-1, 2, 3, "CUDAExecutionProvider")
    assert settings.resolve(*sources[1:]).threshold == 1e-2
    assert settings.resolve(*sources[2:]).threshold == 1e-3
    assert settings.resolve(*sources[3:]).threshold == 1e-5


def test_zero_is_a_value_and_none_is_not() -> None:
    marked = settings.marker({"seed": 7, "threshold": 1e-3})
    assert settings.resolve(settings.command_line({"seed": 0, "threshold": None}), marked) == Settings(
        1e-3, seed=0
    )
    with pytest.raises(SettingsError, match="0 is not a number of fixtures"):
        settings.resolve(settings.command_line({"fixtures": 0}))


def test_an_overridden_value_is_checked_all_the_same() -> None:
    with pytest.raises(SettingsError) as caught:
        settings.resolve(settings.command_line({"seed": 1}), settings.ini_file({"seed": "one"}))
    assert str(caught.value) == "reflex_seed (ini file): 'one' is not a seed; give a whole number, 0 or more"


def test_bad_markers() -> None:
    with pytest.raises(SettingsError) as caught:
        settings.marker({"treshold": 1}, (), "test_a.py::test_b[{x}]")
    assert str(caught.value) == (
        "parity marker on test_a.py::test_b[{x}]: unknown keyword 'treshold'; "
        "the keywords are threshold, fixtures, seed, provider, floor, trajectory"
    )
    with pytest.raises(SettingsError) as caught:
        settings.marker({}, (1e-5,))
    assert (
        str(caught.value)
        == "parity marker: 1e-05 has no keyword; the keywords are threshold, fixtures, seed, provider, "
        "floor, trajectory"
    )
    with pytest.raises(SettingsError) as caught:
        settings.resolve(settings.marker({"threshold": 0}, (), "test_a.py::test_b[{x}]"))
    assert str(caught.value) == (
        "parity marker on test_a.py::test_b[{x}]: threshold: 0 is not a threshold; "
        "give a finite number above 0, such as 1e-5"
    )


def test_the_decorator_checks_where_it_is_written() -> None:
    for wrong, said in (
        (lambda: reflex.parity(treshold=1), "unknown keyword 'treshold'"),
        (lambda: reflex.parity(1e-5), "1e-05 has no keyword"),
        (lambda: reflex.parity(threshold=-1), "-1 is not a threshold"),
        (lambda: reflex.parity(fixtures=0), "0 is not a number of fixtures"),
        (lambda: reflex.parity(provider="gpu"), "'gpu' is not an execution provider"),
    ):
        with pytest.raises(SettingsError, match=said):
            wrong()


def test_the_decorator_marks_and_brings_the_fixture() -> None:
    def test() -> None: ...

    assert reflex.parity(seed=0, threshold=1e-5)(test) is test
    marks = {mark.name: mark for mark in test.pytestmark}  # type: ignore[attr-defined]
    assert marks["parity"].kwargs == {"threshold": 1e-5, "seed": 0}
    assert marks["usefixtures"].args == ("parity",)

    def bare() -> None: ...

    assert reflex.parity(bare) is bare
    assert [mark.name for mark in bare.pytestmark] == ["usefixtures", "parity"]  # type: ignore[attr-defined]


def test_public_names() -> None:
    for name in reflex.__all__:
        assert getattr(reflex, name) is not None
        assert name in dir(reflex)
    with pytest.raises(AttributeError, match="module 'pytest_reflex' has no attribute 'nonsense'"):
        reflex.nonsense  # noqa: B018


def test_check_is_the_function_also_after_its_file_was_imported() -> None:
    import importlib

    module = importlib.import_module("pytest_reflex.judge.check")
    assert reflex.check is module.check
    assert callable(reflex.check)
