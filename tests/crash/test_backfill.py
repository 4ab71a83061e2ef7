"""A policy that is new knows what was before it: seeded from the store, each call once, through every crash and edit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest
from policing import policy, policy_set
from support import finding, scored
from tidegate.processors.backfill import Backfill
from tidegate.processors.embedded.engine import MeterEngine
from tidegate.processors.embedded.policies_engine import PoliciesEngine
from tidegate.processors.embedded.sink import Sink
from tidegate.processors.series import ScopeUsage, Series, parse_usage_key
from tidegate.processors.sketch import bin_of
from tidegate.processors.windows import RatioRing, Ring, SketchRing
from tidegate.producers.sqlite_log import SqliteLog
from tidegate.schemas.content import OfCall
from tidegate.schemas.envelope import Envelope
from tidegate.schemas.policy import Policy, PolicySet
from tidegate.schemas.settings import Settings
from tidegate.schemas.signal import decode_signal
from tidegate.schemas.topics import CALLS, SIGNALS, USAGE
from tidegate.sinks.clickhouse import Store

PARTITIONS = 2
NOON = datetime(2026, 11, 2, 12, 0, tzinfo=UTC)
MILLI = 1_000
NEW = (
    policy("cost", measure="cost_usd", limit=1, scope=("tenant", "user"), window={"rolling": "6h"}),
    policy("calls", measure="requests", limit=9, window={"calendar": "day", "time_zone": "America/New_York"}),
    policy("tokens", measure="total_tokens", limit=9, scope=("label.ward", "model"), window={"rolling": "1d"}),
    policy("input", measure="input_tokens", limit=9, scope=(), window={"calendar": "month"}),
    policy("output", measure="output_tokens", limit=9, match={"team": "triage", "label.ward": "north"}),
    policy("failed", measure="errors", limit=9, window={"rolling": "10m"}),
    policy("unpriced", measure="unpriced", limit=9, scope=(), window={"calendar": "hour"}),
    policy("rate", measure="error_rate", limit="0.5", scope=("service",), window={"rolling": "6h"}),
    policy("slow", measure="latency_p95_s", limit=1, actions=[{"do": "alert"}], window={"rolling": "6h"}),
)
# Their past is in another table.
OF_FINDINGS = (
    policy("found", measure="findings", limit=9, scope=("tenant", "model"), window={"rolling": "6h"}),
    policy("toxic", measure="findings", finding_type="Toxicity", limit=9, scope=(), match={"team": "triage"}),
    policy("named", measure="findings", finding_type="person", limit=9, window={"calendar": "day"}),
    policy("leaks", measure="findings", finding_type="phi_leak", limit=9, scope=("tenant", "user"), window={"rolling": "1d"}),
    policy("any", measure="finding_rate", limit="0.5", window={"rolling": "6h"}),
    policy("phi", measure="finding_rate", finding_type="phi", limit="0.5", scope=("service",), window={"rolling": "6h"}),
)
SOME = (*NEW[:3], OF_FINDINGS[3], OF_FINDINGS[5])


class Abort(BaseException):
    """The power goes out. Not an Exception: nothing may catch it on the way."""


class Outage:
    def __init__(self, step: str, times: int = 1) -> None:
        self.step, self.times = step, times

    def __call__(self, step: str) -> None:
        if step == self.step:
            self.times -= 1
            if self.times == 0:
                raise Abort(step)


class Clock:
    """Seconds since 1970; the log's and the engines'."""

    now = NOON.timestamp()

    def __call__(self) -> float:
        return self.now

    def ms(self) -> int:
        return int(self.now * MILLI)


def call(number: int, at: datetime) -> dict[str, Any]:
    return {
        "event": "response",
        "call_id": f"call-{number}",
        # Some were under way for a while, and some producers' clocks are ahead.
        "started_at": (at - timedelta(seconds=number % 4 * 40 - (0 if number % 7 else 200))).isoformat(),
        "provider_name": "openai",
        "request_model": "gpt-4o-mini-2024-07-18" if number % 5 else "nobody-knows-this-model",
    } | {
        name: value
        for name, value in {
            "tenant": f"tenant-{number % 3}",
            "user": f"user's \\ {number % 4}" if number % 4 else None,
            "team": "triage" if number % 2 else None,
            "service": [None, "chat", "batch"][number % 3],
            "labels": {"ward": "north"} if number % 3 else None,
            "response_model": "gpt-4o-mini-2024-07-18" if number % 10 == 1 else None,
            "input_tokens": 100 + number if number % 6 else None,
            "output_tokens": 7 * number if number % 6 else None,
            "latency_s": [None, 0.0, 0.25, 3.5][number % 4],
            "error_type": "timeout" if number % 6 == 0 else None,
        }.items()
        if value is not None
    }


def verdict(number: int, call: dict[str, Any]) -> dict[str, Any]:
    """What the guardrails make of that call; of some they know nothing, or not all."""
    fields = {name: value for name, value in call.items() if name in (*OfCall.model_fields, "event")}
    found = [finding(type=["US_SSN", "PERSON"][each % 2], leak=each == 1) for each in range(number % 4)]
    if number % 5 == 0:
        found.append(finding(detector="toxicity", type="insult", where="prompt"))
    more: dict[str, Any] = [
        {"outcome": "scored", "more_findings": number % 3},
        {"outcome": "sampled_out"},
        {"outcome": "partial", "failed": {"phi": "timeout"}, "detectors": {"toxicity": "1"}},
        {"outcome": "scored", "request_model": None, "response_model": None},
        {"outcome": "scored", "detectors": {"phi": "1"}},
    ][number % 5]
    return scored(**fields | {"tenant": fields.get("tenant"), "findings": found} | more | {"event": "scored"})


class Node:
    """A folder's log and store, and what runs on them; in lives."""

    def __init__(self, folder: Path, store: Store) -> None:
        self.folder, self.store, self.clock = folder, store, Clock()
        self.settings = Settings(fsync="normal", sink_linger_s=0.0)
        SqliteLog(folder, partitions=PARTITIONS, fsync="normal").close()
        self.made: list[tuple[int, dict[str, Any], float]] = []
        self.seqs = Counter[int]()

    def append(self, first: int, count: int, at: datetime) -> None:
        """Calls that are appended at a time, spread over the partitions."""
        self.clock.now = at.timestamp()
        with SqliteLog(self.folder, fsync="normal", clock_ms=self.clock.ms) as log:
            for number in range(first, first + count):
                event, partition = call(number, at), number % PARTITIONS
                sent = Envelope.of(f"producer-{partition}", self.seqs[partition], [orjson.dumps(event)])
                self.seqs[partition] += 1
                with log.transaction():
                    log.append(CALLS.name, partition, [(None, sent.headers(), sent.value)])
                self.made.append((partition, event, self.clock.now))
                judged = Envelope.of(
                    f"guardrails-{partition}", self.seqs[partition] - 1, [orjson.dumps(verdict(number, event))]
                )
                with log.transaction():
                    log.append(CALLS.name, partition, [(None, judged.headers(), judged.value)])

    def live(
        self, policies: PolicySet, *, sink: bool = True, at: Callable[[str], None] = lambda _step: None, part_rows: int = 7
    ) -> bool:
        """One life: meter, carry into the store, seed, judge. Whether it lived to the end with nothing left to seed."""
        meter = MeterEngine(self.folder, self.settings, policies=policies, clock_ms=self.clock.ms)
        carry = Sink(self.folder, self.settings, self.store)
        backfill = Backfill(meter, self.store, clock=self.clock, at=at, part_rows=part_rows)
        try:
            while meter.run_once():
                pass
            while sink and carry.run_once(drain=True):
                pass
            seeded = backfill.run_once(wait=True)
            PoliciesEngine(meter.log, policies, meter.counted, clock=self.clock).run_once()
            return seeded
        except Abort:
            return False
        finally:
            backfill.close()
            carry.close()
            meter.close()

    def usage(self, each: Policy) -> dict[tuple[str | None, ...], Any]:
        """What the usage topic says of every scope, over all partitions."""
        series, found = Series.of(each), {}
        with SqliteLog(self.folder, fsync="normal") as log:
            for partition in range(PARTITIONS):
                for record in log.keyed(USAGE.name, partition, b'["' + series.id.encode()):
                    parsed = parse_usage_key(record.key or b"")
                    assert parsed is not None
                    ring, values = ScopeUsage.load(series, record.value).ring, parsed[1]
                    if isinstance(ring, Ring):
                        found[values] = found.get(values, 0) + ring.sum(self.clock.now)
                    elif isinstance(ring, RatioRing):
                        part, whole = ring.counts(self.clock.now)
                        before = found.get(values, (0, 0))
                        found[values] = before[0] + part, before[1] + whole
                    elif isinstance(ring, SketchRing):
                        found[values] = found.get(values, Counter()) + Counter(ring.bins(self.clock.now))
        return {values: amount for values, amount in found.items() if amount}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with Store.open(path=tmp_path_factory.mktemp("store") / "store") as opened:
        opened.migrate()
        yield opened


