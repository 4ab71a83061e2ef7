"""The console's way down to calls, findings and transcripts, its budgets and its desk: on a real node whose store is known."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest
from console_visitor import Visitor, granted
from node_process import NodeProcess, eventually
from support import ndjson, response
from tidegate.sinks.clickhouse import Store

NOW: Final = datetime.now(UTC).replace(microsecond=0) - timedelta(minutes=10)
PERSON: Final = "ann.example"
# Of the tenant's spend in a day; a call below costs 0.0035.
LIMIT: Final = 0.01
POLICY: Final = f"""
policies:
  - name: tenant-day
    scope: [tenant]
    measure: cost_usd
    window: {{calendar: day}}
    limit: {LIMIT}
    action: block
    owner: finops
  - name: user-hour
    scope: [tenant, user]
    measure: requests
    window: {{rolling: 1h}}
    limit: 1
    action: block
"""
ORDERS: Final = {"newest": "started_at", "slowest": "latency_s", "dearest": "cost_usd", "errors": "started_at"}


def called(n: int) -> dict[str, Any]:
    """A call of the store's; every seventh failed, every fifth has no known price."""
    failed = n % 7 == 0
    return {
        "event": "response",
        "call_id": f"call-{n}",
        "started_at": f"{NOW + timedelta(milliseconds=n * 10):%Y-%m-%d %H:%M:%S.%f}",
        "tenant": "lakeview" if n % 2 else "northside",
        "team": "triage",
        "user": PERSON,
        "labels": {"ward": "7 north"},
        "provider_name": "openai",
        "request_model": "gpt-4o" if n % 3 else "gpt-4o-mini",
        "prompt_name": "triage",
        "prompt_version": "2" if n % 4 else "1",
        "input_tokens": 100 + n,
        "output_tokens": n,
        "latency_s": None if failed else (n * 37 % 101) / 10,
        "error_type": "rate_limit" if failed else "",
        "cost_nano_usd": None if n % 5 == 0 else (n * 53 % 97) * 1_000_000,
        "price_status": "unpriced" if n % 5 == 0 else "priced",
        "price_book": "" if n % 5 == 0 else "book-1",
        "producer": "filled",
        "seq": n,
        "ingested_at": f"{NOW:%Y-%m-%d %H:%M:%S}",
    }


CALLS: Final = [called(n) for n in range(140)]
VERDICT: Final = {
    "event": "scored",
    **{name: CALLS[1][name] for name in ("call_id", "started_at", "tenant", "team", "user", "request_model")},
    **{"prompt_name": "triage", "prompt_version": "2", "outcome": "scored", "scores": {"response.toxicity": 0.25}},
    "scored_at": f"{NOW:%Y-%m-%d %H:%M:%S}",
    "findings": [
        {"detector": "phi", "type": "PERSON", "where": "prompt", "start": 0, "end": 11, "score": 0.9, "leak": True},
        {"detector": "injection", "type": "JAILBREAK", "where": "prompt", "start": 20, "end": 26, "score": 0.8},
    ],
    **{"producer": "guardrails:filled", "seq": 1, "ingested_at": f"{NOW:%Y-%m-%d %H:%M:%S}"},
}
# "Ann Example asks to ignore it"
TRANSCRIPT: Final = {
    **{name: CALLS[1][name] for name in ("call_id", "started_at", "tenant", "team", "user", "request_model")},
    **{
        "redaction": "tag",
        "redacted_prompt": "<PERSON> asks to ignore it",
        "redacted_response": None,
        "redacted_context": ["c"],
    },
    **{"producer": "filled", "seq": 1, "ingested_at": f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S}"},
}
PRICE: Final = {
    **{"provider_name": "openai", "model": "gpt-4o", "service_tier": "standard", "tenant": "", "price_book": "book-1"},
    **{"valid_from": "2020-01-01 00:00:00", "above_input_tokens": 0, "input_nano_usd_per_million": 2_500_000_000},
    **{"output_nano_usd_per_million": 10_000_000_000, "at": "2026-01-01 00:00:00"},
}


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    folder = tmp_path_factory.mktemp("drill")
    (folder / "policies.yaml").write_text(POLICY)
    with Store.open(path=folder / "data" / "store") as store:
        store.migrate()
        for table, rows in (("calls", CALLS), ("scored_calls", [VERDICT]), ("transcripts", [TRANSCRIPT]), ("prices", [PRICE])):
            store.insert(table, ndjson(rows), f"filled:{table}")
    settings = {"TIDEGATE_GUARD": "false", "TIDEGATE_POLICY_FILE": str(folder / "policies.yaml")}
    with NodeProcess(folder / "data", **settings) as running:
        now = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
        spent = [response(f"spent-{n}", tenant="harbor-health", user=PERSON, started_at=now) for n in range(3)]
        assert running.post(spent).status == 202
        running.settled()
        yield running


