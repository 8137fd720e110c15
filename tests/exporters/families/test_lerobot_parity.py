"""SmolVLA, pi0 and pi0.5 of lerobot: their own sample_actions, whole, against every layout and step count."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pytest_reflex import check
from pytest_reflex.errors import InputError, ReflexError, RunnerError, TracingError
from pytest_reflex.inputs import make_fixture

pytest.importorskip("lerobot", reason="live lerobot policies need lerobot (Python 3.12 or later)")
pytestmark = pytest.mark.lerobot

from floors import Remembered, require_rounding  # noqa: E402
from tiny_lerobot import FAMILIES, tiny_policy  # noqa: E402

from exporters import Policy  # noqa: E402

SMALL = {"cameras": 2, "prompt_tokens": 8}


def module(family: str) -> Any:
    return importlib.import_module(f"exporters.families.{family}")


@pytest.fixture(scope="module")
def truths(golden: Callable[[str], Any]) -> Callable[[str, int], Remembered]:
    """``truths("pi0", 10)``: the policy's own sample_actions over so many steps; each fixture is run once."""
    made: dict[tuple[str, int], Remembered] = {}

    def truth(family: str, steps: int) -> Remembered:
        if (family, steps) not in made:
            made[family, steps] = Remembered(module(family).reference(golden(family), steps=steps))
        return made[family, steps]

    return truth


def require_parity(truth: Remembered, candidate: Any, inputs: Any) -> None:
    result = check(truth, candidate, inputs=inputs, fixtures=8, strict=True, floor=True)
    require_rounding(result)
    assert result.candidate["live_inputs"] == [spec.name for spec in inputs]


# Fifty steps unrolled are long to open, and are told from ten by the loop alone, which is everyone's.
@pytest.mark.parametrize(
    ("family", "steps"), [*((family, steps) for family in FAMILIES for steps in (1, 10)), ("pi0", 50)]
)
def test_parity_unrolled(
    family: str, steps: int, golden: Callable[[str], Any], truths: Callable[..., Remembered], tmp_path: Path
) -> None:
    made = module(family).export(golden(family), tmp_path / "p", steps=steps, verify=False, **SMALL)
    assert (made.layout, made.manifest["steps"]) == ("unrolled", steps)
    require_parity(truths(family, steps), made, made.inputs)
    # Small figures prove little about small actions: these reach as far as real ones do.
    with truths(family, steps) as runner:
        drawn = [make_fixture(made.inputs, 0, fixture_idx) for fixture_idx in range(8)]
        assert max(np.abs(runner.run(f)["actions"]).max() for f in drawn) > 2.5


@pytest.mark.parametrize("layout", ["loop", "stepwise"])
@pytest.mark.parametrize("family", FAMILIES)
def test_parity_where_the_number_of_steps_is_open(
    family: str, layout: Any, golden: Callable[[str], Any], truths: Callable[..., Remembered], tmp_path: Path
) -> None:
    """One bundle, exported with 10 steps, is judged with 1, with 10 and with 50."""
    made = module(family).export(golden(family), tmp_path / "p", layout=layout, verify=False, **SMALL)
    assert made.manifest["steps"] == 10
    require_parity(truths(family, 10), made, made.inputs)
    for steps in (1, 50):
        require_parity(truths(family, steps), Policy(made, steps=steps), made.inputs)


@pytest.mark.parametrize("family", FAMILIES)
def test_published_prompt_length_three_cameras_and_a_batch(
    family: str, golden: Callable[[str], Any], tmp_path: Path
) -> None:
    made = module(family).export(
        golden(family), tmp_path / "p", steps=10, batch=2, layout="loop", fixtures=8, strict=True, floor=True
    )
    shapes = {spec.name: spec.shape for spec in made.inputs}
    size = 32 if family == "smolvla" else 28
    assert shapes["image_2"] == (2, 3, size, size)
    assert shapes["lang_tokens"] == (2, 200 if family == "pi05" else 48)
    assert ("state" in shapes) is (family != "pi05")
    require_rounding(made.result)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_reference_is_sample_actions_itself(family: str, golden: Callable[[str], Any]) -> None:
    import torch

    policy = golden(family)
    counted = "num_steps" if family == "smolvla" else "num_inference_steps"
    inputs = make_fixture(module(family).inputs(policy, **SMALL), 3, 1)
    t = {name: torch.from_numpy(array) for name, array in inputs.items()}
    state = [t["state"]] if "state" in t else []
    lists = [t["image_0"], t["image_1"]], [t["image_mask_0"], t["image_mask_1"]]
    said = getattr(policy.config, counted)
    try:
        setattr(policy.config, counted, 4)
        with torch.no_grad():
            expected = policy.model.sample_actions(
                *lists, t["lang_tokens"], t["lang_masks"], *state, noise=t["noise"]
            )
    finally:
        setattr(policy.config, counted, said)
    for given in (policy, policy.model, lambda: policy):
        with module(family).reference(given, steps=4) as runner:
            assert np.array_equal(runner.run(inputs)["actions"], expected.numpy())
    assert getattr(policy.config, counted) == said == 10
    assert "sample_actions" not in vars(policy.model)
    assert "forward" not in vars(policy.model)


