"""``reflex doctor``: what is installed, beside what is needed and what was tested; a page for an issue."""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final

import click

from pytest_reflex._version import __version__
from pytest_reflex.cli.importing import why_not_imported
from pytest_reflex.cli.report import FAIL, PASS, Reported

if TYPE_CHECKING:
    from packaging.requirements import Requirement

_WORDS: Final = {
    "export": "makes bundles",
    "lerobot": "lerobot's policies, live (Python 3.12 or later)",
    "processors": "reads tasks, from the camera to the joint",
    "serve": "serves bundles to robots",
    "certify": "signs and verifies certificates",
    "episodes": "reads recorded episodes",
    "ray": "shares a check between processes and machines",
    "sim": "drives simulated arms",
    "openvino": "judges under OpenVINO, too",
    "executorch": "judges under ExecuTorch, too",
}


@click.command(short_help="Say what is installed and what is missing.")
@click.option("--output-json", is_flag=True, help="Print JSON to stdout and nothing else.")
def doctor(output_json: bool) -> Reported:
    """Say what is installed here, beside what is needed and tested: one page, to be pasted into an issue.

    Each package is imported in another process: what is installed and does not import is said, and why.

    Exits 0 where a candidate can be judged, 1 where something that this needs is missing or too old.
    """
    found = examined()
    text = json.dumps(found, indent=2) + "\n" if output_json else page(found)
    return Reported(PASS if found["able"] else FAIL, text)


def examined() -> dict[str, Any]:
    """What there is, as builtins."""
    from pytest_reflex.verdict import machine

    extras: dict[str, list[dict[str, Any]]] = {"": [], **{extra: [] for extra in _WORDS}}
    for wanted, extra in _needed():
        extras[extra].append(_package(wanted, extra))
    every = [package for packages in extras.values() for package in packages]
    broken = why_not_imported([package["name"] for package in every if package["version"] is not None])
    for package in every:
        package["broken"] = broken.get(package["name"])
    core = extras.pop("")
    return {
        "pytest_reflex": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "executable": sys.executable,
        "machine": machine.here(),
        "providers": [] if "onnxruntime" in broken else _providers(),
        "packages": core,
        "extras": extras,
        "able": bool(core) and all(package["enough"] and not package["broken"] for package in core),
    }


def extra_of(module: str | None) -> str | None:
    """The extra that brings a module which is not installed; None where none does."""
    top = (module or "").partition(".")[0].replace("_", "-")
    return next(
        (extra for wanted, extra in _needed() if extra and wanted.name.replace("_", "-") == top), None
    )


def page(found: Mapping[str, Any]) -> str:
    """The same for people: plain text, which Markdown leaves as it is inside a fence."""
    here = found["machine"]
    environment = ", ".join(f"{name}={value}" for name, value in here["environment"].items()) or "nothing"
    lines = [
        f"pytest-reflex {found['pytest_reflex']}, Python {found['python']}, {found['platform']}",
        f"  python        {found['executable']}",
        f"  processor     {here['processor']}, {here['cores']} cores",
        f"  instructions  {' '.join(here['instructions']) or 'unknown'}",
        f"  environment   {environment}",
        f"  providers     {', '.join(found['providers']) or 'none: there is no onnxruntime that imports'}",
        "",
        "To judge",
        *_rows(found["packages"]),
    ]
    for extra, packages in found["extras"].items():
        state = "complete" if all(p["enough"] for p in packages) else f"pip install 'pytest-reflex[{extra}]'"
        state = state if all(p["possible"] for p in packages) else "needs another Python"
        if broken := [p["name"] for p in packages if p["broken"]]:
            state = f"cannot be used: {', '.join(broken)} {'do' if len(broken) > 1 else 'does'} not import"
        lines += ["", f"[{extra}] {_WORDS[extra]}: {state}", *_rows(packages)]
    verdict = "A candidate can be judged here." if found["able"] else "Nothing can be judged here: see above."
    return "\n".join([*lines, "", verdict]) + "\n"


def _rows(packages: list[dict[str, Any]]) -> Iterator[str]:
    for package in packages:
        tested = ", ".join(package["tested"])
        plain = (package["version"] or "").partition("+")[0]  # without the build, such as +cpu
        beside = f"; tested with {tested}" if tested and plain not in package["tested"] else ""
        state = package["version"] or "not installed"
        low = "" if package["enough"] or not package["version"] else f", too old: {package['needed']}"
        why = f", does not import: {package['broken']}" if package["broken"] else ""
        yield f"  {package['name']:<16}  {state}{low}{why}{beside}"


def _needed() -> Iterator[tuple[Requirement, str]]:
    """Each package that this one asks for, with the extra that does; "" is what judging needs."""
    from packaging.requirements import Requirement

    for line in requires("pytest-reflex") or ():
        wanted = Requirement(line)
        marker = str(wanted.marker or "")
        extra = next((name for name in _WORDS if f"extra == '{name}'" in marker.replace('"', "'")), None)
        if wanted.name == "pytest-reflex" or (extra is None and "extra" in marker):
            continue
        yield wanted, extra or ""


def _package(wanted: Requirement, extra: str) -> dict[str, Any]:
    try:
        found: str | None = version(wanted.name)
    except PackageNotFoundError:
        found = None
    return {
        "name": wanted.name,
        "needed": str(wanted.specifier),
        "version": found,
        "tested": _tested().get(wanted.name, []),
        "enough": found is not None and wanted.specifier.contains(found, prereleases=True),
        # lerobot asks for a newer Python than this may be.
        "possible": wanted.marker is None or wanted.marker.evaluate({"extra": extra}),
    }


def _tested() -> dict[str, list[str]]:
    """The versions that the tests run with, by package."""
    told = json.loads(files("pytest_reflex.cli").joinpath("tested.json").read_text(encoding="utf-8"))
    return {str(name): list(versions) for name, versions in told.items()}


def _providers() -> list[str]:
    try:
        import onnxruntime
    except ImportError:
        return []
    return list(onnxruntime.get_available_providers())
