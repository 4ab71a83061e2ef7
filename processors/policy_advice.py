"""What is allowed in a policy file and yet not what anybody meant: things to look at twice, one sentence each."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ..schemas.policy import ADDITIVE, RATES, Policy, PolicySet, RequestLimit
from ..schemas.provider_usage import canonical_provider
from .series import Series

# Who belongs to whom: the same name below another tenant is somebody else.
_WITHIN_TENANT = ("team", "user")
# Gates hear a heartbeat twice a second; less than a few of them is a hiccup, not silence.
_SHORTEST_SILENCE_S = 3


def advice(policies: PolicySet, has_price: Callable[[str], bool]) -> Iterator[tuple[str, str]]:
    """(policy or limit, what to look at), in the order of the file. `has_price(model)` asks the price book."""
    first: dict[tuple[str, str], str] = {}
    for policy in policies.policies:
        for sentence in _of(policy, has_price):
            yield policy.name, sentence
        twin = first.setdefault((Series.of(policy).id, policy.measure), policy.name)
        if twin != policy.name:
            yield policy.name, f"counts the same as {twin}; one policy with several actions says it in one place"
    for limit in policies.request_limits:
        for sentence in _of_match(limit, has_price):
            yield limit.name, sentence
    budgets = [policy.name for policy in policies.policies if policy.measure == "cost_usd"]
    if budgets and not any(policy.measure == "unpriced" for policy in policies.policies):
        yield budgets[0], "calls without a known price cost nothing here; a policy on `unpriced` tells when there are any"


def _of(policy: Policy, has_price: Callable[[str], bool]) -> Iterator[str]:
    yield from _of_match(policy, has_price)
    for name in _WITHIN_TENANT:
        if name in policy.scope and "tenant" not in (*policy.scope, *policy.match):
            yield f"{name}s of different tenants that have the same name share one counter; add tenant to `scope`"
            break
    for action in policy.actions:
        if action.model is not None and not has_price(action.model):
            yield f"no price is known for {action.model}, the model to use instead: what it costs would not be counted"
        if action.do == "block" and action.probe_every is None and policy.measure in RATES:
            yield "block without `probe_every` opens only when the window has passed; a probe would find out sooner"
    if policy.measure in ADDITIVE and policy.minimum_requests != Policy.model_fields["minimum_requests"].default:
        yield f"`minimum_requests` is for rates and quantiles; {policy.measure} is counted from the first call on"
    if policy.stale_after < _SHORTEST_SILENCE_S:
        yield f"`stale_after` below {_SHORTEST_SILENCE_S}s takes every hiccup of the network for silence"


def _of_match(entry: Policy | RequestLimit, has_price: Callable[[str], bool]) -> Iterator[str]:
    for name in entry.match.get("provider_name", ()):
        if (canonical := canonical_provider(name)) != name:
            yield f"no call has the provider {name}, so nothing matches; write {canonical}"
    for name in entry.match.get("model", ()):
        if not has_price(name):
            yield f"no known model is called {name}; if none is, nothing matches"
