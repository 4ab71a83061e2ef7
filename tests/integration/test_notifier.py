"""The notifier over a data folder: what reaches a webhook, a mail box and an Alertmanager, and what a person's word does."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from email import message_from_bytes
from pathlib import Path
from typing import Any

import pytest
from node_process import environment, eventually, tidegate
from receivers import Webhook, mail_server, webhook
from tidegate.processors.alert_rows import alert_record
from tidegate.processors.embedded.notifier import NotifierThread
from tidegate.producers.sqlite_log import SqliteLog
from tidegate.schemas.errors import LogUnavailable
from tidegate.schemas.settings import Settings
from tidegate.schemas.signal import Alert, Contributor
from tidegate.schemas.topics import ALERTS

T = 1_800_000_000.0
ON_CALL = """
destinations:
  pager: {{url: "{pager}"}}
  watch: {{alertmanager: "{alertmanager}"}}
routes:
  - {{severity: critical, to: [pager, watch]}}
timing: {{pending_warning: 0, group_wait: 0}}
runbooks: https://runbooks.example/
"""


def blocked(at: float, tenant: str = "clinic-a", state: Any = "block", **more: Any) -> Alert:
    return Alert(
        key=f"policy|tenant-day|tenant={tenant}",
        kind="policy",
        severity="info" if state == "ok" else "critical",
        title=f"tenant={tenant} ok → {state}: tenant-day: $12.0000 in the last 24 h, limit $10.0000, 120% of it",
        at=at,
        policy="tenant-day",
        scope={"tenant": tenant},
        state=state,
        **more,
    )


class Folder:
    """A data folder with a notifier that is driven by hand, at a time of our own."""

    def __init__(self, path: Path, hook: Webhook, text: str = ON_CALL) -> None:
        self.path, self.now = path / "data", T
        self.log = SqliteLog(self.path, fsync="normal")
        self.file = path / "on-call.yaml"
        self.file.write_text(text.format(pager=hook.url, alertmanager=hook.alertmanager))
        self.settings = Settings(on_call_file=self.file, fsync="normal")
        self.start()

    def start(self) -> None:
        self.notifier = NotifierThread(self.path, self.settings, clock=lambda: self.now)

    def tell(self, *alerts: Alert) -> None:
        with self.log.transaction():
            self.log.append(ALERTS.name, 0, [alert_record(alerts)])

    def run(self, seconds: float = 0.0) -> None:
        """Let time pass, and everything be sent that is due."""
        self.now += seconds
        self.notifier.run_once()
        while self.notifier.sending.busy:
            time.sleep(0.005)
            self.notifier.run_once()

    def close(self) -> None:
        self.notifier.close()
        self.log.close()


@pytest.fixture
def hook() -> Iterator[Webhook]:
    with webhook() as running:
        yield running


@pytest.fixture
def folder(tmp_path: Path, hook: Webhook) -> Iterator[Folder]:
    made = Folder(tmp_path, hook)
    yield made
    made.close()


def pages(hook: Webhook) -> list[Any]:
    return [posted.body for posted in hook.posted if posted.path == "/hook"]


def watched(hook: Webhook) -> list[Any]:
    return [alert for posted in hook.posted if posted.path == "/api/v2/alerts" for alert in posted.body]


def test_a_page_says_what_whose_how_much_until_when_by_whom_and_what_to_do(folder: Folder, hook: Webhook) -> None:
    contributors = [Contributor({"user": "dr-anna-weiss"}, 8.0), Contributor({"service": "triage"}, 3.0)]
    folder.tell(
        blocked(
            T,
            spend=12.0,
            limit=10.0,
            resets_at=T + 3_600,
            exhausted_at=T + 600,
            contributors=contributors,
            owner="team-ai",
            runbook="b",
        )
    )

    folder.run()

    (page,) = pages(hook)
    assert page["title"] == "[CRITICAL] tenant-day: tenant=clinic-a block"
    assert page["type"] == "failure"
    (user,) = re.findall(r"user-[0-9a-f]{8}\b", page["message"])
    assert page["message"].splitlines() == [
        "#1 tenant=clinic-a block: tenant-day, $12.0000 in the last 24 h, limit $10.0000, 120% of it",
        "since 2027-01-15 08:00 UTC, exhausted at 2027-01-15 08:10 UTC at this rate, resets 2027-01-15 09:00 UTC",
        f"most by: {user} 67%, service=triage 25%",
        "owner: team-ai",
        "runbook: https://runbooks.example/b",
        "",
        "Seen it? tidegate alerts ack 1",
    ]
    (alert,) = watched(hook)
    assert alert["labels"] == {
        "alertname": "tenant-day",
        "kind": "policy",
        "severity": "critical",
        "service": "tidegate",
        "tenant": "clinic-a",
    }
    assert alert["startsAt"] == "2027-01-15T08:00:00Z"


def of_people(at: float, user: str, patient: str, tenant: str = "a") -> Alert:
    scope = f"user={user}, label.patient={patient}, tenant={tenant}"
    return Alert(
        key=f"policy|user-day|{scope}",
        kind="policy",
        severity="critical",
        title=f"{scope} ok → block: user-day: $12.0000 in the last 24 h",
        at=at,
        policy="user-day",
        scope={"user": user, "label.patient": patient, "tenant": tenant},
        state="block",
        spend=12.0,
        contributors=[Contributor({"label.patient": patient}, 8.0)],
    )


def test_nobody_is_named_to_anybody_and_two_people_can_be_told_apart(folder: Folder, hook: Webhook) -> None:
    """A user and a patient's number come out as digests, the same again after a restart."""
    folder.tell(of_people(T, "dr-anna-weiss", "MRN-4471"))
    folder.run()
    folder.notifier.close()
    folder.start()
    folder.tell(of_people(T + 1, "dr-anna-weiss", "MRN-9902", "b"))
    folder.run(1)

    said = json.dumps([posted.body for posted in hook.posted])
    assert "anna" not in said
    assert "MRN" not in said
    first, second = (re.findall(r"(user|label\.patient)-([0-9a-f]{8})\b", page["title"]) for page in pages(hook))
    assert [name for name, _ in first] == ["user", "label.patient"]
    assert first[0] == second[0]
    assert first[1] != second[1]
    assert f"most by: label.patient-{first[1][1]} 67%" in pages(hook)[0]["message"]
    assert pages(hook)[0]["title"].endswith(", tenant=a block")
    assert watched(hook)[0]["labels"]["label_patient"] == f"label.patient-{first[1][1]}"


