"""A whole run as JSON and back, at full precision; ``parity.schema.json`` beside this explains each key."""

from pytest_reflex.report.json.documents import (
    SCHEMA_VERSION,
    TOOL,
    Entry,
    Run,
    document,
    error_document,
    read,
    read_run,
    run_of,
    schema,
)
from pytest_reflex.report.json.results import result_from_json, result_to_json
from pytest_reflex.report.json.values import dumps, number, plain

__all__ = [
    "SCHEMA_VERSION",
    "TOOL",
    "Entry",
    "Run",
    "document",
    "dumps",
    "error_document",
    "number",
    "plain",
    "read",
    "read_run",
    "result_from_json",
    "result_to_json",
    "run_of",
    "schema",
]
