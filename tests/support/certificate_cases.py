"""Keys to sign certificates with, and what a certificate says."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

PEM = serialization.Encoding.PEM


@dataclass(frozen=True)
class Keys:
    secret: Path
    public: Path


def keys_in(place: Path, password: bytes | None = None) -> Keys:
    made, forms = ed25519.Ed25519PrivateKey.generate(), serialization
    hidden = forms.BestAvailableEncryption(password) if password else forms.NoEncryption()
    found = Keys(place / "key.pem", place / "key.pub")
    found.secret.write_bytes(made.private_bytes(PEM, forms.PrivateFormat.PKCS8, hidden))
    public = made.public_key().public_bytes(PEM, forms.PublicFormat.SubjectPublicKeyInfo)
    found.public.write_bytes(public)
    return found


def statement_in(certificate: Path) -> dict[str, Any]:
    return dict(json.loads(base64.b64decode(json.loads(certificate.read_bytes())["payload"])))
