"""However a text is made, it is read in time that grows with its length and no faster: the reading of forms, cues and names."""

from __future__ import annotations

from collections.abc import Callable
from time import process_time

import pytest
from tidegate.processors.guardrails.phi import ner_rules, prefilter, structure
from tidegate.processors.guardrails.phi.ner import NameFinder
from tidegate.processors.guardrails.phi.ner_words import read_lists
from tidegate.processors.guardrails.phi.readings import plain, unveiled

SHORT, LONG = 6_000, 48_000
# Quadratic is a ratio of eight; a busy machine makes less than this of a straight line.
MOST = 3.0

FORMS = {
    "blanks": " ",
    "lines": "\n",
    "colons": "a:",
    "labels": "Name: Will ",
    "bars": "|a|b|\n",
    "commas": "a,b\n",
    "quotes": '"',
    "objects": '{"name":[',
    "escapes": '\\"',
    "tags": "<a b=",
    "cells": "<td>",
    "segments": "PID|1||",
    "circumflexes": "^",
    "entities": "&#45;",
    "elements": "NM1*IL*1*",
    "tuples": "(dob) VALUES (1),",
    "speakers": "] Rose May ",
    "accents": "e\u0301",
    "labels of numbers": "MRN number is ",
    "cues": "her son will ",
    "capitals": "SMITH, JOHN ",
    "streets": "12 ELM ",
    "dots": "Name....",
}


def seconds(read: Callable[[str], object], text: str) -> float:
    taken = []
    for _ in range(2):
        begun = process_time()
        read(text)
        taken.append(process_time() - begun)
    return min(taken)


def scanned(text: str) -> None:
    list(structure.find(text))
    list(ner_rules.by_form(text, read_lists()))
    unveiled(plain(text))
    list(prefilter.labels(text, 0, len(text)))


@pytest.mark.parametrize("form", FORMS)
def test_a_text_eight_times_as_long_takes_no_longer_a_character(form: str) -> None:
    unit = FORMS[form]
    short, long = ((unit * length)[:length] for length in (SHORT, LONG))

    ratio = seconds(scanned, long) / LONG / (max(seconds(scanned, short), 0.001) / SHORT)

    assert ratio < MOST


@pytest.mark.parametrize("unit", ["SMITH, JOHN ", "rosa martinez ", "Rosa Martinez\n"])
def test_names_without_end_are_settled_in_time(unit: str) -> None:
    finder = NameFinder.load()
    short, long = ((unit * length)[:length] for length in (SHORT, LONG))

    ratio = seconds(lambda text: finder.find([text]), long) / LONG / (seconds(lambda text: finder.find([text]), short) / SHORT)

    assert ratio < MOST
