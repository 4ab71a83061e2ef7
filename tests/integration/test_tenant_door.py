"""Tenants at the node's ClickHouse door: real clients, a real node, two tenants that every name and number tells apart."""

from __future__ import annotations

import ast
import asyncio
import base64
import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import product
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import quote, urlencode, urlsplit

import clickhouse_connect
import pytest
import sqlalchemy
from clickhouse_connect.driver.client import Client
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from node_process import NodeProcess, eventually, tidegate
from starlette.requests import Request
from support import ndjson
from tidegate.processors.embedded import tenant_door
from tidegate.processors.embedded.app import Doors
from tidegate.processors.embedded.body import Bodies
from tidegate.processors.embedded.console_door import ConsoleDoor
from tidegate.processors.embedded.tenant_door import TenantDoor
from tidegate.processors.tenant_question import VIEWS, question
from tidegate.processors.tenant_tokens import TenantTokens
from tidegate.producers.audit_log import AuditLog
from tidegate.sinks.clickhouse import Store

HARBOR: Final = "harbor's own"
HILL: Final = "hill"
# What stands in every name, and as digits in every number, of the other tenant's calls.
MARK: Final = "hill"
NUMBER: Final = "7919"
RANGE: Final = {"since": "2020-01-01", "until": "2040-01-01"}
BY: Final = (
    *("tenant", "team", "user", "service", "environment", "region", "task_type", "provider_name", "model", "prompt_name"),
    "prompt",
)


START: Final = "2026-11-02 08:30:00"


def rows(tenant: str, mark: str, number: int) -> dict[str, list[dict[str, Any]]]:
    """A tenant's rows: each of its names has the mark in it, and each number is a multiple of `number`."""
    dimensions = (*(name for name in BY if name not in ("tenant", "model", "prompt")), "prompt_version")
    call = {"tenant": tenant, "started_at": START, "producer": mark, **{name: f"{mark}-{name}" for name in dimensions}}
    tokens = {"input_tokens": number, "output_tokens": 2 * number, "latency_s": number, "time_to_first_token_s": number}
    chunk = [{"chunk_id": f"{mark}-doc", "score": number, "source": mark}]
    called = [
        call
        | tokens
        | {"call_id": f"{mark}-{place}", "seq": place, "request_model": f"{mark}-model", "retrieval": chunk}
        | more
        for place, more in enumerate(({"cost_nano_usd": number * 10**9}, {"error_type": f"{mark}-error"}, {}))
    ]
    leak = {
        "detector": f"{mark}-phi",
        "type": f"{mark}-SSN",
        "where": "response",
        "start": number,
        "end": 2 * number,
        "leak": True,
    }
    verdict = call | {"call_id": f"{mark}-0", "request_model": f"{mark}-model", "scored_at": START, "outcome": "scored"}
    verdict |= {"findings": [leak], "scores": {"response.relevance": number}, "seq": 0, "ingested_at": START}
    alert = {"at": START, "kind": "policy", "policy": f"{mark}-policy", "scope": {"tenant": tenant, "team": f"{mark}-team"}}
    alert |= {"state": "block", "spend": number, "limit": 2 * number, "owner": f"{mark}-owner"}
    return {"calls": called, "scored_calls": [verdict], "alerts": [alert]}


class Tenanted(NamedTuple):
    """A node with two tenants' rows, and its tokens."""

    node: NodeProcess
    tokens: TenantTokens

    @property
    def token(self) -> str:
        """A token of the first tenant's that nobody has used."""
        return self.tokens.grant(HARBOR, "", timedelta(days=1))[1]

    def ask(self, sql: str, token: str | None = None, **parameters: str) -> Answer:
        """The answer to a statement. Without a `token` with a new one: how often one may ask is a test of its own."""
        url = f"{self.node.url}/?{urlencode(parameters)}"
        headers = {"Authorization": f"Bearer {token or self.token}"}
        answer = self.node.http.request("POST", url, body=sql.encode(), headers=headers)
        return Answer(
            answer.status, answer.headers.get("X-ClickHouse-Exception-Code", ""), answer.data.decode(errors="replace")
        )


class Answer(NamedTuple):
    """What came back."""

    status: int
    code: str
    text: str


