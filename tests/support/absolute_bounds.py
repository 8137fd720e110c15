"""Where a file's code decides by a number that has no unit: a bound on accuracy, or a length of time.

Another processor has other last bits, so a bound is in floors, in ulps, or is the product's own; another
machine has another pace, so a time is held against one that was taken beside it. What is seen here is code as
people write it, in the spellings of ``tests/test_bounds.py``; not what is run from a string.
"""

from __future__ import annotations

import ast
import contextlib
import math
import re
from collections.abc import Collection, Iterator, Mapping

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
NEEDED = {
    "allclose": {"rtol", "atol"}, "isclose": {"rtol", "atol"}, "math.isclose": {"rel_tol"},
    "assert_allclose": {"rtol"},
}  # fmt: skip
TOLERANCES = {"rtol", "atol", "rel", "abs", "rel_tol", "abs_tol", "decimal", "places", "delta", "significant"}
# An order that is asked for by a call.
ORDERING = {
    "less", "less_equal", "greater", "greater_equal", "lt", "le", "gt", "ge", "assertLess", "assertLessEqual",
    "assertGreater", "assertGreaterEqual", "assert_array_less", "__lt__", "__le__", "__gt__", "__ge__",
}  # fmt: skip
# The larger or the smaller of several: what comes out was compared.
MIXING = {"max", "min", "maximum", "minimum", "fmax", "fmin", "clip", "clamp", "sorted"}
# What takes last digits away, so that what differs in them is equal.
TRUNCATING = {"round", "around", "rint", "int", "floor", "ceil", "trunc", "format", "str", "repr"}
EXACT = {"array_equal", "assert_array_equal", "assert_equal", "equal", "assertEqual"}
# A function that judges, by its name, wherever it is.
JUDGING = re.compile(
    r"^_*(assert|require|expect|within|almost|agree)|(near|nearly|close|same)$", re.IGNORECASE
)
READING = {"get", "getattr", "pop", "attrgetter", "itemgetter"}
# What gives a number its unit: thresholds of the product and torch, the dtype's rounding, the tests' helper.
UNITS = {
    "THRESHOLD", "STRICT_THRESHOLD", "TORCHS_OWN", "EPS", "eps", "ulp", "ulps", "spacing", "floors",
    "multiples", "ratio", "ratios",
}  # fmt: skip
OWNERS = ("pytest_reflex", "exporters", "floors")
# Of these a part is a number of somebody's own.
THRESHOLDS = {"THRESHOLD", "STRICT_THRESHOLD"}
# A relative step: of a difference it is a unit at a size alone, and 25 of them are 3e-6 again.
RELATIVE = {"EPS", "eps"}
TYPES = {"np", "numpy", "torch", "finfo", "float16", "float32", "float64", "bfloat16"}
SCALELESS = {"cos", "max_rel_diff", "cosine_similarity"}
ORDERED = (ast.Lt, ast.LtE, ast.Gt, ast.GtE)
# Below it a number that is added, or multiplied by a size, is a tolerance; above, it may count something.
SMALL = 1e-2
# No float32 program comes so near to another but by luck: who asks for it wants a refusal.
UNREACHED = 1e-12
# What reads a clock, and what a length of time is called.
CLOCKS = {
    "perf_counter", "perf_counter_ns", "monotonic", "monotonic_ns", "process_time", "thread_time", "time_ns",
    "time",
}  # fmt: skip
STATISTICS = {
    "min",
    "max",
    "sum",
    "mean",
    "median",
    "abs",
    "round",
    "float",
    "int",
    "sorted",
    "total_seconds",
}
TIMES = re.compile(r"(^|_)(seconds|elapsed|duration|took|ms|ns|milliseconds|wall)$|^seconds")
Names = Mapping[str, float]
Given = list[tuple[set[str], ast.expr]]


def _called(node: ast.Call) -> str:
    return ast.unparse(node.func).rpartition(".")[2]


