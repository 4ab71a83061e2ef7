"""`tidegate score`, `models` and `evaluate` as a person uses them: files, pipes, wrong lines, detectors that break."""

from __future__ import annotations

import hashlib
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import deadly_scoring
import pytest
from node_process import environment, eventually, tidegate
from support import response

pytest.importorskip("tokenizers", reason="the extra `guardrails` is not installed")

from tidegate import guard_files
from tidegate.processors.guardrails import lines, scoring
from tidegate.processors.guardrails.ports import Batch, Finding, Verdict
from tidegate.processors.guardrails.scoring import Plan, Scorer
from tidegate.processors.guardrails.scoring_processes import score_apart
from tidegate.processors.guardrails.suite import Suite
from tidegate.schemas.errors import InvalidEvent, UsageError
from tidegate.schemas.settings import Settings
from tidegate.sinks.clickhouse import Store

CALL = {
    "id": "call-1",
    "prompt": "Summarise the visit of Rosa Martinez, MRN 83926104.",
    "response": "Rosa Martinez takes 50 mg of metformin daily. Call her at (617) 555-0139.",
    "context": ["Doctor: How much metformin? Patient: 50 mg daily.", "Nothing else was said."],
}
SCORES = {
    "prompt": {"toxicity", "injection"},
    "response": {"toxicity", "faithfulness", "relevance"},
    "context": {"injection"},
}


def written(path: Path, *lines: dict[str, Any] | str) -> Path:
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return path


