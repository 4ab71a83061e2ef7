"""What both engines run: the partitions' steps, the pool, the budget and the rules of sampling, put together.

    engine ─ take(record) ─► Partition ─ jobs ─► Pool ─► Partition ─ finished() ─► engine: outputs, and an offset behind them

An engine reads and commits; everything else is here. Used from one thread.
"""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Final

from ...producers.key_source import KeySource
from ...schemas.errors import UsageError
from ...schemas.residency_file import residency_of
from ...schemas.settings import Settings
from ...schemas.signal import Alert
from ..meter import SourceRecord
from .alerting import Alerting
from .budget import Budget
from .outputs import Outputs
from .pool import LOADER, Pool
from .sampling import Sampling
from .step import ALERT_BEHIND_S, Partition, Recall

# What is read and not put out yet: enough that no process waits for us, little enough that what is urgent overtakes.
_BATCHES_AHEAD: Final = 3
_MOST_BYTES: Final = 32 << 20
# What waits behind one that is not judged yet: each record and line is a kilobyte or two more than its bytes.
_MOST_RECORDS: Final = 10_000
# A few of what the extra brings; a process that misses another one says so itself.
_PACKAGES: Final = ("numpy", "presidio_analyzer", "safetensors", "spacy", "wordllama")


@dataclass(slots=True)
class Tally:
    """What this process has scored since it started, and what waits; for status and metrics."""

    outcomes: Counter[str] = field(default_factory=Counter)
    findings: Counter[tuple[str, str]] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    restarts: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    texts: int = 0
    lost_records: int = 0
    transcripts: int = 0
    quarantined: int = 0
    cpu_s: float = 0.0
    processes: int = 0
    resident_mb: float = 0.0
    queued: int = 0
    oldest_age_s: float = 0.0
    held_back: bool = False
    trouble: str | None = None
    troubles: list[str] = field(default_factory=list)
    detectors: dict[str, str] = field(default_factory=dict)


