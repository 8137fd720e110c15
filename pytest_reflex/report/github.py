"""What GitHub Actions is told, when it is GitHub Actions: a job summary, and annotations beside the code."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pytest_reflex.report.json.documents import Run


def running() -> bool:
    """Whether this process runs in a GitHub Actions job, by the variable it sets there."""
    return os.environ.get("GITHUB_ACTIONS") == "true"


def annotation(message: str, *, title: str, file: str = "", line: int = 0) -> str:
    """A workflow command that shows an error, at a line of a file where one is given.

    Args:
        message: what is wrong.
        title: its heading.
        file: the file, relative to the repository.
        line: the line in it, from 1.
    """
    where = f"file={_property(file)},line={line}," if file else ""
    return f"::error {where}title={_property(title)}::{_message(message)}"


def from_workspace(path: str | os.PathLike[str]) -> str:
    """A file as the annotations of a repository name it: relative to the checkout, with forward slashes."""
    full = os.path.abspath(path)
    root = os.environ.get("GITHUB_WORKSPACE")
    inside = root and os.path.commonpath([root, full]) == os.path.abspath(root)
    return os.path.relpath(full, root if inside else None).replace(os.sep, "/")


def add_summary(run: Run | Mapping[str, Any], against: Run | None = None) -> str:
    """Append the run to the job's summary; empty, or why it could not be written."""
    path = os.environ.get("GITHUB_STEP_SUMMARY")
    if not running() or not path:
        return ""
    from pytest_reflex.report.markdown import markdown

    try:
        with open(path, "a", encoding="utf-8") as file:
            file.write(markdown(run, against) + "\n")
    except OSError as error:
        return f"{path}: the job summary could not be written ({error.strerror or error})"
    return ""


def _message(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _message(text).replace(":", "%3A").replace(",", "%2C")
