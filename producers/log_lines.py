"""One line of a service's log → one metering event, for services that already write their calls down somewhere.

    bytes ── JSON? ──┬── has `event` ─────────────────────── native: validated as it stands
                     ├── has `response`/`request`/`error` ── wrapped: a provider's request and response, times, tags
                     └── has `usage`, `choices` … ────────── bare: a provider's response with its own `created`

The shape is told from each line, so a file may mix them. A wrapped line, by example (all but the starred may be absent;
a model and a time are found in `response` when the line has neither):

    {"id": "r-1", "provider": "anthropic",
     "request": {"model": …*, "temperature": …, "max_tokens": …, "messages": …},
     "response": {…*, "usage": …} or null with "error": {"type" | "code" | "status"},
     "started_at": …*, "first_token_at": …, "ended_at": …,
     "retrieved_context": ["text", {"id": …, "score": …}],
     "tags": {"tenant": …, "team": …, "user": …, "prompt_name": …, "prompt_version": …, "anything": "short"}}

No text of a prompt, an answer or a retrieved chunk enters the event, nor a reason: the log line is content, the event is
metering. What leaves is built from named fields only, and is checked by the decoder that the meter itself uses.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

import orjson

from ..schemas.call import parse_timestamp
from ..schemas.envelope import MAX_EVENT_BYTES
from ..schemas.errors import InvalidEvent
from ..schemas.hot import decode_event
from ..schemas.provider_response import ResponseFacts, read_response
from ..schemas.provider_usage import canonical_provider, normalise_usage
from .failures import says_too_long, type_of_code, type_of_status

# Twice a million-token prompt in UTF-8. A longer line is refused unread, so that memory stays bounded.
MAX_LINE_BYTES: Final = 8 * 1024 * 1024
# The schema's bound on chunks of one call; the true count goes to the label `retrieved_chunks` when there are more.
MAX_CHUNKS: Final = 256
# A tag longer than this is more likely a text than a label.
MAX_LABEL: Final = 64

_SCOPE: Final = (
    "tenant",
    "team",
    "user",
    "service",
    "environment",
    "region",
    "task_type",
    "prompt_name",
    "prompt_version",
    "fallback_from",
    "experiment",
    "variant",
    "conversation_id",
    "trace_id",
    "span_id",
)
# Request parameters by the names that providers give them.
_PARAMETERS: Final = {
    "temperature": "temperature",
    "top_p": "top_p",
    "topP": "top_p",
    "p": "top_p",
    "top_k": "top_k",
    "topK": "top_k",
    "k": "top_k",
    "frequency_penalty": "frequency_penalty",
    "frequencyPenalty": "frequency_penalty",
    "presence_penalty": "presence_penalty",
    "presencePenalty": "presence_penalty",
    "max_tokens": "max_tokens",
    "max_completion_tokens": "max_tokens",
    "max_output_tokens": "max_tokens",
    "maxTokens": "max_tokens",
    "maxOutputTokens": "max_tokens",
    "seed": "seed",
    "n": "choice_count",
    "candidateCount": "choice_count",
    "stream": "stream",
    "service_tier": "service_tier",
}
_NESTED_PARAMETERS: Final = ("inferenceConfig", "generationConfig", "generation_config")
_STARTED: Final = ("started_at", "start_time", "timestamp", "time")
_CREATED: Final = ("created", "created_at", "createTime")
_USAGES: Final = ("usage", "usageMetadata", "usage_metadata")
_RESPONSE_MARKS: Final = (*_USAGES, "choices", "candidates", "meta", "generation_token_count")
# Labels of these names would carry what this module keeps out.
_TEXT_TAGS: Final = frozenset(
    {
        "answer",
        "comment",
        "comments",
        "completion",
        "content",
        "context",
        "description",
        "diagnosis",
        "input",
        "message",
        "messages",
        "note",
        "notes",
        "output",
        "patient",
        "patient_name",
        "prompt",
        "query",
        "question",
        "response",
        "summary",
        "text",
        "transcript",
    }
)
_LABEL_NAME: Final = re.compile(r"[A-Za-z0-9_.:/-]{1,64}\Z")
# Ids of chunks and names of sources come from beside the text: only what cannot be a sentence is taken.
_CHUNK_NAME: Final = re.compile(r"[\x21-\x7e]{1,128}\Z")
_CODE: Final = re.compile(r"[A-Za-z0-9_.:/-]{1,64}\Z")

_BOM: Final = b"\xef\xbb\xbf"
_UNKNOWN_SHAPE: Final = (
    "not a native, OpenAI-style or Anthropic-style line; write either `event` with the schema's fields, or `request` and "
    "`response` with `started_at`, one JSON object a line"
)


def read_line(line: bytes, *, chunk_key: bytes | None = None) -> dict[str, Any]:
    """The metering event of one log line: fields of `schemas.call`, accepted by `decode_event`. Pure.

    `call_id` is the line's id, else the response's, else derived from the event. Two lines may share an id: a line's
    identity is its place in its file. Times are exact to the microsecond.

    Retrieved chunks keep their ids and scores. A chunk that is text only is named by its place (`text-1`, `text-2` …):
    a plain hash of a short clinical phrase can be reversed by guessing. With `chunk_key`, it is named by a keyed
    fingerprint (`hmac-<32 hex digits>`), equal for equal texts under the same key.

    Raises `InvalidEvent`, with a reason that names fields and bounds and never repeats the line.
    """
    record = _json_object(line)
    wrapped = isinstance(record.get("response"), dict) or isinstance(record.get("request"), dict)
    # A structured logger's own `event` ("llm_call") does not make a line native.
    if "event" in record and (record["event"] in ("request", "response", "rejected") or not wrapped):
        decode_event(line.removeprefix(_BOM))
        return _checked(record)
    if wrapped or record.get("error"):
        return _checked(_wrapped(record, chunk_key))
    if any(record.get(mark) is not None for mark in _RESPONSE_MARKS):
        return _checked(_wrapped({**record, "response": record}, chunk_key))
    raise InvalidEvent(_UNKNOWN_SHAPE)


def _json_object(line: bytes) -> dict[str, Any]:
    if len(line) > MAX_LINE_BYTES:
        raise InvalidEvent(oversize_reason())
    if b"\x00" in line or line.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise InvalidEvent("not UTF-8 text (NUL bytes: UTF-16 or binary); convert the file to UTF-8")
    try:
        record = orjson.loads(line.removeprefix(_BOM))
    except orjson.JSONDecodeError as error:
        if error.msg.startswith("str is not valid UTF-8"):
            raise InvalidEvent("not UTF-8 text; convert the file to UTF-8") from None
        raise InvalidEvent(f"not valid JSON: {error.msg} (character {error.pos})"[:256]) from None
    if not isinstance(record, dict):
        raise InvalidEvent("not a JSON object; a log holds one JSON object a line")
    return record


def oversize_reason() -> str:
    """What is said of a line above the limit, by whoever finds out first."""
    return f"line is longer than {MAX_LINE_BYTES} bytes; leave images and documents out of the log"


def _checked(event: dict[str, Any]) -> dict[str, Any]:
    encoded = orjson.dumps(event)
    if len(encoded) > MAX_EVENT_BYTES:
        raise InvalidEvent(f"the event would be longer than {MAX_EVENT_BYTES} bytes; shorten ids, tags or chunk names")
    decode_event(encoded)
    return event


def _wrapped(record: dict[str, Any], chunk_key: bytes | None) -> dict[str, Any]:
    request, response = _object(record, "request"), _provider_response(record)
    event: dict[str, Any] = {"event": "response"}

    failure = _failure(record, response)
    facts = _facts(record, response) if response else None
    if facts is None and failure is None:
        raise InvalidEvent("`response` is empty and there is no `error`; a finished call has one of them")

    call_id = record.get("id", record.get("call_id"))
    if call_id is None and facts is not None:
        call_id = facts.response_id
    if call_id is not None:
        event["call_id"] = _text(call_id, "id")
    _add_times(event, record, response)
    _add_scope(event, record, request)
    _add_request(event, record, request, facts)
    if facts is not None:
        if facts.response_id:
            event["response_id"] = facts.response_id
        if facts.finish_reason:
            event["finish_reason"] = facts.finish_reason
        if facts.service_tier:
            event["service_tier"] = facts.service_tier
        event.update(facts.tokens)
    if failure is not None:
        event["error_type"], code = failure
        if code:
            event["error_code"] = code
    if isinstance(record.get("cache_hit"), bool):
        event["cache_hit"] = record["cache_hit"]
    if (operation := _operation(request, response)) is not None:
        event["operation_name"] = operation
    _add_retrieval(event, record, chunk_key)
    if call_id is None:
        # From the event, not from the line: an id must not let anyone test a guess at the text.
        event["call_id"] = f"line-{hashlib.sha256(orjson.dumps(event, option=orjson.OPT_SORT_KEYS)).hexdigest()[:32]}"
    return event


def _object(record: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = record.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InvalidEvent(f"`{name}` must be an object")
    return value


def _provider_response(record: dict[str, Any]) -> dict[str, Any]:
    """The provider's own object, from under a batch's `body` or beside a usage that the log keeps apart."""
    response = record.get("response")
    if isinstance(response, dict):
        body = response.get("body")
        if isinstance(body, dict) and "status_code" in response:
            response = body
    elif response is not None and not isinstance(response, str):
        raise InvalidEvent("`response` must be an object, or null with an `error`")
    else:
        response = {}
    if isinstance(record.get("usage"), dict) and "usage" not in response:
        response = {**response, "usage": record["usage"]}
    return response


def _facts(record: Mapping[str, Any], response: dict[str, Any]) -> ResponseFacts | None:
    """What the response says; None when all it says is an error. A usage that cannot be counted is refused, not lost."""
    usage = next((response[name] for name in _USAGES if response.get(name) is not None), None)
    if usage is None and response.get("error"):
        return None
    provider = record.get("provider", record.get("provider_name"))
    try:
        facts = read_response(response, None if provider is None else _text(provider, "provider"))
        if not facts.tokens and usage is not None:
            if not isinstance(usage, dict):
                raise ValueError("usage must be an object: send the provider's usage object unchanged")
            normalise_usage(usage, facts.provider_name)
    except ValueError as error:
        raise InvalidEvent(f"{error}"[:256]) from None
    return facts


# ---- times


def _time(value: Any, name: str) -> datetime:
    """An aware time from RFC 3339 text or a Unix time in seconds, or in milliseconds when it is too large for seconds."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            seconds = value / 1000 if value >= 100_000_000_000 else value  # the year 5138 in seconds
            return datetime.fromtimestamp(seconds, UTC)
        except (OverflowError, ValueError, OSError):
            raise InvalidEvent(f"`{name}` is out of range for a Unix time") from None
    try:
        return parse_timestamp(value)
    except ValueError as error:
        raise InvalidEvent(f"`{name}` {error}") from None


