"""The audit log as a compliance officer meets it: what people did is in it, and what was done to it is found."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
import sys
import urllib.parse
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import pytest
from node_process import NodeProcess, environment, eventually, rows, tidegate
from support import ndjson, response
from tidegate.processors.transcript_reads import fingerprint, reads_transcripts
from tidegate.schemas.audit import Entry
from tidegate.sinks.clickhouse import Store

NAME: Final = "Ann-Kathrin Muster"
POLICIES: Final = """policies:
  - {name: harbor-daily, scope: [tenant], measure: cost_usd, window: {calendar: day}, limit: 1, action: block}
"""


def transcript(call_id: str) -> dict[str, Any]:
    return {
        "call_id": call_id,
        "started_at": "2026-11-02 08:00:00",
        "tenant": "harbor-health",
        "request_model": "gpt-4o",
        "redaction": "tag",
        "redacted_prompt": "How is <PERSON>?",
        "producer": "svc",
        "seq": 1,
        "ingested_at": datetime.now(UTC).isoformat(),
    }


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a call, a ring and two transcripts."""
    tmp_path = tmp_path_factory.mktemp("made")
    log = tmp_path / "calls.jsonl"
    log.write_bytes(json.dumps(response("call-1")).encode() + b"\n")
    assert tidegate("keys", "make", "harbor-health", "--data", tmp_path / "data").returncode == 0
    assert tidegate("replay", log, "--data", tmp_path / "data").returncode == 0
    with Store.open(path=tmp_path / "data" / "store") as store:
        store.insert("transcripts", ndjson([transcript("call-1"), transcript("call-2")]), "t:0:0-1")
    return tmp_path / "data"


@pytest.fixture
def data(made: Path, tmp_path: Path) -> Path:
    """A copy of that folder, to do anything with."""
    # Nothing in it says where it is: no link leads back to the one it was copied from.
    assert not [path for path in made.rglob("*") if path.is_symlink() and Path(os.readlink(path)).is_absolute()]
    return Path(shutil.copytree(made, tmp_path / "data", symlinks=True))


def entries(data: Path, action: str = "") -> list[dict[str, Any]]:
    found = [json.loads(line) for line in (data / "audit.jsonl").read_bytes().splitlines()]
    return [entry for entry in found if entry["action"].startswith(action)]


def verified(data: Path, *more: str) -> tuple[int, str]:
    done = tidegate("audit", "verify", "--data", data, *more)
    return done.returncode, (done.stdout + done.stderr).decode()


def rewritten(data: Path, change: Any) -> None:
    """Do something to the file's lines."""
    path = data / "audit.jsonl"
    lines = path.read_bytes().splitlines()
    change(lines)
    path.write_bytes(b"".join(line + b"\n" for line in lines))


# ---- what is in it


def test_what_was_done_with_keys_is_told_without_a_key(data: Path) -> None:
    assert tidegate("keys", "rotate", "harbor-health", "--data", data).returncode == 0
    assert tidegate("keys", "shred", "harbor-health", "--yes", "--data", data).returncode == 0

    told = [(entry["action"], entry["subject"]) for entry in entries(data, "key.")]
    assert told == [
        ("key.made", "everybody"),
        ("key.made", "harbor-health"),
        ("key.retired", "harbor-health"),
        ("key.made", "harbor-health"),
        ("key.shredded", "harbor-health"),
        ("key.shredded", "harbor-health"),
    ]
    secret = json.loads((data / "keys.json").read_bytes())["keys"][0]["key"]
    assert secret not in (data / "audit.jsonl").read_text() + (data / "audit.head.json").read_text()
    assert verified(data)[0] == 0


def test_no_key_is_shredded_where_it_cannot_be_written_down(data: Path) -> None:
    (data / "audit.jsonl").unlink()
    (data / "audit.jsonl").mkdir()
    ring = (data / "keys.json").read_bytes()

    refused = tidegate("keys", "shred", "harbor-health", "--yes", "--data", data)

    assert refused.returncode == 2
    assert b"cannot be written" in refused.stderr
    assert (data / "keys.json").read_bytes() == ring


