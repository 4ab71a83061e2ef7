"""Ways through the console: the address, keys, from a spike to a call, incidents, roles, and a node that went away."""

from __future__ import annotations

import re
import socket
from pathlib import Path
from typing import Any

from chromium import Keep, Opener, accessible, drawn
from clinic import ANSWER, LEAKING, PROMPT, Clinic
from node_process import NodeProcess, tidegate
from playwright.sync_api import Route, expect


def test_the_address_holds_what_is_shown_and_back_goes_back(clinic: Clinic, page_of: Opener) -> None:
    page = page_of(clinic.url)
    drawn(page)

    page.get_by_role("button", name="6h").click()
    page.locator("#filter-by").select_option("prompt")
    page.locator("#filter-tenant").fill("st-anne")
    page.keyboard.press("Enter")
    page.get_by_role("link", name="Cost", exact=True).click()
    drawn(page)

    assert page.url.removeprefix(clinic.url) == "/?board=cost&range=6h&tenant=st-anne&by=prompt"
    other = page_of(page.url)
    drawn(other)
    expect(other.get_by_role("button", name="6h")).to_have_attribute("aria-pressed", "true")
    expect(other.locator("#filter-by")).to_have_value("prompt")
    expect(other.locator("#filter-tenant")).to_have_value("st-anne")
    page.go_back()
    expect(page).to_have_title("Overview · Tidegate")
    page.go_back()
    expect(page.locator("#filter-tenant")).to_have_value("")
    expect(page.locator("#filter-by")).to_have_value("prompt")


def test_every_key_does_what_the_help_says(clinic: Clinic, page_of: Opener) -> None:
    page = page_of(clinic.url)
    drawn(page)

    page.keyboard.press("2")
    expect(page).to_have_title("Cost · Tidegate")
    page.keyboard.press("ArrowRight")
    expect(page).to_have_title("Latency · Tidegate")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("]")
    expect(page.get_by_role("button", name="6h")).to_have_attribute("aria-pressed", "true")
    page.keyboard.press("/")
    expect(page.locator("#filter-tenant")).to_be_focused()
    page.keyboard.press("Escape")
    page.keyboard.press("?")
    expect(page.get_by_role("heading", name="Help")).to_be_visible()
    accessible(page)
    page.keyboard.press("Escape")
    expect(page.get_by_role("heading", name="Help")).to_be_hidden()
    page.keyboard.press("i")
    expect(page.get_by_role("heading", name="Incidents", exact=True).last).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#drawer")).to_be_hidden()
    page.keyboard.press("1")
    drawn(page)
    page.locator("#panel-cost_over_time .legend button").first.focus()
    page.keyboard.press("t")
    expect(page.locator("#panel-cost_over_time table")).to_be_visible()
    page.keyboard.press("d")
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")


def test_dragging_over_a_chart_looks_closer_and_escape_goes_back(clinic: Clinic, page_of: Opener) -> None:
    page = page_of(clinic.url)
    drawn(page)
    box = page.locator("#panel-cost_over_time .u-over").bounding_box()
    assert box

    page.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + 40)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.75, box["y"] + 60, steps=5)
    page.mouse.up()

    page.wait_for_url(re.compile(r"since=.*until="))
    expect(page.locator("#live")).to_contain_text("fixed range")
    expect(page.locator(".zoom")).to_be_visible()
    drawn(page)
    page.keyboard.press("Escape")
    expect(page.locator(".zoom")).to_be_hidden()
    assert "since" not in page.url


