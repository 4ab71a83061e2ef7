"""The chain that a call follows when gates are closed and providers fail."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest
from memory_log import MemoryLog
from signalling import Stage, policy
from tidegate.producers.emitter import Emitter
from tidegate.producers.fallback import Candidate, Fallback
from tidegate.producers.gate import Gate
from tidegate.schemas.errors import GateClosed, UsageError
from tidegate.schemas.settings import Settings

CLAUDE = ("anthropic", "claude-sonnet-4-5")
GPT = ("openai", "gpt-4o")
GEMINI = ("gcp.gemini", "gemini-2.5-flash")
BREAKER = policy(
    "breaker", measure="error_rate", limit="0.5", scope=["provider_name"], window={"rolling": "5m"}, minimum_requests=1
)


class Overloaded(Exception):
    """As a provider's SDK raises it."""

    def __init__(self, status: int = 529, headers: dict[str, str] | None = None) -> None:
        super().__init__("the patient's prompt")
        self.status_code = status
        self.response = type("Response", (), {"headers": headers or {}, "status_code": status})()


class Refused(Overloaded):
    def __init__(self) -> None:
        super().__init__(401)


class GuardedEmitter(Emitter):
    """An emitter whose gate hears what a test tells it."""

    held: Gate

    @property
    def gate(self) -> Gate | None:
        return self.held


@dataclass
class Service:
    """A service on a stage. `fails` says what each provider does; `asked` keeps the order in which they were asked."""

    stage: Stage = field(default_factory=Stage)
    log: MemoryLog = field(default_factory=MemoryLog)
    fails: dict[str, Callable[[], Exception]] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        settings = Settings(linger_s=0)
        self.tide = GuardedEmitter(
            self.log, settings=settings, now=lambda: datetime(2026, 11, 2, 8, tzinfo=UTC), monotonic=self.stage.clock
        )
        self.tide.held = self.stage.gate

    def chain(self, *candidates: tuple[str, str] | Candidate, **settings: Any) -> Fallback:
        given: dict[str, Any] = {"sleep": self.sleep, "asleep": self.asleep, "uniform": lambda low, high: high}
        return Fallback(self.tide, candidates or (CLAUDE, GPT), **given | settings)

    def sleep(self, wait_s: float) -> None:
        self.waits.append(wait_s)
        self.stage.sleep(wait_s)

    async def asleep(self, wait_s: float) -> None:
        self.sleep(wait_s)

    def ask(self, provider: str, model: str) -> dict[str, Any]:
        self.asked.append((provider, model))
        if provider in self.fails:
            raise self.fails[provider]()
        return {"model": model, "usage": {"input_tokens": 10, "output_tokens": 2}}

    def follow(self, chain: Fallback, **fields: Any) -> None:
        for attempt in chain(tenant="harbor-health", **fields):
            with attempt as call:
                call.answer(self.ask(attempt.provider, call.model))

    def shut(self, provider: str, **fields: Any) -> None:
        """The breaker says that this provider is down."""
        given = {"state": "block", "scope": {"provider_name": provider}, "measure": "error_rate", "limit": 0.5} | fields
        self.stage.tell(self.stage.signal("breaker", 1.0, **given))

    def events(self) -> list[dict[str, Any]]:
        assert self.tide.flush(20)
        return [event for events in self.log.counted().values() for _, event in events]


@pytest.fixture
def service() -> Iterator[Service]:
    service = Service()
    service.stage.enforce(BREAKER)
    yield service
    service.tide.close(20)


def test_the_first_choice_answers_while_nothing_is_wrong(service: Service) -> None:
    service.follow(service.chain())

    (event,) = service.events()
    assert service.asked == [CLAUDE]
    assert (event["attempt"], event["provider_name"], event["input_tokens"]) == (1, "anthropic", 10)
    assert "fallback_from" not in event
    assert "error_type" not in event


def test_a_failure_that_may_pass_goes_to_the_next_candidate_at_once(service: Service) -> None:
    service.fails["anthropic"] = Overloaded

    service.follow(service.chain())

    first, second = service.events()
    assert service.asked == [CLAUDE, GPT]
    assert service.waits == []
    assert (first["attempt"], first["error_type"]) == (1, "overloaded")
    assert (second["attempt"], second["fallback_from"], second["request_model"]) == (2, "claude-sonnet-4-5", "gpt-4o")
    assert first["call_id"] != second["call_id"]


@pytest.mark.parametrize("error", [Overloaded, lambda: Overloaded(429), lambda: Overloaded(500), TimeoutError, ConnectionError])
def test_these_failures_may_pass(service: Service, error: Callable[[], Exception]) -> None:
    service.fails["anthropic"] = error

    service.follow(service.chain())

    assert service.asked == [CLAUDE, GPT]


