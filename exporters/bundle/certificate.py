"""Certificates: what was proven of a bundle, over its files' digests, signed and verified without torch.

A certificate is an in-toto statement (v1) with a ``test-result`` predicate (v0.1) in an envelope of
:mod:`exporters.bundle.envelope`. Its subjects are all files of the bundle, the manifest among them; what was
asked and found stands in the annotations of its one configuration. It says no more than the verdict that it
is made of, and nothing of a machine that computes otherwise.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from exporters.bundle.envelope import canonical, opened, private_key, public_key, sealed, strictly
from exporters.bundle.manifest import MANIFEST
from exporters.bundle.store import FIXTURES, StoredBundle
from pytest_reflex._version import __version__
from pytest_reflex.errors import BundleError, CertificateError
from pytest_reflex.report.files import write_text
from pytest_reflex.report.json.documents import read_run
from pytest_reflex.report.json.results import result_from_json, result_to_json
from pytest_reflex.report.rejudge import rejudge
from pytest_reflex.runners.onnx import WHOLE_SUMS
from pytest_reflex.verdict import machine
from pytest_reflex.verdict.results import RunResult

__all__ = ["CERTIFICATE", "Certificate", "certified", "certify"]

# Beside the manifest: an export that takes the bundle's place takes this away with it.
CERTIFICATE: Final = "certificate.json"
_STATEMENT: Final = "https://in-toto.io/Statement/v1"
_PREDICATE: Final = "https://in-toto.io/attestation/test-result/v0.1"
_FORMAT: Final = "reflex-certificate/1"
_INTEGERS: Final = re.compile(r"\bu?int[48]\b")
# What a certificate says, and of which type each is.
_TERMS: Final[Mapping[str, type]] = {
    "format": str,
    "made_by": str,
    "family": str,
    "layout": str,
    "reference": str,
    "strict": bool,
    "threshold": float,
    "asked": dict,
    "precision": str,
    "provider": str,
    "fixtures": int,
    "seed": object,
    "max_abs_diff": object,
    "claim": dict,
    "coverage": object,
    "machine": dict,
    "integers": str,
    "versions": dict,
}


@dataclass(frozen=True)
class Certificate:
    """A certificate that holds: of these files, by a key that is trusted.

    Attributes:
        signed_by: the id of the key.
        terms: what was asked and found, as builtins.
        notes: where this machine is not the one of the verdict, in words.
    """

    signed_by: str
    terms: Mapping[str, Any]
    notes: tuple[str, ...] = ()

    @property
    def provider(self) -> str:
        """ONNX Runtime's full name of the provider that was judged."""
        return str(self.terms["provider"])

    @property
    def text(self) -> str:
        """What is certified, in a few lines."""
        terms = self.terms
        steps = [
            f"certified by key {self.signed_by[:16]}: {terms['family']}, {terms['layout']}",
            f"  precision   {terms['precision']}",
            f"  against     {terms['reference']}",
            f"  threshold   {terms['threshold']:g}, strict, {terms['fixtures']:,} fixtures",
            f"  claim       {terms['claim']['text']}",
            f"  on          {terms['provider']}, {terms['machine'].get('processor', machine.UNKNOWN)}",
        ]
        return "\n".join([*steps, *(f"  note        {note}" for note in self.notes)])


def certify(
    bundle: StoredBundle,
    key: str | os.PathLike[str],
    *,
    verdict: str | os.PathLike[str] | None = None,
    place: str | os.PathLike[str] | None = None,
) -> Path:
    """Sign what was proven of a bundle.

    Args:
        bundle: it, with every digest checked.
        key: the file of the Ed25519 key to sign with, in PEM.
        verdict: the JSON of a later run with one result, of this bundle; by default the verdict that it was
            made under.
        place: where the certificate goes; by default :data:`CERTIFICATE` in the bundle.

    Returns:
        Where it is.

    Raises:
        CertificateError: the verdict is no strict pass against a policy, or is of other files than these.
        ReflexError: the verdict or the key cannot be read, or nothing can be written there.
    """
    signer = private_key(key)
    result = _proven(bundle, _verdict(bundle, verdict))
    # Read once: what is signed is what was compared.
    files = _digests(bundle)
    envelope = sealed(canonical(_statement(bundle, result, files)), signer)
    out = Path(place) if place is not None else bundle.path / CERTIFICATE
    try:
        write_text(out, envelope.decode("ascii"))
    except OSError as error:
        raise BundleError(
            f"{out} cannot be written ({error.strerror or error}); give another place"
        ) from error
    return out


def _verdict(bundle: StoredBundle, file: str | os.PathLike[str] | None) -> RunResult:
    if file is None:
        if bundle.stated.check is None:
            raise CertificateError(f"{bundle.called} was never proven; export it with its check, with strict")
        return result_from_json(bundle.stated.check)
    run = read_run(file)
    if len(run.results) != 1 or not run.passed:
        told = "no pass" if len(run.results) == 1 else f"{len(run.results)} results"
        raise CertificateError(f"{file} holds {told}; give the JSON of one run that passed, of this bundle")
    return result_from_json(run.results[0].json)


