from __future__ import annotations

import asyncio
import socket
import urllib.error
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pytest
from memory_log import MemoryLog
from tidegate.producers.emitter import Emitter
from tidegate.producers.failures import classify
from tidegate.schemas.settings import Settings

AT = datetime(2026, 11, 2, 8, 0, tzinfo=UTC)
ANTHROPIC = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude-sonnet-4-5-20250929",
    "stop_reason": "end_turn",
    "content": [{"type": "text", "text": "the patient may take ibuprofen"}],
    "usage": {"input_tokens": 12, "cache_read_input_tokens": 100, "cache_creation_input_tokens": 0, "output_tokens": 7},
}


@dataclass
class Clock:
    now: float = 50.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Tide:
    """An emitter on a memory log, with a clock that stands still."""

    clock: Clock = field(default_factory=Clock)
    log: MemoryLog = field(default_factory=MemoryLog)
    settings: Settings = field(default_factory=lambda: Settings(linger_s=0, service="triage-api", region="eu"))

    def __post_init__(self) -> None:
        self.emitter = Emitter(self.log, settings=self.settings, now=lambda: AT, monotonic=self.clock)

    def events(self) -> list[dict[str, Any]]:
        assert self.emitter.flush(20)
        return [event for events in self.log.counted().values() for _, event in events]

    def event(self) -> dict[str, Any]:
        (event,) = self.events()
        return event


@pytest.fixture
def tide() -> Iterator[Tide]:
    tide = Tide()
    yield tide
    tide.emitter.close(20)


def test_two_lines_leave_a_complete_response_event(tide: Tide) -> None:
    with tide.emitter.call(
        model="claude-sonnet-4-5", tenant="harbor-health", team="er", prompt="triage@2.1", provider="anthropic", temperature=0.2
    ) as call:
        tide.clock.now += 0.25
        call.first_token()
        tide.clock.now += 1.0
        call.answer(ANTHROPIC)
        tide.clock.now += 9.0  # the caller's own work is no latency of the call

    assert tide.event() == {
        "event": "response",
        "call_id": call.call_id,
        "started_at": "2026-11-02T08:00:00+00:00",
        "request_model": "claude-sonnet-4-5",
        "service": "triage-api",
        "region": "eu",
        "tenant": "harbor-health",
        "team": "er",
        "prompt_name": "triage",
        "prompt_version": "2.1",
        "provider_name": "anthropic",
        "temperature": 0.2,
        "stream": True,
        "response_model": "claude-sonnet-4-5-20250929",
        "response_id": "msg_1",
        "finish_reason": "end_turn",
        "input_tokens": 112,
        "cache_read_tokens": 100,
        "cache_write_5m_tokens": 0,
        "output_tokens": 7,
        "time_to_first_token_s": 0.25,
        "latency_s": 1.25,
    }
    assert call.model == "claude-sonnet-4-5"
    assert len(call.call_id) == 32


def test_no_text_of_an_answer_reaches_the_log(tide: Tide) -> None:
    with tide.emitter.call(model="m") as call:
        call.answer(ANTHROPIC)
        call.retrieved(
            ["a chunk that is its own text", {"id": "doc-7#3", "text": "secret", "score": 0.5, "source": "formulary"}]
        )

    assert tide.event()["retrieval"] == [{"chunk_id": "text-0"}, {"chunk_id": "doc-7#3", "score": 0.5, "source": "formulary"}]
    written = b"".join(envelope.value for envelope in tide.log.envelopes)
    assert b"ibuprofen" not in written
    assert b"secret" not in written


def test_an_estimate_announces_the_call_first(tide: Tide) -> None:
    with tide.emitter.call(model="m", tenant="t", estimate=(900, None)) as call:
        call.usage(input_tokens=880, output_tokens=40)

    request, response = tide.events()
    assert request == {
        "event": "request",
        "call_id": call.call_id,
        "started_at": "2026-11-02T08:00:00+00:00",
        "request_model": "m",
        "tenant": "t",
        "service": "triage-api",
        "region": "eu",
        "estimated_input_tokens": 900,
    }
    assert (response["call_id"], response["input_tokens"], response["output_tokens"]) == (call.call_id, 880, 40)


