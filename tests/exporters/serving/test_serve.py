"""``reflex serve`` and ``reflex validate serve``, each in a process of its own, over a real socket."""

from __future__ import annotations

import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgpack
import numpy as np
import pytest
from bundle_cases import Ran, Reflex, parsed
from serve_cases import INPUTS, ROOT, Serving, around, asked, client, made, same_bits, serving
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from exporters import Policy, open_bundle
from exporters.bundle.manifest import SEAL, seal
from exporters.flow.schedule import LAYOUTS
from exporters.serving.service import _proven_tolerances, prepared
from pytest_reflex import __version__
from pytest_reflex.errors import BundleError
from pytest_reflex.inputs import InputSpec, make_fixture
from pytest_reflex.runners import wire
from pytest_reflex.verdict import machine
from pytest_reflex.verdict.tolerances import THRESHOLD, Amount, Tolerances

pytestmark = pytest.mark.once

Small = Callable[..., Path]
FLOAT = r"-?\d+(?:\.\d+)?(?:e[+-]?\d+)?"
CASES = str(ROOT / "tests" / "support" / "serve_cases.py")


@pytest.fixture(scope="module")
def server(small: Small) -> Iterator[Serving]:
    with serving(small()) as running:
        yield running


@pytest.fixture
def run(reflex: Reflex) -> Reflex:
    def reached(*arguments: object, **more: str) -> Ran:
        return reflex(*arguments, env=around(**more))

    return reached


def refused(ran: Ran, said: str) -> None:
    """No verdict and no server: exit 2, one line on stderr, nothing on stdout."""
    assert (ran.code, ran.out) == (2, ""), ran.err
    assert re.fullmatch(rf"reflex: error: {said}\n", ran.err), ran.err


def still_good(running: Serving, bundle: Path) -> None:
    """A new client is answered with the local policy's bits."""
    observation = make_fixture(INPUTS, 11, 0)
    with client(running.url) as connection, Policy(open_bundle(bundle)) as local:
        assert same_bits(asked(connection, observation)["actions"], local.infer(observation)["actions"])


# --- serving ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_client_gets_the_local_policy_s_bits(layout: str, small: Small) -> None:
    bundle = small(layout)
    with (
        serving(bundle) as running,
        client(running.url) as connection,
        Policy(open_bundle(bundle)) as local,
    ):
        assert re.fullmatch(
            rf"parity PASS: max_abs_diff {FLOAT} is below 1.0e-04 \(3 fixtures\), as recorded at its export, "
            "on CPUExecutionProvider",
            running.proven,
        )
        assert running.line == f"serving {bundle} on ws://127.0.0.1:{running.port}"
        for fixture_idx in range(4):
            observation = make_fixture(INPUTS, 5, fixture_idx)
            reply = asked(connection, observation)
            assert list(reply) == ["actions", "server_timing"]
            assert same_bits(reply["actions"], local.infer(observation)["actions"])
            timed = {"infer_ms"} if fixture_idx == 0 else {"infer_ms", "prev_total_ms"}
            assert set(reply["server_timing"]) == timed
        assert running.stop() == (0, "")


def test_the_metadata_says_what_a_client_needs(server: Serving, small: Small) -> None:
    with connect(server.url, compression=None, proxy=None) as connection:
        message = connection.recv(timeout=30)
    assert isinstance(message, bytes)
    # Builtins only: any client can read it.
    told = msgpack.unpackb(message)
    manifest = told.pop("manifest")
    proven = told.pop("proven")
    assert told.pop("machine")["processor"] == machine.here()["processor"]
    assert told == {
        "server": "pytest-reflex",
        "version": __version__,
        "runtime": "onnxruntime",
        "provider_asked": "CPUExecutionProvider",
        "providers_used": ["CPUExecutionProvider"],
        "threshold": 1e-4,
    }
    assert proven["fixtures"] == 3
    assert 0 <= proven["max_abs_diff"] < THRESHOLD
    assert [InputSpec.from_json(spec) for spec in manifest["inputs"]] == INPUTS
    assert manifest["outputs"] == [{"name": "actions", "dtype": "float32", "shape": [1, 5, 3]}]
    assert (manifest["family"], manifest["layout"], manifest["steps"]) == ("module", "unrolled", 3)
    assert manifest["loop"]["noise"] == "noise"
    assert manifest["session"] == {"optimization": "basic"}
    assert re.fullmatch("[0-9a-f]{64}", manifest["digest"])


