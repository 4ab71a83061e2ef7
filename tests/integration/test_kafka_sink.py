"""The sink between a real broker and a real store: once each, in whatever order trouble comes."""

from __future__ import annotations

import asyncio
import contextlib
import random
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from kafka_broker import needs_broker
from kafka_rows import (
    PARTITIONS,
    Meter,
    Sent,
    a_dead_letter,
    carry_all,
    ledger,
    make_topics,
    oracle,
    produce,
    running,
    sent_again,
    sink_settings,
    spoilt,
    until,
)
from tidegate.bench.kafka.broker import Broker
from tidegate.processors.distributed import sink_tenure
from tidegate.processors.distributed.sink import KafkaSink
from tidegate.processors.distributed.topic_plan import plan
from tidegate.processors.topology import SINK
from tidegate.schemas.errors import LogUnavailable, StoreUnavailable, UsageError
from tidegate.schemas.kafka_url import KafkaAddress
from tidegate.schemas.topics import ALERTS, DEAD_LETTERS, METERED
from tidegate.sinks.clickhouse import RowsRefused, Store

pytestmark = [pytest.mark.slow, needs_broker]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(path=tmp_path / "store") as store:
        store.migrate()
        yield store


class AwayStore:
    """A store that cannot be reached while `away`."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.away = True
        self.asked = 0

    def insert(self, table: str, lines: bytes, token: str) -> None:
        self.asked += 1
        if self.away:
            raise StoreUnavailable("the store cannot be reached: connection refused")
        self._store.insert(table, lines, token)


class FolderOnDemand:
    """A store that opens its folder for each insert: what holds the folder meanwhile is in its way, as in life."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def insert(self, table: str, lines: bytes, token: str) -> None:
        with Store.open(path=self._path) as store:
            store.insert(table, lines, token)


@asynccontextmanager
async def admin(url: str) -> AsyncIterator[Any]:
    client = AIOKafkaAdminClient(bootstrap_servers=KafkaAddress.parse(url).bootstrap)
    await client.start()
    try:
        yield client
    finally:
        await client.close()


async def members(url: str) -> int:
    """How many sinks the broker believes in."""
    async with admin(url) as client:
        [answer] = await client.describe_consumer_groups([KafkaAddress.parse(url).group("sink")])
        return len(answer.groups[0][-1]) if answer.API_VERSION < 3 else len(answer.groups[0][5])


async def eat(url: str, partition: int, before: int) -> None:
    """What retention does: the metered records before an offset are gone."""
    tp = TopicPartition(KafkaAddress.parse(url).topic(METERED), partition)
    async with admin(url) as client:
        await client.delete_records({tp: RecordsToDelete(before_offset=before)})


def metered(records: list[Sent], partition: int) -> list[Sent]:
    return [record for record in records if record.topic == METERED and record.partition == partition]


# ---- once each


def test_every_row_of_every_topic_goes_in_once(kafka_url: str, store: Store) -> None:
    records = Meter().envelopes(60)

    async def scene() -> KafkaSink:
        await make_topics(kafka_url)
        await produce(kafka_url, records)
        return await carry_all(sink_settings(kafka_url, sink_batch_rows=50), store)

    sink = asyncio.run(scene())

    assert ledger(store) == oracle(records)
    assert min(oracle(records)[name] for name in ("requests", "verdicts", "transcripts", "dead_letters", "alerts")) > 0
    assert sink.rows == sum(len(record.rows) for record in records)
    assert (sink.lost_records, sink.refused_rows, sink.skipped_records, sink.failure) == (0, 0, 0, None)


def test_rows_go_in_while_they_come_and_after_a_restart(kafka_url: str, store: Store) -> None:
    meter = Meter()
    parts = [meter.envelopes(10) for _ in range(4)]

    async def scene() -> None:
        await make_topics(kafka_url)
        settings = sink_settings(kafka_url, sink_batch_rows=1_000, sink_linger_s=0.1)
        for first, second in (parts[:2], parts[2:]):
            async with running(settings, store) as run:
                for part in (first, second):
                    await produce(kafka_url, part)
                    rows = run.sink.rows
                    await run.until(lambda rows=rows: run.sink.rows > rows and run.is_through)  # type: ignore[misc]

    asyncio.run(scene())

    assert ledger(store) == oracle([record for part in parts for record in part])


