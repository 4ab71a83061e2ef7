"""Service logs → the durable log: every non-blank line becomes exactly one sequence number, an event or a rejection.

    file ── open (plain, gzip, stdin) ── lines (bounded) ── read_line ──┬── event ─────── emitter.emit
                                                                        └── InvalidEvent ─ emitter.reject
                                                       └── read_texts ── emitter.emit_content, when asked for

Because line N always has the same number under the same producer identity, a replay that is repeated, resumed after a
crash or run again on a file that has grown counts nothing twice. That holds for one producer a file: `replay_files`
gives each file its own, `replay` takes the one it is handed.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import itertools
import sys
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, Final, Literal, Protocol, cast

from ..schemas.call import parse_timestamp
from ..schemas.errors import InvalidEvent, UsageError
from .log_lines import MAX_LINE_BYTES, oversize_reason, read_line
from .log_texts import read_texts

STDIN: Final = "-"
# Often enough for a progress bar that moves, rarely enough not to be felt.
_PROGRESS_LINES: Final = 1_000
# No sleep is more precise than this; a shorter wait is none.
_PACE_S: Final = 50e-6
_CHUNK_BYTES: Final = 1024 * 1024


class Outlet(Protocol):
    """What a replay needs of an Emitter."""

    def emit(self, event: Mapping[str, Any], /) -> bool: ...
    def emit_content(self, call: Mapping[str, Any], texts: Mapping[str, Any], /) -> bool: ...
    def reject(self, line: bytes, reason: str, source: str, line_no: int | None) -> object: ...
    def wait_for_room(self) -> object: ...


class ClosableOutlet(Outlet, Protocol):
    def flush(self, timeout_s: float) -> bool: ...
    def close(self) -> object: ...


@dataclass(slots=True)
class ReplayReport:
    """What became of the lines: `lines` = `published` + rejected + `dropped`. `problems` are for a person to read.
    `texts` is of how many calls content is in the log; whoever closes the emitters counts it."""

    files: int = 0
    lines: int = 0
    published: int = 0
    rejected: dict[str, int] = field(default_factory=dict)
    dropped: int = 0
    blank: int = 0
    bytes: int = 0
    problems: list[str] = field(default_factory=list)
    texts: int = 0

    @property
    def rejected_lines(self) -> int:
        return sum(self.rejected.values())


@dataclass(frozen=True, slots=True)
class Line:
    """One line without its newline. An oversize line has no content, only its size and fingerprint."""

    number: int
    content: bytes
    size_bytes: int
    terminated: bool
    oversize_sha256: str | None = None

    @property
    def blank(self) -> bool:
        return self.oversize_sha256 is None and not self.content.strip()

    @property
    def sha256(self) -> str:
        return self.oversize_sha256 or hashlib.sha256(self.content).hexdigest()


def read_lines(stream: BinaryIO, limit: int = MAX_LINE_BYTES) -> Iterator[Line]:
    """The lines of a stream, holding at most `limit` bytes of any: a longer one is read through in pieces and hashed."""
    for number in itertools.count(1):
        content = stream.readline(limit + 1)
        if not content:
            return
        terminated = content.endswith(b"\n")
        if terminated or len(content) <= limit:
            content = content[:-1] if terminated else content
            yield Line(number, content, len(content), terminated)
            continue
        digest, size = hashlib.sha256(content), len(content)
        while not terminated and (content := stream.readline(_CHUNK_BYTES)):
            terminated = content.endswith(b"\n")
            content = content[:-1] if terminated else content
            digest.update(content)
            size += len(content)
        yield Line(number, b"", size, terminated, digest.hexdigest())


@contextmanager
def open_log(path: str | Path) -> Iterator[BinaryIO]:
    """A log as uncompressed bytes: a file or `-` for standard input; gzip is known by its first bytes, not its name.

    Raises `UsageError` when it cannot be opened.
    """
    raw: io.BufferedReader[Any]
    if str(path) == STDIN:
        raw = io.BufferedReader(cast("io.RawIOBase", sys.stdin.buffer))
        try:
            yield _decompressed(raw)
        finally:
            raw.detach()  # standard input is not ours to close
        return
    try:
        raw = Path(path).open("rb")  # noqa: SIM115 — closed by the `with` below
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}; give a log file, or - for standard input") from None
    with raw:
        yield _decompressed(raw)


def _decompressed(raw: io.BufferedReader[Any]) -> BinaryIO:
    if raw.peek(2)[:2] == b"\x1f\x8b":
        # Read as it is: a large buffer around it would lose, with the end of a damaged file, what came before.
        return cast(BinaryIO, gzip.GzipFile(fileobj=raw))
    return raw


def replay_identity(path: str | Path) -> str:
    """The producer identity of a log file when none is given: `replay-` and a fingerprint of its first non-blank line.

    A file keeps its identity while it grows, when it is moved, and when it is compressed, so replaying it again adds
    only what is new. The consequence: two different files that begin with the same line count as one, and the second
    would be taken for a repetition of the first. Give such files a producer of their own (`--producer`).

    Raises `UsageError` for standard input, which cannot be read twice: `replay_files` finds its identity as it reads.
    """
    if str(path) == STDIN:
        raise UsageError("standard input cannot be read twice to find its identity; give --producer")
    with open_log(path) as stream:
        try:
            first = next((line for line in read_lines(stream) if not line.blank), None)
        except _DAMAGED as error:
            raise UsageError(f"{path} is damaged before the end of its first line: {error}") from None
    return _identity(first)


def _identity(first: Line | None) -> str:
    return f"replay-{(first.sha256 if first else hashlib.sha256().hexdigest())[:24]}"


_DAMAGED: Final = (EOFError, gzip.BadGzipFile, zlib.error)


@dataclass(slots=True)
class _Replay:
    """One run over any number of logs."""

    speed: float | Literal["max"]
    clock: Callable[[], float]
    sleep: Callable[[float], object]
    now: Callable[[], datetime]
    progress: Callable[[ReplayReport], object] | None
    stop: Callable[[], bool]
    final: bool
    chunk_key: bytes | None
    content: bool
    report: ReplayReport = field(default_factory=ReplayReport)
    # Where recorded time and the clock met: at the first event.
    _recorded_start: datetime | None = None
    _clock_start: float = 0.0

    def __post_init__(self) -> None:
        if self.speed != "max" and not self.speed > 0:
            raise UsageError("replay speed must be above 0, or max")

    def run(self, lines: Iterator[Line], source: str, emitter: Outlet) -> None:
        """Publish every line. Stops between two lines when `stop` says so."""
        report, number = self.report, 0
        report.files += 1
        try:
            for line in lines:
                if self.stop():
                    return
                number = line.number
                report.bytes += line.size_bytes + line.terminated
                if line.blank:
                    report.blank += 1
                elif self._publish(line, source, emitter):
                    if report.lines % _PROGRESS_LINES == 0 and self.progress:
                        self.progress(report)
                else:
                    report.problems.append(
                        f"{source}: the last line ({number}) is unfinished and was left for the next replay; "
                        "if nothing more will be written, replay it as final"
                    )
        except EOFError:
            report.problems.append(
                f"{source}: the compressed data ends early, after line {number}; replay it again when it is whole"
            )
        except (gzip.BadGzipFile, zlib.error):
            report.problems.append(f"{source}: the compressed data is damaged after line {number}; the rest could not be read")
        finally:
            if self.progress:
                self.progress(report)

    def _publish(self, line: Line, source: str, emitter: Outlet) -> bool:
        """Publish one line under one number; False for an unfinished last line, which takes none yet."""
        event: dict[str, Any] | None = None
        reason = oversize_reason()
        if line.oversize_sha256 is None:
            try:
                event = read_line(line.content, chunk_key=self.chunk_key)
            except InvalidEvent as error:
                reason = error.reason
        if event is None and not line.terminated and not self.final:
            # Rejecting it would use up the number of the call that it is about to become.
            return False
        if event is not None and self.speed != "max":
            self._pace(event, self.speed)
        emitter.wait_for_room()
        self.report.lines += 1
        if event is not None:
            if emitter.emit(event):
                self.report.published += 1
            else:
                self.report.dropped += 1
            if self.content and (texts := read_texts(line.content)) is not None:
                emitter.emit_content(event, texts)
            return True
        if line.oversize_sha256 is None:
            emitter.reject(line.content, reason, source, line.number)
        else:
            emitter.emit(
                {
                    "event": "rejected",
                    "rejected_at": self.now().isoformat(),
                    "source": source,
                    "line": line.number,
                    "size_bytes": line.size_bytes,
                    "sha256": line.sha256,
                    "reason": reason,
                }
            )
        # Where in the line it went wrong is in the dead letter; here, lines with the same fault count together.
        key = reason.partition(" (character ")[0]
        self.report.rejected[key] = self.report.rejected.get(key, 0) + 1
        return True

    def _pace(self, event: Mapping[str, Any], speed: float) -> None:
        """Wait until this event is due: recorded intervals divided by speed, from the first event on."""
        at = event.get("started_at")
        if at is None:
            return
        started = parse_timestamp(at)
        if self._recorded_start is None:
            self._recorded_start, self._clock_start = started, self.clock()
            return
        due = self._clock_start + (started - self._recorded_start).total_seconds() / speed
        # In slices, so that a stop during a night without traffic is heard within a second.
        while (wait := due - self.clock()) > _PACE_S and not self.stop():
            self.sleep(min(wait, 1.0))


def _never() -> bool:
    return False


def _utc_now() -> datetime:
    return datetime.now(UTC)


def replay(
    paths: Iterable[str | Path],
    emitter: Outlet,
    *,
    speed: float | Literal["max"] = "max",
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], object] = time.sleep,
    now: Callable[[], datetime] = _utc_now,
    progress: Callable[[ReplayReport], object] | None = None,
    stop: Callable[[], bool] = _never,
    final: bool = False,
    chunk_key: bytes | None = None,
    content: bool = False,
) -> ReplayReport:
    """Publish the lines of `paths` in order through one emitter; several files share its sequence, in the order given.

    `speed` is `max`, or N for N times the recorded pace by `started_at` (`clock` in seconds, monotonic). Nothing is
    dropped: each line waits for room. `progress` hears the running report every 1,000 lines and at each file's end.

    A last line without a newline that does not read is taken for half written: it is left out and named in `problems`,
    so that its number is free for the whole line later. `final` says that the files are complete, and rejects it.

    With `content`, the texts of each line leave by the emitter's way for content, numbered in the order of their lines: with
    the same settings a file replayed again is content sent again, and is judged once.

    Neither flushes nor closes the emitter. Raises `UsageError` when a path cannot be opened or the speed is not positive.
    """
    run = _Replay(speed, clock, sleep, now, progress, stop, final, chunk_key, content)
    for path in paths:
        with open_log(path) as stream:
            run.run(read_lines(stream), source_name(path), emitter)
    return run.report


def replay_files(
    paths: Iterable[str | Path],
    open_emitter: Callable[[str], ClosableOutlet],
    *,
    flush_timeout_s: float = 60.0,
    speed: float | Literal["max"] = "max",
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], object] = time.sleep,
    now: Callable[[], datetime] = _utc_now,
    progress: Callable[[ReplayReport], object] | None = None,
    stop: Callable[[], bool] = _never,
    final: bool = False,
    chunk_key: bytes | None = None,
    content: bool = False,
) -> ReplayReport:
    """Publish each file as its own producer: `open_emitter(identity)` is flushed and closed when its file ends.

    Otherwise as `replay`. A minute to flush is far above any healthy log's latency; when it passes, a problem says so.
    Raises `UsageError`, before anything is published, when a path cannot be opened or two begin with the same line.
    """
    run = _Replay(speed, clock, sleep, now, progress, stop, final, chunk_key, content)
    paths = list(paths)
    known: dict[str, str | Path] = {}
    for path in paths:
        if str(path) != STDIN:
            _claim(known, replay_identity(path), path)
    for path in paths:
        with open_log(path) as stream:
            lines = read_lines(stream)
            head = list(_up_to_first(lines))
            if not head or head[-1].blank:
                run.run(iter(head), source_name(path), _Nowhere())
                continue
            identity = _identity(head[-1])
            if str(path) == STDIN:
                _claim(known, identity, path)
            emitter = open_emitter(identity)
            try:
                run.run(itertools.chain(head, lines), source_name(path), emitter)
                if not emitter.flush(flush_timeout_s):
                    run.report.problems.append(
                        f"{source_name(path)}: the log has not taken everything after {flush_timeout_s:g} s; "
                        "replay it again, nothing is counted twice"
                    )
            finally:
                emitter.close()
    return run.report


def _claim(known: dict[str, str | Path], identity: str, path: str | Path) -> None:
    if identity in known:
        raise UsageError(
            f"{known[identity]} and {path} begin with the same line and would count as one file; "
            "replay them one by one with --producer, or give one of them only"
        )
    known[identity] = path


def _up_to_first(lines: Iterator[Line]) -> Iterator[Line]:
    for line in lines:
        yield line
        if not line.blank:
            return


class _Nowhere:
    """Stands in for an emitter where there is no line to publish."""

    def emit(self, event: Mapping[str, Any], /) -> bool:
        raise AssertionError("a log without lines publishes nothing")

    def reject(self, line: bytes, reason: str, source: str, line_no: int | None) -> None:
        raise AssertionError("a log without lines publishes nothing")

    def emit_content(self, call: Mapping[str, Any], texts: Mapping[str, Any], /) -> bool:
        raise AssertionError("a log without lines publishes nothing")

    def wait_for_room(self) -> None: ...


def source_name(path: str | Path) -> str:
    """A log's name as rejections carry it: the file's own name, never its folder."""
    name = "stdin" if str(path) == STDIN else Path(path).name
    return "".join(char if char.isprintable() else "?" for char in name)[:128] or "log"
