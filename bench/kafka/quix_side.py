"""Quix Streams on the work of the meter: parse, validate, price, aggregate, a priced row out. Run by a Python of its own.

    python quix_side.py <bootstrap> <topic> <events> <state folder>     prints events a second

Written as its documentation does it: one function a message, state in its store with a changelog topic, the row to an
output topic. It calls Tidegate's own decoder and price book, so that both sides do the same, and keeps one counter list a
scope set and minute, where Tidegate also keeps hours, days and the two latency sketches.
"""

from __future__ import annotations

import sys
import time
from typing import Any

import msgspec
from quixstreams import Application
from tidegate.processors.pricing import PriceBook
from tidegate.schemas.call import TOKEN_FIELDS
from tidegate.schemas.hot import decode_event
from tidegate.schemas.settings import DEFAULT_SCOPE_SETS


def main(bootstrap: str, topic_name: str, count: int, folder: str) -> None:
    book = PriceBook.load(None)
    progress = {"seen": 0, "first": 0.0, "last": 0.0}
    app = Application(
        broker_address=bootstrap,
        consumer_group=f"quix-{time.time_ns()}",
        auto_offset_reset="earliest",
        state_dir=folder,
        loglevel="ERROR",
        consumer_extra_config={"fetch.message.max.bytes": 16 << 20},
        producer_extra_config={"compression.type": "zstd", "linger.ms": 5},
    )
    source = app.topic(topic_name, value_deserializer="bytes", key_deserializer="bytes")
    rows = app.topic(f"{topic_name}.quix.rows", value_serializer="bytes")

    def one(value: bytes, state: Any) -> bytes:
        event: Any = decode_event(value)
        tokens: Any = [getattr(event, name) for name in TOKEN_FIELDS]
        price = book.price(
            event.tenant,
            event.provider_name,
            event.response_model,
            event.request_model,
            event.service_tier,
            event.started_at,
            *(*tokens, event.cache_hit),
        )
        minute = int(event.started_at.timestamp()) // 60
        for number, fields in enumerate(DEFAULT_SCOPE_SETS):
            names = [
                event.response_model or event.request_model if name == "model" else getattr(event, name) for name in fields
            ]
            key = f"{number}|{minute}|{names}"
            sums = state.get(key) or [0] * (3 + len(tokens))
            sums[0] += 1
            sums[1] += price.cost_nano_usd or 0
            sums[2] += event.error_type is not None
            for place, tokens_of in enumerate(tokens, 3):
                sums[place] += tokens_of or 0
            state.set(key, sums)
        now = time.monotonic()
        progress["first"] = progress["first"] or now
        progress["seen"] += 1
        progress["last"] = now
        return b'%b,"cost_nano_usd":%d}' % (msgspec.json.encode(event)[:-1], price.cost_nano_usd or 0)

    app.dataframe(source).apply(one, stateful=True).to_topic(rows)
    app.run(count=count, timeout=60.0)
    print((progress["seen"] - 1) / (progress["last"] - progress["first"]))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4])
