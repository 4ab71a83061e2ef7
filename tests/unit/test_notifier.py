"""The notifier's step: what it keeps, and what it costs when nothing happens."""

from __future__ import annotations

from typing import Any

import pytest
from tidegate.processors import incidents, notifier
from tidegate.processors.notifier import Notifier
from tidegate.processors.on_call_file import OnCall
from tidegate.schemas.signal import Alert

T = 1_800_000_000.0
ON_CALL = OnCall.model_validate({"destinations": {"a": {"url": "json://nowhere"}}, "routes": [{"to": ["a"]}]})


def blocked(tenant: str, at: float = T) -> Alert:
    return Alert(
        key=f"policy|day|tenant={tenant}",
        kind="policy",
        severity="critical",
        title=f"tenant={tenant} ok → block: day: $12.0000 in the last 24 h",
        at=at,
        policy="day",
        scope={"tenant": tenant},
        state="block",
    )


class Kept:
    """A notifier and its memory."""

    def __init__(self) -> None:
        self.memory: dict[bytes, bytes] = {}
        self.notifier = Notifier([], ON_CALL)

    def keep(self) -> int:
        changes = self.notifier.changes()
        self.memory |= dict(changes)
        self.notifier.written(changes)
        return len(changes)

    def read_back(self) -> Notifier:
        return Notifier({key: value for key, value in self.memory.items() if value}.items(), ON_CALL)


def test_ten_thousand_open_incidents_cost_nothing_while_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Kept()
    kept.notifier.hear([blocked(f"t{number}") for number in range(10_000)], T)
    kept.notifier.hear([], T + 10)
    kept.keep()
    kept.keep()
    encoded, looked_at = count(monkeypatch, notifier, "_encode"), count(monkeypatch, incidents, "_occasion")

    for look in range(100):
        kept.notifier.hear([], T + 10 + look / 5)
        kept.keep()
    at_rest = (len(encoded), len(looked_at))
    kept.notifier.hear([blocked("t7", T + 40)], T + 40)
    written = kept.keep()

    assert at_rest == (0, 0)
    assert written == 1
    assert len(encoded) <= 2
    assert kept.read_back().incidents == kept.notifier.incidents


def count(monkeypatch: pytest.MonkeyPatch, module: Any, name: str) -> list[None]:
    """One for each call of this function from now on."""
    calls: list[None] = []
    function = getattr(module, name)

    def counted(*arguments: Any) -> Any:
        calls.append(None)
        return function(*arguments)

    monkeypatch.setattr(module, name, counted)
    return calls


def test_another_patience_counts_at_once() -> None:
    kept = Kept()
    kept.notifier.hear([blocked("a")], T)
    kept.notifier.hear([], T + 10)

    kept.notifier.on_call = OnCall.model_validate({**ON_CALL.model_dump(by_alias=True), "timing": {"renotify_critical": "1m"}})
    told = kept.notifier.hear([], T + 71)

    assert [one.occasion for one in told] == ["renotified"]


def test_only_refusals_one_after_the_other_use_up_the_patience_for_them() -> None:
    """A receiver is away for longer than an address may refuse, then refuses, is away once more, and refuses for good."""
    kept = Kept()
    kept.notifier.hear([blocked("a")], T)
    kept.notifier.hear([], T + 10)
    answers = [(0, None), (4_000, None), (4_100, 3_600.0), (7_600, 3_600.0), (7_650, None), (7_700, 3_600.0), (11_299, 3_600.0)]

    goes_on = []
    for after, patience_s in answers:
        kept.keep()
        [delivery] = kept.read_back().deliveries.values()
        goes_on.append(kept.notifier.delivered(delivery, T + 10 + after, "it answered", patience_s))
    [delivery] = kept.notifier.deliveries.values()
    ends = kept.notifier.delivered(delivery, T + 10 + 11_300, "it answered", 3_600.0)

    assert goes_on == [True] * 7
    assert (ends, kept.notifier.deliveries) == (False, {})
