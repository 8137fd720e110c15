"""``reflex report``: make the report again from its JSON, of one run or of many shards."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from pytest_reflex import settings

if TYPE_CHECKING:
    from pytest_reflex.report.json.documents import Run
    from pytest_reflex.verdict.tolerances import Tolerances

PASS: Final = 0
FAIL: Final = 1
ERROR: Final = 2


@dataclass(frozen=True)
class Reported:
    """What a command leaves to be printed: its exit code, the text for stdout and the lines for stderr."""

    code: int
    text: str
    err: str = ""


def _again(name: str) -> Callable[[Callable[..., Reported]], Callable[..., Reported]]:
    """The option of a tolerance, which by default is what each result was asked for."""
    setting = settings.CHECK[name]

    def parsed(context: click.Context, parameter: click.Parameter, value: object) -> object:
        given = list(value) if isinstance(value, tuple) else value
        return setting.parse(given, f"--{name}") if given is not None and given != [] else None

    return click.option(
        f"--{name}", metavar=setting.metavar, multiple=setting.repeated, callback=parsed,
        help=f"Judge the results again: {setting.help}.",
    )  # fmt: skip


@click.command(short_help="Make, merge, compare and judge again stored results.")
@click.argument("files", nargs=-1, required=True, metavar="FILES|DIR...", type=click.Path(path_type=Path))
@click.option(
    "-o", "--out", metavar="DIR", default="parity_reports", show_default=True,
    type=click.Path(path_type=Path), help="Where index.html and parity.json are written.",
)  # fmt: skip
@_again("threshold")
@_again("rtol")
@click.option("--strict", is_flag=True, help="Judge them again with threshold 1e-5, and doubts as failures.")
@click.option("--against", metavar="OLD", type=click.Path(path_type=Path), help="Say what changed since OLD.")
@click.option("--markdown", metavar="FILE", type=click.Path(path_type=Path), help="Write a summary to FILE.")
@click.option("--output-json", is_flag=True, help="Print JSON to stdout and nothing else.")
def report(
    files: tuple[Path, ...],
    out: Path,
    threshold: Tolerances | None,
    rtol: float | None,
    strict: bool,
    against: Path | None,
    markdown: Path | None,
    output_json: bool,
) -> Reported:
    """Make the report of one run, or of many shards, from the JSON in FILES or of a DIR.

    Nothing is run: the results are put together, judged again where a tolerance is given, and written.
    The exit code is the verdict's.
    """
    from pytest_reflex.errors import ReflexError
    from pytest_reflex.report import github
    from pytest_reflex.report.html.pages import page
    from pytest_reflex.report.json.documents import read_run
    from pytest_reflex.report.json.values import dumps
    from pytest_reflex.report.markdown import markdown as as_markdown
    from pytest_reflex.report.merge import merge

    documents = [read_run(file) for given in files for file in _documents(given)]
    run = merge(documents, threshold=threshold, rtol=rtol, strict=strict)
    before = [] if against is None else [read_run(file) for file in _documents(against)]
    earlier = merge(before) if len(before) > 1 else next(iter(before), None)
    if earlier is not None and earlier.error is not None:
        raise ReflexError(f"{against}: reached no verdict, so nothing can be compared with it")
    as_json = dumps(run.to_json())
    texts = {out / "parity.json": as_json, out / "index.html": page(run, earlier)}
    if markdown is not None:
        texts[markdown] = as_markdown(run, earlier)
    written(texts)
    if problem := github.add_summary(run, earlier):
        click.echo(f"reflex: warning: {problem}", err=True)
    text = as_json if output_json else _said(run, earlier, out / "index.html")
    return Reported(PASS if run.passed else FAIL, text)


def written(texts: Mapping[Path, str]) -> None:
    """Write files, each whole or not at all.

    Raises:
        ReflexError: one cannot be written.
    """
    from pytest_reflex.errors import ReflexError
    from pytest_reflex.report.files import write_text

    for path, text in texts.items():
        try:
            write_text(path, text)
        except OSError as error:
            raise ReflexError(
                f"{path}: cannot be written ({error.strerror or error}); give another place"
            ) from error


def _documents(given: Path) -> list[Path]:
    """The JSON that is meant: of a directory its parity.json, or without one every .json in it."""
    from pytest_reflex.errors import ReflexError

    if not given.is_dir():
        return [given]
    own = given / "parity.json"
    found = sorted(given.glob("*.json"))
    if not found:
        raise ReflexError(f"{given}: holds no parity.json and no other .json; give the directory of a report")
    if own not in found:
        return found
    # It may be a report that was made of the others, and may be older than they are.
    if beside := next((file for file in found if file != own and not _is_in(file, own)), None):
        raise ReflexError(
            f"{given}: its parity.json has not all that {beside.name} beside it has; name the files that are "
            "meant, and write the report to another directory with --out"
        )
    return [own]


def _is_in(file: Path, whole: Path) -> bool:
    """Whether all that a document says is in another one; what is no document says nothing."""
    import json

    from pytest_reflex.report.json.documents import TOOL, read_run

    try:
        held = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return True
    if not isinstance(held, dict) or held.get("tool") != TOOL:
        return True
    part, run = read_run(file), read_run(whole)
    if part.error is not None:
        return run.error == part.error or any(part.error["message"] in problem for problem in run.problems)
    known = [(entry.nodeid, entry.call, entry.json) for entry in run.results]
    return (
        all((entry.nodeid, entry.call, entry.json) in known for entry in part.results)
        and all(test in run.not_compared for test in part.not_compared)
        and set(part.problems) <= set(run.problems)
    )


def _said(run: Run, earlier: Run | None, page: Path) -> str:
    """The run in a few lines: a row for each result, what changed, and where the page is."""
    from pytest_reflex.report.compare import compare
    from pytest_reflex.report.origins import UNALIKE, unalike
    from pytest_reflex.report.text.console import columns
    from pytest_reflex.report.text.summary import summary_lines
    from pytest_reflex.report.text.terminal import printable

    lines = [text for text, _ in summary_lines(run, width=columns(), where="on the page")]
    if earlier is not None:
        changes = compare(earlier, run)
        changed = [change for change in changes if change.kind != "same"]
        lines += ["", "Since the earlier run"]
        for name, made in (("before", earlier), ("now", run)):
            lines += [f"  {name}: {one}" for one in made.sessions]
        # Before anything is called worse.
        if found := unalike(changes):
            lines += [f"  {UNALIKE}", *(f"    {' '.join(str(one).split())}" for one in found)]
        lines += [f"  {c.kind:6}  {' '.join(c.name.split())}: {c.words}" for c in changed] or [
            "  nothing changed"
        ]
    verdict = f"{run.called} {'PASS' if run.passed else 'FAIL'}"
    text = "\n".join([verdict, "", *lines, "", f"Report: {page}"]) + "\n"
    return printable(text)
