"""The month's report on leaks: its figures against a plain Python computation of the same rows, and what it must not hold."""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, Final
from xml.etree import ElementTree

import pytest
from node_process import NodeProcess, tidegate
from support import finding, ndjson, scored
from tidegate.dashboards.leak_report import html, markdown
from tidegate.processors.audit_check import check
from tidegate.processors.audit_copy import AuditCopy
from tidegate.processors.leak_figures import Figures, Month, figures
from tidegate.producers.audit_log import AuditLog
from tidegate.schemas.audit import Entry
from tidegate.sinks.clickhouse import Store

Row = dict[str, Any]

MONTH: Final = Month(2026, 11)
START: Final = datetime(2026, 10, 30, 12, tzinfo=UTC)
TENANTS: Final = ("harbor-health", "st-anne", "lakeview | <b>pediatrics</b>")


def made(count: int = 1_500) -> tuple[list[Row], list[Row]]:
    """Calls from before November until the 24th, of which some are judged, and none on the 9th; and their verdicts."""
    pick = random.Random(7)
    calls, verdicts = [], []
    for number in range(count):
        started = START + timedelta(seconds=pick.random() * 25 * 86_400)
        call = {
            "event": "response",
            "call_id": f"c{number}",
            "started_at": started.isoformat(),
            "tenant": pick.choice(TENANTS),
            "service": pick.choice(("chat", "triage")),
            "user": "somebody@example.com",
            "provider_name": "openai",
            "request_model": pick.choice(("gpt-4o", "gpt-4o-mini")),
            "prompt_name": "triage",
            "prompt_version": pick.choice(("2.0", "2.1")),
            "price_status": "priced",
            "price_book": "b",
            "producer": "p",
            "seq": number,
            "ingested_at": datetime.now(UTC).isoformat(),
            "source_partition": 0,
            "source_offset": number,
        }
        calls.append(call)
        if pick.random() < 0.7 and started.day != 9:
            named = ("call_id", "started_at", "tenant", "service", "user", "provider_name", "request_model")
            outcome = pick.choice(("scored", "scored", "scored", "partial", "sampled_out", "quarantined"))
            kinds = [pick.choice(("US_SSN", "PERSON", "MRN")) for _ in range(pick.choice((0, 0, 0, 1, 3)))]
            leaks = call["prompt_version"] == "2.1"
            verdicts.append(
                scored(f"c{number}")
                | {name: call[name] for name in (*named, "prompt_name", "prompt_version", "source_partition", "ingested_at")}
                | {
                    "outcome": outcome,
                    "scored_at": (started + timedelta(seconds=2)).isoformat(),
                    "findings": [finding(type=kind, leak=leaks) for kind in kinds] if outcome in ("scored", "partial") else [],
                    "producer": "g",
                    "seq": number,
                    "source_offset": number,
                }
            )
    return calls, verdicts


def blocks(first_leak: datetime) -> list[Row]:
    def alert(at: datetime, policy: str, tenant: str, state: str) -> Row:
        told = {"key": policy, "kind": "policy", "severity": "critical", "title": "t", "policy": policy, "state": state}
        return {**told, "at": at.isoformat(timespec="milliseconds"), "scope": {"tenant": tenant}}

    return [
        alert(first_leak + timedelta(seconds=30), "phi-leak", "harbor-health", "block"),
        alert(first_leak + timedelta(seconds=90), "phi-leak", "harbor-health", "ok"),
        alert(datetime(2026, 11, 12, tzinfo=UTC), "budget", "nobody", "block"),
    ]


def leaking(verdicts: list[Row]) -> list[Row]:
    return [verdict for verdict in verdicts if any(found["leak"] for found in verdict["findings"])]


def in_month(rows: list[Row]) -> list[Row]:
    return [row for row in rows if row["started_at"].startswith("2026-11")]