def test_from_a_spike_to_its_calls_to_one_call(clinic: Clinic, page_of: Opener, keep: Keep) -> None:
    page = page_of(clinic.url, token=clinic.node.token)
    drawn(page)
    card = page.locator("#panel-cost_over_time")
    spike = clinic.of(call_id="spike-00")[0]["started_at"][11:16]

    # The moment of the spike, by its place on the axis of an hour; the series there is the one that cost most.
    card.get_by_role("button", name="table").click()
    card.get_by_role("button", name=f"{spike}:00").click()
    sheet = page.locator("#drawer")
    expect(sheet.get_by_role("heading", name=re.compile(f"^Calls {spike}:00 to "))).to_be_visible()
    rows = sheet.locator("tbody tr")
    expect(rows.nth(11)).to_be_visible()
    # The dearest first: the twelve of the spike before any other of that minute.
    assert all("9,900" in row for row in rows.all_inner_texts()[:12])
    accessible(page)
    keep(page, "calls")

    rows.first.get_by_role("link").click()
    expect(sheet.get_by_text("9,900 tokens")).to_be_visible()
    facts = sheet.inner_text()
    assert "1 s to the first token" in facts
    assert "3 s to the end" in facts
    accessible(page)
    keep(page, "call")
    page.go_back()
    expect(rows.first).to_be_visible()
    page.keyboard.press("Escape")
    expect(sheet).to_be_hidden()


def test_a_click_in_a_chart_shows_the_calls_of_that_moment_and_series(clinic: Clinic, page_of: Opener) -> None:
    page = page_of(clinic.url, token=clinic.node.token)
    drawn(page)
    over = page.locator("#panel-cost_over_time .u-over")
    box = over.bounding_box()
    assert box

    over.click(position={"x": box["width"] * 0.6, "y": box["height"] - 2})

    page.wait_for_url(re.compile(r"open=calls"))
    assert re.search(r"from=\S+&to=\S+", page.url)
    expect(page.locator("#drawer h2")).to_contain_text("Calls ")


def test_a_transcript_is_redacted_and_its_findings_are_marked(clinic: Clinic, page_of: Opener, keep: Keep) -> None:
    page = page_of(f"{clinic.url}/?open=transcript&id={LEAKING}", token=clinic.node.token)
    sheet = page.locator("#drawer")

    expect(sheet.locator("mark").first).to_be_visible()

    said = sheet.inner_text()
    for secret in ("Maria", "Gonzalez", "84736251", "555-0147"):
        assert secret in PROMPT + ANSWER
        assert secret not in said
    assert sheet.locator("mark.phi").count() >= 3
    accessible(page)
    keep(page, "transcript")


def test_findings_lead_to_their_transcript(clinic: Clinic, page_of: Opener) -> None:
    page = page_of(f"{clinic.url}/?board=guardrails", token=clinic.node.token)
    drawn(page)

    page.locator("#findings-card").get_by_role("link", name="transcript").first.click()

    expect(page.locator("#drawer mark").first).to_be_visible()


def test_who_has_not_signed_in_is_told_what_for_and_how(clinic: Clinic, page_of: Opener, complaints: list[str]) -> None:
    page = page_of(f"{clinic.url}/?open=transcript&id={LEAKING}")
    sheet = page.locator("#drawer")
    expect(sheet.get_by_text("are for people who have signed in")).to_be_visible()
    accessible(page)

    sheet.get_by_role("button", name="Sign in").click()
    page.get_by_label("Token").fill("no such token")
    page.keyboard.press("Enter")
    expect(page.locator("#talk").get_by_role("alert")).not_to_be_empty()
    # The browser itself prints what was refused.
    assert all("401" in one for one in complaints), complaints
    complaints.clear()
    page.get_by_label("Token").fill(clinic.node.token)
    page.keyboard.press("Enter")

    expect(page.locator("#talk")).to_be_hidden()
    expect(sheet.locator("mark").first).to_be_visible()
    assert clinic.node.token not in page.evaluate(
        "JSON.stringify([document.cookie, {...localStorage}, {...sessionStorage}, document.body.innerHTML])"
    )


