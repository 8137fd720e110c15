"""Models and operators whole: what torch's own export to ONNX gets right, and what this project's does.

    python benchmarks/whole_models.py --evidence parity_reports
    python benchmarks/whole_models.py CLIP Llama

Each model of ``whole_cases.py`` is exported twice: by ``torch.onnx.export(dynamo=True)``, whose file is run
in ONNX Runtime and compared with PyTorch over the same fixtures under the same threshold, and by
``exporters.export``, judged as always. Half of them have a free batch, and are run in a second size. A model
that torch exports rightly and this project does not is a fault; so is any exception that is no clear refusal.
Exit 1 when there is one. Needs torchvision, which the environment of lerobot has.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

# ruff: noqa: E402
import onnxruntime as ort
from side_by_side import write
from whole_cases import Case, cases

import exporters
from pytest_reflex.errors import ParityError, ReflexError
from pytest_reflex.inputs import InputSpec, make_fixture
from pytest_reflex.runners.structure import arguments, named
from pytest_reflex.verdict.tolerances import THRESHOLD  # the project's default, for both

BATCHES = (2, 3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("names", nargs="*", help="only models whose names hold one of these")
    parser.add_argument("--evidence", type=Path, help="write whole_models.json and .md into this directory")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    rows = []
    for case in cases():
        if options.names and not any(name in case.name for name in options.names):
            continue
        begin = time.perf_counter()
        torch.manual_seed(0)
        module = case.make().eval()
        row = {
            "model": case.name,
            "free batch": case.free,
            "torch": plain(case, module),
            "here": ours(case, module),
        }
        rows.append(row)
        said = f"{row['model']}: torch {row['torch']} | here {row['here']}"
        print(f"{time.perf_counter() - begin:5.1f} s  {said}", flush=True)
    faults = [row for row in rows if is_fault(row)]
    print(
        f"{len(rows)} models, {sum(row['torch'] == 'right' for row in rows)} right by torch, "
        f"{sum(row['here'] == 'pass' for row in rows)} pass here, {len(faults)} faults"
    )
    if options.evidence:
        write(options.evidence / "whole_models.json", "whole_models", rows, threshold=THRESHOLD)
        (options.evidence / "whole_models.md").write_text(page(rows), encoding="utf-8")
    sys.exit(1 if faults else 0)


def is_fault(row: Mapping[str, Any]) -> bool:
    right_there = row["torch"] == "right" and row["here"] != "pass"
    return bool(right_there or row["here"].startswith("raw "))


def plain(case: Case, module: nn.Module) -> str:
    """What torch's own export comes to: ``right``, or what was wrong."""
    try:
        with tempfile.TemporaryDirectory() as work:
            file = Path(work) / "plain.onnx"
            tensors = _tensors(case.inputs, 0, BATCHES[0])
            shapes = {name: {0: torch.export.Dim("batch")} for name in tensors} if case.free else None
            torch.onnx.export(
                module,
                (),
                file,
                kwargs=arguments(module, tensors),
                dynamo=True,
                dynamic_shapes=shapes,
                verbose=False,
            )
            session = ort.InferenceSession(file)
            sizes = BATCHES if case.free else BATCHES[:1]
            return max((_compared(case, module, session, index, n) for index, n in enumerate(sizes)), key=len)
    except Exception as error:
        return f"raw {type(error).__name__}: {_line(error)}"


def _compared(case: Case, module: nn.Module, session: ort.InferenceSession, index: int, batch: int) -> str:
    tensors = _tensors(case.inputs, index, batch)
    with torch.no_grad():
        expected = [
            np.asarray(value) for value in named(module(**arguments(module, tensors)), None, ()).values()
        ]
    given = {one.name for one in session.get_inputs()}
    found = session.run(None, {name: value.numpy() for name, value in tensors.items() if name in given})
    if len(found) != len(expected):
        return f"{len(found)} outputs for {len(expected)}"
    if any(a.shape != b.shape for a, b in zip(found, expected, strict=True)):
        return "another shape"
    apart = max(
        float(np.abs(a.astype("f8") - b.astype("f8")).max()) for a, b in zip(found, expected, strict=True)
    )
    return "right" if apart < THRESHOLD else f"apart by {apart:.1e}"


def ours(case: Case, module: nn.Module) -> str:
    """What this project's export comes to: ``pass``, or its first line; ``raw`` for any other exception."""
    with tempfile.TemporaryDirectory() as work:
        try:
            exporters.export(module, Path(work) / "bundle", inputs=case.inputs, dynamic_batch=case.free)
        except (ParityError, ReflexError) as error:
            return f"{type(error).__name__}: {_line(error)}"
        except Exception as error:
            return f"raw {type(error).__name__}: {_line(error)}"
    return "pass"


def _tensors(inputs: Any, index: int, batch: int) -> dict[str, Any]:
    specs = [InputSpec(one.name, (batch, *one.shape[1:]), one.dtype, meaning=one.meaning) for one in inputs]
    if batch == BATCHES[0]:
        specs = list(inputs)
    return {name: torch.from_numpy(array) for name, array in make_fixture(specs, 0, index).items()}


def _line(error: BaseException) -> str:
    return " ".join((str(error).strip().splitlines() or [""])[0].split())[:160]


def page(rows: list[dict[str, Any]]) -> str:
    right, here = (
        sum(row[of] == word for row in rows) for of, word in (("torch", "right"), ("here", "pass"))
    )
    free, faults = sum(row["free batch"] for row in rows), sum(map(is_fault, rows))
    lines = [
        "# Models and operators, whole",
        "",
        f"{len(rows)} models of transformers, torchvision and torch, {free} of them with a free batch and in "
        f"a second size. torch's own export is right for {right}, this project's passes for {here}; {faults} "
        "that torch exports rightly do not pass here or end in a raw exception. Made by "
        "`python benchmarks/whole_models.py --evidence parity_reports`.",
        "",
        "| model | free batch | `torch.onnx.export(dynamo=True)` | `exporters.export` |",
        "| --- | --- | --- | --- |",
    ]
    for row in rows:
        cells = [row["model"], "yes" if row["free batch"] else "", row["torch"], row["here"]]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
