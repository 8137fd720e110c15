"""The rules of the house: that the linter holds which way imports go, and what no linter can say."""

from __future__ import annotations

import ast
import configparser
import contextlib
import functools
import io
import itertools
import os
import shutil
import subprocess
import sys
import tokenize
from collections.abc import Iterator, Mapping
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


@pytest.mark.parametrize(("package", "most"), [("pytest_reflex", 14), ("exporters", 11)])
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


# Figures of accuracy, by the names that the house has for them.
ACCURACY = {
    "max_abs_diff", "max_abs_diff_across_all", "mean_abs_diff", "max_rel_diff", "rmse", "cos", "sqnr_db",
    "error", "errors", "candidate_max", "candidate_rms", "reference_max", "reference_rms", "run_max",
    "run_rms", "propagated", "local", "drift",
}  # fmt: skip
# What measures a difference, and what is one whatever it is given.
MEASURES = {
    "abs", "absolute", "fabs", "norm", "vector_norm", "ptp", "square", "max", "amax", "nanmax", "mean", "sum",
    "sqrt",
}  # fmt: skip
DISTANCES = {"dist", "cdist", "mse_loss", "l1_loss", "cosine_similarity", "mean_squared_error"}
# What compares by itself, to a tolerance that is written down or, worse, is not.
COMPARERS = {
    "allclose", "assert_allclose", "isclose", "approx", "assert_close", "assert_almost_equal",
    "assert_array_almost_equal", "assertAlmostEqual", "assert_approx_equal",
}  # fmt: skip
# How many arguments come before a tolerance that is given by its place.
BEFORE = {"approx": 1}
# Tolerances that are not 0 where they are not given beside the others.
NEEDED = {"allclose": {"rtol", "atol"}, "assert_allclose": {"rtol"}}
TOLERANCES = {"rtol", "atol", "rel", "abs", "rel_tol", "abs_tol", "decimal", "places", "delta", "significant"}
# An order that is asked for by a call.
ORDERING = {
    "less", "less_equal", "greater", "greater_equal", "lt", "le", "gt", "ge", "assertLess", "assertLessEqual",
    "assertGreater", "assertGreaterEqual", "assert_array_less",
}  # fmt: skip
READING = {"get", "getattr", "pop", "attrgetter", "itemgetter"}
# What gives a number its unit: thresholds of the product and torch, the dtype's rounding, the tests' helper.
UNITS = {
    "THRESHOLD", "STRICT_THRESHOLD", "TORCHS_OWN", "EPS", "eps", "ulp", "ulps", "spacing", "floors",
    "multiples", "ratio", "ratios",
}  # fmt: skip
ORDERED = (ast.Lt, ast.LtE, ast.Gt, ast.GtE)
# Below it a number that is added, or multiplied by a size, is a tolerance; above, it may count something.
SMALL = 1e-2
Names = Mapping[str, float]
Given = list[tuple[set[str], ast.expr]]


def _called(node: ast.Call) -> str:
    return ast.unparse(node.func).rpartition(".")[2]


def _parts(node: ast.AST) -> Iterator[ast.AST]:
    """A node and what is below it, without what is only counted."""
    if isinstance(node, ast.Call) and any(
        isinstance(n, ast.Name) and n.id == "len" for n in (node.func, *node.args)
    ):
        return
    yield node
    for child in ast.iter_child_nodes(node):
        yield from _parts(child)


def _words(node: ast.AST) -> set[str]:
    """The names, attributes and keys of an expression."""
    found = {n.id for n in _parts(node) if isinstance(n, ast.Name)}
    found |= {n.attr for n in _parts(node) if isinstance(n, ast.Attribute)}
    keys = [n.slice for n in _parts(node) if isinstance(n, ast.Subscript)]
    keys += [a for n in _parts(node) if isinstance(n, ast.Call) and _called(n) in READING for a in n.args]
    return found | {k.value for k in keys if isinstance(k, ast.Constant) and isinstance(k.value, str)}


