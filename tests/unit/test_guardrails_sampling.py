"""Which calls are scored, what scoring may cost, and what is remembered of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import NOW_MS
from tidegate.processors.guardrails.budget import Budget
from tidegate.processors.guardrails.cache import Cache, Fingerprints
from tidegate.processors.guardrails.ports import Finding, Sample
from tidegate.processors.guardrails.sampling import MOST_NAMES, Choice, Name, Sampling, Sighting, draw
from tidegate.processors.guardrails.suite import Assessment
from tidegate.schemas.content import ContentEvent

KEY = b"f" * 32
HOUR_MS = 3_600_000


def event(call_id: str = "call-1", **fields: Any) -> ContentEvent:
    return ContentEvent.model_construct(event="content", call_id=call_id, mode="sealed", **fields)


def test_what_is_named_is_at_risk_whatever_the_share() -> None:
    sampling = Sampling(share=0.0, always={"tenant": ["harbor-health"], "task_type": ["triage"]})

    choices = [
        sampling.choose(event(**fields), KEY, NOW_MS, behind=True)
        for fields in ({"tenant": "harbor-health"}, {"task_type": "triage"}, {"tenant": "other"})
    ]

    assert choices == [Choice.AT_RISK, Choice.AT_RISK, Choice.LEFT_OUT]


def test_a_model_is_at_risk_for_as_long_as_it_is_new() -> None:
    sampling = Sampling(share=0.0, new_for_ms=24 * HOUR_MS)
    one = event(request_model="gpt-4o", response_model="gpt-4o-2024-08-06")

    choices = [sampling.choose(one, KEY, NOW_MS + hours * HOUR_MS, behind=False) for hours in (0, 23, 24, 100)]

    assert choices == [Choice.AT_RISK, Choice.AT_RISK, Choice.LEFT_OUT, Choice.LEFT_OUT]


def test_a_new_version_of_a_known_prompt_is_at_risk() -> None:
    sampling = Sampling(share=0.0, new_for_ms=24 * HOUR_MS)
    versions = ("1", "1", "2")

    choices = [
        sampling.choose(event(prompt_name="triage", prompt_version=version), KEY, NOW_MS + hours * HOUR_MS, behind=False)
        for version, hours in zip(versions, (0, 30, 30), strict=True)
    ]

    assert choices == [Choice.AT_RISK, Choice.LEFT_OUT, Choice.AT_RISK]


def test_versions_that_are_made_up_for_each_call_are_soon_no_news() -> None:
    sampling = Sampling(share=0.0)

    choices = [
        sampling.choose(event(prompt_name="triage", prompt_version=str(number)), KEY, NOW_MS, behind=False)
        for number in range(200)
    ]

    assert choices.count(Choice.AT_RISK) == 50
    assert choices[-1] is Choice.LEFT_OUT


@pytest.mark.parametrize(
    "made_up",
    [
        lambda number: {"request_model": f"m-{number}"},
        lambda number: {"tenant": "odd", "prompt_name": f"p-{number}", "prompt_version": "1"},
        lambda number: {"tenant": "odd", "prompt_name": f"p-{number % 40}", "prompt_version": str(number)},
    ],
    ids=["models", "prompts", "versions of many prompts"],
)
def test_of_names_that_are_made_up_for_each_call_no_more_are_kept_in_a_day_than_people_give(
    made_up: Callable[[int], dict[str, str]],
) -> None:
    sampling = Sampling(share=0.0)
    kept: dict[Name, Sighting] = {}

    for number in range(5_000):
        sampling.choose(event(**made_up(number)), KEY, NOW_MS, behind=False)
        kept |= sampling.fresh
        sampling.fresh.clear()
    of_another = event(tenant="harbor-health", prompt_name="triage", prompt_version="1")

    assert len(kept) == len(sampling.seen) == 1_000
    assert sampling.choose(event(**made_up(5_000)), KEY, NOW_MS, behind=False) is Choice.LEFT_OUT
    assert sampling.choose(of_another, KEY, NOW_MS, behind=False) is Choice.AT_RISK


def test_after_a_day_names_are_news_again() -> None:
    sampling = Sampling(share=0.0)
    for number in range(60):
        sampling.choose(event(prompt_name="triage", prompt_version=str(number)), KEY, NOW_MS, behind=False)

    choices = [
        sampling.choose(event(prompt_name="triage", prompt_version="x"), KEY, NOW_MS + hours * HOUR_MS, behind=False)
        for hours in (23, 24)
    ]

    assert choices == [Choice.LEFT_OUT, Choice.AT_RISK]


def test_who_takes_over_knows_what_was_new_before() -> None:
    first = Sampling(share=0.0, new_for_ms=24 * HOUR_MS)
    first.choose(event(request_model="usual"), KEY, NOW_MS, behind=False)
    next_one = Sampling(share=0.0, new_for_ms=24 * HOUR_MS)

    next_one.restore(first.fresh.items())
    choices = [
        next_one.choose(event(request_model=model), KEY, NOW_MS + hours * HOUR_MS, behind=False)
        for model, hours in (("usual", 23), ("usual", 24), ("new", 24))
    ]

    assert choices == [Choice.AT_RISK, Choice.LEFT_OUT, Choice.AT_RISK]


def test_versions_made_up_for_each_call_are_no_news_to_whoever_takes_over_either() -> None:
    first, next_one = Sampling(share=0.0), Sampling(share=0.0)
    for number in range(200):
        first.choose(event(prompt_name="triage", prompt_version=str(number)), KEY, NOW_MS, behind=False)

    next_one.restore(first.fresh.items())
    next_one.restore(first.fresh.items())

    assert next_one.choose(event(prompt_name="triage", prompt_version="x"), KEY, NOW_MS, behind=False) is Choice.LEFT_OUT
    assert next_one.choose(event(prompt_name="other", prompt_version="x"), KEY, NOW_MS, behind=False) is Choice.AT_RISK


def test_what_is_in_use_is_kept_again_before_it_is_forgotten_and_stays_as_old_as_it_is() -> None:
    sampling = Sampling(share=0.0)
    topic: dict[Name, Sighting] = {}

    for day in range(40):
        sampling.choose(event(request_model="usual"), KEY, NOW_MS + day * 24 * HOUR_MS, behind=False)
        topic |= sampling.fresh
        sampling.fresh.clear()

    kept = topic["model", "usual"]
    assert kept.first_ms == NOW_MS
    assert NOW_MS + 39 * 24 * HOUR_MS - kept.kept_ms < 6 * 24 * HOUR_MS


def test_of_two_who_met_a_name_at_once_the_first_counts() -> None:
    ours, theirs = Sighting(NOW_MS + 5, NOW_MS + 9), Sighting(NOW_MS, NOW_MS + 7)
    sampling = Sampling()

    sampling.restore([(("model", "m"), ours), (("model", "m"), theirs)])

    assert sampling.seen["model", "m"] == (NOW_MS, NOW_MS + 9)


@pytest.mark.parametrize(("new_for_ms", "choice"), [(0, Choice.LEFT_OUT), (1_000, Choice.AT_RISK)])
def test_a_name_that_another_partition_met_earlier_is_as_old_as_it_was_there(new_for_ms: int, choice: Choice) -> None:
    sampling = Sampling(share=0.0, new_for_ms=new_for_ms)
    later, earlier = (NOW_MS + 60_000, NOW_MS)

    choices = [sampling.choose(event(request_model="m"), KEY, at_ms, behind=False) for at_ms in (later, earlier, later)]

    assert choices == [choice, choice, Choice.LEFT_OUT]
    assert sampling.fresh["model", "m"] == sampling.seen["model", "m"] == (earlier, later)


def test_no_more_names_are_remembered_than_there_is_room_for() -> None:
    sampling = Sampling()

    sampling.restore((("model", str(number)), Sighting(NOW_MS, NOW_MS)) for number in range(MOST_NAMES + 5))

    assert len(sampling.seen) == MOST_NAMES
    assert ("model", "4") not in sampling.seen


def test_a_scope_that_a_policy_watches_is_at_risk_by_the_model_that_answered() -> None:
    sampling = Sampling(share=0.0, new_for_ms=0, watched=[{"tenant": "leaky", "model": "m-2"}])

    choices = [
        sampling.choose(event(tenant="leaky", request_model="m", response_model=answered), KEY, NOW_MS, behind=False)
        for answered in ("m-1", "m-2")
    ]

    assert choices == [Choice.LEFT_OUT, Choice.AT_RISK]


def test_what_is_ordinary_is_left_out_while_scoring_is_behind() -> None:
    sampling = Sampling(share=1.0)

    choices = [sampling.choose(event(), KEY, NOW_MS, behind=behind) for behind in (False, True)]

    assert choices == [Choice.ORDINARY, Choice.LEFT_OUT]


def test_what_is_merely_new_is_left_out_too_once_scoring_is_far_behind() -> None:
    sampling = Sampling(always={"tenant": ["harbor-health"]})
    new = {"request_model": "new"}

    choices = [
        sampling.choose(event(**new, **more), KEY, NOW_MS, behind=True, far_behind=far_behind)
        for more, far_behind in (({}, False), ({}, True), ({"tenant": "harbor-health"}, True))
    ]

    assert choices == [Choice.AT_RISK, Choice.LEFT_OUT, Choice.AT_RISK]


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_the_share_is_kept_and_the_same_calls_are_chosen_everywhere(share: float) -> None:
    calls = [event(f"call-{number}") for number in range(5_000)]

    first = [Sampling(share=share).choose(one, KEY, NOW_MS, behind=False) for one in calls]
    second = [Sampling(share=share).choose(one, KEY, NOW_MS, behind=False) for one in calls]

    assert first == second
    # Five standard deviations of a fair draw are some 3.5 % of the calls.
    assert abs(first.count(Choice.ORDINARY) / len(calls) - share) < 0.036


def test_who_has_another_key_cannot_tell_which_calls_are_chosen() -> None:
    ours = [draw(KEY, f"call-{number}") < 0.5 for number in range(1_000)]
    theirs = [draw(b"g" * 32, f"call-{number}") < 0.5 for number in range(1_000)]

    agreed = sum(one == other for one, other in zip(ours, theirs, strict=True))

    assert 400 < agreed < 600


def test_a_budget_lets_a_burst_through_and_then_keeps_its_pace() -> None:
    budget = Budget(share=0.5, now=0.0)

    budget.spent(20.0)
    answers = [budget.allows(now) for now in (0.0, 9.0, 11.0)]

    # 15 s at once; the other five are paid back at half a second a second.
    assert answers == [False, False, True]


@given(st.lists(st.tuples(st.floats(0, 5), st.floats(0, 30)), max_size=50), st.floats(0.01, 4))
def test_no_more_is_spent_than_the_burst_the_pace_and_one_batch(steps: list[tuple[float, float]], share: float) -> None:
    budget, now, spent = Budget(share=share, now=0.0), 0.0, 0.0

    for cost, pause in steps:
        now += pause
        if budget.allows(now):
            budget.spent(cost)
            spent += cost

    assert spent <= share * (30 + now) + 5 + 1e-6


def sample(prompt: str, **known: str) -> Sample:
    return Sample("any", prompt, known=known)


def test_a_fingerprint_tells_texts_places_facts_versions_and_keys_apart() -> None:
    names = Fingerprints(KEY, ["phi=1"])
    samples = [
        sample("a"),
        sample("b"),
        Sample("any", None, "a"),
        Sample("any", None, None, ("a",)),
        Sample("any", "a", None, ("",)),
        sample("a", prompt_name="x"),
    ]

    found = {names.of(one) for one in samples}
    found |= {Fingerprints(KEY, ["phi=2"]).of(sample("a")), Fingerprints(b"g" * 32, ["phi=1"]).of(sample("a"))}

    assert len(found) == len(samples) + 2
    assert names.of(Sample("other id", "a")) == names.of(sample("a"))


def test_a_cache_keeps_what_was_used_last_within_its_bound() -> None:
    cache = Cache(most_bytes=3_000)
    for number in range(9):
        cache.put(b"%d" % number, Assessment())

    first = cache.get(b"0")
    cache.put(b"one more", Assessment(findings=[Finding("phi", "PERSON", "prompt", 0, 3, 0.9)] * 5))

    assert first is not None
    assert cache.get(b"0") is first
    assert cache.get(b"1") is None
    assert cache.size_bytes <= 3_000


def test_a_cache_does_not_keep_what_failed() -> None:
    cache = Cache()

    cache.put(b"x", Assessment(failed={"phi": "ValueError"}))

    assert cache.get(b"x") is None
    assert len(cache) == 0
