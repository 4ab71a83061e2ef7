"""A node with an hour of a clinic's traffic that is the same each time but for the hour, and the sums of it in plain Python."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from node_process import NodeProcess, eventually
from support import response
from tidegate.producers.connect import connect

# A name that would be a way in, if ever a page made markup of data.
MARKUP: Final = '<img src="x" onerror="alert(1)">'
LEAKING: Final = "c-leak"
PROMPT: Final = "Please summarise the visit of Maria Gonzalez, born on March 3, 1961, MRN 84736251."
ANSWER: Final = "Maria Gonzalez was seen for a cough; call her at (212) 555-0147."

# What harbor-health spends in the hour is above its limit, what st-anne spends is half of its.
POLICIES: Final = """
policies:
  - name: clinic-cost
    description: What a clinic may spend in any day
    scope: [tenant]
    measure: cost_usd
    window: {rolling: 24h}
    limit: 0.3
    warn_at: [0.4]
    action: block
    owner: finops
    runbook: https://runbooks.example/clinic-cost
"""
_MODELS: Final = ("gpt-4o", "gpt-4o-mini", "claude-sonnet-4-5")
_PROVIDERS: Final = {"gpt-4o": "openai", "gpt-4o-mini": "openai", "claude-sonnet-4-5": "anthropic"}


@dataclass
class Clinic:
    node: NodeProcess
    calls: list[dict[str, Any]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return self.node.url

    def of(self, **wanted: str) -> list[dict[str, Any]]:
        return [call for call in self.calls if all(call.get(name) == value for name, value in wanted.items())]

    def add(self, *calls: dict[str, Any]) -> None:
        answer = self.node.post(list(calls))
        assert answer.status == 202, answer.data
        self.calls.extend(calls)


def traffic(now: datetime) -> list[dict[str, Any]]:
    """120 calls in the 50 minutes before the last two: tenants, models and versions by turns; each tenth failed; a spike."""
    made = []
    for n in range(120):
        model = _MODELS[n % 3]
        at = now - timedelta(minutes=2 + n % 50, seconds=n % 7)
        made.append(
            response(
                f"c-{n:03}",
                started_at=f"{at:%Y-%m-%dT%H:%M:%SZ}",
                tenant="harbor-health" if n % 3 else "st-anne",
                team=("pharmacy", "triage")[n % 2],
                user=f"user-{n % 5}",
                service="desk",
                provider_name=_PROVIDERS[model],
                request_model=model,
                prompt_name="triage",
                prompt_version="2.1" if n % 4 else "2.0",
                input_tokens=1_000 + n,
                output_tokens=100 + n % 9,
                latency_s=0.5 + (n % 20) / 10,
                time_to_first_token_s=0.2,
                **({"error_type": "timeout"} if n % 10 == 4 else {}),
            )
        )
    spike = now - timedelta(minutes=20)
    made += [
        response(
            f"spike-{n:02}",
            started_at=f"{spike.replace(second=n):%Y-%m-%dT%H:%M:%SZ}",
            tenant="harbor-health",
            provider_name="openai",
            request_model="gpt-4o",
            prompt_name="triage",
            prompt_version="2.1",
            input_tokens=9_000,
            output_tokens=900,
            latency_s=4.0,
            time_to_first_token_s=1.0,
        )
        for n in range(12)
    ]
    made.append(
        response("markup", started_at=f"{now - timedelta(minutes=3):%Y-%m-%dT%H:%M:%SZ}", request_model=MARKUP, tenant=MARKUP)
    )
    made.append(
        response(
            LEAKING, started_at=f"{now - timedelta(minutes=4):%Y-%m-%dT%H:%M:%SZ}", prompt_name="triage", prompt_version="2.1"
        )
    )
    return made


@contextmanager
def clinic_node(folder: Path, *arguments: str, **more: str) -> Iterator[Clinic]:
    """The node, once all of its traffic is in the store, judged, and told of."""
    policies = folder / "policies.yaml"
    policies.write_text(POLICIES)
    with NodeProcess(folder / "data", "--policies", str(policies), *arguments, **more) as node:
        clinic = Clinic(node)
        clinic.add(*traffic(datetime.now(UTC).replace(microsecond=0)))
        [leak] = clinic.of(call_id=LEAKING)
        with connect(str(folder / "data")) as tide:
            known = {name: leak[name] for name in ("call_id", "tenant", "request_model", "prompt_name", "prompt_version")}
            assert tide.emit_content(
                {**known, "started_at": datetime.fromisoformat(leak["started_at"])}, {"prompt": PROMPT, "response": ANSWER}
            )
        eventually(
            lambda: node.rows("SELECT (SELECT count() FROM calls) + (SELECT count() FROM transcripts) AS n")[0]["n"],
            lambda found: int(found) >= len(clinic.calls) + 1,
            120,
        )
        node.settled()
        yield clinic
