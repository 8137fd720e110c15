"""Every setting: what is good, what is refused and with which words, and which source wins."""

from __future__ import annotations

import os
import shutil
import subprocess
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

import pytest_reflex as reflex
from pytest_reflex import settings
from pytest_reflex.errors import SettingsError, brief
from pytest_reflex.settings import Settings
from pytest_reflex.verdict.claim import Asked
from pytest_reflex.verdict.tolerances import Amount, Tolerances

pytestmark = pytest.mark.once


def at(number: float) -> Tolerances:
    return Tolerances(Amount(number))


ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("value", "good"),
    [(1e-5, 1e-5), ("1e-5", 1e-5), (1, 1.0), (np.float32(0.5), 0.5), (Fraction(1, 2), 0.5), (5e-324, 5e-324)],
)
def test_good_threshold(value: object, good: float) -> None:
    found = settings.threshold(value)
    assert found == Tolerances(Amount(good))
    assert type(found.rest.number) is float
    assert settings.threshold(found) is found


@pytest.mark.parametrize(
    "value",
    [0, -1e-5, "nan", float("nan"), float("inf"), "-inf", "1e400", True, "abc", "", None, [1]],
)
def test_bad_threshold(value: object) -> None:
    with pytest.raises(SettingsError) as caught:
        settings.threshold(value, "--reflex-threshold")
    assert (
        str(caught.value) == f"--reflex-threshold: {value!r} is not a threshold; "
        "give a finite number above 0, such as 1e-5, or 2x floor, or 0.01 deg"
    )


@pytest.mark.parametrize(
    "value",
    [
        "9" * 5000 + "%",
        "x" * 5000,
        "1e-5, " * 999,
        10**5000,
        -(10**400),
        ["x" * 5000],
        {"x" * 5000: "y" * 5000},
    ],
    ids=["digits", "text", "list in text", "number", "negative", "list", "mapping"],
)
def test_an_overlong_value_is_named_in_brief(value: object) -> None:
    refused: dict[str, str] = {}
    for name, setting in settings.RUN.items():
        try:
            setting.parse(value, name)
        except SettingsError as error:
            refused[name] = str(error)
    assert all(len(text) < 700 and text.startswith(f"{name}: ") for name, text in refused.items())
    assert len(refused) > len(settings.RUN) / 2


def test_a_value_is_named_whole_where_it_is_not_long() -> None:
    for value in ("x" * 98, 10**90, ["ort", "ort"], {"actions": "1e-5 deg"}, None, b"1", 0.1):
        assert brief(value) == repr(value)
    assert brief("x" * 5000) == "'" + "x" * 47 + "..." + "x" * 48 + "'"
    assert brief(np.zeros((2, 2))) == "array([[0., 0.],        [0., 0.]])"


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


@pytest.mark.parametrize(
    ("value", "share", "confidence"),
    [
        ("1e-3@95%", 1e-3, 0.95),
        ("0.1%@99%", 0.1 / 100, 0.99),
        (" 5 % @ 0.9 ", 5 / 100, 0.9),
        ("1e-3", 1e-3, 0.95),
        (0.01, 0.01, 0.95),
        (Fraction(1, 2), 0.5, 0.95),
    ],
)
def test_good_claim(value: object, share: float, confidence: float) -> None:
    found = settings.claim(value)
    assert found == Asked(share, confidence)
    assert settings.claim(found) is found
    assert settings.resolve(settings.call({"claim": value, "claim_budget": "60"})).claim_budget == 60.0


@pytest.mark.parametrize(
    "value",
    [
        *("", "@", "95%", "1e-3@", "@95%", "1@95%", "0@95%", "-1e-3", "nan@95%", "1e-3@100%", "1e-3@nan"),
        *("1e-3@10%", "1e-3@95%@95%", "1e-12@95%", True, None, [1e-3], 1, 0, float("inf")),
    ],
)
def test_bad_claim(value: object) -> None:
    with pytest.raises(SettingsError) as caught:
        settings.claim(value, "--reflex-claim")
    assert str(caught.value) == (
        f"--reflex-claim: {value!r} is no claim; give a share of inputs, at most 50%, and a confidence, at "
        "least 50%, such as 1e-3@95%"
    )


def test_coverage() -> None:
    for value, good in (("95%", 0.95), ("0.5", 0.5), (1, 1.0), (0, 0.0)):
        assert settings.coverage(value) == good
    for value in (-0.1, "101%", "most", None, True):
        with pytest.raises(SettingsError) as caught:
            settings.coverage(value, "--reflex-coverage")
        assert str(caught.value) == (
            f"--reflex-coverage: {value!r} is no share of decisions; give one up to 100%, such as 95%"
        )


