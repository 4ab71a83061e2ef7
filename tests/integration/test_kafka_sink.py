"""The sink between a real broker and a real store: once each, in whatever order trouble comes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from kafka_broker import needs_broker
from kafka_rows import Meter, carry_all, ledger, make_topics, oracle, produce, sink_settings
from tidegate.sinks.clickhouse import Store

pytestmark = [pytest.mark.slow, needs_broker]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(path=tmp_path / "store") as store:
        store.migrate()
        yield store


def test_every_row_of_every_topic_goes_in_once(kafka_url: str, store: Store) -> None:
    records = Meter().envelopes(60)

    async def scene() -> None:
        await make_topics(kafka_url)
        await produce(kafka_url, records)
        sink = await carry_all(sink_settings(kafka_url), store)
        assert sink.rows == sum(len(record.rows) for record in records)

    asyncio.run(scene())

    assert ledger(store) == oracle(records)
    assert min(oracle(records)[name] for name in ("requests", "dead_letters", "alerts")) > 0
