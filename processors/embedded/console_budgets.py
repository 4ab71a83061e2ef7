"""Budgets as they stand: which scopes are fullest says the store, how they stand now the log, how they came there the store.

signals_now ─► the harshest and fullest ─► the last word on each, from the log ─┐
signals     ─► what was spent in their windows ─────────────────────────────────┴─► burn-downs
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec
from pydantic import ValidationError

from ...dashboards.answers import Rows
from ...dashboards.budget_view import budgets_shown
from ...schemas.policy import PolicySet
from ...schemas.signal import POLICIES_KEY, Signal, decode_signal, signal_prefix
from ..console_access import Digests
from .backend import Feed
from .console_hub import Said, Source, Wanted

_PACE_S: Final = 2.0
_MOST: Final = 60
_POINTS_EACH: Final = 400
_TENANT: Final = "({tenant:String} = '*' OR scope['tenant'] = {tenant:String})"
_FULLEST: Final = f"""
SELECT policy, scope_key, toUnixTimestamp64Milli(window_start) / 1000 AS window_start_s, count() OVER () AS known
FROM signals_now
WHERE {_TENANT} AND `limit` IS NOT NULL
ORDER BY indexOf(['warn', 'throttle', 'downgrade', 'block'], toString(state)) DESC,
    (spend + reserved) / nullIf(`limit`, 0) DESC NULLS LAST, policy, scope_key
LIMIT {_MOST}
"""
_SPENT: Final = f"""
SELECT policy, scope_key, toUnixTimestamp64Milli(at) / 1000 AS at_s, spend + reserved AS spent
FROM
(
    SELECT * FROM signals FINAL
    WHERE (policy, scope_key) IN (SELECT arrayJoin(arrayZip({{policies:Array(String)}}, {{keys:Array(String)}})))
        AND at >= fromUnixTimestamp64Milli(toInt64({{since_s:Float64}} * 1000)) AND NOT withdrawn
    ORDER BY policy, scope_key, sequence DESC
    LIMIT {_POINTS_EACH} BY policy, scope_key
)
ORDER BY at_s
"""

Ask = Callable[[str, dict[str, Any]], Awaitable[tuple[Rows, float]]]


class ConsoleBudgets:
    """Used from the node's event loop, where the feed is read, too. `ask` asks the store."""

    def __init__(self, feed: Feed, ask: Ask, digests: Digests) -> None:
        self._feed = feed
        self._ask = ask
        self._digests = digests
        self._policies: tuple[bytes, PolicySet] = (b"", PolicySet())

    def source(self, tenant: str) -> Source:
        async def said(_wanted: Wanted) -> Said:
            shown, cost_s = await self.shown(tenant)
            return Said("budgets", shown, cost_s=cost_s)

        return Source(("budgets", tenant), "budgets", said, _PACE_S)

    async def shown(self, tenant: str) -> tuple[dict[str, Any], float]:
        """The budgets, and what they cost the store. Raises `TidegateError`."""
        fullest, cost_s = await self._ask(_FULLEST, {"tenant": tenant})
        chosen = fullest.dicts()
        words = [word for one in chosen if (word := self._word(one["policy"], one["scope_key"])) is not None]
        points: defaultdict[bytes, list[tuple[float, float]]] = defaultdict(list)
        if chosen:
            parameters = {
                "policies": [one["policy"] for one in chosen],
                "keys": [one["scope_key"] for one in chosen],
                "since_s": min(one["window_start_s"] for one in chosen),
            }
            spent, more_s = await self._ask(_SPENT, parameters)
            cost_s += more_s
            for policy, scope_key, at, used in spent.rows:
                points[signal_prefix(policy) + scope_key.encode()].append((at, used))
        shown = budgets_shown(words, points, self._in_force(), self._digests)
        known = chosen[0]["known"] if chosen else 0
        return {"budgets": shown, "more": max(known - len(chosen), 0)}, cost_s

    def _word(self, policy: str, scope_key: str) -> Signal | None:
        """The last word on a scope; None: it was taken back, or is of a version to come."""
        raw = self._feed.word(signal_prefix(policy) + scope_key.encode())
        try:
            return decode_signal(raw) if raw else None
        except msgspec.DecodeError:
            return None

    def _in_force(self) -> PolicySet:
        raw = self._feed.word(POLICIES_KEY) or b""
        if raw != self._policies[0]:
            try:
                self._policies = (raw, PolicySet.model_validate_json(raw) if raw else PolicySet())
            except ValidationError:  # of a version to come: budgets are shown once this node is of it, too
                self._policies = (raw, PolicySet())
        return self._policies[1]
