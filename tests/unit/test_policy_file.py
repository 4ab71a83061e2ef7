"""A policy file is read exactly, named by what it says, followed through its edits, and refused in words that help."""

from __future__ import annotations

import re
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel
from tidegate.processors.policy_file import PolicyWatch, duration_text, parse_policies, read_policies
from tidegate.schemas.errors import UsageError
from tidegate.schemas.policy import (
    Action,
    CalendarWindow,
    Policy,
    PolicySet,
    RequestLimit,
    RollingWindow,
    ScopeLimit,
    parse_duration,
)

ROOT = Path(__file__).parents[2]

DAILY = """\
policies:
  - name: tenant-daily
    scope: [tenant]
    measure: cost_usd
    window: {calendar: day, time_zone: America/New_York}
    limit: 25.10
    action: block
"""
DAILY_TOML = """\
[[policies]]
name = "tenant-daily"
limit = 25.1000
action = "block"
scope = ["tenant"]
measure = "cost_usd"
window.calendar = "day"
window.time_zone = "America/New_York"
"""


def parse(text: str, name: str = "policies.yaml") -> PolicySet:
    return parse_policies(Path(name), text.encode())


def refusal(text: str, name: str = "policies.yaml") -> str:
    with pytest.raises(UsageError) as caught:
        parse(text, name)
    return str(caught.value)


def daily(**changes: str | None) -> str:
    """The daily policy with lines replaced, added or (None) taken away."""
    lines = {line.strip(" -").partition(":")[0]: line for line in DAILY.splitlines()[1:]}
    for key, value in changes.items():
        if value is None:
            del lines[key]
        else:
            lines[key] = f"  {'- ' if key == 'name' else '  '}{key}: {value}"
    return "policies:\n" + "\n".join(lines.values()) + "\n"


# Reading


def test_yaml_and_toml_that_say_the_same_are_the_same_set() -> None:
    from_yaml, from_toml = parse(DAILY), parse(DAILY_TOML, "policies.toml")

    assert from_yaml == from_toml
    assert re.fullmatch(r"[0-9a-f]{12}", from_yaml.version)


def test_money_is_read_from_its_text_not_through_a_float() -> None:
    text = daily(limit="0.100000001")

    assert parse(text).policies[0].limit == Decimal("0.100000001")
    assert parse(DAILY_TOML.replace("25.1000", "0.3"), "p.toml").policies[0].limit == Decimal("0.3")


def test_an_empty_file_is_an_empty_set() -> None:
    for text, name in (("", "p.yaml"), ("# nothing yet\n", "p.yml"), ("", "p.toml"), ("policies: []\n", "p.yaml")):
        assert parse(text, name).policies == ()

    assert parse("", "p.yaml").version == parse("", "p.toml").version == PolicyWatch(None).current.version


def test_anchors_and_merges_save_repetition() -> None:
    text = """\
policies:
  - &base
    name: one
    measure: requests
    window: {rolling: 1h}
    limit: 10
    action: block
  - <<: *base
    name: two
    limit: 20
"""

    one, two = parse(text).policies

    assert (one.limit, two.limit) == (10, 20)
    assert one.window == two.window


@pytest.mark.parametrize(
    "same",
    [
        DAILY + "# a comment\n",
        "\ufeff" + DAILY,
        daily(limit='"25.1"'),
        daily(limit="25.100000000"),
        daily(warn_at="[0.8]"),
        daily(action="{do: block, at: 1}"),
        daily(action=None, actions="[{do: block, at: 1.0}]"),
        daily(stale_after="30s", hold="0"),
    ],
)
def test_the_version_does_not_change_with_how_it_is_written(same: str) -> None:
    assert parse(same).version == parse(DAILY).version


@pytest.mark.parametrize(
    "other",
    [
        daily(limit="25.11"),
        daily(action="alert"),
        daily(scope="[tenant, team]"),
        daily(owner="oncall"),
        daily(window="{calendar: day}"),
        daily(match="{environment: production}"),
    ],
)
def test_the_version_changes_with_what_it_says(other: str) -> None:
    assert parse(other).version != parse(DAILY).version


