"""Processes spend one budget at once against a real node: what they overspend stays within what `producers.leases` states.

The trials are the bench's, with less money. What was spent against the ledger, to the nano-dollar, is checked by `hold`.
"""

from __future__ import annotations

import pytest
from tidegate.bench.overspend import Outcome, Trial, hold

PLAIN = Trial("all is well", 400, processes=3, threads=3)
KILLED = Trial("the node is killed, and back after 1 s", 600, processes=3, threads=3, killed=True)
CUT = Trial("two gates of three are cut off", 600, processes=3, threads=3, cut=True)
UNLEASED = Trial("no leases, signals alone", 400, processes=3, threads=3, asks="check")


@pytest.fixture(scope="module")
def outcomes() -> dict[Trial, Outcome]:
    trials = (PLAIN, KILLED, CUT, UNLEASED)
    return dict(zip(trials, hold(trials, lambda _: None), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("trial", [PLAIN, KILLED, CUT], ids=lambda trial: trial.name)
def test_gates_together_spend_no_more_than_the_limit_and_the_stated_bound(trial: Trial, outcomes: dict[Trial, Outcome]) -> None:
    outcome = outcomes[trial]

    assert outcome.spend <= trial.limit + outcome.bound
    assert outcome.unheard == 0


@pytest.mark.slow
@pytest.mark.parametrize("trial", [PLAIN, KILLED, CUT], ids=lambda trial: trial.name)
def test_no_call_is_refused_for_good_that_could_be_paid_and_all_the_money_can_be_used(
    trial: Trial, outcomes: dict[Trial, Outcome]
) -> None:
    outcome = outcomes[trial]

    assert outcome.false_blocks == ()
    assert outcome.gave_up == 0
    assert outcome.refusals
    assert outcome.spend > 0.95 * trial.limit


@pytest.mark.slow
def test_the_trial_tells_when_the_bound_is_broken(outcomes: dict[Trial, Outcome]) -> None:
    assert not outcomes[UNLEASED].held
