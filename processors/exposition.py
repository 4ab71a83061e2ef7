"""A page of metrics: families by their definitions, and the format that whoever asks prefers."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Histogram, Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import choose_encoder

from ..schemas.metrics import Definition


def metric(definition: Definition, value: float) -> Metric:
    """A counter or gauge without labels."""
    return metrics(definition, [((), value)])


def metrics(definition: Definition, values: Iterable[tuple[tuple[str, ...], float]]) -> Metric:
    """A counter or gauge, by the values of its labels."""
    kind = CounterMetricFamily if definition.kind == "counter" else GaugeMetricFamily
    family = kind(definition.name, definition.meaning, labels=definition.labels)
    for labels, value in values:
        family.add_metric(labels, value)
    return family


def counter(definition: Definition, registry: CollectorRegistry) -> Counter:
    """A counter of this process."""
    return Counter(definition.name, definition.meaning, definition.labels, registry=registry)


def histogram(definition: Definition, registry: CollectorRegistry, buckets: tuple[float, ...]) -> Histogram:
    """A histogram of this process."""
    return Histogram(definition.name, definition.meaning, definition.labels, buckets=buckets, registry=registry)


def page(registry: CollectorRegistry, accept: str | None) -> tuple[bytes, str]:
    """The page and its content type: OpenMetrics, which has exemplars, for whoever takes it, and else plain text."""
    encode, content_type = choose_encoder(accept or "")
    return encode(registry), content_type