def test_an_end_is_told_once_all_of_it_is_well(folder: Folder, hook: Webhook) -> None:
    folder.tell(blocked(T), blocked(T, "clinic-b"))
    folder.run()

    folder.tell(blocked(T + 10, state="ok"))
    folder.run(10)
    folder.run(60)
    one_left = [(page["title"], page["type"]) for page in pages(hook)[1:]]
    folder.tell(blocked(T + 80, "clinic-b", state="ok"))
    folder.run(10)
    folder.run(60)

    assert one_left == [("[OK] resolved: tenant-day: tenant=clinic-a", "failure")]
    assert [(page["title"], page["type"]) for page in pages(hook)[2:]] == [
        ("[OK] resolved: tenant-day: tenant=clinic-b", "success")
    ]
    ends = {alert["labels"]["tenant"]: alert["endsAt"] for alert in watched(hook)}
    assert ends == {"clinic-a": "2027-01-15T08:01:10Z", "clinic-b": "2027-01-15T08:02:20Z"}


def test_whoever_was_told_that_it_opened_is_told_that_it_is_over(folder: Folder, hook: Webhook) -> None:
    """A budget's course: blocked, warned of as the window moves on, well. The route is of what is critical alone."""
    folder.tell(blocked(T))
    folder.run()
    folder.tell(blocked(T + 10, state="warn"))
    folder.run(10)
    folder.tell(blocked(T + 20, state="ok"))
    folder.run(10)
    folder.run(60)

    assert [page["title"] for page in pages(hook)] == [
        "[CRITICAL] tenant-day: tenant=clinic-a block",
        "[OK] resolved: tenant-day: tenant=clinic-a",
    ]
    assert pages(hook)[1]["type"] == "success"
    ended = {alert["labels"]["severity"] for alert in watched(hook)[1:] if alert["endsAt"] < "2028"}
    assert ended == {"critical", "warning"}


@pytest.mark.parametrize("value", [b"[]", b"1", b"null", b'{"contributors": null}', b"{", b"\xff"])
def test_a_record_that_is_no_alert_stops_nobody(folder: Folder, hook: Webhook, value: bytes) -> None:
    with folder.log.transaction():
        folder.log.append(ALERTS.name, 0, [(None, {"schema": "rows/1", "count": "1"}, value)])
    folder.tell(blocked(T))

    folder.run()

    assert len(pages(hook)) == 1


