"""The console's boards: drawn from a real node, live, in both themes, on every width, and clean by axe's rules."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

import pytest
from chromium import Keep, Opener, accessible, drawn
from clinic import MARKUP, Clinic
from playwright.sync_api import Page, expect
from support import response
from tidegate.dashboards.boards import BOARDS

THEMES: Final = ("light", "dark")


def figure(page: Page, key: str) -> str:
    return page.locator(f"#panel-{key} .figure").get_attribute("title") or ""


def usd(text: str) -> float:
    return float(text.replace("$", "").replace(",", ""))


@pytest.mark.parametrize("theme", THEMES)
def test_every_board_draws_and_is_accessible(clinic: Clinic, page_of: Opener, keep: Keep, theme: str) -> None:
    page = page_of(clinic.url, theme=theme)

    for board in BOARDS:
        page.get_by_role("link", name=board.title, exact=True).click()
        expect(page).to_have_title(f"{board.title} · Tidegate")
        drawn(page)
        shown = page.locator("#board > [data-panel]").evaluate_all("cards => cards.map((one) => one.dataset.panel)")
        assert [panel.key for panel in board.panels] == [key for key in shown if key != "lags"]
        accessible(page)
        keep(page, f"{board.key}-{theme}")


def test_figures_are_those_of_the_calls_that_were_sent(clinic: Clinic, page_of: Opener) -> None:
    page = page_of(f"{clinic.url}/?tenant=st-anne")
    drawn(page)
    calls = clinic.of(tenant="st-anne")
    failed = [call for call in calls if call.get("error_type")]

    expect(page.locator("#panel-calls .figure")).to_have_text(f"{len(calls):,}")
    assert failed
    assert page.locator("#panel-error_share .figure").inner_text() == f"{100 * len(failed) / len(calls):.2g} %"
    [[known]] = [
        row.values() for row in clinic.node.rows("SELECT toFloat64(sum(cost_usd)) FROM calls WHERE tenant = 'st-anne'")
    ]
    assert usd(figure(page, "cost")) == pytest.approx(known, rel=0.005)


def test_the_table_of_a_chart_says_what_the_chart_shows(clinic: Clinic, page_of: Opener) -> None:
    page = page_of(f"{clinic.url}/?tenant=st-anne")
    drawn(page)
    card = page.locator("#panel-calls_over_time")

    card.get_by_role("button", name="table").click()

    rows = [row.locator("td").all_inner_texts() for row in card.locator("tbody tr").all()]
    assert sum(int(value.replace(",", "")) for row in rows for value in row if value != "–") == len(clinic.of(tenant="st-anne"))
    label = card.locator(".plot").get_attribute("aria-label") or ""
    assert label.startswith("Calls over time, ")
    accessible(page)


@pytest.mark.parametrize(
    ("moments", "hint_s", "step_s", "values"),
    [
        (["08:00", "09:00", "11:00"], 120, 3_600, [5, 5, 0, 5]),  # by the hour, whatever step was asked for
        (["08:00"], 60, 3_600, [5]),
        (["08:01", "08:03"], 60, 120, [5, 5]),
        (["08:01"], 60, 60, [5]),
    ],
)
def test_the_step_of_a_chart_is_that_of_its_answer(
    clinic: Clinic, page_of: Opener, moments: list[str], hint_s: int, step_s: int, values: list[int]
) -> None:
    page = page_of(clinic.url)
    rows = [[f"2026-11-02T{moment}:00Z", "a", 5] for moment in moments]

    found = page.evaluate(
        """async ([rows, hint]) => {
            const { pivot } = await import("/console/assets/chart.js");
            const { step, values } = pivot(rows, hint, true);
            return [step, values.get("a")];
        }""",
        [rows, hint_s],
    )

    assert found == [step_s, values]


def test_a_new_call_is_seen_without_anybody_doing_anything(clinic: Clinic, page_of: Opener) -> None:
    page = page_of(f"{clinic.url}/?tenant=newcomer")
    drawn(page)
    expect(page.locator("#panel-calls .figure")).not_to_have_text("3")

    now = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
    clinic.add(*(response(f"new-{n}", started_at=now, tenant="newcomer") for n in range(3)))

    expect(page.locator("#panel-calls .figure")).to_have_text("3")
    expect(page.locator("#live")).to_have_attribute("data-state", "live")


def test_names_are_text_whatever_they_are(clinic: Clinic, page_of: Opener) -> None:
    page = page_of(clinic.url)
    asked: list[Any] = []
    page.on("dialog", lambda dialog: (asked.append(dialog.message), dialog.dismiss()))

    drawn(page)

    expect(page.locator("#panel-calls_over_time .legend").get_by_text(MARKUP)).to_be_visible()
    page.keyboard.press("/")
    expect(page.locator("#filter-tenant-choices option").first).to_be_attached()
    values = page.locator("#filter-tenant-choices option").evaluate_all("found => found.map((one) => one.value)")
    assert MARKUP in values
    assert page.locator("img[src='x']").count() == 0
    assert asked == []


@pytest.mark.parametrize("width", [375, 768, 2560])
def test_a_page_is_never_wider_than_its_screen(clinic: Clinic, page_of: Opener, keep: Keep, width: int) -> None:
    page = page_of(clinic.url, width=width, height=1400 if width > 2000 else 900)
    drawn(page)

    assert page.evaluate("document.documentElement.scrollWidth") <= width
    keep(page, f"wide-{width}")


def test_a_theme_that_was_chosen_stays(clinic: Clinic, page_of: Opener) -> None:
    page = page_of(clinic.url, theme="light")
    drawn(page)
    paper = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(paper)

    page.get_by_role("button", name="Dark theme").click()
    dark = page.evaluate(paper)
    page.reload()

    assert light != dark
    assert page.evaluate(paper) == dark
    expect(page.get_by_role("button", name="Light theme")).to_be_visible()


def test_on_paper_nothing_is_cut_off_and_no_button_is_printed(clinic: Clinic, page_of: Opener) -> None:
    page = page_of(f"{clinic.url}/?board=cost")
    drawn(page)

    page.emulate_media(media="print", color_scheme="dark")

    expect(page.locator("#filters")).to_be_hidden()
    assert page.evaluate("getComputedStyle(document.documentElement).colorScheme") == "light"
    assert page.locator(".scroll").first.evaluate("one => getComputedStyle(one).overflow") == "visible"
