"""What surrounds the policies step, over a memory in dicts: who begins again says what is new, and nothing twice."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from policing import Call, feed, policy, policy_set
from support import NOW_S
from tidegate.processors.enforcement import BEAT_S, GATE_GONE_S, Beat, Enforcement, Publication, Share, beat_of
from tidegate.processors.series import SeriesState, Values, parse_usage_key, series_of
from tidegate.schemas.policy import PolicySet
from tidegate.schemas.signal import GATES_KEY, POLICIES_KEY, Gates, Signal, decode_gates, decode_signal, signal_key
from tidegate.schemas.unit_prices import PRICES_KEY, decode_unit_prices


@dataclass
class Topics:
    """`Memory` of one source partition, and the meter that fills it."""

    scopes: dict[bytes, bytes] = field(default_factory=dict)
    words: dict[bytes, bytes] = field(default_factory=dict)
    share: Share = field(default_factory=Share)

    def usage(self, partition: int, key: bytes) -> bytes | None:
        return self.scopes.get(key)

    def usage_of(self, prefix: bytes) -> Iterator[tuple[int, bytes, bytes]]:
        found = ((key, value) for key, value in self.scopes.items() if key.startswith(prefix))
        return ((0, key, value) for key, value in found if self.share.owns(*(parse_usage_key(key) or ("", ()))))

    def signal(self, key: bytes) -> bytes | None:
        return self.words.get(key)

    def signals(self, prefix: bytes) -> Iterable[tuple[bytes, bytes]]:
        return [(key, value) for key, value in self.words.items() if key.startswith(prefix)]

    def last(self, tenant: str, policy: str = "budget") -> Signal | None:
        value = self.words.get(signal_key(policy, (tenant,)))
        return decode_signal(value) if value else None

    def beat(self) -> Gates:
        return decode_gates(self.words[GATES_KEY])


class House:
    """A meter and an enforcement that may be restarted."""

    def __init__(self, *policies: Any, **options: Any) -> None:
        self.topics = Topics()
        self.policies = policy_set(*policies)
        self.series = SeriesState(series_of(self.policies.policies), self.topics.scopes.get)
        self.options = options
        self.alerts: list[tuple[str | None, str | None, str | None]] = []
        self.start(NOW_S)

    def start(self, now: float, policies: PolicySet | None = None) -> None:
        self.policies = policies or self.policies
        self.topics.share = self.options.get("share") or Share()
        self.enforcement = Enforcement(self.topics, 1, now, **self.options)
        self.enforcement.enforce(self.policies, now)

    def call(self, count: int, now: float, tenant: str = "harbor") -> None:
        for number in range(count):
            feed(self.series, Call(now, f"call-{tenant}-{now}-{number}", fields={"tenant": tenant}))
        for key, value in self.series.records():
            self.topics.scopes[key] = value
            self.enforcement.hear(0, key, value, now)
        self.series.flushed()

    def judge(self, now: float, applied: int = 0) -> Publication | None:
        found = self.enforcement.judge([applied], now)
        if found is not None:
            self.publish(found)
        return found

    def publish(self, publication: Publication) -> None:
        for key, value in publication.records:
            self.topics.words.pop(key, None)
            if value:
                self.topics.words[key] = value
        self.alerts += [(alert.policy, alert.previous_state, alert.state) for alert in publication.alerts]
        self.enforcement.published(publication)


def keys(publication: Publication | None) -> list[bytes]:
    return [key for key, _ in publication.records] if publication else []


# What is said


def test_policies_are_said_before_the_first_signal_and_only_when_they_change() -> None:
    house = House(policy(limit=3))
    house.call(1, NOW_S)

    first, second = house.judge(NOW_S), house.judge(NOW_S + 1)

    said = keys(first)
    assert said.index(POLICIES_KEY) < said.index(signal_key("budget", ("harbor",)))
    assert POLICIES_KEY not in keys(second)


def test_nothing_is_said_while_there_is_nothing_new_but_the_heartbeat_in_its_time() -> None:
    house = House(policy(limit=3))
    house.judge(NOW_S)

    assert house.judge(NOW_S + BEAT_S / 2) is None
    assert house.enforcement.next_due() == NOW_S + BEAT_S
    assert keys(house.judge(NOW_S + BEAT_S)) == [GATES_KEY]
    assert keys(house.judge(NOW_S - 60)) == [GATES_KEY]  # a clock that was set back


def test_the_heartbeat_names_the_live_gates_the_offsets_and_the_version_in_force() -> None:
    house = House(policy(limit=3))
    house.enforcement.hear_gate("gate-b", NOW_S)
    house.enforcement.hear_gate("gate-a", NOW_S + GATE_GONE_S)
    house.judge(NOW_S, applied=7)
    before = house.topics.beat()

    house.enforcement.hear_gate("gate-c", NOW_S)
    house.enforcement.hear_gate("gate-c", None)
    house.judge(NOW_S + GATE_GONE_S + 0.1, applied=8)

    assert (before.ids, before.applied, before.of, before.policies) == (["gate-a", "gate-b"], [7], 1, "1")
    assert (house.topics.beat().ids, house.topics.beat().applied) == (["gate-a"], [8])


def test_one_that_never_spoke_was_heard_last_when_it_began_and_none_hides_behind_another() -> None:
    silent, speaking = House(policy(limit=3)), House(policy(limit=3))
    speaking.enforcement.hear_gate("gate-a", NOW_S + 60)
    speaking.judge(NOW_S + 60)

    at_first, both = beat_of([silent.enforcement]), beat_of([speaking.enforcement, silent.enforcement])
    silent.judge(NOW_S + 70)

    assert (at_first, both) == (Beat(NOW_S, 0), Beat(NOW_S, 1))
    assert beat_of([speaking.enforcement, silent.enforcement]) == Beat(NOW_S + 60, 1)
    assert beat_of([]) is None


def test_prices_ride_along_when_they_are_news() -> None:
    prices: dict[str, tuple[float, float]] = {}
    house = House(policy(limit=3), unit_prices=lambda: prices)
    house.judge(NOW_S)
    prices["gpt-4o"] = (2.5, 10.0)

    said = [PRICES_KEY in keys(house.judge(NOW_S + second)) for second in (1, 2)]

    assert said == [True, False]
    assert decode_unit_prices(house.topics.words[PRICES_KEY]).nano_usd == {"gpt-4o": (2.5, 10.0)}


def test_trouble_told_while_something_is_published_goes_out_with_the_next() -> None:
    house = House(policy(limit=3))
    house.enforcement.stands("policy_file", "first", NOW_S)

    first = house.enforcement.judge([0], NOW_S)
    assert first is not None
    house.enforcement.stands("policy_file", "second", NOW_S)
    house.publish(first)
    second = house.judge(NOW_S)

    assert [alert.title for alert in first.alerts] == ["first"]
    assert second is not None
    assert [alert.title for alert in second.alerts] == ["second"]


def test_trouble_that_stands_is_told_again_each_hour_and_once_when_it_is_over() -> None:
    house = House(policy(limit=3))
    told: list[tuple[float, str, str]] = []

    for minute in range(0, 200, 10):
        house.enforcement.stands("policy_file", "it is bad" if 30 <= minute < 160 else None, NOW_S + minute * 60)
        said = house.judge(NOW_S + minute * 60)
        told += [(minute, alert.severity, alert.title) for alert in (said.alerts if said else [])]

    assert told == [
        (30, "warning", "it is bad"),
        (90, "warning", "it is bad"),
        (150, "warning", "it is bad"),
        (160, "info", "over: it is bad"),
    ]


def test_who_begins_again_says_once_that_trouble_that_was_told_is_over() -> None:
    house = House(policy(limit=3))
    house.enforcement.stands("policy_file", "rows name Rosa Martinez", NOW_S)
    house.judge(NOW_S)
    words = b"".join(house.topics.words.values())
    told: list[tuple[int, str, str]] = []

    for restart in range(3):
        house.start(NOW_S + restart)
        house.enforcement.stands("policy_file", None, NOW_S + restart)
        said = house.judge(NOW_S + restart)
        told += [(restart, alert.severity, alert.title) for alert in (said.alerts if said else [])]

    assert told == [(0, "info", "over: policy file")]
    assert b"Rosa" not in words


# Beginning again


def test_one_that_begins_again_goes_on_from_what_was_said_and_alerts_nobody_anew() -> None:
    house = House(policy(limit=3, hold="1h"))
    house.call(3, NOW_S)
    house.judge(NOW_S)
    before = house.topics.last("harbor")

    house.start(NOW_S + 1)
    house.call(1, NOW_S + 1)
    house.judge(NOW_S + 1)

    after = house.topics.last("harbor")
    assert before is not None
    assert after is not None
    assert (after.state, after.spend, after.since) == ("block", 4, before.since)
    assert after.sequence > before.sequence
    assert [state for _, _, state in house.alerts] == ["block"]


def test_what_was_judged_and_never_published_is_judged_again_by_one_that_begins_again() -> None:
    house = House(policy(limit=3))
    house.judge(NOW_S)
    house.call(3, NOW_S)
    lost = house.enforcement.judge([1], NOW_S)

    house.start(NOW_S + 1)
    for key, value in house.topics.scopes.items():
        house.enforcement.hear(0, key, value, NOW_S + 1)
    house.judge(NOW_S + 1)

    assert lost is not None
    assert [alert.state for alert in lost.alerts] == ["block"]
    assert [state for _, _, state in house.alerts] == ["block"]


def test_signals_of_policies_that_nobody_knows_are_taken_back_at_the_start() -> None:
    house = House(policy(limit=3))
    house.call(3, NOW_S)
    house.judge(NOW_S)
    del house.topics.words[POLICIES_KEY]

    house.start(NOW_S + 1, policy_set(policy("other", limit=3), version="2"))
    house.judge(NOW_S + 1)

    assert house.topics.last("harbor") is None
    assert b'"other"' in house.topics.words[POLICIES_KEY]


def test_a_word_that_is_taken_back_says_whether_its_policy_is_gone_or_was_edited() -> None:
    house = House(policy(limit=30), policy("gone", limit=30))
    house.call(3, NOW_S)
    house.judge(NOW_S)

    house.enforcement.enforce(policy_set(policy(limit=30, window={"rolling": "2h"}), version="2"), NOW_S + 1)
    said = house.judge(NOW_S + 1)

    assert said is not None
    assert {kept.signal.policy: kept.signal.reason for kept in said.kept if kept.withdrawn} == {
        "budget": "budget: no longer in force as it was",
        "gone": "gone: no longer in force",
    }


def test_policies_of_another_version_of_the_schema_are_said_anew() -> None:
    house = House(policy(limit=3))
    house.judge(NOW_S)
    house.topics.words[POLICIES_KEY] = b'{"policies": [{"name": "of the future"}]}'

    house.start(NOW_S + 1)
    house.judge(NOW_S + 1)

    assert PolicySet.model_validate_json(house.topics.words[POLICIES_KEY]) == house.policies


def test_a_word_that_somebody_else_has_changed_is_said_again() -> None:
    house = House(policy(limit=3))
    house.call(3, NOW_S)
    house.judge(NOW_S)
    del house.topics.words[signal_key("budget", ("harbor",))]

    for name, values in (("budget", ("harbor",)), ("budget", ("harbor", "too many")), ("nobody's", ("harbor",))):
        house.enforcement.repeat(name, values, NOW_S + 1)
    house.judge(NOW_S + 1)

    said = house.topics.last("harbor")
    assert said is not None
    assert (said.state, said.spend) == ("block", 3)
    assert [state for _, _, state in house.alerts] == ["block"]


# Shares


def share(number: int) -> Share:
    """Two workers: names that end in an odd digit are the second's."""

    def owns(_series: str, values: Values) -> bool:
        return int((values[0] or "0")[-1]) % 2 == number

    return Share(number, 2, owns)


