"""What only Prometheus knows, for Grafana's pipeline dashboard: how far workers are behind, and how long their steps take.

The console has the same of its own node from the node itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

Level = Literal["green", "orange", "red"]


@dataclass(frozen=True, slots=True)
class Measure:
    """A panel of Prometheus's. `queries`: PromQL, and what its lines are called; `levels`: from where on a number is which."""

    title: str
    about: str
    queries: tuple[tuple[str, str], ...]
    unit: str = "short"
    shape: Literal["series", "stat"] = "series"
    width: int = 6
    levels: tuple[tuple[Level, float], ...] = ()
    words: tuple[tuple[str, str], ...] = ()


def _behind(role: str) -> tuple[tuple[str, str], ...]:
    return ((f'sum(tidegate_worker_lag_records{{role="{role}"}})', ""),)


MEASURES: Final = (
    Measure(
        "Events a second",
        "What the meters took, calls and announcements, before anything was refused.",
        (('sum(rate(tidegate_worker_events_total{outcome="events"}[1m]))', ""),),
        unit="ops",
        shape="stat",
        width=3,
    ),
    Measure(
        "Meters are behind by",
        "Records of calls not yet counted. Gates act on what was counted.",
        _behind("meter"),
        shape="stat",
        width=3,
        levels=(("orange", 1_000), ("red", 10_000)),
    ),
    Measure(
        "Policies are behind by",
        "Blocks of usage that no policy has judged yet.",
        _behind("policies"),
        shape="stat",
        width=2,
        levels=(("orange", 100), ("red", 1_000)),
    ),
    Measure(
        "Sinks are behind by",
        "Records on their way to the store.",
        _behind("sink"),
        shape="stat",
        width=2,
        levels=(("orange", 1_000), ("red", 10_000)),
    ),
    Measure(
        "Store",
        "Whether ClickHouse takes rows.",
        (("max(tidegate_store_away)", ""),),
        shape="stat",
        width=2,
        levels=(("red", 1),),
        words=(("0", "there"), ("1", "away")),
    ),
    Measure(
        "Events by what became of them",
        "Duplicates are retries that were recognised; lost and dropped never reached the log.",
        (
            (
                "sum by (outcome) (rate(tidegate_worker_events_total{outcome=~"
                '"responses|requests|scored|rejected|dead_letters|duplicates|lost|dropped|bad_envelopes"}[1m]))',
                "{{outcome}}",
            ),
        ),
        unit="ops",
    ),
    Measure(
        "Behind, by topic",
        "Records not passed yet.",
        (("sum by (role, topic) (tidegate_worker_lag_records)", "{{role}} {{topic}}"),),
    ),
    Measure(
        "Flush, until all is acknowledged",
        "How late policies hear of a call, at least.",
        tuple(
            (f"histogram_quantile({level}, sum by (le, role) (rate(tidegate_worker_flush_seconds_bucket[1m])))", name)
            for level, name in (("0.5", "{{role}} median"), ("0.99", "{{role}} 99 %"))
        ),
        unit="s",
    ),
    Measure("Workers", "How many of each answer.", (('sum by (job) (up{job=~"meter|policies|sink|node"})', "{{job}}"),)),
    Measure("Rows into the store", "What sinks wrote.", (("sum(rate(tidegate_sink_rows_total[1m]))", "rows"),), "ops", width=4),
    Measure(
        "One batch into the store",
        "From the cut until it is committed.",
        (("sum(rate(tidegate_sink_batch_seconds_sum[1m])) / sum(rate(tidegate_sink_batch_seconds_count[1m]))", "mean"),),
        unit="s",
        width=4,
    ),
    Measure(
        "Rows refused, records lost",
        "Refused rows are dead letters. Lost records were gone from Kafka before the sink came.",
        (
            ("sum(increase(tidegate_sink_refused_rows_total[5m]))", "refused"),
            ("sum(increase(tidegate_sink_lost_records_total[5m]))", "lost"),
        ),
        width=4,
    ),
    Measure(
        "Over HTTP: events",
        "What came to the nodes, by what became of it.",
        (("sum by (outcome) (rate(tidegate_http_events_total[1m]))", "{{outcome}}"),),
        unit="ops",
        width=4,
    ),
    Measure(
        "Over HTTP: bytes",
        "The bodies that brought them.",
        (("sum(rate(tidegate_http_bytes_total[1m]))", "bodies"),),
        unit="Bps",
        width=4,
    ),
    Measure(
        "Over HTTP: bodies refused",
        "503: behind, or the log takes nothing. 4xx: cannot be read.",
        (("sum by (status) (rate(tidegate_http_refused_total[1m]))", "{{status}}"),),
        unit="ops",
        width=4,
    ),
)