@pytest.fixture(scope="module")
def tenanted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tenanted]:
    data = tmp_path_factory.mktemp("node") / "data"
    with Store.open(path=data / "store") as store:
        store.migrate()
        for place, (tenant, mark, number) in enumerate(((HARBOR, "harbor", 1009), (HILL, MARK, int(NUMBER)))):
            for table, lines in rows(tenant, mark, number).items():
                store.insert(table, ndjson(lines), f"{table}:0:{place}-{place}")
    with NodeProcess(data, TIDEGATE_TOKEN="the-operators") as node:
        yield Tenanted(node, TenantTokens(data, AuditLog(data)))


def granted(node: NodeProcess, tenant: str = HARBOR, *more: str) -> str:
    done = tidegate("access", "grant", "--tenant", tenant, "--data", node.data_dir, *more)
    assert done.returncode == 0, done.stderr
    return done.stdout.decode().strip()


def client_of(tenanted: Tenanted, **how: Any) -> Client:
    where = urlsplit(tenanted.node.url)
    return clickhouse_connect.get_client(
        host=where.hostname, port=where.port, username="dash", password=tenanted.token, query_retries=0, **how
    )


def view(name: str, tenant: str | None = None, **values: Any) -> str:
    """A call of a view over everything there is."""
    told = {
        name_: {"by": "model", "prompt": "harbor-prompt_name", "rows": 10, **RANGE}[name_] for name_ in VIEWS[name]
    } | values
    told |= {} if tenant is None else {"tenant": tenant}
    return f"{name}({', '.join(f'{key} = {value!r}' for key, value in told.items())})"


# ---- clients


@pytest.mark.parametrize("compress", [False, "lz4", "gzip"])
def test_clickhouse_connect_asks_for_the_tenants_own_figures(tenanted: Tenanted, compress: bool | str) -> None:
    client = client_of(tenanted, compress=compress)

    told = client.query(
        "SELECT value, requests, cost_usd, input_tokens / requests AS each"
        " FROM cost_by(by = {by:String}, since = {from:DateTime}, until = toString(now() + INTERVAL 9 YEAR))"
        " WHERE requests > 0 ORDER BY value LIMIT 5",
        {"by": "user", "from": datetime(2020, 1, 1, tzinfo=UTC)},
    )

    assert told.column_names == ("value", "requests", "cost_usd", "each")
    assert told.result_rows == [("harbor-user", 3, Decimal(1009), 1009.0)]


def test_the_example_and_the_views_of_the_page_are_what_there_is(tenanted: Tenanted) -> None:
    page = (Path(__file__).parents[2] / "docs" / "access.md").read_text()
    part = page.partition("### A tenant's own token")[2].partition("\n## ")[0]
    example = re.search(r"```python\n(.*?)```", part, re.DOTALL)
    listed = re.search(r"\*\*Views\*\*: (.*?), with the parameters", part, re.DOTALL)
    assert example is not None
    assert listed is not None
    calls = [node for node in ast.walk(ast.parse(example[1])) if isinstance(node, ast.Call)]
    [(sql, parameters)] = [[ast.literal_eval(one) for one in call.args] for call in calls if len(call.args) == 2]

    told = client_of(tenanted).query(sql.replace("7 DAY", "9 YEAR").replace("requests > 100", "requests > 1"), parameters)

    assert told.result_rows == [("harbor-prompt_name@harbor-prompt_version", 3, Decimal("336.333333333"))]
    assert re.findall(r"`(\w+)`", listed[1]) == list(VIEWS)


def test_the_views_can_be_looked_over(tenanted: Tenanted) -> None:
    client = client_of(tenanted)

    tables = [name for (name,) in client.query("SHOW TABLES").result_rows]
    columns = [row[0] for row in client.query("DESCRIBE TABLE slowest_calls").result_rows]

    assert tables == sorted(VIEWS)
    assert columns == list(client.query(f"SELECT * FROM {view('slowest_calls')}").column_names)