@pytest.fixture(scope="module")
def people(node: NodeProcess) -> Mapping[str, Visitor]:
    roles = ("viewer", "oncall", "analyst", "compliance")
    found = {role: Visitor(node).signed_in(granted(node, "--role", role, "--name", f"{role} bob")) for role in roles}
    return found | {"operator": Visitor(node).signed_in(node.token), "nobody": Visitor(node)}


def everything(visitor: Visitor, **query: str) -> list[dict[str, Any]]:
    """All pages of calls."""
    found: list[dict[str, Any]] = []
    after: dict[str, str] = {}
    while True:
        page = visitor.get("/console/calls", **(query | after))
        found += page["calls"]
        if page["next"] is None:
            return found
        after = {"after": page["next"]}


def filled(found: list[dict[str, Any]]) -> list[str]:
    return [call["call_id"] for call in found if call["call_id"].startswith("call-")]


# ---- who may what


GATED: Final = [
    ("GET", "/console/budgets", {"nobody", "viewer", "oncall", "analyst", "compliance", "operator"}),
    ("GET", "/console/incidents", {"nobody", "viewer", "oncall", "analyst", "compliance", "operator"}),
    ("GET", "/console/calls", {"analyst", "compliance", "operator"}),
    ("GET", "/console/calls/call-1", {"analyst", "compliance", "operator"}),
    ("GET", "/console/findings", {"analyst", "compliance", "operator"}),
    ("GET", "/console/transcripts/call-1", {"compliance", "operator"}),
    ("POST", "/console/incidents/999/ack", {"oncall", "operator"}),
    ("POST", "/console/silences", {"oncall", "operator"}),
    ("DELETE", "/console/silences/none", {"oncall", "operator"}),
]


@pytest.mark.parametrize(("method", "path", "may"), GATED)
def test_each_door_opens_to_the_roles_that_have_its_right(
    people: Mapping[str, Visitor], method: str, path: str, may: set[str]
) -> None:
    opened = set()
    for role, person in people.items():
        status = person.ask(method, path).status
        # Nothing is there to be acknowledged or silenced: that is said only to those who may.
        assert status in (200, 400, 401, 403)
        if status in (200, 400):
            opened.add(role)
        else:
            assert status == (401 if role == "nobody" else 403)

    assert opened == may


@pytest.mark.parametrize("path", ["/console/incidents/1/ack", "/console/silences"])
def test_another_sites_page_says_nothing_in_somebodys_name(people: Mapping[str, Visitor], path: str) -> None:
    body = {"match": {"tenant": "*"}, "for": "1h"}

    assert people["operator"].ask("POST", path, body, Origin="https://evil.example").status == 403
    assert people["operator"].ask("DELETE", "/console/silences/x", **{"Sec-Fetch-Site": "cross-site"}).status == 403
    assert people["operator"].get("/console/incidents")["windows"] == []


# ---- calls


@pytest.mark.parametrize("order", ORDERS)
def test_the_pages_of_an_order_hold_each_call_once_and_in_it(people: Mapping[str, Visitor], order: str) -> None:
    got = filled(everything(people["operator"], range="1h", order=order))

    def place(call: dict[str, Any]) -> tuple[float, int]:
        key = {"slowest": call["latency_s"], "dearest": call["cost_nano_usd"]}.get(order)
        return (key if key is not None else 0, call["seq"])

    known = [
        call
        for call in CALLS
        if not (order == "slowest" and call["latency_s"] is None)
        and not (order == "dearest" and call["cost_nano_usd"] is None)
        and not (order == "errors" and not call["error_type"])
    ]
    assert got == [call["call_id"] for call in sorted(known, key=place, reverse=True)]


