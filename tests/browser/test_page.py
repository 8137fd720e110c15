"""The report as a browser shows it: from disk, by mouse and by keyboard, on a phone and on paper."""

from __future__ import annotations

import dataclasses
import re
import time
from pathlib import Path
from typing import Any

import pytest
import report_cases

from pytest_reflex.report import html
from pytest_reflex.report.json import document
from pytest_reflex.result import ParityResult
from pytest_reflex.verdict.summaries import ErrorGrid, InputSummary, StepDifference

pytestmark = pytest.mark.once

measured, result = report_cases.measured, report_cases.result

HOSTILE = {
    "a tag": "<script>window.hacked = 1</script><img src=x onerror='window.hacked = 2'>",
    "quotes": "\"'`></title></style></script><svg onload=window.hacked=3>",
    "10,000 characters": "a" * 10_000,
    "right to left": "\u202egnp.exe \u05e9\u05dc\u05d5\u05dd\u200f.onnx",
}
SKIPPED = {"nodeid": "tests/test_a.py::test_c", "outcome": "skipped", "reason": "no GPU here"}


def rich(name: str, *figures: float, threshold: float = 1e-5) -> ParityResult:
    """A result with every picture and every table on its page."""
    grid = ErrorGrid(8, 6, (1, 1), tuple(tuple(1e-8 * (i + j % 5) for j in range(6)) for i in range(8)))
    fixtures = []
    for i, figure in enumerate(figures):
        made = measured(i, figure, threshold)
        given = (
            InputSummary("camera_mask", "bool", (1, 2), False, True, 1 + i % 2, f"{i % 2:016}"),
            InputSummary(name, "float32", (1, 3, 224, 224), -1.0, 1.0, 9, f"{i:016}"),
        )
        output = made.outputs[0]
        figures_of = dataclasses.replace(output.difference, scale=0.9, ulp_counts=(900, 400, 200, 80, 20))
        output = dataclasses.replace(output, difference=figures_of, grid=grid if i == 1 else None)
        fixtures.append(dataclasses.replace(made, outputs=(output,), inputs=given))
    steps = tuple(StepDifference(k + 1, 1e-8 * 2**k, 1e-9 * 2**k) for k in range(10))
    made = result(*fixtures, name=name, threshold=threshold, steps=steps, steps_of=1)
    return report_cases.floored(made, *(min(figure, 1e-3) + 5e-7 for figure in figures))


GOOD = rich("tests/parity/test_smolvla.py::test_smolvla", 3e-7, 3.1e-7)
BAD = rich("tests/parity/test_pi0.py::test_pi0", 3e-7, 9.461e-3, 2e-7, 5e-4, 3e-7, 4e-7)
BAD = dataclasses.replace(BAD, located=report_cases.located())
OTHERS = [report_cases.NOT_FINITE, report_cases.STRUCTURE, report_cases.DEAD]
OTHERS = [
    dataclasses.replace(found, name=f"tests/parity/test_{i}.py::test") for i, found in enumerate(OTHERS)
]


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("pages")
    several = document([GOOD, BAD, *OTHERS], not_compared=[SKIPPED], problems=["worker gw0 went down"])
    texts = {
        "pass": html.page(document([GOOD])),
        "fail": html.page(document([BAD])),
        "several": html.page(several, document([GOOD, dataclasses.replace(GOOD, name=BAD.name)])),
        "nothing": html.page(document([])),
        "notebook": "<!doctype html><html lang=en><title>n</title>"
        f"<main><h1>n</h1>{BAD._repr_html_()}</main>",
    }
    for name, text in texts.items():
        (place / f"{name}.html").write_text(text, encoding="utf-8")
    return {name: place / f"{name}.html" for name in texts}


def anchor(found: ParityResult) -> str:
    """What a link to a result leads to."""
    (name,) = html.anchors([found.name])
    return name


def open_all(page: Any) -> None:
    page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    page.evaluate("document.querySelectorAll('button[aria-expanded=false]').forEach((b) => b.click())")


@pytest.mark.parametrize("name", ["pass", "fail", "several", "nothing"])
def test_it_opens_from_disk_in_silence_and_fits_a_phone(
    visit: Any, pages: dict[str, Path], name: str
) -> None:
    page = visit(pages[name], width=400)
    for _ in range(2):
        assert page.evaluate("document.documentElement.scrollWidth") <= 400
        open_all(page)
    assert page.seen == []