def fill(store: Store, audit: AuditLog) -> tuple[list[Row], list[Row]]:
    calls, verdicts = made()
    store.insert("calls", ndjson(calls), "calls:0:0-1")
    store.insert("scored_calls", ndjson(verdicts), "scored:0:0-1")
    harbor = [row for row in leaking(in_month(verdicts)) if row["tenant"] == "harbor-health"]
    store.insert("alerts", ndjson(blocks(min(datetime.fromisoformat(row["scored_at"]) for row in harbor))), "alerts:0:0-1")
    audit.append("key.shredded", "st-anne", {"key": "k-1"})
    audit.append("quarantine.opened", "harbor-health", {"place": "0:1", "call_id": "c1"})
    audit.append("transcripts.read", details={"door": "query", "statement": "ab12", "call_ids": ["c1", "c2"]})
    AuditCopy(audit, store).run_once()
    return calls, verdicts


def told_of(store: Store, audit: AuditLog, tenant: str | None = None, month: Month = MONTH) -> Figures:
    def ask(sql: str) -> bytes:
        return store.query_bytes(sql, "JSONEachRow")

    lines, _ = audit.lines()
    entries = [entry for line in lines if (entry := Entry.parse(line)) is not None]
    return figures(ask, check(audit, ask), entries, month, tenant)


def november() -> datetime:
    return datetime(2026, 11, 20, 9, tzinfo=UTC)


@pytest.mark.parametrize("tenant", [None, TENANTS[0], TENANTS[2], "it's nobody\\"])
def test_every_figure_is_that_of_the_rows(store: Store, tmp_path: Path, tenant: str | None) -> None:
    calls, verdicts = fill(store, AuditLog(tmp_path / "audit", now=november))

    found = told_of(store, AuditLog(tmp_path / "audit"), tenant)

    mine = [row for row in in_month(calls) if tenant in (None, row["tenant"])]
    said = [row for row in in_month(verdicts) if tenant in (None, row["tenant"])]
    judged = [row for row in said if row["outcome"] in ("scored", "partial")]
    leaks = leaking(judged)
    assert (found.calls, found.judged, found.with_leaks) == (len(mine), len(judged), len(leaks))
    assert found.outcomes == Counter(row["outcome"] for row in said)
    assert {day.value: (day.judged, day.with_leaks) for day in found.days} == {
        day: (
            sum(row["started_at"].startswith(day) for row in judged),
            sum(row["started_at"].startswith(day) for row in leaks),
        )
        for day in {row["started_at"][:10] for row in said}
    }
    by = {"service": "service", "model": "request_model", "prompt version": "prompt_version"}
    for name, field in by.items():
        counted = {leaks.value.removeprefix("triage@"): (leaks.judged, leaks.with_leaks) for leaks in found.by[name]}
        values = {row[field] for row in said}
        assert counted == {
            value: (sum(row[field] == value for row in judged), sum(row[field] == value for row in leaks)) for value in values
        }
    assert {whose.value: whose.calls for whose in found.by["tenant"]} == Counter(row["tenant"] for row in mine)
    types = Counter(one["type"] for row in leaks for one in row["findings"])
    assert {kind.type: kind.leaks for kind in found.types} == types
    with_type = Counter(kind for row in leaks for kind in {one["type"] for one in row["findings"]})
    assert {kind.type: kind.calls for kind in found.types} == with_type


def test_a_block_is_timed_from_the_first_leak_of_its_scope(store: Store, tmp_path: Path) -> None:
    fill(store, AuditLog(tmp_path / "audit", now=november))

    found = told_of(store, AuditLog(tmp_path / "audit")).blocks

    assert [(block.policy, block.state, block.lasted_s) for block in found] == [
        ("phi-leak", "block", 60.0),
        ("budget", "block", None),
    ]
    assert found[0].to_block_s == pytest.approx(30, abs=0.01)
    assert found[1].to_block_s is None


def test_the_audit_entries_are_those_of_the_month_and_the_tenant(store: Store, tmp_path: Path) -> None:
    fill(store, AuditLog(tmp_path / "audit", now=november))
    audit = AuditLog(tmp_path / "audit")

    everybody, harbor, october = (
        told_of(store, audit),
        told_of(store, audit, TENANTS[0]),
        told_of(store, audit, month=Month(2026, 10)),
    )

    assert [entry.action for entry in everybody.entries] == ["key.shredded", "quarantine.opened", "transcripts.read"]
    assert [entry.action for entry in harbor.entries] == ["quarantine.opened", "transcripts.read"]
    assert (list(october.entries), october.checked.problems) == ([], [])
    assert october.calls > 0