def _first(source: Mapping[str, Any], names: tuple[str, ...]) -> tuple[str, Any] | None:
    for name in names:
        if (value := source.get(name)) is not None:
            return name, value
    return None


def _add_times(event: dict[str, Any], record: Mapping[str, Any], response: Mapping[str, Any]) -> None:
    found = _first(record, _STARTED) or _first(response, _CREATED) or _first(record, _CREATED)
    if found is None:
        raise InvalidEvent("no time: `started_at` is missing and the response has no `created`")
    started = _time(found[1], found[0])
    event["started_at"] = found[1] if isinstance(found[1], str) else started.isoformat()
    if (first_token := record.get("first_token_at")) is not None:
        event["time_to_first_token_s"] = _between(started, _time(first_token, "first_token_at"), "first_token_at")
    if (ended := _first(record, ("ended_at", "end_time", "completed_at"))) is not None:
        event["latency_s"] = _between(started, _time(ended[1], ended[0]), ended[0])
        if event.get("time_to_first_token_s", 0.0) > event["latency_s"]:
            raise InvalidEvent(f"`first_token_at` is after `{ended[0]}`")
    elif (seconds := _first(record, ("latency_s", "duration_s"))) is not None:
        event["latency_s"] = _number(*seconds)
    elif (millis := _first(record, ("latency_ms", "duration_ms"))) is not None:
        event["latency_s"] = _number(*millis) / 1000


