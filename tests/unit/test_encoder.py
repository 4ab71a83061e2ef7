"""The offline encoder: unit vectors, the same whatever they are embedded with, and only from the files it knows."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tidegate.processors.guardrails.encoder import (
    PIECE_CHARS,
    TOKENIZER,
    WEIGHTS,
    EncoderUnavailable,
    OfflineEncoder,
    installed,
)

ENCODER = OfflineEncoder.load()


def test_every_text_has_a_vector_of_length_one_even_the_empty_one() -> None:
    texts = ["", " \n", "chest pain", "\ud800 half a pair", "x" * 5_000, "dose " * 4_000]

    vectors = ENCODER.encode(texts)

    assert vectors.shape == (len(texts), ENCODER.dimensions)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.text(max_size=60), min_size=1, max_size=6))
def test_a_text_has_the_same_vector_alone_and_in_a_batch(texts: list[str]) -> None:
    together = ENCODER.encode(texts)

    alone = np.stack([ENCODER.encode([text])[0] for text in texts])

    np.testing.assert_array_equal(together, alone)


def test_what_means_the_same_is_nearer_than_what_does_not() -> None:
    question, answer, other = ENCODER.encode(
        ["What is the usual dose of amoxicillin?", "Amoxicillin is usually given at 500 mg.", "The train leaves at noon."]
    )

    near, far = float(question @ answer), float(question @ other)

    assert near > far + 0.2


def test_cutting_a_long_text_in_pieces_hardly_moves_its_vector() -> None:
    text = "The patient reports chest pain on exertion and denies fever. " * (3 * PIECE_CHARS // 61)

    long, short = ENCODER.encode([text, text[:61]])

    assert float(long @ short) > 0.99


def test_a_table_that_was_changed_is_refused(tmp_path: Path) -> None:
    for name in (WEIGHTS, TOKENIZER):
        (tmp_path / name).parent.mkdir()
        shutil.copy(installed() / name, tmp_path / name)
    with (tmp_path / WEIGHTS).open("r+b") as file:
        file.seek(10_000)
        file.write(b"\xff")

    with pytest.raises(EncoderUnavailable, match="SHA-256 differs"):
        OfflineEncoder.load(tmp_path)


def test_a_folder_without_the_table_is_named_as_such(tmp_path: Path) -> None:
    with pytest.raises(EncoderUnavailable, match="is not where the encoder looks"):
        OfflineEncoder.load(tmp_path)


def test_loading_writes_no_cache_and_opens_no_socket(tmp_path: Path) -> None:
    code = (
        "import socket, sys\n"
        "def refuse(*a, **k): raise AssertionError('a socket was opened')\n"
        "socket.socket.connect = socket.getaddrinfo = refuse\n"
        "from tidegate.processors.guardrails.encoder import OfflineEncoder\n"
        "OfflineEncoder.load().encode(['a text'])\n"
        "assert 'requests' not in sys.modules and 'wordllama' not in sys.modules\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "HOME": str(tmp_path)}, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr
    assert list(tmp_path.iterdir()) == []
