"""Fixtures: the same arrays everywhere, and values that mean what their input means."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest

from pytest_reflex.errors import InputError
from pytest_reflex.inputs import (
    Bernoulli,
    CameraMask,
    Distribution,
    Gaussian,
    Image,
    ImagePromptMask,
    ImagePromptTokens,
    InputSpec,
    Integers,
    Joints,
    PromptMask,
    ScaledImage,
    State,
    Tokens,
    Uniform,
    array_digest,
    check_specs,
    free_sizes,
    make_fixture,
)
from pytest_reflex.inputs.fixtures import fixtures_from
from pytest_reflex.inputs.prompts import ImageTokenMask
from pytest_reflex.inputs.spec import Draw
from pytest_reflex.verdict.summaries import summary_of

CAMERAS, TOKENS_PER_IMAGE, IMAGE_TOKEN, LENGTH = 3, 4, 50, 24
SPECS = [
    InputSpec("image", (2, CAMERAS, 3, 16, 20), meaning=Image()),
    InputSpec("cameras", (2, CAMERAS), "bool", CameraMask()),
    InputSpec("camera_1", (2,), "bool", CameraMask(1, CAMERAS)),
    InputSpec("prompt_mask", (2, LENGTH), "bool", PromptMask()),
    InputSpec("prompt", (2, LENGTH), "int64", Tokens(100, "prompt_mask", 7)),
    InputSpec("mask", (2, LENGTH), "int64", ImagePromptMask("cameras", TOKENS_PER_IMAGE)),
    InputSpec(
        "ids",
        (2, LENGTH),
        "int64",
        ImagePromptTokens(100, IMAGE_TOKEN, TOKENS_PER_IMAGE, "cameras", "mask", 7),
    ),
    InputSpec("state", (2, 6), meaning=State()),
    InputSpec("embodiment", (2,), "int32", Integers(0, 32)),
    InputSpec("flag", (), "bool", Bernoulli()),
    InputSpec("time", (2,), "float64", Uniform(0, 0.5)),
    InputSpec("noise", (2, 5, 4), meaning=Gaussian()),
]
EVERY = range(12)


def fixture(idx: int, seed: int = 0) -> dict[str, np.ndarray]:
    return make_fixture(SPECS, seed, idx)


def test_a_fixture_is_the_same_each_time_and_on_every_machine():
    # Were this to change, fixtures recorded with an earlier version could no longer be drawn again.
    digests = [array_digest(fixture(idx))[:12] for idx in range(4)]
    assert digests == ["39187b4a3db2", "81ba51649d64", "3f4decb7a770", "4c1408fb067d"]
    assert array_digest(fixture(3)) == array_digest(fixture(3))


def test_seeds_and_numbers_give_different_fixtures():
    assert len({array_digest(fixture(idx, seed)) for idx in EVERY for seed in range(3)}) == 36


@pytest.mark.parametrize("idx", EVERY)
def test_arrays_have_the_shape_and_dtype_of_their_spec(idx):
    arrays = fixture(idx)
    assert list(arrays) == [spec.name for spec in SPECS]
    for spec in SPECS:
        array = arrays[spec.name]
        assert (array.shape, array.dtype.name) == (spec.shape, spec.dtype)
        assert array.flags["C_CONTIGUOUS"]
        assert array.flags["WRITEABLE"]


@pytest.mark.parametrize("idx", EVERY)
def test_values_stay_within_their_meaning(idx):
    arrays = fixture(idx)
    assert np.abs(arrays["image"]).max() <= 1
    assert len({plane.tobytes() for plane in arrays["image"].reshape(-1, 16, 20)}) == 2 * CAMERAS * 3
    assert arrays["cameras"].any(axis=1).all() == (idx != 4)
    assert (arrays["camera_1"] == arrays["cameras"][:, 1]).all()
    assert arrays["embodiment"].min() >= 0
    assert arrays["embodiment"].max() < 32
    assert arrays["time"].max() <= 0.5
    if idx:
        assert np.abs(arrays["state"]).max() <= 1


@pytest.mark.parametrize("idx", EVERY)
def test_masks_are_prefixes_and_tokens_follow_them(idx):
    arrays = fixture(idx)
    for row in range(2):
        text = int(arrays["prompt_mask"][row].sum())
        assert arrays["prompt_mask"][row].tolist() == [True] * text + [False] * (LENGTH - text)
        assert text >= 1
        assert (arrays["prompt"][row, text:] == 7).all()
        assert arrays["prompt"].max() < 100
        images = int(arrays["cameras"][row].sum()) * TOKENS_PER_IMAGE
        used = int(arrays["mask"][row].sum())
        assert images < used <= images + LENGTH - CAMERAS * TOKENS_PER_IMAGE
        assert arrays["mask"][row].tolist() == [1] * used + [0] * (LENGTH - used)
        ids = arrays["ids"][row]
        assert (ids[:images] == IMAGE_TOKEN).all()
        assert (ids[images:] != IMAGE_TOKEN).all()
        assert (ids[used:] == 7).all()


def test_the_first_fixtures_reach_the_plain_case_and_the_edges():
    plain, least, full = (fixture(idx) for idx in range(3))
    assert [f["prompt_mask"][0].sum() for f in (plain, least, full)] == [18, 1, 24]
    assert [f["mask"][0].sum() for f in (plain, least, full)] == [12 + 9, 8 + 1, 12 + 12]
    assert [f["cameras"][0].tolist() for f in (plain, least, full)] == [[1, 1, 1], [1, 1, 0], [1, 1, 1]]
    assert not least["state"].any()
    assert set(np.unique(full["state"])) == {-1, 1}
    assert set(np.unique(full["image"])) == {-1, 1}
    grey, other = fixture(3), fixture(4)
    assert (grey["prompt_mask"][0].sum(), grey["cameras"][0].tolist()) == (2, [0, 1, 1])
    assert 0 < np.abs(grey["image"]).max() <= 0.02
    assert not other["cameras"].any()
    assert len({fixture(idx)["cameras"].tobytes() for idx in EVERY}) > 3
    assert not all(fixture(idx)["cameras"][:, 0].all() for idx in EVERY)


def test_a_single_camera_is_missing_where_all_are():
    spec = InputSpec("cameras", (1, 1), "bool", CameraMask())
    assert [idx for idx in EVERY if not make_fixture([spec], 0, idx)["cameras"].all()] == [4]


def drawn(spec, count, seed=0):
    return [make_fixture([spec], seed, idx)[spec.name] for idx in range(count)]


@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (2, 9)])
def test_five_fixtures_hold_both_ends_of_a_vocabulary(shape):
    spec = InputSpec("ids", shape, "int64", Tokens(1000))
    for seed in range(3):
        assert {0, 1, 2, 999} <= {n for ids in drawn(spec, 5, seed) for n in ids.ravel().tolist()}
    masked = [
        InputSpec("mask", shape, "bool", PromptMask("left")),
        replace(spec, meaning=Tokens(1000, "mask")),
    ]
    kept = [make_fixture(masked, 0, idx) for idx in range(5)]
    assert {0, 1, 2, 999} <= {n for f in kept for n in f["ids"][f["mask"]].tolist()}


@pytest.mark.parametrize("shape", [(), (1,), (3, 2)])
def test_three_fixtures_hold_both_ends_of_a_range(shape):
    time = InputSpec("time", shape, meaning=Uniform(0.25, 1.0))
    assert {0.25, 1.0} <= {n for values in drawn(time, 3) for n in values.ravel().tolist()}
    ids = InputSpec("id", shape, "int64", Integers(-5, 1000))
    assert {-5, 999} <= {n for values in drawn(ids, 3) for n in values.ravel().tolist()}


def test_three_fixtures_hold_both_ends_of_each_joint():
    joints = InputSpec("joints", (1, 3), meaning=Joints([-90, 0, 5], [90, 100, 5]))
    assert InputSpec.from_json(json.loads(json.dumps(joints.to_json()))) == joints
    values = np.concatenate(drawn(joints, 3))
    assert [set(values[1:, at].tolist()) for at in range(3)] == [{-90, 90}, {0, 100}, {5}]
    assert -90 < values[0, 0] < 90


@pytest.mark.parametrize(
    ("shape", "categories", "enough"), [((), 32, 33), ((2,), 32, 17), ((1,), 64, 65), ((40,), 4, 2)]
)
def test_each_category_is_drawn(shape, categories, enough):
    spec = InputSpec("embodiment", shape, "int64", Integers(3, 3 + categories))
    for seed in range(3):
        seen = {n for values in drawn(spec, enough, seed) for n in values.ravel().tolist()}
        assert seen == set(range(3, 3 + categories))
    if categories > 9:  # another seed starts with other ones
        few = [{n for values in drawn(spec, 5, seed) for n in values.ravel().tolist()} for seed in range(3)]
        assert len({frozenset(some) for some in few}) == 3


def test_a_drawn_value_is_not_the_ends_alone():
    time = InputSpec("time", (1,), meaning=Uniform(0.0, 1.0))
    assert len({float(values[0]) for values in drawn(time, 9)}) == 9
    ids = InputSpec("ids", (1, 8), "int64", Tokens(1000))
    assert all(len(set(values.ravel().tolist()) - {0, 1, 2, 999}) >= 3 for values in drawn(ids, 9))


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_a_spec_survives_json(spec):
    assert InputSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"shape": [1]}, "no 'name'"),
        ({"name": "x", "shape": [1], "size": 3}, "has 'size'; its keys are name, shape, dtype, meaning"),
        (
            {"name": "x", "shape": [1], "meaning": {"kind": "sound"}},
            "kind 'sound' is unknown; give one of bern",
        ),
        (
            {"name": "x", "shape": [1], "meaning": {"kind": "gaussian", "sd": 1}},
            "has 'sd'; its keys are mean, std",
        ),
        ({"name": "x", "shape": [1], "meaning": {}}, "kind None is unknown"),
        ([], "is no JSON object"),
    ],
)
def test_bad_json_is_refused(data, message):
    with pytest.raises(InputError, match=message):
        InputSpec.from_json(data)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: InputSpec("", (1,)), "input name '' is no name"),
        (lambda: InputSpec("x", (-1,)), r"shape is \(-1,\)"),
        (lambda: InputSpec("x", (0,), free=("n",)), r"an axis of \[0\] is free and 0"),
        (lambda: InputSpec("x", (1, 0), "bool", CameraMask()), r"shape is \[1, 0\]"),
        (lambda: InputSpec("x", (1, 0), "bool", PromptMask()), r"shape is \[1, 0\]"),
        (lambda: InputSpec("x", (2.0,)), r"shape is \(2.0,\)"),
        (lambda: InputSpec("x", (True,)), r"shape is \(True,\)"),
        (lambda: InputSpec("x", 3), "shape is 3"),
        (lambda: InputSpec("x", (1,), "float"), "dtype is 'float'; did you mean 'float32'\\?"),
        (lambda: InputSpec("x", (1,), "complex64"), "dtype is 'complex64'; give one of float16"),
        (lambda: InputSpec("x", (1,), "float32", State), r"State'>; give one of it, State\(\.\.\.\)$"),
        (lambda: InputSpec("x", (1,), "int64"), "gaussian: dtype is 'int64'"),
        (lambda: InputSpec("x", (1,), meaning="noise"), "meaning is 'noise'"),
        (lambda: InputSpec("x", (1,), meaning=Gaussian(std=0)), "std is 0"),
        (lambda: InputSpec("x", (1,), meaning=Gaussian(mean=float("nan"))), "mean is nan"),
        (lambda: InputSpec("x", (1,), meaning=Gaussian(mean="0")), "wrong type"),
        (lambda: InputSpec("x", (1,), "uint8", Integers(0, 257)), "high - 1 is 256"),
        (lambda: InputSpec("x", (2,), meaning=Joints((0,), (1,))), r"low is \(0,\); give 2 numbers"),
        (
            lambda: InputSpec("x", (1,), meaning=Joints((1,), (0,))),
            r"high is \(0,\); give finite numbers, none",
        ),
        (lambda: InputSpec("x", (1,), meaning=Joints((0,), (math.inf,))), r"give finite numbers, none below"),
        (lambda: InputSpec("x", (1,), "bool", Bernoulli(1)), "p is 1; give between 0 and 1"),
        (lambda: InputSpec("x", (4,), meaning=Image()), r"shape is \[4\]"),
        (lambda: InputSpec("x", (1,), "bool", CameraMask()), r"\[batch, cameras\]"),
        (lambda: InputSpec("x", (1,), "bool", CameraMask(0)), "cameras is None"),
        (lambda: InputSpec("x", (1,), "bool", CameraMask(2, 2)), "camera is 2; give a number below 2"),
        (lambda: InputSpec("x", (4,), "bool", PromptMask()), r"\[batch, length\]"),
        (lambda: InputSpec("x", (1, 4), "int64", Tokens(0)), "vocab is 0"),
        (lambda: InputSpec("x", (1, 4), "int8", Tokens(100, pad=200)), "pad is 200"),
        (
            lambda: InputSpec("x", (1, 4), "int64", ImagePromptTokens(9, 3, 1, "c", "m", pad=3)),
            "pad is 3; give another id than image_token",
        ),
    ],
)
def test_a_bad_spec_says_what_is_bad(make, message):
    with pytest.raises(InputError, match=message):
        make()


@pytest.mark.parametrize(
    ("specs", "message"),
    [
        ([], "no inputs"),
        ([SPECS[0], SPECS[0]], "'image' is given twice"),
        ([SPECS[4], SPECS[3]], "'prompt' needs 'prompt_mask' before it"),
        ([InputSpec("prompt_mask", (1, LENGTH), "bool", PromptMask()), SPECS[4]], "as 'prompt_mask' has"),
        ([SPECS[1], InputSpec("mask", (2, 12), "bool", ImagePromptMask("cameras", 4))], "13 or more"),
        ([SPECS[2], InputSpec("mask", (2, 12), "bool", ImagePromptMask("camera_1", 4))], r"\[2, cameras\]"),
    ],
)
def test_specs_that_cannot_be_drawn_together_say_why(specs, message):
    with pytest.raises(InputError, match=message):
        check_specs(specs)
    with pytest.raises(InputError, match=message):
        make_fixture(specs, 0, 0)


def test_a_meaning_of_ones_own_is_drawn_and_survives_json():
    @dataclass(frozen=True)
    class Constant(Distribution):
        kind: ClassVar[str] = "test_constant"
        value: float = 2.0

        def draw(self, draw, spec):
            return np.full(spec.shape, self.value)

    spec = InputSpec("x", (2,), meaning=Constant(3.0))
    assert InputSpec.from_json(spec.to_json()) == spec
    assert make_fixture([spec], 0, 0)["x"].tolist() == [3, 3]
    with pytest.raises(InputError, match="'gaussian' is empty or taken"):
        type("Other", (Distribution,), {"kind": "gaussian"})


def test_a_meaning_that_draws_another_shape_is_refused():
    @dataclass(frozen=True)
    class Wrong(Distribution):
        kind: ClassVar[str] = "test_wrong"

        def draw(self, draw, spec):
            return np.zeros(3)

    with pytest.raises(InputError, match=r"test_wrong drew shape \[3\]; its draw\(\) must give \[2\]"):
        make_fixture([InputSpec("x", (2,), meaning=Wrong())], 0, 0)


def test_a_digest_tells_names_dtypes_shapes_and_bytes_apart_and_no_order():
    x = np.zeros((2, 3), np.float32)
    different = [{"x": x}, {"y": x}, {"x": x.T}, {"x": x.view(np.int32)}, {"x": -x}, {"x": x, "y": x}, {}]
    assert len({array_digest(arrays) for arrays in different}) == len(different)
    assert array_digest({"x": x, "y": x.T}) == array_digest({"y": x.T, "x": x})
    assert array_digest({"x": np.arange(3.0)}) == array_digest({"x": np.arange(3.0).astype(">f8")})


def test_inputs_need_neither_torch_nor_onnx():
    heavy = ("torch", "onnx", "pytest")
    code = f"import sys, pytest_reflex.inputs; sys.exit(any(m in sys.modules for m in {heavy}))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_image_tokens_are_half_none_all_and_then_any():
    spec = InputSpec("image_mask", (2, 8), "bool", ImageTokenMask())
    drawn = [make_fixture([spec], 0, idx)["image_mask"] for idx in range(8)]
    assert drawn[0].tolist() == [[False] * 2 + [True] * 4 + [False] * 2] * 2
    assert not drawn[1].any()
    assert drawn[2].all()
    assert len({array_digest({"m": mask}) for mask in drawn[3:]}) == 5
    for shape, dtype, said in (((2, 8), "int64", "dtype"), ((8,), "bool", r"give \[batch, length\]")):
        with pytest.raises(InputError, match=said):
            InputSpec("image_mask", shape, dtype, ImageTokenMask())


def test_an_axis_of_one_name_has_one_size():
    left = InputSpec("left", (2, 3), free=("batch", None))
    right = InputSpec("right", (4, 3), free=("batch", None))
    with pytest.raises(InputError, match="input 'right': batch is 4, and 2 in an earlier input"):
        free_sizes([left, right])
    # The first axis of a layer's state is none of the batch's.
    state = InputSpec("state", (1, 2, 16), free=("batch", None, None))
    with pytest.raises(InputError, match=r"each InputSpec which axis it is, such as free=\(None, 'batch', "):
        free_sizes([left, state])


def test_free_axes_are_judged_in_several_sizes():
    specs = [
        InputSpec("x", (2, 3, 5), free=("batch", None, "length")),
        InputSpec("y", (2,), "bool", Bernoulli(), free=("batch",)),
    ]
    sizes = [make_fixture(specs, 0, idx)["x"].shape for idx in range(6)]
    assert sizes == [(2, 3, 5), (2, 3, 5), (4, 3, 15), (6, 3, 1), (1, 3, 25), (10, 3, 10)]
    assert [make_fixture(specs, 0, idx)["y"].shape for idx in range(6)] == [(n,) for n, _, _ in sizes]


@pytest.mark.parametrize("free", ["batch", ("batch",), ("", None), (3, None), 7])
def test_axes_that_cannot_be_free_are_named(free):
    with pytest.raises(InputError, match=r"input 'x': free is .*; give a name or None for each of 2 axes"):
        InputSpec("x", (2, 3), free=free)


def test_an_input_without_a_meaning_in_its_json_is_gaussian():
    assert InputSpec.from_json({"name": "x", "shape": [2, 3]}) == InputSpec("x", (2, 3), meaning=Gaussian())
    with pytest.raises(InputError, match="input: it has 'size', no 'shape'; its keys are name, shape"):
        InputSpec.from_json({"name": "x", "size": 3})
    with pytest.raises(InputError, match="input: 3 is no JSON object"):
        InputSpec.from_json(3)


@pytest.mark.parametrize(
    ("meaning", "dtype", "message"),
    [
        (Gaussian(mean=np.inf), "float32", "mean is inf; give a finite number$"),
        (Gaussian(std=np.inf), "float32", "std is inf; give a finite number above 0$"),
        (
            Uniform(),
            "int64",
            r"; give one of kind float, or for int64 meaning=Integers\(low, high\), "
            r"or Tokens\(vocab, mask\) of a prompt \(of pytest_reflex\.inputs\)$",
        ),
        (Uniform(0.0, np.inf), "float32", "high - low is inf; give finite$"),
        (Uniform(-1e308, 1e308), "float64", "high - low is inf; give finite$"),
        (
            Integers(),
            "float32",
            r"of kind int, uint, or for float32 meaning=Gaussian\(\) or Uniform\(low, ",
        ),
        (Integers(-1, 3), "uint8", "low is -1; give a whole number that uint8 can hold$"),
        (Integers(0, 257), "uint8", "high - 1 is 256; give a whole number that uint8 can hold$"),
        (Integers(True, 3), "uint8", "low is True; give a whole number"),
        (Integers(0.5, 3), "uint8", "low is 0.5; give a whole number"),
        (
            Bernoulli(),
            "float32",
            "; give one of kind bool, or for float32 meaning=Gaussian",
        ),
        (Bernoulli(0), "bool", "p is 0; give between 0 and 1$"),
        (Bernoulli(1), "bool", "p is 1; give between 0 and 1$"),
        (Image(), "int8", "image: dtype is 'int8'; give one of kind float, or for int8 meaning=Integers"),
        (Image(), "float32", r"shape is \[4\]; give \[..., height, width\]$"),
        (
            State(),
            "bool",
            r"; give one of kind float, or for bool meaning=Bernoulli\(\), "
            r"or PromptMask\(\) of a padded prompt \(of pytest_reflex\.inputs\)$",
        ),
    ],
)
def test_what_a_meaning_does_not_take_is_refused_at_its_edge(meaning, dtype, message):
    with pytest.raises(InputError, match=message):
        InputSpec("x", (4,), dtype, meaning)


def test_a_meaning_in_the_place_of_a_dtype_is_told_where_it_goes():
    with pytest.raises(InputError) as caught:
        InputSpec("image", (1, 3, 8, 8), Image())
    assert str(caught.value) == "input 'image': dtype is Image(); did you mean meaning=Image()?"


def test_an_input_of_another_dtype_is_told_what_it_may_stand_for():
    said, where = "; give one of kind float, or for ", " (of pytest_reflex.inputs)"
    for given, message in (
        (
            ("commands", (1, 3), "int64"),
            f"gaussian: dtype is 'int64'{said}int64 meaning=Integers(low, high), or Tokens(vocab, mask) of a "
            f"prompt{where}",
        ),
        (
            ("on", (1,), "bool"),
            f"gaussian: dtype is 'bool'{said}bool meaning=Bernoulli(), or PromptMask() of a padded prompt"
            f"{where}",
        ),
        (
            ("rgb", (1, 8, 8, 3), "uint8", Image()),
            f"image: dtype is 'uint8'{said}uint8 meaning=Integers(0, 256), a camera's pixels{where}",
        ),
    ):
        with pytest.raises(InputError) as caught:
            InputSpec(*given)
        assert str(caught.value) == f"input {given[0]!r}, {message}"


def test_the_limits_of_whole_numbers_are_their_ends_and_0():
    for meaning, limits in (
        (Integers(0, 4), (0, 3)),
        (Integers(1, 9), (0, 8)),
        (Integers(-5, -2), (-5, 0)),
        (Tokens(9), (0, 8)),
        (Tokens(9, pad=-1), (-1, 8)),
        (Tokens(9, pad=20), (0, 20)),
        (Tokens(9, end=20), (0, 20)),
        (Gaussian(), None),
    ):
        assert meaning.limits() == limits


def test_an_empty_range_is_refused_where_it_is_written():
    for made, message in (
        (
            lambda: Integers(5),
            "Integers(low=5, high=2) is an empty range: high is 2; give both ends, high above low, "
            "which is 5",
        ),
        (lambda: Integers(3, 3), "Integers(low=3, high=3) is an empty range: high is 3; give both ends, "),
        (lambda: Uniform(2.0), "Uniform(low=2.0, high=1.0) is an empty range: high is 1.0; give both ends, "),
        (lambda: Uniform(math.nan), "Uniform(low=nan, high=1.0) is an empty range: high is 1.0; give both "),
        (lambda: ScaledImage(1), "ScaledImage(low=1, high=1.0) is an empty range: high is 1.0; give both "),
    ):
        with pytest.raises(InputError) as caught:
            made()
        assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("meaning", "dtype", "shape", "message"),
    [
        (CameraMask(cameras=2), "bool", (1, 3), "cameras is 2; give 3 as in shape$"),
        (CameraMask(0, 2), "bool", (1, 2), r"shape is \[1, 2\]; give \[batch\] for one camera$"),
        (CameraMask(1), "bool", (1,), "cameras is None; give how many cameras there are$"),
        (CameraMask(-1, 2), "bool", (1,), "camera is -1; give a number below 2$"),
        (CameraMask(), "int64", (1, 2), "dtype is 'int64'; give one of kind bool$"),
        (PromptMask(), "float32", (1, 4), "dtype is 'float32'; give one of kind bool, int, uint$"),
        (PromptMask("centre"), "bool", (1, 4), "padding is 'centre'; give 'left' or 'right'$"),
        (Tokens(9, end=200), "int8", (1, 4), "end is 200; give a whole number that int8 can hold$"),
        (Tokens(1, end=0), "int8", (1, 4), "end is 0; give another id than the only one$"),
        (
            Tokens(9, end=8),
            "int8",
            (4,),
            r"shape is \[4\]; give \[batch, length\] where prompts",
        ),
        (Tokens(129), "int8", (1, 4), "vocab - 1 is 128; give a whole number that int8 can hold$"),
        (Tokens(True), "int8", (1, 4), "vocab is True; give a whole number above 0$"),
        (Tokens(9), "bool", (1, 4), "dtype is 'bool'; give one of kind int, uint$"),
        (ImagePromptMask("c"), "float32", (1, 4), "dtype is 'float32'; give one of kind bool, int, uint$"),
        (ImagePromptMask("c"), "bool", (4,), r"shape is \[4\]; give \[batch, length\]$"),
        (ImagePromptMask("c", 0), "bool", (1, 4), "tokens_per_image is 0; give a whole number above 0$"),
        (
            ImagePromptTokens(9, 3, 1, "c", "m"),
            "bool",
            (1, 4),
            "dtype is 'bool'; give one of kind int, uint$",
        ),
        (ImagePromptTokens(9, 3, 1, "c", "m"), "int8", (4,), r"shape is \[4\]; give \[batch, length\]$"),
        (ImagePromptTokens(1, 3, 1, "c", "m"), "int8", (1, 4), "vocab is 1; give a whole number above 1$"),
        (ImagePromptTokens(129, 3, 1, "c", "m"), "int8", (1, 4), "vocab - 1 is 128; give a whole number"),
        (ImagePromptTokens(9, 200, 1, "c", "m"), "int8", (1, 4), "image_token is 200; give a whole number"),
        (ImagePromptTokens(9, 3, 1, "c", "m", 200), "int8", (1, 4), "pad is 200; give a whole number"),
        (ImagePromptTokens(9, 3, 0, "c", "m"), "int8", (1, 4), "tokens_per_image is 0; give a whole number"),
    ],
)
def test_what_a_prompt_or_a_camera_does_not_take_is_refused_at_its_edge(meaning, dtype, shape, message):
    with pytest.raises(InputError, match=message):
        InputSpec("x", shape, dtype, meaning)


def test_integers_are_of_0_and_1_where_nothing_else_is_said():
    spec = InputSpec("x", (9,), "int64", Integers())
    assert {n for values in drawn(spec, 3) for n in values.tolist()} == {0, 1}


@pytest.mark.parametrize(
    ("meaning", "dtype", "shape"),
    [
        (CameraMask(cameras=2), "bool", (1, 2)),
        (Tokens(128), "int8", (1, 4)),
        (Integers(3, 4), "int64", (4,)),
        (Integers(0, 256), "uint8", (4,)),
        (Image(), "float32", (1, 1)),
    ],
)
def test_what_lies_just_inside_of_the_edge_is_taken(meaning, dtype, shape):
    spec = InputSpec("x", shape, dtype, meaning)
    for fixture_idx in range(4):
        assert make_fixture([spec], 0, fixture_idx)["x"].shape == shape


def others(given, fixture_idx=0, judged=()):
    """What the inputs of a given fixture are swapped for, of which some were judged."""
    digests = {name: {summary_of(name, a).digest for a in judged} for name in given[fixture_idx]}
    return fixtures_from(given, 0, 0).others(fixture_idx, digests)


def test_between_two_given_values_lies_one_that_nobody_judged():
    one, two = np.float32([[1, 2, 4]]), np.float32([[3, 2, 0]])
    (found,) = others([{"x": one}, {"x": two}]).values()
    assert (found.dtype, found.tolist()) == (np.float32, [[2, 2, 2]])
    # Ids and what is not finite have no middle: every other place of each. A mask is turned round as a whole.
    for a, b, between in (
        ([1, 2, 3, 4], [5, 6, 7, 8], [1, 6, 3, 8]),
        ([True, True, False], [False] * 3, [False, False, True]),
        ([np.inf, 1.0, 2.0, 3.0], [5.0, 6.0, 7.0, 8.0], [np.inf, 6.0, 2.0, 8.0]),
    ):
        (found,) = others([{"x": np.array(a)}, {"x": np.array(b)}]).values()
        assert found.tolist() == between


@pytest.mark.parametrize(
    ("value", "other"),
    [
        (np.float32([[1, -2]]), [[-1, 2]]),
        (np.float32([[0, 0]]), [[1, 1]]),
        (np.array([[True, False]]), [[False, True]]),
        (np.array([[1, 2, 3]]), [[3, 1, 2]]),
        (np.array([[np.nan, 2.0]]), [[2.0, np.nan]]),
    ],
)
def test_a_value_that_is_given_alone_is_turned_round(value, other):
    (found,) = others([{"x": value}]).values()
    assert found.shape == value.shape
    assert np.array_equal(found, other, equal_nan=found.dtype.kind == "f")


def test_an_input_has_the_value_of_another_fixture_where_no_other_is_left():
    one, two = np.array([True]), np.array([False])
    given = [{"x": one, "y": np.zeros((1, 0))}, {"x": two, "y": np.zeros((1, 0))}]
    assert others(given, judged=[one, two]) == {"x": two}
    assert others(given, 1, judged=[one, two]) == {"x": one}
    assert others([{"x": np.array([7])}] * 2, judged=[np.array([7])]) == {}


def test_a_value_that_nobody_judged_is_looked_for_before_one_that_somebody_did():
    # Between the first and the next three lie the second, the third and the last; then comes a new one.
    given = [{"x": np.array([value])} for value in (0.0, 2.0, 4.0, 8.0, 10.0, 1.0)]
    (found,) = others(given, judged=[arrays["x"] for arrays in given]).values()
    assert found.tolist() == [5.0]


def test_what_is_given_has_to_be_some_fixtures_of_the_same_names():
    x = np.zeros(2)
    for given, said in (
        ([], "inputs is empty; give at least one InputSpec, or at least one recorded fixture$"),
        ([{"x": x}, SPECS[0]], r"inputs\[1\] is an InputSpec; give InputSpecs only, or mappings from name"),
        ([{"x": x}, {"y": x}], r"inputs\[1\] has \['y'\]; every recorded fixture needs the same names"),
        ([{"x": [None, 1]}], r"inputs\[0\]\['x'\] is object"),
        ({"x": x}, "inputs is a dict; .*give a list of InputSpec"),
        (SPECS[0], "inputs is one InputSpec; give a list of them"),
        ("x", "inputs is a str; give a list of InputSpec"),
        (3, "inputs is an int; give a list of InputSpec"),
    ):
        with pytest.raises(InputError, match=said):
            fixtures_from(given, 5, 0)
    one = fixtures_from([{"x": x}, {"x": x + 1}, {"x": x}], 5, 0)
    assert (one.count, one.distinct, one.seed) == (3, 2, None)
    one.make(0)["x"][...] = 7
    assert not one.make(0)["x"].any(), "each is made anew"
    drawn_ones = fixtures_from(SPECS, 5, 3)
    assert (drawn_ones.count, drawn_ones.distinct, drawn_ones.seed) == (5, 5, 3)


def test_inputs_are_swapped_in_the_plain_fixture_and_in_one_of_other_sizes():
    probed = {count: fixtures_from([SPECS[0]], count, 0).probed for count in (1, 2, 3, 4, 9)}
    assert probed == {1: (0,), 2: (0, 1), 3: (0, 2), 4: (0, 2), 9: (0, 2)}


@pytest.mark.parametrize("size", [(2, 2), (2, 5), (5, 2), (3, 3), (1, 1)])
def test_a_gradient_reaches_the_corners_that_were_drawn(size):
    height, width = size
    spec = InputSpec("x", size, "float64", Image())
    corner = np.random.default_rng(5).uniform(-1.0, 1.0, (4, 1, 1))
    image = spec.meaning.draw(Draw(0, 1, np.random.default_rng(5)), spec)
    # At its far ends a weight is exactly 1; along an axis of one pixel it is 0.
    top, bottom = corner[0, 0, 0], corner[2, 0, 0]
    assert image[0, 0] == top
    if width > 1:
        top, bottom = (a + (b - a) * 1.0 for a, b in ((top, corner[1, 0, 0]), (bottom, corner[3, 0, 0])))
        assert image[0, -1] == top
    if height > 1:
        assert image[-1, -1] == top + (bottom - top) * 1.0


def test_a_dtype_of_numpy_s_or_torch_s_own_is_taken_by_its_name():
    torch = pytest.importorskip("torch")
    for dtype in (np.int64, np.dtype("int64"), torch.int64, "int64"):
        assert InputSpec("x", (1,), dtype, Integers(0, 3)) == InputSpec("x", (1,), "int64", Integers(0, 3))
    assert InputSpec("x", (1,), torch.float16).to_json()["dtype"] == "float16"
