"""Canaries by setting: where they are told from, whom they are for, and that they are told to nobody."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from pydantic import SecretStr
from tidegate.processors.guardrails.encoder import OfflineEncoder
from tidegate.processors.guardrails.injection.canaries import Canaries
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
