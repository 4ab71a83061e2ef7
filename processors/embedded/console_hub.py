"""What many viewers see is asked once: sources, each asked in turns for as long as somebody looks, and a mailbox a viewer.

    Source ─► asked at its pace, never twice at a time ─► told when it has changed ─► Mailbox ─► one viewer's stream

A viewer who is slow misses what was told in between and gets the newest: a mailbox holds one event a source. When the last
viewer of a source has gone it is not asked again. All of it belongs to one event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from ...schemas.errors import TidegateError

# A question may keep one core busy for a twentieth of the time, whatever it costs: the meter has the rest.
_REST: Final = 19


@dataclass(frozen=True, slots=True)
class Said:
    """What a source says: told when `body` has changed. `beside` goes along and does not count as a change. `cost_s`: what it
    took of a core."""

    event: str
    body: dict[str, Any]
    beside: dict[str, Any] = field(default_factory=dict)
    cost_s: float = 0.0


# Whether somebody still looks: a question that waits for its turn meanwhile need not be asked any more.
Wanted = Callable[[], bool]


class Unwanted(Exception):
    """A question's turn came when nobody looked any more; it was not asked."""


@dataclass(frozen=True, slots=True)
class Source:
    """`key` says what is asked: sources with the same key are one. `ask` may raise a `TidegateError`, which is told as a
    problem of `name`."""

    key: Hashable
    name: str
    ask: Callable[[Wanted], Awaitable[Said]]
    pace_s: float


@dataclass(frozen=True, slots=True)
class Event:
    name: str
    data: bytes


class Mailbox:
    """The newest event of each source that one viewer has not had yet, in the order in which they came."""

    def __init__(self) -> None:
        self._waiting: dict[Hashable, Event] = {}
        self._news = asyncio.Event()
        self._failure: BaseException | None = None

    def put(self, key: Hashable, event: Event) -> None:
        self._waiting[key] = event
        self._news.set()

    def fail(self, failure: BaseException) -> None:
        self._failure = failure
        self._news.set()

    async def news(self, within_s: float) -> list[Event]:
        """What has come, or comes first; nothing when nothing does within that time. Raises what nobody foresaw."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._news.wait()
        self._news.clear()
        if self._failure is not None:
            raise self._failure
        waiting, self._waiting = list(self._waiting.values()), {}
        return waiting


class _Asked:
    """A source that somebody looks at."""

    def __init__(self) -> None:
        self.viewers: set[Mailbox] = set()
        self.said: bytes | None = None
        self.newest: Event | None = None
        self.task: asyncio.Task[None] | None = None


class Hub:
    def __init__(self) -> None:
        self._asked: dict[Hashable, _Asked] = {}

    @contextmanager
    def viewing(self, sources: Sequence[Source]) -> Iterator[Mailbox]:
        """A mailbox for what these say from now on, and what they last said."""
        mailbox = Mailbox()
        for source in sources:
            asked = self._asked.get(source.key)
            if asked is None:
                asked = self._asked[source.key] = _Asked()
                asked.task = asyncio.get_running_loop().create_task(self._keep_asking(source, asked))
                asked.task.add_done_callback(lambda task, asked=asked: _tell_end(task, asked))  # type: ignore[misc]  # bound
            asked.viewers.add(mailbox)
            if asked.newest is not None:
                mailbox.put(source.key, asked.newest)
        try:
            yield mailbox
        finally:
            for source in sources:
                if (asked := self._asked.get(source.key)) is not None:
                    asked.viewers.discard(mailbox)

    async def _keep_asking(self, source: Source, asked: _Asked) -> None:
        try:
            # Once more than there are viewers: whoever comes back within the pause finds the answer.
            while asked.viewers:
                try:
                    said = await source.ask(lambda: bool(asked.viewers))
                except Unwanted:
                    continue
                except TidegateError as error:
                    said = Said("problem", {"key": source.name, "error": str(error)})
                body = orjson.dumps([said.event, said.body])
                if body != asked.said:
                    asked.said = body
                    asked.newest = Event(said.event, orjson.dumps(said.body | said.beside))
                    for viewer in asked.viewers:
                        viewer.put(source.key, asked.newest)
                await asyncio.sleep(max(source.pace_s, said.cost_s * _REST))
        finally:
            if self._asked.get(source.key) is asked:
                del self._asked[source.key]

    @property
    def looked_at(self) -> int:
        """How many sources somebody looks at."""
        return sum(bool(asked.viewers) for asked in self._asked.values())


def _tell_end(task: asyncio.Task[None], asked: _Asked) -> None:
    if not task.cancelled() and (failure := task.exception()) is not None:
        for viewer in asked.viewers:
            viewer.fail(failure)
