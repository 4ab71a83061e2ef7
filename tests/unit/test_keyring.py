"""Key rings: where they come from, how they change under those who use them, and that nothing of a key is ever told."""

from __future__ import annotations

import base64
import itertools
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tidegate.producers.key_source import CommandKeys, FileKeys, FolderKeys, GivenKeys, key_source
from tidegate.producers.keyring import Key, KeyRing
from tidegate.producers.ring_file import change_ring, read_ring
from tidegate.producers.sealing import opened, seal
from tidegate.schemas.content import Texts
from tidegate.schemas.errors import KeyGone, UsageError
from tidegate.schemas.settings import Settings

AT = datetime(2026, 11, 2, 8, tzinfo=UTC)
ROOT = Path(__file__).parents[2]


def key(key_id: str, tenant: str | None = None, hours: int = 0, retired: bool = False) -> Key:
    return Key(key_id, tenant, os.urandom(32), AT + timedelta(hours=hours), retired)


def ring(*keys: Key) -> KeyRing:
    return KeyRing(keys, b"f" * 32)


def written(path: Path, found: KeyRing, mode: int = 0o600) -> Path:
    path.write_bytes(found.dump())
    path.chmod(mode)
    return path


# ---- the ring


def test_the_newest_key_of_a_tenant_seals_and_the_one_for_everybody_where_there_is_none() -> None:
    found = ring(key("new", "st-anne", 2), key("old", "st-anne", 1), key("gone", "st-anne", 3, retired=True), key("all"))

    sealing = {tenant: found.sealing(tenant) for tenant in ("st-anne", "harbor-health", None)}

    assert {tenant: sealed and sealed.key_id for tenant, sealed in sealing.items()} == {
        "st-anne": "new",
        "harbor-health": "all",
        None: "all",
    }
    assert found.opening("gone").key_id == "gone"


def test_without_a_key_for_everybody_a_tenant_without_one_has_none() -> None:
    found = ring(key("k", "st-anne"))

    assert found.sealing("harbor-health") is None
    assert found.sealing(None) is None


def test_a_ring_is_the_same_after_json() -> None:
    found = ring(key("a"), key("b", "st-anne", 1, retired=True))

    again = KeyRing.parse(found.dump(), "here")

    assert (again.keys, again.fingerprint_key) == (found.keys, found.fingerprint_key)


def _dict(found: KeyRing) -> dict[str, Any]:
    parsed: dict[str, Any] = json.loads(found.dump())
    return parsed


@pytest.mark.parametrize(
    "broken",
    [
        b"",
        b"[]",
        b"{",
        b'{"version": 1, "keys": []}',
        json.dumps({**_dict(ring(key("a"))), "version": 2}).encode(),
        json.dumps(
            {**_dict(ring()), "keys": [{"id": "a", "key": "canary-4711", "created_at": "2026-11-02T08:00:00Z"}]}
        ).encode(),
        json.dumps({**_dict(ring()), "keys": [{"id": "a", "key": 4711, "created_at": "canary"}]}).encode(),
        json.dumps({**_dict(ring()), "fingerprint": base64.b64encode(b"canary-4711").decode()}).encode(),
        json.dumps({**_dict(ring()), "canary": "canary-4711"}).encode(),
        ring(key("a"), key("a")).dump(),
        b" " * 9_000_000,
    ],
    ids=itertools.count(),
)
def test_what_is_no_ring_is_refused_without_quoting_it(broken: bytes) -> None:
    with pytest.raises(UsageError, match="TIDEGATE_KEYS") as caught:
        KeyRing.parse(broken, "TIDEGATE_KEYS")

    assert "canary" not in str(caught.value)
    assert base64.b64encode(b"canary-4711").decode() not in str(caught.value)
    assert caught.value.__cause__ is None


# ---- a file


def test_a_file_that_others_can_read_is_refused_with_what_to_do(tmp_path: Path) -> None:
    path = written(tmp_path / "ring.json", ring(key("a")), 0o640)

    with pytest.raises(UsageError, match=f"chmod 600 {path}"):
        FileKeys(path).ring()

    path.chmod(0o400)
    assert FileKeys(path).ring().opening("a")


def test_a_file_is_read_again_when_it_changes(tmp_path: Path) -> None:
    first, second = key("a"), key("b", hours=1)
    path = written(tmp_path / "ring.json", ring(first))
    keys = FileKeys(path)

    before = keys.sealing("st-anne")
    change_ring(path, lambda found: found.adding(second))
    after = keys.sealing("st-anne")

    assert (before.key_id, after.key_id) == ("a", "b")
    assert keys.opening("a") == first


