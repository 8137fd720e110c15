"""The documentation's table of policies, out of the families themselves; run it to write the table again."""

from __future__ import annotations

import re
from pathlib import Path

from exporters.bundle.registry import FAMILIES, family_named

PAGE = Path(__file__).parents[2] / "docs" / "howto" / "bundles.md"
HEAD = "| family | the policy, live or from a checkpoint | reference | layouts |\n| --- | --- | --- | --- |\n"
_TABLE = re.compile(r"\| family \|.*\n\|(?: --- \|)+\n(?:\|.*\n)+")


def table() -> str:
    """A row for each family: its name, its policy, what is true of it, and how its bundles carry a loop."""
    rows = []
    for name in FAMILIES:
        family = family_named(name)
        layouts = f"`{family.layout}`, or another" if family.looped else "one graph, no loop"
        rows.append(f"| `{name}` | {family.about} | {family.judged_by} | {layouts} |\n")
    return HEAD + "".join(rows)


def written(text: str) -> str:
    """A page with the table as it is now."""
    return _TABLE.sub(table(), text, count=1)


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
