"""Bundles that were damaged or made to harm: one line, and never a pass or a crash."""

from __future__ import annotations

import json
import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

import onnx
from corruption import DAMAGED, RESEALED, Ended, Judge, Pickled, corrupted, judged_here, reseal, small_bundles
from onnx import TensorProto, helper

from exporters import open_bundle
from exporters.bundle.manifest import MANIFEST, seal
from exporters.divergence.parts import open_graphs
from pytest_reflex.errors import BundleError, RunnerError
from pytest_reflex.runners import RecordedRunner
from pytest_reflex.runners.external_data import external_files

pytestmark = pytest.mark.once

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def wholes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return small_bundles(tmp_path_factory.mktemp("whole"))


@pytest.fixture
def bundle(wholes: dict[str, Path], tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(wholes["unrolled"], tmp_path / "b"))


def refused(bundle: Path, words: str) -> None:
    """Exit 2 and one line, which says these words."""
    code, said, passed = judged_here(bundle, bundle / "fixtures.safetensors")
    assert (code, passed) == (2, False)
    assert said.startswith("reflex: error: ")
    assert len(said.splitlines()) == 1
    assert words in said


def change_manifest(bundle: Path, *, sealed: bool = True, **changes: Any) -> None:
    manifest = {**json.loads((bundle / MANIFEST).read_text()), **changes}
    if sealed:
        manifest["sha256"] = seal(manifest)
    (bundle / MANIFEST).write_text(json.dumps(manifest))


# --- a slice of the ten thousand ----------------------------------------------------------------------


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_bundle_never_passes(name: str, wholes: dict[str, Path], tmp_path: Path) -> None:
    for seed in range(21):
        layout = list(wholes)[seed % 3]
        what = corrupted(wholes[layout], tmp_path / "b", DAMAGED[name], seed)
        code, said, passed = judged_here(tmp_path / "b", wholes["unrolled"] / "fixtures.safetensors")
        assert (code in (1, 2), passed) == (True, False), (layout, what, seed)
        assert len(said.splitlines()) == code - 1, (layout, what, seed, said)


@pytest.mark.parametrize("name", RESEALED)
def test_what_was_resealed_ends_in_a_verdict_or_in_one_line(
    name: str, wholes: dict[str, Path], tmp_path: Path
) -> None:
    # In a process of its own: these are opened.
    with Judge(wholes["unrolled"] / "fixtures.safetensors") as judge:
        for seed in range(20):
            layout = list(wholes)[seed % 3]
            what = corrupted(wholes[layout], tmp_path / "b", RESEALED[name], seed)
            ended = judge.judge(tmp_path / "b")
            assert ended.good or (ended.code == 0 and ended.passed), (layout, what, seed, ended)