def test_a_file_that_went_away_opens_nothing_and_says_how_to_make_one(tmp_path: Path) -> None:
    path = written(tmp_path / "ring.json", ring(key("a")))
    keys = FileKeys(path)
    keys.ring()

    path.unlink()

    with pytest.raises(UsageError, match="tidegate keys make"):
        keys.opening("a")


def test_a_tenant_for_whom_nothing_seals_is_told_to_whoever_asks(tmp_path: Path) -> None:
    keys = FileKeys(written(tmp_path / "ring.json", ring(key("a", "st-anne"))))

    with pytest.raises(UsageError, match="tidegate keys rotate"):
        keys.sealing("harbor-health")


def test_shredding_a_tenant_leaves_nothing_that_opens_its_texts_and_everything_else_does(tmp_path: Path) -> None:
    mine, theirs = key("mine", "st-anne"), key("theirs", "harbor-health")
    path = written(tmp_path / "ring.json", ring(key("all"), mine, theirs))
    keys = FileKeys(path)
    sealed = {found.key_id: seal(Texts(prompt="p"), "c", found) for found in (mine, theirs)}

    change_ring(path, lambda found: found.without("mine"))

    with pytest.raises(KeyGone):
        keys.opening("mine")
    assert opened(sealed["theirs"], "c", keys.opening("theirs")) == Texts(prompt="p")
    assert base64.b64encode(mine.secret) not in b"".join(file.read_bytes() for file in tmp_path.iterdir())


@pytest.mark.parametrize(
    "change",
    [lambda ring: ring.without("a"), lambda ring: ring.retiring("a"), lambda ring: ring.adding(key("c"))],
    ids=["shred", "retire", "add"],
)
def test_a_file_that_is_replaced_is_overwritten_where_it_was(tmp_path: Path, change: Callable[[KeyRing], KeyRing]) -> None:
    path = written(tmp_path / "ring.json", ring(key("a"), key("b")))

    with path.open("rb") as held:
        change_ring(path, change)
        left = held.read()

    assert set(left) == {0}


def test_a_copy_by_another_name_is_not_overwritten(tmp_path: Path) -> None:
    path = written(tmp_path / "ring.json", ring(key("a"), key("b")))
    copy = tmp_path / "copy.json"

    copy.hardlink_to(path)
    change_ring(path, lambda found: found.without("b"))

    assert read_ring(copy).opening("b")


def test_what_a_killed_process_has_left_of_a_change_is_overwritten_and_gone_at_the_next(tmp_path: Path) -> None:
    path = written(tmp_path / "ring.json", ring(key("a"), key("b")))
    draft = written(tmp_path / ".ring.json-0123456789ab", read_ring(path))
    others = [written(tmp_path / name, read_ring(path)) for name in (".ring.json-mine", "other.json-0123456789ab")]

    with draft.open("rb") as held:
        change_ring(path, lambda found: found)
        left = held.read()

    assert not draft.exists()
    assert set(left) == {0}
    assert all(other.exists() for other in others)


def test_a_change_is_written_whole_and_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "ring.json"

    change_ring(path, lambda found: found, make=True)

    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert sorted(file.name for file in path.parent.iterdir()) == ["ring.json", "ring.json.lock"]


# ---- a data folder


def test_a_change_that_could_not_be_read_again_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    change_ring(path, lambda ring: ring, make=True)
    before = path.read_bytes()

    for name in ("", "x" * 200, "two\nlines"):
        with pytest.raises(UsageError, match="left as it was: a tenant's name"):
            change_ring(path, lambda ring, name=name: ring.adding(Key.made(name)))  # type: ignore[misc]

    assert path.read_bytes() == before


def test_a_folder_makes_its_ring_at_first_use_and_each_tenant_a_key_at_its_first_seal(tmp_path: Path) -> None:
    keys = FolderKeys(tmp_path)

    one, other, again, nobody = (keys.sealing(tenant) for tenant in ("st-anne", "harbor-health", "st-anne", None))

    assert (one.tenant, other.tenant, nobody.tenant) == ("st-anne", "harbor-health", None)
    assert again == one
    assert (tmp_path / "keys.json").stat().st_mode & 0o777 == 0o600
    assert len(FolderKeys(tmp_path).ring().keys) == 3