def test_the_token_is_taken_wherever_a_client_puts_it(tenanted: Tenanted) -> None:
    node, token = tenanted.node, tenanted.token
    asked = node.url + "/?query=SELECT%201"
    basic = base64.b64encode(f"dash:{token}".encode()).decode()

    said = [
        node.http.request("GET", asked, headers={"Authorization": f"Bearer {token}"}).data,
        node.http.request("GET", asked, headers={"Authorization": f"Basic {basic}"}).data,
        node.http.request("GET", asked, headers={"X-ClickHouse-User": "u", "X-ClickHouse-Key": token}).data,
        node.http.request("GET", f"{asked}&user=u&password={quote(token)}").data,
    ]

    assert said == [b"1\n"] * 4


def test_sqlalchemy_asks_too(tenanted: Tenanted) -> None:
    where = urlsplit(tenanted.node.url)
    engine = sqlalchemy.create_engine(f"clickhousedb://dash:{tenanted.token}@{where.hostname}:{where.port}/tidegate")

    with engine.connect() as connection:
        names = sqlalchemy.inspect(engine).get_table_names()
        asked = sqlalchemy.text(f"SELECT value, requests FROM {view('cost_by', by='user')} WHERE requests >= :least")
        told = connection.execute(asked, {"least": 3}).fetchall()

    assert names == list(VIEWS)
    assert [tuple(row) for row in told] == [("harbor-user", 3)]


# ---- whose rows


def test_the_views_and_their_parameters_are_those_of_the_store(tenanted: Tenanted) -> None:
    made = tenanted.node.rows("SELECT name, create_table_query AS made FROM system.tables WHERE database = 'tidegate'")
    parameters = {row["name"]: set(re.findall(r"\{(\w+):\w+\}", row["made"])) for row in made}

    assert {name: {*needed, "tenant"} for name, needed in VIEWS.items()} == {name: parameters[name] for name in VIEWS}


@pytest.mark.parametrize("name", VIEWS)
def test_a_view_shows_nothing_of_another_tenant_whatever_it_is_asked_by(tenanted: Tenanted, name: str) -> None:
    marks = [HILL, NUMBER, *(str(times * int(NUMBER)) for times in (2, 3, 6))]
    prompts = ("harbor-prompt_name", f"{MARK}-prompt_name", "*", "")
    asked = [
        {key: value for key, value in {"by": by, "prompt": prompt}.items() if key in VIEWS[name]}
        for by, prompt in product(BY, prompts)
    ]
    asked = [dict(one) for one in {tuple(one.items()) for one in asked}]
    everybodys = tenanted.node.rows(
        f"SELECT * FROM {view(name, '*', **({'prompt': prompts[1]} if 'prompt' in VIEWS[name] else {}))}"
    )

    answers = [
        tenanted.ask(f"SELECT * FROM {view(name, **values)}", default_format=form)
        for place, values in enumerate(asked)
        for form in (("JSON", "JSONEachRow", "Native") if not place else ("JSON",))
    ]

    # What is looked for is there for those who may see it, and the tenant's own is in what it gets.
    assert HILL in json.dumps(everybodys) or NUMBER in json.dumps(everybodys)
    assert any("harbor" in answer.text or "1009" in answer.text for answer in answers)
    assert {answer.status for answer in answers} <= {200, 400}
    assert [answer for answer in answers if any(mark in answer.text for mark in marks)] == []
    # How many rows were read is everybody's.
    assert [answer for answer in answers if "rows_read" in answer.text] == []


@pytest.mark.parametrize("name", VIEWS)
def test_what_a_format_tells_beside_the_rows_is_the_tenants_own(tenanted: Tenanted, name: str) -> None:
    answer = tenanted.ask(f"SELECT * FROM {view(name)} LIMIT 1 FORMAT JSON")

    told = json.loads(answer.text)

    assert told.keys() <= {"meta", "data", "rows", "rows_before_limit_at_least"}
    # It has three calls, and so has the other tenant.
    assert told["rows_before_limit_at_least"] <= 3


