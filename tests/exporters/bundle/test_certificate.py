"""What is certified, what is not, and what a certificate that holds says."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

import torch
from bundle_cases import Reflex
from certificate_cases import PEM, Keys, keys_in, statement_in
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from serve_cases import ROOT, made, policy
from torch import nn

from exporters import export, open_bundle
from exporters.bundle.certificate import CERTIFICATE, certified, certify
from exporters.bundle.envelope import PASSWORD, canonical, key_id, private_key, sealed
from exporters.bundle.manifest import seal
from exporters.serving.service import prepared
from pytest_reflex import InputSpec, check
from pytest_reflex.errors import CertificateError, ReflexError, SettingsError
from pytest_reflex.inputs import State
from pytest_reflex.report.json import document
from pytest_reflex.verdict import machine
from pytest_reflex.verdict.tolerances import STRICT_THRESHOLD

pytestmark = pytest.mark.once


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that passed strictly; not to be changed."""
    return made(tmp_path_factory.mktemp("strict") / "p0", strict=True)


@pytest.fixture(scope="module")
def lax(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, judged as by default; not to be changed."""
    return made(tmp_path_factory.mktemp("lax") / "p0")


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return keys_in(tmp_path)


@pytest.fixture
def copied(strict: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(strict, tmp_path / "p0"))


def test_the_command_signs_and_verifies_without_torch(copied: Path, keys: Keys, reflex: Reflex) -> None:
    signed = reflex("certify", copied, "--key", keys.secret)
    assert (signed.code, signed.out) == (0, f"Certificate: {copied / CERTIFICATE}\n"), signed.err
    heavy = ("torch", "onnx", "onnxruntime", "onnx_ir", "transformers", "rich")
    code = "\n".join(
        [
            "import sys",
            *(f"sys.modules[{name!r}] = None" for name in heavy),
            f"sys.argv[1:] = ['certify', {str(copied)!r}, '--verify', '--key', {str(keys.public)!r}]",
            "from pytest_reflex.cli import main",
            "main()",
        ]
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("certificate HOLDS\ncertified by key ")
    assert "at most 63.2 % of inputs drawn like these exceed the threshold" in done.stdout


def test_what_no_longer_holds_is_a_fail(copied: Path, keys: Keys, reflex: Reflex, tmp_path: Path) -> None:
    (tmp_path / "else").mkdir()
    stranger = keys_in(tmp_path / "else")
    missing = reflex("certify", copied, "--verify", "--key", keys.public)
    why = f"{copied / CERTIFICATE} cannot be read (No such file or directory); make it with reflex certify"
    assert (missing.code, missing.out) == (1, f"certificate REFUSED: {why}\n")
    steering = reflex(
        "certify", copied, "--verify", "--key", keys.public, "--certificate", tmp_path / "\x1b[1E\u202e"
    )
    assert steering.out.startswith(f"certificate REFUSED: {tmp_path}/\\x1b[1E\\u202e cannot be read")
    reflex("certify", copied, "--key", keys.secret)
    foreign = reflex("certify", copied, "--verify", "--key", stranger.public)
    assert foreign.code == 1
    assert "which is none that is trusted here" in foreign.out
    several = reflex("certify", copied, "--verify", "--key", stranger.public, "--key", keys.public)
    assert several.code == 0
    no_key = reflex("certify", copied, "--verify", "--key", tmp_path / "none.pub")
    assert no_key.code == 2
    assert no_key.err.startswith("reflex: error: key: ")
    fixtures = copied / "fixtures.safetensors"
    fixtures.write_bytes(fixtures.read_bytes()[:-1] + b"\x7f")
    damaged = reflex("certify", copied, "--verify", "--key", keys.public)
    assert damaged.code == 1
    assert damaged.out.startswith(f"certificate REFUSED: {fixtures} ")


def test_it_is_an_in_toto_statement_in_a_dsse_envelope(copied: Path, keys: Keys) -> None:
    certificate = certify(open_bundle(copied), keys.secret)
    text = certificate.read_bytes()
    envelope = json.loads(text)
    payload = base64.b64decode(envelope["payload"])
    # As the specification of DSSE writes it down: lengths in decimal, single blanks.
    signed = b"DSSEv1 28 application/vnd.in-toto+json " + str(len(payload)).encode() + b" " + payload
    (signature,) = envelope["signatures"]
    public = serialization.load_pem_public_key(keys.public.read_bytes())
    assert isinstance(public, ed25519.Ed25519PublicKey)
    public.verify(base64.b64decode(signature["sig"]), signed)
    assert signature["keyid"] == key_id(public)
    said = json.loads(payload)
    assert (said["_type"], said["predicateType"]) == (
        "https://in-toto.io/Statement/v1",
        "https://in-toto.io/attestation/test-result/v0.1",
    )
    assert {one["name"]: one["digest"]["sha256"] for one in said["subject"]} == {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in copied.iterdir()
        if path != certificate
    }
    assert said["predicate"]["result"] == "PASSED"
    terms = said["predicate"]["configuration"][0]["annotations"]
    verdict = json.loads((copied / "reflex.json").read_text())["check"]
    assert terms["machine"] == verdict["candidate"]["machine"]
    assert terms["claim"] == verdict["claim"]
    assert (terms["strict"], terms["provider"], terms["fixtures"]) == (True, "CPUExecutionProvider", 3)
    # The same key says the same of the same bundle.
    assert certify(open_bundle(copied), keys.secret).read_bytes() == text


def test_what_was_not_strict_is_not_certified(lax: Path, keys: Keys, tmp_path: Path) -> None:
    with pytest.raises(CertificateError, match="was not judged strictly; judge it with --strict"):
        certify(open_bundle(lax), keys.secret)
    assert not (lax / CERTIFICATE).exists()
    # A later strict run of it is as good; of another bundle it is not.
    result = check(policy(), open_bundle(lax), strict=True, claim="20%")
    assert result.passed
    file = tmp_path / "run.json"
    file.write_text(json.dumps(document([result])))
    place = certify(open_bundle(lax), keys.secret, verdict=file, place=tmp_path / "c.json")
    held = certified(open_bundle(lax), [keys.public], place=place)
    assert held.terms["claim"]["asked"]["share"] == 1 / 5
    assert held.terms["fixtures"] == result.count
    other = made(tmp_path / "other", seed=1)
    with pytest.raises(CertificateError, match=r"is not the file that was judged; judge the bundle again"):
        certify(open_bundle(other), keys.secret, verdict=file)


def test_nothing_else_is_certified(strict: Path, keys: Keys, tmp_path: Path) -> None:
    bundle = open_bundle(strict)
    against = check(policy(1), bundle, strict=True)
    file = tmp_path / "run.json"

    def refusal(*results: Any) -> str:
        file.write_text(json.dumps(document(results)))
        with pytest.raises(CertificateError) as error:
            certify(bundle, keys.secret, verdict=file, place=tmp_path / "c.json")
        return str(error.value)

    assert "holds no pass" in refusal(against)
    good = check(policy(), bundle, strict=True)
    assert "holds 2 results" in refusal(good, good)
    unproven = made(tmp_path / "unproven", verify=False)
    with pytest.raises(CertificateError, match="was never proven"):
        certify(open_bundle(unproven), keys.secret)


@pytest.mark.parametrize("lie", ["passed", "figure"])
def test_a_verdict_that_was_written_by_hand_is_not_certified(
    lie: str, lax: Path, keys: Keys, tmp_path: Path
) -> None:
    lied = Path(shutil.copytree(lax, tmp_path / "lied"))
    manifest = lied / "reflex.json"
    said = json.loads(manifest.read_text())
    check = said["check"]
    check["strict"] = True
    if lie == "passed":
        check["passed"] = False
    if lie == "figure":
        check["max_abs_diff_across_all"] = 0.0
    said["sha256"] = seal(said)
    manifest.write_text(json.dumps(said))
    with pytest.raises(ReflexError, match=r"contradicts itself|does not pass so|no parity result"):
        certify(open_bundle(lied), keys.secret)
    assert not (lied / CERTIFICATE).exists()


def test_a_certificate_says_what_its_figures_pass_strictly(lax: Path, keys: Keys, tmp_path: Path) -> None:
    """Of a verdict that somebody calls strict it says no threshold that strict does not have."""
    called = Path(shutil.copytree(lax, tmp_path / "called"))
    manifest = called / "reflex.json"
    said = json.loads(manifest.read_text())
    said["check"]["strict"] = True
    said["sha256"] = seal(said)
    manifest.write_text(json.dumps(said))
    certify(open_bundle(called), keys.secret)
    assert certified(open_bundle(called), [keys.public]).terms["threshold"] == STRICT_THRESHOLD


class Faint(nn.Module):
    """What int8 is used for is so small beside the rest that it passes strictly."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(16, 32), nn.Tanh(), nn.Linear(32, 8))

    def forward(self, state: torch.Tensor) -> torch.Tensor:
        return state[:, :8] + self.layers(state) * 1e-3


def on(*instructions: str) -> Mapping[str, Any]:
    return {**machine.here(), "instructions": list(instructions)}


def test_integers_are_certified_for_processors_that_sum_them_alike(tmp_path: Path, keys: Keys) -> None:
    inputs = [InputSpec("state", (1, 16), meaning=State())]
    place = tmp_path / "int8"
    export(Faint().eval(), place, inputs=inputs, precision="int8-dynamic", strict=True)
    bundle = open_bundle(place)
    said = statement_in(certify(bundle, keys.secret))["predicate"]["configuration"][0]["annotations"]
    own = machine.integer_sums(machine.here())
    assert said["integers"] == own
    alike, unlike = {
        "whole": (on("avx2", "avx512f", "avx512bw", "avx512_vnni"), on("avx2", "avx512f", "avx512bw")),
        "saturating": (on("avx2"), on("avx2", "avx_vnni")),
    }[own]
    assert certified(bundle, [keys.public], here=alike).provider == "CPUExecutionProvider"
    for elsewhere in (unlike, on("unheard-of"), {}):
        with pytest.raises(
            CertificateError, match="a quantised graph gives other numbers on such a processor"
        ):
            certified(bundle, [keys.public], here=elsewhere)


def test_floats_are_certified_for_any_processor(copied: Path, keys: Keys) -> None:
    certify(open_bundle(copied), keys.secret)
    for elsewhere in (on("avx2"), on("asimd"), {}):
        assert certified(open_bundle(copied), [keys.public], here=elsewhere).terms["integers"] == "none"


def test_how_integers_are_summed() -> None:
    def sums(*instructions: str) -> str:
        return machine.integer_sums({"instructions": list(instructions)})

    assert sums("sse4_1", "avx2", "avx512f", "avx512bw") == "saturating"
    assert sums("avx2", "avx_vnni") == sums("avx512bw", "avx512_vnni") == sums("asimd", "asimddp") == "whole"
    assert sums() == sums("sve9") == machine.integer_sums(None) == machine.UNKNOWN


def test_a_server_asks_for_it(copied: Path, keys: Keys, tmp_path: Path) -> None:
    with pytest.raises(CertificateError, match="make it with reflex certify"):
        prepared(copied, port=0, trusted=[keys.public])
    certify(open_bundle(copied), keys.secret)
    server = prepared(copied, port=0, trusted=[keys.public])
    assert re.search(r"; certified by key [0-9a-f]{16}: at most \S+ % of ", server.proven)
    with pytest.raises(
        CertificateError, match="it is for CPUExecutionProvider, and CUDAExecutionProvider is"
    ):
        prepared(copied, port=0, trusted=[keys.public], provider="cuda")
    (tmp_path / "else").mkdir()
    with pytest.raises(CertificateError, match="which is none that is trusted here"):
        prepared(copied, port=0, trusted=[keys_in(tmp_path / "else").public])


def test_what_was_changed_is_neither_certified_nor_held(copied: Path, keys: Keys) -> None:
    """A bundle may be opened with changed weights, to be judged; nothing of it is proven."""
    certify(open_bundle(copied), keys.secret)
    weights = copied / "model.onnx.data"
    held = bytearray(weights.read_bytes())
    held[100] ^= 0x40
    weights.write_bytes(held)
    changed = open_bundle(copied, to_judge=True)
    for ask in (
        lambda: certified(changed, [keys.public]),
        lambda: certify(changed, keys.secret),
    ):
        with pytest.raises(CertificateError, match=r"was changed after its check .*; nothing of it is"):
            ask()


def test_a_file_that_nobody_opened_is_not_certified(copied: Path, keys: Keys) -> None:
    shutil.copy(copied / "model.onnx", copied / "other.onnx")
    manifest = copied / "reflex.json"
    said = json.loads(manifest.read_text())
    said["files"]["other.onnx"] = said["files"]["model.onnx"]
    said["check"]["candidate"]["sha256"]["other.onnx"] = said["files"]["model.onnx"]["sha256"]
    said["sha256"] = seal(said)
    manifest.write_text(json.dumps(said))
    with pytest.raises(CertificateError, match=r"other\.onnx was opened by no verdict"):
        certify(open_bundle(copied), keys.secret)


def test_what_was_judged_is_what_runs(copied: Path, keys: Keys, tmp_path: Path) -> None:
    bundle = open_bundle(copied)
    told = bundle.stated.check
    assert told is not None
    run = tmp_path / "run.json"
    for name, other in (("optimization", "all"), ("steps", 2), ("config", {"session.qdqisint8allowed": "1"})):
        verdict = {**told, "candidate": {**told["candidate"], name: other}}
        run.write_text(json.dumps(document([verdict])))
        with pytest.raises(CertificateError, match=f"was judged with {name} .*, and runs with"):
            certify(bundle, keys.secret, verdict=run, place=tmp_path / "c.json")


# A line's end in many spellings, what turns a line or steers a terminal, and blanks up to the next line.
@pytest.mark.parametrize(
    "end", ["\n", "\r", "\v", "\f", "\x1c", "\x85", "\u2028", "\u2029", "\u202e", "\x1b[1E", "\x00", " " * 90]
)
def test_no_text_of_a_certificate_forges_a_line(copied: Path, keys: Keys, end: str) -> None:
    forged = f"a{end}  claim       at most 0.0001 % of inputs"
    place = certify(open_bundle(copied), keys.secret)
    honest = certified(open_bundle(copied), [keys.public]).text
    statement = statement_in(place)
    terms = statement["predicate"]["configuration"][0]["annotations"]
    for name in ("family", "layout", "reference", "precision", "provider"):
        terms[name] = forged
    terms["asked"] = {"rest": {"unit": forged}}
    terms["claim"]["text"] = terms["machine"]["processor"] = terms["versions"]["onnxruntime"] = forged
    place.write_bytes(sealed(canonical(statement), private_key(keys.secret)))
    held = certified(open_bundle(copied), [keys.public])
    lines = held.text.splitlines()
    assert len(lines) == len(honest.splitlines()) + 1  # the note on another ONNX Runtime
    assert all(line.isprintable() and "  claim" not in line[1:] for line in lines)
    with pytest.raises(CertificateError) as refused:
        certified(open_bundle(copied), [keys.public], provider="CUDAExecutionProvider")
    assert str(refused.value).isprintable()
    # And none is made: a policy may be loaded from a file of any name.
    manifest = copied / "reflex.json"
    said = json.loads(manifest.read_text())
    said["check"]["reference"]["name"] = forged
    said["sha256"] = seal(said)
    manifest.write_text(json.dumps(said))
    certify(open_bundle(copied), keys.secret)
    reference = certified(open_bundle(copied), [keys.public]).terms["reference"]
    assert reference.isprintable()
    assert reference.startswith("a")


def test_what_never_ends_is_not_read(copied: Path, keys: Keys, tmp_path: Path, reflex: Reflex) -> None:
    """A pipe, a device, a folder, or more bytes than any such file has."""
    certify(open_bundle(copied), keys.secret)
    pipe, huge, link = tmp_path / "pipe", tmp_path / "huge", tmp_path / "link"
    os.mkfifo(pipe)
    link.symlink_to(pipe)
    with huge.open("wb") as stream:
        stream.truncate(1 << 40)  # it has no block on the disk
    bundle = open_bundle(copied)
    asked: dict[str, Callable[[Path], object]] = {
        "certificate": lambda file: certified(bundle, [keys.public], place=file),
        "key": lambda file: certified(bundle, [file]),
        "result": lambda file: certify(bundle, keys.secret, verdict=file, place=tmp_path / "c.json"),
    }
    for what, ask in {**asked, "key: to sign": private_key}.items():
        for file, why in (
            (pipe, "is a pipe"),
            (link, "is a pipe"),
            (Path("/dev/zero"), "is a pipe, socket or device"),
            (tmp_path, "is a directory"),
            (huge, "has 1099511627776 bytes, expected at most"),
        ):
            with pytest.raises(SettingsError, match=f"^{what.partition(':')[0]}: {file} {why}"):
                ask(file)
    done = reflex("certify", copied, "--verify", "--key", keys.public, "--certificate", huge)
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    # A link to a file is a file.
    link.unlink()
    link.symlink_to(keys.public)
    assert certified(bundle, [link])


def test_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, copied: Path) -> None:
    hidden = keys_in(tmp_path, b"word")
    with pytest.raises(
        SettingsError, match=f"its password goes into {PASSWORD}; make one with `openssl genpkey"
    ):
        private_key(hidden.secret)
    monkeypatch.setenv(PASSWORD, "word")
    certify(open_bundle(copied), hidden.secret)
    assert certified(open_bundle(copied), [hidden.public])
    with pytest.raises(SettingsError, match="is a private key, which is not to lie here"):
        certified(open_bundle(copied), [hidden.secret])
    curve, forms = ec.generate_private_key(ec.SECP256R1()), serialization
    other = tmp_path / "ec.pem"
    other.write_bytes(curve.private_bytes(PEM, forms.PrivateFormat.PKCS8, forms.NoEncryption()))
    monkeypatch.delenv(PASSWORD)
    with pytest.raises(SettingsError, match="expected Ed25519"):
        private_key(other)
    with pytest.raises(SettingsError, match="cannot be read"):
        private_key(tmp_path / "none.pem")


