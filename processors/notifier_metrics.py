"""The metrics of a notifier, as nodes and workers show them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from .sending import OUTCOMES

_PHASES: Final = ("pending", "firing", "acknowledged")


def notifier_metrics(said: Mapping[str, Any]) -> Iterator[Metric]:
    """What `status` of a notifier says; counts are of this process."""
    incidents = GaugeMetricFamily("tidegate_incidents", "Open incidents", labels=["phase"])
    for phase in _PHASES:
        incidents.add_metric([phase], said["incidents"].get(phase, 0))
    yield incidents
    yield GaugeMetricFamily(
        "tidegate_notifications_waiting", "Messages that no destination has taken yet", value=said["waiting"]
    )
    yield GaugeMetricFamily(
        "tidegate_on_call_file_refused",
        "Whether the on-call file as it is now is not taken, and the one before it is in force",
        value=int(said["problem"] is not None),
    )
    told = CounterMetricFamily("tidegate_notifications", "Messages to people by what became of them", labels=["outcome"])
    for outcome in OUTCOMES:
        told.add_metric([outcome], said[outcome])
    yield told
