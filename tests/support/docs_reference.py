"""Two reference pages that are read off the code: ``python tests/support/docs_reference.py`` writes them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from pytest_reflex.cli.commands import app
from pytest_reflex.report.json import SCHEMA_VERSION, schema
from pytest_reflex.settings import RUN

PLACE = Path(__file__).resolve().parents[2] / "docs" / "reference"


def commands_page() -> str:
    """Every command with its arguments and options, and pytest's options with their ini twins."""
    parts = [
        "# Commands and options",
        "Every `reflex` command exits with 0 on a pass, 1 on a fail and 2 when no verdict could be reached. "
        "With `--output-json` stdout is one [JSON document](json.md) and nothing else.",
    ]
    for path, command in _commands(app, "reflex"):
        arguments = [
            a.make_metavar(click.Context(command)) for a in command.params if isinstance(a, click.Argument)
        ]
        parts += [f"## `{' '.join([path, *arguments])}`", " ".join(str(command.help).split())]
        rows = [_option(p) for p in command.params if isinstance(p, click.Option)]
        parts.append(_table(("option", "default", "meaning"), rows))
    parts += [
        "## pytest",
        "The command line wins over the keywords of `parity.check`, they over the `parity` marker, "
        "the marker over the ini file.",
        _table(
            ("option", "ini", "meaning"),
            [
                (
                    f"`{' '.join(filter(None, (', '.join(s.flags(name, '--reflex-')), s.metavar)))}`",
                    f"`reflex_{name}`",
                    s.help_with_default,
                )
                for name, s in RUN.items()
            ],
        ),
    ]
    return "\n\n".join(parts) + "\n"


def _commands(group: click.Group, path: str) -> Iterator[tuple[str, click.Command]]:
    for name, command in sorted(group.commands.items()):
        if isinstance(command, click.Group):
            yield from _commands(command, f"{path} {name}")
        else:
            yield f"{path} {name}", command


def _option(option: click.Option) -> tuple[str, str, str]:
    names = ", ".join((*option.opts, *option.secondary_opts))
    number = isinstance(option.type, click.IntRange) and option.metavar is None
    shown = "N" if number else option.make_metavar(click.Context(click.Command("x")))
    metavar = "" if option.is_flag else f" {shown}"
    plain = option.default is None or option.is_flag or not isinstance(option.default, str | int)
    meaning = " ".join(str(option.help).split())
    return f"`{names}{metavar}`".replace("|", "\\|"), "" if plain else f"`{option.default}`", meaning


def json_page() -> str:
    """Every key of the document, from its schema."""
    found = schema()
    parts = [
        "# The JSON",
        str(found["description"]),
        f"This is version {SCHEMA_VERSION} of the schema, as `schema_version` says in every document. "
        "A key that is renamed, taken away or given another meaning makes a new version, and so does a new "
        "key: a document that a reader does not know is refused, never guessed at. The schema itself is "
        "`pytest_reflex/report/json/parity.schema.json` (JSON Schema 2020-12), or in Python:",
        '```python\nfrom pytest_reflex.report.json import schema\n\nprint(schema()["title"])\n```',
    ]
    for name, definition in found["$defs"].items():
        if definition.get("type") != "object":
            continue
        rows = [
            (f"`{key}`", _kind(entry), entry.get("description", ""))
            for key, entry in definition["properties"].items()
        ]
        parts += [f"## {name}", _table(("key", "type", "meaning"), rows)]
    parts += ["## Figures", str(found["$defs"]["figure"]["description"])]
    return "\n\n".join(parts) + "\n"


def _kind(entry: Mapping[str, Any]) -> str:
    if "$ref" in entry:
        return str(entry["$ref"]).rpartition("/")[2].replace("_", " ")
    if "oneOf" in entry:
        return " or ".join(_kind(one) for one in entry["oneOf"])
    if "const" in entry:
        return f"`{entry['const']}`"
    if "enum" in entry:
        return ", ".join(f"`{value}`" for value in entry["enum"])
    if entry["type"] == "array":
        return f"list of {_kind(entry['items'])}"
    kinds = entry["type"] if isinstance(entry["type"], list) else [entry["type"]]
    return " or ".join(kinds)


def _table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [f"| {' | '.join(header)} |", f"|{' --- |' * len(header)}"]
    return "\n".join(lines + [f"| {' | '.join(row)} |" for row in rows])


if __name__ == "__main__":
    for file, text in (("commands.md", commands_page()), ("json.md", json_page())):
        (PLACE / file).write_text(text, encoding="utf-8")
