"""The rules of the house: that the linter holds which way imports go, and what no linter can say."""

from __future__ import annotations

import ast
import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
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


# Figures of accuracy, by the names that the house has for them.
ACCURACY = {
    "max_abs_diff", "max_abs_diff_across_all", "mean_abs_diff", "max_rel_diff", "rmse", "cos", "sqnr_db",
    "error", "errors", "candidate_max", "candidate_rms", "reference_max", "reference_rms", "run_max",
    "run_rms", "propagated", "local", "drift",
}  # fmt: skip
# What compares by itself, to a tolerance that is written down or, worse, is not.
COMPARERS = {
    "allclose", "assert_allclose", "isclose", "approx", "assert_close", "assert_almost_equal",
    "assert_array_almost_equal", "assertAlmostEqual",
}  # fmt: skip
TOLERANCES = {"rtol", "atol", "rel", "abs", "rel_tol", "abs_tol", "decimal", "places", "delta"}
# What gives a number its unit: the product's own thresholds, the dtype's rounding, and the tests' helper.
UNITS = {"THRESHOLD", "STRICT_THRESHOLD", "EPS", "eps", "ulp", "ulps", "floors", "multiples"}
ORDERED = (ast.Lt, ast.LtE, ast.Gt, ast.GtE)


def _called(node: ast.Call) -> str:
    return ast.unparse(node.func).rpartition(".")[2]


def _words(node: ast.AST) -> set[str]:
    """The names, attributes and keys of an expression."""
    found = {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
    found |= {n.attr for n in ast.walk(node) if isinstance(n, ast.Attribute)}
    return found | {
        n.slice.value
        for n in ast.walk(node)
        if isinstance(n, ast.Subscript)
        and isinstance(n.slice, ast.Constant)
        and isinstance(n.slice.value, str)
    }


def _number(node: ast.expr, named: Mapping[str, float]) -> float | None:
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


def _is_distance(node: ast.AST) -> bool:
    """Whether it holds ``abs(a - b)`` in one of its spellings."""
    return any(
        isinstance(call, ast.Call)
        and _called(call) in ("abs", "norm", "fabs")
        and any(isinstance(part, ast.BinOp) and isinstance(part.op, ast.Sub) for part in ast.walk(call))
        for call in ast.walk(node)
    )


def _is_figure(node: ast.AST, named: set[str]) -> bool:
    """Whether an expression is a figure of accuracy that has no unit yet; ``named`` are known to be some."""
    if any(isinstance(n, ast.Call) and _called(n) == "len" for n in ast.walk(node)):
        return False
    words = _words(node)
    return not words & UNITS and (bool(words & (ACCURACY | named)) or _is_distance(node))


def numbers_of(tree: ast.AST) -> dict[str, float]:
    """The names that a file gives to a plain number."""
    return {
        target.id: value
        for node in ast.walk(tree)
        if isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value is not None
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        if isinstance(target, ast.Name) and (value := _number(node.value, {})) is not None
    }


def _figures(tree: ast.AST) -> set[str]:
    """The names, of variables and of functions, that stand for a figure of accuracy."""
    given: list[tuple[set[str], ast.AST]] = []
    for node in ast.walk(tree):
        if isinstance(node, (ast.Assign, ast.AnnAssign, ast.NamedExpr)) and node.value is not None:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            given.append(
                ({n.id for t in targets for n in ast.walk(t) if isinstance(n, ast.Name)}, node.value)
            )
        elif isinstance(node, ast.FunctionDef):
            given += [({node.name}, r.value) for r in ast.walk(node) if isinstance(r, ast.Return) and r.value]
    found: set[str] = set()
    while more := [pair for pair in given if not pair[0] <= found and _is_figure(pair[1], found)]:
        found |= {name for names, _ in more for name in names}
    return found


def absolute_bounds(tree: ast.AST, named: Mapping[str, float] | None = None) -> list[str]:
    """Where a file holds a figure of accuracy against a number without a unit, ``line: code``.

    Args:
        tree: the file.
        named: the numbers that other files give names to, for it may import them.
    """
    numbers = {name: n for name, n in {**(named or {}), **numbers_of(tree)}.items() if name not in UNITS}
    figures = _figures(tree)
    wrong: list[ast.expr] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            pairs = [
                pair
                for left, how, right in zip(sides, node.ops, sides[1:], strict=False)
                if isinstance(how, ORDERED)
                for pair in ((left, right), (right, left))
            ]
            # Nothing is nearer than 0: what is held against it is held to the bit.
            if any(_number(bound, numbers) and _is_figure(figure, figures) for figure, bound in pairs):
                wrong.append(node)
        elif isinstance(node, ast.Call) and _called(node) in COMPARERS:
            given = [word.value for word in node.keywords if word.arg in TOLERANCES]
            plain = [value for value in given if not _words(value) & UNITS]
            if not given or any(_number(value, numbers) != 0 for value in plain):
                wrong.append(node)
    return sorted({f"{node.lineno}: {ast.unparse(node)}" for node in wrong})


MEASURING = {
    path.relative_to(ROOT).as_posix(): ast.parse(path.read_text(encoding="utf-8"))
    for folder in ("tests", "benchmarks", "examples")
    for path in sorted((ROOT / folder).rglob("*.py"))
    if "node_modules" not in path.parts
}
CONSTANTS = {
    name: number
    for tree in MEASURING.values()
    for name, number in numbers_of(tree).items()
    if name.isupper() and len(name) > 1
}


@pytest.mark.parametrize("name", MEASURING)
def test_every_bound_on_accuracy_has_a_unit(name: str) -> None:
    """Another processor has other last bits: a bound is in floors, in ulps, or is the product's own."""
    assert absolute_bounds(MEASURING[name], CONSTANTS) == []


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
    ],
)
def test_a_bound_without_a_unit_is_seen(code: str) -> None:
    assert absolute_bounds(ast.parse(code), {"BOUND": 3e-6, "TOLERANCE": 1e-6})


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
    ],
)
def test_a_bound_with_a_unit_is_let_be(code: str) -> None:
    assert absolute_bounds(ast.parse(code), {"ROUNDING": 2.0}) == []