def test_neither_the_order_of_policies_nor_of_matched_values_is_news() -> None:
    first = daily(match="{team: [billing, triage]}")
    second = daily(name="other", match="{team: [triage, billing]}")
    swapped = daily(match="{team: [triage, billing, triage]}")

    forward = parse(first + second.removeprefix("policies:\n"))
    backward = parse(second + swapped.removeprefix("policies:\n"))

    assert forward.version == backward.version


@given(limit=st.decimals(min_value=0, max_value=10**8, places=9), rolling=st.integers(60, 31 * 86_400))
def test_a_set_survives_the_way_to_a_gate_and_back(limit: Decimal, rolling: int) -> None:
    sent = parse(daily(limit=f'"{limit:f}"', window=f"{{rolling: {rolling}}}"))

    heard = PolicySet.model_validate_json(sent.model_dump_json())

    assert heard == sent
    assert heard.policies[0].limit == limit


@given(st.integers(1, 31 * 86_400))
def test_a_duration_reads_as_it_is_written(seconds: int) -> None:
    assert parse_duration(duration_text(seconds)) == seconds


# Refusing: the whole sentence, because a person will read it


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            daily(measure="cost_us"),
            "policies.yaml:4: policy tenant-daily: measure: cost_us is not known; did you mean cost_usd?",
        ),
        (
            daily(scope="[tenent]"),
            "policies.yaml:3: policy tenant-daily: scope: unknown field 'tenent'; did you mean tenant?",
        ),
        (
            daily(match="{enviroment: production}"),
            "policies.yaml:8: policy tenant-daily: match: unknown field 'enviroment'; did you mean environment?",
        ),
        (daily(lmit="3"), "policies.yaml:8: policy tenant-daily: lmit: not a key of a policy; did you mean limit?"),
        (
            daily(window="{calender: day}"),
            "policies.yaml:5: policy tenant-daily: window: a window is either `rolling: 24h`,"
            " or `calendar: day` with a `time_zone`",
        ),
        (
            daily(window="{calendar: day, timezone: UTC}"),
            "policies.yaml:5: policy tenant-daily: window.timezone: not a key of a window; did you mean time_zone?",
        ),
        (
            daily(window="{calendar: dayly}"),
            "policies.yaml:5: policy tenant-daily: window.calendar: dayly is not known; did you mean day?",
        ),
        (daily(window="{rolling: 32d}"), "policies.yaml:5: policy tenant-daily: window.rolling: must be at most 31d"),
        (
            daily(window="{rolling: 1 day}"),
            "policies.yaml:5: policy tenant-daily: window.rolling: write a duration such as 30s, 15m, 24h or 31d",
        ),
        (
            daily(window="{calendar: day, time_zone: New_York}"),
            "policies.yaml:5: policy tenant-daily: window.time_zone: unknown time zone 'New_York';"
            " use a name such as America/New_York",
        ),
        (
            daily(action=None),
            "policies.yaml:2: policy tenant-daily: actions: missing; say what happens at the limit, such as `action: block`",
        ),
        (
            daily(action="stop"),
            "policies.yaml:7: policy tenant-daily: action: stop is not known; choose from alert, throttle, downgrade, block",
        ),
        (daily(action="throttle"), "policies.yaml:7: policy tenant-daily: action: the action throttle needs `per_minute`"),
        (
            daily(action="{do: block, model: gpt-4o-mini}"),
            "policies.yaml:7: policy tenant-daily: action: `model` belongs to the action downgrade, not to block",
        ),
        (
            daily(action=None, actions="[{do: alert}, {do: block, probe: 5s}]"),
            "policies.yaml:7: policy tenant-daily: actions[1].probe: not a key of an action; did you mean probe_every?",
        ),
        (daily(limit="lots"), "policies.yaml:6: policy tenant-daily: limit: must be a number such as 25.50"),
        (daily(limit="-1"), "policies.yaml:6: policy tenant-daily: limit: must be at least 0"),
        (daily(limit="yes"), "policies.yaml:6: policy tenant-daily: limit: must be a number such as 25.50"),
        (
            daily(limit="010"),
            "policies.yaml:6: 010 is not a plain number; write it in digits, or as text in quotes",
        ),
        (daily(limit=".inf"), "policies.yaml:6: .inf is not a decimal number; write one such as 25.50"),
        (daily(limit=None), "policies.yaml:2: policy tenant-daily: has no limit; give `limit`, or `limits` by scope"),
        (
            daily(match="{prompt_version: 2.10}"),
            "policies.yaml:8: policy tenant-daily: match.prompt_version: must be a list",
        ),
        (
            daily(match="{prompt_version: [2.10]}"),
            "policies.yaml:8: policy tenant-daily: match.prompt_version[0]: must be text; put it in quotes",
        ),
        (
            daily(name="tenant daily"),
            "policies.yaml:2: policy tenant daily: name: may hold letters, digits and _ . : / - only",
        ),
        (DAILY + "    limit: 30\n", "policies.yaml:8: `limit` is given twice, first in line 6; keep one"),
        (DAILY + "polices: []\n", "policies.yaml:8: polices: not a key of a policy file; did you mean policies?"),
        (DAILY + "version: 3\n", "policies.yaml:8: `version` is told from what the file says; remove it"),
        (
            DAILY + DAILY.removeprefix("policies:\n"),
            "policies.yaml:1: two policies are called 'tenant-daily'; a name says which one spoke",
        ),
        ("- name: x\n", "policies.yaml: must hold the lists `policies` and `request_limits`"),
        ("policies: {name: x}\n", "policies.yaml:1: policies: must be a list"),
        ("request_limits: [{name: big}]", "policies.yaml:1: request limit big: bounds nothing; give `max_input_tokens`,"),
        ("policies: [\n", "policies.yaml:2: expected the node content, but found '<stream end>'; correct the YAML"),
        ("yes: 1\n", "policies.yaml:1: a key must be text; put it in quotes"),
    ],
)
def test_what_is_wrong_is_said_with_its_place_and_what_to_do(text: str, sentence: str) -> None:
    assert refusal(text).startswith(sentence)
    assert len(refusal(text).splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            daily(warn_at="[0.9]", action="{do: block, at: 0.8}"),
            "`warn_at` 0.9 comes after block at 0.8 and would never be heard; warn earlier",
        ),
        (
            daily(action=None, actions="[{do: block, at: 0.8}, {do: downgrade, at: 1, model: gpt-4o-mini}]"),
            "downgrade at 1 comes after block at 0.8 and would never be heard",
        ),
        (
            daily(action=None, actions="[{do: downgrade, at: 0.5, model: m}, {do: throttle, at: 0.9, per_minute: 6}]"),
            "throttle at 0.9 is milder than downgrade at 0.5 and would never be heard",
        ),
        (
            daily(action=None, actions="[{do: block}, {do: downgrade, model: gpt-4o-mini}]"),
            "block and downgrade are both at 1; only one can be obeyed",
        ),
        (
            daily(match="{model: [gpt-4o]}", action="{do: downgrade, model: gpt-4o}"),
            "downgrade to gpt-4o leads back into the models that `match` watches; use another",
        ),
        (daily(measure="latency_p95_s"), "block on latency_p95_s needs `probe_every`"),
        (daily(finding_type="phi"), "`finding_type` belongs to the measures findings and finding_rate"),
        (
            daily(measure="findings", limit="1", scope="[tenant, label.ward]"),
            "findings cannot go by label.ward: a verdict does not know the labels of its call",
        ),
        (
            daily(measure="finding_rate", limit="0.5", match="{label.ward: north}"),
            "finding_rate cannot go by label.ward: a verdict does not know the labels of its call",
        ),
        (daily(measure="error_rate"), "a limit of error_rate is a share from 0 to 1, such as 0.25"),
        (
            daily(measure="error_rate", limit="0.5", action="{do: block, at: 3}"),
            "block at 3 × 0.5 is more than everything; it is never reached",
        ),
        (daily(measure="unpriced", limit="0"), "a limit of 0 for unpriced is always reached, even with no calls; 1 speaks"),
        (daily(measure="requests", limit="2.5"), "a limit of requests is a whole number"),
        (daily(limit="0.0000000001"), "a limit in dollars has at most nine decimals"),
        (daily(limit="2_000_000_000"), "a limit above 1,000,000,000 is none; leave it out, or write null"),
        (
            daily(limits="[{scope: {tenant: a}, limit: 1}, {scope: {tenant: a}, limit: 2}]"),
            "two rows of `limits` speak of tenant=a; keep one",
        ),
        (
            daily(match="{tenant: [b]}", limits="[{scope: {tenant: a}, limit: 1}]"),
            "the row of `limits` for tenant=a is never used: `match` lets no tenant=a in",
        ),
        (
            daily(limits="[{scope: {team: a}, limit: 1}]"),
            "each row of `limits` must name exactly the scope fields: tenant",
        ),
        (daily(limit="null", limits="[{scope: {tenant: a}, limit: null}]"), "has no limit"),
    ],
)
def test_a_policy_that_contradicts_itself_is_refused(text: str, sentence: str) -> None:
    assert f"policy tenant-daily: {sentence}" in refusal(text).replace(": actions: ", ": ")


