"""On a cluster every migration says what it says, and no more than that its tables are replicated; ClickHouse's own parser
reads both.

No server with a keeper runs here. The engine in a process knows ReplicatedMergeTree and makes its node in ZooKeeper, but has
no address for other replicas and no queue for ON CLUSTER, so what is tried is how statements are read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import chdb
import pytest
from tidegate.schemas.errors import UsageError
from tidegate.sinks import keeping, migrations
from tidegate.sinks.clickhouse import Store
from tidegate.sinks.engines import Folder
from tidegate.sinks.keeping import Kept
from tidegate.sinks.replication import checked, replicated

STATEMENTS = [
    pytest.param(statement, id=f"{migration.number:04}-{number}")
    for migration in migrations.read()
    for number, statement in enumerate(migration.statements)
]


def formatted(sql: str) -> str:
    """As ClickHouse spells it. Raises when it is no statement."""
    quoted = sql.replace("\\", "\\\\").replace("'", "\\'")
    return str(chdb.query(f"SELECT formatQuerySingleLine('{quoted}')", "RawBLOB").bytes().decode()).strip()


@pytest.mark.parametrize("statement", STATEMENTS)
def test_a_migration_on_a_cluster_is_the_same_but_for_being_replicated(statement: str) -> None:
    plain, found = formatted(statement), formatted(replicated(statement, "main"))

    back = re.sub(
        r" replicated_deduplication_window = (\d+), replicated_deduplication_window_seconds = 2678400\b",
        r" non_replicated_deduplication_window = \1",
        found.replace(" ON CLUSTER main", "", 1),
    )
    assert back.replace("ENGINE = Replicated", "ENGINE = ", 1) == plain
    if not plain.startswith("INSERT"):
        assert found.count(" ON CLUSTER main") == 1
    if plain.startswith("CREATE TABLE"):
        assert re.search(r"\) ENGINE = Replicated\w*MergeTree\b", found)
        assert "non_replicated" not in found
        assert ("replicated_deduplication_window_seconds = 2678400" in found) == ("deduplication_window" in plain)


def test_what_stands_in_a_comment_or_a_text_is_left_alone() -> None:
    found = replicated(
        "-- ENGINE = MergeTree\nCREATE TABLE IF NOT EXISTS t (x String COMMENT 'ENGINE = MergeTree; it\\'s')\n"
        "-- as ENGINE = MergeTree\nENGINE = SummingMergeTree(x)\nORDER BY x",
        "{cluster}",
    )

    assert found == (
        "CREATE TABLE IF NOT EXISTS t ON CLUSTER `{cluster}` (x String COMMENT 'ENGINE = MergeTree; it\\'s')\n"
        "-- as ENGINE = MergeTree\nENGINE = ReplicatedSummingMergeTree(x)\nORDER BY x"
    )


def test_how_long_rows_are_kept_is_said_to_every_replica() -> None:
    statements = keeping.statements("calls", Kept(400, {"o'hara": 30}))

    found = [formatted(replicated(statement, "main")) for statement in statements]

    assert [one.partition(" ON CLUSTER main ")[0] for one in found] == ["ALTER TABLE calls"] * 2
    assert [one.replace(" ON CLUSTER main", "") for one in found] == [formatted(statement) for statement in statements]


@pytest.mark.parametrize("statement", ["RENAME TABLE a TO b", "SYSTEM STOP MERGES", "GRANT SELECT ON x TO y"])
def test_a_statement_of_another_kind_is_refused(statement: str) -> None:
    with pytest.raises(ValueError, match="how this is on a cluster is not known"):
        replicated(statement, "main")


@pytest.mark.parametrize("cluster", ["", "a`b", "a b", "{a", "'x'"])
def test_what_is_no_name_of_a_cluster_is_refused(cluster: str) -> None:
    with pytest.raises(UsageError, match="TIDEGATE_STORE_CLUSTER"):
        checked(cluster)


@pytest.mark.parametrize("cluster", ["main", "eu-1.main", "{cluster}"])
def test_a_cluster_is_a_name_or_a_macro(cluster: str) -> None:
    assert checked(cluster) == cluster


class Told:
    """An engine, and its client: writes down what it is told to define, and knows nothing."""

    def __init__(self) -> None:
        self.database = ""
        self.commands: list[str] = []

    def connect(self, _settings: Mapping[str, Any]) -> Any:
        return self

    def query(self, _sql: str, _parameters: Any = None) -> Any:
        return SimpleNamespace(result_rows=[])

    def command(self, sql: str, _parameters: Any = None) -> None:
        self.commands.append(sql)

    def close(self) -> None:
        pass


def test_a_store_on_a_cluster_defines_everything_on_all_of_it() -> None:
    told: Any = Told()

    with Store(told, "tidegate", cluster="{cluster}") as store:
        done = store.migrate()
        store.keep("calls", 400)

    database, versions, *others = told.commands
    rows = [one for one in others if one.startswith("INSERT INTO schema_migrations")]
    defined = [one for one in others if not one.startswith("INSERT")]
    assert database == "CREATE DATABASE IF NOT EXISTS `tidegate` ON CLUSTER `{cluster}`"
    assert versions.startswith("CREATE TABLE IF NOT EXISTS schema_migrations ON CLUSTER `{cluster}` (")
    assert " ENGINE = ReplicatedMergeTree ORDER BY number" in versions
    assert len(rows) == len(done) == len(migrations.read())
    assert len(defined) > len(done)
    assert all(" ON CLUSTER `{cluster}`" in one.partition("\n")[0] for one in defined)


def test_tables_that_are_not_replicated_are_not_mixed_with_such_that_are(tmp_path: Path) -> None:
    with Store.open(path=tmp_path / "store") as store:
        store.migrate()
    with Store(Folder(tmp_path / "store"), cluster="main") as store, pytest.raises(UsageError, match="not replicated"):
        store.migrate()


def test_a_folder_has_no_cluster(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="TIDEGATE_STORE"):
        Store.open(path=tmp_path / "store", cluster="main")