def _between(start: datetime, end: datetime, name: str) -> float:
    elapsed = (end - start).total_seconds()
    if elapsed < 0:
        raise InvalidEvent(f"`{name}` is before `started_at`")
    return elapsed


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidEvent(f"`{name}` must be a number")
    return float(value)


# ---- who and what


def _text(value: Any, name: str) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise InvalidEvent(f"`{name}` must be text")


def _add_scope(event: dict[str, Any], record: Mapping[str, Any], request: Mapping[str, Any]) -> None:
    tags = _tags(record)
    for name in _SCOPE:
        value = tags.pop(name, None)
        if value is None or value == "":
            value = record.get(name)
        if value is not None and value != "":
            event[name] = value if isinstance(value, str) else _text(value, name)
    if "user" not in event:
        user = request.get("user") or _object(request, "metadata").get("user_id")
        if user:
            event["user"] = _text(user, "user")
    attempt = tags.pop("attempt", record.get("attempt"))
    if attempt is not None:
        event["attempt"] = attempt
    if tags and (labels := _labels(tags)):
        event["labels"] = labels


def _tags(record: Mapping[str, Any]) -> dict[str, Any]:
    tags = record.get("tags")
    if tags is None:
        return {}
    if isinstance(tags, dict):
        return tags.copy()
    if isinstance(tags, list):  # ["team:triage", "pilot"]
        split = (tag.partition(":") for tag in tags if isinstance(tag, str))
        return {name: value if colon else "true" for name, colon, value in split}
    raise InvalidEvent("`tags` must be an object of short texts")


