"""How long the report of many tests takes to make and to open, and how large it is.

Documents are made up: every test has five fixtures, and one in nine fails. A page is opened from disk in a
headless Chromium (``make browser``), until two frames have been drawn, the best of five; beside it the same
page without its script. ``python benchmarks/page_time.py``.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests" / "support"), str(ROOT / "tests" / "browser")]

import report_cases  # noqa: E402

from conftest import chromiums  # noqa: E402
from pytest_reflex.report import html  # noqa: E402
from pytest_reflex.report.json import document  # noqa: E402
from pytest_reflex.verdict.summaries import ErrorGrid, InputSummary, StepDifference  # noqa: E402

DRAWN = "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"


def entry(i: int) -> dict[str, Any]:
    """A test's result with every picture that a page has; one in nine fails."""
    worst = 9.461e-3 if i % 9 == 4 else 3e-7
    cells = tuple(tuple(1e-8 * (1 + (7 * r + c) % 11) for c in range(32)) for r in range(50))
    fixtures = []
    for k in range(5):
        made = report_cases.measured(k, worst if k == 2 else 3e-7)
        given = tuple(
            InputSummary(name, "float32", (1, 3, 224, 224), -1.0, 1.0, 9, f"{k:016}")
            for name in ("image0", "image1", "state", "noise")
        )
        output = made.outputs[0]
        figures = dataclasses.replace(output.difference, scale=0.9, ulp_counts=(900, 400, 200, 80, 20))
        grid = ErrorGrid(50, 32, (1, 1), cells) if k == 2 else None
        outputs = (dataclasses.replace(output, difference=figures, grid=grid),)
        fixtures.append(dataclasses.replace(made, outputs=outputs, inputs=given))
    steps = tuple(StepDifference(k + 1, 1e-8 * 2**k, 1e-9 * 2**k) for k in range(10))
    name = f"tests/parity/test_family_{i % 7}.py::test_policy[checkpoint_{i}]"
    return report_cases.result(*fixtures, name=name, steps=steps, steps_of=2).to_json()


def best(what: Callable[[], object], times: int = 5) -> float:
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        what()
        taken.append(time.perf_counter() - start)
    return min(taken)


def opened(browser: Any, file: Path) -> Callable[[], None]:
    def open_it() -> None:
        # A context of its own: a page behind another one is never drawn.
        context = browser.new_context()
        page = context.new_page()
        page.goto(file.as_uri())
        page.evaluate(DRAWN)
        context.close()

    return open_it


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--tests", type=int, nargs="+", default=[1, 10, 100, 1000])
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    from playwright.sync_api import sync_playwright

    rows = []
    with tempfile.TemporaryDirectory() as place, sync_playwright() as playwright:
        browser = playwright.chromium.launch(**next(chromiums()))
        print(f"{'tests':>6} {'made, s':>8} {'size, kB':>9} {'opened, s':>10} {'without script, s':>18}")
        for tests in given.tests:
            made = document([entry(i) for i in range(tests)])
            start = time.perf_counter()
            text = html.page(made)
            took = time.perf_counter() - start
            whole, still = Path(place, "page.html"), Path(place, "still.html")
            whole.write_text(text, encoding="utf-8")
            still.write_text(re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL), encoding="utf-8")
            times = [best(opened(browser, file)) for file in (whole, still)]
            row = {
                "tests": tests,
                "made_s": took,
                "bytes": len(text.encode()),
                "opened_s": times[0],
                "without_script_s": times[1],
            }
            rows.append(row)
            print(
                f"{tests:6} {took:8.2f} {row['bytes'] / 1000:9.0f} {times[0]:10.2f} {times[1]:18.2f}",
                flush=True,
            )
        browser.close()
    if given.json:
        given.json.write_text(json.dumps({"rows": rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
