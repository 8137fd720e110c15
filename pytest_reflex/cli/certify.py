"""``reflex certify``: sign what was proven of a bundle, and verify it offline, without torch."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import click

from pytest_reflex.cli.report import FAIL, PASS, Reported
from pytest_reflex.errors import BundleError, CertificateError

# What whoever makes bundles does, and what whoever was given one does instead.
_MAKER: Final = "export the bundle again"
_VERIFIER: Final = "copy the bundle again from whoever certified it"


@click.command(short_help="Sign what was proven of a bundle, or verify it.")
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
@click.option(
    "--key",
    "keys",
    required=True,
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="PEM",
    help="The Ed25519 key to sign with; of --verify a public key that is trusted, also several.",
)
@click.option("--verify", is_flag=True, help="Verify the certificate that is there.")
@click.option(
    "--result",
    "verdict",
    type=click.Path(path_type=Path),
    metavar="JSON",
    help="Certify a later run of this bundle: its --output-json  [default: the verdict of its export]",
)
@click.option(
    "--certificate",
    "place",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Where it is  [default: DIR/certificate.json]",
)
def certify(
    directory: Path, keys: tuple[Path, ...], verify: bool, verdict: Path | None, place: Path | None
) -> Reported:
    """Sign that the bundle DIR passed, strictly, with these very files; or verify that somebody trusted did.

    Of --verify: exits 0 where the certificate holds, 1 where it does not. Neither runs a model.
    """
    from exporters.bundle import certificate
    from exporters.bundle.store import StoredBundle, verified

    if verify and verdict is not None:
        raise click.UsageError("--result was given, and --verify takes what was certified")
    if not verify and len(keys) > 1:
        raise click.UsageError("--key was given twice, and one key signs")
    try:
        path, manifest, changed = verified(directory)
        bundle = StoredBundle(path, manifest, changed=changed)
        if not verify:
            made = certificate.certify(bundle, keys[0], verdict=verdict, place=place)
            return Reported(PASS, f"Certificate: {certificate.escaped(str(made))}\n")
        held = certificate.certified(bundle, keys, place=place)
    except (CertificateError, BundleError) as error:
        if not verify:
            raise
        if not directory.exists():  # a slip of who asks, and nothing that was certified
            raise
        said = str(error).replace(_MAKER, _VERIFIER)
        return Reported(FAIL, f"certificate REFUSED: {certificate.shown(' '.join(said.split()))}\n")
    return Reported(PASS, f"certificate HOLDS\n{held.text}\n")
