"""The on-call file: who is told of what, how patiently, and when nobody is. YAML or TOML.

destinations:
  pager: {url_env: TIDEGATE_PAGER_URL}          # an Apprise URL, from the environment
  team:  {url_file: /run/secrets/team_url}      # or from a file; `url` itself stands for all who read this file
  am:    {alertmanager: "http://alertmanager:9093"}
routes:                                         # the first that fits; `also: true` goes on to the next
  - {severity: critical, to: [pager, team, am]}
  - {kind: residency, to: [team]}
  - {to: [team]}
maintenance:
  - {id: nightly-batch, match: {tenant: batch}, from: "22:00", to: "23:30", time_zone: America/New_York}
timing: {renotify_critical: 30m}
runbooks: https://git.example/tidegate/         # before the path of a runbook, docs/runbooks/… or a policy's own
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from datetime import datetime, time, timedelta
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from ..schemas.errors import UsageError
from ..schemas.policy import Duration
from ..schemas.settings import secret_named
from .incidents import Incident, Timing, Window

_MAX_BYTES: Final = 1 << 20
# Windows of the file, beside those that people ask for.
MAINTENANCE: Final = "maintenance:"
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Destination(_Model):
    """One place that is told: an Apprise URL (Slack, Teams, PagerDuty, Opsgenie, mail, webhook …) or an Alertmanager."""

    url: str | None = None
    url_env: str | None = None
    url_file: Path | None = None
    alertmanager: str | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        given = [name for name in ("url", "url_env", "url_file", "alertmanager") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError("give one of `url`, `url_env`, `url_file` and `alertmanager`")
        return self

    def address(self) -> str:
        """The URL, read anew each time: a secret may be changed under us. Raises `UsageError`, which does not tell it."""
        if self.url_env is not None:
            if (found := secret_named(self.url_env)) is None:
                raise UsageError(f"the variable {self.url_env} is not set; set it to an Apprise URL")
            return found
        if self.url_file is not None:
            try:
                return self.url_file.read_text().strip()
            except (OSError, UnicodeDecodeError) as error:
                raise UsageError(
                    f"{self.url_file} cannot be read ({type(error).__name__}); it must hold an Apprise URL"
                ) from None
        return self.url or self.alertmanager or ""


class Route(_Model):
    """Who is told of incidents that fit all that is given; `policy` and `kind` may end in `*`."""

    severity: Literal["warning", "critical"] | None = None
    kind: str | None = None
    policy: str | None = None
    scope: dict[str, str] = {}
    to: tuple[Name, ...]
    also: bool = False

    def fits(self, incident: Incident) -> bool:
        wanted = {"severity": self.severity, "kind": self.kind, "policy": self.policy, **self.scope}
        return incident.fits({name: value for name, value in wanted.items() if value is not None})


class Maintenance(_Model):
    """A window that comes every day, or every week on some days."""

    id: Name
    match: dict[str, str] = {}
    start: Annotated[time, Field(alias="from")]
    end: Annotated[time, Field(alias="to")]
    days: tuple[Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"], ...] = ()
    time_zone: str = "UTC"
    why: str = ""

    @field_validator("start", "end", mode="before")
    @classmethod
    def _in_quotes(cls, given: Any) -> Any:
        if isinstance(given, int | float):  # YAML reads 22:00 as 1320
            raise ValueError('write the time in quotes, such as "22:00"')
        return given

    @field_validator("time_zone")
    @classmethod
    def _known(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (ZoneInfoNotFoundError, ValueError):
            raise ValueError(f"{name!r} is not a time zone; write one such as Europe/Berlin") from None
        return name

    def window(self, now: float) -> Window | None:
        """The window that is open at `now`, or None. One that ends before it starts lasts over midnight."""
        zone = ZoneInfo(self.time_zone)
        local = datetime.fromtimestamp(now, zone)
        for day in (local.date(), local.date() - timedelta(days=1)):
            if self.days and ("mon", "tue", "wed", "thu", "fri", "sat", "sun")[day.weekday()] not in self.days:
                continue
            starts = datetime.combine(day, self.start, zone)
            ends = datetime.combine(day + timedelta(days=self.end <= self.start), self.end, zone)
            if starts.timestamp() <= now < ends.timestamp():
                return Window(
                    id=f"{MAINTENANCE}{self.id}",
                    since=starts.timestamp(),
                    until=ends.timestamp(),
                    match=self.match,
                    why=self.why,
                )
        return None


class Patience(_Model):
    """`Timing`, in a file's words."""

    pending_warning: Duration = 30
    pending_critical: Duration = 0
    renotify_warning: Annotated[Duration, Field(ge=60)] = 14_400
    renotify_critical: Annotated[Duration, Field(ge=60)] = 1_800
    settle: Duration = 60
    flaps_most: Annotated[int, Field(ge=1)] = 3
    flaps_within: Duration = 3_600
    flapping_settle: Duration = 900
    group_wait: Duration = 10
    silent: Annotated[Duration, Field(ge=600)] = 7_200
    no_data: Annotated[Duration, Field(ge=10)] = 300


