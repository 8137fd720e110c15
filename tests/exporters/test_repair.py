"""repair(): the fewest nodes in float32 that meet a budget, found in ten runs and proven as an export is."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import toy_transformer
from bundle_cases import digests

import exporters
from exporters.bundles import open_bundle
from exporters.exporting.repair import MOST_RUNS, Repair, repair
from pytest_reflex import ParityError, check
from pytest_reflex.cli import main
from pytest_reflex.errors import ReflexError, SettingsError
from pytest_reflex.inputs import make_fixture
from pytest_reflex.runners.graph_precision import precision_of
from pytest_reflex.verdict.tolerances import STRICT_THRESHOLD

pytestmark = pytest.mark.once

SPECS = toy_transformer.inputs()
STEPS = 3


def exported(out: Path, precision: Any, **more: Any) -> exporters.Export:
    options = {"inputs": SPECS, "steps": STEPS, "verify": False, **more}
    return exporters.export(toy_transformer.Toy().eval(), out, precision=precision, **options)


def largest(bundle: Any) -> float:
    found = check(toy_transformer.Toy().eval(), bundle, fixtures=3, threshold=1e3).max_abs_diff_across_all
    assert found is not None
    return found


def repaired(bundle: Any, **more: Any) -> Repair:
    return repair(bundle, toy_transformer.Toy().eval(), **{"fixtures": 3, **more})


def count(kept: Any) -> int:
    return sum(map(len, kept.values()))


def test_a_float16_bundle_whose_clock_is_rounded_gets_it_back(tmp_path: Path) -> None:
    whole = exported(tmp_path / "b", "float16", keep={})
    assert whole.manifest["precision"] == {"name": "float16", "kept": {}}
    spared = largest(exported(tmp_path / "spared", "float16"))
    before = largest(whole)
    assert before > 10 * spared
    found = repaired(whole, budget=2 * spared)
    assert found.bundle.path == tmp_path / "b"
    opened = open_bundle(tmp_path / "b")
    assert opened.proof is not None
    assert opened.proof["threshold"] == 2 * spared
    assert largest(opened) < 2 * spared
    kept = opened.manifest["precision"]["kept"]
    assert kept == {role: list(names) for role, names in (found.kept or {}).items()}
    assert any("sin" in name.lower() for name in kept["model"])
    assert count(kept) < 0.05 * found.nodes
    assert precision_of(opened.path / "model.onnx").narrow == "float16"
    # Of ten runs one was that of the bundle as it was.
    assert 1 <= len(found.curve) <= MOST_RUNS - 1
    assert [point.nodes for point in found.curve] == sorted(point.nodes for point in found.curve)


@pytest.mark.parametrize(
    ("precision", "layout"),
    [
        ("float16", "unrolled"), ("float16", "stepwise"), ("bfloat16", "unrolled"), ("bfloat16", "loop"),
        ("int8", "unrolled"), ("int8-dynamic", "stepwise"),
    ],
)  # fmt: skip
def test_half_of_the_error_costs_part_of_the_nodes(precision: Any, layout: Any, tmp_path: Path) -> None:
    made = exported(tmp_path / "b", precision, layout=layout)
    before = largest(made)
    found = repaired(made, budget=before / 2, out=tmp_path / "out")
    assert found.kept is not None
    assert 0 < count(found.kept) < found.nodes / 2
    opened = open_bundle(tmp_path / "out")
    assert largest(opened) < before / 2
    assert digests(tmp_path / "b") == digests(made.path)
    named = {role: set(names) for role, names in opened.manifest["precision"]["kept"].items()}
    for role, names in named.items():
        graph = ir.load(opened.path / opened.manifest["graphs"][role]).graph
        there = {str(node.name) for node in ir.traversal.RecursiveGraphIterator(graph)}
        assert not {name for name in names if not {name, f"{name}_MatMul"} & there}
        assert not {f"{name}{made}_quant" for name in names for made in ("", "_MatMul")} & there
    # The nodes kept are those that matter: as many others do not do.
    assert largest(made) == before


def test_what_meets_the_budget_is_left_alone(tmp_path: Path) -> None:
    made = exported(tmp_path / "b", "float16")
    before = digests(made.path)
    found = repaired(made, budget=1.0)
    assert found.kept is None
    assert found.bundle.path == made.path
    assert found.text.startswith("Nothing to repair: ")
    assert digests(made.path) == before


def test_a_budget_that_cannot_be_met_says_the_curve_and_leaves_what_is_there(tmp_path: Path) -> None:
    made = exported(tmp_path / "b", "float16")
    before = digests(made.path)
    with pytest.raises(
        ReflexError, match=r"a budget of 1\.0e-12 cannot be met: nodes in float32, and the error"
    ):
        repaired(made, budget=1e-12)
    assert digests(made.path) == before
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_what_is_refused_when_it_is_proven_leaves_what_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = exported(tmp_path / "b", "float16", keep={})
    before = digests(made.path)

    def refuse(*args: Any, **options: Any) -> Any:
        result = check(toy_transformer.Toy().eval(), made, fixtures=3, threshold=STRICT_THRESHOLD)
        raise ParityError("refused", result)

    monkeypatch.setattr("exporters.exporting.repair.proven", refuse)
    with pytest.raises(ParityError):
        repaired(made, budget=largest(made) / 2)
    assert digests(made.path) == before
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_calibration_that_was_given_is_asked_for_again(tmp_path: Path) -> None:
    recorded = [make_fixture(SPECS, 3, index) for index in range(2)]
    made = exported(tmp_path / "b", "int8", calibration=recorded)
    with pytest.raises(
        SettingsError, match="calibrated on 2 sets of inputs that were given, which it does not"
    ):
        repaired(made, budget=1e-3)
    found = repaired(made, budget=largest(made) / 2, calibration=recorded)
    assert found.bundle.manifest["precision"]["calibrated_on"] == "2 sets of inputs that were given"


def test_what_cannot_be_repaired_is_said_in_one_line(tmp_path: Path) -> None:
    made = exported(tmp_path / "b", "float32")
    with pytest.raises(ReflexError, match="is in float32, where no precision is to be repaired"):
        repaired(made, budget=1e-3)
    half = exported(tmp_path / "h", "float16")
    absurd = (
        -1,
        0,
        float("nan"),
        float("inf"),
        True,
        None,
        "",
        "2x floor",
        "actions=1e-2",
        {"actions": 1e-2},
    )
    for budget in absurd:
        with pytest.raises(SettingsError, match=r"^budget: .* is no budget; give one finite number above 0"):
            repaired(half, budget=budget)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine")
    # Said before anything is run, whatever the reference is.
    with pytest.raises(ReflexError, match=r"exists and is no bundle: it will not be replaced"):
        repair(half, None, budget=1e-3, out=tmp_path / "other")
    with pytest.raises(ReflexError, match=r"a str is no bundle; give open_bundle\(DIRECTORY\)"):
        repair(str(half.path), None, budget=1e-3)  # type: ignore[arg-type]
    with pytest.raises(ReflexError, match="is no PyTorch policy, so it cannot be traced again"):
        repair(half, half.recording(), budget=1e-3)


def test_export_takes_the_names_of_what_stays(tmp_path: Path) -> None:
    model = ir.load(exported(tmp_path / "f", "float32").path / "model.onnx")
    names = [str(node.name) for node in model.graph if node.op_type == "MatMul"][:3]
    made = exported(tmp_path / "b", "int8-dynamic", keep={"model": names})
    graph = ir.load(made.path / "model.onnx").graph
    plain = {str(node.name) for node in graph if node.op_type == "MatMul"}
    assert plain.issuperset(names)
    assert made.manifest["precision"]["kept"] == {"model": sorted(names)}
    for keep, said in (({"model": ["none"]}, "'none', which is no node"), ({"step": []}, "the graph 'step'")):
        with pytest.raises(SettingsError, match=said):
            exported(tmp_path / "x", "float16", keep=keep)
    with pytest.raises(SettingsError, match="every node of a float32 export is in float32"):
        exported(tmp_path / "x", "float32", keep={})


POLICY = """
import toy_transformer

