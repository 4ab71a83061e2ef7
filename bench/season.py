"""A season of the simulated clinics in a store: a day that the real meter has priced, and the store repeats it.

    generate ──► meter ──► one day
                            └─ on each day, at other sites, by other users, minutes off, faster or slower,
                               under ids of their own ──► calls ──► rollups
                                                            └─ every fifth ──► scored_calls ──► rollups

Six clinics become twenty-four sites with some 5,900 users; what a call cost goes with its tokens, and both are the
meter's own. Each choice is arithmetic on the call's number and the day's, so that plain Python can count the same calls
again (`expected`). Ten million calls through the sink would take an hour; its speed is measured on some of them.
"""

from __future__ import annotations

import random
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import takewhile
from pathlib import Path
from typing import Any, Final

import orjson
from clickhouse_connect.driver.client import Client
from tidegate.producers.simulate import generate
from tidegate.sinks.clickhouse import Store

from .sink import metered_rows, plain_client
from .traffic import SEED, lines

# Ragged, as the moments are at which people ask.
FIRST: Final = datetime.fromisoformat("2026-08-04T14:23:07.250000+00:00")
SITES: Final = 4
_DAY: Final = timedelta(days=1)
# A call's number within its day: what all else is computed from. `d` is the day's.
_SITE: Final = "toString((seq + intDiv(seq, 64) + d) % 4)"
_PACE: Final = "(0.9 + ((seq * 31 + d * 37) % 2001) / 10000)"
_REPEATED: Final = {
    "call_id": "lower(hex(sipHash128(seq, d, 'call')))",
    "trace_id": "lower(hex(sipHash128(seq, d, 'trace')))",
    "started_at": "addMicroseconds(started_at, toInt64(d) * 86400000000 + (seq * 7919 + d * 15485863) % 600000000)",
    "ingested_at": "addMicroseconds(started_at, toInt64(d) * 86400000000 + (seq * 7919 + d * 15485863) % 600000000 + 90000000)",
    "tenant": f"concat(tenant, '-', {_SITE})",
    "user": f"concat(user, '-', {_SITE}, toString((seq * 31 + d * 17) % 5))",
    # The prompts change in the third month, all at once.
    "prompt_version": "if(d >= 60, concat(prompt_version, '-next'), toString(prompt_version))",
    "latency_s": f"round(latency_s * {_PACE}, 6)",
    "time_to_first_token_s": f"round(time_to_first_token_s * {_PACE}, 6)",
    "seq": "seq + d * {a_day:UInt64}",
    "source_offset": "source_offset + d * {a_day:UInt64}",
}

# One call in a thousand leaks, one in seven has a finding; one verdict in eleven says that nobody looked.
_VERDICTS: Final = """
INSERT INTO scored_calls (call_id, started_at, tenant, team, user, service, environment, region, task_type, provider_name,
    request_model, response_model, prompt_name, prompt_version, scored_at, outcome, findings, scores, detectors, scoring_s,
    producer, seq, ingested_at, source_partition, source_offset)
SELECT call_id, started_at, tenant, team, user, service, environment, region, task_type, provider_name,
    request_model, response_model, prompt_name, prompt_version, addSeconds(started_at, 40),
    if(seq % 55 = 0, 'sampled_out', 'scored'),
    multiIf(
        seq % 55 = 0, [],
        seq % 1000 = 5, [('phi', 'PERSON', 'response', 0, 10 + seq % 400, 22 + seq % 400, 0.85, true, hex(sipHash64(seq)), ''),
            ('phi', 'US_SSN', 'response', 0, 500 + seq % 9, 511 + seq % 9, 0.99, true, hex(sipHash64(seq, 1)), '')],
        seq % 35 = 5, [('phi', 'PERSON', 'prompt', 0, 7 + seq % 300, 19 + seq % 300, 0.85, false, hex(sipHash64(seq)), '')],
        seq % 350 = 15, [('toxicity', 'insult', 'response', 0, 0, 40 + seq % 100, 0.71, false, hex(sipHash64(seq)), '')],
        []),
    if(seq % 55 = 0, map(), mapFromArrays(
        ['response.faithfulness', 'response.relevance', 'context.relevance', 'response.toxicity'],
        [0.6 + (seq % 389) / 1000, 0.5 + (seq % 487) / 1000, 0.4 + (seq % 571) / 1000, (seq % 97) / 1000])),
    map('phi', 'rules-3', 'toxicity', 'head-2', 'faithfulness', 'claims-4'), 0.02 + (seq % 83) / 1000,
    concat('guardrails:', producer), seq, addSeconds(ingested_at, 40), source_partition, source_offset
FROM calls WHERE seq % 5 = 0
"""

