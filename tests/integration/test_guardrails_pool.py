"""The pool over real processes: killed, hung, grown and broken ones lose no text, repeat none, and blame the right one."""

from __future__ import annotations

import errno
import os
import random
import select
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from tidegate.processors.guardrails.jobs import Job, Judged
from tidegate.processors.guardrails.pool import Pool
from tidegate.producers.keyring import Key
from tidegate.producers.sealing import seal
from tidegate.schemas.content import Texts
from tidegate.schemas.settings import Settings

KEY = Key("k-1", None, b"k" * 32, datetime(2026, 1, 1, tzinfo=UTC))


def job(number: int, prompt: str, **texts: Any) -> Job:
    call_id = f"call-{number}"
    sealed = seal(Texts(prompt=prompt, **texts), call_id, KEY)
    return Job(number=number, call_id=call_id, sealed=sealed, key_id=KEY.key_id, key=KEY.secret)


class Pools:
    """Makes pools that end with the test."""

    def __init__(self) -> None:
        self.made: list[Pool] = []

    def __call__(self, loader: str = "names", clock: Callable[[], float] = time.monotonic, **settings: Any) -> Pool:
        pool = Pool(Settings(guard_timeout_s=20, **settings), loader=f"guard_suites:{loader}", clock=clock)
        pool.fingerprint_key = b"f" * 32
        self.made.append(pool)
        return pool


@pytest.fixture
def pools() -> Iterator[Pools]:
    made = Pools()
    yield made
    for pool in made.made:
        pool.close()


def collect(pool: Pool, count: int, within_s: float = 60) -> dict[int, Judged]:
    """As many judgements as that; each number once."""
    found: list[Judged] = []
    deadline = time.monotonic() + within_s
    while len(found) < count and time.monotonic() < deadline:
        found += pool.collect(0.2)
    assert sorted({judged.number for judged in found}) == sorted(judged.number for judged in found)
    return {judged.number: judged for judged in found}


def outcomes(found: dict[int, Judged]) -> dict[int, str]:
    return {number: judged.outcome for number, judged in sorted(found.items())}


def one_by_one(pool: Pool, jobs: Sequence[Job]) -> dict[int, Judged]:
    found: dict[int, Judged] = {}
    for one in jobs:
        pool.submit([one])
        found |= collect(pool, 1)
    return found


class Clock:
    """Of a caller that may be away."""

    def __init__(self) -> None:
        self.away_s = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.away_s


def has_word(pool: Pool, within_s: float) -> bool:
    """Whether the process has said something that nobody has read."""
    line = pool._slots[0].line
    return line is not None and bool(select.select([line], [], [], within_s)[0])


def test_texts_are_judged_and_come_back_redacted(pools: Pools) -> None:
    pool = pools()

    pool.submit([job(0, "How is Zqann?", response="Zqann is well.", context=["Of Zqann and Zqbob."]), job(1, "Hello.")])
    found = collect(pool, 2)

    redacted = found[0].redacted
    assert redacted is not None
    assert (redacted.prompt, redacted.response) == ("How is <PERSON>?", "<PERSON> is well.")
    assert redacted.context == ["Of <PERSON> and <PERSON>."]
    prints = [(one.where, one.start, one.fingerprint) for one in found[0].findings]
    assert prints[0][2] == prints[1][2] != prints[3][2]
    assert found[0].detectors == {"phi": "names-1", "toxicity": "tally-1"}
    assert found[1].scores == {"prompt.toxicity": 1.0}


def test_the_same_texts_are_judged_once(pools: Pools) -> None:
    pool = pools()

    found = one_by_one(pool, [job(0, "How is Zqann?"), job(1, "How is Zqann?"), job(2, "How is Zqbob?")])

    assert [found[number].cached for number in range(3)] == [False, True, False]
    assert found[0].findings == found[1].findings
    assert pool.account.cached == 1


def test_who_has_answered_is_not_late_however_long_the_caller_was_away(pools: Pools) -> None:
    clock = Clock()
    pool = pools(clock=clock)
    one_by_one(pool, [job(0, "fine 0")])

    pool.submit([job(1, "fine 1")])
    pool.collect(0.0)
    answered = has_word(pool, 20)
    clock.away_s = 100
    found = collect(pool, 1)

    assert answered
    assert outcomes(found) == {1: "scored"}
    assert pool.account.restarts == {}


def test_an_answer_that_is_too_long_to_be_waiting_whole_is_not_late_either(pools: Pools) -> None:
    clock = Clock()
    pool = pools(clock=clock)
    one_by_one(pool, [job(0, "fine 0")])

    pool.submit([job(1, "fine " * 700_000)])
    while pool.collect(0.01) or pool._slots[0].outbox:
        pass
    answered = has_word(pool, 20)
    clock.away_s = 100
    found = collect(pool, 1)

    assert answered
    assert outcomes(found) == {1: "scored"}
    assert pool.account.restarts == {}