def test_a_wrong_message_is_answered_and_the_connection_stays(server: Serving, small: Small) -> None:
    good = make_fixture(INPUTS, 2, 0)
    wrong: list[tuple[Any, str]] = [
        ({**good, "state": good["state"].astype("f8")}, "input 'state' is float64; it takes float32"),
        ({**good, "state": good["state"][:, :2]}, "input 'state' has shape [1, 2]; it takes [1, 3]"),
        ({**good, "state": good["state"] * np.nan}, "input 'state' is nan at [0, 0]; every value must be"),
        ({k: v for k, v in good.items() if k != "image"}, "input 'image' is missing; this policy takes"),
        ({**good, "imgae": good["image"]}, "input 'imgae' is not known; this policy takes"),
        ({**good, "prompt": "pick it up"}, "input 'prompt' is a str; send it as an array"),
        (b"\xc1", "the message is not msgpack of maps, arrays and text"),
        (msgpack.packb([1, 2]), "the message is a list; send a map of named arrays"),
        (wire.encode(good)[:-1], "the message is not msgpack of maps, arrays and text"),
        ("pick it up", "the message is text; send a map of named arrays"),
    ]
    with client(server.url) as connection:
        for message, said in wrong:
            reply = asked(connection, message)
            assert isinstance(reply, str)
            assert reply.startswith(said)
            assert len(reply.splitlines()) == 1
            assert str(small()) not in reply
        assert asked(connection, good)["actions"].shape == (1, 5, 3)


def test_a_failure_while_running_is_logged_and_the_server_goes_on(small: Small, tmp_path: Path) -> None:
    good = make_fixture(INPUTS, 2, 0)
    # Its manifest says more tokens than the graph has.
    wide = Path(shutil.copytree(small(), tmp_path / "wide"))
    said = json.loads((wide / "reflex.json").read_text())
    (prompt,) = (spec["meaning"] for spec in said["inputs"] if spec["name"] == "prompt")
    prompt["vocab"] = 100
    said[SEAL] = seal(said)
    (wide / "reflex.json").write_text(json.dumps(said))
    with serving(wide) as running:
        with client(running.url) as connection:
            reply = asked(connection, {**good, "prompt": np.full((1, 4), 99)})
            assert reply == "the policy could not be run on this observation; the server's log says why"
            assert asked(connection, good)["actions"].shape == (1, 5, 3)
        code, said = running.stop()
    assert code == 0
    assert re.match(r"reflex serve: .*failed: .*\n\Z", said)


def test_a_message_that_is_too_large_costs_its_sender_the_connection(server: Serving, small: Small) -> None:
    with client(server.url) as connection, pytest.raises(ConnectionClosed) as closed:
        asked(connection, b"\0" * ((1 << 20) + 1))
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1009
    still_good(server, small())


def test_the_largest_message_can_be_told(small: Small) -> None:
    observation = make_fixture(INPUTS, 0, 0)
    size = len(wire.encode(observation))
    with serving("--max-size", size, small()) as running, client(running.url) as connection:
        assert asked(connection, observation)["actions"].size
        with pytest.raises(ConnectionClosed):
            asked(connection, {**observation, "more": 1})


def test_dropped_and_half_closed_connections_harm_nobody(server: Serving, small: Small) -> None:
    packed = wire.encode(make_fixture(INPUTS, 0, 0))
    for _ in range(5):
        with client(server.url) as connection:
            connection.send(packed)
            connection.socket.shutdown(socket.SHUT_WR)
    for rest in (b"", b"GET / HTTP/1.1\r\nHost: x\r\n", b"\0" * 100):
        with socket.create_connection(("127.0.0.1", server.port)) as raw:
            raw.sendall(rest)
    still_good(server, small())


def test_a_web_page_s_connection_is_refused(server: Serving) -> None:
    with pytest.raises(InvalidStatus) as refusal, client(server.url, origin="https://example.org"):
        pass
    assert refusal.value.response.status_code == 403


