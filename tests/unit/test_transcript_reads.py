"""Which calls are told of those that a statement names, without a node or an engine."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import pytest
from tidegate.processors.transcript_reads import TranscriptReads
from tidegate.producers.audit_log import AuditLog


class Found(list[dict[str, Any]]):
    """Rows of an answer."""

    def dicts(self) -> list[dict[str, Any]]:
        return list(self)


class Calls:
    """A store of calls, which keeps what it was asked for."""

    def __init__(self, call_ids: Collection[str]) -> None:
        self._call_ids = call_ids
        self.asked: list[list[str]] = []

    def query(self, sql: str, parameters: Mapping[str, Any] | None = None) -> Any:
        assert parameters is not None
        self.asked.append(parameters["ids"])
        return Found({"call_id": call_id} for call_id in sorted({*parameters["ids"]} & {*self._call_ids}))


def told(folder: Path, store: Calls, statement: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """What the audit log has of a read."""
    TranscriptReads(AuditLog(folder), store).by("user:ops", "query")(statement, parameters)
    details: dict[str, Any] = json.loads((folder / "audit.jsonl").read_bytes().splitlines()[-1])["details"]
    return details


@pytest.mark.parametrize("bound", [False, True])
@pytest.mark.parametrize("made_up", [100, 20_000])
def test_ids_that_nobody_has_do_not_hide_those_that_are_read(tmp_path: Path, made_up: int, bound: bool) -> None:
    store = Calls(["real-1", "real-2"])
    ids = [*(f"made-up-{number}" for number in range(made_up)), "real-2", "real-1"]
    among = ", ".join(f"'{call_id}'" for call_id in ids)
    statement = f"SELECT * FROM transcripts WHERE call_id IN ({among})"

    found = (
        told(tmp_path, store, "SELECT * FROM transcripts WHERE has({ids:Array(String)}, call_id)", {"ids": ids})
        if bound
        else told(tmp_path, store, statement, {})
    )

    assert (found["call_ids"], found["more_calls"]) == (["real-1", "real-2"], False)
    assert [call_id for asked in store.asked for call_id in asked] == ids
    assert max(len("".join(asked)) for asked in store.asked) <= 32 << 10


def test_of_more_calls_than_an_entry_holds_it_is_told_that_there_were_more(tmp_path: Path) -> None:
    ids = [f"call-{number:03}" for number in range(101)]
    statement = "SELECT * FROM transcripts WHERE has({ids:Array(String)}, call_id)"

    all_of_them = told(tmp_path, Calls(ids), statement, {"ids": ids[:100] * 2})
    some = told(tmp_path, Calls(ids), statement, {"ids": ids})

    assert (all_of_them["call_ids"], all_of_them["more_calls"]) == (ids[:100], False)
    assert (some["call_ids"], some["more_calls"]) == (ids[:100], True)
