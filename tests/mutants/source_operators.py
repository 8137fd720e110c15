"""Small wrong changes to Python source, such as a slip of the hand makes: each operator lists its sites.

A change is spliced into the text at its own place and takes as many lines as it had, so that every other
line keeps its number. Messages, docstrings, annotations, ``__all__``, aliases of types and bodies of
protocols are left alone: none of them decides.
"""

from __future__ import annotations

import ast
import io
import random
import tokenize
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final

Change = tuple[int, int, str]
Simple = Callable[["Source", ast.AST], Iterator[Change]]

_ELSE_COMPARED: Final = {
    "<": "<=", "<=": "<", ">": ">=", ">=": ">", "==": "!=", "!=": "==", "is": "is not", "is not": "is",
    "in": "not in", "not in": "in",
}  # fmt: skip
_ELSE_COMPUTED: Final = {
    "+": "-", "-": "+", "*": "/", "/": "*", "//": "*", "%": "*", "**": "*", "&": "|", "|": "&", "^": "&",
    "<<": ">>", ">>": "<<", "@": "*",
}  # fmt: skip
_ELSE_CALLED: Final = {
    "any": "all", "all": "any", "min": "max", "max": "min", "minimum": "maximum", "maximum": "minimum",
    "argmin": "argmax", "argmax": "argmin",
}  # fmt: skip


@dataclass(frozen=True)
class Mutant:
    """One wrong change to one file.

    Attributes:
        path: the file, relative to the root of the tree.
        within: the function or class, dotted; empty at the top of the file.
        operator: what is done.
        line: where the change begins, from 1.
        lines: the first and the last line of the statement, or of its head.
        start: the first byte that is replaced.
        end: the byte behind the last.
        text: what comes there.
        was: the line before, without its indentation.
        becomes: the line after.
        nth: which of several changes that look the same, from 0.
    """

    path: str
    within: str
    operator: str
    line: int
    lines: tuple[int, int]
    start: int
    end: int
    text: str
    was: str
    becomes: str
    nth: int = 0

    def of(self, source: bytes) -> bytes:
        """The file with this change."""
        return source[: self.start] + self.text.encode() + source[self.end :]

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What it is known by, wherever its lines move to."""
        return self.path, self.within, self.was, self.becomes


class Source:
    """A file's text and syntax tree, and which bytes a node takes."""

    def __init__(self, text: bytes) -> None:
        self.text = text
        self.tree = ast.parse(text)
        self.starts = [0]
        for line in text.splitlines(keepends=True):
            self.starts.append(self.starts[-1] + len(line))

    def span(self, node: ast.AST) -> tuple[int, int]:
        return (
            self.starts[node.lineno - 1] + node.col_offset,  # type: ignore[attr-defined]
            self.starts[node.end_lineno - 1] + node.end_col_offset,  # type: ignore[attr-defined]
        )

    def line_of(self, at: int) -> int:
        """The line, from 1, that a byte is in."""
        return sum(start <= at for start in self.starts)

    @cached_property
    def tokens(self) -> list[tuple[int, int, str]]:
        lines = [*self.text.decode().splitlines(keepends=True), ""]

        def at(place: tuple[int, int]) -> int:
            row, column = place
            return self.starts[row - 1] + len(lines[row - 1][:column].encode())

        return [
            (at(token.start), at(token.end), token.string)
            for token in tokenize.tokenize(io.BytesIO(self.text).readline)
            if token.type in (tokenize.OP, tokenize.NAME)
        ]

    def between(self, first: ast.AST, second: ast.AST) -> list[tuple[int, int, str]]:
        """The words and signs between two nodes, without brackets."""
        low, high = self.span(first)[1], self.span(second)[0]
        return [t for t in self.tokens if low <= t[0] and t[1] <= high and t[2] not in "()"]

    def instead(self, node: ast.AST, text: str) -> Change:
        """An expression in the place of another, on as many lines."""
        start, end = self.span(node)
        before = self.text[start:end]
        return start, end, _padded(f"({text}", before) + ")" if b"\n" in before else text


def _padded(text: str, before: bytes) -> str:
    return text + "\n" * before.count(b"\n")