@pytest.mark.parametrize("error", [Refused, lambda: Overloaded(400), lambda: Overloaded(404), KeyError, ZeroDivisionError])
def test_any_other_failure_is_the_caller_s_at_once(service: Service, error: Callable[[], Exception]) -> None:
    raised = error()
    service.fails["anthropic"] = lambda: raised

    with pytest.raises(type(raised)) as caught:
        service.follow(service.chain())

    assert caught.value is raised
    assert not hasattr(raised, "__notes__")
    assert service.asked == [CLAUDE]


def test_the_last_provider_s_own_exception_is_raised_and_says_what_came_before(service: Service) -> None:
    last = Overloaded(503)
    service.fails |= {"anthropic": TimeoutError, "openai": lambda: last}

    with pytest.raises(Overloaded) as caught:
        service.follow(service.chain(rounds=1))

    assert caught.value is last
    assert last.__notes__ == [
        "tidegate fallback: anthropic claude-sonnet-4-5 (timeout), openai gpt-4o (overloaded)",
    ]
    assert caught.traceback[-1].name == "ask"


def test_a_second_round_begins_after_a_wait_and_asks_the_least_asked_first(service: Service) -> None:
    service.fails |= {"anthropic": Overloaded, "openai": Overloaded, "gcp.gemini": Overloaded}

    with pytest.raises(Overloaded):
        service.follow(service.chain(CLAUDE, GPT, GEMINI, rounds=2))

    assert service.asked == [CLAUDE, GPT, GEMINI, CLAUDE, GPT, GEMINI]
    assert service.waits == [pytest.approx(0.25 * 1.5)]
    assert [event["attempt"] for event in service.events()] == [1, 2, 3, 4, 5, 6]


def test_a_candidate_is_not_asked_again_before_its_provider_s_retry_after(service: Service) -> None:
    service.fails |= {"anthropic": lambda: Overloaded(429, {"Retry-After": "7"}), "openai": Overloaded}

    with pytest.raises(Overloaded):
        service.follow(service.chain(rounds=2))

    assert service.asked == [CLAUDE, GPT, GPT, CLAUDE]
    assert sum(service.waits) >= 7


def test_no_attempt_begins_when_the_time_is_over(service: Service) -> None:
    def slowly() -> Exception:
        service.stage.pass_s(20.0)
        return TimeoutError()

    service.fails |= {"anthropic": slowly, "openai": slowly}

    with pytest.raises(TimeoutError):
        service.follow(service.chain(rounds=5, within_s=30.0))

    assert service.asked == [CLAUDE, GPT]


def test_a_wait_never_goes_beyond_the_time(service: Service) -> None:
    service.fails["anthropic"] = lambda: Overloaded(429, {"retry-after": "600"})

    with pytest.raises(Overloaded):
        service.follow(service.chain(CLAUDE))

    assert service.asked == [CLAUDE]
    assert service.waits == []


def test_a_provider_whose_breaker_is_shut_is_passed_over_without_waiting(service: Service) -> None:
    service.shut("anthropic", probe_every_s=30.0)
    chain = service.chain()
    chain.heard = True

    service.follow(chain)

    (event,) = service.events()
    assert service.asked == [GPT]
    assert service.waits == []
    assert (event["attempt"], event["fallback_from"]) == (1, "claude-sonnet-4-5")


def test_one_call_a_probe_finds_out_whether_the_first_choice_is_back(service: Service) -> None:
    service.shut("anthropic", probe_every_s=30.0)
    chain = service.chain()
    chain.heard = True
    service.stage.pass_s(30.0)

    for _ in range(3):
        service.follow(chain)

    assert service.asked == [CLAUDE, GPT, GPT]


def test_when_the_breaker_opens_again_traffic_returns(service: Service) -> None:
    service.shut("anthropic", probe_every_s=30.0)
    chain = service.chain()
    chain.heard = True
    service.follow(chain)

    service.shut("anthropic", state="ok")
    service.follow(chain)

    assert service.asked == [GPT, CLAUDE]


def test_when_all_are_closed_the_refusal_says_which_and_until_when(service: Service) -> None:
    service.shut("anthropic", probe_every_s=30.0, reason="breaker: 60% errors")
    service.shut("openai", resets_at=service.stage.wall + 3_600, reason="breaker: 90% errors")
    chain = service.chain()
    chain.heard = True

    with pytest.raises(GateClosed) as caught:
        service.follow(chain)

    assert caught.value.reason == (
        "none of 2 candidates may be asked: anthropic claude-sonnet-4-5: breaker: 60% errors, again in 30.0 s; "
        "openai gpt-4o: breaker: 90% errors, until 2026-11-02 09:00:00 UTC"
    )
    assert caught.value.policy == "breaker"
    assert caught.value.scope == {"provider_name": "anthropic"}
    assert caught.value.retry_after_s == 30.0
    assert service.asked == []
    assert service.events() == []


