"""`tidegate up --simulate` with the example's policies shows within minutes what budgets do, and who obeys them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from node_process import NodeProcess, eventually, tidegate

EXAMPLE: Final = Path(__file__).parents[2] / "docs" / "examples" / "policies.yaml"
STATES: Final = "SELECT policy, scope['team'] AS team, state, toUnixTimestamp64Milli(min(at)) AS ms FROM alerts GROUP BY ALL"
CALLS: Final = """
SELECT team, count() AS calls FROM calls WHERE tenant = 'retail-care'
AND ingested_at >= fromUnixTimestamp64Milli({since}) AND ingested_at < fromUnixTimestamp64Milli({until}) GROUP BY team
"""
# What was on its way when the gate shut, and then some calls to see who goes on.
_SETTLED_MS: Final = 5_000
_WATCHED_MS: Final = 15_000


def test_budgets_warn_downgrade_and_block_and_services_that_ask_are_kept_back(tmp_path: Path) -> None:
    # Three times as fast as `make run`: what takes three minutes there takes one.
    traffic = ("--simulate", "--rate", "60", "--policies", str(EXAMPLE))
    with NodeProcess(tmp_path / "data", *traffic, TIDEGATE_GUARD="false") as node:

        def said() -> dict[tuple[str, str, str], int]:
            return {(row["policy"], row["team"], row["state"]): int(row["ms"]) for row in node.rows(STATES)}

        told = {("team-burst-cost", "emergency", "downgrade"), ("team-burst-cost", "chat", "block")}
        seen = eventually(said, lambda found: told <= set(found), 300)
        assert told <= set(seen), sorted(seen)
        shut = seen["team-burst-cost", "chat", "block"] + _SETTLED_MS

        def calls() -> dict[str, Any]:
            return {row["team"]: int(row["calls"]) for row in node.rows(CALLS.format(since=shut, until=shut + _WATCHED_MS))}

        later = f"SELECT count() AS n FROM calls WHERE ingested_at > fromUnixTimestamp64Milli({shut + _WATCHED_MS})"
        eventually(lambda: node.rows(later)[0]["n"], bool, 120)
        went = calls()
        other = node.rows("SELECT DISTINCT request_model, fallback_from FROM calls WHERE team = 'emergency' AND attempt = 1")
        listed = tidegate("alerts", "list", "--data", node.data_dir)

    assert "chat" not in went, went
    assert went["search"] > 0, "it asks no gate, and goes on"
    assert {"request_model": "gpt-4o-mini", "fallback_from": "gpt-4o"} in other
    assert b"team-burst-cost" in listed.stdout