def comparison(source: Source, node: ast.AST) -> Iterator[Change]:
    """An end of a range taken in or left out, a comparison turned round."""
    if isinstance(node, ast.Compare):
        for left, right in zip([node.left, *node.comparators], node.comparators, strict=False):
            found = source.between(left, right)
            sign = " ".join(text for _, _, text in found)
            yield found[0][0], found[-1][1], _ELSE_COMPARED[sign]


def letter(source: Source, node: ast.AST) -> Iterator[Change]:
    """One letter less in the text that something is looked for in or is equal to."""
    if isinstance(node, ast.Compare):
        for other in [node.left, *node.comparators]:
            if isinstance(other, ast.Constant) and isinstance(other.value, str) and other.value.isascii():
                for at in range(len(other.value) if isinstance(node.ops[0], (ast.In, ast.NotIn)) else 1):
                    yield source.instead(other, repr(other.value[:at] + other.value[at + 1 :]))


def and_or(source: Source, node: ast.AST) -> Iterator[Change]:
    """An "and" for an "or"."""
    if isinstance(node, ast.BoolOp):
        for left, right in zip(node.values, node.values[1:], strict=False):
            start, end, text = source.between(left, right)[0]
            yield start, end, "or" if text == "and" else "and"


def not_removed(source: Source, node: ast.AST) -> Iterator[Change]:
    """A "not", a "~" or a minus sign left out."""
    if isinstance(node, ast.UnaryOp):
        start, end = source.span(node)
        inner = source.span(node.operand)[0]
        # What lies between may be a bracket.
        yield start, inner, source.text[start:inner].decode().lstrip("not~-+ ")


def number(source: Source, node: ast.AST) -> Iterator[Change]:
    """A whole number one more, another one doubled."""
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        value = node.value
        yield source.instead(node, repr(value + 1 if isinstance(value, int) else 2 * value or 1.0))


def truth(source: Source, node: ast.AST) -> Iterator[Change]:
    """True for False."""
    if isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield source.instead(node, repr(not node.value))


def default_none(source: Source, node: ast.AST) -> Iterator[Change]:
    """A default that is None and becomes 0, which is as false."""
    defaults: list[ast.expr | None] = []
    if isinstance(node, (ast.FunctionDef, ast.Lambda)):
        defaults = [*node.args.defaults, *node.args.kw_defaults]
    elif isinstance(node, ast.ClassDef):
        defaults = [part.value for part in node.body if isinstance(part, ast.AnnAssign)]
    for default in defaults:
        if isinstance(default, ast.Constant) and default.value is None:
            yield source.instead(default, "0")


def arithmetic(source: Source, node: ast.AST) -> Iterator[Change]:
    """Plus for minus, times for divided by, and their like."""
    if isinstance(node, ast.BinOp) and not (_is_text(node.left) or _is_text(node.right)):
        start, end, text = source.between(node.left, node.right)[0]
        yield start, end, _ELSE_COMPUTED[text]
    elif isinstance(node, ast.AugAssign) and not _is_text(node.value):
        start, end, text = source.between(node.target, node.value)[0]
        yield start, end, _ELSE_COMPUTED[text.removesuffix("=")] + "="


def any_all_min_max(source: Source, node: ast.AST) -> Iterator[Change]:
    """All for any, the largest for the smallest."""
    if isinstance(node, ast.Call):
        start, end = source.span(node.func)
        if isinstance(node.func, ast.Name) and node.func.id in _ELSE_CALLED:
            yield start, end, _ELSE_CALLED[node.func.id]
        elif isinstance(node.func, ast.Attribute) and node.func.attr in _ELSE_CALLED:
            yield end - len(node.func.attr), end, _ELSE_CALLED[node.func.attr]


def condition(source: Source, node: ast.AST) -> Iterator[Change]:
    """A condition that is always true, or never."""
    tests: list[ast.expr] = []
    if isinstance(node, (ast.If, ast.IfExp)):
        tests = [node.test]
    elif isinstance(node, ast.comprehension):
        tests = node.ifs
    for test in tests:
        yield source.instead(test, "True")
        yield source.instead(test, "False")
    if isinstance(node, ast.While):
        yield source.instead(node.test, "False")


