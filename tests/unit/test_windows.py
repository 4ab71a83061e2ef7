"""Windows: what counts now, whatever the order, the repetition, the restart, the time zone or the night the clocks change."""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from tidegate.processors.sketch import bin_of
from tidegate.processors.windows import BUCKETS, Buckets, RatioRing, Ring, SketchRing, buckets_of, forecast
from tidegate.schemas.policy import CalendarWindow, RollingWindow

HOUR_S, DAY_S = 3_600, 86_400
UNITS = ("hour", "day", "week", "month")
ZONES = (
    "UTC",
    "America/New_York",
    "Europe/London",
    "Australia/Lord_Howe",  # set by half an hour
    "Asia/Kathmandu",  # +5:45
    "Pacific/Chatham",  # +12:45, and set by an hour
    "America/Havana",  # set at midnight: one falls into the gap, and in autumn there are two
    "America/Asuncion",  # set back from midnight into the day before
    "Pacific/Apia",
    "Africa/Casablanca",  # set back for Ramadan
    "Asia/Pyongyang",  # changed its offset by half an hour, twice
)
EARLIEST_S, LATEST_S = 1_325_400_000, 2_140_000_000  # 2012 to 2037

moments = st.one_of(st.integers(EARLIEST_S, LATEST_S).map(float), st.floats(EARLIEST_S, LATEST_S))
amounts = st.one_of(st.integers(0, 10), st.integers(0, 2**62))
rolling = st.one_of(st.sampled_from([60, 61, 3_600, DAY_S, 31 * DAY_S]), st.integers(60, 31 * DAY_S)).map(
    lambda length_s: RollingWindow(rolling=length_s)
)
calendar = st.builds(
    lambda unit, zone: CalendarWindow(calendar=unit, time_zone=zone), st.sampled_from(UNITS), st.sampled_from(ZONES)
)
windows = st.one_of(rolling, calendar)


