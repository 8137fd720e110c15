"""DSSE envelopes signed with Ed25519: text in and out, of which no second spelling is taken.

An envelope is JSON with a payload, its type and signatures over both (DSSE 1.0, of the in-toto project: what
is signed is ``DSSEv1 LEN(type) type LEN(payload) payload``). JSON and base64 allow many spellings of one
thing, and of a name twice in an object each reader takes another one; so an envelope is read only if it is,
to the byte, what :func:`sealed` writes. Ed25519's signatures have one spelling by themselves.

Needs cryptography, and nothing else: neither numpy nor torch.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import importlib
import json
import os
import stat
from collections.abc import Mapping, Sequence
from typing import Any, Final

from pytest_reflex.errors import CertificateError, MissingPackageError, SettingsError, a_type
from pytest_reflex.report.json.values import shallow

__all__ = [
    "LARGEST", "PASSWORD", "PAYLOAD_TYPE", "canonical", "key_id", "opened", "private_key", "public_key",
    "read_file", "require_file", "sealed",
]  # fmt: skip

PAYLOAD_TYPE: Final = "application/vnd.in-toto+json"
# Where the password of a signing key may stand: on a command line every process could read it.
PASSWORD: Final = "REFLEX_KEY_PASSWORD"
# No certificate has more bytes.
LARGEST: Final = 16 << 20
_MOST_KEY_BYTES: Final = 64 << 10
_MOST_SIGNATURES: Final = 16


def canonical(value: object) -> bytes:
    """JSON in one spelling: keys in order, no blanks, nothing but ASCII."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return text.encode("ascii")


def strictly(text: bytes, what: str) -> dict[str, Any]:
    """The JSON object that is, to the byte, :func:`canonical` of itself.

    Raises:
        CertificateError: it is no such JSON.
    """
    try:
        found = json.loads(text.decode("ascii"))
        if not shallow(found) or canonical(found) != text:
            raise ValueError("it is spelled otherwise than it was written")
    except (ValueError, RecursionError) as error:
        raise CertificateError(f"{what} is not as it was written ({_short(error)})") from error
    if not isinstance(found, dict):
        raise CertificateError(f"{what} is {a_type(found)}, expected a JSON object")
    return found


def sealed(payload: bytes, key: Any) -> bytes:
    """The envelope of a payload, signed with a key of :func:`private_key`; ends with a line's end."""
    signature = key.sign(_signed(PAYLOAD_TYPE, payload))
    made = {
        "payload": base64.b64encode(payload).decode("ascii"),
        "payloadType": PAYLOAD_TYPE,
        "signatures": [
            {"keyid": key_id(key.public_key()), "sig": base64.b64encode(signature).decode("ascii")}
        ],
    }
    return canonical(made) + b"\n"


def opened(text: bytes, keys: Sequence[Any]) -> tuple[bytes, str]:
    """The payload of an envelope and the id of the key that signed it: one of ``keys``.

    Every signature has to be of one of them and good: what nobody can check is nothing to carry along.

    Args:
        text: the envelope.
        keys: those that are trusted, of :func:`public_key`.

    Raises:
        CertificateError: it is no envelope, of another type of payload, or not signed by one of them.
    """
    if len(text) > LARGEST:
        raise CertificateError(f"it has {len(text)} bytes, more than any certificate")
    if not text.endswith(b"\n"):
        raise CertificateError("its envelope is cut off")
    envelope = strictly(text[:-1], "its envelope")
    if envelope.keys() != {"payload", "payloadType", "signatures"}:
        raise CertificateError(
            f"its envelope has the fields {_short(sorted(envelope))}, expected those of DSSE"
        )
    if envelope["payloadType"] != PAYLOAD_TYPE:
        raise CertificateError(
            f"its payload is of type {_short(envelope['payloadType'])}, expected {PAYLOAD_TYPE}"
        )
    payload = _unpacked(envelope["payload"], "its payload")
    signatures = envelope["signatures"]
    if not isinstance(signatures, list) or not 1 <= len(signatures) <= _MOST_SIGNATURES:
        raise CertificateError("its envelope has no list of signatures")
    trusted = {key_id(key): key for key in keys}
    found = [_signer(one, payload, trusted) for one in signatures]
    if len({*found}) < len(found):
        raise CertificateError("its envelope has two signatures of one key")
    return payload, found[0]


def _signer(signature: object, payload: bytes, trusted: Mapping[str, Any]) -> str:
    if not isinstance(signature, dict) or signature.keys() != {"keyid", "sig"}:
        raise CertificateError("its envelope has a signature without keyid and sig")
    named = signature["keyid"]
    if not isinstance(named, str) or named not in trusted:
        raise CertificateError(
            f"it is signed with the key {_short(named)}, which is none that is trusted here"
        )
    given = _unpacked(signature["sig"], "its signature")
    try:
        trusted[named].verify(given, _signed(PAYLOAD_TYPE, payload))
    except _package("cryptography.exceptions").InvalidSignature:
        raise CertificateError("its signature does not hold: it was changed after it was signed") from None
    return named


def _signed(kind: str, payload: bytes) -> bytes:
    """What is signed: DSSE's pre-authentication encoding."""
    return b"DSSEv1 %d %s %d %s" % (len(kind.encode()), kind.encode(), len(payload), payload)


