"""A month's report on leaks of health information, as Markdown with pictures beside it or as one HTML file.

Figures ─► sections ─┬─► html        one file: style and pictures in it, nothing fetched
                     └─► markdown    and its pictures, to be written beside it
"""

from __future__ import annotations

import calendar
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from html import escape
from typing import Any, Final

import orjson

from ..processors.leak_figures import Figures, Leaks
from ..schemas.audit import Entry
from .bars import Bar, columns, rows
from .report import STYLE, Section, Table, html_section, md, md_table
from .terminal import plain

_MOST: Final = 15
_MOST_ENTRIES: Final = 200


def html(figures: Figures, made_at: datetime) -> str:
    """The report in one file."""
    cards = "".join(
        f'<div class="card{" bad" if bad else ""}"><b>{escape(value)}</b><span>{escape(name)}</span></div>'
        for name, value, bad in _cards(figures)
    )
    body = "".join(html_section(section) for section in _sections(figures))
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<title>{escape(_title(figures))}</title><style>{STYLE}</style><h1>{escape(_title(figures))}</h1>"
        f'<p class="dim">{escape(_made(made_at))}</p><div class="cards">{cards}</div>{body}</html>\n'
    )


def markdown(figures: Figures, made_at: datetime, stem: str) -> tuple[str, Mapping[str, str]]:
    """The report, and its pictures by the names of the files that it expects beside it."""
    pictures: dict[str, str] = {}
    parts = [f"# {md(_title(figures))}", md(_made(made_at))]
    parts.append(md_table(Table(("", ""), [(name, value) for name, value, _ in _cards(figures)], frozenset({1}))))
    for section in _sections(figures):
        parts.append(f"{'#' * section.level} {md(section.title)}")
        if section.words:
            parts.append(md(section.words))
        if section.picture:
            name = f"{stem}-{re.sub('[^a-z]+', '-', section.title.lower()).strip('-')}.svg"
            pictures[name] = section.picture
            parts.append(f"![{md(section.title)}](<{name}>)")
        if section.table is not None and section.table.rows:
            parts.append(md_table(section.table))
    return "\n\n".join(parts) + "\n", pictures


# ---- what is told


def _title(figures: Figures) -> str:
    whose = f", {plain(figures.tenant)}" if figures.tenant is not None else ""
    return f"Leaks of health information in {calendar.month_name[figures.month.number]} {figures.month.year}{whose}"


def _made(at: datetime) -> str:
    return f"Made by Tidegate at {at:%Y-%m-%d %H:%M} UTC. Calls count in the UTC month they started in; no text is in here."


def _cards(figures: Figures) -> list[tuple[str, str, bool]]:
    whole = not figures.checked.problems and figures.checked.last is not None
    return [
        ("calls", f"{figures.calls:,}", False),
        ("judged", _share(figures.judged, figures.calls), False),
        ("unknown: not judged", f"{max(figures.calls - figures.judged, 0):,}", figures.judged < figures.calls),
        ("calls with a leak", f"{figures.with_leaks:,}" if figures.judged else "unknown", figures.with_leaks > 0),
        ("of those judged", _share(figures.with_leaks, figures.judged), False),
        ("blocks and throttles", f"{len(figures.blocks):,}", False),
        ("reads of transcripts", f"{len(figures.acts('transcripts.')):,}", False),
        ("audit log", "whole" if whole else "not whole" if figures.checked.problems else "empty", not whole),
    ]


def _sections(figures: Figures) -> list[Section]:
    return [*_coverage(figures), *_leaks(figures), *_blocks(figures), *_quarantine(figures), *_audit(figures)]


def _coverage(figures: Figures) -> list[Section]:
    words = (
        "Only calls whose texts were judged can be said to have leaked or not. Of the others nobody knows: their texts were not"
        " sent, not sampled, not readable, or wait in quarantine."
    )
    outcomes = Table(
        ("verdict", "count"), [(plain(name), f"{count:,}") for name, count in figures.outcomes.items()], frozenset({1})
    )
    by = [
        (_name(leaks.value), _count(leaks.calls), f"{leaks.judged:,}", _share(leaks.judged, leaks.calls or 0))
        for leaks in figures.by["tenant"]
    ]
    tenants = Table(("tenant", "calls", "judged", "share"), by, frozenset({1, 2, 3}))
    return [Section("What was judged", words, table=outcomes), Section("By tenant", table=tenants, level=3)]


