"""Faithfulness outside the clinic: an answer out of a plain text stays, and the same answer with one thing wrong falls."""

from __future__ import annotations

import pytest
from tidegate.processors.guardrails.encoder import OfflineEncoder
from tidegate.processors.guardrails.grounding.detector import FaithfulnessDetector
from tidegate.processors.guardrails.ports import Batch, Sample

MUSEUM = (
    "The Harbour Museum opened in 1987 in a former grain store. It holds 4,200 objects, among them the oldest lighthouse "
    "lens in the country. Admission is 12 euros, and free for children under 14. The museum is closed on Mondays. The café "
    "does not take cards."
)
LEASE = (
    "The tenant pays 950 dollars a month, due on the fifth. The deposit is two months' rent. Pets are not allowed, except "
    "for fish. Either side may end the lease with 60 days' notice. The landlord pays for water and heating; the tenant pays"
    " for electricity."
)
RECIPE = (
    "Knead the flour, 300 grams, with the butter and one egg. Let the dough rest for 30 minutes in the fridge. Bake at 180 "
    "degrees for 25 minutes on the lower rack. The tart keeps for three days. Do not freeze it."
)
TRAIN = (
    "The night train leaves Marlow at 21:40 and reaches Castor the next morning. Seats must be reserved. Bicycles are "
    "carried in the last carriage. The fare is 64 francs one way. There is no dining car on Sundays."
)
PUMP = (
    "The pump delivers 15 liters per minute and weighs 9 kilograms. It must not run dry. Clean the filter every two weeks. "
    "The warranty covers the motor for five years and the seals for one year. The red lamp means that the tank is empty."
)
HIKE = (
    "The trail to Lake Orrin is 11 miles long and climbs 2,100 feet. It starts behind the old mill. Dogs must be kept on a "
    "leash. The bridge was washed away in March 2019 and has been rebuilt. Camping is allowed on the east shore only."
)
# Context, question, what it bears out, and what it does not.
PAIRS = [
    (MUSEUM, "When did it open?", "The museum opened in 1987.", "The museum opened in 1978."),
    (MUSEUM, "What was it before?", "It is housed in a former grain store.", "It is housed in a former prison."),
    (MUSEUM, "How large is it?", "It holds 4,200 objects.", "It holds 2,400 objects."),
    (MUSEUM, "What is it to get in?", "Admission is 12 euros.", "Admission is 20 euros."),
    (MUSEUM, "When is it closed?", "The museum is closed on Mondays.", "The museum is not closed on Mondays."),
    (MUSEUM, "Can I pay by card?", "The café does not take cards.", "The café takes cards."),
    (LEASE, "What is the rent?", "The rent is 950 dollars a month.", "The rent is 590 dollars a month."),
    (LEASE, "When is it due?", "It is due on the fifth.", "It is due on the ninth."),
    (LEASE, "And the deposit?", "The deposit is two months' rent.", "The deposit is six months' rent."),
    (LEASE, "May I have a dog?", "Pets are not allowed.", "Pets are allowed."),
    (
        LEASE,
        "What is the notice?",
        "The lease may be ended with 60 days' notice.",
        "The lease may be ended with 60 weeks' notice.",
    ),
    (LEASE, "Who pays for water?", "The landlord pays for water and heating.", "The landlord pays for parking and heating."),
    (RECIPE, "How much flour?", "Use 300 grams of flour.", "Use 300 kilograms of flour."),
    (RECIPE, "How long does it rest?", "Let the dough rest for 30 minutes.", "Let the dough rest for 90 minutes."),
    (RECIPE, "How hot?", "Bake it at 180 degrees.", "Bake it at 240 degrees."),
    (RECIPE, "Where does it go?", "Bake it on the lower rack.", "Bake it on the upper rack."),
    (RECIPE, "How long does it keep?", "The tart keeps for three days.", "The tart keeps for three weeks."),
    (RECIPE, "What goes in?", "Knead the flour with the butter.", "Knead the flour with the margarine."),
    (TRAIN, "When does it leave?", "The night train leaves at 21:40.", "The night train leaves at 23:15."),
    (TRAIN, "Do I reserve?", "Seats must be reserved.", "Seats need not be reserved."),
    (TRAIN, "Where are bicycles?", "Bicycles are in the last carriage.", "Bicycles are in the first carriage."),
    (TRAIN, "What is the fare?", "The fare is 64 francs one way.", "The fare is 46 francs one way."),
    (TRAIN, "Where does it go?", "The train goes to Castor.", "The train goes to Belford."),
    (PUMP, "How much does it deliver?", "It delivers 15 liters per minute.", "It delivers 15 liters per hour."),
    (PUMP, "What does it weigh?", "The pump weighs 9 kilograms.", "The pump weighs 19 kilograms."),
    (PUMP, "Can it run dry?", "The pump must not run dry.", "The pump may run dry."),
    (
        PUMP,
        "What is covered?",
        "The warranty covers the motor for five years.",
        "The warranty covers the motor for eight years.",
    ),
    (HIKE, "How long is it?", "The trail is 11 miles long.", "The trail is 17 miles long."),
    (HIKE, "What became of the bridge?", "The bridge has been rebuilt.", "The bridge has not been rebuilt."),
    (HIKE, "Where may I camp?", "Camping is allowed on the east shore.", "Camping is allowed on the west shore."),
]


@pytest.fixture(scope="module")
def scores() -> list[tuple[float, float]]:
    """Of each pair, what it bears out and what it does not."""
    samples = [Sample(answer, asked, answer, (text,)) for text, asked, *answers in PAIRS for answer in answers]
    verdicts = FaithfulnessDetector.load().assess(Batch(samples, OfflineEncoder.load()))
    found = [verdict.scores[("response", "faithfulness")] for verdict in verdicts]
    return list(zip(found[::2], found[1::2], strict=True))


@pytest.mark.parametrize("place", range(len(PAIRS)))
def test_an_answer_out_of_a_plain_text_is_faithful(scores: list[tuple[float, float]], place: int) -> None:
    said, _ = scores[place]

    faithful = said > 0.5

    assert faithful


@pytest.mark.parametrize("place", range(len(PAIRS)))
def test_the_same_answer_with_one_thing_wrong_is_less_so(scores: list[tuple[float, float]], place: int) -> None:
    said, altered = scores[place]

    lower = altered < said

    assert lower