def test_json_has_one_spelling() -> None:
    assert canonical({"b": [1, 0.5, None], "a": "é"}) == b'{"a":"\\u00e9","b":[1,0.5,null]}'
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical(float("nan"))


def test_what_is_missing_is_named(copied: Path, keys: Keys) -> None:
    code = f"""
import sys
sys.modules["cryptography"] = None
sys.argv[1:] = ["certify", {str(copied)!r}, "--key", {str(keys.secret)!r}]
from pytest_reflex.cli import main
main()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 2
    assert done.stderr == (
        "reflex: error: certificates need cryptography, which is not installed; "
        "pip install 'pytest-reflex[certify]'\n"
    )


def test_gates_that_nobody_asked_are_no_passed_tests(
    strict: Path, keys: Keys, reflex: Reflex, tmp_path: Path
) -> None:
    """A policy that wants coverage or a claim is not satisfied by a verdict that has none."""
    unasked = Path(shutil.copytree(strict, tmp_path / "unasked"))
    certify(open_bundle(unasked), keys.secret)
    found = statement_in(unasked / CERTIFICATE)["predicate"]["passedTests"]
    assert "intact" in found
    assert {"coverage", "claim"} & {*found} == set()
    held = reflex("certify", unasked, "--verify", "--key", keys.public).out
    assert "\n  coverage    nobody looked at the graph's decisions\n" in held
    bundle = open_bundle(unasked)
    run = check(policy(), bundle, strict=True, claim="50%", coverage="10%")
    (tmp_path / "run.json").write_text(json.dumps(document([run])), encoding="utf-8")
    certify(bundle, keys.secret, verdict=tmp_path / "run.json")
    assert {"coverage", "claim"} <= {*statement_in(unasked / CERTIFICATE)["predicate"]["passedTests"]}
    held = reflex("certify", unasked, "--verify", "--key", keys.public).out
    assert re.search(r"\n  coverage    \d+ of \d+ decisions .*; 10 % was asked for\n", held)


def test_whoever_was_given_a_bundle_is_told_what_he_can_do(
    copied: Path, keys: Keys, reflex: Reflex, tmp_path: Path
) -> None:
    certify(open_bundle(copied), keys.secret)
    no_key = reflex("certify", copied, "--verify", "--key", tmp_path / "none.pub")
    assert no_key.err.endswith("give what `openssl pkey -in key.pem -pubout` writes\n")
    wrong = reflex("certify", copied, "--key", keys.public)
    assert wrong.err == (
        f"reflex: error: key: {keys.public} is a public key, which signs nothing; give the private one that "
        "it belongs to\n"
    )
    (copied / "model.onnx").unlink()
    lost = reflex("certify", copied, "--verify", "--key", keys.public)
    assert (lost.code, lost.out) == (
        1,
        f"certificate REFUSED: {copied / 'model.onnx'} is missing; copy the bundle again from whoever "
        "certified it\n",
    )
    nowhere = reflex("certify", tmp_path / "nowhere", "--verify", "--key", keys.public)
    assert nowhere.code == 2
