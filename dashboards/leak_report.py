"""A month's report on leaks of health information, as Markdown with pictures beside it or as one HTML file.

Figures ─► sections ─┬─► html        one file: style and pictures in it, nothing fetched
                     └─► markdown    and its pictures, to be written beside it
"""

from __future__ import annotations

import calendar
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from html import escape
from typing import Any, Final

import orjson

from ..processors.leak_figures import Figures, Leaks
from ..schemas.audit import Entry
from .bars import Bar, columns, rows
from .terminal import plain

_STYLE: Final = """
:root{color-scheme:light dark;--ink:#17252b;--dim:#5b6b72;--line:#d8e0e3;--paper:#fbfcfc;--tide:#0b7285;--warn:#b3541e}
@media(prefers-color-scheme:dark){
:root{--ink:#e4ecee;--dim:#93a4ab;--line:#2b3a40;--paper:#11191c;--tide:#4fc3d9;--warn:#f0a36b}}
body{font:16px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper);
max-width:60rem;margin:2.5rem auto;padding:0 1.5rem}
h1{font-size:1.5rem;margin:0}h2{font-size:1.1rem;margin:2.2rem 0 .4rem;color:var(--tide)}
h3{font-size:1rem;margin:1.4rem 0 .3rem}
p{margin:.4rem 0}.dim{color:var(--dim)}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(9rem,1fr));gap:.8rem;margin:1.2rem 0}
.card{border:1px solid var(--line);border-radius:.5rem;padding:.6rem .9rem}.card b{display:block;font-size:1.4rem}
.card span{color:var(--dim);font-size:.85rem}.card.bad b{color:var(--warn)}
.wide{overflow-x:auto}table{border-collapse:collapse;width:100%;font-size:.9rem}
td,th{text-align:left;padding:.3rem .6rem;border-bottom:1px solid var(--line);vertical-align:top}
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}td{overflow-wrap:anywhere}
svg{width:100%;height:auto;display:block;margin:.5rem 0}
@media print{body{margin:0;max-width:none}h2,h3{break-after:avoid}tr,.card{break-inside:avoid}}
"""
_MOST: Final = 15
_MOST_ENTRIES: Final = 200
_PIPES: Final = re.compile(r"([\\|`*_<\[])")


@dataclass(frozen=True, slots=True)
class Table:
    """`numbers`: the columns that are read from the right."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    numbers: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Section:
    """`level` is 2 or 3; `picture` is SVG, or nothing."""

    title: str
    words: str = ""
    picture: str = ""
    table: Table | None = None
    level: int = 2


def html(figures: Figures, made_at: datetime) -> str:
    """The report in one file."""
    cards = "".join(
        f'<div class="card{" bad" if bad else ""}"><b>{escape(value)}</b><span>{escape(name)}</span></div>'
        for name, value, bad in _cards(figures)
    )
    body = "".join(_html_section(section) for section in _sections(figures))
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<title>{escape(_title(figures))}</title><style>{_STYLE}</style><h1>{escape(_title(figures))}</h1>"
        f'<p class="dim">{escape(_made(made_at))}</p><div class="cards">{cards}</div>{body}</html>\n'
    )


def markdown(figures: Figures, made_at: datetime, stem: str) -> tuple[str, Mapping[str, str]]:
    """The report, and its pictures by the names of the files that it expects beside it."""
    pictures: dict[str, str] = {}
    parts = [f"# {_md(_title(figures))}", _md(_made(made_at))]
    parts.append(_md_table(Table(("", ""), [(name, value) for name, value, _ in _cards(figures)], frozenset({1}))))
    for section in _sections(figures):
        parts.append(f"{'#' * section.level} {_md(section.title)}")
        if section.words:
            parts.append(_md(section.words))
        if section.picture:
            name = f"{stem}-{re.sub('[^a-z]+', '-', section.title.lower()).strip('-')}.svg"
            pictures[name] = section.picture
            parts.append(f"![{_md(section.title)}](<{name}>)")
        if section.table is not None and section.table.rows:
            parts.append(_md_table(section.table))
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


# ---- how it is written


def _html_section(section: Section) -> str:
    words = f"<p>{escape(section.words)}</p>" if section.words else ""
    table = _html_table(section.table) if section.table is not None and section.table.rows else ""
    return f"<h{section.level}>{escape(section.title)}</h{section.level}>{words}{section.picture}{table}"


def _html_table(table: Table) -> str:
    def row(cells: Sequence[str], tag: str) -> str:
        told = "".join(
            f"<{tag}{' class=n' if index in table.numbers else ''}>{escape(cell)}</{tag}>" for index, cell in enumerate(cells)
        )
        return f"<tr>{told}</tr>"

    return (
        f'<div class="wide"><table>{row(table.columns, "th")}{"".join(row(cells, "td") for cells in table.rows)}</table></div>'
    )


def _md_table(table: Table) -> str:
    lines = ["| " + " | ".join(map(_md, table.columns)) + " |"]
    lines.append("|" + "|".join("---:" if index in table.numbers else "---" for index in range(len(table.columns))) + "|")
    lines += ["| " + " | ".join(map(_md, cells)) + " |" for cells in table.rows]
    return "\n".join(lines)


def _md(text: str) -> str:
    return _PIPES.sub(r"\\\1", text.replace("\n", " "))
