"""The rules of the house: that the linter holds which way imports go, and what no linter can say."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
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


def imported(tree: ast.AST) -> set[str]:
    """Full names of what a file imports; of ``from a import b`` both ``a`` and ``a.b``."""
    found: set[str] = set()
    for node in ast.walk(tree):
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
    """The linter sees no name that is a string, and looks into no package's own file."""
    makers = {what for what in imported(TREES[name]) if what.split(".")[0] == "exporters"}
    assert makers == set() or name.startswith("pytest_reflex.cli.")


@pytest.mark.parametrize("name", TREES)
def test_a_name_becomes_a_module_in_one_place(name: str) -> None:
    """What is imported by a string the linter does not see; the packages' own names are such strings too."""
    calls = [node for node in ast.walk(TREES[name]) if isinstance(node, ast.Call) and node.args]
    named = [call for call in calls if ast.unparse(call.args[0]).lstrip("f'\"").startswith("exporters.")]
    assert named == [] or name in ("exporters.bundle.registry", "exporters")


@pytest.mark.parametrize(("package", "most"), [("pytest_reflex", 14), ("exporters", 11)])
def test_the_top_of_a_package_can_be_taken_in_at_a_glance(package: str, most: int) -> None:
    top = {name.split(".")[1] for name in TREES if name.startswith(f"{package}.")}
    assert len(top | {"__init__"}) <= most


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


# --- the linter: what it lets by and what it refuses ----------------------------------------------------


def linted(place: Path) -> subprocess.CompletedProcess[str]:
    pytest.importorskip("importlinter", reason="import-linter is not installed: make lint")
    command = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    return subprocess.run(
        [sys.executable, "-c", command, "--no-cache"],
        cwd=place,
        env={**os.environ, "PYTHONPATH": str(place), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """The two packages' code and the linter's rules, to be written to."""
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / ".importlinter", tmp_path)
    return tmp_path


LAYERS, CIRCLES = "A room imports only what is below it", "No circles between siblings"


@pytest.mark.parametrize(
    ("file", "code", "broken"),
    [
        ("pytest_reflex/verdict/metrics.py", "import pytest_reflex.judge.check", LAYERS),
        ("pytest_reflex/settings.py", "from pytest_reflex.plugin import hooks", LAYERS),
        ("pytest_reflex/settings.py", "import pytest_reflex", LAYERS),
        ("exporters/bundle/store.py", "from exporters.families import pi0", LAYERS),
        ("exporters/bundle/store.py", "def f():\n    from exporters.bundles import Bundle", LAYERS),
        ("pytest_reflex/errors.py", "def f():\n    import pytest_reflex.verdict.results", LAYERS),
        (
            "pytest_reflex/errors.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from pytest_reflex import result",
            LAYERS,
        ),
        ("pytest_reflex/runners/base.py", "from pytest_reflex.report import compare", LAYERS),
        ("pytest_reflex/verdict/metrics.py", "from pytest_reflex.verdict import gates", CIRCLES),
        ("exporters/graph/program_passes.py", "def f():\n    from exporters.graph import tracing", CIRCLES),
        ("pytest_reflex/judge/check.py", "import exporters", LAYERS),
        ("pytest_reflex/plugin/fixture.py", "def f():\n    from exporters import open_bundle", LAYERS),
        ("pytest_reflex/runners/onnx.py", "from exporters.flow import schedule", LAYERS),
    ],
)
def test_an_arrow_of_every_forbidden_kind_is_refused(house: Path, file: str, code: str, broken: str) -> None:
    with (house / file).open("a", encoding="utf-8") as text:
        text.write(f"\n{code}\n")
    done = linted(house)
    assert f"{broken} BROKEN" in done.stdout, done.stdout + done.stderr
    assert done.returncode == 1


def test_the_house_keeps_its_rules_and_an_arrow_downwards_keeps_them(house: Path) -> None:
    with (house / "exporters/graph/tracing.py").open("a", encoding="utf-8") as text:
        text.write("\ndef f():\n    from pytest_reflex.verdict import gates\n")
    done = linted(house)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Contracts: 2 kept, 0 broken." in done.stdout
    assert "ignore" not in (house / ".importlinter").read_text(), "nothing is exempt"


# --- the rules' own test: each sees what it is there to see -------------------------------------------


@pytest.mark.parametrize(
    ("code", "seen"),
    [
        ("import exporters.families", {"exporters.families"}),
        ("from exporters import pi0", {"exporters", "exporters.pi0"}),
        ("def f():\n    import exporters", {"exporters"}),
        ("if TYPE_CHECKING:\n    import exporters", {"exporters"}),
        ("class C:\n    import exporters", {"exporters"}),
        ("try:\n    import exporters\nexcept ImportError: pass", {"exporters"}),
        ("importlib.import_module(f'exporters.{name}')", {"exporters"}),
    ],
)
def test_an_import_is_seen(code: str, seen: set[str]) -> None:
    assert imported(ast.parse(code)) == seen


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
