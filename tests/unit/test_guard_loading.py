"""Which detectors are loaded, what is told when one cannot be; folders that are held to their pins; texts cut into pieces."""

from __future__ import annotations

import json
import sys
from itertools import pairwise
from pathlib import Path

import pytest

pytest.importorskip("tokenizers", reason="the extra `guardrails` is not installed")

from hypothesis import given
from hypothesis import strategies as st
from tidegate.processors.guardrails.backends import folder as folders
from tidegate.processors.guardrails.backends.folder import ModelUnavailable
from tidegate.processors.guardrails.backends.windows import Piece, in_batches, pieces
from tidegate.processors.guardrails.lines import read_line
from tidegate.processors.guardrails.loading import load_suite
from tidegate.schemas.errors import InvalidEvent, UsageError
from tidegate.schemas.settings import Settings


def test_detectors_are_asked_in_one_order_whoever_names_them() -> None:
    suite = load_suite(Settings(), ["guideline", "phi", "guideline"])

    assert [detector.name for detector in suite.detectors] == ["phi", "guideline"]
    assert suite.encoder is None, "neither needs vectors"


def test_a_package_that_is_missing_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    monkeypatch.delitem(sys.modules, "tidegate.processors.guardrails.encoder", raising=False)

    with pytest.raises(UsageError, match=r"needs tokenizers: pip install 'tidegate\[guardrails\]'"):
        load_suite(Settings(), ["toxicity"])


def test_a_wrong_rule_file_is_a_persons_to_mend(tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text("doses:\n  - {id: x}\n")

    with pytest.raises(UsageError, match=r"rules\.yaml, line 2"):
        load_suite(Settings(guideline_file=tmp_path / "rules.yaml"), ["guideline"])


@pytest.mark.parametrize("asked", ["magic", "detoxify:", "cross-encoder:x"])
def test_a_backend_that_does_not_exist_is_never_passed_over(asked: str) -> None:
    with pytest.raises(UsageError, match="is not a backend"):
        load_suite(Settings(guard_toxicity=asked), ["toxicity"])


def model(folder: Path) -> Path:
    (folder / "sub").mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "sub" / "model.safetensors").write_bytes(b"weights")
    (folder / "README.md").write_text("about it")
    return folder


def test_a_pinned_folder_is_told_with_its_hash_source_and_licence(tmp_path: Path) -> None:
    folder = model(tmp_path / "model")
    folders.pin(folder, "a colleague", "MIT")

    said = folders.check(folder, "model", str(folder)).describe("detoxify")

    assert said["sha256"] == folders.digests_of(folder)["sub/model.safetensors"]
    assert (said["source"], said["licence"], said["pinned"]) == ("a colleague", "MIT", True)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda folder: (folder / "config.json").write_text("{ }"), "config.json is not the file"),
        (lambda folder: (folder / "sub" / "model.safetensors").write_bytes(b"Weights"), "model.safetensors is not the file"),
        (lambda folder: (folder / "config.json").unlink(), "config.json is pinned in tidegate-model.json and not there"),
        (lambda folder: (folder / "code.py").write_text("1"), "code.py is there and not pinned"),
        (lambda folder: (folder / folders.PINS).write_text("[]"), "is not of the form"),
        (lambda folder: (folder / folders.PINS).write_text("{"), "cannot be read"),
    ],
)
def test_a_folder_that_differs_from_its_pins_is_refused(change: object, problem: str, tmp_path: Path) -> None:
    folder = model(tmp_path / "model")
    folders.pin(folder)
    change(folder)  # type: ignore[operator]

    with pytest.raises(ModelUnavailable, match=problem):
        folders.check(folder, "model", str(folder))


def test_what_no_library_reads_may_come_and_go(tmp_path: Path) -> None:
    folder = model(tmp_path / "model")
    folders.pin(folder)
    (folder / "README.md").write_text("more about it")
    (folder / "notes.pdf").write_bytes(b"")

    assert folders.check(folder, "model", str(folder)).pinned


def test_a_blob_of_the_hubs_cache_must_be_what_its_name_says(tmp_path: Path) -> None:
    folder = tmp_path / "snapshot"
    folder.mkdir()
    blob = tmp_path / ("ab" * 32)
    blob.write_bytes(b"weights")
    (folder / "model.safetensors").symlink_to(blob)

    with pytest.raises(ModelUnavailable, match="hub's cache says it is"):
        folders.check(folder, "model", "cache")


@given(st.text(alphabet="ab .!?\n\t🙂", max_size=400), st.integers(5, 60))
def test_pieces_hold_every_word_once_in_its_place(text: str, most: int) -> None:
    found = pieces(text, most)

    assert all(text[piece.start : piece.end] == piece.text for piece in found)
    assert all(0 < len(piece.text) <= most for piece in found)
    assert all(first.end <= second.start for first, second in pairwise(found))
    assert "".join("".join(piece.text for piece in found).split()) == "".join(text.split())


@given(st.lists(st.text(max_size=20), max_size=40), st.integers(1, 7))
def test_batches_of_like_length_change_no_order(texts: list[str], size: int) -> None:
    asked: list[int] = []

    def judge(some: object) -> list[int]:
        asked.append(len(some))  # type: ignore[arg-type]
        return [len(piece.text) for piece in some]  # type: ignore[attr-defined]

    found = in_batches([Piece(0, text) for text in texts], judge, size)

    assert found == [len(text) for text in texts]
    assert all(count <= size for count in asked)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ({"prompt": 5}, "prompt: Input should be a valid string"),
        ({"context": [None]}, "context: Input should be a valid string"),
        ({"context": ["x"] * 257}, "context: Value should have at most 256 items"),
        ({"id": 1.5}, "id: Input should be"),
        ({"known": {"Rosa": 1}}, "known: Input should be a valid string"),
    ],
)
def test_a_line_that_is_wrong_is_told_by_field_and_never_by_content(line: dict[str, object], problem: str) -> None:
    with pytest.raises(InvalidEvent) as raised:
        read_line(json.dumps(line).encode())

    assert problem in raised.value.reason
    assert "Rosa" not in raised.value.reason


def test_half_a_surrogate_pair_is_no_text() -> None:
    with pytest.raises(InvalidEvent, match="not valid JSON"):
        read_line(b'{"prompt": "\\ud800"}')
