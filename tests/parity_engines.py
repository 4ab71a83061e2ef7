"""Both engines on the same calls: what is put into one log is put into the other, and every way in which they differ after.

    records ─┬─► SqliteLog ─► MeterEngine, PoliciesEngine      in this process
             └─► Kafka ─────► worker processes                  partition, offset and time of each record are the same
    content ─┬─► GuardrailsEngine ─┐
             └─► KafkaGuardrails ──┴─► verdicts behind the records, in the order of the content: they are the same, too

What the policies say depends on when they say it; so the embedded ones are asked at the very times at which those on Kafka
spoke.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any, Final

import msgspec
import orjson
from kafka_fleet import eventually
from parity_sides import Appended, Distributed, Embedded, Judging
from tidegate.processors.aggregate import UsageKey
from tidegate.processors.policy_file import read_policies
from tidegate.processors.series import Series, series_of
from tidegate.schemas.signal import POLICIES_KEY, Signal, decode_gates, decode_signal, heartbeat_number, parse_signal_key
from tidegate.schemas.topics import CALLS, DEAD_LETTERS, FINDINGS, METERED, QUARANTINE, REQUESTS, TRANSCRIPTS, Topic
from tidegate.schemas.unit_prices import PRICES_KEY, decode_unit_prices
from tidegate.schemas.usage import Usage

# One of each kind. None holds on to what it said before (no hold, no hysteresis), so that the words on a scope follow from
# its usage and the time alone, however often it was judged on the way.
POLICIES: Final = """
policies:
  - {name: tenant-cost, scope: [tenant], measure: cost_usd, window: {calendar: day, time_zone: America/New_York}, limit: 2,
     warn_at: [0.5], actions: [{at: 0.8, do: downgrade, model: gpt-4o-mini}, {do: block}], hysteresis: 0}
  - {name: all-tokens, measure: total_tokens, window: {calendar: month}, limit: 30_000_000, action: block, hysteresis: 0}
  - {name: team-calls, scope: [tenant, team], measure: requests, window: {rolling: 1h}, limit: 300, hysteresis: 0,
     limits: [{scope: {tenant: harbor-health, team: research}, limit: 0},
              {scope: {tenant: st-anne, team: oncology}, limit: null}],
     actions: [{at: 0.5, do: throttle, per_minute: 60}]}
  - {name: user-tokens, scope: [tenant, user], measure: input_tokens, window: {rolling: 24h}, limit: 20_000, action: block,
     hysteresis: 0}
  - {name: answers, scope: [tenant, prompt_name, prompt_version], measure: output_tokens, window: {calendar: hour},
     limit: 9_000, action: block, hysteresis: 0}
  - {name: failures, scope: [model], measure: errors, window: {rolling: 24h}, limit: 4, action: alert, hysteresis: 0}
  - {name: breaker, scope: [provider_name], measure: error_rate, window: {rolling: 1h}, limit: 0.25, minimum_requests: 5,
     actions: [{do: block, probe_every: 30s}], hysteresis: 0}
  - {name: slow, scope: [tenant, model], measure: latency_p95_s, window: {rolling: 24h}, limit: 4, minimum_requests: 5,
     action: alert, hysteresis: 0}
  - {name: unpriced, scope: [model], measure: unpriced, window: {rolling: 31d}, limit: 1, warn_at: [], action: alert,
     hysteresis: 0}
  - {name: ward-calls, scope: [label.ward], match: {environment: production}, measure: requests,
     window: {calendar: week, time_zone: Europe/Berlin}, limit: 5, action: block, hysteresis: 0}
  - {name: leaky, scope: [task_type], measure: finding_rate, window: {rolling: 24h}, limit: 0.1, action: block, hysteresis: 0}
  - {name: toxic, measure: finding_rate, finding_type: toxicity, minimum_requests: 3, window: {rolling: 31d}, limit: 0.3,
     action: alert, hysteresis: 0}
  - {name: leaks, scope: [tenant, user], measure: findings, finding_type: phi_leak, window: {calendar: month}, limit: 3,
     action: block, hysteresis: 0}
  - {name: found, scope: [model], match: {environment: production}, measure: findings, window: {rolling: 24h}, limit: 4,
     action: alert, hysteresis: 0}