def call_removed(source: Source, node: ast.AST) -> Iterator[Change]:
    """A call for its effect, left out."""
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        start, end = source.span(node)
        yield start, end, _padded("pass", source.text[start:end])


def raise_removed(source: Source, node: ast.AST) -> Iterator[Change]:
    """An error that is not raised."""
    if isinstance(node, ast.Raise):
        start, end = source.span(node)
        yield start, end, _padded("pass", source.text[start:end])


def loop_end(source: Source, node: ast.AST) -> Iterator[Change]:
    """The whole loop ended in place of one turn of it, and the reverse."""
    if isinstance(node, (ast.Continue, ast.Break)):
        yield *source.span(node), "break" if isinstance(node, ast.Continue) else "continue"


def nothing_returned(source: Source, node: ast.AST) -> Iterator[Change]:
    """None in place of what is returned."""
    if (
        isinstance(node, ast.Return)
        and node.value is not None
        and not _is_text(node.value)
        and not (isinstance(node.value, ast.Constant) and node.value.value is None)
    ):
        yield source.instead(node.value, "None")


def element_removed(source: Source, node: ast.AST) -> Iterator[Change]:
    """One of several left out: a gate, a kind, an exception that is caught."""
    for several in _listed(node):
        for index, element in enumerate(several.elts):
            start, end = source.span(element)
            if index + 1 < len(several.elts):
                end = source.span(several.elts[index + 1])[0]
            else:
                start = source.span(several.elts[index - 1])[1]
            gone = source.text[start:end]
            tail = "," if index + 1 == len(several.elts) == 2 and isinstance(several, ast.Tuple) else ""
            # Of two, the one that is left would else be no tuple; a comma behind it may be there already.
            if index == 0 and len(several.elts) == 2 and isinstance(several, ast.Tuple):
                left, right = source.span(several.elts[1])
                yield start, right, f"{_padded('', gone)}{source.text[left:right].decode()},"
            else:
                yield start, end, tail + _padded("", gone)


def _listed(node: ast.AST) -> list[ast.Tuple | ast.List | ast.Set]:
    """Literals in which each element stands for itself: looked through, looked in, caught, handed on."""
    places: Sequence[ast.AST | None] = ()
    if isinstance(node, ast.Compare):
        places = node.comparators
    elif isinstance(node, (ast.For, ast.comprehension)):
        places = [node.iter]
    elif isinstance(node, ast.Call):
        places = node.args
    elif isinstance(node, ast.ExceptHandler):
        places = [node.type]
    elif isinstance(node, (ast.Assign, ast.AnnAssign)):
        target = node.targets[0] if isinstance(node, ast.Assign) else node.target
        places = [] if isinstance(target, ast.Tuple) else [node.value]
    return [p for p in places if isinstance(p, (ast.Tuple, ast.List, ast.Set)) and len(p.elts) > 1]


OPERATORS: Final[dict[str, Simple]] = {
    operator.__name__: operator
    for operator in (
        comparison, letter, and_or, not_removed, number, truth, default_none, arithmetic, any_all_min_max,
        condition, call_removed, raise_removed, loop_end, nothing_returned, element_removed,
    )
}  # fmt: skip


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.JoinedStr) or (
        isinstance(node, ast.Constant) and isinstance(node.value, (str, bytes))
    )


def _name(node: ast.AST) -> str:
    """``Error`` of ``errors.Error(...)`` and of ``Error[int]``."""
    if isinstance(node, ast.Call):
        return _name(node.func)
    if isinstance(node, ast.Subscript):
        return _name(node.value)
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _is_message(call: ast.Call) -> bool:
    """A call that takes words: an exception, a warning."""
    return _name(call).endswith(("Error", "Exception", "Warning", "warn", "TypeVar", "NewType"))


def _is_alias(node: ast.Assign) -> bool:
    """``Arrays = Mapping[str, Array]``: a type that was given a name."""
    name = _name(node.targets[0])
    return name == "__all__" or (name.lstrip("_")[:1].isupper() and not name.isupper())