def test_more_clients_than_it_takes_are_told_to_wait(small: Small) -> None:
    from contextlib import ExitStack

    from exporters.serving.server import MAX_CLIENTS

    with serving(small()) as running, ExitStack() as all_of_them:
        for _ in range(MAX_CLIENTS):
            all_of_them.enter_context(client(running.url))
        with pytest.raises(InvalidStatus) as refusal, client(running.url):
            pass
        assert refusal.value.response.status_code == 503
        all_of_them.close()
        still_good(running, small())


def health(running: Serving) -> tuple[int, bytes]:
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with direct.open(f"http://127.0.0.1:{running.port}/healthz", timeout=30) as response:
        return response.status, response.read().strip()


def test_it_says_that_it_is_healthy(server: Serving) -> None:
    assert health(server) == (200, b"OK")


@pytest.mark.parametrize("by_environment", [False, True])
def test_with_a_key_only_who_has_it_is_served(by_environment: bool, small: Small, run: Reflex) -> None:
    arguments = [] if by_environment else ["--api-key", "s3cret"]
    more = {"REFLEX_API_KEY": "s3cret"} if by_environment else {}
    recording = small() / "fixtures.safetensors"
    with serving(*arguments, small(), **more) as running:
        for given in (None, "Api-Key wrong", "Api-Key ", "s3cret", "Bearer s3cret", "Api-Key s3cret2"):
            headers = {"Authorization": given} if given else None
            with pytest.raises(InvalidStatus) as refusal, client(running.url, additional_headers=headers):
                pass
            assert refusal.value.response.status_code == 401
        with client(running.url, additional_headers={"Authorization": "Api-Key s3cret"}) as connection:
            assert asked(connection, make_fixture(INPUTS, 0, 0))["actions"].size
        assert health(running) == (200, b"OK")
        validate = ["validate", "serve", running.url, "--model", recording]
        refused(run(*validate), ".* refused the connection: it asks for an API key, and this is not it; .*")
        assert run(*validate, "--api-key", "s3cret").code == 0
        assert run(*validate, REFLEX_API_KEY="s3cret").code == 0


@pytest.mark.parametrize("keyed", [False, True])
def test_to_be_open_to_others_without_a_key_is_warned_of(keyed: bool, small: Small) -> None:
    with serving("--host", "0.0.0.0", *(["--api-key", "k"] if keyed else []), small()) as running:
        code, said = running.stop()
    warning = (
        f"reflex: warning: ws://0.0.0.0:{running.port} is open to other machines and asks for no key; "
        "give --api-key\n"
    )
    assert (code, said) == (0, "" if keyed else warning)


# --- stopping ---------------------------------------------------------------------------------------

SLOW = """
import sys, time
from exporters.serving.server import Server, bound
class Slow:
    name, metadata = "slow", {}
    def answer(self, message, prev_total_ms=None, held=None):
        print("in flight", flush=True)
        time.sleep(0.6)
        return message
say = lambda line: print(line, flush=True)
Server(Slow(), bound("127.0.0.1", 0), proven="nothing", api_key=None, max_size=100).run(say)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_what_is_in_flight_is_answered_before_it_stops(number: int) -> None:
    with (
        serving(command=[sys.executable, "-c", SLOW]) as running,
        client(running.url) as busy,
        client(running.url) as idle,
    ):
        busy.send(b"in flight")
        assert running.process.stdout is not None
        assert running.process.stdout.readline() == "in flight\n"
        running.process.send_signal(number)
        with pytest.raises(ConnectionClosed) as closed:
            idle.recv(timeout=30)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1001
        with pytest.raises(OSError):
            socket.create_connection(("127.0.0.1", running.port), timeout=5)
        assert busy.recv(timeout=30) == b"in flight"
        with pytest.raises(ConnectionClosed) as closed:
            busy.recv(timeout=30)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1001
        assert running.stop(0) == (0, "")


def test_requests_of_one_client_are_answered_in_order() -> None:
    command = [sys.executable, "-c", SLOW.replace("0.6", "0.01 * (10 - message[0] % 10)")]
    with serving(command=command) as running, client(running.url) as connection:
        sent = [bytes([i]) for i in range(10)]
        for message in sent:
            connection.send(message)
        assert [connection.recv(timeout=30) for _ in sent] == sent


# --- not starting -----------------------------------------------------------------------------------


@pytest.fixture
def copy(small: Small, tmp_path: Path) -> Path:
    return Path(shutil.copytree(small(), tmp_path / "copy"))


def rewrite(bundle: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a manifest and seal it again, as whoever writes one would."""
    file = bundle / "reflex.json"
    manifest = json.loads(file.read_text())
    change(manifest)
    manifest[SEAL] = seal(manifest)
    file.write_text(json.dumps(manifest))