def test_the_judge_outlives_what_it_judges(wholes: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Dead or hung, what it judged is no pass, and the next is judged by a new process."""
    with Judge(wholes["unrolled"] / "fixtures.safetensors") as judge:
        assert judge.judge(wholes["unrolled"]).passed
        os.kill(judge._process.pid, signal.SIGKILL)
        assert judge.judge(wholes["unrolled"]) == Ended(-signal.SIGKILL, "", False)
        assert judge.judge(wholes["unrolled"]).passed
        os.kill(judge._process.pid, signal.SIGSTOP)
        with monkeypatch.context() as patch:
            patch.setattr("corruption.TIMEOUT_S", 0.5)
            assert judge.judge(wholes["unrolled"]) == Ended(None, "", False)
        assert judge.judge(wholes["unrolled"]).passed
    assert judge._process is None
    assert not any(ended.good for ended in (Ended(-9, "", False), Ended(None, "", False), Ended(0, "", True)))


# --- weights from elsewhere ---------------------------------------------------------------------------


def with_external(location: str, **facts: object) -> bytes:
    """A graph that adds to ``noise`` a weight from another file."""
    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[3], data_location=TensorProto.EXTERNAL)
    for key, value in {"location": location, "offset": 0, "length": 12, **facts}.items():
        entry = weight.external_data.add()
        entry.key, entry.value = key, str(value)
    shapes = {"state": [1, 6], "noise": [1, 4, 3]}
    inputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n, shape in shapes.items()]
    inputs.insert(1, helper.make_tensor_value_info("cameras", TensorProto.BOOL, [1, 2]))
    output = helper.make_tensor_value_info("actions", TensorProto.FLOAT, [1, 4, 3])
    nodes = [helper.make_node("Add", ["noise", "w"], ["actions"])]
    graph = helper.make_graph(nodes, "g", inputs, [output], [weight])
    opset = [helper.make_opsetid("", 20)]
    return bytes(helper.make_model(graph, opset_imports=opset, ir_version=10).SerializeToString())


@pytest.mark.parametrize("place", ["absolute", "parent", "link", "unlisted"])
def test_weights_that_no_digest_covers_are_refused(place: str, bundle: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside.data"
    outside.write_bytes(np.zeros(3, np.float32).tobytes())
    if place == "link":
        (bundle / "link.data").symlink_to(outside)
    if place == "unlisted":
        shutil.copy(outside, bundle / "unlisted.data")
    location = {
        "absolute": str(outside), "parent": "../outside.data",
        "link": "link.data", "unlisted": "unlisted.data",
    }[place]  # fmt: skip
    (bundle / "model.onnx").write_bytes(with_external(location))
    reseal(bundle)
    refused(bundle, f"takes weights from {location!r}, which is no file of its bundle")


def test_a_listed_link_to_weights_elsewhere_is_refused(bundle: Path, tmp_path: Path) -> None:
    # Every digest holds: it is taken of what the link leads to.
    data = bundle / "model.onnx.data"
    shutil.move(data, tmp_path / "elsewhere.data")
    data.symlink_to(tmp_path / "elsewhere.data")
    refused(bundle, "takes weights from 'model.onnx.data', a link that leads out of its bundle")


def test_a_bundle_that_is_a_link_itself_is_judged(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(bundle)
    assert judged_here(tmp_path / "link", bundle / "fixtures.safetensors") == (0, "", True)


@pytest.mark.parametrize(
    "facts", [{"length": 1 << 40}, {"offset": 1 << 40}, {"offset": "one"}, {"length": -1}, {"length": 4}]
)
def test_sizes_that_lie_are_refused(facts: dict[str, object], bundle: Path) -> None:
    (bundle / "model.onnx").write_bytes(with_external("model.onnx.data", **facts))
    reseal(bundle)
    refused(bundle, "model.onnx")


def test_every_place_of_a_weight_is_found(tmp_path: Path) -> None:
    """In the graph, in a subgraph, in an attribute, in a function: onnx's own reading finds as many."""

    def tensor(location: str) -> TensorProto:
        made = TensorProto(name=location, data_type=1, dims=[3], data_location=TensorProto.EXTERNAL)
        entry = made.external_data.add()
        entry.key, entry.value = "location", location
        return made

    inner = helper.make_graph([], "inner", [], [], [tensor("inner.data")])
    nodes = [
        helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=inner),
        helper.make_node("Constant", [], ["k"], value=tensor("attribute.data")),
    ]
    model = helper.make_model(helper.make_graph(nodes, "g", [], [], [tensor("outer.data")]))
    function = onnx.FunctionProto(name="f", domain="d")
    function.node.append(helper.make_node("Constant", [], ["k"], value=tensor("function.data")))
    model.functions.append(function)
    sparse = onnx.SparseTensorProto(values=tensor("values.data"), indices=tensor("indices.data"))
    model.graph.sparse_initializer.append(sparse)
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    names = ("inner", "attribute", "outer", "function", "values", "indices")
    assert external_files(tmp_path / "m.onnx") == {f"{name}.data" for name in names}


@pytest.mark.parametrize("name", [b"state", b"actions"])
def test_a_name_that_is_no_utf8_is_refused(name: bytes, bundle: Path) -> None:
    data = (bundle / "model.onnx").read_bytes()
    (bundle / "model.onnx").write_bytes(data.replace(name, b"\xff" + name[1:]))
    reseal(bundle)
    refused(bundle, "an input or output has a name that is no UTF-8")