class Page(HTMLParser):
    """The tags that are open at the end, and what could fetch anything."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.outside: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.outside += [value for name, value in attrs if name in ("src", "href", "data", "action") and value is not None]


def test_the_page_fetches_nothing_and_names_are_text_in_it(store: Store, tmp_path: Path) -> None:
    fill(store, AuditLog(tmp_path / "audit", now=november))

    text = html(told_of(store, AuditLog(tmp_path / "audit")), november())

    page = Page()
    page.feed(text)
    assert (page.outside, page.tags["script"], page.tags["b"], page.tags["svg"]) == ([], 0, 8, 6)
    assert "lakeview | &lt;b&gt;pediatrics&lt;/b&gt;" in text
    assert "somebody@example.com" not in text
    assert "2026-11-09: nothing was judged" in text
    for picture in re.findall(r"<svg.*?</svg>", text, re.DOTALL):
        ElementTree.fromstring(picture)


def test_markdown_says_the_same_with_its_pictures_beside_it(store: Store, tmp_path: Path) -> None:
    fill(store, AuditLog(tmp_path / "audit", now=november))
    found = told_of(store, AuditLog(tmp_path / "audit"))

    text, pictures = markdown(found, november(), "report")

    assert sorted(re.findall(r"\(<(.*?)>\)", text)) == sorted(pictures)
    assert len(pictures) == 6
    assert f"| calls with a leak | {found.with_leaks:,} |" in text
    assert r"lakeview \| \<b>pediatrics\</b>" in text
    for line in text.splitlines():
        assert not line.startswith("|") or len(re.findall(r"(?<!\\)\|", line)) >= 3


def test_who_opened_a_dead_letter_or_let_a_meter_go_on_is_in_it(store: Store, tmp_path: Path) -> None:
    audit = AuditLog(tmp_path / "audit", now=november)
    audit.append("letters.opened", "harbor-health", {"letter": "0:17:4"})
    audit.append("meter.resumed")

    text, _ = markdown(told_of(store, audit), november(), "report")

    assert "letters.opened | harbor-health | letter 0:17:4" in text
    assert "meter.resumed" in text


def test_what_nobody_judged_is_unknown_and_no_log_is_not_a_whole_one(store: Store, tmp_path: Path) -> None:
    calls, _ = made(50)
    store.insert("calls", ndjson(calls), "calls:0:0-1")

    text, _ = markdown(told_of(store, AuditLog(tmp_path / "audit")), november(), "report")

    assert "| calls with a leak | unknown |" in text
    assert "| of those judged | unknown |" in text
    assert "| audit log | empty |" in text


def test_the_command_writes_a_report_beside_a_node_and_without_one(tmp_path: Path) -> None:
    data = tmp_path / "data"
    log = tmp_path / "calls.jsonl"
    log.write_bytes(json.dumps({"model": "gpt-4o", "created": 1_793_606_400, "usage": {"prompt_tokens": 5}}).encode() + b"\n")
    assert tidegate("replay", log, "--data", data, "--no-content").returncode == 0

    alone = tidegate("audit", "report", "--month", "2026-11", "--out", tmp_path / "report.html", "--data", data)
    with NodeProcess(data):
        beside = tidegate("audit", "report", "--month", "2026-11", "--data", data)
    refused = tidegate("audit", "report", "--month", "2026-13", "--data", data)
    other = tidegate("audit", "report", "--month", "2026-11", "--out", tmp_path / "report.pdf", "--data", data)

    assert (alone.returncode, beside.returncode) == (0, 0), alone.stderr + beside.stderr
    assert (tmp_path / "report.html").read_text().startswith("<!doctype html>")
    assert b"# Leaks of health information in November 2026" in beside.stdout
    assert (refused.returncode, b"give a month as 2026-11" in refused.stderr) == (2, True)
    assert (other.returncode, b".html or .md" in other.stderr) == (2, True)
