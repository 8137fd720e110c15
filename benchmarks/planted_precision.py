"""Are faults seen behind the rounding of a narrower precision, and is no honest conversion called one?

    python benchmarks/planted_precision.py --evidence parity_reports

Four families at the sizes of the tests and the README's own policy, each exported in float16, bfloat16, int8
and int8-dynamic. The honest graphs are judged first; then faults are planted into them, one at a time and in
several sizes. A fault's ``height`` is its own effect: how far it moves the output from the honest graph's,
over the floor of the precision (what the PyTorch policy, rounded to it, is from float64). Called means that
the verdict's word is ``bug``.

The reference runs once for each policy and precision, in float32, in float64 and rounded; a faulty graph runs
alone and is judged by the pieces that ``check`` is made of. Needs lerobot.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
from onnx import helper, numpy_helper

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]

# ruff: noqa: E402
import tiny_groot
import tiny_lerobot
from side_by_side import table, write

import exporters
from examples import own_policy
from pytest_reflex import OnnxRunner
from pytest_reflex.errors import ReflexError
from pytest_reflex.inputs import make_fixture
from pytest_reflex.judge.precision import held_to, predicted
from pytest_reflex.verdict.rounding import Floor, floors_of, rounding_of, worst_word

FIXTURES = 8
SIZES = (0.01, 0.05, 0.25, 1.0)
PRECISIONS = ("float16", "bfloat16", "int8", "int8-dynamic")
SMALL: dict[str, Any] = {"cameras": 2, "prompt_tokens": 8}
# What a fault has to be told at, in floors, and the share of such faults that has to be.
WANTED = ((2.0, 0.95), (10.0, 1.0))

Array = np.ndarray[Any, Any]
Fault = Callable[[onnx.ModelProto, np.random.Generator, float], bool]


def policies(work: Path, names: list[str]) -> Iterator[tuple[str, Any, Callable[..., Any]]]:
    """(name, policy, what exports it), one at a time."""
    if "own" in names:
        policy: Any = own_policy.policy().eval()
        yield "own", policy, lambda out, **o: exporters.export(policy, out, inputs=own_policy.INPUTS, **o)
    for family in tiny_lerobot.FAMILIES:
        if family in names:
            policy = tiny_lerobot.golden_policy(family, work)
            module = getattr(exporters, family)
            yield family, policy, lambda out, m=module, p=policy, **o: m.export(p, out, **SMALL, **o)
    if "groot" in names:
        policy = exporters.groot.load(tiny_groot.GOLDEN)
        yield "groot", policy, lambda out, **o: exporters.groot.export(policy, out, layout="unrolled", **o)


def weights(model: onnx.ModelProto) -> list[onnx.TensorProto]:
    """The matrices of products, narrow or quantised."""
    read = {name for node in model.graph.node for name in node.input[:2]}
    return [t for t in model.graph.initializer if t.name in read and len(t.dims) >= 2 and min(t.dims) > 1]


def changed(tensor: onnx.TensorProto, values: Array, before: Array) -> bool:
    """Write values in the tensor's own type; whether that changes any."""
    if before.dtype.kind in "iu":
        info = np.iinfo(before.dtype)
        values = np.clip(np.rint(values), info.min, info.max)
    stored = values.astype(before.dtype)
    tensor.CopyFrom(numpy_helper.from_array(stored, tensor.name))
    return not np.array_equal(stored, before)


def picked(items: list[Any], rng: np.random.Generator) -> Any:
    return items[int(rng.integers(len(items)))] if items else None


def array_of(tensor: onnx.TensorProto) -> Array:
    return np.asarray(numpy_helper.to_array(tensor))


def weight_row(model: onnx.ModelProto, rng: np.random.Generator, size: float) -> bool:
    tensor = picked(weights(model), rng)
    before = array_of(tensor)
    values = before.astype(np.float64)
    values[int(rng.integers(len(values)))] *= 1 + size
    return changed(tensor, values, before)


def swapped_head(model: onnx.ModelProto, rng: np.random.Generator, size: float) -> bool:
    """Two halves of so much of a matrix's columns change places."""
    tensor = picked([t for t in weights(model) if t.dims[-1] >= 4], rng)
    before = array_of(tensor)
    values = before.astype(np.float64)
    half = max(1, int(values.shape[-1] * min(size, 1.0) / 2))
    values[..., :half], values[..., half : 2 * half] = (
        before[..., half : 2 * half].astype(np.float64),
        before[..., :half].astype(np.float64),
    )
    return changed(tensor, values, before)


def quantising(model: onnx.ModelProto, place: int) -> list[onnx.TensorProto]:
    """Scales (1) or zero points (2) that nodes of a quantised graph read."""
    read = {
        node.input[place]
        for node in model.graph.node
        if node.op_type in ("QuantizeLinear", "DequantizeLinear") and len(node.input) > place
    }
    names = ("_scale",) if place == 1 else ("_zero_point",)
    return [
        t for t in model.graph.initializer if t.name in read or (t.name.endswith(names) and not len(t.dims))
    ]