def test_runtimes() -> None:
    for value in ("ort, openvino", ["onnxruntime", "openvino"], ("ort", " openvino "), "ort,,openvino,"):
        assert settings.runtimes(value) == ("onnxruntime", "openvino")
    for value, wrong in (("ort,onnxruntime", "names onnxruntime twice"), (" ,", "names no runtimes")):
        with pytest.raises(SettingsError) as caught:
            settings.runtimes(value, "--reflex-runtimes")
        assert str(caught.value) == (
            f"--reflex-runtimes: {value!r} {wrong}; give names with commas between them, such as ort,openvino"
        )
    for nothing in ((), 3, None, True, ["ort", 3]):
        with pytest.raises(SettingsError, match="names no runtimes"):
            settings.runtimes(nothing)


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
    defaults = Settings(
        threshold=None, fixtures=5, seed=0, provider="CPUExecutionProvider", floor=False, trajectory=None,
        rtol=0.0, rounding="graph", infinities=False, claim=None, claim_budget=None, coverage=None,
        strict=False, runtimes=None, locate=60.0, simplest=3.0, report=None, json=None,
        baseline=None, baseline_factor=2.0, baseline_update=False,
    )  # fmt: skip
    assert settings.resolve() == defaults


def test_an_unknown_keyword_is_python_s_own_error() -> None:
    for function, call in (
        ("Parity.check", lambda: settings.call({"strict": True})),
        ("check", lambda: reflex.check(None, None, report="x")),  # type: ignore[call-arg]
        ("export", lambda: settings.of_call({"locate": 1}, "export")),
    ):
        with pytest.raises(TypeError, match=rf"^{function}\(\) got an unexpected keyword argument '\w+'$"):
            call()


def test_none_is_no_value_where_no_weaker_place_is_asked() -> None:
    assert settings.of_call({"trajectory": None, "threshold": None}, "check") == Settings()
    assert settings.of_call({"claim": None, "claim_budget": None, "coverage": None}, "check") == Settings()
    silent = {"trajectory", "threshold", "units", "claim", "claim_budget", "coverage", "workers", "ray"}
    for name in settings.CHECK.keys() - silent:
        with pytest.raises(SettingsError, match=f"^{name}: None is n"):
            settings.of_call({name: None}, "check")


def test_every_setting_has_a_help_and_a_default_that_its_parser_takes() -> None:
    for name, setting in settings.RUN.items():
        assert setting.help
        assert setting.help[0].islower() or setting.help.startswith("ONNX")
        assert not setting.help.endswith(".")
        if setting.default is not None:
            assert setting.parse(str(setting.default), name) == getattr(settings.resolve(), name)


