"""Counts what was before a policy: a daily budget added at noon knows the morning.

    new series ─► has the sink passed what the meter had done? ─► ask the store, bucket by bucket ─► seed the rings

Series of findings ask the rows of verdicts, all others those of calls.

The boundary is the offset from which the meter counts the series itself (`watch.py`): the store is asked for the rows
of records below it, so nothing counts twice and nothing is missed, however long the sink takes. Many scopes come in parts;
each is seeded in one transaction with the note that it is. One part, numbered as the crash test aborts it: 1 asked,
2 seeded (inside the transaction), 3 kept.

The store is asked in a thread of its own, so the meter goes on meanwhile. What announced calls held then is not known.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final, Protocol

import msgspec
import structlog

from ..schemas.errors import StoreUnavailable, UsageError
from ..schemas.topics import FINDINGS, METERED, Topic
from .findings import Wanted
from .series import TOLD, TOP, UNKNOWN_MODEL, History, Series, Values
from .sketch import BINS_PER_DOUBLING, SMALLEST_S, ZERO_BIN
from .watch import Watch

log = structlog.get_logger("tidegate.backfill")

# A part is seeded in one transaction of the meter's thread; this many buckets take it about a second.
PART_ROWS: Final = 100_000
# A store that is away, or too busy to answer, is asked again then.
_ASK_AGAIN_S: Final = 5.0
# A month of calls of a busy node; nobody waits for it but the policy that is new.
_TIMEOUT_S: Final = 300.0
# A scope rarely has more buckets in use than it has calls; a part holds no more rows than this even if some has many.
_MOST_ROWS: Final = 64 * PART_ROWS

_NUMBERS: Final = {
    "cost_usd": "sum(cost_nano_usd)",
    "requests": "count()",
    "input_tokens": "sum(input_tokens)",
    "output_tokens": "sum(output_tokens)",
    "total_tokens": "sum(coalesce(input_tokens, 0) + coalesce(output_tokens, 0))",
    "errors": "countIf(error_type != '')",
    "unpriced": "countIf(price_status = 'unpriced')",
}
# How many were so, of so many.
_RATIOS: Final = {"error_rate": ("countIf(error_type != '')", "count()")}
_BIN: Final = f"if(latency_s < {SMALLEST_S}, {ZERO_BIN}, ceil(log2(latency_s) * {BINS_PER_DOUBLING!r}))"
# A call counts when it started, but never later than it stood in the log.
_AT: Final = "toUnixTimestamp64Micro(least(started_at, toDateTime64(ingested_at, 6, 'UTC')))"


@dataclass(frozen=True, slots=True)
class _Asked:
    """Where the store has what a series counts, and how it is counted there."""

    table: str
    # What is added up; of a share, the part and the whole; of latencies, the bin that is counted.
    amount: tuple[str, ...]
    values: dict[str, Any]

    @classmethod
    def of(cls, series: Series) -> _Asked:
        if not series.of_verdicts:
            number = _NUMBERS.get(series.measure, _BIN)
            return cls("calls", _RATIOS.get(series.measure, (number,)), {})
        wanted = Wanted.of(series.finding_type)
        found, can_tell = wanted.count_sql, wanted.can_tell_sql
        share = (f"countIf({can_tell} AND {found} > 0)", f"countIf({can_tell})")
        amount = share if series.measure == "finding_rate" else (f"toInt64(sum({found}))",)
        return cls("scored_calls", amount, wanted.parameters)


@dataclass(frozen=True, slots=True)
class Part:
    """One of so many parts of the past of a series in a partition, as the store has it at a time. `watch` is what was known
    when it was asked for."""

    series: Series
    partition: int
    watch: Watch
    parts: int
    at_s: float
    history: list[History]
    top: list[tuple[Values, str, int]]


class Answer(Protocol):
    @property
    def rows(self) -> list[tuple[Any, ...]]: ...


class Questions(Protocol):
    """The store, as far as it is asked here. Raises `StoreUnavailable`, and `UsageError` when it will not answer."""

    def query(
        self, sql: str, parameters: dict[str, Any] | None = None, *, max_rows: int = ..., timeout_s: float = ...
    ) -> Answer: ...


class Metering(Protocol):
    """The meters, as far as their past is concerned."""

    def unseeded(self) -> list[tuple[Series, int, Watch]]:
        """The series of which the past is not counted yet, with the partition."""
        ...

    def stored(self, topic: Topic, partition: int) -> int:
        """Below which offset all of a topic of rows is in the store."""
        ...

    def seed(
        self,
        partition: int,
        series_id: str,
        asked: Watch,
        counted: Watch,
        history: list[History],
        top: list[tuple[Values, str, int]],
        now_s: float,
        at: Callable[[str], None],
    ) -> None:
        """Count a part of a series' past, and note that it is `counted`, at once or not at all."""
        ...


