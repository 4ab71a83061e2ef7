"""The command line as a person uses it: with and without a node on the folder, interrupted, misused, on a terminal."""

from __future__ import annotations

import csv
import fcntl
import gzip
import io
import json
import os
import pty
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from decimal import ROUND_HALF_EVEN, Decimal
from pathlib import Path
from typing import Any

import genai_prices
import pytest
from node_process import NodeProcess, environment, eventually, rows, tidegate
from support import response

COUNT = "SELECT count() AS calls, uniqExact(call_id) AS ids, sum(cost_nano_usd) AS cost FROM calls"
# gpt-4o, 1,000 tokens in and 100 out: 2.50 and 10 dollars a million.
COST = 3_500_000


def log_of(path: Path, numbers: range) -> Path:
    path.write_bytes(b"".join(json.dumps(response(f"c-{number}")).encode() + b"\n" for number in numbers))
    return path


def said(result: subprocess.CompletedProcess[bytes]) -> str:
    return (result.stdout + result.stderr).decode()


def is_one_clear_line(result: subprocess.CompletedProcess[bytes]) -> bool:
    lines = result.stderr.decode().splitlines()
    return result.returncode == 2 and len(lines) == 1 and lines[0].startswith("tidegate: ") and not result.stdout


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with twenty calls and a dead letter, and no node on it."""
    base = tmp_path_factory.mktemp("filled")
    log = log_of(base / "calls.jsonl", range(20))
    log.write_bytes(log.read_bytes() + b"junk\n")
    result = tidegate("replay", log, "--data", base / "data")
    assert result.returncode == 0, said(result)
    return base / "data"


# ---- asking


def test_query_and_status_answer_alike_with_and_without_a_node(filled: Path) -> None:
    questions = [
        ("query", COUNT, "--format", "json"),
        ("query", "SELECT call_id, cost_usd, labels, error_type FROM calls ORDER BY call_id LIMIT 3"),
        ("query", "SELECT nobody FROM calls"),
    ]

    def ask() -> list[tuple[int, bytes, bytes]]:
        return [(a.returncode, a.stdout, a.stderr) for a in (tidegate(*question, "--data", filled) for question in questions)]

    def status() -> dict[str, Any]:
        found: dict[str, Any] = json.loads(tidegate("status", "--data", filled, "--format", "json").stdout)
        # Where the node is, and what its scoring processes, policies and gates are at, is known of a running node only.
        return {name: found[name] for name in found.keys() - {"url", "guardrails", "policies_beat_at", "gates"}}

    without, without_status = ask(), status()
    with NodeProcess(filled) as node:
        node.settled()
        during, during_status = ask(), status()

    assert during == without
    assert during_status == without_status
    assert [code for code, _, _ in without] == [0, 0, 2]
    assert json.loads(without[0][1]) == {"calls": 20, "ids": 20, "cost": 20 * COST}
    assert without_status["totals"]["rejected"] == 1


def test_two_queries_at_once_both_get_their_answer(filled: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda _: rows(filled, COUNT), range(2)))

    assert answers == [[{"calls": 20, "ids": 20, "cost": 20 * COST}]] * 2


def test_a_table_keeps_every_digit_and_off_a_terminal_every_word(filled: Path) -> None:
    sql = (
        "SELECT toDecimal128('123456789012345678.123456789', 9) AS money, toUInt64(18446744073709551615) AS many,"
        " NULL AS nothing, ['a'] AS list, repeat('word ', 60) AS long, '[/] [bold]' AS marks, char(27) || '[31m' AS red"
    )

    table = tidegate("query", sql, "--data", filled).stdout.decode()

    for text in ("123456789012345678.123456789", "18446744073709551615", "NULL", "['a']", "word " * 59, "[/] [bold]", "1 row"):
        assert text in table
    assert "\x1b" not in table


def test_each_format_can_be_read_by_a_program(filled: Path) -> None:
    sql = "SELECT call_id, cost_usd, error_type FROM calls ORDER BY call_id LIMIT 2"

    as_json = [json.loads(line) for line in tidegate("query", sql, "-d", filled, "-f", "json").stdout.splitlines()]
    as_csv = list(csv.DictReader(io.StringIO(tidegate("query", sql, "-d", filled, "-f", "csv").stdout.decode())))

    assert [row["call_id"] for row in as_json] == [row["call_id"] for row in as_csv] == ["c-0", "c-1"]
    assert [float(row["cost_usd"]) for row in as_csv] == [row["cost_usd"] for row in as_json] == [0.0035, 0.0035]


@pytest.mark.parametrize(
    "sql",
    ["SELEC 1", "INSERT INTO calls VALUES (1)", "", "SELECT '[/x]' + 1"],
)
def test_a_wrong_statement_is_one_clear_line(filled: Path, sql: str) -> None:
    assert is_one_clear_line(tidegate("query", sql, "--data", filled))


@pytest.mark.parametrize("command", [("query", "SELECT 1"), ("status",)])
def test_asking_a_folder_that_is_not_there_makes_none(tmp_path: Path, command: tuple[str, ...]) -> None:
    refused = tidegate(*command, "--data", tmp_path / "no[bold]where")

    assert is_one_clear_line(refused)
    assert b"no[bold]where" in refused.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", [(), ("up",), ("replay",), ("simulate",), ("query",), ("status",)])
def test_help_says_what_a_command_does_and_where_the_data_is(command: tuple[str, ...]) -> None:
    result = tidegate(*command, "--help", COLUMNS="200")

    text = result.stdout.decode()
    assert result.returncode == 0
    assert "Usage: " in text
    if command:
        assert "--data" in text
        assert "TIDEGATE_DATA_DIR" in text
    else:
        assert all(name in text for name in ("up", "replay", "simulate", "query", "status"))


# ---- a node on the folder


def test_a_second_node_on_a_folder_is_told_of_the_first(tmp_path: Path) -> None:
    with NodeProcess(tmp_path / "data") as node:
        second = tidegate("up", "--data", node.data_dir, "--port", "0")
        alive = node.get("/healthz").status

    assert is_one_clear_line(second)
    assert str(node.process.pid) in second.stderr.decode()
    assert node.url in second.stderr.decode()
    assert alive == 200


def test_a_port_that_is_taken_is_told_and_leaves_the_folder_free(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])
        refused = tidegate("up", "--data", tmp_path / "data", "--port", port)

    assert is_one_clear_line(refused)
    assert port in refused.stderr.decode()
    with NodeProcess(tmp_path / "data") as node:
        assert node.get("/readyz").status == 200


@pytest.mark.parametrize("kind", ["file", "below a file"])
def test_a_folder_that_cannot_be_one_is_told(tmp_path: Path, kind: str) -> None:
    (tmp_path / "file").write_bytes(b"")
    folder = tmp_path / "file" if kind == "file" else tmp_path / "file" / "data"

    for command in (("up", "--port", "0"), ("replay", __file__)):
        assert is_one_clear_line(tidegate(*command, "--data", folder)), command


def test_a_folder_keeps_the_number_of_partitions_that_it_was_made_with(tmp_path: Path) -> None:
    log = log_of(tmp_path / "calls.jsonl", range(9))
    assert tidegate("replay", log, "--data", tmp_path / "data", TIDEGATE_PARTITIONS="3").returncode == 0

    other = tidegate("status", "--data", tmp_path / "data", TIDEGATE_PARTITIONS="2")

    assert is_one_clear_line(other)
    assert b"made with 3 partitions" in other.stderr
    assert rows(tmp_path / "data", COUNT) == [{"calls": 9, "ids": 9, "cost": 9 * COST}]


def test_what_a_killed_node_left_behind_misleads_nobody(tmp_path: Path) -> None:
    node = NodeProcess(tmp_path / "data").__enter__()
    assert node.post([response("before")]).status == 202
    node.kill()
    assert (node.data_dir / "node.json").exists()

    found = rows(node.data_dir, "SELECT call_id FROM calls")

    assert found == [{"call_id": "before"}]
    assert not (node.data_dir / "node.json").exists()
    with NodeProcess(node.data_dir) as again:
        assert again.settled()["totals"]["responses"] == 1


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_node_stops_cleanly_amid_traffic_of_its_own(tmp_path: Path, how: signal.Signals) -> None:
    with NodeProcess(tmp_path / "data", "--simulate", "--rate", "200") as node:
        eventually(node.status, lambda status: status["totals"].get("responses", 0) > 50)
        assert node.stop(how) == 0

    assert "Stopped" in node.output.read_text()
    assert "Traceback" not in node.output.read_text()
    assert not (node.data_dir / "node.json").exists()
    status = json.loads(tidegate("status", "--data", node.data_dir, "--format", "json").stdout)
    assert status["totals"]["responses"] > 50
    assert status["totals"].get("rejected", 0) + status["totals"].get("dead_letters", 0) == 0
    # What the traffic appended after the meter had stopped is taken up by the query.
    stored = rows(node.data_dir, "SELECT count() AS n FROM calls")[0]["n"]
    assert stored >= status["totals"]["responses"]


def test_a_signal_never_waits_for_the_thread_that_it_interrupts() -> None:
    hammered = """
