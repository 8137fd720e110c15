"""The rules of the house: that the linter holds which way imports go, and what no linter can say."""

from __future__ import annotations

import ast
import configparser
import functools
import io
import itertools
import os
import re
import shutil
import subprocess
import sys
import tokenize
import tomllib
from collections.abc import Mapping
from pathlib import Path

import pytest

pytestmark = pytest.mark.once

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("pytest_reflex", "exporters")
FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for package in PACKAGES
    for path in sorted((ROOT / package).rglob("*.py"))
}


@functools.cache
def parsed(path: Path) -> ast.Module:
    """A file's tree; not before a test asks, for every worker collects this file."""
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


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


TRACERS = ("torch.export", "torch._export", "torch.onnx", "torch.jit")


def tracing_calls(tree: ast.AST) -> list[str]:
    """What a file takes of torch's tracers, however it spells it; classes, with which it reads, left out."""
    known, found = {}, []
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            above = f"{node.module}." if isinstance(node, ast.ImportFrom) else ""
            for alias in node.names:
                plain = alias.name if above or alias.asname else alias.name.partition(".")[0]
                known[alias.asname or plain] = above + plain
                found.append(above + alias.name)
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Call)
            and names_of(node.func) == "getattr"
            and names_of(node.args[0]) in known
        ):
            found.append(f"{known[names_of(node.args[0])]}.{ast.unparse(node.args[1]).strip(chr(39))}")
        elif isinstance(node, ast.Attribute):
            root, _, rest = names_of(node).partition(".")
            found.append(f"{known.get(root, root)}.{rest}")
    taken = [name for name in found if f"{name}.".startswith(tuple(f"{tracer}." for tracer in TRACERS))]
    return [name for name in taken if not any(part[:1].isupper() for part in name.split("."))]


@pytest.mark.parametrize(
    "spelt",
    [
        "torch.export.export(module, ())",
        "torch.onnx.export(program)",
        "from torch.onnx import export",
        "from torch import onnx",
        "import torch as t\nt.export.export(m, ())",
        "import torch.export as te\nte.export(m, ())",
        "import torch.onnx as o; o.export(m)",
        "import torch\ntrace = torch.export.export; trace(m, ())",
        "import functools, torch\nfunctools.partial(torch.export.export, m)()",
        "import torch\ngetattr(torch, 'export').export(m, ())",
        "from torch import export as e\ne.export(m, ())",
        "from torch._export import aot_compile",
        "import torch\ntorch.jit.trace(m, ())",
        "def f():\n    from torch.onnx import export",
    ],
)
def test_each_spelling_of_a_trace_is_seen(spelt: str) -> None:
    assert tracing_calls(ast.parse(spelt))
    assert not tracing_calls(
        ast.parse("import torch\nfrom torch.export import ExportedProgram\ntorch.exp(x)")
    )


def in_circles(arrows: Mapping[str, set[str]]) -> set[str]:
    """The modules that import themselves by way of others, or stand between such."""
    left = {name: set(imports) for name, imports in arrows.items()}
    while True:
        done = {name for name, imports in left.items() if not imports & left.keys()}
        done |= left.keys() - set().union(*left.values()) if left else set()
        if not done:
            return set(left)
        left = {name: imports - done for name, imports in left.items() if name not in done}


def test_no_file_imports_itself_by_way_of_others() -> None:
    """The linter looks at siblings; a package's own ``__init__`` and folders without one it does not see."""
    import grimp

    graph = grimp.build_graph(*PACKAGES)
    assert set(FILES) - {"pytest_reflex.__main__"} <= graph.modules
    arrows = {name: set(graph.find_modules_directly_imported_by(name)) for name in graph.modules}
    assert in_circles(arrows) == set()


def test_a_circle_is_seen() -> None:
    assert in_circles({"a": {"b"}, "b": {"c"}, "c": set()}) == set()
    assert in_circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}}) == {"b", "c"}
    assert in_circles({"a": {"a"}}) == {"a"}


LOOSENED = ("# mypy:", "noqa: C901", "noqa: PLR0915", "ignore[type-arg]")


