"""What the node tells Prometheus. Totals come from the durable account, so they survive restarts and never double."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

from prometheus_client import CollectorRegistry, Counter, Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from ..guardrails.telling import metrics as guardrails_metrics
from ..notifier_metrics import notifier_metrics
from ..residency_metric import residency_metric

_OUTCOMES: Final = ("responses", "requests", "rejected", "dead_letters", "duplicates", "lost", "dropped", "bad_envelopes")
_GAUGES: Final = (
    ("tidegate_meter_lag_records", "meter_lag_records", "Log records the meter has not applied"),
    ("tidegate_policies_lag_records", "policies_lag_records", "Log records the policies have not heard"),
    ("tidegate_guardrails_lag_records", "guardrails_lag_records", "Content records without a verdict"),
    ("tidegate_sink_lag_records", "sink_lag_records", "Log records not yet in the store"),
    ("tidegate_backlog_bytes", "backlog_bytes", "Bytes of log the meter has not applied"),
    ("tidegate_store_away", "store_away", "1 while the store cannot be reached"),
    ("tidegate_log_away", "log_away", "1 while Kafka cannot be reached; lags are then what they were"),
)


class Metrics:
    """A registry of one node; nothing global."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self, status: Callable[[], dict[str, Any]]) -> None:
        self._status = status
        self._registry = CollectorRegistry()
        self._registry.register(self)
        self._events = Counter("tidegate_http_events", "Events taken over HTTP", ["outcome"], registry=self._registry)
        self._bytes = Counter("tidegate_http_bytes", "Bytes of bodies taken over HTTP", registry=self._registry)

        self._refused = Counter("tidegate_http_refused", "Bodies refused as a whole", ["status"], registry=self._registry)

    def refused(self, status: int) -> None:
        self._refused.labels(str(status)).inc()

    def ingested(self, accepted: int, rejected: int, size: int) -> None:
        self._events.labels("accepted").inc(accepted)
        self._events.labels("rejected").inc(rejected)
        self._bytes.inc(size)

    def collect(self) -> Iterator[Metric]:
        """Called by the registry on every scrape."""
        status = self._status()
        events = CounterMetricFamily(
            "tidegate_events", "Events by what became of them, since the folder was made", labels=["outcome"]
        )
        for outcome in _OUTCOMES:
            events.add_metric([outcome], status["totals"].get(outcome, 0))
        yield events
        for name, key, text in _GAUGES:
            # What a backend does not know it does not tell.
            if (value := status.get(key)) is not None:
                yield GaugeMetricFamily(name, text, value=value)
        if (refused := status.get("residency")) is not None:
            yield residency_metric((one["tenant"], one["from"], one["to"], one["refused"]) for one in refused)
        if quarantine := status.get("quarantine"):
            yield GaugeMetricFamily("tidegate_quarantine_bytes", "Sealed texts in quarantine", value=quarantine["bytes"])
            yield CounterMetricFamily(
                "tidegate_quarantine_pushed_out_records",
                "Sealed texts that newer ones have pushed out of a full quarantine",
                value=quarantine["pushed_out"],
            )
        if (stopped := status.get("meters_stopped")) is not None:
            yield GaugeMetricFamily("tidegate_meter_stopped", "Partitions whose meter the brake holds", value=len(stopped))
        if letters := status.get("dead_letters"):
            yield GaugeMetricFamily("tidegate_dead_letters_bytes", "Refused lines that are kept sealed", value=letters["bytes"])
        if notifier := status.get("notifier"):
            yield from notifier_metrics(notifier)
        if guardrails := status.get("guardrails"):
            yield from guardrails_metrics(guardrails)

    def render(self) -> bytes:
        return generate_latest(self._registry)
