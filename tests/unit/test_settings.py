"""Settings: the environment over the file over the defaults, read in one place, with errors that say what to do."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from tidegate.schemas.errors import UsageError
from tidegate.schemas.settings import DEFAULT_SCOPE_SETS, Settings

ROOT = Path(__file__).parents[2]
ROOMS = ("schemas", "producers", "sinks", "processors", "dashboards")


@pytest.fixture(autouse=True)
def _empty_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.upper().startswith("TIDEGATE_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def test_without_anything_the_defaults_hold() -> None:
    settings = Settings.read()

    assert settings.port == 8400
    assert settings.host == "127.0.0.1"
    assert settings.fsync == "full"
    assert settings.scope_sets == DEFAULT_SCOPE_SETS


def test_the_file_wins_over_the_defaults() -> None:
    Path("tidegate.toml").write_text('port = 9000\nscope_sets = [[], ["tenant"]]\ndata_dir = "here"\n')

    settings = Settings.read()

    assert settings.port == 9000
    assert settings.scope_sets == ((), ("tenant",))
    assert settings.data_dir == Path("here")


def test_the_environment_wins_over_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("tidegate.toml").write_text("port = 9000\npartitions = 4\n")
    monkeypatch.setenv("TIDEGATE_PORT", "9001")
    monkeypatch.setenv("TIDEGATE_SCOPE_SETS", '[["tenant", "model"]]')

    settings = Settings.read()

    assert settings.port == 9001
    assert settings.partitions == 4
    assert settings.scope_sets == (("tenant", "model"),)


def test_what_the_caller_says_wins_over_all_and_none_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDEGATE_PORT", "9001")
    monkeypatch.setenv("TIDEGATE_HOST", "0.0.0.0")

    settings = Settings.read(port=9002, host=None)

    assert settings.port == 9002
    assert settings.host == "0.0.0.0"


def test_an_empty_variable_is_no_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDEGATE_PORT", "")
    monkeypatch.setenv("TIDEGATE_TOKEN", "")

    settings = Settings.read()

    assert settings.port == 8400
    assert settings.token is None


def test_the_config_variable_names_the_file_instead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("tidegate.toml").write_text("port = 9000\n")
    (tmp_path / "other.toml").write_text("port = 9100\n")
    monkeypatch.setenv("TIDEGATE_CONFIG", str(tmp_path / "other.toml"))

    settings = Settings.read()

    assert settings.port == 9100


def test_a_config_variable_that_names_no_file_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDEGATE_CONFIG", "nowhere.toml")

    with pytest.raises(UsageError, match=r"TIDEGATE_CONFIG names nowhere\.toml.*correct it or unset it"):
        Settings.read()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("prot = 9000\n", "prot"),
        ("[node]\nport = 9000\n", "node"),
        ('port = "many"\n', "port"),
        ("port = 70000\n", "port"),
        ('fsync = "never"\n', "fsync"),
        ('scope_sets = [["ward"]]\n', "ward"),
        ('scope_sets = [["tenant", "tenant"]]\n', "twice"),
        ("scope_sets = [[], []]\n", "twice"),
        ("partitions = 0\n", "partitions"),
        ("port = \n", "not valid TOML"),
        ("port = 1\nport = 2\n", "not valid TOML"),
    ],
)
def test_a_fault_in_the_file_is_named_and_says_what_to_do(text: str, expected: str) -> None:
    Path("tidegate.toml").write_text(text)

    with pytest.raises(UsageError, match=expected) as caught:
        Settings.read()

    assert "tidegate.toml" in str(caught.value)


def test_a_file_that_is_not_text_is_named() -> None:
    Path("tidegate.toml").write_bytes(b'service = "\xff"\n')

    with pytest.raises(UsageError, match=r"tidegate\.toml is not valid TOML"):
        Settings.read()


@pytest.mark.parametrize("name", ["PORT", "PARTITIONS", "SCOPE_SETS", "FSYNC", "LINGER_S"])
def test_a_fault_in_the_environment_names_the_setting_and_what_to_do(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"TIDEGATE_{name}", "[")

    with pytest.raises(UsageError, match=name.lower()) as caught:
        Settings.read()

    assert f"TIDEGATE_{name}" in str(caught.value) or "TIDEGATE_<NAME>" in str(caught.value)


def test_a_secret_with_a_fault_beside_it_is_not_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDEGATE_TOKEN", "s3cret-token")
    monkeypatch.setenv("TIDEGATE_PORT", "s3cret-port")

    with pytest.raises(UsageError) as caught:
        Settings.read()

    assert "s3cret" not in str(caught.value)


def test_nothing_but_settings_reads_tidegate_variables() -> None:
    """Others may look up what is the system's, by name: XDG_STATE_HOME, NO_COLOR and such."""
    reads = re.compile(r"\b(environ|environb|getenv|getenvb)\b")
    system = re.compile(r"""\b(environ(\.get\(|\[)|getenv\()["'](?!TIDEGATE)[A-Z_]+["']""")

    offenders = [
        f"{path.relative_to(ROOT)}:{number}: {text.strip()}"
        for path in sources()
        if path != ROOT / "schemas" / "settings.py"
        for number, text in enumerate(path.read_text().splitlines(), 1)
        if reads.search(text) and not system.search(text)
    ]

    assert offenders == []


def sources() -> list[Path]:
    rooms = [path for room in ROOMS for path in (ROOT / room).rglob("*.py")]
    return sorted([ROOT / "__init__.py", ROOT / "cli.py", *rooms])