import signal, time
from tidegate.running import Stopping
stopping = Stopping.on_signals()
signal.signal(signal.SIGALRM, signal.getsignal(signal.SIGTERM))
signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
end = time.monotonic() + 2
while time.monotonic() < end:
    stopping._told = False
    stopping.wait(0.001)
signal.setitimer(signal.ITIMER_REAL, 0)
"""
    subprocess.run([sys.executable, "-c", hammered], check=True, timeout=60, env=environment())


# ---- on a terminal


def on_terminal(*arguments: str | Path, columns: int, until: str, then: signal.Signals | None = None) -> tuple[int, str]:
    """Run on a terminal of its own until a text is seen, then signal it; the exit code and all that was written."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-m", "tidegate", *map(str, arguments)],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=environment(TERM="xterm-256color"),
        start_new_session=True,
    )
    os.close(theirs)
    seen, deadline = b"", time.monotonic() + 60
    waiting = select.poll()  # not select(): a test process may have more than 1,024 files open
    waiting.register(ours, select.POLLIN)
    try:
        while time.monotonic() < deadline:
            if waiting.poll(100):
                try:
                    chunk = os.read(ours, 65_536)
                except OSError:  # the other end is closed
                    break
                if not chunk:
                    break
                seen += chunk
            if then is not None and re.search(until.encode(), seen):
                process.send_signal(then)
                then = None
        code = process.wait(30)
    finally:
        process.kill()
        process.wait(30)
        os.close(ours)
    return code, seen.decode()


