"""`GET /v1/signals`: how a gate in another process, or on another machine, follows the policies.

    ?after=<position>&wait=<seconds>&gate=<id>  →  {"position": n, "records": [{"key": str, "value": object or null}]}

A long poll: it answers at once when there is news after `after`, otherwise when there is or when `wait` is over. The
topic is compacted, so a gate that starts with `after=-1` hears the last word on everything, and then the news. A null
value takes a key back. Asking is also how a gate says that it is there.
"""

from __future__ import annotations

import asyncio
import re
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import orjson
from starlette.requests import Request
from starlette.responses import Response

from .backend import Feed

# News is looked for this often while a gate waits: a look costs some 20 µs, and a block should close gates at once.
_LOOK_S: Final = 0.02
# Longer than any proxy's patience is no use; a gate asks again anyway.
_MAX_WAIT_S: Final = 25.0
# A gate is written down again only when its last word is this old: five seconds of silence mean that it is gone.
_ANNOUNCE_S: Final = 1.0
_GATE: Final = re.compile(r"[\x21-\x7e]{1,200}\Z")


class SignalsDoor:
    """Serves signals from a feed, which it does not own. One thread of its own writes down which gates ask."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._pool = ThreadPoolExecutor(1, "tidegate-gates")
        self._announced: dict[str, float] = {}
        self.closing = False

    async def serve(self, request: Request) -> Response:
        """One long poll."""
        try:
            after = int(request.query_params.get("after", "-1"))
            wait_s = min(max(float(request.query_params.get("wait", "0")), 0.0), _MAX_WAIT_S)
        except ValueError:
            return _answer(400, {"error": "after and wait must be numbers: /v1/signals?after=-1&wait=20&gate=my-gate"})
        gate = request.query_params.get("gate", "")
        if gate and not _GATE.match(gate):
            return _answer(400, {"error": "gate must be 1 to 200 visible ASCII characters"})
        deadline = time.monotonic() + wait_s
        while True:
            if gate:
                await self._announce(gate)
            records, after = self._feed.news(after)
            if records or self.closing or time.monotonic() >= deadline or await request.is_disconnected():
                break
            await asyncio.sleep(_LOOK_S)
        told = [{"key": key.decode(), "value": orjson.Fragment(value) if value else None} for key, value in records]
        return _answer(200, {"position": after, "records": told})

    async def _announce(self, gate: str) -> None:
        now = time.monotonic()
        if now - self._announced.get(gate, float("-inf")) < _ANNOUNCE_S:
            return
        if len(self._announced) > 10_000:
            self._announced.clear()
        self._announced[gate] = now
        await asyncio.get_running_loop().run_in_executor(self._pool, self._feed.announce, gate)

    def close(self) -> None:
        self._pool.shutdown()


def _answer(status: int, body: dict[str, object]) -> Response:
    return Response(orjson.dumps(body), status, media_type="application/json")