def test_a_gate_that_opens_soon_is_waited_for(service: Service) -> None:
    for provider in ("anthropic", "openai"):
        service.shut(provider, probe_every_s=0.5)
    chain = service.chain()
    chain.heard = True

    service.follow(chain)

    assert service.asked == [CLAUDE]
    assert service.waits == [pytest.approx(0.75)]


def test_closed_gates_are_waited_for_no_longer_than_asked(service: Service) -> None:
    service.stage.enforce(policy(limit=10, lease_share=0.5))
    service.stage.tell(service.stage.signal("budget", 9, limit=10.0))
    chain = service.chain(closed_wait_s=1.0)
    chain.heard = True

    for attempt in chain(estimate=(1, 0)):
        with attempt as held:
            held.usage(input_tokens=1, output_tokens=0)
            with pytest.raises(GateClosed, match="not counted yet"):
                service.follow(chain, estimate=(1, 0))

    assert 0.5 < sum(service.waits) <= 1.0


def test_a_failure_is_raised_rather_than_the_refusals_of_the_others(service: Service) -> None:
    service.shut("openai")
    service.fails["anthropic"] = Overloaded

    with pytest.raises(Overloaded) as caught:
        service.follow(service.chain(rounds=1))

    assert caught.value.__notes__ == [
        "tidegate fallback: anthropic claude-sonnet-4-5 (overloaded), openai gpt-4o (closed by breaker)"
    ]


def test_a_downgrade_within_the_provider_is_obeyed(service: Service) -> None:
    service.stage.enforce(
        policy("thrift", match={"model": ["claude-sonnet-4-5"]}, actions=[{"do": "downgrade", "model": "claude-haiku-4-5"}])
    )
    service.stage.tell(service.stage.signal("thrift", 1_000, state="downgrade", model="claude-haiku-4-5"))

    service.follow(service.chain())

    (event,) = service.events()
    assert service.asked == [("anthropic", "claude-haiku-4-5")]
    assert (event["request_model"], event["fallback_from"]) == ("claude-haiku-4-5", "claude-sonnet-4-5")


@pytest.mark.parametrize("where", ["in the chain", "a stand-in"])
def test_a_downgrade_to_another_provider_s_model_is_asked_of_that_provider(service: Service, where: str) -> None:
    service.stage.enforce(
        policy("thrift", match={"provider_name": ["anthropic"]}, actions=[{"do": "downgrade", "model": "gpt-4o"}])
    )
    service.stage.tell(service.stage.signal("thrift", 1_000, state="downgrade", model="gpt-4o"))
    cheap = Candidate(*GPT, options={"max_tokens": 100})
    chain = service.chain(CLAUDE, cheap) if where == "in the chain" else service.chain(CLAUDE, stand_ins=[cheap])

    service.follow(chain)

    (event,) = service.events()
    assert service.asked == [GPT]
    assert (event["provider_name"], event["request_model"], event["max_tokens"]) == ("openai", "gpt-4o", 100)
    assert (event["attempt"], event["fallback_from"]) == (1, "claude-sonnet-4-5")


def test_who_was_downgraded_to_a_candidate_that_failed_does_not_ask_it_again_at_once(service: Service) -> None:
    service.stage.enforce(
        policy("thrift", match={"provider_name": ["anthropic"]}, actions=[{"do": "downgrade", "model": "gpt-4o"}])
    )
    service.stage.tell(service.stage.signal("thrift", 1_000, state="downgrade", model="gpt-4o"))
    service.fails["openai"] = Overloaded

    service.follow(service.chain(CLAUDE, GPT, GEMINI))

    assert service.asked == [GPT, GEMINI]


def test_one_model_of_two_providers_is_asked_of_each(service: Service) -> None:
    service.fails["anthropic"] = Overloaded

    service.follow(service.chain(CLAUDE, ("aws.bedrock", "claude-sonnet-4-5")))

    assert service.asked == [CLAUDE, ("aws.bedrock", "claude-sonnet-4-5")]


