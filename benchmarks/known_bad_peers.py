"""Who lets what pass: the known-bad corpus before torch's, optimum's and polygraphy's comparators.

    python -m venv peers
    peers/bin/pip install torch onnx onnxruntime onnxscript optimum optimum-onnx polygraphy \\
        numpy safetensors click rich 'pytest>=8.2'
    peers/bin/python benchmarks/known_bad_peers.py

Each candidate of ``tests/known_bad`` runs under ONNX Runtime and the reference in numpy, on the same seeded
fixtures that pytest-reflex draws. The comparators are the peers' own code:

* torch: ``torch.onnx.verification.verify_onnx_program``, which is what ``export(verify=True)`` runs, on a
  program that holds the candidate, and the two limits that the export holds its figures against.
* optimum: ``optimum.exporters.onnx.convert._run_validation``, which is what its validation runs, with a
  configuration that says of the candidate what optimum's own say of theirs; atol 1e-5, its default.
* polygraphy: ``Comparator.compare_accuracy`` with its defaults.

A peer sees what it is made to see: one set of inputs for torch and optimum, five for polygraphy. ``PASS``
against a case that must not pass is a false pass; ``-`` means that the case cannot be put to it.
Times are of the cases that must pass, the comparators in turn, each with the inputs that it takes.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import statistics
import sys
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), *(str(ROOT / "tests" / room) for room in ("known_bad", "support"))]

# ruff: noqa: E402
import numpy as np
import onnx
import torch
from known_bad_cases import CASES, FIXTURE_COUNT, OUTPUTS, SPECS, Case
from side_by_side import in_turn, table, write

from pytest_reflex.errors import ReflexError
from pytest_reflex.inputs import make_fixture
from pytest_reflex.judge.check import check
from pytest_reflex.runners import OnnxRunner

PEERS = ("torch", "torch-onnx", "optimum", "optimum-onnx", "polygraphy", "onnxruntime", "numpy")
ROUNDS = 5
# What torch.onnx's export holds its own figures against.
TORCHS_OWN = {"abs": 5e-3, "rel": 1e-1}
Arrays = dict[str, np.ndarray]
Pair = tuple[Arrays, Arrays]


def pairs(case: Case) -> list[Pair]:
    """What both sides give for each fixture; an exception where the candidate does not run."""
    with OnnxRunner(case.model or b"", name=case.name) as runner:
        made = []
        for idx in range(FIXTURE_COUNT):
            inputs = make_fixture(SPECS, 0, idx)
            made.append((case.truth(dict(inputs)), runner.run(inputs)))
        return made


def reflex(case: Case) -> str:
    with tempfile.TemporaryDirectory() as work:
        try:
            result = case.judge(lambda *a, **k: check(*a, strict=case.strict, **k), Path(work))
        except ReflexError:
            return "error"
    return "PASS" if result.passed else "fail"


class Reference(torch.nn.Module):
    """A case's reference as a module, by keyword or in order."""

    def __init__(self, case: Case) -> None:
        super().__init__()
        self.case = case

    def forward(self, *args: torch.Tensor, **named: torch.Tensor) -> dict[str, torch.Tensor]:
        given = named or dict(zip((spec.name for spec in SPECS), args, strict=True))
        made = self.case.truth({name: tensor.numpy() for name, tensor in given.items()})
        return {name: torch.from_numpy(np.array(array)) for name, array in made.items()}


def torch_verify(case: Case) -> str:
    """``torch.onnx.export(verify=True)``: its figures for the first fixture, against its two limits."""
    import onnx_ir as ir
    from torch.onnx import ONNXProgram, verification

    inputs = tuple(torch.from_numpy(a) for a in make_fixture(SPECS, 0, 0).values())
    exported = SimpleNamespace(
        module=lambda: lambda *args: tuple(Reference(case)(*args).values()),
        _get_flat_args_with_check=lambda args, kwargs: (args, None),
    )
    model = ir.from_proto(onnx.ModelProto.FromString(case.model or b""))
    program = ONNXProgram(model, exported)  # type: ignore[arg-type]  # it is asked for these two only
    infos = verification.verify_onnx_program(program, args=inputs)
    # As torch.onnx._internal.exporter._core.export does with what it got.
    good = not any(
        info.max_abs_diff >= TORCHS_OWN["abs"] or info.max_rel_diff >= TORCHS_OWN["rel"] for info in infos
    )
    return "PASS" if good else "fail"


