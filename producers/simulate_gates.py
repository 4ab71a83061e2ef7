"""Which simulated services ask their gate before a call, and what they do with its answer.

    event ─ a service that does not ask ────────────────────────► goes as it is
          └ one that asks ─ go ─────────────────────────────────► goes, settled with what it used
                          ├ go with another model ──────────────► goes with that one, as a downgrade
                          └ refused ────────────────────────────► kept back, and counted by policy

Half of the clinics have put their calls behind the gate, the others not yet: what a block saves, and what is spent in spite of
one, are both to be seen.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

from ..schemas.errors import GateClosed
from .decision import Estimate
from .reservation import Reservation

ASKING: Final = frozenset(
    {
        ("st-anne", "emergency"),
        ("harbor-health", "pharmacy"),
        ("harbor-health", "discharge"),
        ("lakeview-pediatrics", "nurse-line"),
        ("retail-care", "chat"),
        ("research-lab", "literature"),
    }
)
# What a gate knows a call by.
_SCOPE: Final = (
    *("tenant", "team", "user", "service", "environment", "region", "task_type", "provider_name"),
    *("prompt_name", "prompt_version"),
)


class Asked(Protocol):
    """What is needed of a gate."""

    def reserve(self, scope: Mapping[str, Any], estimate: Estimate | None = None) -> Reservation: ...

    def learn(self, model: str, used: Estimate) -> None: ...

    def answered(self, model: str, response_model: str | None, provider_name: str | None) -> None: ...


class Obedience:
    """Asks for those who ask. `become` gives a call the model that a policy names."""

    def __init__(self, gate: Asked, become: Callable[[dict[str, Any], str], dict[str, Any]]) -> None:
        self._gate = gate
        self._become = become
        self.kept_back: Counter[str] = Counter()

    def let(self, event: dict[str, Any]) -> tuple[dict[str, Any], Reservation | None] | None:
        """The event that goes, and what it holds of its policies; None for a call that is kept back."""
        if (event["tenant"], event["team"]) not in ASKING:
            return event, None
        # What a call may cost depends on its model: without it, a gate lets one at a time go.
        scope = {name: event.get(name) for name in _SCOPE} | {"model": event["request_model"]}
        try:
            held = self._gate.reserve(scope, Estimate(event.get("input_tokens")))
        except GateClosed as closed:
            self.kept_back[closed.policy or "no policy"] += 1
            return None
        if held.model not in (None, event["request_model"]):
            event = self._become(event, held.model or "")
        if "error_type" in event:
            # As it will be counted.
            held.settle(Estimate(0, 0, 0.0), rides=True)
            return event, held
        used = Estimate(event.get("input_tokens"), event.get("output_tokens"))
        self._gate.learn(event["request_model"], used)
        held.settle(used, rides=True)
        self._gate.answered(event["request_model"], event.get("response_model"), event.get("provider_name"))
        return event, held