@pytest.mark.parametrize("name", FILES)
def test_no_file_takes_a_rule_back(name: str) -> None:
    text = FILES[name].read_text(encoding="utf-8")
    assert [loose for loose in LOOSENED if loose in text] == []
    assert [line for line in text.splitlines() if line.rstrip().endswith("# noqa")] == []


@pytest.mark.parametrize("name", [n for n in FILES if n.startswith("pytest_reflex")])
def test_the_judge_knows_no_maker(name: str) -> None:
    """The linter sees no name that is a string, and looks into no package's own file."""
    makers = {what for what in imported(parsed(FILES[name])) if what.split(".")[0] == "exporters"}
    assert makers == set() or name.startswith("pytest_reflex.cli.")


def spelt(node: ast.AST) -> str:
    """The text of an expression of constants, up to its first gap; empty for anything else."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return spelt(node.left) + spelt(node.right)
    if isinstance(node, ast.JoinedStr):
        return "".join(itertools.takewhile(bool, map(spelt, node.values)))
    return ""


def modules_in_strings(tree: ast.AST) -> set[str]:
    """The modules of the house that a file names in a string, whoever imports what is named so."""
    whole = {spelt(node) for node in ast.walk(tree)}
    begun = {
        spelt(node).rpartition(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, (ast.JoinedStr, ast.BinOp))
    }
    return {name for name in whole | begun if name in FILES and "." in name}


@functools.cache
def layers() -> list[set[str]]:
    """The rooms as the linter is told them, the top first."""
    told = configparser.ConfigParser()
    told.read(ROOT / ".importlinter")
    lines = told["importlinter:contract:house"]["layers"].split("\n")
    return [set(line.replace("|", " ").split()) for line in lines if line.strip()]


def layer(name: str) -> tuple[int, str]:
    """Which layer a module is in, and its room there; the packages' own files are above all."""
    rooms = [
        (at, room)
        for at, several in enumerate(layers())
        for room in several
        if f"{name}.".startswith(f"{room}.")
    ]
    return rooms[0] if rooms else (-1, name)


def arrows_upwards(name: str, tree: ast.AST) -> set[str]:
    """The modules in a file's strings that stand in a room above its own, or beside it."""
    own = layer(name)
    return {
        there
        for there in modules_in_strings(tree)
        if layer(there)[0] < own[0] or (layer(there)[0] == own[0] and layer(there)[1] != own[1])
    }


@pytest.mark.parametrize("name", FILES)
def test_a_name_becomes_a_module_in_one_place(name: str) -> None:
    """What is imported by a string the linter does not see; the packages' own names are such strings too."""
    calls = [node for node in ast.walk(parsed(FILES[name])) if isinstance(node, ast.Call) and node.args]
    named = [call for call in calls if ast.unparse(call.args[0]).lstrip("f'\"").startswith("exporters.")]
    assert named == [] or name in ("exporters.bundle.registry", "exporters")
    assert arrows_upwards(name, parsed(FILES[name])) == set() or name == "exporters.bundle.registry"


def test_the_one_place_names_the_families_and_no_other_room() -> None:
    found = arrows_upwards("exporters.bundle.registry", parsed(FILES["exporters.bundle.registry"]))
    assert found
    assert {layer(there)[1] for there in found} == {"exporters.families"}


@pytest.mark.parametrize(
    "spelling",
    [
        "importlib.import_module('{}')",
        "from importlib import import_module as load\nload('{}')",
        "__import__('{}')",
        "def f():\n    return sys.modules['{}']",
        "pkgutil.resolve_name('{}')",
        "HOMES = {{'x': '{}'}}\nimportlib.import_module(HOMES['x'])",
        "importlib.import_module(f'{}.{{name}}')",
        "importlib.import_module('{}.' + name)",
        "importlib.import_module('{}'[:-1] + 'x' if x else '{}')",
        "importlib.import_module(name='{}')",
    ],
)
def test_a_string_that_points_upwards_is_seen(spelling: str) -> None:
    for here, there in (
        ("pytest_reflex.judge.check", "pytest_reflex.cli"),
        ("pytest_reflex.judge.check", "pytest_reflex.plugin.hooks"),
        ("pytest_reflex.verdict.gates", "exporters.bundles"),
        ("exporters.graph.tracing", "exporters.bundle.store"),
        ("exporters.bundle.store", "exporters.families"),
        ("exporters.families.pi0", "exporters.caching.cached"),  # beside it
    ):
        tree = ast.parse(spelling.format(there, there))
        assert arrows_upwards(here, tree) == {there}
        assert arrows_upwards(there, ast.parse(spelling.format(here, here))) == set() or "caching" in there
    assert (
        arrows_upwards("exporters.graph.tracing", ast.parse("'exporters' 'pytest_reflex.families', 'x.y'"))
        == set()
    )


