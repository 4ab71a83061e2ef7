"""What was counted within a policy's window, in event time: at most 61 buckets for each scope and source partition.

    Buckets ─ the arithmetic of one window: which bucket a moment falls in, which buckets count now, when one falls out
    Ring, RatioRing, SketchRing ─ what was counted in them: amounts; part and whole; latencies

Buckets are numbered in the order of time. A rolling window counts them from the epoch; a calendar window cuts each
period into at most 60, numbered `60 × period + place`. Rings hold *absolute* values for each bucket, so hearing one
twice, late or out of order changes nothing, and the rings of several source partitions add up to the whole.

Moments are seconds since 1970, UTC, as a float; the start of a bucket is a whole one. What has fallen out of the window
by `now_s` is let go; if the clock is set back, so is what lies too far ahead then, and no ring ever holds more than 121
buckets.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from array import array
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime
from typing import Final, Literal, Self
from zoneinfo import ZoneInfo

import msgspec

from ..schemas.policy import CalendarWindow, RollingWindow
from . import sketch

# What became of a value: kept; behind the window; or so far ahead of now that the sender's clock must be wrong.
Placed = Literal["kept", "too_old", "too_far_ahead"]

BUCKETS: Final = 60
# The rate of spending is taken over this many buckets, the current one included: one twelfth of the window.
BURN_BUCKETS: Final = 5

_HOUR_S: Final = 3_600
_DAY_S: Final = 86_400
# No clock has been further from UTC than this since 1845.
_WIDEST_OFFSET_S: Final = 16 * _HOUR_S
_EPOCH_DAY: Final = date(1970, 1, 1).toordinal()
# Days from the Monday before 1970-01-01, a Thursday.
_THURSDAY: Final = 3


class Buckets(ABC):
    """The buckets of one window. Shared by all rings of a policy."""

    __slots__ = ()

    @abstractmethod
    def number(self, at_s: float) -> int:
        """The bucket in which an event at `at_s` counts."""

    @abstractmethod
    def start_of(self, number: int) -> int:
        """When that bucket starts."""

    @abstractmethod
    def falls_out_at(self, number: int) -> float:
        """From when on that bucket is not in the window any more."""

    @abstractmethod
    def reach(self, now_s: float) -> tuple[int, int, int]:
        """Numbers of the first and the last bucket that count now, and of the furthest that is kept for later."""

    @abstractmethod
    def burn_span(self, now_s: float) -> tuple[int, int, float]:
        """The first and the last bucket over which to take the rate of spending, and how many seconds they have lasted."""

    @abstractmethod
    def bounds(self, now_s: float) -> tuple[float, float]:
        """What the window covers now: rolling, from the start of the oldest bucket counted until now; or the period."""

    @abstractmethod
    def resets_at(self, now_s: float) -> float | None:
        """When everything counted is forgotten at once: the end of the period. None for a rolling window."""

    @abstractmethod
    def numbering(self, at_s: float) -> tuple[float, float, float, int, int]:
        """How to number moments near `at_s` without asking again: (from, until, start, first, length), so that of
        from ≤ moment < until the number is first + ⌊(moment − start) ÷ length⌋."""

    def bucket_start(self, at_s: float) -> int:
        """Start of the bucket in which an event at `at_s` counts."""
        return self.start_of(self.number(at_s))

    def next_change(self, now_s: float) -> float:
        """When the oldest bucket that counts now will fall out."""
        return self.falls_out_at(self.reach(now_s)[0])


def buckets_of(window: RollingWindow | CalendarWindow) -> Buckets:
    """The buckets of a policy's window."""
    if isinstance(window, RollingWindow):
        return RollingBuckets(window)
    return CalendarBuckets(window)


