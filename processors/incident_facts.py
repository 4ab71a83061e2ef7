"""What a stretch of time looked like, for a post-mortem: asked of the store, and told without naming a person.

    store ─► alerts ─► Episode each ─┐
             signals, calls, verdicts, dead letters, prices ─► Facts ─► dashboards/incident_bundle
    audit log ─► entries, proof ─────┘

No text of a call is asked for. Of a scope only the dimensions that describe work are told as they are; what may name a person
is a keyed digest, the same for the same value throughout one bundle and, with the same key ring, in the next one.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

import orjson

from ..schemas.audit import Entry
from ..schemas.call import SCOPE_FIELDS
from ..schemas.policy import PolicySet
from ..schemas.signal import Alert, Contributor
from .audit_check import Ask
from .incident_words import runbook_of
from .incidents import Incident, severity_of
from .notifier import ACKNOWLEDGED, RESOLVED, SILENCED, UNSILENCED

# What a scope may be made of besides the ids of people, and whatever a service puts into labels.
_WORK: Final = frozenset(SCOPE_FIELDS) - {"user"} | {"model", "kind", "policy", "severity"}
_DIGITS: Final = 12
# How far back an incident may have opened that was open when the stretch began.
_BEFORE_S: Final = 31 * 86_400
# Of any one table; a bundle is read by people, and what is left out is counted.
MOST_ROWS: Final = 20_000

Row = dict[str, Any]


class Question(NamedTuple):
    """A table of the bundle. `sql` has `{since}` and `{until}`, moments as ClickHouse reads them."""

    name: str
    about: str
    sql: str


QUESTIONS: Final = (
    Question(
        "signals",
        "what policies said of scopes: each change, and of the many words between the first in five minutes",
        "SELECT at, policy, policy_version, scope, state, withdrawn, measure, spend, limit, remaining, model, per_minute,"
        " resets_at, exhausted_at, reason, contributors, gates FROM signals FINAL WHERE at >= {since} AND at < {until}"
        " ORDER BY at, policy, sequence",
    ),
    Question(
        "cost",
        "calls and cost by tenant, team and model; `cost_usd` is of the calls that have a known price",
        "SELECT tenant, team, model, sum(requests) AS calls, sum(errors) AS failed, sum(input_tokens) AS input_tokens,"
        " sum(output_tokens) AS output_tokens, sum(requests_without_price) AS without_price,"
        " if(calls = without_price, NULL, sum(cost_nano_usd)) AS nano_usd, nano_usd / 1e9 AS cost_usd"
        " FROM calls_1m WHERE minute >= {since} AND minute < {until} GROUP BY ALL ORDER BY nano_usd DESC, calls DESC",
    ),
    Question(
        "errors",
        "failed calls by provider, model and class of error",
        "SELECT provider_name, model, error_type, count() AS failed, min(started_at) AS first, max(started_at) AS last"
        " FROM calls WHERE error_type != '' AND started_at >= {since} AND started_at < {until}"
        " GROUP BY ALL ORDER BY failed DESC",
    ),
    Question(
        "findings",
        "findings of the guardrails: how many and where, never what",
        "SELECT tenant, service, prompt_name, prompt_version, model, detector, type, found_in, leak, count() AS places,"
        " uniqExact(call_id) AS calls, min(scored_at) AS first, max(scored_at) AS last"
        " FROM findings WHERE scored_at >= {since} AND scored_at < {until} GROUP BY ALL ORDER BY leak DESC, calls DESC",
    ),
    Question(
        "verdicts",
        "what became of texts that were sent to be judged",
        "SELECT outcome, count() AS calls, max(dateDiff('second', started_at, scored_at)) AS latest_s"
        " FROM scored_calls WHERE scored_at >= {since} AND scored_at < {until} GROUP BY outcome ORDER BY calls DESC",
    ),
    Question(
        "dead_letters",
        "lines that were refused: why, whose, how many; a fingerprint of the first, and nothing of what they say",
        "SELECT stage, reason, producer, count() AS letters, uniqExact(sha256) AS different, any(sha256) AS fingerprint,"
        " min(at) AS first, max(at) AS last FROM dead_letters"
        " WHERE stage != 'person' AND at >= {since} AND at < {until} GROUP BY ALL ORDER BY letters DESC",
    ),
    Question(
        "prices",
        "price books that calls were priced with",
        "SELECT price_book, price_status, model, count() AS calls FROM calls"
        " WHERE started_at >= {since} AND started_at < {until} GROUP BY ALL ORDER BY calls DESC",
    ),
    Question(
        "lags",
        "how late calls came into the store, by the minute",
        "SELECT toStartOfMinute(ingested_at) AS minute, count() AS calls,"
        " round(avg(dateDiff('millisecond', ended_at, ingested_at)) / 1000, 3) AS mean_s,"
        " round(max(dateDiff('millisecond', ended_at, ingested_at)) / 1000, 3) AS most_s"
        " FROM calls WHERE ingested_at >= {since} AND ingested_at < {until} GROUP BY minute ORDER BY minute",
    ),
    Question(
        "new",
        "prompt versions and models that were first called in this stretch, a cause as often as not",
        "SELECT what, name, first FROM (SELECT 'prompt' AS what, concat(prompt_name, '@', prompt_version) AS name,"
        " min(started_at) AS first FROM calls WHERE prompt_name != '' AND started_at >= {before} AND started_at < {until}"
        " GROUP BY name UNION ALL SELECT 'model' AS what, toString(c.model) AS name, min(started_at) AS first FROM calls AS c"
        " WHERE started_at >= {before} AND started_at < {until} GROUP BY name)"
        " WHERE first >= {since} ORDER BY first",
    ),
    Question("migrations", "the store's schema", "SELECT DISTINCT number, name, sha256 FROM schema_migrations ORDER BY number"),
)
_ALERTS: Final = (
    "SELECT toUnixTimestamp64Milli(at) AS ms, toUnixTimestamp64Milli(resets_at) AS resets_ms, key, kind, severity, title,"
    " policy, scope, state, previous_state, spend, limit, contributors, owner, runbook FROM alerts"
)


class Names:
    """Tells scopes without naming people. A digest is the same wherever the value is the same."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def digest(self, what: str, value: str) -> str:
        told = f"tidegate incident bundle\0{what}\0{value}".encode("utf-8", "surrogatepass")
        return f"~{hmac.digest(self._key, told, 'sha256').hex()[:_DIGITS]}"

    def value(self, name: str, value: str | None) -> str | None:
        return value if name in _WORK or not value else self.digest(name, value)

    def scope(self, scope: Mapping[str, str | None]) -> dict[str, str | None]:
        return {name: self.value(name, value) for name, value in scope.items()}

    def contributors(self, spent: Mapping[str, Any]) -> dict[str, float]:
        parts = ((*name.partition("="), amount) for name, amount in spent.items())
        return {f"{name}={self.value(name, value)}": float(amount) for name, _, value, amount in parts}