def test_no_address_is_told_to_the_log(tmp_path: Path, hook: Webhook, capfd: pytest.CaptureFixture[str]) -> None:
    text = ON_CALL.replace('{alertmanager: "{alertmanager}"}', "{url: 'slack://s3cret/T0KEN[x'}")
    folder = Folder(tmp_path, hook, text.replace('alertmanager: "{alertmanager}"', "url: 'slack://s3cret/T0KEN[x'"))
    folder.tell(blocked(T))

    folder.run()
    folder.close()

    said = "".join(capfd.readouterr())
    assert "notification_failed" in said
    assert "s3cret" not in said
    assert "T0KEN" not in said


def test_a_destination_that_is_away_gets_everything_later_in_order(folder: Folder, hook: Webhook) -> None:
    hook.away = True
    folder.tell(blocked(T))
    folder.run()
    folder.tell(blocked(T + 1, "clinic-b"))
    folder.run(1)
    hook.away = False

    for _ in range(12):
        folder.run(10)

    assert [page["title"] for page in pages(hook)] == [
        "[CRITICAL] tenant-day: tenant=clinic-a block",
        "[CRITICAL] tenant-day: tenant=clinic-b block",
    ]
    assert folder.notifier.status()["waiting"] == 0
    assert folder.notifier.sending.failed == hook.refused > 0


@pytest.mark.parametrize("to", ["pager", "watch"])
def test_a_message_that_is_refused_for_good_holds_up_none_behind_it(tmp_path: Path, hook: Webhook, to: str) -> None:
    folder = Folder(tmp_path, hook, ON_CALL.replace("[pager, watch]", f"[{to}]"))
    hook.away = True
    folder.tell(blocked(T))
    folder.run()
    folder.tell(blocked(T + 1, "clinic-b"))
    folder.run(1)
    hook.away, hook.refusals = False, {"clinic-a": 422}

    folder.run(10)
    folder.run(10)
    status = folder.notifier.status()
    listed = tidegate("alerts", "list", "--data", folder.path).stdout.decode()
    hook.refusals.clear()
    folder.run(86_401)
    a_day_later = tidegate("alerts", "list", "--data", folder.path).stdout.decode()
    folder.close()

    first = pages(hook)[0]["title"] if to == "pager" else watched(hook)[0]["annotations"]["summary"]
    assert "tenant=clinic-b block" in first
    assert (status["given_up"], status["waiting"]) == (1, 0)
    assert f"never told to {to}: [CRITICAL] tenant-day: tenant=clinic-a block: it refused the message, by 422" in listed
    assert "by 422" not in a_day_later


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_a_message_that_may_come_later_is_tried_again(folder: Folder, hook: Webhook, status: int) -> None:
    hook.refusals["clinic-a"] = status
    folder.tell(blocked(T))
    folder.run()
    hook.refusals.clear()

    folder.run(10)

    assert len(pages(hook)) == 1
    assert folder.notifier.sending.given_up == 0


def test_an_address_that_is_not_let_in_has_an_hour_to_be_mended(folder: Folder, hook: Webhook) -> None:
    hook.refusals["clinic-a"] = 403
    folder.tell(blocked(T))
    folder.run()
    folder.run(1_700)
    before = folder.notifier.sending.given_up

    folder.run(1_901)

    assert before == 0
    assert folder.notifier.sending.given_up == 2


@pytest.mark.parametrize("status", [401, 404, 405, 409, 423])
def test_what_waited_for_a_receiver_that_was_away_outlives_the_refusals_while_it_comes_up(
    folder: Folder, hook: Webhook, status: int
) -> None:
    hook.away = True
    folder.tell(blocked(T))
    folder.run()
    folder.run(4_200)
    hook.away, hook.refusals = False, {"clinic-a": status}
    folder.run(10)
    hook.refusals.clear()

    folder.run(10)

    assert pages(hook)[0]["title"] == "[CRITICAL] tenant-day: tenant=clinic-a block"
    assert folder.notifier.sending.given_up == 0