@pytest.fixture
def node(tmp_path: Path, store: Store) -> Node:
    for table in ("calls", "scored_calls", "dead_letters"):
        store._writer.command(f"TRUNCATE TABLE {table}")
    return Node(tmp_path, store)


def watched_from_the_start(folder: Path, node: Node, policies: PolicySet) -> Node:
    """The same calls in another folder whose policies were there before them: what a backfill must amount to."""
    twin = Node(folder, node.store)
    with SqliteLog(node.folder, fsync="normal") as log, SqliteLog(folder, fsync="normal", clock_ms=twin.clock.ms) as copy:
        MeterEngine(folder, node.settings, policies=policies).close()
        for partition in range(PARTITIONS):
            for record in log.read(CALLS.name, partition, 0):
                twin.clock.now = record.appended_ms / MILLI
                with copy.transaction():
                    copy.append(CALLS.name, partition, [(None, record.headers, record.value)])
    meter = MeterEngine(folder, node.settings, policies=policies)
    while meter.run_once():
        pass
    meter.close()
    twin.clock.now = node.clock.now
    return twin


def test_a_new_policy_of_any_kind_counts_what_was_before_it(node: Node, tmp_path: Path) -> None:
    node.append(0, 60, NOON - timedelta(hours=30))
    node.append(60, 90, NOON - timedelta(minutes=50))
    node.append(150, 40, NOON)
    assert node.live(policy_set())

    assert node.live(policy_set(*NEW, *OF_FINDINGS, version="2"))

    twin = watched_from_the_start(tmp_path / "twin", node, policy_set(*NEW, *OF_FINDINGS))
    for each in (*NEW, *OF_FINDINGS):
        told = node.usage(each)
        assert told == twin.usage(each), each.name
        assert told, each.name