def _proven(bundle: StoredBundle, result: RunResult) -> RunResult:
    """A verdict as it is certified; one that says less than a certificate would is refused."""
    if bundle.changed:
        raise CertificateError(f"{bundle.changed}; nothing of it is certified")
    if not result.passed:
        raise CertificateError(f"{bundle.called} did not pass; there is nothing to certify")
    if not result.strict:
        raise CertificateError(
            f"{bundle.called} was not judged strictly; judge it with --strict --output-json, and give "
            "that as --result"
        )
    # Judged again from its own figures: who wrote the manifest may have written the word alone.
    result = rejudge(result, strict=True)
    if not result.passed:
        raise CertificateError(f"{bundle.called} says that it was judged strictly, and does not pass so")
    if result.against != "policy":
        raise CertificateError(
            f"{bundle.called} was held against another graph, and no policy; judge it with --model"
        )
    if result.candidate.get("kind") != "bundle":
        raise CertificateError(
            f"what was judged is a {result.candidate.get('kind')}, expected the bundle itself"
        )
    judged = result.candidate.get("sha256")
    judged = judged if isinstance(judged, Mapping) else {}
    # The recording was written after the verdict at an export, and no figure of it is the candidate's.
    for name in sorted(bundle.stated.files.keys() - {FIXTURES}):
        if judged.get(name) != bundle.stated.files[name]["sha256"]:
            raise CertificateError(
                f"{bundle.path / name} is not the file that was judged; judge the bundle again"
            )
    if not _provider(result):
        raise CertificateError(f"{bundle.called} was judged without saying on which provider; judge it again")
    return result


def _provider(result: RunResult) -> str:
    used = result.candidate.get("providers_used")
    return str(used[0]) if isinstance(used, list | tuple) and used else ""


def _digests(bundle: StoredBundle) -> dict[str, str]:
    """SHA-256, in hex, of every file of the bundle, its manifest among them, by name."""
    try:
        text = (bundle.path / MANIFEST).read_bytes()
        same = json.loads(text) == bundle.manifest
    except (OSError, ValueError, RecursionError):
        same = False
    if not same:
        raise CertificateError(f"{bundle.path / MANIFEST} was changed after the bundle was opened")
    found = {name: facts["sha256"] for name, facts in bundle.stated.files.items()}
    return {**found, MANIFEST: hashlib.sha256(text).hexdigest()}


def _statement(bundle: StoredBundle, result: RunResult, files: Mapping[str, str]) -> dict[str, Any]:
    said = result_to_json(result)
    claim = said["claim"] or {"text": "nothing is said of inputs that were not judged"}
    versions = result.candidate.get("versions")
    where = machine.stated(result.candidate.get("machine"))
    terms = {
        "format": _FORMAT,
        "made_by": f"pytest-reflex {__version__}",
        "family": bundle.family,
        "layout": bundle.layout,
        "reference": str(result.reference.get("name") or result.reference.get("kind") or "policy"),
        "strict": result.strict,
        "threshold": float(result.threshold),
        "asked": said["asked"],
        "precision": result.precision.text,
        "provider": _provider(result),
        "fixtures": result.count,
        "seed": result.seed,
        "max_abs_diff": said["max_abs_diff_across_all"],
        "claim": claim,
        "coverage": said["coverage"] and {key: said["coverage"][key] for key in ("text", "share", "asked")},
        "machine": where,
        "integers": _integers(bundle, result.precision.text, where),
        "versions": dict(versions) if isinstance(versions, Mapping) else {},
    }
    verdict = hashlib.sha256(canonical(said)).hexdigest()
    return {
        "_type": _STATEMENT,
        "subject": [{"name": name, "digest": {"sha256": files[name]}} for name in sorted(files)],
        "predicateType": _PREDICATE,
        "predicate": {
            "result": "PASSED",
            "configuration": [{"name": "verdict", "digest": {"sha256": verdict}, "annotations": terms}],
            "passedTests": [answer.gate for answer in result.answers],
            "warnedTests": [],
            "failedTests": [],
        },
    }


def _integers(bundle: StoredBundle, precision: str, where: object) -> str:
    """How products of its integers were summed, as :func:`machine.integer_sums` says; ``none`` without."""
    if not _INTEGERS.search(f"{precision} {bundle.stated.precision}"):
        return "none"
    if bundle.stated.config.get(WHOLE_SUMS) == "1":
        return "whole"
    return machine.integer_sums(where)


