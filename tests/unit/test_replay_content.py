"""The texts of replayed and simulated calls: out of the lines they are in, into content, and never into a call's event."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest
from tidegate.producers.emitter import Emitter
from tidegate.producers.key_source import GivenKeys
from tidegate.producers.keyring import KeyRing
from tidegate.producers.local_log import LocalLog
from tidegate.producers.log_texts import read_texts
from tidegate.producers.replay import replay_files
from tidegate.producers.sealing import unseal
from tidegate.producers.simulate import generate, simulate
from tidegate.producers.simulate_texts import LEAKING, texts_of
from tidegate.producers.sqlite_log import SqliteLog
from tidegate.schemas.content import Texts, decode_content
from tidegate.schemas.envelope import CONTENT_SCHEMA, Envelope
from tidegate.schemas.settings import Settings
from tidegate.schemas.topics import CALLS, CONTENT

GOLDEN = Path(__file__).parents[1] / "golden" / "log_lines"
NOW = datetime(2026, 11, 2, 8, tzinfo=UTC)
RING = KeyRing.made()


def logged(call_id: str, **fields: Any) -> bytes:
    return orjson.dumps(
        {
            "id": call_id,
            "request": {"model": "gpt-4o", "messages": [{"role": "user", "content": f"canary asked {call_id}"}]},
            "response": {"model": "gpt-4o", "choices": [{"message": {"content": f"canary said {call_id}"}}], "usage": {}},
            "started_at": "2026-11-02T08:00:00Z",
            "retrieved_context": ["canary known", {"id": "g", "text": "canary guide"}],
            "tags": {"tenant": "st-anne"},
        }
        | fields
    )


# ---- one line


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.jsonl")), ids=lambda path: path.stem)
def test_the_texts_of_every_shape_of_line_are_found_where_there_are_any(path: Path) -> None:
    line = next(found for found in path.read_bytes().splitlines() if found.strip())
    record = json.loads(line)

    found = read_texts(line)

    said = isinstance(record.get("response"), dict) or "choices" in record or "content" in record
    if record.get("event") or not (said or record.get("request", {}).get("messages")):
        assert found is None
    else:
        assert found is not None
        assert "CANARY" in (found["prompt"] or "") + (found["response"] or "")


def test_a_line_gives_prompt_answer_and_retrieved_texts() -> None:
    assert read_texts(logged("1")) == {
        "prompt": "canary asked 1",
        "response": "canary said 1",
        "context": ["canary known", "canary guide"],
    }


@pytest.mark.parametrize("line", [b"", b"not json", b"[]", b'"text"', b"7", b"{}", b'{"event": "response"}', b"\xff"])
def test_a_line_without_texts_gives_none(line: bytes) -> None:
    assert read_texts(line) is None


def test_prose_in_a_line_of_another_kind_is_no_answer() -> None:
    line = orjson.dumps({"event": "response", "model": "gpt-4o", "labels": {"note": "for the night shift"}})

    assert read_texts(line) is None


def test_an_answer_of_a_part_of_no_known_shape_is_read_as_far_as_it_holds_prose() -> None:
    part = {"type": "of_next_year", "words": "Take it with food."}
    line = orjson.dumps({"model": "gpt-4o", "choices": [{"message": {"content": [part]}}]})

    assert read_texts(line) == {"prompt": None, "response": "Take it with food.", "context": []}


# ---- a file


def replayed(folder: Path, *files: Path, send: bool = True, **settings: Any) -> int:
    emitters: list[Emitter] = []

    def opened(identity: str) -> Emitter:
        emitters.append(
            Emitter(
                LocalLog(folder, fsync="normal"),
                settings=Settings(**settings),
                producer_id=identity,
                reopen=lambda: LocalLog(folder, fsync="normal"),
                keys=lambda: GivenKeys(RING.dump().decode()),
            )
        )
        return emitters[-1]

    report = replay_files(files, opened, content=send)
    assert report.problems == []
    return sum(emitter.stats().content.appended for emitter in emitters)


def stored(folder: Path) -> list[tuple[str, int, str, Texts]]:
    """(producer, number, call, texts), in the order of the log."""
    with SqliteLog(folder) as log:
        assert all(b"canary" not in record.value for record in log.read(CALLS.name, 0, 0))
        records = log.read(CONTENT.name, 0, 0)
    found = []
    for record in records:
        envelope = Envelope.from_record(record.headers, record.value, frozenset({CONTENT_SCHEMA}))
        for number, line in enumerate(envelope.lines(), envelope.seq):
            event = decode_content(line)
            found.append((envelope.producer, number, event.call_id, unseal(event, RING)))
    return found


def test_a_replay_sends_the_texts_of_its_lines_sealed_in_their_order(tmp_path: Path) -> None:
    native = b'{"event": "response", "call_id": "n", "started_at": "2026-11-02T08:00:00Z", "request_model": "m"}'
    log = tmp_path / "calls.jsonl"
    log.write_bytes(b"\n".join([logged("1"), native, b"not json", logged("2", tags={}), b""]))

    sent = replayed(tmp_path / "data", log)

    assert sent == 2
    first, second = stored(tmp_path / "data")
    assert first[1:] == (
        0,
        "1",
        Texts(prompt="canary asked 1", response="canary said 1", context=["canary known", "canary guide"]),
    )
    assert (second[1], second[2]) == (1, "2")
    assert first[0] == second[0] != ""


def test_a_file_replayed_again_sends_the_same_calls_under_the_same_numbers(tmp_path: Path) -> None:
    log = tmp_path / "calls.jsonl"
    log.write_bytes(b"\n".join([*(logged(str(number)) for number in range(50)), b""]))

    replayed(tmp_path / "data", log)
    replayed(tmp_path / "data", log)

    found = [entry[:3] for entry in stored(tmp_path / "data")]
    assert len(found) == 100
    assert found[:50] == found[50:]


@pytest.mark.parametrize(("send", "mode"), [(False, "sealed"), (True, "off")])
def test_a_replay_without_content_sends_none(tmp_path: Path, send: bool, mode: str) -> None:
    log = tmp_path / "calls.jsonl"
    log.write_bytes(logged("1") + b"\n")

    sent = replayed(tmp_path / "data", log, send=send, content=mode)

    assert sent == 0
    assert stored(tmp_path / "data") == []


# ---- simulated traffic


def test_simulated_texts_are_the_same_for_the_same_call_and_leave_the_traffic_as_it_is() -> None:
    events = list(itertools.islice(generate(7, NOW), 500))

    once, again = ([texts_of(event) for event in events] for _ in range(2))

    assert once == again
    assert events == list(itertools.islice(generate(7, NOW), 500))


def test_simulated_texts_hold_some_of_all_that_guardrails_are_for() -> None:
    events = list(itertools.islice(generate(7, NOW), 4_000))

    found = [(event, texts) for event in events if (texts := texts_of(event)) is not None]

    prompts = [texts["prompt"] for _, texts in found]
    share = {
        "phi": sum("MRN" in text or "born" in text or "555-01" in text or "@example.com" in text for text in prompts),
        "injection": sum("gnore all previous" in str(texts) or "SYSTEM:" in str(texts) for _, texts in found),
        "rude": sum("idiots" in text or "stupid" in text for text in prompts),
    }
    leaking = {(event["prompt_name"], event["prompt_version"]) for event, texts in found if _leaks(texts)}
    assert len(found) > 3_900
    assert all(0.002 < count / len(found) < 0.1 for count in share.values()), share
    assert leaking == {LEAKING}, "of all prompts, one version leaks"
    assert all(texts["response"] is None for event, texts in found if "error_type" in event)
    assert all("{" not in str(list(texts.values())) for _, texts in found), "every place is filled in"


def _leaks(texts: Mapping[str, Any]) -> bool:
    response = texts["response"] or ""
    return "555-01" in response or "MRN" in response


class Recorder:
    def __init__(self) -> None:
        self.calls: list[str] = []
        self.texts: list[str] = []

    def emit(self, event: Mapping[str, Any], /) -> bool:
        self.calls.append(event["call_id"])
        return True

    def emit_content(self, call: Mapping[str, Any], texts: Mapping[str, Any], /) -> bool:
        assert texts["prompt"]
        self.texts.append(call["call_id"])
        return True

    def wait_for_room(self) -> None: ...


@pytest.mark.parametrize("content", [True, False])
def test_a_simulation_says_something_only_when_asked_to(content: bool) -> None:
    emitter = Recorder()

    simulate(emitter, rate_per_s=None, now=NOW, clock=lambda: 0.0, stop=lambda: len(emitter.calls) >= 200, content=content)

    assert emitter.texts == (emitter.calls if content else [])
