"""A store for panels: ten days of calls with every kind of gap, verdicts, words of policies, dead letters and a ledger.

Rows are plain dicts, so that what a panel tells can be counted again from them.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from support import finding, ndjson, scored
from tidegate.sinks.clickhouse import Store

Row = dict[str, Any]

# Long ago, so that nothing in it is of now; a month ends in it.
START: Final = datetime(2025, 2, 24, 21, 17, 3, 250_000, tzinfo=UTC)
DAYS: Final = 10
END: Final = START + timedelta(days=DAYS)
TENANTS: Final = ("harbor-health", "o'hara")
PERSON: Final = "lena.oyelaran"
# Of one hour the meter counted two calls more than there are rows; of another the store had rows before it had a ledger.
MISSING: Final = 2
HOUR_WITHOUT_LEDGER: Final = START.replace(minute=0, second=0, microsecond=0) + timedelta(hours=3)


class Seeded:
    """A store, and the rows that went into it."""

    def __init__(self, store: Store) -> None:
        pick = random.Random(20_250_224)
        now = store.query("SELECT now()").rows[0][0]
        self.store = store
        self.calls = _calls(1_500, pick, now)
        self.verdicts = list(_verdicts(self.calls, pick, now))
        self.signals = list(_signals())
        self.alerts = list(_alerts())
        self.letters = list(_letters())
        self.ledger = list(_ledger(self.calls))
        for table, rows in {
            "calls": self.calls,
            "scored_calls": self.verdicts,
            "signals": self.signals,
            "alerts": self.alerts,
            "dead_letters": self.letters,
            "usage_ledger": self.ledger,
            "hours_before_ledger": [{"hour": HOUR_WITHOUT_LEDGER.isoformat()}],
        }.items():
            store.insert(table, ndjson(rows), f"{table}:0:0-{len(rows)}")


def _calls(count: int, pick: random.Random, now: datetime) -> list[Row]:
    def sometimes(value: Any, share: float = 0.85) -> Any:
        return value if pick.random() < share else None

    rows = []
    for number in range(count):
        model = pick.choice(("claude-sonnet-4-5", "gpt-4o", "gpt-4o-mini", "ours"))
        tokens = pick.randrange(10_000)
        rows.append(
            {
                "event": "response",
                "call_id": f"c{number}",
                "started_at": (START + timedelta(seconds=pick.random() * DAYS * 86_400)).isoformat(),
                "tenant": sometimes(pick.choice(TENANTS)),
                "team": sometimes(f"team{pick.randrange(3)}"),
                "user": PERSON,
                "service": "intake",
                "provider_name": sometimes("openai"),
                "request_model": model,
                "prompt_name": sometimes(f"prompt{pick.randrange(12)}"),
                "prompt_version": sometimes(pick.choice(["1", "2"])),
                "error_type": sometimes(pick.choice(["timeout", "rate_limit"]), 0.1),
                "latency_s": sometimes(round(pick.lognormvariate(0, 1), 6)),
                "time_to_first_token_s": sometimes(round(pick.lognormvariate(-1, 1), 6)),
                # Nobody knows a price of our own model.
                "cost_nano_usd": None if model == "ours" else sometimes(pick.randrange(10**9)),
                "cache_savings_nano_usd": sometimes(pick.randrange(10**8), 0.3),
                "price_status": "priced",
                "input_tokens": sometimes(2 * tokens),
                "cache_read_tokens": tokens,
                "output_tokens": sometimes(tokens),
                "reasoning_tokens": sometimes(tokens // 3),
                "retrieval": [{"chunk_id": f"k{at}", "score": at / 4, "source": "kb"} for at in range(pick.choice((0, 0, 2)))],
                "producer": "p",
                "seq": number,
                "ingested_at": now.isoformat(),
                "source_partition": 0,
                "source_offset": number,
            }
        )
    return rows


def _verdicts(calls: list[Row], pick: random.Random, now: datetime) -> Iterable[Row]:
    kinds = [("phi", "US_SSN"), ("phi", "PERSON"), ("toxicity", "insult")]
    scope = (
        "started_at",
        "tenant",
        "team",
        "user",
        "service",
        "provider_name",
        "request_model",
        "prompt_name",
        "prompt_version",
    )
    for number, call in enumerate(call for call in calls if pick.random() < 0.5):
        judged = pick.random() < 0.8
        found = [pick.choice(kinds) for _ in range(pick.choice((0, 0, 1, 2)))] if judged else []
        yield scored(call["call_id"], **{name: call[name] for name in scope}) | {
            "outcome": "scored" if judged else "sampled_out",
            "findings": [finding(detector=name, type=kind, leak=pick.random() < 0.4) for name, kind in found],
            # Halves add up exactly.
            "scores": pick.choice(({}, {"response.faithfulness": 0.5, "response.toxicity": 0.25})) if judged else {},
            "producer": "g",
            "seq": number,
            "ingested_at": now.isoformat(),
            "source_partition": 0,
            "source_offset": number,
        }


def _signals() -> Iterable[Row]:
    """A budget that fills, blocks and begins anew; one of a person's own; and one that was taken back."""
    told = [
        ("daily", {"tenant": "harbor-health"}, -30, "ok", 10.0, False),
        ("daily", {"tenant": "harbor-health"}, 40, "warn", 80.0, False),
        ("daily", {"tenant": "harbor-health"}, 90, "block", 100.0, False),
        ("daily", {"tenant": "o'hara"}, 20, "ok", 25.0, False),
        ("each", {"tenant": "o'hara", "user": PERSON}, 30, "throttle", 120.0, False),
        ("old", {}, 10, "ok", 50.0, False),
        ("old", {}, 50, "ok", 50.0, True),
    ]
    for number, (policy, scope, minutes, state, spend, withdrawn) in enumerate(told):
        at = (START + timedelta(minutes=minutes)).isoformat(timespec="milliseconds")
        yield {
            "at": at,
            "policy": policy,
            "scope": scope,
            "scope_key": str(list(scope.values())),
            "state": state,
            "withdrawn": withdrawn,
            "measure": "requests",
            "spend": spend,
            "limit": 100.0,
            "window_start": at,
            "window_end": at,
            "reason": f"{policy}: {spend:.0f} calls in a day, limit 100",
            "sequence": number,
        }