def wrong_scale(model: onnx.ModelProto, rng: np.random.Generator, size: float) -> bool:
    """A quantiser's scale; in a float graph the scale of a matrix as a whole."""
    tensor = picked(quantising(model, 1) or weights(model), rng)
    before = array_of(tensor)
    return changed(tensor, before.astype(np.float64) * (1 + size), before)


def zero_point(model: onnx.ModelProto, rng: np.random.Generator, size: float) -> bool:
    """Off by one, whatever the size; only where there is one."""
    tensor = picked(quantising(model, 2), rng)
    if tensor is None or size != SIZES[0]:
        return False
    before = array_of(tensor)
    step = -1 if np.all(before == np.iinfo(before.dtype).max) else 1
    return changed(tensor, before.astype(np.float64) + step, before)


def lower_block(model: onnx.ModelProto, rng: np.random.Generator, size: float) -> bool:
    """So much of the matrices in a lower precision than the graph says: 4 bits of mantissa or of range."""
    found = weights(model)
    some = rng.permutation(len(found))[: max(1, int(len(found) * size))]
    moved = False
    for at in some:
        before = array_of(found[at])
        wide = before.astype(np.float64)
        if before.dtype.kind in "iu":
            middle = 0 if before.dtype.kind == "i" else 128
            values = np.rint((wide - middle) / 16) * 16 + middle
        else:
            values = wide.astype(np.float32).astype(ml_dtypes.float8_e4m3fn).astype(np.float64)
        moved |= changed(found[at], values, before)
    return moved


def saturated_cast(model: onnx.ModelProto, rng: np.random.Generator, size: float) -> bool:
    """A product's result is cut off, at less of a range the larger the fault."""
    products = [node for node in model.graph.node if node.op_type in ("MatMul", "Gemm", "Conv")]
    node = picked(products, rng)
    if node is None:
        return False
    types = {v.name: v.type.tensor_type.elem_type for v in model.graph.value_info}
    kind = types.get(node.output[0], onnx.TensorProto.FLOAT)
    top = 4.0 * (1 - size) + 0.05
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    for name, bound in (("fault/low", -top), ("fault/high", top)):
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(bound, dtype), name))
    inner, outer = f"{node.output[0]}/whole", node.output[0]
    node.output[0] = inner
    at = list(model.graph.node).index(node)
    clip = helper.make_node("Clip", [inner, "fault/low", "fault/high"], [outer], name="fault/clip")
    model.graph.node.insert(at + 1, clip)
    return True


FAULTS: dict[str, Fault] = {
    "one weight row": weight_row,
    "swapped head": swapped_head,
    "wrong scale": wrong_scale,
    "zero point off by one": zero_point,
    "a block in lower precision": lower_block,
    "saturated cast": saturated_cast,
}


@dataclass
class Judge:
    """What the reference leaves for every graph of one policy in one precision."""

    fixtures: list[dict[str, Array]]
    truths: list[Any]
    rounded: list[Any]
    name: str
    unsure: str

    @classmethod
    def of(cls, bundle: Any, policy: Any) -> Judge:
        fixtures = [make_fixture(bundle.inputs, 0, index) for index in range(FIXTURES)]
        runner = bundle.runner()
        held = held_to(runner, "graph", runner.provider_asked)
        with bundle.reference_runner(policy) as reference:
            truths = [reference.exact(inputs) for inputs in fixtures]
            if held.precision.name == "float32":
                rounded: list[Any] = [reference.run(inputs) for inputs in fixtures]
            else:
                rounded = list(predicted(reference, held, lambda index: fixtures[index], FIXTURES))
        return cls(fixtures, truths, rounded, held.precision.name, held.unsure)

    def floors(self, outputs: list[dict[str, Array]]) -> list[Floor]:
        rounding = rounding_of(self.truths, self.rounded)
        found = [
            floors_of(truth, rounded, gave, rounding, precision=self.name, unsure=self.unsure)
            for truth, rounded, gave in zip(self.truths, self.rounded, outputs, strict=True)
        ]
        return [floor for one in found for floor in one.values()]


def ran(model: onnx.ModelProto, fixtures: list[dict[str, Array]]) -> list[dict[str, Array]]:
    with OnnxRunner(model.SerializeToString(), optimization="basic") as runner:
        return [runner.run(inputs) for inputs in fixtures]


def measured(
    name: str, policy: Any, export: Callable[..., Any], work: Path, precisions: Sequence[str]
) -> Iterator[dict[str, Any]]:
    for precision in precisions:
        # Calibrated with what it is judged by.
        made = export(work / f"{name}-{precision}", precision=precision, verify=False, fixtures=FIXTURES)
        judge = Judge.of(made, policy)
        model = onnx.load(made.path / "model.onnx")
        typed = onnx.shape_inference.infer_shapes(model)
        honest = ran(model, judge.fixtures)
        floors = judge.floors(honest)
        told = {"policy": name, "precision": precision, "held_to": judge.name}
        yield {**told, "fault": "none", "size": 0.0, "height": 0.0, **_said(floors)}
        rng = np.random.default_rng(0)
        for fault, plant in FAULTS.items():
            for size in SIZES:
                wrong = onnx.ModelProto()
                wrong.CopyFrom(typed)
                if not plant(wrong, rng, size):
                    continue
                try:
                    gave = ran(wrong, judge.fixtures)
                except ReflexError as error:
                    print(f"{name} {precision} {fault}: {str(error)[:200]}", file=sys.stderr)
                    continue
                heights = [
                    _apart(got[output], right[output]) / (floor.unit or 1.0)
                    for floor, got, right, output in zip(
                        floors, gave, honest, [next(iter(right)) for right in honest], strict=False
                    )
                ]
                yield {
                    **told,
                    "fault": fault,
                    "size": size,
                    "height": max(heights),
                    **_said(judge.floors(gave)),
                }


