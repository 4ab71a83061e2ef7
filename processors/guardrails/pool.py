"""A bounded pool of spawned scoring processes: sealed jobs in, one judgement for each out, whatever happens to a process.

    submit ─► by priority, then by length ─► batches ─► processes ─► collect
                                               │
                     process killed, hung or out of memory: another takes its place
                                               │
                     the batch again, in halves ─► alone ─► alone once more ─► quarantined

A job whose process died is judged again, by another one; a job that was answered never is. A process that cannot be loaded,
or not judge a plain sentence, is tried again later and later; meanwhile jobs wait, and no text is blamed.

Used from one thread: processes end with the thread that started them (a rule of Linux).
"""

from __future__ import annotations

import contextlib
import select
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

import msgspec
import structlog

from ...schemas.settings import Settings, environment_of_others
from .jobs import LENGTH, Hello, Job, Judged, Ready, Refused, Said, Work, decode_said, frame

log = structlog.get_logger("tidegate.guardrails")

LOADER: Final = "tidegate.processors.guardrails.loading:load_suite"
# What no process needs: it is given the keys of the texts it has, and nothing else.
_SECRETS: Final = {"token", "key_file", "keys", "key_command", "store", "guard_canaries"}
# One process is one core: numeric libraries would otherwise start a thread for each core, in each process.
_ONE_THREAD: Final = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "NUMEXPR_NUM_THREADS": "1",
    "RAYON_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    # Nothing is downloaded at run time, and what is asked for is on this machine.
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
}
# Loading takes seconds; the largest torch models on a slow disk a minute.
_LOAD_WITHIN_S: Final = 180.0
_FIRST_PAUSE_S: Final = 1.0
_LONGEST_PAUSE_S: Final = 60.0
# A batch is at most this much sealed text: several times that in clear, and a second of work or two.
_BATCH_CHARS: Final = 4 << 20
# Half of a batch that took too long gets less time than the whole, but no less than this share.
_LEAST_SHARE: Final = 0.25
_READ_BYTES: Final = 1 << 20
# An answer that has begun to come is waited for this long after its last part.
_ANSWER_WITHIN_S: Final = 10.0
# A process that is told to end does so at once, unless it is at work.
_END_WITHIN_S: Final = 2.0


@dataclass(slots=True)
class Account:
    """What a pool has done since it started. `restarts`: why → processes replaced."""

    batches: int = 0
    judged: int = 0
    cached: int = 0
    cpu_s: float = 0.0
    seconds: dict[str, float] = field(default_factory=dict)
    restarts: dict[str, int] = field(default_factory=dict)
    quarantined: int = 0


@dataclass(slots=True, eq=False)
class _Batch:
    """Jobs that are judged together. `tries`: how often a single one has failed."""

    jobs: list[Job]
    tries: int = 0


@dataclass(slots=True, eq=False)
class _Slot:
    """A place for one process."""

    process: subprocess.Popen[bytes] | None = None
    line: socket.socket | None = None
    outbox: bytearray = field(default_factory=bytearray, repr=False)
    inbox: bytearray = field(default_factory=bytearray, repr=False)
    ready: bool = False
    batch: _Batch | None = None
    given_at: float = 0.0
    time_s: float = 0.0
    deadline: float = 0.0
    start_at: float = 0.0
    pause_s: float = _FIRST_PAUSE_S
    resident_mb: float = 0.0


