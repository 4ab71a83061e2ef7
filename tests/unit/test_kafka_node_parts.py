"""The small parts of a node on Kafka: whose a folder is, a log that rests, the meters' accounts as one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from tidegate.processors.distributed.log_view import Progress, sum_of
from tidegate.processors.distributed.node import RestingLog
from tidegate.processors.folder_mark import kafka_of, keep_to_kafka, keep_to_own_log
from tidegate.processors.topology import METER, SINK
from tidegate.producers.ports import Position
from tidegate.schemas.envelope import Envelope
from tidegate.schemas.errors import LogUnavailable, UsageError

URL = "kafka://broker:9092/clinic"


class FlakyLog:
    def __init__(self) -> None:
        self.tried = 0
        self.away = False

    def append(self, envelopes: Sequence[Envelope]) -> list[Position | None]:
        self.tried += 1
        if self.away:
            raise LogUnavailable("no broker")
        return [None for _ in envelopes]

    def close(self) -> None:
        pass


def test_a_log_that_failed_is_not_tried_again_by_everybody_who_waits() -> None:
    now = 0.0
    flaky = FlakyLog()
    log = RestingLog(flaky, lambda: now)
    flaky.away = True

    for _ in range(100):
        with pytest.raises(LogUnavailable, match="no broker"):
            log.append([])
    tried_while_away = flaky.tried
    flaky.away, now = False, 5.0

    assert tried_while_away == 1
    assert log.append([Envelope.of("p", 0, [b"{}"])]) == [None]


def test_a_folder_belongs_to_the_kafka_that_it_was_first_used_with(tmp_path: Path) -> None:
    keep_to_kafka(tmp_path, URL, "cluster-1", "clinic")
    keep_to_kafka(tmp_path, "kafka://renamed:9092/clinic", "cluster-1", "clinic")

    assert kafka_of(tmp_path) == "kafka://renamed:9092/clinic"
    for cluster, namespace in (("cluster-2", "clinic"), ("cluster-1", "other")):
        with pytest.raises(UsageError, match="another Kafka or namespace; give another --data DIR"):
            keep_to_kafka(tmp_path, URL, cluster, namespace)
    with pytest.raises(UsageError, match="set TIDEGATE_URL=kafka://renamed:9092/clinic"):
        keep_to_own_log(tmp_path)


def test_a_folder_with_a_log_of_its_own_is_not_kafkas(tmp_path: Path) -> None:
    (tmp_path / "log.sqlite").touch()

    with pytest.raises(UsageError, match="unset TIDEGATE_URL, or give another --data DIR"):
        keep_to_kafka(tmp_path, URL, "cluster-1", "clinic")
    keep_to_own_log(tmp_path)

    assert kafka_of(tmp_path) is None


@pytest.mark.parametrize("torn", [b"", b"{", b"[]", b'{"cluster": "c"}'])
def test_a_mark_that_cannot_be_read_is_told(tmp_path: Path, torn: bytes) -> None:
    (tmp_path / "kafka.json").write_bytes(torn)

    with pytest.raises(UsageError, match=r"kafka\.json cannot be read"):
        kafka_of(tmp_path)


def test_lags_are_what_is_not_passed_and_accounts_add_up() -> None:
    progress = Progress({"meter": {"calls/0": (3, 10), "calls/1": (5, 5)}, "sink": {"metered/0": (7, 6)}})

    assert (progress.lag(METER), progress.lag(SINK)) == (7, 0)
    assert sum_of([{"events": 3, "responses": 2}, {"events": 4}, {}]) == {"events": 7, "responses": 2}
