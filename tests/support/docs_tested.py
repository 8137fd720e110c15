"""The versions that `reflex doctor` calls tested; run as a script it writes them again."""

from __future__ import annotations

import json
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PLACE = ROOT / "pytest_reflex" / "cli" / "tested.json"


def tested_versions() -> str:
    """By package, in order, the versions that the constraints of both environments name, as JSON."""
    pinned: dict[str, list[str]] = {}
    for name in ("newest", "lerobot"):
        text = (ROOT / "constraints" / f"{name}.txt").read_text(encoding="utf-8")
        for package, version in re.findall(r"^([\w.-]+)==([\w.+!-]+)", text, re.MULTILINE):
            versions = pinned.setdefault(package.lower().replace("_", "-"), [])
            if version not in versions:
                versions.append(version)
    wanted = re.findall(r'^    "([\w-]+)[\w,\[\]]*[>=<]', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    wanted += ["websockets", "msgpack"]
    return json.dumps({name: pinned[name] for name in sorted({*wanted} & pinned.keys())}, indent=2) + "\n"


if __name__ == "__main__":
    PLACE.write_text(tested_versions(), encoding="utf-8")
