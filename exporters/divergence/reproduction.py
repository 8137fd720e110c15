"""The smallest graph that shows a local error, with a script that needs onnxruntime and numpy alone."""

from __future__ import annotations

from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from exporters.divergence.subgraph import subgraph
from pytest_reflex.errors import ReflexError

if TYPE_CHECKING:
    from exporters.divergence.search import Search
    from pytest_reflex.verdict.divergence import Location

Array = np.ndarray[Any, Any]

_SCRIPT = Template('''"""$title"""
from pathlib import Path

import numpy as np
import onnxruntime as ort

here = Path(__file__).parent
options = ort.SessionOptions()
options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
session = ort.InferenceSession(here / "model.onnx", options, providers=["CPUExecutionProvider"])
given = np.load(here / "inputs.npz")
feed = {value.name: given[f"input_{i}"] for i, value in enumerate(session.get_inputs())}
got = session.run(None, feed)[0]
expected = np.load(here / "expected.npy")  # what PyTorch gives for the same inputs
error = np.abs(got.astype(np.float64) - expected.astype(np.float64))
worst = np.unravel_index(error.argmax(), error.shape)
print("onnxruntime", ort.__version__, "numpy", np.__version__)
print("at", tuple(map(int, worst)), "expected", expected[worst], "got", got[worst])
print("max_abs_diff", error.max())
''')


def write_reproduction(search: Search, out_dir: Path) -> Path:
    """Write the nodes between the first wrong value and the right ones that it is made of.

    Args:
        search: a search that has found a place in the graph.
        out_dir: a directory that is made: ``model.onnx``, ``inputs.npz``, ``expected.npy``, ``repro.py``.

    Returns:
        The script.

    Raises:
        ReflexError: nothing wrong was found in the graph, or the directory holds something.
    """
    walked, graphs = search.walked, search.graphs
    if walked is None or graphs is None or walked.culprit is None or walked.expected_there is None:
        raise ReflexError("no node was found to be wrong by itself, so there is nothing to reproduce")
    if out_dir.exists() and (not out_dir.is_dir() or any(out_dir.iterdir())):
        raise ReflexError(f"{out_dir} is there and not empty; give a directory to be made")
    _, value = walked.culprit
    nodes, given = _cluster(value, walked.feed)
    made = subgraph(nodes, graphs, outputs=[value], example=lambda v: given[str(v.name)])
    ir.external_data.load_to_model(made.model)  # it has to stand alone
    out_dir.mkdir(parents=True, exist_ok=True)
    ir.save(made.model, out_dir / "model.onnx")
    arrays: dict[str, Any] = {
        f"input_{i}": given[str(made.inputs[str(v.name)].name)] for i, v in enumerate(made.model.graph.inputs)
    }
    np.savez(out_dir / "inputs.npz", **arrays)
    np.save(out_dir / "expected.npy", walked.expected_there)
    place = walked.place
    title = _title(place, value)
    script = out_dir / "repro.py"
    script.write_text(_SCRIPT.substitute(title=title.encode("ascii", "replace").decode().replace('"', "'")))
    return script


def _title(place: Location | None, value: ir.Value) -> str:
    if place is None:
        return str(value.name)
    if place.together:
        return f"{place.operators} together, {place.span}, giving {place.value}: {place.where}"
    return f"{place.operator} {place.value}: {place.where}"


def _cluster(value: ir.Value, feed: dict[str, Array]) -> tuple[list[ir.Node], dict[str, Array]]:
    """The nodes that make ``value`` from values that PyTorch has too, in order, and those values."""
    known = {name.partition("/")[2]: array for name, array in feed.items()}
    order: list[ir.Node] = []
    seen: set[ir.Node] = set()
    given: dict[str, Array] = {}

    def visit(wanted: ir.Value) -> None:
        node = wanted.producer()
        name = str(wanted.name)
        if wanted is not value and name in known:
            given[name] = known[name]
            return
        if node is None or node in seen:
            return
        seen.add(node)
        for source in node.inputs:
            if source is not None:
                visit(source)
        order.append(node)

    visit(value)
    return order, given
