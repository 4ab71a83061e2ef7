"""The console in a real browser: Chromium without a window, on a real node. What a page prints or asks elsewhere fails."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from clinic import Clinic, clinic_node
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, expect, sync_playwright

_CHROMIUM: Final = shutil.which("chromium")
# A machine that also does other things: a page that is right after this long is right.
PATIENCE_MS: Final = 45_000
ARGUMENTS: Final = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking")

# Best practices are advice, the rest is WCAG 2.2 at AA.
RULES: Final = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}
# `page_of(url, theme=…, width=…, token=…)` opens a page that is looked after; `keep(page, name)` keeps a picture of it.
Opener = Callable[..., Page]
Keep = Callable[[Page, str], Path]


def _found() -> str:
    if _CHROMIUM is None and not os.environ.get("CI"):
        pytest.skip("the console's tests need Chromium: apt-get install chromium")
    assert _CHROMIUM is not None, "CI has Chromium: .ci/run installs it"
    return _CHROMIUM


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = _found()
    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(ARGUMENTS))
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def clinic(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clinic]:
    _found()
    with clinic_node(tmp_path_factory.mktemp("clinic")) as found:
        yield found


@pytest.fixture
def complaints() -> list[str]:
    """What a page printed, failed in, or asked of another host. Empty at the end, or the test fails."""
    return []


@pytest.fixture
def page_of(browser: Browser, complaints: list[str]) -> Iterator[Opener]:
    contexts: list[BrowserContext] = []

    def opened(
        url: str, *, theme: str = "light", width: int = 1440, height: int = 900, token: str = "", **more: object
    ) -> Page:
        context = browser.new_context(
            viewport={"width": width, "height": height},
            color_scheme=theme,
            reduced_motion="reduce",
            **more,  # type: ignore[arg-type]
        )
        contexts.append(context)
        context.set_default_timeout(PATIENCE_MS)
        page = context.new_page()
        host = urlsplit(url).netloc

        def heard(message: ConsoleMessage) -> None:
            if message.type in {"error", "warning"}:
                complaints.append(f"console: {message.text} ({message.location})")

        page.on("console", heard)
        page.on("pageerror", lambda error: complaints.append(f"error: {error}"))
        page.on("request", lambda request: _is_own(request.url, host) or complaints.append(f"asked {request.url}"))
        if token:
            answer = context.request.post(f"{url.partition('?')[0].rstrip('/')}/console/session", data={"token": token})
            assert answer.ok, answer.text()
        page.goto(url)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert complaints == []


def _is_own(url: str, host: str) -> bool:
    return url.startswith(("data:", "blob:")) or urlsplit(url).netloc == host


@pytest.fixture
def keep(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[Page, str], Path]:
    """Keep a picture of a page: under TIDEGATE_ARTIFACTS, else beside the test's other files."""
    folder = Path(os.environ.get("TIDEGATE_ARTIFACTS") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    stem = re.sub(r"[^A-Za-z0-9]+", "-", request.node.name).strip("-")

    def kept(page: Page, name: str = "") -> Path:
        path = folder / f"console-{name or stem}.png"
        page.screenshot(path=path, full_page=page.locator("dialog[open]").count() == 0)
        return path

    return kept


def drawn(page: Page) -> None:
    """Wait until every panel has its answer."""
    expect(page.locator("#board > [data-panel]").first).to_be_visible()
    expect(page.locator("#board > [data-panel][aria-busy]")).to_have_count(0)
    expect(page.locator("#board > .away")).to_have_count(0)


def accessible(page: Page) -> None:
    found = Axe().run(page, options=RULES)
    assert not found.response["violations"], found.generate_report()
