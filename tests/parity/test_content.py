"""Parity on texts: sealed content through the guardrails of both engines, and their verdicts through both meters."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest
from kafka_broker import needs_broker
from memory_log import MemoryLog
from parity_engines import Engines
from parity_real import moved_by, needs_real_calls, parts
from parity_sides import Appended, Judging
from parity_traffic import in_order, traffic
from tidegate.processors.guardrails.pool import LOADER
from tidegate.producers.emitter import Emitter
from tidegate.producers.key_source import GivenKeys
from tidegate.producers.keyring import KeyRing
from tidegate.producers.replay import replay
from tidegate.producers.sealing import seal
from tidegate.producers.simulate_texts import texts_of
from tidegate.schemas.content import CALL_FIELDS, Texts
from tidegate.schemas.envelope import CONTENT_SCHEMA, Envelope
from tidegate.schemas.settings import Settings
from tidegate.schemas.topics import CONTENT, FINDINGS, QUARANTINE, TRANSCRIPTS, Topic

pytestmark = [pytest.mark.slow, needs_broker]

RING = KeyRing.made()
KEYS = GivenKeys(RING.dump().decode())
SPOKEN = 5_000
# A real suite takes some ten milliseconds a call, twice.
REAL = 100


def spoken(calls: list[Appended], partitions: int, *, seed: int) -> Iterator[Appended]:
    """What the calls of each envelope said, in an envelope beside; what came twice comes twice. Some lines are hashed, some of
    a key that is gone, some torn; some texts break a detector. In the end, something that is no envelope."""
    chance = random.Random(seed)
    numbers, last = Counter[str](), {}
    for record in calls:
        content = last.get(record.partition, (None, None))
        if content[0] is not record:
            producer = (record.key or b"").decode() + "-content"
            lines = [said(orjson.loads(line), chance) for line in record.value.split(b"\n")]
            envelope = Envelope.of(producer, numbers[producer], lines, schema=CONTENT_SCHEMA)
            content = last[record.partition] = record, Appended.of(envelope, record.at_ms, partitions)
            numbers[producer] += len(lines)
        yield content[1]
    yield Appended(0, calls[-1].at_ms, {"schema": b"somebody else's"}, b"???", None, CONTENT)


def said(event: dict[str, Any], chance: random.Random) -> bytes:
    """One line of content of a call."""
    content = {name: event[name] for name in ("call_id", "started_at", *CALL_FIELDS) if name in event} | {"event": "content"}
    draw = chance.random()
    if draw < 0.01:
        return b"{torn"
    if draw < 0.05:
        return orjson.dumps(content | {"mode": "hashed", "fingerprints": {"prompt": ["0" * 32]}})
    key = RING.sealing(None)
    texts = texts_of(event) or {"prompt": "text"}
    if draw < 0.15:
        texts = texts | {"prompt": f"{texts['prompt']} Zqann", "response": f"{texts.get('response') or ''} Zqbert"}
    elif draw < 0.16:
        texts = texts | {"prompt": "RAISE"}
    sealed = seal(Texts(**texts), event["call_id"], key)
    return orjson.dumps(content | {"mode": "sealed", "key_id": "k-gone" if draw > 0.99 else key.key_id, "sealed": sealed})


def outcomes(engines: Engines) -> Counter[str]:
    return Counter(row["outcome"] for row in rows(engines, FINDINGS))


def rows(engines: Engines, topic: Topic) -> list[dict[str, Any]]:
    """As the embedded side has them, from the start."""
    found = (record for partition in engines.ends for record in engines.embedded.records(topic, partition))
    return [orjson.loads(line) for record in found for line in record.value.split(b"\n")]


def test_what_simulated_clinics_say_comes_to_the_same_on_both_engines(tmp_path: Path, kafka_url: str) -> None:
    with Engines(tmp_path, kafka_url, partitions=3, flush_bytes=100_000) as engines:
        calls = list(traffic(SPOKEN, engines.partitions, seed=7))
        always = {"tenant": ("harbor-health",)}
        settings = Settings(guard_detectors=("phi", "toxicity"), guard_sample=0.6, guard_new_h=0, guard_always=always)
        for part in in_order([*calls, *spoken(calls, engines.partitions, seed=8)], 10):
            engines.append(part)

        # The oldest is more than two minutes old by then: of it only what is at risk is judged.
        engines.judge(Judging(settings, KEYS, "guard_suites:names", calls[-1].at_ms / 1_000 + 90))
        engines.settle()

        assert not engines.differences()
        assert engines.totals()["responses"] == SPOKEN
        assert engines.totals()["scored"] + engines.totals()["rejected"] == SPOKEN
        assert outcomes(engines).keys() == {"scored", "partial", "sampled_out", "hashed", "unreadable"}
        assert min(len(rows(engines, topic)) for topic in (TRANSCRIPTS, QUARANTINE)) > 20


@needs_real_calls
def test_real_texts_come_to_the_same_on_both_engines_with_the_detectors_that_ship(tmp_path: Path, kafka_url: str) -> None:
    with Engines(tmp_path, kafka_url, partitions=3) as engines:
        records = replayed(list(parts(tmp_path, moved_by("as if they had just been made"))), engines.partitions)
        engines.append(records)

        engines.judge(Judging(Settings(guard_new_h=0), KEYS, LOADER, datetime.now(UTC).timestamp()), within_s=300)
        engines.settle()

        assert not engines.differences()
        assert outcomes(engines) == {"scored": REAL}
        assert len(rows(engines, TRANSCRIPTS)) == REAL
        found = Counter(entry["detector"] for row in rows(engines, FINDINGS) for entry in row.get("findings", []))
        assert len(found) > 1, found
        assert {record.partition for record in records} == {0, 1, 2}, "a partition has no calls: the test tests less"


def replayed(paths: list[Path], partitions: int) -> list[Appended]:
    """What a replay of the last calls of each log appends, with their texts."""
    log = MemoryLog()
    for path in paths:
        path.write_bytes(b"\n".join(path.read_bytes().splitlines()[-REAL // len(paths) :]))
        settings = Settings(flush_timeout_s=60)
        with Emitter(log, settings=settings, producer_id=path.stem, reopen=lambda: log, keys=lambda: KEYS) as emitter:
            report = replay([path], emitter, content=True)
            assert emitter.flush(60)
        assert not report.problems
    begun = datetime.now(UTC) - timedelta(milliseconds=len(log.envelopes))
    begun_ms = int(begun.timestamp() * 1_000)
    return [Appended.of(envelope, begun_ms + number, partitions) for number, envelope in enumerate(log.envelopes)]
