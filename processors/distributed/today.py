"""Usage of the newest UTC day that has any, in all and by model, from the store's hourly rollups."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, Final

from ...schemas.errors import StoreUnavailable
from ...sinks.clickhouse import QueryRefused, Store

_COUNTS: Final = ("requests", "errors", "cost_nano_usd", "input_tokens", "output_tokens", "unpriced", "scored", "findings")
# The newest hour comes from the parts' own bounds, and the day's rows are few: a millisecond or two, whatever is stored.
_SQL: Final = """
WITH (SELECT toStartOfDay(max(hour)) FROM calls_1h) AS day_begins
SELECT toDate(day_begins) AS day,
    if(model = '', 'any model', model) AS named, sum(requests), sum(errors), sum(cost_nano_usd),
    sum(input_tokens), sum(output_tokens), sum(requests_without_price), sum(judged), sum(findings)
FROM
(
    SELECT model, requests, errors, cost_nano_usd, input_tokens, output_tokens, requests_without_price,
        0 AS judged, 0 AS findings
    FROM calls_1h WHERE hour >= day_begins
    UNION ALL
    SELECT model, 0, 0, 0, 0, 0, 0, scored_1h.judged, scored_1h.findings FROM scored_1h
    WHERE hour >= day_begins AND hour < day_begins + INTERVAL 1 DAY
)
GROUP BY named ORDER BY sum(cost_nano_usd) DESC, sum(requests) DESC, named LIMIT 10000"""
_TIMEOUT_S: Final = 5.0


class Today:
    """Asked afresh each time, from any thread; those who ask at once share an answer. While the store is `away`, what it
    said last."""

    def __init__(self, store: Store, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._clock = clock
        self._asking = threading.Lock()
        self._asked_at = float("-inf")
        self._last = _summed(None, [])
        self.away = False

    def usage(self) -> dict[str, Any]:
        came_at = self._clock()
        with self._asking:
            if self._asked_at <= came_at:
                self._asked_at = self._clock()
                try:
                    rows = self._store.query(_SQL, timeout_s=_TIMEOUT_S).rows
                    self._last = _summed(rows[0][0].isoformat() if rows else None, [row[1:] for row in rows])
                    self.away = False
                except (StoreUnavailable, QueryRefused):  # a store that cannot answer this in seconds is not well
                    self.away = True
            return self._last


def _summed(day: str | None, rows: list[tuple[Any, ...]]) -> dict[str, Any]:
    models: list[dict[str, Any]] = [{"model": row[0], **dict(zip(_COUNTS, map(int, row[1:]), strict=True))} for row in rows]
    for model in models:
        model["tokens"] = model["input_tokens"] + model["output_tokens"]
    return {"day": day, **{name: sum(model[name] for model in models) for name in _COUNTS}, "models": models}
