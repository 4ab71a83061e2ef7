"""The console's doors on a real node, over real HTTP: who may what, what is shown, and what is told as it changes."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest
from console_visitor import Visitor, granted
from node_process import NodeProcess, eventually, tidegate
from support import response
from tidegate.bench.chdb_server import ChdbServer
from tidegate.console_cli import open_in_browser
from tidegate.dashboards.boards import BOARDS

ROLES: Final = ("viewer", "oncall", "analyst", "compliance")
RIGHTS: Final[dict[str, list[str]]] = {
    "viewer": ["look"],
    "oncall": ["look", "act"],
    "analyst": ["look", "calls"],
    "compliance": ["look", "calls", "transcripts"],
    "operator": ["look", "calls", "transcripts", "act"],
}
NOW: Final = datetime.now(UTC).replace(microsecond=0)


def calls(count: int, **fields: Any) -> list[dict[str, Any]]:
    started = f"{NOW - timedelta(minutes=5):%Y-%m-%dT%H:%M:%SZ}"
    return [
        response(f"{fields.get('tenant', 'harbor-health')}-{n}", **({"started_at": started} | fields)) for n in range(count)
    ]


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    folder = tmp_path_factory.mktemp("console")
    with NodeProcess(folder / "data", TIDEGATE_TOKEN="open-sesame", TIDEGATE_GUARD="false") as running:
        answer = running.post(calls(3) + calls(2, tenant="hill"), {"Authorization": "Bearer open-sesame"})
        assert answer.status == 202, answer.data
        running.settled()
        yield running


@pytest.fixture(scope="module")
def tokens(node: NodeProcess) -> Mapping[str, str]:
    """A token of each role."""
    return {role: granted(node, "--role", role, "--name", f"{role} ann") for role in ROLES} | {"operator": node.token}


@pytest.fixture(scope="module")
def people(node: NodeProcess, tokens: Mapping[str, str]) -> Mapping[str, Visitor]:
    return {role: Visitor(node).signed_in(token) for role, token in tokens.items()}


@pytest.fixture
def open_node(tmp_path: Path) -> Iterator[NodeProcess]:
    with NodeProcess(tmp_path / "data", TIDEGATE_GUARD="false") as running:
        yield running


# ---- who


def test_the_page_is_anybodys_and_nothing_runs_in_it_but_its_own(node: NodeProcess) -> None:
    page = node.get("/")

    assert page.status == 200
    assert page.headers["Content-Type"].startswith("text/html")
    policy = page.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy


def test_an_asset_may_be_kept_for_ever_by_its_hash_and_is_looked_at_again_otherwise(node: NodeProcess) -> None:
    first = node.get("/console/assets/index.html")
    digest = first.headers["ETag"].strip('"')
    again = node.http.request("GET", node.url + "/console/assets/index.html", headers={"If-None-Match": f'"{digest}"'})
    by_hash = node.get(f"/console/assets/index.html?v={digest}")
    by_another = node.get("/console/assets/index.html?v=0000")

    assert (first.status, first.headers["Cache-Control"]) == (200, "no-cache")
    assert (again.status, again.data) == (304, b"")
    assert "immutable" in by_hash.headers["Cache-Control"]
    assert by_another.headers["Cache-Control"] == "no-cache"
    for name in ("nothing.js", "__init__.py", "..%2Fpanel.py", "%2e%2e/panel.py"):
        assert node.get(f"/console/assets/{name}").status == 404


def test_each_role_may_what_is_its(node: NodeProcess, people: Mapping[str, Visitor]) -> None:
    for role, person in people.items():
        told = person.get("/console/session")
        assert (told["role"], told["may"]) == (role, RIGHTS[role])
        assert told["node"]["version"]
    assert Visitor(node).get("/console/session")["may"] == []
    assert Visitor(node).signed_in("open-sesame").get("/console/session")["role"] == "analyst"


def test_a_session_is_a_cookie_that_scripts_cannot_read_and_that_holds_no_token(node: NodeProcess) -> None:
    answer = Visitor(node).ask("POST", "/console/session", {"token": node.token})

    cookie = answer.headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "samesite=strict" in cookie.lower()
    assert node.token not in cookie
    assert "no-store" in answer.headers["Cache-Control"]


def test_who_signs_out_is_out_wherever_the_cookie_went(node: NodeProcess) -> None:
    person = Visitor(node).signed_in(node.token)
    kept = Visitor(node, person.cookie)

    assert person.ask("DELETE", "/console/session").status == 200

    assert kept.get("/console/session")["role"] is None


def test_a_revoked_token_ends_its_sessions_and_streams(node: NodeProcess) -> None:
    token = granted(node, "--role", "viewer", "--name", "leaver")
    person = Visitor(node).signed_in(token)
    listed = json.loads(tidegate("access", "list", "--json", "--data", node.data_dir).stdout)
    [token_id] = [one["id"] for one in listed if one["name"] == "leaver"]

    with person.stream(board="overview") as stream:
        stream.until(lambda name, _: name == "status")
        assert tidegate("access", "revoke", token_id, "--data", node.data_dir).returncode == 0
        for _ in stream:
            pass  # it ends

    assert person.get("/console/session")["role"] is None
    assert person.ask("POST", "/console/session", {"token": token}).status == 401


def test_a_tenants_token_does_not_open_the_console_nor_a_roles_the_clickhouse_door(
    node: NodeProcess, tokens: Mapping[str, str]
) -> None:
    tenants = granted(node, "--tenant", "harbor-health")

    refused = Visitor(node).ask("POST", "/console/session", {"token": tenants})
    at_clickhouse = {role: node.get("/?query=SELECT+1", token=tokens[role]).status for role in ROLES}

    assert (refused.status, "tenant's" in json.loads(refused.data)["error"]) == (401, True)
    assert at_clickhouse == dict.fromkeys(ROLES, 403)


def test_a_link_signs_the_operator_in_once_and_keeps_what_was_to_be_seen(node: NodeProcess) -> None:
    operator = {"Authorization": f"Bearer {node.token}"}
    made = json.loads(Visitor(node).ask("POST", "/console/code", **operator).data)["path"]

    prefetched = Visitor(node).ask("GET", made, **{"Sec-Purpose": "prefetch"})
    scanned = Visitor(node).ask("HEAD", made)
    person = Visitor(node)
    entered = person.ask("GET", f"{made}&board=cost&range=7d")
    again = Visitor(node).ask("GET", made)

    assert (prefetched.status, scanned.status) == (425, 405)
    assert (entered.status, entered.headers["Location"]) == (303, "/?board=cost&range=7d")
    assert person.get("/console/session")["role"] == "operator"
    assert again.status == 401
    assert Visitor(node).ask("POST", "/console/code").status == 401
    assert Visitor(node).ask("POST", "/console/code", Authorization="Bearer open-sesame").status == 401


def test_sign_ins_are_in_the_audit_log_without_tokens(node: NodeProcess, tokens: Mapping[str, str]) -> None:
    Visitor(node).signed_in(tokens["oncall"])

    entries = [json.loads(line) for line in (node.data_dir / "audit.jsonl").read_bytes().splitlines()]

    signed_in = [entry for entry in entries if entry["action"] == "console.signed_in"]
    last = signed_in[-1]["details"]
    assert last["role"] == "oncall"
    assert signed_in[-1]["actor"] == f"token:{last['token']}"
    assert not any(token in (node.data_dir / "audit.jsonl").read_text() for token in tokens.values())


def test_another_sites_page_changes_nothing(node: NodeProcess) -> None:
    person = Visitor(node).signed_in(node.token)
    foreign: list[dict[str, str]] = [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "https://evil.example", "Sec-Fetch-Site": "same-origin"},
    ]
    for headers in foreign:
        assert person.ask("POST", "/console/session", {"token": node.token}, **headers).status == 403
        assert person.ask("DELETE", "/console/session", **headers).status == 403
        assert person.ask("POST", "/console/code", **headers).status == 403

    assert person.get("/console/session")["role"] == "operator"
    assert person.ask("POST", "/console/code", **{"Sec-Fetch-Site": "same-origin", "Origin": node.url}).status == 200


def test_wrong_tokens_are_slowed_down_and_right_ones_of_others_are_not(open_node: NodeProcess) -> None:
    tried = [Visitor(open_node).ask("POST", "/console/session", {"token": f"guess-{n}"}) for n in range(12)]
    as_bearer = Visitor(open_node).ask("GET", "/console/session", Authorization="Bearer guess")

    assert [answer.status for answer in tried] == [401] * 10 + [429] * 2
    assert int(tried[-1].headers["Retry-After"]) > 0
    assert as_bearer.status == 429
    assert json.loads(tried[0].data)["error"]
    # A token that nobody guesses is taken all the same.
    assert Visitor(open_node).signed_in(open_node.token).get("/console/session")["role"] == "operator"


def test_links_that_another_sites_page_follows_keep_nobody_from_signing_in(open_node: NodeProcess) -> None:
    for _ in range(20):
        assert Visitor(open_node).ask("GET", "/console/enter?code=x", **{"Sec-Fetch-Site": "cross-site"}).status == 401

    assert Visitor(open_node).ask("POST", "/console/session", {"token": "wrong"}).status == 401
    assert Visitor(open_node).signed_in(open_node.token).get("/console/session")["role"] == "operator"


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b'{"token": 5}', b'{"token": ""}', b"\xff", b'{"token": "' + b"x" * 20_000]
)
def test_a_sign_in_without_a_token_says_what_to_send(node: NodeProcess, body: bytes) -> None:
    answer = node.post(body, path="/console/session")

    assert answer.status in (400, 413)
    assert json.loads(answer.data)["error"]


def test_without_a_token_the_machines_own_people_may_look_and_no_page_of_another_name(open_node: NodeProcess) -> None:
    here = Visitor(open_node).get("/console/session")
    rebound = Visitor(open_node, headers={"Host": "rebound.example"})
    for nonsense in ("[", "127.0.0.1:x", ""):
        assert Visitor(open_node, headers={"Host": nonsense}).ask("GET", "/console/definitions").status in (400, 401)

    assert (here["role"], here["may"]) == (None, ["look"])
    assert rebound.get("/console/session")["may"] == []
    assert rebound.ask("GET", "/console/definitions").status == 401
    assert Visitor(open_node).ask("GET", "/console/definitions").status == 200


def test_nothing_is_shown_to_strangers(node: NodeProcess) -> None:
    for path in ("/console/definitions", "/console/choices/tenant", "/console/live?board=overview"):
        answer = Visitor(node).ask("GET", path)
        assert answer.status == 401
        assert "sign" in json.loads(answer.data)["error"]


# ---- what is shown


def test_definitions_tell_every_board_and_panel_and_no_sql(node: NodeProcess, people: Mapping[str, Visitor]) -> None:
    told = people["viewer"].get("/console/definitions")

    assert [(one["key"], [panel["key"] for panel in one["panels"]]) for one in told["boards"]] == [
        (one.key, [panel.key for panel in one.panels]) for one in BOARDS
    ]
    assert {one["name"] for one in told["variables"]} == {"tenant", "by"}
    assert "SELECT" not in json.dumps(told)


def test_choices_are_those_of_the_range(node: NodeProcess, people: Mapping[str, Visitor]) -> None:
    viewer = people["viewer"]
    long_ago = {"since": "2020-01-01T00:00:00Z", "until": "2020-01-02T00:00:00Z"}

    assert viewer.get("/console/choices/tenant", range="6h") == {"choices": ["harbor-health", "hill"]}
    assert viewer.get("/console/choices/tenant", **long_ago) == {"choices": []}
    for wrong in ("/console/choices/by", "/console/choices/sql", "/console/choices/tenant?range=1y"):
        assert viewer.ask("GET", wrong).status == 400


@pytest.mark.parametrize(
    "query",
    [
        "board=nothing",
        "range=2h",
        "since=2026-01-01T00:00:00Z",
        "since=yesterday&until=now",
        "since=2026-01-02T00:00:00Z&until=2026-01-01T00:00:00Z",
        "by=user",
        "tenant=" + "x" * 200,
        "tenant=%00",
    ],
)
def test_what_is_not_there_to_be_seen_is_told_so(people: Mapping[str, Visitor], query: str) -> None:
    answer = people["viewer"].ask("GET", f"/console/live?{query}")

    assert answer.status == 400
    assert json.loads(answer.data)["error"]


# ---- live


def is_panel(key: str) -> Callable[[str, Any], bool]:
    return lambda name, data: name == "panel" and data["key"] == key


def test_a_panel_is_told_as_it_is_and_again_when_it_has_changed(open_node: NodeProcess) -> None:
    now = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"

    def cost(rows: list[list[Any]]) -> float:
        return sum(row[2] or 0 for row in rows)

    with Visitor(open_node).stream(board="overview", range="1h", by="model") as stream:
        first = stream.until(is_panel("cost_over_time"))
        open_node.post([response("one", started_at=now, input_tokens=1_000, output_tokens=100)])
        second = stream.until(lambda name, data: is_panel("cost_over_time")(name, data) and data["rows"])

    assert first["columns"] == ["t", "series", "value"]
    assert first["rows"] == []
    assert first["as_of"].endswith("Z")
    # gpt-4o: 2.50 and 10.00 dollars a million tokens
    assert cost(second["rows"]) == pytest.approx(0.0025 + 0.001)
    assert {row[1] for row in second["rows"]} == {"gpt-4o"}
    assert all(row[0].endswith(":00Z") for row in second["rows"])


def test_the_status_is_told_at_once_and_as_calls_come_in(open_node: NodeProcess) -> None:
    with Visitor(open_node).stream(board="overview") as stream:
        first = stream.until(lambda name, _: name == "status")
        open_node.post(calls(5))
        after = stream.until(lambda name, data: name == "status" and data["totals"].get("responses") == 5)

    assert first["calls_per_s"] is None
    assert after["at"].endswith("Z")
    assert after["store_away"] is False
    assert after["log_away"] is False
    assert {"policies", "notifier", "guardrails", "meter_lag_records"} <= after.keys()


def test_whoever_comes_back_hears_where_things_stand(node: NodeProcess, people: Mapping[str, Visitor]) -> None:
    told = []
    for _ in range(2):
        with people["viewer"].stream(board="overview", range="24h") as stream:
            told.append(stream.until(is_panel("cost_over_time"))["rows"])

    assert told[0] == told[1] != []


def test_one_tenant_is_shown_alone(node: NodeProcess, people: Mapping[str, Visitor]) -> None:
    shown = {}
    for tenant in ("*", "harbor-health", "hill", "nobody"):
        with people["viewer"].stream(board="overview", range="24h", tenant=tenant) as stream:
            shown[tenant] = sum(row[2] or 0 for row in stream.until(is_panel("cost_over_time"))["rows"])

    assert shown["*"] == pytest.approx(5 * 0.0035)
    assert shown["harbor-health"] == pytest.approx(3 * 0.0035)
    assert shown["hill"] == pytest.approx(2 * 0.0035)
    assert shown["nobody"] == 0


def test_a_node_that_stops_does_not_wait_for_its_viewers(tmp_path: Path) -> None:
    with NodeProcess(tmp_path / "data", TIDEGATE_GUARD="false") as node, Visitor(node).stream(board="overview") as stream:
        stream.until(lambda name, _: name == "status")

        began = time.monotonic()
        code = node.stop()

    assert code == 0
    assert time.monotonic() - began < 30
    assert eventually(lambda: (node.data_dir / "node.json").exists(), lambda there: not there) is False


# ---- from the command line


def test_the_command_prints_a_link_that_signs_in_once(node: NodeProcess) -> None:
    printed = tidegate("console", "--print", "--data", node.data_dir)

    link = printed.stdout.decode().strip()
    path = link.removeprefix(node.url)
    person = Visitor(node)
    assert printed.returncode == 0, printed.stderr
    assert person.ask("GET", path).status == 303
    assert person.get("/console/session")["role"] == "operator"
    assert Visitor(node).ask("GET", path).status == 401


def test_without_a_node_there_is_no_console(tmp_path: Path) -> None:
    with NodeProcess(tmp_path / "data"):
        pass

    said = tidegate("console", "--data", tmp_path / "data")

    assert said.returncode == 2
    assert b"tidegate up" in said.stderr


def test_a_node_that_is_asked_to_open_its_console_prints_a_link_where_there_is_no_display(tmp_path: Path) -> None:
    settings = {"TIDEGATE_GUARD": "false", "DISPLAY": "", "WAYLAND_DISPLAY": ""}
    with NodeProcess(tmp_path / "asked", "--open", **settings) as asked, NodeProcess(tmp_path / "other", **settings) as other:
        told = eventually(asked.output.read_text, lambda text: "code=" in text)
        [link] = [word for word in told.split() if "/console/enter?code=" in word]

        assert Visitor(asked).ask("GET", link.removeprefix(asked.url)).status == 303
        # A log keeps what it is told.
        assert "code=" not in eventually(other.output.read_text, lambda text: "tidegate console" in text)


@pytest.mark.parametrize(("display", "opens"), [("", False), (":0", True)])
def test_a_browser_is_opened_where_there_is_a_display(monkeypatch: pytest.MonkeyPatch, display: str, opens: bool) -> None:
    opened: list[str] = []
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("DISPLAY", display)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setattr("webbrowser.open", lambda link: bool(opened.append(link)) or True)

    assert open_in_browser("http://127.0.0.1:8400/console/enter?code=x") is opens
    assert opened == (["http://127.0.0.1:8400/console/enter?code=x"] if opens else [])


# ---- when something is away


def test_a_store_that_is_away_is_a_problem_of_each_panel_until_it_is_back(tmp_path: Path) -> None:
    server = ChdbServer(tmp_path / "store")
    now = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"

    with NodeProcess(tmp_path / "data", TIDEGATE_GUARD="false", TIDEGATE_STORE=server.dsn) as node:
        visitor = Visitor(node)
        with visitor.stream(board="overview", range="1h") as stream:
            problem = stream.until(lambda name, data: name == "problem" and data["key"] == "cost")
            status = stream.until(lambda name, data: name == "status" and data["store_away"])
            refused = visitor.ask("GET", "/console/budgets")
            assert node.post([response("one", started_at=now)]).status == 202
            with server:
                panel = stream.until(lambda name, data: is_panel("cost")(name, data) and data["rows"][0][0], 120)
                visitor.get("/console/budgets")
                node.settled()

    assert "cannot be reached" in problem["error"]
    assert status["healthy"] is True
    assert (refused.status, int(refused.headers["Retry-After"]) > 0) == (503, True)
    assert panel["rows"][0][0] == pytest.approx(0.0035)
