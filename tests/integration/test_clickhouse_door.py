"""The node as a ClickHouse server for reading: third-party clients, unmodified, against a real node."""

from __future__ import annotations

import base64
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlsplit

import clickhouse_connect
import pytest
import sqlalchemy
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import DatabaseError
from node_process import NodeProcess
from support import response

JDBC: Final = Path(__file__).parents[1] / "jdbc"


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    with NodeProcess(tmp_path_factory.mktemp("node") / "data") as running:
        events = [response(f"c{number}", tenant="jdbc's own" if number < 2 else "t%1") for number in range(5)]
        assert running.post(events).status == 202
        running.settled()
        yield running


def client_of(node: NodeProcess, password: str | None = None, **how: Any) -> Client:
    where = urlsplit(node.url)
    password = node.token if password is None else password
    return clickhouse_connect.get_client(host=where.hostname, port=where.port, username="analyst", password=password, **how)


# ---- clickhouse-connect


@pytest.mark.parametrize("compress", [False, "lz4", "gzip", True])
def test_clickhouse_connect_reads_values_as_they_are(node: NodeProcess, compress: bool | str) -> None:
    client = client_of(node, compress=compress)

    calls = client.query("SELECT call_id, tenant, input_tokens, cost_usd FROM calls ORDER BY call_id LIMIT 1")
    values = client.query(
        "SELECT toDate('2026-01-02'), toDecimal64(1.5, 3), [1, NULL], map('a', 'b'), 300000 + number FROM numbers(2)"
    )
    many = client.query("SELECT number, toString(number) FROM numbers(200000)")

    assert calls.column_names == ("call_id", "tenant", "input_tokens", "cost_usd")
    assert calls.result_rows == [("c0", "jdbc's own", *_of(node, "c0"))]
    assert values.result_rows[1] == (date(2026, 1, 2), Decimal("1.500"), [1, None], {"a": "b"}, 300001)
    assert many.result_rows[-1] == (199_999, "199999")


def _of(node: NodeProcess, call_id: str) -> tuple[int, Decimal]:
    [row] = node.rows(f"SELECT input_tokens, cost_nano_usd FROM calls WHERE call_id = '{call_id}'")
    return int(row["input_tokens"]), Decimal(int(row["cost_nano_usd"])).scaleb(-9)


@pytest.mark.parametrize("value", ["plain", "it's", "tab\there", "line\nend", "back\\slash", "100 % {x}", "Ω €", "\\N", ""])
def test_a_parameter_arrives_as_it_was_given(node: NodeProcess, value: str) -> None:
    client = client_of(node)

    asked = "SELECT {one:String} AS one, {many:Array(String)} AS many, '% {' AS text"
    answer = client.query(asked, {"one": value, "many": [value, "x"]})

    assert answer.result_rows == [(value, [value, "x"], "% {")]


def test_a_parameter_that_nothing_asks_for_changes_nothing(node: NodeProcess) -> None:
    asked = quote("SELECT count() FROM calls WHERE tenant LIKE 't%'")

    url = f"{node.url}/?query={asked}&param_unused=x"
    answer = node.http.request("GET", url, headers={"Authorization": f"Bearer {node.token}"})

    assert answer.data == b"3\n"


def test_arrow_and_dataframes_come_too(node: NodeProcess) -> None:
    table = client_of(node).query_arrow("SELECT call_id FROM calls ORDER BY call_id")

    assert [str(call) for call in table.column("call_id").to_pylist()] == ["c0", "c1", "c2", "c3", "c4"]


def test_views_with_parameters_are_asked_like_tables(node: NodeProcess) -> None:
    asked = "SELECT value, requests FROM cost_by(by = 'tenant', tenant = '*', since = '2020-01-01', until = '2040-01-01')"

    assert sorted(client_of(node).query(asked).result_rows) == [("jdbc's own", 2), ("t%1", 3)]


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        ("INSERT INTO calls (tenant) VALUES ('x')", 164),
        ("DROP TABLE calls", 164),
        ("SELECT 1 INTO OUTFILE 'x'", 164),
        ("SELECT * FROM file('/etc/passwd', 'LineAsString')", None),
        ("SELECT 1; SELECT 2", None),
        ("SELECT * FROM nothing", 60),
        ("SELEC 1", 62),
        ("SET max_threads = 1", 164),
    ],
)
def test_what_is_no_question_is_refused_with_clickhouses_number(node: NodeProcess, asked: str, code: int | None) -> None:
    with pytest.raises(DatabaseError) as refused:
        client_of(node).raw_query(asked)

    assert code is None or refused.value.code == code
    assert client_of(node).command("SELECT count() FROM calls") == 5


def test_an_answer_beyond_the_bound_is_an_error_and_not_a_part(node: NodeProcess) -> None:
    with pytest.raises(DatabaseError) as refused:
        client_of(node).query("SELECT number FROM numbers(1000001)")

    assert refused.value.code == 396
    # Nothing of it is left for whoever asks next.
    assert client_of(node).command("SELECT count() FROM calls") == 5