def _said(floors: list[Floor]) -> dict[str, Any]:
    beyond = [f.candidate_max / f.allowed for f in floors if f.candidate_max is not None and f.allowed]
    return {"word": worst_word(floor.word for floor in floors), "of_allowed": max(beyond, default=None)}


def _apart(one: Array, other: Array) -> float:
    far = float(np.abs(one.astype(np.float64) - other.astype(np.float64)).max())
    return far if np.isfinite(far) else float("inf")


def summary(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    made = []
    groups = dict.fromkeys((row["precision"], row["fault"]) for row in rows if row["fault"] != "none")
    keys = sorted(groups, key=lambda group: (PRECISIONS.index(group[0]), list(FAULTS).index(group[1])))
    for precision, fault in [*keys, *((p, "all") for p in PRECISIONS), ("all", "all")]:
        own = [
            row
            for row in rows
            if row["fault"] != "none"
            and precision in (row["precision"], "all")
            and fault in (row["fault"], "all")
        ]
        line: dict[str, Any] = {"precision": precision, "fault": fault, "planted": len(own)}
        for least, _ in WANTED:
            high = [row for row in own if row["height"] >= least]
            called = sum(row["word"] == "bug" for row in high)
            line[f"called of {least:g}x floor"] = f"{called} of {len(high)}"
        made.append(line)
    return made


def missed(rows: list[dict[str, Any]]) -> list[str]:
    """What of the two aims does not hold, in words."""
    said = [
        f"the honest {row['precision']} of {row['policy']} is called a bug"
        for row in rows
        if row["fault"] == "none" and row["word"] == "bug"
    ]
    for least, share in WANTED:
        high = [row for row in rows if row["fault"] != "none" and row["height"] >= least]
        called = sum(row["word"] == "bug" for row in high)
        if called < share * len(high):
            said.append(
                f"{called} of {len(high)} faults of {least:g} floors and more are called, of {share:.0%}"
            )
    return said


def markdown(rows: list[dict[str, Any]]) -> str:
    def lines(found: list[dict[str, Any]]) -> list[str]:
        cells = [[f"{v:.2f}" if isinstance(v, float) else str(v) for v in row.values()] for row in found]
        header = list(found[0])
        return ["| " + " | ".join(row) + " |" for row in [header, ["---"] * len(header), *cells]]

    honest = [
        {key: row[key] for key in ("policy", "precision", "held_to", "word", "of_allowed")}
        for row in rows
        if row["fault"] == "none"
    ]
    escaped = [
        {key: row[key] for key in ("policy", "precision", "fault", "size", "height", "word", "of_allowed")}
        for row in rows
        if row["fault"] != "none" and row["height"] >= WANTED[0][0] and row["word"] != "bug"
    ]
    aims = missed(rows)
    parts = [
        "# Faults behind the rounding of a precision",
        "",
        "What `python benchmarks/planted_precision.py` wrote. `height` is what the fault alone moves the",
        "output by, in floors of the precision; `of_allowed` the graph's error against float64 over what is",
        "allowed.",
        "",
        "## Honest conversions",
        "",
        *lines(honest),
        "",
        "## Planted faults",
        "",
        *lines(summary(rows)),
        "",
        *(["Not as it should be:", "", *(f"- {aim}" for aim in aims), ""] if aims else []),
    ]
    if escaped:
        parts += ["## Faults of two floors and more that are not called", "", *lines(escaped), ""]
    return "\n".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    every = ["own", *tiny_lerobot.FAMILIES, "groot"]
    parser.add_argument("--only", nargs="+", choices=every, default=every, help="some policies")
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=PRECISIONS)
    parser.add_argument("--evidence", type=Path, help="write planted_precision.json and .md here")
    args = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for name, policy, export in policies(Path(folder), args.only):
            for row in measured(name, policy, export, Path(folder), args.precisions):
                rows.append(row)
                if row["fault"] == "none":
                    print(json.dumps(row), file=sys.stderr, flush=True)
            if args.evidence:  # what is done is kept, whatever becomes of the rest
                write(args.evidence / "planted_precision.json", "planted_precision", rows)
                (args.evidence / "planted_precision.md").write_text(markdown(rows), encoding="utf-8")
    table("Planted faults that are called", summary(rows))
    for aim in missed(rows):
        print(aim)
    sys.exit(1 if missed(rows) else 0)


if __name__ == "__main__":
    main()
