"""docker-compose.yml, the Dockerfile and .env.example hold together: every name in them is one that somebody reads.

Docker itself does not run here. What a container would find is checked against the official schema, the repository's files,
our settings and our command line.
"""

from __future__ import annotations

import fnmatch
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from io import BytesIO
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import typer
import yaml
from deployment import COMPOSE_FILE, ENV_EXAMPLE, ROOT, VARIABLE, compose, ours, services
from dockerfile_parse import DockerfileParser
from tidegate.cli import app
from tidegate.processors.distributed.roles import BY_NAME
from tidegate.schemas.kafka_url import KafkaAddress
from tidegate.schemas.settings import Settings
from tidegate.sinks.engines import Server

SERVICES = services()
OURS = ours()
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
# The one thing that is over once it is done.
ONE_SHOT = {"topics"}
# Where the others' images listen, as their documentation says.
LISTENS = {"clickhouse": {8123, 9000}, "prometheus": {9090}, "alertmanager": {9093}, "grafana": {3000}}


@pytest.fixture(autouse=True)
def _empty_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.upper().startswith("TIDEGATE_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


# the compose file


def test_the_compose_file_is_valid_by_the_official_schema() -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(COMPOSE_FILE)]

    done = subprocess.run(command, capture_output=True, text=True)

    assert done.returncode == 0, done.stdout + done.stderr


def test_all_the_parts_are_there() -> None:
    assert set(SERVICES) == {
        *("kafka", "clickhouse", "prometheus", "alertmanager", "grafana"),
        *("topics", "meter", "policies", "sink", "guardrails", "notifier", "node"),
    }
    assert set(OURS) == {"topics", "meter", "policies", "sink", "guardrails", "notifier", "node"}


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_watched_bounded_and_started_again(name: str) -> None:
    service = SERVICES[name]

    assert re.fullmatch(r"\d+[mg]", service["mem_limit"])
    assert service["logging"]["options"]["max-size"]
    assert service["restart"] == ("no" if name in ONE_SHOT else "unless-stopped")
    assert service.get("healthcheck", {}).get("disable", False) is (name in ONE_SHOT)
    if name not in OURS:
        assert service["healthcheck"]["test"][0] in ("CMD", "CMD-SHELL")


@pytest.mark.parametrize("name", SERVICES)
def test_an_image_is_pinned_to_a_version(name: str) -> None:
    image, _, tag = SERVICES[name]["image"].partition(":")

    assert tag == "local" if name in OURS else re.search(r"\d+\.\d+\.\d+", tag), image


@pytest.mark.parametrize("name", OURS)
def test_our_containers_can_do_no_more_than_they_need(name: str) -> None:
    service = OURS[name]

    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert not service.get("privileged")


def test_who_waits_for_somebody_waits_for_what_they_will_be() -> None:
    for name, service in SERVICES.items():
        needs = service.get("depends_on", {})
        for other in needs:
            assert other in SERVICES, f"{name} waits for {other}"
            condition = needs[other]["condition"] if isinstance(needs, dict) else "service_started"
            assert condition != "service_completed_successfully" or other in ONE_SHOT
            assert condition != "service_healthy" or other not in ONE_SHOT


def test_workers_wait_for_the_topics_and_who_writes_to_the_store_for_the_store() -> None:
    for name, service in OURS.items():
        if name not in ONE_SHOT:
            assert service["depends_on"]["topics"]["condition"] == "service_completed_successfully"
        if "TIDEGATE_STORE" in service["environment"]:
            assert service["depends_on"]["clickhouse"]["condition"] == "service_healthy"


def test_every_volume_is_declared_and_used_and_every_mounted_file_exists() -> None:
    used = set()
    for name, service in SERVICES.items():
        for volume in service.get("volumes", ()):
            source, target, *mode = volume.split(":")
            assert target.startswith("/")
            if source.startswith("./"):
                assert (ROOT / source).exists(), f"{name} mounts {source}"
                assert mode == ["ro"], f"{name} could write to {source}"
            else:
                used.add(source)

    assert used == set(compose()["volumes"])


def test_what_a_container_remembers_is_on_a_volume() -> None:
    kept = {name: [v.split(":")[1] for v in service.get("volumes", ())] for name, service in SERVICES.items()}

    assert SERVICES["kafka"]["environment"]["KAFKA_LOG_DIRS"] in kept["kafka"]
    assert dockerfile_env()["TIDEGATE_DATA_DIR"] in kept["node"]
    assert f"{dockerfile_env()['TIDEGATE_DATA_DIR']}:" in OURS["meter"]["tmpfs"][1]


def test_ports_are_published_on_loopback_once_and_lead_to_somebody_who_listens() -> None:
    published = []
    for name, service in SERVICES.items():
        for port in service.get("ports", ()):
            host, outside, inside = port.split(":")
            assert host == "127.0.0.1", f"{name} is open to other machines"
            assert int(inside) in listens(name)
            published.append(outside)

    assert len(set(published)) == len(published) == 6


