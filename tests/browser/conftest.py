"""A headless Chromium and axe-core, from ``make browser``; what cannot be had is skipped by name."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).resolve().parent
# Written by unpack.mjs when all is there: the program, and the flags and variables that its package states.
UNPACKED = HERE / "node_modules" / ".chromium" / "launch.json"
INSTALLED = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# The loader's own words, and the kernel's for a program of another processor.
LACKS = re.compile(
    r"error while loading shared libraries: .*|.*version `\S+' not found.*|.*system error -8\b.*"
)

Open = Callable[..., Any]


def chromiums() -> Iterator[dict[str, Any]]:
    """How to start each Chromium there is, best first: the same version on every machine before any other."""
    # In a container there is no sandbox to be had; the pages are our own.
    args = ["--no-sandbox"]
    if named := os.environ.get("REFLEX_CHROMIUM"):
        yield {"executable_path": named, "args": args}
        return
    if UNPACKED.is_file():
        launch = json.loads(UNPACKED.read_text(encoding="utf-8"))
        if others := os.environ.get("LD_LIBRARY_PATH"):
            launch["env"]["LD_LIBRARY_PATH"] += f"{os.pathsep}{others}"
        yield {**launch, "env": {**os.environ, **launch["env"]}}
    for found in filter(None, map(shutil.which, INSTALLED)):
        yield {"executable_path": found, "args": args}


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    api = pytest.importorskip(
        "playwright.sync_api", reason="playwright is not installed: pip install playwright"
    )
    why = "no Chromium is installed: make browser, or name one in REFLEX_CHROMIUM"
    with api.sync_playwright() as playwright:
        for launch in chromiums():
            try:
                browser = playwright.chromium.launch(**launch)
            except api.Error as error:
                if not (lacking := LACKS.search(str(error))):
                    raise
                why = f"this system cannot start {launch['executable_path']}: {lacking[0].strip()}"
                continue
            yield browser
            browser.close()
            return
    pytest.skip(why)


@pytest.fixture
def visit(chromium: Any) -> Iterator[Open]:
    """``visit(path, width=400, scheme="dark", at="id")``: the page, and ``seen``: what it said and asked."""
    contexts = []

    def run(path: Path, *, width: int = 1280, scheme: str = "light", at: str = "") -> Any:
        context = chromium.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        page.seen = []
        page.on("console", lambda message: page.seen.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: page.seen.append(f"error: {error}"))
        page.on("request", lambda request: page.seen.append(f"request: {request.url}"))
        page.on("dialog", lambda dialog: (page.seen.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        page.goto(path.as_uri() + (at and f"#{at}"))
        first = page.seen.pop(0)
        assert first.partition("#")[0] == f"request: {path.as_uri()}"
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
