"""Where torch is not installed, what needs it says so, and what does not works."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = pytest.mark.once


def without(*packages: str, code: str) -> subprocess.CompletedProcess[str]:
    blocked = "\n".join(f"sys.modules[{name!r}] = None" for name in packages)
    return subprocess.run(
        [sys.executable, "-c", f"import sys\n{blocked}\n{code}"], capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("name", ["pi0", "FlowPolicy", "export"])
def test_a_maker_names_what_is_missing_and_how_to_get_it(name: str) -> None:
    code = f"""
try:
    from exporters import {name}
except ImportError as error:
    print(type(error).__name__, error)
"""
    done = without("torch", code=code)
    assert done.stdout.startswith("MissingPackageError exporters."), done.stderr
    assert "needs torch, which is not installed; pip install 'pytest-reflex[export]'" in done.stdout


def test_bundles_and_schedules_need_none_of_it() -> None:
    code = "from exporters import Bundle, EulerSchedule, Policy, open_bundle; print(EulerSchedule().dt(4))"
    done = without("torch", "transformers", "onnx", "onnx_ir", "onnxscript", "huggingface_hub", code=code)
    assert done.stdout == "-0.25\n", done.stderr


@pytest.mark.parametrize("command", ["locate", "repair"])
def test_a_command_that_a_robot_lacks_something_for_gives_one_line(command: str, tmp_path: Path) -> None:
    # Any bundle will do: this is said before it is opened.
    more = ["--budget", "1e-3"] if command == "repair" else []
    code = f"from pytest_reflex.cli import main; main({[command, str(tmp_path), '--model', 'x', *more]!r})"
    done = without("torch", "onnx", "onnx_ir", code=code)
    assert done.returncode == 2
    assert done.stderr.startswith("reflex: error: this needs "), done.stderr
    assert done.stderr.endswith(", which is not installed; pip install 'pytest-reflex[export]'\n")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("import torch", "{policy} cannot be imported: ModuleNotFoundError: import of torch halted; "),
        ("from exporters import FlowPolicy", "exporters.flow.policy needs torch, which is not installed; "),
        ("load = None", ""),
    ],
)
def test_a_policy_that_cannot_be_imported_leaves_the_recording(
    text: str, said: str, small: Callable[..., Path], tmp_path: Path
) -> None:
    policy, bundle = tmp_path / "policy.py", small()
    policy.write_text(text + "\n")
    recording = f"{bundle}/fixtures.safetensors"
    for command in (["validate", "export"], ["matrix"]):
        given = [*command, str(bundle), "--model", f"{policy}:load"]
        done = without("torch", code=f"from pytest_reflex.cli import main; main({given!r})")
        assert done.returncode == 2
        assert done.stderr.startswith(
            f"reflex: error: --model is '{policy}:load', and {said.format(policy=policy)}"
        )
        assert done.stderr.endswith(f"; the recording needs no policy: --model {recording} judges by it\n")
        assert done.stderr.count("\n") == 1
    judged = ["validate", "export", str(bundle), "--model", recording]
    assert without("torch", code=f"from pytest_reflex.cli import main; main({judged!r})").returncode == 0


def test_the_command_gives_one_line() -> None:
    code = "from pytest_reflex.cli import main; main(['export', 'somebody/policy', 'out'])"
    done = without("huggingface_hub", code=code)
    assert done.returncode == 2
    assert done.stderr == (
        "reflex: error: no checkpoint directory 'somebody/policy', and a hub id needs huggingface_hub, "
        "which is not installed; pip install 'pytest-reflex[export]'\n"
    )
