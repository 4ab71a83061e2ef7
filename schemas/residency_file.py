"""The operator's residency file: TOML in, a checked map out, and what it means where this process runs.

    regions  = [...]              every region there is
    default  = [...]              where data of tenants without an entry may rest; left out: in its own region alone
    untagged = "refuse"           or "accept": events that name no region
    [tenants]  name = [...]       where a tenant's data may rest
    [hosts]    name = "..."       brokers, nodes and stores, and their regions

Read at the start of a node, a worker or a service, as the price file is. Setting: TIDEGATE_RESIDENCY_FILE, beside
TIDEGATE_REGION.
"""

from __future__ import annotations

import hashlib
import tomllib
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import orjson
from pydantic import ValidationError

from .errors import UsageError
from .kafka_url import KafkaAddress
from .residency import Residency, ResidencyMap
from .settings import Settings

_KEYS: Final = tuple(name for name in ResidencyMap.model_fields if name != "version")


def read_map(path: Path) -> ResidencyMap:
    """The map in a file. Raises `UsageError` telling every problem, one a line."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror}); check the path of the residency file") from error
    try:
        data = tomllib.loads(raw.decode("utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: {error}; correct the TOML") from error
    if "version" in data:
        raise UsageError(f"{path}: version: is told from what the file says; remove it")
    try:
        found = ResidencyMap.model_validate(data)
    except ValidationError as error:
        raise UsageError("\n".join(f"{path}: {_explained(problem)}" for problem in error.errors(include_url=False))) from error
    said = found.model_dump(exclude_defaults=True)
    version = hashlib.sha256(orjson.dumps(said, option=orjson.OPT_SORT_KEYS)).hexdigest()[:12]
    return found.model_copy(update={"version": version})


def residency_of(settings: Settings) -> Residency | None:
    """What holds where a node or worker runs; None without a residency file.

    Raises `UsageError` when the region of this process is not told, or when the store or a broker is in another one, or in one
    that the map does not tell: what may not rest there would.
    """
    found = _here(settings)
    if found is None:
        return None
    for host, what in _hosts_written_to(settings):
        region = found.region_of_host(host)
        if region is None:
            raise UsageError(
                f"residency: the map does not tell the region of {what} {host}; add it to [hosts] in {settings.residency_file}"
            )
        if region != found.here:
            raise UsageError(
                f"residency: {what} {host} is in {region}, and this process in {found.here} (TIDEGATE_REGION); write to one"
                " that is in the same region"
            )
    return found


def residency_of_service(settings: Settings) -> Residency | None:
    """What holds for what a service sends to TIDEGATE_URL: `here` is where that is. None without a residency file, and for a
    node that the map does not name: it judges by its own map, before anything is written.

    Raises `UsageError` where nobody else would judge: the map must name the region of each Kafka broker.
    """
    found = _here(settings)
    if found is None:
        return None
    scheme = settings.url.partition("://")[0].lower()
    if scheme in ("http", "https"):
        region = found.region_of_host(urlsplit(settings.url).hostname or "")
        return None if region is None else Residency(found.map, region)
    if scheme != "kafka":
        return found  # a data folder is on this machine
    regions = {host: found.region_of_host(host) for host in _brokers(settings)}
    for host, region in regions.items():
        if region is None:
            raise UsageError(
                f"residency: the map does not tell the region of Kafka broker {host}; add it to [hosts] in"
                f" {settings.residency_file}"
            )
    if len(set(regions.values())) > 1:
        raise UsageError("residency: the brokers in TIDEGATE_URL are in several regions; name those of one cluster")
    return Residency(found.map, next(filter(None, regions.values())))


def _here(settings: Settings) -> Residency | None:
    if settings.residency_file is None:
        return None
    found = read_map(settings.residency_file)
    if settings.region is None:
        raise UsageError("residency: set TIDEGATE_REGION to the region that this process runs in")
    if settings.region not in found.regions:
        raise UsageError(
            f"residency: TIDEGATE_REGION is {settings.region}, which is not one of `regions` in {settings.residency_file}"
            f" ({', '.join(found.regions)})"
        )
    return Residency(found, settings.region)


def _hosts_written_to(settings: Settings) -> list[tuple[str, str]]:
    hosts = [(host, "Kafka broker") for host in _brokers(settings)]
    if settings.store is not None:
        hosts.append((urlsplit(settings.store).hostname or settings.store, "the store"))
    return hosts


def _brokers(settings: Settings) -> list[str]:
    if settings.url.partition("://")[0].lower() != "kafka":
        return []
    return [broker.rpartition(":")[0] for broker in KafkaAddress.parse(settings.url).bootstrap.split(",")]


def _explained(problem: Any) -> str:
    where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in problem["loc"]).lstrip(".")
    if problem["type"] == "extra_forbidden":
        return f"{where}: not a key of a residency file, which has {', '.join(_KEYS)}"
    if problem["type"] == "missing":
        return f"{where}: missing; list every region there is"
    return f"{where}: {problem['msg'].removeprefix('Value error, ')}".removeprefix(": ")
