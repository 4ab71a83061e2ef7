"""The meter's own sums and prices in the store: what came in, counted by plain Python; and `tidegate db check` over both."""

from __future__ import annotations

import json
import random
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from node_process import tidegate
from support import NOW_S, envelope, ndjson, response
from tidegate.processors.embedded.engine import MeterEngine
from tidegate.processors.embedded.sink import Sink
from tidegate.processors.ledger import EVERY_MS
from tidegate.processors.price_rows import unit_prices
from tidegate.processors.pricing import PriceBook
from tidegate.producers.sqlite_log import SqliteLog
from tidegate.schemas.settings import Settings
from tidegate.schemas.topics import CALLS
from tidegate.sinks.clickhouse import Store

HOUR = 3_600
PARTITIONS = 2
SETTINGS = Settings(fsync="normal")
# Of gpt-4o, 2.50 and 10 $ a million; what was cached 1.25.
INPUT, OUTPUT, CACHED = 2_500, 10_000, 1_250


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(path=tmp_path / "store") as store:
        store.migrate()
        yield store


class Abort(BaseException):
    """The power goes out. Not an Exception: nothing may catch it on the way."""


def events() -> list[tuple[int, dict[str, Any]]]:
    """Five hours of calls, in the order of the log but for some that come hours later: (when they came, the event)."""
    pick = random.Random(7)
    found = []
    for number in range(400):
        came = NOW_S + number * 5 * HOUR // 400
        started = came - (pick.randrange(5) * HOUR if number > 300 and number % 7 == 0 else 0)
        known = pick.random() < 0.9
        fields: dict[str, Any] = {
            "tenant": pick.choice(("harbor", "hill", None)),
            "team": pick.choice(("ward", "desk")),
            "user": f"user-{pick.randrange(50)}",
            "started_at": datetime.fromtimestamp(started, UTC).isoformat(),
            "input_tokens": pick.randrange(1, 5_000) if known else None,
            "output_tokens": pick.randrange(500) if known else None,
            "cache_read_tokens": 1 if known and pick.random() < 0.3 else None,
            "error_type": pick.choice((None, None, None, "timeout")),
        }
        if pick.random() < 0.1:
            fields |= {"request_model": "in-house-7b", "provider_name": "own"}
        found.append((came, response(f"call-{number}", **fields)))
    return found


def cost(event: dict[str, Any]) -> int | None:
    if event["request_model"] != "gpt-4o" or "input_tokens" not in event:
        return None
    cached = event.get("cache_read_tokens", 0)
    return (event["input_tokens"] - cached) * INPUT + cached * CACHED + event["output_tokens"] * OUTPUT


def sums(found: Iterable[dict[str, Any]], *names: str) -> dict[tuple[Any, ...], tuple[int, ...]]:
    """By hour and dimensions: requests, errors, cost, unpriced, unknown tokens, tokens in and out."""
    total: dict[tuple[Any, ...], Counter[str]] = {}
    for event in found:
        hour = datetime.fromisoformat(event["started_at"]).replace(minute=0, second=0)
        counter = total.setdefault((hour, *(event.get(name) or "" for name in names)), Counter())
        price = cost(event)
        counter.update(requests=1, errors="error_type" in event, cost=price or 0, unpriced=price is None)
        counter.update(unknown="input_tokens" not in event)
        counter.update(input=event.get("input_tokens", 0), output=event.get("output_tokens", 0))
    order = ("requests", "errors", "cost", "unpriced", "unknown", "input", "output")
    return {key: tuple(counter[name] for name in order) for key, counter in total.items()}


def stored(store: Store, *names: str) -> dict[tuple[Any, ...], tuple[int, ...]]:
    scope = "".join(f", scope['{name}']" for name in names)
    rows = store.query(
        f"SELECT hour{scope}, requests, errors, cost_nano_usd, unpriced, unknown_tokens, input_tokens, output_tokens"
        " FROM usage_ledger_totals WHERE scope_set = {names:String}",
        {"names": ",".join(names)},
    ).rows
    return {row[: 1 + len(names)]: row[1 + len(names) :] for row in rows}


def carry(folder: Path, store: Store) -> None:
    sink = Sink(folder, SETTINGS, store)
    try:
        while sink.run_once(drain=True):
            pass
    finally:
        sink.close()


