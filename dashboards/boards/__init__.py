"""The boards, in the order in which people look at them: what they show and nothing of how it is drawn.

Enters: nothing. Leaves: `BOARDS`. Whoever draws (Grafana's JSON, the console) imports it; it imports `panel` alone.
"""

from __future__ import annotations

from typing import Final

from ..panel import Board
from .budgets import BUDGETS
from .cost import COST
from .guardrails import GUARDRAILS
from .latency import LATENCY
from .overview import OVERVIEW
from .pipeline import PIPELINE
from .prompts import PROMPTS

BOARDS: Final[tuple[Board, ...]] = (OVERVIEW, COST, LATENCY, GUARDRAILS, BUDGETS, PROMPTS, PIPELINE)
