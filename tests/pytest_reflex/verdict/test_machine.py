"""Figures say where they come from, and a comparison says first where the two runs were not made alike."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import onnxruntime
import pytest
import torch
from policy_cases import SPECS, Policy, policy_model
from report_cases import FAILING, PASSING, SIDES, result

from pytest_reflex.cli import main
from pytest_reflex.inputs import InputSpec, make_fixture
from pytest_reflex.judge.check import check
from pytest_reflex.report import html
from pytest_reflex.report import json as as_json
from pytest_reflex.report.compare import compare
from pytest_reflex.report.markdown import markdown
from pytest_reflex.report.origins import UNALIKE, made_on, unalike
from pytest_reflex.result import ParityResult
from pytest_reflex.runners import OnnxRunner, RecordedRunner, save_recording
from pytest_reflex.verdict import machine

X86 = """\
processor\t: {n}
vendor_id\t: GenuineIntel
cpu family\t: 6
model\t\t: 143
model name\t: Intel(R) Xeon(R) Platinum 8481C
stepping\t: 8
flags\t\t: fpu sse sse2 ssse3 sse4_1 sse4_2 avx f16c fma avx2 avx512f {more} hypervisor

"""
ARM = """\
processor\t: {n}
BogoMIPS\t: 243.75
Features\t: fp asimd evtstrm aes asimdhp asimddp sve {more}
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x1
CPU part\t: {part}
CPU revision\t: 1

