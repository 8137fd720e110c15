"""What somebody may do to a certificate, its bundle or the key that it is verified with; none is accepted.

Each way is a function of a :class:`Place` that may be changed at will, and of a random generator. What a key
that is trusted signs is its owner's word: of such statements those alone are here that say of no strict pass,
of other files, or nothing that can be read.
"""

from __future__ import annotations

import base64
import json
import random
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, x25519

from exporters.bundle.certificate import CERTIFICATE, certified, certify
from exporters.bundle.envelope import PAYLOAD_TYPE, canonical, key_id
from exporters.bundle.manifest import seal
from exporters.bundle.store import StoredBundle, verified
from pytest_reflex.errors import ReflexError

# The order of Ed25519's group (RFC 8032): a signature's second half is below it.
_ORDER = 2**252 + 27742317777372353535851937790883648493


@dataclass
class Place:
    """A certified bundle, and the key that it is verified with.

    Attributes:
        bundle: its directory, with the certificate.
        key: the file of the public key that is trusted.
        signer: the key itself.
        stranger: a key that nobody trusts.
        other: a certificate of another bundle by the trusted key.
    """

    bundle: Path
    key: Path
    signer: ed25519.Ed25519PrivateKey
    stranger: ed25519.Ed25519PrivateKey
    other: bytes

    @property
    def certificate(self) -> Path:
        return self.bundle / CERTIFICATE

    @property
    def envelope(self) -> dict[str, Any]:
        return dict(json.loads(self.certificate.read_bytes()))

    @property
    def statement(self) -> dict[str, Any]:
        return dict(json.loads(base64.b64decode(self.envelope["payload"])))

    def put(self, envelope: object) -> None:
        self.certificate.write_bytes(canonical(envelope) + b"\n")

    def resigned(self, payload: bytes, *, kind: str = PAYLOAD_TYPE, said: str = PAYLOAD_TYPE) -> None:
        """An envelope of a payload by the trusted key, signed as one type and said to be another."""
        signed = b"DSSEv1 %d %s %d %s" % (len(kind), kind.encode(), len(payload), payload)
        signature = {"keyid": key_id(self.signer.public_key()), "sig": _b64(self.signer.sign(signed))}
        self.put({"payload": _b64(payload), "payloadType": said, "signatures": [signature]})