def test_what_a_meter_sends_again_is_known_by_its_source_also_after_a_restart(kafka_url: str, store: Store) -> None:
    records = Meter().envelopes(20)
    again = [record for record in records if record.source is not None]

    async def scene() -> KafkaSink:
        await make_topics(kafka_url)
        await produce(kafka_url, records)
        await carry_all(sink_settings(kafka_url), store)
        await produce(kafka_url, again)
        return await carry_all(sink_settings(kafka_url), store)

    sink = asyncio.run(scene())

    assert ledger(store) == oracle(records)
    assert (sink.rows, sink.skipped_records) == (0, len(again))


def test_two_namespaces_share_a_database_and_topics_may_be_made_anew(kafka: str, kafka_url: str, store: Store) -> None:
    """The same offsets of the same partitions, three times over: the store must not take one for the other."""
    meters = [Meter(seed) for seed in (1, 2, 3)]
    parts = [[record for record in meter.envelopes(8) if record.source is not None] for meter in meters]
    # As alike as can be: one record each, at offset 0.
    parts = [metered(part, 0)[:1] for part in parts]
    address = KafkaAddress.parse(kafka_url)

    async def scene() -> None:
        for url, part in ((kafka_url, parts[0]), (f"{kafka_url}-other", parts[1])):
            await make_topics(url)
            await produce(url, part)
            await carry_all(sink_settings(url), store)
        async with admin(kafka_url) as client:
            names = [name for name in await client.list_topics() if name.startswith(f"{address.namespace}.")]
            await client.delete_topics(names)
            tp = TopicPartition(address.topic(METERED), 0)
            async with asyncio.timeout(30):
                while (await client.list_consumer_group_offsets(address.group("sink"), partitions=[tp]))[tp].offset >= 0:
                    await asyncio.sleep(0.05)
        await make_topics(kafka_url)
        await produce(kafka_url, parts[2])
        await carry_all(sink_settings(kafka_url), store)

    asyncio.run(scene())

    assert all(len(part) == 1 for part in parts)
    assert ledger(store) == oracle([Sent(r.topic, seed, r.rows, r.source) for seed, part in enumerate(parts) for r in part])


# ---- rows that the store refuses


def test_a_poisoned_row_becomes_a_dead_letter_and_all_others_go_in(kafka_url: str, store: Store) -> None:
    good = Meter().envelopes(30)
    where = next(n for n, record in enumerate(good) if record.topic == METERED and len(record.rows) > 3)
    sent = [spoilt(record, 2) if number == where else record for number, record in enumerate(good)]
    sent.append(Sent(ALERTS, 0, ({"key": "an alert", "prompt": "Rosa Martinez"},), None))
    left = Sent(METERED, good[where].partition, (*good[where].rows[:2], *good[where].rows[3:]), good[where].source)

    async def scene() -> KafkaSink:
        await make_topics(kafka_url)
        await produce(kafka_url, sent)
        async with running(sink_settings(kafka_url, sink_batch_rows=1_000), store) as run:
            # The dead letters come into the log behind the rows.
            await run.until(lambda: run.sink.refused_rows == 2 and run.is_through)
            return run.sink

    sink = asyncio.run(scene())

    expected = oracle([left if number == where else record for number, record in enumerate(good)])
    assert ledger(store) == expected | {"dead_letters": expected["dead_letters"] + 2}
    assert sink.rows == sum(len(record.rows) for record in sent)
    letters = store.query("SELECT source, producer, source_partition, source_offset FROM dead_letters WHERE stage = 'sink'")
    spoilt_source = good[where].source
    assert spoilt_source is not None
    assert sorted(letters.rows) == [
        ("tidegate.alerts", "", 0, sum(record.topic == ALERTS for record in good)),
        ("tidegate.metered", "meter-1", *spoilt_source),
    ]


def test_a_dead_letter_that_is_refused_itself_stops_the_sink_until_a_person_has_looked(kafka_url: str, store: Store) -> None:
    bad = Sent(DEAD_LETTERS, 0, (a_dead_letter((0, 1)) | {"size_bytes": "Rosa Martinez"},), (0, 1))
    seen: list[BaseException | None] = []

    async def scene() -> None:
        await make_topics(kafka_url)
        await produce(kafka_url, [bad])
        for _ in range(2):  # it does not go away by itself
            sink = KafkaSink(sink_settings(kafka_url), store)
            with contextlib.suppress(RowsRefused):
                await sink.run(asyncio.Event())
            seen.append(sink.failure)

    asyncio.run(scene())

    assert [type(failure) for failure in seen] == [RowsRefused, RowsRefused]
    assert "size_bytes" in str(seen[0])
    assert "Rosa" not in str(seen[0])