def _parts(node: ast.AST, *, texts: bool = False) -> Iterator[ast.AST]:
    """A node and what is below it, without what is only counted, and what is put into a text."""
    if isinstance(node, ast.Call) and any(
        isinstance(n, ast.Name) and n.id == "len" for n in (node.func, *node.args)
    ):
        return
    if isinstance(node, ast.JoinedStr) and not texts:
        return
    yield node
    for child in ast.iter_child_nodes(node):
        yield from _parts(child, texts=texts)


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
        return None if left is None or right is None else _computed(node, left, right)
    if isinstance(node, ast.Call) and len(node.args) == 1:  # float("1e-6"), np.float32(1e-6)
        given = node.args[0]
        if isinstance(given, ast.Constant) and isinstance(given.value, str):
            with contextlib.suppress(ValueError):
                size = abs(float(given.value))
                return size if math.isfinite(size) else None  # nothing is above infinity
        return _number(given, named)
    return None


def _computed(node: ast.BinOp, left: float, right: float) -> float:
    """The size of what is computed of two sizes; a sum's is the larger one's."""
    with contextlib.suppress(ArithmeticError):
        if isinstance(node.op, ast.Mult):
            return left * right
        if isinstance(node.op, ast.Div):
            return left / right
        if isinstance(node.op, ast.Pow):
            down = isinstance(node.right, ast.UnaryOp) and isinstance(node.right.op, ast.USub)
            return float(left ** (-right if down else right))
    return max(left, right)


def _held(node: ast.expr, named: Names) -> float | None:
    """The largest number that an expression may be or may be taken from: a choice, a table, a loop's list."""
    if isinstance(node, (ast.Tuple, ast.List, ast.Set)):
        parts = list(node.elts)
    elif isinstance(node, ast.Dict):
        parts = list(node.values)
    elif isinstance(node, ast.IfExp):
        parts = [node.body, node.orelse]
    elif isinstance(node, (ast.Subscript, ast.Starred)):
        parts = [node.value]
    elif isinstance(node, (ast.ListComp, ast.SetComp, ast.GeneratorExp)):
        # Of the loop's own name nothing is known; what it is multiplied by is.
        elt = node.elt
        scaled = isinstance(elt, ast.BinOp) and isinstance(elt.op, ast.Mult)
        parts = [elt.left, elt.right] if scaled and isinstance(elt, ast.BinOp) else [elt]
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
            return 0 < value < SMALL or 1 - SMALL < value < 1
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
    if isinstance(target, ast.Attribute):
        return [({target.attr}, value)]
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
    words_given = {word.arg: word.value for word in node.keywords}
    places = dict(zip(("argnames", "argvalues"), node.args, strict=False)) | words_given
    if not {"argnames", "argvalues"} <= places.keys():
        return []
    names, rows = places["argnames"], places["argvalues"]
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


def _passed(node: ast.Call, functions: Mapping[str, ast.arguments]) -> Given:
    """What a call, or a partial one, gives the arguments of this file's function or method of its name."""
    called, values = node.func, node.args
    if _called(node) == "partial" and values:
        called, *values = values
    name = ast.unparse(called).rpartition(".")[2]
    if name not in functions:
        return []
    own = [a.arg for a in (*functions[name].posonlyargs, *functions[name].args)]
    own = own[own[:1] in (["self"], ["cls"]) :]
    unpacked = [v for value in values for v in _elements(value)]
    given: Given = [({a}, v) for a, v in zip(own, unpacked, strict=False)]
    for word in node.keywords:
        if word.arg:
            given.append(({word.arg}, word.value))
        elif isinstance(word.value, ast.Dict):
            pairs = zip(word.value.keys, word.value.values, strict=True)
            given += [({str(k.value)}, v) for k, v in pairs if isinstance(k, ast.Constant)]
    return given


