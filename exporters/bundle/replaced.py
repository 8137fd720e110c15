"""What a bundle was proven with, beside the one whose place it takes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from exporters.bundle.manifest import read_manifest
from pytest_reflex.errors import BundleError, ReflexError
from pytest_reflex.report.json.results import tolerances_from_json


def replaced(directory: str | os.PathLike[str], manifest: Mapping[str, Any]) -> str:
    """In what a new bundle differs from the one at ``directory``; empty where there is none, or in nothing.

    Args:
        directory: where it will lie.
        manifest: the new one's.
    """
    try:
        before, after = _terms(read_manifest(Path(directory))[0]), _terms(manifest)
    except (BundleError, OSError):
        return ""
    changes = [f"{name} {before[name]} -> {after[name]}" for name in after if before[name] != after[name]]
    return f"the earlier bundle is replaced: {', '.join(changes)}" if changes else ""


def _terms(manifest: Mapping[str, Any]) -> dict[str, object]:
    """What it was made and proven with, by name."""
    check = manifest.get("check")
    proof: Mapping[str, Any] = check if isinstance(check, Mapping) else {}
    precision = manifest.get("precision")
    return {
        "family": manifest.get("family"),
        "layout": manifest.get("layout"),
        "steps": manifest.get("steps"),
        "precision": precision.get("name") if isinstance(precision, Mapping) else "float32",
        "verdict": ("pass" if proof.get("passed") else "fail") if proof else "none",
        "fixtures": len(proof.get("fixtures", ())),
        "threshold": _threshold(proof),
        "strict": proof.get("strict", False),
        "inputs": [f"{i.get('name')} {i.get('shape')}" for i in manifest.get("inputs", ())],
    }


def _threshold(proof: Mapping[str, Any]) -> str:
    """Every tolerance that a verdict was asked for; one of an older version has no more than a number."""
    try:
        return tolerances_from_json(proof.get("asked")).text
    except ReflexError:
        return f"{proof['threshold']:g}" if isinstance(proof.get("threshold"), float) else "none"