def _number(node: ast.expr, named: Names) -> float | None:
    """The size of an expression of literals, and of names that hold one; else None."""
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        return abs(float(node.value))
    if isinstance(node, (ast.Name, ast.Attribute)):
        return named.get(node.id if isinstance(node, ast.Name) else node.attr)
    if isinstance(node, ast.UnaryOp):
        return _number(node.operand, named)
    if isinstance(node, ast.BinOp):
        left, right = _number(node.left, named), _number(node.right, named)
        return None if left is None or right is None else max(left, right)
    if isinstance(node, ast.Call) and len(node.args) == 1:  # float("1e-6"), np.float32(1e-6)
        given = node.args[0]
        if isinstance(given, ast.Constant) and isinstance(given.value, str):
            with contextlib.suppress(ValueError):
                return abs(float(given.value))
        return _number(given, named)
    return None


def _held(node: ast.expr, named: Names) -> float | None:
    """The largest number that an expression may be or may be taken from: a choice, a table, a loop's list."""
    if isinstance(node, (ast.Tuple, ast.List, ast.Set)):
        parts = list(node.elts)
    elif isinstance(node, ast.Dict):
        parts = list(node.values)
    elif isinstance(node, ast.IfExp):
        parts = [node.body, node.orelse]
    elif isinstance(node, ast.Subscript):
        parts = [node.value]
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.args:
        parts = [node.func, *(word.value for word in node.keywords)]
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in (
        "get", "values", "items",
    ):  # fmt: skip
        parts = [node.func.value, *node.args[1:]]
    elif isinstance(node, ast.Call) and _called(node) in ("max", "min", "zip", "enumerate", "param", "field"):
        parts = [*node.args, *(word.value for word in node.keywords)]
    else:
        return _number(node, named)
    return max((n for part in parts if (n := _held(part, named)) is not None), default=None)


def _has_small(node: ast.AST, named: Names) -> bool:
    """Whether a number that can only be a tolerance stands anywhere in an expression, and has no unit."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult) and _words(node) & UNITS:
        return False
    if isinstance(node, ast.Call) and (_called(node) == "len" or _words(node.func) & UNITS):
        return False
    if isinstance(node, ast.expr):
        value = _held(node, named)
        if value is None and isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow):
            value = _number(node.left, named)
            value = value if value is not None and value < SMALL else None
        if value is not None:
            return 0 < value < SMALL
    return any(_has_small(child, named) for child in ast.iter_child_nodes(node))


def _is_distance(node: ast.AST, differences: set[str]) -> bool:
    """Whether it holds ``abs(a - b)`` in a spelling; ``differences`` are names for such ``a - b``."""
    for call in _parts(node):
        if isinstance(call, ast.Call) and _called(call) in DISTANCES:
            return True
        if isinstance(call, ast.Call) and _called(call) in MEASURES:
            # The largest of two may well be a difference of times; of an array it is a method's or numpy's.
            plain = isinstance(call.func, ast.Name) and call.func.id not in ("abs", "norm", "fabs")
            if not plain and any(_is_difference(part, differences) for part in _parts(call)):
                return True
        elif (
            isinstance(call, ast.BinOp) and isinstance(call.op, ast.Pow) and _is_difference(call.left, set())
        ):
            return True
    return False


def _is_difference(node: ast.AST, known: set[str]) -> bool:
    return (
        (isinstance(node, ast.BinOp) and isinstance(node.op, ast.Sub))
        or (isinstance(node, ast.Call) and _called(node) == "subtract")
        or (isinstance(node, ast.Name) and node.id in known)
    )


def _is_figure(node: ast.AST, named: set[str], units: set[str], differences: set[str]) -> bool:
    """Whether an expression is a figure of accuracy that has no unit yet; ``named`` are known to be some."""
    words = _words(node)
    if words & units:
        return False
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
        # Of two figures the one is the other's unit.
        sides = (_is_figure(side, named, units, differences) for side in (node.left, node.right))
        return next(sides) and not next(sides)
    own = {n.id for n in _parts(node) if isinstance(n, ast.Name)} & named
    return bool(words & ACCURACY or own) or _is_distance(node, differences)


def _targets(node: ast.AST) -> set[str]:
    return {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}


def _paired(target: ast.expr, value: ast.expr) -> Given:
    """A target's names with what each is given, also where several are given at once."""
    if isinstance(target, (ast.Tuple, ast.List)):
        several = isinstance(value, (ast.Tuple, ast.List)) and len(value.elts) == len(target.elts)
        values = (
            value.elts if several and isinstance(value, (ast.Tuple, ast.List)) else [value] * len(target.elts)
        )
        return [pair for t, v in zip(target.elts, values, strict=True) for pair in _paired(t, v)]
    return [(_targets(target), value)] if isinstance(target, ast.Name) else []