@pytest.mark.parametrize(
    "wanted",
    [
        {"tenant": "lakeview"},
        {"model": "gpt-4o-mini", "tenant": "northside"},
        {"prompt": "triage@1"},
        {"prompt": "triage"},
        {"error_type": "rate_limit"},
        {"team": "triage", "provider_name": "openai"},
        {"tenant": "nobody"},
    ],
)
def test_a_drill_down_shows_the_calls_it_names_and_no_others(people: Mapping[str, Visitor], wanted: dict[str, str]) -> None:
    got = filled(everything(people["operator"], range="1h", **wanted))

    def fits(call: dict[str, Any]) -> bool:
        own = call | {"model": call["request_model"], "prompt": f"triage@{call['prompt_version']}"}
        return all(own[name] == value or (name, value) == ("prompt", "triage") for name, value in wanted.items())

    assert sorted(got) == sorted(call["call_id"] for call in CALLS if fits(call))


def test_a_moment_holds_its_calls_and_not_its_end(people: Mapping[str, Visitor]) -> None:
    since, until = NOW + timedelta(milliseconds=100), NOW + timedelta(milliseconds=200)

    got = filled(everything(people["operator"], since=since.isoformat(), until=until.isoformat()))

    assert got == [f"call-{n}" for n in range(19, 9, -1)]


@pytest.mark.parametrize(
    "query", ["order=best", "after=nonsense", "after=W10=", "tenant=" + "x" * 129, "since=2026-01-01", "range=forever"]
)
def test_what_cannot_be_asked_is_told_so(people: Mapping[str, Visitor], query: str) -> None:
    answer = people["operator"].ask("GET", f"/console/calls?{query}")

    assert answer.status == 400
    assert json.loads(answer.data)["error"]


def test_a_call_is_told_with_its_price_its_verdict_and_what_was_found(people: Mapping[str, Visitor]) -> None:
    told = people["analyst"].get("/console/calls/call-1")

    call = told["call"]
    assert (call["cost_usd"], call["input_tokens"], call["price_status"]) == (0.053, 101, "priced")
    assert call["error_type"] is None
    assert call["cache_read_tokens"] is None
    assert told["price"]["input_usd_per_million"] == 2.5
    assert told["verdict"]["scores"] == {"response.toxicity": 0.25}
    assert [(one["detector"], one["type"], one["leak"]) for one in told["findings"]] == [
        ("phi", "PERSON", True),
        ("injection", "JAILBREAK", False),
    ]
    unpriced = people["analyst"].get("/console/calls/call-5")
    assert (unpriced["call"]["cost_usd"], unpriced["price"], unpriced["verdict"], unpriced["findings"]) == (
        None,
        None,
        None,
        [],
    )
    assert people["analyst"].ask("GET", "/console/calls/call-none").status == 404


def test_a_silence_of_an_incident_is_of_its_scope_as_it_is(node: NodeProcess, people: Mapping[str, Visitor]) -> None:
    oncall = people["oncall"]
    [incident] = eventually(lambda: of_policy(oncall.get("/console/incidents"), "user-hour"), bool)
    made = json.loads(oncall.ask("POST", "/console/silences", {"incident": incident["number"], "for": "1h"}).data)["id"]
    asked = f"SELECT scope FROM alerts WHERE key = '{made}' AND kind = 'silenced'"

    said = eventually(lambda: node.rows(asked), bool)

    assert said == [{"scope": {"policy": "user-hour", "tenant": "harbor-health", "user": PERSON}}]
    [window] = eventually(lambda: oncall.get("/console/incidents")["windows"], bool)
    assert window["match"]["user"] == incident["scope"]["user"] != PERSON
    assert oncall.ask("DELETE", f"/console/silences/{made}").status == 200
    assert eventually(lambda: oncall.get("/console/incidents")["windows"], lambda found: not found) == []
    for wrong in ({"incident": 999}, {"incident": incident["number"], "match": {"tenant": "a"}}):
        assert oncall.ask("POST", "/console/silences", wrong).status == 400