def test_every_problem_is_told_at_once() -> None:
    text = daily(measure="cost", limit="much") + daily(name="second", scope="[nobody]").removeprefix("policies:\n")

    told = refusal(text).splitlines()

    assert [line.split(": ")[1:3] for line in told] == [
        ["policy tenant-daily", "measure"],
        ["policy tenant-daily", "limit"],
        ["policy second", "scope"],
    ]


def test_toml_is_refused_by_line_where_its_syntax_is_wrong_and_by_name_where_it_is_not() -> None:
    assert refusal("a = = 1\n", "p.toml").startswith("p.toml:1: Invalid value; correct the TOML")
    assert refusal(DAILY_TOML.replace("cost_usd", "cost"), "p.toml").startswith("p.toml: policy tenant-daily: measure: cost is")


def test_a_file_that_cannot_be_read_says_which(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nowhere\.yaml: cannot be read \(No such file or directory\); check the path"):
        read_policies(tmp_path / "nowhere.yaml")
    with pytest.raises(UsageError, match="name the policy file"):
        parse_policies(Path("policies.json"), b"{}")
    with pytest.raises(UsageError, match="is not UTF-8 text"):
        parse_policies(Path("policies.yaml"), b"\xff\xfe")
    with pytest.raises(UsageError, match="is nested too deeply"):
        parse_policies(Path("policies.yaml"), b"[" * 5_000)


def test_a_default_warning_steps_aside_for_an_action_that_comes_before_it() -> None:
    early = parse(daily(action="{do: block, at: 0.5}")).policies[0]
    together = parse(daily(action="{do: block, at: 0.8}")).policies[0]

    assert early.warn_at == ()
    assert together.warn_at == (0.8,)


def test_actions_stand_in_the_order_in_which_they_are_reached() -> None:
    policy = parse(daily(action=None, actions="[{do: block}, {do: downgrade, at: 0.8, model: gpt-4o-mini}]")).policies[0]

    assert [action.do for action in policy.actions] == ["downgrade", "block"]


# Watching


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "policies.yaml"
    path.write_text(DAILY)
    return path


def test_an_edit_counts_at_the_next_look(file: Path) -> None:
    watch = PolicyWatch(file)
    assert watch.poll(100.0) is None

    file.write_text(daily(limit="30"))

    assert watch.poll(100.5) is None  # at most one look a second
    found = watch.poll(101.0)
    assert found is watch.current
    assert watch.current.policies[0].limit == 30
    assert watch.poll(102.0) is None


def test_an_edit_within_the_same_tick_of_the_files_clock_is_seen(file: Path) -> None:
    import os

    watch = PolicyWatch(file)
    stamp = file.stat()
    watch.poll(0)

    file.write_text(daily(limit="25.11"))
    os.utime(file, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))

    assert file.stat().st_size == stamp.st_size
    assert watch.poll(1) is not None


