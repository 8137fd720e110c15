"""Whether a module that skipped itself has parity tests: its text has to say, as it collected nothing."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Final

import pytest

# They give a module names that stand nowhere in its text.
_WRITERS: Final = frozenset({"globals", "locals", "vars", "setattr", "exec"})


def mentions_parity(module: pytest.Module) -> bool:
    """Whether the module speaks of parity, or takes tests from another one that does."""
    return _mentions(module.path, module, set())


def has_parity_tests(owner: pytest.Class) -> bool:
    """Whether a class that pytest collected nothing of has tests, and speaks of parity."""
    if not any(owner.funcnamefilter(name) for name in dir(owner.obj)):
        return False
    import inspect

    return re.search(r"\bparity\b", inspect.getsource(owner.obj)) is not None


def _mentions(path: Path, module: pytest.Module, seen: set[Path]) -> bool:
    if path in seen:
        return False
    seen.add(path)
    text = path.read_bytes()
    if re.search(rb"\bparity\b", text):
        return True
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError):
        return False
    return any(_mentions(source, module, seen) for source in _sources(tree, path, module))


def _sources(tree: ast.Module, path: Path, module: pytest.Module) -> list[Path]:
    """The files of the modules whose tests become the module's own.

    By import, by star, as a base class, by an assignment to a test's name, or by whatever writes names.
    """
    bases = _taken(tree, module)
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            named = [(alias.asname or alias.name.partition(".")[0], alias.name) for alias in node.names]
            found += [_file(name, 0, path) for called, name in named if called in bases]
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                called = alias.asname or alias.name
                # A module of a package may be what is imported, and what has the base class.
                if alias.name == "*" or called in bases or _is_test(called, module):
                    found.append(_file(node.module or "", node.level, path))
                if called in bases:
                    found.append(_file(f"{node.module or ''}.{alias.name}".lstrip("."), node.level, path))
    return [file for file in found if file is not None]


def _taken(tree: ast.Module, module: pytest.Module) -> set[str]:
    """The names in a module's text of which tests of its own are made."""
    made: list[ast.AST] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            made += node.bases
        elif isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = {name for target in targets for name in _names(target)}
            made += [node.value] * any(name in _WRITERS or _is_test(name, module) for name in names)
        elif isinstance(node, ast.Call) and not _names(node.func).isdisjoint(_WRITERS):
            made.append(node)
    return {name for part in made for name in _names(part)}


def _names(part: ast.AST) -> set[str]:
    return {one.id for one in ast.walk(part) if isinstance(one, ast.Name)}


def _is_test(name: str, module: pytest.Module) -> bool:
    return module.funcnamefilter(name) or module.classnamefilter(name)


def _file(name: str, level: int, path: Path) -> Path | None:
    """The file of a module as it is imported in the file ``path``; None where there is none to be read."""
    from importlib.machinery import PathFinder

    places = [str(path.parents[level - 1])] if level else [str(path.parent), *_search_path()]
    file = None
    for part in name.split("."):
        spec = PathFinder.find_spec(part, places) if part else None
        if spec is None:
            return file if not part else None
        places = list(spec.submodule_search_locations or [])
        file = Path(spec.origin) if spec.origin and spec.origin.endswith(".py") else None
    return file


def _search_path() -> list[str]:
    import sys

    return sys.path
