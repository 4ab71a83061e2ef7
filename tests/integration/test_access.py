"""The roles of a server: every statement is ClickHouse's, every object is somebody's, and the rights are tried for real.

No server runs here, and the engine in a process has one user and takes no CREATE ROLE. So each role's grants and filters, word
for word, become those of that one user, in a process for each role.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple
from xml.etree import ElementTree
from xml.sax.saxutils import escape

import chdb
import pytest
from deployment import ROOT
from support import ndjson
from tidegate.sinks import migrations
from tidegate.sinks.clickhouse import Store

ACCESS: Final = ROOT / "deploy" / "clickhouse" / "access.sql"
STATEMENTS: Final = [
    statement.strip()
    for statement in re.split(r";[ \t]*$", re.sub(r"^--.*$", "", ACCESS.read_text(), flags=re.MULTILINE), flags=re.MULTILINE)
    if statement.strip()
]
GRANT: Final = re.compile(r"GRANT (?P<rights>[\w, ]+) ON (?P<object>\S+) TO (?P<roles>[\w, ]+)\Z")
POLICY: Final = re.compile(
    r"CREATE ROW POLICY OR REPLACE (?P<name>\w+) ON\s+(?P<tables>[\w., \n]+?)\s+FOR SELECT USING (?P<filter>.*) TO ", re.DOTALL
)
DENIED: Final = 497
# Views of what has no tenant.
NOT_OF_TENANTS: Final = {"dead_letter_states", "evaluations_latest"}
AS_ROLE: Final = Path(__file__).with_name("as_role.py")


def granted(role: str) -> list[str]:
    found = [match for match in map(GRANT.match, STATEMENTS) if match and role in match["roles"].split(", ")]
    return [f"GRANT {match['rights']} ON {match['object']}" for match in found]


def readable(role: str) -> set[str]:
    return {grant.rpartition(".")[2] for grant in granted(role) if grant.startswith("GRANT SELECT ON tidegate.")}


def filters(name: str) -> dict[str, str]:
    found = [match for match in map(POLICY.match, STATEMENTS) if match and match["name"] == name]
    return {table.strip().removeprefix("tidegate."): match["filter"] for match in found for table in match["tables"].split(",")}


@pytest.mark.parametrize("statement", STATEMENTS, ids=lambda statement: " ".join(statement.split()[:6]))
def test_a_statement_is_understood(statement: str) -> None:
    chdb.query(f"EXPLAIN AST {statement}")


def test_what_is_wrong_is_not_understood() -> None:
    with pytest.raises(RuntimeError, match="SYNTAX_ERROR"):
        chdb.query("EXPLAIN AST GRANT SELEC ON tidegate.calls TO tidegate_analyst")


# ---- what the script says of the store as it is

TENANTS: Final = ("harbor", "hill")
ROWS: Final[dict[str, Callable[[str], dict[str, Any]]]] = {
    "calls": lambda tenant: {
        **{"tenant": tenant, "started_at": "2026-03-01 12:00:00", "cost_nano_usd": 5, "producer": tenant},
        **{"retrieval": [{"chunk_id": "k", "score": 0.5, "source": "kb"}]},
    },
    "call_requests": lambda tenant: {"tenant": tenant, "started_at": "2026-03-01 12:00:00", "producer": tenant},
    "alerts": lambda tenant: {"at": "2026-03-01 12:00:00", "kind": "policy", "state": "block", "scope": {"tenant": tenant}},
    "signals": lambda tenant: {
        **{"at": "2026-03-01 12:00:00", "policy": "budget", "state": "block", "sequence": 1},
        **{"scope": {"tenant": tenant}, "scope_key": tenant},
    },
    "scored_calls": lambda tenant: {
        "tenant": tenant,
        "started_at": "2026-03-01 12:00:00",
        "ingested_at": datetime.now(UTC).isoformat(),
        "outcome": "scored",
        "findings": [{"detector": "phi", "type": "PERSON", "where": "response", "leak": True}],
        "producer": tenant,
    },
    "repriced": lambda tenant: {"version": "v", "tenant": tenant, "started_at": "2026-03-01 12:00:00", "producer": tenant},
    "repricings": lambda tenant: {"version": "v", "tenant": tenant},
    "usage_ledger": lambda tenant: {
        **{"hour": "2026-03-01 12:00:00", "scope_set": "tenant", "scope_key": tenant, "tenant": tenant, "requests": 1},
        **{"scope": {"tenant": tenant}},
    },
    "prices": lambda tenant: {"tenant": tenant, "model": "gpt-4o", "input_nano_usd_per_million": 5},
    "transcripts": lambda tenant: {
        "tenant": tenant,
        "started_at": "2026-03-01 12:00:00",
        "ingested_at": datetime.now(UTC).isoformat(),
        "redacted_prompt": "How is <PERSON>?",
        "producer": tenant,
    },
}


class Filled(NamedTuple):
    """A store with rows of two tenants. `tables`: with a tenant's rows; `views`: with their parameters."""

    path: Path
    tables: set[str]
    others: set[str]
    views: set[str]


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Filled:
    path = tmp_path_factory.mktemp("store") / "store"
    columns = """
        SELECT table, countIf(name IN ('tenant', 'scope')) > 0 AS owned FROM system.columns
        WHERE database = currentDatabase() GROUP BY table
    """
    objects = f"""
        SELECT name, engine, owned FROM system.tables LEFT JOIN ({columns}) AS c ON c.table = name
        WHERE database = currentDatabase() AND engine != 'MaterializedView'
    """
    with Store.open(path=path) as store:
        store.migrate()
        for table, row in ROWS.items():
            store.insert(table, ndjson([row(tenant) for tenant in TENANTS]), f"{table}:0:0-1")
        found = store.query(objects).rows
    return Filled(
        path,
        tables={name for name, engine, owned in found if engine != "View" and owned},
        others={name for name, engine, owned in found if engine != "View" and not owned},
        views={name for name, engine, _ in found if engine == "View"},
    )