NOT_FIXTURES = "is not a number of fixtures; give a whole number, 1 or more"
DECLARATION = """
    warm_ups: Annotated[int | None, Setting(fixtures, 3, 'how many runs come first', 'N', int | str)]
    take_care: Annotated[bool | None, Setting(yes_or_no, True, 'look twice')]
"""
TWICE = """
import numpy as np
from pytest_reflex.inputs import InputSpec

class Twice:
    name = "twice"
    def open(self): ...
    def close(self): ...
    def facts(self): return {}
    def run(self, inputs): return {"y": inputs["x"] * np.float32(2)}

inputs = [InputSpec("x", (2, 3))]
"""
# Each way in is told a good value and then a bad one.
WAYS_IN = """
import sys
import click.testing
import pytest
import pytest_reflex as reflex
from pytest_reflex import settings
from pytest_reflex.cli.commands import app
from pytest_reflex.errors import SettingsError, brief
from twice import Twice, inputs

assert settings.__file__.startswith(sys.argv[1]), settings.__file__
assert (settings.resolve().warm_ups, settings.resolve().take_care) == (3, True)
SAID = "0 is not a number of fixtures; give a whole number, 1 or more"

def refused(call, where):
    with pytest.raises(SettingsError) as caught:
        call()
    assert str(caught.value) == f"{where}: {SAID}", caught.value

assert reflex.check(Twice(), Twice(), inputs=inputs, warm_ups=2).passed
refused(lambda: reflex.check(Twice(), Twice(), inputs=inputs, warm_ups=0), "warm_ups")
assert reflex.parity(warm_ups=2)[1].kwargs == {"warm_ups": 2}
refused(lambda: settings.resolve(settings.marker({"warm_ups": 0})), "parity marker: warm_ups")
for line in (["export", "m", "o"], ["validate", "export", "d", "--model", "m"]):
    shown = click.testing.CliRunner().invoke(app, [*line, "--help"]).output
    assert "--warm-ups N" in shown and "How many runs come first." in shown and "3" in shown, shown
    bad = click.testing.CliRunner().invoke(app, [*line, "--warm-ups", "0"])
    assert str(bad.exception) == f"--warm-ups: {SAID.replace('0', repr('0'), 1)}", bad
    for words in ("--take-care / --no-take-care", "Look twice.", "[default: yes]"):
        assert words in shown, shown

def told(*flags):
    command = app.commands["validate"].commands["export"]
    return command.make_context("export", ["d", "--model", "m", *flags]).params["take_care"]

assert [told(), told("--take-care"), told("--no-take-care")] == [True, True, False]
assert reflex.check(Twice(), Twice(), inputs=inputs, take_care=False).passed
assert reflex.parity(take_care=False)[1].kwargs == {"take_care": False}
with pytest.raises(SettingsError, match="^take_care: None is neither yes nor no"):
    reflex.check(Twice(), Twice(), inputs=inputs, take_care=None)

import torch
from exporters import export

class Double(torch.nn.Module):
    def forward(self, x): return {"y": x * 2}

assert export(Double(), "made", inputs=inputs, warm_ups=2).result.passed
refused(lambda: export(Double(), "not", inputs=inputs, warm_ups=0), "warm_ups")
"""
IN_A_TEST = """
from twice import Twice, inputs

def test_call(parity): parity.check(Twice(), Twice(), inputs=inputs, warm_ups=2)

def test_bad_call(parity): parity.check(Twice(), Twice(), inputs=inputs, warm_ups=0)

def test_switch(parity):
    from pytest_reflex.settings import call
    print("careful:", parity._resolve(call({})).take_care)
    parity.check(Twice(), Twice(), inputs=inputs)
"""