def test_an_edit_that_says_the_same_is_no_news(file: Path) -> None:
    watch = PolicyWatch(file)

    file.write_text(DAILY + "# harbor asked for this\n")

    assert watch.poll(0) is None
    assert watch.problem is None


def test_a_bad_edit_keeps_the_set_and_says_so_until_it_is_mended(file: Path) -> None:
    watch = PolicyWatch(file)
    before = watch.current

    file.write_text(daily(measure="cost_us"))
    polls = [watch.poll(at) for at in range(5)]

    assert polls == [None] * 5
    assert watch.current is before
    assert watch.problem is not None
    assert "did you mean cost_usd?" in watch.problem
    file.write_text(DAILY)
    assert watch.poll(5) is None
    assert watch.problem is None


def test_a_file_caught_half_written_changes_nothing(file: Path) -> None:
    watch = PolicyWatch(file)

    for half in ("", DAILY[:60], "policies:\n"):
        file.write_text(half)
        assert watch.poll(0) is None
        file.write_text(DAILY)
        assert watch.poll(1) is None
        watch = PolicyWatch(file)

    assert watch.problem is None
    assert watch.current.policies[0].name == "tenant-daily"


def test_policies_that_are_gone_for_good_go_at_the_second_look(file: Path) -> None:
    watch = PolicyWatch(file)

    file.write_text("policies: []\n")

    assert watch.poll(0) is None
    assert watch.poll(1) == watch.current
    assert watch.current.policies == ()
    assert watch.problem is None


