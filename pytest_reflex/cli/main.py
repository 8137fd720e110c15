"""``main``: runs the command, says its verdict or its error, and exits with its code.

Exit 0 pass, 1 fail, 2 error; 0 and 1 only where the verdict was printed. With ``--output-json`` stdout is one
JSON document and nothing else; what is said to people goes to stderr then.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

import click

from pytest_reflex.cli.commands import app
from pytest_reflex.cli.doctor import extra_of
from pytest_reflex.cli.reference import is_script
from pytest_reflex.cli.report import ERROR, FAIL, PASS, Reported
from pytest_reflex.cli.supervise import Handover, death, supervised
from pytest_reflex.errors import ParityError, ReflexError, RunnerError

if TYPE_CHECKING:
    from pytest_reflex.report.json.documents import Run
    from pytest_reflex.result import ParityResult, PipelineResult

# A file may hold a name of any length; nobody reads more than this of it.
LONGEST_REASON: Final = 4000


# What an export that is refused leaves, and how what it would have been is looked into.
_UNWRITTEN: Final = (
    "Nothing was written. To look into it, in Python: export(policy, OUT, inputs=INPUTS, verify=False)"
    ".locate(policy)"
)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command and exit with its code; an error is one line on stderr, and JSON where asked for."""
    # A shell asks what could stand here; it is no command. Empty it would be one, that nobody looks after.
    if os.environ.get("_REFLEX_COMPLETE"):
        app.main(prog_name="reflex")
    given = list(sys.argv[1:] if arguments is None else arguments)
    as_json = "--output-json" in given
    handover = None
    # A server says nothing that it could hand over, and is stopped by signals.
    if arguments is None and given[:1] != ["serve"]:
        handover = Handover()
        ended = supervised()
        if ended is not None:
            sys.exit(_printed(_concluded(ended, handover.taken(), as_json)))
    said = _run(given, as_json)
    if handover is None or handover.here:
        code = _printed(said)
    else:
        code = said.code if handover.give(**asdict(said)) else ERROR
    sys.exit(code)


def _run(given: list[str], as_json: bool) -> Reported:
    """What the command has to say in the end, whatever comes of it."""
    began = time.time()
    # A policy of someone's own may print while it is imported or run.
    aside = contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext()
    try:
        with aside:
            made = app.main(given, prog_name="reflex", standalone_mode=False)
        if isinstance(made, Reported):
            return made
        return _say(made[0], as_json, began, made[1]) if isinstance(made, tuple) else Reported(made, "")
    except ParityError as error:
        result = error.result if error.pipeline is None else error.pipeline
        if result.passed:
            return _fail(error, "a fail was raised whose result passed; nothing is proven", as_json)
        return _say(result, as_json, began, _UNWRITTEN if given[:1] == ["export"] else "")
    except ReflexError as error:
        return _fail(error, str(error), as_json)
    except click.exceptions.NoArgsIsHelpError as error:
        return Reported(ERROR, "", error.format_message() + "\n")
    except click.ClickException as error:
        return _fail(error, _usage(error, given), as_json)
    except (click.exceptions.Abort, KeyboardInterrupt) as error:
        return _fail(error, "interrupted; nothing was written", as_json)
    except ModuleNotFoundError as error:
        if (extra := extra_of(error.name)) is None:
            traceback.print_exc()
            return _fail(error, f"internal error: {type(error).__name__}: {error}", as_json)
        said = f"this needs {error.name}, which is not installed; pip install 'pytest-reflex[{extra}]'"
        return _fail(error, said, as_json)
    except BaseException as error:
        # A fault of this program is no verdict either; its traceback is what a report of it needs.
        traceback.print_exc()
        return _fail(error, f"internal error: {type(error).__name__}: {error}", as_json)


def _concluded(ended: int, said: dict[str, Any] | None, as_json: bool) -> Reported:
    """What the process that judged had to say, where it ended as that says; else an error."""
    if name := death(ended):
        why = f"was ended by {name}: a model crashed it, or the system ended it"
    elif said is None:
        why = f"exited with {ended} before it reached a verdict: a model, or what loads it, ended it"
    elif said["code"] != ended:
        why = f"was to exit with {said['code']} and exited with {ended}: something that a model left ended it"
    else:
        return Reported(**said)
    message = f"the process that judged {why}; nothing is proven"
    return _fail(RunnerError(message), message, as_json)


