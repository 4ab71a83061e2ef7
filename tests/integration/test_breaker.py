"""A provider fails and comes back: a real node shuts and opens the breaker, a service follows it with a chain."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tidegate
from node_process import NodeProcess, eventually

CHAIN = [("anthropic", "claude-sonnet-4-5"), ("openai", "gpt-4o")]
# The window remembers failures for a minute, its shortest; with a high limit a few good probes outweigh them sooner.
POLICIES = """
policies:
  - name: provider-breaker
    scope: [provider_name]
    measure: error_rate
    window: {rolling: 1m}
    limit: 0.5
    minimum_requests: 5
    warn_at: []
    actions:
      - {do: block, probe_every: 1s}
    hysteresis: 0.05
    hold: 1s
"""


class Overloaded(Exception):
    status_code = 529


class Providers:
    """Two providers, either of which may be down; counts who was asked."""

    def __init__(self) -> None:
        self.down: set[str] = set()
        self.asked: Counter[str] = Counter()

    def ask(self, provider: str, model: str) -> dict[str, Any]:
        self.asked[provider] += 1
        if provider in self.down:
            raise Overloaded
        return {"model": model, "usage": {"input_tokens": 20, "output_tokens": 5}}


@pytest.fixture
def node(tmp_path: Path) -> Iterator[NodeProcess]:
    policies = tmp_path / "policies.yaml"
    policies.write_text(POLICIES)
    with NodeProcess(tmp_path / "data", TIDEGATE_POLICY_FILE=str(policies)) as node:
        yield node


@pytest.mark.slow
def test_traffic_leaves_a_failing_provider_and_returns_when_it_is_back(node: NodeProcess) -> None:
    providers = Providers()
    with tidegate.connect(str(node.data_dir)) as tide:
        chain = tidegate.Fallback(tide, CHAIN)
        assert tide.gate is not None
        gate, scope = tide.gate, {"provider_name": "anthropic", "model": "claude-sonnet-4-5"}

        def call() -> str:
            for attempt in chain(tenant="harbor-health"):
                with attempt as observed:
                    observed.answer(providers.ask(attempt.provider, observed.model))
                    return attempt.provider
            raise AssertionError

        def breaker() -> str:
            found = gate.explain(scope)
            return str(found[0]["state"]) if found else "unheard"

        # all is well
        assert {call() for _ in range(10)} == {"anthropic"}

        # it fails: every call is answered all the same, and the breaker shuts
        providers.down.add("anthropic")
        told = eventually(lambda: (call(), eventually(breaker, "block".__eq__, 0.2)), lambda found: found[1] == "block")
        assert told == ("openai", "block")

        # while it is shut one call a second asks the provider that is down, and the second one answers every time
        asked, began_at = providers.asked["anthropic"], time.monotonic()
        answers = [call() for _ in range(100)]
        probes = providers.asked["anthropic"] - asked
        assert set(answers) == {"openai"}
        assert probes <= 1 + (time.monotonic() - began_at) / 1.0
        assert (
            eventually(lambda: (call(), providers.asked["anthropic"])[1], lambda now: now > asked + probes, 10) > asked + probes
        )

        # it is back: a probe finds out, and the good calls that it brings open the breaker
        providers.down.clear()
        assert eventually(call, lambda provider: provider == "anthropic", 10) == "anthropic"
        assert eventually(lambda: (call(), breaker())[1], lambda state: state == "ok", 20) == "ok"
        assert {call() for _ in range(20)} == {"anthropic"}

    attempts = node_rows(node)
    assert attempts["first choice, failed"] >= 4
    assert attempts["second choice"] == providers.asked["openai"]
    assert attempts["first choice, failed"] + attempts["first choice, answered"] == providers.asked["anthropic"]
    assert attempts["after a failure"] == attempts["first choice, failed"]


def node_rows(node: NodeProcess) -> dict[str, int]:
    """What the ledger has of it."""
    node.settled()
    (row,) = node.rows(
        """SELECT countIf(provider_name = 'anthropic' AND error_type != '') AS `first choice, failed`,
                  countIf(provider_name = 'anthropic' AND error_type = '') AS `first choice, answered`,
                  countIf(provider_name = 'openai' AND fallback_from = 'claude-sonnet-4-5') AS `second choice`,
                  countIf(provider_name = 'openai' AND attempt = 2) AS `after a failure`
           FROM calls"""
    )
    return {name: int(count) for name, count in row.items()}
