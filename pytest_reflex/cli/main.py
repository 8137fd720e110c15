"""``main``: runs the command, says its verdict or its error, and exits with its code.

Exit 0 pass, 1 fail, 2 error. With ``--output-json`` stdout is one JSON document and nothing else;
what is said to people goes to stderr then.
"""

from __future__ import annotations

import contextlib
import sys
import traceback
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, NoReturn

import click

from pytest_reflex.cli.commands import app
from pytest_reflex.cli.report import ERROR, FAIL, PASS, Reported
from pytest_reflex.cli.supervise import death, supervised
from pytest_reflex.errors import ParityError, ReflexError, RunnerError

if TYPE_CHECKING:
    from pytest_reflex.report.json.documents import Run
    from pytest_reflex.result import ParityResult

# A file may hold a name of any length; nobody reads more than this of it.
LONGEST_REASON: Final = 4000


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command and exit with its code; an error is one line on stderr, and JSON where asked for."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    as_json = "--output-json" in given
    if arguments is None and given[:1] == ["validate"]:
        ended = supervised()
        if ended is not None:
            sys.exit(ended if ended >= 0 else _died(death(ended), as_json))
    # A policy of someone's own may print while it is imported or run.
    aside = contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext()
    try:
        with aside:
            made = app.main(given, prog_name="reflex", standalone_mode=False)
        if isinstance(made, Reported):
            click.echo(made.text, nl=False)
            made = made.code
        code = _say(made[0], as_json, made[1]) if isinstance(made, tuple) else made
    except ParityError as error:
        code = _say(error.result, as_json)
    except ReflexError as error:
        code = _fail(error, str(error), as_json)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        code = ERROR
    except click.ClickException as error:
        code = _fail(error, _usage(error), as_json)
    except (click.exceptions.Abort, KeyboardInterrupt) as error:
        code = _fail(error, "interrupted; nothing was written", as_json)
    except Exception as error:
        # A fault of this program is no verdict either; its traceback is what a report of it needs.
        traceback.print_exc()
        code = _fail(error, f"internal error: {type(error).__name__}: {error}", as_json)
    sys.exit(code)


def _usage(error: click.ClickException) -> str:
    """What click says of a command line, in one line and with where to look."""
    said = " ".join(error.format_message().split()).rstrip(".")
    context = getattr(error, "ctx", None)
    where = context.command_path if context is not None else "reflex"
    see = " See" if said.endswith("?") else "; see"
    return f"{said[:1].lower()}{said[1:]}{see} `{where} -h`"


def _died(name: str, as_json: bool) -> int:
    message = (
        f"the process that judged was ended by {name}: a model crashed it, or the system ended it; "
        "nothing is proven"
    )
    return _fail(RunnerError(message), message, as_json)


def _fail(error: BaseException, message: str, as_json: bool) -> int:
    # A file's name may hold what a terminal obeys, or what is no text.
    message = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in " ".join(message.split()))
    if len(message) > LONGEST_REASON:
        message = f"{message[:LONGEST_REASON]}... ({len(message)} characters)"
    click.echo(f"reflex: error: {message}", err=True)
    from pytest_reflex.report.json.documents import Run, error_document
    from pytest_reflex.report.json.values import dumps

    made = error_document(error, message=message, exit_code=ERROR)
    _tell_github(Run(error=made["error"]), message)
    if as_json:
        click.echo(dumps(made), nl=False)
    return ERROR


def _say(result: ParityResult, as_json: bool, below: str = "") -> int:
    """Print the verdict; its exit code."""
    from pytest_reflex.report.json.documents import Entry, Run, document
    from pytest_reflex.report.json.values import dumps
    from pytest_reflex.report.text.console import columns, painted, takes_color
    from pytest_reflex.report.text.terminal import headline, result_text

    code = PASS if result.passed else FAIL
    _tell_github(Run((Entry(result),)), "" if result.passed else headline(result))
    if as_json:
        click.echo(dumps(document([result], exit_code=code)), nl=False)
    else:
        text = result_text(result, columns())
        text = painted(text) if takes_color(sys.stdout) else text
        click.echo("\n".join(part for part in (text, below) if part))
    return code


def _tell_github(run: Run, wrong: str) -> None:
    """In a GitHub job, its summary, and an annotation for what is wrong; stdout may be for JSON alone."""
    from pytest_reflex.report import github

    if problem := github.add_summary(run):
        click.echo(f"reflex: warning: {problem}", err=True)
    if wrong and github.running():
        click.echo(github.annotation(wrong, title="reflex"), err=True)
