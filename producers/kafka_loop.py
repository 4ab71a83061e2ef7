"""Clients of Kafka for callers who cannot await: an event loop of their own, in a daemon thread.

    caller's thread            daemon thread
    call(work) ──────────────► open the clients, once ─► await work(clients) ─► what it returned or raised
    close(last) ─────────────► await last(clients), then every task is cancelled and every socket cut off

What is not done when `close` comes is never sent: a batch that waits for its turn, or for a retry, is gone with its loop.

The clients are reachable from that thread's frames alone. In a forked child these stand still for ever, so that nobody there
closes or collects what is the parent's: to take one socket out of the epoll set takes it out for both.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import threading
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Final, Generic, Protocol, TypeVar

from ..schemas.errors import LogUnavailable

# For a request and for a connection, as over HTTP: within a data centre both take milliseconds, a leader that collects its
# garbage a second or two. Asking a second time is harmless.
REQUEST_TIMEOUT_S: Final = 3.0
# Sockets are cut off first, so there is nothing to wait for; this is for mistakes.
_STOP_TIMEOUT_S: Final = 1.0

_logger: Final = logging.getLogger("tidegate")

C = TypeVar("C")
R = TypeVar("R")


class LoopEnded(Exception):
    """Closed before this was done."""


class Client(Protocol):
    """What aiokafka's clients have in common."""

    async def start(self) -> None: ...
    async def stop(self) -> None: ...


@asynccontextmanager
async def started(client: Client) -> AsyncIterator[None]:
    """A client from its start to the end of its loop: whatever else is going on there ends with it, unsent."""
    try:
        await client.start()
        yield
    finally:
        loop = asyncio.get_running_loop()
        for task in asyncio.all_tasks(loop) - {asyncio.current_task(loop)}:
            task.cancel()
        if isinstance(loop, _Loop):
            loop.cut_off()
        # What aiokafka was doing when it was cancelled may come out of its `stop`.
        with contextlib.suppress(Exception, asyncio.CancelledError):
            async with asyncio.timeout(_STOP_TIMEOUT_S):
                await client.stop()


class KafkaLoop(Generic[C]):
    """Clients that `clients` opens, until `close`, or until opening them fails. From any thread. Raises `LogUnavailable` when
    no thread is to be had.

    `trouble` is the last error that aiokafka has logged and not raised: the reason when something takes too long.
    """

    def __init__(self, clients: Callable[[], AbstractAsyncContextManager[C]], name: str) -> None:
        _hush()
        self.trouble: BaseException | type[BaseException] | None = None
        self.ended = False
        self._why: BaseException = LoopEnded()
        self._clients = clients
        # Reentrant: a signal handler may close what it has interrupted.
        self._guard = threading.RLock()
        self._waiting: set[Future[Any]] = set()
        self._loop = _Loop()
        self._opened: asyncio.Future[C] = self._loop.create_future()
        self._stop: asyncio.Future[Callable[[C], Awaitable[None]] | None] = self._loop.create_future()
        self._jobs: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        try:
            self._thread.start()
        except RuntimeError as error:
            self._loop.close()
            raise LogUnavailable("no thread for Kafka can be started; is the interpreter ending?") from error

    def call(self, work: Callable[[C], Awaitable[R]], timeout_s: float) -> R:
        """What `work` returns or raises. Raises `TimeoutError` when it takes longer, with the opening of the clients, and
        `LoopEnded` after `close`; what keeps the clients from being opened comes out here, too."""
        return self.cast(work).result(timeout_s)

    def cast(self, work: Callable[[C], Awaitable[R]]) -> Future[R]:
        """`call` without waiting."""
        future: Future[R] = Future()
        with self._guard:
            if self.ended:
                future.set_exception(self._why)
                return future
            self._waiting.add(future)
            self._loop.call_soon_threadsafe(self._begin, work, future)
        future.add_done_callback(self._waiting.discard)
        return future

    def close(self, last: Callable[[C], Awaitable[None]] | None = None, timeout_s: float = 0.0) -> None:
        """End all that is going on, then do `last` for up to `timeout_s` if the clients are open. Idempotent."""
        with self._guard:
            if self.ended:
                return
            self._loop.call_soon_threadsafe(self._end, last, timeout_s)
        self._thread.join(timeout_s + 2 * _STOP_TIMEOUT_S)

    # --- in the thread -----------------------------------------------------------------------------------------------

    def _run(self) -> None:
        _of_this_thread.loop = self
        loop = self._loop
        self._main = loop.create_task(self._serve())
        try:
            loop.run_until_complete(self._main)
        except asyncio.CancelledError:
            pass
        except Exception as error:  # noqa: BLE001 — every caller is told, and decides
            self._why = error
        try:
            left = asyncio.all_tasks(loop)
            for task in left:
                task.cancel()
            loop.run_until_complete(asyncio.wait(left, timeout=_STOP_TIMEOUT_S) if left else asyncio.sleep(0))
            loop.run_until_complete(loop.shutdown_asyncgens())
        finally:
            with self._guard:
                self.ended = True
                loop.close()
            for future in list(self._waiting):
                if not future.done():
                    future.set_exception(self._why)
            _of_this_thread.loop = None

    async def _serve(self) -> None:
        async with self._clients() as clients:
            self._opened.set_result(clients)
            last = await self._stop
            for job in list(self._jobs):
                job.cancel()
            if last is not None:
                await last(clients)

    def _begin(self, work: Callable[[C], Awaitable[R]], future: Future[R]) -> None:
        if self._main.done():
            return  # nobody steps a task any more; whoever waits is told when the loop has ended
        job = self._loop.create_task(self._do(work, future))
        self._jobs.add(job)
        job.add_done_callback(self._jobs.discard)

    async def _do(self, work: Callable[[C], Awaitable[R]], future: Future[R]) -> None:
        try:
            # Shielded, because one caller's end is not everybody's.
            result = await work(await asyncio.shield(self._opened))
        except asyncio.CancelledError:
            pass  # whoever waits is told why when the loop has ended
        except Exception as error:  # noqa: BLE001 — the caller's to judge
            future.set_exception(error)
        else:
            self.trouble = None  # whatever it was, it has passed
            future.set_result(result)

    def _end(self, last: Callable[[C], Awaitable[None]] | None, timeout_s: float) -> None:
        async def bounded(clients: C) -> None:
            if last is not None:
                with contextlib.suppress(Exception):  # the last words of somebody who leaves
                    async with asyncio.timeout(timeout_s):
                        await last(clients)

        if not self._opened.done():
            self._main.cancel()
        elif not self._stop.done():
            self._stop.set_result(bounded)