def live(folder: Path, clock: list[float], at: Callable[[str], None] = lambda _step: None, *, settle: bool = False) -> bool:
    """One life of the meter; whether it lived to the end."""
    try:
        engine = MeterEngine(folder, SETTINGS, at=at, clock_ms=lambda: int(clock[0] * 1_000))
    except Abort:
        return False
    try:
        while engine.run_once():
            pass
        if settle:
            engine.settle()
    except Abort:
        return False
    finally:
        engine.close()
    return True


def feed(folder: Path, found: list[tuple[int, dict[str, Any]]], step: str | None = None) -> None:
    """Through a meter that dies at this step of each third flush, and comes back."""
    clock, seqs, seen = [float(NOW_S)], [0] * PARTITIONS, [0]
    with SqliteLog(folder, partitions=PARTITIONS, fsync="normal", clock_ms=lambda: int(clock[0] * 1_000)) as log:
        for place in range(0, len(found), 20):
            some = found[place : place + 20]
            clock[0] = float(some[-1][0])
            partition = place // 20 % PARTITIONS
            sent = envelope(f"producer-{partition}", seqs[partition], [event for _, event in some])
            seqs[partition] += len(some)
            with log.transaction():
                log.append(CALLS.name, partition, [(None, sent.headers(), sent.value)] * 2)

            def dies(reached: str) -> None:
                seen[0] += reached == step
                if reached == step and seen[0] % 3 == 0:
                    raise Abort(reached)

            while not live(folder, clock, dies):
                pass
    live(folder, clock, settle=True)
    assert step is None or seen[0] > 20


@pytest.mark.parametrize("step", [None, "3 append", "4 store", "5 commit"])
def test_the_ledger_is_what_came_in_whatever_happens_to_the_meter(tmp_path: Path, store: Store, step: str | None) -> None:
    found = events()

    feed(tmp_path / "data", found, step)
    carry(tmp_path / "data", store)

    came = [event for _, event in found]
    for names in ((), ("tenant",), ("tenant", "team")):
        assert stored(store, *names) == sums(came, *names)
    sets = {row[0] for row in store.query("SELECT DISTINCT scope_set FROM usage_ledger").rows}
    assert sets == {"", "tenant", "tenant,team", "tenant,prompt_name,prompt_version", "provider_name,model"}
    assert b"user-1" not in b"".join(file.read_bytes() for file in (tmp_path / "store").rglob("*usage_ledger*/**/*.bin"))


def test_a_row_that_comes_again_or_late_changes_nothing(tmp_path: Path, store: Store) -> None:
    feed(tmp_path / "data", events())
    carry(tmp_path / "data", store)
    before = stored(store, "tenant")
    old = store.query("SELECT * FROM usage_ledger WHERE scope_set = 'tenant'").dicts()

    for number, row in enumerate(old):
        row["hour"], row["at"] = row["hour"].isoformat(), row["at"].isoformat()
        older = row | {"source_offset": row["source_offset"] - 1, "requests": 0}
        store.insert("usage_ledger", ndjson([row, older]), f"x:0:{number}-0")

    assert stored(store, "tenant") == before


def test_sums_are_written_at_a_slow_pace_and_once_more_when_nobody_calls(tmp_path: Path, store: Store) -> None:
    clock = [float(NOW_S)]
    folder = tmp_path / "data"
    log = SqliteLog(folder, fsync="normal", clock_ms=lambda: int(clock[0] * 1_000))
    engine = MeterEngine(folder, SETTINGS, clock_ms=lambda: int(clock[0] * 1_000))
    started = datetime.fromtimestamp(NOW_S, UTC).isoformat()
    written = []
    for second in range(40):
        clock[0] = NOW_S + second
        if second <= 20:
            sent = envelope("p", second, [response(f"c{second}", started_at=started)])
            with log.transaction():
                log.append(CALLS.name, 0, [(None, sent.headers(), sent.value)])
        engine.run_once()
        written.append(log.end_offset("tidegate.usage_ledger", 0))
    engine.close()
    log.close()
    carry(folder, store)

    every = EVERY_MS // 1_000
    assert [second for second in range(40) if written[second] > (written[second - 1] if second else 0)] == [0, every, 2 * every]
    [(requests,)] = store.query("SELECT requests FROM usage_ledger_totals WHERE scope_set = ''").rows
    assert requests == 21


# prices


