"""The files of an incident bundle: a page, a timeline, tables, plots, and a manifest that proves each of them.

    Facts, Series, About ─► files ─► {name: bytes} ─► archive ─► one ZIP, the same bytes for the same files

Plots are the panels of the boards, asked for this stretch: what the post-mortem shows is what the console showed.
"""

from __future__ import annotations

import csv
import hashlib
import io
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from html import escape
from typing import Any, Final, NamedTuple

import orjson
import yaml

from ..processors.audit_check import Ask
from ..processors.incident_facts import QUESTIONS, Episode, Facts, Row, iso, rows
from .boards import BOARDS
from .lines import MOST, Point, lines
from .panel import Panel, step_s
from .report import STYLE, Table, html_table, md, md_table
from .terminal import plain

MANIFEST: Final = "MANIFEST.json"
# What a post-mortem looks at: board, panel, and by what. None of them names a person.
_SHOWN: Final = (
    ("overview", "calls_over_time", "tenant"),
    ("cost", "cost_over_time", "model"),
    ("overview", "errors_over_time", "model"),
    ("latency", "error_share_by", "provider_name"),
    ("latency", "latency_over_time", "model"),
    ("latency", "latency_p95_by", "model"),
    ("guardrails", "findings_over_time", "tenant"),
    ("guardrails", "leaks_over_time", "tenant"),
    ("guardrails", "outcomes_over_time", "tenant"),
    ("pipeline", "refused_over_time", "tenant"),
)
# A ZIP cannot be without times; the same bundle is the same bytes.
_STAMP: Final = (1980, 1, 1, 0, 0, 0)
_FORMULA: Final = ("=", "+", "-", "@")
_MOST_LINES: Final = 400


class Series(NamedTuple):
    """One panel's answer, by name."""

    panel: Panel
    by: str
    points: Mapping[str, Sequence[Point]]


@dataclass(frozen=True, slots=True)
class About:
    """What a bundle says beside the store's facts; None or empty: not known from here."""

    made_at: datetime
    where: str
    status: Mapping[str, Any] | None
    versions: Mapping[str, str]
    policies: Mapping[str, Any] | None
    # What the file says, without people: its own text may name them in comments, and spells them in many ways.
    policy_file: Mapping[str, Any] | None
    proof: Mapping[str, Any]
    # Whether the digests of people are those of other bundles of the same ring.
    lasting_digests: bool


def series_of(ask: Ask, since: float, until: float, done: Callable[[str], None] = lambda _what: None) -> list[Series]:
    """Ask the boards' panels for this stretch."""
    found = []
    panels = {(board.key, panel.key): panel for board in BOARDS for panel in board.panels}
    chosen = {"since": iso(since), "until": iso(until), "tenant": "*", "step_s": str(step_s(until - since))}
    for board, key, by in _SHOWN:
        panel = panels[board, key]
        points: dict[str, list[Point]] = {}
        for row in rows(ask, _bound(panel.sql, chosen | {"by": by})):
            at = datetime.fromisoformat(row["t"]).replace(tzinfo=UTC).timestamp()
            points.setdefault(str(row["series"]), []).append((at, None if row["value"] is None else float(row["value"])))
        found.append(Series(panel, by, points))
        done(panel.key)
    return found