def test_the_next_batch_is_with_its_process_before_the_caller_goes(pools: Pools) -> None:
    pool = pools(guard_batch=1)

    pool.submit([job(0, "fine 0"), job(1, "fine 1")])
    first = collect(pool, 1)

    assert outcomes(first) == {0: "scored"}
    assert has_word(pool, 10)


def test_a_batch_that_is_too_long_to_be_sent_at_once_has_its_time_from_when_it_is_sent(pools: Pools) -> None:
    clock = Clock()
    pool = pools(clock=clock)
    one_by_one(pool, [job(0, "fine 0")])

    noise = random.Random(6).randbytes(280_000).hex()
    pool.submit([job(number, noise) for number in range(1, 9)])
    pool.collect(0.0)
    unsent = len(pool._slots[0].outbox)
    # The process has read what there was, and waits for the rest.
    select.select([], [pool._slots[0].line], [], 20)
    clock.away_s = 100
    found = collect(pool, 8)

    assert unsent
    assert outcomes(found) == dict.fromkeys(range(1, 9), "scored")
    assert pool.account.restarts == {}


def test_a_process_that_hangs_is_charged_for_the_time_that_it_had(pools: Pools) -> None:
    clock = Clock()
    pool = pools(clock=clock)
    one_by_one(pool, [job(0, "fine 0")])

    pool.submit([job(1, "HANG")])
    pool.collect(0.1)
    clock.away_s = 500
    pool.collect(0.0)

    assert pool.account.restarts == {"timeout": 1}
    assert 1 < pool.account.cpu_s <= 20


# What hangs is waited for several times; and on a busy machine a fine text must not take as long.
@pytest.mark.parametrize(("word", "timeout_s"), [("KILL", 20.0), ("HANG", 3.0)])
def test_the_one_text_that_ends_a_process_is_found_and_all_others_are_judged(pools: Pools, word: str, timeout_s: float) -> None:
    pool = pools(guard_batch=8)
    pool._settings = pool._settings.model_copy(update={"guard_timeout_s": timeout_s})

    pool.submit([job(number, f"{word if number == 5 else 'fine'} {number}") for number in range(8)])
    found = collect(pool, 8)

    assert outcomes(found) == {number: "quarantined" if number == 5 else "scored" for number in range(8)}
    assert found[5].failed == {"worker": "crash" if word == "KILL" else "timeout"}
    assert found[5].redacted is None


def test_a_text_that_was_merely_there_when_a_process_died_is_judged_again(pools: Pools, tmp_path: Path) -> None:
    pool = pools()

    pool.submit([job(0, f"ONCE {tmp_path / 'flag'}")])
    found = collect(pool, 1)

    assert outcomes(found) == {0: "scored"}
    assert pool.account.restarts == {"crash": 1}


def test_a_process_that_somebody_kills_is_replaced_and_nothing_is_lost(pools: Pools) -> None:
    pool = pools(guard_workers=2, guard_batch=4)
    pool.submit([job(number, f"text {number}") for number in range(4)])
    found = collect(pool, 4)

    for pid in pool.pids:
        os.kill(pid, signal.SIGKILL)
    pool.submit([job(number, f"text {number}") for number in range(4, 12)])
    found |= collect(pool, 8)

    assert outcomes(found) == dict.fromkeys(range(12), "scored")


def test_a_detector_that_raises_costs_that_sample_its_verdict_and_no_process(pools: Pools) -> None:
    pool = pools()

    pool.submit([job(0, "RAISE Zqann"), job(1, "fine Zqann")])
    found = collect(pool, 2)

    assert outcomes(found) == {0: "partial", 1: "scored"}
    assert found[0].failed == {"phi": "ValueError"}
    assert found[0].redacted is None
    assert found[0].scores == {"prompt.toxicity": 1.0}
    assert pool.account.restarts == {}


def test_a_process_that_has_grown_too_large_is_replaced_after_its_batch(pools: Pools) -> None:
    pool = pools(guard_memory_mb=256)

    found = one_by_one(pool, [job(0, "GROW 300"), job(1, "fine")])

    assert outcomes(found) == {0: "scored", 1: "scored"}
    assert pool.account.restarts == {"memory": 1}


def test_a_text_that_wants_more_memory_than_there_is_for_one_fails_alone(pools: Pools) -> None:
    pool = pools(guard_memory_mb=256)

    pool.submit([job(0, "GROW 4000"), job(1, "fine")])
    found = collect(pool, 2)

    assert outcomes(found) == {0: "partial", 1: "scored"}
    assert found[0].failed == {"phi": "MemoryError"}