"""

# What a word says of the moment at which it was said, and nothing of the scope.
_OF_ITS_MOMENT: Final = ("at", "since", "sequence", "applied", "window_end", "burn_per_s", "exhausted_at")
_ROWS: Final = (METERED, REQUESTS, FINDINGS, TRANSCRIPTS, QUARANTINE, DEAD_LETTERS)
# What a verdict says of how it came about: when it was appended and what it took; who came first of two with the same texts.
_OF_ITS_MAKING: Final = ("ingested_at", "scoring_s", "cached")
# Told of each kind of difference; more would say no more.
_TOLD: Final = 5


class Engines:
    """Both, on logs of `partitions` partitions, between `with` and its end; on Kafka one worker of the meter, one of the
    policies. `flush_bytes` is the embedded meter's: what is flushed together must not matter."""

    def __init__(self, folder: Path, url: str, *, partitions: int, flush_bytes: int = 20_000) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        policy_file = folder / "policies.yaml"
        policy_file.write_text(POLICIES)
        self.partitions = partitions
        self.policies = read_policies(policy_file)
        self.series: dict[str, Series] = series_of(self.policies.policies)
        self.ends = dict.fromkeys(range(partitions), 0)
        self._judged = False
        self.embedded = Embedded(folder / "embedded", partitions, self.policies, flush_bytes)
        self.distributed = Distributed(folder, url, partitions, policy_file)

    def __enter__(self) -> Engines:
        try:
            self.distributed.open()
            fleet = self.distributed.fleet
            for worker in [fleet.start(role) for role in ("policies", "meter")]:
                worker.wait_until_it_works()
            eventually(self._in_force, what="the policies are in force, and counted from the first call on")
        except BaseException:
            self.__exit__()
            raise
        return self

    def _in_force(self) -> bool:
        watched = self.distributed.changelog.follow().watches_all(self.series)
        return watched and POLICIES_KEY in self.distributed.words()

    def __exit__(self, *_: object) -> None:
        self.distributed.fleet.__exit__()
        self.distributed.close()
        self.embedded.close()

    def append(self, records: Sequence[Appended]) -> None:
        """The same into both logs, in this order."""
        assert self.embedded.append(records) == self.distributed.append(records), "the logs are not the same"
        for record in records:
            self.ends[record.partition] += record.topic == CALLS

    def judge(self, how: Judging, within_s: float = 120.0) -> None:
        """Both guardrails judge all content there is. The policies are away meanwhile: what they say of findings decides what
        else is judged, and when they say it is their affair."""
        fleet = self.distributed.fleet
        for worker in fleet.running("policies"):
            fleet.stop(worker)
        self.embedded.judge(how, within_s)
        self.distributed.judge(how, within_s)
        self.ends = {partition: self.embedded.end(partition) for partition in self.ends}
        self._judged = True
        fleet.start("policies").wait_until_it_works()

    def settle(self, within_s: float = 60.0) -> None:
        """Until both have applied everything."""
        self.embedded.run()
        eventually(self._applied, within_s, f"Kafka's meters have applied {self.ends}")

    def _applied(self) -> bool:
        for role in ("meter", "policies"):
            fleet = self.distributed.fleet
            assert fleet.running(role), "\n".join(worker.text() for worker in fleet.workers if worker.role == role)
        changelog = self.distributed.changelog.follow()
        return all(changelog.state(partition)["next_offset"] >= end for partition, end in self.ends.items())

    def totals(self) -> dict[str, int]:
        return self.embedded.meter.totals()

    # what differs

    def differences(self, within_s: float = 30.0) -> list[str]:
        """All ways in which the two say something else of the same calls, told for people; [] when there are none. Rows that
        were compared before are not compared again. `within_s` is for the policies on Kafka, which nobody waits for."""
        self.distributed.changelog.follow()
        kinds = [self._rows(topic, partition) for topic in _ROWS for partition in range(self.partitions)]
        for partition in range(self.partitions):
            kinds += [self._usage(partition), self._scopes(partition), self._counted(partition)]
        found = [difference for kind in kinds for difference in islice(kind, _TOLD)]
        deadline = time.monotonic() + within_s
        while said := list(islice(self._words(), _TOLD)):
            if time.monotonic() > deadline:
                break
            time.sleep(0.1)
        return found + said

    def _rows(self, topic: Topic, partition: int) -> Iterator[str]:
        here, there = self.embedded.rows(topic, partition), self.distributed.rows(topic, partition)
        for one, other in zip_longest(here, there):
            if one != other and not (self._judged and topic == FINDINGS and _lasting_row(one) == _lasting_row(other)):
                yield f"{topic.name}/{partition}: embedded {_short(one)}, Kafka {_short(other)}"

    def _usage(self, partition: int) -> Iterator[str]:
        whole, late = self.distributed.changelog.buckets(partition)
        unseen = whole.keys() | late.keys()
        for key, here in self.embedded.buckets(partition):
            unseen.discard(key)
            there = Usage.load(whole[key]) if key in whole else Usage()
            there.merge(late.get(key, {}))
            if here != there:
                yield f"usage/{partition} of {UsageKey.load(key)}: embedded {here}, Kafka {there}"
        yield from (f"usage/{partition} of {UsageKey.load(key)}: on Kafka alone" for key in unseen)

    def _counted(self, partition: int) -> Iterator[str]:
        """The account of all lines, what calls in flight hold, who has sent what."""
        here, changelog = self.embedded, self.distributed.changelog
        producers = {name.decode(): tuple(msgspec.msgpack.decode(it)) for name, it in changelog.kind(partition, b"p").items()}
        yield from _unlike(f"account/{partition}", here.state(partition), changelog.state(partition))
        yield from _unlike(f"in flight/{partition}", here.calls_in_flight(partition), changelog.kind(partition, b"c"))
        yield from _unlike(f"producers/{partition}", self._spoken(here.producers(partition)), self._spoken(producers))

    def _spoken(self, producers: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
        """Who has sent what, and when; of the guardrails' own records the time is each engine's."""
        own = "guardrails:"
        return {
            name: (said[0], 0, *said[2:]) if self._judged and name.startswith(own) else said for name, said in producers.items()
        }

    def _scopes(self, partition: int) -> Iterator[str]:
        """What counts now, or may yet, of each scope that the policies watch."""
        now = time.time()
        here = self.embedded.scopes(partition)
        there = {key: value[8:] for key, value in self.distributed.changelog.kind(partition, b"s").items()}
        for key in here.keys() | there.keys():
            if here.get(key) != there.get(key):
                one, other = self._counting(key, here.get(key), now), self._counting(key, there.get(key), now)
                if one != other:
                    yield f"scope/{partition} {key!r}: embedded {_short(one)}, Kafka {_short(other)}"

    def _counting(self, key: bytes, value: bytes | None, now: float) -> Any:
        """(amounts by bucket, held in reserve, biggest spenders). Buckets behind the window are kept for as long as they are
        in nobody's way, and a scope without any other may go: None."""
        if value is None:
            return None
        ring, reserved, top, top_since = msgspec.msgpack.decode(value)
        series_id, _ = orjson.loads(key)
        first, _, _ = self.series[series_id].buckets.reach(now)
        amounts = _amounts(ring, first)
        return (amounts, reserved, top, top_since) if amounts or reserved else None

    def _words(self) -> Iterator[str]:
        there = self.distributed.words()
        signals = {key: decode_signal(value) for key, value in there.items() if parse_signal_key(key)}
        # Judging at two times is the same, unless a bucket of one of the windows has come or gone in between.
        moments: dict[Any, float] = {}
        for signal in signals.values():
            reach = self._reach(signal.at)
            moments[reach] = max(moments.get(reach, 0.0), signal.at)
        by_moment = {reach: self.embedded.words(at) for reach, at in sorted(moments.items(), key=lambda item: item[1])}
        here = list(by_moment.values())[-1] if by_moment else self.embedded.words(time.time())
        expected = {key for key in here if parse_signal_key(key)}
        yield from _unlike("in force", _plain(here, POLICIES_KEY), _plain(there, POLICIES_KEY))
        yield from _unlike("prices", _prices(here), _prices(there))
        beats = [decode_gates(value).applied for key, value in there.items() if heartbeat_number(key) is not None]
        told = {partition: min(applied[partition] for applied in beats) + 1 for partition in self.ends}
        yield from _unlike("heartbeats", self.ends, told)
        yield from (f"signals: {key!r} on Kafka alone" for key in signals.keys() - expected)
        yield from (f"signals: {key!r} embedded alone" for key in expected - signals.keys())
        for key in expected & signals.keys():
            judged = decode_signal(by_moment[self._reach(signals[key].at)][key])
            yield from _unlike(f"signal {key.decode()}", _lasting(judged), _lasting(signals[key]))

    def _reach(self, at: float) -> tuple[Any, ...]:
        return tuple(series.buckets.reach(at) for series in self.series.values())


def _amounts(ring: bytes, first: int) -> dict[Any, Any]:
    """What a ring (see `windows.py`) has counted from bucket `first` on: by number; of a ratio's two, by name and number."""
    found = msgspec.msgpack.decode(ring)
    if isinstance(found, dict):
        return {number: bins for number, bins in found.items() if number >= first}
    one, other = found
    if isinstance(one, int):
        return {number: amount for number, amount in enumerate(other, one) if amount and number >= first}
    whole = _amounts(other, first)
    return {"part": _amounts(one, first), "whole": whole} if whole else {}


def _lasting_row(row: tuple[Mapping[str, str], bytes] | None) -> Any:
    """Rows of verdicts without what is of their making."""
    if row is None:
        return None
    headers, value = row
    lines = [orjson.loads(line) for line in value.split(b"\n")]
    return headers, [{name: said for name, said in line.items() if name not in _OF_ITS_MAKING} for line in lines]


def _lasting(signal: Signal) -> dict[str, Any]:
    """What a signal says of its scope."""
    return {name: value for name, value in msgspec.structs.asdict(signal).items() if name not in _OF_ITS_MOMENT}


def _plain(words: Mapping[bytes, bytes], key: bytes) -> dict[str, Any]:
    found: dict[str, Any] = orjson.loads(words.get(key) or b"{}")
    return found


def _prices(words: Mapping[bytes, bytes]) -> dict[str, tuple[float, float]]:
    return dict(decode_unit_prices(words[PRICES_KEY]).nano_usd) if PRICES_KEY in words else {}


def _unlike(what: str, here: Mapping[Any, Any], there: Mapping[Any, Any]) -> Iterator[str]:
    for key in here.keys() | there.keys():
        if here.get(key) != there.get(key):
            yield f"{what}: {key!r}: embedded {_short(here.get(key))}, Kafka {_short(there.get(key))}"


def _short(what: Any) -> str:
    text = repr(what)
    return text if len(text) < 800 else f"{text[:800]}… ({len(text):,} characters)"