def test_a_file_that_disappears_takes_its_policies_with_it_and_is_a_problem(file: Path) -> None:
    watch = PolicyWatch(file)

    file.unlink()

    assert watch.poll(0) is None
    assert watch.poll(1) is watch.current
    assert watch.current.policies == ()
    assert watch.problem is not None
    assert "is gone" in watch.problem
    file.write_text(DAILY)
    assert watch.poll(2) is watch.current
    assert watch.problem is None


def test_without_a_file_nothing_is_in_force_until_one_comes(tmp_path: Path) -> None:
    path = tmp_path / "policies.yaml"
    watch = PolicyWatch(path)
    assert watch.poll(0) is None
    assert watch.problem is None

    path.write_text(DAILY)

    assert watch.poll(1) is watch.current
    assert len(watch.current.policies) == 1
    assert PolicyWatch(None).poll(0) is None


def test_a_bad_file_at_the_start_is_refused_or_the_last_set_goes_on(file: Path) -> None:
    last = read_policies(file)
    file.write_text("policies: 3\n")

    with pytest.raises(UsageError, match="must be a list"):
        PolicyWatch(file)
    watch = PolicyWatch(file, last)

    assert watch.current is last
    assert watch.problem is not None
    assert watch.poll(0) is None
    file.write_text(daily(limit="30"))
    assert watch.poll(1) is watch.current
    assert watch.problem is None


# The example and the reference


def test_the_example_file_is_valid_and_shows_every_kind_of_policy() -> None:
    found = read_policies(ROOT / "docs" / "examples" / "policies.yaml")

    measures = {policy.measure for policy in found.policies}
    actions = {action.do for policy in found.policies for action in policy.actions}
    assert measures >= {"cost_usd", "total_tokens", "requests", "error_rate", "latency_p95_s", "unpriced", "findings"}
    assert actions == {"alert", "throttle", "downgrade", "block"}
    assert any(policy.limits for policy in found.policies)
    assert found.request_limits


@pytest.mark.parametrize(
    "model", [Policy, Action, ScopeLimit, RollingWindow, CalendarWindow, RequestLimit, PolicySet], ids=lambda m: m.__name__
)
def test_the_reference_explains_every_field(model: type[BaseModel]) -> None:
    page = (ROOT / "docs" / "policies.md").read_text()

    for name in model.model_fields:
        assert f"`{name}`" in page, f"docs/policies.md does not explain {model.__name__}.{name}"


def test_the_reference_names_every_measure_and_action() -> None:
    page = (ROOT / "docs" / "policies.md").read_text()
    words: list[Any] = [*Policy.model_fields["measure"].annotation.__args__, *Action.model_fields["do"].annotation.__args__]  # type: ignore[union-attr]

    assert [word for word in words if f"`{word}`" not in page] == []
