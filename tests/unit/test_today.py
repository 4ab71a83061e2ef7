"""Usage of the newest day as a node on Kafka has it from the store, held against a plain sum over the rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson
import pytest
from support import finding, scored
from tidegate.processors.distributed.today import Today
from tidegate.schemas.errors import StoreUnavailable
from tidegate.sinks.clickhouse import Store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with Store.open(path=tmp_path_factory.mktemp("today") / "store") as opened:
        opened.migrate()
        yield opened


class ComesAndGoes:
    """A store that can be out of reach."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.away = False

    def query(self, sql: str, **options: Any) -> Any:
        if self.away:
            raise StoreUnavailable("gone")
        return self.store.query(sql, **options)


def row(number: int, day: str, model: str, **fields: Any) -> dict[str, Any]:
    return {
        "source_partition": 0,
        "source_offset": number,
        "seq": number,
        "producer": "p",
        "call_id": f"call-{number}",
        "started_at": f"{day}T23:59:{number % 60:02}Z",
        "tenant": f"tenant-{number % 3}",
        "provider_name": "openai",
        "request_model": model,
        "price_status": "priced",
        "price_book": "b",
        "input_tokens": 100 + number,
        "output_tokens": 10,
        "cost_nano_usd": 1_000 * number,
    } | fields


def test_before_the_first_call_there_is_no_day(store: Store) -> None:
    found = Today(store).usage()

    assert (found["day"], found["requests"], found["models"]) == (None, 0, [])


def test_the_newest_day_is_summed_by_model_dearest_first(store: Store) -> None:
    newest = [row(number, "2026-11-30", "gpt-4o" if number % 4 else "gpt-4o-mini") for number in range(40)]
    judged = [
        scored(each["call_id"], request_model=each["request_model"], started_at=each["started_at"], seq=number)
        | {"findings": [finding()] * (number % 3), "outcome": "scored" if number % 5 else "hashed"}
        for number, each in enumerate([*newest, *(row(60 + number, "2026-11-29", "gpt-4o") for number in range(9))])
    ]
    store.insert("scored_calls", b"\n".join(map(orjson.dumps, judged)), "token-2")
    failed = row(41, "2026-11-30", "gpt-4o", cost_nano_usd=None, price_status="unpriced", error_type="timeout")
    older = [row(50 + number, "2026-11-29", "gpt-4o") for number in range(5)]
    store.insert("calls", b"\n".join(orjson.dumps(each) for each in (*older, *newest, failed)), "token-1")

    found = Today(store).usage()

    assert found["day"] == "2026-11-30"
    assert [model["model"] for model in found["models"]] == ["gpt-4o", "gpt-4o-mini"]
    assert (found["requests"], found["errors"], found["unpriced"]) == (41, 1, 1)
    assert found["cost_nano_usd"] == sum(each["cost_nano_usd"] for each in newest)
    assert found["input_tokens"] == sum(each["input_tokens"] for each in (*newest, failed))
    assert (found["scored"], found["findings"]) == (32, sum(number % 3 for number in range(40)))
    assert found["models"][1]["findings"] == sum(number % 3 for number in range(0, 40, 4))
    assert found["models"][1]["tokens"] == sum(each["input_tokens"] + 10 for each in newest if "mini" in each["request_model"])


def test_while_the_store_is_away_its_last_answer_stands_and_that_is_told(store: Store) -> None:
    flaky = ComesAndGoes(store)
    today = Today(flaky)  # type: ignore[arg-type]  # a store as far as this needs one

    before, well = today.usage(), today.away
    flaky.away = True
    during, away = today.usage(), today.away
    flaky.away = False
    after, back = today.usage(), today.away

    assert before["requests"] == 41
    assert before == during == after
    assert (well, away, back) == (False, True, False)