def results(done: subprocess.CompletedProcess[bytes]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_each_line_has_its_result_in_the_shape_that_is_promised(tmp_path: Path) -> None:
    file = written(tmp_path / "calls.jsonl", CALL, {"id": "call-2", "prompt": "What is metformin?"})

    done = tidegate("score", file, timeout_s=180)

    first, second = results(done)
    assert (done.returncode, done.stderr) == (0, b"")
    assert list(first)[:4] == ["id", "findings", "scores", "redacted"]
    assert {where: set(scores) for where, scores in first["scores"].items()} == SCORES
    assert all(0 <= score <= 1 for scores in first["scores"].values() for score in scores.values() if score is not None)
    for found in first["findings"]:
        texts = {"prompt": CALL["prompt"], "response": CALL["response"], "context": CALL["context"][found.get("chunk", 0)]}
        assert 0 <= found["start"] <= found["end"] <= len(texts[found["where"]])
        assert 0 <= found["score"] <= 1
        assert ("chunk" in found) == (found["where"] == "context")
    phone = next(found for found in first["findings"] if found["type"] == "PHONE_NUMBER")
    assert CALL["response"][phone["start"] : phone["end"]] == "(617) 555-0139"
    assert phone["leak"] is True
    assert "83926104" not in first["redacted"]["prompt"]
    assert "Martinez" not in json.dumps(first["redacted"])
    assert [len(first["redacted"]["context"]), second["redacted"]["context"]] == [2, []]
    assert second["scores"]["response"] == dict.fromkeys(second["scores"]["response"])
    assert second["redacted"]["response"] is None


def test_places_are_counted_in_characters_not_in_bytes(tmp_path: Path) -> None:
    text = "naïve 🙂 café — MRN 83926104"

    done = tidegate("score", written(tmp_path / "c.jsonl", {"prompt": text}), "--detectors", "phi", timeout_s=180)

    (result,) = results(done)
    (found,) = [found for found in result["findings"] if found["type"] == "MEDICAL_RECORD_NUMBER"]
    assert text[found["start"] : found["end"]] == "83926104"
    assert result["id"] is None


def test_lines_that_are_wrong_are_told_by_number_and_stand_in_their_place(tmp_path: Path) -> None:
    secret = "Rosa Martinez 83926104"
    file = written(
        tmp_path / "calls.jsonl",
        {"id": 1, "prompt": "hello"},
        f'{{"prompt": "{secret}"',
        "",
        {"id": 4, "prompt": [secret]},
        f'["{secret}"]',
        {"id": 6, "context": "one text"},
        {"id": 7, "messages": secret},
        {"id": 8, "context": [{"text": secret}]},
        {"id": 1, "prompt": ""},
    )

    done = tidegate("score", file, "--detectors", "phi", timeout_s=180)

    said = results(done)
    assert done.returncode == 1
    places = [(1, None), (None, 2), (4, 4), (None, 5), (6, None), (7, 7), (8, 8), (1, None)]
    assert [(line["id"], line.get("line")) for line in said] == places
    assert said[1]["error"].startswith("not valid JSON")
    assert said[2]["error"] == "prompt: Input should be a valid string"
    assert said[3]["error"] == "not a JSON object"
    assert said[4]["redacted"]["context"] == ["one text"]
    assert said[5]["error"] == "nothing to score: it has none of prompt, response and context"
    assert said[6]["error"] == "context: Input should be a valid string; give a list of texts, or one text"
    assert said[7]["redacted"]["prompt"] == ""
    told = done.stderr.decode()
    heads = [f"line {number}" for number in (2, 4, 5, 7, 8)]
    assert [line.partition(":")[0] for line in told.splitlines()] == [
        *heads,
        "ids repeat, on 1 of 8 lines",
        "5 of 8 lines could not be scored",
    ]
    assert secret not in told + done.stdout.decode()


def test_a_result_has_the_same_keys_whatever_became_of_its_line(tmp_path: Path) -> None:
    file = written(tmp_path / "calls.jsonl", CALL, {"response": "Women are bad drivers."}, "no JSON", {"id": 4})

    done = tidegate("score", file, timeout_s=180)

    for line in results(done):
        assert {"id", "findings", "scores", "redacted"} <= set(line)
        assert {where: set(scores) for where, scores in line["scores"].items()} == SCORES
        assert set(line["redacted"]) == {"prompt", "response", "context"}
    assert results(done)[1]["more_scores"]["response"]["bias_women"] > 0.5
    assert results(done)[2]["redacted"] == results(done)[3]["redacted"] == dict.fromkeys(("prompt", "response", "context"))


def test_a_strict_run_stops_at_the_first_line_that_cannot_be_judged_and_leaves_no_file(tmp_path: Path) -> None:
    file = written(tmp_path / "calls.jsonl", CALL, {"id": 2}, CALL)

    done = tidegate("score", file, "--detectors", "toxicity", "--strict", "--out", tmp_path / "out.jsonl", timeout_s=180)

    assert done.returncode == 2
    assert "calls.jsonl, line 2: nothing to score" in done.stderr.decode()
    assert [path.name for path in tmp_path.iterdir()] == ["calls.jsonl"]


@pytest.mark.parametrize(
    "content",
    [b'\xef\xbb\xbf{"prompt": "a"}\n{"prompt": "b"}', b'{"prompt": "a"}\r\n\r\n{"prompt": "b"}\r\n'],
    ids=["a byte order mark", "lines that end as on Windows"],
)
def test_files_as_other_systems_write_them_are_read(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "c.jsonl").write_bytes(content)

    done = tidegate("score", tmp_path / "c.jsonl", "--detectors", "phi", timeout_s=180)

    assert (done.returncode, done.stderr) == (0, b"")
    assert [line["redacted"]["prompt"] for line in results(done)] == ["a", "b"]


@pytest.mark.parametrize(
    ("content", "problem"),
    [("{}".encode("utf-16"), "is UTF-16; make it UTF-8: iconv"), (b"\x1f\x8b\x08", "is compressed; unpack it")],
    ids=["utf-16", "gzip"],
)
def test_files_that_hold_no_lines_are_told_with_what_to_do(tmp_path: Path, content: bytes, problem: str) -> None:
    (tmp_path / "c.jsonl").write_bytes(content)

    done = tidegate("score", tmp_path / "c.jsonl", timeout_s=180)

    assert done.returncode == 2
    assert problem in done.stderr.decode()


def test_a_line_without_an_end_is_refused_and_the_next_one_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "MAX_LINE_BYTES", 40)
    source = io.BytesIO(b'{"prompt": "%s"}\n{"prompt": "next"}\n' % (b"x" * 200))

    (_, long), (number, following) = guard_files.lines(source, "f")

    with pytest.raises(InvalidEvent, match="longer than"):
        lines.read_line(long)
    assert len(long) == 41
    assert (number, lines.read_line(following).prompt) == (2, "next")