def _looped(target: ast.expr, over: ast.expr) -> Given:
    """What a loop gives its names: of a list of rows each its column, of ``zip`` each its own."""
    if isinstance(over, (ast.Tuple, ast.List)):
        return [pair for row in over.elts for pair in _paired(target, row)]
    if isinstance(over, ast.Call) and _called(over) == "zip" and isinstance(target, ast.Tuple):
        return [pair for t, v in zip(target.elts, over.args, strict=False) for pair in _looped(t, v)]
    if isinstance(over, ast.Call) and _called(over) == "param":
        return []
    return [(_targets(target), over)] if isinstance(target, ast.Name) else []


def _parametrized(node: ast.Call) -> Given:
    """What ``parametrize("a, b", [(1, 2), param(3, 4)])`` gives each name."""
    names, rows = node.args[0], node.args[1]
    if isinstance(names, ast.Constant) and isinstance(names.value, str):
        words = [word.strip() for word in names.value.split(",") if word.strip()]
    elif isinstance(names, (ast.Tuple, ast.List)):
        words = [str(n.value) for n in names.elts if isinstance(n, ast.Constant)]
    else:
        return []
    given: Given = []
    for row in rows.elts if isinstance(rows, (ast.Tuple, ast.List)) else [rows]:
        if isinstance(row, ast.Call) and _called(row) == "param":
            row = ast.Tuple(row.args) if len(words) > 1 else row.args[0] if row.args else row
        whole = len(words) == 1 or not isinstance(row, (ast.Tuple, ast.List))
        values = [row] * len(words) if whole else row.elts
        given += [({word}, value) for word, value in zip(words, values, strict=False)]
    return given


def _given(tree: ast.AST) -> Given:
    """Every name of a file with each expression that it may stand for: assigned, looped, passed, returned."""
    given: Given = []
    functions = {
        n.name: n.args for n in ast.walk(tree) if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef))
    }
    for node in ast.walk(tree):
        if (
            isinstance(node, (ast.Assign, ast.AnnAssign, ast.NamedExpr, ast.AugAssign))
            and node.value is not None
        ):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            given += [pair for target in targets for pair in _paired(target, node.value)]
        elif isinstance(node, (ast.For, ast.AsyncFor, ast.comprehension)):
            given += _looped(node.target, node.iter)
        elif isinstance(node, ast.Match):
            names = {
                n.name for case in node.cases for n in ast.walk(case) if isinstance(n, ast.MatchAs) and n.name
            }
            given.append((names, node.subject))
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            given += [({node.name}, r.value) for r in ast.walk(node) if isinstance(r, ast.Return) and r.value]
        elif isinstance(node, ast.arguments):
            places = [*node.posonlyargs, *node.args]
            last = zip(reversed(places), reversed(node.defaults), strict=False)
            given += [({a.arg}, value) for a, value in last]
            given += [({a.arg}, v) for a, v in zip(node.kwonlyargs, node.kw_defaults, strict=True) if v]
        elif isinstance(node, ast.Call):
            name = _called(node)
            if name == "parametrize" and len(node.args) > 1:
                given += _parametrized(node)
            elif isinstance(node.func, ast.Attribute) and name in ("append", "add") and len(node.args) == 1:
                given += _paired(node.func.value, node.args[0])
            elif isinstance(node.func, ast.Name) and name in functions:
                own = functions[name]
                given += [
                    ({a.arg}, v) for a, v in zip([*own.posonlyargs, *own.args], node.args, strict=False)
                ]
                given += [({word.arg}, word.value) for word in node.keywords if word.arg]
    return given