def _printed(said: Reported) -> int:
    """Print what a command says; its exit code, which is an error's where the verdict cannot be printed."""
    with contextlib.suppress(OSError):
        click.echo(said.err, nl=False, err=True)
    if not said.text:
        return said.code
    try:
        if sys.stdout is None:
            raise OSError("it is closed")
        click.echo(said.text, nl=False)
        sys.stdout.flush()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        with contextlib.suppress(OSError):
            click.echo(f"reflex: error: stdout: the verdict could not be printed ({reason})", err=True)
        # What is still to be written would be tried again at the end, and change the exit code.
        sys.stdout = None
        return ERROR
    return said.code


def _usage(error: click.ClickException, given: list[str]) -> str:
    """What click says of a command line, in one line and with where to look."""
    said = " ".join(error.format_message().split()).rstrip(".")
    context = getattr(error, "ctx", None)
    where = context.command_path if context is not None else _command_of(given)
    from pytest_reflex.verdict.naming import did_you_mean

    # click's own guesses come in the order of the alphabet.
    command = getattr(error, "command_name", None)
    if command is not None and context is not None and isinstance(context.command, click.Group):
        said = f"no such command {command!r}{did_you_mean(command, context.command.list_commands(context))}"
    if isinstance(error, click.NoSuchOption) and context is not None:
        known = [name for parameter in context.command.get_params(context) for name in parameter.opts]
        nearest = did_you_mean(error.option_name, [name for name in known if name.startswith("--")])
        said = f"no such option {error.option_name!r}{nearest}"
    extra = re.search(r"unexpected extra argument \((\S+)\)", said)
    if extra and is_script(extra[1]):
        said += f"; a policy is given by --model {extra[1]}"
    see = " See" if said.endswith("?") else "; see"
    return f"{said[:1].lower()}{said[1:]}{see} `{where} -h`"


def _command_of(given: list[str]) -> str:
    """The command that a command line names, for what click says without its context."""
    path = "reflex"
    command: click.Command = app
    for word in given:
        if not isinstance(command, click.Group) or word not in command.commands:
            break
        path, command = f"{path} {word}", command.commands[word]
    return path


def _fail(error: BaseException, message: str, as_json: bool) -> Reported:
    # A file's name may hold what a terminal obeys, or what is no text.
    # Of an error in several lines those that are set in are its parts.
    message = "; ".join(" ".join(part.split()) for part in message.split("\n  "))
    message = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in message)
    if len(message) > LONGEST_REASON:
        message = f"{message[:LONGEST_REASON]}... ({len(message)} characters)"
    from pytest_reflex.report.json.documents import Run, error_document
    from pytest_reflex.report.json.values import dumps

    made = error_document(error, message=message, exit_code=ERROR)
    told = f"reflex: error: {message}\n{_tell_github(Run(error=made['error']), message)}"
    return Reported(ERROR, dumps(made) if as_json else "", told)


def _say(result: ParityResult | PipelineResult, as_json: bool, began: float, below: str = "") -> Reported:
    """The verdict, and the exit code that it is."""
    from pytest_reflex.report.json.documents import Entry, Run, document
    from pytest_reflex.report.json.values import dumps
    from pytest_reflex.report.text.console import columns, painted, takes_color
    from pytest_reflex.report.text.terminal import headline, result_text
    from pytest_reflex.result import PipelineResult

    code = PASS if result.passed else FAIL
    results = list(result.stages.values()) if isinstance(result, PipelineResult) else [result]
    first = result.headline if isinstance(result, PipelineResult) else headline(result)
    told = _tell_github(Run(tuple(map(Entry, results))), "" if result.passed else first)
    if as_json:
        from pytest_reflex.report.session import session

        made = session(Path(), began, max(time.time() - began, 0.0))
        return Reported(code, dumps(document(results, exit_code=code, sessions=[made])), told)
    text = str(result) if isinstance(result, PipelineResult) else result_text(result, columns())
    text = painted(text) if takes_color(sys.stdout) else text
    return Reported(code, "\n".join(part for part in (text, below) if part) + "\n", told)


def _tell_github(run: Run, wrong: str) -> str:
    """In a GitHub job, write its summary; lines for stderr, as stdout may be for JSON alone."""
    from pytest_reflex.report import github

    problem = github.add_summary(run)
    lines = [f"reflex: warning: {problem}"] if problem else []
    if wrong and github.running():
        lines.append(github.annotation(wrong, title="reflex"))
    return "".join(f"{line}\n" for line in lines)
