"""Certificates: what was proven of a bundle, over its files' digests, signed and verified without torch.

A certificate is an in-toto statement (v1) with a ``test-result`` predicate (v0.1) in an envelope of
:mod:`exporters.bundle.envelope`. Its subjects are all files of the bundle, the manifest among them; what was
asked and found stands in the annotations of its one configuration. It says no more than the verdict that it
is made of, and nothing of a machine that computes otherwise. Of a bundle with processors its terms are those
of the whole, as a robot runs it, and ``stages`` says the same of every stage.

What stands in one is anybody's text until it is shown: nothing of it ends a line or steers a terminal.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from exporters.bundle.envelope import (
    LARGEST,
    canonical,
    opened,
    private_key,
    public_key,
    read_file,
    sealed,
    strictly,
)
from exporters.bundle.manifest import MANIFEST
from exporters.bundle.proof import graphs_unsaid, judge_all, proven, provider_of
from exporters.bundle.store import StoredBundle
from pytest_reflex._version import __version__
from pytest_reflex.errors import BundleError, CertificateError
from pytest_reflex.report.files import write_text
from pytest_reflex.report.json.results import result_to_json
from pytest_reflex.result import POLICY, STAGES, WHOLE
from pytest_reflex.runners.onnx import WHOLE_SUMS
from pytest_reflex.verdict import machine
from pytest_reflex.verdict.results import RunResult

__all__ = ["CERTIFICATE", "Certificate", "certified", "certify", "escaped", "shown"]

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
# What it says of every stage of a bundle with processors.
_OF_A_STAGE: Final = (
    "reference",
    "threshold",
    "asked",
    "fixtures",
    "seed",
    "max_abs_diff",
    "claim",
    "coverage",
)
_NO_CLAIM: Final = {"text": "nothing is said of inputs that were not judged"}


def shown(text: object) -> str:
    """Anybody's text in one line that a terminal shows and does not obey; what cannot be shown is escaped.

    Several blanks become one, for with enough of them the rest would stand in the terminal's next line.
    """
    return " ".join(str(escaped(str(text))).split())


def escaped(value: Any) -> Any:
    """The texts of a JSON value, with escapes for what ends a line, turns it round or is not seen."""
    if isinstance(value, str):
        return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in value)
    if isinstance(value, Mapping):
        return {escaped(key): escaped(held) for key, held in value.items()}
    return [escaped(one) for one in value] if isinstance(value, list | tuple) else value


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
    def headline(self) -> str:
        """Who certifies, and what that says of inputs that were not judged, in one line."""
        return shown(f"certified by key {self.signed_by[:16]}: {self.terms['claim']['text']}")

    @property
    def text(self) -> str:
        """What is certified, in a few lines, each of which begins with what it says."""
        terms = self.terms
        stages = terms.get("stages", {})
        lines = [
            ("precision", terms["precision"]),
            ("against", terms["reference"]),
            ("threshold", f"{_threshold(terms)}, strict, {terms['fixtures']:,} fixtures"),
            ("claim", terms["claim"]["text"]),
            ("coverage", _coverage(terms["coverage"])),
            *(
                (stage, f"{_threshold(stages[stage])}: {stages[stage]['claim']['text']}")
                for stage in STAGES[:-1]
                if stages
            ),
            ("on", f"{terms['provider']}, {terms['machine'].get('processor', machine.UNKNOWN)}"),
            *(("note", note) for note in self.notes),
        ]
        first = f"certified by key {self.signed_by[:16]}: {terms['family']}, {terms['layout']}"
        return "\n".join([shown(first), *(f"  {name:11} {shown(said)}" for name, said in lines)])


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
        verdict: the JSON of a later run of this bundle, with a result of every stage where it has processors;
            by default the verdict that it was made under.
        place: where the certificate goes; by default :data:`CERTIFICATE` in the bundle.

    Returns:
        Where it is.

    Raises:
        CertificateError: the verdict is no strict pass against a policy, is of other files than these, or not
            of all of them.
        ReflexError: the verdict or the key cannot be read, or nothing can be written there.
    """
    signer = private_key(key)
    # Read once: what is signed is what was compared.
    files = _digests(bundle)
    envelope = sealed(canonical(_statement(bundle, proven(bundle, verdict), files)), signer)
    out = Path(place) if place is not None else bundle.path / CERTIFICATE
    try:
        write_text(out, envelope.decode("ascii"))
    except OSError as error:
        raise BundleError(
            f"{out} cannot be written ({error.strerror or error}); give another place"
        ) from error
    return out


