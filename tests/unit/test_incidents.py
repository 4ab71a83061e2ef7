"""What people are told of incidents: once when one opens, again while nobody looks, once when it is over."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tidegate.processors.incidents import (
    Acknowledge,
    Heard,
    Incidents,
    Notification,
    Resolve,
    Silence,
    Timing,
    Unsilence,
    Window,
    Word,
    step,
)
from tidegate.schemas.signal import Alert

T = 1_800_000_000.0
HASTY = Timing(pending_warning_s=0.0, group_wait_s=0.0)


def policy(state: Any, at: float, tenant: str = "a", name: str = "budget") -> Alert:
    severity: Any = {"ok": "info", "warn": "warning"}.get(state, "critical")
    return Alert(
        key=f"policy|{name}|tenant={tenant}",
        kind="policy",
        severity=severity,
        title=f"{tenant} is {state}",
        at=at,
        policy=name,
        scope={"tenant": tenant},
        state=state,
    )


def trouble(at: float, kind: str = "quarantine") -> Alert:
    return Alert(key=f"guardrails|{kind}", kind=kind, severity="warning", title=kind, at=at)


class Story:
    """A state, and all that was told; time goes by in steps of a second."""

    def __init__(self, timing: Timing = HASTY) -> None:
        self.state, self.timing, self.now = Incidents(), timing, T
        self.told: list[Notification] = []

    def hear(self, *words: Word) -> list[Notification]:
        told = step(self.state, words, self.now, self.timing)
        self.told += told
        return told

    def wait(self, seconds: float) -> list[Notification]:
        told: list[Notification] = []
        end = self.now + seconds
        while self.now < end:
            self.now = min(self.now + 1.0, end)
            told += self.hear()
        return told

    def occasions(self) -> list[str]:
        return [notification.occasion for notification in self.told]


def keys(told: Sequence[Notification]) -> list[str]:
    return [incident.key for notification in told for incident in notification.incidents]


def test_a_block_is_told_at_once_and_once_and_its_end_when_it_has_been_well_for_a_while() -> None:
    story = Story()

    first = story.hear(policy("block", T))
    story.hear(policy("block", T))
    story.wait(60)
    story.hear(policy("ok", story.now))
    story.wait(HASTY.settle_s - 1)
    early = story.occasions()
    story.wait(1)

    assert [(told.occasion, told.severity, told.group) for told in first] == [("opened", "critical", "policy|budget")]
    assert early == ["opened"]
    assert story.occasions() == ["opened", "resolved"]
    assert story.state.open == {}


def test_a_warning_that_passes_before_its_time_is_never_told() -> None:
    story = Story(Timing(pending_warning_s=30.0, group_wait_s=0.0))

    story.hear(policy("warn", T))
    story.wait(29)
    story.hear(policy("ok", story.now))
    story.wait(600)

    assert story.told == []
    assert story.state.open == {}


@pytest.mark.parametrize("every_s", [1, 3, 7])
def test_a_critical_incident_that_breathes_faster_than_its_group_waits_is_told_once(every_s: int) -> None:
    story = Story(Timing(flaps_most=1_000))

    for _ in range(60 // every_s):
        story.hear(policy("block", story.now))
        story.wait(every_s)
        story.hear(policy("ok", story.now))
        story.wait(every_s)
    while_it_breathes = list(story.told)
    story.wait(story.timing.settle_s)

    assert [one.occasion for one in while_it_breathes] == ["opened"]
    assert while_it_breathes[0].at == T + story.timing.group_wait_s
    # In the words of the block, whatever it is just then.
    assert while_it_breathes[0].incidents[0].alert.state == "block"
    assert story.occasions() == ["opened", "resolved"]


def test_one_that_is_well_again_in_a_maintenance_window_is_never_told() -> None:
    story = Story(Timing())
    window = Window(id="w", since=T, until=T + 100)
    story.hear(Silence(window), policy("block", T))
    story.wait(3)
    story.hear(policy("ok", story.now))

    story.wait(600)

    assert story.told == []
    assert story.state.open == {}


def test_a_block_that_becomes_a_warning_is_not_over() -> None:
    story = Story()
    story.hear(policy("block", T))

    better = Alert(**{**msgspec.structs.asdict(policy("warn", T + 10)), "severity": "info"})
    story.now = T + 10
    story.hear(better)
    story.wait(600)

    assert story.occasions() == ["opened"]
    assert [incident.severity for incident in story.state.open.values()] == ["warning"]


def test_what_worsens_is_told_even_to_those_who_acknowledged_the_warning() -> None:
    story = Story()
    story.hear(policy("warn", T))
    story.hear(Acknowledge("policy|budget|tenant=a", "kim", T))

    story.now = T + 5
    told = story.hear(policy("block", T + 5))

    assert [(one.occasion, one.severity) for one in told] == [("worsened", "critical")]
    assert story.state.open["policy|budget|tenant=a"].phase == "firing"


def test_what_is_acknowledged_before_it_was_told_is_told_when_it_worsens() -> None:
    story = Story(Timing(pending_warning_s=30.0, group_wait_s=0.0))
    story.hear(policy("warn", T))
    story.hear(Acknowledge("policy|budget|tenant=a", "kim", T))
    quiet = story.wait(60)

    told = story.hear(policy("block", story.now))

    assert quiet == []
    assert [one.occasion for one in told] == ["worsened"]


def test_nobody_looks_so_it_is_told_again_until_somebody_acknowledges() -> None:
    story = Story()
    story.hear(policy("block", T))

    again = story.wait(2 * HASTY.renotify_critical_s)
    story.hear(Acknowledge("policy|budget|tenant=a", "kim", story.now))
    after = story.wait(2 * HASTY.renotify_critical_s)

    assert [one.occasion for one in again] == ["renotified", "renotified"]
    assert len({one.id for one in story.told}) == 3
    assert after == []


def test_what_opens_together_is_told_together() -> None:
    story = Story(Timing(pending_warning_s=0.0, group_wait_s=10.0))
    for number in range(50):
        story.hear(policy("block", T + number / 10, f"tenant-{number}"))

    early = list(story.told)
    story.wait(10)

    assert early == []
    assert [len(one.incidents) for one in story.told] == [50]
    assert [incident.alert.at for incident in story.told[0].incidents] == [T + number / 10 for number in range(50)]


def test_what_turns_bad_and_well_is_told_once_and_then_called_flapping() -> None:
    story = Story()

    for _ in range(10):
        story.hear(policy("block", story.now))
        story.wait(20)
        story.hear(policy("ok", story.now))
        story.wait(20)
    while_it_flaps = story.occasions()
    story.wait(HASTY.flapping_settle_s)

    assert while_it_flaps == ["opened", "flapping"]
    assert story.occasions() == ["opened", "flapping", "resolved"]


def test_a_maintenance_window_keeps_still_and_what_outlasts_it_is_told() -> None:
    story = Story()
    window = Window(id="w", since=T, until=T + 100, match={"policy": "budget", "tenant": "a*"}, by="kim")
    story.hear(Silence(window), policy("block", T, "alpha"), policy("block", T, "beta"))
    during = keys(story.told)

    story.wait(99)
    still = keys(story.told)
    story.wait(1)

    assert during == still == ["policy|budget|tenant=beta"]
    assert keys(story.told) == ["policy|budget|tenant=beta", "policy|budget|tenant=alpha"]
    assert story.state.windows == {}


def test_a_silence_is_taken_back() -> None:
    story = Story()
    story.hear(Silence(Window(id="w", since=T, until=T + 100)), policy("block", T))

    told = story.hear(Unsilence("w"))

    assert keys(told) == ["policy|budget|tenant=a"]


def test_trouble_without_a_state_is_over_when_nobody_tells_of_it_any_more() -> None:
    story = Story()
    story.hear(trouble(T))
    story.wait(300)
    story.hear(trouble(story.now))
    story.wait(HASTY.silent_s - 1)
    before = story.occasions()
    story.wait(HASTY.settle_s + 1)

    assert before == ["opened"]
    assert story.occasions() == ["opened", "resolved"]


def test_a_source_that_promised_to_be_heard_of_and_is_not_is_an_incident() -> None:
    story = Story()
    story.hear(Heard("policies", T))

    story.wait(HASTY.no_data_s)
    missed = story.occasions()
    story.hear(Heard("policies", story.now))
    story.wait(HASTY.settle_s)

    assert missed == ["opened"]
    assert keys(story.told[:1]) == ["no_data|policies"]
    assert story.occasions() == ["opened", "resolved"]


def test_a_person_may_say_that_it_is_over() -> None:
    story = Story()
    story.hear(policy("block", T))

    story.hear(Resolve("policy|budget|tenant=a", "kim", T))
    story.now += 1
    story.hear(policy("block", story.now))

    assert story.occasions() == ["opened", "resolved", "opened"]
    assert len({one.id for one in story.told}) == 3


def test_a_word_that_comes_late_is_not_heard() -> None:
    story = Story()
    story.hear(policy("block", T + 10))

    story.hear(policy("ok", T + 5))
    story.wait(600)

    assert story.occasions() == ["opened"]


POLICY_STATES = ["ok", "warn", "throttle", "downgrade", "block"]
STATES = st.sampled_from(POLICY_STATES)
SAID = [*POLICY_STATES, "trouble", "silence", "ack"]
WORDS = st.lists(st.tuples(st.integers(0, 3), STATES, st.integers(0, 120)), max_size=40)


@given(WORDS, st.integers(0, 40))
def test_every_incident_is_opened_once_and_ended_at_most_once_whatever_is_repeated(
    words: list[tuple[int, str, int]], cut: int
) -> None:
    """A notifier that dies and hears its last words again tells the same notifications, by their ids."""
    story, again = Story(), Story()
    for number, (tenant, state, gap) in enumerate(words):
        alert = policy(state, story.now, f"t{tenant}")
        story.hear(alert)
        again.now = story.now
        again.hear(alert)
        if number == cut:
            # Kept, and read back by the next process.
            again.state = msgspec.json.decode(msgspec.json.encode(again.state), type=Incidents)
            again.hear(alert)
        story.wait(gap)
        again.wait(gap)
    story.wait(2_000)
    again.wait(2_000)

    for occasion in ("opened", "resolved"):
        told = Counter(incident.number for one in story.told if one.occasion == occasion for incident in one.incidents)
        assert set(told.values()) <= {1}
    assert [one.id for one in again.told] == [one.id for one in story.told]
    still = {incident.key for incident in story.state.open.values()}
    last = {f"policy|budget|tenant=t{tenant}": state for tenant, state, _ in words}
    assert still == {key for key, state in last.items() if state != "ok"}


@given(
    st.lists(st.tuples(st.integers(0, 3), st.sampled_from(SAID), st.integers(0, 400)), max_size=20),
    st.sampled_from([HASTY, Timing(settle_s=5.0, silent_s=600.0, renotify_critical_s=90.0, renotify_warning_s=200.0)]),
)
def test_looking_only_when_something_may_be_due_tells_the_same_at_the_same_times(
    words: list[tuple[int, str, int]], timing: Timing
) -> None:
    story, looking = Story(timing), Story(timing)
    for tenant, said, gap in words:
        for each in (story, looking):
            word: Word
            if said == "trouble":
                word = trouble(each.now, f"kind{tenant}")
            elif said == "silence":
                word = Silence(Window(id="w", since=each.now, until=each.now + 100, match={"tenant": f"t{tenant}"}))
            elif said == "ack":
                word = Acknowledge(f"policy|budget|tenant=t{tenant}", "kim", each.now)
            else:
                word = policy(said, each.now, f"t{tenant}")
            each.hear(word)
        story.wait(gap)
        for _ in range(gap):
            looking.state.quiet_until = 0.0
            looking.wait(1)

    assert [(one.id, one.at) for one in story.told] == [(one.id, one.at) for one in looking.told]


@pytest.mark.parametrize("order", ["by tenant", "shuffled in time"])
def test_a_storm_of_ten_thousand_changes_is_a_page_an_incident(order: str) -> None:
    story = Story(Timing())
    tenants = 100
    for number in range(10_000):
        if number % 160 == 0:
            story.now = T + number * 60 / 10_000
        tenant = number % tenants if order == "by tenant" else (number * 37) % tenants
        story.hear(policy("block" if (number // tenants) % 2 == 0 else "warn", T + number * 60 / 10_000, f"t{tenant}"))

    story.wait(60)

    opened = [one for one in story.told if one.occasion == "opened"]
    assert Counter(keys(opened)) == Counter({f"policy|budget|tenant=t{number}": 1 for number in range(tenants)})
    assert len(opened) <= 2
    assert [one.at for one in story.told] == sorted(one.at for one in story.told)
