"""What happens to a process's emitters when it ends or forks. Registered with the first emitter, not at import.

interpreter exit   `atexit` runs after non-daemon threads are joined and before daemon threads are frozen: nobody
                   emits any more, and the emitter's thread still works. (`threading._register_atexit` would run
                   before the joins, too early.) `multiprocessing` children skip `atexit` before Python 3.13; they
                   get a finalizer of their own.
SIGTERM            only while its disposition is the default one: send what is left, within a bound, then die of
                   the same signal, so the exit status is what it would have been. A handler of the application
                   is never replaced; it ends in an interpreter exit, or calls `close` itself.
fork               the child starts afresh: new producer id, empty buffer, no thread; what the parent holds, the
                   parent sends.
kill -9, os._exit  nothing can run. Lost is what was in memory: about `linger_s` while the log is there.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
import time
import weakref
from types import FrameType
from typing import Any, Protocol


class Emits(Protocol):
    """What this module asks of an emitter."""

    def close(self, timeout_s: float | None = None) -> bool: ...
    def flush(self, timeout_s: float | None = None) -> bool: ...
    def exit_bound_s(self) -> float: ...
    def last_words(self) -> None: ...
    def forked(self) -> None: ...


# Replaced as a whole, never changed in place: a signal handler may interrupt anywhere.
_emitters: tuple[weakref.ref[Emits], ...] = ()
_registered = False
_finalizer_pid = 0
_ending = False


def watch(emitter: Emits) -> None:
    """Look after this emitter until it is gone."""
    global _emitters, _registered
    _emitters = (*(ref for ref in _emitters if ref() is not None), weakref.ref(emitter))
    if not _registered:
        _registered = True
        atexit.register(_at_exit)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=_after_fork)
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _on_sigterm)


def watch_child() -> None:
    """Called when an emitter starts to work: `multiprocessing` children need their own exit hook."""
    global _finalizer_pid
    process: Any = sys.modules.get("multiprocessing.process")
    util: Any = sys.modules.get("multiprocessing.util")
    if process is None or util is None or process.parent_process() is None or _finalizer_pid == os.getpid():
        return
    _finalizer_pid = os.getpid()
    util.Finalize(None, _at_exit, exitpriority=-100)


def _living() -> list[Emits]:
    return [emitter for ref in _emitters if (emitter := ref()) is not None]


def _at_exit() -> None:
    _each(lambda emitter, timeout_s: emitter.close(timeout_s))


def _on_sigterm(signum: int, frame: FrameType | None) -> None:
    global _ending
    if _ending:  # a second one while the first is being served; that one is bounded
        return
    _ending = True
    # The kernel ignores the default action of SIGTERM in a container's first process: it will live on.
    first = os.getpid() == 1
    for emitter in _living():
        emitter.last_words()
    _each(lambda emitter, timeout_s: emitter.flush(timeout_s) if first else emitter.close(timeout_s))
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGTERM)
    if first:
        _ending = False
        signal.signal(signal.SIGTERM, _on_sigterm)


def _each(end: Any) -> None:
    """End all emitters within the longest of their bounds, not the sum."""
    emitters = _living()
    deadline = time.monotonic() + max((emitter.exit_bound_s() for emitter in emitters), default=0.0)
    for emitter in emitters:
        end(emitter, max(0.0, min(emitter.exit_bound_s(), deadline - time.monotonic())))


def _after_fork() -> None:
    global _ending
    _ending = False
    for emitter in _living():
        emitter.forked()
