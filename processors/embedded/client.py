"""Asks a data folder a question, whether a node runs on it or not, without the person noticing which."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Protocol

import orjson
import urllib3

from ...producers.audit_log import AuditLog, operator
from ...producers.folder_audit import audit_of
from ...producers.sqlite_log import SqliteLog
from ...schemas.errors import MeterStopped, TidegateError, UsageError
from ...schemas.settings import Settings
from ...sinks.clickhouse import Store
from ..audit_copy import AuditCopy
from ..folder import FolderLock, RunningNode, own_or_find
from ..folder_mark import kafka_of
from ..topology import METER, SINK
from ..transcript_reads import TranscriptReads
from .folder_backend import status_of
from .pipeline import Pipeline

# A little above the node's own bound on a query, so that it is the node that says what was wrong.
_TIMEOUT: Final = urllib3.Timeout(connect=5, read=130)


class Folder(Protocol):
    """A data folder as the command line sees it."""

    def query(self, sql: str, form: str) -> bytes:
        """The answer in a ClickHouse format. Raises `TidegateError` saying what is wrong with the statement."""
        ...

    def status(self) -> dict[str, Any]: ...

    def settle(self, progress: Callable[[int, int], None]) -> None:
        """Wait until everything that is in the log now is in the store; `progress(meter lag, sink lag)` hears of it."""
        ...


class OwnFolder:
    """No node runs: this process has the folder."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline
        self._heard = TranscriptReads(pipeline.audit, pipeline.store).by(operator(), "command")

    def query(self, sql: str, form: str) -> bytes:
        return self.pipeline.store.query_bytes(sql, form, heard=self._heard)

    def status(self) -> dict[str, Any]:
        return {"url": "", **status_of(self.pipeline)}

    def settle(self, progress: Callable[[int, int], None]) -> None:
        self.pipeline.drain(progress)
        AuditCopy(self.pipeline.audit, self.pipeline.store).run_once()
        if self.pipeline.meter.stopped() and (waiting := self.pipeline.meter.lag()):
            raise _stopped(waiting)


class NodeFolder:
    """A node has the folder: ask it."""

    def __init__(self, data_dir: Path, node: RunningNode) -> None:
        self.node = node
        self._data_dir = data_dir
        self._http = urllib3.PoolManager(timeout=_TIMEOUT, retries=False)

    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> bytes:
        headers = {"Authorization": f"Bearer {self.node.token}", "Content-Type": "application/json"}
        try:
            answer = self._http.request(
                method, self.node.url + path, headers=headers, body=orjson.dumps(body) if body is not None else None
            )
        except urllib3.exceptions.HTTPError as error:
            raise UsageError(
                f"the node on {self._data_dir} (pid {self.node.pid}, {self.node.url}) does not answer: {type(error).__name__}"
            ) from error
        if answer.status != 200:
            try:
                reason = str(orjson.loads(answer.data)["error"])
            except (orjson.JSONDecodeError, KeyError, TypeError):
                reason = f"the node answered {answer.status}"
            raise TidegateError(reason)
        return answer.data

    def query(self, sql: str, form: str) -> bytes:
        return self._ask("POST", "/v1/query", {"sql": sql, "format": form})

    def console_link(self) -> str:
        """What signs in to the console, once."""
        return self.node.url + str(orjson.loads(self._ask("POST", "/console/code"))["path"])

    def status(self) -> dict[str, Any]:
        status: dict[str, Any] = orjson.loads(self._ask("GET", "/v1/status"))
        return status

    def settle(self, progress: Callable[[int, int], None]) -> None:
        # Only up to where the log ends now: under steady traffic something is always on its way.
        with SqliteLog(self._data_dir) as log:
            for step in (METER, SINK):
                ends = [
                    (topic.name, partition, log.end_offset(topic.name, partition))
                    for topic in step.reads
                    for partition in range(log.partitions)
                ]
                while waiting := sum(max(0, end - log.committed(step.name, name, partition)) for name, partition, end in ends):
                    progress(*((waiting, 0) if step is METER else (0, waiting)))
                    stopped = self._must_be_well().get("meters_stopped", ()) if step is METER else ()
                    if any(end > log.committed(step.name, name, at) for name, at, end in ends if at in stopped):
                        raise _stopped(waiting)
                    time.sleep(0.05)

    def _must_be_well(self) -> dict[str, Any]:
        """The status. Raises when the node is gone or has failed, instead of waiting for ever."""
        status = self.status()
        if not status["healthy"]:
            raise TidegateError(f"the node on {self._data_dir} has failed; its own output says why")
        return status


class KafkaNodeFolder(NodeFolder):
    """A node on Kafka has the folder: it knows how far the steps are, wherever they run."""

    def settle(self, progress: Callable[[int, int], None]) -> None:
        for step in (METER, SINK):
            ends = {place: end for place, (_, end) in self._steps(step.name).items()}
            while waiting := sum(max(0, ends[place] - passed) for place, (passed, _) in self._steps(step.name).items()):
                progress(*((waiting, 0) if step is METER else (0, waiting)))
                if step is METER:
                    status = self._status()
                    behind = {f"/{partition}" for partition in status["meters_stopped"]}
                    now = status["progress"][step.name]
                    if any(end > now[place][0] for place, end in ends.items() if place[place.rindex("/") :] in behind):
                        raise _stopped(waiting)
                time.sleep(0.1)

    def _steps(self, step: str) -> dict[str, tuple[int, int]]:
        found: dict[str, tuple[int, int]] = self._status()["progress"][step]
        return found

    def _status(self) -> dict[str, Any]:
        status = self._must_be_well()
        if status["log_away"]:
            raise TidegateError(f"the node on {self._data_dir} does not reach Kafka; its own output says why")
        return status


class StoreFolder:
    """No node runs on a folder whose rows come from Kafka: what is in the store can be asked, and nothing else."""

    def __init__(self, store: Store, kafka: str, audit: AuditLog) -> None:
        self._store = store
        self._kafka = kafka
        self._heard = TranscriptReads(audit, store).by(operator(), "command")

    def query(self, sql: str, form: str) -> bytes:
        return self._store.query_bytes(sql, form, heard=self._heard)

    def status(self) -> dict[str, Any]:
        raise UsageError(f"no node runs here, and only a node can say: TIDEGATE_URL={self._kafka} tidegate up")

    def settle(self, progress: Callable[[int, int], None]) -> None:
        raise UsageError(f"no node runs here to bring anything into the store: TIDEGATE_URL={self._kafka} tidegate up")


def _stopped(waiting: int) -> MeterStopped:
    return MeterStopped(
        f"{waiting:,} records wait behind a meter that has stopped, as it refused most lines; see `tidegate dlq list`, then"
        " `tidegate dlq resume`"
    )


@contextmanager
def opened(data_dir: Path, settings: Settings) -> Iterator[OwnFolder | NodeFolder | StoreFolder]:
    """The folder, through its node when one runs. Raises `UsageError` when it is neither free nor answered for."""
    found = own_or_find(data_dir)
    kafka = kafka_of(data_dir)
    if isinstance(found, RunningNode):
        yield NodeFolder(data_dir, found) if kafka is None else KafkaNodeFolder(data_dir, found)
        return
    lock: FolderLock = found
    with lock:
        if kafka is not None:
            path = None if settings.store else data_dir / "store"
            with Store.open(path=path, dsn=settings.store, cluster=settings.store_cluster) as store:
                yield StoreFolder(store, kafka, audit_of(data_dir, settings))
            return
        pipeline = Pipeline(data_dir, settings)
        try:
            yield OwnFolder(pipeline)
        finally:
            pipeline.close()