def test_a_node_tells_of_its_start_its_policies_and_its_end(data: Path, tmp_path: Path) -> None:
    policies = tmp_path / "policies.yaml"
    policies.write_text(POLICIES)

    with NodeProcess(data, "--policies", str(policies)) as node:
        eventually(lambda: len(entries(data, "policies.")), lambda count: count == 1)
        policies.write_text(POLICIES.replace("limit: 1", "limit: 2"))
        eventually(lambda: len(entries(data, "policies.")), lambda count: count == 2)
        copied = eventually(
            lambda: node.rows("SELECT action FROM audit WHERE action LIKE 'policies%'"), lambda found: len(found) == 2
        )

    assert len(copied) == 2
    told = [entry["action"] for entry in entries(data)][-4:]
    assert told == ["node.started", "policies.in_force", "policies.in_force", "node.stopped"]
    first, second = (entry["details"] for entry in entries(data, "policies."))
    assert (first["version"] != second["version"], first["policies"]) == (True, 1)
    assert first["file_owner_uid"] == policies.stat().st_uid
    assert entries(data, "schema.")[0]["details"]["migrations"][0] == 1
    assert rows(data, "SELECT max(seq) AS last FROM audit") == [{"last": len(entries(data))}]
    assert verified(data)[0] == 0


def test_a_node_that_is_killed_leaves_a_whole_log(data: Path) -> None:
    node = NodeProcess(data).__enter__()
    node.kill()

    assert [entry["action"] for entry in entries(data)][-1] == "node.started"
    assert verified(data)[0] == 0


def test_how_long_rows_are_kept_is_told_when_it_changes(data: Path) -> None:
    kept = tidegate("db", "keep", "transcripts", "7", "--tenant", "harbor-health", "--data", data)
    refused = tidegate("db", "keep", "nothing", "7", "--data", data)

    assert (kept.returncode, refused.returncode) == (0, 2)
    told = [(entry["subject"], entry["details"]) for entry in entries(data, "retention.")]
    assert told == [("harbor-health", {"days": 7, "table": "transcripts"})]


# ---- who read transcripts

READS: Final = {
    "query": f"SELECT redacted_prompt FROM transcripts WHERE call_id IN ('call-1', 'no-such', '{NAME}')",
    "clickhouse": f"SELECT * FROM transcripts WHERE call_id = 'call-2' OR tenant = '{NAME}' -- {NAME}",
}


def test_whoever_reads_transcripts_through_a_node_is_written_down_before_the_answer(data: Path) -> None:
    with NodeProcess(data, TIDEGATE_TOKEN="of-the-house") as node:
        assert node.query("SELECT count() FROM calls").status == 200
        assert node.query(READS["query"]).status == 200
        query = urllib.parse.urlencode({"query": READS["clickhouse"]})
        headers = {"Authorization": "Basic " + base64.b64encode(b"Muster:of-the-house").decode()}
        assert node.http.request("GET", f"{node.url}/?{query}", headers=headers).status == 200
        assert node.query("SELECT redacted_prompt FROM transcripts", token="wrong").status == 401
        told = entries(data, "transcripts.read")

    own, token = told
    assert own["actor"] == entries(data, "node.started")[0]["actor"]
    assert token["actor"] == "token"
    assert [entry["details"]["door"] for entry in told] == ["query", "clickhouse"]
    assert [entry["details"]["texts"] for entry in told] == [["redacted_prompt"], ["*"]]
    assert [entry["details"]["call_ids"] for entry in told] == [["call-1"], ["call-2"]]
    assert token["details"]["client"] == "127.0.0.1"
    for file in data.glob("audit.*"):
        assert b"Muster" not in file.read_bytes()


def test_whoever_reads_transcripts_on_the_machine_is_written_down(data: Path) -> None:
    assert len(rows(data, READS["query"])) == 1
    assert rows(data, "SELECT 'transcripts' AS word") == [{"word": "transcripts"}]

    assert [entry["details"]["door"] for entry in entries(data, "transcripts.read")] == ["command"]
    found = rows(data, "SELECT JSONExtractString(details, 'statement') AS mark FROM audit WHERE action = 'transcripts.read'")
    assert found == [{"mark": entries(data, "transcripts.read")[0]["details"]["statement"]}]