def test_who_reads_only_the_head_hears_no_complaint(tmp_path: Path) -> None:
    file = written(tmp_path / "c.jsonl", *[{"prompt": "x" * 2_000}] * 200)
    command = [sys.executable, "-m", "tidegate", "score", str(file), "--detectors", "phi"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()) as scoring:
        assert scoring.stdout is not None
        assert scoring.stderr is not None

        first = scoring.stdout.readline()
        scoring.stdout.close()
        told = scoring.stderr.read()

    assert json.loads(first)["id"] is None
    assert (scoring.returncode, told) == (141, b"")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_stopped_leaves_the_old_file_and_no_half_of_a_new_one(tmp_path: Path, number: int) -> None:
    target = tmp_path / "out.jsonl"
    target.write_text("old")
    command = [sys.executable, "-m", "tidegate", "score", "-", "--out", str(target), "--detectors", "phi"]
    quick = environment(TIDEGATE_GUARD_BATCH="1")
    pipes = {"stdin": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, env=quick, start_new_session=True, **pipes) as scoring:
        assert scoring.stdin is not None
        scoring.stdin.write(b'{"prompt": "MRN 83926104"}\n' * 20)
        scoring.stdin.flush()
        begun = eventually(lambda: written_so_far(target), bool, within_s=60)
        workers = spawned_by(scoring.pid)

        # As a terminal does it: to the command and to its processes.
        os.killpg(scoring.pid, number)
        _, told = scoring.communicate(timeout=60)

    assert begun
    assert scoring.returncode != 0
    assert b"Traceback" not in told
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("out.jsonl", "old")]
    assert not any(Path(f"/proc/{worker}").exists() for worker in workers)


def written_so_far(target: Path) -> int:
    """Bytes of a file that is not there yet."""
    return sum(part.stat().st_size for part in target.parent.glob(f".{target.name}.*.part"))


def test_standard_input_to_a_file_by_several_processes_keeps_the_order(tmp_path: Path) -> None:
    lines = [{"id": number, "prompt": f"Visit {number} of MRN 83926{number:03}"} for number in range(70)]
    source, target = written(tmp_path / "in.jsonl", *lines), tmp_path / "out.jsonl"
    command = [sys.executable, "-m", "tidegate", "score", "-", "--out", str(target), "--detectors", "phi", "--workers", "2"]

    done = subprocess.run(command, input=source.read_bytes(), capture_output=True, timeout=240, env=environment())
    alone = tidegate("score", source, "--detectors", "phi", timeout_s=180)

    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert target.read_bytes() == alone.stdout
    assert [json.loads(line)["id"] for line in target.read_text().splitlines()] == list(range(70))


def test_a_scoring_process_that_is_killed_costs_no_line(tmp_path: Path) -> None:
    lines = [json.dumps({"id": number, "prompt": f"Visit {number} of MRN 83926{number:03}"}).encode() for number in range(300)]
    target = tmp_path / "out.jsonl"
    command = [sys.executable, "-m", "tidegate", "score", "-", "--out", str(target), "--detectors", "phi", "--workers", "2"]
    quick = environment(TIDEGATE_GUARD_BATCH="4")
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, env=quick) as scoring:
        assert scoring.stdin is not None
        scoring.stdin.write(b"\n".join(lines[:60]) + b"\n")
        scoring.stdin.flush()
        workers = eventually(lambda: spawned_by(scoring.pid), lambda found: len(found) == 2, within_s=60)
        eventually(lambda: written_so_far(target), bool, within_s=60)

        os.kill(workers[0], signal.SIGKILL)
        _, told = scoring.communicate(b"\n".join(lines[60:]) + b"\n", timeout=240)

    assert (scoring.returncode, told) == (0, b"")
    said = [json.loads(line) for line in target.read_text().splitlines()]
    assert [line["id"] for line in said] == list(range(300))
    assert all(line["redacted"]["prompt"].endswith("<MEDICAL_RECORD_NUMBER>") for line in said)


def apart(prompts: Sequence[str], processes: int, **settings: Any) -> list[dict[str, Any]]:
    """What is said of some prompts by two detectors, of which one obeys them."""
    numbered = [(number, json.dumps({"id": number, "prompt": prompt}).encode()) for number, prompt in enumerate(prompts, 1)]
    found = score_apart(iter(numbered), Plan(Settings(**settings)), processes, deadly_scoring.make)
    scored = [line for batch in found for line in batch.lines]
    assert [line.number for line in scored] == list(range(1, len(prompts) + 1))
    return [json.loads(line.output) for line in scored]


