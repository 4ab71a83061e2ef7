"""One LLM call, observed: what the two lines a service writes leave behind.

    with tide.call(model="claude-sonnet-4-5", tenant="harbor-health", prompt="triage@2.1") as call:
        call.ask(messages, context=chunks)
        call.answer(client.messages.create(model=call.model, messages=messages, ...))

Leaving the block emits a `response` event, which holds no text; and, where content is not off, the texts of prompt, answer and
context, which leave sealed and by a way of their own. No text of an exception is kept, and nothing that goes wrong in here
reaches the caller: it is counted (`stats().internal_errors`), told once, and the call goes on.
"""

from __future__ import annotations

import functools
import itertools
import logging
import re
import secrets
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, Concatenate, Final, ParamSpec, Self, TypeVar, get_args

import orjson

from ..schemas.call import TOKEN_FIELDS, ErrorType
from ..schemas.content import ContentMode, Where
from ..schemas.errors import InvalidEvent
from ..schemas.hot import decode_event
from ..schemas.message_parts import PassedOver
from ..schemas.provider_response import read_response
from ..schemas.provider_stream import StreamedText, stream_event
from ..schemas.provider_text import decoded
from ..schemas.provider_usage import canonical_provider, get_part, items_of
from ..schemas.settings import Settings
from .call_texts import CallTexts
from .failures import classify
from .guard import Guard
from .ports import Settled
from .stats import Tally

if TYPE_CHECKING:
    from .gate import Gate
    from .reservation import Reservation

_logger: Final = logging.getLogger("tidegate")

_ERROR_TYPES: Final = frozenset(get_args(ErrorType))
# The schema's bounds; what is beyond is left out here, so that the rest of the call is not lost with it.
_MOST_CHUNKS: Final = 256
_MOST_NAMED: Final = 32
# Of chunks handed in; nobody retrieves more, but an iterator may not end.
_MOST_READ: Final = 4_096
# An id has no spaces; what has some may be the chunk's own text.
_CHUNK_ID: Final = re.compile(r"[A-Za-z0-9_.:/#@=+~-]{1,128}\Z")
# Where a stream's events state tokens, and what they wrap that in.
_STATING: Final = ("usage", "usageMetadata", "usage_metadata", "stopReason", "finish_reason")
_STATED_IN: Final = ("response", "message", "chunk", "data", "metadata", "messageStop")
_UNPRINTABLE: Final = re.compile(r"[\x00-\x1f\x7f]")

P = ParamSpec("P")
R = TypeVar("R")


def _guarded(method: Callable[Concatenate[CallScope, P], None]) -> Callable[Concatenate[CallScope, P], None]:
    """The caller's work is never disturbed by ours."""

    @functools.wraps(method)
    def guarded(self: CallScope, /, *args: P.args, **kwargs: P.kwargs) -> None:
        try:
            method(self, *args, **kwargs)
        except Exception as error:  # noqa: BLE001 — the emitter's door
            self._observer.note(method.__name__, error)

    return guarded