def _elements(node: ast.expr) -> list[ast.expr]:
    """Several values that are written as one, ``*(a, b)`` or a list."""
    if isinstance(node, ast.Starred):
        node = node.value
        return list(node.elts) if isinstance(node, (ast.Tuple, ast.List)) else []
    return [node]


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
            value = node.value.body if isinstance(node.value, ast.Lambda) else node.value
            given += [pair for target in targets for pair in _paired(target, value)]
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
            if name == "parametrize":
                given += _parametrized(node)
            elif name == "fixture":
                given += [({"param"}, word.value) for word in node.keywords if word.arg == "params"]
            elif isinstance(node.func, ast.Attribute) and name in ("append", "add") and len(node.args) == 1:
                given += _paired(node.func.value, node.args[0])
            given += _passed(node, functions)
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
    spelt = ast.unparse(node.func)
    needed = NEEDED.get(spelt, NEEDED.get(name, set()))
    left = needed - set(words) - set(("rtol", "atol")[: len(placed)])
    return not given or bool(left) or any(_number(value, numbers) != 0 for value in plain)


def _orders(tree: ast.AST) -> Iterator[tuple[ast.expr, ast.expr, ast.expr]]:
    """Each order that a file asks for: the expression, and two sides of it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            for a, how, b in zip(sides, node.ops, sides[1:], strict=False):
                if isinstance(how, ORDERED):
                    yield node, a, b
        elif isinstance(node, ast.Call) and _called(node) in ORDERING | MIXING:
            sides = [part for value in node.args for part in _elements_of(value)]
            if len(sides) == 1 and isinstance(node.func, ast.Attribute):
                sides.insert(0, node.func.value)  # a.lt(b), a.clip(b)
            yield from ((node, sides[0], side) for side in sides[1:])


def _elements_of(node: ast.expr) -> list[ast.expr]:
    return list(node.elts) if isinstance(node, (ast.Tuple, ast.List, ast.Set)) else [node]


def _is_tolerance(node: ast.expr, numbers: Names, units: set[str]) -> bool:
    """Whether it is, or is taken from, a number so small that it can only be one, and has no unit."""
    if isinstance(node, ast.BinOp):
        if isinstance(node.op, ast.Mult) and _words(node) & units:
            return False
        if _number(node, numbers) is None:
            return any(_is_tolerance(side, numbers, units) for side in (node.left, node.right))
        return _has_small(node, numbers)
    if isinstance(node, ast.UnaryOp):
        return _is_tolerance(node.operand, numbers, units)
    value = None if _words(node) & units else _held(node, numbers)
    return value is not None and (0 < value < SMALL or 1 - SMALL < value < 1)


def _is_made_up(node: ast.expr) -> bool:
    """Whether a call makes a number of nothing but literals, or of what was read as text."""
    if not isinstance(node, ast.Call):
        return False
    if _called(node) in ("float", "Decimal", "Fraction"):
        return True
    return bool(node.args) and not node.keywords and all(
        isinstance(n, (ast.UnaryOp, ast.BinOp, ast.operator, ast.unaryop))
        or (isinstance(n, ast.Constant) and type(n.value) in (int, float))
        for argument in node.args
        for n in ast.walk(argument)
    )  # fmt: skip


def _truncated(node: ast.AST) -> Iterator[tuple[ast.expr, bool]]:
    """What in an expression has lost last digits, and whether a number of places was asked for."""
    for n in _parts(node, texts=True):
        if isinstance(n, ast.Call) and _called(n) in TRUNCATING:
            plain = isinstance(n.func, ast.Name) or ast.unparse(n.func).startswith(("np.", "torch.", "math."))
            values = n.args if plain else [n.func.value, *n.args] if isinstance(n.func, ast.Attribute) else []
            if values:
                yield values[0], "round" in _called(n) and len(values) > 1
        elif isinstance(n, ast.FormattedValue) and n.format_spec:
            yield n.value, False
        elif isinstance(n, ast.BinOp) and isinstance(n.op, ast.FloorDiv):
            yield n.left, False
        elif isinstance(n, ast.BinOp) and isinstance(n.op, ast.Mod) and isinstance(n.left, ast.Constant):
            yield n.right, False


def _is_narrowed(node: ast.expr) -> bool:
    """Whether it is given a type with fewer digits, in which what is near is equal."""
    return any(
        isinstance(n, ast.Call)
        and (
            _called(n) in ("half", "bfloat16")
            or (_called(n) == "astype" and ("int" in ast.unparse(n) or "float16" in ast.unparse(n)))
        )
        for n in ast.walk(node)
    )


def _is_disguised(figure: ast.expr, bound: ast.expr, units: set[str]) -> bool:
    """Whether a bound's unit is none: a part of a threshold, or relative steps without a size."""
    words = _words(bound)
    if words & THRESHOLDS & units:
        parts = [n.value for n in ast.walk(bound) if isinstance(n, ast.Constant)]
        divided = any(isinstance(n, ast.BinOp) and isinstance(n.op, ast.Div) for n in ast.walk(bound))
        return divided or any(isinstance(n, float) and 0 < n < 1 for n in parts)
    return bool(words & units) and words.issubset(RELATIVE | TYPES) and not _words(figure) & SCALELESS