class Runtime:
    """`clock` is monotonic seconds. Raises `UsageError` where the ring cannot be read; asking again is fine."""

    def __init__(
        self,
        settings: Settings,
        keys: KeySource,
        *,
        sampling: Sampling | None = None,
        loader: str = LOADER,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.settings = settings
        self.sampling = sampling or Sampling()
        self.sampling.share = settings.guard_sample
        self.sampling.always = settings.guard_always
        self.sampling.new_for_ms = int(settings.guard_new_h * 3_600_000)
        self.partitions: dict[int, Partition] = {}
        self.alerting = Alerting()
        self.tally = Tally()
        self._residency = residency_of(settings)
        self._keys = keys
        self._loader = loader
        self._clock = clock
        self._numbers = itertools.count()
        self.pool = Pool(settings, loader=loader, clock=clock)
        self._budget = Budget(settings.guard_cpu_share, clock())
        self._paid_s = 0.0
        self._most = settings.guard_workers * settings.guard_batch * _BATCHES_AHEAD

    def assign(
        self,
        number: int,
        next_offset: int,
        recall: Recall = lambda _producer: None,
    ) -> None:
        """Begin with a partition, or begin anew; what was under way of it is forgotten."""
        self.partitions[number] = Partition(
            number,
            self.settings.guard_detectors,
            self.settings.redaction,
            self.sampling,
            self.alerting,
            self._numbers.__next__,
            next_offset=next_offset,
            recall=recall,
            residency=self._residency,
        )

    def revoke(self, number: int) -> None:
        """Forget a partition; judgements of its texts that still come are dropped."""
        if self.partitions.pop(number, None) is not None and not self.partitions:
            self.pool.clear()

    @property
    def has_room(self) -> bool:
        """Whether more should be read for now. What needs no verdict takes up nobody's time, only memory."""
        partitions = self.partitions.values()
        return (
            sum(one.waiting for one in partitions) < self._most
            and sum(one.records for one in partitions) < _MOST_RECORDS
            and sum(one.size_bytes for one in partitions) < _MOST_BYTES
        )

    @property
    def fed(self) -> bool:
        """Whether the processes have enough to do for now."""
        return self.pool.waiting + self.pool.under_way >= self._most

    @property
    def busy(self) -> bool:
        """Whether anything is under way."""
        return any(one.records for one in self.partitions.values())

    def take(self, number: int, record: SourceRecord, now: float) -> None:
        """Take a partition's next record. `now` is seconds since 1970."""
        partition = self.partitions[number]
        ring = self._keys.ring()
        self.pool.fingerprint_key = ring.fingerprint_key
        gap = record.offset - partition.next_offset
        for job, choice in partition.take(record, self._keys.opening, ring.fingerprint_key, now):
            self.pool.submit([job], choice.value)
        self.tally.lost_records += max(gap, 0)

    def work(self, wait_s: float) -> None:
        """Let the processes work, and hear what they say; waits that long for the first word at most. What is only passed on
        waits for nobody."""
        pool, budget = self.pool, self._budget
        pool.paused = not budget.allows(self._clock())
        for judged in pool.collect(wait_s if pool.waiting or pool.under_way else 0.0):
            for partition in self.partitions.values():
                if partition.heard(judged):
                    break
        budget.spent(pool.account.cpu_s - self._paid_s)
        self._paid_s = pool.account.cpu_s

    def finished(self, now: float) -> Iterator[tuple[int, Outputs]]:
        """What is to be put out next of each partition. The caller puts it out, or assigns the partition anew."""
        for number, partition in list(self.partitions.items()):
            if (outputs := partition.finished(now)) is not None:
                yield number, outputs

    def put_out(self, outputs: Outputs) -> None:
        """These outputs are durable: they count."""
        tally = self.tally
        tally.outcomes += outputs.outcomes
        tally.findings += outputs.findings
        tally.failed += outputs.failed
        tally.texts += outputs.texts
        tally.transcripts += sum(int(headers["count"]) for headers, _ in outputs.transcripts)
        tally.quarantined += len(outputs.quarantine)

    def look(self, now: float, oldest_unread_ms: int | None = None, trouble: str | None = None) -> Tally:
        """The tally as it is now. `trouble` is the engine's own, if there is any."""
        tally, pool = self.tally, self.pool
        oldest = [ms for one in self.partitions.values() if (ms := one.oldest_ms) is not None]
        oldest += [oldest_unread_ms] if oldest_unread_ms is not None else []
        tally.oldest_age_s = max(now - min(oldest) / 1_000, 0.0) if oldest else 0.0
        tally.restarts, tally.seconds = dict(pool.account.restarts), dict(pool.account.seconds)
        tally.cpu_s, tally.queued = pool.account.cpu_s, pool.waiting + pool.under_way
        tally.processes, tally.resident_mb = pool.ready, pool.resident_mb
        tally.trouble, tally.troubles, tally.detectors = trouble or pool.trouble, list(pool.troubles), dict(pool.detectors)
        tally.held_back = pool.paused
        return tally

    def behind(self, now: float) -> list[Alert]:
        """What to tell of texts that wait, as of the last `look`; also when nothing gets done at all."""
        age_s, trouble = self.tally.oldest_age_s, self.tally.trouble
        if age_s < ALERT_BEHIND_S:
            return []
        why = f" ({trouble})" if trouble else ""
        title = f"scoring is {age_s / 60:.0f} minutes behind{why}: what goes out is not watched meanwhile"
        return self.alerting.tell("behind", "guardrails_behind", title, now)

    def close(self) -> None:
        """End the processes."""
        self.pool.close()


def require_extra() -> None:
    """Raises `UsageError` where what scores is not installed."""
    for package in _PACKAGES:
        if find_spec(package) is None:
            raise UsageError(f"scoring texts needs {package}: pip install 'tidegate[guardrails]'")
