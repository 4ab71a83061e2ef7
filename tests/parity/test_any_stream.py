"""Parity on any stream: hypothesis makes producers that repeat themselves, overlap, lose numbers, have clocks of their own
and write nonsense; and whatever else could stand in the topic. One pair of engines takes stream after stream.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kafka_broker import needs_broker
from parity_engines import Engines
from parity_sides import Appended
from support import finding, rejected, request, response, scored
from tidegate.schemas.content import OfCall
from tidegate.schemas.envelope import Envelope

pytestmark = [pytest.mark.slow, needs_broker]

EXAMPLES = 30
PARTITIONS = 3
HOUR_S, DAY_S = 3_600, 86_400
# A call that was announced so long before now is given up on at once.
ORPHAN_S = 900
# Nearly as far ahead of the log's time then as the meter lets pass; sent first, and the newest of all. Which old events are
# too old for a bucket then depends on no later one, and so not on what is flushed together.
NEWEST_S = DAY_S - ORPHAN_S - 60


@dataclass(frozen=True)
class Send:
    """Of a producer's events, these in one record of the log; `step_ms` is how far the log's clock goes on before it."""

    producer: int
    first: int
    lines: tuple[bytes, ...]
    dropped: int
    step_ms: int


@dataclass(frozen=True)
class Junk:
    """A record that no producer of ours has written."""

    partition: int
    headers: dict[str, bytes]
    value: bytes
    step_ms: int


Stream = list[Send | Junk]

# Seconds from now at which a call may have begun by its producer's clock: around now, hours and days back (buckets that have
# left memory), beyond what a minute's bucket is kept, years ago, before there were calls, and ahead.
began = st.one_of(
    st.integers(-600, 0),
    st.integers(-3 * HOUR_S, 0),
    st.integers(-3 * DAY_S, HOUR_S),
    st.integers(-60 * DAY_S, HOUR_S),
    st.sampled_from([-900 * DAY_S, 23 * HOUR_S, -20 * 365 * DAY_S, 2 * DAY_S]),
)
tokens = st.one_of(st.none(), st.integers(0, 5_000), st.just(10**9))
scopes = st.fixed_dictionaries(
    {"tenant": st.sampled_from(["harbor-health", "st-anne", None, "Ärzte am Hafen"])},
    optional={
        "team": st.sampled_from(["research", "oncology", "pharmacy"]),
        "user": st.sampled_from(["ana", "bo", "cy|d", '"e"']),
        "environment": st.sampled_from(["production", "test"]),
        "task_type": st.sampled_from(["triage", "coding"]),
        "prompt_name": st.sampled_from(["triage", "discharge"]),
        "prompt_version": st.sampled_from(["1", "2"]),
        "labels": st.dictionaries(st.sampled_from(["ward", "shift"]), st.sampled_from(["north", "ü"]), max_size=2),
        "service_tier": st.sampled_from(["batch", "priority"]),
    },
)
models = st.sampled_from(
    [
        ("openai", "gpt-4o"),
        ("openai", "gpt-4o-mini"),
        ("anthropic", "claude-sonnet-4-5"),
        ("ours", "unpriced-7b"),
        (None, "gpt-4o"),
    ]
)
call_ids = st.integers(0, 12).map(lambda number: f"call-{number}")
raw_usage = st.one_of(
    st.fixed_dictionaries({"prompt_tokens": st.integers(0, 3_000), "completion_tokens": st.integers(-1, 900)}),
    st.fixed_dictionaries({"input_tokens": st.integers(0, 3_000), "output_tokens": st.integers(0, 900)}),
    st.just({"nothing": [{"we": "know"}]}),
)
# As a service has normalised them, or as the provider said it.
counted = st.one_of(
    st.fixed_dictionaries({"input_tokens": tokens, "output_tokens": tokens}),
    st.fixed_dictionaries({"input_tokens": st.integers(150, 5_000), "cache_read_tokens": st.integers(0, 200)}),
    st.fixed_dictionaries({"usage": raw_usage, "input_tokens": st.none(), "output_tokens": st.none()}),
)
answers = st.fixed_dictionaries(
    {"latency_s": st.one_of(st.none(), st.floats(0, 30), st.sampled_from([0.0, 1e-9, 604_800.0]))},
    optional={
        "error_type": st.sampled_from(["timeout", "rate_limit"]),
        "cache_hit": st.booleans(),
        "time_to_first_token_s": st.floats(0, 9),
        "response_model": st.sampled_from(["gpt-4o-2024-08-06", "unpriced-8b"]),
    },
)
found = st.builds(
    finding, leak=st.booleans(), detector=st.sampled_from(["phi", "toxicity"]), type=st.sampled_from(["PERSON", "insult"])
)
verdicts = st.fixed_dictionaries(
    {
        "outcome": st.sampled_from(["scored", "scored", "partial", "sampled_out", "quarantined"]),
        "findings": st.lists(found, max_size=3),
    },
    optional={
        "request_model": st.none(),
        "service_tier": st.just("batch"),  # nothing that a verdict knows: a dead letter
        "failed": st.sampled_from([{"phi": "KeyError"}, {"toxicity": "TimeoutError"}]),
        "more_findings": st.integers(0, 3),
        "scores": st.dictionaries(st.sampled_from(["prompt.toxicity", "response.relevance"]), st.floats(0, 1)),
    },
)
noise = st.binary(max_size=40).map(lambda line: line.replace(b"\n", b" "))
nonsense = st.sampled_from([b"", b"{", b"null", b'{"event":"response"}', b"\xff\xfe", b'{"event":"bill"}'])
# What is wrong with a few of them.
wrong = st.sampled_from(
    [{"input_tokens": -1}, {"output_tokens": 10**9 + 1}, {"input_tokens": 1.5}, {"latency_s": 1e300}, {"error_type": "on fire"}]
)


@st.composite
def events(draw: st.DrawFn) -> bytes:
    """One line: mostly an event that a meter takes."""
    kind = draw(st.sampled_from(["response"] * 6 + ["request"] * 2 + ["scored"] * 2 + ["rejected", "junk"]))
    if kind == "junk":
        return draw(st.one_of(noise, nonsense))
    if kind == "rejected":
        return json.dumps(rejected(line=draw(st.integers(1, 9)))).encode()
    provider, model = draw(models)
    at = datetime.fromtimestamp(NOW_S + draw(began), UTC).isoformat()
    fields: dict[str, Any] = {"started_at": at, "provider_name": provider, "request_model": model, **draw(scopes)}
    if kind == "request":
        fields |= {"estimated_input_tokens": draw(st.one_of(st.none(), st.integers(0, 4_000))), "estimated_output_tokens": 200}
        return json.dumps(request(draw(call_ids), **fields)).encode()
    if kind == "scored":
        known = {name: value for name, value in fields.items() if name in OfCall.model_fields}
        return json.dumps(scored(draw(call_ids), **known | draw(verdicts))).encode()
    said = draw(answers) | draw(counted)
    if draw(st.integers(0, 9)) == 7:
        said |= draw(wrong)
    return json.dumps(response(draw(call_ids), **fields | said)).encode()


# Mostly on; and a broker's clock that is set back a little.
steps = st.one_of(st.integers(0, 2_000), st.sampled_from([0, 0, -30_000]))


@st.composite
def sends(draw: st.DrawFn, producer: int, lines_of_all: list[bytes]) -> list[Send]:
    """What one producer appends: its events in order, yet some again, some never, and some after others."""
    lines = draw(st.lists(st.sampled_from(lines_of_all), min_size=20, max_size=80))
    found, at, dropped = [], 0, 0
    while at < len(lines):
        first = max(at + draw(st.sampled_from([0, 0, 0, 0, -1, -3, 2])), 0)
        end = min(max(first, at) + draw(st.integers(1, 20)), len(lines))
        if first >= len(lines):
            break
        dropped += draw(st.sampled_from([0, 0, 0, 4, -2]))
        found.append(Send(producer, first, tuple(lines[first:end]), max(dropped, 0), draw(steps)))
        if draw(st.integers(0, 5)) == 0:
            found.append(found[draw(st.integers(0, len(found) - 1))])  # again, as when an acknowledgement was lost
        at = end
    return found


@st.composite
def junk(draw: st.DrawFn) -> Junk:
    """A record with headers that are missing, wrong, or none at all."""
    headers = {"schema": b"calls/1", "producer": b"junk", "seq": b"0", "count": b"1"}
    for name in draw(st.lists(st.sampled_from(sorted(headers)), max_size=3)):
        wrong = draw(st.sampled_from([None, b"", b"-1", b"2", b"calls/9", b"\xff", "é".encode(), b"99999999999999999999"]))
        if wrong is None:
            headers.pop(name, None)
        else:
            headers[name] = wrong
    value = draw(st.one_of(noise, st.sampled_from([b"", b"\n\n", json.dumps(response("junk")).encode()])))
    return Junk(draw(st.integers(0, PARTITIONS - 1)), headers, value, draw(steps))


@st.composite
def streams(draw: st.DrawFn) -> Stream:
    """Producers' records and junk, shuffled together; each producer's own in its order."""
    lines = draw(st.lists(events(), min_size=8, max_size=20))
    queues: list[list[Any]] = [draw(sends(number, lines)) for number in range(draw(st.integers(1, 4)))]
    queues.append(draw(st.lists(junk(), max_size=3)))
    found: Stream = []
    while queues := [queue for queue in queues if queue]:
        found.append(queues[draw(st.integers(0, len(queues) - 1))].pop(0))
    return found


NOW_S = time.time()
names = count()


class House:
    """Engines that were right so far. After a difference the next stream begins with others, or shrinking it would tell of
    the stream before it."""

    def __init__(self, folder: Path, url: str) -> None:
        self._folder, self._url = folder, url
        self._engines: Engines | None = None

    def engines(self) -> Engines:
        if self._engines is None:
            number = next(names)
            engines = Engines(self._folder / f"{number}", f"{self._url}-{number}", partitions=PARTITIONS, flush_bytes=4_000)
            self._engines = engines.__enter__()
            self.clock_ms = int(time.time() * 1_000) - 30_000
            engines.append([first_of(partition, self.clock_ms) for partition in range(PARTITIONS)])
        return self._engines

    def close(self) -> None:
        engines, self._engines = self._engines, None
        if engines is not None:
            engines.__exit__()

    def records(self, stream: Stream) -> list[Appended]:
        """As they come into the log, from producers whom nobody has heard of before."""
        number, found = next(names), []
        for item in stream:
            self.clock_ms = min(max(self.clock_ms + item.step_ms, self.clock_ms - 60_000), int(time.time() * 1_000))
            if isinstance(item, Junk):
                found.append(Appended(item.partition, self.clock_ms, item.headers, item.value))
            else:
                envelope = Envelope.of(f"stream-{number}-{item.producer}", item.first, item.lines, item.dropped)
                found.append(Appended.of(envelope, self.clock_ms, PARTITIONS))
        return found


def first_of(partition: int, at_ms: int) -> Appended:
    """The newest call of all; and one that was announced a quarter of an hour ago, and never ended."""
    newest = datetime.fromtimestamp(at_ms / 1_000 + NEWEST_S, UTC).isoformat()
    announced = request(f"orphan-{partition}", estimated_input_tokens=90, estimated_output_tokens=9, tenant="harbor-health")
    lines = [json.dumps(event).encode() for event in (response("newest", started_at=newest), announced)]
    headers = Envelope.of(f"first-{partition}", 0, lines).headers()
    encoded = {name: text.encode() for name, text in headers.items()}
    return Appended(partition, at_ms - ORPHAN_S * 1_000, encoded, b"\n".join(lines))


@pytest.fixture(scope="module")
def house(kafka: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    found = House(tmp_path_factory.mktemp("parity"), f"kafka://{kafka}/any-stream-{time.time_ns()}")
    yield found
    found.close()


@settings(max_examples=EXAMPLES, derandomize=bool(os.environ.get("CI")))
@given(stream=streams())
def each_stream(house: House, stream: Stream) -> None:
    engines = house.engines()
    try:
        engines.append(house.records(stream))
        engines.settle()

        assert not engines.differences()
    except BaseException:
        house.close()
        raise


def test_any_stream_comes_to_the_same_on_both_engines(house: House) -> None:
    each_stream(house)

    totals = house.engines().totals()
    for name in (
        "responses",
        "requests",
        "scored",
        "rejected",
        "dead_letters",
        "bad_envelopes",
        "duplicates",
        "lost",
        "dropped",
    ):
        assert totals[name] > EXAMPLES / 4, f"hardly any of {name}: the test tests less"