# Each site's budget is warned of, blocked and free again, three times a day and a little.
_ALERTS: Final = """
INSERT INTO alerts (at, key, kind, severity, title, policy, scope, state, previous_state, spend, limit, contributors,
    owner, runbook)
SELECT addSeconds({first:DateTime64(3, 'UTC')}, number * 1153), concat('day-budget|', tenant), 'policy', 'warning',
    'a budget', 'day-budget', map('tenant', tenant),
    ['warn', 'block', 'ok'][number % 3 + 1], ['ok', 'warn', 'block'][number % 3 + 1],
    [80e9, 100e9, 0.][number % 3 + 1], 100e9, map('triage-001', 40e9), 'on-call', 'https://runbooks.example/day-budget'
FROM (SELECT number, concat('harbor-health-', toString(intDiv(number, 3) % 4)) AS tenant FROM numbers({alerts:UInt64}))
"""

_DEAD_LETTERS: Final = """
INSERT INTO dead_letters (at, stage, source, size_bytes, sha256, reason, producer, seq, source_partition, source_offset)
SELECT addSeconds({first:DateTime64(3, 'UTC')}, number * 800), 'meter', 'tidegate.calls', 700 + number % 300,
    lower(hex(SHA256(toString(number)))), 'input_tokens: must not be negative', 'bench', number, 0, number
FROM numbers({letters:UInt64})
"""


@dataclass(frozen=True, slots=True)
class Season:
    """`days` days of `a_day` calls each, from `FIRST` on."""

    days: int = 100
    a_day: int = 100_000

    @property
    def calls(self) -> int:
        return self.days * self.a_day

    @property
    def until(self) -> datetime:
        """No call starts later: the last are moved by up to ten minutes, and end a day's stream a little after the day."""
        return FIRST + self.days * _DAY + timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class Sum:
    """What one tenant used: calls, nano-dollars, calls without a price."""

    requests: int = 0
    cost_nano_usd: int = 0
    requests_without_price: int = 0


def day_rows(a_day: int) -> list[bytes]:
    """One day's calls, as the meter writes them for the sink. They start within a day of `FIRST`, mornings the busiest."""
    stream = generate(SEED, FIRST, rate_per_s=a_day * 1.25 / _DAY.total_seconds())
    # Calls come in the order in which they end, a minute at most after they began.
    events = list(takewhile(lambda event: _started(event) < FIRST + _DAY, (e for e in stream if _started(e) >= FIRST)))
    chosen = sorted(random.Random(SEED).sample(range(len(events)), a_day))
    events = [events[number] for number in chosen]
    return metered_rows(lines(events), FIRST + _DAY).split(b"\n")


def _started(event: Mapping[str, Any]) -> datetime:
    return datetime.fromisoformat(event["started_at"])


def fill(store: Store, client: Client, season: Season, rows: Sequence[bytes]) -> Iterator[str]:
    """Put the season in, a day at a time as it would have come; `client` is a plain one on the same database."""
    client.command(
        "CREATE TABLE day AS calls ENGINE = MergeTree ORDER BY seq SETTINGS non_replicated_deduplication_window = 10"
    )
    store.insert("day", b"\n".join(rows), "day:0:0")
    columns = client.query(
        "SELECT name FROM system.columns WHERE database = currentDatabase() AND table = 'calls'"
        " AND default_kind IN ('', 'DEFAULT') ORDER BY position"
    ).result_rows
    names = [name for (name,) in columns]
    into = ", ".join(f"`{name}`" for name in names)
    chosen = ", ".join(_REPEATED.get(name, f"`{name}`") for name in names)
    for number in range(season.days):
        yield f"day {number + 1} of {season.days}"
        client.command(
            f"INSERT INTO calls ({into}) WITH {{day:UInt32}} AS d SELECT {chosen} FROM day"
            # What a name stands for is the row's own value, never the one that is being made of it.
            " SETTINGS prefer_column_name_to_alias = 1",
            {"day": number, "a_day": season.a_day},
        )
    client.command("DROP TABLE day SYNC")
    yield "verdicts"
    client.command(_VERDICTS)
    yield "alerts and dead letters"
    client.command(_ALERTS, {"first": FIRST, "alerts": season.days * 74})
    client.command(_DEAD_LETTERS, {"first": FIRST, "letters": season.days * 100})


def expected(season: Season, rows: Sequence[bytes]) -> dict[str, Sum]:
    """What each tenant used in the season, counted in plain Python from the day's rows."""
    requests: Counter[str] = Counter()
    nano: Counter[str] = Counter()
    unpriced: Counter[str] = Counter()
    days = Counter(number % SITES for number in range(season.days))
    for number, line in enumerate(rows):
        row: dict[str, Any] = orjson.loads(line)
        for at, times in days.items():
            tenant = f"{row['tenant']}-{(number + number // 64 + at) % SITES}"
            requests[tenant] += times
            nano[tenant] += times * (row["cost_nano_usd"] or 0)
            unpriced[tenant] += times * (row["cost_nano_usd"] is None)
    return {tenant: Sum(requests[tenant], nano[tenant], unpriced[tenant]) for tenant in requests}


def main() -> None:
    """Fill a folder with the season of the bench `analysts`, to be measured more than once."""
    season, folder = Season(), Path(sys.argv[1])
    with Store.open(path=folder) as store:
        store.migrate()
        for done in fill(store, plain_client(folder, store.database), season, day_rows(season.a_day)):
            print(done, flush=True)


if __name__ == "__main__":
    main()
