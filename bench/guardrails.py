"""The guardrails: what they cost the meter beside them, how many texts they judge, and where their time goes.

    beside    the meter's events a second, calls in the log → priced rows, while the guardrails have more than they can judge
              against  the same log and the same node with the guardrails off
    apart     the same with the node, on both sides, bound to one core, and what scores to the others: a free core for scoring
    alone     texts a second of one scoring process, all detectors, from sealed to redacted; and what it has in memory

Each side is a spawned process on a fresh folder, a whole pipeline with its threads. Texts are the simulated clinics', each
made another by its number, so that none is known from before.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import orjson
from tidegate.processors.embedded.pipeline import Pipeline
from tidegate.processors.guardrails.jobs import Job, Judged
from tidegate.processors.guardrails.pool import Pool
from tidegate.producers.key_source import FolderKeys
from tidegate.producers.keyring import Key
from tidegate.producers.local_log import LocalLog
from tidegate.producers.sealing import seal
from tidegate.producers.simulate_texts import texts_of
from tidegate.schemas.content import CALL_FIELDS, Texts
from tidegate.schemas.envelope import CONTENT_SCHEMA, Envelope
from tidegate.schemas.settings import Settings

from .apart import apart
from .report import Result, Table
from .rounds import Side, Spread, Tick, take_turns
from .traffic import calls, envelopes, lines

LIBRARIES: Final = ("presidio-analyzer", "spacy", "wordllama", "numpy", "cryptography")
_ENVELOPE_EVENTS: Final = 100
_KEY: Final = Key("k-bench", None, b"bench" * 6 + b"!!", datetime(2026, 1, 1, tzinfo=UTC))
# No budget: the guardrails take all that they can get.
_UNBOUNDED: Final = 64.0
_WITHIN_S: Final = 600.0


def run(quick: bool, tick: Tick) -> Result:
    """The tables of this bench."""
    events, contents, judged, rounds = (3_000, 1_500, 300, 1) if quick else (30_000, 12_000, 3_000, 5)
    with tempfile.TemporaryDirectory(prefix="tidegate-bench-") as scratch:
        numbers = iter(range(1_000_000))

        def beside(guard: bool, bound: bool) -> float:
            return events / apart(metered_s, Path(scratch) / f"data-{next(numbers)}", events, contents, guard, bound)

        sides: dict[str, Side] = {"saturated": lambda: beside(True, False), "off": lambda: beside(False, False)}
        if len(os.sched_getaffinity(0)) > 1:
            sides |= {"saturated, apart": lambda: beside(True, True), "off, apart": lambda: beside(False, True)}
        ended = take_turns(sides, rounds, tick)
    tick("alone")
    alone = apart(judge_alone, judged)
    return Result(
        (_beside(ended), _alone(alone), _where(alone)),
        f"{rounds} rounds after a warm-up, each {events:,} calls and {contents:,} contents a side; {judged:,} calls alone",
        (
            "One scoring process, at low priority. Where the machine has fewer cores than meter, sink and scoring together keep"
            " busy, the ratio of the first line says how the system shares them out. In the second the node has one core, with"
            " guardrails and without, and what scores has the others: what is missing there, the guardrails hold up.",
            "A text is a prompt, an answer or a chunk of context; a call has some three.",
        ),
        LIBRARIES,
    )


def content_lines(count: int, key: Key) -> list[bytes]:
    """Sealed content events of simulated calls, no two with the same texts."""
    found: list[bytes] = []
    for number, (call, texts) in enumerate(_said(count)):
        event = {name: value for name in CALL_FIELDS if (value := call.get(name)) is not None}
        call_id = f"content-{number}"
        event |= {"event": "content", "call_id": call_id, "started_at": call["started_at"], "mode": "sealed"}
        found.append(orjson.dumps(event | {"key_id": key.key_id, "sealed": seal(texts, call_id, key)}))
    return found


def _said(count: int) -> list[tuple[Mapping[str, Any], Texts]]:
    """(call, texts) of as many simulated calls that say something."""
    found: list[tuple[Mapping[str, Any], Texts]] = []
    for call in calls(count * 3):
        said = texts_of(call)
        if said is None:
            continue
        prompt = f"{said.get('prompt') or ''} (question {len(found)})"
        texts = Texts(prompt=prompt, response=said.get("response"), context=list(said.get("context") or ()))
        found.append((call, texts))
        if len(found) == count:
            return found
    raise ValueError(f"of {count * 3} simulated calls only {len(found)} say anything")


def metered_s(folder: Path, events: int, contents: int, guard: bool, bound: bool) -> float:
    """Seconds until a meter has applied `events` calls, with as much content in the log. In a process of its own, which is
    `bound` to one core, and what it starts to the others."""
    core, *others = sorted(os.sched_getaffinity(0))
    if bound:
        os.sched_setaffinity(0, {core})
    settings = Settings(data_dir=folder, guard=guard, guard_cpu_share=_UNBOUNDED)
    pipeline = Pipeline(folder, settings)
    log = LocalLog(folder, partitions=1)
    sealed = content_lines(contents, FolderKeys(folder).sealing(None))
    for first in range(0, contents, 20):
        log.append([Envelope.of("bench-content", first, sealed[first : first + 20], schema=CONTENT_SCHEMA)])
    waiting = envelopes(lines(calls(events)), _ENVELOPE_EVENTS)
    pipeline.start()
    deadline = time.monotonic() + _WITHIN_S
    while guard and not pipeline.guardrails.status()["outcomes"]:
        if time.monotonic() > deadline:
            raise RuntimeError(f"the guardrails judge nothing: {pipeline.guardrails.status()['why']}")
        time.sleep(0.05)
    scoring = _children()
    if bound:
        for pid in scoring:
            os.sched_setaffinity(pid, others)
    begun = time.perf_counter()
    for envelope in waiting:
        log.append([envelope])
    while pipeline.meter.totals().get("responses", 0) < events:
        time.sleep(0.005)
    took_s = time.perf_counter() - begun
    left = pipeline.lags()[1]
    if _children() != scoring:
        raise RuntimeError("a scoring process was replaced on the way, and its cores with it")
    pipeline.stop()
    pipeline.close()
    log.close()
    if guard and not left:
        raise RuntimeError("the guardrails had judged everything before the meter was done: give them more")
    return took_s


def _children() -> list[int]:
    """The processes that this one has started, in any of its threads."""
    tasks = Path("/proc/self/task").glob("*/children")
    return sorted(int(pid) for children in tasks for pid in children.read_text().split())


def judge_alone(count: int) -> dict[str, Any]:
    """What one scoring process does with `count` calls. In a process of its own."""
    jobs = [
        Job(
            number=number,
            call_id=f"call-{number}",
            sealed=seal(texts, f"call-{number}", _KEY),
            key_id=_KEY.key_id,
            key=_KEY.secret,
            known={name: call[name] for name in ("prompt_name", "prompt_version") if call.get(name)},
        )
        for number, (call, texts) in enumerate(_said(count + 1))
    ]
    pool = Pool(Settings(guard_cpu_share=_UNBOUNDED))
    pool.fingerprint_key = os.urandom(32)
    # The first one waits until everything is loaded.
    pool.submit(jobs[:1])
    _collect(pool, 1)
    loaded_mb, before, before_cpu_s = pool.resident_mb, dict(pool.account.seconds), pool.account.cpu_s
    begun = time.perf_counter()
    pool.submit(jobs[1:])
    found = _collect(pool, count)
    took_s = time.perf_counter() - begun
    seconds = {name: took - before.get(name, 0.0) for name, took in pool.account.seconds.items()}
    resident_mb, cpu_s = pool.resident_mb, pool.account.cpu_s - before_cpu_s
    pool.close()
    if any(judged.outcome != "scored" for judged in found):
        raise RuntimeError(f"not every text could be judged: {[judged.failed for judged in found if judged.failed][:1]}")
    return {
        "calls": count,
        "texts": sum(judged.texts for judged in found),
        "took_s": took_s,
        "cpu_s": cpu_s,
        "seconds": seconds,
        "loaded_mb": loaded_mb,
        "resident_mb": resident_mb,
    }


def _collect(pool: Pool, count: int) -> list[Judged]:
    found: list[Judged] = []
    deadline = time.monotonic() + _WITHIN_S
    while len(found) < count:
        found += pool.collect(1.0)
        if time.monotonic() > deadline:
            raise RuntimeError(f"the processes judge nothing: {pool.trouble}")
    return found


def _beside(found: dict[str, Spread]) -> Table:
    rows = []
    for what, mark in (("all share the cores", ""), ("a core for the node, others for scoring", ", apart")):
        if (saturated := found.get(f"saturated{mark}")) and (off := found.get(f"off{mark}")):
            rows.append((what, f"{saturated:,.0f}", f"{off:,.0f}", f"{saturated.per(off):.2f}"))
    return Table(
        "The meter, log to log, events a second.",
        ("", "guardrails saturated", "guardrails off", "ratio"),
        tuple(rows),
    )


def _alone(found: Mapping[str, Any]) -> Table:
    return Table(
        "One scoring process, all detectors, sealed to redacted.",
        ("", "a second", "memory when loaded", "memory after"),
        (
            (
                "texts",
                f"{found['texts'] / found['took_s']:,.0f}",
                f"{found['loaded_mb']:.0f} MB",
                f"{found['resident_mb']:.0f} MB",
            ),
            ("calls", f"{found['calls'] / found['took_s']:,.0f}", "", ""),
            ("texts, of processor time", f"{found['texts'] / found['cpu_s']:,.0f}", "", ""),
        ),
    )


def _where(found: Mapping[str, Any]) -> Table:
    seconds = dict(sorted(found["seconds"].items(), key=lambda one: -one[1]))
    seconds["opening, redacting"] = max(found["cpu_s"] - sum(seconds.values()), 0.0)
    return Table(
        "Where its processor time goes.",
        ("", "µs a text", "share"),
        tuple(
            (name, f"{took_s / found['texts'] * 1e6:,.0f}", f"{took_s / found['cpu_s']:.0%}")
            for name, took_s in seconds.items()
        ),
    )
