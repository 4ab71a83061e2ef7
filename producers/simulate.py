"""Simulated clinic traffic, for demos and load: plausible metering events without a model, a key or a word of text; and, when
asked for, texts for the guardrails beside them.

    seed, now ── generate ──► events in the order in which calls end
                    └── simulate ── at their time, or as fast as they are taken ──► emitter

Six tenants run a dozen workloads on real, priced models and one of their own that nobody has a price for. Calls stream,
cache, retrieve, fail, are retried and fall back. Things happen that a dashboard should show: a provider has an outage
(the first after a minute and a half), and from the 2,000th call on half of the triage users get a prompt version that is
longer-winded and retrieves worse. The same seed and time give the same events on every machine. With a gate some of the
services ask it first (`simulate_gates`), and then what goes out depends on its answers.
"""

from __future__ import annotations

import heapq
import math
import random
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple, Protocol

from .ports import Settled
from .simulate_gates import Asked, Obedience
from .simulate_texts import texts_of

# The draws that every event needs come from tables of this size: a table look-up costs a tenth of a draw.
_TABLE: Final = 4_096
NEW_VERSION_AFTER_CALLS: Final = 2_000
FIRST_OUTAGE_S: Final = 90.0
_MEAN_BETWEEN_OUTAGES_S: Final = 600.0
# No sleep is more precise than this; a shorter wait is none.
_PACE_S: Final = 50e-6
# Unpaced, time in the stream runs as if traffic were this dense, so that events do not run ahead of the clock.
_UNPACED_RATE_PER_S: Final = 50_000.0


@dataclass(frozen=True, slots=True)
class _Model:
    """`cache` says how the provider counts: `blocks` of 128 beyond 1,024 tokens, `written` at a premium, or not at all."""

    name: str
    provider_name: str
    first_token_s: float
    tokens_per_s: float
    fallback: str
    response_model: str | None = None
    cache: str | None = None


_MODELS: Final = {
    model.name: model
    for model in (
        _Model("gpt-4o", "openai", 0.45, 85, "claude-sonnet-4-5", "gpt-4o-2024-08-06", "blocks"),
        _Model("gpt-4o-mini", "openai", 0.35, 110, "claude-haiku-4-5", "gpt-4o-mini-2024-07-18", "blocks"),
        _Model("text-embedding-3-small", "openai", 0.09, 1e9, "text-embedding-3-small"),
        _Model("claude-sonnet-4-5", "anthropic", 0.9, 65, "gpt-4o", "claude-sonnet-4-5-20250929", "written"),
        _Model("claude-haiku-4-5", "anthropic", 0.5, 130, "gpt-4o-mini", "claude-haiku-4-5-20251001", "written"),
        _Model("gemini-2.5-flash", "gcp.gemini", 0.4, 160, "gpt-4o-mini"),
        _Model("amazon.nova-lite-v1:0", "aws.bedrock", 0.35, 140, "gpt-4o-mini"),
        _Model("mistral-small-latest", "mistral_ai", 0.4, 120, "gpt-4o-mini"),
        _Model("northside-coder-7b", "self_hosted", 0.2, 45, "gpt-4o-mini"),
    )
}


@dataclass(frozen=True, slots=True, eq=False)  # a key of dicts on every draw: hashed by identity, not by 18 fields
class _Workload:
    """What one team does with one prompt; `night` is its share of daytime traffic between 19 and 7 o'clock UTC."""

    tenant: str
    team: str
    task_type: str
    prompt_name: str
    prompt_version: str
    model: str
    weight: float
    prefix_tokens: int
    input_tokens: int
    output_tokens: int
    users: int = 20
    chunks: int = 0
    stream: bool = True
    night: float = 0.3
    region: str = "us-east-1"
    next_version: str | None = None
    experiment: str | None = None