@pytest.mark.parametrize("name", [b"feel.weight", b"layer_norm"])
def test_a_graph_with_other_text_that_is_no_utf8_is_not_looked_into(name: bytes, bundle: Path) -> None:
    data = (bundle / "model.onnx").read_bytes()
    (bundle / "model.onnx").write_bytes(data.replace(name, b"\xff" + name[1:]))
    reseal(bundle)
    with pytest.raises(BundleError, match=r"model.onnx cannot be looked into: "):
        open_graphs(open_bundle(bundle))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x3a\xff\x01", "longer than what is there"),
        (b"\x3a", "cut off"),
        (b"\x3b", "wire type 3"),
        (b"\x39\x00", "last field is cut off"),
        (b"\xff" * 11, "cut off"),
    ],
)
def test_what_is_no_graph_is_refused(data: bytes, message: str, bundle: Path) -> None:
    (bundle / "model.onnx").write_bytes(data)
    reseal(bundle)
    refused(bundle, message)


def test_graphs_without_end_in_each_other_are_refused(tmp_path: Path) -> None:
    data = b"location"  # what names no place is not taken apart
    for number in [7, *([1, 5, 6] * 30)][::-1]:
        data = bytes([number << 3 | 2]) + _varint(len(data)) + data
    (tmp_path / "deep.onnx").write_bytes(data)
    with pytest.raises(ValueError, match="too deep"):
        external_files(tmp_path / "deep.onnx")


def _varint(value: int) -> bytes:
    made = b""
    while value > 0x7F:
        made += bytes([value & 0x7F | 0x80])
        value >>= 7
    return made + bytes([value])


# --- manifests ----------------------------------------------------------------------------------------


def test_a_manifest_that_was_changed_is_refused(bundle: Path) -> None:
    change_manifest(bundle, sealed=False, made_by={"name": "somebody"})
    refused(bundle, "reflex.json was changed after it was written")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"steps": 10**9}, "steps is 1000000000, expected a whole number from 1 to 10000"),
        ({"steps": True}, "steps is True, expected a whole number"),
        ({"layout": "spiral"}, "layout is 'spiral', expected one of"),
        ({"layout": "single"}, "a single graph has no loop"),
        ({"graphs": {}}, "graphs is {}, expected the graphs of the layout unrolled: model"),
        ({"graphs": {"model": ["model.onnx"]}}, "graphs.model is ['model.onnx'], expected text"),
        ({"loop": None}, "loop is None, expected an object"),
        ({"loop": {"noise": "noise", "output": "actions"}}, "loop.schedule is missing, expected an object"),
        ({"loop": {"noise": "noise", "output": "actions", "schedule": {"kind": "leap"}}}, "'leap'"),
        (
            {"loop": {"noise": "noise", "output": "actions",
                      "schedule": {"kind": "euler", "start": 1e308, "end": -1e308}}},
            "gives no finite numbers",
        ),
        ({"session": {"optimization": "magic"}}, "session.optimization is 'magic', expected one of"),
        ({"outputs": [7]}, "outputs[0] is 7, expected an object"),
        ({"inputs": [{"name": "x", "shape": [1 << 20, 1 << 20]}]}, "that take no more than 4 GiB"),
        ({"inputs": [{"name": "x", "shape": [-1]}]}, "give whole numbers, 0 or more"),
        ({"inputs": [{"name": "x", "shape": [1], "dtype": []}]}, "dtype is []"),
        ({"inputs": [{"name": {}, "shape": [1], "meaning": 3}]}, "meaning kind 3"),
    ],
    ids=str,
)  # fmt: skip
def test_a_manifest_that_asks_for_what_cannot_be_is_refused(
    changes: dict[str, Any], words: str, bundle: Path
) -> None:
    change_manifest(bundle, **changes)
    refused(bundle, words)


