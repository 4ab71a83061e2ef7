"""The schema on a cluster: the migrations' statements, rewritten so that every replica has every table, and its rows.

    CREATE TABLE calls (…)                              CREATE TABLE calls ON CLUSTER `main` (…)
    ENGINE = MergeTree                            ──►   ENGINE = ReplicatedMergeTree
    SETTINGS non_replicated_deduplication_window        SETTINGS replicated_deduplication_window, …_seconds

The migrations stay the one source. Tables are named in the keeper as the server's `default_replica_path` and
`default_replica_name` have it: by uuid, {shard} and {replica}, unless somebody has changed that.
"""

from __future__ import annotations

import re
from typing import Final

from ..schemas.errors import UsageError

# The engine's own default is an hour. A batch that was promised when the store went away must be known when it is back: Kafka
# keeps its promise for as long (`offsets.retention.minutes` of topic_plan).
DEDUPLICATION_WINDOW_S: Final = 31 * 86_400

_CLUSTER: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,127}\Z|\{[A-Za-z_][A-Za-z0-9_]*\}\Z")
_DEFINITION: Final = re.compile(
    r"(?P<head>(?:CREATE\s+(?:OR\s+REPLACE\s+)?(?:TABLE|VIEW|MATERIALIZED\s+VIEW|DATABASE)(?:\s+IF\s+NOT\s+EXISTS)?"
    r"|ALTER\s+TABLE|DROP\s+(?:TABLE|VIEW)(?:\s+IF\s+EXISTS)?)\s+(?:`[^`]+`|\w+))(?P<rest>\s.*|\Z)",
    re.DOTALL,
)
_ROWS: Final = re.compile(r"(?:INSERT|OPTIMIZE)\s")
_ENGINE: Final = re.compile(r"\bENGINE\s*=\s*(?P<engine>(?:\w+)?MergeTree)\b")
_WINDOW: Final = re.compile(r"\bnon_replicated_deduplication_window\s*=\s*(?P<blocks>\d+)")
# What is no code: a comment, or text in quotes, is passed over.
_NOT_CODE: Final = re.compile(r"--[^\n]*|'(?:[^'\\]|\\.|'')*'", re.DOTALL)


def checked(cluster: str) -> str:
    """The name of a cluster, or a macro that holds it. Raises `UsageError` for anything else."""
    if not _CLUSTER.match(cluster):
        raise UsageError(
            "TIDEGATE_STORE_CLUSTER must be a cluster's name as system.clusters has it, or a macro such as {cluster}"
        )
    return cluster


def replicated(statement: str, cluster: str) -> str:
    """A statement of a migration as it is on a cluster. Raises `ValueError` for one of a kind that is not known here."""
    code = _without_leading_comments(statement)
    if _ROWS.match(code):
        return code  # rows go from one replica to the others by themselves
    definition = _DEFINITION.match(code)
    if definition is None or "ON CLUSTER" in definition["rest"].lstrip()[:10]:
        raise ValueError(f"how this is on a cluster is not known: {code[:80]}")
    rest = _in_code(definition["rest"])
    return f"{definition['head']} ON CLUSTER `{checked(cluster)}`{rest}"


def _without_leading_comments(statement: str) -> str:
    code = statement.lstrip()
    while code.startswith("--"):
        code = code.partition("\n")[2].lstrip()
    return code


def _in_code(sql: str) -> str:
    """Engines and windows replaced, in code alone."""
    parts, end = list[str](), 0
    for skipped in _NOT_CODE.finditer(sql):
        parts += [_replaced(sql[end : skipped.start()]), skipped[0]]
        end = skipped.end()
    return "".join([*parts, _replaced(sql[end:])])


def _replaced(code: str) -> str:
    code = _ENGINE.sub(lambda found: f"ENGINE = Replicated{found['engine'].removeprefix('Replicated')}", code)
    return _WINDOW.sub(
        lambda found: (
            f"replicated_deduplication_window = {found['blocks']},"
            f" replicated_deduplication_window_seconds = {DEDUPLICATION_WINDOW_S}"
        ),
        code,
    )
