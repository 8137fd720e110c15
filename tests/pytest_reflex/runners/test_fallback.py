"""A session names the provider that it was asked for; which nodes that runs, ONNX Runtime says when asked."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from policy_cases import SPECS, Policy, policy_model

from pytest_reflex import OnnxRunner, check, settings
from pytest_reflex.settings import PROVIDERS

pytestmark = pytest.mark.once

AZURE = "AzureExecutionProvider"


@pytest.fixture(autouse=True)
def azure(monkeypatch: pytest.MonkeyPatch) -> None:
    """A provider that every build of ONNX Runtime for a CPU has, and that runs no operator of ONNX's."""
    monkeypatch.setattr(settings, "PROVIDERS", {**PROVIDERS, "azure": AZURE})


def test_a_provider_that_runs_no_node_is_refused_by_name() -> None:
    result = check(
        Policy().eval(), OnnxRunner(policy_model(), provider="azure"), inputs=SPECS, provider="azure"
    )
    said = {answer.gate: answer.said for _, answer in result.refusals}
    assert said == {"provider": f"ran on CPUExecutionProvider, not on {AZURE} as asked"}


def test_a_node_that_fell_back_is_named_and_refused_under_strict(monkeypatch: pytest.MonkeyPatch) -> None:
    """No provider here runs a part of a graph, so that what the session says is said in its place."""
    learn = OnnxRunner._learn_providers

    def node(op_type: str, name: str) -> Any:
        return SimpleNamespace(op_type=op_type, name=name)

    def partly(self: OnnxRunner, session: Any) -> None:
        parts = {AZURE: [node("Mul", "m")], "CPUExecutionProvider": [node("Add", "a"), node("Shape", "s")]}
        said = [
            SimpleNamespace(ep_name=name, get_nodes=lambda held=held: held) for name, held in parts.items()
        ]
        learn(
            self,
            SimpleNamespace(  # type: ignore[arg-type]
                get_providers=session.get_providers, get_provider_graph_assignment_info=lambda: said
            ),
        )

    monkeypatch.setattr(OnnxRunner, "_learn_providers", partly)
    runner = OnnxRunner(policy_model(), provider="azure")
    result = check(Policy().eval(), runner, inputs=SPECS, provider="azure")
    said = f"1 node ran elsewhere than on {AZURE}, the first Add a on CPUExecutionProvider"
    assert result.passed
    assert said in result.notes
    strict = check(Policy().eval(), runner, inputs=SPECS, provider="azure", strict=True)
    assert [answer.said for _, answer in strict.refusals] == [said]
