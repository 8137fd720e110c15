"""A result or a whole run as HTML that needs nothing else: no script, no network, light and dark.

Both faces are drawn from the JSON form, so they show what the document holds and nothing more.
Every text that comes from outside is escaped.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape
from typing import TYPE_CHECKING, Any, Final

from pytest_reflex.report.json import number, result_to_json
from pytest_reflex.report.terminal import bound, cosine, element, figure

if TYPE_CHECKING:
    from pytest_reflex.verdict import ParityResult

# Scoped to .reflex, so that a fragment in a notebook leaves the rest of the page alone.
STYLE: Final = """
.reflex { font: 14px/1.5 system-ui, sans-serif; color-scheme: light dark; max-width: 60rem; }
.reflex .pass { color: light-dark(#116329, #56d364); } .reflex .fail { color: light-dark(#a40e26, #ff7b72); }
.reflex table { border-collapse: collapse; margin: .5rem 0; font-variant-numeric: tabular-nums; }
.reflex th, .reflex td { padding: .15rem .6rem; text-align: right; border-bottom: 1px solid #8885; }
.reflex th.text, .reflex td.text { text-align: left; overflow-wrap: anywhere; }
.reflex summary { cursor: pointer; } .reflex code { overflow-wrap: anywhere; }
.reflex ul { margin: .3rem 0; padding-left: 1.2rem; }
""".strip()

_PAGE_STYLE: Final = """
:root { color-scheme: light dark; }
body { margin: 2rem auto; padding: 0 1rem; max-width: 62rem; background: Canvas; color: CanvasText; }
""".strip()


def result_html(result: ParityResult) -> str:
    """A fragment for a notebook: the verdict, the table and the worst element, with its own style."""
    return f'<div class="reflex"><style>{STYLE}</style>{_result(result_to_json(result))}</div>'


def page(document: Mapping[str, Any]) -> str:
    """The page for a run document of :func:`pytest_reflex.report.json.document`, or for an error document."""
    if "error" in document:
        error = document["error"]
        body = _tag("h1", "no verdict", "fail") + _tag("p", f"{error['type']}: {error['message']}")
    else:
        body = _run(document)
    word = "error" if "error" in document else "PASS" if document["passed"] else "FAIL"
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>parity {escape(word)}</title>\n<style>\n{_PAGE_STYLE}\n{STYLE}\n</style>\n</head>\n"
        f'<body class="reflex">\n{body}\n<p><small>{escape(str(document["tool"]))} '
        f"{escape(str(document['version']))}</small></p>\n</body>\n</html>\n"
    )


def _run(document: Mapping[str, Any]) -> str:
    results = document["results"]
    failing = sum(entry["passed"] is not True for entry in results)
    parts = [
        _tag("h1", f"parity {_word(document['passed'])}", _style(document["passed"])),
        _tag(
            "p", f"{len(results)} compared, {failing} failing, {len(document['not_compared'])} not compared"
        ),
        _list(document["problems"], "fail"),
    ]
    if results:
        rows = [
            _row(
                [
                    (_word(entry["passed"]), _style(entry["passed"])),
                    (figure(number(entry["max_abs_diff_across_all"]), entry["threshold"]), ""),
                    (bound(entry["threshold"]), ""),
                    (str(entry["name"]), "text"),
                ]
            )
            for entry in results
        ]
        parts.append(_table(("verdict", "max_abs_diff", "threshold", "name"), rows))
    if document["not_compared"]:
        parts.append(_tag("h2", "Not compared"))
        parts.append(_list(f"{t['nodeid']}: {t['outcome']}: {t['reason']}" for t in document["not_compared"]))
    if results:
        parts.append(_tag("h2", "Results"))
    parts += [_result(entry) for entry in results]
    return "\n".join(part for part in parts if part)


def _result(entry: Mapping[str, Any]) -> str:
    passed, threshold = entry["passed"], entry["threshold"]
    largest = figure(number(entry["max_abs_diff_across_all"]), threshold)
    verdict = f"parity {_word(passed)}: max_abs_diff {largest}, threshold {bound(threshold)}"
    refused = [
        f"fixture {f['fixture_idx']}, {f['gate']}: {f['reason']}" for f in entry["fixtures"] if f["gate"]
    ]
    refused += [f"{gate['gate']}: {gate['reason']}" for gate in entry["gates"] if gate["passed"] is not True]
    rows = [
        _row(
            [
                (str(f["fixture_idx"]), ""),
                (figure(number(f["max_abs_diff"]), threshold), ""),
                (figure(number(f["mean_abs_diff"])), ""),
                (cosine(number(f["cos"])), ""),
                ("yes" if f["passed"] else "NO", _style(f["passed"])),
                (str(f["gate"] or ""), "text"),
            ]
        )
        for f in entry["fixtures"]
    ]
    header = ("fixture_idx", "max_abs_diff", "mean_abs_diff", "cos", "passed", "gate")
    return "\n".join(
        part
        for part in (
            _tag("h3", str(entry["name"])),
            _tag("p", verdict, _style(passed)),
            _list(refused, "fail"),
            _table(header, rows, left=("gate",)),
            _outputs(entry["fixtures"]),
            _list(f"note: {note}" for note in entry["notes"]),
            _facts("reference", entry["reference"]),
            _facts("candidate", entry["candidate"]),
        )
        if part
    )


def _outputs(fixtures: Iterable[Mapping[str, Any]]) -> str:
    """Every output of every fixture, folded away: where it differs most and by what."""
    rows = []
    for f in fixtures:
        for output in f["outputs"]:
            d = output["difference"]
            if d is None:
                continue
            rows.append(
                _row(
                    [
                        (str(f["fixture_idx"]), ""),
                        (element(output["name"], d["worst_index"]), "text"),
                        (str(d["worst_reference"]), ""),
                        (str(d["worst_candidate"]), ""),
                        (figure(number(d["max_abs_diff"])), ""),
                        (f"{d['unequal']} of {d['elements']}", ""),
                        (f"{d['ulp_p50']} / {d['ulp_p99']} / {d['ulp_max']}", ""),
                    ]
                )
            )
    if not rows:
        return ""
    header = (
        "fixture_idx",
        "worst element",
        "reference",
        "candidate",
        "difference",
        "differ",
        "ULP p50 / p99 / max",
    )
    table = _table(header, rows, left=("worst element",))
    return f"<details><summary>worst element of each output</summary>{table}</details>"


def _facts(title: str, facts: Mapping[str, Any]) -> str:
    if not facts:
        return ""
    rows = [_row([(str(key), "text"), (str(value), "text")]) for key, value in facts.items()]
    return f"<details><summary>{escape(title)}</summary>{_table((), rows)}</details>"


def _tag(tag: str, text: str, style: str = "") -> str:
    kind = f' class="{style}"' if style else ""
    return f"<{tag}{kind}>{escape(text)}</{tag}>"


def _row(cells: Iterable[tuple[str, str]]) -> str:
    return "<tr>" + "".join(_tag("td", text, style) for text, style in cells) + "</tr>"


def _table(header: Iterable[str], rows: Iterable[str], left: tuple[str, ...] = ("name",)) -> str:
    head = "".join(_tag("th", name, "text" if name in left else "") for name in header)
    return f"<table>{f'<tr>{head}</tr>' if head else ''}{''.join(rows)}</table>"


def _list(lines: Iterable[str], style: str = "") -> str:
    items = "".join(_tag("li", line, style) for line in lines)
    return f"<ul>{items}</ul>" if items else ""


def _word(passed: object) -> str:
    return "PASS" if passed is True else "FAIL"


def _style(passed: object) -> str:
    return "pass" if passed is True else "fail"
