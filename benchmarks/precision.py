"""Is the rounding of a narrower precision predicted? Real float16 and bfloat16 graphs beside the prediction.

    python benchmarks/precision.py --evidence parity_reports

Five policies (four families at the sizes of the tests and the README's own policy), two precisions, eight
fixtures, in both arithmetics that runtimes have:

``float32``
    only what is stored is rounded: onnxruntime's float16 converter as ONNX Runtime's CPU runs it; bfloat16
    weights, widened as they are read.
``narrow``
    every result is rounded, as on a device; the graph says so itself, by casts that no runtime leaves out.

The prediction is PyTorch's, of the untouched policy (``pytest_reflex/runners/rounded.py``), and has seen no
graph. Errors are the largest against float64; ``ratio`` is the real one's over the predicted one's, in the
same fixture. Needs lerobot.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]

# ruff: noqa: E402
import tiny_groot
import tiny_lerobot
from onnxruntime.transformers.float16 import convert_float_to_float16
from rounded_graphs import rounded_graph
from side_by_side import table, write

import exporters
from examples import own_policy
from pytest_reflex import OnnxRunner
from pytest_reflex.inputs import make_fixture

FIXTURES = 8
SMALL: dict[str, Any] = {"cameras": 2, "prompt_tokens": 8}


def policies(work: Path) -> Iterator[tuple[str, Any, Any]]:
    """(name, policy, its bundle), one at a time."""
    policy: Any = own_policy.policy().eval()
    yield "own", policy, exporters.export(policy, work / "own", inputs=own_policy.INPUTS, verify=False)
    for family in tiny_lerobot.FAMILIES:
        policy = tiny_lerobot.golden_policy(family, work)
        module = getattr(exporters, family)
        yield family, policy, module.export(policy, work / f"{family}.b", verify=False, **SMALL)
    policy = exporters.groot.load(tiny_groot.GOLDEN)
    made = exporters.groot.export(policy, work / "groot.b", layout="unrolled", verify=False)
    yield "groot", policy, made


def graphs(path: Path) -> Iterator[tuple[str, str, onnx.ModelProto]]:
    """(precision, arithmetic, graph)"""
    yield "float16", "float32", convert_float_to_float16(onnx.load(path), keep_io_types=True)
    yield "bfloat16", "float32", rounded_graph(onnx.load(path), "bfloat16", every_result=False)
    yield "float16", "narrow", rounded_graph(onnx.load(path), "float16")
    yield "bfloat16", "narrow", rounded_graph(onnx.load(path), "bfloat16")


def measured(name: str, policy: Any, bundle: Any) -> Iterator[dict[str, Any]]:
    fixtures = [make_fixture(bundle.inputs, 0, index) for index in range(FIXTURES)]
    with bundle.reference_runner(policy) as reference:
        truths = [_only(reference.exact(inputs)) for inputs in fixtures]
        for precision, arithmetic, graph in graphs(bundle.path / "model.onnx"):
            with OnnxRunner(graph.SerializeToString(), optimization="basic") as runner:
                for index, (inputs, truth) in enumerate(zip(fixtures, truths, strict=True)):
                    predicted = _only(reference.rounded(inputs, precision, arithmetic))
                    errors = [float(np.abs(a - truth).max()) for a in (predicted, _only(runner.run(inputs)))]
                    yield {
                        "policy": name,
                        "precision": precision,
                        "arithmetic": arithmetic,
                        "fixture_idx": index,
                        "predicted": errors[0],
                        "real": errors[1],
                        "ratio": errors[1] / errors[0],
                    }


def _only(outputs: dict[str, np.ndarray]) -> np.ndarray:
    (array,) = outputs.values()
    return array.astype(np.float64)


def summary(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    keys = ("policy", "precision", "arithmetic")
    groups = dict.fromkeys(tuple(row[key] for key in keys) for row in rows)
    made = []
    for group in [*groups, ("all", "", "")]:
        own = [r for r in rows if group[0] == "all" or tuple(r[key] for key in keys) == group]
        ratios = [row["ratio"] for row in own]
        made.append(
            {
                **dict(zip(keys, group, strict=True)),
                "fixtures": len(own),
                "predicted": f"{max(r['predicted'] for r in own):.1e}",
                "real": f"{max(r['real'] for r in own):.1e}",
                "least": min(ratios),
                "median": statistics.median(ratios),
                "most": max(ratios),
            }
        )
    return made


def markdown(rows: list[dict[str, Any]]) -> str:
    columns = list(rows[0])
    lines = ["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
    for row in rows:
        cells = [f"{v:.2f}" if isinstance(v, float) else str(v) for v in row.values()]
        lines.append("| " + " | ".join(cells) + " |")
    head = [
        "# The rounding of a precision, predicted",
        "",
        "What `python benchmarks/precision.py` wrote. `predicted` is the largest error against float64 of",
        "the PyTorch policy under `rounded()`, `real` that of the ONNX graph in this precision, over",
        f"{FIXTURES} fixtures; `least`, `median` and `most` are of real over predicted in the same fixture.",
        "With `float32` arithmetic only what is stored is rounded, as ONNX Runtime's CPU runs a float16",
        "graph; with `narrow` every result is.",
        "",
    ]
    return "\n".join([*head, *lines]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--evidence", type=Path, help="write precision.json and precision.md here")
    args = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for name, policy, bundle in policies(Path(folder)):
            rows += measured(name, policy, bundle)
            print(json.dumps(summary(rows)[-2]), file=sys.stderr, flush=True)
    short = summary(rows)
    table(f"Real error over predicted error, {FIXTURES} fixtures each", short)
    if args.evidence:
        write(args.evidence / "precision.json", "precision", rows)
        (args.evidence / "precision.md").write_text(markdown(short))
    if not (0.7 <= short[-1]["median"] <= 1.4 and short[-1]["most"] < 3):
        sys.exit("the prediction is off: median outside 0.7 to 1.4, or one of 3 times and more")


if __name__ == "__main__":
    main()