# ---- the store is away


def test_while_the_store_is_away_reading_stops_at_a_bound_and_nothing_is_lost(
    kafka_url: str, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sink_tenure, "_LEAST_BATCH_BYTES", 8_000)
    monkeypatch.setattr(sink_tenure, "_BATCH_BYTES", 8_000)
    monkeypatch.setattr(sink_tenure, "_BACKOFF_MAX_S", 0.2)
    meter = Meter()
    before, meanwhile = meter.envelopes(100), meter.envelopes(400)
    away = AwayStore(store)

    async def scene() -> None:
        await make_topics(kafka_url)
        await produce(kafka_url, before)
        async with running(sink_settings(kafka_url, sink_batch_rows=1_000), cast(Store, away)) as run:
            await run.until(lambda: run.sink.store_away and away.asked > 3)
            await produce(kafka_url, meanwhile)
            # It shows what it does not read any more.
            await run.until(lambda: sum(run.sink.lag().values()) == len(before) + len(meanwhile))
            held = sum(partition.size_bytes for partition in run.sink._tenure._partitions.values())  # type: ignore[union-attr]
            waiting = sum(len(record.value) for record in before + meanwhile)
            assert held < waiting / 2, f"{held} of {waiting} bytes are in memory"
            assert await members(kafka_url) == 1
            away.away = False
            await run.until(lambda: run.is_through)
            assert not run.sink.store_away

    asyncio.run(scene())

    assert ledger(store) == oracle(before + meanwhile)


def test_a_sink_that_is_stopped_while_the_store_is_away_leaves_the_rows_to_the_next(kafka_url: str, store: Store) -> None:
    records = Meter().envelopes(20)
    away = AwayStore(store)

    async def scene() -> float:
        await make_topics(kafka_url)
        await produce(kafka_url, records)
        async with running(sink_settings(kafka_url), cast(Store, away)) as run:
            await run.until(lambda: run.sink.store_away)
            asked = time.monotonic()
            await run.stop()
            took_s = time.monotonic() - asked
            assert run.sink.rows == 0
        away.away = False
        await carry_all(sink_settings(kafka_url, sink_batch_rows=5), cast(Store, away))
        return took_s

    took_s = asyncio.run(scene())

    assert ledger(store) == oracle(records)
    assert took_s < 15, "a stop must not wait for the store"


