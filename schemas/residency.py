"""Where data may rest: the residency map, and the one decision that every door asks it for.

    event ─ {its region, the region of the log or store} ─ all of them among those allowed? ─┬─ yes: it goes on
                                                                                            └─ no: a `CrossRegion`

Allowed are the regions of the event's tenant, else the map's `default`, else the event's own region alone. An event that
names no region is of an unknown one: `untagged` says whether it is taken where it is, or refused. A region that the map does
not list is a mistake in spelling, or a place nobody has thought of: refused.

What is refused leaves its tenant, regions, size and fingerprint behind, and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Final, Literal, NamedTuple, Self

from pydantic import Field, field_validator, model_validator

from .call import Identifier, _Model

Regions = Annotated[tuple[Identifier, ...], Field(min_length=1, strict=False)]

# What stands in labels for a region or tenant that the map does not list: those are anybody's words, and without end.
UNTAGGED: Final = "untagged"
OTHER: Final = "other"
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1", "[::1]"})


class ResidencyMap(_Model):
    """What a residency file says. `hosts` are brokers, nodes and stores by name, without ports, and the region of each."""

    regions: Regions
    untagged: Literal["refuse", "accept"] = "refuse"
    default: Regions | None = None
    tenants: Annotated[dict[Identifier, Regions], Field(default_factory=dict)]
    hosts: Annotated[dict[Identifier, Identifier], Field(default_factory=dict)]
    # Twelve hex digits for what it says; set by whoever read it.
    version: Annotated[str, Field(exclude=True)] = ""

    @field_validator("hosts")
    @classmethod
    def _hosts_in_small_letters(cls, hosts: dict[str, str]) -> dict[str, str]:
        # An address that was parsed has its host in small letters: one kept otherwise would never be found.
        found: dict[str, str] = {}
        for host, region in hosts.items():
            if host.lower() in found:
                raise ValueError(f"{host}: named twice; capital and small letters are the same in a host")
            found[host.lower()] = region
        return found

    @model_validator(mode="after")
    def _known(self) -> Self:
        lists = {"default": self.default or (), **{f"tenants.{name}": found for name, found in self.tenants.items()}}
        for where, named in (*lists.items(), *((f"hosts.{host}", (region,)) for host, region in self.hosts.items())):
            for region in named:
                if region not in self.regions:
                    raise ValueError(f"{where}: {region} is not one of `regions` ({', '.join(self.regions)})")
        for where, named in {"regions": self.regions, **lists}.items():
            if len(set(named)) != len(named):
                raise ValueError(f"{where}: names a region twice")
        for reserved in {UNTAGGED, OTHER} & set(self.regions):
            raise ValueError(f"regions: {reserved} stands for what is not known; name the region otherwise")
        return self


class CrossRegion(NamedTuple):
    """A write that was refused: whose data, of which region (None: not told; `OTHER`: not listed), and where."""

    tenant: str | None
    region: str | None
    refused_in: str


@dataclass(frozen=True, slots=True)
class Residency:
    """The map as it holds in one place. `here` is the region of the log and the store that are written to."""

    map: ResidencyMap
    here: str

    def refusal(self, tenant: str | None, region: str | None) -> CrossRegion | None:
        """Why data of this tenant and region may not rest here; None where it may."""
        if region is None:
            if self.map.untagged == "refuse":
                return CrossRegion(tenant, region, self.here)
        elif region not in self.map.regions:
            # What stands there instead is somebody's text.
            return CrossRegion(tenant, OTHER, self.here)
        allowed = self.allowed(tenant, region)
        if allowed is None or (self.here in allowed and (region is None or region in allowed)):
            return None
        return CrossRegion(tenant, region, self.here)

    def allowed(self, tenant: str | None, region: str | None) -> tuple[str, ...] | None:
        """Where data of this tenant and region may rest; None where nothing is known against any region."""
        listed = self.map.tenants.get(tenant) if tenant is not None else None
        return listed or self.map.default or (None if region is None else (region,))

    def reason(self, found: CrossRegion) -> str:
        """For a dead letter and for who sent it: names regions of the map, never what the event holds."""
        if found.region is None:
            return "residency: the event names no region, and the residency map refuses those - at `$.region`"
        if found.region not in self.map.regions:
            return "residency: the region is not one of the residency map - at `$.region`"
        return f"residency: data of {found.region} may not rest in {found.refused_in} for this tenant - at `$.region`"

    def labels(self, found: CrossRegion) -> tuple[str, str, str]:
        """(tenant, from, to) in words of the map alone, so that there is an end to them."""
        tenant = found.tenant if found.tenant in self.map.tenants else OTHER
        refused_in = found.refused_in if found.refused_in in self.map.regions else OTHER
        return tenant or OTHER, self.region_label(found.region), refused_in

    def region_label(self, region: str | None) -> str:
        return UNTAGGED if region is None else region if region in self.map.regions else OTHER

    def region_of_host(self, host: str) -> str | None:
        """The region of a host by its name; this machine is here, and of others only the map knows."""
        host = host.lower()
        return self.map.hosts.get(host) or (self.here if host in _LOOPBACK else None)
