"""`tidegate policy` and `tidegate signals` tell a person what holds, what is wrong, who is blocked and why."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import orjson
import pytest
from support import NOW_S
from tidegate import policy_cli
from tidegate.cli import app
from tidegate.dashboards.policy_words import limit_text, meaning, request_meaning
from tidegate.processors.policy_advice import advice
from tidegate.processors.policy_file import parse_policies, read_policies
from tidegate.producers.sqlite_log import SqliteLog
from tidegate.schemas.errors import UsageError
from tidegate.schemas.policy import PolicySet, State
from tidegate.schemas.signal import POLICIES_KEY, Contributor, Signal
from tidegate.schemas.topics import SIGNALS
from typer.testing import CliRunner

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "docs" / "examples" / "policies.yaml"

POLICIES = """\
policies:
  - name: tenant-daily
    scope: [tenant]
    measure: cost_usd
    window: {calendar: day, time_zone: America/New_York}
    limit: 25
    action: block
    owner: finops
    runbook: https://runbooks.example/budget
  - name: user-hourly
    match: {environment: production}
    scope: [tenant, user]
    measure: requests
    window: {rolling: 1h}
    limit: 100
    action: {do: throttle, per_minute: 60}
  - name: team-monthly
    scope: [tenant, team]
    measure: cost_usd
    window: {calendar: month}
    limit: 300
    limits: [{scope: {tenant: harbor-health, team: pharmacy}, limit: 900}]
    action: alert
request_limits:
  - {name: triage-call, match: {task_type: triage}, max_output_tokens: 500}
"""


@pytest.fixture(autouse=True)
def _empty_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.upper().startswith("TIDEGATE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)


def run(*arguments: str | Path) -> str:
    """What a command prints, on one line a row, with runs of blanks as one."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None:
        raise result.exception
    return re.sub(r"[ \t]+", " ", result.stdout)


def parsed(text: str) -> PolicySet:
    return parse_policies(Path("policies.yaml"), text.encode())


def policy_text(**fields: Any) -> str:
    told = {"name": "p", "measure": "cost_usd", "window": {"rolling": "1h"}, "limit": 10, "action": "block"} | fields
    return orjson.dumps({"policies": [told]}).decode()


def signal(
    policy: str = "tenant-daily", state: State = "block", scope: dict[str, str | None] | None = None, **fields: Any
) -> Signal:
    told: dict[str, Any] = {
        "policy": policy,
        "policy_version": "0123456789ab",
        "scope": {"tenant": "harbor-health"} if scope is None else scope,
        "state": state,
        "measure": "cost_usd",
        "spend": 26_000_000_000,
        "limit": 25_000_000_000,
        "remaining": 0,
        "window_start": NOW_S - 14_400,
        "window_end": NOW_S + 72_000,
        "resets_at": NOW_S + 72_000,
        "reason": f"{policy}: $26.0000 in this day (America/New_York), limit $25.0000, 104% of it",
        "sequence": 7,
        "at": NOW_S,
    }
    return Signal(**(told | fields))


@pytest.fixture
def data(tmp_path: Path) -> Callable[..., Path]:
    """Makes a folder in which policies have said these signals."""

    def make(*signals: Signal, policies: str = POLICIES) -> Path:
        folder = tmp_path / "data"
        with SqliteLog(folder) as log, log.transaction():
            records = [(POLICIES_KEY, {}, parsed(policies).model_dump_json().encode())] if policies else []
            records += [(told.key(), {}, msgspec.json.encode(told)) for told in signals]
            log.append(SIGNALS.name, 0, records)
        return folder

    return make


# check


def test_check_says_what_each_policy_of_the_example_means_and_finds_nothing_to_look_at() -> None:
    told = run("policy", "check", EXAMPLE)

    found = read_policies(EXAMPLE)
    for name in (*(policy.name for policy in found.policies), *(limit.name for limit in found.request_limits)):
        assert name in told
    assert f"is valid: 11 policies, 5 request limits, version {found.version}." in told
    assert "Look at this again" not in told


