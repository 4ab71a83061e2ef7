"""A service's own metrics, for the page that it shows Prometheus anyway. Needs prometheus-client, which the helper does not.

    from prometheus_client import REGISTRY
    from tidegate.producers.metrics import ServiceMetrics

    REGISTRY.register(ServiceMetrics(tide))

A gate knows best that it is stale: it is the one that hears nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from ..schemas import metrics as defined
from ..schemas.metrics import Definition
from .emitter import Emitter


class ServiceMetrics(Collector):
    """What an emitter, and the gate of it that was asked anything, have done in this process."""

    def __init__(self, emitter: Emitter) -> None:
        self._emitter = emitter

    def describe(self) -> Iterable[Metric]:
        # Registering asks nothing of the emitter, and opens no gate.
        return ()

    def collect(self) -> Iterator[Metric]:
        """Called by the registry on every scrape."""
        stats = self._emitter.stats()
        outcomes = {"emitted": stats.emitted, "appended": stats.appended, "spooled": stats.spooled, "invalid": stats.invalid}
        yield _counter(defined.EMITTER_EVENTS, outcomes)
        yield _counter(defined.EMITTER_DROPPED, stats.dropped)
        yield _gauge(defined.EMITTER_PENDING, stats.pending)
        if (gate := self._emitter.gate_stats()) is not None:
            yield _counter(defined.GATE_REFUSED, {policy or "unheard": count for policy, count in gate["refused"].items()})
            yield _gauge(defined.GATE_SILENT, gate["silent_s"])


def _counter(definition: Definition, counts: dict[str, int]) -> Metric:
    family = CounterMetricFamily(definition.name, definition.meaning, labels=definition.labels)
    for value, count in counts.items():
        family.add_metric([value], count)
    return family


def _gauge(definition: Definition, value: float) -> Metric:
    return GaugeMetricFamily(definition.name, definition.meaning, value=value)
