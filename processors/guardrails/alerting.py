"""What the guardrails tell a person, and how often."""

from __future__ import annotations

from collections import Counter
from typing import Any, Final

from ...schemas.signal import Alert

# An incident that goes on is told again after this, with what it has come to.
ALERT_AGAIN_S: Final = 300.0


class Alerting:
    """Tells each kind of trouble at once, and again when it goes on; counts what happened in between. One for an engine."""

    def __init__(self, who: str = "guardrails") -> None:
        self._who = who
        self._told_at: dict[str, float] = {}
        self._untold: Counter[str] = Counter()

    def tell(self, name: str, kind: str, title: str, now: float, severity: Any = "warning") -> list[Alert]:
        """The alert, or nothing for now."""
        self._untold[name] += 1
        if now - self._told_at.get(name, float("-inf")) < ALERT_AGAIN_S:
            return []
        self._told_at[name] = now
        count, self._untold[name] = self._untold[name], 0
        more = f" ({count} times since the last word)" if count > 1 else ""
        return [Alert(key=f"{self._who}|{name}", kind=kind, severity=severity, title=f"{self._who}: {title}{more}", at=now)]