def test_async_calls_are_observed_too(tide: Tide) -> None:
    async def serve() -> None:
        async with tide.emitter.call(model="m") as call:
            await asyncio.sleep(0)
            call.answer(ANTHROPIC)

    asyncio.run(serve())

    assert tide.event()["output_tokens"] == 7


def test_what_the_caller_adds_is_kept(tide: Tide) -> None:
    with tide.emitter.call(model="m", labels={"channel": "phone"}) as call:
        call.quality(relevance=0.75, faithfulness=1)
        call.label(ward="er", bed=4)
        call.retrieved([("doc-1", 0.5), SimpleNamespace(id="doc-2", score=0.25, metadata={"source": "wiki"})])

    event = tide.event()
    assert event["quality"] == {"relevance": 0.75, "faithfulness": 1.0}
    assert event["labels"] == {"channel": "phone", "ward": "er", "bed": "4"}
    assert event["retrieval"] == [{"chunk_id": "doc-1", "score": 0.5}, {"chunk_id": "doc-2", "score": 0.25, "source": "wiki"}]


def test_an_exception_is_recorded_and_goes_on_untouched(tide: Tide) -> None:
    error = TimeoutError("waited for the patient record of Jane Roe")

    def ask() -> None:
        with tide.emitter.call(model="m"):
            tide.clock.now += 30.0
            raise error

    with pytest.raises(TimeoutError) as caught:
        ask()

    assert caught.value is error
    assert error.__cause__ is error.__context__ is None
    event = tide.event()
    assert (event["error_type"], event["latency_s"]) == ("timeout", 30.0)
    assert "Jane" not in str(event)


def test_a_failure_without_an_exception_can_be_told(tide: Tide) -> None:
    with tide.emitter.call(model="m") as call:
        call.fail("content_filter", "blocked")
    with tide.emitter.call(model="m") as call:
        call.fail("something else", 418)

    assert [(event["error_type"], event["error_code"]) for event in tide.events()] == [
        ("content_filter", "blocked"),
        ("failure", "418"),
    ]


def test_an_answer_that_is_not_understood_leaves_the_tokens_unknown(tide: Tide) -> None:
    for answer in (object(), "text", None, {"usage": {"prompt_tokens": -5}}):
        with tide.emitter.call(model="m") as call:
            call.answer(answer)

    assert [("input_tokens" in event, "error_type" in event) for event in tide.events()] == [(False, False)] * 4
    assert tide.emitter.stats().unread_answers == 4


STREAMED: dict[str, tuple[list[Any], dict[str, Any]]] = {
    "openai": (
        [
            {"id": "c1", "model": "gpt-4o-2024-08-06", "choices": [{"index": 0, "delta": {"content": "Fine"}}], "usage": None},
            {"id": "c1", "model": "gpt-4o-2024-08-06", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
            {"id": "c1", "choices": [], "usage": {"prompt_tokens": 12, "completion_tokens": 7}},
        ],
        {"input_tokens": 12, "output_tokens": 7, "finish_reason": "stop", "response_model": "gpt-4o-2024-08-06"},
    ),
    "openai responses": (
        [
            {"type": "response.output_text.delta", "delta": "Fine"},
            {
                "type": "response.completed",
                "response": {"object": "response", "status": "completed", "usage": {"input_tokens": 12, "output_tokens": 7}},
            },
        ],
        {"output_tokens": 7, "finish_reason": "completed"},
    ),
    "anthropic": (
        [
            {"type": "message_start", "message": {**ANTHROPIC, "stop_reason": None, "content": []}},
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Fine"}},
            {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 19}},
        ],
        {"input_tokens": 112, "output_tokens": 19, "cache_read_tokens": 100, "finish_reason": "end_turn"},
    ),
    "google": (
        [
            {
                "candidates": [{"content": {"parts": [{"text": "Fine"}]}, "finishReason": "STOP"}],
                "usageMetadata": {"promptTokenCount": 12, "candidatesTokenCount": 7},
            }
        ],
        {"input_tokens": 12, "output_tokens": 7, "finish_reason": "stop"},
    ),
    "bedrock": (
        [
            {"contentBlockDelta": {"contentBlockIndex": 0, "delta": {"text": "Fine"}}},
            {"messageStop": {"stopReason": "end_turn"}},
            {"metadata": {"usage": {"inputTokens": 12, "outputTokens": 7}}},
        ],
        {"input_tokens": 12, "output_tokens": 7, "finish_reason": "end_turn"},
    ),
    "langchain": (
        [
            {"content": "", "tool_call_chunks": [], "usage_metadata": {"input_tokens": 12, "output_tokens": 0}},
            {"content": "Fine", "tool_call_chunks": [], "usage_metadata": {"input_tokens": 0, "output_tokens": 3}},
            {"content": "", "tool_call_chunks": [], "usage_metadata": {"input_tokens": 0, "output_tokens": 4}},
        ],
        {"input_tokens": 12, "output_tokens": 7},
    ),
    "lines": (
        [
            b'data: {"choices": [{"delta": {"content": "Fine"}}]}',
            b'data: {"choices": [], "usage": {"prompt_tokens": 12, "completion_tokens": 7}}',
            b"data: [DONE]",
        ],
        {"input_tokens": 12, "output_tokens": 7},
    ),
}


