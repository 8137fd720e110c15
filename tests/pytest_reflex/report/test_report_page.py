"""The page and the notebook fragment as text: they stand alone, and what comes from outside stays text."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from html.parser import HTMLParser
from typing import Any

import pytest
from report_cases import ALL, FAILING, NOT_FINITE, PASSING, difference, floored, located, measured, result

from pytest_reflex.errors import ReflexError
from pytest_reflex.report import html, scale
from pytest_reflex.report import json as as_json
from pytest_reflex.report.html import cause_pictures, pictures
from pytest_reflex.report.html.causes import place_in
from pytest_reflex.report.html.pages import PICTURED
from pytest_reflex.report.html.view import input_words, result_view
from pytest_reflex.report.order import natural
from pytest_reflex.report.session import Session
from pytest_reflex.result import ParityResult
from pytest_reflex.verdict.results import FIXTURE_GATE_NAMES, Answer, FixtureResult, OutputResult
from pytest_reflex.verdict.rounding import Floor
from pytest_reflex.verdict.summaries import ErrorGrid, InputSummary, StepDifference

pytestmark = pytest.mark.once

VOID = ("meta", "link", "br", "wbr", "input")
GRID = ErrorGrid(
    3, 4, (1, 1), ((0.0, 1e-7, 2e-7, 1e-9), (3e-7, 9.461e-3, 2e-5, 0.0), (1e-8, 1e-8, 1e-8, 1e-8))
)
NAMES = {
    "a tag": "<script>alert(1)</script><img src=x onerror=alert(2)>",
    "quotes": "\"'`></title></style></script><!--",
    "a template's braces": "{{ 7 * 7 }}{% raw %}",
    "long": "long_" * 2000,
    "right to left": "\u202egnp.exe\u2066 \u05d0\u05d1\u200f.onnx",
    "no Unicode": "\udcff\x00\x1b[31m",
}


class Page(HTMLParser):
    """What a browser would see: whether tags balance, the text, and every tag with its attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text = ""
        self.shut_in = 0  # how many right-to-left overrides stand within <bdi>
        self.tags: list[tuple[str, tuple[str, ...]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, tuple(name for name, _ in attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, tuple(name for name, _ in attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data
        if "bdi" in self.open:
            self.shut_in += data.count("\u202e")


def full(name: str, threshold: float = 1e-5) -> ParityResult:
    """A failing result with everything a page can show, and ``name`` wherever a name can stand."""
    figures = difference(9.461e-3, scale=0.9, ulp_counts=(1500, 60, 20, 10, 10), worst_index=(0, 1, 1))
    given = (
        InputSummary(name, "bool", (1, 2), False, True, 1, "0123456789abcdef"),
        InputSummary("image", "float32", (1, 3), -1.0, 1.0, 3, "fedcba9876543210"),
    )
    answers = (*(Answer.yes(gate) for gate in FIXTURE_GATE_NAMES[:-1]), Answer.no("threshold", name))
    output = OutputResult(name, "float32", (1, 3, 4), figures, GRID)
    worst = FixtureResult(1, answers, (output,), given)
    good = dataclasses.replace(measured(0, 3e-7, threshold), inputs=given)
    made = result(
        good,
        worst,
        name=name,
        threshold=threshold,
        refusing={"inputs": name},
        reference={"kind": "torch", "class": name, name: name},
        candidate={"kind": "onnx", "path": name, "versions": {"onnxruntime": name}, "live_inputs": [name]},
        notes=(name,),
        steps=(StepDifference(1, 1e-7, 1e-8), StepDifference(2, 1e-4, 1e-6)),
        steps_of=1,
        located=located(name),
    )
    return floored(made, 8e-7, 9.46e-3)


def document(name: str = "pi0") -> dict:
    test = {"nodeid": name, "outcome": "skipped", "reason": name}
    return as_json.document([full(name), PASSING], not_compared=[test], problems=[name])


def test_the_page_shows_every_result_and_stands_alone() -> None:
    skipped = {"nodeid": "test_a.py::test_c", "outcome": "skipped", "reason": "no GPU here"}
    text = html.page(
        as_json.document(ALL.values(), not_compared=[skipped], problems=["worker gw0 went down"])
    )
    page = Page(text)
    assert page.open == []
    for word in (
        "parity FAIL", "9.461e-03", "image0 is dead", "no GPU here", "worker gw0 went down",
        "0.5123456478118896", "torch PI0Policy", "onnx pi0/model.onnx, on CPUExecutionProvider",
        "946 times above the threshold",
    ):  # fmt: skip
        assert word in page.text
    assert "://" not in text
    assert not {"src", "srcset", "data", "action"} & {name for _, names in page.tags for name in names}
    assert "@import" not in text
    assert "url(" not in text


def test_the_page_shows_all_that_a_result_holds() -> None:
    page = Page(html.page(as_json.document([full("pi0")])))
    assert page.open == []
    for word in (
        "Error of pi0 in its worst fixture, 1", "Largest 9.461e-03 (framed)", "2 of 12 cells at or above",
        "Distance in units in the last place", "4 to 7", "1,600 elements of all fixtures",
        "Error by denoising step, fixture 1", "1.000e-04 after the last",
        "Which inputs each fixture exercised", "1 of 2", "-1 to 1", "reaches the outputs",
        "versions.onnxruntime", "0123456789abcdef", "float floor 6.0e-08",
        "Floor: bug: the candidate is further from float64", "Where: bug: step 7, pi0 (modeling.py:88)",
        "Error along the run, fixture 1", "9,737 values of fixture 1", "fed alike", "0.12345",
        "Distance from float64", "1.1e+04", "Behind each layer",
    ):  # fmt: skip
        assert word in page.text, word


def picture(text: str, said: str) -> str:
    """The drawing whose label begins so."""
    whole = text[text.index(f'aria-label="{said}') :]
    return whole[: whole.index("</svg>")]


def test_the_first_wrong_layer_is_marked_in_its_step() -> None:
    found = located("expert.layers.4.norm_2")
    assert place_in(list(found.growth), found) == 6 + 7 * 6 + 4
    text = html.page(as_json.document([dataclasses.replace(full("pi0"), located=found)]))
    drawn = picture(text, "Error behind each of 66 layers")
    assert drawn.count("fail-mark") == 1
    assert drawn.count('class="field"') == 5
    assert "first wrong here" in drawn
    nowhere = dataclasses.replace(found, place=None, cause="rounding", said="all is well")
    text = html.page(as_json.document([dataclasses.replace(full("pi0"), located=nowhere)]))
    drawn = picture(text, "Error behind each of 66 layers")
    assert "fail-mark" not in drawn
    assert "first wrong here" not in drawn
    assert "Where: rounding: all is well" in Page(text).text


def test_growth_that_is_not_finite_is_crossed() -> None:
    found = located()
    lost = [dataclasses.replace(g, propagated=math.nan) if g.step == 9 else g for g in found.growth]
    made = dataclasses.replace(found, place=None, growth=tuple(lost))
    drawn = picture(
        html.page(as_json.document([dataclasses.replace(full("pi0"), located=made)])), "Error behind each"
    )
    assert drawn.count("fail-mark") == 6
    assert "nan" not in drawn


def test_a_run_of_a_thousand_layers_stays_light() -> None:
    growth = [dataclasses.replace(g, propagated=5e-7) for g in located(layers=100, steps=10).growth]
    # The one wrong layer among its neighbours is not lost.
    for i in (0, 500, 1099):
        run = list(growth)
        run[i] = dataclasses.replace(run[i], propagated=3e-3)
        drawn = cause_pictures.error_along_run(run, i)
        assert len(drawn) < 12_000
        line = re.search(r'class="line propagated"[^>]*points="([^"]*)"', drawn)
        heights = [float(point.split(",")[1]) for point in line[1].split()]
        assert len(heights) == 220
        assert heights.count(min(heights)) == 1


def test_each_fixture_has_both_distances_from_float64_and_what_is_allowed() -> None:
    text = html.page(as_json.document([full("pi0")]))
    drawn = picture(text, "Distance from float64 of both sides in 2 fixtures")
    marks = ("own-mark", "pass-mark", "fail-mark", 'class="floor"')
    assert [drawn.count(mark) for mark in marks] == [2, 1, 1, 2]
    blind = Floor(2.0, unknown="the truth is not finite")
    output = dataclasses.replace(PASSING.fixtures[0].outputs[0], floor=blind)
    made = dataclasses.replace(
        PASSING, fixtures=(dataclasses.replace(PASSING.fixtures[0], outputs=(output,)),)
    )
    page = Page(html.page(as_json.document([made])))
    assert "Floor: undecided: the truth is not finite" in page.text
    assert "of both sides" not in page.text


def test_nobody_asked_and_nothing_is_shown() -> None:
    text = html.page(as_json.document([PASSING]))
    for word in ("Floor:", "Where", "float64", "Error along"):
        assert word not in Page(text).text


def test_what_cannot_be_drawn_is_said() -> None:
    text = html.page(as_json.document([ALL["structure"]]))
    assert "there is nothing to draw" in text
    assert "Not drawn: <bdi>nobody looked at the steps</bdi>." in text
    assert "No distances were recorded" in text
    blind = dataclasses.replace(ALL["structure"], unseen="a <b>reason</b>")
    assert "Not drawn: <bdi>a &lt;b&gt;reason&lt;/b&gt;</bdi>." in html.page(as_json.document([blind]))


def test_a_step_that_is_not_finite_is_crossed_and_named() -> None:
    steps = (StepDifference(1, 1e-7, 1e-8), StepDifference(2, math.nan, math.nan))
    made = dataclasses.replace(full("pi0"), steps=steps)
    text = html.page(as_json.document([made]))
    assert "Not finite (crossed) from step 2 on." in text
    assert "Not finite" not in html.page(as_json.document([full("pi0")]))
    picture = text[text.index("Error after each of 2") :]
    picture = picture[: picture.index("</svg>")]
    assert (picture.count("<circle"), picture.count("fail-mark")) == (1, 1)
    assert "nan" not in picture


def test_pages_without_a_result_say_why() -> None:
    page = html.page(as_json.error_document(ReflexError("<m>.onnx: no such file")))
    assert "<title>parity error</title>" in page
    assert "ReflexError: &lt;m&gt;.onnx: no such file" in page
    page = html.page(as_json.document([], problems=["worker gw0 <went> down"]))
    assert Page(page).open == []
    assert "Nothing was compared, so nothing is proven." in page
    assert "worker gw0 &lt;went&gt; down" in page
    assert "<title>parity PASS</title>" in html.page(as_json.document([PASSING]))


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_a_hostile_name_changes_nothing_but_text(name: str) -> None:
    for make in (lambda n: html.page(document(n), document("other")), lambda n: html.result_html(full(n))):
        plain, hostile = Page(make("pi0")), Page(make(name))
        assert hostile.open == []
        # A long name is told in full once more: nothing else is new.
        more = (
            [("h3", ()), ("p", ("class",)), ("bdi", ())]
            if len(name) > 160 and "Name in full" in hostile.text
            else []
        )
        for tag in more:
            hostile.tags.remove(tag)
        assert sorted(hostile.tags) == sorted(plain.tags)
        assert not any(attribute.startswith("on") for _, names in hostile.tags for attribute in names)


def test_what_writes_from_right_to_left_is_shut_in() -> None:
    name = NAMES["right to left"]
    for text in (html.page(document(name), document("other")), html.result_html(full(name))):
        page = Page(text)
        assert text.count("\u202e") > 5
        assert page.shut_in == text.count("\u202e")


def test_one_script_is_allowed_and_it_is_the_page_s() -> None:
    text = html.page(document())
    assert text.count("<script>") == 1
    assert re.search(
        r"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-", text
    )


def test_fifty_exports_of_two_hundred_fixtures_weigh_under_five_megabytes() -> None:
    given = tuple(
        InputSummary(f"observation.images.camera{k}", "float32", (1, 3, 224, 224), -0.987, 0.913, 9, "0" * 16)
        for k in range(12)
    )
    cells = tuple(tuple(abs(math.sin(i * 32 + j)) * 1e-3 for j in range(32)) for i in range(50))
    fixtures = []
    for i in range(200):
        made = measured(i, 9.4613e-3 if i % 3 else 3.123e-7)
        grid = ErrorGrid(50, 32, (1, 1), cells) if i == 1 else None
        outputs = tuple(dataclasses.replace(output, grid=grid) for output in made.outputs)
        fixtures.append(dataclasses.replace(made, inputs=given, outputs=outputs))
    whole = result(*fixtures).to_json()
    entries = [{**whole, "name": f"tests/parity/test_family.py::test_policy[{k}]"} for k in range(50)]
    assert len(html.page(as_json.document(entries)).encode()) < 5_000_000


def test_the_notebook_shows_the_table_and_the_heat_map() -> None:
    for found in ALL.values():
        assert Page(found._repr_html_()).open == []
    fragment = Page(full("pi0")._repr_html_())
    assert "fixture_idx" in fragment.text
    assert "Error of pi0 in its worst fixture, 1" in fragment.text
    assert "<script" not in full("pi0")._repr_html_()


def test_a_result_of_many_fixtures_shows_the_failing_ones_in_a_notebook() -> None:
    found = result(*(measured(i, 1e-2 if i in (7, 150) else 3e-7) for i in range(200)))
    fragment = found._repr_html_()
    assert "<td>150</td>" in fragment
    assert "180 more fixtures are not shown" in fragment


# The order of a page, its links, two runs


def named(*names: str) -> list[dict[str, Any]]:
    """A passing and a failing result of each name, the passing ones first."""
    return [
        {**found.to_json(), "name": f"{name}-{i}"}
        for i, found in enumerate((PASSING, FAILING))
        for name in names
    ]


def test_what_fails_stands_first_and_names_count() -> None:
    text = html.page(as_json.document(named("test_10", "Test_3", "test_2", "test_02")))
    rows = re.findall(r'data-verdict="(\w+)" data-of="([^"]+)"', text)
    assert rows == [
        *(("fail", f"{name}-1") for name in ("test_02", "test_2", "Test_3", "test_10")),
        *(("pass", f"{name}-0") for name in ("test_02", "test_2", "Test_3", "test_10")),
    ]
    assert re.findall(r'<details class="export" id="([^"]+)"', text) == [name for _, name in rows]


def test_natural_order() -> None:
    names = [
        "t[10]",
        "t[9]",
        "t",
        "T[2]",
        "t[1" + "0" * 5000 + "]",
        "t[1.5]",
        "t[1.10]",
        "t[007]",
        "10",
        "9",
        "",
    ]
    assert sorted(names, key=natural) == [
        "", "9", "10", "t", "t[1.5]", "t[1.10]", "T[2]", "t[007]", "t[9]", "t[10]", "t[1" + "0" * 5000 + "]",
    ]  # fmt: skip


def test_a_link_leads_to_a_result_by_its_name() -> None:
    assert html.anchors(["tests/test_a.py::test_b[pi0-2]", "bundle p0, on CPU", "", "<>", "действия"]) == [
        "tests-test_a.py-test_b-pi0-2", "bundle-p0-on-CPU", "result", "result.2", "result.3",
    ]  # fmt: skip
    assert html.anchors(["a", "a", "a.2", "a"]) == ["a", "a.2", "a.2.2", "a.3"]
    # Two long names that differ in the middle, or are not of this alphabet, are told apart by their digests.
    ends = "a" * 100, "b" * 100
    links = html.anchors([f"{ends[0]}{middle}{ends[1]}" for middle in ("x", "y", "x")])
    assert len(set(links)) == 3
    assert all(len(link) < 80 and link.startswith("b") for link in links)
    text = html.page(as_json.document([full("tests/test_a.py::test_b[2]"), PASSING]))
    anchor = "tests-test_a.py-test_b-2"
    for idx in (0, 1):
        assert f'id="{anchor}/fixture-{idx}"' in text
        assert f'href="#{anchor}/fixture-{idx}"' in text
    ids = re.findall(r' id="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r' (?:href="#|aria-controls="|data-of=")([^"]+)', text)) <= set(ids)


def test_what_a_result_is_refused_for_is_never_cut() -> None:
    reason = "outputs differ: missing " + ", ".join(f"'output_{i}'" for i in range(60)) + "; and that is why"
    refused = dataclasses.replace(ALL["structure"], answers=(Answer.no("compared", reason),), fixtures=())
    located_so = dataclasses.replace(full("pi0"), located=dataclasses.replace(located(), said=reason))
    made = as_json.document([refused, located_so], problems=[reason])
    page = Page(html.page(made))
    assert page.text.count("and that is why") == page.text.count("outputs differ: missing") >= 5
    assert "[…]" not in page.text
    # On the first screen, in the table of all results, and with the result itself.
    first = page.text[: page.text.index("Reference, what is true")]
    assert f"compared: {reason}" in first
    assert Page(html.result_html(refused)).text.count("and that is why") == 1
    # A name may be cut: whole it stands with the facts.
    assert "[…]" in Page(html.page(as_json.document([full("n" * 500)]))).text


def test_a_fact_that_there_is_none_of_takes_no_row() -> None:
    of = dataclasses.replace(PASSING, candidate={"kind": "onnx", "threads": None, "config": {"seed": None}})
    rows = dict(result_view(of)["facts"][1][1])
    assert rows == {"kind": "onnx"}


def test_two_runs_stand_beside_each_other() -> None:
    worse, better, same, gone, new = (f"test_{word}" for word in ("worse", "better", "same", "gone", "new"))
    before, now = ({**found.to_json(), "name": ""} for found in (PASSING, FAILING))

    def run(*entries: tuple[str, dict[str, Any]], branch: str) -> dict[str, Any]:
        found = [{**entry, "name": name} for name, entry in entries]
        return as_json.document(found, sessions=[Session("2026-11-30T09:02:11Z", 3.0, None, None, branch)])

    earlier = run((worse, before), (better, now), (same, before), (gone, before), branch="main")
    later = run((worse, now), (better, before), (same, before), (new, before), branch="faster")
    text = html.page(later, earlier)
    assert Page(text).open == []
    part = text[text.index("<h2>Since the earlier run") :]
    part = part[: part.index("</section>")]
    said = " ".join(Page(re.sub("</(td|p|h3)>", r" </\1>", part)).text.split())
    counts = "✕ parity FAIL 4 compared, 1 failing, 0 without a result"
    when = "2026-11-30 09:02 UTC, took 3.0 s"
    for words in (
        f"Before: {counts} {when}, branch main",
        f"Now: {counts} {when}, branch faster",
        "worse test_worse passed before, fails now PASS 4.500e-07 of 1.0e-05 FAIL 9.461e-03 of 1.0e-05",
        "gone test_gone gone, pass PASS 4.500e-07 of 1.0e-05 -",
        "new test_new new, pass - PASS 4.500e-07 of 1.0e-05",
        "1 the same",
        "same test_same the same PASS 4.500e-07 of 1.0e-05 PASS 4.500e-07 of 1.0e-05",
    ):
        assert words in said, words
    labels = re.findall(r'aria-label="(max_abs_diff [^"]+)"', part)
    assert labels == [
        "max_abs_diff 4.500e-07 of 1.0e-05 before, 9.461e-03 of 1.0e-05 now",
        "max_abs_diff 4.500e-07 of 1.0e-05 before",
        "max_abs_diff 4.500e-07 of 1.0e-05 now",
        "max_abs_diff 9.461e-03 of 1.0e-05 before, 4.500e-07 of 1.0e-05 now",
        "max_abs_diff 4.500e-07 of 1.0e-05 before, 4.500e-07 of 1.0e-05 now",
    ]
    # Whatever is in the later run leads there.
    assert re.findall(r'<a href="#([^"]+)">', part) == [worse, new, better, same]


def test_a_page_of_many_results_has_pictures_of_those_that_are_looked_at_first() -> None:
    entry = full("x").to_json()
    few, many = (
        html.page(
            as_json.document(
                [{**entry, "name": "bad"}, *({**PASSING.to_json(), "name": f"t{i}"} for i in range(n))]
            )
        )
        for n in (PICTURED - 1, PICTURED + 200)
    )
    said = "Its pictures and inputs are left out"
    assert (few.count(said), many.count(said)) == (0, 201)
    assert "Error of x in its worst fixture, 1" in Page(many).text
    # Every one of them has its verdict, its figure and its fixtures.
    assert many.count('class="sortable fixtures"') == PICTURED + 201


# Pictures


def test_the_axis_holds_its_figures_and_puts_the_rest_at_its_ends() -> None:
    along = scale.axis([3e-7, 1e-4, None, math.nan, math.inf, 0.0])
    assert (along.first, along.last) == (-7, -3)
    assert along.place(1e-5) == 0.5
    assert (along.place(0.0), along.place(1e-30), along.place(math.nan), along.place(5.0)) == (0, 0, 1, 1)
    assert scale.axis([1e-8, 1.0]).ticks(5) == [-9, -7, -5, -3, -1, 1]


@pytest.mark.parametrize(
    ("dtype", "largest", "floor"),
    [
        ("float32", 0.9, 2.0**-24),
        ("float32", 1.0, 2.0**-23),
        ("float16", 3.0, 2.0**-9),
        ("float64", 1.5, 2.0**-52),
    ],
)
def test_the_floor_is_one_step_of_the_dtype_at_the_largest_value(
    dtype: str, largest: float, floor: float
) -> None:
    fixture = measured(0, 1e-7)
    output = fixture.outputs[0]
    assert output.difference is not None
    scaled = dataclasses.replace(output.difference, scale=largest)
    changed = dataclasses.replace(output, dtype=dtype, difference=scaled)
    found = result(dataclasses.replace(fixture, outputs=(changed,)))
    assert scale.ulp_step(found) == (floor, dtype, largest)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "not measured"),
        (math.nan, "not a finite number"),
        (0.0, "equal to the last bit"),
        (1e-5, "just at the threshold"),
        (9.461e-3, "946 times above the threshold"),
        (3e-7, "33.3 times below the threshold"),
    ],
)
def test_a_distance_in_words(value: float | None, words: str) -> None:
    assert scale.distance(value, 1e-5) == words


def test_the_heat_map_marks_what_is_over_what_is_lost_and_what_is_worst() -> None:
    grid = full("pi0").fixtures[1].outputs[0].grid
    assert grid is not None
    drawn = pictures.heat_map(grid, 1e-5)
    assert 'class="worst"' in drawn
    assert re.search(r'class="over" d="M1\.35 1\.5h\.3M2\.35 1\.5h\.3"', drawn)
    assert 'class="lost"' not in drawn
    lost = ((math.nan, *grid.cells[0][1:]), *grid.cells[1:])
    assert 'class="lost"' in pictures.heat_map(dataclasses.replace(grid, cells=lost), 1e-5)
    assert pictures.shade_edges([[0.0, 0.0]]) == []


@pytest.mark.parametrize(
    "found", [PASSING, FAILING, NOT_FINITE, ALL["dead"]], ids=["pass", "fail", "nan", "dead input"]
)
def test_a_pass_is_a_circle_and_a_fail_a_cross(found: ParityResult) -> None:
    view = result_view(found)
    for picture in (view["picture"], view["strip"]):
        assert ("pass-mark" in picture) is found.passed
        assert ("fail-mark" in picture) is not found.passed


def test_inputs_in_words() -> None:
    plain = InputSummary("x", "float32", (1, 2), -1.0, 0.5, 2, "")

    def words(**changes: Any) -> str:
        return input_words(dataclasses.replace(plain, **changes))

    assert words() == "-1 to 0.5"
    assert words(low=0.0, high=0.0) == "all 0"
    assert words(dtype="bool", low=False, high=True, nonzero=1) == "1 of 2"
    assert words(dtype="int64", low=1, high=1) == "2 of 2"
    assert words(dtype="int64", low=0, high=257151) == "0 to 257151"
    assert words(low=math.nan, high=math.nan) == "all NaN"
    assert words(low=None, high=None) == "-"


def test_the_page_of_a_stored_document_is_the_page_of_the_run() -> None:
    made = document()
    assert html.page(json.loads(as_json.dumps(made))) == html.page(made)


@pytest.mark.parametrize(
    ("results", "problems", "said"),
    [
        ([], [], "Nothing was compared, so nothing is proven."),
        ([PASSING], [], "The export computes what the reference computes, on every fixture that was run."),
        ([PASSING, PASSING], [], "All 2 exports compute what the reference computes, on every fixture"),
        ([FAILING], [], "The export does not compute what the reference computes."),
        ([FAILING, PASSING], [], "1 of 2 exports does not compute what the reference computes."),
        ([FAILING, FAILING], [], "2 of 2 exports do not compute what the reference computes."),
        ([PASSING], ["gw0 went down"], "agrees (The export), but"),
    ],
)
def test_the_page_s_sentence_says_no_more_than_was_proven(results, problems, said) -> None:
    text = Page(html.page(as_json.document(results, problems=problems))).text
    assert said.replace("(The export)", "(export)") in text


def test_a_recorded_fixture_that_lacks_an_input_has_a_gap_in_the_table() -> None:
    image, state = (InputSummary(name, "float32", (1, 3), -1.0, 1.0, 3, name) for name in ("img", "state"))
    fixtures = [
        dataclasses.replace(measured(0, 3e-7), inputs=(image, state)),
        dataclasses.replace(measured(1, 3e-7), inputs=(image,)),
    ]
    shown = result_view(result(*fixtures))["inputs"]
    assert [cells for _, cells in shown["rows"]] == [["-1 to 1", "-1 to 1"], ["-1 to 1", "-"]]


def test_the_shades_of_a_heat_map_go_from_nothing_to_all() -> None:
    edges = (1e-3, 1e-4, 1e-5)
    assert (
        pictures._shade(0.0, edges) == pictures._shade(None, edges) == pictures._shade(math.nan, edges) == 0
    )
    assert pictures._shade(math.inf, edges) == pictures._shade(1.0, edges) == pictures.SHADES
    assert 0 < pictures._shade(1e-9, edges) < pictures._shade(5e-5, edges) < pictures.SHADES