class Change(NamedTuple):
    """One word on an incident. `words` are said without a name."""

    at: float
    severity: str
    kind: str
    words: str


@dataclass(slots=True)
class Episode:
    """One incident, as far as the alerts tell it. `began_before`: it was open when the stretch began. `number` is known of
    those that are open still."""

    id: str
    kind: str
    policy: str | None
    scope: dict[str, str | None]
    severity: str
    opened_at: float
    ended_at: float | None = None
    ended_by: str = ""
    began_before: bool = False
    number: int | None = None
    acknowledged_by: str = ""
    acknowledged_at: float | None = None
    owner: str = ""
    runbook: str = ""
    contributors: dict[str, float] = field(default_factory=dict)
    changes: list[Change] = field(default_factory=list)


class Line(NamedTuple):
    """One line of the timeline."""

    at: float
    what: str
    words: str


@dataclass(frozen=True, slots=True)
class Facts:
    """All of it. `left_out` counts what a table had beyond `MOST_ROWS`."""

    since: float
    until: float
    episodes: Sequence[Episode]
    tables: Mapping[str, Sequence[Row]]
    left_out: Mapping[str, int]
    entries: Sequence[Entry]
    timeline: Sequence[Line]


def facts(
    ask: Ask,
    names: Names,
    since: float,
    until: float,
    entries: Iterable[Entry],
    open_now: Sequence[Incident] = (),
    only: str | None = None,
    done: Callable[[str], None] = lambda _what: None,
) -> Facts:
    """Ask the store for all of [since, until). `entries` are the audit log's, of any time. `only` is the key of one incident:
    of others no episode is told. `done` hears of each question answered. Raises `TidegateError`."""
    moments = {
        "since": _moment(since),
        "until": _moment(until),
        "before": _moment(since - _BEFORE_S),
    }
    tables: dict[str, Sequence[Row]] = {}
    left_out: dict[str, int] = {}
    for question in QUESTIONS:
        found = [_told(row, names) for row in rows(ask, f"{question.sql.format_map(moments)} LIMIT {MOST_ROWS + 1}")]
        if len(found) > MOST_ROWS:
            counted = rows(ask, f"SELECT count() AS n FROM ({question.sql.format_map(moments)})")
            left_out[question.name] = int(counted[0]["n"]) - MOST_ROWS
        tables[question.name] = found[:MOST_ROWS]
        done(question.name)
    before = rows(
        ask,
        f"{_ALERTS} WHERE at >= {moments['before']} AND at < {moments['since']} ORDER BY at DESC, severity LIMIT 1 BY key",
    )
    within = rows(ask, f"{_ALERTS} WHERE at >= {moments['since']} AND at < {moments['until']} ORDER BY at LIMIT {MOST_ROWS}")
    done("alerts")
    said = [_alert(row) for row in [*reversed(before), *within]]
    episodes = _episodes([alert for alert in said if only is None or alert.key == only], names, since, open_now)
    own = [entry for entry in entries if since <= _seconds(entry.at) < until]
    return Facts(since, until, episodes, tables, left_out, own, _timeline(episodes, own, tables["new"]))