def test_check_of_a_wrong_file_ends_with_2_and_every_problem(tmp_path: Path) -> None:
    import subprocess
    import sys

    file = tmp_path / "wrong.yaml"
    file.write_text(POLICIES.replace("cost_usd", "cost").replace("[tenant, user]", "[tenant, usr]"))

    result = subprocess.run([sys.executable, "-m", "tidegate", "policy", "check", file], capture_output=True, check=False)

    assert result.returncode == 2
    told = result.stderr.decode().splitlines()
    assert len(told) == 3
    assert told[0].endswith("wrong.yaml:4: policy tenant-daily: measure: cost is not known; did you mean cost_usd?")
    assert told[1].endswith("wrong.yaml:12: policy user-hourly: scope: unknown field 'usr'; did you mean user?")
    assert not result.stdout


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        (
            {"scope": ["tenant"], "match": {"environment": "production"}, "warn_at": [0.5, 0.8]},
            "Each tenant (only environment production): cost in any 1h up to $10.00;"
            " at $5.00 and $8.00 a warning; from $10.00 a refusal.",
        ),
        (
            {"limit": "0.0125", "action": {"do": "downgrade", "at": 0.9, "model": "gpt-4o-mini"}},
            "All calls together: cost in any 1h up to $0.0125; at $0.01 a warning; from $0.01125 gpt-4o-mini instead.",
        ),
        (
            {"scope": ["provider_name"], "measure": "error_rate", "limit": 0.25, "warn_at": [],
             "action": {"do": "block", "probe_every": "90s"}},
            "Each provider: share of failed calls in any 1h up to 25 %; from 25 % a refusal, but for one call every 90s.",
        ),
        (
            {"measure": "latency_p95_s", "limit": "2.5", "warn_at": [], "action": "alert",
             "window": {"calendar": "hour", "time_zone": "Europe/Paris"}},
            "All calls together: 95th percentile of latency in an hour (Europe/Paris) up to 2.5 s; from 2.5 s an alert.",
        ),
        (
            {"scope": ["tenant"], "limits": [{"scope": {"tenant": "a"}, "limit": 3}], "warn_at": [],
             "action": {"do": "throttle", "per_minute": 4500}, "measure": "requests"},
            "Each tenant: calls in any 1h up to 10 (1 scope with a limit of their own);"
            " from 100 % at most 4,500 calls a minute.",
        ),
        (
            {"measure": "findings", "finding_type": "phi", "limit": 1, "warn_at": [], "match": {"team": ["a", "b"]}},
            "All calls together (only team a or b): phi findings in any 1h up to 1; from 1 a refusal.",
        ),
        (
            {"measure": "finding_rate", "finding_type": "toxicity", "limit": "0.05", "warn_at": [], "action": "alert"},
            "All calls together: share of judged calls with toxicity findings in any 1h up to 5 %; from 5 % an alert.",
        ),
    ],
)  # fmt: skip
def test_a_policy_is_said_in_one_sentence(fields: dict[str, Any], sentence: str) -> None:
    assert meaning(parsed(policy_text(**fields)).policies[0]) == sentence


def test_a_bound_on_single_calls_is_said_in_one_sentence() -> None:
    bound = parsed(POLICIES).request_limits[0]

    assert request_meaning(bound) == (
        "Any one call (only task type triage): at most 500 output tokens, or it is refused before it costs anything."
    )


def test_amounts_stand_in_the_unit_of_the_limit() -> None:
    def text(measure: str, limit: str | None, **fields: Any) -> str:
        shaped = {"measure": measure, "action": "alert"} | fields
        policy = parsed(policy_text(**shaped, limit=limit or 1)).policies[0]
        return limit_text(policy, None if limit is None else policy.limit)

    assert text("cost_usd", "1234.5") == "$1,234.50"
    assert text("cost_usd", "0.000000001") == "$0.000000001"
    assert text("finding_rate", "0.005") == "0.5 %"
    assert text("total_tokens", "200000") == "200,000"
    assert text("latency_p99_s", "0.75") == "0.75 s"
    assert text("requests", None) == "unlimited"


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"match": {"provider_name": "Azure-OpenAI"}}, "no call has the provider Azure-OpenAI, so nothing matches; write"),
        ({"match": {"model": "gpt4o"}}, "no known model is called gpt4o; if none is, nothing matches"),
        ({"scope": ["user"]}, "users of different tenants that have the same name share one counter"),
        ({"action": {"do": "downgrade", "model": "gpt4o"}}, "no price is known for gpt4o, the model to use instead"),
        ({"measure": "error_rate", "limit": 0.5}, "block without `probe_every` opens only when the window has passed"),
        ({"minimum_requests": 5}, "`minimum_requests` is for rates and quantiles; cost_usd is counted from the first call"),
        ({"stale_after": "1s"}, "`stale_after` below 3s takes every hiccup of the network for silence"),
        ({}, "calls without a known price cost nothing here; a policy on `unpriced` tells when there are any"),
    ],
)
def test_what_is_allowed_and_hardly_meant_is_told(fields: dict[str, Any], sentence: str) -> None:
    told = [text for _, text in advice(parsed(policy_text(**fields)), lambda model: model != "gpt4o")]

    assert [text for text in told if text.startswith(sentence)]