@pytest.mark.parametrize("name", ["fail", "several", "nothing", "notebook"])
def test_axe_finds_nothing(visit: Any, axe: str, pages: dict[str, Path], name: str) -> None:
    page = visit(pages[name])
    open_all(page)
    page.evaluate(axe)
    whole = page.evaluate("axe.run()")
    assert len(whole["passes"]) > 5
    page.emulate_media(color_scheme="dark")
    page.set_viewport_size({"width": 400, "height": 900})
    rules = ["color-contrast", "scrollable-region-focusable", "target-size"]
    dark = page.evaluate("(rules) => axe.run({ runOnly: rules })", rules)
    assert "color-contrast" in {found["id"] for found in dark["passes"]}
    violations = [*whole["violations"], *dark["violations"]]
    assert [(found["id"], [node["html"] for node in found["nodes"]]) for found in violations] == []


def test_axe_would_find_something(visit: Any, axe: str, pages: dict[str, Path]) -> None:
    page = visit(pages["fail"])
    page.evaluate("document.querySelector('.verdict-line').style.color = '#f0f0f0'")
    page.evaluate("document.documentElement.removeAttribute('lang')")
    page.evaluate(axe)
    assert {v["id"] for v in page.evaluate("axe.run()")["violations"]} >= {"color-contrast", "html-has-lang"}


def test_the_first_screen_says_the_verdict_the_distance_and_what_was_compared(
    visit: Any, pages: dict[str, Path]
) -> None:
    for width in (1280, 400):
        page = visit(pages["fail"], width=width)
        for text in (
            "parity FAIL",
            "946 times above the threshold",
            "Floor: bug:",
            "Where: bug: step 7, expert.layers.4.norm_2 (modeling.py:88)",
            "threshold 1.0e-05",
            "float floor 6.0e-08",
            "torch PI0Policy",
            "onnx pi0/model.onnx, on CPUExecutionProvider",
        ):
            box = page.get_by_text(text).first.bounding_box()
            assert box is not None
            assert box["y"] + box["height"] < 900, text


def shown(page: Any) -> list[str]:
    return [row.inner_text() for row in page.locator("#overview tbody:visible .name").all()]


def test_filter(visit: Any, pages: dict[str, Path]) -> None:
    page = visit(pages["several"])
    assert len(shown(page)) == 5
    page.get_by_label("Filter").fill("SMOL")
    assert shown(page) == [GOOD.name]
    assert page.locator("details.export:visible").count() == 1
    assert page.locator("#shown").inner_text() == "1 of 5 shown"
    page.get_by_label("Filter").fill("")
    page.get_by_label("failing", exact=True).check()
    assert len(shown(page)) == 4
    page.get_by_label("passing").check()
    assert shown(page) == [GOOD.name]
    page.get_by_label("Filter").fill("no such name")
    assert shown(page) == []
    assert page.seen == []


def column(page: Any, selector: str, at: int) -> list[str]:
    return [
        row.inner_text()
        for row in page.locator(f"{selector} tbody > tr:first-child > td:nth-child({at})").all()
    ]


def test_sort(visit: Any, pages: dict[str, Path]) -> None:
    page = visit(pages["fail"])
    by_figure = page.locator("table.fixtures th button").nth(1)
    by_figure.click()
    figures = column(page, "table.fixtures", 2)
    assert figures == sorted(figures, key=float)
    assert page.locator("table.fixtures th").nth(1).get_attribute("aria-sort") == "ascending"
    by_figure.click()
    assert column(page, "table.fixtures", 2) == sorted(figures, key=float, reverse=True)
    page = visit(pages["several"])
    page.locator("#overview th button").nth(2).click()
    # What is no number comes after every number.
    assert column(page, "#overview", 3)[-2:] == ["-", "nan"]


def test_a_failing_fixture_is_opened(visit: Any, pages: dict[str, Path]) -> None:
    page = visit(pages["fail"])
    opened = page.locator(f"[id='{anchor(BAD)}/fixture-1']")
    assert not opened.is_visible()
    page.locator("tbody.failing button").first.click()
    assert opened.is_visible()
    text = opened.inner_text()
    for word in ("actions[0, 17, 3]", "0.5123456478118896", "0.5218066478118897", "camera_mask", "2 of 2"):
        assert word in text
    page.locator("tbody.failing button").first.click()
    assert not opened.is_visible()
    page.get_by_label("failing only").check()
    assert column(page, "table.fixtures", 5).count("NO") == 2
    assert page.locator("table.fixtures tbody:visible").count() == 2
    assert page.seen == []