def test_a_name_in_pieces_is_one() -> None:
    tree = ast.parse("importlib.import_module('exporters.' + 'families' + '.pi0')")
    assert "exporters.families.pi0" in arrows_upwards("exporters.graph.tracing", tree)


@pytest.mark.parametrize(("package", "most"), [("pytest_reflex", 15), ("exporters", 11)])
def test_the_top_of_a_package_can_be_taken_in_at_a_glance(package: str, most: int) -> None:
    top = {name.split(".")[1] for name in FILES if name.startswith(f"{package}.")}
    assert len(top | {"__init__"}) <= most


@pytest.mark.parametrize("name", FILES)
def test_no_bare_assert(name: str) -> None:
    # `python -O` removes it, and pytest rewrites it in a plugin's package.
    assert [node.lineno for node in ast.walk(parsed(FILES[name])) if isinstance(node, ast.Assert)] == []


MOST_LINES = 60
_LAYOUT = {
    tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER,
}  # fmt: skip


def function_lines(text: str) -> dict[str, int]:
    """How many lines of code each function has, by name and place: no docstring, comment or blank line."""
    nodes = list(ast.walk(ast.parse(text)))
    code: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in _LAYOUT:
            code |= set(range(token.start[0], token.end[0] + 1))
    for node in nodes:
        documented = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Module)
        if isinstance(node, documented) and ast.get_docstring(node, clean=False) is not None:
            code -= set(range(node.body[0].lineno, int(node.body[0].end_lineno or 0) + 1))
    return {
        f"{node.name}:{node.lineno}": len(code & set(range(node.lineno, int(node.end_lineno or 0) + 1)))
        for node in nodes
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    }


@pytest.mark.parametrize("name", FILES)
def test_no_function_is_longer_than_a_head_holds(name: str) -> None:
    counted = function_lines(FILES[name].read_text(encoding="utf-8"))
    assert {function: lines for function, lines in counted.items() if lines > MOST_LINES} == {}


@pytest.mark.parametrize(
    ("code", "lines"),
    [
        ("def f(x):\n" + "    x += 1\n" * 60, {"f:1": 61}),
        ("def f(x):\n" + "    x += 1\n" * 59, {"f:1": 60}),
        ("def f(x):\n    '''one\n\n    two'''\n\n    # why\n    return x  # here\n", {"f:1": 2}),
        ("def f(\n    x,\n):\n    return (\n        x\n    )\n", {"f:1": 6}),
        ("def f():\n    return '''a\n\nb'''\n", {"f:1": 4}),
        (
            "class A:\n    async def f(self):\n        def g():\n            return 1\n        return g\n",
            {"f:2": 4, "g:3": 2},
        ),
    ],
)
def test_the_lines_of_a_function_are_counted(code: str, lines: dict[str, int]) -> None:
    assert function_lines(code) == lines


