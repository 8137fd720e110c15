"""A live lerobot policy with the golden weights gives the golden actions.

This proves that the tests' tiny policies are built right, and catches a release of lerobot, transformers
or torch that changes what is computed.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

pytest.importorskip("lerobot", reason="live lerobot policies need lerobot (Python 3.12 or later)")
pytestmark = pytest.mark.lerobot

from floors import ROUNDING, floors, rounding_of  # noqa: E402
from tiny_lerobot import FAMILIES, GOLDEN  # noqa: E402


def cases(family: str) -> list[tuple[dict[str, np.ndarray], np.ndarray]]:
    stored = load_file(GOLDEN / family / "cases.safetensors")
    return [
        (
            {
                key.partition(".inputs.")[2]: array
                for key, array in stored.items()
                if key.startswith(f"case{number}.inputs.")
            },
            stored[f"case{number}.outputs.actions"],
        )
        for number in range(4)
    ]


@pytest.mark.parametrize("family", FAMILIES)
def test_golden_actions_are_reproduced(family: str, golden: Callable[[str], Any]) -> None:
    module, policy = importlib.import_module(f"exporters.families.{family}"), golden(family)
    specs = module.inputs(policy, cameras=2, prompt_tokens=8)
    with module.reference(policy) as runner:
        actions = [runner.run(inputs)["actions"] for inputs, _ in cases(family)]
        truths = [runner.exact(inputs)["actions"] for inputs, _ in cases(family)]
        more = rounding_of(runner, specs)
    recorded = [expected for _, expected in cases(family)]
    assert [a.dtype for a in actions] == [r.dtype for r in recorded]
    # Another release or processor rounds another way, and the recorded actions are one more rounding.
    assert floors(recorded, actions, truths, more) < ROUNDING


@pytest.mark.parametrize("family", FAMILIES)
def test_the_halves_and_the_loop_give_the_upstreams_own_bits(
    family: str, golden: Callable[[str], Any]
) -> None:
    import torch

    policy = golden(family)
    module = importlib.import_module(f"exporters.families.{family}")
    flow = module.flow(policy)
    with torch.no_grad(), module.reference(policy, steps=flow.steps) as runner:
        for inputs, _ in cases(family):
            split = flow(**{name: torch.from_numpy(array) for name, array in inputs.items()})["actions"]
            assert np.array_equal(split.numpy(), runner.run(inputs)["actions"])


@pytest.mark.parametrize("family", FAMILIES)
def test_inputs_carry_the_golden_names(family: str, golden: Callable[[str], Any]) -> None:
    specs = importlib.import_module(f"exporters.families.{family}").inputs(
        golden(family), cameras=2, prompt_tokens=8
    )
    stored = cases(family)[0][0]
    assert {spec.name: (spec.shape, spec.dtype) for spec in specs} == {
        name: (array.shape, str(array.dtype)) for name, array in stored.items()
    }
