"""GR00T end to end: four steps over the wire are the local policy's bits, and PyTorch's actions."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("lerobot", reason="GR00T's action head needs lerobot (Python 3.12 or later)")
pytestmark = pytest.mark.lerobot

from bundle_cases import Reflex  # noqa: E402
from floors import require_rounding  # noqa: E402
from serve_cases import same_bits, serving  # noqa: E402
from test_openpi import VERSION, _installed, asked  # noqa: E402
from tiny_groot import GOLDEN, config, weights, write_checkpoint  # noqa: E402

from exporters import Policy, groot, open_bundle  # noqa: E402
from pytest_reflex.inputs import make_fixture  # noqa: E402
from pytest_reflex.report.json.results import result_from_json  # noqa: E402
from pytest_reflex.runners import ServedRunner  # noqa: E402


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return groot.export(groot.load(GOLDEN), tmp_path_factory.mktemp("g") / "g", strict=True).path


def test_four_steps_over_the_wire_are_judged_as_the_bundle_is(
    bundle: Path, reflex: Reflex, tmp_path: Path
) -> None:
    with serving(bundle) as running:
        ran = reflex(
            "validate",
            "serve",
            running.url,
            "--model",
            GOLDEN,
            "--strict",
            "--floor",
            "--fixtures",
            8,
            "--output-json",
        )
        assert (ran.code, running.stop()) == (0, (0, "")), ran.err
        result = json.loads(ran.out)["results"][0]
    require_rounding(result_from_json(result))
    assert len(result["fixtures"]) == 8
    # Other weights are another policy, and fail.
    other = {name: value * 1.05 if "proj_out_2" in name else value for name, value in weights().items()}
    with serving(bundle) as running:
        model = write_checkpoint(tmp_path / "other", config(), other)
        assert reflex("validate", "serve", running.url, "--model", model).code == 1


def test_what_is_served_are_the_local_policy_s_bits(bundle: Path) -> None:
    opened = open_bundle(bundle)
    fixtures = [make_fixture(opened.inputs, 5, i) for i in range(4)]
    with serving(bundle) as running, ServedRunner(running.url) as served, Policy(opened) as local:
        for fixture in fixtures:
            assert same_bits(served.run(fixture)["actions"], local.run(fixture)["actions"])


@pytest.mark.skipif(_installed() != VERSION, reason=f"openpi-client {VERSION} is not installed; make openpi")
def test_openpi_s_own_client_gets_them(bundle: Path, tmp_path: Path) -> None:
    opened = open_bundle(bundle)
    fixtures = [make_fixture(opened.inputs, 6, i) for i in range(4)]
    for i, fixture in enumerate(fixtures):
        np.savez(tmp_path / f"in{i}.npz", **fixture)
    with serving(bundle) as running:
        # It ends with a state that does not fit, which is answered with an error, and a good one again.
        done = asked(running.port, tmp_path)
        assert done.returncode == 0, done.stderr
    assert "input 'state' is float64" in json.loads(done.stdout)["said"]
    with Policy(opened) as local:
        for i, fixture in enumerate(fixtures):
            with np.load(tmp_path / f"out{i}.npz") as reply:
                assert same_bits(reply["actions"], local.infer(fixture)["actions"])
