"""The on-call file: who is told of what; what is wrong with it is said by field, and no address is ever repeated."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from tidegate.processors.incidents import Incident, Incidents, Timing, step
from tidegate.processors.on_call_file import OnCall, read_on_call
from tidegate.processors.on_call_watch import OnCallWatch
from tidegate.schemas.errors import UsageError
from tidegate.schemas.signal import Alert

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "on-call.yaml"


def incident(severity: str = "critical", kind: str = "policy", **scope: str) -> Incident:
    state = Incidents()
    alert = Alert(key="k", kind=kind, severity=severity, title="t", at=0.0, policy="tenant-day", scope=dict(scope))  # type: ignore[arg-type]
    step(state, [alert], 0.0, Timing())
    return state.open["k"]


def read(tmp_path: Path, text: str) -> OnCall:
    file = tmp_path / "on-call.yaml"
    file.write_text(text)
    return read_on_call(file)


def test_the_example_is_read_and_tells_the_pager_of_what_is_critical_alone() -> None:
    on_call = read_on_call(EXAMPLE)

    assert on_call.to(incident("critical")) == ["pager", "watch", "team"]
    assert on_call.to(incident("warning")) == ["team"]
    assert on_call.timing == Timing()


def test_the_first_route_that_fits_counts(tmp_path: Path) -> None:
    destinations = "destinations: {a: {url: 'json://a'}, b: {url: 'json://b'}}\n"
    on_call = read(
        tmp_path,
        destinations + "routes:\n- {scope: {tenant: 'harbor-*'}, policy: tenant-day, to: [a]}\n- {kind: residency, to: [b]}",
    )

    assert on_call.to(incident(tenant="harbor-health")) == ["a"]
    assert on_call.to(incident(tenant="other")) == []
    assert on_call.to(incident(kind="residency")) == ["b"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("routes: [{to: [pager]}]", "a route goes to 'pager', which is no destination"),
        ("destinations: {a: {}}", "destinations.a: give one of `url`, `url_env`, `url_file` and `alertmanager`"),
        ("destinations: {a: {url: 'slack://s3cret', url_env: X}}", "destinations.a: give one of"),
        ("maintenance: [{id: a, from: '22:00', to: '23:00', time_zone: Mars/Base}]", "is not a time zone"),
        ("maintenance: [{id: a, from: 22:00, to: '23:00'}]", 'write the time in quotes, such as "22:00"'),
        ("timing: {settle: soon}", "timing.settle: write a duration"),
        ("timing: {settled: 3s}", "timing.settled: Extra inputs are not permitted"),
        ("a: [", "is not valid YAML"),
        ("- a", "must hold `destinations` and `routes`"),
    ],
)
def test_what_is_wrong_is_said_by_field_and_no_address_with_it(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(UsageError) as refused:
        read(tmp_path, text)

    assert said in str(refused.value)
    assert "s3cret" not in str(refused.value)


def test_an_address_comes_from_a_variable_or_a_file_when_it_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = tmp_path / "url"
    on_call = read(tmp_path, f"destinations: {{a: {{url_env: PAGER}}, b: {{url_file: {secret}}}}}")
    with pytest.raises(UsageError, match="the variable PAGER is not set"):
        on_call.destinations["a"].address()
    with pytest.raises(UsageError, match="cannot be read"):
        on_call.destinations["b"].address()

    monkeypatch.setenv("PAGER", "json://a ")
    secret.write_text("json://b\n")

    assert on_call.destinations["a"].address() == "json://a"
    assert on_call.destinations["b"].address() == "json://b"


@pytest.mark.parametrize(
    ("at", "is_open"),
    [
        ("2026-11-20T22:30", True),  # a Friday
        ("2026-11-21T01:59", True),  # still that window
        ("2026-11-21T02:00", False),
        ("2026-11-21T22:30", False),  # a Saturday
        ("2026-11-20T21:59", False),
    ],
)
def test_a_window_may_last_over_midnight_and_keeps_to_its_days(tmp_path: Path, at: str, is_open: bool) -> None:
    on_call = read(tmp_path, "maintenance: [{id: w, from: '22:00', to: '02:00', days: [fri], match: {tenant: a}}]")

    windows = on_call.windows(datetime.fromisoformat(at).replace(tzinfo=UTC).timestamp())

    assert [window.id for window in windows] == (["maintenance:w"] if is_open else [])


def test_a_window_keeps_its_hours_when_the_clocks_change(tmp_path: Path) -> None:
    on_call = read(tmp_path, "maintenance: [{id: w, from: '22:00', to: '23:00', time_zone: America/New_York}]")

    in_summer = datetime(2026, 7, 2, 2, 30, tzinfo=UTC).timestamp()
    in_winter = datetime(2026, 12, 2, 3, 30, tzinfo=UTC).timestamp()

    assert len(on_call.windows(in_summer)) == len(on_call.windows(in_winter)) == 1


def test_a_bad_edit_keeps_the_file_before_it(tmp_path: Path) -> None:
    file = tmp_path / "on-call.yaml"
    file.write_text("destinations: {a: {url: 'json://a'}}")
    watch = OnCallWatch(file)

    file.write_text("destinations: {a: {}}  # oh")
    kept, problem = watch.poll(10.0), watch.problem
    file.write_text("destinations: {b: {url: 'json://b'}}")
    mended = watch.poll(20.0)

    assert list(kept.destinations) == ["a"]
    assert problem is not None
    assert "give one of" in problem
    assert (list(mended.destinations), watch.problem) == (["b"], None)