def test_torch_traces_in_one_file() -> None:
    callers = {name for name, path in FILES.items() if tracing_calls(parsed(path))}
    assert callers == {"exporters.graph.tracing"}
    assert {"torch.export.export", "torch.onnx._internal.exporter._core"} <= set(
        tracing_calls(parsed(FILES["exporters.graph.tracing"]))
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


# --- every test is run ----------------------------------------------------------------------------------


def unfound(path: str, tree: ast.AST) -> list[str]:
    """Tests that pytest does not find, ``line: name``, and what tells it to look away."""
    found: set[ast.AST] = set()
    named = re.fullmatch(r"test_\w+\.py", Path(path).name) is not None
    for place in (tree, *(n for n in ast.iter_child_nodes(tree) if isinstance(n, ast.ClassDef))):
        made = [n.name for n in ast.iter_child_nodes(place) if isinstance(n, ast.FunctionDef)]
        ours = not isinstance(place, ast.ClassDef) or (
            place.name.startswith("Test") and "__init__" not in made
        )
        if named and ours:
            found |= set(ast.iter_child_nodes(place))
    tests = (n for n in ast.walk(tree) if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef)))
    lost = [
        n
        for n in tests
        if n.name.startswith("test_") and (n not in found or isinstance(n, ast.AsyncFunctionDef))
    ]
    away = [
        n
        for n in ast.walk(tree)
        if (isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store) and n.id in LOOKING_AWAY)
        or (isinstance(n, ast.FunctionDef) and n.name in LOOKING_AWAY)
    ]
    return [f"{n.lineno}: {n.id if isinstance(n, ast.Name) else n.name}" for n in (*lost, *away)]


LOOKING_AWAY = {
    "collect_ignore", "collect_ignore_glob", "__test__", "pytest_ignore_collect", "pytest_collect_file",
    "pytest_pycollect_makeitem", "pytest_deselected", "pytest_itemcollected",
}  # fmt: skip
# Run as a file of its own, in every way in; a method; classes that a test asks about.
NO_TESTS = {
    "tests/known_bad/corpus.py": ["test_case"],
    "tests/mutants/source_runs.py": ["test_files"],
    "tests/pytest_reflex/plugin/test_skipped_modules.py": ["test_x", "test_x"],
}
TESTS = {p.relative_to(ROOT).as_posix(): p for p in sorted((ROOT / "tests").rglob("*.py"))}


@pytest.mark.parametrize("name", [n for n in TESTS if "node_modules" not in n])
def test_every_test_is_where_pytest_finds_it(name: str) -> None:
    lost = unfound(name, parsed(TESTS[name]))
    assert [where.partition(": ")[2] for where in lost] == NO_TESTS.get(name, []), lost


@pytest.mark.parametrize(
    ("path", "code", "lost"),
    [
        ("tests/test_it.py", "def test_a(): pass\nclass TestB:\n    def test_b(self): pass", []),
        ("tests/it_test.py", "def test_a(): pass", ["1: test_a"]),
        ("tests/its_cases.py", "class TestB:\n    def test_b(self): pass", ["2: test_b"]),
        ("tests/test_it.py", "def outer():\n    def test_a(): pass", ["2: test_a"]),
        ("tests/test_it.py", "if find_spec('lerobot'):\n    def test_a(): pass", ["2: test_a"]),
        ("tests/test_it.py", "class Several:\n    def test_a(self): pass", ["2: test_a"]),
        (
            "tests/test_it.py",
            "class TestB:\n    def __init__(self): pass\n    def test_a(self): pass",
            ["3: test_a"],
        ),
        ("tests/test_it.py", "async def test_a(): pass", ["1: test_a"]),
        ("tests/conftest.py", "collect_ignore = ['test_it.py']", ["1: collect_ignore"]),
        ("tests/test_it.py", "__test__ = False", ["1: __test__"]),
    ],
)
def test_a_test_that_nobody_runs_is_seen(path: str, code: str, lost: list[str]) -> None:
    assert unfound(path, ast.parse(code)) == lost


def test_the_configuration_leaves_no_test_out() -> None:
    told = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["pytest"]
    assert told["ini_options"]["addopts"] == ["-ra", "--strict-markers", "--strict-config"]
    assert told["ini_options"]["testpaths"] == ["tests"]
    which = {"norecursedirs", "python_files", "python_classes", "python_functions", "collect_imported_tests"}
    assert not which & told["ini_options"].keys()


def test_a_link_to_an_environment_is_ignored_as_the_environment_is() -> None:
    """A pattern with a slash at its end is for directories alone: a link that is committed replaces them."""
    ignored = (ROOT / ".gitignore").read_text(encoding="utf-8").split()
    assert {".venv*", "node_modules"} <= set(ignored)