@pytest.mark.parametrize(("word", "why"), [("DIE", "crash"), ("HANG", "timeout")])
def test_a_line_that_ends_or_holds_up_its_process_is_judged_without_the_detector_that_did_it(word: str, why: str) -> None:
    broken = {7, 8, 30}

    said = apart([word if number in broken else "fine" for number in range(1, 41)], 2, guard_batch=4, guard_timeout_s=1)

    assert {line["id"]: line.get("failed") for line in said if "failed" in line} == {
        number: {"injection": why} for number in broken
    }
    for line in said:
        assert line["scores"]["prompt"] == {"toxicity": 0.5, "injection": None if line["id"] in broken else 0.25}


def test_a_line_that_was_merely_there_when_its_process_died_is_judged_whole(tmp_path: Path) -> None:
    (said,) = apart([f"ONCE {tmp_path / 'flag'}"], 1)

    assert (tmp_path / "flag").exists()
    assert "failed" not in said
    assert said["scores"]["prompt"]["injection"] == 0.25


def test_a_line_that_wants_more_memory_than_there_is_for_one_costs_that_detector_alone() -> None:
    said = apart(["fine", "GROW"], 1, guard_memory_mb=256)

    assert [line.get("failed") for line in said] == [None, {"injection": "MemoryError"}]


def test_processes_that_end_while_they_are_loading_are_told_and_no_line_is_blamed() -> None:
    with pytest.raises(UsageError, match="end while they are loading"):
        list(score_apart(iter([(1, b'{"prompt": "x"}')]), Plan(Settings()), 1, deadly_scoring.vanish))


def spawned_by(pid: int) -> list[int]:
    """The scoring processes of a command: its children but the one that tidies up after multiprocessing."""
    children = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return [child for child in children if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]


def test_without_phi_nothing_is_shown_and_only_what_was_asked_for_is_scored(tmp_path: Path) -> None:
    done = tidegate("score", written(tmp_path / "c.jsonl", CALL), "--detectors", "toxicity", timeout_s=180)

    (result,) = results(done)
    assert done.returncode == 0
    assert result["redacted"] == dict.fromkeys(("prompt", "response", "context"))
    assert result["scores"]["prompt"]["toxicity"] is not None
    assert result["scores"]["response"]["faithfulness"] is None


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("nowhere.jsonl",), "nowhere.jsonl cannot be read: No such file or directory"),
        (("{file}", "--detectors", "phi,taste"), "unknown detector 'taste'; choose from phi, toxicity"),
        (("{file}", "--detectors", "toxicty"), "did you mean toxicity?"),
        (("{file}", "--detectors", ","), "--detectors names none"),
        (("{file}", "--out", "{file}"), "is the file that is read"),
        (("{file}", "--out", "{file}/x"), "cannot be written"),
    ],
)
def test_what_a_person_gets_wrong_is_one_line_and_changes_nothing(
    arguments: Sequence[str], problem: str, tmp_path: Path
) -> None:
    file = written(tmp_path / "calls.jsonl", CALL)

    done = tidegate("score", *(argument.format(file=file) for argument in arguments))

    (line,) = done.stderr.decode().splitlines()
    assert (done.returncode, done.stdout) == (2, b"")
    assert problem in line
    assert json.loads(file.read_text()) == CALL


def test_a_model_that_does_not_exist_is_told_and_the_default_scores(tmp_path: Path) -> None:
    file, wanted = written(tmp_path / "c.jsonl", CALL), {"TIDEGATE_GUARD_TOXICITY": "detoxify:/nowhere/at-all"}

    done = tidegate("score", file, "--detectors", "toxicity", timeout_s=180, **wanted)
    strict = tidegate("score", file, "--detectors", "toxicity", "--strict", timeout_s=180, **wanted)

    assert done.returncode == 0
    assert results(done)[0]["scores"]["prompt"]["toxicity"] is not None
    assert "/nowhere/at-all is no folder; the offline default scores instead" in done.stderr.decode()
    assert (strict.returncode, strict.stdout) == (2, b"")


def test_a_backend_that_is_none_is_a_wrong_setting(tmp_path: Path) -> None:
    file = written(tmp_path / "c.jsonl", CALL)

    done = tidegate("score", file, "--detectors", "toxicity", TIDEGATE_GUARD_TOXICITY="magic")

    assert done.returncode == 2
    assert "guard_toxicity: 'magic' is not a backend; give offline, or detoxify:NAME" in done.stderr.decode()