@pytest.mark.parametrize("depth", [100, 500, 900, 950, 990, 100_000])
def test_a_manifest_nested_without_end_is_refused(depth: int, bundle: Path) -> None:
    text = (bundle / MANIFEST).read_text()
    deep = '"call": {"a": ' + "[" * depth + "]" * depth + "}"
    (bundle / MANIFEST).write_text(text.replace('"call": {}', deep))
    assert text != (bundle / MANIFEST).read_text()
    refused(bundle, "cannot be read")


def test_manifests_that_are_bombs_are_refused(bundle: Path) -> None:
    (bundle / MANIFEST).write_text("{" + '"a":' + "9" * 5000 + "}")
    refused(bundle, "reflex.json")
    (bundle / MANIFEST).write_text('{"format": NaN}')
    refused(bundle, "NaN is no number")
    with (bundle / MANIFEST).open("wb") as file:
        file.truncate(100 << 20)  # sparse: it takes no room
    refused(bundle, "more than any manifest")


def test_names_that_are_no_text_cost_nobody_the_reason(bundle: Path) -> None:
    odd = bundle.with_name("\udcff\x1b[2J\nparity PASS")
    bundle.rename(odd)
    change_manifest(odd, steps=0)
    code, said, _ = judged_here(odd, odd / "fixtures.safetensors")
    assert code == 2
    assert said.isascii()
    assert "\x1b" not in said
    assert len(said.splitlines()) == 1
    (odd / MANIFEST).write_bytes(b'{"format": "\xff\xfe"}')
    assert "can't decode byte" in judged_here(odd, odd / "fixtures.safetensors")[1]


# --- who has no business there ------------------------------------------------------------------------


def test_a_custom_operator_is_refused(bundle: Path) -> None:
    model = onnx.load(bundle / "model.onnx", load_external_data=False)
    model.graph.node[0].domain = "com.example"
    model.graph.node[0].op_type = "Evil"
    (bundle / "model.onnx").write_bytes(model.SerializeToString())
    reseal(bundle)
    refused(bundle, "is no model that ONNX Runtime can open")


def test_a_pickle_in_the_place_of_a_recording_is_never_loaded(bundle: Path, tmp_path: Path) -> None:
    trap = bundle / "fixtures.safetensors"
    trap.write_bytes(pickle.dumps(Pickled(tmp_path / "loaded")))
    reseal(bundle)
    with pytest.raises(RunnerError, match="cannot be read as a recording"):
        RecordedRunner(trap).recorded()
    refused(bundle, "cannot be read as a recording")
    assert not (tmp_path / "loaded").exists()


# --- the process that judges --------------------------------------------------------------------------


def test_a_graph_that_ends_the_process_is_an_error_of_the_command(bundle: Path, tmp_path: Path) -> None:
    """What ONNX Runtime would do for a crash, done by a stand-in: the command's own process is another."""
    stand_in = tmp_path / "site"
    stand_in.mkdir()
    (stand_in / "onnxruntime.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(stand_in), str(ROOT)])}
    command = [sys.executable, "-m", "pytest_reflex", "validate", "export", str(bundle), "--output-json"]
    command += ["--model", str(bundle / "fixtures.safetensors")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert done.stderr.startswith("reflex: error: the process that judged was ended by SIGSEGV")
    document = json.loads(done.stdout)
    assert (document["exit_code"], "passed" in document) == (2, False)


def test_the_corruptions_are_seeded(wholes: dict[str, Path], tmp_path: Path) -> None:
    for damage in (*DAMAGED.values(), *RESEALED.values()):
        made = []
        for _ in range(2):
            corrupted(wholes["stepwise"], tmp_path / "b", damage, 5)
            made.append({p.name: p.read_bytes() for p in sorted((tmp_path / "b").iterdir())})
        assert made[0] == made[1], damage.__name__
        assert made[0] != {p.name: p.read_bytes() for p in sorted(wholes["stepwise"].iterdir())}
    assert random.Random(5).random() == random.Random(5).random()
    assert open_bundle(wholes["stepwise"]).changed == ""