def lines_of(text: str) -> list[str]:
    return [re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line).rstrip("\r") for line in text.splitlines()]


@pytest.mark.parametrize(("columns", "how"), [(80, signal.SIGINT), (120, signal.SIGTERM)])
def test_on_a_terminal_a_node_shows_a_live_panel_and_gives_the_cursor_back(
    tmp_path: Path, columns: int, how: signal.Signals
) -> None:
    code, seen = on_terminal(
        "up",
        "--data",
        tmp_path / "data",
        "--port",
        "0",
        "--simulate",
        "--rate",
        "300",
        columns=columns,
        until="all  +[1-9]",
        then=how,
    )

    assert code == 0, seen
    assert "Ctrl-C stops" in seen
    assert "events/s" in seen
    assert seen.rfind("\x1b[?25h") > seen.rfind("\x1b[?25l") > -1
    assert "Stopped" in lines_of(seen)[-1]
    panel = [line for line in lines_of(seen) if line.startswith(("╭", "│"))]
    assert panel
    assert all(len(line) <= columns for line in panel)


def test_on_a_terminal_names_are_never_cut_and_numbers_stand_in_line(tmp_path: Path) -> None:
    names = [
        "gpt-4o-mini-2024-07-18",
        "us.anthropic.claude-3-5-sonnet-20241022-v2:0",
        "[/] [bold]x",
        "\u009b31m\u202ered",
        "m" * 128,
    ]
    log = tmp_path / "calls.jsonl"
    log.write_text("".join(json.dumps(response(str(n), request_model=name)) + "\n" for n, name in enumerate(names)))
    assert tidegate("replay", log, "--data", tmp_path / "data").returncode == 0

    for command in (("status",), ("query", "SELECT model, count() AS n, sum(cost_usd) AS usd FROM calls GROUP BY model")):
        code, seen = on_terminal(*command, "--data", tmp_path / "data", columns=80, until="x")
        text = "\n".join(lines_of(seen))

        assert code == 0, seen
        assert "gpt-4o-mini-2024-07-18" in text
        assert "[/] [bold]x" in text
        assert "\u009b" not in seen
        assert "\u202e" not in seen
        assert "…" not in text
        assert text.count("m") >= 128
        assert all(len(line) <= 80 for line in lines_of(seen)), text

    code, seen = on_terminal("query", "SELECT * FROM calls LIMIT 1", "--data", tmp_path / "data", columns=80, until="x")
    assert code == 0
    assert re.search(r"^request_model +gpt-4o-mini-2024-07-18", "\n".join(lines_of(seen)), re.MULTILINE)


