"""A data folder behind the doors: its SQLite log, its pipeline and its store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ...producers.local_log import LocalLog
from ...producers.signals import START, SignalRecord
from ...producers.sqlite_log import SqliteLog
from ...schemas.policy import SEVERITY
from ...schemas.settings import Settings
from ...schemas.topics import GATES, SIGNALS
from ...schemas.usage import COUNTERS
from ...sinks.clickhouse import Store
from ..call_account import CallAccount
from ..folder_mark import keep_to_own_log
from ..letters import Keeper
from .incident_desk import FolderDesk
from .notifier import at_rest
from .pipeline import Pipeline


class FolderBackend:
    """`Backend` on a data folder. The caller holds the folder's lock. Raises `UsageError` when it is a Kafka node's."""

    def __init__(self, data_dir: Path, settings: Settings) -> None:
        keep_to_own_log(data_dir)
        self._settings = settings
        self.pipeline = Pipeline(data_dir, settings)
        self.log = LocalLog(data_dir, fsync=settings.fsync)
        self.content_log = LocalLog(data_dir, fsync=settings.fsync)
        self.feed = FolderFeed(data_dir)
        self.keeper = Keeper.of(settings, data_dir)
        self._data_dir = data_dir

    @property
    def store(self) -> Store:
        return self.pipeline.store

    def desk(self) -> FolderDesk:
        return FolderDesk(self._data_dir)

    @property
    def behind(self) -> bool:
        return self.pipeline.backlog_bytes > self._settings.max_backlog_bytes

    @property
    def content_behind(self) -> bool:
        return self.pipeline.content_backlog_bytes > self._settings.max_backlog_bytes

    @property
    def unready(self) -> str | None:
        # Without its store a node takes events and shuts gates as ever; only rows come later.
        if not self.pipeline.healthy:
            return "pipeline ended"
        return "behind" if self.behind else None

    @property
    def failure(self) -> BaseException | None:
        return self.pipeline.failure

    def status(self) -> dict[str, Any]:
        return status_of(self.pipeline)

    def accounts(self) -> Mapping[int, CallAccount]:
        return self.pipeline.meter.accounts()

    def start(self) -> None:
        self.pipeline.start()

    def close(self) -> None:
        self.feed.close()
        self.log.close()
        self.content_log.close()
        self.pipeline.close()


class FolderFeed:
    """`Feed` from the folder's log."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._log = SqliteLog(data_dir)
        self._writer: SqliteLog | None = None

    def news(self, after: int) -> tuple[Sequence[SignalRecord], int]:
        end = self._log.end_offset(SIGNALS.name, 0)
        if after >= end:
            after = START  # of another log: the folder was made anew, so everything is news
        records = self._log.read(SIGNALS.name, 0, after + 1) if end > after + 1 else []
        return [(record.key or b"", record.value) for record in records], records[-1].offset if records else after

    def word(self, key: bytes) -> bytes | None:
        return next((record.value for record in self._log.keyed(SIGNALS.name, 0, key) if record.key == key), None)

    def announce(self, gate_id: str) -> None:
        if self._writer is None:
            # Announcements may be lost in a power cut: the next one comes in a second.
            self._writer = SqliteLog(self._data_dir, fsync="normal")
        with self._writer.transaction():
            self._writer.append(GATES.name, 0, [(gate_id.encode(), {}, b"{}")])

    def close(self) -> None:
        self._log.close()
        if self._writer is not None:
            self._writer.close()


def status_of(pipeline: Pipeline) -> dict[str, Any]:
    """A pipeline's account, lags and newest day."""
    meter_lag, guardrails_lag, sink_lag = pipeline.lags()
    return {
        "totals": pipeline.meter.totals(),
        "meter_lag_records": meter_lag,
        "guardrails_lag_records": guardrails_lag,
        "sink_lag_records": sink_lag,
        "backlog_bytes": pipeline.backlog_bytes,
        "meters_stopped": pipeline.meter.stopped(),
        "residency": pipeline.meter.refusals.status(),
        "store_away": pipeline.store_away,
        "healthy": pipeline.healthy,
        **({"policies_beat_at": beat.at, "gates": beat.gates} if (beat := pipeline.policies.beat()) is not None else {}),
        "guardrails": pipeline.guardrails.status(),
        "notifier": pipeline.notifier.status() if pipeline.notifier is not None else at_rest(pipeline.meter.log),
        **pipeline.trimming.status(),
        "price_book": pipeline.meter.book.version,
        "policies": standing(pipeline),
        "today": today(pipeline),
    }


def standing(pipeline: Pipeline) -> dict[str, Any]:
    """The policies in force, and the scopes that are not fine, harshest first; read beside the policies at work."""
    state = pipeline.policies.state
    found = [
        (rule.policy, values, word.state)
        for watched in list(state.watched.values())
        for values, scope in list(watched.scopes.items())
        for rule, word in zip(watched.rules, scope.words, strict=False)
        if word.state != "ok"
    ]
    found.sort(key=lambda entry: (-SEVERITY[entry[2]], entry[0].name, str(entry[1])))
    return {
        "version": state.version,
        "in_force": len(state.rules),
        "not_fine": len(found),
        "worst": [
            {"policy": policy.name, "scope": dict(zip(policy.scope, values, strict=True)), "state": what}
            for policy, values, what in found[:8]
        ],
    }


def today(pipeline: Pipeline) -> dict[str, Any]:
    """Usage of the newest UTC day that has any, in all and by model; `day` is None before the first call.

    Read beside the meter at work: a call may be in one number and not yet in the next.
    """
    watermark_s = max(state.usage.watermark_s for state in pipeline.meter.states.values())
    start = watermark_s - watermark_s % 86_400
    # One scope set only: what another one says of the same calls is not to be added to it.
    sets = pipeline.settings.scope_sets
    fields = min([fields for fields in sets if "model" in fields] or sets, key=len, default=())
    sums: dict[str, list[int]] = {}
    for state in pipeline.meter.states.values():
        for key, usage in list(state.usage.live.items()):
            if key.bucket == "day" and key.start == start and key.fields == fields:
                model = (key.values[fields.index("model")] if "model" in fields else None) or "any model"
                known = sums.get(model)
                sums[model] = [a + b for a, b in zip(known, usage.counts, strict=True)] if known else list(usage.counts)
    models: list[dict[str, Any]] = [
        {"model": model, **dict(zip(COUNTERS, counts, strict=True))} for model, counts in sums.items()
    ]
    for row in models:
        row["tokens"] = int(row["input_tokens"]) + int(row["output_tokens"])
    models.sort(key=lambda row: (-int(row["cost_nano_usd"]), -int(row["requests"]), row["model"]))
    names = ("requests", "errors", "cost_nano_usd", "input_tokens", "output_tokens", "unpriced", "scored", "findings")
    return {
        "day": datetime.fromtimestamp(start, UTC).date().isoformat() if watermark_s else None,
        **{name: sum(int(row[name]) for row in models) for name in names},
        "models": models,
    }
