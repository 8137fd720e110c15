"""The manifest as one typed thing: what is read of it, and what is written back."""

from __future__ import annotations

import copy
import functools
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from examples.own_policy import INPUTS, policy
from exporters import export, open_bundle
from exporters.bundle.manifest import FORMAT, FORMAT_VERSION, MANIFEST, SEAL, Manifest, read_manifest, seal
from exporters.bundle.store import StoredBundle
from exporters.flow.schedule import LAYOUTS, BucketedSchedule, EulerSchedule, Loop
from pytest_reflex.errors import BundleError
from pytest_reflex.inputs import Gaussian, InputSpec, State

FILES = {
    name: {"size": 3, "sha256": "ab" * 32} for name in ("encoder.onnx", "fixtures.safetensors", "step.onnx")
}
# As 0.1 wrote it.
SAID: dict[str, Any] = {
    "made_by": {"name": "pytest-reflex", "version": "0.1.0"}, "family": "groot", "layout": "stepwise",
    "steps": 4,
    "loop": {
        "noise": "noise", "output": "actions", "schedule": {"kind": "bucketed_euler", "buckets": 1000},
    },
    "call": {"embodiment": None}, "graphs": {"encoder": "encoder.onnx", "step": "step.onnx"},
    "session": {"optimization": "basic"},
    "inputs": [
        {"name": "state", "shape": [1, 6], "dtype": "float32", "meaning": {"kind": "state"}},
        {"name": "noise", "shape": [1, 8, 2], "dtype": "float32", "meaning": {"kind": "gaussian"}},
    ],
    "source": {"kind": "live", "class": "a.B"}, "dtype": "float32", "versions": {"torch": "2.9.0"},
    "machine": {"python": "3.12.1", "system": "Linux", "arch": "x86_64"},
    "outputs": [{"name": "actions", "dtype": "float32", "shape": [1, 8, 2]}],
    "check": {"passed": True, "threshold": 1e-5}, "files": FILES,
}  # fmt: skip


def test_what_0_1_wrote_means_the_same() -> None:
    loop = Loop(BucketedSchedule(1000), 4, "noise", "actions")
    found = Manifest.from_json(SAID)
    assert found == Manifest(
        "groot",
        "stepwise",
        [InputSpec("state", (1, 6), meaning=State()), InputSpec("noise", (1, 8, 2), meaning=Gaussian())],
        SAID["outputs"],
        call={"embodiment": None},
        steps=4,
        loop=loop,
        graphs=SAID["graphs"],
        files=FILES,
        check=SAID["check"],
        origin={key: SAID[key] for key in ("made_by", "source", "dtype", "versions", "machine")},
    )
    assert (found.optimization, found.config) == ("basic", {})
    assert (loop.times, loop.row(3)) == ([0.0, 250.0, 500.0, 750.0], {"dt": 0.25})
    written = found.to_json()
    assert {name: spec for name, spec in written.items() if name != "inputs"} == {
        "options": {},
        **{name: said for name, said in SAID.items() if name != "inputs"},
    }
    assert [InputSpec.from_json(spec) for spec in written["inputs"]] == found.inputs


def test_session_entries_are_kept() -> None:
    said = {**SAID, "session": {"optimization": "disable", "config": {"session.disable_prepacking": "1"}}}
    found = Manifest.from_json(said)
    assert (found.optimization, found.config) == ("disable", {"session.disable_prepacking": "1"})
    assert found.to_json()["session"] == said["session"]
    assert replace(found, config={}).to_json()["session"] == {"optimization": "disable"}


@pytest.mark.parametrize("check", [[], 7, None, "passed"])
def test_a_verdict_that_is_none_is_none(check: object) -> None:
    assert Manifest.from_json({**SAID, "check": check}).check is None


SPEC, OUTPUT, LOOP = SAID["inputs"][0], SAID["outputs"][0], SAID["loop"]
SHA = "ab" * 32


def files(**changes: Any) -> dict[str, Any]:
    return {"files": {**FILES, "encoder.onnx": {"size": 3, "sha256": SHA, **changes}}}


