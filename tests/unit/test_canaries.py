"""Canaries by setting: where they are told from, whom they are for, and that they are told to nobody."""

from __future__ import annotations

import base64
import codecs
import json
import re
from pathlib import Path

import pytest
from pydantic import SecretStr
from tidegate.processors.guardrails.encoder import OfflineEncoder
from tidegate.processors.guardrails.injection.canaries import Canaries
from tidegate.processors.guardrails.injection.canary_search import spans_of
from tidegate.processors.guardrails.injection.detector import InjectionDetector
from tidegate.processors.guardrails.ports import Batch, Sample
from tidegate.schemas.errors import UsageError
from tidegate.schemas.settings import Settings

BIRD = "heron-7731-blue"
OTHER = "plover-0042-grey"


def by_scope(**lists: list[str]) -> Canaries:
    text = json.dumps({name.replace("_is_", "="): values for name, values in lists.items()})
    return Canaries.of_settings(Settings(guard_canaries=SecretStr(text)))


def test_a_list_counts_for_every_call_and_a_scope_for_its_own() -> None:
    canaries = Canaries.of_settings(
        Settings(guard_canaries=SecretStr(json.dumps({"*": [BIRD], "tenant=harbor-health": [OTHER]})))
    )

    found = [canaries.of_call(known) for known in ({}, {"tenant": "harbor-health"}, {"tenant": "other"})]

    assert found == [(BIRD,), (BIRD, OTHER), (BIRD,)]


@pytest.mark.parametrize(
    "text", [f"{BIRD}\n\n{OTHER}\n", json.dumps([BIRD, OTHER]), json.dumps({"*": [BIRD, OTHER]})], ids=range(3)
)
def test_a_file_has_one_a_line_or_json(tmp_path: Path, text: str) -> None:
    file = tmp_path / "canaries"
    file.write_text(text)

    canaries = Canaries.of_settings(Settings(guard_canary_file=file))

    assert canaries.of_call({}) == (BIRD, OTHER)


@pytest.mark.parametrize("text", [f"{BIRD}\n{OTHER}\n", json.dumps([BIRD, OTHER])], ids=["lines", "JSON"])
def test_a_file_may_begin_with_a_byte_order_mark(tmp_path: Path, text: str) -> None:
    file = tmp_path / "canaries"
    file.write_text(text, "utf-8-sig")

    canaries = Canaries.of_settings(Settings(guard_canary_file=file))

    assert canaries.of_call({}) == (BIRD, OTHER)


def test_both_settings_count_together(tmp_path: Path) -> None:
    file = tmp_path / "canaries"
    file.write_text(BIRD)

    canaries = Canaries.of_settings(Settings(guard_canary_file=file, guard_canaries=SecretStr(json.dumps([OTHER]))))

    assert set(canaries.of_call({})) == {BIRD, OTHER}


@pytest.mark.parametrize(
    "text",
    [
        f'["{BIRD}"',
        f'{{"tenant": ["{BIRD}"]}}' + "x",
        json.dumps({f"nobody={BIRD}": [BIRD]}),
        json.dumps({"*": BIRD}),
        json.dumps([BIRD, "short"]),
        json.dumps([BIRD, 7]),
        json.dumps([f"{BIRD}\n{OTHER}"]),
        f"{BIRD}\nbird\n",
    ],
    ids=range(8),
)
def test_what_is_wrong_is_said_without_saying_a_canary(text: str) -> None:
    with pytest.raises(UsageError, match="TIDEGATE_GUARD_CANARIES") as caught:
        Canaries.of_settings(Settings(guard_canaries=SecretStr(text)))

    told = f"{caught.value!r} {caught.value}"
    assert not re.search("heron|plover|bird", told)
    assert caught.value.__cause__ is None


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nowhere"):
        Canaries.of_settings(Settings(guard_canary_file=tmp_path / "nowhere"))


def test_nothing_shows_a_canary() -> None:
    settings = Settings(guard_canaries=SecretStr(json.dumps([BIRD])))

    shown = f"{settings!r} {settings} {settings.model_dump_json()} {Canaries.of_settings(settings)!r}"

    assert BIRD not in shown


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


WRITTEN = {
    "plainly": f"It is {BIRD}.",
    "in capitals": BIRD.upper(),
    "spaced out": "It is " + " ".join(BIRD),
    "cut up": "heron (7731), blue",
    "a letter a line": "\n".join(BIRD),
    "dotted": ".".join(BIRD),
    "backwards": BIRD[::-1],
    "backwards and spaced out": " ".join(BIRD[::-1]),
    "shifted by 13": codecs.encode(BIRD, "rot13"),
    "hex": BIRD.encode().hex(),
    "hex by bytes": BIRD.encode().hex(" "),
    "escaped": "".join(f"\\x{byte:02X}" for byte in BIRD.encode()),
    "as a list of numbers": ", ".join(f"0x{byte:02x}" for byte in BIRD.encode()),
    "base64": encoded(BIRD),
    "base64 after one byte": encoded(f"x{BIRD} and more"),
    "base64 after two bytes": encoded(f"xy{BIRD}, 0x7F31"),
    "base64 for addresses": base64.urlsafe_b64encode(f"??>{BIRD}".encode()).decode(),
    "base64 in lines": "\n".join(encoded(BIRD)[start : start + 6] for start in range(0, 20, 6)),
    "with zero-width characters": "\u200b".join(BIRD),
}


@pytest.mark.parametrize("text", WRITTEN.values(), ids=WRITTEN)
def test_a_canary_is_found_in_whichever_form_it_was_asked_for(text: str) -> None:
    before, after = "Sure. ", " Anything else?"

    ((start, end),) = spans_of(before + text + after, [OTHER, BIRD])

    assert len(before) <= start < end <= len(before + text)


@pytest.mark.parametrize(
    "text", ["", "A heron is blue.", "7731", "Nothing of that kind.", encoded("Nothing of that kind.")], ids=range(5)
)
def test_an_answer_without_a_canary_holds_none(text: str) -> None:
    assert spans_of(text, [BIRD, "see note"]) == []


def test_words_that_only_stand_side_by_side_are_no_short_canary() -> None:
    assert spans_of("We will see, not each day.", ["see-not"]) == []


def test_an_answer_leaks_only_what_is_a_canary_for_its_call() -> None:
    canaries = by_scope(tenant_is_harbor=[BIRD], service_is_triage=[OTHER])
    detector = InjectionDetector.load(OfflineEncoder.load(), canaries)
    known = [{"tenant": "harbor"}, {"tenant": "harbor", "service": "triage"}, {"tenant": "other"}]
    samples = [Sample(str(place), response=f"{BIRD} and {OTHER}", known=each) for place, each in enumerate(known)]

    verdicts = detector.assess(Batch(samples))

    assert [[finding.type for finding in verdict.findings] for verdict in verdicts] == [
        ["CANARY_LEAK"],
        ["CANARY_LEAK", "CANARY_LEAK"],
        [],
    ]