# fmt: off — a table reads in rows: who, what for, with which prompt and model, how often, prefix + input → output tokens
_WORKLOADS: Final = (
    _Workload(
        "harbor-health",
        "triage",
        "chat",
        "triage",
        "2.1",
        "claude-sonnet-4-5",
        16,
        2_200,
        420,
        260,
        users=40,
        chunks=4,
        night=0.6,
        next_version="2.2",
    ),
    _Workload("harbor-health", "pharmacy", "extraction", "interactions", "1.4", "gpt-4o", 10, 1_536, 300, 120, chunks=5),
    _Workload(
        "harbor-health",
        "discharge",
        "summarization",
        "discharge-summary",
        "3.0",
        "gpt-4o-mini",
        9,
        900,
        1_400,
        380,
        stream=False,
        experiment="discharge-tone",
    ),
    _Workload("st-anne", "radiology", "summarization", "report-impression", "1.2", "claude-haiku-4-5", 11, 1_400, 700, 180),
    _Workload("st-anne", "emergency", "chat", "handover", "0.9", "gpt-4o", 8, 1_024, 500, 210, night=1.2),
    _Workload(
        "northside-clinic",
        "billing",
        "classification",
        "icd-coding",
        "4.2",
        "northside-coder-7b",
        7,
        0,
        650,
        40,
        stream=False,
        night=0.1,
        region="us-west-2",
    ),
    _Workload(
        "northside-clinic",
        "scheduling",
        "chat",
        "scheduler",
        "1.0",
        "gemini-2.5-flash",
        9,
        0,
        380,
        90,
        night=0.1,
        region="us-west-2",
    ),
    _Workload(
        "lakeview-pediatrics",
        "nurse-line",
        "chat",
        "nurse-line",
        "1.1",
        "claude-haiku-4-5",
        8,
        1_800,
        260,
        220,
        chunks=3,
        night=0.9,
        region="us-west-2",
    ),
    _Workload("retail-care", "chat", "chat", "general-assistant", "v2", "gpt-4o-mini", 12, 0, 180, 200, users=80),
    _Workload("retail-care", "search", "embedding", "embed-query", "v1", "text-embedding-3-small", 6, 0, 40, 0, stream=False),
    _Workload(
        "research-lab",
        "literature",
        "extraction",
        "abstract-screening",
        "1.3",
        "amazon.nova-lite-v1:0",
        6,
        0,
        2_400,
        90,
        users=6,
        stream=False,
        night=2.5,
        region="eu-west-1",
    ),
    _Workload(
        "research-lab",
        "coding",
        "chat",
        "code-helper",
        "0.4",
        "mistral-small-latest",
        5,
        0,
        800,
        340,
        users=8,
        region="eu-west-1",
    ),
)
# fmt: on

# Of a hundred calls one and a half fail. Timeouts take as long as the client waits; the others answer soon.
_ERROR_SHARE: Final = 0.015
_OUTAGE_ERROR_SHARE: Final = 0.8
_TIMEOUT_S: Final = 30.0
_ERRORS: Final = {  # type: (weight, provider's code, seconds until the answer)
    "rate_limit": (40, "429", 0.08),
    "timeout": (17, "timeout", _TIMEOUT_S),
    "overloaded": (12, "529", 0.6),
    "server_error": (9, "500", 1.1),
    "context_length": (6, "context_length_exceeded", 0.15),
    "invalid_request": (4, "400", 0.1),
    "content_filter": (3, "content_filter", 0.4),
    "connection": (3, "ECONNRESET", 0.3),
    "cancelled": (3, "cancelled", 1.5),
    "authentication": (1, "401", 0.05),
    "permission": (1, "403", 0.05),
    "not_found": (0.5, "404", 0.05),
    "failure": (0.5, "unknown", 0.5),
}
_OUTAGE_ERRORS: Final = {"overloaded": 60.0, "timeout": 25.0, "server_error": 15.0}
_RETRIED: Final = frozenset({"rate_limit", "timeout", "overloaded", "server_error", "connection"})

# Traffic by hour of the day (UTC), around a mean of 1: a clinic's morning, a quiet night.
_HOURS: Final = tuple(1.0 - 0.65 * math.cos(math.tau * (hour - 2.0) / 24) for hour in range(24))


