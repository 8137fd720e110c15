"""export(precision=...): bundles in float16, bfloat16 and int8, judged as any other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toy_transformer

import exporters
from exporters.bundles import open_bundle
from pytest_reflex import ParityError, check
from pytest_reflex.errors import ReflexError, SettingsError, TracingError
from pytest_reflex.inputs import make_fixture
from pytest_reflex.runners.graph_precision import precision_of

SPECS = toy_transformer.inputs()
GIVEN, NAN = make_fixture(SPECS, 0, 0), np.float32("nan")
# Three steps: their times are no float16.
STEPS = 3


def export(out: Path, precision: Any, **more: Any) -> exporters.Export:
    policy = toy_transformer.Toy().eval()
    return exporters.export(
        policy, out, inputs=SPECS, steps=STEPS, precision=precision, **{"threshold": 0.05, **more}
    )


@pytest.mark.parametrize("layout", ["unrolled", "stepwise"])
def test_a_float16_bundle_is_judged_and_says_what_it_is(layout: Any, tmp_path: Path) -> None:
    made = export(tmp_path / "b", "float16", layout=layout)
    assert made.result is not None
    assert made.result.passed
    opened = open_bundle(tmp_path / "b")
    assert opened.manifest["precision"] == {"name": "float16"}
    for name in opened.manifest["graphs"].values():
        assert precision_of(opened.path / name).narrow == "float16"
    assert [out["dtype"] for out in opened.manifest["outputs"]] == ["float32"]
    # Its clock is float32: its error is float16's alone, in the same unit as predicted.
    policy = toy_transformer.Toy().eval()
    reference: Any = opened.reference_runner(policy)
    again = check(policy, opened, fixtures=3, threshold=0.05)
    assert again.passed
    inputs = make_fixture(SPECS, 0, 0)
    with reference:
        plain = reference.run(inputs)["actions"]
        kept, whole = (
            float(np.abs(reference.rounded(inputs, "float16", "float32", s)["actions"] - plain).max())
            for s in ("clock", "nothing")
        )
    first = again.fixtures[0].max_abs_diff
    assert first is not None
    ratio = first / kept
    assert ratio < 3
    assert whole > 10 * first


@pytest.mark.parametrize("layout", ["unrolled", "loop", "stepwise"])
def test_bfloat16_weights_in_every_layout(layout: Any, tmp_path: Path) -> None:
    made = export(tmp_path / "b", "bfloat16", layout=layout)
    assert made.result is not None
    assert made.result.passed
    assert made.manifest["precision"] == {"name": "bfloat16"}
    step = made.manifest["graphs"].get("step", "model.onnx")
    assert precision_of(made.path / step).text.startswith("weights in bfloat16, results in float32")


def test_int8_says_what_it_was_calibrated_on(tmp_path: Path) -> None:
    drawn = export(tmp_path / "drawn", "int8", fixtures=2, seed=7)
    assert drawn.manifest["precision"] == {
        "name": "int8",
        "calibrated_on": "2 drawn fixtures, seed 7: not recorded data",
    }
    recorded = [make_fixture(SPECS, 3, index) for index in range(4)]
    given = export(tmp_path / "given", "int8", calibration=recorded, verify=False)
    assert given.manifest["precision"]["calibrated_on"] == "4 sets of inputs that were given"
    assert precision_of(given.path / "model.onnx").quantized == "static"
    files = [d.joinpath("model.onnx").read_bytes() for d in (drawn.path, given.path)]
    assert files[0] != files[1]  # other data, other scales


def test_int8_dynamic_needs_no_data(tmp_path: Path) -> None:
    made = export(tmp_path / "b", "int8-dynamic", layout="stepwise")
    assert made.manifest["precision"] == {"name": "int8-dynamic"}
    assert precision_of(made.path / "step.onnx").quantized == "dynamic"


def test_the_threshold_is_not_moved_for_a_precision(tmp_path: Path) -> None:
    with pytest.raises(ParityError):
        export(tmp_path / "b", "float16", threshold=1e-5)
    assert not (tmp_path / "b").exists()


def test_a_float32_manifest_speaks_of_no_precision(tmp_path: Path) -> None:
    made = export(tmp_path / "b", "float32", verify=False)
    assert "precision" not in json.loads((made.path / "reflex.json").read_text())


def test_nothing_is_walked_through_in_a_narrow_bundle(tmp_path: Path) -> None:
    made = export(tmp_path / "b", "bfloat16", verify=False)
    with pytest.raises(ReflexError, match="is in bfloat16, where every value differs"):
        made.locate(toy_transformer.Toy().eval())


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"precision": "fp16"}, SettingsError, "precision is 'fp16', expected one of float32, float16"),
        ({"precision": "int8", "layout": "stepwise"}, TracingError, "export it unrolled, or as int8-dynamic"),
        ({"precision": "int8", "layout": "loop"}, TracingError, "with a loop in it"),
        ({"precision": "float16", "layout": "loop"}, TracingError, "with a loop in it"),
        ({"precision": "int8", "calibration": []}, SettingsError, "calibration is empty"),
        (
            {"precision": "int8", "calibration": [3]},
            SettingsError,
            r"calibration\[0\]: an int, expected inputs",
        ),
        (
            {"precision": "int8", "calibration": [GIVEN, {}]},
            SettingsError,
            r"calibration\[1\]: input .* missing",
        ),
        (
            {
                "precision": "int8",
                "calibration": [{n: a * NAN if a.dtype == NAN.dtype else a for n, a in GIVEN.items()}],
            },
            SettingsError,
            r"calibration\[0\]: input .* is nan at",
        ),
        ({"precision": "float16", "calibration": [{}]}, SettingsError, "float16 takes none"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(
    options: dict[str, Any], error: type[Exception], said: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=said) as caught:
        export(tmp_path / "b", verify=False, **options)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "b").exists()