class CallScope:
    """One call, from entering to leaving. Works in `with` and `async with`; without either, call `end` yourself."""

    __slots__ = (
        "_answered_at",
        "_began_at",
        "_ended",
        "_estimate",
        "_fields",
        "_guard",
        "_observer",
        "_outcome",
        "_reservation",
        "_texts",
        "call_id",
        "model",
    )

    def __init__(
        self, observer: Observer, model: str, call_id: str, fields: dict[str, Any], estimate: Any, guard: Guard | None
    ) -> None:
        self.model = model
        self.call_id = call_id
        self._observer = observer
        self._fields = fields
        self._estimate = estimate
        self._guard = guard
        self._reservation: Reservation | None = None
        self._outcome: dict[str, Any] = {}
        self._began_at: float | None = None
        self._answered_at: float | None = None
        self._ended = False
        # None where content is off: then no text is even looked at.
        self._texts: CallTexts | None = None if observer.content_mode(fields.get("tenant")) == "off" else CallTexts()

    def __enter__(self) -> Self:
        if self._guard is not None:
            self._let_in(self._guard.enter(self._fields))
        self._begin()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.end(error)

    async def __aenter__(self) -> Self:
        if self._guard is not None:
            self._let_in(await self._guard.aenter(self._fields))
        self._begin()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end(error)

    @_guarded
    def _let_in(self, reservation: Reservation | None) -> None:
        if reservation is None:
            return
        self._reservation = reservation
        if reservation.model is not None and reservation.model != self.model:
            self._fields.setdefault("fallback_from", self.model)
            self.model = self._fields["request_model"] = reservation.model
        if reservation.leased and self._guard is not None:
            # What is held here is held by everybody who hears of it, so the request is worth an event.
            self._estimate = self._guard.expected(self.model)

    @_guarded
    def _begin(self) -> None:
        if self._began_at is not None:
            return
        observer = self._observer
        self._fields["started_at"] = observer.now()
        self._began_at = observer.monotonic()
        if self._estimate is not None:
            names = ("estimated_input_tokens", "estimated_output_tokens")
            estimate = {name: tokens for name, tokens in zip(names, self._estimate, strict=False) if tokens is not None}
            if estimate or self._reservation is None:
                observer.emit_checked("request", self._fields, estimate)

    @_guarded
    def first_token(self) -> None:
        """The first token is here; later ones change nothing."""
        if self._began_at is not None and "time_to_first_token_s" not in self._outcome:
            self._outcome["time_to_first_token_s"] = self._observer.monotonic() - self._began_at
            self._fields.setdefault("stream", True)

    @_guarded
    def ask(self, prompt: object, *, context: Iterable[object] = ()) -> None:
        """What is asked: a text, chat messages, or a request's keyword arguments as a mapping; and what was retrieved for it,
        as texts or chunks with one. It leaves sealed with the answer. Called again, it adds."""
        if self._texts is not None:
            self._texts.asked(prompt)
            self._texts.given(context)

    @_guarded
    def chunk(self, chunk: object) -> None:
        """One event of a streamed answer, or a piece of its text; the first with text is the first token. Tokens and finish
        reason are read of the events that state them."""
        event = stream_event(chunk)
        stream = self._texts.stream if self._texts is not None else StreamedText()
        if (self._texts is not None or "time_to_first_token_s" not in self._outcome) and stream.add(event):
            self.first_token()
        if event is not None and not isinstance(event, str):
            self._listen(event)

    @_guarded
    def _listen(self, event: object) -> None:
        """To what the first event or the last says of the call."""
        for holder in (event, *(get_part(event, name) for name in _STATED_IN), *items_of(get_part(event, "choices"))[:1]):
            if get_part(holder, *_STATING) is not None:
                self._learn(holder if get_part(event, "choices") is None else event)

    @_guarded
    def answer(self, response: object = None, *, text: str | None = None) -> None:
        """The provider's response, as object or dict; the call's latency ends here. What it says goes nowhere but into sealed
        content. `text` is for a client whose responses are not read, or that has been streaming."""
        self._answered_at = self._observer.monotonic()
        response = decoded(response)
        self._answered(text if text is not None else response)
        if response is None and text is not None:
            return
        if not self._learn(response):
            self._observer.unread_answers.bump()

    def _learn(self, response: object) -> bool:
        """Note what a response, or the last event of a stream, says about itself. Whether it states tokens."""
        try:
            facts = read_response(response, self._fields.get("provider_name"))
        except ValueError:
            return False
        for name in ("provider_name", "service_tier"):
            if (value := getattr(facts, name)) is not None:
                self._fields[name] = value
        for name in ("response_model", "response_id", "finish_reason"):
            if (value := getattr(facts, name)) is not None:
                self._outcome[name] = value
        self._outcome.update(facts.tokens)
        return bool(facts.tokens)

    @_guarded
    def _answered(self, response: object) -> None:
        if self._texts is not None:
            self._texts.answered(response)

    @_guarded
    def usage(self, /, **tokens: int | None) -> None:
        """Token counts by the schema's names, for a client that `answer` does not read; cached are part of `input_tokens`."""
        if unknown := tokens.keys() - TOKEN_FIELDS:
            raise ValueError(f"unknown token fields: {', '.join(sorted(unknown))}")
        self._outcome.update({name: count for name, count in tokens.items() if count is not None})

    @_guarded
    def retrieved(self, chunks: Iterable[Any]) -> None:
        """What was retrieved for the prompt: ids, mappings or objects with id, score and source, or (chunk, score) pairs.
        Of these three metering hears; a chunk's text is context, and content like the prompt."""
        chunks = [chunks] if isinstance(chunks, str | Mapping) else list(itertools.islice(chunks, _MOST_READ))
        if self._texts is not None:
            self._texts.retrieved(chunks)
        kept = self._outcome.setdefault("retrieval", [])
        for chunk in chunks:
            if len(kept) >= _MOST_CHUNKS:
                break
            kept.append(_chunk(chunk, len(kept)))

    @_guarded
    def quality(self, /, **scores: float) -> None:
        """Scores of the answer by name, such as `relevance=0.8`."""
        kept = self._outcome.setdefault("quality", {})
        kept.update({name: float(score) for name, score in scores.items() if len(kept) < _MOST_NAMED})

    @_guarded
    def label(self, /, **labels: object) -> None:
        """Labels by name; short values, never text of the call."""
        kept = self._fields["labels"] = dict(self._fields.get("labels") or {})
        kept.update({name: str(value) for name, value in labels.items() if len(kept) < _MOST_NAMED})

    @_guarded
    def fail(self, error_type: str = "failure", error_code: str | int | None = None) -> None:
        """The call failed, and no exception says so."""
        self._outcome["error_type"] = error_type if error_type in _ERROR_TYPES else "failure"
        if error_code is not None:
            self._outcome["error_code"] = str(error_code)

    @_guarded
    def end(self, error: BaseException | None = None) -> None:
        """The call is over: emit what is known of it. Once; what comes later changes nothing."""
        if self._ended:
            return
        self._ended = True
        self._estimate = None  # ended without having begun: the response says it all
        self._begin()
        outcome = self._outcome
        ended_at = self._answered_at if self._answered_at is not None else self._observer.monotonic()
        if self._began_at is not None:
            outcome["latency_s"] = max(0.0, ended_at - self._began_at)
        if error is not None and "error_type" not in outcome:
            try:
                outcome["error_type"], code = classify(error)
            except Exception as ours:  # noqa: BLE001 — a foreign exception's attributes may raise anything
                outcome["error_type"], code = "failure", None
                self._observer.note("classify", ours)
            if code is not None:
                outcome["error_code"] = code
        reservation, self._reservation = self._reservation, None
        if reservation is not None and self._guard is not None:
            self._guard.leave(reservation, self.model, self._fields, outcome)
        self._observer.emit_checked("response", self._fields, outcome, reservation)
        texts, self._texts = self._texts, None
        if texts is not None:
            self._leave(texts)

    @_guarded
    def _leave(self, texts: CallTexts) -> None:
        found = texts.found()
        if any(found.values()):
            self._observer.emit_content({**self._fields, **self._outcome}, found)
        if texts.passed_over:
            self._observer.pass_over(self._fields.get("provider_name"), texts.passed_over)


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


