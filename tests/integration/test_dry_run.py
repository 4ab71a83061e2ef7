"""A dry run says what an independent sum says, event by event; and drives the very steps that the node runs."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import orjson
import pytest
from node_process import NodeProcess, tidegate
from support import NOW_S, envelope, finding, response, scored
from tidegate import policy_cli
from tidegate.processors.dry_run import DryRun, StoredCall, StoredFinding, StoredVerdict
from tidegate.processors.embedded.engine import MeterEngine
from tidegate.processors.embedded.policies_engine import PoliciesEngine
from tidegate.processors.policy_file import parse_policies, read_policies
from tidegate.producers.sqlite_log import SqliteLog
from tidegate.schemas.policy import PolicySet
from tidegate.schemas.settings import Settings
from tidegate.schemas.topics import ALERTS, CALLS
from tidegate.sinks.clickhouse import Store

ROOT = Path(__file__).parents[2]
HARBOR = ROOT / "docs" / "examples" / "harbor-budget.yaml"
REAL_CALLS = Path(os.environ.get("TIDEGATE_REAL_CALLS", ROOT.parent / "shared" / "data" / "real_calls.jsonl"))
needs_real_calls = pytest.mark.skipif(
    not REAL_CALLS.exists(), reason=f"{REAL_CALLS} is absent; name a log of real calls in TIDEGATE_REAL_CALLS"
)

NEW_YORK = ZoneInfo("America/New_York")
# Nano-dollars a token: plain input, cached input, output.
PRICES = {
    "gpt-3.5-turbo-0125": (500, 500, 1_500),
    "gpt-4o-mini-2024-07-18": (150, 75, 600),
    "gpt-4o-2024-08-06": (2_500, 1_250, 10_000),
}
STEPS = (
    (Decimal("0.5"), "warn"),
    (Decimal("0.8"), "warn"),
    (Decimal("0.9"), "downgrade"),
    (Decimal("1.0"), "block"),
)
LIMIT = 120_000_000
SINCE, UNTIL = "2026-11-01", "2026-11-05"


def real_calls(tenant: str) -> list[tuple[datetime, str, int]]:
    """(start, id, cost in nano-dollars) of one tenant's calls, as the file has them, by start."""
    found = []
    for line in REAL_CALLS.read_text().splitlines():
        call = json.loads(line)
        if call["tags"]["tenant"] != tenant:
            continue
        usage = call["response"]["usage"]
        plain, cached, out = PRICES[call["response"]["model"]]
        from_cache = usage.get("prompt_tokens_details", {}).get("cached_tokens", 0)
        cost = (usage["prompt_tokens"] - from_cache) * plain + from_cache * cached + usage["completion_tokens"] * out
        found.append((datetime.fromisoformat(call["started_at"]), call["id"], cost))
    return sorted(found)


def by_plain_loop(calls: Iterable[tuple[datetime, str, int]]) -> tuple[list[tuple[str, str, str | None]], int, int]:
    """Every step of the budget as (moment, state, call), and the calls and cost that it would have refused."""
    changes: list[tuple[str, str, str | None]] = []
    today, spend, steps, refused, saved = date.min, 0, 0, 0, 0

    def midnight() -> str:
        return datetime.combine(today + timedelta(days=1), time(), NEW_YORK).astimezone(UTC).isoformat()

    for at, name, cost in calls:
        if (day := at.astimezone(NEW_YORK).date()) != today:
            if steps:
                changes.append((midnight(), "ok", None))
            today, spend, steps = day, 0, 0
        if steps == len(STEPS):
            refused, saved = refused + 1, saved + cost
            continue
        spend += cost
        reached = sum(spend >= share * LIMIT for share, _ in STEPS)
        if reached > steps:
            steps = reached
            changes.append((at.astimezone(UTC).isoformat(), STEPS[steps - 1][1], name))
    if steps:
        changes.append((midnight(), "ok", None))
    return changes, refused, saved


def told(run: dict[str, Any], tenant: str) -> list[tuple[str, str, str | None]]:
    return [
        (datetime.fromtimestamp(change["at"], UTC).isoformat(), change["state"], change["call_id"])
        for change in run["changes"]
        if change["scope"] == {"tenant": tenant}
    ]


