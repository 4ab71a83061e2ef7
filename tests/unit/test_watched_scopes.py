"""Which scopes policies on findings are not at ease with, heard from the signals topic."""

from __future__ import annotations

from typing import Any

import orjson
from tidegate.processors.guardrails.watched import WatchedScopes
from tidegate.schemas.signal import SIGNAL_PREFIX

KEY = SIGNAL_PREFIX + b"leaks|harbor-health"


def said(**fields: Any) -> bytes:
    return orjson.dumps({"measure": "findings", "state": "block", "scope": {"tenant": "harbor-health"}} | fields)


def test_of_each_policy_and_scope_the_last_word_counts() -> None:
    watched = WatchedScopes()

    told = []
    for value in (said(), said(state="ok"), said(state="warn"), b""):
        watched.hear(KEY, value)
        told.append(watched.scopes())

    assert told == [[{"tenant": "harbor-health"}], [], [{"tenant": "harbor-health"}], []]


def test_a_policy_on_money_asks_for_no_text() -> None:
    watched = WatchedScopes()

    watched.hear(KEY, said(measure="cost_usd"))
    watched.hear(b"gates", said())

    assert watched.scopes() == []


def test_a_word_that_cannot_be_read_is_no_word_and_keeps_nobody_from_the_next() -> None:
    watched = WatchedScopes()

    watched.hear(KEY, said())
    watched.hear(KEY, b'{"measure":"findings", torn')
    watched.hear(KEY + b"|2", said(scope="everything"))
    watched.hear(KEY + b"|3", said(scope={"team": "a"}))

    assert watched.scopes() == [{"tenant": "harbor-health"}, {"team": "a"}]