def _chunk(chunk: Any, place: int) -> dict[str, Any]:
    score = None
    if isinstance(chunk, tuple | list) and len(chunk) == 2:
        chunk, score = chunk
    if isinstance(chunk, str):
        return _scored(chunk if _CHUNK_ID.match(chunk) else f"text-{place}", score)
    metadata = _part(chunk, "metadata")
    named = next((str(found) for name in ("chunk_id", "id", "id_", "document_id") if (found := _part(chunk, name))), "")
    score = next(
        (found for name in ("score", "relevance_score", "similarity") if (found := _part(chunk, name)) is not None), score
    )
    kept = _scored(named if _CHUNK_ID.match(named) else f"text-{place}", score)
    source = _part(chunk, "source") or _part(metadata, "source")
    if isinstance(source, str) and _CHUNK_ID.match(source):
        kept["source"] = source
    return kept


def _scored(chunk_id: str, score: object) -> dict[str, Any]:
    kept: dict[str, Any] = {"chunk_id": chunk_id}
    if score is not None and not isinstance(score, str | bytes | bool):
        kept["score"] = float(score)  # type: ignore[arg-type]  # numpy's scalars have no common type; a misfit is counted
    return kept


def _part(holder: Any, name: str) -> Any:
    if isinstance(holder, Mapping):
        return holder.get(name)
    return getattr(holder, name, None)