def dry_run(file: Path, data: Path, *more: str) -> dict[str, Any]:
    result = tidegate("policy", "dry-run", file, "--data", data, "--format", "json", "--since", SINCE, "--until", UNTIL, *more)
    assert result.returncode == 0, result.stderr.decode()
    found: dict[str, Any] = json.loads(result.stdout)
    return found


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the real calls, and no node on it."""
    folder = tmp_path_factory.mktemp("dry-run") / "data"
    result = tidegate("replay", REAL_CALLS, "--data", folder)
    assert result.returncode == 0, result.stderr.decode()
    return folder


@needs_real_calls
def test_the_example_budget_warns_downgrades_blocks_and_resets_at_the_events_a_plain_loop_finds(data: Path) -> None:
    changes, refused, saved = by_plain_loop(real_calls("harbor-health"))

    run = dry_run(HARBOR, data)

    assert [state for _, state, _ in changes] == ["warn", "warn", "downgrade", "block", "ok"]
    assert told(run, "harbor-health") == changes
    assert (run["refused_calls"], run["saved_nano_usd"]) == (refused, saved)
    assert refused > 0
    assert run["outcomes"][0]["refused_calls"] == refused
    assert run["still"] == []


@needs_real_calls
def test_a_budget_for_each_tenant_tells_them_apart(data: Path, tmp_path: Path) -> None:
    file = tmp_path / "each.yaml"
    file.write_text(HARBOR.read_text().replace("    match: {tenant: harbor-health}\n", ""))
    tenants = ["harbor-health", "northside-clinic", "research-lab", "retail-care", "st-anne"]
    by_hand = {tenant: by_plain_loop(real_calls(tenant)) for tenant in tenants}

    run = dry_run(file, data)

    assert {tenant: told(run, tenant) for tenant in tenants} == {tenant: changes for tenant, (changes, _, _) in by_hand.items()}
    assert run["saved_nano_usd"] == sum(saved for _, _, saved in by_hand.values())
    assert run["refused_calls"] == sum(refused for _, refused, _ in by_hand.values())


@needs_real_calls
def test_a_node_on_the_folder_makes_no_difference(data: Path) -> None:
    without = dry_run(HARBOR, data)

    with NodeProcess(data):
        through_it = dry_run(HARBOR, data)

    assert through_it == without


@needs_real_calls
def test_the_story_in_the_terminal_names_the_moments_and_what_was_saved(data: Path) -> None:
    result = tidegate("policy", "dry-run", HARBOR, "--data", data, "--since", SINCE, "--until", UNTIL)

    text = " ".join(result.stdout.decode().split())
    changes, refused, saved = by_plain_loop(real_calls("harbor-health"))
    assert result.returncode == 0
    for (at, _, _), word in zip(changes, ("warns", "warns", "downgrades", "blocks", "resets"), strict=True):
        assert f"{datetime.fromisoformat(at).astimezone(NEW_YORK):%m-%d %H:%M:%S %Z} harbor-daily" in text
        assert word in text
    assert f"{refused} calls of 4,907 would have been refused: ${saved / 1e9:,.4f} of" in text


# The driver, without a store


def parsed(*entries: dict[str, Any]) -> PolicySet:
    usual = {"measure": "requests", "window": {"rolling": "1h"}, "limit": 10, "warn_at": []}
    told = [
        {"name": f"p{number}"} | usual | ({} if "actions" in entry else {"action": "block"}) | entry
        for number, entry in enumerate(entries)
    ]
    return parse_policies(Path("p.yaml"), json.dumps({"policies": told}).encode())


def calls(*at: float, **fields: Any) -> list[StoredCall]:
    return [
        StoredCall(call_id=f"c{number}", at_us=int((NOW_S + at_s) * 1_000_000), seq=number, request_model="gpt-4o", **fields)
        for number, at_s in enumerate(at)
    ]


def verdicts(*at: float, **fields: Any) -> list[StoredVerdict]:
    """On the calls that `calls` makes at these times, each told three seconds later."""
    told = {"outcome": "scored", "request_model": "gpt-4o"} | fields
    return [
        StoredVerdict(
            call_id=f"c{number}", at_us=int((NOW_S + at_s) * 1e6), heard_us=int((NOW_S + at_s + 3) * 1e6), seq=number, **told
        )
        for number, at_s in enumerate(at)
    ]


LEAK = StoredFinding("phi", "US_SSN", True)


def run_of(
    policy_set: PolicySet, made: Sequence[StoredCall | StoredVerdict], since: float = NOW_S, until: float = NOW_S + 86_400
) -> DryRun:
    run = DryRun(policy_set, since)
    for found in sorted(made, key=lambda found: found.heard_s):
        if isinstance(found, StoredVerdict):
            run.hear(found)
        else:
            run.feed(found)
    run.finish(until)
    return run


def states(run: DryRun) -> list[tuple[float, str, str]]:
    return [(change.signal.at - NOW_S, change.policy, change.signal.state) for change in run.changes]


def test_a_limit_of_zero_refuses_the_first_call() -> None:
    run = run_of(parsed({"limit": 0}), calls(1, 2, 3))

    assert states(run) == [(1, "p0", "block")]
    assert run.refused.calls == 3
    assert run.states() == {("p0", ()): "block"}


def test_refused_calls_count_in_no_window_so_a_rolling_limit_opens_as_it_empties() -> None:
    run = run_of(parsed({"limit": 3, "window": {"rolling": "1m"}, "hysteresis": 0}), calls(*range(10)))

    # Three calls go; when the first second's bucket has left the window there is room again.
    assert states(run)[:2] == [(2, "p0", "block"), (61, "p0", "ok")]
    assert run.refused.calls == 7
    assert run.outcomes["p0", ()].refused.calls == 7


def test_a_call_that_one_policy_refuses_is_not_spent_with_another() -> None:
    strict, wide = {"match": {"team": "a"}, "limit": 2}, {"limit": 4, "action": "alert"}

    refused_by_one = run_of(parsed(strict, wide), calls(*range(6), team="a"))
    alone = run_of(parsed(wide), calls(*range(6), team="a"))

    assert states(refused_by_one) == [(1, "p0", "block"), (3_660, "p0", "ok")]
    assert states(alone)[0] == (3, "p0", "warn")


def test_a_probe_goes_through_as_often_as_it_may_and_counts() -> None:
    breaker = {
        "measure": "error_rate", "limit": 0.5, "minimum_requests": 2, "window": {"rolling": "1m"},
        "action": {"do": "block", "probe_every": "30s"},
    }  # fmt: skip
    failing = calls(0, 1, 2, 10, 31, 32, 40, error_type="overloaded")

    run = run_of(parsed(breaker), failing)

    assert states(run)[0] == (1, "p0", "block")
    assert run.refused.calls == 4  # 2, 10, 32 and 40; the one of 31 goes to see
    assert states(run)[-1][2] == "ok"


def test_calls_before_since_fill_the_windows_and_are_neither_told_nor_refused() -> None:
    policy_set = parsed({"limit": 3, "window": {"calendar": "day"}})
    made = calls(*range(-50, 0, 10), 5, 6)

    run = run_of(policy_set, made)

    assert run.reads_from == NOW_S - 8 * 3_600
    assert run.all.calls == run.refused.calls == 2
    assert states(run) == [(16 * 3_600, "p0", "ok")]


def test_a_refused_call_is_saved_once_though_two_policies_refuse_it() -> None:
    run = run_of(parsed({"limit": 1}, {"limit": 1, "window": {"calendar": "day"}}), calls(0, 1, 2, cost_nano_usd=5))

    assert (run.refused.calls, run.refused.cost_nano_usd) == (2, 10)
    assert [outcome.refused.calls for outcome in run.outcomes.values()] == [2, 2]


def test_calls_while_throttled_or_downgraded_are_told_and_go() -> None:
    actions = [
        {"do": "throttle", "at": 0.2, "per_minute": 6},
        {"do": "downgrade", "at": 0.4, "model": "gpt-4o-mini"},
    ]

    run = run_of(parsed({"actions": actions}), calls(*range(8)))

    outcome = run.outcomes["p0", ()]
    assert (outcome.throttled.calls, outcome.downgraded.calls, outcome.refused.calls) == (2, 4, 0)
    assert run.all.calls == 8


def test_a_leak_refuses_what_comes_after_it_was_told_and_refused_calls_have_none() -> None:
    at = (0, 1, 2, 5, 6, 7)
    made = [*calls(*at), *verdicts(*at, findings=[LEAK])]

    run = run_of(parsed({"measure": "findings", "finding_type": "phi_leak", "limit": 2, "window": {"calendar": "day"}}), made)

    # The second leak is told at 4; the call of 2 is under way by then.
    assert states(run)[:1] == [(4, "p0", "block")]
    assert run.refused.calls == 3
    assert run.wants_verdicts


def test_a_share_of_findings_is_of_judged_calls_alone() -> None:
    share = {"measure": "finding_rate", "limit": 0.5, "minimum_requests": 4, "window": {"calendar": "day"}, "action": "alert"}
    unknown = verdicts(*range(8), outcome="sampled_out")

    few = run_of(parsed(share), [*unknown, *verdicts(1, 2, 3, findings=[LEAK])])
    enough = run_of(parsed(share), [*unknown, *verdicts(1, 2, 3, findings=[LEAK]), *verdicts(9)])

    assert states(few) == []
    assert states(enough)[0] == (12, "p0", "warn")


def test_verdicts_come_from_the_store_in_the_order_in_which_they_were_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(policy_cli, "_PAGE_ROWS", 3)
    start = datetime.fromtimestamp(NOW_S, UTC)
    rows = [
        scored(
            f"c{number}", started_at=(start + timedelta(seconds=number)).isoformat(), seq=number, producer="guardrails-0",
            scored_at=(start + timedelta(seconds=60 - 5 * number if number % 2 else number - 9)).isoformat(),
            ingested_at=start.isoformat(), source_partition=0, source_offset=number, request_model=None,
            findings=[finding(leak=True)] * (number % 3), failed={"toxicity": "timeout"}, prompt_name="triage",
        )
        for number in range(10)
    ]  # fmt: skip

    with Store.open(path=tmp_path / "store") as store:
        store.migrate()
        store.insert("scored_calls", b"\n".join(map(orjson.dumps, rows)), "t:0:0-9")
        asked = SimpleNamespace(query=store.query_bytes)
        found = list(policy_cli._stored_verdicts(asked, NOW_S + 1, NOW_S + 50))

    # The first began before, the ninth call's verdict was told at 15, the first's at 55: too late.
    assert [(one.call_id, one.heard_s - NOW_S) for one in found] == [
        *(("c2", 2), ("c4", 4), ("c6", 6), ("c8", 8), ("c9", 15), ("c7", 25), ("c5", 35), ("c3", 45)),
    ]
    assert found[0].findings == [StoredFinding("phi", "US_SSN", True)] * 2
    assert (found[0].failed, found[0].detectors) == ({"toxicity": "timeout"}, {"phi": "1", "toxicity": "1"})
    assert (found[0].request_model, found[0].prompt_name, found[0].tenant) == (None, "triage", "harbor-health")


def by_the_node(
    folder: Path, policy_set: PolicySet, made: Sequence[StoredCall | StoredVerdict], until: float
) -> list[tuple[str, Any, str, float]]:
    """The changes as the node's own engines come by them, on a log, when each call comes in the moment it starts."""
    now = float(NOW_S)
    log = SqliteLog(folder, fsync="normal", clock_ms=lambda: int(now * 1_000))
    meter = MeterEngine(folder, Settings(fsync="normal"), policies=policy_set)
    engine = PoliciesEngine(meter.log, policy_set, meter.counted, clock=lambda: now)
    changes = []
    position = 0

    def judge() -> None:
        nonlocal position
        engine.run_once()
        for record in log.read(ALERTS.name, 0, position):
            position = record.offset + 1
            for alert in map(json.loads, record.value.splitlines()):
                scope = {name: value or None for name, value in alert["scope"].items()}
                changes.append((alert["policy"], scope, alert["state"], datetime.fromisoformat(alert["at"]).timestamp()))

    def pass_time(end: float) -> None:
        nonlocal now
        while (due := engine.state.next_due()) is not None and due <= end:
            now = due
            judge()
        now = end

    for call in sorted(made, key=lambda found: found.heard_s):
        pass_time(call.heard_s)
        started_at = datetime.fromtimestamp(call.at_s, UTC).isoformat()
        if isinstance(call, StoredVerdict):
            event = scored(
                call.call_id, started_at=started_at, tenant=call.tenant, outcome=call.outcome,
                findings=[finding(type=one.type, leak=one.leak) for one in call.findings],
            )  # fmt: skip
        else:
            event = response(
                call.call_id, started_at=started_at, tenant=call.tenant, latency_s=call.latency_s, error_type=call.error_type
            )
        sent = envelope("guardrails-0" if isinstance(call, StoredVerdict) else "test", call.seq, [event])
        with log.transaction():
            log.append(CALLS.name, 0, [(None, sent.headers(), sent.value)])
        meter.run_once()
        judge()
    pass_time(until)
    meter.close()
    log.close()
    return changes


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_what_refuses_nothing_is_told_as_the_node_tells_it(seed: int, tmp_path: Path) -> None:
    policy_set = parsed(
        {"scope": ["tenant"], "limit": 4, "window": {"rolling": "5m"}, "action": "alert"},
        {"measure": "cost_usd", "limit": "0.05", "window": {"calendar": "hour"}, "action": {"do": "throttle", "per_minute": 6}},
        {"scope": ["tenant"], "measure": "error_rate", "limit": 0.5, "minimum_requests": 3, "action": "alert", "hold": "2m"},
        {"measure": "latency_p95_s", "limit": 4, "minimum_requests": 3, "window": {"rolling": "2m"}, "action": "alert"},
        {"scope": ["tenant"], "measure": "findings", "finding_type": "phi_leak", "limit": 2, "action": "alert"},
        {"measure": "finding_rate", "limit": 0.5, "minimum_requests": 3, "window": {"rolling": "5m"}, "action": "alert"},
    )
    draw = random.Random(seed)
    made: list[StoredCall | StoredVerdict] = []
    at = float(NOW_S)
    for number in range(80):
        at += draw.choice((1, 5, 20, 60, 700))
        made += [
            StoredCall(
                call_id=f"c{number}", at_us=int(at * 1_000_000), seq=number, request_model="gpt-4o", tenant=draw.choice("abc"),
                error_type=draw.choice((None, None, "overloaded")), latency_s=draw.choice((0.5, 2.0, 6.0)),
                cost_nano_usd=3_500_000,
            )
        ]  # fmt: skip
        judged = StoredVerdict(
            call_id=f"c{number}", at_us=int(at * 1_000_000), heard_us=int((at + draw.choice((0.5, 3, 90))) * 1_000_000),
            tenant=made[-1].tenant, request_model="gpt-4o", outcome=draw.choice(("scored", "partial", "sampled_out")),
            findings=[StoredFinding("phi", "PERSON", draw.random() < 0.3)] * draw.choice((0, 0, 1)),
        )  # fmt: skip
        made.append(judged)
    # Numbers grow as the guardrails tell: in the order of the log.
    numbers = count()
    made = [
        msgspec.structs.replace(one, seq=next(numbers)) if isinstance(one, StoredVerdict) else one
        for one in sorted(made, key=lambda found: found.heard_s)
    ]
    until = at + 7_200

    run = run_of(policy_set, made, until=until)

    told = [(change.policy, change.scope, change.signal.state, change.signal.at) for change in run.changes]
    assert told == by_the_node(tmp_path / "data", policy_set, made, until)
    assert {policy for policy, _, _, _ in told} == {"p0", "p1", "p2", "p3", "p4", "p5"}


def test_the_example_is_what_the_loop_of_this_test_takes_it_for() -> None:
    policy = read_policies(HARBOR).policies[0]

    assert policy.limit is not None
    assert policy.limit * policy.unit == LIMIT
    steps = [(at, "warn") for at in policy.warn_at] + [(action.at, action.do) for action in policy.actions]
    assert tuple((Decimal(str(at)), state) for at, state in steps) == STEPS