def test_two_policies_that_count_the_same_are_told() -> None:
    text = POLICIES + POLICIES.split("  - name: user-hourly")[0].removeprefix("policies:\n").replace("tenant-daily", "again")
    twice = parsed(
        text.replace("request_limits:\n  - {name: triage-call, match: {task_type: triage}, max_output_tokens: 500}\n", "")
    )

    told = dict(advice(twice, lambda _: True))

    assert told["again"].startswith("counts the same as tenant-daily")


def test_check_shows_what_to_look_at_again(tmp_path: Path) -> None:
    file = tmp_path / "policies.yaml"
    file.write_text(policy_text(scope=["user"], action={"do": "downgrade", "model": "gpt-5-imaginary"}))

    told = run("policy", "check", file)

    assert "Look at this again:" in told
    assert "p: no price is known for gpt-5-imaginary" in told
    assert "is valid: 1 policy, 0 request limits" in told


# list


def test_list_counts_the_scopes_of_each_policy_by_state(data: Callable[..., Path]) -> None:
    folder = data(
        signal(),
        signal(scope={"tenant": "st-anne"}),
        signal(scope={"tenant": "retail-care"}, state="ok", spend=0),
        signal("user-hourly", "throttle", {"tenant": "st-anne", "user": "u7"}, measure="requests", spend=120, limit=100),
    )

    told = run("policy", "list", "--data", folder)

    assert re.search(r"tenant-daily 1 · · · 2 Each tenant: cost", told)
    assert re.search(r"user-hourly · · 1 · · Each tenant and user", told)
    assert "triage-call" in told
    assert f"version {parsed(POLICIES).version or ''}" in told


def test_list_without_policies_says_how_to_have_some(data: Callable[..., Path]) -> None:
    assert "TIDEGATE_POLICY_FILE" in run("policy", "list", "--data", data(policies=""))