def test_every_table_and_view_is_somebodys(filled: Filled) -> None:
    everything = filled.tables | filled.others | filled.views

    assert readable("tidegate_compliance") == everything | {"transcript_reads"}
    assert readable("tidegate_analyst") == everything - {"transcripts", "audit"}
    assert readable("tidegate_tenant") == everything - {"transcripts", *NOT_OF_TENANTS} - filled.others
    assert readable("tidegate_oncall") < readable("tidegate_analyst")


def test_who_looks_through_grafana_reads_what_an_analyst_reads() -> None:
    reader = ElementTree.parse(ACCESS.with_name("reader.xml"))

    assert [query.text for query in reader.iterfind("users/reader/grants/query")] == granted("tidegate_analyst")


def test_every_table_with_a_tenants_rows_has_both_policies(filled: Filled) -> None:
    assert set(filters("tidegate_own_tenant")) == filled.tables
    assert set(filters("tidegate_all_tenants")) == filled.tables


# ---- the rights, tried


@pytest.fixture(scope="module")
def asked(filled: Filled, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., list[Any]]:
    """What a role is told, statement by statement: rows, or the code of the error."""

    def ask(role: str, *statements: str, store: Path = filled.path, tenant: str | None = None) -> list[Any]:
        config = configured(tmp_path_factory.mktemp("role"), role, tenant)
        command = [sys.executable, str(AS_ROLE), str(store), str(config)]
        lines = "".join(json.dumps(statement) + "\n" for statement in ("USE tidegate", *statements))
        done = subprocess.run(command, input=lines, capture_output=True, text=True, timeout=120, cwd=config.parent)
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()][1:]

    return ask


def configured(folder: Path, role: str, tenant: str | None) -> Path:
    """The one user of an engine in a process, with a role's grants, and a tenant's filters."""
    roles = {role: granted(role)} | ({f"tidegate_tenant_{tenant}": ["GRANT NONE ON *.*"]} if tenant else {})
    queries = {name: "".join(f"<query>{escape(grant)}</query>" for grant in grants) for name, grants in roles.items()}
    rules = filters("tidegate_own_tenant") if tenant else {}
    tables = "".join(f"<{table}><filter>{escape(rule)}</filter></{table}>" for table, rule in rules.items())
    (folder / "users.xml").write_text(
        f"""<clickhouse><profiles><default/></profiles><quotas><default/></quotas>
        <roles>{"".join(f"<{name}><grants>{grants}</grants></{name}>" for name, grants in queries.items())}</roles>
        <users><default>
            <password/><networks><ip>::/0</ip></networks><profile>default</profile><quota>default</quota>
            <grants><query>GRANT {", ".join(f"`{name}`" for name in roles)}</query></grants>
            <databases><tidegate>{tables}</tidegate></databases>
        </default></users></clickhouse>"""
    )
    config = folder / "server.xml"
    config.write_text(f"<clickhouse><users_config>{folder / 'users.xml'}</users_config></clickhouse>")
    return config


def view(name: str, definition: str, tenant: str) -> str:
    """A question to a view, with whatever parameters it has."""
    values = {"tenant": tenant, "since": "2020-01-01", "until": "2100-01-01", "by": "tenant", "prompt": "", "rows": 10}
    names = dict.fromkeys(re.findall(r"\{(\w+):", definition))
    told = ", ".join(f"{name} = {values[name]!r}" for name in names)
    return f"SELECT * FROM tidegate.{name}" + (f"({told})" if told else "")


@pytest.fixture(scope="module")
def definitions() -> dict[str, str]:
    text = "".join(f"{statement};\n" for migration in migrations.read() for statement in migration.statements)
    return {
        match[1]: match[2]
        for match in re.finditer(r"CREATE (?:OR REPLACE )?VIEW (?:IF NOT EXISTS )?(\w+) AS(.*?);\n", text, re.DOTALL)
    }