def at(text: str) -> float:
    """Seconds since 1970 of a UTC moment such as `2026-03-08 05:00`."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def of(unit: str, zone: str = "UTC") -> Buckets:
    return buckets_of(CalendarWindow.model_validate({"calendar": unit, "time_zone": zone}))


def last_s(length_s: int) -> Buckets:
    return buckets_of(RollingWindow(rolling=length_s))


def spent(buckets: Buckets, at_s: float, amount: int = 1) -> Ring:
    """A ring with one amount."""
    ring = Ring(buckets)
    assert ring.set(buckets.bucket_start(at_s), amount, at_s) == "kept"
    return ring


def latest_shown(zone: ZoneInfo, at_s: float) -> datetime:
    """The latest time that the wall clock has shown by then: it repeats an hour, but does not start a day twice.

    Clocks are set at quarters of an hour, so it is enough to look at those and just before.
    """
    quarters = range((int(at_s) - 26 * HOUR_S) // 900 * 900, int(at_s) + 1, 900)
    looks = [at_s, *quarters, *(quarter - 1 for quarter in quarters)]
    return max(datetime.fromtimestamp(look, zone).replace(tzinfo=None) for look in looks)


def period_of(unit: str, zone: ZoneInfo, at_s: float) -> object:
    """Which period a moment is in, told from the calendar: equal for two moments if and only if it is the same one."""
    if unit == "hour":
        # Whole hours of offset do not move the minute hand.
        local = datetime.fromtimestamp(at_s, zone)
        return datetime.fromtimestamp(at_s, UTC) - timedelta(
            minutes=local.minute, seconds=local.second, microseconds=local.microsecond
        )
    shown = latest_shown(zone, at_s)
    return {"day": shown.date(), "week": shown.isocalendar()[:2], "month": (shown.year, shown.month)}[unit]


class TestPeriods:
    @pytest.mark.parametrize(
        ("zone", "inside", "start", "end"),
        [
            pytest.param("UTC", "2026-11-02 08:00", "2026-11-02 00:00", "2026-11-03 00:00", id="an ordinary day"),
            pytest.param("America/New_York", "2026-03-08 07:00", "2026-03-08 05:00", "2026-03-09 04:00", id="23 h New York"),
            pytest.param("America/New_York", "2026-11-01 06:30", "2026-11-01 04:00", "2026-11-02 05:00", id="25 h New York"),
            pytest.param("Europe/London", "2026-03-29 01:00", "2026-03-29 00:00", "2026-03-29 23:00", id="23 h London"),
            pytest.param("Europe/London", "2026-10-25 01:00", "2026-10-24 23:00", "2026-10-26 00:00", id="25 h London"),
            pytest.param("Australia/Lord_Howe", "2026-10-04 00:00", "2026-10-03 13:30", "2026-10-04 13:00", id="23.5 h"),
            pytest.param("Australia/Lord_Howe", "2026-04-05 00:00", "2026-04-04 13:00", "2026-04-05 13:30", id="24.5 h"),
            pytest.param("Asia/Kathmandu", "2026-11-02 18:14", "2026-11-01 18:15", "2026-11-02 18:15", id="+5:45"),
            pytest.param(
                "Asia/Kathmandu", "1986-01-01 00:00", "1985-12-31 18:30", "1986-01-01 18:15", id="+5:30 becomes +5:45"
            ),
            pytest.param(
                "Pacific/Apia", "2011-12-30 09:59", "2011-12-29 10:00", "2011-12-30 10:00", id="before the skipped day"
            ),
            pytest.param(
                "Pacific/Apia", "2011-12-30 10:00", "2011-12-30 10:00", "2011-12-31 10:00", id="after the skipped day"
            ),
            pytest.param("Pacific/Kwajalein", "1969-10-01 00:00", "1969-09-29 13:00", "1969-10-01 12:00", id="a day twice"),
            pytest.param("America/Havana", "2026-03-08 12:00", "2026-03-08 05:00", "2026-03-09 04:00", id="no midnight"),
            pytest.param("America/Havana", "2026-11-01 05:30", "2026-11-01 04:00", "2026-11-02 05:00", id="two midnights"),
            pytest.param(
                "America/Sao_Paulo", "2018-02-18 02:30", "2018-02-17 02:00", "2018-02-18 03:00", id="no midnight reached"
            ),
            pytest.param("America/St_Johns", "2010-11-07 02:45", "2010-11-07 02:30", "2010-11-08 03:30", id="back at 00:01"),
        ],
    )
    def test_a_day_is_as_long_as_its_clock_says(self, zone: str, inside: str, start: str, end: str) -> None:
        day = of("day", zone)

        assert day.bounds(at(inside)) == (at(start), at(end))
        assert day.resets_at(at(inside)) == at(end)

    @pytest.mark.parametrize(
        ("zone", "inside", "start", "end"),
        [
            pytest.param("UTC", "2024-02-29 12:00", "2024-02-01 00:00", "2024-03-01 00:00", id="29 days"),
            pytest.param("UTC", "2026-02-28 23:59", "2026-02-01 00:00", "2026-03-01 00:00", id="28 days"),
            pytest.param("UTC", "2100-02-28 23:59", "2100-02-01 00:00", "2100-03-01 00:00", id="no leap year"),
            pytest.param("UTC", "2026-04-30 23:59", "2026-04-01 00:00", "2026-05-01 00:00", id="30 days"),
            pytest.param("UTC", "2026-12-31 23:59", "2026-12-01 00:00", "2027-01-01 00:00", id="31 days, to the year's end"),
            pytest.param(
                "America/New_York", "2027-01-01 04:59", "2026-12-01 05:00", "2027-01-01 05:00", id="the year ends later"
            ),
            pytest.param("America/New_York", "2026-03-31 12:00", "2026-03-01 05:00", "2026-04-01 04:00", id="an hour short"),
            pytest.param("Pacific/Apia", "2011-12-31 09:00", "2011-12-01 10:00", "2011-12-31 10:00", id="a day short"),
        ],
    )
    def test_a_month_ends_where_the_next_begins(self, zone: str, inside: str, start: str, end: str) -> None:
        assert of("month", zone).bounds(at(inside)) == (at(start), at(end))

    @pytest.mark.parametrize(
        ("zone", "inside", "start", "end"),
        [
            pytest.param("UTC", "2021-01-01 00:00", "2020-12-28 00:00", "2021-01-04 00:00", id="over new year"),
            pytest.param("UTC", "2024-12-31 23:59", "2024-12-30 00:00", "2025-01-06 00:00", id="over another"),
            pytest.param("UTC", "2026-11-02 00:00", "2026-11-02 00:00", "2026-11-09 00:00", id="from its first moment"),
            pytest.param("America/New_York", "2026-03-08 12:00", "2026-03-02 05:00", "2026-03-09 04:00", id="an hour short"),
            pytest.param("Asia/Kathmandu", "2026-11-01 18:14", "2026-10-25 18:15", "2026-11-01 18:15", id="to its last moment"),
        ],
    )
    def test_a_week_runs_from_monday_over_every_boundary(self, zone: str, inside: str, start: str, end: str) -> None:
        assert of("week", zone).bounds(at(inside)) == (at(start), at(end))

    @pytest.mark.parametrize(
        ("zone", "inside", "start", "end"),
        [
            pytest.param("UTC", "2026-11-02 08:59", "2026-11-02 08:00", "2026-11-02 09:00", id="an ordinary hour"),
            pytest.param("America/New_York", "2026-11-01 05:30", "2026-11-01 05:00", "2026-11-01 06:00", id="the first of two"),
            pytest.param(
                "America/New_York", "2026-11-01 06:30", "2026-11-01 06:00", "2026-11-01 07:00", id="the second of two"
            ),
            pytest.param("Asia/Kolkata", "2026-11-02 08:29", "2026-11-02 07:30", "2026-11-02 08:30", id="+5:30"),
            pytest.param("Asia/Kathmandu", "2026-11-02 08:15", "2026-11-02 08:15", "2026-11-02 09:15", id="+5:45"),
            pytest.param("Australia/Lord_Howe", "2026-10-03 15:45", "2026-10-03 14:30", "2026-10-03 16:00", id="90 minutes"),
            pytest.param("Australia/Lord_Howe", "2026-04-04 15:10", "2026-04-04 15:00", "2026-04-04 15:30", id="30 minutes"),
        ],
    )
    def test_an_hour_follows_the_minute_hand(self, zone: str, inside: str, start: str, end: str) -> None:
        assert of("hour", zone).bounds(at(inside)) == (at(start), at(end))

    @given(calendar, moments)
    def test_each_moment_is_in_one_period_and_the_next_begins_where_it_ends(self, window: CalendarWindow, now_s: float) -> None:
        buckets = buckets_of(window)

        start_s, end_s = buckets.bounds(now_s)

        assert start_s <= now_s < end_s
        assert buckets.bounds(end_s)[0] == end_s
        assert buckets.bounds(start_s) == (start_s, end_s)
        assert buckets.bounds(start_s - 1)[1] == start_s

    @given(calendar, moments, st.floats(-40 * DAY_S, 40 * DAY_S))
    @example(CalendarWindow(calendar="day", time_zone="America/Havana"), 1_793_509_200.0, 1_800.0)
    @settings(max_examples=300)
    def test_two_moments_share_a_period_when_the_calendar_says_so(
        self, window: CalendarWindow, now_s: float, apart_s: float
    ) -> None:
        # A half-hour change leaves the hour around it to the examples above.
        assume(window.calendar != "hour" or window.time_zone not in ("Australia/Lord_Howe", "Asia/Pyongyang"))
        zone, other_s = ZoneInfo(window.time_zone), now_s + apart_s * {"hour": 1e-3, "day": 0.03}.get(window.calendar, 1.0)
        start_s, end_s = buckets_of(window).bounds(now_s)

        shared = period_of(window.calendar, zone, now_s) == period_of(window.calendar, zone, other_s)

        assert (start_s <= other_s < end_s) == shared


class TestBuckets:
    @given(windows, moments)
    def test_a_bucket_holds_its_moment_and_is_a_sixtieth_of_the_window(
        self, window: RollingWindow | CalendarWindow, at_s: float
    ) -> None:
        buckets = buckets_of(window)
        start, number = buckets.bucket_start(at_s), buckets.number(at_s)
        start_s, end_s = buckets.bounds(at_s)
        whole_s = window.rolling if isinstance(window, RollingWindow) else int(end_s - start_s)

        assert start <= at_s < start + math.ceil(whole_s / BUCKETS)
        assert (buckets.number(start), buckets.start_of(number)) == (number, start)
        assert buckets.number(math.nextafter(start, 0)) < number

    @given(calendar, moments)
    def test_a_period_has_sixty_buckets_at_most_and_they_do_not_leave_it(self, window: CalendarWindow, now_s: float) -> None:
        buckets = buckets_of(window)
        start_s, end_s = buckets.bounds(now_s)
        first, last, _ = buckets.reach(now_s)

        assert last - first + 1 == BUCKETS
        assert buckets.number(start_s) == first
        assert first <= buckets.number(end_s - 1) <= last
        assert buckets.number(end_s) > last

    def test_a_period_that_sixty_does_not_divide_has_a_short_last_bucket(self) -> None:
        day, now_s = of("day", "Africa/Monrovia"), at("1972-01-07 12:00")  # the day it gave up an offset of -0:44:30

        start_s, end_s = day.bounds(now_s)

        assert end_s - start_s == DAY_S - (44 * 60 + 30)
        assert day.number(end_s - 1) - day.number(start_s) == BUCKETS - 1
        assert end_s - day.bucket_start(end_s - 1) == 1_396 - 30

    @given(windows, st.lists(moments, min_size=2, max_size=30))
    def test_later_moments_have_no_lower_bucket_in_whatever_order_they_are_asked_for(
        self, window: RollingWindow | CalendarWindow, asked: list[float]
    ) -> None:
        buckets = buckets_of(window)
        numbers = {moment: buckets.number(moment) for moment in asked}

        in_order = [numbers[moment] for moment in sorted(numbers)]

        assert in_order == sorted(in_order)
        assert all(buckets_of(window).number(moment) == number for moment, number in numbers.items())

    @given(rolling, moments)
    def test_a_rolling_window_reaches_back_one_bucket_more_at_most(self, window: RollingWindow, now_s: float) -> None:
        buckets = buckets_of(window)
        start_s, end_s = buckets.bounds(now_s)
        first, last, _ = buckets.reach(now_s)

        assert end_s == now_s
        assert now_s - window.rolling - window.bucket_s <= start_s <= now_s - window.rolling
        assert last - first <= BUCKETS
        assert buckets.resets_at(now_s) is None

    @given(windows, moments)
    def test_what_falls_out_next_has_fallen_out_then_and_not_before(
        self, window: RollingWindow | CalendarWindow, now_s: float
    ) -> None:
        buckets = buckets_of(window)
        first = buckets.reach(now_s)[0]

        then_s = buckets.next_change(now_s)

        assert then_s > now_s
        assert buckets.reach(then_s - 0.001)[0] == first or then_s - 0.001 < now_s
        assert buckets.reach(then_s)[0] > first


Events = Sequence[tuple[float, int]]


def events_around(now_s: float, reach_s: float) -> st.SearchStrategy[list[tuple[float, int]]]:
    ago = st.one_of(st.floats(0, reach_s), st.integers(0, int(reach_s)).map(float))
    return st.lists(st.tuples(ago.map(lambda seconds: now_s - seconds), amounts), max_size=40)


def hear(ring: Ring, buckets: Buckets, events: Events, now_s: float, data: st.DataObject) -> None:
    """Set the absolute amounts of the events' buckets: some too early and partly, in any order, and repeated."""
    whole: Counter[int] = Counter()
    for at_s, amount in events:
        whole[buckets.bucket_start(at_s)] += amount
    if whole:
        for start in data.draw(st.lists(st.sampled_from(sorted(whole)), max_size=10)):
            ring.set(start, min(data.draw(st.integers(0, 2**62)), 2**62), now_s)
    for start in data.draw(st.permutations(sorted(whole))):
        for _ in range(data.draw(st.integers(1, 2))):
            ring.set(start, min(whole[start], 2**62), now_s)


