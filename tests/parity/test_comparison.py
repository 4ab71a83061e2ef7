"""The comparison itself: a single token more on one side must be seen in everything that counts it."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from kafka_broker import needs_broker
from parity_engines import Engines
from parity_sides import Appended
from support import envelope, finding, request, response, scored

pytestmark = [pytest.mark.slow, needs_broker]


def test_one_token_more_on_one_side_is_found_in_rows_usage_scopes_and_signals(tmp_path: Path, kafka_url: str) -> None:
    now_ms = int(time.time() * 1_000)
    at = datetime.fromtimestamp(now_ms / 1_000, UTC).isoformat()
    with Engines(tmp_path, kafka_url, partitions=1) as engines:
        call = response(provider_name="openai", started_at=at, user="ana")
        engines.append([Appended.of(envelope("both", 0, [call]), now_ms, 1)])
        one, other = (Appended.of(envelope("a", 0, [call | {"input_tokens": tokens}]), now_ms, 1) for tokens in (70, 71))
        seen, missed = (
            Appended.of(envelope("c", 0, [scored(started_at=at, findings=found)]), now_ms, 1) for found in ([finding()], [])
        )
        alone = Appended.of(envelope("b", 0, [request("alone", started_at=at, estimated_input_tokens=9)]), now_ms, 1)

        engines.settle()
        before = engines.differences()
        engines.embedded.append([one, seen, alone])
        engines.distributed.append([other, missed])
        engines.ends[0] += 2
        engines.settle()
        after = engines.differences(within_s=1)

        assert not before
        found = {difference.split("/")[0].split(" ")[0] for difference in after}
        assert found >= {
            "tidegate.metered",
            "tidegate.requests",
            "tidegate.findings",
            "usage",
            "scope",
            "account",
            "in",
            "producers",
            "signal",
        }