# ---- replay


def test_a_file_replayed_half_then_whole_then_again_counts_once_with_and_without_a_node(tmp_path: Path) -> None:
    data, log = tmp_path / "data", tmp_path / "calls.jsonl"
    expected = [{"calls": 300, "ids": 300, "cost": 300 * COST}]

    log_of(log, range(150))
    half = tidegate("replay", log, "--data", data)
    log_of(log, range(300))
    with NodeProcess(data) as node:
        whole = tidegate("replay", log, "--data", data)
        again = tidegate("replay", log, "--data", data)
        over_http = tidegate("replay", log, "--to", node.url)
        node.settled()
        assert rows(data, COUNT) == expected
    packed = tmp_path / "calls.jsonl.gz"
    packed.write_bytes(gzip.compress(log.read_bytes()))
    alone = tidegate("replay", packed, "--data", data)

    for result in (half, whole, again, over_http, alone):
        assert result.returncode == 0, said(result)
    assert "150 new calls" in said(half)
    assert "150 new calls, 0 requests, 0 dead letters, 150 already known" in said(whole)
    assert "0 new calls, 0 requests, 0 dead letters, 300 already known" in said(again)
    assert "Every line was counted before" in said(again)
    assert "300 lines read, 300 published, 0 refused" in said(over_http)
    assert "300 already known" in said(alone)
    assert rows(data, COUNT) == expected