def listens(name: str) -> set[int]:
    """The ports on which a service listens."""
    if name == "kafka":
        return {int(part.rpartition(":")[2]) for part in SERVICES[name]["environment"]["KAFKA_LISTENERS"].split(",")}
    if name in OURS:
        settings = settings_of(name)
        return {settings.port} if name == "node" else {settings.worker_port}
    return LISTENS[name]


# settings


def settings_of(name: str) -> Settings:
    """What a container of ours reads from its environment."""
    environment = dockerfile_env() | OURS[name].get("environment", {})
    with pytest.MonkeyPatch.context() as patch:
        for key, value in environment.items():
            if key.startswith("TIDEGATE_"):
                patch.setenv(key, value)
        return Settings.read()


@pytest.mark.parametrize("name", OURS)
def test_every_setting_of_a_container_is_one_that_the_code_reads(name: str) -> None:
    names = {key for key in dockerfile_env() | OURS[name].get("environment", {}) if key.startswith("TIDEGATE_")}

    unknown = {key for key in names if key.removeprefix("TIDEGATE_").lower() not in Settings.model_fields}

    assert unknown == set()


@pytest.mark.parametrize("name", OURS)
def test_a_containers_settings_are_valid_and_lead_to_services(name: str) -> None:
    settings = settings_of(name)

    host, _, port = KafkaAddress.parse(settings.url).bootstrap.partition(":")
    assert int(port) in listens(host)
    if settings.store is not None:
        store = Server(settings.store)
        assert store.database == SERVICES["clickhouse"]["environment"]["CLICKHOUSE_DB"]
        assert "@clickhouse:8123/" in settings.store
    if settings.policy_file is not None:
        folder, target, _ = OURS[name]["volumes"][0].split(":")
        assert str(settings.policy_file.parent) == target
        assert (ROOT / folder / settings.policy_file.name).is_file()


def test_who_has_doors_has_their_health_watched_at_their_port() -> None:
    for name in set(OURS) - ONE_SHOT:
        environment = dockerfile_env() | OURS[name]["environment"]
        settings = settings_of(name)

        assert int(environment["HEALTH_PORT"]) == (settings.port if name == "node" else settings.worker_port)
        assert settings.host == settings.worker_host == "0.0.0.0"


def test_the_node_listens_beyond_its_container_and_so_has_a_token() -> None:
    assert settings_of("node").token == "secret-of-TIDEGATE_TOKEN"


@pytest.mark.parametrize("name", OURS)
def test_every_command_is_one_that_the_command_line_has(name: str) -> None:
    command = command_of(OURS[name]["command"])

    assert command.info_name == {"topics": "create", "node": "up"}.get(name, "worker")
    if command.info_name == "worker":
        assert command.params["role"] == name
        assert name in BY_NAME


def command_of(words: list[str]) -> Any:
    """The parsed command that these words would run. Raises as the command line does when they are wrong."""
    assert words[0] in PYPROJECT["project"]["scripts"]
    command: Any = typer.main.get_command(app)
    context = command.make_context(words[0], words[1:])
    while hasattr(command, "commands"):
        name, *rest = [*context._protected_args, *context.args]
        assert name in command.commands, f"the command line has no {name}"
        command = command.commands[name]
        context = command.make_context(name, rest, parent=context)
    return context


def test_the_kafka_listeners_that_are_advertised_exist() -> None:
    environment = SERVICES["kafka"]["environment"]
    listeners = dict(part.split("://") for part in environment["KAFKA_LISTENERS"].split(","))
    advertised = dict(part.split("://") for part in environment["KAFKA_ADVERTISED_LISTENERS"].split(","))
    protocols = dict(part.split(":") for part in environment["KAFKA_LISTENER_SECURITY_PROTOCOL_MAP"].split(","))

    assert set(protocols) == set(listeners) == {*advertised, "CONTROLLER"}
    assert advertised["INSIDE"] == "kafka" + listeners["INSIDE"]
    assert advertised["OUTSIDE"] == "127.0.0.1" + listeners["OUTSIDE"]


# secrets


def test_no_secret_is_in_a_file() -> None:
    for name, service in compose_text_services().items():
        for key, value in service.items():
            if re.search(r"PASSWORD|TOKEN|SECRET|CREDENTIAL|KEYS", key):
                assert re.fullmatch(r"\$\{[A-Z_]+:\?[^}]+\}", value), f"{name}: {key}"
    for line in ENV_EXAMPLE.read_text().splitlines():
        key, found, value = line.partition("=")
        if found and not line.startswith("#") and re.search(r"PASSWORD|TOKEN|KEYS", key):
            assert value == "", key


def compose_text_services() -> dict[str, dict[str, Any]]:
    """The services' environments with their variables as they stand in the file."""
    found = yaml.safe_load(COMPOSE_FILE.read_text())["services"]
    return {name: service["environment"] for name, service in found.items() if isinstance(service.get("environment"), dict)}


