"""locate() over the families' own policies: nothing in a clean export, and the module of a planted weight."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import onnx_ir as ir
import pytest

from examples.tiny_pi0 import tiny_pi0
from exporters import Export, pi0
from exporters.caching.fingerprint import Fingerprint
from exporters.divergence import search
from exporters.graph.tracing import trace_program

pytestmark = pytest.mark.usefixtures("_one_program")

# As in the families' own tests, with which the traces are shared.
SMALL = {"cameras": 2, "prompt_tokens": 6}
SMALL_LEROBOT = {"cameras": 2, "prompt_tokens": 8}


@pytest.fixture(scope="module")
def _one_program() -> Iterator[None]:
    """PyTorch's side is traced once for all layouts of a policy, which goes by its content."""
    known: dict[str, Any] = {}

    def once(owner: Any, call: Any, inputs: Any, *, free: Any) -> Any:
        key = Fingerprint().add((owner, call, dict(inputs), dict(free))).hexdigest()
        if key not in known:
            known[key] = trace_program(owner, call, inputs, free=free)
        return known[key]

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(search, "trace_program", once)
        yield


def require_found(made: Export, policy: Any, fixture_idx: int = 5) -> None:
    """Fixture 5 masks a camera. The planted weight is a linear one, half way down what a step runs."""
    of = made.search(policy)
    clean = of.walk(fixture_idx)
    assert (clean.cause, clean.place) == ("rounding", None), clean.said
    assert clean.values > 500
    # Of what a graph computes, only what torch.onnx splits an operator into has no counterpart.
    assert clean.unmatched < clean.values
    # PyTorch's order is not the graph's: in pieces of a few nodes each it runs ahead, and nothing is lost.
    pieces = of.walk(fixture_idx, budget_bytes=2_000)
    assert (pieces.cause, pieces.values, pieces.unmatched) == ("rounding", clean.values, clean.unmatched)

    role = "step" if made.layout == "stepwise" else "model"
    models = {r: ir.load(made.path / file) for r, file in made.manifest["graphs"].items()}
    graph = models[role].graph
    own = [
        name
        for node in ir.traversal.RecursiveGraphIterator(graph)
        if node.metadata_props.get("pytest_reflex.step", "0") == "0" and node.op_type == "MatMul"
        and node.metadata_props.get("pytest_reflex.half") == "step"
        for value in node.inputs
        if value is not None and (name := str(value.name)).endswith(".weight.T")
    ]  # fmt: skip
    name = own[len(own) // 2]
    weight = graph.initializers[name]
    matrix = weight.const_value.numpy().copy()
    matrix[:, 1] *= 1.02
    weight.const_value = ir.tensor(matrix, name=name)
    found = of.walk(fixture_idx, models=models)
    assert found.cause == "graph"
    assert found.place is not None
    assert found.place.module == name.removesuffix(".weight.T")
    assert found.place.step == 0
    assert found.place.source
    assert found.place.index[-1] == 1


@pytest.mark.once
@pytest.mark.parametrize("layout", ["unrolled", "loop", "stepwise"])
def test_pi0_of_transformers(layout: str, tmp_path: Path) -> None:
    policy = tiny_pi0()
    made = pi0.export(policy, tmp_path / "p", layout=layout, verify=False, **SMALL)
    require_found(made, policy)


@pytest.mark.lerobot
@pytest.mark.parametrize("family", ["smolvla", "pi0", "pi05"])
def test_lerobots_policies(family: str, golden: Callable[[str], Any], tmp_path: Path) -> None:
    pytest.importorskip("lerobot", reason="live lerobot policies need lerobot (Python 3.12 or later)")
    policy = golden(family)
    module = importlib.import_module(f"exporters.families.{family}")
    made = module.export(policy, tmp_path / "p", verify=False, **SMALL_LEROBOT)
    require_found(made, policy)


@pytest.mark.lerobot
@pytest.mark.parametrize("tokens", [None, 12])
def test_groot(tokens: int | None, tmp_path: Path) -> None:
    pytest.importorskip("lerobot", reason="GR00T's action head needs lerobot (Python 3.12 or later)")
    from tiny_groot import GOLDEN

    from exporters import groot

    policy = groot.load(GOLDEN)
    made = groot.export(policy, tmp_path / "p", tokens=tokens, verify=False)
    require_found(made, policy)