@pytest.mark.parametrize(("events", "said"), STREAMED.values(), ids=STREAMED)
def test_a_streams_events_say_what_its_call_has_used(tide: Tide, events: list[Any], said: dict[str, Any]) -> None:
    with tide.emitter.call(model="m") as call:
        for event in events:
            tide.clock.now += 0.25
            call.chunk(event)

    event = tide.event()
    assert said.items() <= event.items()
    assert event["time_to_first_token_s"] in (0.25, 0.5)
    assert tide.emitter.stats().internal_errors == 0


def test_an_event_whose_text_cannot_be_read_still_says_what_was_used(tide: Tide) -> None:
    class Odd:
        def __getattr__(self, name: str) -> Any:
            raise RuntimeError(name)

    with tide.emitter.call(model="m") as call:
        call.chunk({"choices": [{"delta": Odd()}], "usage": {"prompt_tokens": 12, "completion_tokens": 7}})

    event = tide.event()
    assert (event["input_tokens"], event["output_tokens"]) == (12, 7)
    assert tide.emitter.stats().internal_errors == 1


def test_one_wrong_field_does_not_cost_the_call(tide: Tide, caplog: pytest.LogCaptureFixture) -> None:
    with tide.emitter.call(
        model="m",
        tenant="harbor",
        user=4711,  # type: ignore[arg-type]
        temperature=Decimal("0.2"),  # type: ignore[arg-type]
        trace_id="not a slug",
        team="x" * 500,
    ) as call:
        call.usage(input_tokens=5, cache_read_tokens=9)
        call.quality(relevance=0.5)

    event = tide.event()
    assert (event["tenant"], event["user"], event["team"]) == ("harbor", "4711", "x" * 128)
    assert event["input_tokens"] == 5
    assert event["quality"] == {"relevance": 0.5}
    assert not event.keys() & {"temperature", "trace_id", "cache_read_tokens"}
    assert tide.emitter.stats().invalid == 0
    assert tide.emitter.stats().internal_errors == 1
    assert "fields=trace_id,temperature,cache_read_tokens" in caplog.text
    assert "slug" not in caplog.text


def test_nothing_that_goes_wrong_inside_reaches_the_caller(tide: Tide, caplog: pytest.LogCaptureFixture) -> None:
    class Hostile:
        def __getattr__(self, name: str) -> Any:
            raise RuntimeError("chest pain")

        def __str__(self) -> str:
            raise RuntimeError("chest pain")

    for _ in range(2):
        with tide.emitter.call(model="m", prompt=Hostile(), labels=7, estimate=7) as call:  # type: ignore[arg-type]
            call.answer(Hostile())
            call.usage(tokens=3)
            call.retrieved(7)  # type: ignore[arg-type]
            call.retrieved([Hostile()])
            call.quality(relevance="high")  # type: ignore[arg-type]
            call.label(ward=Hostile())

    assert [event["event"] for event in tide.events()] == ["response", "response"]
    assert tide.emitter.stats().internal_errors >= 10
    assert "chest pain" not in caplog.text
    assert len(caplog.records) == len({record.message for record in caplog.records}), "each is told once"


def test_an_exception_that_cannot_be_looked_at_is_still_a_failure(tide: Tide) -> None:
    class Hostile(Exception):
        @property
        def status_code(self) -> int:
            raise RuntimeError("not now")

    with pytest.raises(Hostile), tide.emitter.call(model="m"):
        raise Hostile

    assert tide.event()["error_type"] == "failure"