def _labels(tags: Mapping[str, Any]) -> dict[str, str]:
    """The tags that are short, printable and not named like a text; at most 32, the schema's bound."""
    labels: dict[str, str] = {}
    for name, value in tags.items():
        if isinstance(value, bool):
            value = "true" if value else "false"
        elif isinstance(value, int | float):
            value = str(value)
        if (
            isinstance(value, str)
            and 0 < len(value) <= MAX_LABEL
            and value.isprintable()
            and name.lower() not in _TEXT_TAGS
            and _LABEL_NAME.match(name)
        ):
            labels[name] = value
        if len(labels) == 32:
            break
    return labels


def _add_request(
    event: dict[str, Any], record: Mapping[str, Any], request: Mapping[str, Any], facts: ResponseFacts | None
) -> None:
    response_model = facts.response_model if facts else None
    asked = _first(request, ("model", "modelId")) or _first(record, ("model", "request_model", "modelId"))
    if asked is None and response_model is None:
        raise InvalidEvent("no model: `request.model` is missing and the response names none")
    event["request_model"] = _text(asked[1], asked[0]) if asked else response_model
    if response_model:
        event["response_model"] = response_model
    if facts is not None:
        provider = facts.provider_name
    elif (provider := record.get("provider", record.get("provider_name"))) is not None:
        provider = canonical_provider(_text(provider, "provider"))
    if provider:
        event["provider_name"] = provider
    _add_parameters(event, request)
    for name in _NESTED_PARAMETERS:
        if name in request:
            _add_parameters(event, _object(request, name))


