"""A headless Chromium that is installed already, and axe-core; what cannot be had is skipped by name."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).resolve().parent
CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")

Open = Callable[..., Any]


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    api = pytest.importorskip(
        "playwright.sync_api", reason="playwright is not installed: pip install playwright"
    )
    named = os.environ.get("REFLEX_CHROMIUM")
    found = named or next(filter(None, map(shutil.which, CHROMIUM)), None)
    if found is None:
        pytest.skip("no Chromium is installed: apt-get install chromium, or name one in REFLEX_CHROMIUM")
    with api.sync_playwright() as playwright:
        # In a container there is no sandbox to be had; the pages are our own.
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def visit(chromium: Any) -> Iterator[Open]:
    """``visit(path, width=400, scheme="dark")``: the page, with what it said and asked for in ``seen``."""
    contexts = []

    def run(path: Path, *, width: int = 1280, scheme: str = "light") -> Any:
        context = chromium.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        page.seen = []
        page.on("console", lambda message: page.seen.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: page.seen.append(f"error: {error}"))
        page.on("request", lambda request: page.seen.append(f"request: {request.url}"))
        page.on("dialog", lambda dialog: (page.seen.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        page.goto(path.as_uri())
        first = page.seen.pop(0)
        assert first == f"request: {path.as_uri()}"
        return page

    yield run
    for context in contexts:
        context.close()


@pytest.fixture(scope="session")
def axe() -> str:
    """The source of axe-core, from ``make browser`` or from the file that ``REFLEX_AXE`` names."""
    file = Path(os.environ.get("REFLEX_AXE") or HERE / "node_modules" / "axe-core" / "axe.min.js")
    if not file.is_file():
        pytest.skip("axe-core is not installed: make browser, or name axe.min.js in REFLEX_AXE")
    return file.read_text(encoding="utf-8")
