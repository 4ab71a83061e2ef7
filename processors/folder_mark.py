"""Which Kafka the rows in a node's data folder are from, so that no two sets of events are ever counted into one store.

kafka.json   {"cluster", "namespace", "url"}; a folder without it has its own log, or nothing yet
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import orjson

from ..schemas.errors import UsageError

_MARK: Final = "kafka.json"
_OWN_LOG: Final = "log.sqlite"


def kafka_of(data_dir: Path) -> str | None:
    """The address of the Kafka whose node had this folder last; None when there was none."""
    try:
        return str(orjson.loads((data_dir / _MARK).read_bytes())["url"])
    except FileNotFoundError:
        return None
    except (OSError, orjson.JSONDecodeError, KeyError, TypeError) as error:
        raise UsageError(f"{data_dir / _MARK} cannot be read ({type(error).__name__}); give another --data DIR") from None


def keep_to_own_log(data_dir: Path) -> None:
    """Before a node without Kafka takes the folder. Raises `UsageError` when its rows came from Kafka."""
    url = kafka_of(data_dir)
    if url is not None:
        raise UsageError(f"{data_dir} belongs to a node on Kafka: set TIDEGATE_URL={url}, or give another --data DIR")


def keep_to_kafka(data_dir: Path, url: str, cluster: str, namespace: str) -> None:
    """Before a node on Kafka takes the folder: mark it as that Kafka's. Raises `UsageError` when its rows came from elsewhere.

    A cluster is known by its id, for its address may change.
    """
    if (data_dir / _OWN_LOG).exists():
        raise UsageError(
            f"{data_dir} belongs to a node without Kafka: unset TIDEGATE_URL, or give another --data DIR for this one"
        )
    before = kafka_of(data_dir)
    if before is not None:
        marked = orjson.loads((data_dir / _MARK).read_bytes())
        if (marked["cluster"], marked["namespace"]) != (cluster, namespace):
            raise UsageError(
                f"{data_dir} holds what came from {before}, and {url} is another Kafka or namespace; give another --data DIR"
            )
    draft = data_dir / f"{_MARK}.tmp"
    draft.write_bytes(orjson.dumps({"cluster": cluster, "namespace": namespace, "url": url}))
    draft.replace(data_dir / _MARK)
