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
import operator
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Concatenate, Final, ParamSpec, Self, get_args

from ..schemas.call import TOKEN_FIELDS, ErrorType
from ..schemas.provider_response import read_response
from ..schemas.provider_stream import StreamedText, stream_event
from ..schemas.provider_text import decoded
from ..schemas.provider_usage import get_part, items_of
from .call_texts import CallTexts
from .chunks import described
from .failures import classify

if TYPE_CHECKING:
    from .guard import Guard
    from .observe import Observer
    from .reservation import Reservation

_ERROR_TYPES: Final = frozenset(get_args(ErrorType))
# The schema's bounds; what is beyond is left out here, so that the rest of the call is not lost with it.
_MOST_CHUNKS: Final = 256
_MOST_NAMED: Final = 32
# Of chunks handed in; nobody retrieves more, but an iterator may not end.
_MOST_READ: Final = 4_096
# Where a stream's events state tokens, and what they wrap that in.
_STATING: Final = ("usage", "usageMetadata", "usage_metadata", "stopReason", "finish_reason")
_STATED_IN: Final = ("response", "message", "chunk", "data", "metadata", "messageStop")

P = ParamSpec("P")


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
        self._hear(event)
        if event is not None and not isinstance(event, str):
            self._listen(event)

    @_guarded
    def _hear(self, event: object) -> None:
        """The text in a stream's event."""
        if self._texts is not None:
            heard = self._texts.stream.add(event)
        else:
            heard = "time_to_first_token_s" not in self._outcome and StreamedText().add(event)
        if heard:
            self.first_token()

    @_guarded
    def _listen(self, event: object) -> None:
        """To what a stream's event says of the call."""
        choices = get_part(event, "choices")
        for holder in (event, *(get_part(event, name) for name in _STATED_IN), *items_of(choices)[:1]):
            if get_part(holder, *_STATING) is not None:
                # LangChain's chunks are made to be added up; everybody else says how much it is so far.
                join = operator.add if get_part(event, "tool_call_chunks") is not None else max
                for name, count in self._learn(holder if choices is None else event).items():
                    self._outcome[name] = join(self._outcome.get(name, 0), count)
                return

    @_guarded
    def answer(self, response: object = None, *, text: str | None = None) -> None:
        """The provider's response, as object or dict; the call's latency ends here. What it says goes nowhere but into sealed
        content. `text` is for a client whose responses are not read, or that has been streaming."""
        self._answered_at = self._observer.monotonic()
        response = decoded(response)
        self._answered(text if text is not None else response)
        if response is None and text is not None:
            return
        tokens = self._learn(response)
        if not tokens:
            self._observer.unread_answers.bump()
        self._outcome.update(tokens)

    def _learn(self, response: object) -> dict[str, int]:
        """Note what a response, or an event of a stream, says about itself; the tokens that it states."""
        try:
            facts = read_response(response, self._fields.get("provider_name"))
        except ValueError:
            return {}
        for name in ("provider_name", "service_tier"):
            if (value := getattr(facts, name)) is not None:
                self._fields[name] = value
        for name in ("response_model", "response_id", "finish_reason"):
            if (value := getattr(facts, name)) is not None:
                self._outcome[name] = value
        return facts.tokens

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
            kept.append(described(chunk, len(kept)))

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
