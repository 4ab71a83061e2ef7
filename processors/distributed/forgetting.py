"""Forgets a person where the log is Kafka: in the store, and on Kafka what can be taken back there.

Nothing is taken out of the middle of a topic. Refused lines of theirs, and words of policies on their scopes, are taken back by
their keys; all else goes when its retention is over, and until then nothing is proven. Nobody knows late events of theirs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Final

from aiokafka import TopicPartition

from ...producers.keyring import KeyRing
from ...schemas.errors import LogUnavailable, Unreadable, UsageError
from ...schemas.settings import Settings
from ...schemas.signal import decode_signal, parse_signal_key
from ...schemas.topics import REFUSED, SIGNALS
from ...sinks.clickhouse import Store
from ...sinks.erasure import StoreErasure
from ..erasure_report import ErasureReport
from ..forgetting import Eraser, Person, fingerprint_of, salt_of
from ..store_erasing import check_rows, count_rows, erase_rows, now
from ..topology import SINK
from .kafka_admin import NO_ERROR, kafka_admin
from .letters import KafkaLetters
from .topic_plan import plan
from .topic_reading import TopicReading

# The group's coordinator may just be taking its place: that is a matter of seconds.
_TRIES: Final = 60
_PAUSE_S: Final = 0.5
# What a broker has where a topic does not say: a segment is closed after so long.
_SEGMENT_MS: Final = 7 * 86_400_000


async def sinks_at_work(settings: Settings, letters: KafkaLetters) -> bool:
    """Whether somebody is in the sinks' group."""
    group = letters.address.group(SINK.name)
    # A cluster on which no group ever was has nobody to ask for one, until somebody wants to know of an offset.
    member = await letters.member(group)
    try:
        await member.committed(TopicPartition(letters.topic, 0))
    finally:
        await member.stop()
    async with kafka_admin(settings) as admin:
        for _ in range(_TRIES):
            [answer] = await admin.describe_consumer_groups([group])
            [(error, _, _, _, _, members, *_)] = answer.groups
            if error == NO_ERROR:
                return bool(members)
            await asyncio.sleep(_PAUSE_S)
    raise LogUnavailable(f"{settings.url} does not say whether sinks are at work (error {error})")


def forget_on_kafka(
    settings: Settings,
    person: Person,
    ring: KeyRing,
    *,
    old_parts_within_s: float = 600.0,
    progress: Callable[[str], None] = lambda _what: None,
) -> ErasureReport:
    """Do it. The caller has the data folder where the store is in it. Raises `UsageError` while sinks run: what they insert
    while sums are moved would be lost."""
    key = ring.fingerprint_key
    salt = salt_of(person, key)
    report = ErasureReport(person.tenant, fingerprint_of(person, key), now())
    with closing(KafkaLetters(settings)) as letters:
        if letters.run(sinks_at_work(settings, letters)):
            raise UsageError("sinks are at work: stop them, forget, and start them again; rows wait on Kafka for a day")
        with Store.open(path=None if settings.store else settings.data_dir / "store", dsn=settings.store) as store:
            rows = StoreErasure(store, person.tenant, person.user, salt)
            eraser = Eraser(person, salt, rows.call_ids())
            progress("taking back what Kafka takes back")
            report.log[REFUSED.name], unopened = _refused(letters, eraser, ring)
            report.log[SIGNALS.name] = _signals(settings, eraser)
            progress("going through the store")
            erase_rows(report, rows)
            progress("waiting until the store's old files are gone")
            check_rows(report, rows, person, old_parts_within_s)
    if unopened:
        report.unchecked.append(f"{unopened:,} refused lines, sealed, that no key of this ring opens")
    report.unchecked.append("what lies on Kafka: see below until when; what sinks still read there comes into the store again")
    report.remains = [
        *_retention(datetime.now(UTC)),
        ("backups, spools, services that run, other systems", "see docs/forgetting.md"),
    ]
    report.ended_at = now()
    return report


def found_on_kafka(settings: Settings, person: Person, ring: KeyRing) -> ErasureReport:
    """How many rows of the store name a person; nothing is removed, and Kafka is not asked."""
    report = ErasureReport(person.tenant, fingerprint_of(person, ring.fingerprint_key), now())
    with Store.open(path=None if settings.store else settings.data_dir / "store", dsn=settings.store) as store:
        count_rows(report, StoreErasure(store, person.tenant, person.user, ""))
    report.ended_at = now()
    return report


def _refused(letters: KafkaLetters, eraser: Eraser, ring: KeyRing) -> tuple[int, int]:
    """How many were taken back, and how many nobody can open."""
    gone = unopened = 0
    for letter in letters.kept():
        try:
            line = letter.opened(ring)
        except Unreadable:
            unopened += 1
            continue
        if eraser.line(line) is not line:
            letters.drop(letter)
            gone += 1
    return gone, unopened


def _signals(settings: Settings, eraser: Eraser) -> int:
    with closing(TopicReading(settings, SIGNALS, "reviewer")) as signals:
        words: dict[bytes, int] = {}
        for tp in signals.partitions():
            for record in signals.records(tp, *signals.bounds(tp)):
                key = record.key or b""
                if parse_signal_key(key) is None:
                    continue
                if record.value and eraser.names(decode_signal(record.value).scope):
                    words[key] = tp.partition
                else:
                    words.pop(key, None)
        producer = signals.producer()
        try:
            for key, partition in words.items():
                signals.run(producer.send_and_wait(signals.topic, None, key=key, partition=partition))
        finally:
            signals.run(producer.stop())
    return len(words)


def _retention(at: datetime) -> list[tuple[str, str]]:
    """Of each topic, until when it may hold what is in it now."""
    found = []
    for planned in plan():
        config = planned.config
        if "retention.ms" not in config:
            found.append((planned.topic.name, "a newer word on each key; a scope of theirs stays as long as its policy"))
            continue
        longest = timedelta(milliseconds=int(config["retention.ms"]) + int(config.get("segment.ms", _SEGMENT_MS)))
        found.append((planned.topic.name, f"{at + longest:%Y-%m-%d}"))
    return found