class TestSums:
    @given(rolling, moments, st.data())
    def test_a_rolling_sum_is_never_under_the_true_one_and_over_it_by_the_oldest_bucket_at_most(
        self, window: RollingWindow, now_s: float, data: st.DataObject
    ) -> None:
        buckets = buckets_of(window)
        events = [(at_s, amount >> 6) for at_s, amount in data.draw(events_around(now_s, 1.5 * window.rolling))]
        ring = Ring(buckets)
        hear(ring, buckets, events, now_s, data)

        for later_s in [now_s, *sorted(now_s + data.draw(st.floats(0, 1.2)) * window.rolling for _ in range(3))]:
            counted = ring.sum(later_s)

            true = sum(amount for at_s, amount in events if later_s - window.rolling < at_s <= later_s)
            oldest = buckets.bucket_start(buckets.bounds(later_s)[0])
            of_oldest = sum(amount for at_s, amount in events if buckets.bucket_start(at_s) == oldest)
            assert true <= counted <= true + of_oldest

    @given(calendar, moments, st.data())
    def test_a_calendar_sum_is_exactly_that_of_the_period(
        self, window: CalendarWindow, now_s: float, data: st.DataObject
    ) -> None:
        assume(window.calendar != "hour" or window.time_zone not in ("Australia/Lord_Howe", "Asia/Pyongyang"))
        buckets, zone = buckets_of(window), ZoneInfo(window.time_zone)
        reach_s = {"hour": 1, "day": 24, "week": 168, "month": 700}[window.calendar] * HOUR_S * 1.4
        events = [(at_s, amount >> 6) for at_s, amount in data.draw(events_around(now_s, reach_s))]
        ring = Ring(buckets)
        hear(ring, buckets, events, now_s, data)

        current = period_of(window.calendar, zone, now_s)

        assert ring.sum(now_s) == sum(amount for at_s, amount in events if period_of(window.calendar, zone, at_s) == current)
        assert ring.sum(buckets.bounds(now_s)[1]) == 0

    @given(windows, moments, st.data())
    def test_restarts_late_amounts_and_the_passing_of_time_change_nothing(
        self, window: RollingWindow | CalendarWindow, now_s: float, data: st.DataObject
    ) -> None:
        buckets = buckets_of(window)
        length_s = buckets.next_change(now_s) - buckets.bounds(now_s)[0]
        ring, model = Ring(buckets), dict[int, int]()
        for _ in range(data.draw(st.integers(1, 25))):
            step = data.draw(st.sampled_from(["set", "set", "set", "add", "pass", "restart"]))
            first, last, furthest = buckets.reach(now_s)
            if step in ("set", "add"):
                number = data.draw(st.integers(first - 3, furthest + 3))
                start = buckets.start_of(number)
                number = buckets.number(start)  # a period of few buckets ends before its sixtieth
                amount = data.draw(amounts)
                placed = ring.set(start, amount, now_s) if step == "set" else ring.add(start, amount >> 6, now_s)
                expected = "too_old" if number < first else "too_far_ahead" if number > furthest else "kept"
                assert placed == expected
                if placed == "kept":
                    model[number] = amount if step == "set" else model.get(number, 0) + (amount >> 6)
            elif step == "pass":
                now_s += data.draw(st.floats(0, 1)) * length_s * data.draw(st.sampled_from([0.01, 0.1, 1.5]))
                first, last, furthest = buckets.reach(now_s)
            else:
                ring = Ring.load(buckets, ring.dump())

            assert ring.sum(now_s) == sum(amount for number, amount in model.items() if first <= number <= last)
            assert ring.is_idle(now_s) == (not any(amount for number, amount in model.items() if number >= first))
            counted = [number for number, amount in model.items() if amount and first <= number <= last]
            assert ring.next_change(now_s) == (buckets.falls_out_at(min(counted)) if counted else None)

    def test_counting_up_is_setting_the_sum(self) -> None:
        minute = last_s(60)
        ring = Ring(minute)

        placed = [ring.add(1_000.2, 5, 1_001.0), ring.add(1_000.9, 7, 1_001.0), ring.add(1_001.0, 1, 1_001.0)]

        assert placed == ["kept"] * 3
        assert ring.sum(1_001.0) == 13
        ring.set(1_000, 2, 1_001.0)
        assert ring.sum(1_001.0) == 3

    @pytest.mark.parametrize("bucket_start", [0, 939])
    def test_what_is_too_old_is_refused_and_said_to_be(self, bucket_start: int) -> None:
        ring = spent(last_s(60), 1_000.0, 5)

        assert ring.set(bucket_start, 9, 1_000.5) == "too_old"
        assert ring.sum(1_000.5) == 5

    def test_a_bucket_counts_whole_until_all_of_it_has_expired(self) -> None:
        ring = spent(last_s(60), 1_000.0, 5)

        assert [ring.sum(now_s) for now_s in (1_000.0, 1_060.0, 1_060.999, 1_061.0)] == [5, 5, 5, 0]
        assert ring.next_change(1_000.0) == 1_061.0
        assert (ring.is_idle(1_060.999), ring.is_idle(1_061.0)) == (False, True)

    def test_what_is_ahead_of_now_counts_once_now_reaches_it(self) -> None:
        ring = spent(last_s(60), 1_000.0, 5)

        placed = [ring.set(1_003, 7, 1_000.0), ring.set(1_060, 1, 1_000.0), ring.set(1_061, 9, 1_000.0)]

        assert placed == ["kept", "kept", "too_far_ahead"]
        assert [ring.sum(now_s) for now_s in (1_000.0, 1_002.9, 1_003.0, 1_060.0, 1_061.0)] == [5, 5, 12, 13, 8]
        assert not ring.is_idle(1_000.0)

    def test_a_clock_ahead_within_the_period_counts_at_once_and_beyond_it_in_the_next(self) -> None:
        day, now_s = of("day"), at("2026-11-02 12:00")
        ring = Ring(day)

        placed = [
            ring.set(int(at(moment)), amount, now_s)
            for moment, amount in (("2026-11-02 18:00", 1), ("2026-11-03 00:00", 2), ("2026-11-03 23:36", 4))
        ]

        assert placed == ["kept"] * 3
        assert ring.sum(now_s) == 1
        assert ring.sum(at("2026-11-03 00:00")) == 6
        assert ring.set(int(at("2026-11-04 00:00")), 8, now_s) == "too_far_ahead"
        assert ring.set(int(at("2026-11-01 23:36")), 8, now_s) == "too_old"

    def test_an_amount_of_four_billion_dollars_fits_and_sums_do_not_overflow(self) -> None:
        minute = last_s(60)
        ring = Ring(minute)
        for start in range(940, 1_001):
            ring.set(start, 2**62, 1_000.0)

        assert Ring.load(minute, ring.dump()).sum(1_000.0) == 61 * 2**62

    @pytest.mark.parametrize("buckets", [last_s(60), last_s(31 * DAY_S), of("month", "America/New_York"), of("hour")])
    def test_a_full_ring_takes_at_most_700_bytes_after_any_number_of_windows(self, buckets: Buckets) -> None:
        ring, now_s = Ring(buckets), at("2026-11-02 12:00")
        for _ in range(300):
            ring.set(buckets.bucket_start(now_s), 2**62, now_s)
            now_s = buckets.start_of(buckets.number(now_s) + 1) + 0.5
        first, last, _ = buckets.reach(now_s)
        for number in range(first, last + 1):
            ring.set(buckets.start_of(number), 2**62, now_s)

        size = sys.getsizeof(ring) + sum(sys.getsizeof(getattr(ring, name)) for name in ring.__slots__ if name != "_buckets")

        assert size <= 700

    def test_a_restart_keeps_little_of_a_quiet_scope(self) -> None:
        ring = spent(last_s(DAY_S), at("2026-11-02 12:00"), 5_000_000)

        assert len(ring.dump()) <= 16