def test_a_record_that_was_tampered_with_is_unreadable_and_the_rest_is_judged(pools: Pools) -> None:
    pool = pools()
    sealed = job(0, "fine")
    other = job(1, "fine")

    pool.submit([Job(number=0, call_id="call-9", sealed=sealed.sealed, key_id="k-1", key=KEY.secret), other])
    found = collect(pool, 2)

    assert outcomes(found) == {0: "unreadable", 1: "scored"}
    assert found[0].failed == {"content": "tampered"}


def test_a_process_that_cannot_be_started_is_tried_again_and_no_text_is_lost(
    pools: Pools, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    pool = pools(clock=clock)
    start, refused = subprocess.Popen, iter([OSError(errno.EAGAIN, "Resource temporarily unavailable")] * 2)

    def scarce(*arguments: Any, **options: Any) -> subprocess.Popen[bytes]:
        if (error := next(refused, None)) is not None:
            raise error
        return start(*arguments, **options)

    monkeypatch.setattr(subprocess, "Popen", scarce)
    pool.submit([job(0, "fine")])
    told = []
    for _ in range(2):
        pool.collect(0.0)
        told.append((pool.trouble, pool.waiting))
        clock.away_s += 100
    found = collect(pool, 1)

    assert told == [("a scoring process cannot be started (Resource temporarily unavailable)", 1)] * 2
    assert outcomes(found) == {0: "scored"}
    assert pool.trouble is None
    assert pool.account.quarantined == 0


@pytest.mark.parametrize(("loader", "told"), [("refusing", "install what is missing"), ("broken", "while it was loading")])
def test_no_text_is_blamed_when_a_suite_cannot_be_loaded(pools: Pools, loader: str, told: str) -> None:
    pool = pools(loader)

    pool.submit([job(0, "fine")])
    deadline = time.monotonic() + 30
    while pool.trouble is None and time.monotonic() < deadline:
        assert pool.collect(0.1) == []

    assert told in (pool.trouble or "")
    assert pool.waiting == 1
    assert pool.account.quarantined == 0


def test_a_model_that_something_else_stands_in_for_is_told(pools: Pools) -> None:
    pool = pools("standing_in")

    pool.submit([job(0, "fine")])
    collect(pool, 1)

    assert pool.troubles == ["the model is not there"]


def test_a_paused_pool_gives_nothing_out(pools: Pools) -> None:
    pool = pools()
    pool.paused = True

    pool.submit([job(0, "fine")])
    before = pool.collect(0.2)
    pool.paused = False
    after = collect(pool, 1)

    assert before == []
    assert outcomes(after) == {0: "scored"}


def test_what_is_urgent_goes_first(pools: Pools) -> None:
    pool = pools(guard_batch=1)
    pool.paused = True
    pool.submit([job(0, "fine 0"), job(1, "fine 1")], priority=1)
    pool.submit([job(2, "fine 2")], priority=0)
    pool.paused = False

    order = [number for _ in range(3) for number in collect(pool, 1)]

    assert order[0] == 2


def test_processes_end_with_the_pool(pools: Pools) -> None:
    pool = pools(guard_workers=2, guard_batch=1)
    pool.submit([job(number, f"text {number}") for number in range(6)])
    collect(pool, 6)
    pids = pool.pids

    pool.close()

    assert pids
    assert [pid for pid in pids if os.path.exists(f"/proc/{pid}")] == []


def test_a_scoring_process_leaves_no_core_and_lets_nobody_look_into_it(pools: Pools) -> None:
    pool = pools("hardened")

    pool.submit([job(0, "fine")])
    collect(pool, 1)

    assert pool.detectors == {"phi": "core-0-dumpable-0"}


def test_a_scoring_process_is_told_no_secret(pools: Pools, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TIDEGATE_TOKEN", "secret")
    pool = pools("indiscreet", keys="secret", key_file=tmp_path, kafka_password="secret", store="clickhouse://u:secret@h/d")

    pool.submit([job(0, "fine")])
    collect(pool, 1)

    assert pool.detectors == {"phi": "_"}


def test_models_that_need_more_than_a_process_may_have_are_told_and_blame_no_text(pools: Pools) -> None:
    pool = pools("grown", guard_memory_mb=256)

    pool.submit([job(0, "fine")])
    deadline = time.monotonic() + 30
    while pool.trouble is None and time.monotonic() < deadline:
        pool.collect(0.1)

    assert "raise TIDEGATE_GUARD_MEMORY_MB" in (pool.trouble or "")
    assert pool.waiting == 1
