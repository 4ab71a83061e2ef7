"""`tidegate dlq` lists what was refused, shows it to whoever has the key, mends it, has it metered once, or drops it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import orjson
import pytest
from node_process import NodeProcess, eventually, tidegate
from node_process import rows as asked
from support import envelope, line, response
from tidegate.cli import app
from tidegate.processors.embedded.engine import MeterEngine
from tidegate.producers.keyring import Key
from tidegate.producers.local_log import LocalLog
from tidegate.producers.ring_file import change_ring
from tidegate.producers.sqlite_log import SqliteLog
from tidegate.schemas.errors import UsageError
from tidegate.schemas.settings import Settings
from tidegate.schemas.topics import CALLS, DEAD_LETTERS, METERED, TOPICS
from typer.testing import CliRunner

CANARY = "Zqann4711"
# A field that no event has, with text in it.
TOLD = response("c-told", note=f"{CANARY} has a rash")
NEGATIVE = response("c-negative", input_tokens=-3)
BROKEN = f'{{"event": "response", "{CANARY}'.encode()


@pytest.fixture(autouse=True)
def _empty_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("KEY_FILE", "KEYS", "KEY_COMMAND", "DATA_DIR", "URL"):
        monkeypatch.delenv(f"TIDEGATE_{name}", raising=False)
    monkeypatch.setenv("COLUMNS", "250")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder whose meter took one line of four; refused are 0:0:1, 0:0:2 and 0:0:3."""
    folder = tmp_path / "tidegate-data"
    log = LocalLog(folder, fsync="normal")
    log.append([envelope("triage-1", 0, [response("c-good"), TOLD, NEGATIVE, BROKEN])])
    log.close()
    meter(folder)
    return folder


def meter(folder: Path, **more: Any) -> MeterEngine:
    """Apply all that waits. The engine is closed, its totals still answer."""
    engine = MeterEngine(folder, Settings(fsync="normal", **more))
    while engine.run_once():
        pass
    engine.close()
    return engine


def run(*arguments: object, code: int = 0, given: bytes | None = None) -> str:
    """What a command prints. Raises what it raises."""
    done = CliRunner().invoke(app, ["dlq", *map(str, arguments)], input=given)
    if isinstance(done.exception, Exception) and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == code, done.stdout
    return done.stdout


def listed() -> dict[str, dict[str, Any]]:
    return {one["letter"]: one for one in map(json.loads, run("list", "--json").splitlines())}


def lines(folder: Path, topic: str) -> list[dict[str, Any]]:
    with SqliteLog(folder) as log:
        return [orjson.loads(one) for record in log.read(topic, 0, 0) for one in record.value.split(b"\n")]


def test_a_list_says_whose_when_and_why_and_nothing_of_what_a_line_says(data: Path) -> None:
    said = run("list")
    found = listed()
    narrow = run("list", "--reason", "unknown field")

    assert list(found) == ["0:0:1", "0:0:2", "0:0:3"]
    assert {(one["stage"], one["producer"]) for one in found.values()} == {("meter", "triage-1")}
    assert found["0:0:1"]["size_bytes"] == len(line(TOLD))
    assert "3 dead letters" in said
    assert "1 dead letter in" in narrow
    assert CANARY not in said


def test_a_line_is_shown_only_when_asked_for_and_only_to_whoever_has_the_key(data: Path) -> None:
    closed, opened = run("show", "0:0:1"), run("show", "0:0:1", "--open")
    ring = orjson.loads((data / "keys.json").read_bytes())
    (data / "keys.json").write_bytes(orjson.dumps(ring | {"keys": []}))
    with pytest.raises(UsageError) as caught:
        run("show", "0:0:1", "--open")

    assert CANARY not in closed
    assert json.loads(opened[opened.index("{") :]) == TOLD
    assert "tidegate keys check" in str(caught.value)