def test_a_call_that_a_parameter_names_is_written_down_and_no_other_parameter(data: Path) -> None:
    asked = {
        "query": "SELECT redacted_prompt FROM transcripts WHERE call_id = {id:String} OR tenant = {who:String}",
        "param_id": "call-2",
        "param_who": NAME,
    }
    several = {
        "query": "SELECT redacted_prompt FROM transcripts WHERE has({ids:Array(String)}, call_id)",
        "param_ids": "['call-1', 'no-such', 'call-2']",
    }
    with NodeProcess(data) as node:
        headers = {"Authorization": "Basic " + base64.b64encode(f"own:{node.token}".encode()).decode()}
        for question in (asked, several):
            answer = node.http.request("GET", f"{node.url}/?{urllib.parse.urlencode(question)}", headers=headers)
            assert answer.status == 200, answer.data

    assert [entry["details"]["call_ids"] for entry in entries(data, "transcripts.read")] == [["call-2"], ["call-1", "call-2"]]
    for file in data.glob("audit.*"):
        assert b"Muster" not in file.read_bytes()


def test_no_transcript_is_read_where_that_cannot_be_written_down(data: Path) -> None:
    with NodeProcess(data) as node:
        (data / "audit.jsonl").rename(data / "elsewhere")
        (data / "audit.jsonl").mkdir()
        refused = node.query(READS["query"])
        (data / "audit.jsonl").rmdir()
        (data / "elsewhere").rename(data / "audit.jsonl")

    assert refused.status == 400
    assert b"cannot be written" in refused.data
    assert b"PERSON" not in refused.data


@pytest.mark.parametrize(
    "statement",
    [
        r"SELECT 1 FROM `transcr\x69pts`",
        "SELECT (SELECT any(redacted_prompt) FROM tidegate.transcripts)",
        "WITH t AS (SELECT * FROM transcripts) SELECT count() FROM t",
        "SELECT * FROM merge('tidegate', '^tr')",
        "SELECT * FROM `merge`(currentDatabase(), '^tr')",
        "EXPLAIN SELECT (SELECT any(redacted_prompt) FROM transcripts)",
        "SELECT * FROM calls WHERE call_id IN (SELECT call_id FROM transcripts)",
        "SELECT * FROM calls WHERE call_id IN transcripts",
        "SELECT * FROM view(SELECT * FROM transcripts)",
        "SELECT * FROM eval(concat('SELECT * FROM tran', 'scripts'))",
        "SELECT * FROM {table:Identifier}",
    ],
)
def test_every_way_to_the_transcripts_counts_as_a_read(store: Store, statement: str) -> None:
    heard: list[str] = []

    class Heard(Exception):
        pass

    def hears(text: str, _parameters: Mapping[str, Any]) -> None:
        heard.append(text)
        raise Heard

    with pytest.raises(Heard):
        store.query_bytes(statement, "JSON", {"table": "transcripts"}, heard=hears)

    assert reads_transcripts(heard[0])


def test_no_view_of_the_schema_is_another_way_to_the_transcripts(store: Store) -> None:
    views = "SELECT name FROM system.tables WHERE database = currentDatabase() AND engine LIKE '%View'"

    found = store.query(f"{views} AND create_table_query LIKE '%transcripts%'").rows

    assert found == []
    assert len(store.query(views).rows) > 20


def test_statements_that_differ_in_their_literals_have_one_fingerprint() -> None:
    one = "SELECT redacted_prompt FROM transcripts WHERE tenant = 'a' LIMIT 10"
    other = "SELECT redacted_prompt FROM transcripts WHERE tenant = 'it\\'s b' LIMIT 20"

    assert fingerprint(one) == fingerprint(other)
    assert fingerprint(one) != fingerprint(one.replace("prompt", "response"))


# ---- what was done to it


def test_a_whole_log_is_told_with_its_mark_which_proves_it_later(data: Path) -> None:
    code, said = verified(data)
    mark = re.search(r"mark (\S+)", said)
    assert mark is not None
    assert tidegate("keys", "rotate", "--data", data).returncode == 0

    later, wrong = verified(data, "--known", mark[1]), verified(data, "--known", f"2:{'0' * 64}")
    unreadable = verified(data, "--known", "yesterday")

    assert (code, "is whole" in said) == (0, True)
    assert later[0] == 0
    assert (wrong[0], "entry 2 is not the one of the mark" in wrong[1]) == (1, True)
    assert (unreadable[0], "--known takes the mark" in unreadable[1]) == (2, True)