"""


def read(tmp_path: Path, text: str) -> tuple[str, tuple[str, ...]]:
    file = tmp_path / "cpuinfo"
    file.write_text(text, encoding="utf-8")
    machine._processor.cache_clear()
    return machine._processor(file)


# What a machine says of itself


def test_a_processor_is_its_model_and_the_instruction_sets_of_all_its_cores(tmp_path: Path) -> None:
    cores = X86.format(n=0, more="avx512_vnni amx_tile") + X86.format(n=1, more="avx512_vnni")
    assert read(tmp_path, cores) == (
        "Intel(R) Xeon(R) Platinum 8481C (GenuineIntel family 6 model 143 stepping 8)",
        ("sse4_1", "sse4_2", "avx", "f16c", "fma", "avx2", "avx512f", "avx512_vnni"),
    )
    mixed = ARM.format(n=0, part="0xd0c", more="bf16 i8mm") + ARM.format(n=1, part="0xd40", more="bf16")
    assert read(tmp_path, mixed) == (
        "implementer 0x41 variant 0x1 part 0xd0c revision 1; "
        "implementer 0x41 variant 0x1 part 0xd40 revision 1",
        ("asimd", "asimdhp", "asimddp", "bf16", "sve"),
    )


@pytest.mark.parametrize(
    ("line", "sets"),
    [
        (
            "flags",
            "sse4_1 sse4_2 avx f16c fma avx2 avx512f avx512dq avx512bw avx512vl avx512_vnni avx512_bf16 "
            "avx512_fp16 avx_vnni avx_vnni_int8 avx_ne_convert amx_tile amx_int8 amx_bf16 amx_fp16",
        ),
        ("Features", "neon asimd asimdhp asimddp asimdfhm bf16 i8mm sve sve2 svebf16 svei8mm sme"),
    ],
    ids=["x86", "arm"],
)
def test_every_instruction_set_that_libraries_compute_with_is_told(
    line: str, sets: str, tmp_path: Path
) -> None:
    oldest_first = tuple(sets.split())
    said = " ".join(reversed(oldest_first))
    assert read(tmp_path, f"processor: 0\n{line}\t: fpu {said} ht\n")[1] == oldest_first


def test_the_cores_are_those_that_this_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {1, 4} if pid == 0 else {}, raising=False)
    assert machine.here()["cores"] == 2
    # Not every system says which they are, and not every one how many there are.
    monkeypatch.delattr("os.sched_getaffinity")
    monkeypatch.setattr("os.cpu_count", lambda: 6)
    assert machine.here()["cores"] == 6
    monkeypatch.setattr("os.cpu_count", lambda: None)
    assert machine.here()["cores"] == 1


def test_what_the_system_does_not_say_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.processor", lambda: "")
    monkeypatch.setattr("platform.machine", lambda: "")
    assert read(tmp_path, "") == ("unknown", ("unknown",))
    machine._processor.cache_clear()
    assert machine._processor(tmp_path / "not there") == ("unknown", ("unknown",))
    monkeypatch.setattr("platform.machine", lambda: "arm64")
    machine._processor.cache_clear()
    assert machine._processor(tmp_path / "not there")[0] == "arm64"


def test_settings_that_change_arithmetic_are_told_when_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in machine.SETTINGS:
        monkeypatch.delenv(name, raising=False)
    assert machine.here()["environment"] == {}
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "default")
    monkeypatch.setenv("MKL_CBWR", "\udcff")
    monkeypatch.setenv("HOME", "/root")
    told = machine.here()
    assert told["environment"] == {"ATEN_CPU_CAPABILITY": "default", "MKL_CBWR": "\\udcff"}
    assert told["cores"] >= 1
    assert machine.stated(json.loads(json.dumps(told))) == told


@pytest.mark.parametrize(
    "name",
    [
        "ATEN_CPU_CAPABILITY", "DNNL_MAX_CPU_ISA", "MKL_CBWR", "MKL_ENABLE_INSTRUCTIONS", "MKL_NUM_THREADS",
        "NPY_DISABLE_CPU_FEATURES", "OMP_NUM_THREADS", "ONEDNN_DEFAULT_FPMATH_MODE", "ONEDNN_MAX_CPU_ISA",
        "OPENBLAS_CORETYPE", "OPENBLAS_NUM_THREADS",
    ],
)  # fmt: skip
def test_each_setting_by_which_a_library_computes_otherwise_is_told(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "as set here")
    assert machine.here()["environment"][name] == "as set here"


def test_a_machine_is_told_without_a_library() -> None:
    code = (
        "import sys; from pytest_reflex.verdict import machine; machine.here(); "
        "print(sorted({'torch', 'numpy', 'onnxruntime'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("told", [None, 3, "AMD", [], {"processor": 3, "cores": True, "instructions": "avx"}])
def test_what_has_another_form_is_left_out(told: object) -> None:
    assert machine.stated(told) == {}


def test_of_a_machine_only_what_has_the_right_form_is_believed() -> None:
    told = {
        "processor": "A",
        "cores": 0,
        "instructions": ["avx", 2],
        "environment": {"OMP_NUM_THREADS": "1", "MKL_CBWR": 2},
        "onnxruntime_build": "b",
        "more": "x",
    }
    assert machine.stated(told) == {
        "processor": "A",
        "instructions": ["avx"],
        "environment": {"OMP_NUM_THREADS": "1"},
        "onnxruntime_build": "b",
    }


# In the result, the JSON and the page


def test_both_sides_say_what_they_ran_on(tmp_path: Path) -> None:
    found = check(Policy(), OnnxRunner(policy_model(), threads=1), inputs=SPECS)
    here = machine.here()
    assert found.reference["machine"] == {
        **here,
        "torch_capability": torch.backends.cpu.get_cpu_capability(),
    }
    build = onnxruntime.get_build_info().removeprefix("ORT Build Info: ")
    assert found.candidate["machine"] == {**here, "onnxruntime_build": build}
    assert (found.reference["threads"], found.candidate["threads"]) == (torch.get_num_threads(), 1)

    document = json.loads(as_json.dumps(as_json.document([found])))
    jsonschema.validate(document, as_json.schema())
    assert document["results"][0]["reference"]["machine"] == found.reference["machine"]
    page = html.page(document)
    facts = page[page.index("Versions, provider and digests") :]
    for word in ("machine.processor", "machine.torch_capability", "machine.onnxruntime_build"):
        assert word in facts
    assert facts.count(escape(here["processor"])) == 2
    assert f"- made on {here['processor']}, PyTorch {torch.__version__} at " in markdown(document)


def test_the_schema_refuses_a_machine_of_another_form_and_wants_none() -> None:
    def document(told: Any) -> dict[str, Any]:
        return as_json.document([result(reference={**SIDES["reference"], **told})])

    for good in ({}, {"machine": {}}, {"machine": {"processor": "A", "cores": 2}}):
        jsonschema.validate(document(good), as_json.schema())
    for bad in ({"machine": "A"}, {"machine": {"cores": 0}}, {"machine": {"instructions": "avx"}}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(document(bad), as_json.schema())


def test_what_was_recorded_elsewhere_is_not_said_to_have_run_here(tmp_path: Path) -> None:
    file = tmp_path / "recorded.safetensors"
    inputs = make_fixture([InputSpec("x", (2,))], seed=0, fixture_idx=0)
    save_recording(file, [(inputs, {"y": np.float32([1, 2])})], ["x"])
    for runner, told in (
        (RecordedRunner(file), {}),
        (RecordedRunner(file, recorded_on={"processor": "A", "cores": "many"}), {"processor": "A"}),
    ):
        found = check(runner, RecordedRunner(file), inputs=runner.recorded())
        assert found.reference["machine"] == told


class Foreign:
    """A runner of someone else's, which knows nothing of machines."""

    name = "foreign"

    def open(self) -> None: ...
    def close(self) -> None: ...
    def facts(self) -> dict[str, Any]:
        return {}

    def run(self, inputs: Any) -> dict[str, Any]:
        return {"y": inputs["x"] * 2}