def test_each_price_that_was_used_is_there_once_and_makes_the_costs(tmp_path: Path, store: Store) -> None:
    feed(tmp_path / "data", events(), "4 store")
    carry(tmp_path / "data", store)

    found = store.query("SELECT * FROM prices FINAL").dicts()
    [now] = store.query("SELECT * FROM prices_now").dicts()

    [price] = found
    assert now == price
    names = ("provider_name", "model", "service_tier", "tenant")
    assert [price[name] for name in names] == ["openai", "gpt-4o", "standard", ""]
    assert price["price_book"] == PriceBook.load().version
    prices = [price[f"{kind}_nano_usd_per_million"] for kind in ("input", "output", "cache_read")]
    assert prices == [INPUT * 1_000_000, OUTPUT * 1_000_000, CACHED * 1_000_000]
    again = store.query("""
        SELECT countIf(
            c.cost_nano_usd * 1000000 != (c.input_tokens - ifNull(c.cache_read_tokens, 0)) * p.input_nano_usd_per_million
                + ifNull(c.cache_read_tokens, 0) * p.cache_read_nano_usd_per_million
                + c.output_tokens * p.output_nano_usd_per_million
        ), count()
        FROM calls AS c JOIN prices_now AS p ON p.model = c.request_model AND p.provider_name = c.provider_name
        WHERE c.cost_nano_usd IS NOT NULL
    """).rows
    assert again == [(0, sum(cost(event) is not None for _, event in events()))]


def test_a_long_prompt_a_tenants_own_price_and_a_discount_are_prices_of_their_own(tmp_path: Path) -> None:
    file = tmp_path / "prices.toml"
    file.write_text(
        '[[models]]\nmodel = "in-house-*"\ninput = 0.10\noutput = 0.30\n'
        '[[tenants]]\ntenant = "harbor"\nmodel = "gpt-4o"\nmultiplier = 0.9\n'
    )
    book = PriceBook.load(file)
    at = datetime(2026, 11, 2, tzinfo=UTC)
    for tenant, model in ((None, "in-house-7b"), ("harbor", "gpt-4o"), ("hill", "gpt-4o"), ("harbor", "in-house-7b")):
        for _ in range(3):
            book.price(tenant, "openai" if model == "gpt-4o" else "own", None, model, None, at, 10, 10)
    book.price(None, "google", None, "gemini-2.5-pro", None, at, 10, 10)

    quotes = {(quote.tenant, quote.model): quote.rates for quote in book.quotes}

    def million(tenant: str | None, model: str, kind: str) -> Decimal:
        price = unit_prices(quotes[tenant, model])[f"{kind}_nano_usd_per_million"]
        assert price is not None
        return Decimal(price) / 1_000_000_000

    assert million(None, "in-house-7b", "input") == Decimal("0.1")
    assert million(None, "in-house-7b", "cache_write_1h") == Decimal("0.2")
    assert million("harbor", "gpt-4o", "input") == Decimal("2.25")
    assert million(None, "gpt-4o", "output") == Decimal(10)
    assert ("harbor", "in-house-7b") not in quotes
    (above, longer), *_ = quotes[None, "gemini-2.5-pro"].steps
    assert above == 200_000
    assert unit_prices(longer)["input_nano_usd_per_million"] == 2 * (
        unit_prices(quotes[None, "gemini-2.5-pro"])["input_nano_usd_per_million"] or 0
    )


# tidegate db check


@pytest.fixture(scope="module")
def replayed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("replayed")
    log = base / "calls.jsonl"
    log.write_bytes(ndjson([event for _, event in events()]))
    done = tidegate("replay", log, "--data", base / "data")
    assert done.returncode == 0, done.stderr
    return base / "data"


def checked(folder: Path, *arguments: str) -> tuple[int, dict[str, Any]]:
    done = tidegate("db", "check", "--since", "2026-11-01", "--until", "2026-11-04", "--json", *arguments, "--data", folder)
    assert done.returncode in (0, 1), done.stderr
    return done.returncode, json.loads(done.stdout)


def test_a_store_that_adds_up_is_a_success(replayed: Path) -> None:
    code, told = checked(replayed)

    hours = {datetime.fromisoformat(event["started_at"]).replace(minute=0, second=0) for _, event in events()}
    assert (code, told["differences"], told["before"], told["hours"]) == (0, [], [], len(hours))
    assert (told["day_differences"], told["not_counted"], told["days"]) == ([], [], len({hour.date() for hour in hours}))


