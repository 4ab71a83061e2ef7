"""Every setting, once. `TIDEGATE_*` environment variables win over `tidegate.toml`, which wins over the defaults.

The TOML file is `./tidegate.toml`, or what `TIDEGATE_CONFIG` names. Read with `Settings.read()`; nothing else in the
project looks at the environment.
"""

from __future__ import annotations

import os
import sys
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

from .call import SCOPE_FIELDS
from .content import CALL_FIELDS, ContentMode
from .errors import UsageError

# The scopes that Usage is kept for; each is a set of fields of a call. Policies add theirs.
DEFAULT_SCOPE_SETS: tuple[tuple[str, ...], ...] = (
    (),
    ("tenant",),
    ("tenant", "team"),
    ("tenant", "user"),
    ("tenant", "prompt_name", "prompt_version"),
    ("provider_name", "model"),
)


# What judges the texts of a call, in the order it is asked; see processors/guardrails.
DETECTORS: tuple[str, ...] = ("phi", "toxicity", "injection", "faithfulness", "relevance", "guideline", "bias")


class Settings(BaseSettings):
    """All settings with their defaults. Units are in the names."""

    model_config = SettingsConfigDict(env_prefix="TIDEGATE_", extra="forbid", frozen=True, env_ignore_empty=True)

    # who and where
    url: Annotated[str, Field(description="where events go: a data folder, the http(s) address of a node, or kafka://…")] = (
        "./tidegate-data"
    )
    token: Annotated[str | None, Field(description="bearer token for the node; needed when it binds beyond loopback")] = None
    service: str | None = None
    environment: str | None = None
    region: str | None = None

    # producer
    producer_id: Annotated[str | None, Field(description="name in the log; every run adds twelve digits of its own")] = None
    spool_dir: Annotated[Path | None, Field(description="where events wait while the log is away")] = None
    spool_max_bytes: Annotated[int, Field(ge=0)] = 256 * 1024 * 1024
    buffer_events: Annotated[int, Field(ge=1)] = 20_000
    buffer_bytes: Annotated[int, Field(ge=65_536)] = 32 * 1024 * 1024
    linger_s: Annotated[float, Field(ge=0, le=10)] = 0.02
    gate_unheard: Annotated[
        Literal["open", "closed"], Field(description="what a gate does before it has heard of any policy")
    ] = "open"
    flush_timeout_s: Annotated[float, Field(ge=0, le=600)] = 5.0

    # node
    data_dir: Annotated[Path, Field(description="the node's data folder")] = Path("tidegate-data")
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65_535, description="0 picks a free one")] = 8400
    partitions: Annotated[int, Field(ge=1, le=256, description="of each topic; fixed once the data folder is made")] = 1
    fsync: Annotated[
        Literal["full", "normal"],
        Field(description="full: an accepted event survives a power cut; normal: it survives a crash of the process"),
    ] = "full"
    max_body_bytes: Annotated[int, Field(ge=1024)] = 16 * 1024 * 1024
    max_backlog_bytes: Annotated[int, Field(ge=1, description="unprocessed log above which ingest answers 503")] = 4 * 1024**3
    flush_s: Annotated[float, Field(gt=0, le=60, description="how often the meter commits")] = 0.1
    flush_bytes: Annotated[int, Field(ge=1, description="log read in one meter commit; bounds memory and rework")] = 1 << 20
    policy_file: Annotated[Path | None, Field(description="budgets, rate limits, breakers; read again when it changes")] = None
    on_call_file: Annotated[Path | None, Field(description="who is told of incidents, and how")] = None
    price_file: Path | None = None
    residency_file: Annotated[
        Path | None, Field(description="where tenants' data may rest; for services, nodes and workers; needs region")
    ] = None
    brake_ratio: Annotated[
        float, Field(gt=0, le=1, description="a partition's meter stops when more of its lines are refused; 1: never")
    ] = 0.5
    brake_lines: Annotated[int, Field(ge=1, description="and at least so many were, within a minute")] = 200
    brake_hold_s: Annotated[float, Field(ge=0, description="it goes on by itself after this")] = 3_600.0
    dead_letters_max_bytes: Annotated[
        int, Field(ge=1 << 20, description="of refused lines kept sealed in a data folder; above it the oldest go")
    ] = 256 << 20
    max_future_s: Annotated[float, Field(ge=0, description="how far ahead of the log's clock a call may start")] = 86_400.0
    scope_sets: tuple[tuple[str, ...], ...] = DEFAULT_SCOPE_SETS
    metrics_label_sets: Annotated[
        int,
        Field(
            ge=0, description="of tenant, provider and model, a partition, with metrics of their own; later ones are `other`"
        ),
    ] = 200

    # content
    content: Annotated[ContentMode, Field(description="what leaves of prompts, answers and context")] = "sealed"
    content_tenants: Annotated[dict[str, ContentMode], Field(description="tenants for whom it is another mode")] = {}
    key_file: Annotated[Path | None, Field(description="the key ring; a data folder makes its own")] = None
    keys: Annotated[SecretStr | None, Field(description="the key ring itself, as JSON, where no file can be had")] = None
    key_command: Annotated[str | None, Field(description="prints the key ring: a vault's client, say")] = None

    # guardrails
    guard: Annotated[bool, Field(description="score content in this node or worker")] = True
    guard_detectors: Annotated[tuple[str, ...], Field(min_length=1)] = DETECTORS
    guard_workers: Annotated[int, Field(ge=1, le=64, description="scoring processes")] = 1
    guard_memory_mb: Annotated[int, Field(ge=256, description="of one scoring process; above it, it is replaced")] = 2_048
    guard_batch: Annotated[int, Field(ge=1, le=512, description="most calls judged together")] = 32
    guard_timeout_s: Annotated[float, Field(gt=0, le=600, description="for one batch; then its process is replaced")] = 60.0
    guard_sample: Annotated[float, Field(ge=0, le=1, description="share of ordinary calls that is scored")] = 1.0
    guard_always: Annotated[
        dict[str, tuple[str, ...]], Field(description='calls that are always scored: {"tenant": ["harbor-health"]}')
    ] = {}
    guard_new_h: Annotated[
        float, Field(ge=0, le=8_760, description="hours for which a new model or prompt version is always scored")
    ] = 24.0
    guard_cpu_share: Annotated[
        float, Field(gt=0, le=64, description="processor seconds a second that scoring may take, in all its processes")
    ] = 1.0
    guard_encoder: Annotated[str, Field(description="offline, or sentence-transformers:NAME_OR_FOLDER")] = "offline"
    guard_ner: Annotated[str, Field(description="offline, or transformers:FOLDER")] = "offline"
    guard_toxicity: Annotated[str, Field(description="offline, or detoxify:original|unbiased|multilingual|FOLDER")] = "offline"
    guard_judge: Annotated[str, Field(description="offline, or cross-encoder:NAME_OR_FOLDER")] = "offline"
    guard_canaries: Annotated[
        SecretStr | None, Field(description="strings that no answer may hold, as JSON: a list, or lists by scope")
    ] = None
    guard_canary_file: Annotated[Path | None, Field(description="the same in a file, or one a line")] = None
    guideline_file: Annotated[Path | None, Field(description="clinical rules beside the ones that ship")] = None
    quarantine_max_bytes: Annotated[
        int, Field(ge=1 << 20, description="of sealed texts in quarantine, in a data folder; above it the oldest go")
    ] = 1 << 30
    redaction: Annotated[Literal["tag", "surrogate", "hash"], Field(description="what stands for PHI in a transcript")] = "tag"

    # kafka
    kafka_security: Annotated[
        Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"], Field(description="how brokers are spoken to")
    ] = "PLAINTEXT"
    kafka_sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "SCRAM-SHA-512"
    kafka_username: str | None = None
    kafka_password: Annotated[str | None, Field(repr=False)] = None
    kafka_ca_file: Annotated[Path | None, Field(description="who vouches for the brokers; none: the system's authorities")] = (
        None
    )
    kafka_cert_file: Annotated[Path | None, Field(description="this client's certificate, where brokers ask for one")] = None
    kafka_key_file: Annotated[Path | None, Field(description="the key of kafka_cert_file")] = None

    # worker
    worker_host: Annotated[str, Field(description="where a worker shows its metrics and health")] = "127.0.0.1"
    worker_session_s: Annotated[
        float, Field(ge=1, le=300, description="silence after which a worker's partitions are given to others")
    ] = 10.0
    worker_flush_bytes: Annotated[
        int, Field(ge=1, description="calls applied in one flush of a busy meter; larger is faster, and takes longer")
    ] = 4 << 20
    worker_port: Annotated[int, Field(ge=0, le=65_535, description="0 picks a free one")] = 8401

    # store
    store: Annotated[
        str | None,
        Field(description="ClickHouse server DSN (clickhouse://user:password@host:8123/database); none: chDB in data_dir"),
    ] = None
    store_cluster: Annotated[
        str | None,
        Field(description="the server's cluster, by name or as {macro}: its replicas all have the tables, replicated"),
    ] = None
    sink_batch_rows: Annotated[int, Field(ge=1, le=500_000)] = 50_000
    sink_linger_s: Annotated[float, Field(ge=0, le=60)] = 0.5

    @field_validator("scope_sets")
    @classmethod
    def _known_fields(cls, sets: tuple[tuple[str, ...], ...]) -> tuple[tuple[str, ...], ...]:
        for fields in sets:
            for name in fields:
                if name not in SCOPE_FIELDS:
                    raise ValueError(f"unknown scope field {name!r}; choose from {', '.join(SCOPE_FIELDS)}")
            if len(set(fields)) != len(fields):
                raise ValueError("a scope set names a field twice")
        if len(set(sets)) != len(sets):
            raise ValueError("a scope set is there twice")
        return sets

    @field_validator("guard_always")
    @classmethod
    def _known_call_fields(cls, rules: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        for name in rules:
            if name not in CALL_FIELDS:
                raise ValueError(f"unknown field {name!r}; choose from {', '.join(CALL_FIELDS)}")
        return rules

    @field_validator("guard_detectors")
    @classmethod
    def _known_detectors(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if name not in DETECTORS:
                raise ValueError(f"unknown detector {name!r}; choose from {', '.join(DETECTORS)}")
        return tuple(dict.fromkeys(names))

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        toml = TomlConfigSettingsSource(settings_cls, Path(os.environ.get("TIDEGATE_CONFIG", "tidegate.toml")))
        return init_settings, env_settings, toml

    @classmethod
    def read(cls, **overrides: Any) -> Self:
        """The settings in force; `overrides` that are None are left out. Raises `UsageError` naming what is wrong."""
        given = {name: value for name, value in overrides.items() if value is not None}
        named = os.environ.get("TIDEGATE_CONFIG")
        if named and not Path(named).is_file():
            raise UsageError(f"TIDEGATE_CONFIG names {named}, which is not a file; correct it or unset it")
        try:
            return cls(**given)
        except ValidationError as error:
            problems = "; ".join(
                f"{'.'.join(str(part) for part in problem['loc'])}: {problem['msg']}"
                for problem in error.errors(include_input=False, include_url=False)
            )
            raise UsageError(f"settings: {problems} (set TIDEGATE_<NAME> or correct tidegate.toml)") from None
        except SettingsError as error:  # a variable that should hold JSON does not; the message names the field, not the value
            raise UsageError(f'settings: {error}; set TIDEGATE_<NAME> to JSON, such as [["tenant"]]') from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise UsageError(f"settings: {named or 'tidegate.toml'} is not valid TOML: {error}") from None
        except OSError as error:
            raise UsageError(
                f"settings: {named or 'tidegate.toml'} cannot be read ({error.strerror}); mend or unset it"
            ) from None


def secret_named(name: str) -> str | None:
    """A secret that a file names by its variable; None where it is not set."""
    return os.environ.get(name, "").strip() or None


def has_display() -> bool:
    """Whether a window can be opened for the person at the keyboard."""
    return sys.platform in ("darwin", "win32") or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))


def environment_of_others() -> dict[str, str]:
    """The environment without what is ours: for a process that is told its settings, and no secret."""
    return {name: value for name, value in os.environ.items() if not name.upper().startswith("TIDEGATE_")}