def numbers_of(tree: ast.AST, named: Names | None = None) -> dict[str, float]:
    """The names that a file gives to a plain number, or to a choice of some."""
    found = dict(named or {})
    given = _given(tree)
    while more := {
        name: value
        for names, node in given
        if (value := _held(node, found)) is not None
        for name in names
        if value > found.get(name, -1.0)
    }:
        found |= more
    return found


def _figures(given: Given, units: set[str], differences: set[str]) -> set[str]:
    """The names, of variables and of functions, that stand for a figure of accuracy."""
    found: set[str] = set()
    while more := [p for p in given if not p[0] <= found and _is_figure(p[1], found, units, differences)]:
        found |= {name for names, _ in more for name in names}
    return found


def _is_tolerated(node: ast.Call, name: str, numbers: Names, units: set[str]) -> bool:
    """Whether a call of a comparer leaves a tolerance to a default, or gives one that has no unit."""
    words = {word.arg: word.value for word in node.keywords if word.arg in TOLERANCES}
    placed = node.args[BEFORE.get(name, 2) :]
    given = [*words.values(), *placed]
    plain = [value for value in given if not _words(value) & units]
    left = NEEDED.get(name, set()) - set(words) if len(placed) < len(NEEDED.get(name, ())) else set()
    left = left - set(("rtol", "atol")[: len(placed)])
    return not given or bool(left) or any(_number(value, numbers) != 0 for value in plain)


def absolute_bounds(tree: ast.AST, named: Names | None = None) -> list[str]:
    """Where a file holds a figure of accuracy against a number without a unit, ``line: code``.

    Args:
        tree: the file.
        named: the numbers that other files give names to, for it may import them.
    """
    given = _given(tree)
    aliases = {
        a.asname: a.name for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) for a in n.names if a.asname
    }
    imports = {a.name for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) for a in n.names}
    known = {name: n for name, n in (named or {}).items() if name.isupper() or name in imports}
    # A unit is none where the file itself gives the name to a number of its own.
    shadowed = {name for names, node in given for name in names & UNITS if _number(node, {}) is not None}
    units = UNITS - shadowed
    numbers = {name: n for name, n in numbers_of(tree, known).items() if name not in units}
    differences = {name for names, node in given if _is_difference(node, set()) for name in names}
    figures = _figures(given, units, differences)

    def is_wrong(figure: ast.expr, bound: ast.expr) -> bool:
        if not _is_figure(figure, figures, units, differences):
            return False
        # Nothing is nearer than 0: what is held against it is held to the bit.
        if not _words(bound) & units and _held(bound, numbers):
            return True
        return _has_small(bound, numbers) or _has_small(figure, numbers)

    wrong: list[ast.expr] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            pairs = list(zip(sides, node.ops, sides[1:], strict=False))
            both = [(a, b) for a, how, b in pairs if isinstance(how, ORDERED)]
            if any(is_wrong(a, b) or is_wrong(b, a) for a, b in both):
                wrong.append(node)
        elif isinstance(node, ast.Call):
            name = aliases.get(_called(node), _called(node))
            if name in ORDERING and len(node.args) > 1:
                a, b = node.args[:2]
                if is_wrong(a, b) or is_wrong(b, a):
                    wrong.append(node)
                continue
            if name == "partial" and node.args and (names_of(node.args[0]).rpartition(".")[2] in COMPARERS):
                name = names_of(node.args[0]).rpartition(".")[2]
            if name in COMPARERS and _is_tolerated(node, name, numbers, units):
                wrong.append(node)
    return sorted({f"{node.lineno}: {ast.unparse(node)}" for node in wrong})


