"""Alerts as rows for the store."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import orjson

from ..schemas.signal import Alert


def alert_record(alerts: Sequence[Alert]) -> tuple[None, dict[str, str], bytes]:
    """Alerts as one record of rows: (key, headers, value)."""
    rows = b"\n".join(orjson.dumps(_row(alert)) for alert in alerts)
    return None, {"schema": "rows/1", "count": str(len(alerts))}, rows


def _row(alert: Alert) -> dict[str, Any]:
    row: dict[str, Any] = {
        name: getattr(alert, name)
        for name in (
            "key", "kind", "severity", "title", "policy", "state", "previous_state", "spend", "limit", "owner", "runbook"
        )
    }  # fmt: skip
    row["scope"] = {name: value or "" for name, value in alert.scope.items()}
    row["contributors"] = {"=".join(map(str, next(iter(c.scope.items())))): c.spend for c in alert.contributors}
    for name in ("at", "resets_at", "exhausted_at"):
        at = getattr(alert, name)
        row[name] = None if at is None else datetime.fromtimestamp(at, UTC)
    return row