class RollingBuckets(Buckets):
    """The last `rolling` seconds. Buckets a sixtieth of it long; one window ahead of now is kept for later."""

    __slots__ = ("length_s", "rolling_s")

    def __init__(self, window: RollingWindow) -> None:
        self.rolling_s = window.rolling
        self.length_s = window.bucket_s

    def bucket_start(self, at_s: float) -> int:
        return int(at_s // self.length_s) * self.length_s

    def number(self, at_s: float) -> int:
        return int(at_s // self.length_s)

    def numbering(self, at_s: float) -> tuple[float, float, float, int, int]:
        return float("-inf"), float("inf"), 0.0, 0, self.length_s

    def start_of(self, number: int) -> int:
        return number * self.length_s

    def falls_out_at(self, number: int) -> float:
        return float((number + 1) * self.length_s + self.rolling_s)

    def reach(self, now_s: float) -> tuple[int, int, int]:
        """Every bucket that has a moment in common with (now - rolling, now]: 61 at most."""
        length_s = self.length_s
        current = int(now_s // length_s)
        return int((now_s - self.rolling_s) // length_s), current, current + BUCKETS

    def burn_span(self, now_s: float) -> tuple[int, int, float]:
        current = self.number(now_s)
        first = current - BURN_BUCKETS + 1
        return first, current, now_s - self.start_of(first)

    def bounds(self, now_s: float) -> tuple[float, float]:
        return float(self.start_of(self.reach(now_s)[0])), now_s

    def resets_at(self, now_s: float) -> float | None:
        return None


# The number of a period, its start and end, and the length of its buckets; seconds.
_Period = tuple[int, int, int, int]


class CalendarBuckets(Buckets):
    """The current hour, day, week or month of a time zone; the next one is kept for later.

    A period begins the first moment that the wall clock shows its start or something later. So a day is 23 or 25 hours
    long when the clock is set; it starts after the gap if midnight falls into one, and with the first of two midnights;
    and a day that the zone skipped is empty. Hours follow the minute hand alone: setting the clock by whole hours does
    not touch them.
    """

    __slots__ = ("_known", "_now", "_unit", "_zone")

    def __init__(self, window: CalendarWindow) -> None:
        self._unit = window.calendar
        self._zone = ZoneInfo(window.time_zone)
        self._now: _Period = (0, 0, 0, 1)
        self._known: dict[int, _Period] = {}

    def bucket_start(self, at_s: float) -> int:
        _, start, end, length_s = self._now
        if not start <= at_s < end:
            _, start, _, length_s = self._period(at_s)
        return start + int((at_s - start) // length_s) * length_s

    def number(self, at_s: float) -> int:
        index, start, end, length_s = self._now
        if not start <= at_s < end:
            index, start, _, length_s = self._period(at_s)
        return index * BUCKETS + int((at_s - start) // length_s)

    def numbering(self, at_s: float) -> tuple[float, float, float, int, int]:
        index, start, end, length_s = self._period(at_s)
        return float(start), float(end), float(start), index * BUCKETS, length_s

    def start_of(self, number: int) -> int:
        index, place = divmod(number, BUCKETS)
        _, start, _, length_s = self._numbered(index)
        return start + place * length_s

    def falls_out_at(self, number: int) -> float:
        return float(self._numbered(number // BUCKETS)[2])

    def reach(self, now_s: float) -> tuple[int, int, int]:
        """The whole period: what a clock ahead of ours dates later in it has been spent all the same."""
        first = self._period(now_s)[0] * BUCKETS
        return first, first + BUCKETS - 1, first + 2 * BUCKETS - 1

    def burn_span(self, now_s: float) -> tuple[int, int, float]:
        """Within the period; over one bucket's length at least, or its first call would look like a flood."""
        index, start, _, length_s = self._period(now_s)
        current = self.number(now_s)
        first = max(current - BURN_BUCKETS + 1, index * BUCKETS)
        return first, current, max(now_s - (start + first % BUCKETS * length_s), length_s)

    def bounds(self, now_s: float) -> tuple[float, float]:
        _, start, end, _ = self._period(now_s)
        return float(start), float(end)

    def resets_at(self, now_s: float) -> float | None:
        return float(self._period(now_s)[2])

    def _period(self, at_s: float) -> _Period:
        """The last period that had begun by then."""
        period = self._now
        if not period[1] <= at_s < period[2]:
            index = self._index(int(at_s // 1) + self._offset(at_s))
            period = self._numbered(index)
            while period[2] <= at_s:  # the clock was set back over the start of the next one
                index += 1
                period = self._numbered(index)
            self._now = period
        return period

    def _numbered(self, index: int) -> _Period:
        period = self._known.get(index)
        if period is None:
            start, end = self._begins(index), self._begins(index + 1)
            if len(self._known) >= BUCKETS:  # late events ask for few periods; this many only over time
                self._known.clear()
            # A skipped period has no length, and nothing is in it.
            period = self._known[index] = (index, start, end, max(-(-(end - start) // BUCKETS), 1))
        return period

    def _begins(self, index: int) -> int:
        """The first moment at which the clock shows the start of the period or later; it is set once in a day at most."""
        shown = self._shown_at_start(index)
        low, high = shown - _WIDEST_OFFSET_S, shown + _WIDEST_OFFSET_S
        before, after = self._offset(low), self._offset(high)
        if before == after:
            return shown - before
        while high - low > 1:
            middle = (low + high) // 2
            if self._offset(middle) == before:
                low = middle
            else:
                high = middle
        return shown - before if shown - before < high else max(high, shown - after)

    def _offset(self, at_s: float) -> int:
        """How far the clock is ahead of UTC, in seconds; for hours, how far its minute hand is."""
        offset = datetime.fromtimestamp(at_s // 1, self._zone).utcoffset()
        offset_s = 0 if offset is None else offset.days * _DAY_S + offset.seconds
        return offset_s % _HOUR_S if self._unit == "hour" else offset_s

    def _index(self, shown: int) -> int:
        """The number of the period that a clock showing `shown` is in."""
        if self._unit == "hour":
            return shown // _HOUR_S
        if self._unit == "day":
            return shown // _DAY_S
        if self._unit == "week":
            return (shown // _DAY_S + _THURSDAY) // 7
        day = datetime.fromtimestamp(shown, UTC)
        return day.year * 12 + day.month - 1

    def _shown_at_start(self, index: int) -> int:
        """What the clock shows when that period starts."""
        if self._unit == "hour":
            return index * _HOUR_S
        if self._unit == "day":
            return index * _DAY_S
        if self._unit == "week":
            return (index * 7 - _THURSDAY) * _DAY_S
        return (date(index // 12, index % 12 + 1, 1).toordinal() - _EPOCH_DAY) * _DAY_S


class Ring:
    """What one source partition spent of one scope: an absolute amount for each bucket, 0 to 2**62 nano-dollars or pieces.

    Some 670 bytes with all 61 buckets in use, fewer when little was spent.
    """

    __slots__ = ("_amounts", "_buckets", "_first")

    def __init__(self, buckets: Buckets) -> None:
        self._buckets = buckets
        self._first = 0
        self._amounts = array("q")

    def set(self, bucket_start: int, amount: int, now_s: float) -> Placed:
        """The amount of that bucket is now this, whatever it was. Nothing changes unless the answer is `kept`."""
        number = self._buckets.number(bucket_start)
        first, _, furthest = self._buckets.reach(now_s)
        if not first <= number <= furthest:
            return _misplaced(number, first)
        place = self._room_for(number, first, furthest)
        self._amounts[place] = amount
        return "kept"

    def add(self, at_s: float, amount: int, now_s: float) -> Placed:
        """Count so much more at a moment: for the one who makes the absolute amounts."""
        first, _, furthest = self._buckets.reach(now_s)
        number = self._buckets.number(at_s)
        if not first <= number <= furthest:
            return _misplaced(number, first)
        self.put(number, amount, first, furthest)
        return "kept"

    def put(self, number: int, amount: int, first: int, furthest: int) -> None:
        """Count so much more in a bucket, which is one of `first` to `furthest`, the reach of now."""
        place = number - self._first
        if not 0 <= place < len(self._amounts):
            place = self._room_for(number, first, furthest)
        self._amounts[place] += amount

    def sum(self, now_s: float) -> int:
        """What counts now.

        Calendar: exactly the current period. Rolling: every bucket that reaches into (now - rolling, now]. The oldest
        counts whole though part of it has expired: never under the true sum, and over it by at most that bucket.
        """
        first, last, _ = self._buckets.reach(now_s)
        return self._between(first, last)

    def burn_per_s(self, now_s: float) -> float:
        """How fast it was spent over the last five buckets, the current one included. Rates of several rings add up."""
        first, last, lasted_s = self._buckets.burn_span(now_s)
        return self._between(first, last) / lasted_s

    def leaving(self, now_s: float) -> Iterator[tuple[float, int]]:
        """What counts now, by when it falls out of the window: the oldest first."""
        first, last, _ = self._buckets.reach(now_s)
        for number in range(max(first, self._first), min(last + 1, self._first + len(self._amounts))):
            if amount := self._amounts[number - self._first]:
                yield self._buckets.falls_out_at(number), amount

    def next_change(self, now_s: float) -> float | None:
        """When the sum next falls by itself; None when it is 0."""
        return next((at_s for at_s, _ in self.leaving(now_s)), None)

    def next_rise(self, now_s: float) -> float | None:
        """When the sum next rises by itself, because a clock was ahead of this one; None when nothing waits to count."""
        _, last, _ = self._buckets.reach(now_s)
        for place in range(max(last + 1 - self._first, 0), len(self._amounts)):
            if self._amounts[place]:
                return float(self._buckets.start_of(self._first + place))
        return None

    def is_idle(self, now_s: float) -> bool:
        """Nothing counts now, and nothing waits to count: the ring may go."""
        first, _, furthest = self._buckets.reach(now_s)
        return not self._between(first, furthest)

    def dump(self) -> bytes:
        """What `load` reads, for a ring of the same window."""
        amounts, first = self._amounts.tolist(), self._first
        while amounts and not amounts[-1]:
            amounts.pop()
        return _encoder.encode((first, amounts))

    @classmethod
    def load(cls, buckets: Buckets, value: bytes) -> Self:
        ring = cls(buckets)
        ring._first, amounts = _ring_decoder.decode(value)
        ring._amounts = array("q", amounts)
        return ring

    def _room_for(self, number: int, first: int, furthest: int) -> int:
        """The place of a bucket within reach, made at the expense of those that are not any more."""
        if self._first < first:
            del self._amounts[: first - self._first]
            self._first = first
        if self._first + len(self._amounts) > furthest + 1:
            del self._amounts[max(furthest + 1 - self._first, 0) :]
        amounts = self._amounts
        if not amounts:
            self._first = number
        # Concatenation, because an array that is appended to takes memory in advance.
        place = number - self._first
        if place < 0:
            self._amounts = array("q", bytes(-8 * place)) + amounts
            self._first, place = number, 0
        elif place >= len(amounts):
            self._amounts = amounts + array("q", bytes(8 * (place + 1 - len(amounts))))
        return place

    def _between(self, first: int, last: int) -> int:
        return sum(self._amounts[max(first - self._first, 0) : max(last + 1 - self._first, 0)])


class RatioRing:
    """How often something was so, of all times: errors of calls, findings of calls."""

    __slots__ = ("_part", "_whole")

    def __init__(self, buckets: Buckets) -> None:
        self._part = Ring(buckets)
        self._whole = Ring(buckets)

    def set(self, bucket_start: int, part: int, whole: int, now_s: float) -> Placed:
        """The counts of that bucket are now these. Nothing changes unless the answer is `kept`."""
        self._part.set(bucket_start, part, now_s)
        return self._whole.set(bucket_start, whole, now_s)

    def add(self, at_s: float, counted: tuple[int, int], now_s: float) -> Placed:
        """Count so many more, part and whole, at a moment."""
        self._part.add(at_s, counted[0], now_s)
        return self._whole.add(at_s, counted[1], now_s)

    def put(self, number: int, counted: tuple[int, int], first: int, furthest: int) -> None:
        """Count so many more in a bucket, as `Ring.put`."""
        self._part.put(number, counted[0], first, furthest)
        self._whole.put(number, counted[1], first, furthest)

    def counts(self, now_s: float) -> tuple[int, int]:
        """Part and whole, as `Ring.sum` counts them; add those of several source partitions before dividing."""
        return self._part.sum(now_s), self._whole.sum(now_s)

    def ratio(self, now_s: float) -> float | None:
        """Part of the whole, 0 to 1; None when nothing was counted."""
        part, whole = self.counts(now_s)
        return part / whole if whole else None

    def next_change(self, now_s: float) -> float | None:
        """When the counts next fall by themselves; None when there are none."""
        return self._whole.next_change(now_s)

    def next_rise(self, now_s: float) -> float | None:
        """When the counts next rise by themselves; None when nothing waits to count."""
        return self._whole.next_rise(now_s)

    def is_idle(self, now_s: float) -> bool:
        """Nothing counts now, and nothing waits to count: the ring may go."""
        return self._whole.is_idle(now_s)

    def dump(self) -> bytes:
        """What `load` reads, for a ring of the same window."""
        return _encoder.encode((self._part.dump(), self._whole.dump()))

    @classmethod
    def load(cls, buckets: Buckets, value: bytes) -> Self:
        ring = cls(buckets)
        part, whole = _pair_decoder.decode(value)
        ring._part, ring._whole = Ring.load(buckets, part), Ring.load(buckets, whole)
        return ring


class SketchRing:
    """How long calls took: a sparse sketch (`sketch.py`) for each bucket."""

    __slots__ = ("_buckets", "_sketches")

    def __init__(self, buckets: Buckets) -> None:
        self._buckets = buckets
        self._sketches: dict[int, dict[int, int]] = {}

    def set(self, bucket_start: int, bins: Mapping[int, int], now_s: float) -> Placed:
        """The sketch of that bucket is now this one. Nothing changes unless the answer is `kept`."""
        number = self._buckets.number(bucket_start)
        first, _, furthest = self._buckets.reach(now_s)
        if not first <= number <= furthest:
            return _misplaced(number, first)
        self._room_for(number, first, furthest)
        self._sketches[number] = dict(bins)
        return "kept"

    def add(self, at_s: float, index: int, now_s: float) -> Placed:
        """Count one value more, by its bin, at a moment."""
        number = self._buckets.number(at_s)
        first, _, furthest = self._buckets.reach(now_s)
        if not first <= number <= furthest:
            return _misplaced(number, first)
        self.put(number, index, first, furthest)
        return "kept"

    def put(self, number: int, index: int, first: int, furthest: int, times: int = 1) -> None:
        """Count one value more, or several of one bin, in a bucket, as `Ring.put`."""
        bins = self._sketches.get(number)
        if bins is None:
            self._room_for(number, first, furthest)
            bins = self._sketches[number] = {}
        bins[index] = bins.get(index, 0) + times

    def bins(self, now_s: float) -> dict[int, int]:
        """The sketch of what counts now; add those of several source partitions before asking for a quantile."""
        merged: dict[int, int] = {}
        first, last, _ = self._buckets.reach(now_s)
        for number, bins in self._sketches.items():
            if first <= number <= last:
                for index, count in bins.items():
                    merged[index] = merged.get(index, 0) + count
        return merged

    def quantile(self, now_s: float, q: float) -> float | None:
        """The `q` quantile of what counts now, within 1 %; None when nothing was counted."""
        return sketch.quantile(self.bins(now_s), q)

    def count(self, now_s: float) -> int:
        """How many values count now."""
        first, last, _ = self._buckets.reach(now_s)
        return sum(sum(bins.values()) for number, bins in self._sketches.items() if first <= number <= last)

    def next_change(self, now_s: float) -> float | None:
        """When the count next falls by itself; None when it is 0."""
        first, last, _ = self._buckets.reach(now_s)
        counted = [number for number, bins in self._sketches.items() if first <= number <= last and bins]
        return self._buckets.falls_out_at(min(counted)) if counted else None

    def next_rise(self, now_s: float) -> float | None:
        """When the count next rises by itself; None when nothing waits to count."""
        _, last, _ = self._buckets.reach(now_s)
        waiting = [number for number, bins in self._sketches.items() if number > last and bins]
        return float(self._buckets.start_of(min(waiting))) if waiting else None

    def is_idle(self, now_s: float) -> bool:
        """Nothing counts now, and nothing waits to count: the ring may go."""
        first, _, _ = self._buckets.reach(now_s)
        return not any(number >= first and bins for number, bins in self._sketches.items())

    def dump(self) -> bytes:
        """What `load` reads, for a ring of the same window."""
        return _encoder.encode(self._sketches)

    @classmethod
    def load(cls, buckets: Buckets, value: bytes) -> Self:
        ring = cls(buckets)
        ring._sketches = _sketches_decoder.decode(value)
        return ring

    def _room_for(self, number: int, first: int, furthest: int) -> None:
        if number not in self._sketches:
            for gone in [known for known in self._sketches if not first <= known <= furthest]:
                del self._sketches[gone]


def _misplaced(number: int, first: int) -> Placed:
    return "too_old" if number < first else "too_far_ahead"


# A first call of a thousandth of a cent against a thousand dollars is no forecast, and calendars end in the year 9999.
_FORECAST_S: Final = 10 * 365 * 86_400.0


def forecast(spend: float, burn_per_s: float | None, limit: float, now_s: float) -> float | None:
    """When the limit is reached if spending goes on at this rate: now if it has been; None if it is not within ten years.

    Knows nothing of windows: a moment after `resets_at` means that the limit holds for this period. Spend and limit are
    in the same unit.
    """
    if spend >= limit:
        return now_s
    if not burn_per_s or burn_per_s < 0:
        return None
    left_s = (limit - spend) / burn_per_s
    return now_s + left_s if left_s < _FORECAST_S else None


_encoder: Final = msgspec.msgpack.Encoder()
_ring_decoder: Final = msgspec.msgpack.Decoder(tuple[int, list[int]])
_pair_decoder: Final = msgspec.msgpack.Decoder(tuple[bytes, bytes])
_sketches_decoder: Final = msgspec.msgpack.Decoder(dict[int, dict[int, int]])