def test_a_day_of_calls_amounts_to_what_a_plain_sum_says(node: Node) -> None:
    node.append(0, 80, NOON - timedelta(hours=1))
    node.live(policy_set())

    node.live(policy_set(*NEW, version="2"))

    requests: Counter[tuple[str]] = Counter((event["tenant"],) for _, event, _ in node.made)
    latencies: dict[tuple[str], Counter[int]] = {}
    for _, event, _ in node.made:
        if "latency_s" in event:
            latencies.setdefault((event["tenant"],), Counter())[bin_of(event["latency_s"])] += 1
    assert node.usage(NEW[1]) == requests
    assert node.usage(NEW[8]) == latencies
    with SqliteLog(node.folder, fsync="normal") as log:
        found = [decode_signal(r.value) for r in log.keyed(SIGNALS.name, 0, b"signal|calls|")]
    assert {signal.scope["tenant"]: (signal.state, signal.spend) for signal in found} == {
        tenant: ("block", count) for (tenant,), count in requests.items()
    }
    assert sum(one.spend for one in found[0].contributors) <= found[0].spend
    assert found[0].contributors


@pytest.mark.parametrize("times", [1, 2, 5])
@pytest.mark.parametrize("step", ["1 asked", "2 seeded", "3 kept"])
def test_an_outage_in_the_middle_counts_nothing_twice_and_misses_nothing(
    node: Node, tmp_path: Path, step: str, times: int
) -> None:
    node.append(0, 90, NOON - timedelta(minutes=50))
    node.live(policy_set())
    policies = policy_set(*SOME, version="2")

    died = not node.live(policies, at=Outage(step, times))
    node.append(90, 30, NOON)
    again = not node.live(policies, at=Outage(step, 1))
    finished = node.live(policies)

    twin = watched_from_the_start(tmp_path / "twin", node, policies)
    assert (died, finished) == (True, True), f"step {step!r} was not reached {times} times: the test tests nothing"
    assert again in (True, False)
    for each in SOME:
        assert node.usage(each) == twin.usage(each), each.name