def test_a_user_is_named_to_those_who_may_know_and_a_digest_to_others(people: Mapping[str, Visitor]) -> None:
    told = {role: people[role].get("/console/calls/call-1")["call"] for role in ("analyst", "operator", "compliance")}
    users = {role: call["user"] for role, call in told.items()}
    labels = {role: call["labels"]["ward"] for role, call in told.items()}
    again = people["compliance"].get("/console/calls", range="1h")["calls"]

    assert users["analyst"] == users["operator"] == PERSON
    assert users["compliance"].startswith("user-")
    assert labels["analyst"] == labels["operator"] == "7 north"
    assert labels["compliance"].startswith("ward-")
    assert {call["user"] for call in again} == {users["compliance"]}


def test_findings_are_told_by_type_and_never_with_a_text(people: Mapping[str, Visitor]) -> None:
    told = people["compliance"].get("/console/findings", range="1h")["findings"]
    leaks = people["compliance"].get("/console/findings", range="1h", type="PERSON")["findings"]

    assert [(one["call_id"], one["type"], one["found_in"]) for one in told] == [
        ("call-1", "PERSON", "prompt"),
        ("call-1", "JAILBREAK", "prompt"),
    ]
    assert [one["type"] for one in leaks] == ["PERSON"]
    assert people["compliance"].get("/console/findings", range="1h", detector="bias")["findings"] == []
    assert PERSON not in json.dumps(told)


def test_a_transcript_is_shown_with_its_places_and_the_read_is_written_down(
    node: NodeProcess, people: Mapping[str, Visitor]
) -> None:
    told = people["compliance"].get("/console/transcripts/call-1")
    missing = people["compliance"].ask("GET", "/console/transcripts/call-2")

    assert told["redaction"] == "tag"
    assert [(text["where"], text["text"]) for text in told["texts"]] == [
        ("prompt", "<PERSON> asks to ignore it"),
        ("context", "c"),
    ]
    marked = {one["type"]: told["texts"][0]["text"][one["start"] : one["end"]] for one in told["texts"][0]["marks"]}
    assert marked == {"PERSON": "<PERSON>", "JAILBREAK": "ignore"}
    assert missing.status == 404
    entries = [json.loads(line) for line in (node.data_dir / "audit.jsonl").read_bytes().splitlines()]
    read = [entry for entry in entries if entry["action"] == "transcripts.read" and entry["details"]["call_ids"] == ["call-1"]]
    assert read[-1]["details"]["door"] == "console"
    assert read[-1]["actor"].startswith("token:")


# ---- budgets


def test_a_budget_is_told_with_what_is_left_and_why_calls_are_refused(people: Mapping[str, Visitor]) -> None:
    budgets = people["nobody"].get("/console/budgets")["budgets"]

    [day] = [one for one in budgets if one["policy"] == "tenant-day" and one["scope"] == {"tenant": "harbor-health"}]
    # Three calls of 1,000 tokens in and 100 out, at 2.50 and 10.00 dollars a million.
    assert day["spend"] == pytest.approx(3 * 0.0035)
    assert (day["limit"], day["remaining"], day["state"], day["unit"]) == (LIMIT, 0.0, "block", "usd")
    assert day["share"] == pytest.approx(3 * 0.0035 / LIMIT)
    assert "calls are refused" in day["why"]
    assert day["rule"].startswith("Each tenant: cost in a day (UTC) up to $0.01")
    assert day["window_start"].endswith("T00:00:00Z")
    assert day["points"][-1][1] == 0.0
    assert all(left is None or 0 <= left <= LIMIT for _, left in day["points"])
    assert [at for at, _ in day["points"]] == sorted(at for at, _ in day["points"])
    assert [one["state"] for one in budgets] == ["block", "block"]


