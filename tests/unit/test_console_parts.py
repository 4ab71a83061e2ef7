"""The console's pure parts: ranges, rates, answers, budgets and digests, checked against plain arithmetic."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tidegate.dashboards.answers import rows_of
from tidegate.dashboards.budget_view import budgets_shown
from tidegate.dashboards.live_status import Rates, shown
from tidegate.dashboards.ranges import MOVING, Range, iso
from tidegate.processors.console_access import RIGHTS, Digests
from tidegate.processors.signalling import TOO_FEW
from tidegate.schemas.errors import UsageError
from tidegate.schemas.policy import NANO, Action, CalendarWindow, Policy, PolicySet
from tidegate.schemas.signal import Contributor, Signal

PAGE: Final = (Path(__file__).parents[2] / "docs" / "console.md").read_text()
DIGESTS: Final = Digests(b"k" * 32)
NOW: Final = datetime(2026, 11, 23, 8, 17, 41, tzinfo=UTC)


# ---- ranges


@pytest.mark.parametrize("word", MOVING)
def test_a_moving_range_begins_with_a_whole_point_and_holds_all_of_its_length(word: str) -> None:
    stretch = Range.read({"range": word})

    since, until = stretch.bounds(NOW)

    length = timedelta(seconds=MOVING[word][0])
    assert until == NOW
    assert since.timestamp() % stretch.step_s == 0
    assert length <= until - since < length + timedelta(seconds=stretch.step_s)
    assert (until - since).total_seconds() / stretch.step_s <= 302


@given(at=st.datetimes(datetime(2020, 1, 1), datetime(2040, 1, 1)), later_s=st.floats(0, 59))
def test_the_points_of_a_moving_range_stay_as_they_are_within_one(at: datetime, later_s: float) -> None:
    stretch, now = Range.read({"range": "1h"}), at.replace(tzinfo=UTC, second=0, microsecond=0)

    assert stretch.bounds(now)[0] == stretch.bounds(now + timedelta(seconds=later_s))[0]


def test_longer_ranges_are_asked_more_rarely() -> None:
    paces = [Range.read({"range": word}).pace_s for word in MOVING]

    assert paces == sorted(paces)


def test_a_fixed_range_is_as_it_was_asked_for_in_utc() -> None:
    asked = Range.read({"since": "2026-11-23T09:00:00+01:00", "until": "2026-11-23T10:30:00Z", "range": "7d"})

    assert [iso(at) for at in asked.bounds(NOW)] == ["2026-11-23T08:00:00Z", "2026-11-23T10:30:00Z"]
    assert asked == Range.read({"since": "2026-11-23T08:00:00", "until": "2026-11-23T10:30:00Z"})


@pytest.mark.parametrize(
    "asked",
    [
        {"range": "2h"},
        {"since": "now"},
        {"since": "1900-01-01", "until": "2026-01-01"},
        {"since": "2026-01-01", "until": "x"},
        {"since": "0001-01-01T00:00:00+14:00", "until": "2026-01-01"},
    ],
)
def test_a_range_that_is_none_is_told_so(asked: dict[str, str]) -> None:
    with pytest.raises(UsageError):
        Range.read(asked)


# ---- answers


def test_an_answer_has_times_in_iso_numbers_as_numbers_and_null_as_null() -> None:
    kinds = {"at": "DateTime64(3, 'UTC')", "t": "Nullable(DateTime('UTC'))", "n": "UInt64", "usd": "Nullable(Decimal(38, 9))"}
    kinds |= {"who": "LowCardinality(Nullable(String))", "tags": "Map(String, String)"}
    data = [
        ["2026-11-23 08:00:00.250", "2026-11-23 08:00:00", "18446744073709551615", 0.25, "a", {"a": "b"}],
        ["2026-11-23 08:00:00.000", None, 1, None, None, {}],
    ]

    found = rows_of(orjson.dumps({"meta": [{"name": name, "type": kind} for name, kind in kinds.items()], "data": data}))

    assert found.columns == list(kinds)
    assert found.rows == [
        ["2026-11-23T08:00:00.250Z", "2026-11-23T08:00:00Z", 2**64 - 1, 0.25, "a", {"a": "b"}],
        ["2026-11-23T08:00:00Z", None, 1, None, None, {}],
    ]


# ---- rates


def test_a_rate_is_what_was_added_in_the_last_minute() -> None:
    rates = Rates()

    told = [rates.per_s(float(at), at * 5.0 if at < 100 else 500.0) for at in range(0, 200, 2)]

    assert told[0] is None
    assert told[1] == pytest.approx(5.0)
    assert told[-1] == 0.0


def test_a_total_that_falls_or_was_not_looked_at_for_long_begins_anew() -> None:
    rates = Rates()
    rates.per_s(0.0, 100.0)

    assert rates.per_s(10.0, 50.0) is None
    assert rates.per_s(20.0, 70.0) == pytest.approx(2.0)
    assert rates.per_s(500.0, 1_000.0) is None
    assert rates.per_s(510.0, 1_010.0) == pytest.approx(1.0)


def test_the_status_names_nobody_and_says_what_it_knows() -> None:
    worst = [{"policy": "p", "scope": {"tenant": "t", "user": "ann", "label.mrn": "12345"}, "state": "block"}]
    status: dict[str, Any] = {"totals": {}, "today": {"cost_nano_usd": 0}, "policies": {"in_force": 1, "worst": worst}}

    told = shown(status, Rates(), Rates(), 0.0, DIGESTS)

    assert "ann" not in str(told)
    assert "12345" not in str(told)
    assert told["policies"]["worst"][0]["scope"]["tenant"] == "t"
    assert (told["calls_per_s"], told["cost_usd_per_h"], told["log_away"]) == (None, None, False)


# ---- budgets


def policy(name: str, measure: Any = "cost_usd", limit: str = "10") -> Policy:
    window, actions = CalendarWindow(calendar="day"), (Action(do="block", probe_every=30),)
    return Policy(name=name, scope=("tenant", "user"), measure=measure, window=window, limit=Decimal(limit), actions=actions)


def signal(name: str, spend: float, **more: Any) -> Signal:
    told: dict[str, Any] = {
        **{"policy": name, "policy_version": "v", "scope": {"tenant": "t", "user": "ann"}, "state": "ok"},
        **{"measure": "cost_usd", "spend": spend, "limit": 10.0 * NANO, "window_start": 1_000.0, "window_end": 87_400.0},
        **{"reason": f"{name}: so much", "sequence": 1, "at": 50_000.0},
    } | more
    return Signal(**told)


def test_a_burn_down_is_what_was_left_at_each_point_of_the_window_and_now() -> None:
    one = signal("day", 4.0 * NANO, reserved=1.0 * NANO, contributors=[Contributor({"team": "x"}, 1.0 * NANO)])
    spent = [(500.0, 9.0 * NANO), (1_000.0, 0.0), (20_000.0, 2.5 * NANO), (60_000.0, 8.0 * NANO)]

    [told] = budgets_shown([one], {one.key(): spent}, PolicySet(policies=(policy("day"),)), DIGESTS)

    # What was before the window began, or is later than the last word, is not of it.
    assert [left for _, left in told["points"]] == [10.0, 7.5, 5.0]
    assert [at for at, _ in told["points"]] == ["1970-01-01T00:16:40Z", "1970-01-01T05:33:20Z", "1970-01-01T13:53:20Z"]
    assert (told["spend"], told["reserved"], told["limit"], told["remaining"], told["share"]) == (4.0, 1.0, 10.0, 5.0, 0.5)
    assert told["contributors"] == [{"who": "team=x", "share": 0.25, "spend": 1.0}]
    assert told["scope"]["user"].startswith("user-")


@given(count=st.integers(0, 1_000))
def test_a_long_burn_down_is_thinned_and_keeps_its_ends(count: int) -> None:
    one = signal("day", 0.0)
    spent = [(1_000.0 + number, float(number)) for number in range(count)]

    [told] = budgets_shown([one], {one.key(): spent}, PolicySet(policies=(policy("day"),)), DIGESTS)

    times = [at for at, _ in told["points"]]
    assert len(times) <= 60
    assert times == sorted(times)
    assert len(set(times)) == len(times)
    if count:
        assert times[0] == "1970-01-01T00:16:40Z"
        assert times[-2] == iso(datetime.fromtimestamp(1_000 + count - 1, UTC))


def test_the_harshest_come_first_then_the_fullest_and_those_without_a_policy_not_at_all() -> None:
    names = ("full", "blocked", "easy", "gone", "unlimited")
    signals = [
        signal("easy", 1.0 * NANO),
        signal("unlimited", 1.0 * NANO, limit=None),
        signal("gone", 9.0 * NANO, state="block"),
        signal("full", 9.0 * NANO),
        signal("blocked", 2.0 * NANO, state="block", probe_every_s=30.0),
    ]
    policies = PolicySet(policies=tuple(policy(name) for name in names if name != "gone"))

    told = budgets_shown(signals, {}, policies, DIGESTS)

    assert [one["policy"] for one in told] == ["blocked", "full", "easy", "unlimited"]
    assert told[0]["why"] == "blocked: so much; calls are refused, but for one every 30 s"
    assert (told[3]["share"], told[3]["remaining"], told[3]["points"]) == (None, None, [])


@pytest.mark.parametrize(
    ("measure", "unit"),
    [
        ("total_tokens", "tokens"),
        ("requests", "calls"),
        ("error_rate", "share"),
        ("latency_p95_s", "seconds"),
        ("findings", "count"),
    ],
)
def test_amounts_are_in_the_unit_of_the_measure(measure: str, unit: str) -> None:
    # A limit of the policy is a share where a rate's is; the signal's is what counts.
    one = signal("p", 3.0, measure=measure, limit=12.0)

    [told] = budgets_shown([one], {}, PolicySet(policies=(policy("p", measure, "1"),)), DIGESTS)

    # A rate or a quantile is judged and never used up.
    adds_up = unit not in ("share", "seconds")
    assert (told["unit"], told["spend"], told["limit"], told["share"]) == (unit, 3.0, 12.0, 0.25)
    assert told["remaining"] == (9.0 if adds_up else None)
    assert len(told["points"]) == (1 if adds_up else 0)


def test_a_rate_of_too_few_calls_is_not_known_and_not_zero() -> None:
    one = signal("p", 0.0, measure="error_rate", limit=0.5, reason=f"p: fewer than 20 calls in the last 1 h, {TOO_FEW}")

    [told] = budgets_shown([one], {}, PolicySet(policies=(policy("p", "error_rate", "0.5"),)), DIGESTS)

    assert (told["spend"], told["share"], told["remaining"], told["limit"]) == (None, None, None, 0.5)


@pytest.mark.parametrize(
    ("more", "follows"),
    [
        ({"state": "throttle", "per_minute": 30.0}, "; at most 30 calls a minute go"),
        ({"state": "downgrade", "model": "small"}, "; calls go to small instead"),
        ({"state": "warn"}, ""),
    ],
)
def test_why_says_what_follows_for_calls(more: dict[str, Any], follows: str) -> None:
    [told] = budgets_shown([signal("p", 1.0, **more)], {}, PolicySet(policies=(policy("p"),)), DIGESTS)

    assert told["why"] == f"p: so much{follows}"


# ---- who


@given(user=st.text(min_size=1), other=st.text(min_size=1))
def test_a_digest_tells_persons_apart_and_not_who_they_are(user: str, other: str) -> None:
    assert (DIGESTS.of(user) == DIGESTS.of(other)) == (user == other)
    assert Digests(b"another key").of(user) != DIGESTS.of(user)
    assert DIGESTS.scope({"tenant": user, "user": None}) == {"tenant": user, "user": None}


def test_the_page_tells_of_each_role_what_it_may() -> None:
    rows = re.findall(r"^\| `?(\w+)`? \| ([^|]+) \| ([^|]+) \| ([^|]+) \| ([^|]+) \|", PAGE, re.MULTILINE)
    columns = ("look", "calls", "transcripts", "act")

    told = {role: tuple(right for right, said in zip(columns, said, strict=True) if said == "yes") for role, *said in rows}

    assert {role: told[role] for role in RIGHTS} == RIGHTS