def test_no_byte_of_a_refused_line_rests_in_the_clear_but_where_its_sender_has_put_it(data: Path) -> None:
    with SqliteLog(data) as log:
        holding = {name for name in TOPICS for record in log.read(name, 0, 0) if CANARY.encode() in record.value}

    assert holding == {CALLS.name}


def test_a_mended_line_is_metered_once_however_often_it_is_replayed(data: Path, tmp_path: Path) -> None:
    run("fix", "0:0:1", "--unset", "note", "--set", "team=pharmacy")
    run("fix", "0:0:2", "--set", "input_tokens=30")
    anew = tmp_path / "anew.jsonl"
    anew.write_bytes(line(response("c-anew")) + b"\n\n" + line(response("c-more")) + b"\n")
    run("fix", "0:0:3", "--with", anew)
    said = run("replay", "--all")
    with pytest.raises(UsageError):
        run("replay", "0:0:1")
    totals = meter(data).totals()

    metered = {row["call_id"]: row for row in lines(data, METERED.name)}
    assert "3 dead letters will be metered" in said
    assert set(metered) == {"c-good", "c-told", "c-negative", "c-anew", "c-more"}
    assert (metered["c-told"]["team"], metered["c-negative"]["input_tokens"]) == ("pharmacy", 30)
    assert metered["c-told"]["producer"] == "dead-letter:0:0:1"
    assert (totals["responses"], totals.get("duplicates", 0), totals.get("lost", 0)) == (5, 0, 0)
    assert listed() == {}


def test_what_the_meter_would_refuse_again_stays_where_it_is(data: Path) -> None:
    run("fix", "0:0:2", "--set", "input_tokens=3")
    said = run("replay", "--all", code=1)
    with pytest.raises(UsageError) as caught:
        run("replay", "0:0:1")

    assert "1 dead letter will be metered" in said
    assert "unknown field" in said
    assert list(listed()) == ["0:0:1", "0:0:3"]
    assert CANARY not in said + str(caught.value)
    assert "tidegate dlq fix" in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["fix", "0:0:1"], "say what is to change"),
        (["fix", "0:0:1", "--set", "team=pharmacy"], "nothing was changed, it would be refused again: unknown field"),
        (["fix", "0:0:1", "--unset", "nothing"], "names a field that is not there"),
        (["fix", "0:0:1", "--set", "team"], "--set takes FIELD=VALUE"),
        (["fix", "0:0:1", "--set", "call_id.x=1"], "holds no object"),
        (["fix", "0:0:3", "--set", "a=1"], "--with FILE"),
        (["fix", "0:0:3", "--with", "nowhere.json"], "cannot be read"),
        (["fix", "0:0:9", "--set", "a=1"], "nothing is kept at 0:0:9"),
        (["show", "first"], "PARTITION:OFFSET:SEQ"),
        (["replay"], "name letters"),
        (["drop", "0:0:1", "--reason", "x"], "choose among --all"),
        (["list", "--data", "elsewhere"], "is no data folder"),
    ],
)
def test_a_wrong_word_is_answered_with_what_to_do_and_changes_nothing(data: Path, arguments: list[str], sentence: str) -> None:
    before = listed()

    with pytest.raises(UsageError) as caught:
        run(*arguments)

    assert sentence in str(caught.value)
    assert CANARY not in str(caught.value)
    assert listed() == before


def test_a_dropped_line_is_gone_and_the_rows_tell_what_became_of_each(data: Path) -> None:
    run("fix", "0:0:2", "--set", "input_tokens=3")
    run("replay", "0:0:2")
    said = run("drop", "0:0:1")
    found = lines(data, DEAD_LETTERS.name)

    done = [(row["seq"], row["reason"]) for row in found if row["stage"] == "person"]
    assert "1 dead letter dropped" in said
    assert list(listed()) == ["0:0:3"]
    assert done == [(2, "fixed"), (2, "replayed"), (1, "dropped")]
    assert len(found) == 6