def test_all_of_it_without_a_mouse(visit: Any, pages: dict[str, Path]) -> None:
    page = visit(pages["several"], width=400)
    page.keyboard.press("Tab")
    reached = []
    for _ in range(40):
        reached.append(
            page.evaluate("document.activeElement.textContent.trim() || document.activeElement.id")
        )
        if page.evaluate("document.activeElement.matches('#overview a')") and reached[-1] == BAD.name:
            break
        page.keyboard.press("Tab")
    assert "filter" in reached
    page.keyboard.press("Enter")
    # The page opens it when it has come to the link's fragment, a moment after the key.
    page.wait_for_selector(f"[id='{anchor(BAD)}'][open]")
    page.wait_for_function("document.activeElement.matches('.export[open] > summary')")
    for _ in range(20):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.matches('.failing button')"):
            break
    page.keyboard.press("Space")
    assert page.locator(f"[id='{anchor(BAD)}/fixture-1']").is_visible()


@pytest.mark.parametrize("script", [True, False], ids=["", "without the script"])
def test_a_link_to_a_fixture_opens_it(
    visit: Any, pages: dict[str, Path], tmp_path: Path, script: bool
) -> None:
    file = pages["several"]
    if not script:
        text = file.read_text(encoding="utf-8")
        file = tmp_path / "still.html"
        file.write_text(re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL), encoding="utf-8")
    page = visit(file, at=f"{anchor(BAD)}/fixture-3")
    row = page.locator(f"[id='{anchor(BAD)}/fixture-3']")
    row.wait_for(state="visible")
    assert "Worst element" in row.inner_text()
    assert page.evaluate("window.scrollY") > 0
    assert page.seen == []
    if not script:
        return
    page.wait_for_function("document.activeElement.textContent === '3'")
    assert page.locator("tbody.linked button").inner_text() == "3"
    # From there to one that is filtered out.
    page.get_by_label("failing", exact=True).check()
    page.evaluate("(to) => { location.hash = to; }", f"{anchor(GOOD)}/fixture-1")
    page.locator(f"[id='{anchor(GOOD)}/fixture-1']").wait_for(state="visible")
    for nothing in ("", "no-such-test", "%", f"{anchor(GOOD)}/fixture-999"):
        page.evaluate("(to) => { location.hash = to; }", nothing)
    assert page.seen == []


def sixtieth(i: int) -> ParityResult:
    name = f"tests/parity/test_family_{i % 7}.py::test_policy[checkpoint_{i}-float32-unrolled]"
    return rich(name, 9.461e-3 if i % 9 == 4 else 3e-7)


SIXTY = [sixtieth(i) for i in range(60)]


@pytest.fixture(scope="module")
def sixty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("sixty") / "index.html"
    file.write_text(html.page(document([*SIXTY, *OTHERS]), document(SIXTY[:50])), encoding="utf-8")
    return file


LAID_OUT = """() => {
  const rows = [...document.querySelectorAll("#overview > tbody")];
  const cells = rows.flatMap((row) => [...row.querySelectorAll("td")]).map((cell) => {
    const { left, right, width } = cell.getBoundingClientRect();
    return { text: cell.textContent, left, right, hidden: cell.scrollWidth - width };
  });
  return { cells, heights: rows.map((row) => row.getBoundingClientRect().height) };
}"""


def test_sixty_tests_are_read_on_a_phone_without_going_sideways(visit: Any, axe: str, sixty: Path) -> None:
    page = visit(sixty, width=400)
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    for table in page.locator("table.cards:visible").all():
        assert table.evaluate("(table) => table.parentElement.scrollWidth <= table.parentElement.clientWidth")
    rows = page.locator("#overview > tbody")
    assert rows.count() == 63
    seen = page.evaluate(LAID_OUT)
    # No cell is beside the screen, and nothing is hidden in one.
    assert len(seen["cells"]) == 6 * 63
    assert [
        cell for cell in seen["cells"] if cell["left"] < 0 or cell["right"] > 400 or cell["hidden"] > 1
    ] == []
    assert 900 / (sum(seen["heights"]) / 63) > 6, "so many on a screen"
    assert "9.461e-03" in rows.nth(len(OTHERS)).inner_text()
    page.evaluate(axe)
    assert [found["id"] for found in page.evaluate("axe.run()")["violations"]] == []
    assert page.seen == []