QUESTIONS: Final = st.builds(
    lambda name, told, columns, condition, rest: f"SELECT {columns} FROM {view(name, **told)}{condition}{rest}",
    st.sampled_from(list(VIEWS)),
    st.fixed_dictionaries(
        {},
        optional={
            "since": st.sampled_from(["2026-11-02T08:30:00Z", "1"]),
            "until": st.sampled_from(["2026-11-02", "2099-01-01"]),
        },
    ),
    st.sampled_from(["*", "value, requests + 1 AS n", "tenant, user", "at, limit", "requests / 0 AS n", "started_at, call_id"]),
    st.sampled_from(
        ["", *(f" WHERE {one}" for one in ("value = 'hill-user'", "tenant = 'hill'", "requests > 0", "type != ''"))]
    ),
    st.sampled_from(["", " LIMIT 1", " ORDER BY value DESC LIMIT 2 OFFSET 1", " ORDER BY tenant NULLS FIRST"]),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    asked=QUESTIONS,
    at=st.integers(0, 160),
    gone=st.sampled_from([0, 0, 0, 1, 7]),
    put=st.sampled_from(["", "", " ", "'", "*", "--"]),
)
def test_no_question_whole_or_bent_shows_anything_of_another_tenant(
    tenanted: Tenanted, asked: str, at: int, gone: int, put: str
) -> None:
    answer = tenanted.ask(asked[:at] + put + asked[at + gone :] + " FORMAT JSON")

    event(f"status {answer.status}")
    if answer.status == 200:
        # The question may name the other tenant; the answer has no such row.
        assert MARK not in answer.text
        assert not any(str(times * int(NUMBER)) in answer.text for times in (1, 2, 3, 6))
    else:
        assert answer.status in (400, 403)
        assert "In scope" not in answer.text


