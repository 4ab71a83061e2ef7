"""The heads that ship are what their trainers make of the development data, and their cards say what was measured."""

from __future__ import annotations

import json

import pytest
from tidegate.processors.guardrails.heads.linear import LinearHead
from tidegate.processors.guardrails.heads.toxicity import WEIGHTS as TOXICITY
from tidegate.processors.guardrails.injection.detector import WEIGHTS as INJECTION

pytestmark = pytest.mark.slow


def card_of(head: LinearHead) -> dict[str, dict[str, dict[str, float]]]:
    numbers: dict[str, dict[str, dict[str, float]]] = head.card["numbers"]
    return numbers


def trained(name: str) -> LinearHead:
    pytest.importorskip("sklearn", reason="training needs scikit-learn: pip install 'tidegate[evaluate]'")
    from threadpoolctl import threadpool_limits  # comes with scikit-learn
    from tidegate.bench.training import sources, train_injection, train_toxicity

    if not (sources.DEV.exists() and sources.REAL_CALLS.exists()):
        pytest.skip("the development data is not here; name it in TIDEGATE_DEV_DATA and TIDEGATE_REAL_CALLS")
    with threadpool_limits(1):  # more threads than cores make it slower, many times over
        return {"toxicity": train_toxicity.trained, "injection": train_injection.trained}[name]()


def test_the_toxicity_head_keeps_its_promise_on_sources_it_has_not_seen() -> None:
    shipped = json.loads(TOXICITY.with_suffix(".json").read_text("utf-8"))["numbers"]

    numbers = card_of(trained("toxicity"))

    for name, source in numbers["unseen_source"].items():
        assert source["auroc"] == pytest.approx(shipped["unseen_source"][name]["auroc"], abs=0.01)
        assert source["auroc"] >= 0.9
    assert all(share <= 0.05 for lots in numbers["false_alarms"].values() for share in lots.values())


def test_the_injection_head_keeps_its_promise_on_sources_it_has_not_seen() -> None:
    shipped = json.loads(INJECTION.with_suffix(".json").read_text("utf-8"))["numbers"]

    numbers = card_of(trained("injection"))

    for name, source in numbers["unseen_source"].items():
        assert source["recall"] == pytest.approx(shipped["unseen_source"][name]["recall"], abs=0.03)
        assert source["recall"] >= 0.75
    assert all(share <= 0.02 for lots in numbers["false_alarms"].values() for share in lots.values())
