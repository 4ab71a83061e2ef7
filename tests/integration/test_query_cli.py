"""Asking the store from the command line: formats, files, and the shell as somebody types into it."""

from __future__ import annotations

import csv
import io
import json
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pexpect
import pyarrow.parquet
import pytest
from node_process import NodeProcess, environment, tidegate
from support import response
from tidegate.sinks import migrations
from tidegate.sinks.clickhouse import Store

ASKED: Final = "SELECT call_id, cost_usd FROM calls ORDER BY call_id"


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("filled")
    log = base / "calls.jsonl"
    log.write_bytes(b"".join(json.dumps(response(f"c{number}")).encode() + b"\n" for number in range(3)))
    assert tidegate("replay", log, "--data", base / "data").returncode == 0
    return base / "data"


# ---- query


def test_an_answer_comes_in_the_format_that_is_asked_for(filled: Path) -> None:
    def asked(form: str) -> bytes:
        answer = tidegate("query", ASKED, "-d", filled, "-f", form)
        assert answer.returncode == 0, answer.stderr
        return answer.stdout

    assert next(csv.reader(io.StringIO(asked("csv").decode()))) == ["call_id", "cost_usd"]
    assert asked("tsv").splitlines()[1] == b"c0\t0.0035"
    assert asked("markdown").splitlines()[2] == b"| c0 | 0.0035 |"
    assert pyarrow.parquet.read_table(io.BytesIO(asked("parquet"))).column("call_id").to_pylist() == ["c0", "c1", "c2"]


def test_a_file_holds_the_whole_answer_or_is_not_there(filled: Path, tmp_path: Path) -> None:
    written = tidegate("query", ASKED, "-d", filled, "-f", "csv", "--out", tmp_path / "calls.csv")
    refused = tidegate("query", "SELECT nothing", "-d", filled, "-f", "csv", "--out", tmp_path / "nothing.csv")
    nowhere = tidegate("query", ASKED, "-d", filled, "-f", "csv", "--out", tmp_path / "no" / "calls.csv")

    assert (written.returncode, written.stdout) == (0, b"")
    assert (tmp_path / "calls.csv").read_bytes().count(b"\n") == 4
    assert (refused.returncode, nowhere.returncode) == (2, 2)
    assert b"cannot be written" in nowhere.stderr
    assert [file.name for file in tmp_path.iterdir()] == ["calls.csv"]


def test_a_table_is_not_for_files(filled: Path, tmp_path: Path) -> None:
    refused = tidegate("query", ASKED, "-d", filled, "--out", tmp_path / "x")

    assert refused.returncode == 2
    assert b"--format csv" in refused.stderr


def test_a_statement_is_read_from_standard_input(filled: Path) -> None:
    command = [sys.executable, "-m", "tidegate", "query", "-", "-d", str(filled), "-f", "tsv"]

    answer = subprocess.run(command, input=b"SELECT count()\nFROM calls", capture_output=True, env=environment(), timeout=60)

    assert answer.stdout.splitlines()[1] == b"3"


# ---- shell


def test_the_shell_answers_statement_after_statement_from_a_pipe(filled: Path) -> None:
    command = [sys.executable, "-m", "tidegate", "shell", "-d", str(filled)]
    typed = b"SELECT ';' AS one, \";\" ; SELECT 2 AS two -- ; \n; SELEC 3; SELECT 4 AS four"

    answer = subprocess.run(command, input=typed, capture_output=True, env=environment(), timeout=60)

    assert answer.returncode == 2
    assert b"two" in answer.stdout
    assert b"four" in answer.stdout
    assert answer.stderr.decode().count("DB::Exception") == 2
    assert b"2 of the statements could not be answered" in answer.stderr


@pytest.fixture(params=["own folder", "through a node"])
def typing(request: pytest.FixtureRequest, filled: Path) -> Iterator[pexpect.spawn[str]]:
    def spawned() -> pexpect.spawn[str]:
        arguments = ["-m", "tidegate", "shell", "-d", str(filled)]
        return pexpect.spawn(
            sys.executable,
            arguments,
            env=environment(TERM="xterm", PROMPT_TOOLKIT_NO_CPR="1"),
            encoding="utf-8",
            timeout=60,
            dimensions=(40, 160),
            use_poll=True,  # select() ends at 1,024 open files, which the store leaves behind in the tests
        )

    if request.param == "own folder":
        shell = spawned()
        yield shell
        shell.close(force=True)
        return
    with NodeProcess(filled):
        shell = spawned()
        yield shell
        shell.close(force=True)


def test_somebody_talks_with_the_store(typing: pexpect.spawn[str], filled: Path) -> None:
    typing.expect("tidegate>")
    typing.send("SELECT 1000 + count()\r")
    typing.expect("…")
    typing.send("FROM calls;\r")
    typing.expect("1003")
    typing.expect("1 row")
    typing.send("SELECT nothing;\r")
    typing.expect("Unknown expression identifier")
    typing.send("SELECT count() FROM calls WHERE call_id = 'Ann-Kathrin Muster' -- Muster\r;\r")
    typing.expect("1 row")
    typing.send("\\f csv\r")
    typing.send("SELECT 1 AS uno;\r")
    typing.expect('"uno"\r\n1\r\n')
    typing.send("\\d alerts\r")
    typing.expect("severity")
    typing.send("\\?\r")
    typing.expect("columns of one")
    typing.send("\x04")
    typing.expect(pexpect.EOF)
    typing.wait()

    assert typing.exitstatus == 0
    history = filled / "shell_history"
    assert "FROM calls;" in history.read_text()
    assert "WHERE call_id = ''" in history.read_text()
    assert "Muster" not in history.read_text()
    assert stat.S_IMODE(history.stat().st_mode) == 0o600