def test_a_store_that_another_process_holds_is_waited_for(kafka_url: str, tmp_path: Path) -> None:
    records = Meter().envelopes(4)
    with Store.open(path=tmp_path / "store") as store:
        store.migrate()
    code = (
        "import sys; from pathlib import Path; from tidegate.sinks.clickhouse import Store\n"
        "with Store.open(path=Path(sys.argv[1])): print('open', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "store")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"open\n"

    async def scene() -> None:
        await make_topics(kafka_url)
        await produce(kafka_url, records)
        settings = sink_settings(kafka_url, sink_batch_rows=1_000, sink_linger_s=0.5)
        async with running(settings, cast(Store, FolderOnDemand(tmp_path / "store"))) as run:
            await run.until(lambda: run.sink.store_away)
            holder.communicate(timeout=30)
            await run.until(lambda: run.is_through)
            assert not run.sink.store_away

    try:
        asyncio.run(scene())
    finally:
        holder.kill()
        holder.communicate()

    with Store.open(path=tmp_path / "store") as store:
        assert ledger(store) == oracle(records)


# ---- several sinks


def shared_by_sinks(partitions: int) -> int:
    """How many partitions there are to carry: of some topics one, of the others as many as of calls."""
    return sum(planned.partitions for planned in plan(partitions) if planned.topic in SINK.reads)


def test_sinks_that_come_and_go_under_load_neither_lose_nor_double_a_row(kafka_url: str, store: Store) -> None:
    meter = Meter(partitions=4)
    pick = random.Random(7)
    records: list[Sent] = []
    most: list[int] = []

    async def load(done: asyncio.Event) -> None:
        while not done.is_set():
            part = meter.envelopes(5)
            records.extend(part)
            await produce(kafka_url, sent_again(part, pick))
            await asyncio.sleep(0.1)

    async def scene() -> None:
        await make_topics(kafka_url, partitions=4)
        settings = sink_settings(kafka_url, sink_batch_rows=200)
        done = asyncio.Event()
        async with running(settings, store) as first:
            loading = asyncio.create_task(load(done))
            await first.until(lambda: first.sink.rows > 50)
            async with running(settings, store) as second:
                await second.until(lambda: second.sink.rows > 50)
                await first.until(lambda: 0 < len(first.sink.lag()) < shared_by_sinks(4))
                most.append(await members(kafka_url))
                async with running(settings, store) as third:
                    await third.until(lambda: third.sink.rows > 50)
                    await second.stop()
                    rows = first.sink.rows
                    await first.until(lambda: first.sink.rows > rows + 50)
            done.set()
            await loading
            await first.until(lambda: len(first.sink.lag()) == shared_by_sinks(4) and first.is_through)

    asyncio.run(scene())

    assert ledger(store) == oracle(records)
    assert most == [2]


def test_a_partition_is_not_handed_over_in_the_middle_of_a_batch(kafka_url: str, store: Store) -> None:
    """The insert under way is awaited and committed: the next owner finds no promise standing."""
    records = Meter().envelopes(30)
    slow = SlowStore(store)

    async def scene() -> None:
        await make_topics(kafka_url)
        await produce(kafka_url, records)
        settings = sink_settings(kafka_url, sink_batch_rows=1_000)
        async with running(settings, cast(Store, slow)) as first:
            await first.until(lambda: slow.under_way)
            async with running(settings, store) as second:
                await second.until(lambda: second.sink.ready)
                assert slow.finished >= 1
                assert first.sink.batches >= 1
                slow.wait_s = 0.0
                await until(lambda: first.is_through and second.is_through)
                assert first.sink.rows + second.sink.rows == sum(len(record.rows) for record in records)

    asyncio.run(scene())

    assert ledger(store) == oracle(records)


def test_a_batch_that_takes_too_long_is_left_to_the_next_owner(
    kafka_url: str, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same rows go to the store twice, at the same time, under one token."""
    monkeypatch.setattr(sink_tenure, "_HAND_OVER_S", 0.2)
    records = Meter().envelopes(30)
    slow = SlowStore(store)
    slow.wait_s = 8.0

    async def scene() -> None:
        await make_topics(kafka_url)
        await produce(kafka_url, records)
        settings = sink_settings(kafka_url, sink_batch_rows=1_000)
        async with running(settings, cast(Store, slow)) as first:
            await first.until(lambda: slow.under_way)
            async with running(settings, store) as second:
                slow.wait_s = 0.0
                await until(lambda: first.is_through and second.is_through)
                # The insert that nobody waited for has ended, and was not committed.
                await first.until(lambda: slow.finished > first.sink.batches)

    asyncio.run(scene())

    assert ledger(store) == oracle(records)


class SlowStore:
    """A store whose inserts take `wait_s`."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.wait_s = 4.0  # longer than two heartbeats, on which the rebalance is heard of
        self.under_way = False
        self.finished = 0

    def insert(self, table: str, lines: bytes, token: str) -> None:
        self.under_way = True
        time.sleep(self.wait_s)  # the slowness is what is tested
        self._store.insert(table, lines, token)
        self.finished += 1


# ---- the log


def test_what_retention_has_eaten_is_counted_and_the_rest_goes_in(kafka_url: str, store: Store) -> None:
    meter = Meter()
    first, second = meter.envelopes(20), meter.envelopes(20)
    known = len(metered(first, 0))
    eaten = metered(second, 0)[:3]

    async def scene() -> list[KafkaSink]:
        await make_topics(kafka_url)
        await produce(kafka_url, first)
        before = await carry_all(sink_settings(kafka_url), store)
        await produce(kafka_url, second)
        await eat(kafka_url, 0, before=known + 3)
        return [before, await carry_all(sink_settings(kafka_url), store), await carry_all(sink_settings(kafka_url), store)]

    sinks = asyncio.run(scene())

    assert [sink.lost_records for sink in sinks] == [0, 3, 0]
    assert ledger(store) == oracle([record for record in first + second if record not in eaten])


class Abort(BaseException):
    """The power goes out."""


def test_of_a_promise_that_retention_has_eaten_into_the_rest_goes_in(kafka_url: str, store: Store) -> None:
    records = [record for record in Meter().envelopes(40) if record.topic == METERED and record.partition == 0]

    def abort(step: str) -> None:
        if step == "2 promise":
            raise Abort

    async def scene() -> KafkaSink:
        await make_topics(kafka_url)
        await produce(kafka_url, records)
        with contextlib.suppress(Abort):
            await carry_all(sink_settings(kafka_url, sink_batch_rows=1_000), store, abort)
        await eat(kafka_url, 0, before=4)
        return await carry_all(sink_settings(kafka_url), store)

    sink = asyncio.run(scene())

    assert sink.lost_records == 4
    assert ledger(store) == oracle(records[4:])


def test_records_that_vanish_under_a_running_sink_are_counted(kafka_url: str, store: Store) -> None:
    meter = Meter()
    first, second = meter.envelopes(20), meter.envelopes(20)
    known = len(metered(first, 0))
    away = AwayStore(store)
    away.away = False

    async def scene() -> KafkaSink:
        await make_topics(kafka_url)
        await produce(kafka_url, first)
        async with running(sink_settings(kafka_url), cast(Store, away)) as run:
            await run.until(lambda: run.is_through)
            consumer = run.sink._consumer
            tp = TopicPartition(KafkaAddress.parse(kafka_url).topic(METERED), 0)
            consumer.pause(tp)  # as it is while the store is away
            await produce(kafka_url, second)
            await eat(kafka_url, 0, before=known + 2)
            consumer.resume(tp)
            await run.until(lambda: run.sink.lost_records > 0)
            await run.until(lambda: run.is_through)
            return run.sink

    sink = asyncio.run(scene())

    eaten = metered(second, 0)[:2]
    assert sink.lost_records == 2
    assert ledger(store) == oracle([record for record in first + second if record not in eaten])


def test_a_broker_that_goes_away_and_comes_back_is_waited_for(tmp_path: Path, store: Store) -> None:
    """Under its own address, as a broker does; below the ports that the system hands out to clients."""
    broker = Broker(tmp_path / "kafka", port=random.Random().randint(20_000, 29_999))
    meter = Meter()
    first, second = meter.envelopes(30), meter.envelopes(30)

    async def scene(url: str) -> None:
        await make_topics(url)
        await produce(url, first)
        async with running(sink_settings(url, sink_batch_rows=10), store) as run:
            await run.until(lambda: run.sink.batches > 2)
            await asyncio.to_thread(broker.kill)
            await asyncio.to_thread(broker.start)
            await produce(url, second)
            await run.until(lambda: run.is_through and len(run.sink.lag()) == shared_by_sinks(PARTITIONS), within_s=120)

    with broker:
        asyncio.run(scene(f"kafka://{broker.bootstrap}/restarted"))

    assert ledger(store) == oracle(first + second)


# ---- what a person must mend


def test_missing_topics_are_named_with_the_command_that_makes_them(kafka_url: str, store: Store) -> None:
    sink = KafkaSink(sink_settings(kafka_url), store)

    with pytest.raises(UsageError, match=r"has no topic test-\w+\.alerts, .*run `tidegate topics create`"):
        asyncio.run(sink.run(asyncio.Event()))

    assert isinstance(sink.failure, UsageError)


def test_without_a_broker_the_error_names_the_address(store: Store) -> None:
    sink = KafkaSink(sink_settings("kafka://127.0.0.1:1/nobody"), store)

    with pytest.raises(LogUnavailable, match=r"Kafka at 127\.0\.0\.1:1 cannot be reached"):
        asyncio.run(sink.run(asyncio.Event()))


def test_a_place_that_somebody_else_has_written_down_is_not_guessed_at(kafka_url: str, store: Store) -> None:
    address = KafkaAddress.parse(kafka_url)
    tp = TopicPartition(address.topic(METERED), 0)

    async def scene() -> None:
        await make_topics(kafka_url)
        consumer = AIOKafkaConsumer(
            bootstrap_servers=address.bootstrap, group_id=address.group("sink"), enable_auto_commit=False
        )
        consumer.assign([tp])
        await consumer.start()
        await consumer.commit({tp: (0, "somebody else's")})
        await consumer.stop()
        await KafkaSink(sink_settings(kafka_url), store).run(asyncio.Event())

    with pytest.raises(UsageError, match="a note that is not the sink's"):
        asyncio.run(scene())