class Config:
    """What optimum's validation asks of a configuration."""

    ATOL_FOR_VALIDATION = 1e-5
    torch_to_onnx_output_map: ClassVar[dict[str, str]] = {}
    inputs: ClassVar[dict[str, dict[int, str]]] = {spec.name: {} for spec in SPECS}
    outputs: ClassVar[dict[str, dict[int, str]]] = {name: {} for name in OUTPUTS}

    def generate_dummy_inputs(self, framework: str, **_: Any) -> dict[str, torch.Tensor]:
        return {name: torch.from_numpy(array) for name, array in make_fixture(SPECS, 0, 0).items()}

    def generate_dummy_inputs_for_validation(self, inputs: Any, names: Any) -> Any:
        return inputs

    def rename_ambiguous_inputs(self, inputs: Any) -> Any:
        return inputs

    def patch_model_for_export(self, model: Any, model_kwargs: Any = None) -> Any:
        return contextlib.nullcontext()


def optimum_validation(case: Case) -> str:
    from optimum.exporters.onnx import convert

    with tempfile.TemporaryDirectory() as work:
        (path := Path(work) / "model.onnx").write_bytes(case.model or b"")
        try:
            convert._run_validation(Config(), Reference(case), path, list(OUTPUTS))
        except (convert.AtolError, convert.OutputMatchError, convert.ShapeError):
            return "fail"
    return "PASS"


def polygraphy_comparator(case: Case) -> str:
    from polygraphy.comparator import Comparator, IterationResult, RunResults
    from polygraphy.logger import G_LOGGER

    G_LOGGER.severity = G_LOGGER.CRITICAL
    made = pairs(case)
    results = RunResults()
    for index, name in enumerate(("reference", "candidate")):
        results.append(
            (name, [IterationResult(outputs=dict(pair[index]), runner_name=name) for pair in made])
        )
    return "PASS" if bool(Comparator.compare_accuracy(results)) else "fail"


def comparable(case: Case) -> bool:
    """Whether a case is two models that give arrays, and not a setting, a file or a runner."""
    return (
        case.on_the_command_line
        and case.recorded == FIXTURE_COUNT
        and case.gate not in ("provider", "intact", "settings")
        and case.damage is None
        and not case.judging
    )


def asked(judge: Callable[[Case], str], case: Case) -> str:
    quiet = io.StringIO()
    logging.disable(logging.CRITICAL)
    try:
        with contextlib.redirect_stdout(quiet), contextlib.redirect_stderr(quiet), np.errstate(all="ignore"):
            return judge(case)
    except ModuleNotFoundError as error:
        return f"no {error.name}"
    except Exception as error:  # whatever a peer raises is no pass
        return f"raises {type(error).__name__}"
    finally:
        logging.disable(logging.NOTSET)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    judges: dict[str, Callable[[Case], str]] = {
        "pytest-reflex": reflex,
        "torch verify": torch_verify,
        "optimum": optimum_validation,
        "polygraphy": polygraphy_comparator,
    }
    rows: list[dict[str, Any]] = []
    print(f"{'case':62}" + "".join(f"{name:>28}" for name in judges))
    for case in CASES.values():
        row: dict[str, Any] = {"case": case.name}
        for name, judge in judges.items():
            row[name] = asked(judge, case) if name == "pytest-reflex" or comparable(case) else "-"
        rows.append(row)
        print(f"{case.name:62}" + "".join(f"{row[name]:>28}" for name in judges), flush=True)
    bad = [row for row in rows if not row["case"].startswith("pass")]
    good = [case for case in CASES.values() if case.name.startswith("pass") and comparable(case)]
    able = {
        n: judge for n, judge in judges.items() if not any(asked(judge, c).startswith("no ") for c in good)
    }
    seconds = in_turn({n: lambda j=judge: [asked(j, c) for c in good] for n, judge in able.items()}, ROUNDS)
    times = [
        {
            "comparator": name,
            "bad_candidates": sum(row[name] != "-" for row in bad),
            "let_pass": sum(row[name] == "PASS" for row in bad),
            "ms_per_good_candidate": 1e3 * statistics.median(taken) / len(good),
        }
        for name, taken in seconds.items()
    ]
    table("The known-bad corpus before each comparator", times)
    versions = {}
    for package in PEERS:
        with contextlib.suppress(Exception):
            versions[package] = version(package)
    print(", ".join(f"{name} {found}" for name, found in versions.items()))
    write(options.json, "known_bad_peers", times, cases=rows, versions=versions)
    sys.exit(any(row["pytest-reflex"] == "PASS" for row in bad))


if __name__ == "__main__":
    main()
