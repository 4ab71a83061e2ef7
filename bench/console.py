"""What a person in front of the console waits for: the first paint, a board with all of its panels, and news.

    POST of a call ─► log ─► meter ─► store ─► its panel is asked again ─► stream ─► drawn in the page

Chromium without a window and the node share the machine. A panel of the last fifteen minutes is asked every two seconds, so
news waits for one second of that in the middle.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import urllib3
from playwright.sync_api import Browser, Page, sync_playwright
from tidegate.producers.connect import connect
from tidegate.producers.simulate import simulate

from .overspend import Node
from .report import Result, Table
from .rounds import Spread, Tick
from .traffic import SEED

LIBRARIES: Final = ("playwright", "starlette", "sse-starlette", "uvicorn", "chdb")
_CALLS: Final = 50_000
_TENANT: Final = "bench-console"
_PATIENCE_MS: Final = 60_000
_ARGUMENTS: Final = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking")
_DRAWN: Final = (
    "() => document.querySelector('#board > [data-panel]') && !document.querySelector('#board > [data-panel][aria-busy]')"
    " && performance.now()"
)
_OPENED: Final = """() => ({
    first: performance.getEntriesByType('paint').find((one) => one.name === 'first-contentful-paint')?.startTime,
    bytes: performance.getEntriesByType('resource').filter((one) => one.name.includes('/assets/'))
        .concat(performance.getEntriesByType('navigation')).reduce((sum, one) => sum + one.transferSize, 0),
})"""
# When the figure of a panel first said each thing, by the machine's clock.
_WATCH: Final = """() => {
    window.seen = {};
    const figure = document.querySelector('#panel-calls .figure');
    const note = () => { seen[figure.textContent] ??= performance.timeOrigin + performance.now(); };
    new MutationObserver(note).observe(figure, {childList: true, characterData: true, subtree: true});
    note();
}"""


def run(quick: bool, tick: Tick) -> Result:
    """Raises `RuntimeError` without Chromium."""
    chromium = shutil.which("chromium")
    if chromium is None:
        raise RuntimeError("the console's bench needs Chromium: apt-get install chromium")
    calls, opens, news = (2_000, 2, 3) if quick else (_CALLS, 10, 30)
    with tempfile.TemporaryDirectory(prefix="tidegate-bench-") as folder, Node(Path(folder), []) as node:
        tick(f"{calls:,} calls")
        with connect(str(node.data_dir)) as emitter:
            simulate(emitter, rate_per_s=None, seed=SEED, stop=lambda: emitter.stats().emitted >= calls)
        _settle(node)
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium, args=list(_ARGUMENTS))
            opened = [_opened(browser, node.url, tick, number) for number in range(opens + 1)][1:]
            waited = _news(browser, node, news, tick)
            browser.close()
    rows = tuple(
        (
            name,
            *(f"{Spread(tuple(one[kind][figure] for one in opened)):,.0f}" for figure in ("first", "drawn")),
            _kilobytes(opened, kind),
        )
        for name, kind in (("never here before", "cold"), ("again", "warm"))
    )
    in_log, seen = (Spread(tuple(values)) for values in zip(*waited, strict=True))
    return Result(
        (
            Table(
                "Opening the overview of the last hour, milliseconds.",
                ("", "first paint", "every panel drawn", "kB loaded"),
                rows,
            ),
            Table(
                "From the POST of a call, milliseconds.",
                ("", "median (least–most)"),
                (("its answer: in the log", f"{in_log:,.0f}"), ("seen in an open page", f"{seen:,.0f}")),
            ),
        ),
        f"{calls:,} calls in the store; a page opened {opens} times, {news} calls posted one by one",
        (
            "First paint is the browser's first contentful paint: the page with its bar and filters, before any figure.",
            "A panel is asked every two seconds, or rests nineteen times as long as its answer took: where the machine is busy"
            " otherwise, news waits longer.",
        ),
        LIBRARIES,
    )


def _kilobytes(opened: list[dict[str, dict[str, float]]], kind: str) -> str:
    return f"{Spread(tuple(one[kind]['bytes'] / 1_000 for one in opened)).median:,.0f}"


def _settle(node: Node) -> None:
    word = json.loads((node.data_dir / "node.json").read_bytes())
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline:
        answer = urllib3.request("GET", f"{node.url}/v1/status", headers={"Authorization": f"Bearer {word['token']}"})
        status: dict[str, Any] = answer.json()
        if not status["meter_lag_records"] + status["sink_lag_records"]:
            return
        time.sleep(0.2)
    raise RuntimeError("the node did not come to an end with its calls")


def _opened(browser: Browser, url: str, tick: Tick, number: int) -> dict[str, dict[str, float]]:
    """A page opened with an empty cache, and once more."""
    tick(f"opening the page, {number or 'to warm up'}")
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    page = context.new_page()
    page.goto(url)
    cold = _measured(page)
    page.reload()
    warm = _measured(page)
    context.close()
    return {"cold": cold, "warm": warm}


def _measured(page: Page) -> dict[str, float]:
    drawn = page.wait_for_function(_DRAWN, timeout=_PATIENCE_MS).json_value()
    return {**page.evaluate(_OPENED), "drawn": drawn}


def _news(browser: Browser, node: Node, rounds: int, tick: Tick) -> list[tuple[float, float]]:
    """(until it was in the log, until it was seen) of each call, milliseconds."""
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    page = context.new_page()
    page.goto(f"{node.url}/?range=15m&tenant={_TENANT}")
    page.wait_for_function(_DRAWN, timeout=_PATIENCE_MS)
    page.evaluate(_WATCH)
    found = []
    for number in range(1, rounds + 1):
        tick(f"news {number} of {rounds}")
        event: dict[str, Any] = {
            "event": "response",
            "call_id": f"news-{number}",
            "started_at": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
            "tenant": _TENANT,
            "request_model": "gpt-4o",
            "input_tokens": 1_000,
            "output_tokens": 100,
            "latency_s": 0.5,
        }
        began = time.time()
        answer = urllib3.request("POST", f"{node.url}/v1/events", body=json.dumps(event).encode())
        placed = time.time()
        if answer.status != 202:
            raise RuntimeError(f"the node answered {answer.status}")
        seen = page.wait_for_function("number => window.seen[number]", arg=str(number), timeout=_PATIENCE_MS).json_value()
        found.append(((placed - began) * 1e3, seen - began * 1e3))
        # Not in step with the pace at which panels are asked.
        time.sleep(0.1 + (number * 0.37) % 1.9)
    context.close()
    return found