def test_what_is_done_with_a_dead_letter_is_written_down_without_it(data: Path) -> None:
    run("show", "0:0:1")
    run("show", "0:0:1", "--open")
    change_ring(data / "keys.json", lambda ring: ring.adding(Key.made("harbor-health")), make=False)
    run("fix", "0:0:1", "--unset", "note")
    run("replay", "--all", code=1)
    run("drop", "0:0:2", "0:0:3")
    run("resume")

    told = [json.loads(one) for one in (data / "audit.jsonl").read_bytes().splitlines()]
    acts = [(one["action"], one["subject"], one["details"]) for one in told if one["action"].startswith(("letters.", "meter."))]
    assert acts == [
        ("letters.opened", "everybody", {"letter": "0:0:1"}),
        ("letters.fixed", "harbor-health", {"letter": "0:0:1"}),
        ("letters.replayed", "", {"letters": ["0:0:1"]}),
        ("letters.dropped", "", {"letters": ["0:0:2", "0:0:3"]}),
        ("meter.resumed", "", {}),
    ]
    assert CANARY not in (data / "audit.jsonl").read_text()


@pytest.mark.parametrize(
    "act",
    [["show", "0:0:1", "--open"], ["fix", "0:0:1", "--unset", "note"], ["replay", "0:0:2"], ["drop", "--all"], ["resume"]],
)
def test_what_cannot_be_written_down_is_not_done(data: Path, act: list[str]) -> None:
    run("fix", "0:0:2", "--set", "input_tokens=30")
    before = listed()
    (data / "audit.jsonl").unlink()
    (data / "audit.jsonl").mkdir()

    with pytest.raises(UsageError):
        run(*act)

    assert listed() == before


def test_an_envelope_that_was_refused_twice_is_replayed_once_of_all_and_by_its_name_again(tmp_path: Path) -> None:
    folder = tmp_path / "tidegate-data"
    with SqliteLog(folder, fsync="normal") as log, log.transaction():
        log.append(CALLS.name, 0, [(b"triage-1", {"schema": "of nobody"}, line(response("c-whole")))] * 2)
    meter(folder)

    said = run("replay", "--all", code=1)
    left = list(listed())
    run("replay", *left)

    assert "1 dead letter will be metered" in said
    assert "1 dead letter left: it holds the same bytes" in said
    assert left == ["0:1"]
    assert meter(folder).totals()["responses"] == 2


def test_without_a_ring_that_seals_only_the_fingerprint_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDEGATE_KEY_FILE", str(tmp_path / "nowhere.json"))
    folder = tmp_path / "tidegate-data"
    log = LocalLog(folder, fsync="normal")
    log.append([envelope("triage-1", 0, [TOLD])])
    log.close()

    meter(folder, key_file=tmp_path / "nowhere.json")

    [row] = lines(folder, DEAD_LETTERS.name)
    assert len(row["sha256"]) == 64
    assert listed() == {}