def made(work: Path, bundle: Path, other: Path) -> Place:
    """Copies of two bundles that passed strictly, certified."""
    signer, stranger = (ed25519.Ed25519PrivateKey.generate() for _ in range(2))
    secret = work / "key.pem"
    secret.write_bytes(
        signer.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    key = work / "key.pub"
    key.write_bytes(public_pem(signer.public_key()))
    places = []
    for source, name in ((bundle, "bundle"), (other, "other")):
        path, manifest, _ = verified(shutil.copytree(source, work / name))
        certify(StoredBundle(path, manifest), secret)
        places.append(path)
    return Place(places[0], key, signer, stranger, (places[1] / CERTIFICATE).read_bytes())


def public_pem(key: Any) -> bytes:
    forms = serialization
    return bytes(key.public_bytes(forms.Encoding.PEM, forms.PublicFormat.SubjectPublicKeyInfo))


class Kept:
    """The files of a place as they were, to be put back after each change."""

    def __init__(self, place: Place) -> None:
        self._files = {path: path.read_bytes() for path in (*place.bundle.iterdir(), place.key)}
        self._bundle = place.bundle

    def changed(self) -> bool:
        return any(not p.is_file() or p.read_bytes() != text for p, text in self._files.items()) or (
            {*self._bundle.iterdir()} != {p for p in self._files if p.parent == self._bundle}
        )

    def restore(self) -> None:
        for path in {*self._bundle.iterdir()} - self._files.keys():
            path.unlink()
        for path, text in self._files.items():
            if path.is_dir():
                shutil.rmtree(path)
            if not path.is_file() or path.read_bytes() != text:
                path.write_bytes(text)


def accepted(place: Place) -> bool:
    """Whether it is taken for certified; anything but a yes or one line of no is an error of the test."""
    try:
        path, manifest, changed = verified(place.bundle)
        held = certified(StoredBundle(path, manifest, changed=changed), [place.key])
    except ReflexError as refusal:
        said = str(refusal)
        if not said.strip() or "\n" in said:
            raise ValueError(f"a refusal in no line, or in several: {said!r}") from refusal
        return False
    return bool(held.text)


Tampering = Callable[[Place, random.Random], None]


def _b64(value: bytes) -> str:
    return base64.b64encode(value).decode()


def _any_byte(text: bytes, rng: random.Random) -> bytes:
    """One of: a bit flipped, a byte exchanged, cut, lengthened, a part twice or gone, two parts exchanged."""
    at, to = sorted((rng.randrange(len(text)), rng.randrange(len(text))))
    end = min(to + 1, at + 40)
    return rng.choice(
        (
            lambda: text[:at] + bytes([text[at] ^ (1 << rng.randrange(8))]) + text[at + 1 :],
            lambda: text[:at] + bytes([(text[at] + rng.randrange(1, 256)) % 256]) + text[at + 1 :],
            lambda: text[:at],
            lambda: text[:at] + rng.randbytes(rng.randrange(1, 9)) + text[at:],
            lambda: text + rng.choice((b"\n", b" ", b"\0", b"{}", text)),
            lambda: text[:end] + text[at:end] + text[end:],
            lambda: text[:at] + text[end:],
        )
    )()


def _file(which: Callable[[Place, random.Random], Path]) -> Tampering:
    def tamper(place: Place, rng: random.Random) -> None:
        file = which(place, rng)
        file.write_bytes(_any_byte(file.read_bytes(), rng))

    return tamper


def _strings(value: object, way: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The ways to every value of a JSON document but its containers."""
    items = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    )
    if items is None:
        return [way]
    return [found for key, held in items for found in _strings(held, (*way, key))]


def _set(value: Any, way: tuple[Any, ...], new: object) -> None:
    for key in way[:-1]:
        value = value[key]
    value[way[-1]] = new


def _get(value: Any, way: tuple[Any, ...]) -> Any:
    for key in way:
        value = value[key]
    return value


_LIKE = {
    "a": "\u0430",
    "e": "\u0435",
    "o": "\u043e",
    "s": "\u0455",
    "i": "\u0456",
    "p": "\uff50",
    "d": "\u0501",
}


def _other_value(value: object, rng: random.Random) -> object:
    """Another value: one that looks alike, one of another type, one that is nearly the same."""
    choices: list[object] = [
        None,
        [],
        {},
        "",
        0,
        -1,
        1e308,
        10**40,
        [value],
        {"sha256": value},
        "\ud800",
        "\0",
    ]
    if isinstance(value, str):
        for plain, like in _LIKE.items():
            if plain in value:
                choices += [value.replace(plain, like, 1)] * 2
        choices += [
            value + "\u200b",
            value.upper(),
            value[:-1],
            value + " ",
            "\ufeff" + value,
            value + "\u0301",
        ]
    elif isinstance(value, bool):
        choices += [not value] * 4
    elif isinstance(value, int | float):
        choices += [value + 1, -value, float(value) / 2, str(value)]
    unlike = [choice for choice in choices if canonical([choice]) != canonical([value])]
    return rng.choice(unlike)


def _payload_value(place: Place, rng: random.Random) -> None:
    """A value of the statement, under the signature that was."""
    statement, envelope = place.statement, place.envelope
    way = rng.choice(_strings(statement))
    _set(statement, way, _other_value(_get(statement, way), rng))
    place.put({**envelope, "payload": _b64(canonical(statement))})


def _two_values(place: Place, rng: random.Random) -> None:
    """Two values of the statement exchanged, under the signature that was."""
    statement, envelope = place.statement, place.envelope
    ways = _strings(statement)
    while True:
        one, other = rng.choice(ways), rng.choice(ways)
        left, right = _get(statement, one), _get(statement, other)
        if canonical([left]) != canonical([right]):
            break
    _set(statement, one, right)
    _set(statement, other, left)
    place.put({**envelope, "payload": _b64(canonical(statement))})


def _envelope_value(place: Place, rng: random.Random) -> None:
    envelope = place.envelope
    way = rng.choice([*_strings(envelope), ("signatures",), ("signatures", 0)])
    _set(envelope, way, _other_value(_get(envelope, way), rng))
    place.put(envelope)


def _twice(text: str, rng: random.Random) -> str:
    """A JSON text with one of its names twice, the true value first or last, or spelled with an escape."""
    keys = [at for at in range(len(text)) if text[at] == '"' and text[at - 1] in "{,"]
    at = rng.choice(keys)
    name = json.loads(text[at : text.index('"', at + 1) + 1])
    spelled = rng.choice((json.dumps(name), '"' + "".join(f"\\u{ord(c):04x}" for c in name) + '"'))
    lie = f"{spelled}:{json.dumps(rng.choice((None, 1, 'PASSED', [], {}, name)))},"
    if rng.random() < 0.5:
        return text[:at] + lie + text[at:]
    end = text.rindex("}") if text[at - 1] == "{" and at == 1 else at
    return text[:at] + lie + text[at:] if end == at else text[:end] + "," + lie[:-1] + text[end:]


def _doubled_envelope(place: Place, rng: random.Random) -> None:
    text = place.certificate.read_text().rstrip("\n")
    place.certificate.write_text(_twice(text, rng) + "\n")


def _doubled_statement(place: Place, rng: random.Random) -> None:
    """By the trusted key itself: which of the two values would hold?"""
    place.resigned(_twice(canonical(place.statement).decode(), rng).encode())


def _respelled(place: Place, rng: random.Random) -> None:
    """The same JSON in another spelling: nothing that is signed is changed, and it is another file."""
    envelope = place.envelope
    text = rng.choice(
        (
            lambda: json.dumps(envelope, indent=rng.randrange(5)),
            lambda: json.dumps(envelope),
            lambda: json.dumps(dict(reversed(envelope.items())), separators=(",", ":")),
            lambda: canonical(envelope).decode().replace("payload", "p\\u0061yload", 1),
            lambda: "\ufeff" + canonical(envelope).decode(),
            lambda: canonical(envelope).decode() + "\n",
        )
    )()
    place.certificate.write_text(text + "\n", encoding=rng.choice(("utf-8", "utf-8", "utf-16")))


def _respelled_base64(place: Place, rng: random.Random) -> None:
    envelope = place.envelope
    holder, name = rng.choice(((envelope, "payload"), (envelope["signatures"][0], "sig")))
    text = str(holder[name])
    at = rng.randrange(len(text))
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    last = text.rstrip("=")
    loose = last[:-1] + letters[letters.index(last[-1]) ^ 1] + "=" * (len(text) - len(last))
    spelled = rng.choice(
        (
            text[:at] + "\n" + text[at:],
            text[:at] + " " + text[at:],
            text + "=",
            text + "====",
            loose,
            text[:-1],
        )
    )
    holder[name] = spelled if spelled != text else text + "=="
    place.put(envelope)


def _other_type(place: Place, rng: random.Random) -> None:
    """Signed as another type of payload, or said to be one."""
    other = rng.choice(
        (
            "application/json",
            "application/vnd.in-toto+jsox",
            PAYLOAD_TYPE.upper(),
            PAYLOAD_TYPE + " ",
            "",
            "text/html",
        )
    )
    payload = canonical(place.statement)
    kinds = rng.choice(((other, PAYLOAD_TYPE), (PAYLOAD_TYPE, other), (other, other)))
    place.resigned(payload, kind=kinds[0], said=kinds[1])


def _shifted_lengths(place: Place, rng: random.Random) -> None:
    """What was signed cut at another place: DSSE's lengths are there to tell."""
    payload, envelope = canonical(place.statement), place.envelope
    cut = rng.randrange(1, 30)
    moved = payload[:cut].decode()
    place.put(
        {**envelope, "payloadType": f"{PAYLOAD_TYPE} {len(payload)} {moved}", "payload": _b64(payload[cut:])}
    )


def _stranger(place: Place, rng: random.Random) -> None:
    """Signed by a key that nobody trusts, under its own name, the trusted one's or none; alone or beside."""
    payload, envelope = canonical(place.statement), place.envelope
    signed = b"DSSEv1 %d %s %d %s" % (len(PAYLOAD_TYPE), PAYLOAD_TYPE.encode(), len(payload), payload)
    names = (key_id(place.stranger.public_key()), key_id(place.signer.public_key()), "")
    made = {"keyid": rng.choice(names), "sig": _b64(place.stranger.sign(signed))}
    true = envelope["signatures"]
    envelope["signatures"] = rng.choice(([made], [*true, made], [made, *true]))
    place.put(envelope)


def _signatures(place: Place, rng: random.Random) -> None:
    envelope = place.envelope
    (true,) = envelope["signatures"]
    raw = base64.b64decode(true["sig"])
    added = int.from_bytes(raw[32:], "little") + _ORDER
    changes: tuple[object, ...] = (
        [],
        [true, true],
        true,
        [[true]],
        [{**true, "cert": ""}],
        [{"sig": true["sig"]}],
        [{**true, "sig": _b64(raw[:32] + added.to_bytes(32, "little"))}],
        [{**true, "sig": _b64(raw[32:] + raw[:32])}],
        [{**true, "sig": _b64(bytes(64))}],
        [{**true, "sig": _b64(raw + b"\0")}],
        [{**true, "sig": ""}],
        [true] * 10_000,
    )
    place.put({**envelope, "signatures": rng.choice(changes)})


def _nonsense(place: Place, rng: random.Random) -> None:
    """No envelope at all."""
    texts = (b"", b"\n", b"[]\n", b"null\n", b"0\n", b"NaN\n", b"[" * 100_000 + b"\n", b"9" * 10_000 + b"\n")
    more = (b'{"a":' * 2_000 + b"1" + b"}" * 2_000 + b"\n", rng.randbytes(200) + b"\n", b"\xff\xfe{}\n")
    place.certificate.write_bytes(rng.choice((*texts, *more)))


def _lying_statement(place: Place, rng: random.Random) -> None:
    """Signed by the trusted key, and no certificate of a strict pass of these files."""
    said = place.statement
    subject, predicate = said["subject"], said["predicate"]
    terms = predicate["configuration"][0]["annotations"]
    one = rng.randrange(len(subject))
    typed = [name for name in terms if name not in ("seed", "max_abs_diff", "coverage")]
    changes: tuple[Callable[[], object], ...] = (
        lambda: said.update(_type=rng.choice(("https://in-toto.io/Statement/v0.1", None, 1, []))),
        lambda: said.update(predicateType=rng.choice(("https://slsa.dev/provenance/v1", "", None, {}))),
        lambda: said.update(subject=rng.choice(([], None, {}, subject * 2, "all", [None], [{}], [1]))),
        lambda: subject.pop(one),
        lambda: subject.append({"name": "x", "digest": {"sha256": "0" * 64}}),
        lambda: subject[one].update(digest=rng.choice(({}, None, {"sha512": "0"}, {"sha256": ["0" * 64]}))),
        lambda: subject[one].update(name=_other_value(subject[one]["name"], rng)),
        lambda: subject[one]["digest"].update(sha256=_other_value(subject[one]["digest"]["sha256"], rng)),
        lambda: said.update(predicate=rng.choice((None, [], {}, "PASSED"))),
        lambda: predicate.update(result=rng.choice(("FAILED", "WARNED", "passed", None, True, ["PASSED"]))),
        lambda: predicate.update(failedTests=rng.choice((["threshold"], None, "", {}))),
        lambda: predicate.update(configuration=rng.choice(([], None, {}, [1], [{}], [{"annotations": 1}]))),
        lambda: predicate.update(configuration=predicate["configuration"] * 2),
        lambda: terms.update(strict=rng.choice((False, 1, "true", None))),
        lambda: terms.update(
            format=rng.choice(("reflex-certificate/2", 1, None, "", ["reflex-certificate/1"]))
        ),
        lambda: terms.pop(rng.choice(list(terms))),
        lambda: terms.update({rng.choice(typed): rng.choice((None, [], ["x"]))}),
        lambda: terms.update(claim=rng.choice(({}, {"text": 1}, {"text": None}))),
        lambda: terms.update(integers=rng.choice(("saturating", "whole", "unknown", ""))),
    )
    rng.choice(changes)()
    place.resigned(canonical(said))


def _no_statement(place: Place, rng: random.Random) -> None:
    """Signed by the trusted key, and nothing that can be read."""
    true = canonical(place.statement)
    texts = (
        b"",
        b"[]",
        b"null",
        b"{}",
        b"1e999",
        true + b"\n",
        b" " + true,
        true[:-1],
        b"[" * 50_000,
        rng.randbytes(50),
    )
    place.resigned(rng.choice(texts))


def _own_file(place: Place, rng: random.Random) -> Path:
    return rng.choice(sorted(p for p in place.bundle.iterdir() if p.name != CERTIFICATE))


def _exchanged_files(place: Place, rng: random.Random) -> None:
    names = [p for p in place.bundle.iterdir() if p.name != CERTIFICATE]
    one, other = rng.sample(sorted(names), 2)
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)


def _lost_file(place: Place, rng: random.Random) -> None:
    _own_file(place, rng).unlink()


def _resealed_bundle(place: Place, rng: random.Random) -> None:
    """A file changed, or a value of the manifest, and every digest of the bundle made to fit."""
    import hashlib

    manifest = place.bundle / "reflex.json"
    said = json.loads(manifest.read_text())
    if rng.random() < 0.5:
        file = place.bundle / rng.choice(sorted(said["files"]))
        file.write_bytes(_any_byte(file.read_bytes(), rng))
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        said["files"][file.name] = {"size": file.stat().st_size, "sha256": digest}
    else:
        way = rng.choice([way for way in _strings(said) if way[0] != "sha256"])
        _set(said, way, _other_value(_get(said, way), rng))
    said["sha256"] = seal(said)
    manifest.write_text(json.dumps(said, indent=2) + "\n")


def _other_certificate(place: Place, rng: random.Random) -> None:
    """The trusted key's certificate of another bundle, or halves of both."""
    mine, other = place.envelope, json.loads(place.other)
    halves: tuple[object, ...] = (
        other,
        {**mine, "payload": other["payload"]},
        {**mine, "signatures": other["signatures"]},
        {**mine, "signatures": [*mine["signatures"], *other["signatures"]]},
    )
    place.put(rng.choice(halves))


def _other_key(place: Place, rng: random.Random) -> None:
    mine = place.key.read_bytes()
    others: tuple[Callable[[], bytes], ...] = (
        lambda: public_pem(ed25519.Ed25519PrivateKey.generate().public_key()),
        lambda: public_pem(x25519.X25519PrivateKey.generate().public_key()),
        lambda: public_pem(ec.generate_private_key(ec.SECP256R1()).public_key()),
        # Points of small order, on which a signature of some texts is easily forged.
        lambda: public_pem(ed25519.Ed25519PublicKey.from_public_bytes(bytes(32))),
        lambda: public_pem(ed25519.Ed25519PublicKey.from_public_bytes(b"\1" + bytes(31))),
        lambda: mine + public_pem(place.stranger.public_key()),
        lambda: public_pem(place.stranger.public_key()) + mine,
        lambda: b"",
        lambda: rng.randbytes(100),
        lambda: mine.replace(b"PUBLIC", b"PRIVATE"),
        lambda: mine.replace(b"\n", b"\r\n"),
        lambda: mine + b"\n",
    )
    place.key.write_bytes(rng.choice(others)())


def _no_key_file(place: Place, rng: random.Random) -> None:
    place.key.unlink()
    if rng.random() < 0.5:
        place.key.mkdir()


TAMPERINGS: Mapping[str, Tampering] = {
    "certificate: bytes": _file(lambda place, rng: place.certificate),
    "certificate: a value of the statement": _payload_value,
    "certificate: two values exchanged": _two_values,
    "certificate: a value of the envelope": _envelope_value,
    "certificate: a name twice in the envelope": _doubled_envelope,
    "certificate: a name twice in a signed statement": _doubled_statement,
    "certificate: another spelling": _respelled,
    "certificate: another spelling of base64": _respelled_base64,
    "certificate: another type of payload": _other_type,
    "certificate: lengths shifted": _shifted_lengths,
    "certificate: a stranger's signature": _stranger,
    "certificate: signatures": _signatures,
    "certificate: nonsense": _nonsense,
    "certificate: a signed statement that says less": _lying_statement,
    "certificate: a signed statement that cannot be read": _no_statement,
    "certificate: another bundle's": _other_certificate,
    "bundle: bytes": _file(_own_file),
    "bundle: two files exchanged": _exchanged_files,
    "bundle: a file lost": _lost_file,
    "bundle: changed and sealed again": _resealed_bundle,
    "key: bytes": _file(lambda place, rng: place.key),
    "key: another": _other_key,
    "key: no file": _no_key_file,
}