def test_a_question_ends_when_its_time_is_over(node: NodeProcess) -> None:
    started = time.monotonic()

    answer = _status(node, "SELECT sum(sipHash64(number, number)) FROM numbers(1000000000000)", max_execution_time="0.5")

    assert answer == (400, "159")
    assert time.monotonic() - started < 20


@pytest.mark.parametrize("password", ["", "wrong", "Ω"])
def test_without_the_token_nothing_is_said(node: NodeProcess, password: str) -> None:
    credentials = base64.b64encode(f"default:{password}".encode()).decode()

    answer = node.http.request("POST", node.url + "/", body=b"SELECT 1", headers={"Authorization": f"Basic {credentials}"})

    assert (answer.status, answer.headers["X-ClickHouse-Exception-Code"]) == (403, "516")
    assert b"TIDEGATE_TOKEN" in answer.data


def test_the_token_is_taken_wherever_a_client_puts_it(node: NodeProcess) -> None:
    asked = node.url + "/?query=SELECT%201"

    said = [
        node.http.request("GET", asked, headers={"Authorization": f"Bearer {node.token}"}).data,
        node.http.request("GET", asked, headers={"X-ClickHouse-User": "u", "X-ClickHouse-Key": node.token}).data,
        node.http.request("GET", f"{asked}&user=u&password={quote(node.token)}").data,
    ]

    assert said == [b"1\n"] * 3


def test_a_person_still_gets_the_page_and_a_ping_is_answered(node: NodeProcess) -> None:
    page, ping = node.get("/"), node.get("/ping")

    assert b"<!doctype html>" in page.data.lower()
    assert ping.data == b"Ok.\n"


def _status(node: NodeProcess, sql: str, **parameters: str) -> tuple[int, str]:
    given = "&".join(f"{name}={quote(value)}" for name, value in parameters.items())
    headers = {"Authorization": f"Bearer {node.token}"}
    answer = node.http.request("POST", f"{node.url}/?{given}", body=sql.encode(), headers=headers)
    return answer.status, answer.headers.get("X-ClickHouse-Exception-Code", "")


# ---- other clients


def test_sqlalchemy_finds_tables_and_reads_them(node: NodeProcess) -> None:
    where = urlsplit(node.url)
    engine = sqlalchemy.create_engine(f"clickhousedb://analyst:{node.token}@{where.hostname}:{where.port}/tidegate")

    with engine.connect() as connection:
        names = sqlalchemy.inspect(engine).get_table_names()
        calls = sqlalchemy.Table("calls", sqlalchemy.MetaData(), autoload_with=engine)
        by_tenant = sqlalchemy.select(calls.c.tenant, sqlalchemy.func.count()).group_by(calls.c.tenant)
        counted = connection.execute(by_tenant).fetchall()

    assert {"calls", "calls_1h", "alerts"} <= set(names)
    assert sorted(tuple(row) for row in counted) == [("jdbc's own", 2), ("t%1", 3)]


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    missing = [name for name in ("javac", "mvn") if shutil.which(name) is None]
    if missing:
        pytest.skip(f"the JDBC driver needs {' and '.join(missing)}")
    jars = tmp_path_factory.mktemp("jdbc")
    command = ("mvn", "-q", "-B", "-f", str(JDBC / "pom.xml"), "dependency:copy-dependencies", f"-DoutputDirectory={jars}")
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, timeout=600)
    return jars


@pytest.mark.parametrize("compress", ["true", "false"])
def test_the_jdbc_driver_reads_asks_and_is_refused(node: NodeProcess, driver: Path, compress: str) -> None:
    where = urlsplit(node.url)
    url = f"jdbc:clickhouse://{where.hostname}:{where.port}/tidegate"
    command = ("java", "-cp", f"{driver}/*", str(JDBC / "Ask.java"), url, node.token, compress)

    said = subprocess.run(command, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL)

    assert said.returncode == 0, said.stderr
    lines = said.stdout.splitlines()
    assert [line for line in lines if line.startswith("call ")] == [
        f"call {call} {tokens} {usd}" for call in ("c0", "c1") for tokens, usd in [_of(node, call)]
    ]
    assert f"sum {sum(range(300_000))}" in lines
    assert "column sha256" in lines
    assert lines[-1].startswith("refused ")


def test_answers_do_not_wait_for_the_other_side(node: NodeProcess) -> None:
    where = urlsplit(node.url)
    assert where.hostname is not None
    assert where.port is not None
    head = f"POST / HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {node.token}\r\nContent-Length: 8\r\n\r\n".encode()

    with socket.create_connection((where.hostname, where.port)) as line:
        started = time.monotonic()
        for _ in range(20):
            line.sendall(head + b"SELECT 1")
            got = b""
            while not got.endswith(b"\r\n\r\n1\n"):
                got += line.recv(65536)
        each_s = (time.monotonic() - started) / 20

    # With Nagle's algorithm each of them would take 40 ms longer.
    assert each_s < 0.5