def named(name: str) -> dict[str, Any]:
    return {"files": {**FILES, name: {"size": 3, "sha256": SHA}}}


OWN_FILE = "expected no such name: one of a file in the bundle itself"
WRONG: list[tuple[dict[str, Any], str]] = [
    ({"family": 7}, "family is 7, expected text that is not empty"),
    ({"family": ""}, "family is '', expected text that is not empty"),
    ({"layout": "spiral"}, "layout is 'spiral', expected one of loop, single, stepwise, unrolled"),
    ({"layout": ["loop"]}, "layout is ['loop'], expected one of"),
    (
        {"layout": "loop"},
        "graphs is {'encoder': 'encoder.onnx', 'step': 'step.onnx'}, expected the graphs of the",
    ),
    ({"layout": "loop"}, ", expected the graphs of the layout loop: model"),
    ({"call": None}, "call is None, expected an object"),
    ({"call": []}, "call is [], expected an object"),
    ({"options": []}, "options is [], expected an object"),
    ({"options": {"cameras": True}}, "options.cameras is True, expected a whole number, or null"),
    ({"options": {"cameras": 2.0}}, "options.cameras is 2.0, expected a whole number, or null"),
    ({"graphs": 3}, "graphs is 3, expected an object"),
    ({"graphs": {"encoder": 3, "step": "step.onnx"}}, "graphs.encoder is 3, expected text"),
    (
        {"graphs": {"encoder": "x", "step": "step.onnx"}},
        "graphs.encoder is 'x', expected a name that files has a",
    ),
    ({"inputs": {}}, "inputs is {}, expected a list"),
    ({"inputs": [3]}, "inputs[0] is 3, expected an object"),
    ({"inputs": [SPEC, SPEC]}, "expected names that differ, and 'state' stands there twice"),
    ({"inputs": [{**SPEC, "shape": [1, True]}]}, "inputs[0] is {"),
    (
        {"inputs": [{**SPEC, "meaning": {"kind": []}}]},
        "which is no input (input 'state': meaning kind [] is unknown",
    ),
    ({"outputs": "actions"}, "outputs is 'actions', expected a list"),
    ({"outputs": [7]}, "outputs[0] is 7, expected an object"),
    ({"outputs": [{"dtype": "float32", "shape": []}]}, "outputs[0].name is missing, expected text"),
    ({"outputs": [{**OUTPUT, "name": ""}]}, "outputs[0].name is '', expected text that is not empty"),
    (
        {"outputs": [{**OUTPUT, "dtype": "float31"}]},
        "outputs[0].dtype is 'float31', expected one of bool, float16",
    ),
    ({"outputs": [{**OUTPUT, "dtype": ["float32"]}]}, "outputs[0].dtype is ['float32'], expected one of"),
    ({"outputs": [{**OUTPUT, "shape": None}]}, "outputs[0].shape is None, expected a list"),
    (
        {"outputs": [{**OUTPUT, "shape": [1, -8]}]},
        "outputs[0].shape[1] is -8, expected a whole number from 0 on",
    ),
    ({"outputs": [{**OUTPUT, "shape": [1.0]}]}, "outputs[0].shape[0] is 1.0, expected a whole number"),
    ({"outputs": [{**OUTPUT, "shape": [True]}]}, "outputs[0].shape[0] is True, expected a whole number"),
    ({"outputs": [OUTPUT, OUTPUT]}, "expected names that differ, and 'actions' stands there twice"),
    ({"steps": 0}, "steps is 0, expected a whole number from 1 to 10000"),
    ({"steps": "4"}, "steps is '4', expected a whole number from 1 to 10000"),
    ({"steps": None}, "steps is None, expected a whole number from 1 to 10000"),
    ({"loop": None}, "loop is None, expected an object"),
    ({"loop": {**LOOP, "noise": "fog"}}, "loop.noise is 'fog', expected one of its inputs"),
    ({"loop": {**LOOP, "output": "fog"}}, "loop.output is 'fog', expected one of its outputs"),
    ({"loop": {**LOOP, "output": 3}}, "loop.output is 3, expected text"),
    ({"loop": {**LOOP, "schedule": "euler"}}, "loop.schedule is 'euler', expected an object"),
    (
        {"loop": {**LOOP, "schedule": {"kind": []}}},
        "loop.schedule.kind is [], expected one of bucketed_euler, euler",
    ),
    (
        {"loop": {**LOOP, "schedule": {"kind": "bucketed_euler"}}},
        "loop.schedule.buckets is missing, expected",
    ),
    (
        {"loop": {**LOOP, "schedule": {"kind": "bucketed_euler", "buckets": 10**400}}},
        "000... (401 characters), expected a whole number from 1 to 16777216",
    ),
    (
        {"loop": {**LOOP, "schedule": {"kind": "euler", "start": 10**400, "end": 0}}},
        "(401 characters), expected a finite number",
    ),
    (
        {"loop": {**LOOP, "schedule": {"kind": "euler", "start": True, "end": 0}}},
        "loop.schedule.start is True, expected a finite number",
    ),
    (
        {"loop": {**LOOP, "schedule": {"kind": "euler", "start": "1.0", "end": 0}}},
        "loop.schedule.start is '1.0', expected a finite number",
    ),
    ({"session": 3}, "session is 3, expected an object"),
    ({"session": {"config": 3}}, "session.config is 3, expected an object"),
    ({"session": {"optimization": []}}, "session.optimization is [], expected one of all, basic, "),
    (
        {"session": {"config": {"session.x": "1"}}},
        "session.config['session.x'] is '1', and is none that a bundle",
    ),
    ({"files": []}, "files is [], expected an object"),
    (named(".."), f"files['..'] is {{'size': 3, 'sha256': '{SHA}'}}, {OWN_FILE}"),
    (named(""), f"files[''] is {{'size': 3, 'sha256': '{SHA}'}}, {OWN_FILE}"),
    (named("."), OWN_FILE),
    (named("a/b"), OWN_FILE),
    (named("a\\b"), OWN_FILE),
    (named("/etc/hostname"), OWN_FILE),
    (named("a\0b"), OWN_FILE),
    (named("reflex.json"), OWN_FILE),
    (files(size="3"), "files['encoder.onnx'].size is '3', expected a whole number from 0 on"),
    (files(size=-1), "files['encoder.onnx'].size is -1, expected a whole number from 0 on"),
    (files(size=True), "files['encoder.onnx'].size is True, expected a whole number from 0 on"),
    (files(size=3.0), "files['encoder.onnx'].size is 3.0, expected a whole number from 0 on"),
    (files(size=None), "files['encoder.onnx'].size is None, expected a whole number from 0 on"),
    (files(sha256="ab"), "files['encoder.onnx'].sha256 is 'ab', expected a SHA-256 in hex"),
    (files(sha256=SHA.upper()), "expected a SHA-256 in hex"),
    (files(sha256=None), "files['encoder.onnx'].sha256 is None, expected text"),
    ({"files": {**FILES, "x": 3}}, "files.x is 3, expected an object"),
    ({"made_by": "somebody"}, "made_by is 'somebody', expected an object"),
    ({"made_by": {"name": 3}}, "made_by.name is 3, expected text"),
    ({"source": []}, "source is [], expected an object"),
    ({"dtype": 32}, "dtype is 32, expected text"),
    ({"precision": "float16"}, "precision is 'float16', expected an object"),
    ({"precision": {"name": 16}}, "precision.name is 16, expected text"),
    ({"versions": ["torch"]}, "versions is ['torch'], expected an object"),
    ({"versions": {"torch": 2.9}}, "versions.torch is 2.9, expected text"),
    ({"machine": 3}, "machine is 3, expected an object"),
    ({"machine": {"arch": {}}}, "machine.arch is {}, expected text"),
    ({"machine": {"cores": 0}}, "machine.cores is 0, expected a whole number from 1 on"),
    ({"machine": {"cores": True}}, "machine.cores is True, expected a whole number from 1 on"),
    ({"machine": {"instructions": "avx2"}}, "machine.instructions is 'avx2', expected a list"),
    ({"machine": {"instructions": [2]}}, "machine.instructions[0] is 2, expected text"),
    (
        {"machine": {"environment": {"OMP_NUM_THREADS": 1}}},
        "machine.environment.OMP_NUM_THREADS is 1, expected text",
    ),
]


