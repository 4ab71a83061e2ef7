"""The metering path in one thread: envelopes in; priced rows, usage of six scope sets in three buckets out.

Against what one would do to the same bytes at the least: parse each line (orjson), check each line (pydantic's
`EVENT_ADAPTER`), or only decode it with the hot decoder. Then where the time goes, stage by stage. Nothing here waits, so
time is the thread's processor time: a busy machine shows less in it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import msgspec
import orjson
from tidegate.processors.aggregate import ScopeSets, UsageState
from tidegate.processors.meter import MeterState, meter
from tidegate.processors.pricing import PriceBook
from tidegate.producers.sqlite_log import Record
from tidegate.schemas.event import EVENT_ADAPTER
from tidegate.schemas.hot import decode_event
from tidegate.schemas.settings import DEFAULT_SCOPE_SETS

from .report import Result, Table
from .rounds import Side, Spread, Tick, take_turns
from .traffic import START, calls, envelopes, lines, scattered

LIBRARIES: Final = ("orjson", "pydantic", "msgspec", "genai-prices", "ddsketch")
# What a node's flush of 100 ms holds at 10,000 calls a second; usage is rolled up once for each.
_FLUSH_EVENTS: Final = 1_000
# What a worker on Kafka takes in one flush under load.
_LARGE_FLUSH: Final = 5_000
_LARGE: Final = "large flush"
_SIZES: Final = (100, 10, 1)
_SCATTERED: Final = "scattered"
_DAY_S: Final = 86_400.0


def run(quick: bool, tick: Tick) -> Result:
    """The tables of this bench."""
    events, rounds = (2_000, 2) if quick else (20_000, 5)
    encoded = lines(calls(events))
    book = PriceBook.load(None)
    sides: dict[str, Side] = {f"meter {size}": _meter_side(encoded, size, book) for size in _SIZES}
    sides[_LARGE] = _meter_side(encoded, _SIZES[0], book, _LARGE_FLUSH)
    sides[_SCATTERED] = _meter_side(lines(scattered(events)), _SIZES[0], book)
    sides["orjson"] = _line_side(orjson.loads, encoded)
    sides["pydantic"] = _line_side(EVENT_ADAPTER.validate_json, encoded)
    sides["hot"] = _line_side(decode_event, encoded)
    found = take_turns(sides | _stages(encoded, book), rounds, tick)
    samples = f"{rounds} rounds after a warm-up, each {events:,} events a side of {sum(map(len, encoded)) // events} bytes"
    return Result(
        (_comparison(found), _breakdown(found)),
        samples,
        (
            f"A step is a flush of {_FLUSH_EVENTS:,} events, or as said; six scope sets, three buckets. Processor time.",
            "The baselines do a part of the work: none prices, aggregates or writes rows, and `orjson.loads` checks nothing.",
        ),
        LIBRARIES,
    )


def _flushes(events: int, flush: int = _FLUSH_EVENTS) -> Iterable[int]:
    return range(0, events, flush)


def _records(encoded: Sequence[bytes], size: int, first: int, flush: int) -> list[Record]:
    """One flush's log records, as the log would hand them over."""
    now_ms = int(START.timestamp() * 1_000)
    end = min(first + flush, len(encoded))
    sent = envelopes(list(encoded[first:end]), size)
    offset = -(-first // size)
    return [
        Record(number, now_ms, one.value, {**one.headers(), "seq": str(first + one.seq)})
        for number, one in enumerate(sent, offset)
    ]


def _fresh() -> MeterState:
    return MeterState(0, UsageState(ScopeSets(DEFAULT_SCOPE_SETS)))


def _meter_side(encoded: Sequence[bytes], size: int, book: PriceBook, flush: int = _FLUSH_EVENTS) -> Side:
    events = len(encoded)
    flushes = [_records(encoded, size, first, flush) for first in _flushes(events, flush)]

    def once() -> float:
        state = _fresh()
        begun = time.thread_time()
        for records in flushes:
            state, outputs = meter(state, records, book, _DAY_S)
            state.flushed()
            if outputs.dead_letters:
                raise RuntimeError("simulated calls became dead letters")
        took = time.thread_time() - begun
        if state.totals["responses"] != events:
            raise RuntimeError("the meter did not count every event once")
        return took / events * 1e6

    return once


def _line_side(parse: Callable[[bytes], Any], encoded: Sequence[bytes]) -> Side:
    def once() -> float:
        begun = time.thread_time()
        for line in encoded:
            parse(line)
        return (time.thread_time() - begun) / len(encoded) * 1e6

    return once


_STAGES: Final = {
    "decode": "decode and validate (`decode_event`)",
    "price": "price",
    "add": "add to usage at the finest key",
    "roll up": "roll up into scopes and buckets",
    "encode": "encode the priced row",
}


def _stages(encoded: Sequence[bytes], book: PriceBook) -> dict[str, Side]:
    """Each stage alone, on what the stage before it leaves. Microseconds an event."""
    events: list[Any] = [decode_event(line) for line in encoded]
    count = len(events)

    def price(event: Any) -> int | None:
        cost = book.price(
            event.tenant,
            event.provider_name,
            event.response_model,
            event.request_model,
            event.service_tier,
            event.started_at,
            event.input_tokens,
            event.output_tokens,
            event.cache_read_tokens,
            event.cache_write_5m_tokens,
            event.cache_write_1h_tokens,
            event.reasoning_tokens,
            event.input_audio_tokens,
            event.output_audio_tokens,
            event.cache_audio_read_tokens,
            event.cache_hit,
        )
        return cost.cost_nano_usd

    costs = [price(event) for event in events]
    started = [event.started_at.timestamp() for event in events]

    def add_and_roll_up() -> tuple[float, float]:
        usage = _fresh().usage
        adding = rolling = 0.0
        for first in _flushes(count):
            begun = time.thread_time()
            for number in range(first, min(first + _FLUSH_EVENTS, count)):
                usage.add(events[number], started[number], costs[number])
            added = time.thread_time()
            usage.roll_up()
            usage.flushed()
            rolling += time.thread_time() - added
            adding += added - begun
        return adding / count * 1e6, rolling / count * 1e6

    def encode() -> float:
        encode_one = msgspec.json.encode
        begun = time.thread_time()
        for event in events:
            encode_one(event)
        return (time.thread_time() - begun) / count * 1e6

    def pricing() -> float:
        begun = time.thread_time()
        for event in events:
            price(event)
        return (time.thread_time() - begun) / count * 1e6

    return {
        "decode": _line_side(decode_event, encoded),
        "price": pricing,
        "add": lambda: add_and_roll_up()[0],
        "roll up": lambda: add_and_roll_up()[1],
        "encode": encode,
    }


def _comparison(found: dict[str, Spread]) -> Table:
    orjson_us, pydantic_us, hot_us = found["orjson"], found["pydantic"], found["hot"]

    def row(what: str, took: Spread) -> tuple[str, ...]:
        # Speed against speed: the baseline's time over ours.
        speeds = (f"{base.per(took):.2f}" for base in (orjson_us, pydantic_us, hot_us))
        return what, f"{took:.2f}", f"{1e6 / took.median:,.0f}", *speeds

    names = {"orjson": "`orjson.loads` a line", "pydantic": "pydantic `validate_json` a line", "hot": "`decode_event` a line"}
    return Table(
        "Speed of the whole meter, by events an envelope, as a multiple of three baselines' (1 is as fast; higher is faster).",
        ("", "µs an event", "events/s", "× orjson.loads", "× pydantic", "× decode_event"),
        (
            *(row(f"`meter`, envelopes of {size}", found[f"meter {size}"]) for size in _SIZES),
            row(f"`meter`, envelopes of {_SIZES[0]}, flushes of {_LARGE_FLUSH:,}", found[_LARGE]),
            row(f"`meter`, envelopes of {_SIZES[0]}, 1,000 users and 40 prompts a tenant", found[_SCATTERED]),
            *(row(what, found[name]) for name, what in names.items()),
        ),
    )


def _breakdown(found: dict[str, Spread]) -> Table:
    whole = found[f"meter {_SIZES[0]}"]
    rows = [(what, found[name]) for name, what in _STAGES.items()]
    known = Spread(tuple(map(sum, zip(*(took.values for _, took in rows), strict=True))))
    rest = Spread(tuple(mine - its for mine, its in zip(whole.values, known.values, strict=True)))
    return Table(
        f"Where the time of `meter` goes, envelopes of {_SIZES[0]}; each stage run alone, the rest is the difference.",
        ("stage", "µs an event", "share of the whole"),
        (
            *((what, f"{took:.2f}", f"{took.per(whole):.2f}") for what, took in rows),
            ("splitting, clock checks, counting, assembling rows", f"{rest:.2f}", f"{rest.per(whole):.2f}"),
        ),
    )