def _operation(request: Mapping[str, Any], response: Mapping[str, Any]) -> str | None:
    """What kind of call it was, told from the fields that only that kind has."""
    if "messages" in request or "contents" in request or "choices" in response or "candidates" in response:
        return "text_completion" if response.get("object") == "text_completion" else "chat"
    if response.get("object") == "response" or response.get("type") == "message":
        return "chat"
    if "embeddings" in response or (response.get("object") == "list" and "input" in request):
        return "embeddings"
    return None


def _add_parameters(event: dict[str, Any], source: Mapping[str, Any]) -> None:
    for name, value in source.items():
        if value is not None and (field := _PARAMETERS.get(name)) is not None:
            event.setdefault(field, value)


# ---- what was retrieved


def _add_retrieval(event: dict[str, Any], record: Mapping[str, Any], chunk_key: bytes | None) -> None:
    found = _first(record, ("retrieved_context", "retrieved_chunks", "retrieval"))
    if found is None:
        return
    chunks = found[1] if isinstance(found[1], list) else [found[1]]
    if len(chunks) > MAX_CHUNKS:
        labels = dict(list(event.get("labels", {}).items())[:31])
        event["labels"] = {**labels, "retrieved_chunks": str(len(chunks))}
    event["retrieval"] = [_chunk(chunk, place, chunk_key) for place, chunk in enumerate(chunks[:MAX_CHUNKS], 1)]


def _chunk(chunk: Any, place: int, chunk_key: bytes | None) -> dict[str, Any]:
    if not isinstance(chunk, dict):
        return {"chunk_id": _text_chunk_id(chunk, place, chunk_key)}
    named = _first(chunk, ("id", "chunk_id", "document_id", "doc_id"))
    name = str(named[1]) if named and isinstance(named[1], str | int) else ""
    if not _CHUNK_NAME.match(name):
        body = _first(chunk, ("text", "content", "page_content"))
        name = _text_chunk_id(body[1] if body else None, place, chunk_key)
    kept: dict[str, Any] = {"chunk_id": name}
    scored = _first(chunk, ("score", "relevance_score", "similarity"))
    if scored and isinstance(scored[1], int | float) and not isinstance(scored[1], bool):
        kept["score"] = float(scored[1])
    source = chunk.get("source")
    if isinstance(source, str) and _CHUNK_NAME.match(source):
        kept["source"] = source
    return kept


def _text_chunk_id(text: Any, place: int, chunk_key: bytes | None) -> str:
    if chunk_key is None or not isinstance(text, str):
        return f"text-{place}"
    return f"hmac-{hmac.digest(chunk_key, text.encode(), 'sha256').hex()[:32]}"


# ---- what went wrong


def _failure(record: Mapping[str, Any], response: Mapping[str, Any]) -> tuple[str, str | None] | None:
    """The error's type and its provider's code, or None for a call that went well. The message is never kept."""
    error = record.get("error") or response.get("error")
    status = _status(record) or (_status(record["response"]) if isinstance(record.get("response"), dict) else None)
    if not error:
        return (type_of_status(status), str(status)) if status is not None and status >= 400 else None
    if not isinstance(error, dict):
        error = {"type": error} if isinstance(error, str) else {}
    inner = error.get("error")
    if isinstance(inner, dict):
        error = {**error, **inner}
    codes = [code for name in ("code", "type", "status", "name") if isinstance(code := error.get(name), str)]
    status = _status(error) or status
    short = [code for code in codes if _CODE.match(code) and not code.isdigit() and code != "error"]
    kind = next((found for code in codes if (found := type_of_code(code))), None) or type_of_status(status)
    message = error.get("message")
    if kind == "invalid_request" and isinstance(message, str) and says_too_long(message):
        kind = "context_length"
    return kind, short[0] if short else (str(status) if status is not None else None)


def _status(source: Mapping[str, Any]) -> int | None:
    for name in ("status_code", "http_status", "status", "code"):
        value = source.get(name)
        if isinstance(value, str) and re.fullmatch(r"[1-5][0-9]{2}", value, re.ASCII):
            value = int(value)
        if isinstance(value, int) and not isinstance(value, bool) and 100 <= value <= 599:
            return value
    return None