def test_a_changed_file_is_not_served(copy: Path, run: Reflex) -> None:
    contents = bytearray((copy / "model.onnx.data").read_bytes())
    contents[0] ^= 1
    (copy / "model.onnx.data").write_bytes(contents)
    refused(run("serve", copy, "--port", 0), ".*model.onnx.data was changed after its check .*")


@pytest.mark.parametrize(
    "change",
    [
        lambda manifest: manifest.pop("check"),
        lambda manifest: manifest.update(check=None),
        lambda manifest: manifest["check"].update(passed=False),
        lambda manifest: manifest["check"].update(passed="yes"),
    ],
    ids=["no verdict", "null", "failed", "no boolean"],
)
def test_what_was_not_proven_is_not_served(
    change: Callable[[dict[str, Any]], object], copy: Path, run: Reflex
) -> None:
    rewrite(copy, change)
    refused(
        run("serve", copy, "--port", 0),
        f"{copy} is not served: its manifest has no passed verdict; export it with its check",
    )


def test_a_threshold_that_lets_everything_pass_proves_nothing(copy: Path, run: Reflex) -> None:
    rewrite(copy, lambda manifest: manifest["check"]["asked"]["rest"].update(number=1e30))
    refused(
        run("serve", copy, "--port", 0),
        f"{copy} is not served: .*1.*threshold.*; export it again with `--threshold .*`, which it is below",
    )


def test_each_output_is_held_to_what_it_was_proven_with(copy: Path, small: Small) -> None:
    """One number for all would be too much for a small output, or too little for a large one."""

    def change(manifest: dict[str, Any]) -> None:
        check = manifest["check"]
        check.update(threshold=1e4)
        check["asked"].update(outputs={"logits": {"number": 1e4, "in_floors": False}}, rtol=1e-6)
        for fixture in check["fixtures"]:
            fixture["outputs"].append({"name": "logits", "bound": 1e4})
            fixture["outputs"][0]["bound"] = 1e-5 * (1 + fixture["fixture_idx"])

    rewrite(copy, change)
    found = _proven_tolerances(open_bundle(copy))
    assert found.outputs["logits"] == Amount(1e4)
    assert found.outputs["actions"] == Amount(1e-5 * 3)  # of its fixtures the largest
    assert (found.rest, found.rtol) == (Amount(1e-4), 1e-6)
    rewrite(copy, lambda manifest: manifest["check"].pop("asked"))  # of an older version
    assert _proven_tolerances(open_bundle(copy)) == Tolerances(Amount(1e4))


def test_a_bundle_that_was_proven_with_rtol_or_in_floors_is_served(tmp_path: Path) -> None:
    for number, options in enumerate(({"threshold": 1e-6, "rtol": 1e-4}, {"threshold": "3x floor"})):
        server = prepared(made(tmp_path / str(number), **options), port=0)
        server._socket.close()
        assert "parity PASS" in server.proven


def test_an_export_without_a_check_is_not_served(tmp_path: Path, run: Reflex) -> None:
    refused(run("serve", made(tmp_path / "p", verify=False), "--port", 0), ".*has no passed verdict.*")


@pytest.mark.parametrize("threshold", [None, 0, float("inf"), "1e-4", -1.0])
def test_without_a_threshold_it_is_not_served(threshold: object, copy: Path) -> None:
    def of_an_output(check: dict[str, Any]) -> None:
        check["fixtures"][0]["outputs"][0]["bound"] = threshold if threshold is not None else "none"

    for change in (
        lambda check: check.update(threshold=threshold),
        lambda check: check["asked"]["rest"].update(number=threshold),
        lambda check: check.update(asked=threshold),
        lambda check: check.update(fixtures=threshold),
        of_an_output,
    ):
        proof = json.loads(json.dumps(open_bundle(copy).proof))
        change(proof)
        changed = SimpleNamespace(path=copy, proof=proof)
        with pytest.raises(BundleError, match="has no threshold in its manifest; export the bundle again"):
            _proven_tolerances(changed)