def test_a_runner_that_says_nothing_ran_in_this_process() -> None:
    found = check(Foreign(), Foreign(), inputs=[InputSpec("x", (3,))])
    assert found.reference["machine"] == machine.here()


# Two runs


def made(
    result: ParityResult,
    *,
    name: str = "pi0",
    candidate: dict[str, Any] | None = None,
    torch: str = "2.13.0",
    threads: int | None = 1,
    ort: str = "1.32.0",
    **told: Any,
) -> dict[str, Any]:
    """A result whose two sides ran on one machine."""
    on = {"processor": "AMD EPYC", "instructions": ["avx2", "avx512f"], "cores": 2, "environment": {}, **told}
    capability, build = on.pop("capability", "AVX512"), on.pop("build", "git-commit-id=fab30a4")
    entry = result.to_json()
    reference = {"threads": threads, "versions": {"torch": torch}}
    entry["reference"] |= {**reference, "machine": {**on, "torch_capability": capability}}
    other = {"threads": None, "versions": {"onnxruntime": ort}}
    entry["candidate"] |= {**other, "machine": {**on, "onnxruntime_build": build}, **(candidate or {})}
    return {**entry, "name": name}


def said(before: list[dict[str, Any]], after: list[dict[str, Any]]) -> list[str]:
    runs = [as_json.run_of(as_json.document(entries)) for entries in (before, after)]
    return [str(one) for one in unalike(compare(*runs))]


BEFORE = [made(PASSING)]


@pytest.mark.parametrize(
    ("after", "words"),
    [
        ({}, []),
        ({"processor": "Intel Xeon"}, ["processor: AMD EPYC before, Intel Xeon now"]),
        (
            {"instructions": ["avx2", "amx_int8", "amx_tile"]},
            ["instruction sets: avx512f only before; amx_int8, amx_tile only now"],
        ),
        ({"instructions": ["avx2"]}, ["instruction sets: avx512f only before"]),
        ({"capability": "AVX2"}, ["PyTorch's CPU capability: AVX512 before, AVX2 now"]),
        ({"threads": 2}, ["threads of the reference: 1 before, 2 now"]),
        (
            {"candidate": {"threads": 4}},
            ["threads of the candidate: as many as ONNX Runtime chooses before, 4 now"],
        ),
        (
            {"build": "git-commit-id=1234567"},
            ["ONNX Runtime's build: git-commit-id=fab30a4 before, git-commit-id=1234567 now"],
        ),
        ({"ort": "1.33.0"}, ["ONNX Runtime: 1.32.0 before, 1.33.0 now"]),
        ({"torch": "2.14.0"}, ["PyTorch: 2.13.0 before, 2.14.0 now"]),
        ({"cores": 64}, ["cores: 2 before, 64 now"]),
        (
            {"environment": {"OMP_NUM_THREADS": "2", "MKL_CBWR": "AVX2"}},
            ["MKL_CBWR: not set before, AVX2 now", "OMP_NUM_THREADS: not set before, 2 now"],
        ),
        (
            {"threads": 2, "capability": "DEFAULT", "processor": "Intel Xeon", "ort": "1.33.0"},
            [
                "processor: AMD EPYC before, Intel Xeon now",
                "PyTorch's CPU capability: AVX512 before, DEFAULT now",
                "ONNX Runtime: 1.32.0 before, 1.33.0 now",
                "threads of the reference: 1 before, 2 now",
            ],
        ),
        (
            {"candidate": {"machine": {"processor": "Jetson"}}},
            [
                "processor of the candidate: AMD EPYC before, Jetson now",
                "instruction sets of the candidate: avx2, avx512f before, not stated now",
                "cores of the candidate: 2 before, not stated now",
                "ONNX Runtime's build: git-commit-id=fab30a4 before, not stated now",
            ],
        ),
    ],
)
def test_what_differs_between_two_runs_is_named(after: dict[str, Any], words: list[str]) -> None:
    assert said(BEFORE, [made(PASSING, **after)]) == words


