"""What the guardrails tell of themselves: the same for status and for Prometheus, on both engines. No text, no call."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

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
    for key, (name, text) in _GAUGES.items():
        yield GaugeMetricFamily(f"tidegate_guardrails_{name}", text, value=float(said[key]))
    for key, (name, text) in _COUNTERS.items():
        yield CounterMetricFamily(f"tidegate_guardrails_{name}", text, value=said[key])
    for key, (name, label, text) in _LABELLED.items():
        family = CounterMetricFamily(f"tidegate_guardrails_{name}", text, labels=[label])
        # From 0 on, or nobody would see the first that fails.
        for value, count in (dict.fromkeys(said["detectors"] if key == "failed" else (), 0) | said[key]).items():
            family.add_metric([value], count)
        yield family
    found = CounterMetricFamily("tidegate_guardrails_findings", "Findings, by detector and type", labels=["detector", "type"])
    for both, count in said["findings"].items():
        found.add_metric(both.split("/", 1), count)
    yield found


_GAUGES: Final = {
    "processes": ("processes", "Scoring processes that are loaded"),
    "resident_mb": ("resident_megabytes", "The largest scoring process"),
    "queued": ("queued", "Calls that wait for a verdict, in memory"),
    "oldest_age_s": ("oldest_age_seconds", "Age of the oldest content without a verdict"),
    "held_back": ("held_back", "1 while the budget of processor time holds scoring back"),
}
_COUNTERS: Final = {
    "texts": ("texts", "Texts judged: a prompt, an answer, a chunk each"),
    "cpu_s": ("cpu_seconds", "Processor time that scoring has taken"),
    "transcripts": ("transcripts", "Redacted transcripts put out"),
    "quarantined": ("quarantined", "Sealed records put into quarantine"),
    "lost_records": ("lost_records", "Content that retention ate before it was judged"),
}
_LABELLED: Final = {
    "outcomes": ("calls", "outcome", "Content lines by what became of them"),
    "failed": ("failed", "detector", "Verdicts that a detector could not give"),
    "restarts": ("restarts", "why", "Scoring processes replaced"),
    "seconds": ("scoring_seconds", "detector", "Time that each detector took"),
}
