"""How much tenants may ask at once, without a node or an engine."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest
from starlette.requests import Request
from starlette.responses import Response
from tidegate.processors.embedded.body import Bodies
from tidegate.processors.embedded.tenant_door import Quota, TenantDoor
from tidegate.processors.tenant_tokens import FILE, TenantTokens
from tidegate.producers.audit_log import AuditLog
from tidegate.schemas.errors import StoreUnavailable
from tidegate.sinks.clickhouse import Encoded, QueryRefused

NOW: Final = datetime(2026, 11, 2, 8, tzinfo=UTC)
ASKED: Final = b"SELECT * FROM blocks(since = '1', until = '2')"


def test_a_token_asks_a_burst_and_then_so_often_a_second() -> None:
    now = [0.0]
    quota = Quota(burst=3, per_s=0.5, monotonic=lambda: now[0])

    told = [quota.wait_s("a") for _ in range(4)]
    other = quota.wait_s("b")
    now[0] = 1.0
    soon = quota.wait_s("a")
    now[0] = 2.0
    then = [quota.wait_s("a") for _ in range(2)]
    now[0] = 1000.0
    later = [quota.wait_s("a") for _ in range(4)]

    assert told == [0, 0, 0, 2.0]
    assert other == 0
    assert soon == 1.0
    assert then == [0, 2.0]
    assert later == [0, 0, 0, 2.0]


class SlowStore:
    """Answers when it is told to; keeps what it was asked."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.asked: list[dict[str, Any]] = []
        self._lock = threading.Lock()
        self._running = 0
        self.most = 0

    def answer(self, sql: str, form: str, values: Any, **how: Any) -> Encoded:
        with self._lock:
            self.asked.append({"sql": sql, "form": form, "values": values, **how})
            self._running += 1
            self.most = max(self.most, self._running)
        assert self.go.wait(20)
        with self._lock:
            self._running -= 1
        return Encoded(b"1\n", 1)


def request(body: bytes = ASKED, query: bytes = b"") -> Request:
    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    scope = {"type": "http", "method": "POST", "path": "/", "query_string": query, "headers": []}
    scope["client"] = ("10.0.0.7", 1)
    return Request(scope, receive)


def at_the_door(folder: Path, ask: Callable[[TenantDoor, Callable[..., str]], Awaitable[Any]], days: int = 1) -> Any:
    """What comes of asking, in an event loop of its own. `ask` gets the door, and what grants a token."""
    tokens = TenantTokens(folder, AuditLog(folder), now=lambda: NOW)

    async def main() -> Any:
        door = TenantDoor(Bodies(1 << 20), tokens)
        try:
            return await ask(door, lambda tenant: tokens.grant(tenant, "", timedelta(days=days))[1])
        finally:
            door.close()

    return asyncio.run(main())


def test_one_question_of_a_token_runs_and_two_of_all(tmp_path: Path) -> None:
    store: Any = SlowStore()

    async def ask(door: TenantDoor, granted: Callable[..., str]) -> list[Response]:
        one, *others = [granted(tenant) for tenant in ("a", "b", "c")]
        asking = [asyncio.create_task(door.serve(request(), one, store)) for _ in range(3)]
        while len(store.asked) < 1:
            await asyncio.sleep(0.005)
        await asyncio.sleep(0.05)  # long enough for a second one of the same token to come through, if it could
        alone = len(store.asked)
        asking += [asyncio.create_task(door.serve(request(), token, store)) for token in others]
        while len(store.asked) < 2:
            await asyncio.sleep(0.005)
        store.go.set()
        assert alone == 1
        return await asyncio.gather(*asking)

    answers = at_the_door(tmp_path, ask)

    assert [answer.status_code for answer in answers] == [200] * 5
    assert store.most == 2
    assert {(asked["guest"], asked["max_rows"], asked["timeout_s"]) for asked in store.asked} == {(True, 100_000, 30.0)}
    assert sorted(asked["values"]["v2"] for asked in store.asked) == ["a", "a", "a", "b", "c"]


def test_whatever_time_a_client_wishes_for_tenants_questions_share_their_readers(tmp_path: Path) -> None:
    store: Any = SlowStore()
    store.go.set()

    async def ask(door: TenantDoor, granted: Callable[..., str]) -> list[Response]:
        token = granted("a")
        wishes = [b"max_execution_time=" + wish for wish in (b"0.5", b"7", b"29.999", b"3600", b"nan")]
        return [await door.serve(request(query=wish), token, store) for wish in wishes]

    answers = at_the_door(tmp_path, ask)

    assert [answer.status_code for answer in answers] == [200] * 5
    assert {asked["timeout_s"] for asked in store.asked} == {30.0}


def test_more_than_can_wait_are_told_to_come_again(tmp_path: Path) -> None:
    store: Any = SlowStore()

    async def ask(door: TenantDoor, granted: Callable[..., str]) -> list[Response]:
        token = granted("a")
        asking = [asyncio.create_task(door.serve(request(), token, store)) for _ in range(24)]
        await asyncio.sleep(0)
        refused = await door.serve(request(), token, store)
        store.go.set()
        return [refused, *await asyncio.gather(*asking)]

    refused, *answers = at_the_door(tmp_path, ask)

    assert (refused.status_code, refused.headers["X-ClickHouse-Exception-Code"]) == (429, "202")
    assert [answer.status_code for answer in answers] == [200] * 24


def test_a_token_that_has_ended_is_told_so_and_a_strange_one_nothing(tmp_path: Path) -> None:
    store: Any = SlowStore()

    async def ask(door: TenantDoor, granted: Callable[..., str]) -> list[Response]:
        return [await door.serve(request(), token, store) for token in (granted("a"), "tgt_nobodys", "")]

    ended, *strange = at_the_door(tmp_path, ask, days=0)

    assert b"this token ended on 2026-11-02" in ended.body
    assert {answer.status_code for answer in (ended, *strange)} == {403}
    assert all(b"TIDEGATE_TOKEN" in answer.body for answer in strange)
    assert store.asked == []


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (QueryRefused("47. DB::Exception: Unknown identifier x in scope of hill's calls"), (400, "47")),
        (QueryRefused("999. DB::Exception: hill's calls"), (400, "999")),
        (QueryRefused("hill's calls"), (400, "0")),
        (StoreUnavailable("hill's calls"), (503, "210")),
    ],
)
def test_what_the_engine_says_is_not_passed_on(tmp_path: Path, error: Exception, told: tuple[int, str]) -> None:
    class Store:
        def answer(self, *_: Any, **__: Any) -> Encoded:
            raise error

    store: Any = Store()

    async def ask(door: TenantDoor, granted: Callable[..., str]) -> Response:
        return await door.serve(request(), granted("a"), store)

    answer = at_the_door(tmp_path, ask)

    assert (answer.status_code, answer.headers["X-ClickHouse-Exception-Code"]) == told
    assert b"hill" not in answer.body


def test_a_use_that_cannot_be_written_down_gets_no_answer_and_no_path(tmp_path: Path) -> None:
    store: Any = SlowStore()

    async def ask(door: TenantDoor, granted: Callable[..., str]) -> list[Response]:
        token = granted("a")
        (tmp_path / "audit.jsonl").unlink()
        (tmp_path / "audit.jsonl").mkdir()
        unwritten = await door.serve(request(), token, store)
        (tmp_path / FILE).chmod(0o644)
        return [unwritten, await door.serve(request(), token, store)]

    answers = at_the_door(tmp_path, ask)

    assert [answer.status_code for answer in answers] == [503, 503]
    assert not any(str(tmp_path).encode() in answer.body for answer in answers)
    assert store.asked == []
