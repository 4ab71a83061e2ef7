"""`tidegate keys` makes, shows, changes and checks rings, says what follows, and never shows a key."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tidegate import keys_cli
from tidegate.cli import app
from tidegate.producers.key_source import FileKeys, FolderKeys
from tidegate.producers.keyring import Key, KeyRing
from tidegate.producers.ring_file import change_ring, read_ring
from tidegate.producers.sealing import fingerprint_id, opened, seal
from tidegate.schemas.content import Texts
from tidegate.schemas.errors import KeyGone, UsageError
from typer.testing import CliRunner


@pytest.fixture(autouse=True)
def _empty_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("TIDEGATE_KEY_FILE", "TIDEGATE_KEYS", "TIDEGATE_KEY_COMMAND", "TIDEGATE_DATA_DIR", "TIDEGATE_CONTENT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "200")


def run(*arguments: object) -> str:
    """What a command prints. Raises what it raises."""
    done = CliRunner().invoke(app, ["keys", *map(str, arguments)], catch_exceptions=False, standalone_mode=False)
    if done.exception is not None:
        raise done.exception
    return " ".join((done.stdout + done.stderr).split())


def ring() -> KeyRing:
    return read_ring(Path("tidegate-data/keys.json"))


def test_a_made_ring_works_and_none_of_its_keys_is_shown() -> None:
    said = run("make", "st-anne") + run("list") + run("check")

    assert [key.tenant for key in ring().keys] == [None, "st-anne"]
    assert "st-anne: a key of its own" in said
    assert "everybody" in said
    assert "2 seal and open" in said
    for secret in (ring().fingerprint_key, *(key.secret for key in ring().keys)):
        assert base64.b64encode(secret).decode() not in said
        assert secret.hex() not in said


def test_making_a_ring_again_changes_nothing_and_adding_a_tenant_does() -> None:
    run("make")
    before = ring().keys

    with pytest.raises(UsageError, match="is there already"):
        run("make")
    said = run("make", "st-anne", "st-anne")
    again = run("make", "st-anne")

    assert ring().keys[:1] == before
    assert len(ring().keys) == 2
    assert "a key of its own" in said
    assert "had one" in again
    assert (said.startswith("changed"), again.startswith("as it was:")) == (True, True)


def test_a_ring_by_file_says_how_services_find_it(tmp_path: Path) -> None:
    said = run("make", "--file", "ring.json")

    assert f"TIDEGATE_KEY_FILE={tmp_path / 'ring.json'}" in said
    assert run("check", "--file", "ring.json")


def test_rotating_seals_with_a_new_key_and_the_old_one_still_opens() -> None:
    run("make", "st-anne")
    old = ring().own("st-anne")
    assert old is not None
    sealed = seal(Texts(prompt="p"), "c", old)

    run("rotate", "st-anne")

    new = ring().own("st-anne")
    assert new not in (None, old)
    assert ring().own(None) == ring().keys[0]
    assert opened(sealed, "c", ring().opening(old.key_id)) == Texts(prompt="p")


def test_rotating_all_gives_everybody_who_has_one_a_new_key() -> None:
    run("make", "st-anne", "harbor-health")
    before = {ring().own(tenant) for tenant in (None, "st-anne", "harbor-health")}

    run("rotate", "--all")

    after = {ring().own(tenant) for tenant in (None, "st-anne", "harbor-health")}
    assert len(ring().keys) == 6
    assert not before & after
    with pytest.raises(UsageError, match="not both"):
        run("rotate", "st-anne", "--all")


def test_a_retired_key_opens_only_and_it_is_told_what_seals_now(tmp_path: Path) -> None:
    path = tmp_path / "ring.json"
    run("make", "st-anne", "--file", path)
    everybody, own = (key.key_id for key in read_ring(path).keys)

    told = run("retire", own, "--file", path)
    warned = run("retire", everybody, "--file", path)

    assert f"For st-anne the key for everybody, {everybody}, seals now" in told
    assert "Nothing seals for everybody now" in warned
    assert read_ring(path).sealing("st-anne") is None
    assert read_ring(path).opening(own)
    assert "there is no key for everybody" in run("check", "--file", path)


def test_a_data_folder_makes_a_new_key_in_the_place_of_a_retired_one() -> None:
    run("make", "st-anne")
    own = ring().own("st-anne")
    assert own is not None

    told = run("retire", own.key_id)

    assert "The next text of st-anne makes a new key" in told
    assert FolderKeys(Path("tidegate-data")).sealing("st-anne") not in (own, ring().keys[0])


def test_shredding_asks_for_the_name_or_a_yes() -> None:
    run("make", "st-anne", "harbor-health")
    run("rotate", "st-anne")
    keys = FileKeys(Path("tidegate-data/keys.json"))
    mine = [key.key_id for key in ring().keys if key.tenant == "st-anne"]

    with pytest.raises(UsageError, match="cannot be undone"):
        run("shred", "st-anne")
    untouched = len(ring().keys)
    said = run("shred", "st-anne", "--yes")

    assert untouched == 4
    assert "2 keys of st-anne" in said
    assert [key.tenant for key in ring().keys] == [None, "harbor-health"]
    for key_id in mine:
        with pytest.raises(KeyGone):
            keys.opening(key_id)


@pytest.mark.parametrize(("typed", "left"), [("st-anne", 1), ("harbor", 2), ("yes", 2)])
def test_on_a_terminal_the_name_has_to_be_typed(monkeypatch: pytest.MonkeyPatch, typed: str, left: int) -> None:
    run("make", "st-anne")
    monkeypatch.setattr(keys_cli, "at_a_terminal", lambda: True)
    monkeypatch.setattr(keys_cli.typer, "prompt", lambda question: typed)

    if left == 1:
        run("shred", "st-anne")
    else:
        with pytest.raises(UsageError, match="nothing was shredded"):
            run("shred", "st-anne")

    assert len(ring().keys) == left


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("list",), "tidegate keys make"),
        (("check", "--file", "nowhere.json"), "tidegate keys make --file"),
        (("rotate",), "tidegate keys make"),
        (("retire", "k-1"), "tidegate keys make"),
        (("shred", "st-anne", "--yes"), "tidegate keys make"),
    ],
)
def test_without_a_ring_every_command_says_how_to_make_one(arguments: tuple[str, ...], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        run(*arguments)

    assert not Path("tidegate-data/keys.json").exists()


def test_shredding_says_what_is_lost_and_what_seals_next(tmp_path: Path) -> None:
    alone, shared = tmp_path / "alone.json", tmp_path / "shared.json"
    run("make", "st-anne")
    for path in (alone, shared):
        run("make", "st-anne", "--file", path)
    run("retire", read_ring(alone).keys[0].key_id, "--file", alone)
    own = ring().own("st-anne")
    assert own is not None

    of_folder, with_shared, with_none = (
        run("shred", "st-anne", "--yes", *more) for more in ((), ("--file", shared), ("--file", alone))
    )

    assert f"1 key of st-anne ({own.key_id})" in of_folder
    assert f"since {own.created_at:%Y-%m-%d %H:%M}Z can no longer be opened" in of_folder
    assert "Still there: redacted transcripts" in of_folder
    assert "The next text of st-anne makes a new key." in of_folder
    assert f"the key for everybody, {read_ring(shared).keys[0].key_id}, seals now" in with_shared
    assert "Nothing seals for st-anne now, and their texts are not sent; `tidegate keys make st-anne` mends it." in with_none


def test_the_list_says_of_each_tenant_what_seals_and_since_when_as_json_too() -> None:
    run("make", "st-anne")
    old = ring().own("st-anne")
    run("rotate", "st-anne")

    table, told = run("list"), json.loads(run("list", "--json"))

    new = ring().own("st-anne")
    assert old is not None
    assert new is not None
    by_id = {key["id"]: key for key in told["keys"]}
    assert by_id[new.key_id] | {"created_at": ""} == {
        "id": new.key_id,
        "tenant": "st-anne",
        "created_at": "",
        "age_days": 0,
        "seals": True,
        "retired": False,
    }
    assert (by_id[old.key_id]["seals"], by_id[old.key_id]["retired"]) == (False, True)
    assert told["fingerprint_key"] in table
    assert f"{old.key_id} st-anne {old.created_at:%Y-%m-%d %H:%M}Z new retired: opens" in table
    for secret in (ring().fingerprint_key, *(key.secret for key in ring().keys)):
        assert base64.b64encode(secret).decode() not in table + json.dumps(told)


@pytest.mark.parametrize(
    ("hours", "told"),
    [(1, "1 hour"), (49, "2 days"), (9_000, "375 days"), (-2, "new")],
    ids=["an hour", "two days", "a year", "from a clock that is ahead"],
)
def test_the_age_of_a_key_is_told_in_hours_and_then_in_days(hours: int, told: str) -> None:
    at = datetime.now(UTC) - timedelta(hours=hours, minutes=1)
    path = Path("aged.json").absolute()

    change_ring(path, lambda _: KeyRing([Key("k-1", None, b"k" * 32, at)], b"f" * 32), make=True)

    assert f"{told} seals and opens" in run("list", "--file", path)


def test_fingerprints_get_a_new_key_of_their_own_and_what_was_sealed_still_opens() -> None:
    run("make", "st-anne")
    before = ring()

    said = run("rotate", "--fingerprints")

    old, new = fingerprint_id(before.fingerprint_key), fingerprint_id(ring().fingerprint_key)
    assert old != new
    assert f"made with {new} now, and {old} is gone" in said
    assert "cannot be joined" in said
    assert ring().keys == before.keys
    with pytest.raises(UsageError, match="give --fingerprints alone"):
        run("rotate", "st-anne", "--fingerprints")


def test_a_mistyped_tenant_gets_no_key_and_is_asked_about() -> None:
    run("make", "st-anne")
    before = ring().keys

    with pytest.raises(UsageError, match=r"no key of st-ane \(did you mean st-anne\?\); --new gives"):
        run("rotate", "st-ane")
    with pytest.raises(UsageError, match="did you mean st-anne"):
        run("shred", "st-ane", "--yes")
    with pytest.raises(UsageError, match="has a key already"):
        run("rotate", "st-anne", "--new")
    with pytest.raises(UsageError, match="name the tenant"):
        run("rotate", "--new")
    assert ring().keys == before

    assert "harbor-health: seals with" in run("rotate", "harbor-health", "--new")


def test_who_or_what_is_not_there_is_named() -> None:
    run("make")

    with pytest.raises(UsageError, match=r"no key of nobody \(`tidegate keys list`"):
        run("shred", "nobody", "--yes")
    with pytest.raises(UsageError, match="no key k-0"):
        run("retire", "k-0")


def test_a_ring_in_the_environment_is_shown_and_changed_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDEGATE_KEYS", KeyRing.made().adding(Key.made("st-anne")).dump().decode())

    shown = run("list")

    assert "2 keys in TIDEGATE_KEYS" in shown
    assert run("check")
    with pytest.raises(UsageError, match="TIDEGATE_KEY_COMMAND and is changed there"):
        run("rotate")


def test_two_copies_of_a_ring_have_one_mark_and_other_rings_another(tmp_path: Path) -> None:
    run("make", "--file", "a.json")
    (tmp_path / "b.json").write_bytes((tmp_path / "a.json").read_bytes())
    (tmp_path / "b.json").chmod(0o600)
    run("make", "--file", "c.json")

    marks = [run("check", "--file", name).split()[-1] for name in ("a.json", "b.json", "c.json")]

    assert marks[0] == marks[1] != marks[2]