def _leaks(figures: Figures) -> list[Section]:
    known = {leaks.value: leaks for leaks in figures.days}
    bars = []
    for number in range((figures.month.until - figures.month.since).days):
        day = figures.month.since.replace(day=number + 1).isoformat()
        leaks = known.get(day)
        judged = leaks.judged if leaks is not None else 0
        note = f"{leaks.with_leaks:,} of {judged:,} judged" if leaks is not None and judged else "nothing was judged"
        bars.append(Bar(day, leaks.with_leaks if leaks is not None and judged else None, note))
    found = [
        Section(
            "Leaks by day",
            "Calls with at least one leak. A dashed bar is a day on which no call was judged: unknown.",
            columns("Calls with a leak, by day", bars),
        )
    ]
    for name, values in figures.by.items():
        table = Table(
            (name, "judged", "with a leak", "share"),
            [(_name(v.value), f"{v.judged:,}", f"{v.with_leaks:,}" if v.judged else "unknown", _rate(v)) for v in values],
            frozenset({1, 2, 3}),
        )
        leaking = [value for value in values if value.with_leaks][:_MOST]
        picture = rows(
            f"Leaks by {name}", [Bar(_name(v.value), v.with_leaks, f"{v.with_leaks:,} ({_rate(v)})") for v in leaking]
        )
        found.append(Section(f"Leaks by {name}", "", picture if leaking else "", table, 3))
    types = Table(
        ("type", "calls", "places"),
        [(plain(kind.type), f"{kind.calls:,}", f"{kind.leaks:,}") for kind in figures.types],
        frozenset({1, 2}),
    )
    picture = rows("Leaks by type", [Bar(plain(k.type), k.calls, f"{k.calls:,} calls") for k in figures.types[:_MOST]])
    words = "A call with two types counts in both." if figures.types else "None was found."
    found.append(Section("Leaks by type", words, picture if figures.types else "", types, 3))
    return found


def _blocks(figures: Figures) -> list[Section]:
    words = (
        "To block: from the verdict on the first leak in the scope that no block had answered yet. Blocks without one are about"
        " something else, a budget say."
    )
    times = sorted(block.to_block_s for block in figures.blocks if block.to_block_s is not None)
    if times:
        words += f" Median {_seconds(times[len(times) // 2])}, longest {_seconds(times[-1])}."
    table = Table(
        ("at (UTC)", "policy", "scope", "did", "to block", "lasted"),
        [
            (
                f"{block.at:%m-%d %H:%M:%S}",
                plain(block.policy),
                plain(", ".join(f"{name}={value}" for name, value in block.scope.items() if name != "user")),
                block.state,
                _seconds(block.to_block_s),
                _seconds(block.lasted_s) if block.lasted_s is not None else "still",
            )
            for block in figures.blocks[:_MOST_ENTRIES]
        ],
        frozenset({4, 5}),
    )
    return [Section("Blocks", words if figures.blocks else "No policy blocked or throttled anything.", table=table)]


def _quarantine(figures: Figures) -> list[Section]:
    held, acts = figures.outcomes.get("quarantined", 0), figures.acts("quarantine.")
    words = f"{held:,} verdicts say that a text could not be judged and was put into quarantine."
    return [Section("Quarantine", words, table=_entries(acts))]


def _audit(figures: Figures) -> list[Section]:
    checked, keys, reads = figures.checked, figures.acts("key."), figures.acts("transcripts.")
    problems = [str(problem) for problem in checked.problems]
    if checked.last is None:
        words = "There is no audit log here, so that what follows is unknown and not nothing."
    elif problems:
        words = f"The audit log is not whole: {'; '.join(problems[:10])}{' …' if len(problems) > 10 else ''}."
    else:
        words = (
            f"The audit log {checked.log} is whole, {checked.entries:,} entries long, and the store has the same."
            f" Mark: {checked.last.seq}:{checked.last.hash}."
        )
    if checked.remarks:
        words += f" To note: {'; '.join(checked.remarks)}."
    letters = figures.acts("letters.")
    others = figures.acts("node.", "meter.", "policies.", "schema.", "retention.", "audit.")
    return [
        Section("Audit log", words),
        Section("Keys", "" if keys else "No key was made, retired or shredded.", table=_entries(keys), level=3),
        Section("Reads of transcripts", "" if reads else "None.", table=_entries(reads), level=3),
        Section("Dead letters", "" if letters else "None was opened or changed.", table=_entries(letters), level=3),
        Section("Node, meters, policies and schema", "" if others else "Nothing.", table=_entries(others), level=3),
    ]


def _entries(entries: Sequence[Entry]) -> Table:
    """The latest so many, the oldest first."""
    shown = entries[-_MOST_ENTRIES:]
    told = [
        (entry.at[:19].replace("T", " "), plain(entry.actor), entry.action, plain(entry.subject), _details(entry))
        for entry in shown
    ]
    if len(shown) < len(entries):
        told.insert(0, ("", "", f"{len(entries) - len(shown):,} before these", "", ""))
    return Table(("at (UTC)", "who", "did", "with", "details"), told)


def _details(entry: Entry) -> str:
    told: dict[str, Any] = orjson.loads(entry.details)
    parts = [
        f"{name} {', '.join(map(str, value)) if isinstance(value, list) else value}"
        for name, value in told.items()
        if value not in (None, "", [])
    ]
    return plain("; ".join(parts))


def _name(value: str) -> str:
    return plain(value) or "(not told)"


def _count(value: int | None) -> str:
    return "–" if value is None else f"{value:,}"


def _share(part: int, whole: int) -> str:
    return "unknown" if not whole else f"{part / whole:.1%}"


def _rate(leaks: Leaks) -> str:
    return _share(leaks.with_leaks, leaks.judged)


def _seconds(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:,.1f} s" if value < 600 else f"{value / 60:,.0f} min" if value < 36_000 else f"{value / 3600:,.1f} h"