def _units_of(tree: ast.AST, given: Given, named: Names) -> set[str]:
    """The words for a unit that are one in this file, and not its own name for something else."""

    def is_none(name: str, node: ast.expr) -> bool:
        if isinstance(node, (ast.List, ast.Dict, ast.Set, ast.Tuple)) and not ast.unparse(node)[1:-1]:
            return False  # to be filled
        divided = any(isinstance(n, ast.BinOp) and isinstance(n.op, ast.Div) for n in ast.walk(node))
        wrong = _held(node, named) is not None or _is_figure(node, set(), UNITS, set())
        return wrong and not divided and not (_words(node) - {name}) & UNITS

    shadowed = {name for names, node in given for name in names & UNITS if is_none(name, node)}
    for n in ast.walk(tree):
        if isinstance(n, ast.ImportFrom) and not str(n.module).startswith(OWNERS):
            names = {a.asname or a.name: a.name for a in n.names}
            shadowed |= {own for own, name in names.items() if name not in UNITS or name in named}
    return UNITS - (shadowed - {"TORCHS_OWN"})


def absolute_bounds(tree: ast.AST, named: Names | None = None) -> list[str]:
    """Where a file holds a figure of accuracy against a number without a unit, ``line: code``.

    Args:
        tree: the file.
        named: the numbers that other files give names to, for it may import them.
    """
    given, named = _given(tree), named or {}
    aliases = {
        a.asname: a.name for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) for a in n.names if a.asname
    }
    units = _units_of(tree, given, named)
    imports = {a.name for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) for a in n.names}
    known = {name: n for name, n in named.items() if name.isupper() or name in imports or "*" in imports}
    known |= {own: named[name] for own, name in aliases.items() if name in named}
    modules = {a.asname or a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
    from_modules = {
        n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute) and ast.unparse(n.value) in modules
    }
    known |= {name: n for name, n in named.items() if name in from_modules}
    numbers = {name: n for name, n in numbers_of(tree, known).items() if name not in units}
    differences = {name for names, node in given if _is_difference(node, set()) for name in names}
    figures = _figures(given, units, differences)

    def is_figure(node: ast.AST) -> bool:
        return _is_figure(node, figures, units, differences)

    def is_wrong(figure: ast.expr, bound: ast.expr) -> bool:
        if not is_figure(figure):
            return False
        if _is_disguised(figure, bound, units) or (not _words(bound) & units and _is_made_up(bound)):
            return True
        # Nothing is nearer than 0: what is held against it is held to the bit.
        if not _words(bound) & units and _held(bound, numbers):
            return True
        return _has_small(bound, numbers) or _has_small(figure, numbers)

    wrong: list[ast.expr] = [
        node
        for node, a, b in _orders(tree)
        if is_wrong(a, b)
        or is_wrong(b, a)
        # Whatever it is called: so small a number is a tolerance.
        or (isinstance(node, ast.Compare) and any(_is_tolerance(side, numbers, units) for side in (a, b)))
    ]
    called = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    for node in ast.walk(tree):
        exact = isinstance(node, ast.Call) and _called(node) in EXACT
        if (exact or isinstance(node, (ast.Compare, ast.Assert))) and any(
            places or is_figure(value) for value, places in _truncated(node)
        ):
            wrong.append(node.test if isinstance(node, ast.Assert) else node)
        if isinstance(node, ast.Call):
            name = aliases.get(_called(node), _called(node))
            if name in COMPARERS and _is_tolerated(node, name, numbers, units):
                wrong.append(node)
            if name == "getattr" and COMPARERS & {a.value for a in node.args if isinstance(a, ast.Constant)}:
                wrong.append(node)
            if name in EXACT and len(node.args) > 1 and all(map(_is_narrowed, node.args[:2])):
                wrong.append(node)
            values = [*node.args, *(word.value for word in node.keywords)]
            if JUDGING.match(name) and any(_is_tolerance(v, numbers, units) for v in values):
                wrong.append(node)
        elif isinstance(node, (ast.Attribute, ast.Name)) and id(node) not in called:
            name = node.attr if isinstance(node, ast.Attribute) else node.id
            if name in COMPARERS:  # handed on, it is called where nobody looks
                wrong.append(node)
    return sorted({f"{node.lineno}: {ast.unparse(node)}" for node in wrong})