def test_a_line_that_the_door_refused_is_mended_under_a_running_node_and_the_store_tells_the_whole_story(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "tidegate-data"
    with NodeProcess(folder) as node:
        sent = b"\n".join(map(line, (response("c-good"), TOLD, NEGATIVE)))
        answer = node.http.request("POST", f"{node.url}/v1/events", body=sent)
        eventually(lambda: run("list", "--json").count("\n"), lambda count: count == 2)
        letter = next(name for name, one in listed().items() if one["reason"].startswith("unknown field"))
        run("fix", letter, "--unset", "note")
        run("replay", letter)
        states = eventually(
            lambda: asked(folder, "SELECT letter, refused_by, why, state FROM dead_letter_states ORDER BY state DESC"),
            lambda rows: [row["state"] for row in rows] == ["replayed", "refused"],
        )
        calls = eventually(lambda: asked(folder, "SELECT call_id FROM calls"), lambda rows: len(rows) == 2)

    assert (answer.status, json.loads(answer.data)["rejected"]) == (202, 2)
    assert [row["refused_by"] for row in states] == ["edge", "edge"]
    assert states[0]["letter"] == letter
    assert {row["call_id"] for row in calls} == {"c-good", "c-told"}
    assert CANARY not in node.output.read_text()
    assert CANARY.encode() not in b"".join(file.read_bytes() for file in folder.rglob("*") if file.is_file())


def test_nobody_else_speaks_under_a_dead_letters_name(tmp_path: Path) -> None:
    with NodeProcess(tmp_path / "data") as node:
        headers = {"X-Tidegate-Producer": "dead-letter:0:0:1", "X-Tidegate-Seq": "0"}
        answer = node.http.request("POST", f"{node.url}/v1/events", body=line(response()), headers=headers)

    assert answer.status == 400
    assert b"choose another name" in answer.data


def test_a_stopped_meter_is_told_in_the_metrics_and_goes_on_by_command(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    with NodeProcess(folder, TIDEGATE_BRAKE_LINES="10") as node:
        log = LocalLog(folder)
        log.append([envelope(name, 0, [TOLD] * 10) for name in ("a", "b", "c")])
        log.append([envelope("good", 0, [response("c-good")])])
        log.close()

        def metric(value: int) -> bool:
            text = node.http.request("GET", f"{node.url}/metrics").data.decode()
            return f"tidegate_meter_stopped {value}.0" in text

        stopped = eventually(lambda: metric(1), bool)
        before = asked(folder, "SELECT count() AS n FROM calls")
        said = tidegate("dlq", "resume", "--data", folder)
        went_on = eventually(lambda: metric(0), bool)
        calls = eventually(lambda: asked(folder, "SELECT count() AS n FROM calls"), lambda rows: rows[0]["n"] == 1)

    assert (stopped, went_on) == (True, True)
    assert (before[0]["n"], calls[0]["n"]) == (0, 1)
    assert b"3 records wait" in said.stdout


def test_a_folder_without_a_node_whose_meter_stands_says_how_it_goes_on_and_can_be_asked(tmp_path: Path) -> None:
    folder, calls, brake = tmp_path / "data", tmp_path / "calls.jsonl", {"TIDEGATE_BRAKE_LINES": "10"}
    calls.write_bytes(line(response("c-behind")) + b"\n")
    log = LocalLog(folder)
    log.append([envelope(name, 0, [TOLD] * 10) for name in ("a", "b", "c")])
    log.close()

    replayed = tidegate("replay", calls, "--data", folder, **brake)
    asked = tidegate("query", "SELECT count() AS letters FROM dead_letters", "-f", "json", "--data", folder, **brake)
    tidegate("dlq", "resume", "--data", folder)
    after = tidegate("query", "SELECT call_id FROM calls", "-f", "json", "--data", folder, **brake)

    assert replayed.returncode == 2
    assert b"wait behind a meter that has stopped" in replayed.stderr
    assert b"tidegate dlq resume" in replayed.stderr
    assert (asked.returncode, json.loads(asked.stdout)) == (0, {"letters": 10})
    assert b"tidegate dlq resume" in asked.stderr
    assert json.loads(after.stdout) == {"call_id": "c-behind"}
    assert b"tidegate dlq resume" not in after.stderr


def test_a_replay_behind_a_stopped_meter_says_so_and_ends(tmp_path: Path) -> None:
    folder, calls = tmp_path / "data", tmp_path / "calls.jsonl"
    calls.write_bytes(line(response("c-behind")) + b"\n")
    with NodeProcess(folder, TIDEGATE_BRAKE_LINES="10") as node:
        log = LocalLog(folder)
        log.append([envelope(name, 0, [TOLD] * 10) for name in ("a", "b", "c")])
        log.close()
        eventually(lambda: node.status()["meters_stopped"], bool)
        done = tidegate("replay", calls, "--data", folder)
        tidegate("dlq", "resume", "--data", folder)
        counted = eventually(lambda: node.status()["totals"].get("responses"), bool)

    assert done.returncode == 2
    assert b"wait behind a meter that has stopped" in done.stderr
    assert b"tidegate dlq resume" in done.stderr
    assert counted == 1
