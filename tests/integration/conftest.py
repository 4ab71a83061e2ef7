"""Fixtures of the integration tests; a module with a need of its own makes its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tidegate.sinks.clickhouse import Store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """An empty store with every migration applied. chDB holds one folder a process, so it is closed before the next."""
    with Store.open(path=tmp_path / "store") as store:
        store.migrate()
        yield store
