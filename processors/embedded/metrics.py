"""What the node tells Prometheus. Totals come from the durable account, so they survive restarts and never double."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from prometheus_client import CollectorRegistry, Metric

from ...schemas import metrics as defined
from .. import exposition
from ..call_account import CallAccount
from ..call_metrics import call_metrics
from ..guardrails.telling import metrics as guardrails_metrics
from ..notifier_metrics import notifier_metrics

_OUTCOMES: Final = ("responses", "requests", "rejected", "dead_letters", "duplicates", "lost", "dropped", "bad_envelopes")
_GAUGES: Final = {
    "meter_lag_records": defined.METER_LAG,
    "policies_lag_records": defined.POLICIES_LAG,
    "guardrails_lag_records": defined.GUARDRAILS_LAG,
    "sink_lag_records": defined.SINK_LAG,
    "backlog_bytes": defined.BACKLOG_BYTES,
    "store_away": defined.STORE_AWAY,
    "log_away": defined.LOG_AWAY,
    "gates": defined.GATES,
    "policies_beat_at": defined.POLICIES_BEAT,
}


class Metrics:
    """A registry of one node; nothing global. `accounts`: what is counted of calls, by source partition."""

    def __init__(self, status: Callable[[], dict[str, Any]], accounts: Callable[[], Mapping[int, CallAccount]] = dict) -> None:
        self._status = status
        self._accounts = accounts
        self._registry = CollectorRegistry()
        self._registry.register(self)
        self._events = exposition.counter(defined.HTTP_EVENTS, self._registry)
        self._bytes = exposition.counter(defined.HTTP_BYTES, self._registry)
        self._refused = exposition.counter(defined.HTTP_REFUSED, self._registry)

    def refused(self, status: int) -> None:
        self._refused.labels(str(status)).inc()

    def ingested(self, accepted: int, rejected: int, size: int) -> None:
        self._events.labels("accepted").inc(accepted)
        self._events.labels("rejected").inc(rejected)
        self._bytes.inc(size)

    def collect(self) -> Iterator[Metric]:
        """Called by the registry on every scrape."""
        status = self._status()
        totals = status["totals"]
        yield exposition.metrics(defined.EVENTS, (((outcome,), totals.get(outcome, 0)) for outcome in _OUTCOMES))
        for key, definition in _GAUGES.items():
            # What a backend does not know it does not tell.
            if (value := status.get(key)) is not None:
                yield exposition.metric(definition, value)
        if (refused := status.get("residency")) is not None:
            yield exposition.metrics(
                defined.RESIDENCY_REFUSALS, (((one["tenant"], one["from"], one["to"]), one["refused"]) for one in refused)
            )
        if quarantine := status.get("quarantine"):
            yield exposition.metric(defined.QUARANTINE_BYTES, quarantine["bytes"])
            yield exposition.metric(defined.QUARANTINE_PUSHED_OUT, quarantine["pushed_out"])
        if (stopped := status.get("meters_stopped")) is not None:
            yield exposition.metric(defined.METER_STOPPED, len(stopped))
        if letters := status.get("dead_letters"):
            yield exposition.metric(defined.DEAD_LETTERS_BYTES, letters["bytes"])
        if notifier := status.get("notifier"):
            yield from notifier_metrics(notifier)
        if guardrails := status.get("guardrails"):
            yield from guardrails_metrics(guardrails)
        if accounts := self._accounts():
            yield from call_metrics(accounts)

    def render(self, accept: str | None = None) -> tuple[bytes, str]:
        """The page, and its content type."""
        return exposition.page(self._registry, accept)