def test_a_destination_that_was_away_hears_how_it_began_and_how_it_is_now(folder: Folder, hook: Webhook) -> None:
    """Not each of the hours between: of two incidents, one that goes on, and one that has ended."""
    hook.away = True
    folder.tell(blocked(T), blocked(T, "clinic-b"))
    folder.run()
    for _ in range(20):
        folder.run(1_800)
    folder.tell(blocked(folder.now, "clinic-b", state="ok"))
    folder.run()
    folder.run(60)
    folder.run(1_800)
    waiting = folder.notifier.status()["waiting"]
    hook.away = False

    for _ in range(10):
        folder.run(300)

    assert waiting == 2 * 3  # it began, an end, it goes on; to each destination
    assert [page["title"] for page in pages(hook)][:3] == [
        "[CRITICAL] tenant-day: 2 scopes",
        "[OK] resolved: tenant-day: tenant=clinic-b",
        "[CRITICAL] still: tenant-day: tenant=clinic-a block",
    ]


def test_an_edit_that_is_not_taken_is_told_by_the_routes_before_it_until_it_is_mended(tmp_path: Path, hook: Webhook) -> None:
    folder = Folder(tmp_path, hook, ON_CALL.replace("severity: critical, ", ""))
    good = folder.file.read_text()
    folder.run()

    folder.file.write_text(good + "routes: [{to: [nobody]}]  # twice, and unknown\n")
    folder.run(5)
    for _ in range(4):
        folder.run(3_000)
    problem = folder.notifier.status()["problem"]
    folder.file.write_text(good + "# mended\n")
    folder.run(5)
    folder.run(60)
    folder.close()

    assert "which is no destination" in problem
    titles = [page["title"] for page in pages(hook)]
    assert (titles[0], titles[-1]) == ("[WARNING] on_call_file", "[OK] resolved: on_call_file")
    assert set(titles[1:-1]) <= {"[WARNING] still: on_call_file"}
    assert "a route goes to 'nobody', which is no destination" in pages(hook)[0]["message"]