class TestPace:
    @given(windows, moments, st.integers(1, 10**12))
    def test_a_steady_spend_burns_at_its_rate(self, window: RollingWindow | CalendarWindow, now_s: float, each: int) -> None:
        buckets = buckets_of(window)
        current = buckets.number(now_s)
        start_s = buckets.start_of(current)
        assume(isinstance(window, RollingWindow) or start_s > buckets.bounds(now_s)[0])
        first = buckets.reach(now_s)[0]
        ring = Ring(buckets)
        for number in range(max(first, current - 9), current):
            ring.set(buckets.start_of(number), each, float(start_s))

        burn = ring.burn_per_s(float(start_s))

        assert burn == pytest.approx(each / (start_s - buckets.start_of(current - 1)))

    def test_a_burst_fades_from_the_rate_after_five_buckets(self) -> None:
        ring = spent(last_s(60), 1_000.0, 90)

        rates = [ring.burn_per_s(now_s) for now_s in (1_000.5, 1_004.5, 1_005.0)]

        assert rates == [20.0, 20.0, 0.0]

    def test_the_first_call_of_a_month_is_no_flood(self) -> None:
        month, now_s = of("month"), at("2026-11-01 00:00") + 1

        burn = spent(month, now_s, 43_200).burn_per_s(now_s)

        assert burn == 1.0  # a bucket of November is twelve hours

    def test_the_rate_does_not_look_back_into_the_last_period(self) -> None:
        day = of("day")
        ring = spent(day, at("2026-11-01 23:59"), 1_000)

        assert ring.burn_per_s(at("2026-11-02 00:01")) == 0.0

    def test_rates_of_source_partitions_add_up(self) -> None:
        day, now_s = of("day"), at("2026-11-02 12:10")
        rings = [spent(day, now_s - 3_000, 700), spent(day, now_s, 40)]
        whole = spent(day, now_s - 3_000, 700)
        whole.set(day.bucket_start(now_s), 40, now_s)

        assert sum(ring.burn_per_s(now_s) for ring in rings) == pytest.approx(whole.burn_per_s(now_s))

    @pytest.mark.parametrize(
        ("spend", "burn", "limit", "expected"),
        [
            pytest.param(40, 2.0, 100, 1_030.0, id="ahead"),
            pytest.param(100, 2.0, 100, 1_000.0, id="reached"),
            pytest.param(150, 0.0, 100, 1_000.0, id="passed"),
            pytest.param(0, 0.0, 0, 1_000.0, id="a limit of nothing"),
            pytest.param(40, 0.0, 100, None, id="at rest"),
            pytest.param(40, None, 100, None, id="rate unknown"),
            pytest.param(40, -2.0, 100, None, id="refunds"),
        ],
    )
    def test_the_limit_is_reached_when_the_rest_is_spent(
        self, spend: float, burn: float | None, limit: float, expected: float | None
    ) -> None:
        assert forecast(spend, burn, limit, 1_000.0) == expected