def policy():
    return toy_transformer.Toy().eval()
"""


@pytest.fixture
def command(capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    def run(*arguments: object) -> tuple[int, str, str]:
        capfd.readouterr()
        with pytest.raises(SystemExit) as left:
            main([str(argument) for argument in arguments])
        said = capfd.readouterr()
        return int(str(left.value.code)), said.out, said.err

    return run


def test_on_the_command_line(tmp_path: Path, command: Callable[..., tuple[int, str, str]]) -> None:
    made = exported(tmp_path / "b", "float16", keep={})
    budget = largest(made) / 5
    (tmp_path / "own.py").write_text(POLICY)
    model = ("--model", f"{tmp_path}/own.py:policy", "--fixtures", 3)
    code, out, _ = command("repair", made.path, *model, "--budget", budget, "--out", tmp_path / "out")
    assert code == 0
    assert out.startswith("parity PASS: ")
    assert f"Bundle: {tmp_path / 'out'}\nKept in float32: " in out
    code, out, _ = command("repair", tmp_path / "out", *model, "--budget", budget, "--output-json")
    assert code == 0
    assert json.loads(out)["results"][0]["threshold"] == budget
    code, out, err = command("repair", made.path, *model, "--budget", "1e-12")
    assert (code, out) == (2, "")
    # A curve: so many nodes, and what is left.
    assert re.search(r"cannot be met: nodes in float32, and the error left: 0: \d\.\de-\d\d[,;]", err)
    code, _, err = command("repair", made.path, *model, "--budget", "nan")
    assert code == 2
    assert "--budget: 'nan' is no budget; give one finite number above 0" in err


def test_contributions_rank_nodes_as_rounding_each_alone_does(tmp_path: Path) -> None:
    import torch

    from exporters.bundle import registry
    from exporters.divergence.contributions import contributions
    from exporters.divergence.interpreter import Interpreter
    from exporters.divergence.search import programs_of

    policy = toy_transformer.Toy().eval()
    made = exported(tmp_path / "b", "float32", layout="stepwise")
    runner: Any = made.reference_runner(policy)
    inputs = make_fixture(SPECS, 0, 0)
    with runner:
        programs, loop = programs_of(made, runner, lambda p: registry.flow_of(made.stated, p), 0)
        found = contributions(
            Interpreter(programs, inputs, loop, gradients=True), programs, "bfloat16"
        ).reading
        plain = runner.run(inputs)["actions"]
        measured = {}
        for at, layer in enumerate(policy.layers):
            for parameter in (layer.up.weight, layer.up.bias):
                parameter.data, kept = parameter.data.to(torch.bfloat16).float(), parameter.data
                measured[at] = np.linalg.norm(runner.run(inputs)["actions"] - plain) + measured.get(at, 0.0)
                parameter.data = kept
    ups = [score for (half, name), score in found.items() if half == "step"]
    # Each layer's first-order length is found among the contributions, within a factor.
    for length in measured.values():
        nearest = min(max(length / score, score / length) for score in ups)
        assert nearest < 2
    assert max(found.values()) < 100 * max(measured.values())