def test_whether_others_have_rows_cannot_be_told_by_what_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An expression that fails on any row of a column, wherever a name for it may stand: the tenant has no rows."""
    monkeypatch.setattr(tenant_door, "_BURST", 10_000)  # how often one may ask is a test of its own
    tokens = TenantTokens(tmp_path, AuditLog(tmp_path))
    secret = tokens.grant(HARBOR, "", timedelta(days=1))[1]

    def of_columns(store: Store, name: str) -> list[str]:
        described = question(f"DESCRIBE TABLE {name}", {}, HARBOR)
        found = store.query(described.sql, described.values).dicts()
        columns = [row["name"] for row in found if re.search("Int|Float|Decimal|Date", row["type"])]
        named = [
            f"SELECT {column} + 999999999999999 AS {called} FROM {view(name)} WHERE {called} > {value}"
            for column in columns
            for called in ("far", column)
            for value in ("'2026-01-01'", "1")
        ]
        first = columns[0]
        return [
            *named,
            f"SELECT {first} + 999999999999999 AS far FROM {view(name)} ORDER BY far LIMIT 1",
            f"SELECT {first} + 999999999999999 AS far FROM {view(name)} WHERE {first} > '2026-01-01' ORDER BY far LIMIT 1",
        ]

    async def told(store: Store, asked: list[str]) -> list[tuple[int, bytes]]:
        door = TenantDoor(Bodies(1 << 20), tokens)
        try:
            return [await answered(door, store, sql) for sql in asked]
        finally:
            door.close()

    async def answered(door: TenantDoor, store: Store, sql: str) -> tuple[int, bytes]:
        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": sql.encode(), "more_body": False}

        scope = {"type": "http", "method": "POST", "path": "/", "query_string": b"", "headers": [], "client": ("::1", 1)}
        answer = await door.serve(Request(scope, receive), secret, store)
        return answer.status_code, bytes(answer.body)

    with Store.open(path=tmp_path / "store") as store:
        store.migrate()
        asked = [sql for name in VIEWS for sql in of_columns(store, name)]
        before = asyncio.run(told(store, asked))
        for table, lines in rows(HILL, MARK, int(NUMBER)).items():
            store.insert(table, ndjson(lines), f"{table}:0:0-0")
        after = asyncio.run(told(store, asked))

    assert {name for name in VIEWS for sql in asked if f"FROM {name}(" in sql} == {*VIEWS}
    assert {200, 403} <= {status for status, _ in before}
    assert [found for found in zip(asked, before, after, strict=True) if found[1] != found[2]] == []


def test_answers_have_a_form_that_holds_nothing_else(tenanted: Tenanted) -> None:
    asked = f"SELECT * FROM {view('cost_by')}"

    assert tenanted.ask(asked, default_format="JSONEachRowWithProgress").code == "73"
    assert tenanted.ask(f"{asked} FORMAT CSV").text.startswith('"harbor-model",3,')


@pytest.mark.parametrize(
    "statement",
    [
        f"SELECT * FROM {view('cost_by', HILL)}",
        f"SELECT * FROM {view('cost_by', '*')}",
        "SELECT * FROM cost_by(by = 'user', since = '2020-01-01', until = '2040-01-01', tenant = {tenant:String})",
        "SELECT * FROM cost_by(by = 'user', since = '2020-01-01', until = '2040-01-01', tenant = {tenant:Identifier})",
        f"SELECT * FROM {view('cost_by')} UNION ALL SELECT * FROM {view('cost_by', HILL)}",
        f"SELECT * FROM {view('cost_by')} WHERE value IN (SELECT user FROM calls)",
        f"SELECT * FROM {view('cost_by')} SETTINGS readonly = 0",
        f"SELECT * FROM {view('cost_by')}; SELECT * FROM calls",
        f"SELECT (SELECT groupArray(user) FROM calls) FROM {view('cost_by')}",
        "SELECT * FROM usage_between(tenant = '*', since = '2020-01-01', until = '2040-01-01')",
        "SELECT * FROM merge('tidegate', '.*')",
        "SELECT * FROM calls",
        "SELECT * FROM transcripts",
        "SELECT * FROM audit",
        "SELECT * FROM dead_letters",
        "SELECT * FROM repriced_calls",
        "SELECT query FROM system.processes",
        "SELECT * FROM system.settings",
        "INSERT INTO calls (tenant) VALUES ('x')",
    ],
)
def test_what_else_is_asked_is_refused_with_clickhouses_number(tenanted: Tenanted, statement: str) -> None:
    for wished in (
        {"param_tenant": HILL},
        {"param_tenant": HILL, "readonly": "0", "database": "system", "default_format": "JSON"},
    ):
        answer = tenanted.ask(statement, **wished)

        assert (answer.status, answer.code) == (403, "497")
        assert HILL not in answer.text


@pytest.mark.parametrize(
    ("statement", "code"),
    [
        (f"SELECT nothing FROM {view('cost_by')}", "47"),
        (f"SELECT * FROM {view('cost_by', by='nothing')}", "395"),
        (f"SELECT * FROM {view('cost_by', since='nothing')}", "41"),
        (f"SELECT cost_usd / 0 FROM {view('cost_by')}", "153"),
        (f"SELECT value + 1 FROM {view('cost_by')}", "43"),
    ],
)
def test_an_error_is_told_in_words_of_the_nodes_own(tenanted: Tenanted, statement: str, code: str) -> None:
    answer = tenanted.ask(statement)

    assert (answer.status, answer.code) == (400, code)
    assert not any(word in answer.text for word in ("In scope", "calls_1h", "tidegate.", "nothing", HILL))


def test_a_setting_that_was_changed_is_nobodys_business(tenanted: Tenanted) -> None:
    asked = "SELECT name, value, readonly FROM system.settings LIMIT 10000"

    told = {line.split("\t")[0] for line in tenanted.ask(asked).text.splitlines()}

    assert {"readonly", "enable_http_compression"} <= told
    assert "max_memory_usage" not in told


# ---- what a token does not open


def routes() -> list[tuple[str, str]]:
    """Every door of a node, with each method that it takes."""
    doors = Doors.__new__(Doors)
    doors.console = ConsoleDoor.__new__(ConsoleDoor)
    found: Any = doors.app().routes
    return sorted((route.path, method) for route in found for method in route.methods - {"HEAD"})


@pytest.mark.parametrize(("path", "method"), routes())
def test_a_tenants_token_opens_no_other_door(tenanted: Tenanted, path: str, method: str) -> None:
    node, token = tenanted.node, tenanted.token
    bearing = {"Authorization": f"Bearer {token}"}
    for_everybody = {"/healthz", "/readyz", "/ping"}

    answer = node.http.request(method, node.url + path, headers=bearing, body=b"{}" if method == "POST" else None)

    if path in for_everybody:
        assert answer.data in (b"ok\n", b"ready\n", b"Ok.\n")
    elif (path, method) == ("/", "GET") or path.startswith("/console/assets/"):
        # The page holds no figure; what it asks for is refused.
        assert b"harbor" not in answer.data
    elif (path, method) == ("/", "POST"):
        assert (answer.status, answer.headers["X-ClickHouse-Exception-Code"]) == (403, "497")
    elif (path, method) in {("/console/session", "POST"), ("/console/session", "DELETE")}:
        # Signing in takes what is in the body, signing out nothing.
        assert b'"role":"' not in answer.data
    else:
        assert answer.status == 401
        assert b"harbor" not in answer.data


# ---- their life


def test_a_token_that_is_revoked_or_has_ended_opens_nothing(tenanted: Tenanted) -> None:
    node, token = tenanted.node, granted(tenanted.node, "short", "--name", "a dashboard")
    tokens = json.loads(tidegate("access", "list", "--json", "--data", node.data_dir).stdout)
    [mine] = [one for one in tokens if one["tenant"] == "short"]
    before = tenanted.ask("SELECT 1", token)

    revoked = tidegate("access", "revoke", mine["id"], "--data", node.data_dir)
    again = tidegate("access", "revoke", mine["id"], "--data", node.data_dir)

    assert before.text == "1\n"
    assert revoked.returncode == 0, revoked.stderr
    assert (tenanted.ask("SELECT 1", token).status, tenanted.ask("SELECT 1", token).code) == (403, "516")
    assert again.returncode == 2
    assert b"nothing was revoked" in again.stderr


def test_who_was_let_in_is_in_the_audit_log_and_the_token_nowhere(tenanted: Tenanted) -> None:
    node, token = tenanted.node, granted(tenanted.node, "audited", "--name", "grafana")
    for _ in range(2):
        assert tenanted.ask("SELECT 1", token).text == "1\n"
    assert tidegate("access", "revoke", "--tenant", "audited", "--data", node.data_dir).returncode == 0
    asked = "SELECT action, actor, details FROM audit WHERE subject = 'audited' AND action LIKE 'access.%' ORDER BY seq"

    told = eventually(lambda: node.rows(asked), lambda found: len(found) == 3)

    assert [row["action"] for row in told] == ["access.granted", "access.first_used", "access.revoked"]
    assert told[0]["actor"].startswith("user:")
    assert told[1]["actor"] == "token"
    assert json.loads(told[0]["details"])["name"] == "grafana"
    assert json.loads(told[1]["details"])["client"] == "127.0.0.1"
    held = [path for path in node.data_dir.rglob("*") if path.is_file() and token.encode() in path.read_bytes()]
    assert held == []
    assert (node.data_dir / "tokens.json").stat().st_mode & 0o777 == 0o600
    listed = tidegate("access", "list", "--data", node.data_dir)
    assert b"harbor" in listed.stdout
    assert b"tgt_" not in listed.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("grant", "--tenant", "*"), b"everybody"),
        (("grant", "--tenant", ""), b"printable"),
        (("revoke",), b"by their ids"),
        (("revoke", "--tenant", "nobody"), b"has no tokens"),
    ],
)
def test_what_cannot_be_granted_or_revoked_is_explained(tenanted: Tenanted, words: tuple[str, ...], said: bytes) -> None:
    done = tidegate("access", *words, "--data", tenanted.node.data_dir)

    assert done.returncode == 2
    assert said in done.stderr


def test_one_that_asks_too_often_waits_and_others_do_not(tenanted: Tenanted) -> None:
    node, hasty = tenanted.node, granted(tenanted.node, "hasty")
    headers = {"Authorization": f"Bearer {hasty}"}

    answers = [node.http.request("POST", node.url + "/", body=b"SELECT 1", headers=headers) for _ in range(120)]

    refused = [answer for answer in answers if answer.status == 429]
    assert [answer.status for answer in answers[:60]] == [200] * 60
    assert len(refused) > 20
    assert {answer.headers["X-ClickHouse-Exception-Code"] for answer in refused} == {"201"}
    assert all(int(answer.headers["Retry-After"]) >= 1 for answer in refused)
    assert tenanted.ask("SELECT 1", granted(node, "patient")).text == "1\n"
    assert node.rows("SELECT 1 AS one") == [{"one": 1}]
