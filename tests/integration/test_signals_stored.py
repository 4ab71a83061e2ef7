"""What policies say, in the store: each change, not each word; and each once, however often it is written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
from policing import policy, policy_set
from support import NOW_S, envelope, response
from tidegate.processors.embedded.engine import MeterEngine
from tidegate.processors.embedded.policies_engine import PoliciesEngine
from tidegate.processors.embedded.sink import Sink
from tidegate.processors.policies import KEPT_EVERY_S
from tidegate.processors.signal_rows import Kept, signal_records
from tidegate.producers.sqlite_log import SqliteLog
from tidegate.schemas.policy import PolicySet
from tidegate.schemas.settings import Settings
from tidegate.schemas.signal import SIGNAL_PREFIX, Signal, decode_signal
from tidegate.schemas.topics import CALLS, SIGNALS
from tidegate.sinks.clickhouse import Store

COST = 3_500_000
POLICIES = policy_set(
    policy("rate", window={"rolling": "1m"}, limit=4, warn_at=[0.5]),
    policy("spend", scope=(), measure="cost_usd", limit="0.02", window={"rolling": "30m"}),
)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(path=tmp_path / "store") as store:
        store.migrate()
        yield store


class Node:
    """Meter, policies and sink of a folder, at a time that the test sets. `said` is every word that gates were told."""

    def __init__(self, folder: Path, policies: PolicySet = POLICIES) -> None:
        self.now = float(NOW_S)
        self.folder = folder
        self.seq = 0
        self.said: dict[tuple[str, str, int], Signal] = {}
        self.start(policies)

    def start(self, policies: PolicySet) -> None:
        self.meter = MeterEngine(
            self.folder, Settings(fsync="normal"), policies=policies, clock_ms=lambda: int(self.now * 1_000)
        )
        self.policies = PoliciesEngine(self.meter.log, policies, self.meter.counted, clock=lambda: self.now)

    def call(self, at: float, count: int, tenant: str = "harbor") -> None:
        self.now = at
        started = datetime.fromtimestamp(at, UTC).isoformat()
        fields = {"tenant": tenant, "provider_name": "openai", "started_at": started}
        events = [response(f"call-{self.seq + n}", **fields) for n in range(count)]
        sent = envelope("producer", self.seq, events)
        self.seq += count
        with SqliteLog(self.folder, fsync="normal", clock_ms=lambda: int(at * 1_000)) as log, log.transaction():
            log.append(CALLS.name, 0, [(None, sent.headers(), sent.value)])
        self.run(at)

    def run(self, at: float) -> None:
        self.now = at
        while self.meter.run_once():
            pass
        for after in (0.0, 0.25):
            self.now = at + after
            self.policies.run_once()
            for record in self.meter.log.keyed(SIGNALS.name, 0, SIGNAL_PREFIX):
                if record.value:
                    signal = decode_signal(record.value)
                    self.said[signal.policy, str(signal.scope), signal.sequence] = signal

    def stop(self) -> None:
        self.meter.close()

    def carry(self, store: Store) -> None:
        sink = Sink(self.folder, Settings(fsync="normal"), store)
        try:
            while sink.run_once(drain=True):
                pass
        finally:
            sink.close()


def changes(signals: Sequence[Signal]) -> list[tuple[str, str, str]]:
    """(policy, scope, state) of each word that says another state than the one before it on the same scope."""
    last: dict[tuple[str, str], str] = {}
    found = []
    for signal in sorted(signals, key=lambda one: one.sequence):
        key = signal.policy, str(signal.scope)
        if last.get(key) != signal.state:
            found.append((*key, signal.state))
        last[key] = signal.state
    return sorted(found)


def stored_changes(store: Store) -> list[tuple[str, str, str]]:
    rows = store.query("SELECT policy, scope, state FROM signals FINAL WHERE NOT withdrawn ORDER BY sequence").rows
    last: dict[tuple[str, str], str] = {}
    found = []
    for name, scope, state in rows:
        if last.get((name, str(scope))) != state:
            found.append((name, str(scope), state))
        last[name, str(scope)] = state
    return sorted(found)


def busy(node: Node) -> None:
    """Some ten minutes: up to the limit and down again, with many words that only tell what is left."""
    for place in range(40):
        node.call(NOW_S + 15.0 * place, 1 + (place % 9 == 4) * 4, f"tenant-{place % 2}")


def test_each_change_of_state_is_stored_and_of_the_other_words_one_in_five_minutes(tmp_path: Path, store: Store) -> None:
    node = Node(tmp_path / "data")
    busy(node)
    node.carry(store)
    node.stop()

    said = list(node.said.values())
    assert stored_changes(store) == changes(said)
    assert {state for _, _, state in changes(said)} == {"ok", "warn", "block"}
    [(rows,)] = store.query("SELECT count() FROM signals FINAL").rows
    slots = {(s.policy, str(s.scope), s.at // KEPT_EVERY_S) for s in said}
    steps = len(changes(said))
    assert len(slots) <= rows <= len(slots) + steps
    assert rows < len(said) / 2


def test_a_row_says_what_the_gates_were_told(tmp_path: Path, store: Store) -> None:
    node = Node(tmp_path / "data")
    busy(node)
    node.carry(store)
    node.stop()

    rows = store.query("SELECT * FROM signals").dicts()

    assert rows
    for row in rows:
        signal = node.said[row["policy"], str(row["scope"]), row["sequence"]]
        for name in ("state", "measure", "spend", "reserved", "limit", "remaining", "reason", "gates", "burn_per_s"):
            assert row[name] == getattr(signal, name), name
        assert abs(row["at"].timestamp() - signal.at) < 0.001
        assert (row["resets_at"] is None) == (signal.resets_at is None)
        assert row["contributors"] == {"=".join(next(iter(c.scope.items()))): c.spend for c in signal.contributors}


def test_the_view_has_the_last_word_and_none_that_was_taken_back(tmp_path: Path, store: Store) -> None:
    node = Node(tmp_path / "data")
    node.call(NOW_S, 5)
    node.call(NOW_S + 1, 1, "hill")
    node.carry(store)
    before = store.query("SELECT policy, scope['tenant'], state, spend FROM signals_now ORDER BY ALL").rows

    node.policies.enforce(policy_set(policy("rate", window={"rolling": "1m"}, limit=4, warn_at=[0.5]), version="2"))
    node.run(NOW_S + 2)
    node.carry(store)
    node.stop()
    after = store.query("SELECT policy, scope['tenant'], state FROM signals_now ORDER BY ALL").rows

    assert before == [("rate", "harbor", "block", 5.0), ("rate", "hill", "ok", 1.0), ("spend", "", "block", 6.0 * COST)]
    assert after == [("rate", "harbor", "block"), ("rate", "hill", "ok")]
    gone = store.query("SELECT policy, state, reason FROM signals WHERE withdrawn").rows
    assert gone == [("spend", "ok", "spend: no longer in force")]


def test_a_word_that_comes_twice_counts_once(store: Store) -> None:
    word = Signal(
        policy="rate", policy_version="1", scope={"tenant": "harbor", "team": None}, state="warn", measure="requests",
        spend=3, limit=4, remaining=1, window_start=NOW_S - 60, window_end=NOW_S, reason="three of four", sequence=7, at=NOW_S,
    )  # fmt: skip
    later = msgspec.structs.replace(word, state="ok", sequence=8, at=NOW_S + 1.0)
    for token, words in enumerate(([word], [word, later], [word])):
        for _, _, value in signal_records([Kept(one) for one in words]):
            store.insert("signals", value, f"s:0:{token}-{token}")

    assert store.query("SELECT state, scope FROM signals FINAL ORDER BY sequence").rows == [
        ("warn", {"tenant": "harbor", "team": ""}),
        ("ok", {"tenant": "harbor", "team": ""}),
    ]
    assert store.query("SELECT state FROM signals_now").rows == [("ok",)]