def test_an_analyst_reads_all_but_texts(filled: Filled, asked: Callable[..., list[Any]], definitions: dict[str, str]) -> None:
    may = [*(f"SELECT * FROM tidegate.{table}" for table in sorted((filled.tables | filled.others) - {"transcripts", "audit"}))]
    may += [view(name, definitions[name], "*") for name in sorted(filled.views)]
    may_not = [
        "SELECT * FROM tidegate.transcripts",
        "SELECT redacted_prompt FROM tidegate.transcripts",
        "SELECT count() FROM tidegate.transcripts",
        "SELECT * FROM tidegate.audit",
        "INSERT INTO tidegate.calls (tenant) SELECT 'x'",
        "ALTER TABLE tidegate.calls DELETE WHERE 1",
        "DROP TABLE tidegate.calls",
        "SELECT * FROM file('/etc/passwd', 'LineAsString')",
        "SELECT * FROM url('http://127.0.0.1:1/', 'LineAsString')",
    ]

    told = asked("tidegate_analyst", *may, *may_not)

    assert [answer for answer in told[: len(may)] if not isinstance(answer, list)] == []
    assert told[len(may) :] == [DENIED] * len(may_not)


def test_somebody_on_call_sees_how_it_goes_and_nobody(asked: Callable[..., list[Any]]) -> None:
    told = asked(
        "tidegate_oncall",
        "SELECT sum(requests) FROM tidegate.v_calls_1m",
        "SELECT count() FROM tidegate.blocks(tenant = '*', since = '2020-01-01', until = '2100-01-01')",
        "SELECT count() FROM tidegate.dead_letters",
        "SELECT * FROM tidegate.calls",
        "SELECT * FROM tidegate.expensive_users(tenant = '*', since = '2020-01-01', until = '2100-01-01')",
        "SELECT * FROM tidegate.transcripts",
    )

    assert told == [[["2"]], [["2"]], [["0"]], DENIED, DENIED, DENIED]


def test_compliance_reads_redacted_texts(asked: Callable[..., list[Any]]) -> None:
    told = asked(
        "tidegate_compliance", "SELECT redacted_prompt FROM tidegate.transcripts WHERE tenant = 'hill'", "SYSTEM SHUTDOWN"
    )

    assert told == [[["How is <PERSON>?"]], DENIED]


def test_a_tenant_sees_its_own_rows_whatever_it_asks(
    filled: Filled, asked: Callable[..., list[Any]], definitions: dict[str, str]
) -> None:
    tables = sorted(filled.tables - {"transcripts"})
    views = sorted(filled.views - NOT_OF_TENANTS)
    statements = [f"SELECT * FROM tidegate.{table}" for table in tables]
    statements += [view(name, definitions[name], tenant) for tenant in ("*", "hill", "harbor") for name in views]

    everybody = asked("tidegate_analyst", *statements)
    harbor = asked("tidegate_tenant", *statements, "SELECT * FROM tidegate.dead_letters", tenant="harbor")
    nobody = asked("tidegate_tenant", "SELECT count() FROM tidegate.calls", tenant="other")

    lacking = [name for name, answer in zip(tables, everybody, strict=False) if "hill" not in str(answer)]
    assert lacking == []
    assert "hill" not in str(harbor)
    assert all("harbor" in str(answer) for answer in harbor[: len(tables)])
    shown = {name for name, answer in zip(views, harbor[len(tables) : len(tables) + len(views)], strict=True) if answer}
    assert {"cost_by", "usage_by", "v_calls_1h", "findings", "phi_leaks", "blocks"} <= shown
    assert harbor[-1] == DENIED
    assert nobody == [[["0"]]]


def test_a_sink_migrates_and_writes(asked: Callable[..., list[Any]], tmp_path: Path) -> None:
    first = "CREATE TABLE IF NOT EXISTS schema_migrations (number UInt32) ENGINE = MergeTree ORDER BY number"
    statements = ["CREATE DATABASE IF NOT EXISTS tidegate", "USE tidegate", first]
    statements += [statement for migration in migrations.read() for statement in migration.statements]
    insert = "INSERT INTO calls (tenant, started_at) SELECT 'harbor', '2026-03-01 12:00:00'"
    statements += [
        insert,
        "SELECT sum(requests) FROM v_calls_1h",
        "SELECT name FROM system.columns WHERE table = 'calls' LIMIT 1",
    ]

    told = asked(
        "tidegate_sink", *statements, "SELECT * FROM url('http://127.0.0.1:1/', 'LineAsString')", store=tmp_path / "store"
    )

    assert [code for code in told if isinstance(code, int)] == [DENIED]
    assert told[-3:-1] == [[["1"]], [["event"]]]
