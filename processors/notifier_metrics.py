"""The metrics of a notifier, as nodes and workers show them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from prometheus_client import Metric

from ..schemas import metrics as defined
from . import exposition
from .sending import OUTCOMES

_PHASES: Final = ("pending", "firing", "acknowledged")


def notifier_metrics(said: Mapping[str, Any]) -> Iterator[Metric]:
    """What `status` of a notifier says; counts are of this process."""
    yield exposition.metrics(defined.INCIDENTS, (((phase,), said["incidents"].get(phase, 0)) for phase in _PHASES))
    yield exposition.metric(defined.NOTIFICATIONS_WAITING, said["waiting"])
    yield exposition.metric(defined.ON_CALL_FILE_REFUSED, int(said["problem"] is not None))
    yield exposition.metrics(defined.NOTIFICATIONS, (((outcome,), said[outcome]) for outcome in OUTCOMES))