def test_what_gives_other_actions_here_is_not_served_and_the_verdict_is_shown(
    copy: Path, small: Small, run: Reflex
) -> None:
    # The graphs of another seed, with every digest in order: only running them tells.
    other = small(seed=1)
    for name in ("model.onnx", "model.onnx.data"):
        shutil.copyfile(other / name, copy / name)
    files = json.loads((other / "reflex.json").read_text())["files"]
    rewrite(copy, lambda m: m["files"].update({n: f for n, f in files.items() if n.startswith("model")}))
    ran = run("serve", copy, "--port", 0)
    assert (ran.code, ran.err) == (1, "")
    assert ran.out.startswith("parity FAIL: max_abs_diff ")
    assert "Per-fixture results" in ran.out
    assert "serving" not in ran.out


def test_the_provider_that_was_asked_for_is_part_of_the_proof(small: Small, run: Reflex) -> None:
    ran = run("serve", small(), "--port", 0, "--provider", "coreml")
    assert (ran.code, ran.err) == (1, "")
    assert ran.out.startswith(
        "parity FAIL: fixture 0, provider: ran on CPUExecutionProvider, not on CoreMLExecutionProvider as "
        "asked"
    )


def test_a_port_that_is_taken(server: Serving, small: Small, run: Reflex) -> None:
    refused(
        run("serve", small(), "--port", server.port),
        f"cannot listen on 127.0.0.1:{server.port}: Address already in use; give another --host or --port",
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--host", "no.such.host.invalid"], "cannot listen on 'no.such.host.invalid': .*; give --host .*"),
        (["--host", "192.0.2.1"], "cannot listen on 192.0.2.1:0: Cannot assign requested address; give .*"),
        (["--port", "65536"], "invalid value for '--port': 65536 is not in the range .*"),
        (
            ["--runtime", "openvno"],
            r"no runtime is named 'openvno' \(did you mean 'openvino'\?\); there is .*",
        ),
        (
            ["--runtime", "openvino", "--provider", "cuda"],
            "provider is 'CUDAExecutionProvider', which is one of ONNX Runtime's, and the runtime is "
            "'openvino'; leave one out",
        ),
        (
            ["--runtime", "evaluator", "--require-certificate", "key.pem"],
            "runtime: 'evaluator' is asked for, and a certificate says what ran under ONNX Runtime; leave "
            "out --runtime or --require-certificate",
        ),
        (["--provider", "warp"], "--provider: 'warp' is not an execution provider; .*"),
        (["--api-key", ""], "api key: it is empty or cannot stand in a header; give printable ASCII"),
        (["--api-key", "a\nb"], "api key: it is empty or cannot stand in a header; give printable ASCII"),
        (["--max-size", "0"], "invalid value for '--max-size': 0 is not in the range .*"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_is_one_line_and_exit_2(arguments: list[str], said: str, small: Small, run: Reflex) -> None:
    refused(run("serve", small(), "--port", 0, *arguments), said)


@pytest.mark.parametrize("name", ["websockets", "msgpack"])
def test_without_its_packages_it_says_how_to_get_them(name: str, small: Small, tmp_path: Path) -> None:
    (tmp_path / f"{name}.py").write_text(f"raise ModuleNotFoundError('no {name}', name='{name}')\n")
    env = around(PYTHONPATH=f"{tmp_path}:{ROOT}")
    for arguments in (["serve", small()], ["validate", "serve", "ws://127.0.0.1:9", "--model", "m"]):
        done = subprocess.run(
            [sys.executable, "-m", "pytest_reflex", *map(str, arguments)],
            env=env, capture_output=True, text=True, check=False,
        )  # fmt: skip
        said = f"serving needs {name}, which is not installed; pip install 'pytest-reflex[serve]'"
        assert (done.returncode, done.stdout, done.stderr) == (2, "", f"reflex: error: {said}\n")


# --- judging what is served -------------------------------------------------------------------------


def test_a_served_policy_is_judged_against_its_module(server: Serving, run: Reflex) -> None:
    ran = run(
        "validate", "serve", server.url, "--model", f"{CASES}:policy", "--fixtures", 4, "--seed", 9,
        "--strict",
    )  # fmt: skip
    assert (ran.code, ran.err) == (0, "")
    assert re.match(rf"parity PASS: max_abs_diff {FLOAT} is below 1.0e-05 \(4 fixtures\)\n", ran.out)
    assert f"Candidate: served {server.url}, on CPUExecutionProvider" in ran.out


def test_a_served_policy_is_judged_against_a_recording(server: Serving, small: Small, run: Reflex) -> None:
    ran = run("validate", "serve", server.url, "--model", small() / "fixtures.safetensors", "--output-json")
    assert (ran.code, ran.err) == (0, "")
    (result,) = parsed(ran)["results"]
    assert (result["name"], result["passed"], result["seed"]) == (server.url, True, None)
    assert result["candidate"]["kind"] == "served"
    assert result["candidate"]["providers_used"] == ["CPUExecutionProvider"]


def _asked_and_ran(server: Any) -> tuple[str, str]:
    said = server._service.metadata
    server._socket.close()
    (ran_on,) = said["providers_used"]
    return said["provider_asked"], ran_on


def test_another_runtime_is_served_and_judged(small: Small, run: Reflex) -> None:
    recording, words = small() / "fixtures.safetensors", "OpenVINO CPU in float32"
    with serving(small(), "--runtime", "openvino") as running:
        ran = run("validate", "serve", running.url, "--model", recording)
        assert (ran.code, ran.err) == (0, "")
        assert f"Candidate: served {running.url}, on {words}" in ran.out
        refused(
            run("validate", "serve", running.url, "--model", recording, "--provider", "cuda"),
            f"provider: CUDAExecutionProvider is one of ONNX Runtime's, and {running.url} is on {words}; "
            "leave it out",
        )
        # Several clients at once, of whom OpenVINO is asked for one at a time.
        observations = [make_fixture(INPUTS, 11, idx) for idx in range(4)]
        with ThreadPoolExecutor() as pool, open_bundle(small()).on("openvino").runner() as local:

            def same(observation: Any) -> bool:
                alone = local.run(observation)["actions"]
                with client(running.url) as connection:
                    given = [asked(connection, observation)["actions"] for _ in range(20)]
                return all(same_bits(one, alone) for one in given)

            assert all(pool.map(same, observations))
    # One that does not say what it runs on is named by itself.
    asked_for, ran_on = _asked_and_ran(prepared(small(), port=0, runtime="evaluator"))
    assert asked_for == ran_on == "evaluator"


def test_a_server_of_another_seed_s_bundle_fails(small: Small, run: Reflex) -> None:
    with serving(small(seed=1)) as running:
        ran = run("validate", "serve", running.url, "--model", f"{CASES}:policy", "--fixtures", 2)
    assert (ran.code, ran.err) == (1, "")
    assert ran.out.startswith("parity FAIL: max_abs_diff ")


def test_another_provider_than_the_server_s_fails(server: Serving, small: Small, run: Reflex) -> None:
    recording = small() / "fixtures.safetensors"
    ran = run("validate", "serve", server.url, "--model", recording, "--provider", "cuda")
    assert (ran.code, ran.err) == (1, "")
    assert "provider: ran on CPUExecutionProvider, not on CUDAExecutionProvider as asked" in ran.out


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("ws://127.0.0.1:9", "ws://127.0.0.1:9 cannot be reached: .*; see that `reflex serve` runs there"),
        ("http://127.0.0.1:9", "url is 'http://127.0.0.1:9'; give ws://HOST:PORT or wss://HOST:PORT"),
        ("demo/p0", "url is 'demo/p0'; give ws://HOST:PORT or wss://HOST:PORT"),
        ("ws://", "ws:// refused the connection: InvalidURI: .*"),
    ],
)
def test_no_server_is_no_verdict(url: str, said: str, small: Small, run: Reflex) -> None:
    refused(run("validate", "serve", url, "--model", small() / "fixtures.safetensors"), said)


def test_a_recording_brings_its_own_fixtures(server: Serving, small: Small, run: Reflex) -> None:
    recording = small() / "fixtures.safetensors"
    refused(
        run("validate", "serve", server.url, "--model", recording, "--seed", 1),
        "--seed was given, and a recording brings its own fixtures; see `reflex validate serve -h`",
    )