def test_a_run_that_does_not_state_its_machine_is_said_not_to() -> None:
    old = made(PASSING)
    del old["reference"]["machine"], old["candidate"]["machine"]
    assert said([old], [made(PASSING, threads=2)]) == [
        "processor: not stated before, AMD EPYC now",
        "threads of the reference: 1 before, 2 now",
    ]
    assert said([old], [old]) == []


def test_what_holds_for_some_results_is_counted_and_what_has_no_counterpart_is_not_looked_at() -> None:
    other = {"processor": "Intel Xeon"}
    before = [made(PASSING, name=name) for name in ("a", "b", "c", "gone")]
    after = [made(PASSING, name="a", **other), *(made(PASSING, name=n) for n in ("b", "c"))]
    after += [made(PASSING, name="new", **other)]
    assert said(before, after) == ["processor: AMD EPYC before, Intel Xeon now (in 1 of 3 results)"]


def test_a_summary_says_what_it_was_made_on_once_for_each_machine() -> None:
    served = {"machine": {"processor": "Jetson"}, "versions": {}}
    entries = [made(PASSING), made(FAILING), made(PASSING, candidate=served), PASSING.to_json()]
    assert made_on(map(as_json.result_from_json, entries)) == [
        "AMD EPYC, PyTorch 2.13.0 at AVX512, 1 thread, ONNX Runtime 1.32.0",
        "AMD EPYC (reference), Jetson (candidate), PyTorch 2.13.0 at AVX512, 1 thread",
    ]
    assert "made on" not in markdown(as_json.document([PASSING]))


@pytest.fixture
def against(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str]]:
    monkeypatch.chdir(tmp_path)

    def run(before: list[dict[str, Any]], after: list[dict[str, Any]]) -> tuple[int, str]:
        for name, entries in (("old", before), ("new", after)):
            Path(f"{name}.json").write_text(as_json.dumps(as_json.document(entries)), encoding="utf-8")
        with pytest.raises(SystemExit) as left:
            main(["report", "new.json", "--against", "old.json", "-o", "out", "--markdown", "out.md"])
        return int(str(left.value.code)), capsys.readouterr().out

    return run


def test_a_comparison_says_first_that_the_runs_were_not_made_alike(
    against: Callable[..., tuple[int, str]],
) -> None:
    code, out = against(BEFORE, [made(FAILING, processor="Intel <b>Xeon\x1b", threads=2)])
    assert code == 1
    lines = out.splitlines()
    at = lines.index("Since the earlier run")
    assert lines[at : at + 5] == [
        "Since the earlier run",
        "  The two runs were not made alike, so figures may differ for that alone:",
        r"    processor: AMD EPYC before, Intel <b>Xeon\x1b now",
        "    threads of the reference: 1 before, 2 now",
        "  worse   pi0: passed before, fails now",
    ]
    for file, what in (
        ("out/index.html", "processor: <bdi>AMD EPYC before"),
        ("out.md", "processor: AMD EPYC before"),
    ):
        text = Path(file).read_text(encoding="utf-8")
        assert "<b>Xeon" not in text
        order = [text.index(UNALIKE), text.index(what), text.index("passed before, fails now")]
        assert order == sorted(order)
        # Not after the counts either: they call it worse as well.
        assert text.index(what) < min(i for i in (text.find("1 worse"), text.find("</b> worse")) if i > 0)


def test_a_comparison_of_runs_made_alike_says_nothing_of_machines(
    against: Callable[..., tuple[int, str]],
) -> None:
    _, out = against(BEFORE, [made(FAILING)])
    for text in (out, *(Path(f).read_text(encoding="utf-8") for f in ("out/index.html", "out.md"))):
        assert UNALIKE not in text
    assert "  worse   pi0: passed before, fails now" in out