def _unpacked(text: object, what: str) -> bytes:
    try:
        if not isinstance(text, str):
            raise ValueError(a_type(text))
        found = base64.b64decode(text, validate=True)
        if base64.b64encode(found).decode("ascii") != text:
            raise ValueError("it is spelled otherwise than it was written")
    except (ValueError, binascii.Error) as error:
        raise CertificateError(f"{what} is no base64 ({_short(error)})") from error
    return found


def key_id(key: Any) -> str:
    """SHA-256, in hex, of a public key (its SubjectPublicKeyInfo in DER)."""
    forms = _package("cryptography.hazmat.primitives.serialization")
    return hashlib.sha256(
        key.public_bytes(forms.Encoding.DER, forms.PublicFormat.SubjectPublicKeyInfo)
    ).hexdigest()


_MAKE: Final = "make one with `openssl genpkey -algorithm ed25519 -out key.pem`"
_SIGN: Final = "give the private one that it belongs to"
_PUBLIC: Final = "give what `openssl pkey -in key.pem -pubout` writes"


def private_key(path: str | os.PathLike[str]) -> Any:
    """The Ed25519 key to sign with that a PEM file holds.

    Raises:
        SettingsError: it cannot be read, is none, or needs a password that is not in ``REFLEX_KEY_PASSWORD``.
        MissingPackageError: cryptography is not installed.
    """
    forms, text = _package("cryptography.hazmat.primitives.serialization"), _read(path, _MAKE)
    password = os.environ.get(PASSWORD)
    try:
        found = forms.load_pem_private_key(text, password.encode() if password else None)
    except Exception as error:  # whatever a file of another form leads to, in one library or another
        if b"PUBLIC KEY" in text:
            raise SettingsError(f"key: {path} is a public key, which signs nothing; {_SIGN}") from error
        asks = f"; its password goes into {PASSWORD}" if "assword" in str(error) else ""
        raise SettingsError(
            f"key: {path} is no private key in PEM ({_short(error)}){asks}; {_MAKE}"
        ) from error
    if not isinstance(found, _ed25519().Ed25519PrivateKey):
        raise SettingsError(f"key: {path} is {a_type(found)}, expected Ed25519; {_MAKE}")
    return found


def public_key(path: str | os.PathLike[str]) -> Any:
    """The Ed25519 key to verify with that a PEM file holds, and nothing else.

    Raises:
        SettingsError: it cannot be read, or is none.
        MissingPackageError: cryptography is not installed.
    """
    forms, text = _package("cryptography.hazmat.primitives.serialization"), _read(path, _PUBLIC)
    if b"PRIVATE" in text:
        raise SettingsError(f"key: {path} is a private key, which is not to lie here; {_PUBLIC}")
    try:
        found = forms.load_pem_public_key(text)
    except Exception as error:
        raise SettingsError(f"key: {path} is no public key in PEM ({_short(error)}); {_PUBLIC}") from error
    if not isinstance(found, _ed25519().Ed25519PublicKey):
        raise SettingsError(f"key: {path} is {a_type(found)}, expected Ed25519; {_PUBLIC}")
    if found.public_bytes(forms.Encoding.PEM, forms.PublicFormat.SubjectPublicKeyInfo) != text:
        raise SettingsError(f"key: {path} holds more than one public key; {_PUBLIC}")
    return found


def _read(path: str | os.PathLike[str], way: str) -> bytes:
    try:
        return read_file(path, _MOST_KEY_BYTES, "key")
    except (OSError, ValueError) as error:
        said = getattr(error, "strerror", None) or error
        raise SettingsError(f"key: {path} cannot be read ({said}); {way}") from error


def read_file(path: str | os.PathLike[str], most: int, what: str) -> bytes:
    """A file's bytes, once it is sure that they end and are not too many.

    Args:
        path: where it is; a link is followed.
        most: so many bytes it has at most.
        what: what it is to be, in a word.

    Raises:
        SettingsError: it is no regular file (of a pipe nobody knows when it ends), or too large.
        OSError: it cannot be read.
        ValueError: its name can be none.
    """
    require_file(path, most, what)
    # Should another file have come there meanwhile, a pipe is not waited for.
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as stream:
        _require_kind(os.fstat(stream.fileno()), path, most, what)
        found = stream.read(most + 1)
    if len(found) > most:
        raise SettingsError(f"{what}: {path} grows while it is read")
    return found


def require_file(path: str | os.PathLike[str], most: int, what: str) -> None:
    """Refuse what is there and is no regular file, or larger than ``most`` bytes; see :func:`read_file`."""
    with contextlib.suppress(OSError, ValueError):  # whoever reads it says why it cannot be read
        _require_kind(os.stat(path), path, most, what)


def _require_kind(found: os.stat_result, path: str | os.PathLike[str], most: int, what: str) -> None:
    if not stat.S_ISREG(found.st_mode):
        kind = "directory" if stat.S_ISDIR(found.st_mode) else "pipe, socket or device"
        raise SettingsError(f"{what}: {path} is a {kind}; give a regular file")
    if found.st_size > most:
        raise SettingsError(
            f"{what}: {path} has {found.st_size} bytes, expected at most {most}; give another"
        )


def _ed25519() -> Any:
    return _package("cryptography.hazmat.primitives.asymmetric.ed25519")


def _package(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise MissingPackageError(
            "certificates need cryptography, which is not installed; pip install 'pytest-reflex[certify]'"
        ) from error


def _short(value: object) -> str:
    text = str(value) if isinstance(value, BaseException) else repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
