"""What the guardrails tell of themselves: the same for status and for Prometheus, on both engines. No text, no call."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from prometheus_client import Metric

from ...schemas import metrics as defined
from .. import exposition
from .runtime import Tally


def told(tally: Tally) -> dict[str, Any]:
    """A tally as JSON takes it. Counts are of this process."""
    return {
        "processes": tally.processes,
        "resident_mb": round(tally.resident_mb, 1),
        "queued": tally.queued,
        "oldest_age_s": round(tally.oldest_age_s, 3),
        "held_back": tally.held_back,
        "trouble": tally.trouble,
        "outcomes": dict(tally.outcomes),
        "findings": {f"{detector}/{kind}": count for (detector, kind), count in list(tally.findings.items())},
        "failed": dict(tally.failed),
        "restarts": dict(tally.restarts),
        "seconds": {name: round(took_s, 3) for name, took_s in tally.seconds.items()},
        "cpu_s": round(tally.cpu_s, 3),
        "texts": tally.texts,
        "transcripts": tally.transcripts,
        "quarantined": tally.quarantined,
        "lost_records": tally.lost_records,
        "detectors": dict(tally.detectors),
        "stand_ins": list(tally.troubles),
    }


def metrics(said: Mapping[str, Any]) -> Iterator[Metric]:
    """What `told` says, as metrics."""
    for key, definition in _PLAIN.items():
        yield exposition.metric(definition, float(said[key]))
    for key, definition in _LABELLED.items():
        # From 0 on, or nobody would see the first that fails.
        counts = dict.fromkeys(said["detectors"] if key == "failed" else (), 0) | said[key]
        yield exposition.metrics(definition, (((value,), count) for value, count in counts.items()))
    yield exposition.metrics(
        defined.GUARD_FINDINGS, ((tuple(both.split("/", 1)), count) for both, count in said["findings"].items())
    )


_PLAIN: Final = {
    "processes": defined.GUARD_PROCESSES,
    "resident_mb": defined.GUARD_RESIDENT,
    "queued": defined.GUARD_QUEUED,
    "oldest_age_s": defined.GUARD_OLDEST,
    "held_back": defined.GUARD_HELD_BACK,
    "texts": defined.GUARD_TEXTS,
    "cpu_s": defined.GUARD_CPU,
    "transcripts": defined.GUARD_TRANSCRIPTS,
    "quarantined": defined.GUARD_QUARANTINED,
    "lost_records": defined.GUARD_LOST,
}
_LABELLED: Final = {
    "outcomes": defined.GUARD_CALLS,
    "failed": defined.GUARD_FAILED,
    "restarts": defined.GUARD_RESTARTS,
    "seconds": defined.GUARD_SECONDS,
}