def files(facts: Facts, series: Sequence[Series], about: About) -> dict[str, bytes]:
    """Every file of the bundle by its name, the manifest the last."""
    pictures = {_stem(one): _picture(one, facts) for one in series}
    made: dict[str, bytes] = {
        "index.html": _page(facts, series, pictures, about).encode(),
        "timeline.md": _markdown(facts, about).encode(),
        "incidents.json": _json([_told(episode) for episode in facts.episodes]),
        "status.json": _json(about.status),
        "versions.json": _json(about.versions),
        "policies.json": _json(about.policies),
        "audit.jsonl": b"".join(entry.line() + b"\n" for entry in facts.entries),
        "audit_proof.json": _json(about.proof),
        **{f"tables/{name}.csv": _csv(table) for name, table in facts.tables.items()},
        **{f"series/{_stem(one)}.csv": _csv(_flat(one)) for one in series},
        **{f"plots/{name}.svg": picture.encode() for name, picture in pictures.items()},
    }
    if about.policy_file is not None:
        made["policy_file.yaml"] = yaml.safe_dump(about.policy_file, sort_keys=False, allow_unicode=True).encode()
    made[MANIFEST] = _json(
        {
            "made_at": about.made_at.isoformat(timespec="seconds"),
            "since": iso(facts.since),
            "until": iso(facts.until),
            "left_out": facts.left_out,
            "files": {
                name: {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
                for name, content in sorted(made.items())
            },
        }
    )
    return made


def archive(made: Mapping[str, bytes]) -> bytes:
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", zipfile.ZIP_DEFLATED) as bundle:
        for name, content in made.items():
            info = zipfile.ZipInfo(name, _STAMP)
            info.compress_type = zipfile.ZIP_DEFLATED
            bundle.writestr(info, content)
    return written.getvalue()


# ---- parts


def _bound(sql: str, chosen: Mapping[str, str]) -> str:
    """A panel's SQL with its parameters in it: a command's question goes through doors that take none."""
    for name, value in chosen.items():
        quoted = value.replace("\\", "\\\\").replace("'", "\\'")
        sql = sql.replace(f"{{{name}:String}}", f"'{quoted}'").replace(f"{{{name}:UInt32}}", value)
    return sql


def _stem(one: Series) -> str:
    return f"{one.panel.key}-by-{one.by}" if one.panel.series_of == "by" else one.panel.key


def _heading(one: Series) -> str:
    return f"{one.panel.title} ({one.by.removesuffix('_name')})" if one.panel.series_of == "by" else one.panel.title


def _flat(one: Series) -> list[Row]:
    return [{"t": iso(at), "series": name, "value": value} for name, points in one.points.items() for at, value in points]


def _picture(one: Series, facts: Facts) -> str:
    heaviest = sorted(one.points.items(), key=lambda item: -sum(value or 0 for _, value in item[1]))[:MOST]
    began = [episode.opened_at for episode in facts.episodes if not episode.began_before]
    return lines(_heading(one), dict(heaviest), facts.since, facts.until, began, one.panel.unit)


def _told(episode: Episode) -> dict[str, Any]:
    told = asdict(episode)
    for name in ("opened_at", "ended_at", "acknowledged_at"):
        told[name] = None if told[name] is None else iso(told[name])
    told["changes"] = [{**change._asdict(), "at": iso(change.at)} for change in episode.changes]
    return told


def _json(what: Any) -> bytes:
    return orjson.dumps(what, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE)


def _csv(table: Sequence[Row]) -> bytes:
    """With names, as a spreadsheet takes it: NULL is an empty cell, and no text is taken for a formula."""
    if not table:
        return b""
    written = io.StringIO()
    writer = csv.writer(written, lineterminator="\n")
    writer.writerow(table[0])
    for row in table:
        writer.writerow([_cell(value) for value in row.values()])
    return written.getvalue().encode()


def _cell(value: Any) -> Any:
    if isinstance(value, dict | list):
        return orjson.dumps(value).decode()
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def _title(facts: Facts) -> str:
    return f"What happened from {_clock(facts.since)} to {_clock(facts.until)} UTC"


def _made(about: About) -> str:
    digests = (
        "the same in every bundle of this key ring" if about.lasting_digests else "of this bundle alone: there is no key ring"
    )
    made = f"Made by Tidegate {about.versions.get('tidegate', '')} at {about.made_at:%Y-%m-%d %H:%M} UTC of {about.where}."
    named = "no user's or patient's name, but those of who acted"
    return f"{made} No text of a call is in here, and {named}: what begins with ~ is a keyed digest, {digests}."


def _incident_rows(facts: Facts) -> list[tuple[str, ...]]:
    return [
        (
            f"#{one.number}" if one.number is not None else "",
            f"{'before ' if one.began_before else ''}{_clock(one.opened_at)}",
            _clock(one.ended_at) if one.ended_at is not None else "still open",
            one.severity,
            one.policy or one.kind,
            ", ".join(f"{name}={value}" for name, value in one.scope.items()) or "everything",
            f"{one.acknowledged_by} {_clock(one.acknowledged_at)}" if one.acknowledged_at is not None else "nobody",
            one.runbook,
        )
        for one in facts.episodes
    ]


_INCIDENT: Final = ("#", "opened", "over", "severity", "what", "scope", "acknowledged", "runbook")


def _markdown(facts: Facts, about: About) -> str:
    """The timeline, to be written on in a post-mortem."""
    parts = [f"# {md(_title(facts))}", md(_made(about)), "## Incidents", _md(_INCIDENT, _incident_rows(facts))]
    shown = facts.timeline[:_MOST_LINES]
    parts += ["## Timeline", _md(("at (UTC)", "", "what"), [(iso(one.at), one.what, one.words) for one in shown])]
    if len(facts.timeline) > len(shown):
        parts.append(f"{len(facts.timeline) - len(shown):,} more lines are in `incidents.json` and `audit.jsonl`.")
    parts += [f"## {title}\n\n…" for title in ("What hurt whom", "Why", "What we change")]
    return "\n\n".join(parts) + "\n"


def _page(facts: Facts, series: Sequence[Series], pictures: Mapping[str, str], about: About) -> str:
    body = [f"<h2>Incidents</h2>{_html(_INCIDENT, _incident_rows(facts))}"]
    body += [
        f"<h2>{escape(_heading(one))}</h2><p class=dim>{escape(one.panel.about)}</p>{pictures[_stem(one)]}" for one in series
    ]
    words = {question.name: question.about for question in QUESTIONS}
    for name, table in facts.tables.items():
        more = facts.left_out.get(name, 0) + max(len(table) - 50, 0)
        rest = f"<p class=dim>{more:,} more rows, see tables/{name}.csv</p>" if more else ""
        cells = [tuple(_text(value) for value in row.values()) for row in table[:50]]
        shown = _html(tuple(table[0]), cells) if table else "<p>None.</p>"
        body.append(
            f"<h2>{escape(name.replace('_', ' ').capitalize())}</h2><p class=dim>{escape(words[name])}</p>{shown}{rest}"
        )
    whole = "whole" if about.proof.get("whole") else "not whole, or not known"
    body.append(f"<h2>Audit log</h2><p>{len(facts.entries):,} entries of this time; the log is {whole}: audit_proof.json</p>")
    shown_lines = [(iso(line.at), line.what, line.words) for line in facts.timeline[:_MOST_LINES]]
    body.append(f"<h2>Timeline</h2>{_html(('at (UTC)', '', 'what'), shown_lines)}")
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<title>{escape(_title(facts))}</title><style>{STYLE}</style><h1>{escape(_title(facts))}</h1>"
        f"<p class=dim>{escape(_made(about))}</p>{''.join(body)}</html>\n"
    )


def _html(head: Sequence[str], table: Sequence[Sequence[str]]) -> str:
    return html_table(Table(head, [[plain(cell) for cell in row] for row in table])) if table else "<p>None.</p>"


def _md(head: Sequence[str], table: Sequence[Sequence[str]]) -> str:
    return md_table(Table(head, [[plain(cell) for cell in row] for row in table])) if table else "None."


def _text(value: Any) -> str:
    if value is None:
        return "–"
    return orjson.dumps(value).decode() if isinstance(value, dict | list) else str(value)


def _clock(at: float) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M}"
