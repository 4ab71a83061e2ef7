"""How a gate on another machine hears of policies: a long poll on a real node."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import urllib3
from node_process import NodeProcess, eventually
from support import response

POLICY = """
policies:
  - name: daily
    scope: [tenant]
    measure: cost_usd
    window: {calendar: day}
    limit: 0.001
    action: block
"""


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    folder = tmp_path_factory.mktemp("signals")
    (folder / "policies.yaml").write_text(POLICY)
    with NodeProcess(folder / "data", TIDEGATE_POLICY_FILE=str(folder / "policies.yaml")) as running:
        yield running


def poll(node: NodeProcess, **query: Any) -> dict[str, Any]:
    answer = node.http.request("GET", f"{node.url}/v1/signals", fields={name: str(value) for name, value in query.items()})
    assert answer.status == 200, answer.data
    found: dict[str, Any] = json.loads(answer.data)
    return found


def last_word(node: NodeProcess, key: str) -> Any:
    return {record["key"]: record["value"] for record in poll(node, after=-1)["records"]}.get(key)


def spend(node: NodeProcess, tenant: str) -> Mapping[str, str]:
    """One call of a tenant, dearer than its limit, now; the answer's headers."""
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    model = "gpt-4o-2024-08-06"
    call = response("one", tenant=tenant, started_at=now, request_model=model, input_tokens=1_000, output_tokens=1_000)
    call.update(response_model=model, provider_name="openai")
    return node.post([call]).headers


def test_a_block_is_heard_by_who_waits_for_it_and_says_which_calls_it_counts(node: NodeProcess) -> None:
    position = poll(node, after=-1)["position"]

    headers = spend(node, "lakeside")
    heard: dict[str, Any] = {}
    deadline = time.monotonic() + 20
    while not heard and time.monotonic() < deadline:
        news = poll(node, after=position, wait=5)
        position = news["position"]
        heard = next((r["value"] for r in news["records"] if r["key"] == 'signal|daily|["lakeside"]'), {})

    assert heard["state"] == "block"
    assert heard["spend"] == 12_500_000
    assert heard["applied"][int(headers["X-Tidegate-Partition"])] >= int(headers["X-Tidegate-Offset"])


def test_a_gate_that_starts_late_hears_the_last_word_on_everything(node: NodeProcess) -> None:
    spend(node, "st-anne")
    eventually(lambda: last_word(node, 'signal|daily|["st-anne"]'), bool)

    keys = [record["key"] for record in poll(node, after=-1)["records"]]

    assert len(keys) == len(set(keys))
    assert {"policies", "gates", "prices", 'signal|daily|["st-anne"]'} <= set(keys)


def test_the_dearest_price_of_a_token_is_told_of_each_model_that_was_asked(node: NodeProcess) -> None:
    spend(node, "harbor-health")

    prices = eventually(lambda: last_word(node, "prices"), bool)

    assert prices["nano_usd"]["gpt-4o-2024-08-06"] == [2_500.0, 10_000.0]


def test_asking_is_being_there_and_silence_is_being_gone(node: NodeProcess) -> None:
    poll(node, after=-1, gate="gate-1")

    there = eventually(lambda: last_word(node, "gates")["ids"], lambda ids: "gate-1" in ids)
    gone = eventually(lambda: last_word(node, "gates")["ids"], lambda ids: "gate-1" not in ids)

    assert "gate-1" in there
    assert "gate-1" not in gone


def test_a_position_of_another_log_starts_over(node: NodeProcess) -> None:
    found = poll(node, after=10**9)

    assert "policies" in [record["key"] for record in found["records"]]


@pytest.mark.parametrize("query", [{"after": "x"}, {"wait": "soon"}, {"gate": "a b"}])
def test_a_question_that_makes_no_sense_is_told_how_to_ask(node: NodeProcess, query: dict[str, str]) -> None:
    answer = node.http.request("GET", f"{node.url}/v1/signals", fields=query)

    assert answer.status == 400
    assert b"error" in answer.data


def test_the_node_stops_at_once_though_somebody_waits(tmp_path: Path) -> None:
    answers: list[int] = []
    with NodeProcess(tmp_path / "data") as running:
        position = poll(running, after=-1)["position"]

        def wait() -> None:
            at = position
            while not answers:
                try:
                    at = poll(running, after=at, wait=25)["position"]
                except urllib3.exceptions.HTTPError:  # the doors are closed
                    answers.append(1)

        waiter = threading.Thread(target=wait)
        waiter.start()
        began = time.monotonic()
    stopped_after_s = time.monotonic() - began
    waiter.join(30)

    assert stopped_after_s < 15
    assert not waiter.is_alive()