def test_a_tab_completes_a_name(typing: pexpect.spawn[str]) -> None:
    typing.expect("tidegate>")

    typing.send("SELECT count() FROM unpriced_mod\t")
    typing.expect("els")
    typing.send("(tenant = '*', since = '2020-01-01', until = '2021-01-01');\r")

    typing.expect("count\\(\\)")
    typing.expect("1 row")
    typing.send("\x04")
    typing.expect(pexpect.EOF)


# ---- db


def test_the_schema_is_told_as_it_is(filled: Path) -> None:
    told = tidegate("db", "status", "--data", filled, "--json")

    found = json.loads(told.stdout)
    assert told.returncode == 0
    assert [one["name"] for one in found["migrations"]] == [migration.name for migration in migrations.read()]
    assert {one["state"] for one in found["migrations"]} == {"applied"}
    assert {one["name"]: one["rows"] for one in found["tables"]}["calls"] == 3


def test_the_schema_is_told_the_same_beside_a_node(filled: Path) -> None:
    alone = tidegate("db", "status", "--data", filled, "--json")
    with NodeProcess(filled):
        beside = tidegate("db", "status", "--data", filled, "--json")
        refused = tidegate("db", "migrate", "--data", filled)

    assert json.loads(beside.stdout)["migrations"] == json.loads(alone.stdout)["migrations"]
    assert refused.returncode == 2
    assert b"a node runs on" in refused.stderr


def test_what_waits_is_told_and_applied(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    log = tmp_path / "calls.jsonl"
    log.write_bytes(json.dumps(response("c")).encode() + b"\n")
    assert tidegate("replay", log, "--data", tmp_path / "data").returncode == 0
    with Store.open(path=tmp_path / "data" / "store") as store:
        # As an older version has left it.
        store._writer.command("DELETE FROM schema_migrations WHERE number > 4")

    before = tidegate("db", "status", "--data", tmp_path / "data")
    applied = tidegate("db", "migrate", "--data", tmp_path / "data")
    again = tidegate("db", "migrate", "--data", tmp_path / "data")
    after = tidegate("db", "status", "--data", tmp_path / "data")

    assert (before.returncode, after.returncode) == (1, 0)
    assert b"0005_quantiles" in before.stdout
    assert b"tidegate db migrate" in before.stderr
    assert b"applied 0005_quantiles\napplied 0006_views\napplied 0007_rules" in applied.stdout
    assert b"Nothing to do" in again.stdout


def test_rows_are_kept_as_long_as_is_said(tmp_path: Path) -> None:
    log = tmp_path / "calls.jsonl"
    log.write_bytes(b"".join(json.dumps(response(f"c-{who}", tenant=who)).encode() + b"\n" for who in ("harbor", "hill")))
    assert tidegate("replay", log, "--data", tmp_path / "data").returncode == 0
    asked = "SELECT tenant FROM calls"
    with Store.open(path=tmp_path / "data" / "store") as store:
        store._writer.command(
            "ALTER TABLE calls UPDATE ingested_at = now() - INTERVAL 5 DAY WHERE 1 SETTINGS mutations_sync = 2"
        )

    told = tidegate("db", "keep", "calls", "3", "--tenant", "it's hill", "--data", tmp_path / "data")
    all_there = tidegate("query", asked, "-f", "tsv", "--data", tmp_path / "data")
    tidegate("db", "keep", "calls", "3", "--tenant", "hill", "--data", tmp_path / "data")
    with Store.open(path=tmp_path / "data" / "store") as store:
        store._writer.command("OPTIMIZE TABLE calls FINAL")
        one_there, sums = store.query(asked).rows, store.query("SELECT sum(requests) FROM v_calls_1h").rows
    refused = tidegate("db", "keep", "calls_1h", "3", "--data", tmp_path / "data")
    tables = json.loads(tidegate("db", "status", "--json", "--data", tmp_path / "data").stdout)["tables"]

    assert told.stdout == b"calls: for ever, it's hill 3 days\n"
    assert all_there.stdout.count(b"\n") == 3
    assert one_there == [("harbor",)]
    assert sums == [(2,)]
    assert refused.returncode == 2
    assert {one["name"]: one["kept"] for one in tables}["calls"] == {"days": None, "tenants": {"hill": 3, "it's hill": 3}}


def test_what_is_kept_for_ever_can_be_told_so_again(tmp_path: Path) -> None:
    log = tmp_path / "calls.jsonl"
    log.write_bytes(json.dumps(response("c-1")).encode() + b"\n")
    assert tidegate("replay", log, "--data", tmp_path / "data").returncode == 0
    said = []

    for days in ("for-ever", "30", "for-ever", "for-ever"):
        done = tidegate("db", "keep", "calls", days, "--data", tmp_path / "data")
        assert done.returncode == 0, done.stderr
        said.append(done.stdout)
    of_a_tenant = tidegate("db", "keep", "calls", "for-ever", "--tenant", "hill", "--data", tmp_path / "data")

    assert said == [b"calls: for ever\n", b"calls: 30 days\n", b"calls: for ever\n", b"calls: for ever\n"]
    assert (of_a_tenant.returncode, of_a_tenant.stdout) == (0, b"calls: for ever\n")


def test_a_folder_without_data_has_no_schema(tmp_path: Path) -> None:
    for command in ("status", "migrate"):
        refused = tidegate("db", command, "--data", tmp_path / "none")
        assert refused.returncode == 2
        assert b"holds no Tidegate data" in refused.stderr
    assert not list(tmp_path.iterdir())