def test_calls_that_come_before_the_past_is_counted_count_once(node: Node, tmp_path: Path) -> None:
    node.append(0, 60, NOON - timedelta(minutes=50))
    node.live(policy_set(), sink=False)
    policies = policy_set(*SOME, version="2")

    waits = node.live(policies, sink=False)  # the store does not have them yet
    node.append(60, 60, NOON - timedelta(minutes=10))
    still_waits = node.live(policies, sink=False)
    done = node.live(policies)
    again = node.live(policies)

    twin = watched_from_the_start(tmp_path / "twin", node, policies)
    assert (waits, still_waits, done, again) == (False, False, True, True)
    for each in SOME:
        assert node.usage(each) == twin.usage(each), each.name


def test_a_policy_that_was_away_for_a_while_comes_back_with_all_it_missed(node: Node, tmp_path: Path) -> None:
    policies = policy_set(*NEW[:2])
    node.append(0, 40, NOON - timedelta(minutes=50))
    node.live(policies)
    node.append(40, 40, NOON - timedelta(minutes=30))
    node.live(policy_set(version="2"))
    without = node.usage(NEW[0])
    node.append(80, 40, NOON)

    node.live(policies)

    twin = watched_from_the_start(tmp_path / "twin", node, policies)
    assert without == {}
    for each in NEW[:2]:
        assert node.usage(each) == twin.usage(each), each.name


def test_a_series_that_is_shared_or_known_is_not_counted_again(node: Node) -> None:
    policies = policy_set(NEW[1])
    node.append(0, 40, NOON - timedelta(minutes=50))
    node.live(policies)
    before = node.usage(NEW[1])

    node.live(policy_set(NEW[1], policy("same", limit=2, window=NEW[1].window.model_dump()), version="2"))

    assert node.usage(NEW[1]) == before


def test_an_answer_that_comes_when_the_series_is_watched_no_more_or_anew_is_dropped(node: Node) -> None:
    node.append(0, 40, NOON - timedelta(minutes=50))
    node.live(policy_set())
    meter = MeterEngine(node.folder, node.settings, policies=policy_set(NEW[0]), clock_ms=node.clock.ms)
    carried = Sink(node.folder, node.settings, node.store)
    backfill = Backfill(meter, node.store, clock=node.clock)
    assert backfill._ask()

    meter.watch(policy_set())
    done = backfill.run_once(wait=True)

    backfill.close()
    carried.close()
    meter.close()
    assert (done, node.usage(NEW[0])) == (True, {})
