"""The console's way down: from a spike to its calls, to one of them, to what was found in it, to its redacted texts.

    GET /console/calls?since&until&tenant&model&…&order&after    a page of calls, and where the next begins
    GET /console/calls/{call_id}                                 all that is known of one
    GET /console/findings?since&until&tenant&type&detector       the newest findings
    GET /console/transcripts/{call_id}                           redacted texts; each read is in the audit log first

Users, conversations and labels are digests but for those who may know them (`console_access.NAMES_USERS`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any, Final

from ...dashboards import call_questions as questions
from ...dashboards.answers import FORMAT, rows_of
from ...dashboards.marks import marks
from ...dashboards.ranges import Range, iso
from ...sinks.clickhouse import Heard, Store
from ..console_access import NAMES_USERS, Digests, Who
from ..pricing import tier_of
from ..transcript_reads import TranscriptReads

_TIMEOUT_S: Final = 30.0


class ConsoleCalls:
    """Answers in a thread of its own, so that nobody who looks at one call waits for a board."""

    def __init__(self, store: Callable[[], Store], reads: TranscriptReads, digests: Digests) -> None:
        self._store = store
        self._reads = reads
        self._digests = digests
        self._pool = ThreadPoolExecutor(1, "tidegate-console-calls")

    async def page(self, asked: Mapping[str, str], who: Who) -> dict[str, Any]:
        """Raises `TidegateError`."""
        sql, values = questions.calls_question(asked)
        calls, following = questions.page_of(await self._ask(sql, values | _bounds(asked)))
        return {"calls": [self._of(call, who) for call in calls], "next": following}

    async def one(self, call_id: str, who: Who) -> dict[str, Any] | None:
        """None: there is no such call. Raises `TidegateError`."""
        found = await self._ask(questions.CALL, {"call_id": call_id})
        if not found:
            return None
        call = found[0]
        verdict = await self._ask(questions.VERDICT, {"call_id": call_id})
        findings = await self._ask(questions.FINDINGS_OF, {"call_id": call_id})
        priced = {name: call[name] for name in ("provider_name", "response_model", "request_model", "tenant", "price_book")}
        priced |= {
            "at": call["started_at"],
            "input_tokens": call["input_tokens"] or 0,
            "tier": tier_of(call["service_tier"] or None),
        }
        price = await self._ask(questions.PRICE, priced) if call["price_book"] else []
        return {
            "call": self._of(call, who),
            "price": price[0] if price else None,
            "verdict": verdict[0] if verdict else None,
            "findings": findings,
        }

    async def findings(self, asked: Mapping[str, str]) -> dict[str, Any]:
        """Raises `TidegateError`."""
        values = questions.wished(asked, ("tenant", "type", "detector"))
        return {"findings": await self._ask(questions.FINDINGS, values | _bounds(asked)), "next": None}

    async def transcript(self, call_id: str, who: Who, client: str) -> dict[str, Any] | None:
        """None: there is none. Raises `TidegateError`, also where the read cannot be written down."""
        heard = self._reads.by(who.actor, "console", client)
        found = await self._ask(questions.TRANSCRIPT, {"call_id": call_id}, heard)
        if not found:
            return None
        redaction, context = found[0]["redaction"], found[0]["redacted_context"]
        texts = [("prompt", 0, found[0]["redacted_prompt"]), ("response", 0, found[0]["redacted_response"])]
        texts += [("context", chunk, text) for chunk, text in enumerate(context)]
        findings = await self._ask(questions.FINDINGS_OF, {"call_id": call_id})

        def of(where: str, chunk: int) -> list[dict[str, Any]]:
            return [one for one in findings if one["found_in"] == where and (where != "context" or one["chunk"] == chunk)]

        return {
            "redaction": redaction,
            "texts": [
                {"where": where, "chunk": chunk, "text": text, "marks": marks(text, redaction, of(where, chunk))}
                for where, chunk, text in texts
                if text is not None
            ],
        }

    def _of(self, call: dict[str, Any], who: Who) -> dict[str, Any]:
        # A word that is not known is '' in the store.
        known: dict[str, Any] = {name: None if value == "" else value for name, value in call.items()}
        if who.role in NAMES_USERS:
            return known
        for name in ("user", "conversation_id"):
            if known.get(name) is not None:
                known[name] = self._digests.veil(name, known[name])
        if known.get("labels"):
            known["labels"] = {name: self._digests.veil(name, value) for name, value in known["labels"].items()}
        return known

    async def _ask(self, sql: str, parameters: Mapping[str, Any], heard: Heard | None = None) -> list[dict[str, Any]]:
        def answered() -> list[dict[str, Any]]:
            options: dict[str, Any] = {} if heard is None else {"heard": heard}
            answer = self._store().answer(sql, FORMAT, parameters, max_rows=1_000, timeout_s=_TIMEOUT_S, guest=True, **options)
            return rows_of(answer.data).dicts()

        return await asyncio.get_running_loop().run_in_executor(self._pool, answered)

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)


def _bounds(asked: Mapping[str, str]) -> dict[str, str]:
    since, until = Range.read(asked).bounds(datetime.now(UTC))
    return {"since": iso(since), "until": iso(until)}