def _is_time(node: ast.AST, known: set[str]) -> bool:
    """Whether an expression is a length of time, by a clock that it reads or by its name."""
    spelt = ast.unparse(node)
    if isinstance(node, ast.Name):
        return node.id in known or bool(TIMES.search(node.id))
    if isinstance(node, ast.Attribute):
        return bool(TIMES.search(node.attr))
    if isinstance(node, ast.Subscript):
        key = node.slice.value if isinstance(node.slice, ast.Constant) else ""
        return bool(TIMES.search(str(key))) or _is_time(node.value, known)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
        # Of two times the one is the other's unit; a number or a count is none.
        return _is_time(node.left, known) and (_number(node.right, {}) is not None or "len(" in spelt)
    if isinstance(node, ast.Call):
        name = ast.unparse(node.func)
        reads = _called(node) in CLOCKS and name != "time"
        if reads or name in known or TIMES.search(_called(node)):
            return True
        within = [*node.args, node.func.value] if isinstance(node.func, ast.Attribute) else node.args
        return _called(node) in STATISTICS and any(_is_time(part, known) for part in within)
    parts = (
        ast.BinOp,
        ast.UnaryOp,
        ast.IfExp,
        ast.List,
        ast.Tuple,
        ast.ListComp,
        ast.GeneratorExp,
        ast.NamedExpr,
    )
    return isinstance(node, parts) and any(_is_time(part, known) for part in ast.iter_child_nodes(node))


def absolute_times(tree: ast.AST) -> list[str]:
    """Where a file decides by a length of time against a number, ``line: code``.

    What only waits, or chooses what to do next, is let be: ``while``, and ``if`` without an error.
    """
    given, numbers = _given(tree), numbers_of(tree)
    known: set[str] = set()
    while more := [names for names, node in given if not names <= known and _is_time(node, known)]:
        known |= set().union(*more)
    let_be: set[int] = set()
    for node in ast.walk(tree):
        ends = isinstance(node, ast.If) and any(
            isinstance(n, ast.Raise) or (isinstance(n, ast.Call) and _called(n) == "fail")
            for part in node.body
            for n in ast.walk(part)
        )
        if isinstance(node, ast.While) or (isinstance(node, ast.If) and not ends):
            let_be |= {id(n) for n in ast.walk(node.test)}
        elif isinstance(node, ast.comprehension):
            let_be |= {id(n) for test in node.ifs for n in ast.walk(test)}
    wrong = [
        node
        for node, a, b in _orders(tree)
        if id(node) not in let_be and not (isinstance(node, ast.Call) and _called(node) in MIXING)
        for time, bound in ((a, b), (b, a))
        if _is_time(time, known) and not _is_time(bound, known) and _held(bound, numbers)
    ]
    return sorted({f"{node.lineno}: {ast.unparse(node)}" for node in wrong})


def own_thresholds(tree: ast.AST, allowed: Collection[float]) -> list[str]:
    """Where a check is given a threshold that is not among the product's, ``line: code``.

    One of a percent and more is for narrow types, and one that nothing reaches asks for a refusal.
    """
    return [
        f"{node.lineno}: {ast.unparse(node)}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        for word in node.keywords
        if word.arg == "threshold" and (value := _held(word.value, numbers_of(tree))) is not None
        if UNREACHED < value < SMALL and value not in allowed
    ]