class TestRatios:
    def test_nothing_counted_has_no_ratio(self) -> None:
        ring = RatioRing(last_s(60))

        assert (ring.ratio(1_000.0), ring.counts(1_000.0), ring.next_change(1_000.0)) == (None, (0, 0), None)
        assert ring.is_idle(1_000.0)

    def test_the_ratio_is_of_what_counts_now(self) -> None:
        ring = RatioRing(last_s(60))

        placed = [
            ring.set(1_000, 9, 9, 1_000.0),
            ring.set(1_000, 3, 10, 1_000.0),
            ring.add(1_030.5, (0, 30), 1_030.5),
            ring.set(900, 9, 9, 1_030.5),
            ring.set(1_200, 9, 9, 1_030.5),
        ]

        assert placed == ["kept", "kept", "kept", "too_old", "too_far_ahead"]
        assert (ring.counts(1_031.0), ring.ratio(1_031.0)) == ((3, 40), 0.075)
        assert ring.next_change(1_031.0) == 1_061.0
        assert ring.ratio(1_061.0) == 0.0

    @given(windows, moments, st.lists(st.tuples(st.floats(0, 0.9), st.integers(0, 50), st.integers(0, 50)), max_size=20))
    def test_a_restart_keeps_the_counts(
        self, window: RollingWindow | CalendarWindow, now_s: float, counts: list[tuple[float, int, int]]
    ) -> None:
        buckets = buckets_of(window)
        start_s = buckets.bounds(now_s)[0]
        ring = RatioRing(buckets)
        for share, part, rest in counts:
            assert ring.add(start_s + (now_s - start_s) * share, (part, part + rest), now_s) == "kept"

        loaded = RatioRing.load(buckets, ring.dump())

        assert loaded.counts(now_s) == (sum(part for _, part, _ in counts), sum(part + rest for _, part, rest in counts))
        assert loaded.next_change(now_s) == ring.next_change(now_s)