class _Loop(asyncio.SelectorEventLoop):
    """A loop that can be cut off from the network at once, and whose names are looked up by threads that nobody waits for:
    the executor's are joined at the interpreter's end, and a resolver that hangs does so for half a minute."""

    def __init__(self) -> None:
        super().__init__()
        self._open_transports: weakref.WeakSet[asyncio.BaseTransport] = weakref.WeakSet()
        self.set_exception_handler(lambda _, context: _logger.debug("kafka_client said=%s", context.get("message")))

    async def create_connection(self, *args: Any, **options: Any) -> Any:
        transport, protocol = await super().create_connection(*args, **options)
        self._open_transports.add(transport)
        return transport, protocol

    def cut_off(self) -> None:
        """Close all connections; what they have not yet given to the system is dropped."""
        for transport in list(self._open_transports):
            if isinstance(transport, asyncio.WriteTransport):
                transport.abort()

    async def getaddrinfo(
        self,
        host: Any,
        port: Any,
        *,
        family: int = 0,
        type: int = 0,  # noqa: A002 — asyncio calls it so
        proto: int = 0,
        flags: int = 0,
    ) -> Any:
        found: asyncio.Future[Any] = self.create_future()

        def tell(how: Callable[[Any], None], what: Any) -> None:
            if not found.done():
                how(what)

        def look() -> None:
            try:
                how, what = found.set_result, socket.getaddrinfo(host, port, family, type, proto, flags)
            except OSError as error:
                how, what = found.set_exception, error  # type: ignore[assignment]  # one or the other
            with contextlib.suppress(RuntimeError):  # nobody waits any more
                self.call_soon_threadsafe(tell, how, what)

        threading.Thread(target=look, name="tidegate-resolver", daemon=True).start()
        return await found


# --- what aiokafka logs ----------------------------------------------------------------------------------------------


class _OfThisThread(threading.local):
    loop: KafkaLoop[Any] | None = None


_of_this_thread: Final = _OfThisThread()


class _Hush(logging.Filter):
    """Keeps what aiokafka says in our threads out of the service's log: it repeats itself at ERROR many times a second while
    a broker is away, and we say it once. A service's own aiokafka is not touched. At DEBUG of `tidegate` it all shows."""

    def filter(self, record: logging.LogRecord) -> bool:
        loop = _of_this_thread.loop
        if loop is None:
            return True
        for told in record.args if isinstance(record.args, tuple) else ():
            if isinstance(told, BaseException) or (isinstance(told, type) and issubclass(told, BaseException)):
                loop.trouble = told
        return _logger.isEnabledFor(logging.DEBUG)


_hushing: Final = _Hush()


def _hush() -> None:
    # A filter holds for the very logger it is put on, and aiokafka has one a module.
    for name in list(logging.root.manager.loggerDict):
        if name == "aiokafka" or name.startswith("aiokafka."):
            logging.getLogger(name).addFilter(_hushing)