@pytest.mark.parametrize("family", FAMILIES)
def test_fixtures_reach_every_input(family: str, golden: Callable[[str], Any]) -> None:
    specs = module(family).inputs(golden(family))
    fixtures = [make_fixture(specs, 0, fixture_idx) for fixture_idx in range(8)]
    for name in fixtures[0]:
        assert len({f[name].tobytes() for f in fixtures}) > 1, name
    text = [int(f["lang_masks"].sum()) for f in fixtures]
    length = fixtures[0]["lang_masks"].size
    assert min(text) == 1
    assert max(text) == length
    for fixture in fixtures:
        assert (fixture["lang_tokens"][~fixture["lang_masks"]] == 0).all()
        assert len({fixture[f"image_{i}"].tobytes() for i in range(3)}) == 3


@pytest.mark.parametrize("family", FAMILIES)
def test_as_many_cameras_as_the_configuration_names(family: str, tmp_path: Path) -> None:
    specs = module(family).inputs(tiny_policy(family, tmp_path, cameras=1))
    assert [spec.name for spec in specs if spec.name.startswith("image_")] == ["image_0", "image_mask_0"]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_policy_of_one_camera_is_proven_strictly(
    family: str, golden: Callable[[str], Any], tmp_path: Path
) -> None:
    made = module(family).export(
        golden(family), tmp_path / "p", steps=1, cameras=1, prompt_tokens=4, strict=True
    )
    assert "image_mask_0" in made.result.candidate["live_inputs"]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_float64_sinusoid_stays_float64(
    family: str, golden: Callable[[str], Any], tmp_path: Path
) -> None:
    import onnx

    made = module(family).export(golden(family), tmp_path / "p", layout="stepwise", verify=False, **SMALL)
    graph = onnx.shape_inference.infer_shapes(onnx.load(made.path / "step.onnx")).graph
    dtypes = {value.name: value.type.tensor_type.elem_type for value in graph.value_info}
    waves = [node for node in graph.node if node.op_type in ("Sin", "Cos")]
    in_time = [dtypes[node.output[0]] for node in waves if dtypes[node.output[0]] == onnx.TensorProto.DOUBLE]
    assert len(in_time) == 2


@pytest.mark.parametrize("family", FAMILIES)
def test_a_policy_in_half_precision_is_refused_by_name(family: str, tmp_path: Path) -> None:
    policy = tiny_policy(family, tmp_path).bfloat16()
    with pytest.raises(
        TracingError, match=r"is in bfloat16, and a graph is traced from float32; call \.float"
    ):
        module(family).export(policy, tmp_path / "p", **SMALL)
    assert not (tmp_path / "p").exists()


@pytest.mark.parametrize("family", ["pi0", "pi05", "smolvla"])
def test_a_policy_in_lerobots_own_bfloat16_is_a_reference_that_says_so(family: str, tmp_path: Path) -> None:
    """lerobot keeps some of a bfloat16 policy in float32 and casts between them itself."""
    policy = tiny_policy(family, tmp_path)
    made = module(family).export(policy, tmp_path / "p", layout="stepwise", verify=False, **SMALL)
    if family == "smolvla":
        policy.model.vlm_with_expert.bfloat16()
    else:
        policy.model.paligemma_with_expert.to_bfloat16_for_selected_params("bfloat16")
    result = check(policy, made, fixtures=2, threshold="2x floor")
    assert result.passed
    assert result.word == "rounding"
    assert (result.reference["dtype"], result.reference["inputs_cast_to"]) == ("float32 and bfloat16", None)
    assert any("itself up to actions" in doubt.said for doubt in result.doubts)


def test_another_familys_policy_is_refused_with_what_it_lacks(golden: Callable[[str], Any]) -> None:
    from exporters import pi0, pi05, smolvla

    with pytest.raises(ReflexError, match=r"given as pi0.* has no state_proj; expected lerobot's PI0Policy"):
        pi0.inputs(golden("pi05"))
    with pytest.raises(
        ReflexError, match=r"given as pi05.* has no time_mlp_in; expected lerobot's PI05Policy"
    ):
        pi05.reference(golden("pi0"))
    with pytest.raises(ReflexError, match=r"given as smolvla.* has no vlm_with_expert"):
        smolvla.inputs(golden("pi0"))


@pytest.mark.parametrize("option", [{"cameras": 0}, {"prompt_tokens": 1.5}, {"batch": True}])
def test_bad_sizes_are_named(option: dict[str, Any], golden: Callable[[str], Any]) -> None:
    (name, value), *_ = option.items()
    with pytest.raises(InputError, match=f"{name} is {value!r}, expected a whole number of at least 1"):
        module("pi05").inputs(golden("pi05"), **option)


def test_one_bundle_is_judged_by_the_code_that_it_was_made_from(
    golden: Callable[[str], Any], tmp_path: Path
) -> None:
    """lerobot's pi0 and transformers' share a family; a bundle of one is no bundle of the other."""
    from examples.tiny_pi0 import tiny_pi0
    from exporters import pi0

    made = pi0.export(golden("pi0"), tmp_path / "p", steps=1, fixtures=2, **SMALL)
    assert json.loads((made.path / "reflex.json").read_text())["source"]["class"].endswith("PI0Policy")
    with pytest.raises(RunnerError, match="image_0"):
        check(tiny_pi0(), made)