class _Phi:
    """Breaks on a word, and says so with the text in hand."""

    name = "phi"
    version = "test-1"

    def assess(self, batch: Batch) -> list[Verdict]:
        for sample in batch.samples:
            if "break" in (sample.prompt or ""):
                raise ValueError(f"cannot judge {sample.prompt!r}")
            if sample.prompt == "":
                return [Verdict([Finding("phi", "PERSON", "prompt", 0, 4, 0.9)])]
        return [Verdict([Finding("phi", "PERSON", "prompt", 0, 4, 0.9)]) for _ in batch.samples]

    def describe(self) -> dict[str, str]:
        return {}


def test_what_phi_could_not_judge_is_not_shown_and_its_neighbours_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoring, "load_suite", lambda *_, **__: Suite([_Phi()]))
    lines = [(n, json.dumps({"id": n, "prompt": text}).encode()) for n, text in ((1, "Rosa came"), (2, "Rosa break"))]

    scored = Scorer(Plan(Settings(), redaction_key=b"k" * 32)).score(lines)

    good, bad = (json.loads(line.output) for line in scored)
    assert good["redacted"]["prompt"] == "<PERSON> came"
    assert (bad["redacted"]["prompt"], bad["failed"], bad["findings"]) == (None, {"phi": "ValueError"}, [])
    assert b"break" not in scored[1].output
    assert dict(scored[1].failed) == {"phi": "ValueError"}


def test_a_finding_outside_its_text_shows_nothing_of_the_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoring, "load_suite", lambda *_, **__: Suite([_Phi()]))

    (scored,) = Scorer(Plan(Settings(), redaction_key=b"k" * 32)).score([(1, b'{"prompt": "", "response": "Rosa"}')])

    said = json.loads(scored.output)
    assert (said["redacted"]["response"], said["failed"]) == (None, {"redaction": "ValueError"})


def test_what_scores_is_told_with_hash_and_licence() -> None:
    table = tidegate("models", "--detectors", "phi,toxicity", timeout_s=180)
    told = tidegate("models", "--json", timeout_s=180)

    parts = json.loads(told.stdout)
    assert table.returncode == told.returncode == 0
    assert b"toxicity" in table.stdout
    assert {"(encoder)", "phi", "toxicity", "injection", "faithfulness", "relevance", "guideline", "bias"} == {
        part["detector"] for part in parts
    }
    for part in parts:
        assert part["licence"], part["detector"]
        assert part["version"], part["detector"]
        assert len(part["sha256"]) == 64, part["detector"]


def test_a_model_is_pinned_by_hand(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"weights")

    done = tidegate("models", "pin", tmp_path, "--licence", "MIT", "--source", "a test")

    pins = json.loads((tmp_path / "tidegate-model.json").read_text())
    assert done.returncode == 0
    assert set(pins["files"]) == {"config.json", "model.safetensors"}
    assert (pins["licence"], pins["source"]) == ("MIT", "a test")


def test_labelled_lines_are_measured_and_drawn(tmp_path: Path) -> None:
    pytest.importorskip("sklearn", reason="the extra `evaluate` is not installed")
    name = {"type": "MEDICAL_RECORD_NUMBER", "start": 4, "end": 12}
    lines = [
        {"prompt": "MRN 83926104", "labels": {"phi": [name], "toxicity": 0}},
        {"prompt": "Take 50 mg twice daily.", "labels": {"phi": [], "toxicity": 0}},
        {"prompt": "you are a worthless idiot", "labels": {"toxicity": 1}},
        {"prompt": "no labels"},
    ]

    done = tidegate("evaluate", written(tmp_path / "l.jsonl", *lines), "--out", tmp_path / "out", "--json", timeout_s=240)

    figures = json.loads(done.stdout)
    assert done.returncode == 1, "a line has no labels"
    assert b'l.jsonl, line 4: no "labels"' in done.stderr
    assert b"1 of 4 lines could not be scored" in done.stderr
    assert figures["phi"]["all"]["any_recall"] == 1.0
    assert figures["toxicity"]["all"]["auroc"] == 1.0
    assert figures["toxicity"]["all"]["length_auroc"] is not None
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "report.md",
        "metrics.json",
        "toxicity-curves.png",
        "toxicity-calibration.png",
        "phi-types.png",
    }
    assert "MRN" not in (tmp_path / "out" / "report.md").read_text().replace("MEDICAL_RECORD_NUMBER", "")


def test_either_files_or_development_sets_are_evaluated() -> None:
    done = tidegate("evaluate")

    assert done.returncode == 2
    assert b"give files of labelled lines, or --dev FOLDER" in done.stderr