def test_a_changed_entry_is_named_by_the_chain_and_by_the_store(data: Path) -> None:
    rewritten(data, lambda lines: lines.__setitem__(1, lines[1].replace(b"harbor-health", b"st-anne")))

    file_only, both = verified(data, "--file-only"), verified(data)

    assert file_only[0] == both[0] == 1
    assert "entry 2 was changed" in file_only[1]
    assert "entry 2 is another one in the store than in the file" in both[1]


def test_a_log_that_was_hashed_anew_and_has_no_key_is_found_by_the_store(tmp_path: Path) -> None:
    data = tmp_path / "data"
    log = tmp_path / "calls.jsonl"
    log.write_bytes(json.dumps(response("call-1")).encode() + b"\n")
    options = {"TIDEGATE_CONTENT": "off", "TIDEGATE_GUARD": "false"}
    assert tidegate("replay", log, "--data", data, **options).returncode == 0
    with NodeProcess(data, **options):
        pass
    assert not (data / "keys.json").exists()

    def forge(lines: list[bytes]) -> None:
        last: Entry | None = None
        for index, line in enumerate(lines):
            entry = Entry.parse(line)
            assert entry is not None
            at, told = datetime.fromisoformat(entry.at), json.loads(entry.details)
            last = Entry.after(entry.log, last, at, "user:nobody", entry.action, entry.subject, told)
            lines[index] = last.line()
        assert last is not None
        (data / "audit.head.json").write_text(json.dumps({"entry": last.line().decode(), "signature": None}))

    rewritten(data, forge)

    file_only, both = verified(data, "--file-only"), verified(data)

    assert (file_only[0], "who can write the log can also write it anew" in file_only[1]) == (0, True)
    assert both[0] == 1
    for number in range(1, len(entries(data)) + 1):
        assert f"entry {number} is another one in the store" in both[1]


def test_a_cut_tail_is_named_by_head_and_store_also_while_a_node_runs(data: Path) -> None:
    with NodeProcess(data) as node:
        count = len(entries(data))
        eventually(lambda: node.rows("SELECT max(seq) AS last FROM audit"), lambda found: found == [{"last": count}])
        rewritten(data, lambda lines: lines.__delitem__(slice(1, None)))
        code, said = verified(data)

    assert code == 1
    assert f"entry 2 and all up to entry {count} are missing at the end" in said
    assert f"entry 2 and all up to entry {count} are in the store and not in the file" in said


def test_rows_that_were_taken_out_of_the_store_are_named(data: Path) -> None:
    assert tidegate("query", "SELECT 1", "--data", data).returncode == 0
    with Store.open(path=data / "store") as store:
        store._writer.command("DELETE FROM audit WHERE seq = 2")

    code, said = verified(data)

    assert code == 1
    assert "entry 2 is missing in the store" in said


def test_another_file_in_the_place_of_the_first_is_found_by_the_store(data: Path) -> None:
    assert tidegate("query", "SELECT 1", "--data", data).returncode == 0
    for name in ("audit.jsonl", "audit.head.json"):
        (data / name).unlink()
    assert tidegate("keys", "rotate", "--data", data).returncode == 0

    code, said = verified(data)

    assert code == 1
    assert "and its log is not here" in said
    assert "--other" in said


def test_an_entry_that_somebody_wrote_by_hand_keeps_no_node_from_stopping(data: Path) -> None:
    with NodeProcess(data) as node:
        log = data / "audit.jsonl"
        forged = Entry.after(
            "no such log", Entry.parse(log.read_bytes().splitlines()[-1]), datetime.now(UTC), "user:x", "key.made"
        )
        log.write_bytes(log.read_bytes() + forged.line() + b"\n")
        node.stop()

    assert Entry.parse(log.read_bytes().splitlines()[-1]) is not None
    with Store.open(path=data / "store") as store:
        [(copied,)] = store.query("SELECT count() FROM audit").rows
    assert copied >= 1


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tidegate", "audit", "verify", "--data", str(tmp_path / "none")]

    refused = subprocess.run(command, capture_output=True, env=environment(), timeout=60)

    assert refused.returncode == 2
    assert b"is not there" in refused.stderr
    assert not list(tmp_path.iterdir())
