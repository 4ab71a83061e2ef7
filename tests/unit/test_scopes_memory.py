"""Thousands of scopes: each stays small, they leave memory together, and those at rest are not looked at."""

from __future__ import annotations

from policing import Call, House, policy, policy_set
from support import NOW_S
from tidegate.bench.scopes import measure_memory

SCOPES = 2_000


def test_a_live_scope_takes_two_kilobytes_at_most_on_both_sides_together() -> None:
    found = measure_memory(SCOPES, 6)

    assert found.meter_b + found.policies_b <= 2_048
    assert found.idle_b <= 512


def test_scopes_at_rest_are_not_looked_at_when_others_change() -> None:
    house = House(policy_set(policy()))
    house.run([Call(NOW_S, f"call-{n}", fields={"tenant": f"tenant-{n}"}) for n in range(SCOPES)])
    told = len(house.told)

    house.run([Call(NOW_S + 1, f"again-{n}", fields={"tenant": f"tenant-{n}"}) for n in range(10)])

    assert (told, len(house.told) - told, len(house.log[0])) == (SCOPES, 10, SCOPES + 10)
