"""What the build adds to the metadata: the README as an index shows it, with no other file beside it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

try:
    from hatchling.metadata.plugin.interface import MetadataHookInterface
except ModuleNotFoundError:  # a test that asks for the text alone
    MetadataHookInterface = object

RELATIVE = re.compile(r"\]\((?!https?:|#|mailto:)([^)]+)\)")


def readme(root: Path, source: str, version: str) -> str:
    """The README with links into the repository at its version instead of to files beside it."""
    text = (root / "README.md").read_text(encoding="utf-8")
    return RELATIVE.sub(lambda link: f"]({source}/blob/v{version}/{link[1]})", text)


class CustomMetadataHook(MetadataHookInterface):
    def update(self, metadata: dict[str, Any]) -> None:
        text = readme(Path(self.root), metadata["urls"]["Source"], metadata["version"])
        metadata["readme"] = {"content-type": "text/markdown", "text": text}