def test_a_log_that_fails_again_and_again_while_it_is_read_skips_no_alert(
    folder: Folder, hook: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second page of alerts cannot be read, nor then what is known."""
    read, keyed, failures = SqliteLog.read, SqliteLog.keyed, iter([False, True])

    def fail(*_: Any) -> Any:
        raise LogUnavailable("away")

    def a_page(log: SqliteLog, topic: str, partition: int, start: int, **more: Any) -> Any:
        return fail() if next(failures, False) else read(log, topic, partition, start, **(more | {"max_bytes": 1}))

    folder.tell(blocked(T))
    folder.tell(blocked(T, "clinic-b"))
    monkeypatch.setattr(SqliteLog, "read", a_page)
    monkeypatch.setattr(SqliteLog, "keyed", fail)
    for _ in range(2):
        with contextlib.suppress(LogUnavailable):
            folder.notifier.run_once()
    monkeypatch.setattr(SqliteLog, "keyed", keyed)

    folder.run()

    assert opened(hook) == {"clinic-a", "clinic-b"}


def test_a_destination_that_is_away_holds_up_no_other(tmp_path: Path, hook: Webhook) -> None:
    text = ON_CALL.replace('"{alertmanager}"', '"http://127.0.0.1:9"')
    folder = Folder(tmp_path, hook, text)

    folder.tell(blocked(T))
    folder.run()
    folder.tell(blocked(T + 1, "clinic-b"))
    folder.run(1)

    assert len(pages(hook)) == 2
    assert folder.notifier.status()["waiting"] == 2
    folder.close()


def test_destinations_that_are_slow_hold_up_no_other(tmp_path: Path, hook: Webhook) -> None:
    slow = [f"slow{number}" for number in range(9)]
    pagers = "".join(f'  {name}: {{{{url: "{hook.url}"}}}}\n' for name in slow)
    text = ON_CALL.replace("routes:", pagers + "routes:").replace("[pager, watch]", f"[{', '.join(slow)}, watch]")
    folder = Folder(tmp_path, hook, text)
    hook.slow["/hook"] = threading.Event()

    try:
        for number, tenant in enumerate(("clinic-a", "clinic-b")):
            folder.tell(blocked(T + number, tenant))
            folder.now = T + number
            eventually(lambda: (folder.notifier.run_once(), opened(hook))[1], lambda told: tenant in told, 30)  # noqa: B023
        before = pages(hook)
    finally:
        hook.slow["/hook"].set()
    folder.run(10)
    folder.close()

    assert before == []
    titles = Counter(page["title"] for page in pages(hook))
    assert titles == {f"[CRITICAL] tenant-day: tenant={tenant} block": 9 for tenant in ("clinic-a", "clinic-b")}


def test_what_opens_in_a_maintenance_window_is_kept_and_told_when_it_is_over(tmp_path: Path, hook: Webhook) -> None:
    """It is a Friday, 03:00 in New York; what was well again within the window is not told at all."""
    window = (
        "{{id: nightly, match: {{tenant: 'clinic-*'}}, from: '02:30', to: '04:00', days: [fri], time_zone: America/New_York}}"
    )
    folder = Folder(tmp_path, hook, ON_CALL + f"maintenance: [{window}]\n")

    folder.tell(blocked(T), blocked(T, "clinic-b"), blocked(T, "elsewhere"))
    folder.run()
    at_first = opened(hook)
    listed = tidegate("alerts", "list", "--data", folder.path).stdout.decode()
    folder.tell(blocked(T + 60, "clinic-b", state="ok"))
    folder.run(60)
    folder.run(3_539)
    before = opened(hook)
    folder.run(1)
    folder.close()

    assert at_first == before == {"elsewhere"}
    assert "3 incidents open" in listed
    assert "silenced until 2027-01-15 09:00:00: tenant=clinic-* (maintenance:nightly)" in listed
    assert opened(hook) == {"elsewhere", "clinic-a"}


def test_what_lay_in_the_log_before_there_was_a_notifier_pages_nobody(tmp_path: Path, hook: Webhook) -> None:
    data = tmp_path / "data"
    with SqliteLog(data, fsync="normal") as log, log.transaction():
        log.append(ALERTS.name, 0, [alert_record([blocked(T - 9_000)]), alert_record([blocked(T - 8_000, "clinic-b")])])
        log.append(ALERTS.name, 0, [alert_record([blocked(T - 7_000, "clinic-b", state="ok")])])
    folder = Folder(tmp_path, hook)

    folder.run()
    at_first = list(hook.posted)
    folder.run(1_800)

    assert at_first == []
    assert [page["title"] for page in pages(hook)] == ["[CRITICAL] still: tenant-day: tenant=clinic-a block"]
    folder.close()


@pytest.mark.parametrize("step", ["1 heard", "2 kept", "3 sent"])
def test_a_notifier_that_dies_at_any_step_tells_each_thing_and_the_receiver_can_tell_a_repetition(
    folder: Folder, hook: Webhook, step: str
) -> None:
    class Dead(BaseException):
        pass

    def die(at: str) -> None:
        if at == step:
            raise Dead

    folder.tell(blocked(T))
    folder.notifier._at = folder.notifier.sending._at = die
    with pytest.raises(Dead):
        folder.run()

    folder.start()
    folder.run()
    folder.run(60)

    keys = [posted.key for posted in hook.posted if posted.path == "/hook"]
    assert len(set(keys)) == 1
    assert len(keys) == (2 if step == "3 sent" else 1)


def test_people_see_silence_and_end_incidents_from_the_command_line(folder: Folder, hook: Webhook) -> None:
    folder.now = float(int(time.time()))  # a row holds microseconds: what is rounded up is not due yet
    folder.tell(blocked(folder.now), blocked(folder.now, "clinic-b"))
    folder.run()
    data = ("--data", folder.path)

    listed = tidegate("alerts", "list", *data)
    acked = tidegate("alerts", "ack", "1", "--by", "kim", *data)
    silenced = tidegate("alerts", "silence", "tenant=clinic-c*", "--for", "30m", *data)
    folder.tell(blocked(folder.now, "clinic-c1"))
    folder.run(2_000)
    after_an_hour = [page["title"] for page in pages(hook)[1:]]
    shown = tidegate("alerts", "show", "#1", *data)
    resolved = tidegate("alerts", "resolve", "2", *data)
    folder.run()
    wrong = tidegate("alerts", "ack", "77", *data)

    assert listed.returncode == acked.returncode == silenced.returncode == shown.returncode == resolved.returncode == 0
    assert "tenant=clinic-a block: tenant-day" in listed.stdout.decode()
    assert "2 incidents open" in listed.stdout.decode()
    assert "acknowledged by kim" in shown.stdout.decode()
    # The acknowledged one is not told again; the silenced one is, when the silence is over.
    assert sorted(after_an_hour) == [
        "[CRITICAL] still: tenant-day: tenant=clinic-b block",
        "[CRITICAL] tenant-day: tenant=clinic-c1 block",
    ]
    assert [page["title"] for page in pages(hook)[3:]] == ["[OK] resolved: tenant-day: tenant=clinic-b"]
    assert wrong.returncode == 2
    assert "no incident 77 is open" in wrong.stderr.decode()
    actions = tidegate("audit", "verify", *data)
    assert actions.returncode == 0, actions.stdout.decode() + actions.stderr.decode()


def test_destinations_are_tried_and_said_one_by_one(tmp_path: Path, hook: Webhook) -> None:
    with mail_server() as (port, inbox):
        mail = f"mailto://127.0.0.1:{port}?from=tide@example.org&to=oncall@example.org&mode=insecure"
        file = tmp_path / "on-call.yaml"
        lines = [f"  hook: {{url: '{hook.url}'}}", f"  mail: {{url: '{mail}'}}", "  gone: {url: 'json://127.0.0.1:9/'}"]
        file.write_text("destinations:\n" + "\n".join(lines))

        tried = tidegate("alerts", "test", "--file", file)

    said = tried.stdout.decode()
    assert tried.returncode == 1
    assert "hook: taken" in said
    assert "mail: taken" in said
    assert "gone: it did not take the message" in said
    assert message_from_bytes(inbox[0])["Subject"] == "[TEST] Tidegate can reach you"
    assert pages(hook)[0]["title"] == "[TEST] Tidegate can reach you"


NOTIFIER = """
import sys, threading
from pathlib import Path
from tidegate.processors.embedded.notifier import NotifierThread
from tidegate.schemas.errors import LogUnavailable
from tidegate.schemas.settings import Settings
notifier = NotifierThread(Path(sys.argv[1]), Settings(on_call_file=Path(sys.argv[2]), fsync="normal"))
print("ready", flush=True)
notifier.run(threading.Event())
"""


@pytest.mark.slow
def test_a_storm_of_ten_thousand_changes_and_a_notifier_killed_again_and_again_is_a_page_an_incident(
    tmp_path: Path, hook: Webhook
) -> None:
    tenants, kills, moments = 200, 5, random.Random(20261122)
    folder = Folder(tmp_path, hook, ON_CALL.replace("severity: critical, ", ""))
    folder.close()
    log = SqliteLog(folder.path, fsync="normal")
    command = [sys.executable, "-c", NOTIFIER, str(folder.path), str(folder.file)]

    def start() -> subprocess.Popen[bytes]:
        process = subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE)
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        return process

    process = start()
    for number in range(0, 10_000, 100):
        now = time.time()
        # Each is blocked, then warned of and blocked in turns: still one incident each.
        state = "block" if (number // tenants) % 2 == 0 else "warn"
        with log.transaction():
            alerts = [blocked(now, f"t{(number + of) % tenants}", state) for of in range(100)]
            log.append(ALERTS.name, 0, [alert_record(alerts)])
        if number % (10_000 // kills) == 1_000:
            time.sleep(moments.uniform(0, 0.3))
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            assert process.stdout is not None
            process.stdout.close()
            process = start()
    try:
        seen = eventually(lambda: opened(hook), lambda found: len(found) == tenants, 60)
        eventually(lambda: folder_waits(folder.path), lambda waiting: waiting == 0, 60)
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
        log.close()

    # One page an incident; what was being sent when the notifier was killed came again, under the same key.
    assert seen == {f"t{number}" for number in range(tenants)}
    keys = Counter(posted.key for posted in hook.posted if posted.path == "/hook")
    assert sum(keys.values()) - len(keys) <= kills
    once = {key: posted.body for posted in hook.posted if posted.path == "/hook" and (key := posted.key)}
    numbers = [int(key.partition("-")[0]) for key in once]
    assert numbers == sorted(numbers)
    of_whom = [int(page["title"].split()[2].replace(",", "")) if " scopes" in page["title"] else 1 for page in once.values()]
    assert sum(of_whom) == tenants


def opened(hook: Webhook) -> set[str]:
    return {alert["labels"]["tenant"] for alert in watched(hook)}


def folder_waits(data: Path) -> int:
    from tidegate.processors.embedded.incident_desk import FolderDesk

    desk = FolderDesk(data)
    try:
        return len(desk.deliveries())
    finally:
        desk.close()