def _alerts() -> Iterable[Row]:
    told = [
        ("daily", {"tenant": "harbor-health"}, 40, "ok", "warn"),
        ("daily", {"tenant": "harbor-health"}, 90, "warn", "block"),
        ("daily", {"tenant": "harbor-health"}, 150, "block", "ok"),
        ("each", {"tenant": "o'hara", "user": PERSON}, 30, "ok", "throttle"),
    ]
    for policy, scope, minutes, before, state in told:
        yield {
            "at": (START + timedelta(minutes=minutes)).isoformat(timespec="milliseconds"),
            "key": f"policy|{policy}|{scope}",
            "kind": "policy",
            "severity": "critical",
            "title": f"{scope} {before} → {state}",
            "policy": policy,
            "scope": scope,
            "state": state,
            "previous_state": before,
            "spend": 100.0,
            "limit": 100.0,
        }
    at = (START + timedelta(hours=1)).isoformat(timespec="milliseconds")
    yield {"at": at, "key": "brake", "kind": "dead_letters", "severity": "warning", "title": "many lines are refused"}
    yield {"at": at, "key": "policy_file", "kind": "policy_file", "severity": "info", "title": "policies are in force"}


def _letters() -> Iterable[Row]:
    for number, (minutes, stage, reason) in enumerate(
        [(5, "edge", "not JSON"), (65, "meter", "no model"), (66, "meter", "no model"), (3_000, "meter", "no model")]
    ):
        yield {
            "at": (START + timedelta(minutes=minutes)).isoformat(timespec="milliseconds"),
            "stage": stage,
            "size_bytes": 3,
            "sha256": "",
            "reason": reason,
            "producer": f"p{number % 2}",
            "seq": number,
            "source_partition": 0,
            "source_offset": number,
        }
    yield {
        "at": (START + timedelta(minutes=70)).isoformat(timespec="milliseconds"),
        "stage": "person",
        "size_bytes": 0,
        "sha256": "",
        "reason": "dropped",
        "seq": 1,
        "source_partition": 0,
        "source_offset": 1,
    }


def _ledger(calls: list[Row]) -> Iterable[Row]:
    """What the meter counted of everybody, and (less, for it began later) by tenant."""
    requests: Counter[datetime] = Counter()
    nano: Counter[datetime] = Counter()
    for call in calls:
        hour = datetime.fromisoformat(call["started_at"]).replace(minute=0, second=0, microsecond=0)
        requests[hour] += 1
        nano[hour] += call["cost_nano_usd"] or 0
    short = min(hour for hour in requests if hour > HOUR_WITHOUT_LEDGER)
    for hour, count in requests.items():
        missing = MISSING if hour == short else 0
        for scope_set, counted in (("", count + missing), ("tenant", count // 2)):
            yield {
                "hour": hour.isoformat(),
                "scope_set": scope_set,
                "scope_key": "[]",
                "requests": counted,
                "cost_nano_usd": nano[hour],
                "source_partition": 0,
                "source_offset": 1,
                "at": hour.isoformat(timespec="milliseconds"),
            }