class Backfill:
    """Brings the past of new series into the meter's rings. `clock` is seconds since 1970, `patience` monotonic."""

    def __init__(
        self,
        meter: Metering,
        store: Questions,
        *,
        clock: Callable[[], float] = time.time,
        patience: Callable[[], float] = time.monotonic,
        part_rows: int = PART_ROWS,
        at: Callable[[str], None] = lambda _step: None,
    ) -> None:
        self._meter = meter
        self._store = store
        self._clock = clock
        self._patience = patience
        self._part_rows = part_rows
        self._at = at
        self._asking: Future[Part] | None = None
        self._ask_again_at = float("-inf")
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="tidegate-backfill")

    def run_once(self, *, wait: bool = False) -> bool:
        """Do what can be done now, between two flushes of the meter; `wait` for the store's answers. Returns whether the
        past of every series is counted."""
        while True:
            if self._asking is None and not self._ask():
                return not self._meter.unseeded()
            if self._asking is None or not (wait or self._asking.done()):
                return False
            asked, self._asking = self._asking, None
            try:
                part = asked.result()
            except (StoreUnavailable, UsageError) as error:
                log.warning("backfill_waits", error_type=type(error).__name__, retry_in_s=_ASK_AGAIN_S)
                self._ask_again_at = self._patience() + _ASK_AGAIN_S
                return False
            self._at("1 asked")
            counted = msgspec.structs.replace(part.watch, parts=part.parts, done=part.watch.done + 1)
            self._meter.seed(part.partition, part.series.id, part.watch, counted, part.history, part.top, part.at_s, self._at)

    def _ask(self) -> bool:
        """Ask for the next part that can be asked for; whether there is one."""
        if self._patience() < self._ask_again_at:
            return False
        for series, partition, watch in self._meter.unseeded():
            topic, boundary = (FINDINGS, watch.findings) if series.of_verdicts else (METERED, watch.metered)
            if self._meter.stored(topic, partition) >= boundary:
                self._asking = self._pool.submit(self._read, series, partition, watch, self._clock())
                return True
        return False

    def _read(self, series: Series, partition: int, watch: Watch, at_s: float) -> Part:
        """Ask the store for a part. In the thread of its own."""
        asked = _Asked.of(series)
        columns = [_column(name) for name in series.fields]
        start_s, end_s, origin_s, _, length_s = series.buckets.numbering(at_s)
        since_s = max(start_s, series.buckets.start_of(series.buckets.reach(at_s)[0]))
        where, values = _where(series, partition, watch, since_s, min(end_s, at_s + 366 * 86_400.0))
        values |= asked.values
        slot = f"intDiv({_AT} - {round(origin_s * 1e6)}, {length_s * 1_000_000})"
        parts = watch.parts
        if not parts:
            groups = ", ".join([*columns, slot])
            each = f"SELECT {slot} FROM {asked.table} WHERE {where} GROUP BY {groups}"
            ((buckets,),) = self._query(f"SELECT count() FROM ({each})", values)
            parts = max(1, -(-buckets // self._part_rows))
        values |= {"parts": parts, "part": watch.done}
        # The same scopes in the same part, whenever it is asked for.
        spread = f"cityHash64({', '.join(columns)}) % {{parts:UInt32}} = {{part:UInt32}}" if columns else "{part:UInt32} = 0"
        where += f" AND {spread}"
        names = [f"{column} AS f{number}" for number, column in enumerate(columns)]
        grouped = [f"f{number}" for number in range(len(columns))]
        history = []
        if series.measure == "latency":
            where += " AND latency_s IS NOT NULL"
            shown, key = f"(toInt64({_BIN}), count()) AS amount", [*grouped, f"toInt64({_BIN})"]
        else:
            shown, key = f"({', '.join(asked.amount)}) AS amount", grouped
        select = ", ".join([*names, f"{slot} AS slot", shown])
        for *found, number, amount in self._query(
            f"SELECT {select} FROM {asked.table} WHERE {where} GROUP BY {', '.join([*key, 'slot'])}", values
        ):
            if series.measure == "latency":
                amount = {amount[0]: amount[1]}
            if amount and amount != (0, 0):
                history.append(History(_values(found), origin_s + number * length_s, amount))
        top = self._spenders(series, asked, where, values, names, grouped, at_s) if series.measure in TOLD else []
        return Part(series, partition, watch, parts, at_s, history, top)

    def _spenders(
        self,
        series: Series,
        asked: _Asked,
        where: str,
        values: dict[str, Any],
        names: list[str],
        grouped: list[str],
        at_s: float,
    ) -> list[tuple[Values, str, int]]:
        """The biggest spenders of the stretch of now, of each scope."""
        stretch = series.stretch(at_s)
        begun_us = (stretch if series.stretch_s is None else stretch * series.stretch_s) * 1_000_000
        left_open = [name for name in ("user", "team", "service") if name not in series.fields]
        choices = [part for name in left_open for part in (f"{name} != ''", f"concat('{name}=', {name})")]
        model = f"concat('model=', if(model = '', '{UNKNOWN_MODEL}', model))"
        who = f"multiIf({', '.join([*choices, model])})" if choices else model
        by = ", ".join([*grouped, "who"])
        limit = f"LIMIT {TOP} BY {', '.join(grouped)}" if grouped else f"LIMIT {TOP}"
        rows = self._query(
            f"SELECT {', '.join([*names, f'{who} AS who', f'{asked.amount[0]} AS amount'])} FROM {asked.table}"
            f" WHERE {where} AND {_AT} >= {begun_us} GROUP BY {by} HAVING amount > 0 ORDER BY amount DESC, who {limit}",
            values,
        )
        return [(_values(found), name, amount) for *found, name, amount in rows]

    def _query(self, sql: str, values: dict[str, Any]) -> list[tuple[Any, ...]]:
        return self._store.query(sql, values, max_rows=_MOST_ROWS, timeout_s=_TIMEOUT_S).rows

    def close(self) -> None:
        self._pool.shutdown()


def _column(name: str) -> str:
    # A label's name is of letters, digits and _.:/- (schemas/policy.py).
    return f"labels['{name[6:]}']" if name.startswith("label.") else name


def _where(series: Series, partition: int, watch: Watch, since_s: float, until_s: float) -> tuple[str, dict[str, Any]]:
    """The rows of a series below its boundary, of a time; and the values named in it."""
    values: dict[str, Any] = {"partition": partition, "boundary": watch.from_offset}
    terms = ["source_partition = {partition:UInt16}", "source_offset < {boundary:UInt64}"]
    for number, (name, wanted) in enumerate(series.match):
        values[f"match{number}"] = sorted(wanted)
        terms.append(f"{_column(name)} IN {{match{number}:Array(String)}}")
    # The first is what the table is ordered by.
    terms.append(f"started_at >= fromUnixTimestamp64Micro({round(since_s * 1e6)}, 'UTC')")
    terms.append(f"{_AT} >= {round(since_s * 1e6)} AND {_AT} < {round(until_s * 1e6)}")
    return " AND ".join(terms), values


def _values(found: list[str]) -> Values:
    # A word that is not known is '' in the store; none that is known can be.
    return tuple(value or None for value in found)