def test_every_variable_is_explained_in_the_example_with_the_default_that_holds() -> None:
    explained = dict(line.split("=", 1) for line in ENV_EXAMPLE.read_text().splitlines() if re.match(r"[A-Z_]+=", line))
    used = {name: (kind, rest) for name, kind, rest in VARIABLE.findall(COMPOSE_FILE.read_text())}
    used["TIDEGATE_TOKEN"] = ("?", "")

    assert set(explained) == set(used)
    for name, (kind, default) in used.items():
        assert kind in ("-", "?"), f"{name} would be empty without a word"
        assert explained[name] == (default if kind == "-" else "")


def test_the_reader_of_the_store_has_its_password_from_the_environment_and_only_reads() -> None:
    found = ElementTree.parse(ROOT / "deploy" / "clickhouse" / "reader.xml").getroot()

    password = found.find("users/reader/password")
    assert password is not None
    assert not password.text
    assert password.attrib["from_env"] in SERVICES["clickhouse"]["environment"]
    assert all(str(query.text).startswith("GRANT SELECT ON tidegate.") for query in found.findall("users/reader/grants/query"))
    assert "transcripts" not in ElementTree.tostring(found, encoding="unicode")
    assert found.findtext("profiles/reader/readonly") == "1"


def test_the_stores_limits_are_well_formed() -> None:
    assert ElementTree.parse(ROOT / "deploy" / "clickhouse" / "limits.xml").getroot().tag == "clickhouse"


# the image


def parsed() -> DockerfileParser:
    # A copy in memory: the parser can write, too.
    return DockerfileParser(fileobj=BytesIO((ROOT / "Dockerfile").read_bytes()))


def instructions(name: str) -> list[str]:
    return [str(entry["value"]) for entry in parsed().structure if entry["instruction"] == name]


def dockerfile_env() -> dict[str, str]:
    return dict(parsed().envs)


def test_both_stages_begin_with_the_same_pinned_python() -> None:
    images = parsed().parent_images

    assert len(images) == 2
    assert len(set(images)) == 1
    version = re.fullmatch(r"python:(\d+\.\d+)-slim-bookworm", images[0])
    assert version is not None
    assert version[1] == PYPROJECT["project"]["requires-python"].removeprefix(">=")


def copied() -> list[str]:
    """What is copied from the repository."""
    sources = [shlex.split(value)[:-1] for value in instructions("COPY") if not value.startswith("--from=")]
    return [source for group in sources for source in group]


def test_everything_that_is_copied_exists_and_is_let_through() -> None:
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    allowed = [line[1:] for line in lines if line.startswith("!")]

    assert lines[0] == "*"
    for source in copied():
        assert list(ROOT.glob(source)), source
        assert source in allowed
    assert set(allowed) == set(copied())


def test_every_package_is_copied_and_nothing_else_is() -> None:
    packages = {name.partition(".")[2].partition(".")[0] for name in PYPROJECT["tool"]["setuptools"]["packages"]} - {""}

    folders = {source for source in copied() if (ROOT / source).is_dir()}

    assert folders == packages
    assert not any(fnmatch.fnmatch(".env", pattern) for pattern in copied())


def test_it_installs_extras_that_exist_at_the_versions_that_were_tested() -> None:
    (install,) = [value for value in instructions("RUN") if "pip install" in value]

    match = re.search(r"'\.\[([a-z,]+)\]'", install)
    assert match is not None
    assert set(match[1].split(",")) <= set(PYPROJECT["project"]["optional-dependencies"])
    assert "-c constraints.txt" in install


def test_it_does_not_run_as_root_and_owns_its_folder() -> None:
    made = next(value for value in instructions("RUN") if "useradd" in value)

    assert re.fullmatch(r"[1-9]\d+:[1-9]\d+", instructions("USER")[-1])
    assert f"--uid {instructions('USER')[-1].partition(':')[0]}" in made
    assert f"--home-dir {dockerfile_env()['TIDEGATE_DATA_DIR']} --create-home" in made
    assert instructions("WORKDIR")[-1] == dockerfile_env()["TIDEGATE_DATA_DIR"]


def test_it_says_where_it_listens_and_how_its_health_is_asked() -> None:
    environment = dockerfile_env()

    assert instructions("EXPOSE") == [f"{environment['TIDEGATE_PORT']} {environment['TIDEGATE_WORKER_PORT']}"]
    (health,) = instructions("HEALTHCHECK")
    assert "/healthz" in health
    assert environment["HEALTH_PORT"] == environment["TIDEGATE_WORKER_PORT"]


def test_its_question_after_health_is_python_that_compiles() -> None:
    (health,) = instructions("HEALTHCHECK")

    program, option, code = json.loads(health[health.index("[") :])
    assert (program, option) == ("python", "-c")
    compile(code, "healthcheck", "exec")


def test_what_it_starts_by_default_is_a_command() -> None:
    command = json.loads(instructions("CMD")[-1])

    assert command_of(command).params["role"] == "all"