@pytest.mark.parametrize(
    "content",
    ["", '{"prompt": "x"}\n', '{"prompt": "x", "labels": {"toxicity": 0}}\n'],
    ids=["an empty file", "a file without labels", "a file with labels for another detector"],
)
def test_where_there_is_nothing_to_measure_nothing_is_reported(tmp_path: Path, content: str) -> None:
    pytest.importorskip("sklearn", reason="the extra `evaluate` is not installed")
    (tmp_path / "l.jsonl").write_text(content)

    done = tidegate("evaluate", tmp_path / "l.jsonl", "--detectors", "phi", "--out", tmp_path / "out", timeout_s=180)

    assert (done.returncode, done.stdout) == (2, b"")
    assert "not one line with a label for phi" in done.stderr.decode()
    assert list((tmp_path / "out").iterdir()) == []


def test_figures_that_are_to_be_stored_are_rows_beside_what_they_are_of(tmp_path: Path) -> None:
    pytest.importorskip("sklearn", reason="the extra `evaluate` is not installed")
    name = {"type": "MEDICAL_RECORD_NUMBER", "start": 4, "end": 12}
    lines = [
        {"prompt": "MRN 83926104", "labels": {"phi": [name]}},
        {"prompt": "Take 50 mg twice daily.", "labels": {"phi": []}, "source": "doses"},
    ]
    file = written(tmp_path / "l.jsonl", *lines)
    (tmp_path / "calls.jsonl").write_text(json.dumps(response()) + "\n")
    assert tidegate("replay", tmp_path / "calls.jsonl", "--data", tmp_path / "data").returncode == 0
    stored = ("--detectors", "phi", "--json", "--store", "--data", tmp_path / "data")

    runs = [tidegate("evaluate", file, *stored, timeout_s=240) for _ in range(2)]

    assert [run.returncode for run in runs] == [0, 0], runs[0].stderr
    figures = json.loads(runs[1].stdout)["phi"]
    with Store.open(path=tmp_path / "data" / "store") as store:
        [(count, times)] = store.query("SELECT count(), uniqExact(at) FROM evaluations").rows
        found = store.query("SELECT * FROM evaluations_latest").dicts()
    assert (count, times) == (2 * len(found), 2)
    said = {(row["source"], row["type"], row["metric"]): row["value"] for row in found}
    for source, report in figures.items():
        for kind, counts in {"": report, **report["by_type"]}.items():
            numbers = {metric: value for metric, value in counts.items() if metric != "by_type"}
            assert {metric: said[source, kind, metric] for metric in numbers} == numbers
    assert said["all", "", "any_recall"] == 1.0
    assert said["doses", "", "any_recall"] is None
    shared = {(row["data_set"], row["sha256"], row["lines"], row["detector"], row["failed"]) for row in found}
    assert shared == {("l.jsonl", hashlib.sha256(file.read_bytes()).hexdigest(), 2, "phi", 0)}
    assert all(row["version"] for row in found)


def test_a_detector_that_no_label_measures_is_refused_before_the_work(tmp_path: Path) -> None:
    pytest.importorskip("sklearn", reason="the extra `evaluate` is not installed")

    done = tidegate("evaluate", tmp_path / "nowhere.jsonl", "--detectors", "relevance,bias")

    assert (done.returncode, done.stdout) == (2, b"")
    assert b"labels measure faithfulness, injection, phi, toxicity" in done.stderr


def test_a_folder_without_the_development_data_is_said_to_be_one(tmp_path: Path) -> None:
    pytest.importorskip("sklearn", reason="the extra `evaluate` is not installed")

    done = tidegate("evaluate", "--dev", tmp_path, "--detectors", "phi", timeout_s=180)

    assert (done.returncode, done.stdout) == (2, b"")
    assert b"has no presidio_templates.txt; give the folder of development data" in done.stderr


def test_a_folder_that_cannot_be_made_is_told_before_the_work(tmp_path: Path) -> None:
    pytest.importorskip("sklearn", reason="the extra `evaluate` is not installed")
    (tmp_path / "l.jsonl").write_text("{}")

    done = tidegate("evaluate", tmp_path / "l.jsonl", "--out", tmp_path / "l.jsonl" / "out")

    assert done.returncode == 2
    assert "cannot be made: Not a directory" in done.stderr.decode()