MEASURING = {
    path.relative_to(ROOT).as_posix(): path
    for folder in ("tests", "benchmarks", "examples")
    for path in sorted((ROOT / folder).rglob("*.py"))
    if "node_modules" not in path.parts
}


@functools.cache
def constants() -> Names:
    """The numbers that any of these files gives a name to."""
    return {
        name: number
        for path in MEASURING.values()
        for name, number in numbers_of(parsed(path)).items()
        if len(name) > 1
    }


@pytest.mark.parametrize("name", MEASURING)
def test_every_bound_on_accuracy_has_a_unit(name: str) -> None:
    """Another processor has other last bits: a bound is in floors, in ulps, or is the product's own."""
    assert absolute_bounds(parsed(MEASURING[name]), constants()) == []


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
        "assert result.max_abs_diff < 3e-6",
        "assert 3e-6 > result.max_abs_diff_across_all",
        "assert 0 < fixture['max_abs_diff'] <= 1e-6",
        "assert fixture.cos > 0.9999999",
        "assert result.max_abs_diff < BOUND",
        "assert output.floor.candidate_max < 1e-6",
        "LIMIT = 3e-6\nassert result.max_abs_diff < LIMIT",
        "LIMIT = 3e-6\nassert result.max_abs_diff < 2 * LIMIT",
        "assert result.max_abs_diff < float('3e-6')",
        "assert not result.max_abs_diff >= np.float32(3e-6)",
        "assert all(s.max_abs_diff < 3e-6 for s in result.steps)",
        "assert np.abs(a - b).max() < 1e-6",
        "assert (a - b).abs().max() < 1e-6",
        "assert np.linalg.norm(a - b) < 1e-6",
        "worst = result.max_abs_diff\nassert worst < 3e-6",
        "worst = abs(a - b).max()\nhighest = worst\nassert highest < 3e-6",
        "def off(a, b):\n    return abs(a - b).max()\nassert off(a, b) < 3e-6",
        "if worst := result.max_abs_diff:\n    assert worst < 3e-6",
        "np.testing.assert_allclose(a, b, rtol=0, atol=1e-6)",
        "np.testing.assert_allclose(a, b)",
        "assert np.allclose(a, b, atol=TOLERANCE)",
        "assert a == pytest.approx(b, rel=1e-3)",
        "assert a == pytest.approx(b)",
        "torch.testing.assert_close(a, b)",
        "assert fixture.get('max_abs_diff') < 3e-6",
        "assert getattr(result, 'max_abs_diff') < 3e-6",
        "assert max(map(attrgetter('max_abs_diff'), fixtures)) < 3e-6",
        "assert np.less(result.max_abs_diff, 3e-6)",
        "self.assertLess(result.max_abs_diff, 3e-6)",
        "np.testing.assert_array_less(abs(a - b), 3e-6)",
        "match result.max_abs_diff:\n    case x if x < 3e-6:\n        pass",
        "def near(a, b, by):\n    return abs(a - b).max() < by\nassert near(a, b, 1e-6)",
        "def near(a, b, by):\n    assert abs(a - b).max() < by\nnear(a, b, by=1e-6)",
        "def near(a, b, by=1e-6):\n    assert abs(a - b).max() < by",
        "def near(a, b, *, by=1e-6):\n    assert abs(a - b).max() < by",
        "near = lambda a, b, by=1e-6: abs(a - b).max() < by",
        "async def off(a, b):\n    return abs(a - b).max()\nassert off(a, b) < 3e-6",
        "@pytest.mark.parametrize('bound', [3e-6])\ndef test_it(bound):\n"
        "    assert result.max_abs_diff < bound",
        "@pytest.mark.parametrize('name, bound', [pytest.param('pi0', 3e-6, id='x')])\n"
        "def test_it(name, bound):\n    assert result.max_abs_diff < bound",
        "@pytest.fixture\ndef bound():\n    return 3e-6\ndef test_it(bound):\n"
        "    assert result.max_abs_diff < bound",
        "BOUNDS = {'pi0': 3e-6}\nassert result.max_abs_diff < BOUNDS['pi0']",
        "BOUNDS = {'pi0': 3e-6}\nassert result.max_abs_diff < BOUNDS.get(name)",
        "LOW, HIGH = 1e-9, 3e-6\nassert result.max_abs_diff < HIGH",
        "assert result.max_abs_diff < (3e-6 if long else 1e-6)",
        "for r, bound in zip(results, (3e-6, 1e-6)):\n    assert r.max_abs_diff < bound",
        "assert result.max_abs_diff < max(3e-6, 1e-6 * scale)",
        "assert np.abs(a - b).max() < 1e-5 * np.abs(b).max()",
        "assert result.max_abs_diff - 3e-6 < 0",
        "assert result.max_abs_diff < 3e-6 + EPS",
        "diff = a - b\nassert diff.abs().max() < 1e-6",
        "assert np.absolute(np.subtract(a, b)).max() < 1e-6",
        "assert ((a - b) ** 2).mean() < 1e-12",
        "assert (a - b).max() < 1e-6",
        "assert torch.dist(a, b) < 1e-6",
        "worst = []\nfor f in fixtures:\n    worst.append(f.max_abs_diff)\nassert max(worst) < 3e-6",
        "assert all(x < 3e-6 for x in [f.max_abs_diff for f in fixtures])",
        "assert sum(f.max_abs_diff for f in fixtures) / len(fixtures) < 3e-6",
        "assert result.max_abs_diff < 3e-6 * len(fixtures)",
        "EPS = 3e-6\nassert result.max_abs_diff < EPS",
        "from cases import lower\nassert result.max_abs_diff < lower",
        "assert np.allclose(a, b, atol=0)",
        "assert np.allclose(a, b, 1e-5, atol=0)",
        "np.testing.assert_approx_equal(a, b, significant=5)",
        "close = partial(np.allclose, rtol=0, atol=1e-6)",
        "from numpy import allclose as same\nassert same(a, b, rtol=0, atol=1e-6)",
    ],
)
def test_a_bound_without_a_unit_is_seen(code: str) -> None:
    assert absolute_bounds(ast.parse(code), {"BOUND": 3e-6, "TOLERANCE": 1e-6, "lower": 1e-6})


