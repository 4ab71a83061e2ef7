"""The one metric of residency, as nodes and workers show it."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client.core import CounterMetricFamily


def residency_metric(refused: Iterable[tuple[str, str, str, int]]) -> CounterMetricFamily:
    """(tenant, from, to, count) since this process began. Labels are words of the residency map, or `other`."""
    family = CounterMetricFamily(
        "tidegate_residency_refusals",
        "Writes refused because they may not rest in this region",
        labels=["tenant", "from", "to"],
    )
    for tenant, origin, refused_in, count in refused:
        family.add_metric([tenant, origin, refused_in], count)
    return family
