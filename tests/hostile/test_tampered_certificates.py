"""Certificates, their bundles and keys, tampered with: others in every run, and none is accepted."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

pytest.importorskip("torch")

from serve_cases import made
from tampering import TAMPERINGS, Kept, Place, accepted
from tampering import made as certified_pair

pytestmark = pytest.mark.once
# What benchmarks/tampered_certificates.py does 10,000 times, with another seed each time.
OF_EACH = 12


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    work = tmp_path_factory.mktemp("certified")
    bundles = [made(work / f"of{seed}", seed=seed, strict=True) for seed in (0, 1)]
    return certified_pair(work, *bundles)


@pytest.mark.parametrize("name", TAMPERINGS)
def test_whatever_is_tampered_with_is_refused_in_one_line(place: Place, name: str) -> None:
    assert accepted(place)
    kept = Kept(place)
    for _ in range(OF_EACH):
        seed = random.SystemRandom().randrange(1 << 30)
        TAMPERINGS[name](place, random.Random(seed))
        assert kept.changed(), f"seed {seed} changed nothing"
        assert not accepted(place), f"seed {seed} was accepted"
        kept.restore()
    assert accepted(place)


def test_the_files_are_put_back(place: Place, tmp_path: Path) -> None:
    """Else one change would hide the next."""
    kept = Kept(place)
    (place.bundle / "stray").write_text("")
    place.certificate.unlink()
    place.key.unlink()
    place.key.mkdir()
    assert kept.changed()
    kept.restore()
    assert not kept.changed()
    assert accepted(place)