def test_a_shredded_tenant_of_a_folder_begins_anew(tmp_path: Path) -> None:
    keys = FolderKeys(tmp_path)
    before = keys.sealing("st-anne")

    change_ring(keys.path, lambda found: found.without(before.key_id))
    after = keys.sealing("st-anne")

    assert after.tenant == "st-anne"
    assert after.secret != before.secret
    with pytest.raises(KeyGone):
        keys.opening(before.key_id)


def test_beyond_ten_thousand_keys_the_one_for_everybody_seals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FolderKeys, "MOST_KEYS", 3)
    keys = FolderKeys(tmp_path)

    sealing = [keys.sealing(f"tenant-{number}").tenant for number in range(4)]

    assert sealing == ["tenant-0", "tenant-1", None, None]


def test_processes_that_come_to_a_new_folder_at_once_end_up_with_one_ring(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from tidegate.producers.key_source import FolderKeys; sys.stdin.readline();"
        " keys = FolderKeys(Path(sys.argv[1]));"
        " print(*[keys.sealing(f'tenant-{number}').key_id for number in range(8)])"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "data")]
    racers = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT / "tests")
        for _ in range(4)
    ]

    answers = {racer.communicate("go\n", timeout=60)[0] for racer in racers}

    assert [racer.returncode for racer in racers] == [0] * 4
    assert len(answers) == 1
    assert len(FolderKeys(tmp_path / "data").ring().keys) == 9


# ---- the environment, and a command


def test_a_ring_in_the_environment_is_a_ring() -> None:
    keys = GivenKeys(ring(key("a")).dump().decode())

    assert keys.sealing("st-anne").key_id == "a"


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def _printing(path: Path) -> str:
    return f"{shlex.quote(sys.executable)} -c {shlex.quote(f'print(open({str(path)!r}).read())')}"


def test_a_command_is_run_again_every_five_minutes_and_for_a_key_nobody_knows(tmp_path: Path) -> None:
    path, clock = written(tmp_path / "ring.json", ring(key("a"))), Clock()
    keys = CommandKeys(_printing(path), monotonic=clock)
    keys.ring()

    written(path, ring(key("a"), key("b", hours=1)))
    clock.now = 11.0
    at_once = keys.sealing(None).key_id
    asked_for = keys.opening("b").key_id
    written(path, ring(key("c")))
    clock.now = 320.0

    assert (at_once, asked_for) == ("a", "b")
    assert keys.sealing(None).key_id == "c"


def test_a_command_that_fails_later_leaves_the_ring_as_it_was(tmp_path: Path) -> None:
    path, clock = written(tmp_path / "ring.json", ring(key("a"))), Clock()
    keys = CommandKeys(_printing(path), monotonic=clock)
    keys.ring()

    path.unlink()
    clock.now = 1_000.0

    assert keys.sealing(None).key_id == "a"


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (f"{sys.executable} -c \"import sys; print('canary-4711'); sys.exit(3)\"", "status 3"),
        (f"{sys.executable} -c \"print('canary-4711')\"", "is not a key ring"),
        ("/nowhere/canary-free", "cannot be run"),
    ],
)
def test_a_command_that_gives_no_ring_is_told_without_its_output(command: str, said: str) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        CommandKeys(command).ring()

    assert "canary-4711" not in str(caught.value)


@pytest.mark.parametrize("command", ["", "  ", "vault 'read"])
def test_a_command_that_is_none_is_told_at_once(command: str) -> None:
    with pytest.raises(UsageError, match="TIDEGATE_KEY_COMMAND"):
        CommandKeys(command)


# ---- the settings


def test_the_settings_say_where_the_ring_is(tmp_path: Path) -> None:
    given = ring(key("a")).dump().decode()

    found = [
        key_source(Settings(key_file=tmp_path / "ring.json"), tmp_path),
        key_source(Settings(keys=given), tmp_path),
        key_source(Settings(key_command="true"), tmp_path),
        key_source(Settings(), tmp_path),
        key_source(Settings()),
    ]

    assert [type(source) for source in found] == [FileKeys, GivenKeys, CommandKeys, FolderKeys, type(None)]


def test_two_rings_at_once_are_one_too_many(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="TIDEGATE_KEY_FILE and TIDEGATE_KEY_COMMAND"):
        key_source(Settings(key_file=tmp_path / "ring.json", key_command="true"))


def test_settings_do_not_show_the_ring_they_hold() -> None:
    found = ring(key("a"))

    assert base64.b64encode(found.keys[0].secret).decode() not in repr(Settings(keys=found.dump().decode()))
