"""Tokens of tenants: kept as hashes, heard of at once, and written down before they open anything."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import pytest
from tidegate.processors.tenant_tokens import FILE, PREFIX, TenantTokens
from tidegate.producers.audit_log import AuditLog
from tidegate.schemas.errors import UsageError

NOW: Final = datetime(2026, 11, 2, 8, tzinfo=UTC)


def tokens_of(folder: Path, now: datetime = NOW) -> TenantTokens:
    return TenantTokens(folder, AuditLog(folder), now=lambda: now)


def actions(folder: Path) -> list[tuple[str, str]]:
    lines = (folder / "audit.jsonl").read_bytes().splitlines() if (folder / "audit.jsonl").exists() else []
    return [(entry["action"], entry["subject"]) for entry in map(json.loads, lines)]


def test_a_token_is_its_tenants_and_another_is_nobodys(tmp_path: Path) -> None:
    tokens = tokens_of(tmp_path)

    grant, token = tokens.grant("harbor-health", "grafana", timedelta(days=90))

    assert tokens.grant_of(token) == grant
    assert grant.tenant == "harbor-health"
    assert [tokens.grant_of(other) for other in ("", PREFIX, token[:-1], token + "x", token.upper(), grant.sha256)] == [
        None
    ] * 6


def test_the_file_holds_no_token_and_is_its_owners_alone(tmp_path: Path) -> None:
    _, token = tokens_of(tmp_path).grant("harbor-health", "", timedelta(days=1))

    assert (tmp_path / FILE).stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir() if token.removeprefix(PREFIX).encode() in path.read_bytes()] == []


def test_others_hear_of_a_grant_and_of_its_end_at_once(tmp_path: Path) -> None:
    node, command = tokens_of(tmp_path), tokens_of(tmp_path)
    nobody = node.grant_of(PREFIX + "x")

    grant, token = command.grant("harbor-health", "", timedelta(days=1))
    heard = node.grant_of(token)
    command.revoke(lambda one: one.id == grant.id)

    assert nobody is None
    assert heard == grant
    assert node.grant_of(token) is None
    assert node.grants() == ()


def test_a_token_ends_when_its_days_are_over(tmp_path: Path) -> None:
    grant, _ = tokens_of(tmp_path).grant("harbor-health", "", timedelta(days=1))

    assert not grant.has_expired(NOW + timedelta(days=1) - timedelta(microseconds=1))
    assert grant.has_expired(NOW + timedelta(days=1))


def test_the_first_use_is_written_down_once_also_by_two_at_once_and_after_a_restart(tmp_path: Path) -> None:
    grant, token = tokens_of(tmp_path).grant("harbor-health", "", timedelta(days=1))

    for tokens in (tokens_of(tmp_path), tokens_of(tmp_path)):
        tokens.used(grant, "10.0.0.7")  # as it was before anybody used it
        found = tokens.grant_of(token)
        assert found is not None
        tokens.used(found, "10.0.0.7")

    assert actions(tmp_path) == [("access.granted", "harbor-health"), ("access.first_used", "harbor-health")]
    assert found.first_used_at == NOW


def test_what_cannot_be_written_down_is_not_done(tmp_path: Path) -> None:
    tokens = tokens_of(tmp_path)
    grant, token = tokens.grant("harbor-health", "", timedelta(days=1))
    (tmp_path / "audit.jsonl").unlink()
    (tmp_path / "audit.jsonl").mkdir()

    for act in (
        lambda: tokens.grant("hill", "", timedelta(days=1)),
        lambda: tokens.revoke(lambda _: True),
        lambda: tokens.used(grant, None),
    ):
        with pytest.raises(UsageError, match="audit log"):
            act()

    assert tokens.grants() == (grant,)
    assert tokens.grant_of(token) == grant


@pytest.mark.parametrize("tenant", ["*", "", "a\nb", "x" * 129])
def test_a_token_is_for_a_tenant_that_calls_can_have(tmp_path: Path, tenant: str) -> None:
    with pytest.raises(UsageError):
        tokens_of(tmp_path).grant(tenant, "", timedelta(days=1))

    assert actions(tmp_path) == []
    assert not (tmp_path / FILE).exists()


def test_a_file_that_others_may_read_or_that_is_none_opens_nothing(tmp_path: Path) -> None:
    _, token = tokens_of(tmp_path).grant("harbor-health", "", timedelta(days=1))
    node = tokens_of(tmp_path)

    os.chmod(tmp_path / FILE, 0o644)
    with pytest.raises(UsageError, match="chmod 600"):
        node.grant_of(token)
    os.chmod(tmp_path / FILE, 0o600)
    mended = node.grant_of(token)
    (tmp_path / FILE).write_text("[{}]")

    assert mended is not None
    for _ in range(2):
        with pytest.raises(UsageError, match="not a list of tokens"):
            node.grant_of(token)
