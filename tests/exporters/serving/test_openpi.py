"""openpi's own client, unmodified and from PyPI, against a real ``reflex serve``.

It wants numpy 1 and so lives in an environment of its own, which ``make openpi`` makes; REFLEX_OPENPI_PYTHON
names its interpreter.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from serve_cases import INPUTS, ROOT, around, same_bits, serving

from exporters import Policy, open_bundle
from exporters.flow.schedule import LAYOUTS
from pytest_reflex.inputs import make_fixture

PYTHON = Path(os.environ.get("REFLEX_OPENPI_PYTHON", ROOT / ".venv-openpi" / "bin" / "python"))
VERSION = "0.1.2"


def _installed() -> str:
    ask = "import importlib.metadata as m; print(m.version('openpi-client'))"
    try:
        found = subprocess.run([PYTHON, "-I", "-c", ask], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return found.stdout.strip()


pytestmark = pytest.mark.skipif(
    _installed() != VERSION, reason=f"openpi-client {VERSION} is not installed for {PYTHON}; make openpi"
)

# argv: port, API key, directory. Asks with every in*.npz there, writes out*.npz, and prints what it was told.
CLIENT = """
import json, pathlib, sys
import numpy as np
from openpi_client.websocket_client_policy import WebsocketClientPolicy

port, key, place = int(sys.argv[1]), sys.argv[2] or None, pathlib.Path(sys.argv[3])
policy = WebsocketClientPolicy(host="127.0.0.1", port=port, api_key=key)
metadata = policy.get_server_metadata()
policy.reset()
timings = []
for file in sorted(place.glob("in*.npz")):
    reply = policy.infer(dict(np.load(file)))
    timings.append(reply.pop("server_timing"))
    np.savez(place / file.name.replace("in", "out"), **reply)
try:
    policy.infer({**np.load(place / "in0.npz"), "state": np.zeros((1, 3))})
    said = ""
except RuntimeError as error:
    said = str(error)
again = policy.infer(dict(np.load(place / "in0.npz")))["actions"].shape
print(json.dumps({"metadata": metadata, "timings": timings, "said": said, "again": list(again)}))
"""


def asked(port: int, place: Path, key: str = "") -> subprocess.CompletedProcess[str]:
    # -I: nothing of this repository or its environment is on the client's path.
    command = [str(PYTHON), "-I", "-W", "ignore", "-c", CLIENT, str(port), key, str(place)]
    return subprocess.run(command, capture_output=True, text=True, env=around(), timeout=120, check=False)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_openpi_s_client_gets_the_local_policy_s_bits(
    layout: str, small: Callable[..., Path], tmp_path: Path
) -> None:
    bundle = small(layout)
    sent = [make_fixture(INPUTS, 21, i) for i in range(3)]
    for i, observation in enumerate(sent):
        np.savez(tmp_path / f"in{i}.npz", **observation)
    with serving(bundle) as running:
        done = asked(running.port, tmp_path)
        assert done.returncode == 0, done.stderr
        assert running.stop() == (0, "")
    told: dict[str, Any] = json.loads(done.stdout)
    assert told["metadata"]["server"] == "pytest-reflex"
    assert [spec["name"] for spec in told["metadata"]["manifest"]["inputs"]] == [s.name for s in INPUTS]
    assert [set(timing) for timing in told["timings"]] == [
        {"infer_ms"}, {"infer_ms", "prev_total_ms"}, {"infer_ms", "prev_total_ms"},
    ]  # fmt: skip
    assert told["said"].startswith("Error in inference server:\ninput 'state' is float64; it takes float32")
    assert told["again"] == [1, 5, 3]
    with Policy(open_bundle(bundle)) as local:
        for i, observation in enumerate(sent):
            with np.load(tmp_path / f"out{i}.npz") as reply:
                assert reply.files == ["actions"]
                assert same_bits(reply["actions"], local.infer(observation)["actions"])


def test_openpi_s_client_needs_the_key(small: Callable[..., Path], tmp_path: Path) -> None:
    np.savez(tmp_path / "in0.npz", **make_fixture(INPUTS, 0, 0))
    with serving("--api-key", "s3cret", small()) as running:
        for key in ("", "wrong"):
            done = asked(running.port, tmp_path, key)
            assert done.returncode == 1
            assert "server rejected WebSocket connection: HTTP 401" in done.stderr
        assert asked(running.port, tmp_path, "s3cret").returncode == 0


def test_the_documented_client_runs(small: Callable[..., Path]) -> None:
    page = (ROOT / "docs" / "howto" / "serve.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```text\n(import numpy.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert "port=8000" in code
    with serving(small()) as running:
        code = code.replace("port=8000", f"port={running.port}") + "\nprint(actions.shape)\n"
        done = subprocess.run(
            [str(PYTHON), "-I", "-W", "ignore", "-c", code], capture_output=True, text=True, env=around(),
            timeout=120, check=False,
        )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "(1, 5, 3)\n"), done.stderr