class TestLatencies:
    def test_nothing_counted_has_no_quantile(self) -> None:
        ring = SketchRing(last_s(60))

        assert (ring.quantile(1_000.0, 0.95), ring.count(1_000.0), ring.next_change(1_000.0)) == (None, 0, None)
        assert ring.is_idle(1_000.0)

    @given(
        windows,
        moments,
        st.lists(st.tuples(st.floats(0, 0.99), st.floats(0.001, 600)), min_size=1, max_size=40),
        st.sampled_from([0.5, 0.95, 0.99]),
    )
    def test_a_quantile_is_within_one_percent_before_and_after_a_restart(
        self, window: RollingWindow | CalendarWindow, now_s: float, calls: list[tuple[float, float]], q: float
    ) -> None:
        buckets = buckets_of(window)
        start_s = buckets.bounds(now_s)[0]
        ring = SketchRing(buckets)
        for share, latency_s in calls:
            assert ring.add(start_s + (now_s - start_s) * share, bin_of(latency_s), now_s) == "kept"

        loaded = SketchRing.load(buckets, ring.dump())

        exact = sorted(latency_s for _, latency_s in calls)[math.floor(q * (len(calls) - 1))]
        assert loaded.quantile(now_s, q) == pytest.approx(exact, rel=0.0101)
        assert loaded.count(now_s) == len(calls)
        assert loaded.bins(now_s) == ring.bins(now_s) == Counter(bin_of(latency_s) for _, latency_s in calls)

    def test_setting_a_bucket_overwrites_it_and_copies_what_was_given(self) -> None:
        ring, bins = SketchRing(last_s(60)), {bin_of(1.0): 3}

        ring.set(1_000, {bin_of(9.0): 8}, 1_000.0)
        ring.set(1_000, bins, 1_000.0)
        bins[bin_of(1.0)] = 99
        ring.add(1_000.5, bin_of(2.0), 1_000.5)

        assert ring.count(1_000.0) == 4
        assert bins == {bin_of(1.0): 99}

    def test_what_waits_to_count_does_not_fall_out_yet(self) -> None:
        ring = SketchRing(last_s(60))

        ring.set(1_003, {bin_of(1.0): 1}, 1_000.0)

        assert (ring.next_change(1_000.0), ring.next_change(1_003.0)) == (None, 1_064.0)
        assert not ring.is_idle(1_000.0)

    def test_old_and_far_values_are_refused_and_expired_ones_let_go(self) -> None:
        ring, one = SketchRing(last_s(60)), {bin_of(1.0): 1}

        placed = [ring.set(start, one, 1_000.0) for start in (939, 940, 1_000, 1_060, 1_061)]

        assert placed == ["too_old", "kept", "kept", "kept", "too_far_ahead"]
        assert (ring.count(1_000.0), ring.next_change(1_000.0)) == (2, 1_001.0)
        assert (ring.count(1_001.0), ring.count(1_060.0), ring.count(1_061.0)) == (1, 2, 1)
        assert (ring.is_idle(1_120.9), ring.is_idle(1_121.0)) == (False, True)
        ring.add(1_130.0, bin_of(1.0), 1_130.0)
        assert len(ring.dump()) < 20