class _Clinics:
    """All draws of one seed: tables made once, then one event at a time."""

    def __init__(self, seed: int, start: datetime) -> None:
        self.seed = seed
        self.rng = rng = random.Random(seed)  # noqa: S311 — plausible traffic, not a secret
        self.random = rng.random
        self.start_us = int(start.timestamp()) * 1_000_000 + start.microsecond
        self.calls = 0
        self.spread = [rng.lognormvariate(0.0, 0.45) for _ in range(_TABLE)]
        self.errors = _slots({kind: float(weight) for kind, (weight, _, _) in _ERRORS.items()})
        self.outage_errors = _slots(_OUTAGE_ERRORS)
        self.by_hour = [_slots({w: w.weight * (1.0 if 7 <= hour < 19 else w.night) for w in _WORKLOADS}) for hour in range(24)]
        self.chunks = {w: [self._retrieved(w, 0.0) for _ in range(256)] for w in _WORKLOADS if w.chunks}
        self.worse_chunks = {w: [self._retrieved(w, 0.12) for _ in range(256)] for w in _WORKLOADS if w.chunks}
        self.templates = {w: [self._template(w, number) for number in range(w.users)] for w in _WORKLOADS}
        self.outage: tuple[float, float, str] = (FIRST_OUTAGE_S, FIRST_OUTAGE_S + 40.0, "anthropic")
        self._seconds: dict[int, str] = {}

    def _retrieved(self, workload: _Workload, worse: float) -> list[dict[str, Any]]:
        scores = sorted((min(0.99, max(0.05, self.rng.gauss(0.74 - worse, 0.1))) for _ in range(workload.chunks)), reverse=True)
        return [
            {
                "chunk_id": f"guide-{self.rng.randrange(900):04}",
                "score": round(score, 3),
                "source": f"{workload.team}/guidelines",
            }
            for score in scores
        ]

    def _template(self, workload: _Workload, number: int) -> dict[str, Any]:
        """All of an event that does not change from one call of a user to the next."""
        event: dict[str, Any] = {
            "event": "response",
            "tenant": workload.tenant,
            "team": workload.team,
            "user": f"{workload.team}-{number:03}",
            "service": f"{workload.prompt_name}-api",
            "environment": "staging" if number % 25 == 24 else "production",
            "region": workload.region,
            "task_type": workload.task_type,
            "operation_name": "embeddings" if workload.task_type == "embedding" else "chat",
            "prompt_name": workload.prompt_name,
            "prompt_version": workload.prompt_version,
            "attempt": 1,
            "labels": {"channel": "phone" if number % 3 == 0 else "web"},
        }
        if workload.output_tokens:
            event |= {"temperature": 0.2, "max_tokens": 1_024, "stream": workload.stream}
        if workload.experiment:
            event |= {"experiment": workload.experiment, "variant": "concise" if number % 2 else "control"}
        return event

    def stamp(self, at_s: float) -> str:
        """RFC 3339 of a moment in seconds from the start, to the microsecond."""
        second, micros = divmod(self.start_us + round(at_s * 1e6), 1_000_000)
        text = self._seconds.get(second)
        if text is None:
            if len(self._seconds) > 256:  # many calls start within the same minute
                self._seconds.clear()
            text = self._seconds[second] = datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")
        return f"{text}.{micros:06}Z"

    def down(self, at_s: float) -> str | None:
        """The provider whose outage it is, if any."""
        start, end, provider = self.outage
        if at_s >= end:
            start = end + self.rng.expovariate(1 / _MEAN_BETWEEN_OUTAGES_S)
            provider = self.rng.choice(("anthropic", "openai", "gcp.gemini", "aws.bedrock"))
            end = start + self.rng.uniform(20.0, 60.0)
            self.outage = (start, end, provider)
        return provider if start <= at_s < end else None

    def first_attempt(self, at_s: float) -> _Attempt:
        hour = (self.start_us // 1_000_000 + int(at_s)) // 3_600 % 24
        workload = self.by_hour[hour][int(self.random() * _TABLE)]
        draw = self.random()
        user = int(draw * draw * workload.users)  # a few users make most of the calls
        return _Attempt(workload, user, _MODELS[workload.model], f"{self.rng.getrandbits(128):032x}")

    def event(self, attempt: _Attempt, at_s: float) -> dict[str, Any]:
        """One attempt, around `at_s`: all but `started_at`, which depends on what the attempt took."""
        workload, model = attempt.workload, attempt.model
        event = self.templates[workload][attempt.user].copy()
        event["call_id"] = f"sim-{self.seed}-{self.calls}"
        event["trace_id"] = attempt.trace_id
        event["provider_name"] = model.provider_name
        event["request_model"] = model.name
        if attempt.number > 1:
            event["attempt"] = attempt.number
            if attempt.fallback_from:
                event["fallback_from"] = attempt.fallback_from
        changed = workload.next_version is not None and self.calls >= NEW_VERSION_AFTER_CALLS and attempt.user % 2 == 1
        if changed:
            event["prompt_version"] = workload.next_version
        self.calls += 1

        is_down = self.down(at_s) == model.provider_name
        if self.random() < (_OUTAGE_ERROR_SHARE if is_down else _ERROR_SHARE):
            self._fail(event, self.outage_errors if is_down else self.errors)
        else:
            self._succeed(event, workload, model, changed)
        return event

    def _fail(self, event: dict[str, Any], errors: list[str]) -> None:
        kind = errors[int(self.random() * _TABLE)]
        _, code, seconds = _ERRORS[kind]
        spread = 1.0 if kind == "timeout" else self.spread[int(self.random() * _TABLE)]
        event["latency_s"] = round(seconds * spread, 6)
        event["error_type"] = kind
        event["error_code"] = code

    def _succeed(self, event: dict[str, Any], workload: _Workload, model: _Model, changed: bool) -> None:
        draw, spread = self.random, self.spread
        if model.response_model:
            event["response_model"] = model.response_model
        tokens = workload.prefix_tokens + int(workload.input_tokens * spread[int(draw() * _TABLE)]) + 1
        event["input_tokens"] = tokens
        if model.cache == "written" and workload.prefix_tokens:
            event["cache_read_tokens" if draw() < 0.88 else "cache_write_5m_tokens"] = workload.prefix_tokens
        elif model.cache == "blocks":
            cached = workload.prefix_tokens // 128 * 128 if tokens > 1_024 and draw() < 0.6 else 0
            event["cache_read_tokens"] = cached
        first_token_s = model.first_token_s * spread[int(draw() * _TABLE)]
        latency_s = first_token_s
        if workload.output_tokens:
            answer = int(workload.output_tokens * spread[int(draw() * _TABLE)] * (1.35 if changed else 1.0)) + 1
            cut = answer >= 1_024
            event["output_tokens"] = answer = 1_024 if cut else answer
            event["finish_reason"] = "length" if cut else "stop"
            latency_s += answer / model.tokens_per_s * (0.85 + 0.3 * draw())
            if workload.stream:
                event["time_to_first_token_s"] = round(first_token_s, 6)
        event["latency_s"] = round(latency_s, 6)
        if workload.chunks:
            event["retrieval"] = (self.worse_chunks if changed else self.chunks)[workload][int(draw() * 256)]
        if workload.task_type == "chat" and draw() < 0.02:
            event["quality"] = {"user_rating": float(min(5, int(draw() * 4) + (1 if changed else 2)))}


class _Attempt(NamedTuple):
    workload: _Workload
    user: int
    model: _Model
    trace_id: str
    number: int = 1
    fallback_from: str | None = None

    def after(self) -> _Attempt | None:
        """What the service tries when this has failed: the same model once more, then another one, then nothing."""
        if self.number == 1:
            return self._replace(number=2)
        if self.number == 2 and self.model.fallback != self.model.name:
            return self._replace(number=3, model=_MODELS[self.model.fallback], fallback_from=self.model.name)
        return None


def _slots(weights: Mapping[Any, float]) -> list[Any]:
    """A table in which each key fills a share of the places: one look-up is one weighted draw."""
    total, filled = sum(weights.values()), 0.0
    slots: list[Any] = []
    for key, weight in weights.items():
        filled += weight
        slots += [key] * (round(filled / total * _TABLE) - len(slots))
    return slots


def _timeline(seed: int, now: datetime, rate_per_s: float, diurnal: bool) -> Iterator[tuple[float, dict[str, Any]]]:
    """Events with the seconds from the start at which their calls end, in that order."""
    clinics = _Clinics(seed, now)
    retries: list[tuple[float, int, _Attempt, dict[str, Any]]] = []
    order = 0
    at_s = 0.0
    while True:
        rate = rate_per_s * (1.0 + 0.25 * math.sin(at_s * math.tau / 37.0))
        if diurnal:
            rate *= _HOURS[(clinics.start_us // 1_000_000 + int(at_s)) // 3_600 % 24]
        at_s -= math.log(1.0 - clinics.random()) / rate
        attempt = clinics.first_attempt(at_s)
        ending = (at_s, order, attempt, clinics.event(attempt, at_s))
        order += 1
        while retries and retries[0][0] <= at_s:
            yield from _ended(clinics, heapq.heappop(retries), retries)
        yield from _ended(clinics, ending, retries)


def _ended(
    clinics: _Clinics,
    ending: tuple[float, int, _Attempt, dict[str, Any]],
    retries: list[tuple[float, int, _Attempt, dict[str, Any]]],
) -> Iterator[tuple[float, dict[str, Any]]]:
    """Give out one finished attempt; a failed one that is worth it puts its successor among the retries."""
    at_s, _, attempt, event = ending
    event["started_at"] = clinics.stamp(at_s - event["latency_s"])
    yield at_s, event
    if event.get("error_type") in _RETRIED and (again := attempt.after()) is not None:
        begins = at_s + 0.5 * 2**attempt.number * clinics.spread[int(clinics.random() * _TABLE)]
        retry = clinics.event(again, begins)
        heapq.heappush(retries, (begins + retry["latency_s"], clinics.calls, again, retry))


def generate(seed: int, now: datetime, *, rate_per_s: float = 20.0, diurnal: bool = True) -> Iterator[dict[str, Any]]:
    """An endless stream of response events, ordered by when their calls end; the first ends just after `now`. Pure.

    `rate_per_s` is the mean of first attempts, over a day when `diurnal`; retries come on top, about one in a hundred.
    The events share inner lists and dicts: read them, do not change them.
    """
    return (event for _, event in _timeline(seed, now, rate_per_s, diurnal))


def become(event: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The same call with another model, as a service makes it that was told to: of the tokens all but what was cached, for that
    was another model's cache."""
    caches = ("cache_read_tokens", "cache_write_5m_tokens", "response_model")
    told = {field: value for field, value in event.items() if field not in caches}
    told |= {"request_model": name, "fallback_from": event["request_model"]}
    if (model := _MODELS.get(name)) is not None:
        told["provider_name"] = model.provider_name
        if model.response_model and "error_type" not in event:
            told["response_model"] = model.response_model
    return told


class Outlet(Protocol):
    """What a simulation needs of an Emitter."""

    def emit(self, event: Mapping[str, Any], settled: Settled | None = None, /) -> bool: ...
    def emit_content(self, call: Mapping[str, Any], texts: Mapping[str, Any], /) -> bool: ...
    def wait_for_room(self) -> object: ...


@dataclass(frozen=True, slots=True)
class SimulationReport:
    """Events the emitter accepted and dropped, and how long it took by the clock; calls kept back by a gate, by policy."""

    emitted: int
    dropped: int
    elapsed_s: float
    kept_back: Mapping[str, int]


def _never() -> bool:
    return False


def simulate(
    emitter: Outlet,
    *,
    rate_per_s: float | None = 20.0,
    duration_s: float | None = None,
    seed: int = 1,
    now: datetime | None = None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], object] = time.sleep,
    stop: Callable[[], bool] = _never,
    diurnal: bool = False,
    content: bool = False,
    gate: Asked | None = None,
) -> SimulationReport:
    """Emit simulated traffic from `now` on (default: the time it is) until `stop` says so or `duration_s` is over.

    Each event goes out when its call ends. A paced simulation drops what the emitter has no room for, as a service
    would; with `rate_per_s=None` it runs as fast as the emitter takes events, and waits for room instead. With `content`
    calls also say something (`simulate_texts`), which leaves by the emitter's way for content. With a `gate` the services that
    ask one obey it.
    Raises `ValueError` when the rate is not positive.
    """
    if rate_per_s is not None and not rate_per_s > 0:
        raise ValueError("rate_per_s must be above 0, or None for as fast as possible")
    paced = rate_per_s is not None
    started = clock()
    emitted = dropped = 0
    obedience = Obedience(gate, become) if gate is not None else None
    timeline = _timeline(seed, now or datetime.now(UTC), rate_per_s or _UNPACED_RATE_PER_S, diurnal)
    for at_s, event in timeline:
        elapsed_s = clock() - started
        # In slices, so that a stop in a quiet hour is heard within a fifth of a second.
        while paced and at_s - elapsed_s > _PACE_S and not stop() and (duration_s is None or elapsed_s < duration_s):
            sleep(min(at_s - elapsed_s, 0.2))
            elapsed_s = clock() - started
        if stop() or (duration_s is not None and elapsed_s >= duration_s):
            break
        if not paced:
            emitter.wait_for_room()
        held: Settled | None = None
        if obedience is not None:
            if (let := obedience.let(event)) is None:
                continue
            event, held = let
        if emitter.emit(event, held) if held is not None else emitter.emit(event):
            emitted += 1
        else:
            dropped += 1
        if content and (texts := texts_of(event)) is not None:
            emitter.emit_content(event, texts)
    return SimulationReport(emitted, dropped, clock() - started, obedience.kept_back if obedience is not None else {})
