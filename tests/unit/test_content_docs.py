"""Every block of docs/content.md runs, in order, against a data folder, prints what stands below it and leaves it sealed."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from tidegate.producers.key_source import FolderKeys
from tidegate.producers.keyring import Key
from tidegate.producers.sealing import opened, unseal
from tidegate.producers.sqlite_log import SqliteLog
from tidegate.schemas.content import Texts, decode_content
from tidegate.schemas.settings import Settings
from tidegate.schemas.topics import CONTENT

PAGE: Final = (Path(__file__).parents[2] / "docs" / "content.md").read_text()
# Python, and the output that follows it, if there is one.
BLOCK: Final = re.compile(r"```python\n(.*?)```(?:\n\n```text\n(.*?)```)?", re.DOTALL)


def ask(messages: list[dict[str, str]]) -> dict[str, Any]:
    said = [{"type": "text", "text": "Only with a check of potassium."}]
    return {"type": "message", "content": said, "usage": {"input_tokens": 40, "output_tokens": 9}}


def stream() -> Iterator[dict[str, Any]]:
    for piece in ("Fine", ", thanks."):
        yield {"choices": [{"delta": {"content": piece}}]}


def test_every_block_runs_and_what_it_hands_over_is_sealed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDEGATE_URL", str(tmp_path))
    names: dict[str, Any] = {"ask": ask, "stream": stream}

    for code, expected in BLOCK.findall(PAGE):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(code, "docs/content.md", "exec"), names)
        assert printed.getvalue() == expected
    names["tide"].close()

    with SqliteLog(tmp_path) as log:
        lines = [line for record in log.read(CONTENT.name, 0, 0) for line in record.value.split(b"\n")]
    assert [unseal(decode_content(line), FolderKeys(tmp_path)) for line in lines] == [
        Texts(
            prompt="May she take ibuprofen with lisinopril?",
            response="Only with a check of potassium.",
            context=["Ibuprofen with an ACE inhibitor: check potassium."],
        ),
        Texts(prompt="How are you?", response="Fine, thanks."),
        Texts(prompt="How are you?", response="Fine, thanks."),
    ]


def test_every_setting_that_is_named_is_one() -> None:
    named = {name.lower() for name in re.findall(r"TIDEGATE_([A-Z_]+)", PAGE)}

    assert named
    assert named <= set(Settings.model_fields)


def test_the_record_that_is_shown_is_one_and_the_form_that_is_told_opens() -> None:
    (shown,) = re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)
    key, nonce = Key.made("harbor-health"), os.urandom(12)
    texts = json.dumps({"prompt": "p", "response": "r", "context": ["c"]}).encode()
    by_hand = base64.b64encode(nonce + AESGCM(key.secret).encrypt(nonce, zlib.compress(texts), b"c-17")).decode()

    record = decode_content(shown.encode())

    assert opened(by_hand, record.call_id, key) == Texts(prompt="p", response="r", context=["c"])