def test_a_setting_is_declared_in_one_place(tmp_path: Path, python: list[str]) -> None:
    """One line more in a copy of the source, and every way in knows the setting, its check and its help."""
    for package in ("pytest_reflex", "exporters"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    file = tmp_path / "pytest_reflex" / "settings.py"
    before, head, after = file.read_text().partition("\n\nclass CheckOptions(")
    assert head
    file.write_text(before.rstrip() + "\n" + DECLARATION + "\n" + head + after)
    for name, text in (("twice", TWICE), ("ways_in", WAYS_IN), ("test_in", IN_A_TEST)):
        (tmp_path / f"{name}.py").write_text(text)

    def said(*arguments: str) -> str:
        done = subprocess.run(
            [*python, *arguments],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=300,
        )
        return done.stdout + done.stderr + f"exit {done.returncode}"

    told = said("ways_in.py", str(tmp_path))
    assert told.endswith("exit 0"), told
    pytest_ = ("-m", "pytest", "-p", "no:cacheprovider", "test_in.py")
    assert ", trajectory=None, warm_ups=3, take_care=True, runtimes=None): a test that" in said(
        *pytest_, "--markers"
    )
    helped = " ".join(said(*pytest_, "--help").split())
    assert "--reflex-warm-ups=N how many runs come first (default 3)" in helped
    assert "reflex_warm_ups (" in helped
    assert f"--reflex-warm-ups: '0' {NOT_FIXTURES}" in said(*pytest_, "--reflex-warm-ups", "0")
    assert f"reflex_warm_ups (ini file): 'x' {NOT_FIXTURES}" in said(*pytest_, "-o", "reflex_warm_ups=x")
    ran = said(*pytest_, "--reflex-warm-ups", "4")
    assert f"parity.check(warm_ups=...): 0 {NOT_FIXTURES}" in ran
    assert "1 failed, 2 passed" in ran
    assert "--reflex-take-care look twice (default yes)" in helped
    assert "--reflex-no-take-care the opposite of --reflex-take-care" in helped
    care = (*pytest_, "-k", "switch", "-rP")
    for flags, careful in (
        ((), True),
        (("--reflex-no-take-care",), False),
        (("-o", "reflex_take_care=no"), False),
        (("-o", "reflex_take_care=no", "--reflex-take-care"), True),
        (("-o", "reflex_take_care=yes", "--reflex-no-take-care"), False),
    ):
        assert f"careful: {careful}" in said(*care, *flags)


def test_the_first_source_that_gives_a_value_wins() -> None:
    sources = [
        settings.command_line({"threshold": 1e-1}),
        settings.call({"threshold": 1e-2, "fixtures": 2}),
        settings.marker({"threshold": 1e-3, "fixtures": 3, "seed": 3}),
        settings.ini_file({"threshold": "1e-5", "fixtures": "4", "seed": "4", "provider": "cuda"}),
    ]
    assert settings.resolve(*sources) == Settings(
        threshold=at(1e-1), fixtures=2, seed=3, provider="CUDAExecutionProvider"
    )
    assert settings.resolve(*sources[1:]).threshold == at(1e-2)
    assert settings.resolve(*sources[2:]).threshold == at(1e-3)
    assert settings.resolve(*sources[3:]).threshold == at(1e-5)


def test_a_threshold_of_some_outputs_leaves_the_others_theirs() -> None:
    ini = settings.ini_file({"threshold": "1e-5"})
    marked = settings.marker({"threshold": {"actions": 1e-3, "logits": "3x floor"}})
    named = settings.command_line({"threshold": ["actions=1e-6"]})
    found = settings.resolve(named, marked, ini).threshold
    assert found == Tolerances(Amount(1e-5), {"actions": Amount(1e-6), "logits": Amount(3.0, True)})
    assert settings.resolve(named, marked).threshold.rest == settings.UNSAID
    # One without a name is for all outputs.
    assert settings.resolve(settings.command_line({"threshold": ["1e-3"]}), marked, ini).threshold == at(1e-3)
    assert settings.resolve(settings.marker({"threshold": 1e-3}), ini).threshold == at(1e-3)


def test_zero_is_a_value_and_none_is_not() -> None:
    marked = settings.marker({"seed": 7, "threshold": 1e-3})
    assert settings.resolve(settings.command_line({"seed": 0, "threshold": None}), marked) == Settings(
        threshold=at(1e-3), seed=0
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
        "parity marker on test_a.py::test_b[{x}]: unknown keyword 'treshold' (did you mean 'threshold'?); "
        "the keywords are threshold, units, rtol, fixtures, seed, claim, claim_budget, coverage, provider, "
        "floor, rounding, infinities, trajectory, runtimes"
    )
    with pytest.raises(SettingsError) as caught:
        settings.marker({}, (1e-5,))
    assert (
        str(caught.value)
        == "parity marker: 1e-05 has no keyword; write threshold=1e-05; the keywords are threshold, units, "
        "rtol, fixtures, seed, claim, claim_budget, coverage, provider, floor, rounding, infinities, "
        "trajectory, runtimes"
    )
    with pytest.raises(SettingsError) as caught:
        settings.resolve(settings.marker({"threshold": 0}, (), "test_a.py::test_b[{x}]"))
    assert str(caught.value) == (
        "parity marker on test_a.py::test_b[{x}]: threshold: 0 is not a threshold; "
        "give a finite number above 0, such as 1e-5, or 2x floor, or 0.01 deg"
    )


def test_the_decorator_leaves_what_is_wrong_to_the_test_that_it_marks() -> None:
    marks = reflex.parity(1e-5, treshold=1)
    with pytest.raises(SettingsError, match=r"1e-05 has no keyword"):
        settings.marker(marks[1].kwargs, marks[1].args)


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


@pytest.mark.parametrize("text", ["\u0665%@95%", "1_0%", "1%@9_5%", "1e-\u0663"])
def test_a_share_is_in_ascii_digits(text: str) -> None:
    with pytest.raises(SettingsError, match="is no claim"):
        settings.claim(text)
    if "@" not in text:
        with pytest.raises(SettingsError, match="is no share"):
            settings.coverage(text)


def test_a_budget_is_that_of_a_claim() -> None:
    with pytest.raises(
        SettingsError, match="claim_budget: 5 is the budget of a claim, and no claim is asked"
    ):
        settings.of_call({"claim_budget": 5}, "check")
    assert settings.of_call({"claim_budget": 5, "claim": "1%"}, "check").claim_budget == 5
    # A run of pytest has one for whatever its tests claim.
    ini = settings.ini_file({"claim_budget": "60"})
    own = settings.call({})
    chosen = settings.with_its_claim(settings.resolve(own, ini), own)
    assert (chosen.claim_budget, chosen.check_options()["claim_budget"]) == (60, None)
    own = settings.marker({"claim_budget": 5})
    with pytest.raises(SettingsError, match="parity marker: claim_budget: 5 is the budget of a claim"):
        settings.with_its_claim(settings.resolve(own, ini), own)
    weaker = settings.ini_file({"claim": "1%"})
    assert settings.with_its_claim(settings.resolve(own, weaker), own).claim_budget == 5
