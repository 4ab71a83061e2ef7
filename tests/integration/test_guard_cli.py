"""`tidegate score`, `models` and `evaluate` as a person uses them: files, pipes, wrong lines, detectors that break."""

from __future__ import annotations

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

pytest.importorskip("tokenizers", reason="the extra `guardrails` is not installed")

from tidegate.processors.guardrails import scoring
from tidegate.processors.guardrails.ports import Batch, Finding, Verdict
from tidegate.processors.guardrails.scoring import Plan, score_apart, score_here
from tidegate.processors.guardrails.suite import Suite
from tidegate.schemas.settings import Settings

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
    assert {where: set(scores) >= SCORES[where] for where, scores in first["scores"].items()} == dict.fromkeys(SCORES, True)
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
    )

    done = tidegate("score", file, "--detectors", "phi", timeout_s=180)

    said = results(done)
    assert done.returncode == 1
    assert [(line["id"], line.get("line")) for line in said] == [(1, None), (None, 2), (4, 4), (None, 5), (6, None)]
    assert said[1]["error"].startswith("not valid JSON")
    assert said[2]["error"] == "prompt: Input should be a valid string"
    assert said[3]["error"] == "not a JSON object"
    assert said[4]["redacted"]["context"] == ["one text"]
    told = done.stderr.decode()
    places = ["line 2", "line 4", "line 5", "3 of 5 lines could not be scored"]
    assert [line.partition(":")[0] for line in told.splitlines()] == places
    assert secret not in told + done.stdout.decode()


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
        eventually(lambda: target.exists() and target.stat().st_size > 0, bool, within_s=60)

        os.kill(workers[0], signal.SIGKILL)
        _, told = scoring.communicate(b"\n".join(lines[60:]) + b"\n", timeout=240)

    said = [json.loads(line) for line in target.read_text().splitlines()]
    assert (scoring.returncode, told) == (0, b"")
    assert [line["id"] for line in said] == list(range(300))
    assert all(line["redacted"]["prompt"].endswith("<MEDICAL_RECORD_NUMBER>") for line in said)


def test_a_line_that_kills_whoever_scores_it_is_told_and_the_others_are_scored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoring, "_score", deadly_scoring.score)
    lines = [(number, b'{"id": "deadly"}' if number in (7, 8, 30) else b"{}") for number in range(1, 41)]

    batches = list(score_apart(iter(lines), Plan(Settings(guard_batch=4)), 2))

    scored = [line for batch in batches for line in batch.lines]
    assert [line.number for line in scored] == list(range(1, 41))
    assert [line.number for line in scored if line.problem] == [7, 8, 30]
    assert json.loads(scored[6].output) == {"id": "deadly", "line": 7, "error": "the scoring process died of this line"}


def spawned_by(pid: int) -> list[int]:
    """The scoring processes of a command: its children but the one that tidies up after multiprocessing."""
    children = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return [child for child in children if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]


def test_without_phi_nothing_is_shown_and_only_what_was_asked_for_is_scored(tmp_path: Path) -> None:
    done = tidegate("score", written(tmp_path / "c.jsonl", CALL), "--detectors", "toxicity", timeout_s=180)

    (result,) = results(done)
    assert done.returncode == 0
    assert result["redacted"] is None
    assert result["scores"]["prompt"]["toxicity"] is not None
    assert result["scores"]["response"]["faithfulness"] is None


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("nowhere.jsonl",), "nowhere.jsonl cannot be read: No such file or directory"),
        (("{file}", "--detectors", "phi,taste"), "unknown detector 'taste'"),
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

    (batch,) = score_here(lines, Plan(Settings(), redaction_key=b"k" * 32))

    good, bad = (json.loads(line.output) for line in batch.lines)
    assert good["redacted"]["prompt"] == "<PERSON> came"
    assert (bad["redacted"], bad["failed"], bad["findings"]) == (None, {"phi": "ValueError"}, [])
    assert b"break" not in batch.lines[1].output
    assert dict(batch.lines[1].failed) == {"phi": "ValueError"}


def test_a_finding_outside_its_text_shows_nothing_of_the_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoring, "load_suite", lambda *_, **__: Suite([_Phi()]))

    (batch,) = score_here([(1, b'{"prompt": "", "response": "Rosa"}')], Plan(Settings(), redaction_key=b"k" * 32))

    said = json.loads(batch.lines[0].output)
    assert (said["redacted"], said["failed"]) == (None, {"redaction": "ValueError"})


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
    assert b"l.jsonl, line 4: no labels" in done.stderr
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