def test_a_fixture_s_gate_is_seen_on_a_phone(visit: Any, pages: dict[str, Path]) -> None:
    page = visit(pages["fail"], width=400)
    gate = page.locator("table.fixtures tbody.failing > tr:first-child > td").nth(5)
    assert gate.inner_text() == "threshold"
    box = gate.bounding_box()
    assert box is not None
    assert box["x"] + box["width"] <= 400


def test_two_runs_are_beside_each_other_on_a_phone_too(visit: Any, sixty: Path) -> None:
    for width in (1280, 400):
        cards = visit(sixty, width=width).locator(".runs > .card").all()
        before, now = (card.bounding_box() for card in cards)
        assert before["y"] == now["y"]
        assert before["x"] + before["width"] <= now["x"]
        assert now["x"] + now["width"] <= width


@pytest.mark.parametrize("name", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_name_changes_nothing_but_text(visit: Any, tmp_path: Path, name: str) -> None:
    evil = dataclasses.replace(
        rich(name, 3e-7, 9.461e-3),
        reference={"kind": "torch", "class": name, name: name},
        candidate={"kind": "onnx", "path": name},
        notes=(name,),
        steps=(),
        unseen=name,
        located=report_cases.located(name),
    )
    test = {"nodeid": name, "outcome": "skipped", "reason": name}
    file = tmp_path / "page.html"
    made = document([evil, GOOD], not_compared=[test], problems=[name])
    file.write_text(html.page(made, document([GOOD])), encoding="utf-8")
    page = visit(file, width=400)
    open_all(page)
    page.get_by_label("Filter").fill(name[:5])
    assert page.locator("#overview tbody:visible").count() == 1
    assert page.evaluate("window.hacked") is None
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    assert page.evaluate("document.querySelectorAll('script, img, iframe').length") == 1
    assert page.evaluate("getComputedStyle(document.querySelector('bdi')).unicodeBidi") == "isolate"
    assert page.seen == []


@pytest.mark.parametrize(
    ("exports", "fixtures", "most"), [(50, 200, 5_000_000), (1000, 5, 12_000_000)], ids=["50", "1000"]
)
def test_the_script_hardly_delays_many_exports_of_many_fixtures(
    visit: Any, tmp_path: Path, exports: int, fixtures: int, most: int
) -> None:
    made = rich("x", *[9.461e-3 if i % 3 else 3e-7 for i in range(fixtures)])
    # All that a page has where it has pictures of everything; else what the least of its results has.
    found = report_cases.located(layers=30) if exports < 100 else None
    entry = dataclasses.replace(made, located=found).to_json()
    file, still = tmp_path / "page.html", tmp_path / "still.html"
    text = html.page(document([{**entry, "name": f"export {i}"} for i in range(exports)]))
    file.write_text(text, encoding="utf-8")
    assert file.stat().st_size < most
    still.write_text(re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL), encoding="utf-8")

    def took(page: Path) -> float:
        start = time.perf_counter()
        opened = visit(page)
        opened.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        return time.perf_counter() - start

    # Beside what the browser needs for the same page without it; the best, for another process may hold the
    # machine. They are alike: what the page looks through it looks through once.
    with_script, without = (min(took(page) for _ in range(3)) for page in (file, still))
    assert with_script < 3 * without
    assert visit(file).locator("#overview tbody").count() == exports


def test_on_paper_everything_is_open_and_the_tools_are_gone(visit: Any, pages: dict[str, Path]) -> None:
    page = visit(pages["several"])
    page.emulate_media(media="print")
    assert not page.locator("#filter").is_visible()
    assert page.locator(f"[id='{anchor(BAD)}/fixture-1']").is_visible()
    assert page.locator(f"[id='{anchor(BAD)}'] .figures-list").first.is_visible()
    assert (
        page.locator("text=reaches the outputs").count() == 0
        or page.locator("text=reaches").first.is_visible()
    )
    assert len(page.pdf()) > 20_000
