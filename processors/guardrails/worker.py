"""A scoring process: `python -m tidegate.processors.guardrails.worker FD`, started by the pool, which talks to it over FD.

The only process that ever holds plaintext, so it leaves nothing behind: no core dump, no standard error (a native library's
last words may quote a text), no error that says more than its kind. It ends with the pool, whatever happens to that.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import resource
import socket
import sys
import time
from collections.abc import Callable
from typing import Any, Final

from pydantic import SecretStr

from ...schemas.errors import TidegateError
from ...schemas.settings import Settings
from ..undumped import end_with_parent, leave_no_core
from .jobs import LENGTH, Done, Hello, Ready, Refused, Work, decode_told, frame
from .judging import Judge
from .ports import Sample
from .suite import Suite

# The meter goes first wherever the two share a core.
_NICE: Final = 10
# Above what is mapped once all is loaded, in times of what a process may have resident: allocators map more than they use,
# and a text that wants this much gets a MemoryError, which one detector bears.
_MAPPED_TIMES: Final = 3

# Every detector has something to look at in it, and nothing to find: a process that cannot judge this is broken, and no
# text is to blame.
_OURS: Final = Sample(
    "warm-up", "How long may I take this for?", "Up to ten days, then see your clinician.", ("It is taken for ten days.",)
)


def main() -> None:
    line = socket.socket(fileno=int(sys.argv[1]))
    _leave_nothing_behind()
    told = _read(line)
    if not isinstance(told, Hello):
        return
    sys.path.extend(path for path in told.path if path not in sys.path)
    settings = Settings.model_validate_json(told.settings)
    if told.canaries is not None:
        settings = settings.model_copy(update={"guard_canaries": SecretStr(told.canaries)})
    troubles: list[str] = []
    try:
        from .redaction import redact

        suite = load(told.loader, settings, troubles.append)
        judge = Judge(suite, lambda sample, findings, key: redact(sample, findings, settings.redaction, key=key))
        failed = suite.assess([_OURS])[0].failed
    except TidegateError as error:
        line.sendall(frame(Refused(reason=str(error))))
        return
    except Exception as error:  # noqa: BLE001 — the door of this process; the pool says it and tries again
        line.sendall(frame(Refused(reason=f"a detector cannot be loaded ({type(error).__name__})")))
        return
    if failed:
        what = ", ".join(f"{name} ({why})" for name, why in failed.items())
        line.sendall(frame(Refused(reason=f"a detector fails on a plain sentence: {what}")))
        return
    # What is loaded stays; the collector need not look at it after every batch.
    gc.collect()
    gc.freeze()
    bound_memory(settings.guard_memory_mb)
    line.sendall(frame(Ready(detectors=judge.versions, resident_mb=resident_mb(), troubles=troubles)))
    while (told := _read(line)) is not None:
        if isinstance(told, Work):
            line.sendall(frame(_done(judge, told)))


def load(loader: str, settings: Settings, trouble: Callable[[str], None]) -> Suite:
    """The suite that `module:function` makes of the settings; `trouble` is told of models that cannot be had."""
    module, _, function = loader.partition(":")
    suite = getattr(importlib.import_module(module), function)(settings, trouble=trouble)
    if not isinstance(suite, Suite):
        raise TypeError("the loader gives no Suite")
    return suite


def _done(judge: Judge, work: Work) -> Done:
    begun_s = time.process_time()
    judge.seconds.clear()
    judged = judge.judge(work.jobs, work.fingerprint_key)
    return Done(judged=judged, cpu_s=time.process_time() - begun_s, resident_mb=resident_mb(), seconds=dict(judge.seconds))


def resident_mb() -> float:
    """What this process has in memory; 0 where the system does not say."""
    with contextlib.suppress(OSError, ValueError, IndexError), open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * resource.getpagesize() / 2**20
    return 0.0


def _leave_nothing_behind() -> None:
    leave_no_core()
    end_with_parent()
    with contextlib.suppress(OSError):
        os.nice(_NICE)


def bound_memory(most_mb: int) -> None:
    """Let this process map no more than a few times `most_mb` above what it has."""
    with contextlib.suppress(OSError, ValueError, IndexError), open("/proc/self/statm") as statm:
        mapped = int(statm.read().split()[0]) * resource.getpagesize()
        most = mapped + _MAPPED_TIMES * most_mb * 2**20
        resource.setrlimit(resource.RLIMIT_AS, (most, most))


def _read(line: socket.socket) -> Hello | Work | None:
    """The next message; None when the pool is gone."""
    head = _exactly(line, LENGTH.size)
    body = _exactly(line, LENGTH.unpack(head)[0]) if head else b""
    found: Any = decode_told(body) if body else None
    return found  # type: ignore[no-any-return]


def _exactly(line: socket.socket, size: int) -> bytes:
    """So many bytes; none when the other end is closed."""
    found = bytearray()
    while len(found) < size:
        part = line.recv(min(size - len(found), 1 << 20))
        if not part:
            return b""
        found += part
    return bytes(found)


if __name__ == "__main__":
    main()