def _digests(bundle: StoredBundle) -> dict[str, str]:
    """SHA-256, in hex, of every file of the bundle, its manifest among them, by name.

    Raises:
        CertificateError: the bundle holds something else than its manifest says.
    """
    if bundle.changed:
        raise CertificateError(f"{bundle.changed}; nothing of it is certified")
    try:
        text = (bundle.path / MANIFEST).read_bytes()
        same = json.loads(text) == bundle.manifest
    except (OSError, ValueError, RecursionError):
        same = False
    if not same:
        raise CertificateError(f"{bundle.path / MANIFEST} was changed after the bundle was opened")
    found = {name: facts["sha256"] for name, facts in bundle.stated.files.items()}
    return {**found, MANIFEST: hashlib.sha256(text).hexdigest()}


def _statement(
    bundle: StoredBundle, proof: Mapping[str, RunResult], files: Mapping[str, str]
) -> dict[str, Any]:
    verdicts = {stage: result_to_json(one) for stage, one in proof.items()}
    stages = {stage: _of_a_stage(one, verdicts[stage]) for stage, one in proof.items()}
    # As a robot runs it.
    all_of_it = WHOLE if WHOLE in proof else POLICY
    result = proof[all_of_it]
    versions = result.candidate.get("versions")
    where = machine.stated(result.candidate.get("machine"))
    terms = {
        "format": _FORMAT,
        "made_by": f"pytest-reflex {__version__}",
        "family": bundle.family,
        "layout": bundle.layout,
        "strict": result.strict,
        "precision": result.precision.text,
        "provider": provider_of(result),
        **stages[all_of_it],
        "machine": where,
        "integers": _integers(bundle, result.precision.text, where),
        "versions": dict(versions) if isinstance(versions, Mapping) else {},
        **({"stages": stages} if WHOLE in proof else {}),
    }
    verdict = hashlib.sha256(canonical(verdicts if WHOLE in proof else verdicts[POLICY])).hexdigest()
    return {
        "_type": _STATEMENT,
        "subject": [{"name": name, "digest": {"sha256": files[name]}} for name in sorted(files)],
        "predicateType": _PREDICATE,
        "predicate": {
            "result": "PASSED",
            "configuration": [
                {"name": "verdict", "digest": {"sha256": verdict}, "annotations": escaped(terms)}
            ],
            "passedTests": [answer.gate for answer in result.answers if _was_asked(result, answer.gate)],
            "warnedTests": [],
            "failedTests": [],
        },
    }


def _was_asked(result: RunResult, gate: str) -> bool:
    """Whether a gate of the run had a question to answer: two have none where nobody asked."""
    if gate == "coverage":
        return result.coverage is not None and result.coverage.asked > 0
    return gate != "claim" or (result.claim is not None and result.claim.asked is not None)


def _coverage(said: object) -> str:
    """What a certificate says of the graph's decisions, with the share that was asked for."""
    if not isinstance(said, Mapping):
        return "nobody looked at the graph's decisions"
    asked = said.get("asked")
    share = f"; {100 * asked:g} % was asked for" if isinstance(asked, int | float) and asked else ""
    return f"{said.get('text')}{share}"