def test_no_person_is_named_in_budgets_incidents_or_the_live_stream(people: Mapping[str, Visitor]) -> None:
    told = [people["nobody"].get("/console/budgets"), people["nobody"].get("/console/incidents")]
    with people["nobody"].stream(board="budgets", range="1h") as stream:
        seen: set[str] = set()
        for name, data in stream:
            told.append(data)
            seen.add(name)
            if {"status", "incidents", "budgets", "panel"} <= seen:
                break

    assert PERSON not in json.dumps(told)
    of_users = [one for one in told[0]["budgets"] if one["policy"] == "user-hour"]
    assert [one["scope"]["user"].startswith("user-") for one in of_users] == [True]


def test_budgets_of_one_tenant_are_its_own(people: Mapping[str, Visitor]) -> None:
    assert people["viewer"].get("/console/budgets", tenant="lakeview")["budgets"] == []
    assert len(people["viewer"].get("/console/budgets", tenant="harbor-health")["budgets"]) == 2


# ---- incidents


def of_policy(told: Any, policy: str) -> list[dict[str, Any]]:
    return [one for one in told["incidents"] if one["policy"] == policy]


def test_an_incident_is_acknowledged_in_the_name_of_who_signed_in(node: NodeProcess, people: Mapping[str, Visitor]) -> None:
    oncall = people["oncall"]
    [incident] = eventually(lambda: of_policy(oncall.get("/console/incidents"), "tenant-day"), bool)

    with people["viewer"].stream(board="overview") as stream:
        said = oncall.ask("POST", f"/console/incidents/{incident['number']}/ack")
        told = stream.until(
            lambda name, data: name == "incidents" and of_policy(data, "tenant-day")[0]["phase"] == "acknowledged"
        )

    assert said.status == 200
    assert (incident["severity"], incident["state"], incident["scope"]) == ("critical", "block", {"tenant": "harbor-health"})
    assert of_policy(told, "tenant-day")[0]["acknowledged_by"] == "oncall bob"
    entries = [json.loads(line) for line in (node.data_dir / "audit.jsonl").read_bytes().splitlines()]
    [entry] = [one for one in entries if one["action"] == "incident.acknowledged"]
    assert entry["details"] == {"incidents": [incident["number"]], "by": "oncall bob"}
    assert entry["actor"].startswith("token:")


def test_an_incident_that_is_resolved_is_no_longer_open(people: Mapping[str, Visitor]) -> None:
    oncall = people["oncall"]
    [incident] = eventually(lambda: of_policy(oncall.get("/console/incidents"), "user-hour"), bool)

    assert oncall.ask("POST", f"/console/incidents/{incident['number']}/resolve", {}).status == 200

    assert eventually(lambda: of_policy(oncall.get("/console/incidents"), "user-hour"), lambda found: not found) == []
    again = oncall.ask("POST", f"/console/incidents/{incident['number']}/resolve", {})
    assert (again.status, b"no incident" in again.data) == (400, True)
    assert oncall.ask("POST", f"/console/incidents/{incident['number']}/shout", {}).status == 404


def test_a_silence_is_said_told_and_taken_back(people: Mapping[str, Visitor]) -> None:
    oncall = people["oncall"]
    asked = {"match": {"tenant": "batch", "user": PERSON}, "for": "2h", "why": "a load test"}

    made = json.loads(oncall.ask("POST", "/console/silences", asked).data)["id"]
    [window] = eventually(lambda: oncall.get("/console/incidents")["windows"], bool)
    back = oncall.ask("DELETE", f"/console/silences/{made}")
    left = eventually(lambda: oncall.get("/console/incidents")["windows"], lambda found: not found)

    assert (window["id"], window["by"], window["why"]) == (made, "oncall bob", "a load test")
    assert window["match"]["tenant"] == "batch"
    assert window["match"]["user"] != PERSON
    assert (back.status, left) == (200, [])


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"match": {}},
        {"match": {"tenant": 5}},
        {"match": {"tenant": "a"}, "for": "a while"},
        {"match": {"tenant": "a"}, "for": "32d"},
        {"match": {"tenant": "a"}, "why": "x" * 501},
        {"match": "tenant=a"},
    ],
)
def test_a_silence_that_cannot_be_understood_is_told_so(people: Mapping[str, Visitor], body: dict[str, Any]) -> None:
    answer = people["oncall"].ask("POST", "/console/silences", body)

    assert answer.status == 400
    assert json.loads(answer.data)["error"]