@pytest.mark.parametrize(
    ("change", "source"),
    [
        ("ALTER TABLE calls DELETE WHERE call_id = 'call-7'", "calls"),
        ("INSERT INTO calls_1h SELECT * FROM calls_1h WHERE errors > 0 ORDER BY hour LIMIT 1", "calls_1h"),
        ("ALTER TABLE calls_1m DELETE WHERE minute = (SELECT max(minute) FROM calls_1m)", "calls_1m"),
        ("ALTER TABLE usage_ledger UPDATE requests = 0 WHERE hour = '2026-11-02 09:00:00'", "ledger"),
    ],
)
def test_a_store_that_was_tampered_with_is_found_out(replayed: Path, tmp_path: Path, change: str, source: str) -> None:
    shutil.copytree(replayed, tmp_path / "data", symlinks=True)
    with Store.open(path=tmp_path / "data" / "store") as store:
        store._writer.command(f"{change} SETTINGS mutations_sync = 2")

    code, told = checked(tmp_path / "data")
    plain = tidegate("db", "check", "--since", "2026-11-01", "--until", "2026-11-04", "--data", tmp_path / "data")

    assert code == plain.returncode == 1
    assert b"1 differ" in plain.stdout
    requests = [one["said"] for one in told["differences"] if one["measure"] == "requests"]
    assert len(requests) == 1
    agree = {value for name, value in requests[0].items() if name != source}
    assert len(agree) == 1
    assert requests[0][source] not in agree


def tampered(replayed: Path, folder: Path, *changes: str) -> Path:
    shutil.copytree(replayed, folder, symlinks=True)
    with Store.open(path=folder / "store") as store:
        for change in changes:
            store._writer.command(f"{change} SETTINGS mutations_sync = 2")
    return folder


@pytest.mark.parametrize("rollup", ["calls_1d", "calls_1d_totals"])
def test_a_day_that_is_not_the_sum_of_its_hours_is_found_out_whatever_the_ledger_has(
    replayed: Path, tmp_path: Path, rollup: str
) -> None:
    again = f"INSERT INTO {rollup} SELECT * FROM {rollup} WHERE day = '2026-11-02' AND errors > 0 ORDER BY tenant LIMIT 1"
    folder = tampered(replayed, tmp_path / "data", again, "ALTER TABLE usage_ledger DELETE WHERE 1")

    code, told = checked(folder, "--since", "2026-11-02T23:00", "--until", "2026-11-03")
    _, of_a_day_that_runs = checked(folder, "--until", "2026-11-02T23:00")
    plain = tidegate("db", "check", "--since", "2026-11-01", "--until", "2026-11-04", "--data", folder)

    assert code == plain.returncode == 1
    assert b"days compared, 1 differ" in plain.stdout
    assert told["differences"] == of_a_day_that_runs["day_differences"] == []
    said = next(one["said"] for one in told["day_differences"] if one["measure"] == "errors")
    assert set(said) == {"calls_1h", "calls_1d", "calls_1d_totals"}
    assert all((of_table > said["calls_1h"]) == (table == rollup) for table, of_table in said.items())


def test_hours_that_the_ledger_has_not_counted_are_told_and_the_rest_of_them_compared(replayed: Path, tmp_path: Path) -> None:
    uncounted = "ALTER TABLE usage_ledger DELETE WHERE hour = '2026-11-02 09:00:00'"
    sound = tampered(replayed, tmp_path / "sound", uncounted)
    torn = tampered(sound, tmp_path / "torn", "ALTER TABLE calls_1m DELETE WHERE toStartOfHour(minute) = '2026-11-02 09:00:00'")

    code, told = checked(sound)
    code_torn, told_torn = checked(torn)
    plain = tidegate("db", "check", "--since", "2026-11-01", "--until", "2026-11-04", "--data", torn)

    assert (code, told["differences"], told["not_counted"]) == (0, [], ["2026-11-02 09:00:00"])
    requests = [one["said"] for one in told_torn["differences"] if one["measure"] == "requests"]
    assert (code_torn, len(requests), requests[0]["ledger"], requests[0]["calls_1m"]) == (1, 1, None, 0)
    assert b"not counted" in plain.stdout
    assert b"1 hours are not counted by the ledger" in plain.stdout
