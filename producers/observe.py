"""The half of the emitter that observes calls: makes a `CallScope` of what a service says, and events of what it leaves."""

from __future__ import annotations

import logging
import re
import secrets
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import orjson

from ..schemas.content import ContentMode, Where
from ..schemas.errors import InvalidEvent
from ..schemas.hot import decode_event
from ..schemas.message_parts import PassedOver
from ..schemas.provider_usage import canonical_provider
from ..schemas.settings import Settings
from .call_scope import CallScope
from .guard import Guard
from .ports import Settled
from .stats import Tally

if TYPE_CHECKING:
    from .gate import Gate

_logger: Final = logging.getLogger("tidegate")

_UNPRINTABLE: Final = re.compile(r"[\x00-\x1f\x7f]")


class Observer:
    """The half of the emitter that observes calls."""

    unread_answers: Tally
    internal_errors: Tally

    def __init__(self, settings: Settings, now: Callable[[], datetime], monotonic: Callable[[], float]) -> None:
        self.now = now
        self.monotonic = monotonic
        self._told: set[str] = set()
        self._defaults = {
            name: value for name in ("service", "environment", "region") if (value := getattr(settings, name)) is not None
        }

    @property
    def gate(self) -> Gate | None:
        return None

    def emit(self, event: Mapping[str, Any], settled: Settled | None = None) -> bool:
        raise NotImplementedError

    def emit_content(self, call: Mapping[str, Any], texts: Mapping[str, Any]) -> bool:
        raise NotImplementedError

    def pass_over(self, provider: str | None, found: Iterable[tuple[Where, PassedOver]]) -> None:
        """Count what a call's texts leave out."""
        raise NotImplementedError

    def content_mode(self, tenant: str | None) -> ContentMode:
        raise NotImplementedError

    def call(
        self,
        *,
        model: str,
        tenant: str | None = None,
        team: str | None = None,
        user: str | None = None,
        service: str | None = None,
        environment: str | None = None,
        region: str | None = None,
        task_type: str | None = None,
        prompt: str | None = None,
        prompt_name: str | None = None,
        prompt_version: str | None = None,
        provider: str | None = None,
        operation: str | None = None,
        temperature: float | None = None,
        top_p: float | None = None,
        top_k: float | None = None,
        frequency_penalty: float | None = None,
        presence_penalty: float | None = None,
        max_tokens: int | None = None,
        seed: int | None = None,
        choice_count: int | None = None,
        stream: bool | None = None,
        service_tier: str | None = None,
        attempt: int | None = None,
        fallback_from: str | None = None,
        experiment: str | None = None,
        variant: str | None = None,
        conversation_id: str | None = None,
        trace_id: str | None = None,
        span_id: str | None = None,
        labels: Mapping[str, str] | None = None,
        estimate: tuple[int | None, int | None] | None = None,
        cost_usd: float | None = None,
        guard: bool = True,
        call_id: str | None = None,
    ) -> CallScope:
        """Observe one call. `prompt` is `name@version`; `estimate` is (input, output) tokens and also emits a `request`.

        `service`, `environment` and `region` default to the settings'.

        Entering the block asks the gate, if there is one: `GateClosed` is raised when a policy does not let the call go,
        and `call.model` is the model to use. Without an `estimate` (and `cost_usd`, where the node does not tell prices)
        the call is expected to use what calls of its model have used. `guard=False` does not ask.
        """
        model = _name(model) or "unknown"
        call_id = _name(call_id) or secrets.token_hex(16)
        fields: dict[str, Any] = {"call_id": call_id, "started_at": None, "request_model": model, **self._defaults}
        try:
            if prompt is not None and prompt_name is None:
                prompt_name, _, version = str(prompt).partition("@")
                prompt_version = prompt_version or version
            names = {
                "tenant": tenant,
                "team": team,
                "user": user,
                "service": service,
                "environment": environment,
                "region": region,
                "task_type": task_type,
                "prompt_name": prompt_name,
                "prompt_version": prompt_version,
                "provider_name": canonical_provider(provider) if provider else None,
                "operation_name": operation,
                "service_tier": service_tier,
                "fallback_from": fallback_from,
                "experiment": experiment,
                "variant": variant,
                "conversation_id": conversation_id,
                "trace_id": trace_id,
                "span_id": span_id,
            }
            fields.update({field: name for field, value in names.items() if (name := _name(value)) is not None})
            parameters = {
                "temperature": temperature,
                "top_p": top_p,
                "top_k": top_k,
                "frequency_penalty": frequency_penalty,
                "presence_penalty": presence_penalty,
                "max_tokens": max_tokens,
                "seed": seed,
                "choice_count": choice_count,
                "stream": stream,
                "attempt": attempt,
                "labels": dict(labels) if labels else None,
            }
            fields.update({field: value for field, value in parameters.items() if value is not None})
        except Exception as error:  # noqa: BLE001 — the emitter's door
            self.note("call", error)
        gate = self._gate_of(guard)
        guarded = None if gate is None else Guard(self, gate, estimate, max_tokens, cost_usd)
        return CallScope(self, model, call_id, fields, estimate, guarded)

    def _gate_of(self, guard: bool) -> Gate | None:
        try:
            return self.gate if guard else None
        except Exception as error:  # noqa: BLE001 — the emitter's door
            self.note("gate", error)
            return None

    def emit_checked(
        self, kind: str, fields: Mapping[str, Any], more: Mapping[str, Any], settled: Settled | None = None
    ) -> None:
        """Emit an event; a field that the schema refuses is left out and told once, so that the rest is not lost."""
        event = {"event": kind, **fields, **more}
        if not _valid(event):
            kept = {name: event.pop(name) for name in ("event", "call_id", "started_at", "request_model")}
            left_out = []
            for name, value in event.items():
                kept[name] = value
                if not _valid(kept):
                    del kept[name]
                    left_out.append(name)
            event = kept
            self.internal_errors.bump()
            self._tell_once(f"call_fields_left_out fields={','.join(left_out)}")
        self.emit(event, settled)

    def note(self, where: str, error: Exception) -> None:
        """Something of ours went wrong. The error's text may hold a caller's value, so only its type is told."""
        self.internal_errors.bump()
        self._tell_once(f"observe_failed step={where} error={type(error).__name__}")

    def _tell_once(self, message: str) -> None:
        # Bounded: messages are made of our own names, and there are not many of those.
        if message not in self._told and len(self._told) < 100:
            self._told.add(message)
            _logger.warning("%s", message)


def _valid(event: Mapping[str, Any]) -> bool:
    try:
        decode_event(orjson.dumps(event))
    except (InvalidEvent, TypeError):
        return False
    return True


def _name(value: object) -> str | None:
    """A printable name of at most 128 characters; None for nothing."""
    if value is None:
        return None
    text = value if isinstance(value, str) else str(value)
    if not text.isprintable():
        text = _UNPRINTABLE.sub(" ", text)
    return text[:128] or None