def _parts(node: ast.AST) -> Iterator[ast.AST]:
    """What may be changed of a node's parts."""
    if isinstance(node, (ast.JoinedStr, ast.Raise)):
        return
    if isinstance(node, ast.FunctionDef):
        yield from (d for d in [*node.args.defaults, *node.args.kw_defaults] if d is not None)
        yield from (d for d in node.decorator_list if isinstance(d, ast.Call))
        yield from node.body
    elif isinstance(node, ast.ClassDef):
        yield from node.body
    elif isinstance(node, ast.AnnAssign):
        if node.value is not None:
            yield node.value
    elif isinstance(node, ast.arguments):
        yield from (d for d in [*node.defaults, *node.kw_defaults] if d is not None)
    elif isinstance(node, ast.Call) and _name(node) == "no" and isinstance(node.func, ast.Attribute):
        yield from node.args[:1]  # Answer.no(gate, words)
    else:
        yield from ast.iter_child_nodes(node)


def _is_left_alone(node: ast.AST) -> bool:
    if isinstance(node, ast.If):
        return _name(node.test) == "TYPE_CHECKING"
    if isinstance(node, ast.ClassDef):
        return any(_name(base) == "Protocol" for base in node.bases)
    if isinstance(node, ast.FunctionDef):
        return any(_name(decorator) == "overload" for decorator in node.decorator_list)
    if isinstance(node, ast.Assign):
        return _is_alias(node)
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Constant)
    if isinstance(node, ast.Call):
        return _is_message(node)
    return isinstance(node, ast.Subscript) and _name(node) == "Literal"


def _walk(
    node: ast.AST, within: str = "", lines: tuple[int, int] = (1, 1)
) -> Iterator[tuple[ast.AST, str, tuple[int, int]]]:
    """Every node that may be changed, the name of what it lies in, and the lines of its statement."""
    for part in _parts(node):
        if _is_left_alone(part):
            continue
        name, own = within, lines
        if isinstance(part, ast.stmt):
            body = getattr(part, "body", None)
            own = (
                part.lineno,
                max(part.lineno, body[0].lineno - 1) if body else part.end_lineno or part.lineno,
            )
        elif isinstance(part, ast.ExceptHandler):
            own = part.lineno, part.lineno
        if isinstance(part, (ast.FunctionDef, ast.ClassDef)):
            name = f"{within}.{part.name}".lstrip(".")
        yield part, name, own
        yield from _walk(part, name, own)


def mutants_of(path: str, text: bytes) -> list[Mutant]:
    """Every mutant of a file, in the order of its lines; the same ones each time."""
    source = Source(text)
    found: list[Mutant] = []
    same: Counter[tuple[str, ...]] = Counter()
    for node, within, lines in _walk(source.tree):
        for name, operator in OPERATORS.items():
            for start, end, change in operator(source, node):
                line = source.line_of(start)
                made = Mutant(path, within, name, line, lines, start, end, change, "", "")
                after = made.of(text)
                try:
                    ast.parse(after)
                except SyntaxError:
                    continue
                was, becomes = (whole.splitlines()[line - 1].decode().strip() for whole in (text, after))
                made = replace(made, was=was, becomes=becomes, nth=same[within, was, becomes])
                same[within, was, becomes] += 1
                found.append(made)
    return sorted(found, key=lambda m: (m.start, m.end, m.operator, m.text))


def spread(by_file: Mapping[str, Sequence[Mutant]], wanted: int, seed: int) -> list[Mutant]:
    """Up to ``wanted`` mutants, from each file as many as its share is, the same ones for one seed."""
    total = sum(map(len, by_file.values()))
    wanted = min(wanted, total)
    exact = {path: wanted * len(some) / total for path, some in by_file.items() if some}
    shares = {path: int(share) for path, share in exact.items()}
    # What is left over goes where most was cut off.
    for path in sorted(exact, key=lambda p: shares[p] - exact[p])[: wanted - sum(shares.values())]:
        shares[path] += 1
    chosen: list[Mutant] = []
    for path, share in shares.items():
        some = list(by_file[path])
        random.Random(f"{seed}/{path}").shuffle(some)
        chosen += some[:share]
    return chosen
