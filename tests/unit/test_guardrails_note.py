"""What stands beside the offset of a partition of content."""

from __future__ import annotations

from tidegate.processors.distributed.guardrails_note import Note

NAMES = [f"producer-{number:05}-{'x' * 40}" for number in range(5_000)]


def test_a_note_keeps_the_latest_producers_that_fit_however_long_their_names_are() -> None:
    note = Note()

    for number, name in enumerate(NAMES):
        note.put({name: 1_000_000 + number})
        text = note.dump()
    kept = [Note.load(text).next_seq(name) for name in NAMES]

    assert 4_000 < len(text.encode()) <= 4_096
    assert kept[-200:] == list(range(1_004_800, 1_005_000))
    assert not any(kept[:-250])


def test_what_has_no_room_is_not_kept_in_memory_either() -> None:
    note = Note()

    note.put(dict.fromkeys(NAMES, 1))
    text = note.dump()

    assert Note.load(text)._next_seqs == note._next_seqs


def test_whoever_is_heard_again_is_among_the_latest() -> None:
    note = Note()
    note.put(dict.fromkeys(NAMES[:250], 1))

    for name in NAMES[250:1_000]:
        note.put({NAMES[0]: 2, name: 1})
        note.dump()

    assert Note.load(note.dump()).next_seq(NAMES[0]) == 2
    assert Note.load(note.dump()).next_seq(NAMES[1]) is None


def test_a_note_of_somebody_else_says_nothing() -> None:
    notes = [Note.load(text) for text in (None, "", "somebody else's", "[1]", '{"a-producer": 7}')]

    assert [note.dump() for note in notes] == ["{}"] * 5