@pytest.mark.parametrize(
    "code",
    [
        "assert result.max_abs_diff < STRICT_THRESHOLD",
        "assert result.max_abs_diff > 100 * THRESHOLD",
        "assert result.max_abs_diff == 0.5",
        "assert 0 < result.max_abs_diff",
        "assert np.array_equal(a, b)",
        "assert floors([a], [b], [c]) < ROUNDING",
        "assert ulps(a, b, dtype=np.float64) <= 2",
        "assert 1 - fixture.cos < np.finfo(np.float32).eps",
        "assert a == pytest.approx(b, rel=4 * EPS)",
        "assert np.allclose(a, b, rtol=0, atol=2 * ulp(np.float32, 4))",
        "assert len(fixtures) < 8",
        "assert len(str(error)) < 500",
        "assert worst < 3e-6",
        "assert np.allclose(a, b, rtol=0, atol=0)",
        "assert np.abs(a - b).max() < np.spacing(np.float32(1))",
        "bound = 4 * ulp(np.float32, 1.0)\nassert result.max_abs_diff < bound",
        "assert a.max_abs_diff / b.max_abs_diff < 2",
        "assert result.max_abs_diff < other.max_abs_diff",
        "@pytest.mark.parametrize('times', [2, 4])\ndef test_it(times):\n"
        "    assert result.max_abs_diff < times * THRESHOLD",
    ],
)
def test_a_bound_with_a_unit_is_let_be(code: str) -> None:
    assert absolute_bounds(ast.parse(code), {"ROUNDING": 2.0}) == []
