"""The ``reflex`` command as its user meets it: exit codes, an error's one line, the verdict, the JSON."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import pytest
from bundle_cases import Exported, Ran, Reflex, add_to_weight, digests, parsed, weight_place
from floors import ulps

from exporters import FAMILIES
from pytest_reflex import __version__
from pytest_reflex.report.json import SCHEMA_VERSION
from pytest_reflex.verdict.results import FIRST_MADE
from pytest_reflex.verdict.tolerances import THRESHOLD

pytestmark = pytest.mark.once

ROOT = Path(__file__).resolve().parents[3]
OWN_POLICY = ROOT / "examples" / "own_policy.py"
LAST_WEIGHT = "policy.action_out_proj.weight.T"
PARAMETER = "action_out_proj.bias"

FLOAT = r"-?\d+(?:\.\d+)?(?:e[+-]?\d+)?"


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory, python: list[str]) -> Path:
    """The bundle that ``python examples/own_policy.py`` makes."""
    place = tmp_path_factory.mktemp("own")
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([*python, str(OWN_POLICY)], cwd=place, env=env, check=True, capture_output=True)
    return place / "demo" / "reach"


def refused(ran: Ran, message: str) -> None:
    """An error: exit 2, one line on stderr, nothing on stdout."""
    assert (ran.code, ran.out, ran.err) == (2, "", f"reflex: error: {message}\n")


def shown_worst(text: str) -> tuple[int, str, float, float]:
    """Fixture, element and both values, as the verdict shows them."""
    found = re.search(
        rf"^Worst element: fixture (\d+), (actions\[0, \d+, \d+\]) \(float32, 1x4x8\)\n"
        rf"  reference     ({FLOAT})\n  candidate     ({FLOAT})\n",
        text,
        re.MULTILINE,
    )
    assert found, text
    return int(found[1]), found[2], float(found[3]), float(found[4])


# --- pass -------------------------------------------------------------------------------------------


def test_export_writes_a_bundle_and_gives_its_verdict_as_json_alone(exported: Exported, bundle: Path) -> None:
    document = parsed(exported.ran)
    assert (exported.ran.code, exported.ran.err) == (0, "")
    assert (document["passed"], document["exit_code"]) == (True, 0)
    (session,) = document["sessions"]
    assert session["started"].endswith("Z")
    assert session["seconds"] > 0
    (result,) = document["results"]
    assert result["name"] == str(bundle)
    assert [f["fixture_idx"] for f in result["fixtures"]] == [0, 1, 2]
    assert sorted(digests(bundle)) == [
        "fixtures.safetensors", "model.onnx", "model.onnx.data", "reflex.json",
    ]  # fmt: skip


def test_a_good_bundle_passes(reflex: Reflex, bundle: Path, checkpoint: Path) -> None:
    ran = reflex("validate", "export", bundle, "--model", checkpoint, "--fixtures", 3, "--strict")
    # Piped, so there is no progress bar.
    assert (ran.code, ran.err) == (0, "")
    lines = ran.out.splitlines()
    assert re.fullmatch(rf"parity PASS: max_abs_diff {FLOAT} is below 1.0e-05 \(3 fixtures\)", lines[0])
    assert lines[2:4] == [
        "Per-fixture results",
        "fixture_idx  max_abs_diff  mean_abs_diff        cos  passed  gate",
    ]
    assert [line.split()[0::4] for line in lines[4:7]] == [["0", "yes"], ["1", "yes"], ["2", "yes"]]
    assert lines[-4] == "Summary"
    assert re.fullmatch(rf"  max_abs_diff_across_all  {FLOAT}", lines[-3])
    assert lines[-2:] == ["  threshold                1.0e-05 (strict)", "  passed                   yes"]


def test_recorded_fixtures_judge_without_torch(reflex: Reflex, bundle: Path, tmp_path: Path) -> None:
    for name in ("torch", "transformers", "onnx", "onnx_ir", "onnxscript"):
        (tmp_path / f"{name}.py").write_text(f"raise ImportError('{name} is not installed here')\n")
    env = {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    blocked = subprocess.run(
        [sys.executable, "-c", "import torch"], env={**os.environ, **env}, capture_output=True, check=False
    )
    assert b"torch is not installed here" in blocked.stderr
    ran = reflex("validate", "export", bundle, "--model", bundle / "fixtures.safetensors", env=env)
    assert (ran.code, ran.err) == (0, "")
    assert f"Reference: recorded {bundle}/fixtures.safetensors" in " ".join(ran.out.split())


def test_a_module_s_bundle_is_judged_by_file_and_by_module_name(
    own: Path, reflex: Reflex, tmp_path: Path
) -> None:
    by_file = reflex("validate", "export", own, "--model", f"{OWN_POLICY}:policy", cwd=tmp_path)
    assert (by_file.code, by_file.err) == (0, "")
    assert "Reference: torch own_policy.Reach\n" in by_file.out
    by_name = reflex("validate", "export", own, "--model", "examples.own_policy:policy", cwd=ROOT)
    assert (by_name.code, by_name.err) == (0, "")
    assert "Reference: torch examples.own_policy.Reach\n" in by_name.out


def test_what_a_policy_prints_stays_out_of_the_json(own: Path, reflex: Reflex, tmp_path: Path) -> None:
    loud = tmp_path / "loud.py"
    loud.write_text("from examples.own_policy import policy\n\nprint('a word from the policy')\n")
    ran = reflex("validate", "export", own, "--model", f"{loud}:policy", "--output-json")
    assert ran.code == 0
    assert parsed(ran)["passed"] is True
    assert ran.err == "a word from the policy\n"


@pytest.mark.parametrize(
    ("flags", "passed", "seen"),
    [
        ((), True, False),
        (("--trajectory",), True, True),
        (("--threshold", "1e-30"), False, True),
        (("--threshold", "1e-30", "--no-trajectory"), False, False),
    ],
)
def test_the_steps_of_a_fail_are_shown_and_of_a_pass_where_asked(
    flags: tuple[str, ...], passed: bool, seen: bool, own: Path, here: Reflex
) -> None:
    ran = here("validate", "export", own, "--model", f"{OWN_POLICY}:policy", "--output-json", *flags)
    (result,) = parsed(ran)["results"]
    assert (result["passed"], bool(result["steps"]), bool(result["unseen"])) == (passed, seen, not seen)


def test_a_progress_bar_is_drawn_on_a_terminal_and_leaves_stdout_alone(
    bundle: Path, checkpoint: Path
) -> None:
    terminal, side = pty.openpty()
    command = [sys.executable, "-m", "pytest_reflex", "validate", "export", str(bundle)]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm-256color"}
    for name in ("NO_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        env.pop(name, None)
    process = subprocess.Popen(
        [*command, "--model", str(checkpoint), "--fixtures", "3", "--output-json"],
        stdout=subprocess.PIPE,
        stderr=side,
        env=env,
    )
    os.close(side)
    drawn = b""
    # Reading ends with an error once the other side is closed.
    try:
        while chunk := os.read(terminal, 1 << 16):
            drawn += chunk
    except OSError:
        pass
    finally:
        os.close(terminal)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert b"digests" in drawn
    assert b"1/1" in drawn
    assert b"left" in drawn
    assert parsed(Ran(0, out.decode(), ""))["passed"] is True


# --- fail -------------------------------------------------------------------------------------------


def test_a_changed_weight_of_the_bundle_fails_with_the_element_that_shows_it(
    copied: Path, reflex: Reflex
) -> None:
    before, after = add_to_weight(copied, LAST_WEIGHT, 1e-2)
    assert ulps(after - before, 1e-2, scale=max(abs(before), abs(after))) <= 1
    recorded = copied / "fixtures.safetensors"
    ran = reflex("validate", "export", copied, "--model", recorded)
    assert (ran.code, ran.err) == (1, "")
    fixture, element, reference, candidate = shown_worst(ran.out)
    assert re.fullmatch(
        rf"parity FAIL: max_abs_diff {FLOAT} is not below 1.0e-04 "
        rf"\(\d of 3 fixtures fails?; worst: fixture {fixture}, {re.escape(element)}\)",
        ran.out.splitlines()[0],
    )
    assert abs(reference - candidate) >= THRESHOLD
    assert f"intact: {copied}/model.onnx.data was changed after its check" in " ".join(ran.out.split())
    assert ran.out.endswith("  passed                   NO\n")

    as_json = reflex("validate", "export", copied, "--model", recorded, "--output-json")
    document = parsed(as_json)
    assert (as_json.code, as_json.err) == (1, "")
    assert (document["passed"], document["exit_code"]) == (False, 1)
    (result,) = document["results"]
    difference = result["fixtures"][fixture]["outputs"][0]["difference"]
    assert element == "actions[" + ", ".join(map(str, difference["worst_index"])) + "]"
    assert (difference["worst_reference"], difference["worst_candidate"]) == (reference, candidate)


def test_a_change_too_small_for_the_threshold_is_plainby_the_digest(copied: Path, reflex: Reflex) -> None:
    file, offset = weight_place(copied, LAST_WEIGHT)
    contents = bytearray(file.read_bytes())
    contents[offset] ^= 1  # the last bit of one float32
    file.write_bytes(contents)
    ran = reflex("validate", "export", copied, "--model", copied / "fixtures.safetensors")
    assert (ran.code, ran.err) == (1, "")
    assert ran.out.startswith(f"parity FAIL: intact: {copied}/model.onnx.data was changed after its check ")


def test_a_changed_weight_of_the_checkpoint_fails(
    bundle: Path, checkpoint: Path, tmp_path: Path, here: Reflex
) -> None:
    changed = _checkpoint(checkpoint, tmp_path, lambda weights: weights[PARAMETER].__iadd__(1e-2))
    ran = here("validate", "export", bundle, "--model", changed, "--fixtures", 3)
    assert (ran.code, ran.err) == (1, "")
    _, _, reference, candidate = shown_worst(ran.out)
    assert abs(reference - candidate) > 10 * THRESHOLD
    assert "(3 of 3 fixtures fail; worst: " in ran.out.splitlines()[0]


def test_a_provider_that_is_not_there_fails(bundle: Path, reflex: Reflex) -> None:
    ran = reflex(
        "validate", "export", bundle, "--model", bundle / "fixtures.safetensors", "--provider", "coreml"
    )
    assert (ran.code, ran.err) == (1, "")
    assert ran.out.startswith(
        "parity FAIL: fixture 0, provider: ran on CPUExecutionProvider, not on CoreMLExecutionProvider as "
        "asked (3 of 3 fixtures fail)\n"
    )


def test_an_export_that_misses_its_threshold_leaves_everything_as_it_was(
    checkpoint: Path, copied: Path, tmp_path: Path, here: Reflex
) -> None:
    before, inode = digests(copied), copied.stat().st_ino
    options = ["--cameras", 2, "--prompt-tokens", 8, "--fixtures", 1, "--threshold", "1e-12"]
    over = here("export", checkpoint, copied, *options)
    assert (over.code, over.err) == (1, "")
    assert re.match(rf"parity FAIL: max_abs_diff {FLOAT} is not below 1.0e-12 \(1 of 1 fixture ", over.out)
    assert "Bundle:" not in over.out
    assert (digests(copied), copied.stat().st_ino) == (before, inode)
    assert [path.name for path in tmp_path.iterdir()] == ["p0"]

    fresh = here("export", checkpoint, tmp_path / "fresh", *options, "--output-json")
    assert (fresh.code, parsed(fresh)["passed"], parsed(fresh)["exit_code"]) == (1, False, 1)
    assert [path.name for path in tmp_path.iterdir()] == ["p0"]


# --- error ------------------------------------------------------------------------------------------

VALIDATE = ["validate", "export", "p0", "--model", "p0/fixtures.safetensors"]
PROVIDERS = "cpu, cuda, tensorrt, rocm, migraphx, openvino, coreml, dml, qnn"
NO_THRESHOLD = "is not a threshold; give a finite number above 0, such as 1e-5, or 2x floor, or 0.01 deg"

MISTAKES = {
    "unknown command": (["judge"], "no such command 'judge'; see `reflex -h`"),
    "near command": (["exprt"], "no such command 'exprt' (did you mean 'export'?); see `reflex -h`"),
    "no candidate": (
        ["validate", "outt", *VALIDATE[3:]],
        "'outt' is no command, no .onnx file and no directory of a bundle; see `reflex validate -h`",
    ),
    "near option of export": (
        ["export", "a", "b", "--treshold", "1"],
        "no such option '--treshold' (did you mean '--threshold'?); see `reflex export -h`",
    ),
    "a script without a name": (
        ["export", "conftest.py", "b"],
        "MODEL is 'conftest.py'; give module:name or file.py:name",
    ),
    "near option": (
        [*VALIDATE, "--treshold"],
        "no such option '--treshold' (did you mean '--threshold'?); see `reflex validate export -h`",
    ),
    "option of others": (
        [*VALIDATE, "--atol"],
        "no such option '--atol' (did you mean '--threshold'?); see `reflex validate export -h`",
    ),
    "unknown option": ([*VALIDATE, "--hurry"], "no such option '--hurry'; see `reflex validate export -h`"),
    "no model": (
        VALIDATE[:3],
        "give --model, the policy, or --reference, a graph that is to be the judge; or judge it by its own "
        "recording, --model p0/fixtures.safetensors; see `reflex validate export -h`",
    ),
    "no bundle named": (VALIDATE[:2], "missing argument 'DIR'; see `reflex validate export -h`"),
    **{
        f"threshold {value}": ([*VALIDATE, f"--threshold={value}"], f"--threshold: '{value}' {NO_THRESHOLD}")
        for value in ("tiny", "nan", "inf", "-1e-4", "0")
    },
    "provider": (
        [*VALIDATE, "--provider", "warp"],
        f"--provider: 'warp' is not an execution provider; give one of {PROVIDERS} "
        "(or ONNX Runtime's full name, such as CPUExecutionProvider)",
    ),
    "fixtures": (
        [*VALIDATE, "--fixtures", "0"],
        "--fixtures: '0' is not a number of fixtures; give a whole number, 1 or more",
    ),
    "seed": ([*VALIDATE, "--seed", "-1"], "--seed: '-1' is not a seed; give a whole number, 0 or more"),
    "no such bundle": (
        ["validate", "export", "p1", "--model", "p0/fixtures.safetensors"],
        "no bundle at p1: expected a directory that holds reflex.json",
    ),
    "a bundle beside another": (
        ["validate", "p00", "--model", "p0/fixtures.safetensors"],
        "'p00' is no command (did you mean 'p0'?), no .onnx file and no directory of a bundle; see "
        "`reflex validate -h`",
    ),
    "a report that is none": (
        ["report", "p0/reflex.jsn"],
        "p0/reflex.jsn: cannot be read (No such file or directory) (did you mean 'p0/reflex.json'?); give a "
        "parity.json",
    ),
    "no such recording": (
        [*VALIDATE[:4], "none.safetensors"],
        "none.safetensors cannot be read as a recording: it does not exist; give the path of a recording",
    ),
    "model is no checkpoint": (
        [*VALIDATE[:4], "p0/model.onnx"],
        "p0/model.onnx is a file; expected a checkpoint directory or a hub id such as lerobot/pi0_base",
    ),
    "no such model": (
        [*VALIDATE[:4], "none"],
        "no checkpoint directory 'none', and it is no hub id (owner/name)",
    ),
    "no such hub id": (
        [*VALIDATE[:4], "nobody/nothing"],
        "no directory 'nobody/nothing', and as a hub id it is neither in the local hub cache nor can the hub "
        "be reached; fetch it where there is network (`hf download nobody/nothing`) or give a directory",
    ),
    "export of nothing": (
        ["export", "none", "out"],
        "no checkpoint directory 'none', and it is no hub id (owner/name)",
    ),
    "export of a bundle": (
        ["export", "p0", "out"],
        "p0 is a bundle, and no checkpoint directory; give the policy that it was made from",
    ),
}


@pytest.mark.parametrize(("arguments", "message"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_one_line_and_exit_2(
    arguments: list[str], message: str, bundle: Path, reflex: Reflex
) -> None:
    refused(reflex(*arguments, cwd=bundle.parent), message)


def _truncated(name: str) -> Callable[[Path], None]:
    return lambda bundle: os.truncate(bundle / name, 1000)


DAMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "graph missing": (
        lambda bundle: (bundle / "model.onnx").unlink(),
        "p0/model.onnx is missing; export the bundle again",
    ),
    "weights missing": (
        lambda bundle: (bundle / "model.onnx.data").unlink(),
        "p0/model.onnx.data is missing; export the bundle again",
    ),
    "weights truncated": (
        _truncated("model.onnx.data"),
        "p0/model.onnx.data has 1000 bytes, its manifest says {model.onnx.data}: it is truncated or was "
        "written over; export the bundle again",
    ),
    "graph truncated": (
        _truncated("model.onnx"),
        "p0/model.onnx has 1000 bytes, its manifest says {model.onnx}: it is truncated or was written over; "
        "export the bundle again",
    ),
    "manifest missing": (
        lambda bundle: (bundle / "reflex.json").unlink(),
        "no reflex.json in p0: it is not a bundle; make one with `reflex export`",
    ),
    "manifest of something else": (
        lambda bundle: (bundle / "reflex.json").write_text("{}") and None,
        "p0/reflex.json is no bundle manifest: its format is not 'reflex-bundle'",
    ),
}


@pytest.mark.parametrize(("damage", "message"), DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_bundle_is_one_line_and_exit_2(
    damage: Callable[[Path], None], message: str, copied: Path, tmp_path: Path, reflex: Reflex, bundle: Path
) -> None:
    sizes = {path.name: path.stat().st_size for path in bundle.iterdir()}
    for name, size in sizes.items():
        message = message.replace("{" + name + "}", str(size))
    recording = bundle / "fixtures.safetensors"
    damage(copied)
    refused(reflex("validate", "export", "p0", "--model", recording, cwd=tmp_path), message)
    as_json = reflex("validate", "export", "p0", "--model", recording, "--output-json", cwd=tmp_path)
    error = {"type": "BundleError", "message": message}
    assert (as_json.code, as_json.err) == (2, f"reflex: error: {message}\n")
    assert parsed(as_json) == {
        "schema_version": SCHEMA_VERSION, "tool": "pytest-reflex", "version": __version__,
        "error": error, "exit_code": 2,
    }  # fmt: skip


def test_a_bundle_of_an_unknown_family_is_refused(copied: Path, checkpoint: Path, here: Reflex) -> None:
    from exporters.bundle.manifest import seal

    file = copied / "reflex.json"
    manifest = {**json.loads(file.read_text()), "family": "pi99"}
    file.write_text(json.dumps({**manifest, "sha256": seal(manifest)}))
    refused(
        here("validate", "export", copied, "--model", checkpoint),
        f"{copied} was made from a 'pi99' policy, which this version does not know ({', '.join(FAMILIES)}); "
        "judge it with the version that made it",
    )


def _checkpoint(source: Path, place: Path, change: Callable[[dict], object]) -> Path:
    """A copy of a checkpoint with its weights changed."""
    from safetensors.numpy import load_file, save_file

    made = Path(shutil.copytree(source, place / "changed"))
    weights = load_file(made / "model.safetensors")
    change(weights)
    save_file(weights, made / "model.safetensors", metadata={"format": "pt"})
    return made


MISFITS: dict[str, tuple[Callable[[dict], object], str]] = {
    "missing key": (
        lambda weights: weights.pop(PARAMETER),
        "checkpoint {} does not fit its model: it lacks 'action_out_proj.bias'",
    ),
    "unexpected key": (
        lambda weights: weights.update({"stray.weight": weights[PARAMETER].copy()}),
        "checkpoint {} does not fit its model: it has unknown 'stray.weight'",
    ),
    "renamed key": (
        lambda weights: weights.update({"action_out_proj.bais": weights.pop(PARAMETER)}),
        "checkpoint {} does not fit its model: it lacks 'action_out_proj.bias' (nearest: "
        "'action_out_proj.bais'); it has unknown 'action_out_proj.bais' (nearest: 'action_out_proj.bias')",
    ),
    "wrong shape": (
        lambda weights: weights.update({PARAMETER: weights[PARAMETER][:3].copy()}),
        "{}: action_out_proj.bias is [3] there, the model has [8]",
    ),
}


@pytest.mark.parametrize(("change", "message"), MISFITS.values(), ids=MISFITS)
def test_a_checkpoint_that_does_not_fit_is_one_line_and_exit_2(
    change: Callable[[dict], object],
    message: str,
    checkpoint: Path,
    bundle: Path,
    tmp_path: Path,
    here: Reflex,
) -> None:
    changed = _checkpoint(checkpoint, tmp_path, change)
    refused(here("validate", "export", bundle, "--model", changed), message.replace("{}", str(changed)))


def test_pickled_weights_are_plainunread(
    checkpoint: Path, bundle: Path, tmp_path: Path, here: Reflex
) -> None:
    pickled = Path(shutil.copytree(checkpoint, tmp_path / "pickled"))
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    refused(
        here("validate", "export", bundle, "--model", pickled),
        f"{pickled} holds pickled weights (pytorch_model.bin), which run code when they are loaded; "
        "convert them to safetensors",
    )


def test_an_unknown_layout_is_refused(checkpoint: Path, tmp_path: Path, here: Reflex) -> None:
    refused(
        here("export", checkpoint, tmp_path / "out", "--layout", "zigzag"),
        "invalid value for '--layout': 'zigzag' is not one of 'unrolled', 'loop', 'stepwise'; "
        "see `reflex export -h`",
    )
    assert list(tmp_path.iterdir()) == []


def test_an_export_in_another_precision(checkpoint: Path, tmp_path: Path, here: Reflex) -> None:
    refused(
        here("export", checkpoint, tmp_path / "out", "--precision", "int4"),
        "invalid value for '--precision': 'int4' is not one of 'float32', 'float16', 'bfloat16', 'int8', "
        "'int8-dynamic'; see `reflex export -h`",
    )
    options = ["--cameras", 2, "--prompt-tokens", 8, "--fixtures", 1, "--precision", "float16"]
    plain = here("export", checkpoint, tmp_path / "out", *options, "--threshold", 1e-4)
    assert (plain.code, list(tmp_path.iterdir())) == (1, [])
    # Without a number it is held to twice the floor of its own precision.
    made = here("export", checkpoint, tmp_path / "out", *options)
    assert (made.code, made.err) == (0, "")
    assert "2x floor" in made.out.splitlines()[0]
    manifest = json.loads((tmp_path / "out" / "reflex.json").read_text())
    assert manifest["precision"] == {"name": "float16"}


@pytest.mark.parametrize("what", ["a directory", "a file"])
def test_export_replaces_nothing_but_a_bundle(
    what: str, checkpoint: Path, tmp_path: Path, here: Reflex
) -> None:
    taken = tmp_path / "taken"
    kept = taken if what == "a file" else taken / "notes.txt"
    kept.parent.mkdir(exist_ok=True)
    kept.write_text("years of notes")
    refused(
        here("export", checkpoint, taken),
        f"{taken} exists and is no bundle: it will not be replaced; give another directory",
    )
    assert kept.read_text() == "years of notes"
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "{file}",
            "--model is '{file}', a Python file; say what in it: {file}:NAME",
        ),
        ("{file}:arm", "--model is '{file}:arm', and {file} has no 'arm'"),
        (
            "none/policy.py:policy",
            "--model is 'none/policy.py:policy', and there is no file none/policy.py",
        ),
        (
            "no_module:policy",
            "--model is 'no_module:policy', and no_module cannot be imported: "
            "ModuleNotFoundError: No module named 'no_module'; the recording needs no policy: "
            "--model {own}/fixtures.safetensors judges by it",
        ),
    ],
)
def test_a_module_that_cannot_be_had_is_one_line_and_exit_2(
    name: str, message: str, own: Path, here: Reflex
) -> None:
    name, message = (
        text.replace("{file}", str(OWN_POLICY)).replace("{own}", str(own)) for text in (name, message)
    )
    refused(here("validate", "export", own, "--model", name), message)


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        (["judge", "--output-json"], "NoSuchCommand", "no such command 'judge'; see `reflex -h`"),
        (
            [*VALIDATE, "--output-json", "--threshold", "nan"],
            "SettingsError",
            f"--threshold: 'nan' {NO_THRESHOLD}",
        ),
    ],
)
def test_a_mistake_is_json_too(
    arguments: list[str], kind: str, message: str, bundle: Path, reflex: Reflex
) -> None:
    ran = reflex(*arguments, cwd=bundle.parent)
    document = parsed(ran)
    assert (ran.code, ran.err) == (2, f"reflex: error: {message}\n")
    assert document["exit_code"] == 2
    assert document["error"]["message"] == message
    # click names an unknown command by a class of its own from 8.4 on.
    assert document["error"]["type"] in {kind, "UsageError"}


# --- help -------------------------------------------------------------------------------------------


def test_version(reflex: Reflex) -> None:
    assert reflex("--version") == Ran(0, f"pytest-reflex, version {__version__}\n", "")


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_is_no_error(flag: str, reflex: Reflex) -> None:
    ran = reflex(flag)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith("Usage: reflex [OPTIONS] COMMAND [ARGS]...\n")
    assert "Exits 0 on a pass, 1 on a fail, 2 when no verdict could be reached." in ran.out


@pytest.mark.parametrize(
    ("group", "names"),
    [
        (
            [],
            [
                "certify",
                "doctor",
                "export",
                "init",
                "locate",
                "matrix",
                "repair",
                "report",
                "rollout",
                "serve",
                "validate",
            ],
        ),
        (["validate"], ["export", "onnx", "serve"]),
    ],
)
def test_no_command_is_an_error_that_shows_the_commands(
    group: list[str], names: list[str], reflex: Reflex
) -> None:
    ran = reflex(*group)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith(f"Usage: {' '.join(['reflex', *group])} [OPTIONS] COMMAND [ARGS]...\n")
    listed = ran.err.partition("Commands:\n")[2]
    assert re.findall(r"^  (\w+)", listed, re.MULTILINE) == names


def test_a_recording_takes_no_fixtures_of_anyone_elses(bundle: Path, here: Reflex) -> None:
    for option, own in (("--fixtures", "fixtures"), ("--seed", "fixtures"), ("--steps", "steps")):
        refused(
            here("validate", "export", bundle, "--model", bundle / "fixtures.safetensors", option, "2"),
            f"{option} was given, and a recording brings its own {own}; see `reflex validate export -h`",
        )


def test_an_option_of_another_family_is_plainbefore_any_work(
    checkpoint: Path, tmp_path: Path, here: Reflex
) -> None:
    ran = here("export", checkpoint, tmp_path / "p0", "--tokens", "5")
    refused(ran, "--tokens was given, and pi0 has no such choice; see `reflex export -h`")
    assert not (tmp_path / "p0").exists()


def test_what_no_loop_heeds_is_refused(tmp_path: Path, here: Reflex) -> None:
    (tmp_path / "grasp.py").write_text(
        "import torch\nfrom pytest_reflex import InputSpec\n"
        "INPUTS = [InputSpec('input', (1, 2))]\npolicy = torch.nn.Linear(2, 2)\n"
    )
    own = f"{tmp_path / 'grasp.py'}:policy"
    for option, value, said in (("--steps", "4", "steps is 4"), ("--layout", "loop", "layout is 'loop'")):
        refused(
            here("export", own, tmp_path / "c1", option, value),
            f"{said}, and Linear has no loop; leave it out, or give the two halves of its loop as flow=",
        )
    refused(
        here("export", own, tmp_path / "c4.onnx"),
        f"{tmp_path / 'c4.onnx'} is the name of a file, and a bundle is a directory; give {tmp_path / 'c4'}, "
        "whose graph is then model.onnx in it",
    )


def test_a_matrix_asks_the_runtimes_that_are_installed(
    checkpoint: Path, bundle: Path, here: Reflex, monkeypatch: pytest.MonkeyPatch
) -> None:
    from importlib.util import find_spec

    monkeypatch.setattr(
        "pytest_reflex.runners.runtimes.find_spec",
        lambda name: None if name == "openvino" else find_spec(name),
    )
    ran = here("matrix", bundle, "--model", checkpoint, "--fixtures", "2")
    assert ran.code == 0, ran.out + ran.err
    assert "passes on 1 of 1 runtimes" in " ".join(ran.out.split())
    assert ran.err.endswith(
        "reflex: openvino is not installed and was left out; pip install 'pytest-reflex[openvino]', or say "
        "which by --runtimes\n"
    )


def test_a_matrix_of_a_plain_file(tmp_path: Path, here: Reflex) -> None:
    script = tmp_path / "grasp.py"
    script.write_text(
        "import torch\nfrom pytest_reflex import InputSpec\n\n\ntorch.manual_seed(0)\n"
        "INPUTS = [InputSpec('input', (1, 2))]\npolicy = torch.nn.Linear(2, 2)\n"
        "other = torch.nn.Linear(2, 2)\n"
    )
    own = f"{script}:policy"
    assert here("export", own, tmp_path / "grasp", "--fixtures", "2").code == 0
    file = tmp_path / "grasp" / "model.onnx"
    given = ("matrix", file, "--runtimes", "ort,evaluator", "--model")
    ran = here(*given, own, "--report", tmp_path / "page")
    assert (ran.code, ran.err) == (0, "")
    assert "passes on 2 of 2 runtimes" in " ".join(ran.out.split())
    assert ran.out.endswith(f"\n\nInputs: those of {script}:INPUTS; --inputs names others\n")
    assert {
        one["name"] for one in json.loads((tmp_path / "page" / "parity.json").read_text())["results"]
    } == {
        f"{file} [onnxruntime]",
        f"{file} [evaluator]",
    }
    assert here(*given, f"{script}:other", "--inputs", f"{script}:INPUTS").code == 1
    refused(
        here(*given, own, "--steps", "4"),
        "--steps was given, and a plain file says nothing of steps; leave it out; see `reflex matrix -h`",
    )
    refused(
        here("matrix", tmp_path / "grasp", "--model", own, "--inputs", f"{script}:INPUTS"),
        "--inputs was given, and a bundle says itself what it reads; leave it out; see `reflex matrix -h`",
    )
    refused(
        here("matrix", file.with_name("modle.onnx"), "--model", own),
        f"{tmp_path}/grasp/modle.onnx does not exist (did you mean '{file}'?); give a bundle, or a graph",
    )


def test_an_export_without_a_verdict_is_no_pass(
    checkpoint: Path, tmp_path: Path, here: Reflex, monkeypatch: pytest.MonkeyPatch
) -> None:
    from exporters import pi0

    monkeypatch.setattr(pi0.FAMILY, "load", lambda model: mock.Mock())
    monkeypatch.setattr(
        pi0.FAMILY,
        "export",
        lambda policy, out, *, dynamic_batch, progress, **given: SimpleNamespace(result=None),
    )
    refused(here("export", checkpoint, tmp_path / "p0"), f"{tmp_path}/p0 was written without a verdict")


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("it\nbroke \x1b[2J")])
@pytest.mark.parametrize("as_json", [False, True])
def test_what_breaks_or_stops_the_command_is_no_verdict(
    error: BaseException,
    as_json: bool,
    bundle: Path,
    here: Reflex,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("exporters.bundles.open_bundle", broken)
    ran = here("validate", "export", bundle, "--model", "nowhere", *["--output-json"] * as_json)
    said = (
        "interrupted; nothing was written"
        if isinstance(error, KeyboardInterrupt)
        else "internal error: RuntimeError: it broke \\x1b[2J"
    )
    assert ran.code == 2
    assert ran.err.splitlines()[-1] == f"reflex: error: {said}"
    # A fault of the program shows where; whoever interrupts it knows.
    assert ("Traceback" in ran.err) is isinstance(error, RuntimeError)
    assert json.loads(ran.out)["exit_code"] == 2 if as_json else not ran.out


def test_a_reason_without_end_is_cut(bundle: Path, tmp_path: Path, here: Reflex) -> None:
    long = tmp_path / ("x" * 9000)
    for place, model in ((long, "nowhere"), (bundle, long), (bundle, f"{long}.safetensors")):
        ran = here("validate", "export", place, "--model", model)
        assert ran.code == 2
        assert len(ran.err.splitlines()) == 1
        assert 4000 < len(ran.err) < 4100
        assert re.search(r"\.\.\. \(\d+ characters\)$", ran.err)


def test_a_github_job_is_told_what_is_wrong(
    copied: Path, tmp_path: Path, here: Reflex, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path))
    add_to_weight(copied, LAST_WEIGHT, 1e-2)
    ran = here("validate", "export", copied, "--model", copied / "fixtures.safetensors")
    assert ran.code == 1
    first, second = ran.err.splitlines()
    assert first == f"reflex: warning: {tmp_path}: the job summary could not be written (Is a directory)"
    assert second.startswith("::error title=reflex::parity FAIL: max_abs_diff")
    (copied / "reflex.json").unlink()
    ran = here("validate", "export", copied, "--model", copied / "fixtures.safetensors")
    assert ran.code == 2
    assert "::error title=reflex::no reflex.json in" in ran.err


def test_locate_finds_nothing_in_a_clean_bundle(bundle: Path, checkpoint: Path, reflex: Reflex) -> None:
    repro = bundle.parent / "repro"
    ran = reflex("locate", bundle, "--model", checkpoint, "--fixture", 1, "--repro", repro)
    assert ran.code == 0, ran.err
    assert ran.out.startswith("Where: rounding: nothing is further from PyTorch than float32 explains")
    assert "Growth of the error" in ran.out
    said = f"Reproduction: none, for no node is wrong by itself; {repro} was not written\n"
    assert ran.out.endswith(said)
    assert not repro.exists()


def test_locate_takes_a_fixture_by_its_name_in_a_report(
    bundle: Path, checkpoint: Path, reflex: Reflex
) -> None:
    given = ("locate", bundle, "--model", checkpoint, "--fixture")
    for named, fixture_idx in (("corner 2", FIRST_MADE + 2), ("corner2", FIRST_MADE + 2)):
        assert json.loads(reflex(*given, named, "--output-json").out)["fixture_idx"] == fixture_idx
    for said in ("last", "-1", "corner", "1.5", ""):
        ran = reflex(*given, said)
        assert (ran.code, ran.out) == (2, "")
        assert ran.err == (
            f"reflex: error: invalid value for '--fixture': {said!r} is no fixture; give its number, or "
            "corner 0 as a report has it; see `reflex locate -h`\n"
        )


def test_locate_names_a_changed_weight_and_writes_a_reproduction(
    copied: Path, checkpoint: Path, tmp_path: Path, reflex: Reflex
) -> None:
    add_to_weight(copied, LAST_WEIGHT, 1e-2)
    ran = reflex("locate", copied, "--model", checkpoint, "--repro", tmp_path / "repro", "--output-json")
    assert ran.code == 1, ran.err
    found = json.loads(ran.out)
    assert found["cause"] == "graph"
    assert found["place"]["module"] == LAST_WEIGHT.removesuffix(".weight.T")
    assert found["place"]["step"] == 0
    assert (tmp_path / "repro" / "repro.py").is_file()
    again = reflex("locate", copied, "--model", checkpoint, "--repro", tmp_path / "repro")
    assert again.code == 2
    assert "is there and not empty" in again.err