class Pool:
    """`submit` jobs, `collect` judgements. `loader` names the function that makes a suite of the settings.

    `paused` keeps idle processes from being given more (a budget is spent, say); what is under way goes on.
    """

    def __init__(self, settings: Settings, *, loader: str = LOADER, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._loader = loader
        self._clock = clock
        self._slots = [_Slot() for _ in range(settings.guard_workers)]
        # (priority, size class) → jobs, each queue in the order of submission.
        self._queues: dict[tuple[int, int], deque[Job]] = {}
        self._suspects: deque[_Batch] = deque()
        self._answers: list[Judged] = []
        self.account = Account()
        self.detectors: dict[str, str] = {}
        # Why nothing can be loaded; and which models others stand in for.
        self.trouble: str | None = None
        self.troubles: list[str] = []
        self.paused = False
        self.fingerprint_key = b""

    # ---- what is asked

    @property
    def waiting(self) -> int:
        """Jobs that no process has yet."""
        return sum(map(len, self._queues.values())) + sum(len(batch.jobs) for batch in self._suspects)

    @property
    def under_way(self) -> int:
        """Jobs that a process has."""
        return sum(len(slot.batch.jobs) for slot in self._slots if slot.batch is not None)

    @property
    def ready(self) -> int:
        """Processes that are loaded."""
        return sum(slot.ready for slot in self._slots)

    @property
    def resident_mb(self) -> float:
        """The largest process."""
        return max((slot.resident_mb for slot in self._slots), default=0.0)

    @property
    def pids(self) -> list[int]:
        return [slot.process.pid for slot in self._slots if slot.process is not None]

    def submit(self, jobs: Iterable[Job], priority: int = 0) -> None:
        """Judge these; a lower `priority` goes first."""
        for job in jobs:
            self._queues.setdefault((priority, len(job.sealed).bit_length()), deque()).append(job)

    def clear(self) -> None:
        """Forget what no process has yet."""
        self._queues.clear()
        self._suspects.clear()

    def collect(self, wait_s: float) -> list[Judged]:
        """What has been judged since; waits up to `wait_s` for the first. Starts, replaces and feeds processes meanwhile."""
        deadline = self._clock() + wait_s
        # The caller may have been away for minutes: who has answered meanwhile is not late.
        self._listen(0.0)
        while True:
            now = self._clock()
            self._tend(now)
            left_s = deadline - now
            if self._answers or left_s <= 0:
                # Who has answered is given more before the answers are looked at.
                self._tend(now)
                self._listen(0.0)
                found, self._answers = self._answers, []
                return found
            self._listen(min(left_s, self._next_deadline() - now))

    def close(self) -> None:
        """End all processes; what they had is nobody's any more."""
        for slot in self._slots:
            if slot.line is not None:
                slot.line.close()
        for slot in self._slots:
            if slot.process is not None:
                if slot.batch is not None or not slot.ready:
                    slot.process.kill()
                try:
                    slot.process.wait(_END_WITHIN_S)
                except subprocess.TimeoutExpired:
                    slot.process.kill()
                    slot.process.wait()
            slot.process = slot.line = slot.batch = None
            slot.ready = False

    # ---- processes

    def _tend(self, now: float) -> None:
        for slot in self._slots:
            if slot.process is not None and now >= slot.deadline and (slot.batch is not None or not slot.ready):
                self._ended(slot, "timeout")
            wanted = self._suspects or any(self._queues.values())
            if slot.process is None and now >= slot.start_at and wanted and not self.paused:
                self._start(slot, now)
            if slot.ready and slot.batch is None and wanted and not self.paused:
                self._give(slot, self._next_batch(), now)

    def _start(self, slot: _Slot, now: float) -> None:
        ours, theirs = socket.socketpair()
        try:
            slot.process = subprocess.Popen(  # noqa: S603  # ourselves
                [sys.executable, "-m", "tidegate.processors.guardrails.worker", str(theirs.fileno())],
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={**environment_of_others(), **_ONE_THREAD},
                # Ctrl-C is for us; we end it in order.
                start_new_session=True,
            )
        except OSError as error:
            ours.close()
            self._cannot_load(slot, f"a scoring process cannot be started ({error.strerror})")
            return
        finally:
            theirs.close()
        ours.setblocking(False)
        slot.line, slot.inbox, slot.ready = ours, bytearray(), False
        hello = Hello(
            settings=self._settings.model_dump_json(
                exclude={name for name in Settings.model_fields if name in _SECRETS or name.startswith("kafka_")}
            ).encode(),
            loader=self._loader,
            path=sys.path,
            canaries=self._settings.guard_canaries.get_secret_value() if self._settings.guard_canaries else None,
        )
        slot.outbox = bytearray(frame(hello))
        slot.deadline = now + _LOAD_WITHIN_S

    def _give(self, slot: _Slot, batch: _Batch, now: float) -> None:
        slot.batch = batch
        share = len(batch.jobs) / self._settings.guard_batch
        # The last try of a job has all the time there is.
        slot.time_s = self._settings.guard_timeout_s * (1.0 if batch.tries else max(_LEAST_SHARE, share))
        slot.given_at, slot.deadline = now, now + slot.time_s
        slot.outbox += frame(Work(jobs=batch.jobs, fingerprint_key=self.fingerprint_key))

    def _next_batch(self) -> _Batch:
        """What failed before, first; else the most urgent jobs, of about one length: a short text does not wait for long
        ones, and none is padded to the length of another."""
        if self._suspects:
            return self._suspects.popleft()
        urgent = min(priority for (priority, _), queue in self._queues.items() if queue)
        found = {size: queue for (priority, size), queue in self._queues.items() if queue and priority == urgent}
        size = min(found, key=lambda size: found[size][0].number)
        jobs: list[Job] = []
        chars = 0
        for near in (size, size - 1, size + 1):
            queue = found.get(near, deque())
            while queue and len(jobs) < self._settings.guard_batch:
                chars += len(queue[0].sealed)
                if jobs and chars > _BATCH_CHARS:
                    return _Batch(jobs)
                jobs.append(queue.popleft())
        return _Batch(jobs)

    def _next_deadline(self) -> float:
        now = self._clock()
        waits = [slot.deadline for slot in self._slots if slot.process is not None and (slot.batch or not slot.ready)]
        waits += [slot.start_at for slot in self._slots if slot.process is None and slot.start_at > now]
        return max(min(waits, default=now + 60.0), now)

    def _listen(self, wait_s: float) -> None:
        by_fd = {slot.line.fileno(): slot for slot in self._slots if slot.line is not None}
        poll = select.poll()
        for fd, slot in by_fd.items():
            poll.register(fd, select.POLLIN | (select.POLLOUT if slot.outbox else 0))
        for fd, events in poll.poll(max(wait_s, 0.0) * 1_000):
            slot = by_fd[fd]
            if events & select.POLLOUT:
                self._write(slot)
            if slot.line is not None and events & ~select.POLLOUT:
                self._read(slot)

    def _write(self, slot: _Slot) -> None:
        if slot.line is None:
            return
        try:
            sent = slot.line.send(slot.outbox)
        except BlockingIOError:
            return
        except OSError:
            self._ended(slot, "crash")
            return
        del slot.outbox[:sent]
        if slot.batch is not None:
            # Its time runs from when it has all of it.
            slot.given_at = self._clock()
            slot.deadline = slot.given_at + slot.time_s

    def _read(self, slot: _Slot) -> None:
        if slot.line is None:
            return
        try:
            part = slot.line.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            part = b""
        if not part:
            self._ended(slot, "crash")
            return
        slot.inbox += part
        if slot.batch is not None:
            slot.deadline = max(slot.deadline, self._clock() + _ANSWER_WITHIN_S)
        while slot.line is not None and len(slot.inbox) >= LENGTH.size:
            end = LENGTH.size + LENGTH.unpack_from(slot.inbox)[0]
            if len(slot.inbox) < end:
                return
            body = bytes(slot.inbox[LENGTH.size : end])
            del slot.inbox[:end]
            try:
                said = decode_said(body)
            except msgspec.MsgspecError:
                # Half a message of a process that is coming apart.
                self._ended(slot, "crash")
                return
            self._heard(slot, said)

    def _heard(self, slot: _Slot, said: Said) -> None:
        if isinstance(said, Ready) and said.resident_mb > self._settings.guard_memory_mb:
            # It would be replaced after every batch.
            needs = f"{said.resident_mb:,.0f} MB once loaded: raise TIDEGATE_GUARD_MEMORY_MB above that"
            self._cannot_load(slot, f"a scoring process has {needs}")
            return
        if isinstance(said, Ready):
            slot.ready, slot.pause_s, slot.resident_mb = True, _FIRST_PAUSE_S, said.resident_mb
            if said.troubles != self.troubles:
                for problem in said.troubles:
                    log.warning("guardrail_model_unavailable", problem=problem, instead="the offline default scores")
            self.detectors, self.trouble, self.troubles = said.detectors, None, said.troubles
            return
        if isinstance(said, Refused):
            self._cannot_load(slot, said.reason)
            return
        account = self.account
        account.batches += 1
        account.judged += len(said.judged)
        account.cached += sum(judged.cached for judged in said.judged)
        account.cpu_s += said.cpu_s
        for name, took_s in said.seconds.items():
            account.seconds[name] = account.seconds.get(name, 0.0) + took_s
        self._answers += said.judged
        slot.batch, slot.resident_mb = None, said.resident_mb
        if said.resident_mb > self._settings.guard_memory_mb:
            self._ended(slot, "memory")

    def _cannot_load(self, slot: _Slot, reason: str) -> None:
        self._let_go(slot)
        if reason != self.trouble:
            log.warning("guardrails_cannot_load", reason=reason, retry_in_s=slot.pause_s)
        self.trouble = reason
        slot.start_at = self._clock() + slot.pause_s
        slot.pause_s = min(slot.pause_s * 2, _LONGEST_PAUSE_S)

    def _ended(self, slot: _Slot, why: str) -> None:
        """A process is gone, or must go. What it had is judged again, in parts, until what breaks it stands alone."""
        was_ready, batch = slot.ready, slot.batch
        self._let_go(slot)
        self.account.restarts[why] = self.account.restarts.get(why, 0) + 1
        if not was_ready:
            self._cannot_load(slot, f"a scoring process ended while it was loading ({why})")
            return
        log.warning("scoring_process_replaced", why=why, jobs=len(batch.jobs) if batch else 0)
        if batch is None:
            return
        # It has told nobody what it took; all the time that it had at most.
        self.account.cpu_s += min(max(self._clock() - slot.given_at, 0.0), slot.time_s)
        jobs = batch.jobs
        if len(jobs) > 1:
            middle = len(jobs) // 2
            self._suspects.extendleft((_Batch(jobs[middle:]), _Batch(jobs[:middle])))
        elif not batch.tries:
            self._suspects.appendleft(_Batch(jobs, tries=1))
        else:
            self.account.quarantined += 1
            self._answers.append(Judged(number=jobs[0].number, outcome="quarantined", failed={"worker": why}))

    def _let_go(self, slot: _Slot) -> None:
        if slot.line is not None:
            slot.line.close()
        if slot.process is not None:
            with contextlib.suppress(ProcessLookupError):
                slot.process.kill()
            slot.process.wait()
        slot.process = slot.line = slot.batch = None
        slot.ready, slot.resident_mb = False, 0.0
        slot.outbox, slot.inbox = bytearray(), bytearray()