class OnCall(_Model):
    """Who is told of what."""

    destinations: dict[Name, Destination] = {}
    routes: tuple[Route, ...] = ()
    maintenance: tuple[Maintenance, ...] = ()
    timing_: Annotated[Patience, Field(alias="timing")] = Patience()
    runbooks: str = ""

    @model_validator(mode="after")
    def _known(self) -> Self:
        for route in self.routes:
            for name in route.to:
                if name not in self.destinations:
                    raise ValueError(
                        f"a route goes to {name!r}, which is no destination; name one of {', '.join(self.destinations)}"
                    )
        return self

    @cached_property
    def timing(self) -> Timing:
        given = self.timing_
        return Timing(
            pending_warning_s=given.pending_warning,
            pending_critical_s=given.pending_critical,
            renotify_warning_s=given.renotify_warning,
            renotify_critical_s=given.renotify_critical,
            settle_s=given.settle,
            flaps_most=given.flaps_most,
            flaps_within_s=given.flaps_within,
            flapping_settle_s=given.flapping_settle,
            group_wait_s=given.group_wait,
            silent_s=given.silent,
            no_data_s=given.no_data,
        )

    def to(self, incident: Incident) -> list[str]:
        """The destinations that are told of it."""
        told: dict[str, None] = {}
        for route in self.routes:
            if route.fits(incident):
                told |= dict.fromkeys(route.to)
                if not route.also:
                    break
        return list(told)

    def windows(self, now: float) -> list[Window]:
        """The maintenance windows that are open."""
        return [window for each in self.maintenance if (window := each.window(now)) is not None]


def read_on_call(path: Path | None) -> OnCall:
    """The file's, or nobody. Raises `UsageError` that names each field and what is wrong with it, and no address."""
    if path is None:
        return OnCall()
    try:
        raw = path.read_bytes()
        if len(raw) > _MAX_BYTES:
            raise UsageError(f"{path}: is larger than {_MAX_BYTES >> 20} MiB; this is no on-call file")
        text = raw.decode("utf-8-sig")
        data: Any = tomllib.loads(text) if path.suffix == ".toml" else yaml.safe_load(text)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror}); check the path of the on-call file") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, yaml.YAMLError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        raise UsageError(f"{where}: is not valid {'TOML' if path.suffix == '.toml' else 'YAML'}; correct it") from None
    if not isinstance(data, Mapping):
        raise UsageError(f"{path}: must hold `destinations` and `routes`")
    try:
        return OnCall.model_validate(data)
    except ValidationError as error:
        told = [
            f"{path}: {'.'.join(str(part) for part in problem['loc'])}: {problem['msg'].removeprefix('Value error, ')}"
            for problem in error.errors(include_input=False, include_url=False)
        ]
        raise UsageError("\n".join(dict.fromkeys(told))) from None