@pytest.mark.parametrize(("changes", "words"), WRONG, ids=[words for _, words in WRONG])
def test_what_is_malformed_is_named_with_its_file_key_and_value(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(BundleError) as refused:
        Manifest.from_json({**SAID, **changes}, "the-file")
    said = str(refused.value)
    assert said.startswith("the-file: ")
    assert words in said
    assert said.endswith("; export the bundle again") or "give it to the runner itself" in said
    assert len(said) < 1500


def test_what_is_no_object_at_all_is_no_manifest() -> None:
    with pytest.raises(BundleError, match="the-file: what it holds is 7, expected an object"):
        Manifest.from_json(7, "the-file")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "key", sorted(SAID.keys() - {"made_by", "source", "dtype", "versions", "machine", "check"})
)
def test_what_a_bundle_needs_may_not_be_missing(key: str) -> None:
    said = {name: value for name, value in SAID.items() if name != key}
    if key == "session":  # 0.1 wrote it, and so does everyone; its defaults are known
        assert Manifest.from_json(said) == Manifest.from_json(SAID)
        return
    with pytest.raises(BundleError, match=f"reflex.json: {key} is (missing|None), expected "):
        Manifest.from_json(said)


STRANGE = (
    None, True, False, 0, -1, 1, 10**400, 0.5, 1e308, float("nan"), float("inf"), "", "x", "..", "\ud800",
    "a\0b", "x" * 9999, [], [[]], [None], {}, {"": None}, {"kind": "gaussian"}, {"kind": []}, [7],
    "encoder.onnx",
)  # fmt: skip