@pytest.mark.parametrize("command", [("policy", "list"), ("policy", "explain", "x"), ("signals", "follow")])
def test_a_folder_without_data_is_told_and_not_made(command: tuple[str, ...], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no Tidegate data; give --data DIR"):
        run(*command, "--data", tmp_path / "nowhere")

    assert not (tmp_path / "nowhere").exists()


# explain


def test_explain_tells_everything_about_a_blocked_scope(data: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy_cli.time, "time", lambda: NOW_S + 60.0)
    blocked = signal(
        reserved=500_000_000,
        burn_per_s=1_000_000,
        exhausted_at=NOW_S,
        contributors=[Contributor({"user": "u7"}, 20_000_000_000), Contributor({"user": "u8"}, 6_000_000_000)],
        gates=3,
        since=NOW_S - 7_200,
        owner="finops",
        runbook="https://runbooks.example/budget",
    )
    told = run("policy", "explain", "tenant=harbor-health,team=pharmacy", "--data", data(blocked))

    for line in (
        "BLOCK tenant-daily tenant=harbor-health",
        "why tenant-daily: $26.0000 in this day (America/New_York), limit $25.0000, 104% of it",
        "rule Each tenant: cost in a day (America/New_York) up to $25.00; at $20.00 a warning; from $25.00 a refusal.",
        "window 2026-11-01 23:00:00 EST to 2026-11-02 23:00:00 EST",
        "spend $26.0000, limit $25.0000, 106% of it",
        "reserved $0.5000 by calls in flight",
        "remaining $0.0000",
        "most of it user=u7 $20.0000, user=u8 $6.0000",
        "forecast $3.6000 an hour: the limit is reached",
        "resets 2026-11-02 23:00:00 EST (in 19 h 59 min)",
        "since 2026-11-02 01:00:00 EST (2 h 1 min ago)",
        "told 2026-11-02 03:00:00 EST (1 min ago), sequence 7, to 3 gates",
        "owner finops",
        "runbook https://runbooks.example/budget",
    ):
        assert line in told
    assert "team-monthly has not spoken of it yet: nothing counted, limit $900.00" in told


def test_explain_of_a_scope_shows_the_harshest_first_and_what_is_not_fine_within_it(data: Callable[..., Path]) -> None:
    folder = data(
        signal(state="warn"),
        signal("team-monthly", "block", {"tenant": "harbor-health", "team": "pharmacy"}),
        signal("user-hourly", "throttle", {"tenant": "harbor-health", "user": "u7"}, measure="requests"),
        signal("user-hourly", "ok", {"tenant": "harbor-health", "user": "u8"}, measure="requests"),
        signal("user-hourly", "throttle", {"tenant": "st-anne", "user": "u9"}, measure="requests"),
    )

    told = run("policy", "explain", "tenant=harbor-health,team=pharmacy", "--data", folder)
    elsewhere = run("policy", "explain", "tenant=harbor-health,environment=staging", "--data", folder)

    assert told.index("BLOCK team-monthly") < told.index("WARN tenant-daily")
    assert "Within tenant=harbor-health, team=pharmacy, not fine:" in told
    assert "user=u7" in told.split("not fine:")[1]
    assert "u8" not in told
    assert "u9" not in told
    assert "user-hourly" not in elsewhere  # it matches production only


def test_explain_of_a_scope_nobody_spoke_of_says_that_it_is_free(data: Callable[..., Path]) -> None:
    told = run("policy", "explain", "tenant=new-clinic", "--data", data(signal()))

    assert "tenant-daily has not spoken of it yet: nothing counted, limit $25.00" in told
    assert "No policy has said anything about tenant=new-clinic; its calls go." in told


def test_explain_of_a_policy_shows_its_scopes_or_its_only_one(data: Callable[..., Path]) -> None:
    folder = data(signal(state="warn"), signal(scope={"tenant": "st-anne"}), signal("team-monthly", "ok", {"tenant": None}))

    several = run("policy", "explain", "tenant-daily", "--data", folder)
    one = run("policy", "explain", "team-monthly", "--data", folder)
    none = run("policy", "explain", "user-hourly", "--data", folder)
    bound = run("policy", "explain", "triage-call", "--data", folder)

    assert several.index("tenant=st-anne") < several.index("tenant=harbor-health")
    assert "OK team-monthly tenant=–" in one
    assert "It has not spoken of any scope yet" in none
    assert "at most 500 output tokens" in bound


def test_explain_of_a_misspelt_word_suggests_the_right_one(data: Callable[..., Path]) -> None:
    folder = data(signal())

    with pytest.raises(UsageError, match=r"no policy in force is called tenant-dayly; did you mean tenant-daily\?"):
        run("policy", "explain", "tenant-dayly", "--data", folder)
    with pytest.raises(UsageError, match=r"unknown field 'tennant'; did you mean tenant\?"):
        run("policy", "explain", "tennant=x", "--data", folder)


# follow


def test_follow_shows_who_is_not_fine_then_each_change_until_ctrl_c(
    data: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = data(signal(), signal(scope={"tenant": "st-anne"}, state="ok", spend=0))
    later: list[list[Signal]] = [
        [signal(sequence=8, spend=27_000_000_000), signal(scope={"tenant": "st-anne"}, state="warn", since=5, sequence=8)],
        [signal(scope={"tenant": "st-anne"}, state="warn", since=5, sequence=9)],
        [signal(scope={"tenant": "st-anne"}, state="warn", since=9, sequence=10)],
        [signal(state="ok", sequence=9, spend=0, reason="tenant-daily: $0.0000 in this day")],
        [],
    ]

    def pause(_seconds: float) -> None:
        if not later:
            raise KeyboardInterrupt
        with SqliteLog(folder) as log, log.transaction():
            log.append(SIGNALS.name, 0, [(told.key(), {}, msgspec.json.encode(told)) for told in later.pop(0)])

    monkeypatch.setattr(policy_cli, "_pause", pause)
    told = run("signals", "follow", "--data", folder).splitlines()

    assert [line.split(" tenant-daily:")[0].split(" ", 3)[3] for line in told[1:]] == [
        "block tenant=harbor-health",
        "warn tenant=st-anne",
        "warn tenant=st-anne",
        "ok tenant=harbor-health",
    ]
    assert told[0].startswith("3 policies in force, version")
    assert told[4].endswith("(was block)")


def test_follow_all_shows_every_word_and_what_is_taken_back() -> None:
    class Said:
        def __init__(self, offset: int, key: bytes, value: bytes) -> None:
            self.offset, self.key, self.value = offset, key, value

    words = [signal(), signal(sequence=8, spend=27_000_000_000)]
    records = [Said(number, word.key(), msgspec.json.encode(word)) for number, word in enumerate(words)]
    records.append(Said(2, words[0].key(), b""))

    every = [line.plain for line in policy_cli._told_lines(records, every=True)]
    changes = [line.plain for line in policy_cli._told_lines(records, every=False)]

    assert len(every) == 3
    assert len(changes) == 2
    assert changes[1] == 'taken back: tenant-daily|["harbor-health"]'


# dry-run, as far as it needs no calls


@pytest.mark.parametrize("since", ["yesterday", "7 days", "7w", "2026-13-01"])
def test_dry_run_says_how_to_write_since_when(since: str, data: Callable[..., Path]) -> None:
    with pytest.raises(UsageError, match=f"--since {since}: give a duration such as 7d or 12h, a day such as 2026-11-02"):
        run("policy", "dry-run", EXAMPLE, "--since", since, "--data", data())


def test_dry_run_refuses_a_time_that_runs_backwards(data: Callable[..., Path]) -> None:
    with pytest.raises(UsageError, match="--since must be before --until"):
        run("policy", "dry-run", EXAMPLE, "--since", "2026-11-03", "--until", "2026-11-02T12:00-05:00", "--data", data())