def test_each_attempt_is_reserved_and_settled_by_itself(service: Service) -> None:
    service.stage.enforce(BREAKER, policy(limit=1_000))
    service.fails["anthropic"] = Overloaded

    service.follow(service.chain(), estimate=(100, 100))

    # The failed one used nothing, the other one 12 tokens; both are outstanding until a signal counts them.
    (told,) = [told for told in service.stage.gate.explain({"model": "gpt-4o"}) if told["policy"] == "budget"]
    assert (told["outstanding"], told["outstanding_calls"]) == (12, 2)


def test_run_asks_candidates_by_their_own_means_and_reads_the_answer(service: Service) -> None:
    service.fails["anthropic"] = Overloaded
    chain = service.chain(
        *(Candidate(*name, ask=lambda call, name=name: service.ask(name[0], call.model)) for name in (CLAUDE, GPT))
    )

    response = chain.run(tenant="harbor-health")

    assert response["model"] == "gpt-4o"
    assert [event.get("input_tokens") for event in service.events()] == [None, 10]


def test_run_needs_to_know_how_to_ask(service: Service) -> None:
    with pytest.raises(UsageError, match="no `ask` for openai gpt-4o"):
        service.chain(Candidate(*CLAUDE, ask=lambda call: None), GPT).run()


def test_the_same_chain_works_in_an_event_loop(service: Service) -> None:
    service.fails |= {"anthropic": Overloaded, "openai": Overloaded}

    async def ask(call: Any, name: tuple[str, str]) -> dict[str, Any]:
        await asyncio.sleep(0)
        return service.ask(name[0], call.model)

    async def serve() -> list[Any]:
        chain = service.chain(
            *(Candidate(*name, ask=lambda call, name=name: ask(call, name)) for name in (CLAUDE, GPT, GEMINI))
        )
        found = [await chain.arun()]
        async for attempt in chain():
            async with attempt as call:
                call.answer(await ask(call, (attempt.provider, attempt.model)))
                found.append(attempt.provider)
        return found

    response, provider = asyncio.run(serve())

    assert response["model"] == "gemini-2.5-flash"
    assert provider == "gcp.gemini"
    assert service.asked == [CLAUDE, GPT, GEMINI] * 2


def test_a_cancelled_attempt_is_cancelled_and_not_tried_again(service: Service) -> None:
    async def serve() -> None:
        async for attempt in service.chain()():
            async with attempt:
                service.asked.append((attempt.provider, attempt.model))
                await asyncio.sleep(60)

    async def cancel() -> None:
        task = asyncio.create_task(serve())
        while not service.asked:
            await asyncio.sleep(0)
        task.cancel()
        await task

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(cancel())

    assert service.asked == [CLAUDE]
    assert [event["error_type"] for event in service.events()] == ["cancelled"]


def test_a_plain_loop_in_an_event_loop_gives_up_rather_than_hold_it_up(service: Service) -> None:
    service.fails |= {"anthropic": Overloaded, "openai": Overloaded}

    async def serve() -> None:
        service.follow(service.chain())

    with pytest.raises(Overloaded):
        asyncio.run(serve())

    assert service.asked == [CLAUDE, GPT]
    assert service.waits == []


def test_leaving_the_loop_early_ends_it(service: Service) -> None:
    def serve() -> str:
        for attempt in service.chain()():
            with attempt as call:
                return call.model
        return "nobody"

    assert serve() == "claude-sonnet-4-5"
    assert [event["attempt"] for event in service.events()] == [1]


def test_a_loop_that_forgets_to_enter_the_attempt_is_told_so(service: Service) -> None:
    with pytest.raises(UsageError, match="with attempt as call"):
        for _attempt in service.chain()():
            pass


def test_the_call_id_of_later_attempts_is_another_one(service: Service) -> None:
    service.fails["anthropic"] = Overloaded

    service.follow(service.chain(), call_id="order-7")

    assert [event["call_id"] for event in service.events()] == ["order-7", "order-7-2"]


def test_an_exception_whose_attributes_raise_still_reaches_the_caller(service: Service) -> None:
    class Odd(Exception):
        @property
        def response(self) -> Any:
            raise RuntimeError("not set")

    service.fails["anthropic"] = Odd

    with pytest.raises(Odd):
        service.follow(service.chain())


def test_without_a_gate_every_candidate_is_open(service: Service) -> None:
    service.shut("anthropic")

    service.follow(service.chain(), guard=False)

    assert service.asked == [CLAUDE]


def test_a_chain_of_nobody_is_refused(service: Service) -> None:
    with pytest.raises(UsageError, match="at least one candidate"):
        Fallback(service.tide, [])


def test_many_threads_follow_one_chain(service: Service) -> None:
    service.fails["anthropic"] = Overloaded
    chain = service.chain()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: service.follow(chain), range(100)))

    assert len(service.asked) == 200
    assert sum("error_type" in event for event in service.events()) == 100