def certified(
    bundle: StoredBundle,
    keys: Sequence[str | os.PathLike[str]],
    *,
    place: str | os.PathLike[str] | None = None,
    provider: str | None = None,
    here: Mapping[str, Any] | None = None,
) -> Certificate:
    """The certificate of a bundle, once it is sure to hold; no network is asked, and no model run.

    Args:
        bundle: it, with every digest checked.
        keys: the files of the public keys that are trusted, in PEM. A key that a certificate names is not.
        place: where the certificate is; by default :data:`CERTIFICATE` in the bundle.
        provider: the provider (full name) that the bundle is to run on; None where it is not to run.
        here: the machine that it is to run on; by default this one.

    Raises:
        CertificateError: there is none, or it does not hold: it was changed, is signed by another key, is of
            other files, of a verdict that was not strict, for another provider, or for a processor whose
            integers saturate otherwise.
        SettingsError: a key cannot be read.
    """
    trusted = [public_key(key) for key in keys]
    file = Path(place) if place is not None else bundle.path / CERTIFICATE
    try:
        text = file.read_bytes()
    except OSError as error:
        raise CertificateError(
            f"{file} cannot be read ({error.strerror or error}); make it with reflex certify"
        ) from error
    try:
        payload, signer = opened(text, trusted)
        terms = _terms(payload, _digests(bundle))
        _require_fit(bundle, terms, provider, here if here is not None else machine.here())
    except CertificateError as error:
        raise CertificateError(f"{file}: {error}") from error
    return Certificate(signer, terms, tuple(_notes(terms)))


def _terms(payload: bytes, files: Mapping[str, str]) -> dict[str, Any]:
    """What a signed statement says of a bundle's files; a trusted key may have signed something else too."""
    said = strictly(payload, "its statement")
    if (said.get("_type"), said.get("predicateType")) != (_STATEMENT, _PREDICATE):
        raise CertificateError("its statement is none of a test's result")
    subjects = dict(map(_subject, _listed(said, "subject")))
    if len(subjects) < len(said["subject"]):
        raise CertificateError("its statement names a file twice")
    for name in sorted(subjects.keys() | files.keys()):
        if name not in files or name not in subjects:
            where = "the bundle" if name not in files else "its statement"
            raise CertificateError(f"{name!r} is not in {where}; it is of other files")
        if subjects[name] != files[name]:
            raise CertificateError(f"{name!r} is another file than the one that it is of")
    predicate = said.get("predicate")
    if not isinstance(predicate, dict) or predicate.get("result") != "PASSED":
        raise CertificateError("its statement says of no pass")
    if _listed(predicate, "failedTests") or _listed(predicate, "warnedTests"):
        raise CertificateError("its statement says of gates that refused")
    every = _listed(predicate, "configuration")
    terms = every[0].get("annotations") if len(every) == 1 and isinstance(every[0], dict) else None
    if not isinstance(terms, dict) or terms.get("format") != _FORMAT:
        raise CertificateError(f"its statement is of another format than {_FORMAT}")
    wrong = [name for name, kind in _TERMS.items() if name not in terms or not isinstance(terms[name], kind)]
    if wrong or not isinstance(terms["claim"].get("text"), str):
        raise CertificateError(f"its statement does not say its {', '.join(wrong) or 'claim'}")
    return terms


def _subject(one: object) -> tuple[str, str]:
    digest = one.get("digest") if isinstance(one, dict) else None
    if not isinstance(one, dict) or not isinstance(digest, dict) or not isinstance(one.get("name"), str):
        raise CertificateError("its statement names something that is no file")
    return one["name"], str(digest.get("sha256"))


def _listed(said: Mapping[str, Any], name: str) -> list[Any]:
    found = said.get(name)
    if not isinstance(found, list):
        raise CertificateError(f"its statement has no {name}")
    return found


def _require_fit(
    bundle: StoredBundle, terms: Mapping[str, Any], provider: str | None, here: Mapping[str, Any]
) -> None:
    """Refuse to carry a verdict over to where something else would be computed."""
    if terms["strict"] is not True:
        raise CertificateError("its verdict was not strict")
    if provider is not None and provider != terms["provider"]:
        raise CertificateError(f"it is for {terms['provider']}, and {provider} is asked for")
    sums = _integers(bundle, terms["precision"], here)
    if sums != terms["integers"] or sums == machine.UNKNOWN:
        there = terms["machine"].get("processor", machine.UNKNOWN)
        raise CertificateError(
            f"its integers were summed {terms['integers']} on {there}, and here they are summed {sums}: a "
            "quantised graph gives other numbers on such a processor; judge it here, and certify that"
        )


def _notes(terms: Mapping[str, Any]) -> list[str]:
    """What is unlike here, and refuses nothing."""
    try:
        from importlib.metadata import version

        installed = version("onnxruntime")
    except Exception:  # whatever reading broken metadata leads to
        installed = machine.UNKNOWN
    judged = terms["versions"].get("onnxruntime")
    return (
        [f"judged with onnxruntime {judged}, and {installed} is here"]
        if judged not in (None, installed)
        else []
    )