def without_people(policies: PolicySet, names: Names) -> dict[str, Any]:
    """A set of policies, with digests of the people whom limits name."""
    told = policies.model_dump(mode="json", exclude_defaults=True)
    for policy in [*told.get("policies", ()), *told.get("request_limits", ())]:
        if match := policy.get("match"):
            policy["match"] = {name: [names.value(name, value) for value in values] for name, values in match.items()}
        for row in policy.get("limits", ()):
            row["scope"] = names.scope(row["scope"])
    return {**told, "version": policies.version}


def iso(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


# ---- incidents


def _alert(row: Row) -> Alert:
    spent: dict[str, Any] = row["contributors"]
    return Alert(
        key=row["key"],
        kind=row["kind"],
        severity=row["severity"],
        title=row["title"],
        at=int(row["ms"]) / 1_000,
        policy=row["policy"] or None,
        scope=dict(row["scope"]),
        state=row["state"] or None,
        previous_state=row["previous_state"] or None,
        spend=row["spend"],
        limit=row["limit"],
        resets_at=int(row["resets_ms"]) / 1_000 if row["resets_ms"] is not None else None,
        contributors=[Contributor({name: ""}, float(amount)) for name, amount in spent.items()],
        owner=row["owner"] or None,
        runbook=row["runbook"] or None,
    )


def _episodes(said: Sequence[Alert], names: Names, since: float, open_now: Sequence[Incident]) -> list[Episode]:
    """Incidents out of alerts, in their order: from a key's first bad word until it is said to be well, or to be over."""
    found: list[Episode] = []
    going: dict[str, Episode] = {}
    for alert in said:
        if alert.kind in (SILENCED, UNSILENCED):
            continue  # why somebody is silent is a person's own words
        episode = going.get(alert.key)
        if alert.kind in (ACKNOWLEDGED, RESOLVED):
            if episode is not None:
                episode.changes.append(Change(alert.at, alert.severity, alert.kind, f"{alert.kind} by {alert.owner}"))
                if alert.kind == ACKNOWLEDGED:
                    episode.acknowledged_by, episode.acknowledged_at = alert.owner or "", alert.at
                else:
                    _end(going, alert, f"by hand, {alert.owner}")
            continue
        severity = severity_of(alert)
        if severity is None:
            if episode is not None:
                episode.changes.append(_change(alert, names))
                _end(going, alert, "well again")
            continue
        if episode is None:
            episode = going[alert.key] = _opened(alert, names, since, severity)
            found.append(episode)
        if severity == "critical":
            episode.severity = severity
        if spent := {next(iter(one.scope)): one.spend for one in alert.contributors}:
            episode.contributors = names.contributors(spent)
        episode.changes.append(_change(alert, names))
    for incident in open_now:
        if (known := going.get(incident.key)) is not None:
            known.number = incident.number
    return [one for one in found if one.ended_at is None or one.ended_at >= since]


def _opened(alert: Alert, names: Names, since: float, severity: str) -> Episode:
    return Episode(
        id=names.digest("incident", f"{alert.key}|{alert.at}"),
        kind=alert.kind,
        policy=alert.policy,
        scope=names.scope(alert.scope),
        severity=severity,
        opened_at=alert.at,
        began_before=alert.at < since,
        owner=alert.owner or "",
        runbook=runbook_of(alert, ""),
    )


def _end(going: dict[str, Episode], alert: Alert, by: str) -> None:
    episode = going.pop(alert.key)
    episode.ended_at, episode.ended_by = alert.at, by


def _change(alert: Alert, names: Names) -> Change:
    return Change(alert.at, alert.severity, alert.kind, _said(alert, names))


def _said(alert: Alert, names: Names) -> str:
    """A policy's title begins with the scope: it is said anew without names."""
    if alert.policy is None:
        return alert.title
    scope = ", ".join(f"{name}={value}" for name, value in names.scope(alert.scope).items()) or "everything"
    _, told, reason = alert.title.rpartition(f": {alert.policy}: ")
    return f"{scope} {alert.previous_state or 'ok'} → {alert.state}{f': {reason}' if told else ''}"


# ---- the timeline


def _timeline(episodes: Sequence[Episode], entries: Sequence[Entry], new: Sequence[Row]) -> list[Line]:
    lines = [
        Line(change.at, "incident", f"{episode.policy or episode.kind}: {change.words}")
        for episode in episodes
        for change in episode.changes
    ]
    lines += [
        Line(_seconds(entry.at), "audit", f"{entry.action} by {entry.actor}, {entry.subject}".rstrip(", ")) for entry in entries
    ]
    lines += [Line(_seconds(row["first"]), "new", f"first call of {row['what']} {row['name']}") for row in new]
    return sorted(lines)


# ---- rows


def rows(ask: Ask, sql: str) -> list[Row]:
    return [orjson.loads(line) for line in ask(sql).splitlines()]


def _told(row: Row, names: Names) -> Row:
    """A row as the bundle has it: people and fingerprints as digests."""
    if "scope" in row:
        row["scope"] = names.scope(row["scope"])
    if "contributors" in row:
        row["contributors"] = names.contributors(row["contributors"])
    if "fingerprint" in row:
        row["fingerprint"] = names.digest("line", row["fingerprint"])
    return row


def _moment(at: float) -> str:
    return f"toDateTime64('{at:.3f}', 3, 'UTC')"


def _seconds(text: str) -> float:
    """Of a moment as the store or the audit log writes it, both in UTC."""
    found = datetime.fromisoformat(text)
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
