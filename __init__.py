"""Tidegate: what every LLM call costs, how it does, and a gate for whoever overspends.

What a service writes:

    import tidegate

    tide = tidegate.connect()  # TIDEGATE_URL: an http node or a data folder
    with tide.call(model="claude-sonnet-4-5", tenant="harbor-health", prompt="triage@2.1") as call:
        call.answer(client.messages.create(model=call.model, ...))

Importing this loads the producer helper alone; node, store and command line are apart.
"""

# Absolute on purpose: the repository's root is this package, and a relative import would work from inside it only.
from typing import TYPE_CHECKING, Any

from tidegate.producers.call_scope import CallScope
from tidegate.producers.connect import connect
from tidegate.producers.emitter import Emitter
from tidegate.producers.stats import EmitterStats
from tidegate.schemas.call import RequestEvent, ResponseEvent
from tidegate.schemas.errors import (
    Backpressure,
    EnvelopeRefused,
    GateClosed,
    InvalidEvent,
    LogUnavailable,
    StoreUnavailable,
    TidegateError,
    UsageError,
)

if TYPE_CHECKING:
    from tidegate.producers.decision import Estimate
    from tidegate.producers.fallback import Candidate, Fallback
    from tidegate.producers.gate import Gate
    from tidegate.producers.router import Router

__version__ = "0.1.0"

__all__ = [
    "Backpressure",
    "CallScope",
    "Candidate",
    "Emitter",
    "EmitterStats",
    "EnvelopeRefused",
    "Estimate",
    "Fallback",
    "Gate",
    "GateClosed",
    "InvalidEvent",
    "LogUnavailable",
    "RequestEvent",
    "ResponseEvent",
    "Router",
    "StoreUnavailable",
    "TidegateError",
    "UsageError",
    "__version__",
    "connect",
]

# Loaded when first named: who only emits does not need them in memory.
_LATER = {"Candidate": "fallback", "Estimate": "decision", "Fallback": "fallback", "Gate": "gate", "Router": "router"}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    found = globals()[name] = getattr(importlib.import_module(f"tidegate.producers.{_LATER[name]}"), name)
    return found