def places(value: Any, way: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a document, as the keys that lead there."""
    if way:
        yield way
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from places(inner, (*way, key))


def refused(said: dict[str, Any]) -> str:
    """What is said against a manifest; empty where it is taken, and then it can be written again."""
    try:
        json.dumps(Manifest.from_json(said, "the-file").to_json())
    except BundleError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("way", list(places(SAID)), ids=str)
def test_nothing_but_a_bundle_error_escapes(way: tuple[Any, ...]) -> None:
    for strange in (*STRANGE, "lost", "renamed"):
        said = copy.deepcopy(SAID)
        holder = functools.reduce(lambda held, key: held[key], way[:-1], said)
        if strange in ("lost", "renamed"):
            value = holder.pop(way[-1])
            if strange == "renamed" and isinstance(holder, dict):
                holder["other"] = value
        else:
            holder[way[-1]] = strange
        refusal = refused(said)
        assert refusal.startswith("the-file: ") or not refusal
        assert len(refusal.splitlines()) <= 1


@pytest.mark.parametrize("version", [True, 1.0, "1", None, [1], 2])
def test_another_format_version_is_refused(version: object, tmp_path: Path) -> None:
    whole = {**SAID, "format": FORMAT, "format_version": version}
    (tmp_path / MANIFEST).write_text(json.dumps({**whole, SEAL: seal(whole)}))
    with pytest.raises(
        BundleError, match=re.escape(f"has format version {version!r}, this pytest-reflex reads 1")
    ):
        read_manifest(tmp_path)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_bundle_is_what_its_file_says(layout: Any, tmp_path: Path) -> None:
    made = export(policy(), tmp_path / "reach", inputs=INPUTS, layout=layout, steps=3, verify=False)
    said = json.loads((made.path / MANIFEST).read_text())
    stated = open_bundle(made.path).stated
    assert made.stated == stated == StoredBundle(made.path, said).stated
    assert stated.loop == Loop(EulerSchedule(), 3, "noise", "actions")
    whole = {"format": FORMAT, "format_version": FORMAT_VERSION, **stated.to_json()}
    assert {**whole, SEAL: seal(whole)} == said
