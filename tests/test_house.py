"""The rules of the house, read off the code: which way imports go, and what is called where."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("pytest_reflex", "exporters")
FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for package in PACKAGES
    for path in sorted((ROOT / package).rglob("*.py"))
}
TREES = {name: ast.parse(path.read_text(encoding="utf-8"), str(path)) for name, path in FILES.items()}

Graph = dict[str, set[str]]


def _type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")


def nodes(tree: ast.AST, *, when_imported: bool) -> Iterator[ast.AST]:
    """Every node; or with ``when_imported`` those that run when the file is imported."""
    for child in ast.iter_child_nodes(tree):
        if when_imported:
            if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
                continue
            if _type_checking(child):
                for other in child.orelse:  # type: ignore[attr-defined]
                    yield from nodes(ast.Module([other], []), when_imported=True)
                continue
        yield child
        yield from nodes(child, when_imported=when_imported)


def imported(tree: ast.AST, *, when_imported: bool = False) -> set[str]:
    """Full names of what a file imports; of ``from a import b`` both ``a`` and ``a.b``."""
    found: set[str] = set()
    for node in nodes(tree, when_imported=when_imported):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                raise ValueError(f"line {node.lineno}: a relative import; the house writes full names")
            found |= {str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif (
            isinstance(node, ast.Call)
            and ast.unparse(node.func).rpartition(".")[2] in ("import_module", "__import__")
            and node.args
        ):
            # An f-string is taken up to its first gap.
            text = node.args[0].values[0] if isinstance(node.args[0], ast.JoinedStr) else node.args[0]
            if isinstance(text, ast.Constant) and isinstance(text.value, str):
                found.add(text.value.rstrip("."))
    return found


def circle(graph: Graph) -> list[str]:
    """Some circle of a graph, its first name again at the end; empty when there is none."""
    done: set[str] = set()

    def walk(name: str, path: list[str]) -> list[str]:
        if name in path:
            return [*path[path.index(name) :], name]
        if name in done:
            return []
        for other in sorted(graph.get(name, ())):
            if found := walk(other, [*path, name]):
                return found
        done.add(name)
        return []

    return next((found for name in sorted(graph) if (found := walk(name, []))), [])


def names_of(node: ast.expr) -> str:
    """``torch.onnx.export`` of such an attribute; empty for anything else."""
    return ast.unparse(node) if isinstance(node, (ast.Attribute, ast.Name)) else ""


def tracing_calls(tree: ast.AST) -> list[str]:
    """What a file takes of ``torch.export`` and ``torch.onnx``, however it spells it, types left out."""
    found = [
        names_of(node.func)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and names_of(node.func).startswith(("torch.export.", "torch.onnx."))
    ]
    found += [
        f"{node.module}.{alias.name}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith(("torch.export", "torch.onnx"))
        for alias in node.names
        # What a file only reads the programs with.
        if not alias.name[:1].isupper()
    ]
    found += [
        f"torch.{alias.name}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module == "torch"
        for alias in node.names
        if alias.name in ("export", "onnx")
    ]
    return found


@pytest.mark.parametrize("name", [n for n in TREES if n.startswith("pytest_reflex")])
def test_the_judge_knows_no_maker(name: str) -> None:
    makers = {what for what in imported(TREES[name]) if what.split(".")[0] == "exporters"}
    assert makers == set() or name.startswith("pytest_reflex.cli.")


@pytest.mark.parametrize("package", PACKAGES)
def test_no_file_imports_itself_by_way_of_others(package: str) -> None:
    ours = {name: tree for name, tree in TREES.items() if name.split(".")[0] == package}
    graph = {
        name: {what for what in imported(tree, when_imported=True) if what in ours and what != name}
        for name, tree in ours.items()
    }
    assert circle(graph) == []


@pytest.mark.parametrize("name", TREES)
def test_no_bare_assert(name: str) -> None:
    # `python -O` removes it, and pytest rewrites it in a plugin's package.
    assert [node.lineno for node in ast.walk(TREES[name]) if isinstance(node, ast.Assert)] == []


def test_torch_traces_in_one_file() -> None:
    callers = {name for name, tree in TREES.items() if tracing_calls(tree)}
    assert callers == {"exporters.graph.tracing"}
    assert {"torch.export.export", "torch.onnx._internal.exporter._core"} <= set(
        tracing_calls(TREES["exporters.graph.tracing"])
    )


# --- the rules' own test: each sees what it is there to see -------------------------------------------


@pytest.mark.parametrize(
    ("code", "when_imported", "seen"),
    [
        ("import exporters.pi0", True, {"exporters.pi0"}),
        ("from exporters import pi0", True, {"exporters", "exporters.pi0"}),
        ("def f():\n    import exporters", False, {"exporters"}),
        ("def f():\n    import exporters", True, set()),
        ("if TYPE_CHECKING:\n    import exporters", True, set()),
        ("if TYPE_CHECKING:\n    import exporters", False, {"exporters"}),
        ("class C:\n    import exporters", True, {"exporters"}),
        ("try:\n    import exporters\nexcept ImportError: pass", True, {"exporters"}),
        ("importlib.import_module(f'exporters.{name}')", False, {"exporters"}),
    ],
)
def test_an_import_is_seen(code: str, when_imported: bool, seen: set[str]) -> None:
    assert imported(ast.parse(code), when_imported=when_imported) == seen


def test_a_circle_is_seen() -> None:
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert circle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


@pytest.mark.parametrize(
    "code",
    [
        "torch.export.export(module, ())",
        "torch.onnx.export(program)",
        "from torch.onnx import export",
        "from torch import onnx",
    ],
)
def test_tracing_is_seen(code: str) -> None:
    assert tracing_calls(ast.parse(code))