@pytest.mark.parametrize("with_node", [False, True])
def test_a_replay_that_is_killed_amid_its_work_and_run_again_counts_once(tmp_path: Path, with_node: bool) -> None:
    data, log = tmp_path / "data", log_of(tmp_path / "calls.jsonl", range(15_000))

    def kill_amid_work() -> None:
        command = [sys.executable, "-m", "tidegate", "replay", str(log), "--data", str(data)]
        running = subprocess.Popen(command, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wal = data / "log.sqlite-wal"
        grown = wal.stat().st_size if wal.exists() else 0
        eventually(lambda: wal.stat().st_size if wal.exists() else 0, lambda size: size > grown + 300_000)
        running.kill()
        assert running.wait(30) == -signal.SIGKILL, "it had ended before: the test tests nothing"

    if with_node:
        with NodeProcess(data) as node:
            kill_amid_work()
            assert tidegate("replay", log, "--data", data).returncode == 0
            node.settled()
            assert rows(data, COUNT) == [{"calls": 15_000, "ids": 15_000, "cost": 15_000 * COST}]
    else:
        kill_amid_work()
        assert tidegate("replay", log, "--data", data).returncode == 0

    assert rows(data, COUNT) == [{"calls": 15_000, "ids": 15_000, "cost": 15_000 * COST}]
    assert rows(data, "SELECT sum(requests) AS n, sum(cost_nano_usd) AS cost FROM v_calls_1h") == [
        {"n": 15_000, "cost": 15_000 * COST}
    ]


def test_a_replay_ends_while_other_traffic_goes_on(tmp_path: Path) -> None:
    log = log_of(tmp_path / "calls.jsonl", range(50))
    with NodeProcess(tmp_path / "data", "--simulate", "--rate", "400") as node:
        result = tidegate("replay", log, "--data", node.data_dir)

    assert result.returncode == 0
    assert "50 lines read, 50 published, 0 refused" in said(result)
    assert rows(node.data_dir, "SELECT count() AS n FROM calls WHERE startsWith(call_id, 'c-')") == [{"n": 50}]


@pytest.mark.parametrize(
    ("content", "published", "refused"),
    [
        (os.urandom(5_000).replace(b"\n", b"") + b"\n", 0, 1),
        (
            json.dumps(response("ok")).encode()
            + b"\n"
            + b"x" * 10_000_000
            + b"\n"
            + json.dumps(response("ok2")).encode()
            + b"\n",
            2,
            1,
        ),
        ('{"event": "response", "tenant": "Münster"}\n'.encode("latin-1") + json.dumps(response("ok")).encode() + b"\n", 1, 1),
        (json.dumps([1, 2], indent=1).encode() + b"\n", 0, 4),
        (b"", 0, 0),
        (b"\n \n\r\n", 0, 0),
    ],
    ids=["binary", "ten-megabytes", "latin-1", "pretty", "empty", "blank"],
)
def test_every_line_of_a_file_is_accounted_for_whatever_it_holds(
    tmp_path: Path, content: bytes, published: int, refused: int
) -> None:
    data, log = tmp_path / "data", tmp_path / "odd[bold].log"
    log.write_bytes(content)

    result = tidegate("replay", log, "--data", data)

    assert result.returncode == 0, said(result)
    assert f"{published + refused} lines read, {published} published, {refused} refused" in said(result)
    assert f"{published} new calls, 0 requests, {refused} dead letters, 0 already known" in said(result)
    assert len(result.stdout) < 2_000


def test_a_file_that_cannot_be_read_is_told_before_anything_is_published(tmp_path: Path) -> None:
    good = log_of(tmp_path / "good.jsonl", range(3))
    (tmp_path / "folder").mkdir()
    unreadable = tmp_path / "unreadable.jsonl"
    unreadable.write_bytes(b"{}\n")
    unreadable.chmod(0)
    wrong: list[Path] = [tmp_path / "missing.jsonl", tmp_path / "folder"]
    if os.geteuid() != 0:  # root reads everything
        wrong.append(unreadable)

    for path in wrong:
        result = tidegate("replay", good, path, "--data", tmp_path / "data")
        assert is_one_clear_line(result), said(result)
        assert str(path).encode() in result.stderr

    assert rows(tmp_path / "data", COUNT)[0]["calls"] == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ("--speed", "fast"),
        ("--speed", "0"),
        ("--to", "http://127.0.0.1:1", "--data", "x"),
        ("--to", "gopher://x"),
        ("--to", "http://user:secret@x"),
    ],
)
def test_an_argument_that_makes_no_sense_is_one_clear_line(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    log = log_of(tmp_path / "calls.jsonl", range(1))

    result = tidegate("replay", log, *arguments)

    assert is_one_clear_line(result), said(result)
    assert b"secret" not in result.stderr


# ---- the acceptance case: real calls against a sum that knows nothing of Tidegate

BY = {
    "model": "model",
    "tenant": "tenant",
    "prompt": "concat(prompt_name, '@', prompt_version)",
}


def real_calls() -> Path:
    default = Path(__file__).parents[2] / ".." / "shared" / "data" / "real_calls.jsonl"
    path = Path(os.environ.get("TIDEGATE_REAL_CALLS", default))
    if not path.is_file():
        pytest.skip("real_calls.jsonl is absent; name it in TIDEGATE_REAL_CALLS")
    return path


def summed_plainly(log: Path) -> dict[str, dict[str, list[int]]]:
    """By each of `BY`: calls, tokens in and out, nano-dollars; priced call by call, rounded half to even."""
    sums: dict[str, dict[str, list[int]]] = {by: {} for by in BY}
    for line in log.read_bytes().splitlines():
        call = json.loads(line)
        used, tags = call["response"]["usage"], call["tags"]
        tokens = genai_prices.Usage(
            input_tokens=used["prompt_tokens"],
            output_tokens=used["completion_tokens"],
            cache_read_tokens=used["prompt_tokens_details"]["cached_tokens"],
        )
        price = genai_prices.calc_price(
            tokens,
            call["response"]["model"],
            provider_id=call["provider"],
            genai_request_timestamp=datetime.fromisoformat(call["started_at"]),
        )
        cost = int((price.total_price * 10**9).quantize(Decimal(1), ROUND_HALF_EVEN))
        keys = {
            "model": call["response"]["model"],
            "tenant": tags["tenant"],
            "prompt": f"{tags['prompt_name']}@{tags['prompt_version']}",
        }
        for by, key in keys.items():
            known = sums[by].setdefault(key, [0, 0, 0, 0])
            sums[by][key] = [
                known[0] + 1,
                known[1] + used["prompt_tokens"],
                known[2] + used["completion_tokens"],
                known[3] + cost,
            ]
    return sums


def summed_by_tidegate(data: Path, table: str, calls: str, *, of: Sequence[str] = tuple(BY)) -> dict[str, dict[str, list[int]]]:
    parts = [
        f"SELECT '{by}' AS by, {BY[by]} AS key, {calls} AS calls, sum(input_tokens) AS tokens_in,"
        f" sum(output_tokens) AS tokens_out, sum(cost_nano_usd) AS cost FROM {table} GROUP BY key"
        for by in of
    ]
    sums: dict[str, dict[str, list[int]]] = {by: {} for by in of}
    for row in rows(data, " UNION ALL ".join(parts)):
        sums[row["by"]][row["key"]] = [row["calls"], row["tokens_in"], row["tokens_out"], row["cost"]]
    return sums


def test_real_calls_come_out_to_the_nano_dollar_however_often_and_in_what_parts_they_are_replayed(tmp_path: Path) -> None:
    log, data, in_parts = real_calls(), tmp_path / "data", tmp_path / "parts"
    content = log.read_bytes()
    half = tmp_path / "half.jsonl"
    half.write_bytes(content[: len(content) // 2])  # amid a line

    first = tidegate("replay", log, "--data", data)
    expected, found = summed_plainly(log), summed_by_tidegate(data, "calls", "count()")
    again = tidegate("replay", log, "--data", data)
    for part in (half, log):
        assert tidegate("replay", part, "--data", in_parts).returncode == 0

    assert (first.returncode, again.returncode) == (0, 0), said(first) + said(again)
    assert "0 refused" in said(first)
    assert "0 new calls" in said(again)
    assert sum(calls for calls, *_ in expected["model"].values()) == content.count(b"\n")
    assert len(expected["model"]) > 1
    assert len(expected["tenant"]) > 1
    assert len(expected["prompt"]) > 1
    assert found == expected
    for folder in (data, in_parts):
        assert summed_by_tidegate(folder, "calls", "count()") == expected
        assert summed_by_tidegate(folder, "v_calls_1h", "sum(requests)") == expected
        # The minute rollup leaves prompts out, so that it stays small.
        by_minute = summed_by_tidegate(folder, "v_calls_1m", "sum(requests)", of=["model", "tenant"])
        assert by_minute == {by: expected[by] for by in by_minute}
