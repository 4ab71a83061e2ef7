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
from pathlib import Path
from typing import Final

import orjson
from starlette.requests import Request
from starlette.responses import Response

from ...producers.sqlite_log import SqliteLog
from ...schemas.topics import GATES, SIGNALS

# News is looked for this often while a gate waits: a look costs some 20 µs, and a block should close gates at once.
_LOOK_S: Final = 0.02
# Longer than any proxy's patience is no use; a gate asks again anyway.
_MAX_WAIT_S: Final = 25.0
# A gate is written down again only when its last word is this old: five seconds of silence mean that it is gone.
_ANNOUNCE_S: Final = 1.0
_GATE: Final = re.compile(r"[\x21-\x7e]{1,200}\Z")


class SignalsDoor:
    """Serves signals from the folder's log. One thread of its own writes down which gates ask."""

    def __init__(self, data_dir: Path) -> None:
        self._log = SqliteLog(data_dir)
        self._writer: SqliteLog | None = None
        self._data_dir = data_dir
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
            end = self._log.end_offset(SIGNALS.name, 0)
            if after >= end:
                after = -1  # of another log: the folder was made anew, so everything is news
            if end > after + 1:
                break
            if self.closing or time.monotonic() >= deadline or await request.is_disconnected():
                break
            await asyncio.sleep(_LOOK_S)
        records = self._log.read(SIGNALS.name, 0, after + 1)
        position = records[-1].offset if records else after
        told = [{"key": (r.key or b"").decode(), "value": orjson.Fragment(r.value) if r.value else None} for r in records]
        return _answer(200, {"position": position, "records": told})

    async def _announce(self, gate: str) -> None:
        now = time.monotonic()
        if now - self._announced.get(gate, float("-inf")) < _ANNOUNCE_S:
            return
        if len(self._announced) > 10_000:
            self._announced.clear()
        self._announced[gate] = now
        await asyncio.get_running_loop().run_in_executor(self._pool, self._write, gate)

    def _write(self, gate: str) -> None:
        if self._writer is None:
            # Announcements may be lost in a power cut: the next one comes in a second.
            self._writer = SqliteLog(self._data_dir, fsync="normal")
        with self._writer.transaction():
            self._writer.append(GATES.name, 0, [(gate.encode(), {}, b"{}")])

    def close(self) -> None:
        self._pool.shutdown()
        self._log.close()
        if self._writer is not None:
            self._writer.close()


def _answer(status: int, body: dict[str, object]) -> Response:
    return Response(orjson.dumps(body), status, media_type="application/json")
