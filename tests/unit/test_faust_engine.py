"""What the worker asks of Faust."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest
from tidegate.processors.distributed.faust_engine import FaustEngine, Hands
from tidegate.schemas.settings import Settings
from tidegate.schemas.topics import CALLS


@pytest.mark.parametrize("hold_s", [0.0, 3_600.0, 86_400.0, float("inf")])
def test_a_worker_that_the_brake_holds_stays_in_its_group_for_as_long(hold_s: float) -> None:
    async def idle_s() -> float:
        engine = FaustEngine(Settings(url="kafka://127.0.0.1:1", brake_hold_s=hold_s), CALLS, "meter", cast(Hands, None))
        engine._folder.cleanup()
        app: Any = engine._app
        return float(app.conf.broker_max_poll_interval)

    assert asyncio.run(idle_s()) >= min(hold_s, 10 * 365 * 86_400.0) + 1_000