def _of_a_stage(result: RunResult, said: Mapping[str, Any]) -> dict[str, Any]:
    coverage = said["coverage"]
    return {
        "reference": str(result.reference.get("name") or result.reference.get("kind") or "policy"),
        "threshold": float(result.threshold),
        "asked": said["asked"],
        "fixtures": result.count,
        "seed": result.seed,
        "max_abs_diff": said["max_abs_diff_across_all"],
        "claim": said["claim"] or _NO_CLAIM,
        "coverage": coverage and {key: coverage[key] for key in ("text", "share", "asked")},
    }


def _threshold(terms: Mapping[str, Any]) -> str:
    rest = terms["asked"].get("rest")
    unit = rest.get("unit") if isinstance(rest, Mapping) else None
    return f"{terms['threshold']:g}{f' {unit}' if unit else ''}"


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
            other files, of a verdict that was not strict or not on all stages, for another provider, or for a
            processor whose integers saturate otherwise; or the bundle was changed.
        SettingsError: a key cannot be read, or the certificate is no regular file or larger than any.
    """
    trusted = [public_key(key) for key in keys]
    file = Path(place) if place is not None else bundle.path / CERTIFICATE
    try:
        text = read_file(file, LARGEST, "certificate")
    except (OSError, ValueError) as error:
        raise CertificateError(
            f"{file} cannot be read ({getattr(error, 'strerror', None) or error}); "
            "make it with reflex certify"
        ) from error
    try:
        payload, signer = opened(text, trusted)
        terms = _terms(payload, _digests(bundle))
        _require_stages(bundle, terms)
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
            missing = "is certified and not" if name not in files else "was not certified and is"
            raise CertificateError(f"{name!r} {missing} in the bundle; it is of other files")
        if subjects[name] != files[name]:
            raise CertificateError(
                f"{name!r} is not the file that was certified; it was changed or exchanged"
            )
    predicate = said.get("predicate")
    if not isinstance(predicate, dict) or predicate.get("result") != "PASSED":
        raise CertificateError("its statement says of no pass")
    if _listed(predicate, "failedTests") or _listed(predicate, "warnedTests"):
        raise CertificateError("its statement says of gates that refused")
    every = _listed(predicate, "configuration")
    terms = every[0].get("annotations") if len(every) == 1 and isinstance(every[0], dict) else None
    if not isinstance(terms, dict) or terms.get("format") != _FORMAT:
        raise CertificateError(f"its statement is of another format than {_FORMAT}")
    _require_said(terms, _TERMS, "its statement")
    return terms


def _require_said(terms: Mapping[str, Any], names: Iterable[str], where: str) -> None:
    wrong = [name for name in names if name not in terms or not isinstance(terms[name], _TERMS[name])]
    if wrong or not isinstance(terms["claim"].get("text"), str):
        raise CertificateError(f"{where} does not say its {', '.join(wrong) or 'claim'}")


def _require_stages(bundle: StoredBundle, terms: Mapping[str, Any]) -> None:
    """Refuse what was judged of a bundle with processors without them, as earlier versions certified it."""
    stages = terms.get("stages")
    if stages is None and bundle.has_processors:
        raise CertificateError(
            f"it is of a verdict on the policy alone, and nobody judged {graphs_unsaid(bundle)}; "
            f"{judge_all(bundle)} to reflex certify"
        )
    if stages is None:
        return
    if not isinstance(stages, dict) or {*stages} != {*STAGES}:
        raise CertificateError(f"its statement does not say its stages, {', '.join(STAGES)}")
    for stage, said in stages.items():
        if not isinstance(said, dict):
            raise CertificateError(f"its statement does not say its {stage}")
        _require_said(said, _OF_A_STAGE, f"its {stage}")


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
        raise CertificateError(f"it is for {shown(terms['provider'])}, and {provider} is asked for")
    sums = _integers(bundle, terms["precision"], here)
    if sums != terms["integers"] or sums == machine.UNKNOWN:
        there = terms["machine"].get("processor", machine.UNKNOWN)
        raise CertificateError(
            f"its integers were summed {shown(terms['integers'])} on {shown(there)}, and here they are "
            f"summed {sums}: a quantised graph gives other numbers on such a processor; judge it here, and "
            "certify that"
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