def test_an_analyst_sees_calls_and_no_transcripts(clinic: Clinic, page_of: Opener) -> None:
    made = tidegate("access", "grant", "--role", "analyst", "--name", "Rosa", "--data", clinic.node.data_dir)
    assert made.returncode == 0, made.stderr.decode()
    token = made.stdout.decode().split()[-1]
    page = page_of(f"{clinic.url}/?open=call&id={LEAKING}", token=token)
    sheet = page.locator("#drawer")

    expect(sheet.get_by_role("heading", name="Tokens")).to_be_visible()
    sheet.get_by_role("link", name="What was said, redacted").click()

    expect(sheet.get_by_text("you may not see redacted transcripts")).to_be_visible()
    assert sheet.locator("mark").count() == 0


def test_an_incident_is_told_and_acknowledged(clinic: Clinic, page_of: Opener, keep: Keep) -> None:
    page = page_of(clinic.url, token=clinic.node.token)
    drawn(page)
    page.locator("#incidents-button").click()
    incident = page.locator("#drawer .incident.critical")

    expect(incident).to_contain_text("harbor-health")
    accessible(page)
    keep(page, "incidents")
    incident.get_by_role("button", name=re.compile("^Acknowledge")).click()

    expect(incident.locator(".phase")).to_have_text("seen")
    expect(incident.get_by_role("button", name=re.compile("^Acknowledge"))).to_have_count(0)


def test_a_silence_names_the_incident_and_no_digest_of_it(clinic: Clinic, page_of: Opener) -> None:
    page = page_of(f"{clinic.url}/?open=incidents", token=clinic.node.token)
    sent: list[Any] = []

    def took(route: Route) -> None:
        sent.append(route.request.post_data_json)
        route.fulfill(status=200, json={})

    page.route("**/console/silences", took)
    incident = page.locator("#drawer .incident.warning")
    number = int(incident.get_attribute("data-incident") or "")

    with page.expect_response("**/console/silences"):
        incident.get_by_role("button", name=re.compile("^Silence")).click()

    assert sent == [{"incident": number, "for": "1h", "why": f"#{number}"}]


def test_who_may_not_act_sees_incidents_and_no_deeds(clinic: Clinic, page_of: Opener) -> None:
    page = page_of(f"{clinic.url}/?open=incidents")

    expect(page.locator("#drawer .incident").first).to_be_visible()
    expect(page.locator("#drawer .deeds")).to_have_count(0)


def test_a_budget_says_what_is_left_and_why_it_is_shut(clinic: Clinic, page_of: Opener) -> None:
    page = page_of(f"{clinic.url}/?board=budgets")
    drawn(page)

    first = page.locator(".budget").first

    expect(first.locator(".badge")).to_have_text("■ blocked")
    expect(first).to_contain_text("tenant=harbor-health")
    expect(first.locator(".why")).not_to_be_empty()
    expect(first).to_contain_text("of $0.30")


def test_a_page_finds_its_node_again(tmp_path: Path, page_of: Opener, complaints: list[str]) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
    with NodeProcess(tmp_path / "data", "--port", str(port)) as node:
        page = page_of(node.url)
        drawn(page)
        expect(page.locator("#banner")).to_be_hidden()
        node.stop()
        expect(page.locator("#banner")).to_contain_text("does not answer")
        expect(page.locator("#live")).to_have_attribute("data-state", "away")
    with NodeProcess(tmp_path / "data", "--port", str(port)):
        expect(page.locator("#live")).to_have_attribute("data-state", "live")
        expect(page.locator("#banner")).to_be_hidden()
        page.close()
    # The browser itself prints each connection that was refused.
    assert all("ERR_" in one for one in complaints), complaints
    complaints.clear()


def test_a_node_with_a_token_shows_nothing_to_strangers(tmp_path: Path, page_of: Opener, complaints: list[str]) -> None:
    with NodeProcess(tmp_path / "data", TIDEGATE_TOKEN="open sesame") as node:
        page = page_of(node.url)
        expect(page.get_by_label("Token")).to_be_visible()
        assert page.locator("#board .card").count() == 0
        page.get_by_label("Token").fill("open sesame")
        page.keyboard.press("Enter")
        drawn(page)
        page.close()
    assert all("401" in one for one in complaints), complaints
    complaints.clear()