def test_a_call_ends_once(tide: Tide) -> None:
    with tide.emitter.call(model="m") as call:
        call.end()
        call.end(ValueError())

    assert "error_type" not in tide.event()


def test_a_call_without_a_block_is_ended_by_hand(tide: Tide) -> None:
    call = tide.emitter.call(model="m")
    call.answer(ANTHROPIC)
    call.end()

    assert tide.event()["output_tokens"] == 7


# --- the classes of SDKs and clients, by shape: none of them is installed here


def named(name: str, *bases: type[BaseException], **attributes: Any) -> BaseException:
    kind: Callable[[], BaseException] = type(name, bases or (Exception,), {})
    error = kind()
    for attribute, value in attributes.items():
        setattr(error, attribute, value)
    return error


class APIStatusError(Exception):
    def __init__(self, status: int, code: str | None = None, body: Any = None, message: str = "") -> None:
        super().__init__(message)
        self.status_code, self.code, self.body = status, code, body
        self.response = SimpleNamespace(status_code=status)


class ClientError(Exception):
    def __init__(self, code: str, status: int) -> None:
        self.response = {"Error": {"Code": code, "Message": "text"}, "ResponseMetadata": {"HTTPStatusCode": status}}


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (APIStatusError(429, "rate_limit_exceeded"), ("rate_limit", "rate_limit_exceeded")),
        (APIStatusError(429, "insufficient_quota"), ("rate_limit", "insufficient_quota")),
        (APIStatusError(400, "context_length_exceeded"), ("context_length", "context_length_exceeded")),
        (APIStatusError(400, "content_filter"), ("content_filter", "content_filter")),
        (APIStatusError(400, message="prompt is too long: 210000 tokens > 200000 maximum"), ("context_length", "400")),
        (APIStatusError(401, "invalid_api_key"), ("authentication", "invalid_api_key")),
        (APIStatusError(403), ("permission", "403")),
        (APIStatusError(404, "model_not_found"), ("not_found", "model_not_found")),
        (APIStatusError(422), ("invalid_request", "422")),
        (APIStatusError(500), ("server_error", "500")),
        (
            APIStatusError(529, body={"error": {"type": "overloaded_error"}}),
            ("overloaded", "overloaded_error"),
        ),
        (named("APITimeoutError"), ("timeout", None)),
        (named("APIConnectionError"), ("connection", None)),
        (named("ReadTimeout", ConnectionError), ("timeout", None)),
        (named("ConnectError"), ("connection", None)),
        (named("RemoteProtocolError"), ("connection", None)),
        (ClientError("ThrottlingException", 429), ("rate_limit", "ThrottlingException")),
        (ClientError("AccessDeniedException", 403), ("permission", "AccessDeniedException")),
        (ClientError("ValidationException", 400), ("invalid_request", "ValidationException")),
        (named("EndpointConnectionError"), ("connection", None)),
        (named("ClientError", code=429, status="RESOURCE_EXHAUSTED"), ("rate_limit", "RESOURCE_EXHAUSTED")),
        (named("ServerError", code=503, status="UNAVAILABLE"), ("overloaded", "UNAVAILABLE")),
        (named("DeadlineExceeded", code=504), ("timeout", "504")),
        (named("HTTPError", response=SimpleNamespace(status_code=502)), ("server_error", "502")),
        (urllib.error.URLError("x"), ("failure", None)),
        (TimeoutError(), ("timeout", None)),
        (socket.gaierror(), ("connection", None)),
        (ConnectionResetError(), ("connection", None)),
        (asyncio.CancelledError(), ("cancelled", None)),
        (KeyboardInterrupt(), ("cancelled", None)),
        (GeneratorExit(), ("cancelled", None)),
        (ValueError("rate limit"), ("failure", None)),
        (named("HTTPError", status_code=True), ("failure", None)),
    ],
    ids=lambda value: f"{type(value).__name__}-{value}"[:40] if isinstance(value, BaseException) else None,
)
def test_exceptions_are_classified_by_status_code_and_class(error: BaseException, expected: tuple[str, str | None]) -> None:
    assert classify(error) == expected