def test_a_share_takes_up_its_own_scopes_and_leaves_the_policies_to_the_first() -> None:
    house = House(policy(limit=3))
    for tenant in ("tenant-1", "tenant-2"):
        house.call(3, NOW_S, tenant)
    house.judge(NOW_S)

    house.options = {"share": share(1)}
    house.start(NOW_S + 1, policy_set(policy(limit=30), version="2"))
    said = house.judge(NOW_S + 1)

    assert signal_key("budget", ("tenant-1",)) in keys(said)
    assert signal_key("budget", ("tenant-2",)) not in keys(said)
    assert POLICIES_KEY not in keys(said)
    assert b"gates|1" in keys(said)


@pytest.mark.parametrize("number", [0, 1])
def test_what_is_taken_back_with_a_policy_is_taken_back_by_whose_it_was(number: int) -> None:
    house = House(policy(limit=3), policy("other", limit=3))
    for tenant in ("tenant-1", "tenant-2"):
        house.call(3, NOW_S, tenant)
    house.judge(NOW_S)

    house.options = {"share": share(number)}
    house.start(NOW_S + 1, policy_set(policy("other", limit=3), version="2"))
    house.judge(NOW_S + 1)

    gone = [tenant for tenant in ("tenant-1", "tenant-2") if house.topics.last(tenant) is None]
    assert gone == [["tenant-2"], ["tenant-1"]][number]
    assert (house.alerts[-1]) == ("budget", "block", "ok")


def test_a_scope_that_comes_from_another_share_goes_on_from_what_was_said_of_it() -> None:
    house = House(policy(limit=3))
    house.call(3, NOW_S, "tenant-1")
    house.judge(NOW_S)

    def by_series(series_id: str, _values: Values) -> bool:
        return series_id != before

    (before,) = series_of(house.policies.policies)
    house.options = {"share": Share(1, 2, by_series)}
    house.start(NOW_S + 1, policy_set(policy(limit=3, window={"rolling": "2h"}), version="2"))
    house.judge(NOW_S + 1)

    said = house.topics.last("tenant-1")
    assert said is not None
    assert (said.state, said.policy_version) == ("ok", "2")
    assert house.alerts[-1] == ("budget", "block", "ok")
